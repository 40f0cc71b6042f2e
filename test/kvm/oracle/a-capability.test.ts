/**
 * Section A: KVM_CAP_ARM_MTE and the other capabilities, KVM_ENABLE_CAP, and the MTE registers
 * through KVM_GET_ONE_REG and KVM_SET_ONE_REG, against a real KVM.
 */
import { expect } from 'vitest';
import { systemRegister } from '../../../src/arm/sysreg/index.ts';
import { assert } from '../../../src/base/index.ts';
import { isRefusal } from '../../../src/host/index.ts';
import type { KvmVm } from '../../../src/kvm/kvm-vm.ts';
import { KVM_CAP_ARM_MTE, type KvmRegList, kvmRegSystem } from '../../../src/kvm/uapi.ts';
import type { Vcpu } from '../../../src/kvm/vcpu.ts';
import { GuestVm } from '../../support/guest-vm.ts';
import { hex, oracleSection, resultText } from '../../support/oracle.ts';
import { type Program, testSection, VCPU_ROOM } from './rows.ts';

const PFR1 = kvmRegSystem(systemRegister('ID_AA64PFR1_EL1').key);
const ONES = (1n << 64n) - 1n;

/** In the order of the mask's bits in rows A35 and A52. */
const MTE_REGISTERS = ['RGSR_EL1', 'GCR_EL1', 'TFSR_EL1', 'TFSRE0_EL1', 'GMID_EL1'] as const;

testSection('A', 'capability, KVM_ENABLE_CAP, ID and MTE registers', ({ kvm: policy }) => {
  const guests = new Map([true, false].map((mte) => [mte, new GuestVm({ mte, policy })]));

  /** A new VM with no vCPU yet. */
  const newVm = (): KvmVm => {
    const { kvm, process } = new GuestVm({ vcpuMax: VCPU_ROOM });
    const vm = kvm.createVm(process, { policy });
    assert(!isRefusal(vm), 'a VM is created');
    return vm;
  };
  /** The VM of rows A05 to A10. */
  const vm = newVm();
  const mteOf = (kvm: { checkExtension(cap: number): number }): string =>
    resultText(kvm.checkExtension(KVM_CAP_ARM_MTE));

  /** A VM with MTE and a vCPU that is not initialised. */
  const uninitialised = (): { vm: KvmVm; vcpu: Vcpu } => {
    const made = newVm();
    expect(made.enableCap({ cap: KVM_CAP_ARM_MTE })).toBe(0);
    const vcpu = made.createVcpu(0);
    assert(!isRefusal(vcpu), 'a vCPU is created');
    return { vm: made, vcpu };
  };
  const vcpuOf = (call: string): Vcpu => guests.get(call.endsWith('MTE on'))!.vcpus[0]!;
  const idOf = (call: string): bigint => {
    const name = /ONE_REG (\w+)/.exec(call)?.[1];
    return kvmRegSystem(systemRegister(name as 'GCR_EL1').key);
  };

  const get: Program = ({ call }) => {
    const id = idOf(call);
    const recordedId = /id=(0x\w+)/.exec(call)?.[1];
    expect(hex(id)).toBe(recordedId);
    const value = vcpuOf(call).getOneReg(id);
    return isRefusal(value) ? `${resultText(value)} · 0x0` : `ret=0 · ${hex(value)}`;
  };
  const set =
    (value: bigint): Program =>
    ({ call }) => {
      const vcpu = vcpuOf(call);
      const result = vcpu.setOneReg(idOf(call), value);
      const readback = vcpu.getOneReg(idOf(call));
      return `${resultText(result)} · readback ${hex(isRefusal(readback) ? 0 : readback)}`;
    };
  const setMte =
    (mte: bigint): Program =>
    (row) => {
      const now = vcpuOf(row.call).getOneReg(PFR1) as bigint;
      return set((now & ~0xf00n) | (mte << 8n))(row);
    };
  const getPfr1: Program = ({ call }) => {
    const value = vcpuOf(call).getOneReg(PFR1) as bigint;
    return `ret=0 · ${hex(value)} MTE[11:8]=${(value >> 8n) & 15n}`;
  };
  const setPfr1Same: Program = ({ call }) => {
    const vcpu = vcpuOf(call);
    return resultText(vcpu.setOneReg(PFR1, vcpu.getOneReg(PFR1) as bigint));
  };
  const registerList: Program = ({ call }) => {
    const list: KvmRegList = { n: 1000, reg: [] };
    const result = vcpuOf(call).getRegList(list);
    const mask = MTE_REGISTERS.reduce((bits, name, i) => {
      const listed = list.reg.includes(kvmRegSystem(systemRegister(name).key));
      return bits | (listed ? 1 << i : 0);
    }, 0);
    const named = 'RGSR,GCR,TFSR,TFSRE0,GMID bit0..4';
    return `${resultText(result)} · n=${list.n}, MTE regs listed mask(${named})=${hex(mask)}`;
  };

  /** The number decides: what a row calls capability 105 has another name in Linux. */
  const capability: Program = ({ call }) => {
    const [, number] = /=(\d+)\) on vm fd$/.exec(call) ?? [];
    assert(number !== undefined, 'the row names a capability');
    return resultText(vm.checkExtension(Number(number)));
  };
  const capabilities = oracleSection('A').filter(({ id }) => id >= 'A54');

  return {
    A01: () => resultText(guests.get(true)!.kvm.apiVersion),
    A02: () => mteOf(guests.get(true)!.kvm),
    A04: () => resultText(guests.get(true)!.kvm.enableCap()),
    A05: () => resultText(vm.enableCap({ cap: KVM_CAP_ARM_MTE, flags: 1 })),
    A06: () => mteOf(vm),
    A07: () => resultText(vm.enableCap({ cap: KVM_CAP_ARM_MTE })),
    A09: () => resultText(vm.enableCap({ cap: KVM_CAP_ARM_MTE, args: [7n] })),
    A10: () => mteOf(vm),
    A11: () => resultText(uninitialised().vm.enableCap({ cap: KVM_CAP_ARM_MTE })),
    A12: () => resultText(uninitialised().vcpu.enableCap()),
    A14: () => {
      const value = uninitialised().vcpu.getOneReg(PFR1);
      return `${resultText(value)} · PFR1=${hex(isRefusal(value) ? 0 : value)}`;
    },
    A15: () => {
      const { vm, vcpu } = uninitialised();
      return resultText(vcpu.init(vm.preferredTarget()));
    },
    A16: () => resultText(guests.get(true)!.vcpus[0]!.enableCap()),
    A17: () => resultText(guests.get(false)!.vm.enableCap({ cap: KVM_CAP_ARM_MTE })),
    A19: getPfr1,
    A20: setPfr1Same,
    A21: setMte(0n),
    A22: setMte(1n),
    A24: setMte(3n),
    A25: get,
    A26: set(ONES),
    A27: get,
    A29: get,
    A30: set(ONES),
    A31: get,
    A32: set(ONES),
    A34: set(ONES),
    A35: registerList,
    A36: getPfr1,
    A37: setPfr1Same,
    A39: setMte(1n),
    A40: setMte(2n),
    A41: setMte(3n),
    A42: get,
    A44: get,
    A45: set(ONES),
    A46: get,
    A47: set(ONES),
    A49: set(ONES),
    A50: get,
    A51: set(ONES),
    A52: registerList,
    ...Object.fromEntries(capabilities.map(({ id }) => [id, capability])),
  };
});
