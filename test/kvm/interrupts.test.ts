/**
 * Interrupts as a guest takes them, with a VGIC: WFI and what wakes it, timers at the counter's
 * tick, SGIs between vCPUs, IRQ and FIQ with their masks, and how the scheduler lets time pass. The
 * VGIC alone is tested in src/kvm/vgic.
 */
import { describe, expect, it } from 'vitest';
import { KVM_ARM_IRQ_TYPE_SPI, KVM_CAP_ARM_MTE, kvmArmIrq } from '../../src/kvm/uapi.ts';
import { Scheduler } from '../../src/vmm/scheduler.ts';
import {
  type Answer,
  answerText,
  GIC_DISTRIBUTOR,
  GIC_REDISTRIBUTORS,
  GuestVm,
} from '../support/guest-vm.ts';

const VTIMER = 27;
const SPI = 40;

const redistributor = (index: number): number => GIC_REDISTRIBUTORS + 0x2_0000 * index;

/** Enables the distributor, this vCPU's interface, and its PPI 27 and SGIs as group 1. */
const startGic = (index = 0): string => `
  ldr x9, =${GIC_DISTRIBUTOR}
  mov w10, #2
  str w10, [x9]
  ldr x9, =${redistributor(index) + 0x1_0000}
  mov w10, #-1
  str w10, [x9, #0x80]
  ldr w10, =${(1 << VTIMER) | 0xffff}
  str w10, [x9, #0x100]
  mov x10, #0xff
  msr icc_pmr_el1, x10
  mov x10, #1
  msr icc_igrpen1_el1, x10
  isb`;

const startTimer = (ticks: number): string => `
  ldr x9, =${ticks}
  msr cntv_tval_el0, x9
  mov x9, #1
  msr cntv_ctl_el0, x9
  isb`;

/** Enables SPI 40, to vCPU 0, as group 0 or 1. */
const startSpi = (group: 0 | 1): string => `
  ldr x9, =${GIC_DISTRIBUTOR}
  mov w10, #${group === 1 ? -1 : 0}
  str w10, [x9, #0x84]
  mov w10, #${1 << (SPI - 32)}
  str w10, [x9, #0x104]
  mov x10, #1
  msr icc_igrpen0_el1, x10
  isb`;

const spiLine = (guest: GuestVm, level: 0 | 1): number =>
  guest.vm.irqLine({ irq: kvmArmIrq({ type: KVM_ARM_IRQ_TYPE_SPI, num: SPI }), level });

/** Lets time pass until the timer of a waiting vCPU. */
function skipToTimer(guest: GuestVm, index = 0): number {
  const ticks = guest.vcpus[index]!.nextDeadline();
  if (ticks === undefined) throw new Error('no timer is armed');
  guest.kvm.clock.skip(ticks);
  return ticks;
}

const vectorOf = (answer: Answer): number | string =>
  answer.kind === 'exception' ? answer.vector : answerText(answer);

describe('WFI', () => {
  it('blocks; the timer wakes it though interrupts are masked', () => {
    const guest = new GuestVm({ vgic: true });
    const vcpu = guest.begin(`
      ${startGic()}
      ${startTimer(5000)}
      mov x0, #0
      wfi
      mrs x0, icc_iar1_el1`);
    expect(vcpu.run()).toEqual({ kind: 'blocked' });
    expect(vcpu.runnable).toBe(false);
    expect(vcpu.run()).toEqual({ kind: 'blocked' });
    const ticks = skipToTimer(guest);
    expect(ticks).toBeGreaterThan(4900);
    expect(ticks).toBeLessThanOrEqual(5000);
    expect(vcpu.runnable).toBe(true);
    expect(guest.answer()).toEqual({ kind: 'value', value: BigInt(VTIMER) });
    expect(vcpu.statistics.exitsByReason.wfi).toBe(1);
  });

  it('one tick before the timer: still blocked', () => {
    const guest = new GuestVm({ vgic: true });
    const vcpu = guest.begin(`${startGic()}\n${startTimer(5000)}\n wfi`);
    vcpu.run();
    guest.kvm.clock.skip(vcpu.nextDeadline()! - 1);
    expect(vcpu.run()).toEqual({ kind: 'blocked' });
    guest.kvm.clock.skip(1);
    expect(guest.answer().kind).toBe('value');
  });

  it('with an interrupt pending, masked or not, it ends at once', () => {
    const guest = new GuestVm({ vgic: true });
    const source = `${startGic()}\n${startSpi(1)}\n wfi\n mrs x0, isr_el1`;
    guest.begin(source);
    expect(spiLine(guest, 1)).toBe(0);
    expect(guest.answer()).toEqual({ kind: 'value', value: 0x80n });
    expect(guest.vcpus[0]!.statistics.exitsByReason.wfi).toBeUndefined();
  });

  it('unmasked, the interrupt is taken behind it', () => {
    const guest = new GuestVm({ vgic: true });
    const vcpu = guest.begin(
      `${startGic()}\n${startTimer(100)}\n msr daifclr, #2\n1: wfi\n nop\n b .`,
    );
    expect(vcpu.run().kind).toBe('blocked');
    const behind = vcpu.readPc();
    skipToTimer(guest);
    expect(guest.answer()).toMatchObject({ kind: 'exception', vector: 0x280, elr: behind });
  });

  it('the VMM’s KVM_IRQ_LINE wakes it', () => {
    const guest = new GuestVm({ vgic: true });
    const vcpu = guest.begin(`${startGic()}\n${startSpi(1)}\n wfi\n mrs x0, icc_iar1_el1`);
    expect(vcpu.run()).toEqual({ kind: 'blocked' });
    spiLine(guest, 1);
    expect(guest.answer()).toEqual({ kind: 'value', value: BigInt(SPI) });
  });

  it('immediate_exit ends the wait: the guest goes on behind the WFI', () => {
    const guest = new GuestVm({ vgic: true });
    const vcpu = guest.begin(`${startGic()}\n mov x0, #4\n wfi`);
    expect(vcpu.run()).toEqual({ kind: 'blocked' });
    vcpu.immediateExit = true;
    expect(vcpu.run()).toEqual({ kind: 'interrupted' });
    vcpu.immediateExit = false;
    expect(guest.answer()).toEqual({ kind: 'value', value: 4n });
  });

  it('at EL0: trapped to EL1 unless SCTLR_EL1.nTWI; WFE likewise', () => {
    const guest = new GuestVm({ vgic: true });
    guest.setBits('SCTLR_EL1', (1n << 16n) | (1n << 18n), 0n);
    const trap = { kind: 'exception', vector: 0x400, elr: 0x1_4000_0004n };
    expect(guest.runAtEl0('wfi')).toMatchObject({ ...trap, esr: 0x07e0_0000n });
    // An event is there: the exception return to EL0 was one. The second WFE would wait.
    const second = { ...trap, elr: trap.elr + 4n };
    expect(guest.runAtEl0('wfe\n wfe')).toMatchObject({ ...second, esr: 0x07e0_0001n });
    guest.setBits('SCTLR_EL1', (1n << 16n) | (1n << 18n), (1n << 16n) | (1n << 18n));
    expect(guest.beginAtEl0('wfi').run()).toEqual({ kind: 'blocked' });
    expect(guest.beginAtEl0('wfe\n wfe').run()).toEqual({ kind: 'yielded' });
  });
});

describe('timers', () => {
  it('a guest that computes is interrupted at the tick it set', () => {
    const guest = new GuestVm({ vgic: true });
    const vcpu = guest.begin(`
      ${startGic()}
      ${startTimer(700)}
      msr daifclr, #2
      b .`);
    expect(vectorOf(guest.answer(vcpu))).toBe(0x280);
    const late = guest.value('mrs x1, cntv_cval_el0\n mrs x0, cntvct_el0\n sub x0, x0, x1');
    // The reading costs instructions, 16 to a tick.
    expect(Number(late)).toBeLessThan(4);
  });

  it('IMASK and a compare value in the future: no interrupt; ISTATUS tells', () => {
    const guest = new GuestVm({ vgic: true });
    const status = (control: number, ticks: number): bigint =>
      guest.value(`
        ${startGic()}
        ldr x9, =${ticks}
        msr cntv_tval_el0, x9
        mov x9, #${control}
        msr cntv_ctl_el0, x9
        msr daifclr, #2
        nop
        msr daifset, #2
        mrs x0, cntv_ctl_el0`);
    expect(status(3, 0)).toBe(7n);
    expect(status(1, 100_000)).toBe(1n);
    expect(status(0, 0)).toBe(0n);
  });

  it('disabled in the handler, the level drops: no second interrupt', () => {
    const guest = new GuestVm({ vgic: true });
    guest.begin(`${startGic()}\n${startTimer(1)}\n msr daifclr, #2\n b .`);
    expect(vectorOf(guest.answer())).toBe(0x280);
    expect(
      guest.value(`
        mrs x1, icc_iar1_el1
        msr cntv_ctl_el0, xzr
        msr icc_eoir1_el1, x1
        msr daifclr, #2
        isb
        mov x0, #11`),
    ).toBe(11n);
  });
});

describe('IRQ and FIQ', () => {
  /** DAIF at the time (I = 2, F = 1), group of the interrupt, vector taken. */
  const cases: readonly [number, 0 | 1, number | 'none'][] = [
    [0, 1, 0x280],
    [0, 0, 0x300],
    [2, 1, 'none'],
    [2, 0, 0x300],
    [1, 1, 0x280],
    [1, 0, 'none'],
    [3, 1, 'none'],
    [3, 0, 'none'],
  ];
  it.each(cases)('DAIF.IF = %i, group %i: vector %s', (daif, group, vector) => {
    const guest = new GuestVm({ vgic: true });
    guest.begin(`
      ${startGic()}
      ${startSpi(group)}
      mov x9, #${daif << 6}
      msr daif, x9
      mov x0, #1`);
    spiLine(guest, 1);
    expect(vectorOf(guest.answer())).toBe(vector === 'none' ? 'value 0x1' : vector);
  });

  it('a FIQ of higher priority comes before an IRQ, and masks it until the return', () => {
    const guest = new GuestVm({ vgic: true });
    guest.begin(`
      ${startGic()}
      mov w10, #0x80
      ldr x9, =${redistributor(0) + 0x1_0400 + VTIMER}
      strb w10, [x9]
      ${startSpi(0)}
      ${startTimer(0)}
      msr daifclr, #3
      b .`);
    spiLine(guest, 1);
    expect(vectorOf(guest.answer())).toBe(0x300);
    expect(guest.value('mrs x0, icc_iar0_el1')).toBe(BigInt(SPI));
    spiLine(guest, 0);
    guest.begin(`
      mov x1, #${SPI}
      msr icc_eoir0_el1, x1
      isb
      mrs x0, isr_el1
      eret`);
    expect(vectorOf(guest.answer())).toBe(0x280);
    expect(guest.vcpus[0]!.readX(0)).toBe(0x80n);
  });

  it('ERET that unmasks: taken before the first instruction there', () => {
    const guest = new GuestVm({ vgic: true });
    guest.begin(`
      ${startGic()}
      ${startSpi(1)}
      adr x1, target
      msr elr_el1, x1
      mov x1, #5
      msr spsr_el1, x1
      mov x0, #0
      eret
    target:
      mov x0, #1`);
    const target = guest.vcpus[0]!.readPc();
    spiLine(guest, 1);
    const answer = guest.answer();
    expect(vectorOf(answer)).toBe(0x280);
    expect(guest.vcpus[0]!.readX(0)).toBe(0n);
    expect(answer.kind === 'exception' && answer.elr > target).toBe(true);
  });

  it('from EL0: vector 0x480, SPSR says EL0', () => {
    const guest = new GuestVm({ vgic: true });
    guest.value(`${startGic()}\n${startSpi(1)}`);
    const vcpu = guest.beginAtEl0('b .');
    expect(vcpu.run(1000).kind).toBe('preempted');
    spiLine(guest, 1);
    expect(guest.answer()).toMatchObject({ kind: 'exception', vector: 0x480, spsr: 0n });
  });

  it('a level that stays high comes again after the EOI, until it is lowered', () => {
    const guest = new GuestVm({ vgic: true });
    guest.value(`${startGic()}\n${startSpi(1)}`);
    const round = `
      mrs x1, icc_iar1_el1
      msr icc_eoir1_el1, x1
      mov x0, x1`;
    spiLine(guest, 1);
    expect(guest.value(round)).toBe(BigInt(SPI));
    expect(guest.value(round)).toBe(BigInt(SPI));
    spiLine(guest, 0);
    expect(guest.value(round)).toBe(1023n);
  });
});

describe('two vCPUs', () => {
  it('an SGI wakes the other from WFI, and carries its number', () => {
    const guest = new GuestVm({ vcpuCount: 2, vgic: true });
    const other = guest.begin(`${startGic(1)}\n wfi\n mrs x0, icc_iar1_el1`, 1);
    expect(other.run()).toEqual({ kind: 'blocked' });
    // SGI 5 to affinity 0.0.0.1.
    guest.value(`${startGic()}\n ldr x1, =${(5 << 24) | 2}\n msr icc_sgi1r_el1, x1`);
    expect(other.runnable).toBe(true);
    expect(guest.answer(other)).toEqual({ kind: 'value', value: 5n });
  });

  it('an SGI to a vCPU that computes: taken when its turn comes', () => {
    const guest = new GuestVm({ vcpuCount: 2, vgic: true });
    const other = guest.begin(`${startGic(1)}\n msr daifclr, #2\n b .`, 1);
    expect(other.run(1000).kind).toBe('preempted');
    guest.value(`${startGic()}\n ldr x1, =${(3 << 24) | 2}\n msr icc_sgi1r_el1, x1`);
    expect(vectorOf(guest.answer(other))).toBe(0x280);
  });

  it('each has its own timer and banked PPI', () => {
    const guest = new GuestVm({ vcpuCount: 2, vgic: true });
    guest.begin(`${startGic()}\n${startTimer(1000)}\n wfi\n mrs x0, icc_iar1_el1`);
    const other = guest.begin(`${startGic(1)}\n wfi\n mrs x0, icc_iar1_el1`, 1);
    expect(guest.vcpus[0]!.run()).toEqual({ kind: 'blocked' });
    expect(other.run()).toEqual({ kind: 'blocked' });
    expect(other.nextDeadline()).toBeUndefined();
    skipToTimer(guest);
    expect([guest.vcpus[0]!.runnable, other.runnable]).toEqual([true, false]);
  });
});

describe('Scheduler', () => {
  it('all wait: time passes at once to the first timer', () => {
    const guest = new GuestVm({ vcpuCount: 2, vgic: true });
    const sleep = (index: number, ticks: number): string => `
      ${startGic(index)}
      ${startTimer(ticks)}
      wfi
      msr cntv_ctl_el0, xzr
      mov x0, #${index}
      str x0, [x28]
      wfi`;
    guest.begin(sleep(0, 90_000));
    guest.begin(sleep(1, 10_000), 1);
    const before = guest.kvm.clock.now();
    const scheduler = new Scheduler(guest.vcpus, guest.kvm.clock);
    const order = [1, 2].map(() => {
      const turn = scheduler.run(1_000_000);
      return turn.kind === 'exit' && turn.exit.kind === 'mmio' ? turn.exit.data : turn.kind;
    });
    expect(order).toEqual([1n, 0n]);
    const passed = guest.kvm.clock.now() - before;
    expect(passed).toBeGreaterThanOrEqual(90_000);
    expect(passed).toBeLessThan(91_000);
  });

  it('all wait and nothing is armed: idle without a deadline', () => {
    const guest = new GuestVm({ vgic: true });
    guest.begin(`${startGic()}\n wfi`);
    const scheduler = new Scheduler(guest.vcpus, guest.kvm.clock);
    expect(scheduler.run(1_000_000)).toEqual({ kind: 'idle', ticks: undefined });
  });

  it('a vCPU that spins on a lock in WFE gives its turn to the one that frees it', () => {
    const guest = new GuestVm({ vcpuCount: 2 });
    const memory = guest.addSlot();
    guest.process.memory.writeU64(memory, 1n);
    guest.begin('ldr x1, =0x80000000\n1: wfe\n ldr x0, [x1]\n cbnz x0, 1b\n mov x0, #8');
    guest.begin(
      `ldr x1, =0x80000000
       mov x2, #0x1000
    2: subs x2, x2, #1
       b.ne 2b
       str xzr, [x1]
       sev
       mov x0, #9`,
      1,
    );
    const scheduler = new Scheduler(guest.vcpus, guest.kvm.clock);
    const reports = [1, 2].map(() => {
      const turn = scheduler.run(1_000_000);
      return turn.kind === 'exit' && turn.exit.kind === 'mmio' ? turn.exit.data : turn.kind;
    });
    expect(reports).toEqual([9n, 8n]);
  });
});

it('KVM_CREATE_DEVICE after KVM_CAP_ARM_MTE and vCPUs: the VGIC serves an MTE guest alike', () => {
  const guest = new GuestVm({ vgic: true, mte: true });
  expect(guest.vm.checkExtension(KVM_CAP_ARM_MTE)).toBe(1);
  expect(guest.value('mrs x0, id_aa64pfr0_el1\n ubfx x0, x0, #24, #4')).toBe(1n);
  expect(new GuestVm().value('mrs x0, id_aa64pfr0_el1\n ubfx x0, x0, #24, #4')).toBe(0n);
});
