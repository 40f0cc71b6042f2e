/**
 * The architected timers of EL1 guests: a virtual and a physical timer in each vCPU, which drive
 * two level-sensitive PPIs. The vCPU calls `update` before it runs and again `nextDeadline` ticks
 * later, and `read` and `write` for the registers. What waits or sleeps meanwhile is not known
 * here; the counters and what the vCPUs share is in counter.ts.
 * Linux: arch/arm64/kvm/arch_timer.c. Arm: D12, the Generic Timer.
 */

import { u64 } from '../base/index.ts';
import { Errno, type Refusal, refuse } from '../host/index.ts';
import {
  COUNTER_FREQUENCY_HZ,
  type CounterClock,
  type CounterOffset,
  type VmTimers,
} from './counter.ts';
import {
  KVM_ARM_DEV_EL1_PTIMER,
  KVM_ARM_DEV_EL1_VTIMER,
  KVM_REG_ARM_PTIMER_CNT,
  KVM_REG_ARM_PTIMER_CTL,
  KVM_REG_ARM_PTIMER_CVAL,
  KVM_REG_ARM_TIMER_CNT,
  KVM_REG_ARM_TIMER_CTL,
  KVM_REG_ARM_TIMER_CVAL,
} from './uapi.ts';

/** Sets the level of a PPI of one vCPU. */
export type PpiLine = (vcpu: number, intid: number, level: boolean) => void;

/** `S3_3_C14_C<crm>_<op2>` packed as in a KVM register id: op0:op1:CRn:CRm:op2. */
const cnt = (crm: number, op2: number): number =>
  (3 << 14) | (3 << 11) | (14 << 7) | (crm << 3) | op2;

/** Counter and timer registers by the 16-bit encoding that KVM register ids use. */
export const TimerRegister = {
  CNTFRQ_EL0: cnt(0, 0),
  CNTPCT_EL0: cnt(0, 1),
  CNTVCT_EL0: cnt(0, 2),
  CNTPCTSS_EL0: cnt(0, 5),
  CNTVCTSS_EL0: cnt(0, 6),
  CNTP_TVAL_EL0: cnt(2, 0),
  CNTP_CTL_EL0: cnt(2, 1),
  CNTP_CVAL_EL0: cnt(2, 2),
  CNTV_TVAL_EL0: cnt(3, 0),
  CNTV_CTL_EL0: cnt(3, 1),
  CNTV_CVAL_EL0: cnt(3, 2),
} as const;

const CTL_ENABLE = 1;
const CTL_IMASK = 2;
const CTL_ISTATUS = 4;

/** One timer of one vCPU, as it is saved. */
export interface TimerState {
  readonly control: number;
  readonly compare: bigint;
}

export interface VcpuTimersState {
  readonly virtual: TimerState;
  readonly physical: TimerState;
}

/** A comparator on one of the VM's counters. */
class Timer {
  readonly #clock: CounterClock;
  readonly #offset: CounterOffset;
  /** CNTx_CTL_EL0.IMASK and .ENABLE. */
  #control = 0;
  /** CNTx_CVAL_EL0, and as a number: beyond 2^53 rounded, and above every count there. */
  #compare = 0n;
  #compareNumber = 0;
  /** The level last driven; kept by VcpuTimers. */
  line = false;

  constructor(clock: CounterClock, offset: CounterOffset) {
    this.#clock = clock;
    this.#offset = offset;
  }

  get control(): number {
    return this.#control;
  }

  set control(value: number) {
    this.#control = value & (CTL_ENABLE | CTL_IMASK);
  }

  get compare(): bigint {
    return this.#compare;
  }

  set compare(value: bigint) {
    this.#compare = u64(value);
    this.#compareNumber = Number(this.#compare);
  }

  /** The counter as the VM sees it. */
  get count(): bigint {
    return this.#offset.exactCount(this.#clock.now());
  }

  /** CNTx_TVAL_EL0: the signed 32-bit distance to the compare value. Arm: TimerValue view. */
  get timerValue(): bigint {
    return BigInt.asUintN(32, this.#compare - this.count);
  }

  set timerValue(value: bigint) {
    this.compare = this.count + BigInt.asIntN(32, value);
  }

  /** Whether the count has reached the compare value, both unsigned. */
  conditionMet(): boolean {
    const now = this.#clock.now();
    const count = this.#offset.count(now);
    if (Number.isNaN(count)) return this.#compare <= this.#offset.exactCount(now);
    return this.#compareNumber <= count;
  }

  /** Enabled and not masked: the condition is an interrupt. */
  get canFire(): boolean {
    return this.#control === CTL_ENABLE;
  }

  /** Ticks until the condition is met: 0 when it is. */
  ticksLeft(): number {
    const now = this.#clock.now();
    const count = this.#offset.count(now);
    if (!Number.isNaN(count)) return Math.max(0, this.#compareNumber - count);
    const left = this.#compare - this.#offset.exactCount(now);
    return left > 0n ? Number(left) : 0;
  }

  save(): TimerState {
    return { control: this.#control, compare: this.#compare };
  }

  restore(state: TimerState): void {
    this.control = state.control;
    this.compare = state.compare;
  }
}

/** As a guest reads CNTx_CTL_EL0: ISTATUS is unknown while the timer is off, and zero here. */
const guestControl = (timer: Timer): number =>
  timer.control | ((timer.control & CTL_ENABLE) !== 0 && timer.conditionMet() ? CTL_ISTATUS : 0);

/** As KVM shows it to the VMM: ISTATUS whether the timer is on or not. Linux: read_timer_ctl(). */
const userControl = (timer: Timer): number =>
  timer.control | (timer.conditionMet() ? CTL_ISTATUS : 0);

/** Ticks until the timer raises its interrupt; infinite where it is raised or cannot be. */
const deadlineOf = (timer: Timer): number =>
  timer.canFire && !timer.line ? timer.ticksLeft() : Number.POSITIVE_INFINITY;

/** The timers of one vCPU. */
export class VcpuTimers {
  readonly #vm: VmTimers;
  readonly #vcpu: number;
  readonly #setPpi: PpiLine;
  readonly #virtual: Timer;
  readonly #physical: Timer;

  /** `setPpi` takes the level of the timers' interrupts, each time one changes. */
  constructor(vm: VmTimers, vcpu: number, setPpi: PpiLine) {
    this.#vm = vm;
    this.#vcpu = vcpu;
    this.#setPpi = setPpi;
    this.#virtual = new Timer(vm.clock, vm.virtualOffset);
    this.#physical = new Timer(vm.clock, vm.physicalOffset);
    vm.vcpuCreated();
  }

  /** Brings the levels of both interrupts up to date with the clock. No allocation, no bigint. */
  update(): void {
    this.#updateLine(this.#virtual, this.#vm.virtualPpi);
    this.#updateLine(this.#physical, this.#vm.physicalPpi);
  }

  #updateLine(timer: Timer, ppi: number): void {
    const level = timer.canFire && timer.conditionMet();
    if (level === timer.line) return;
    timer.line = level;
    this.#setPpi(this.#vcpu, ppi, level);
  }

  /** Levels of both interrupts as `update` last found them: KVM_ARM_DEV_EL1_VTIMER and PTIMER. */
  get levels(): number {
    return (
      (this.#virtual.line ? KVM_ARM_DEV_EL1_VTIMER : 0) |
      (this.#physical.line ? KVM_ARM_DEV_EL1_PTIMER : 0)
    );
  }

  /**
   * Ticks until `update` will next raise an interrupt, 0 when it would now; undefined when none is
   * armed. One that is raised already does not count.
   */
  nextDeadline(): number | undefined {
    const ticks = Math.min(deadlineOf(this.#virtual), deadlineOf(this.#physical));
    return ticks === Number.POSITIVE_INFINITY ? undefined : ticks;
  }

  /** A guest's MRS of a `TimerRegister`, or undefined where it is none of these. */
  read(register: number): bigint | undefined {
    switch (register) {
      case TimerRegister.CNTFRQ_EL0:
        return BigInt(COUNTER_FREQUENCY_HZ);
      case TimerRegister.CNTVCT_EL0:
      case TimerRegister.CNTVCTSS_EL0:
        return this.#virtual.count;
      case TimerRegister.CNTPCT_EL0:
      case TimerRegister.CNTPCTSS_EL0:
        return this.#physical.count;
    }
    const timer = this.#timerOf(register);
    if (timer === undefined) return undefined;
    switch (register) {
      case TimerRegister.CNTV_CTL_EL0:
      case TimerRegister.CNTP_CTL_EL0:
        return BigInt(guestControl(timer));
      case TimerRegister.CNTV_CVAL_EL0:
      case TimerRegister.CNTP_CVAL_EL0:
        return timer.compare;
      default:
        return timer.timerValue;
    }
  }

  /** A guest's MSR of a `TimerRegister`; false where it is none of these or read-only. */
  write(register: number, value: bigint): boolean {
    const timer = this.#timerOf(register);
    if (timer === undefined) return false;
    switch (register) {
      case TimerRegister.CNTV_CTL_EL0:
      case TimerRegister.CNTP_CTL_EL0:
        timer.control = Number(value & 3n);
        break;
      case TimerRegister.CNTV_CVAL_EL0:
      case TimerRegister.CNTP_CVAL_EL0:
        timer.compare = value;
        break;
      default:
        timer.timerValue = value;
    }
    this.update();
    return true;
  }

  #timerOf(register: number): Timer | undefined {
    switch (register) {
      case TimerRegister.CNTV_CTL_EL0:
      case TimerRegister.CNTV_CVAL_EL0:
      case TimerRegister.CNTV_TVAL_EL0:
        return this.#virtual;
      case TimerRegister.CNTP_CTL_EL0:
      case TimerRegister.CNTP_CVAL_EL0:
      case TimerRegister.CNTP_TVAL_EL0:
        return this.#physical;
      default:
        return undefined;
    }
  }

  /** KVM_GET_ONE_REG of a timer register by its full id; ENOENT where it is none. */
  getOneReg(id: bigint): bigint | Refusal {
    switch (id) {
      case KVM_REG_ARM_TIMER_CTL:
        return BigInt(userControl(this.#virtual));
      case KVM_REG_ARM_TIMER_CNT:
        return this.#virtual.count;
      case KVM_REG_ARM_TIMER_CVAL:
        return this.#virtual.compare;
      case KVM_REG_ARM_PTIMER_CTL:
        return BigInt(userControl(this.#physical));
      case KVM_REG_ARM_PTIMER_CNT:
        return this.#physical.count;
      case KVM_REG_ARM_PTIMER_CVAL:
        return this.#physical.compare;
      default:
        return refuse(Errno.ENOENT);
    }
  }

  /** KVM_SET_ONE_REG; a count moves the counter of all vCPUs. ENOENT as above. */
  setOneReg(id: bigint, value: bigint): 0 | Refusal {
    switch (id) {
      case KVM_REG_ARM_TIMER_CTL:
        this.#virtual.control = Number(value & 3n);
        break;
      case KVM_REG_ARM_TIMER_CNT:
        this.#vm.setCount(this.#vm.virtualOffset, value);
        break;
      case KVM_REG_ARM_TIMER_CVAL:
        this.#virtual.compare = value;
        break;
      case KVM_REG_ARM_PTIMER_CTL:
        this.#physical.control = Number(value & 3n);
        break;
      case KVM_REG_ARM_PTIMER_CNT:
        this.#vm.setCount(this.#vm.physicalOffset, value);
        break;
      case KVM_REG_ARM_PTIMER_CVAL:
        this.#physical.compare = value;
        break;
      default:
        return refuse(Errno.ENOENT);
    }
    return 0;
  }

  /** Reset of the vCPU: both timers off, their lines low. Linux: kvm_timer_vcpu_reset(). */
  reset(): void {
    this.#virtual.control = 0;
    this.#physical.control = 0;
    this.update();
  }

  save(): VcpuTimersState {
    return { virtual: this.#virtual.save(), physical: this.#physical.save() };
  }

  /** Takes over a saved state and drives both lines by it. The VM's offsets are restored apart. */
  restore(state: VcpuTimersState): void {
    this.#virtual.restore(state.virtual);
    this.#physical.restore(state.physical);
    this.update();
    this.#setPpi(this.#vcpu, this.#vm.virtualPpi, this.#virtual.line);
    this.#setPpi(this.#vcpu, this.#vm.physicalPpi, this.#physical.line);
  }
}
