/**
 * PSCI and other hypercalls of guests with two vCPUs: what the caller gets, what the other vCPU
 * does, and what comes back from KVM_RUN. The calls one by one are tested in src/kvm/smccc.test.ts.
 */
import { beforeEach, describe, expect, it } from 'vitest';
import { u64 } from '../../src/base/index.ts';
import { WallClock } from '../../src/kvm/clock.ts';
import { SmcccAction } from '../../src/kvm/smccc-filter.ts';
import * as uapi from '../../src/kvm/uapi.ts';
import { CODE, GuestVm } from '../support/guest-vm.ts';

const negative = (code: number): bigint => u64(BigInt(code));

const call = (functionId: number, ...args: (number | bigint)[]): string => `
  ldr x0, =${functionId}
  ${args.map((value, i) => `ldr x${i + 1}, =${value}`).join('\n')}
  hvc #0`;

/** Two vCPUs, the second powered off. */
class Pair extends GuestVm {
  constructor(options: { vgic?: boolean } = {}) {
    super({ vcpuCount: 2, ...options });
    this.initVcpu(this.vcpus[1]!, true);
  }

  get second() {
    return this.vcpus[1]!;
  }
}

describe('CPU_ON, CPU_OFF, AFFINITY_INFO', () => {
  let guest: Pair;
  beforeEach(() => {
    guest = new Pair();
  });
  const on = (target: number | bigint, entry: number, context = 0x1234_5678_9abc_def0n): string =>
    call(uapi.PSCI_0_2_FN64_CPU_ON, target, entry, context);
  const info = (target: number | bigint, level = 0): string =>
    call(uapi.PSCI_0_2_FN64_AFFINITY_INFO, target, level);

  it('a vCPU that is powered off: KVM_RUN does not enter it', () => {
    guest.begin('mov x0, #1', 1);
    expect(guest.second.run()).toEqual({ kind: 'blocked' });
    expect(guest.second.runnable).toBe(false);
    expect(guest.second.mpState).toBe(uapi.KVM_MP_STATE_STOPPED);
    expect(guest.second.statistics.instructionCount).toBe(0);
  });

  it('CPU_ON: the target starts at the entry with x0, reset otherwise', () => {
    const { second } = guest;
    second.writeX(5, 5n);
    guest.setRegister('TPIDR_EL1', 9n, second);
    const entry = guest.load(
      'mrs x1, sctlr_el1\nmrs x2, tpidr_el1\nmrs x3, daif\nmrs x4, currentel',
      1,
    );
    expect(guest.value(on(1, entry))).toBe(0n);
    expect(second.mpState).toBe(uapi.KVM_MP_STATE_RUNNABLE);
    // Its MMU is off: the report address is Device memory all the same.
    expect(guest.answer(second)).toEqual({ kind: 'value', value: 0x1234_5678_9abc_def0n });
    const [sctlr, tpidr, daif, el, x5] = [1, 2, 3, 4, 5].map((n) => second.readX(n));
    expect(Number(sctlr! & 1n)).toBe(0);
    expect(tpidr).not.toBe(9n);
    expect([daif, el, x5]).toEqual([0x3c0n, 4n, 0n]);
  });

  it('CPU_ON by the 32-bit convention: the upper halves of its arguments do not count', () => {
    const entry = guest.load('', 1);
    const text = call(uapi.PSCI_0_2_FN_CPU_ON, 0xffff_0000_0000_0001n, entry, 0x5_0000_0007n);
    expect(guest.value(text)).toBe(0n);
    expect(guest.answer(guest.second)).toEqual({ kind: 'value', value: 7n });
  });

  it.each([
    ['itself', 0, uapi.PSCI_RET_ALREADY_ON],
    ['no such vCPU', 2, uapi.PSCI_RET_INVALID_PARAMS],
    ['an affinity with other bits', 0x8000_0001, uapi.PSCI_RET_INVALID_PARAMS],
  ])('CPU_ON of %s', (_name, target, result) => {
    expect(guest.value(on(target, CODE))).toBe(negative(result));
    expect(guest.second.poweredOff).toBe(true);
  });

  it('AFFINITY_INFO: OFF, ON after CPU_ON, OFF after CPU_OFF; and CPU_ON again', () => {
    const { second } = guest;
    expect(guest.value(info(1))).toBe(BigInt(uapi.PSCI_0_2_AFFINITY_LEVEL_OFF));
    expect(guest.value(info(0, 1))).toBe(BigInt(uapi.PSCI_0_2_AFFINITY_LEVEL_ON));
    expect(guest.value(info(2))).toBe(negative(uapi.PSCI_RET_INVALID_PARAMS));
    expect(guest.value(info(1, 4))).toBe(negative(uapi.PSCI_RET_INVALID_PARAMS));

    const entry = guest.load(call(uapi.PSCI_0_2_FN_CPU_OFF), 1);
    for (let i = 0; i < 2; i++) {
      expect(guest.value(on(1, entry))).toBe(0n);
      expect(guest.value(info(1))).toBe(BigInt(uapi.PSCI_0_2_AFFINITY_LEVEL_ON));
      expect(guest.value(on(1, entry))).toBe(negative(uapi.PSCI_RET_ALREADY_ON));
      expect(second.run()).toEqual({ kind: 'blocked' });
      expect(second.mpState).toBe(uapi.KVM_MP_STATE_STOPPED);
      expect(guest.value(info(1))).toBe(BigInt(uapi.PSCI_0_2_AFFINITY_LEVEL_OFF));
    }
  });

  it('KVM_SET_MP_STATE: RUNNABLE lets the vCPU run from where it stands; others EINVAL', () => {
    const { second } = guest;
    guest.begin('mov x0, #3', 1);
    expect(second.setMpState(uapi.KVM_MP_STATE_RUNNABLE)).toBe(0);
    expect(guest.answer(second)).toEqual({ kind: 'value', value: 3n });
    expect(second.setMpState(uapi.KVM_MP_STATE_STOPPED)).toBe(0);
    expect(second.run()).toEqual({ kind: 'blocked' });
    expect(second.setMpState(1)).toBe(-22);
  });
});

describe('the system’s end', () => {
  it.each([
    ['SYSTEM_OFF', uapi.PSCI_0_2_FN_SYSTEM_OFF, uapi.KVM_SYSTEM_EVENT_SHUTDOWN, 0n],
    ['SYSTEM_RESET', uapi.PSCI_0_2_FN_SYSTEM_RESET, uapi.KVM_SYSTEM_EVENT_RESET, 0n],
    ['SYSTEM_RESET2', uapi.PSCI_1_1_FN64_SYSTEM_RESET2, uapi.KVM_SYSTEM_EVENT_RESET, 1n],
  ])('%s: KVM_EXIT_SYSTEM_EVENT, every vCPU is off', (_name, functionId, type, flag) => {
    const guest = new GuestVm({ vcpuCount: 2 });
    const vcpu = guest.begin(call(functionId, 0));
    guest.begin('b .', 1);
    expect(vcpu.run()).toEqual({ kind: 'system-event', type, data: [flag] });
    for (const each of guest.vcpus) expect(each.run()).toEqual({ kind: 'blocked' });
    // A VMM that lets the guest go on shows it a failure.
    vcpu.setMpState(uapi.KVM_MP_STATE_RUNNABLE);
    expect(guest.answer()).toEqual({
      kind: 'value',
      value: negative(uapi.PSCI_RET_INTERNAL_FAILURE),
    });
  });

  it('KVM_ARM_VCPU_INIT after SYSTEM_RESET: the guest boots again', () => {
    const guest = new GuestVm({ vcpuCount: 2 });
    expect(guest.begin(call(uapi.PSCI_0_2_FN_SYSTEM_RESET)).run().kind).toBe('system-event');
    guest.initVcpu(guest.vcpus[0]!);
    guest.initVcpu(guest.vcpus[1]!, true);
    expect(guest.value('mov x0, #1')).toBe(1n);
    expect(guest.vcpus[1]!.run()).toEqual({ kind: 'blocked' });
  });
});

describe('conduits', () => {
  const guest = new GuestVm();

  it.each(['hvc #0', 'smc #0'])(
    '%s: PSCI_VERSION 1.1; x1 to x3 become 0, x4 stays',
    (instruction) => {
      const registers = 'mov x3, #3\n mov x4, #4';
      const text = `ldr x0, =${uapi.PSCI_0_2_FN_PSCI_VERSION}\n ${registers}\n ${instruction}`;
      expect(guest.value(text)).toBe(0x1_0001n);
      expect([3, 4].map((n) => guest.vcpus[0]!.readX(n))).toEqual([0n, 4n]);
    },
  );

  it('smc with an immediate: NOT_SUPPORTED in x0 alone', () => {
    const text = `ldr x0, =${uapi.PSCI_0_2_FN_PSCI_VERSION}\n mov x1, #3\n smc #1`;
    expect(guest.value(text)).toBe(negative(uapi.SMCCC_RET_NOT_SUPPORTED));
    expect(guest.vcpus[0]!.readX(1)).toBe(3n);
  });

  it('an unknown function: NOT_SUPPORTED', () => {
    expect(guest.value('ldr x0, =0x84001234\n hvc #0')).toBe(
      negative(uapi.SMCCC_RET_NOT_SUPPORTED),
    );
  });

  it.each(['hvc #0', 'smc #0'])('%s at EL0: UNDEFINED, PC at the instruction', (instruction) => {
    const answer = guest.runAtEl0(`${instruction}`);
    expect(answer).toMatchObject({ kind: 'exception', vector: 0x400, esr: 0x0200_0000n });
    expect(answer).toMatchObject({ elr: 0x1_4000_0004n });
  });

  it('a call that the filter forwards: KVM_EXIT_HYPERCALL, the VMM’s x0 is the result', () => {
    const functionId = 0xc600_1234;
    const other = new GuestVm();
    const { smcccFilter } = other.vm;
    const range = { base: functionId, count: 1, hasRunOnce: false };
    expect(smcccFilter.set({ ...range, action: SmcccAction.FORWARD_TO_USER })).toBe(0);
    const vcpu = other.begin(`ldr x0, =${functionId}\n smc #0`);
    expect(vcpu.run()).toEqual({
      kind: 'hypercall',
      functionId,
      flags: uapi.KVM_HYPERCALL_EXIT_SMC,
    });
    vcpu.writeX(0, 77n);
    expect(other.answer()).toEqual({ kind: 'value', value: 77n });
  });
});

describe('PTP', () => {
  const PTP = uapi.ARM_SMCCC_VENDOR_HYP_KVM_PTP_FUNC_ID;
  const EPOCH_NS = BigInt(Date.UTC(2026, 0, 1)) * 1_000_000n;
  const TICK_NS = 16n;

  it.each([
    ['cntvct_el0', 0],
    ['cntpct_el0', 1],
  ])('the host’s date, and %s at that moment', (register, counter) => {
    const guest = new GuestVm();
    const ns = guest.value(`
      mrs x9, ${register}
      ${call(PTP, counter)}
      mrs x11, ${register}
      orr x0, x1, x0, lsl #32
      orr x10, x3, x2, lsl #32`);
    const [before, count, after] = [9, 10, 11].map((n) => guest.vcpus[0]!.readX(n));
    expect(before! <= count! && count! <= after!).toBe(true);
    // This VM's counters began with the machine.
    expect(ns).toBe(EPOCH_NS + count! * TICK_NS);
  });

  it('a machine that follows the wall clock: its date', () => {
    const dateMs = Date.UTC(2031, 4, 6);
    const clock = new WallClock({ nowMs: () => 0, dateMs: () => dateMs });
    const guest = new GuestVm({ clock });
    const ns = guest.value(`${call(PTP, 0)}\n orr x0, x1, x0, lsl #32`);
    expect(ns).toBe(BigInt(dateMs) * 1_000_000n);
  });
});
