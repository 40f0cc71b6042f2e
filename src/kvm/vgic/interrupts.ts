/**
 * The state of every interrupt: enables, pending latches, line levels, active bits, groups,
 * triggers, priorities and routes. It knows what is pending and for whom; it does not know the CPU
 * interfaces (cpu-interface.ts) nor any register layout. Called by delivery.ts and the register
 * files.
 *
 * Layout: interrupts live in banks of 32, a bit each, so that a register that covers 32 interrupts
 * is one word. Bank v < vcpuCount holds the SGIs and PPIs of vCPU v; bank vcpuCount + k holds SPIs
 * 32 + 32k … 63 + 32k. A *slot* is bank * 32 + bit, the index of per-interrupt arrays.
 * Invariant: an SPI's bit is set in `routed` for the vCPU it is routed to and for no other.
 */

import { assert } from '../../base/index.ts';
import { PRIORITY_MASK, PRIVATE_IRQS } from './registers.ts';

/** SGIs are edge-triggered, PPIs level-sensitive: the triggers of a private bank. */
const PRIVATE_EDGE = 0x0000_ffff;

/** Index of the lowest set bit of a non-zero word. */
export const lowestBit = (word: number): number => 31 - Math.clz32(word & -word);

/** The affinity KVM gives the vCPU with an id: 16 to a cluster. Linux: kvm_calculate_mpidr(). */
export const affinityOfId = (id: number): number =>
  (id & 0xf) | (((id >>> 4) & 0xff) << 8) | (((id >>> 12) & 0xff) << 16);

export interface InterruptsState {
  readonly enabled: readonly number[];
  readonly latch: readonly number[];
  readonly level: readonly number[];
  readonly active: readonly number[];
  readonly group1: readonly number[];
  readonly edge: readonly number[];
  readonly priority: readonly number[];
  readonly route: readonly number[];
}

export class Interrupts {
  readonly vcpuCount: number;
  /** SGIs, PPIs and SPIs together: INTIDs run from 0 to irqCount - 1. */
  readonly irqCount: number;
  readonly bankCount: number;
  /** Aff2:Aff1:Aff0 of each vCPU. */
  readonly affinities: readonly number[];

  readonly enabled: Int32Array;
  /** Made pending by an edge, an SGI or a write to ISPENDR; cleared by acknowledge or ICPENDR. */
  readonly latch: Int32Array;
  /** Input lines; what counts for a level-sensitive interrupt. */
  readonly level: Int32Array;
  readonly active: Int32Array;
  readonly group1: Int32Array;
  readonly edge: Int32Array;
  readonly priority: Uint8Array;
  /** Aff2:Aff1:Aff0 of each SPI as written to IROUTER, by INTID - 32. */
  readonly route: Int32Array;
  /** Per vCPU and SPI bank: which SPIs are routed to it. */
  readonly #routed: Int32Array;

  constructor(options: { vcpuCount: number; irqCount: number; affinities?: readonly number[] }) {
    const { vcpuCount, irqCount } = options;
    assert(irqCount >= 2 * PRIVATE_IRQS && irqCount < 1024, 'vgic: irqCount out of range');
    assert(irqCount % 32 === 0, 'vgic: irqCount is not a multiple of 32');
    this.vcpuCount = vcpuCount;
    this.irqCount = irqCount;
    const spiBanks = irqCount / 32 - 1;
    this.bankCount = vcpuCount + spiBanks;
    this.affinities =
      options.affinities ?? Array.from({ length: vcpuCount }, (_, i) => affinityOfId(i));
    assert(this.affinities.length === vcpuCount, 'vgic: one affinity per vCPU');

    this.enabled = new Int32Array(this.bankCount);
    this.latch = new Int32Array(this.bankCount);
    this.level = new Int32Array(this.bankCount);
    this.active = new Int32Array(this.bankCount);
    this.group1 = new Int32Array(this.bankCount).fill(-1);
    this.edge = new Int32Array(this.bankCount).fill(PRIVATE_EDGE, 0, vcpuCount);
    this.priority = new Uint8Array(this.bankCount * 32);
    this.route = new Int32Array(spiBanks * 32);
    this.#routed = new Int32Array(vcpuCount * spiBanks);
    // Linux enables SGIs from the start, and routes SPIs to the first vCPU whatever its affinity.
    this.enabled.fill(PRIVATE_EDGE, 0, vcpuCount);
    if (vcpuCount > 0) this.#routed.fill(-1, 0, spiBanks);
  }

  /** Slot of `intid` as vCPU `vcpu` sees it, or -1 where there is no such interrupt. */
  slotOf(vcpu: number, intid: number): number {
    if (intid < PRIVATE_IRQS) return vcpu * 32 + intid;
    return intid < this.irqCount ? this.vcpuCount * 32 + intid - PRIVATE_IRQS : -1;
  }

  intidOf(slot: number): number {
    const spi = slot - this.vcpuCount * 32;
    return spi < 0 ? slot & 31 : spi + PRIVATE_IRQS;
  }

  /** Index of the vCPU with this affinity, or -1. Linux: kvm_mpidr_to_vcpu(). */
  vcpuWithAffinity(affinity: number): number {
    return this.affinities.indexOf(affinity);
  }

  /** The interrupts of a bank that are pending, active or not. Linux: irq_is_pending(). */
  pendingWord(bank: number): number {
    return this.latch[bank]! | (this.level[bank]! & ~this.edge[bank]!);
  }

  /**
   * Slot of the pending, inactive, enabled interrupt of highest priority for `vcpu` among the
   * groups that its CPU interface has enabled, or -1; of equal ones the lowest INTID.
   */
  highestPending(vcpu: number, group0: boolean, group1: boolean): number {
    const spiBanks = this.bankCount - this.vcpuCount;
    let best = this.#highestIn(vcpu, -1, group0, group1, -1);
    for (let i = 0; i < spiBanks; i++) {
      const routed = this.#routed[vcpu * spiBanks + i]!;
      best = this.#highestIn(this.vcpuCount + i, routed, group0, group1, best);
    }
    return best;
  }

  #highestIn(bank: number, mask: number, group0: boolean, group1: boolean, best: number): number {
    let word = this.pendingWord(bank) & this.enabled[bank]! & ~this.active[bank]! & mask;
    if (word === 0) return best;
    if (!group0) word &= this.group1[bank]!;
    if (!group1) word &= ~this.group1[bank]!;
    let bestPriority = best < 0 ? 256 : this.priority[best]!;
    while (word !== 0) {
      const bit = lowestBit(word);
      word &= word - 1;
      const slot = bank * 32 + bit;
      if (this.priority[slot]! < bestPriority) {
        bestPriority = this.priority[slot]!;
        best = slot;
      }
    }
    return best;
  }

  isActive(slot: number): boolean {
    return ((this.active[slot >>> 5]! >>> (slot & 31)) & 1) === 1;
  }

  /** Whether the slot is a level-sensitive SPI's. */
  isLevelSpi(slot: number): boolean {
    const bank = slot >>> 5;
    return bank >= this.vcpuCount && ((this.edge[bank]! >>> (slot & 31)) & 1) === 0;
  }

  groupOf(slot: number): 0 | 1 {
    return ((this.group1[slot >>> 5]! >>> (slot & 31)) & 1) as 0 | 1;
  }

  /**
   * The state of an acknowledged interrupt: active, and no longer pending but for its line.
   * Linux clears the latch of a level-sensitive interrupt only at its end; here as IHI 0069 4.1.2.
   */
  activate(slot: number): void {
    const bit = 1 << (slot & 31);
    this.active[slot >>> 5]! |= bit;
    this.latch[slot >>> 5]! &= ~bit;
  }

  deactivate(slot: number): void {
    this.active[slot >>> 5]! &= ~(1 << (slot & 31));
  }

  /**
   * Drives an input: the line of a level-sensitive interrupt, a trigger for an edge-triggered one
   * (each call with `level` true is one). Returns whether anything changed.
   * Linux: vgic_validate_injection(), kvm_vgic_inject_irq().
   */
  drive(slot: number, level: boolean): boolean {
    const bank = slot >>> 5;
    const bit = 1 << (slot & 31);
    if ((this.edge[bank]! & bit) !== 0) {
      if (level) this.latch[bank]! |= bit;
      return level;
    }
    if (((this.level[bank]! & bit) !== 0) === level) return false;
    this.level[bank]! ^= bit;
    return true;
  }

  setPriority(slot: number, priority: number): void {
    this.priority[slot] = priority & PRIORITY_MASK;
  }

  /**
   * Routes SPI number `spi` (INTID - 32); an affinity nobody has means it is delivered to nobody.
   */
  setRoute(spi: number, affinity: number): void {
    this.route[spi] = affinity;
    const spiBanks = this.bankCount - this.vcpuCount;
    const bit = 1 << (spi & 31);
    const bank = spi >>> 5;
    const target = this.vcpuWithAffinity(affinity);
    for (let v = 0; v < this.vcpuCount; v++) {
      if (v === target) this.#routed[v * spiBanks + bank]! |= bit;
      else this.#routed[v * spiBanks + bank]! &= ~bit;
    }
  }

  /** vCPU that an SPI slot is routed to, or -1. */
  targetOf(slot: number): number {
    const spi = slot - this.vcpuCount * 32;
    const spiBanks = this.bankCount - this.vcpuCount;
    for (let v = 0; v < this.vcpuCount; v++) {
      const word = this.#routed[v * spiBanks + (spi >>> 5)]!;
      if (((word >>> (spi & 31)) & 1) === 1) return v;
    }
    return -1;
  }

  save(): InterruptsState {
    return {
      enabled: [...this.enabled],
      latch: [...this.latch],
      level: [...this.level],
      active: [...this.active],
      group1: [...this.group1],
      edge: [...this.edge],
      priority: [...this.priority],
      route: [...this.route],
    };
  }

  /** Takes over a saved state of a VGIC with as many vCPUs and interrupts. */
  restore(state: InterruptsState): void {
    assert(state.enabled.length === this.bankCount, 'vgic: state of another shape');
    assert(state.route.length === this.route.length, 'vgic: state of another shape');
    this.enabled.set(state.enabled);
    this.latch.set(state.latch);
    this.level.set(state.level);
    this.active.set(state.active);
    this.group1.set(state.group1);
    this.edge.set(state.edge);
    this.priority.set(state.priority);
    state.route.forEach((affinity, spi) => {
      this.setRoute(spi, affinity);
    });
  }
}
