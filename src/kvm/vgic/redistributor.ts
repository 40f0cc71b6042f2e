/**
 * A redistributor's two frames (GICR_*): identification and LPI tables, and the registers of one
 * vCPU's SGIs and PPIs. There are no LPIs (no ITS): the tables' addresses are kept and never used.
 * Accesses come aligned and of a size REDISTRIBUTOR_REGIONS allows; a 64-bit one as two of 32 bits.
 * Linux: vgic_v3_rd_registers in arch/arm64/kvm/vgic/vgic-mmio-v3.c.
 */

import type { Delivery } from './delivery.ts';
import { readInterruptRegister, writeInterruptRegister } from './interrupt-registers.ts';
import { type Accessor, type Frame, type RegisterRegion, region } from './regions.ts';
import {
  GICR,
  GICR_CTLR_VALUE,
  GICR_IIDR_VALUE,
  GICR_TYPER_LAST,
  PIDR2_VALUE,
  SGI_FRAME,
} from './registers.ts';

export const REDISTRIBUTOR_REGIONS: readonly RegisterRegion[] = [
  region(GICR.CTLR, 4, 4),
  region(GICR.IIDR, 4, 4),
  region(GICR.TYPER, 8, 8 | 4),
  region(GICR.STATUSR, 4, 4),
  region(GICR.WAKER, 4, 4),
  region(GICR.PROPBASER, 8, 8 | 4),
  region(GICR.PENDBASER, 8, 8 | 4),
  region(GICR.INVLPIR, 8, 8 | 4),
  region(GICR.INVALLR, 8, 8 | 4),
  region(GICR.SYNCR, 4, 4),
  region(GICR.IDREGS, 48, 4),
  region(GICR.IGROUPR0, 4, 4),
  region(GICR.ISENABLER0, 4, 4),
  region(GICR.ICENABLER0, 4, 4),
  region(GICR.ISPENDR0, 4, 4),
  region(GICR.ICPENDR0, 4, 4),
  region(GICR.ISACTIVER0, 4, 4),
  region(GICR.ICACTIVER0, 4, 4),
  region(GICR.IPRIORITYR0, 32, 4 | 1),
  region(GICR.ICFGR0, 8, 4),
  region(GICR.IGRPMODR0, 4, 4),
  region(GICR.NSACR, 4, 4),
];

/** What the redistributors keep beside the interrupts' state, as 32-bit halves, low one first. */
export class LpiTables {
  /** GICR_PROPBASER, one for all redistributors. */
  readonly propbaser = new Uint32Array(2);
  /** GICR_PENDBASER of each vCPU. */
  readonly pendbaser: Uint32Array;

  constructor(vcpuCount: number) {
    this.pendbaser = new Uint32Array(2 * vcpuCount);
    for (let v = 0; v < vcpuCount; v++) this.pendbaser[2 * v] = PENDBASER_RESET;
  }
}

/** Inner-shareable, inner write-back. Linux: INITIAL_PENDBASER_VALUE. */
const PENDBASER_RESET = (1 << 10) | (3 << 7);

/** The writable bits of the halves; the rest of OuterCache (58:56) is set in `sanitise`. */
const PROPBASER_LOW = 0xffff_f000 | 0x0f9f;
const PENDBASER_LOW = 0xffff_0000 | 0x0f80;
const ADDRESS_HIGH = 0x000f_ffff;

/** Shareability 11:10 and InnerCache 9:7: no outer shareable, no inner non-cacheable. */
function sanitiseLow(low: number): number {
  const shareability = (low >>> 10) & 3;
  const inner = (low >>> 7) & 7;
  const shared = shareability === 2 ? (low & ~(3 << 10)) | (1 << 10) : low;
  return (inner <= 1 ? (shared & ~(7 << 7)) | (3 << 7) : shared) >>> 0;
}

/** OuterCache 58:56: same as inner, or non-cacheable. */
const sanitiseHigh = (high: number): number =>
  ((high & ADDRESS_HIGH) | (((high >>> 24) & 7) === 1 ? 1 << 24 : 0)) >>> 0;

export class Redistributor implements Frame {
  readonly regions = REDISTRIBUTOR_REGIONS;
  readonly #delivery: Delivery;
  readonly #tables: LpiTables;
  readonly #vcpu: number;
  /** GICR_TYPER.Last: the frames of no other redistributor follow behind it. */
  isLast = false;

  constructor(delivery: Delivery, tables: LpiTables, vcpu: number) {
    this.#delivery = delivery;
    this.#tables = tables;
    this.#vcpu = vcpu;
  }

  read(offset: number, size: number, accessor: Accessor): number {
    const vcpu = this.#vcpu;
    if (offset >= GICR.IGROUPR0) {
      if (offset >= GICR.IGRPMODR0) return 0;
      return readInterruptRegister(this.#delivery, vcpu, offset - SGI_FRAME, size, accessor);
    }
    switch (offset) {
      case GICR.CTLR:
        return GICR_CTLR_VALUE;
      case GICR.IIDR:
        return GICR_IIDR_VALUE;
      case GICR.TYPER:
        return ((vcpu & 0xffff) << 8) | (this.isLast ? GICR_TYPER_LAST : 0);
      case GICR.TYPER + 4:
        return this.#delivery.interrupts.affinities[vcpu]!;
      case GICR.PROPBASER:
      case GICR.PROPBASER + 4:
        return this.#tables.propbaser[(offset >>> 2) & 1]!;
      case GICR.PENDBASER:
      case GICR.PENDBASER + 4:
        return this.#tables.pendbaser[2 * vcpu + ((offset >>> 2) & 1)]!;
      case GICR.PIDR2:
        return PIDR2_VALUE;
      default:
        // WAKER among them: a redistributor is always awake.
        return 0;
    }
  }

  write(offset: number, size: number, value: number, accessor: Accessor): void {
    if (offset >= GICR.IGROUPR0) {
      if (offset >= GICR.IGRPMODR0) return;
      writeInterruptRegister(this.#delivery, this.#vcpu, offset - SGI_FRAME, size, value, accessor);
      return;
    }
    const { propbaser, pendbaser } = this.#tables;
    switch (offset) {
      case GICR.PROPBASER:
        propbaser[0] = sanitiseLow(value & PROPBASER_LOW);
        return;
      case GICR.PROPBASER + 4:
        propbaser[1] = sanitiseHigh(value);
        return;
      case GICR.PENDBASER:
        pendbaser[2 * this.#vcpu] = sanitiseLow(value & PENDBASER_LOW);
        return;
      case GICR.PENDBASER + 4:
        pendbaser[2 * this.#vcpu + 1] = sanitiseHigh(value);
        return;
    }
  }
}
