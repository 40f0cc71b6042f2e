/**
 * Hypercalls as a guest makes them: discovery, PSCI, TRNG, KVM's own calls, and the VMM's filter.
 */

import { describe, expect, it } from 'vitest';
import { Prng } from '../base/index.ts';
import { Errno, refuse } from '../host/index.ts';
import type { Hypercall, HypercallAction, HypercallVm } from './hypercall.ts';
import { handleHypercall } from './smccc.ts';
import { SmcccAction, SmcccFilter } from './smccc-filter.ts';
import * as uapi from './uapi.ts';

const u64 = (value: bigint | number): bigint => BigInt.asUintN(64, BigInt(value));
const GARBAGE = 0xdead_beef_0000_0000n;

type FakeVm = { -readonly [K in keyof HypercallVm]: HypercallVm[K] } & { stopped: Set<number> };

/** A VM of 18 vCPUs, two clusters, of which only vCPU 0 is on. */
function fakeVm(): FakeVm {
  const stopped = new Set(Array.from({ length: 17 }, (_, i) => i + 1));
  return {
    registers: { stdBmap: 1n, stdHypBmap: 1n, vendorHypBmap: 3n },
    smcccFilter: new SmcccFilter(),
    systemSuspendEnabled: false,
    prng: new Prng(1),
    ptp: {
      realTimeNs: () => 0x1122_3344_5566_7788n,
      virtualCount: () => 0x1_0000_0002n,
      physicalCount: () => 0x3_0000_0004n,
    },
    vcpuCount: 18,
    affinityOf: (vcpu) => BigInt(((vcpu >>> 4) << 8) | (vcpu & 15)),
    isStopped: (vcpu) => stopped.has(vcpu),
    stopped,
  };
}

interface Result {
  readonly action: HypercallAction;
  /** x0 … x3 afterwards. */
  readonly x: readonly bigint[];
}

function call(
  functionId: number,
  args: readonly (bigint | number)[] = [],
  options: Partial<Hypercall> & { vm?: HypercallVm } = {},
): Result {
  const { vm = fakeVm(), ...how } = options;
  const registers = new BigUint64Array(31).fill(7n);
  registers[0] = BigInt(functionId);
  args.forEach((value, i) => {
    registers[1 + i] = u64(value);
  });
  const action = handleHypercall(
    vm,
    { conduit: 'hvc', immediate: 0, psciVersion: uapi.KVM_ARM_PSCI_1_1, ...how },
    registers,
  );
  expect([...registers.slice(4)].every((value) => value === 7n)).toBe(true);
  return { action, x: [...registers.slice(0, 4)] };
}

/** x0 … x3 of a call that returns one value. */
const value = (result: bigint | number): bigint[] => [u64(result), 0n, 0n, 0n];
const resume = { kind: 'resume' };

describe('discovery', () => {
  it.each([
    ['SMCCC_VERSION', uapi.ARM_SMCCC_VERSION_FUNC_ID, [], 0x1_0001],
    ['WORKAROUND_1', uapi.ARM_SMCCC_ARCH_FEATURES_FUNC_ID, [uapi.ARM_SMCCC_ARCH_WORKAROUND_1], 1],
    ['WORKAROUND_2', uapi.ARM_SMCCC_ARCH_FEATURES_FUNC_ID, [uapi.ARM_SMCCC_ARCH_WORKAROUND_2], -2],
    ['WORKAROUND_3', uapi.ARM_SMCCC_ARCH_FEATURES_FUNC_ID, [uapi.ARM_SMCCC_ARCH_WORKAROUND_3], 1],
    ['PV time', uapi.ARM_SMCCC_ARCH_FEATURES_FUNC_ID, [uapi.ARM_SMCCC_HV_PV_TIME_FEATURES], 0],
    ['SOC_ID', uapi.ARM_SMCCC_ARCH_FEATURES_FUNC_ID, [uapi.ARM_SMCCC_ARCH_SOC_ID], -1],
    [
      'upper half of the argument ignored',
      uapi.ARM_SMCCC_ARCH_FEATURES_FUNC_ID,
      [GARBAGE | BigInt(uapi.ARM_SMCCC_ARCH_WORKAROUND_1)],
      1,
    ],
    ['call of a workaround', uapi.ARM_SMCCC_ARCH_WORKAROUND_1, [], -1],
    ['SOC_ID itself', uapi.ARM_SMCCC_ARCH_SOC_ID, [0], -1],
    ['PV_TIME_FEATURES', uapi.ARM_SMCCC_HV_PV_TIME_FEATURES, [uapi.ARM_SMCCC_HV_PV_TIME_ST], -1],
    ['PV_TIME_ST', uapi.ARM_SMCCC_HV_PV_TIME_ST, [], -1],
    ['KVM features', uapi.ARM_SMCCC_VENDOR_HYP_KVM_FEATURES_FUNC_ID, [], 3],
    ['an unknown call', 0x8200_0000, [], -1],
    ['function 0', 0, [], -1],
  ])('%s', (_, functionId, args, expected) => {
    const { action, x } = call(functionId, args);
    expect(action).toEqual(resume);
    expect(x).toEqual(value(expected));
  });

  it('vendor UID: KVM’s', () => {
    const { x } = call(uapi.ARM_SMCCC_VENDOR_HYP_CALL_UID_FUNC_ID);
    expect(x).toEqual([0xb66f_b428n, 0xe911_c52en, 0x564b_caa9n, 0x743a_004dn]);
  });

  it('function id: the upper half of x0 does not count', () => {
    const registers = new BigUint64Array(31);
    registers[0] = GARBAGE | BigInt(uapi.ARM_SMCCC_VERSION_FUNC_ID);
    const how = { conduit: 'hvc', immediate: 9, psciVersion: uapi.KVM_ARM_PSCI_1_1 } as const;
    expect(handleHypercall(fakeVm(), how, registers)).toEqual(resume);
    expect(registers[0]).toBe(0x1_0001n);
  });

  it('SMC: as HVC, but with an immediate only x0 = -1', () => {
    const smc = { conduit: 'smc' } as const;
    expect(call(uapi.PSCI_0_2_FN_PSCI_VERSION, [], smc).x).toEqual(value(0x1_0001));
    const { action, x } = call(uapi.PSCI_0_2_FN_PSCI_VERSION, [], { ...smc, immediate: 1 });
    expect(action).toEqual(resume);
    expect(x).toEqual([u64(-1), 7n, 7n, 7n]);
  });

  it('PTP: host time and the counter asked for, in halves', () => {
    const vm = fakeVm();
    const ptp = uapi.ARM_SMCCC_VENDOR_HYP_KVM_PTP_FUNC_ID;
    expect(call(ptp, [0], { vm }).x).toEqual([0x1122_3344n, 0x5566_7788n, 1n, 2n]);
    expect(call(ptp, [1], { vm }).x).toEqual([0x1122_3344n, 0x5566_7788n, 3n, 4n]);
    expect(call(ptp, [2], { vm }).x).toEqual(value(-1));
  });

  it('services turned off in the firmware registers: NOT_SUPPORTED', () => {
    const vm = { ...fakeVm(), registers: { stdBmap: 0n, stdHypBmap: 0n, vendorHypBmap: 2n } };
    for (const functionId of [
      uapi.ARM_SMCCC_TRNG_VERSION,
      uapi.ARM_SMCCC_TRNG_RND64,
      uapi.ARM_SMCCC_HV_PV_TIME_FEATURES,
      uapi.ARM_SMCCC_VENDOR_HYP_CALL_UID_FUNC_ID,
      uapi.ARM_SMCCC_VENDOR_HYP_KVM_FEATURES_FUNC_ID,
    ]) {
      expect(call(functionId, [], { vm }).x).toEqual(value(-1));
    }
    const pvTime = [uapi.ARM_SMCCC_HV_PV_TIME_FEATURES];
    expect(call(uapi.ARM_SMCCC_ARCH_FEATURES_FUNC_ID, pvTime, { vm }).x).toEqual(value(-1));
  });
});

describe('PSCI', () => {
  it.each([
    [uapi.KVM_ARM_PSCI_0_2, 2],
    [uapi.KVM_ARM_PSCI_1_0, 0x1_0000],
    [uapi.KVM_ARM_PSCI_1_1, 0x1_0001],
    [uapi.KVM_ARM_PSCI_0_1, -1],
  ])('PSCI_VERSION of version %i', (psciVersion, expected) => {
    expect(call(uapi.PSCI_0_2_FN_PSCI_VERSION, [], { psciVersion }).x).toEqual(value(expected));
  });

  it.each([
    [uapi.PSCI_0_2_FN_PSCI_VERSION, 0],
    [uapi.PSCI_0_2_FN64_CPU_SUSPEND, 0],
    [uapi.PSCI_0_2_FN_CPU_OFF, 0],
    [uapi.PSCI_0_2_FN64_CPU_ON, 0],
    [uapi.PSCI_0_2_FN64_AFFINITY_INFO, 0],
    [uapi.PSCI_0_2_FN_MIGRATE_INFO_TYPE, 0],
    [uapi.PSCI_0_2_FN_SYSTEM_OFF, 0],
    [uapi.PSCI_0_2_FN_SYSTEM_RESET, 0],
    [uapi.PSCI_1_0_FN_PSCI_FEATURES, 0],
    [uapi.ARM_SMCCC_VERSION_FUNC_ID, 0],
    [uapi.PSCI_1_1_FN_SYSTEM_RESET2, 0],
    [uapi.PSCI_1_0_FN_SYSTEM_SUSPEND, -1],
    [uapi.PSCI_0_2_FN_MIGRATE, -1],
    [uapi.PSCI_1_0_FN_SET_SUSPEND_MODE, -1],
    [uapi.ARM_SMCCC_ARCH_FEATURES_FUNC_ID, -1],
  ])('FEATURES of %i', (functionId, expected) => {
    const { x } = call(uapi.PSCI_1_0_FN_PSCI_FEATURES, [functionId]);
    expect(x).toEqual(value(expected));
  });

  it('FEATURES: absent in 0.2, without RESET2 in 1.0, with SUSPEND where it is enabled', () => {
    const features = uapi.PSCI_1_0_FN_PSCI_FEATURES;
    const off = uapi.PSCI_0_2_FN_CPU_OFF;
    expect(call(features, [off], { psciVersion: uapi.KVM_ARM_PSCI_0_2 }).x).toEqual(value(-1));
    const reset2 = uapi.PSCI_1_1_FN64_SYSTEM_RESET2;
    expect(call(features, [reset2], { psciVersion: uapi.KVM_ARM_PSCI_1_0 }).x).toEqual(value(-1));
    const vm = { ...fakeVm(), systemSuspendEnabled: true };
    const suspend = uapi.PSCI_1_0_FN64_SYSTEM_SUSPEND;
    expect(call(features, [suspend], { vm }).x).toEqual(value(0));
  });

  it.each([
    ['MIGRATE', uapi.PSCI_0_2_FN_MIGRATE],
    ['MIGRATE_INFO_UP_CPU', uapi.PSCI_0_2_FN_MIGRATE_INFO_UP_CPU],
    ['an unknown function', 0x8400_001f],
    ['PSCI 0.1 numbers', uapi.KVM_PSCI_FN_CPU_OFF],
    ['beyond the PSCI range', 0x8400_0020],
  ])('%s: NOT_SUPPORTED', (_, functionId) => {
    const { action, x } = call(functionId);
    expect(action).toEqual(resume);
    expect(x).toEqual(value(-1));
  });

  it('MIGRATE_INFO_TYPE: no migration needed', () => {
    expect(call(uapi.PSCI_0_2_FN_MIGRATE_INFO_TYPE).x).toEqual(value(2));
  });

  it.each([uapi.PSCI_0_2_FN_CPU_SUSPEND, uapi.PSCI_0_2_FN64_CPU_SUSPEND])(
    'CPU_SUSPEND %i: waits, then SUCCESS',
    (functionId) => {
      const { action, x } = call(functionId, [0x1_0000, 0x4000_0000, 5]);
      expect(action).toEqual({ kind: 'wait' });
      expect(x).toEqual(value(0));
    },
  );

  it('CPU_OFF', () => {
    expect(call(uapi.PSCI_0_2_FN_CPU_OFF).action).toEqual({ kind: 'cpu-off' });
  });

  it('CPU_ON: starts the vCPU with that affinity', () => {
    const entry = 0xffff_0000_4000_0000n;
    const { action, x } = call(uapi.PSCI_0_2_FN64_CPU_ON, [0x101, entry, GARBAGE], {
      bigEndian: true,
    });
    expect(action).toEqual({
      kind: 'cpu-on',
      target: 17,
      entry,
      context: GARBAGE,
      bigEndian: true,
    });
    expect(x).toEqual(value(0));
  });

  it('CPU_ON of the 32-bit convention: upper halves of the arguments do not count', () => {
    const args = [GARBAGE | 1n, GARBAGE | 0x4000_0000n, GARBAGE | 9n];
    expect(call(uapi.PSCI_0_2_FN_CPU_ON, args).action).toEqual({
      kind: 'cpu-on',
      target: 1,
      entry: 0x4000_0000n,
      context: 9n,
      bigEndian: false,
    });
    expect(call(uapi.PSCI_0_2_FN64_CPU_ON, args).x).toEqual(value(-2));
  });

  it.each([
    ['of one that is on', 0n, -4],
    ['of a CPU that does not exist', 0x12n, -2],
    ['of a cluster that does not exist', 0x200n, -2],
    ['with Aff3', 1n << 32n, -2],
    ['with the MT bit of an MPIDR', 0x0100_0001n, -2],
    ['with bit 31 of an MPIDR', 0x8000_0001n, -2],
  ])('CPU_ON %s: refused', (_, affinity, expected) => {
    const { action, x } = call(uapi.PSCI_0_2_FN64_CPU_ON, [affinity, 0x4000_0000, 0]);
    expect(action).toEqual(resume);
    expect(x).toEqual(value(expected));
  });

  it.each([
    ['a CPU that is on', 0n, 0n, 0],
    ['a CPU that is off', 1n, 0n, 1],
    ['a cluster with one on', 5n, 1n, 0],
    ['a cluster that is off', 0x105n, 1n, 1],
    ['everything, level 2', 0xff05n, 2n, 0],
    ['everything, level 3', 0x3_0505n, 3n, 0],
    ['a CPU that does not exist', 0x10cn, 0n, -2],
    ['level 4', 0n, 4n, -2],
    ['level 2^32', 0n, 1n << 32n, -2],
    ['an invalid affinity', 1n << 31n, 0n, -2],
  ])('AFFINITY_INFO of %s', (_, affinity, level, expected) => {
    expect(call(uapi.PSCI_0_2_FN64_AFFINITY_INFO, [affinity, level]).x).toEqual(value(expected));
  });

  it('AFFINITY_INFO of the 32-bit convention: upper halves do not count', () => {
    const { x } = call(uapi.PSCI_0_2_FN_AFFINITY_INFO, [GARBAGE | 1n, GARBAGE]);
    expect(x).toEqual(value(1));
  });

  it.each([
    ['SYSTEM_OFF', uapi.PSCI_0_2_FN_SYSTEM_OFF, uapi.KVM_SYSTEM_EVENT_SHUTDOWN],
    ['SYSTEM_RESET', uapi.PSCI_0_2_FN_SYSTEM_RESET, uapi.KVM_SYSTEM_EVENT_RESET],
  ])('%s: stops all; a guest that runs on sees INTERNAL_FAILURE', (_, functionId, type) => {
    const { action, x } = call(functionId);
    expect(action).toEqual({ kind: 'system-event', type, data: [0n], stopAll: true });
    expect(x).toEqual(value(-6));
  });

  it.each([
    ['warm', uapi.PSCI_1_1_FN64_SYSTEM_RESET2, 0n, true],
    ['a vendor’s', uapi.PSCI_1_1_FN64_SYSTEM_RESET2, 0x8000_0000n, true],
    ['32-bit', uapi.PSCI_1_1_FN_SYSTEM_RESET2, GARBAGE, true],
    ['reserved', uapi.PSCI_1_1_FN_SYSTEM_RESET2, 1n, false],
    ['the last reserved', uapi.PSCI_1_1_FN64_SYSTEM_RESET2, 0x7fff_ffffn, false],
  ])('SYSTEM_RESET2, %s', (_, functionId, type, resets) => {
    const { action, x } = call(functionId, [type, 3, 4]);
    if (resets) {
      const data = [uapi.KVM_SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2];
      const event = {
        kind: 'system-event',
        type: uapi.KVM_SYSTEM_EVENT_RESET,
        data,
        stopAll: true,
      };
      expect(action).toEqual(event);
      expect([x[0], x[2], x[3]]).toEqual([u64(-6), 3n, 4n]);
    } else {
      expect(action).toEqual(resume);
      expect(x).toEqual(value(-2));
    }
  });

  it('SYSTEM_RESET2 before PSCI 1.1: NOT_SUPPORTED', () => {
    const psciVersion = uapi.KVM_ARM_PSCI_1_0;
    expect(call(uapi.PSCI_1_1_FN_SYSTEM_RESET2, [0], { psciVersion }).x).toEqual(value(-1));
  });

  it('SYSTEM_SUSPEND: only where it is enabled; the VMM finds the arguments in place', () => {
    const suspend = uapi.PSCI_1_0_FN64_SYSTEM_SUSPEND;
    expect(call(suspend, [1, 2]).x).toEqual(value(-1));
    const vm = { ...fakeVm(), systemSuspendEnabled: true };
    const { action, x } = call(suspend, [0x4000_0000, 9, 8], { vm });
    expect(action).toEqual({
      kind: 'system-event',
      type: uapi.KVM_SYSTEM_EVENT_SUSPEND,
      data: [],
      stopAll: false,
    });
    expect(x).toEqual([BigInt(suspend), 0x4000_0000n, 9n, 8n]);
  });

  it('version 0.1: its own numbers only, and no ALREADY_ON', () => {
    const old = { psciVersion: uapi.KVM_ARM_PSCI_0_1 };
    expect(call(uapi.KVM_PSCI_FN_CPU_OFF, [], old).action).toEqual({ kind: 'cpu-off' });
    expect(call(uapi.KVM_PSCI_FN_CPU_ON, [1, 2], old).action).toMatchObject({
      kind: 'cpu-on',
      target: 1,
      entry: 2n,
    });
    expect(call(uapi.KVM_PSCI_FN_CPU_ON, [0, 2], old).x).toEqual(value(-2));
    expect(call(uapi.KVM_PSCI_FN_CPU_SUSPEND, [], old).x).toEqual(value(-1));
    expect(call(uapi.PSCI_0_2_FN_CPU_OFF, [], old).x).toEqual(value(-1));
  });
});

describe('TRNG', () => {
  it.each([
    ['VERSION', uapi.ARM_SMCCC_TRNG_VERSION, [], 0x1_0000],
    ['FEATURES of RND32', uapi.ARM_SMCCC_TRNG_FEATURES, [uapi.ARM_SMCCC_TRNG_RND32], 0],
    ['FEATURES of RND64', uapi.ARM_SMCCC_TRNG_FEATURES, [uapi.ARM_SMCCC_TRNG_RND64], 0],
    ['FEATURES of something else', uapi.ARM_SMCCC_TRNG_FEATURES, [0x8400_0054], -1],
    ['97 bits in 32-bit words', uapi.ARM_SMCCC_TRNG_RND32, [97], -2],
    ['193 bits in 64-bit words', uapi.ARM_SMCCC_TRNG_RND64, [193], -2],
    ['no bits', uapi.ARM_SMCCC_TRNG_RND64, [0], 0],
  ])('%s', (_, functionId, args, expected) => {
    expect(call(functionId, args).x).toEqual(value(expected));
  });

  it('GET_UUID', () => {
    const { x } = call(uapi.ARM_SMCCC_TRNG_GET_UUID);
    expect(x).toEqual([0x00e0_210dn, 0xeb11_8443n, 0x4452_7080n, 0x4c5a_4e55n]);
  });

  it.each([
    [uapi.ARM_SMCCC_TRNG_RND32, 32n, [1, 31, 32, 33, 64, 65, 96]],
    [uapi.ARM_SMCCC_TRNG_RND64, 64n, [1, 63, 64, 65, 128, 129, 192]],
  ])('RND %i: as many bits as asked for, the low ones in x3', (functionId, width, counts) => {
    for (const count of counts) {
      let union = 0n;
      for (let seed = 1; seed < 40; seed++) {
        const { x } = call(functionId, [count], { vm: { ...fakeVm(), prng: new Prng(seed) } });
        expect(x[0]).toBe(0n);
        for (const word of x.slice(1)) expect(word < 1n << width).toBe(true);
        union |= (x[1]! << (2n * width)) | (x[2]! << width) | x[3]!;
      }
      expect(union).toBe((1n << BigInt(count)) - 1n);
    }
  });

  it('the same seed gives the same bits, and two calls do not', () => {
    const vm = fakeVm();
    const [first, second] = [0, 1].map(() => call(uapi.ARM_SMCCC_TRNG_RND64, [192], { vm }).x);
    expect(call(uapi.ARM_SMCCC_TRNG_RND64, [192]).x).toEqual(first);
    expect(second).not.toEqual(first);
  });
});

describe('SmcccFilter', () => {
  const set = (filter: SmcccFilter, base: number, count: number, action: number): number =>
    filter.set({ base, count, action, hasRunOnce: false });

  it('refused as in Linux', () => {
    const filter = new SmcccFilter();
    expect(set(filter, 0xffff_ffff, 2, SmcccAction.DENY)).toBe(refuse(Errno.EINVAL));
    expect(set(filter, 0x1000, 0, SmcccAction.DENY)).toBe(refuse(Errno.EINVAL));
    expect(set(filter, 0x8400_0000, 1, 3)).toBe(refuse(Errno.EINVAL));
    const late = { base: 0x8400_0000, count: 1, action: SmcccAction.DENY, hasRunOnce: true };
    expect(filter.set(late)).toBe(refuse(Errno.EBUSY));
    expect(set(filter, 0x7fff_ffff, 2, SmcccAction.DENY)).toBe(refuse(Errno.EEXIST));
    expect(set(filter, 0xc000_8000, 1, SmcccAction.FORWARD_TO_USER)).toBe(refuse(Errno.EEXIST));
    expect(set(filter, 0x8400_0000, 0x10, SmcccAction.DENY)).toBe(0);
    expect(set(filter, 0x8400_000f, 1, SmcccAction.DENY)).toBe(refuse(Errno.EEXIST));
    expect(set(filter, 0x8400_0010, 1, SmcccAction.DENY)).toBe(0);
  });

  it('calls are denied or forwarded, whatever the services; the rest is handled', () => {
    const vm = fakeVm();
    set(vm.smcccFilter, uapi.PSCI_0_2_FN_SYSTEM_OFF, 1, SmcccAction.DENY);
    set(vm.smcccFilter, 0x8600_0000, 2, SmcccAction.FORWARD_TO_USER);
    set(vm.smcccFilter, 0xc600_0000, 1, SmcccAction.HANDLE);
    expect(call(uapi.PSCI_0_2_FN_SYSTEM_OFF, [], { vm }).x).toEqual(value(-1));
    expect(call(0xc600_0000, [], { vm }).x).toEqual(value(-1));
    expect(call(uapi.PSCI_0_2_FN_PSCI_VERSION, [], { vm }).x).toEqual(value(0x1_0001));
    const forwarded = call(0x8600_0001, [1, 2, 3], { vm });
    expect(forwarded.action).toEqual({ kind: 'forward', functionId: 0x8600_0001, flags: 0n });
    expect(forwarded.x).toEqual([0x8600_0001n, 1n, 2n, 3n]);
    const bySmc = call(0x8600_0000, [], { vm, conduit: 'smc' });
    expect(bySmc.action).toEqual({
      kind: 'forward',
      functionId: 0x8600_0000,
      flags: uapi.KVM_HYPERCALL_EXIT_SMC,
    });
  });
});
