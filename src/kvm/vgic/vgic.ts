/**
 * A virtual GICv3 as KVM's: distributor, redistributors and CPU interfaces, without ITS and LPIs.
 * This is what the VM, its vCPUs and its in-kernel devices call: input lines, MMIO, system
 * registers, the IRQ and FIQ inputs of the vCPUs, and saved state. How userspace configures one is
 * in device.ts.
 *
 *     lines, PPIs ──▶ interrupts ──▶ delivery ──▶ irqPending / fiqPending of each vCPU
 *     MMIO ─▶ distributor, redistributor ─┘  ▲
 *     MRS, MSR ─▶ icc ─▶ cpu-interface ──────┘
 */

import { assert, type Ipa } from '../../base/index.ts';
import type { CpuInterfaceState } from './cpu-interface.ts';
import { Delivery } from './delivery.ts';
import { Distributor } from './distributor.ts';
import { readIcc, writeIcc } from './icc.ts';
import { Interrupts, type InterruptsState } from './interrupts.ts';
import { LpiTables, Redistributor } from './redistributor.ts';
import { type Frame, takesAccess } from './regions.ts';
import { DISTRIBUTOR_SIZE, PRIVATE_IRQS, REDISTRIBUTOR_SIZE, SGI_COUNT } from './registers.ts';

/** SGIs, PPIs and SPIs where the VMM does not say. Linux: VGIC_NR_IRQS_LEGACY. */
export const DEFAULT_IRQ_COUNT = 256;

/** Room for `count` redistributors from `base` on. The vCPUs fill the regions in order. */
export interface RedistributorRegion {
  readonly base: Ipa;
  readonly count: number;
}

export interface VgicOptions {
  readonly vcpuCount: number;
  /** INTIDs below it exist: a multiple of 32, from 64 to 992; 256 where absent. */
  readonly irqCount?: number;
  /** Aff2:Aff1:Aff0 of each vCPU; by default KVM's, 16 to a cluster. */
  readonly affinities?: readonly number[];
  /** Called with the index of a vCPU when its IRQ or FIQ input rises. */
  readonly onSignal?: (vcpu: number) => void;
  /** Called with the INTID of each level-sensitive SPI that a guest ends: its device may look. */
  readonly onSpiEnded?: (intid: number) => void;
}

/** Where the frames lie; those without an address cannot be reached by a guest. */
export interface VgicPlaces {
  readonly distributorBase: Ipa | undefined;
  readonly redistributors: readonly RedistributorRegion[];
}

/** Everything but shape and addresses, as plain data. */
export interface VgicState {
  readonly distributorEnabled: boolean;
  readonly interrupts: InterruptsState;
  readonly cpus: readonly CpuInterfaceState[];
  readonly propbaser: readonly number[];
  readonly pendbaser: readonly number[];
}

/** Base of a frame that has no address: no offset from it is in the frame. */
const NOWHERE = Number.NaN;

export class Vgic {
  readonly #interrupts: Interrupts;
  readonly #delivery: Delivery;
  readonly #tables: LpiTables;
  readonly #distributor: Distributor;
  readonly #redistributors: readonly Redistributor[];
  /** Where the distributor begins, then the redistributor of each vCPU. */
  readonly #bases: number[];

  /** A VGIC whose frames have no addresses yet; `place` gives them. */
  constructor(options: VgicOptions) {
    const { vcpuCount, irqCount = DEFAULT_IRQ_COUNT, affinities } = options;
    this.#interrupts = new Interrupts({ vcpuCount, irqCount, ...(affinities && { affinities }) });
    const { onSignal = () => undefined, onSpiEnded } = options;
    this.#delivery = new Delivery(this.#interrupts, onSignal, onSpiEnded);
    this.#tables = new LpiTables(vcpuCount);
    this.#distributor = new Distributor(this.#delivery);
    this.#redistributors = Array.from(
      { length: vcpuCount },
      (_, vcpu) => new Redistributor(this.#delivery, this.#tables, vcpu),
    );
    this.#bases = new Array<number>(1 + vcpuCount).fill(NOWHERE);
  }

  /** Gives the frames their addresses: the vCPUs' redistributors fill the regions in order. */
  place({ distributorBase, redistributors }: VgicPlaces): void {
    this.#bases[0] = distributorBase ?? NOWHERE;
    const places = redistributors.flatMap(({ base, count }) =>
      Array.from({ length: count }, (_, i) => base + i * REDISTRIBUTOR_SIZE),
    );
    this.#redistributors.forEach((redistributor, vcpu) => {
      const base = places[vcpu];
      const next = vcpu + 1 < this.vcpuCount ? places[vcpu + 1] : undefined;
      this.#bases[1 + vcpu] = base ?? NOWHERE;
      redistributor.isLast = base !== undefined && next !== base + REDISTRIBUTOR_SIZE;
    });
  }

  get vcpuCount(): number {
    return this.#interrupts.vcpuCount;
  }

  get irqCount(): number {
    return this.#interrupts.irqCount;
  }

  /** Whether group 1 interrupts `vcpu` now: the level of its IRQ input. One array load. */
  irqPending(vcpu: number): boolean {
    return this.#delivery.irqPending(vcpu);
  }

  /** Whether group 0 interrupts `vcpu` now: the level of its FIQ input. One array load. */
  fiqPending(vcpu: number): boolean {
    return this.#delivery.fiqPending(vcpu);
  }

  /** Drives the line of an SPI, `intid` from 32 to irqCount - 1. */
  setIrqLine(intid: number, level: boolean): void {
    assert(intid >= PRIVATE_IRQS && intid < this.irqCount, 'vgic: no such SPI');
    this.#delivery.drive(this.#interrupts.slotOf(0, intid), level);
  }

  /** Drives the line of a PPI of one vCPU, `intid` from 16 to 31. */
  setPpi(vcpu: number, intid: number, level: boolean): void {
    assert(intid >= SGI_COUNT && intid < PRIVATE_IRQS, 'vgic: no such PPI');
    assert(vcpu >= 0 && vcpu < this.vcpuCount, 'vgic: no such vCPU');
    this.#delivery.drive(this.#interrupts.slotOf(vcpu, intid), level);
  }

  /** Whether `ipa` lies in a frame of the distributor or of a redistributor. */
  contains(ipa: Ipa): boolean {
    return this.#frameAt(ipa) >= 0;
  }

  /**
   * A guest's load of `size` bytes (1, 2, 4 or 8) from a frame, unsigned; zero where no register
   * takes an access of that size.
   */
  read(ipa: Ipa, size: number): bigint {
    const index = this.#frameAt(ipa);
    assert(index >= 0, 'vgic: read outside the frames');
    const frame = this.#frame(index);
    const offset = ipa - this.#bases[index]!;
    if (!takesAccess(frame.regions, offset, size, this.irqCount)) return 0n;
    if (size !== 8) return BigInt(frame.read(offset, size, 'guest'));
    const high = BigInt(frame.read(offset + 4, 4, 'guest'));
    return (high << 32n) | BigInt(frame.read(offset, 4, 'guest'));
  }

  /**
   * A guest's store of `size` bytes (1, 2, 4 or 8) to a frame: the value's halves, int32 or uint32.
   */
  write(ipa: Ipa, size: number, low: number, high: number): void {
    const index = this.#frameAt(ipa);
    assert(index >= 0, 'vgic: write outside the frames');
    const frame = this.#frame(index);
    const offset = ipa - this.#bases[index]!;
    if (!takesAccess(frame.regions, offset, size, this.irqCount)) return;
    frame.write(offset, size === 8 ? 4 : size, low, 'guest');
    if (size === 8) frame.write(offset + 4, 4, high, 'guest');
  }

  #frame(index: number): Frame {
    return index === 0 ? this.#distributor : this.#redistributors[index - 1]!;
  }

  /** Index in `#bases` of the frame that holds `ipa`, or -1. */
  #frameAt(ipa: number): number {
    const bases = this.#bases;
    for (let i = 0; i < bases.length; i++) {
      const offset = ipa - bases[i]!;
      if (offset >= 0 && offset < (i === 0 ? DISTRIBUTOR_SIZE : REDISTRIBUTOR_SIZE)) return i;
    }
    return -1;
  }

  /** Value of a CPU interface register (an `Icc` encoding), or ICC_UNDEFINED (-1). */
  readIcc(vcpu: number, register: number): number {
    return readIcc(this.#delivery, vcpu, register);
  }

  /**
   * Writes the halves of a CPU interface register (an `Icc` encoding); false if it is UNDEFINED.
   */
  writeIcc(vcpu: number, register: number, low: number, high: number): boolean {
    return writeIcc(this.#delivery, vcpu, register, low, high);
  }

  /** Index of the vCPU with this Aff2:Aff1:Aff0, or -1. */
  vcpuWithAffinity(affinity: number): number {
    return this.#interrupts.vcpuWithAffinity(affinity);
  }

  /** The distributor's registers, for the VMM. */
  get distributor(): Frame {
    return this.#distributor;
  }

  /** A redistributor's registers, for the VMM. */
  redistributor(vcpu: number): Frame {
    return this.#redistributors[vcpu]!;
  }

  /**
   * The lines of the level-sensitive interrupts among the 32 of `vcpu` from `intid` (a multiple of
   * 32) on, a bit each, unsigned. Linux: vgic_read_irq_line_level_info().
   */
  lineLevels(vcpu: number, intid: number): number {
    const slot = this.#interrupts.slotOf(vcpu, intid);
    if (slot < 0) return 0;
    const { level, edge } = this.#interrupts;
    return (level[slot >>> 5]! & ~edge[slot >>> 5]!) >>> 0;
  }

  /** Restores lines, whatever the triggers are by now; SGIs have none. */
  setLineLevels(vcpu: number, intid: number, levels: number): void {
    const slot = this.#interrupts.slotOf(vcpu, intid);
    if (slot < 0) return;
    this.#interrupts.level[slot >>> 5] = intid === 0 ? levels & 0xffff_0000 : levels;
    this.#delivery.bankChanged(slot >>> 5);
  }

  save(): VgicState {
    return {
      distributorEnabled: this.#delivery.distributorEnabled,
      interrupts: this.#interrupts.save(),
      cpus: this.#delivery.cpus.map((cpu) => cpu.save()),
      propbaser: [...this.#tables.propbaser],
      pendbaser: [...this.#tables.pendbaser],
    };
  }

  /** Takes over the state of a VGIC with as many vCPUs and interrupts. */
  restore(state: VgicState): void {
    assert(state.cpus.length === this.vcpuCount, 'vgic: state of another shape');
    this.#delivery.distributorEnabled = state.distributorEnabled;
    this.#interrupts.restore(state.interrupts);
    this.#delivery.cpus.forEach((cpu, i) => {
      cpu.restore(state.cpus[i]!);
    });
    this.#tables.propbaser.set(state.propbaser);
    this.#tables.pendbaser.set(state.pendbaser);
    this.#delivery.refreshAll();
  }
}
