/** The architected timers: conditions, views of the registers, lines, deadlines, offsets. */

import { describe, expect, it } from 'vitest';
import { Errno, refuse } from '../host/index.ts';
import { COUNTER_FREQUENCY_HZ, VmTimers } from './counter.ts';
import { TimerRegister, VcpuTimers } from './timer.ts';
import {
  KVM_ARM_VCPU_TIMER_IRQ_PTIMER,
  KVM_ARM_VCPU_TIMER_IRQ_VTIMER,
  KVM_REG_ARM_PSCI_VERSION,
  KVM_REG_ARM_PTIMER_CNT,
  KVM_REG_ARM_PTIMER_CTL,
  KVM_REG_ARM_PTIMER_CVAL,
  KVM_REG_ARM_TIMER_CNT,
  KVM_REG_ARM_TIMER_CTL,
  KVM_REG_ARM_TIMER_CVAL,
} from './uapi.ts';

const ALL_ONES = (1n << 64n) - 1n;
const ENABLE = 1n;
const IMASK = 2n;

const {
  CNTFRQ_EL0,
  CNTPCT_EL0,
  CNTVCT_EL0,
  CNTVCTSS_EL0,
  CNTP_CTL_EL0,
  CNTP_CVAL_EL0,
  CNTP_TVAL_EL0,
  CNTV_CTL_EL0,
  CNTV_CVAL_EL0,
  CNTV_TVAL_EL0,
} = TimerRegister;

/** A vCPU's timers on a machine that has counted to 1000 when the vCPU is made. */
class Bench {
  time = 1000;
  readonly lines: [number, boolean][] = [];
  readonly vm = new VmTimers({ now: () => this.time });
  readonly timers = this.vcpu(0);

  vcpu(index: number): VcpuTimers {
    return new VcpuTimers(this.vm, index, (_, intid, level) => this.lines.push([intid, level]));
  }

  at(time: number): this {
    this.time = time;
    this.timers.update();
    return this;
  }

  write(register: number, value: bigint): void {
    expect(this.timers.write(register, value)).toBe(true);
  }
}

describe('counters', () => {
  it('the virtual one starts at zero with the vCPU, the physical one is the machine’s', () => {
    const bench = new Bench().at(1500);
    expect(bench.timers.read(CNTVCT_EL0)).toBe(500n);
    expect(bench.timers.read(CNTVCTSS_EL0)).toBe(500n);
    expect(bench.timers.read(CNTPCT_EL0)).toBe(1500n);
    expect(bench.timers.read(CNTFRQ_EL0)).toBe(BigInt(COUNTER_FREQUENCY_HZ));
  });

  it.each([CNTFRQ_EL0, CNTVCT_EL0, CNTPCT_EL0, 0xc000])('write of %i: not ours', (register) => {
    expect(new Bench().timers.write(register, 0n)).toBe(false);
  });

  it('read of another register: undefined', () => {
    expect(new Bench().timers.read(0xc000)).toBeUndefined();
  });

  it('a second vCPU sets the virtual counter to zero for both', () => {
    const bench = new Bench().at(2000);
    const second = bench.vcpu(1);
    expect(bench.timers.read(CNTVCT_EL0)).toBe(0n);
    expect(second.read(CNTVCT_EL0)).toBe(0n);
  });
});

describe('condition', () => {
  it.each([
    ['in the future', 501n, ENABLE, ENABLE, []],
    ['now', 500n, ENABLE, ENABLE | 4n, [[27, true]]],
    ['in the past', 0n, ENABLE, ENABLE | 4n, [[27, true]]],
    ['past but masked', 0n, ENABLE | IMASK, ENABLE | IMASK | 4n, []],
    ['past but off', 0n, 0n, 0n, []],
    ['never', ALL_ONES, ENABLE, ENABLE, []],
    ['just above the machine’s range', 1n << 53n, ENABLE, ENABLE, []],
  ] as const)('compare value %s', (_, compare, control, read, lines) => {
    const bench = new Bench().at(1500);
    bench.write(CNTV_CVAL_EL0, compare);
    bench.write(CNTV_CTL_EL0, control);
    expect(bench.timers.read(CNTV_CTL_EL0)).toBe(read);
    expect(bench.lines).toEqual(lines);
  });

  it('CTL: ISTATUS and the bits above are not writable', () => {
    const bench = new Bench();
    bench.write(CNTP_CVAL_EL0, ALL_ONES);
    bench.write(CNTP_CTL_EL0, ALL_ONES);
    expect(bench.timers.read(CNTP_CTL_EL0)).toBe(3n);
  });

  it('the line follows condition and mask, and is driven only when it changes', () => {
    const bench = new Bench();
    bench.write(CNTP_CVAL_EL0, 2000n);
    bench.write(CNTP_CTL_EL0, ENABLE);
    bench.at(1999).at(2000).at(2001);
    bench.write(CNTP_CTL_EL0, ENABLE | IMASK);
    bench.write(CNTP_CTL_EL0, ENABLE);
    bench.write(CNTP_CVAL_EL0, 3000n);
    bench.at(3000);
    bench.write(CNTP_CTL_EL0, 0n);
    const levels = [true, false, true, false, true, false].map((level) => [30, level]);
    expect(bench.lines).toEqual(levels);
  });
});

describe('TVAL', () => {
  it.each([
    ['positive', 100n, 600n],
    ['minus one', 0xffff_ffffn, 499n],
    ['the most', 0x7fff_ffffn, 500n + 0x7fff_ffffn],
    ['below zero: the compare value wraps', 0x8000_0000n, (1n << 64n) + 500n - 0x8000_0000n],
    ['upper half ignored', 0xdead_0000_0064n, 600n],
  ])('write of %s', (_, value, compare) => {
    const bench = new Bench().at(1500);
    bench.write(CNTV_TVAL_EL0, value);
    expect(bench.timers.read(CNTV_CVAL_EL0)).toBe(compare);
    expect(bench.timers.read(CNTV_TVAL_EL0)).toBe(value & 0xffff_ffffn);
  });

  it('counts down through zero, the low 32 bits of the distance', () => {
    const bench = new Bench();
    bench.write(CNTP_TVAL_EL0, 2n);
    const seen = [1000, 1002, 1003].map((time) => bench.at(time).timers.read(CNTP_TVAL_EL0));
    expect(seen).toEqual([2n, 0n, 0xffff_ffffn]);
  });
});

describe('nextDeadline', () => {
  it('the earlier of the armed timers; undefined without one', () => {
    const bench = new Bench();
    expect(bench.timers.nextDeadline()).toBeUndefined();
    bench.write(CNTV_CVAL_EL0, 700n);
    bench.write(CNTV_CTL_EL0, ENABLE);
    expect(bench.timers.nextDeadline()).toBe(700);
    bench.write(CNTP_CVAL_EL0, 1300n);
    bench.write(CNTP_CTL_EL0, ENABLE);
    expect(bench.timers.nextDeadline()).toBe(300);
    bench.write(CNTP_CTL_EL0, ENABLE | IMASK);
    expect(bench.timers.nextDeadline()).toBe(700);
  });

  it('0 when due but not yet raised, and no more once it is', () => {
    const bench = new Bench();
    bench.write(CNTV_CVAL_EL0, 10n);
    bench.write(CNTV_CTL_EL0, ENABLE);
    bench.time = 5000;
    expect(bench.timers.nextDeadline()).toBe(0);
    bench.timers.update();
    expect(bench.timers.nextDeadline()).toBeUndefined();
    expect(bench.lines).toEqual([[27, true]]);
  });
});

describe('KVM registers', () => {
  it('CTL shows ISTATUS whether the timer is on or not', () => {
    const bench = new Bench();
    expect(bench.timers.getOneReg(KVM_REG_ARM_TIMER_CTL)).toBe(4n);
    expect(bench.timers.setOneReg(KVM_REG_ARM_TIMER_CVAL, ALL_ONES)).toBe(0);
    expect(bench.timers.getOneReg(KVM_REG_ARM_TIMER_CTL)).toBe(0n);
    bench.timers.setOneReg(KVM_REG_ARM_PTIMER_CTL, ALL_ONES);
    expect(bench.timers.getOneReg(KVM_REG_ARM_PTIMER_CTL)).toBe(7n);
  });

  it('CNT sets the counter of every vCPU', () => {
    const bench = new Bench();
    const second = bench.vcpu(1);
    expect(bench.timers.setOneReg(KVM_REG_ARM_TIMER_CNT, 9_000_000n)).toBe(0);
    bench.at(1001);
    expect(second.getOneReg(KVM_REG_ARM_TIMER_CNT)).toBe(9_000_001n);
    expect(second.getOneReg(KVM_REG_ARM_PTIMER_CNT)).toBe(1001n);
    bench.timers.setOneReg(KVM_REG_ARM_PTIMER_CNT, 5n);
    expect(second.read(CNTPCT_EL0)).toBe(5n);
    bench.timers.setOneReg(KVM_REG_ARM_PTIMER_CVAL, 77n);
    expect(bench.timers.getOneReg(KVM_REG_ARM_PTIMER_CVAL)).toBe(77n);
    expect(second.getOneReg(KVM_REG_ARM_PTIMER_CVAL)).toBe(0n);
  });

  it('another register: ENOENT', () => {
    const { timers } = new Bench();
    expect(timers.getOneReg(KVM_REG_ARM_PSCI_VERSION)).toBe(refuse(Errno.ENOENT));
    expect(timers.setOneReg(KVM_REG_ARM_PSCI_VERSION, 0n)).toBe(refuse(Errno.ENOENT));
  });

  it('a counter set near the end of its 64 bits: compared and counted exactly', () => {
    const bench = new Bench();
    bench.timers.setOneReg(KVM_REG_ARM_TIMER_CNT, ALL_ONES - 9n);
    bench.write(CNTV_CVAL_EL0, ALL_ONES - 4n);
    bench.write(CNTV_CTL_EL0, ENABLE);
    expect(bench.timers.nextDeadline()).toBe(5);
    bench.at(1004);
    expect(bench.lines).toEqual([]);
    bench.at(1005);
    expect(bench.lines).toEqual([[27, true]]);
    // The count wraps to zero, and the compare value lies in the future again.
    bench.at(1010);
    expect(bench.timers.read(CNTVCT_EL0)).toBe(0n);
    expect(bench.lines).toEqual([
      [27, true],
      [27, false],
    ]);
  });
});

describe('VmTimers', () => {
  it('setCounterOffset: one for both counters, and from then on fixed', () => {
    const bench = new Bench();
    expect(bench.vm.setCounterOffset(400n, 1n, false)).toBe(refuse(Errno.EINVAL));
    expect(bench.vm.setCounterOffset(400n, 0n, true)).toBe(refuse(Errno.EBUSY));
    expect(bench.vm.setCounterOffset(400n, 0n, false)).toBe(0);
    bench.timers.setOneReg(KVM_REG_ARM_TIMER_CNT, 0n);
    bench.vcpu(1);
    expect(bench.timers.read(CNTVCT_EL0)).toBe(600n);
    expect(bench.timers.read(CNTPCT_EL0)).toBe(600n);
  });

  it('setPpi: refused as in Linux', () => {
    const { vm } = new Bench();
    const VTIMER = KVM_ARM_VCPU_TIMER_IRQ_VTIMER;
    expect(vm.setPpi(VTIMER, 20, false)).toBe(refuse(Errno.EINVAL));
    expect(vm.setPpi(VTIMER, 15, true)).toBe(refuse(Errno.EINVAL));
    expect(vm.setPpi(VTIMER, 32, true)).toBe(refuse(Errno.EINVAL));
    expect(vm.setPpi(7, 20, true)).toBe(refuse(Errno.ENXIO));
    expect(vm.ppi(7)).toBe(refuse(Errno.ENXIO));
    expect(vm.setPpi(VTIMER, 30, true)).toBe(0);
    expect(vm.fixPpis()).toBe(refuse(Errno.EINVAL));
    expect(vm.setPpi(VTIMER, 20, true)).toBe(0);
    expect(vm.fixPpis()).toBe(0);
    expect(vm.setPpi(VTIMER, 21, true)).toBe(refuse(Errno.EBUSY));
    expect([vm.ppi(VTIMER), vm.ppi(KVM_ARM_VCPU_TIMER_IRQ_PTIMER)]).toEqual([20, 30]);
  });
});

it('reset: both timers off, lines low, compare values kept', () => {
  const bench = new Bench();
  bench.write(CNTV_CTL_EL0, ENABLE);
  bench.write(CNTP_CVAL_EL0, 5n);
  bench.write(CNTP_CTL_EL0, ENABLE);
  bench.timers.reset();
  expect(bench.lines.slice(-2)).toEqual([
    [27, false],
    [30, false],
  ]);
  expect(bench.timers.read(CNTP_CVAL_EL0)).toBe(5n);
});

it('save and restore: the same registers, and both lines are driven', () => {
  const bench = new Bench();
  bench.vm.setPpi(KVM_ARM_VCPU_TIMER_IRQ_VTIMER, 20, true);
  bench.write(CNTV_CVAL_EL0, 300n);
  bench.write(CNTV_CTL_EL0, ENABLE);
  bench.at(1400);
  const copy = new Bench();
  copy.time = 1400;
  copy.vm.restore(structuredClone(bench.vm.save()));
  copy.timers.restore(structuredClone(bench.timers.save()));
  expect(copy.timers.save()).toEqual(bench.timers.save());
  expect(copy.timers.read(CNTVCT_EL0)).toBe(400n);
  expect(copy.lines).toContainEqual([20, true]);
  expect(copy.lines).toContainEqual([30, false]);
});
