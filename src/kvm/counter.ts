/**
 * The counters of a VM: the machine's clock and how far behind it each of the VM's two counters is,
 * and what else its vCPUs' timers (timer.ts) share. Called by them and by the VM's ioctls.
 *
 * Counts of the machine are numbers below 2^53 (4.5 years at 62.5 MHz). An offset is 64-bit and
 * wraps, so that a VMM can set a counter to anything; it is kept as bigint with a number beside it,
 * and where the number cannot tell the VM's count (which then is past 2^53) the bigint does.
 * Linux: arch/arm64/kvm/arch_timer.c.
 */

import { COUNTER_FREQUENCY_HZ } from '../arm/sysreg/index.ts';
import { u64 } from '../base/index.ts';
import { Errno, type Refusal, refuse } from '../host/index.ts';
import { KVM_ARM_VCPU_TIMER_IRQ_PTIMER, KVM_ARM_VCPU_TIMER_IRQ_VTIMER } from './uapi.ts';

export { COUNTER_FREQUENCY_HZ };

/** Where time comes from. */
export interface CounterClock {
  /** Ticks of the machine's counter: an integer below 2^53 that never goes back. */
  now(): number;
}

/**
 * PPIs of the virtual and the physical timer and of their EL2 counterparts, which guests do not
 * have, by the attributes of KVM_ARM_VCPU_TIMER_CTRL. Linux: default_ppi[].
 */
const DEFAULT_PPIS = [27, 30, 28, 26] as const;

/** What a VM's view of a counter is behind the machine's: CNTVOFF_EL2, CNTPOFF_EL2. */
export class CounterOffset {
  #ticks = 0n;
  /** The same, signed, as a number; NaN where that would not be exact. */
  #number = 0;

  get ticks(): bigint {
    return this.#ticks;
  }

  set ticks(value: bigint) {
    this.#ticks = u64(value);
    const signed = Number(BigInt.asIntN(64, value));
    this.#number = Number.isSafeInteger(signed) ? signed : Number.NaN;
  }

  /** The VM's count when the machine's is `now`, or NaN where only `exactCount` can tell. */
  count(now: number): number {
    const count = now - this.#number;
    return count >= 0 && Number.isSafeInteger(count) ? count : Number.NaN;
  }

  exactCount(now: number): bigint {
    return u64(BigInt(now) - this.#ticks);
  }
}

/** Offsets in ticks, modulo 2^64; the machine's clock is restored by whoever owns it. */
export interface VmTimersState {
  readonly virtualOffset: bigint;
  readonly physicalOffset: bigint;
  readonly offsetFixed: boolean;
  readonly ppis: readonly number[];
  readonly ppisFixed: boolean;
}

/** What the timers of all vCPUs of a VM share: clock, offsets and the choice of PPIs. */
export class VmTimers {
  readonly clock: CounterClock;
  readonly virtualOffset = new CounterOffset();
  readonly physicalOffset = new CounterOffset();
  readonly #ppis: number[] = [...DEFAULT_PPIS];
  #ppisFixed = false;
  #offsetFixed = false;

  constructor(clock: CounterClock) {
    this.clock = clock;
  }

  /** A new vCPU sets the VM's counters to zero, unless the VMM has set the offset. */
  vcpuCreated(): void {
    if (this.#offsetFixed) return;
    this.virtualOffset.ticks = BigInt(this.clock.now());
    this.physicalOffset.ticks = 0n;
  }

  /** Sets one counter by its offset, as a write of its KVM register; nothing once that is fixed. */
  setCount(offset: CounterOffset, count: bigint): void {
    if (!this.#offsetFixed) offset.ticks = BigInt(this.clock.now()) - count;
  }

  /**
   * KVM_ARM_SET_COUNTER_OFFSET: one offset for both counters, for good. EINVAL for a `reserved`
   * that is not zero; EBUSY while a vCPU runs.
   */
  setCounterOffset(offset: bigint, reserved: bigint, vcpuRunning: boolean): 0 | Refusal {
    if (reserved !== 0n) return refuse(Errno.EINVAL);
    if (vcpuRunning) return refuse(Errno.EBUSY);
    this.#offsetFixed = true;
    this.virtualOffset.ticks = offset;
    this.physicalOffset.ticks = offset;
    return 0;
  }

  /**
   * KVM_ARM_VCPU_TIMER_CTRL, set: chooses the PPI of a timer. EINVAL without a VGIC or for no PPI,
   * EBUSY after the first run, ENXIO for an unknown attribute.
   */
  setPpi(attribute: number, intid: number, haveVgic: boolean): 0 | Refusal {
    if (!haveVgic || intid < 16 || intid > 31) return refuse(Errno.EINVAL);
    if (this.#ppisFixed) return refuse(Errno.EBUSY);
    if (this.#ppis[attribute] === undefined) return refuse(Errno.ENXIO);
    this.#ppis[attribute] = intid;
    return 0;
  }

  /** KVM_ARM_VCPU_TIMER_CTRL, get: the PPI of a timer, or ENXIO for an unknown attribute. */
  ppi(attribute: number): number | Refusal {
    return this.#ppis[attribute] ?? refuse(Errno.ENXIO);
  }

  get virtualPpi(): number {
    return this.#ppis[KVM_ARM_VCPU_TIMER_IRQ_VTIMER]!;
  }

  get physicalPpi(): number {
    return this.#ppis[KVM_ARM_VCPU_TIMER_IRQ_PTIMER]!;
  }

  /** Before the first run with a VGIC: the PPIs stay as they are now. EINVAL where they are one. */
  fixPpis(): 0 | Refusal {
    if (this.#ppis[KVM_ARM_VCPU_TIMER_IRQ_VTIMER] === this.#ppis[KVM_ARM_VCPU_TIMER_IRQ_PTIMER])
      return refuse(Errno.EINVAL);
    this.#ppisFixed = true;
    return 0;
  }

  save(): VmTimersState {
    return {
      virtualOffset: this.virtualOffset.ticks,
      physicalOffset: this.physicalOffset.ticks,
      offsetFixed: this.#offsetFixed,
      ppis: [...this.#ppis],
      ppisFixed: this.#ppisFixed,
    };
  }

  restore(state: VmTimersState): void {
    this.virtualOffset.ticks = state.virtualOffset;
    this.physicalOffset.ticks = state.physicalOffset;
    this.#offsetFixed = state.offsetFixed;
    this.#ppis.splice(0, this.#ppis.length, ...state.ppis);
    this.#ppisFixed = state.ppisFixed;
  }
}
