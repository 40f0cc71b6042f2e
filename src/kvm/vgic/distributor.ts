/**
 * The distributor's frame (GICD_*): identification, the one enable KVM implements, routing, and the
 * registers of the SPIs. Accesses come aligned and of a size DISTRIBUTOR_REGIONS allows; a 64-bit
 * one comes as two of 32 bits. Called by vgic.ts for a guest and for the VMM.
 * Linux: vgic_v3_dist_registers in arch/arm64/kvm/vgic/vgic-mmio-v3.c.
 */

import type { Delivery } from './delivery.ts';
import {
  DISTRIBUTOR_FRAME,
  readInterruptRegister,
  writeInterruptRegister,
} from './interrupt-registers.ts';
import { type Accessor, type Frame, firstIntid, type RegisterRegion, region } from './regions.ts';
import {
  GICD,
  GICD_CTLR_ENABLE_GROUP1,
  GICD_CTLR_FIXED,
  GICD_IIDR_VALUE,
  GICD_TYPER_IDBITS,
  PIDR2_VALUE,
  PRIVATE_IRQS,
} from './registers.ts';

/** IGROUPR to ICACTIVER lie side by side, each 1024 bits. */
const BIT_REGISTERS_LENGTH = GICD.IPRIORITYR - GICD.IGROUPR;

export const DISTRIBUTOR_REGIONS: readonly RegisterRegion[] = [
  region(GICD.CTLR, 16, 4),
  region(GICD.STATUSR, 4, 4),
  region(GICD.IGROUPR, BIT_REGISTERS_LENGTH, 4, 1),
  region(GICD.IPRIORITYR, 1024, 4 | 1, 8),
  region(GICD.ITARGETSR, 1024, 4 | 1, 8),
  region(GICD.ICFGR, 256, 4, 2),
  region(GICD.IGRPMODR, 128, 4, 1),
  region(GICD.IROUTER, 8192, 8 | 4, 64),
  region(GICD.IDREGS, 48, 4),
];

export class Distributor implements Frame {
  readonly regions = DISTRIBUTOR_REGIONS;
  readonly #delivery: Delivery;

  constructor(delivery: Delivery) {
    this.#delivery = delivery;
  }

  read(offset: number, size: number, accessor: Accessor): number {
    const delivery = this.#delivery;
    switch (offset) {
      case GICD.CTLR:
        return GICD_CTLR_FIXED | (delivery.distributorEnabled ? GICD_CTLR_ENABLE_GROUP1 : 0);
      case GICD.TYPER:
        return (delivery.interrupts.irqCount / 32 - 1) | GICD_TYPER_IDBITS;
      case GICD.IIDR:
        return GICD_IIDR_VALUE;
      case GICD.STATUSR:
        // (quirk) All ones in Linux; it would report access errors, and none are kept.
        return 0xffff_ffff;
      case GICD.PIDR2:
        return PIDR2_VALUE;
    }
    if (offset >= GICD.IROUTER) return offset < GICD.IDREGS ? this.#readRoute(offset) : 0;
    return isPerInterrupt(offset)
      ? readInterruptRegister(delivery, DISTRIBUTOR_FRAME, offset, size, accessor)
      : 0;
  }

  write(offset: number, size: number, value: number, accessor: Accessor): void {
    if (offset === GICD.CTLR) {
      this.#delivery.distributorEnabled = (value & GICD_CTLR_ENABLE_GROUP1) !== 0;
      this.#delivery.refreshAll();
    } else if (offset >= GICD.IROUTER) {
      if (offset < GICD.IDREGS) this.#writeRoute(offset, value);
    } else if (isPerInterrupt(offset)) {
      writeInterruptRegister(this.#delivery, DISTRIBUTOR_FRAME, offset, size, value, accessor);
    }
  }

  /** The upper half of an IROUTER is zero: there is no Aff3. */
  #readRoute(offset: number): number {
    const spi = firstIntid(offset & ~7, 64) - PRIVATE_IRQS;
    return (offset & 4) !== 0 || spi < 0 ? 0 : this.#delivery.interrupts.route[spi]!;
  }

  /** Keeps Aff2:Aff1:Aff0 only; there is no routing to any one of several (IRM reads as zero). */
  #writeRoute(offset: number, value: number): void {
    const spi = firstIntid(offset & ~7, 64) - PRIVATE_IRQS;
    if ((offset & 4) !== 0 || spi < 0) return;
    this.#delivery.interrupts.setRoute(spi, value & 0xff_ffff);
    this.#delivery.refreshAll();
  }
}

/** The implemented ones: ITARGETSR (affinity routing is on) and IGRPMODR (DS is set) are RAZ/WI. */
const isPerInterrupt = (offset: number): boolean =>
  (offset >= GICD.IGROUPR && offset < GICD.ITARGETSR) ||
  (offset >= GICD.ICFGR && offset < GICD.IGRPMODR);
