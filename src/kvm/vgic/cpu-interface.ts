/**
 * One vCPU's CPU interface: priority mask, binary points, group enables, end-of-interrupt mode and
 * the active priorities. It decides whether a priority may interrupt what runs; which interrupt
 * that is, delivery.ts knows. Register encodings are in icc.ts.
 * Arm: IHI 0069, the ICV_* registers and their pseudocode, which is what a KVM guest sees.
 */

import { lowestBit } from './interrupts.ts';
import { IDLE_PRIORITY, PRIORITY_BITS, PRIORITY_MASK } from './registers.ts';

/** Smallest binary points with 5 preemption bits; BPR1's is one more, for it counts from bit 0. */
const BPR0_MIN = 7 - PRIORITY_BITS;
const BPR1_MIN = 8 - PRIORITY_BITS;
/** Bits below the implemented priority: an active-priority bit n stands for priority n << 3. */
const PRIORITY_SHIFT = 8 - PRIORITY_BITS;

export interface CpuInterfaceState {
  readonly pmr: number;
  readonly bpr0: number;
  readonly bpr1: number;
  readonly commonBpr: boolean;
  readonly splitEoi: boolean;
  readonly group0: boolean;
  readonly group1: boolean;
  readonly activePriorities0: number;
  readonly activePriorities1: number;
}

export class CpuInterface {
  /** ICC_PMR_EL1: only priorities below it are signalled. Zero at reset, so nothing is. */
  pmr = 0;
  #bpr0 = BPR0_MIN;
  #bpr1 = BPR1_MIN;
  /** ICC_CTLR_EL1.CBPR: BPR0 decides for group 1 as well. */
  commonBpr = false;
  /** ICC_CTLR_EL1.EOImode: EOIR only drops the priority, DIR deactivates. */
  splitEoi = false;
  /** ICC_IGRPEN0_EL1 and ICC_IGRPEN1_EL1. */
  group0 = false;
  group1 = false;
  /** ICC_AP0R0_EL1 and ICC_AP1R0_EL1: a bit per preemption level, bit 0 the highest priority. */
  activePriorities0 = 0;
  activePriorities1 = 0;

  get bpr0(): number {
    return this.#bpr0;
  }

  set bpr0(value: number) {
    this.#bpr0 = Math.max(value & 7, BPR0_MIN);
  }

  get bpr1(): number {
    return this.commonBpr ? Math.min(this.#bpr0 + 1, 7) : this.#bpr1;
  }

  /** Ignored while BPR0 decides for both groups. */
  set bpr1(value: number) {
    if (!this.commonBpr) this.#bpr1 = Math.max(value & 7, BPR1_MIN);
  }

  setPmr(value: number): void {
    this.pmr = value & PRIORITY_MASK;
  }

  /** The part of `priority` that counts for preemption. Arm: VPriorityGroup(). */
  #preemptionLevel(priority: number, group: 0 | 1): number {
    const bpr = group === 0 || this.commonBpr ? this.#bpr0 + 1 : this.#bpr1;
    return priority & (0xff << bpr);
  }

  /** ICC_RPR_EL1: the highest active priority, or 0xff. */
  get runningPriority(): number {
    const levels = this.activePriorities0 | this.activePriorities1;
    return levels === 0 ? IDLE_PRIORITY : lowestBit(levels) << PRIORITY_SHIFT;
  }

  /** Whether a pending interrupt of this priority and group is to interrupt what runs now. */
  admits(priority: number, group: 0 | 1): boolean {
    return priority < this.pmr && this.#preemptionLevel(priority, group) < this.runningPriority;
  }

  /** Marks the priority of an acknowledged interrupt as running. */
  raise(priority: number, group: 0 | 1): void {
    const level = 1 << (this.#preemptionLevel(priority, group) >>> PRIORITY_SHIFT);
    if (group === 0) this.activePriorities0 |= level;
    else this.activePriorities1 |= level;
  }

  /**
   * Priority drop: forgets the highest active priority, whichever group it is of, and returns it,
   * or 0xff where none was active. Arm: VPriorityDrop().
   */
  drop(): number {
    const dropped = this.runningPriority;
    if (dropped === IDLE_PRIORITY) return dropped;
    const level = 1 << (dropped >>> PRIORITY_SHIFT);
    if ((this.activePriorities1 & level) !== 0) this.activePriorities1 &= ~level;
    else this.activePriorities0 &= ~level;
    return dropped;
  }

  /** Whether `dropped` is what an interrupt of this priority and group raised. */
  matches(priority: number, group: 0 | 1, dropped: number): boolean {
    return this.#preemptionLevel(priority, group) === dropped;
  }

  save(): CpuInterfaceState {
    return {
      pmr: this.pmr,
      bpr0: this.#bpr0,
      bpr1: this.#bpr1,
      commonBpr: this.commonBpr,
      splitEoi: this.splitEoi,
      group0: this.group0,
      group1: this.group1,
      activePriorities0: this.activePriorities0,
      activePriorities1: this.activePriorities1,
    };
  }

  restore(state: CpuInterfaceState): void {
    this.setPmr(state.pmr);
    this.commonBpr = false;
    this.bpr0 = state.bpr0;
    this.bpr1 = state.bpr1;
    this.commonBpr = state.commonBpr;
    this.splitEoi = state.splitEoi;
    this.group0 = state.group0;
    this.group1 = state.group1;
    this.activePriorities0 = state.activePriorities0 | 0;
    this.activePriorities1 = state.activePriorities1 | 0;
  }
}
