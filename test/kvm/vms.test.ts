/**
 * VMs and vCPUs coming and going on one host: what KVM_CREATE_VCPU and KVM_ARM_VCPU_INIT refuse,
 * VMs that share a processor and never a translation, and what is given back in the end.
 */
import { describe, expect, it } from 'vitest';
import { MIB } from '../../src/base/index.ts';
import { Errno, isRefusal, type Refusal } from '../../src/host/index.ts';
import type { KvmVm } from '../../src/kvm/kvm-vm.ts';
import * as uapi from '../../src/kvm/uapi.ts';
import type { Vcpu } from '../../src/kvm/vcpu.ts';
import { accept, CODE, DATA, GuestVm, REPORT } from '../support/guest-vm.ts';

const PSCI = 1 << uapi.KVM_ARM_VCPU_PSCI_0_2;

function granted<T>(result: T | Refusal): T {
  if (isRefusal(result)) throw new Error(`refused with ${result}`);
  return result;
}

/** One more VM of the process of `guest`, with `count` vCPUs. */
function another(guest: GuestVm, count = 1): { vm: KvmVm; vcpus: Vcpu[] } {
  const vm = granted(guest.kvm.createVm(guest.process));
  const vcpus = Array.from({ length: count }, (_, id) => granted(vm.createVcpu(id)));
  return { vm, vcpus };
}

describe('KVM_CREATE_VCPU', () => {
  const guest = new GuestVm({ vcpuMax: 3 });

  it.each([-1, 1.5, 3, 2 ** 31])('id %s: EINVAL', (id) => {
    expect(guest.vm.createVcpu(id)).toBe(-Errno.EINVAL);
  });

  it('an id that is taken: EEXIST; ids need not be in order', () => {
    const { vm } = another(guest, 0);
    granted(vm.createVcpu(2));
    expect(vm.createVcpu(2)).toBe(-Errno.EEXIST);
    granted(vm.createVcpu(0));
    vm.destroy();
  });

  it('after KVM_DEV_ARM_VGIC_CTRL_INIT: EBUSY', () => {
    expect(new GuestVm({ vgic: true, vcpuMax: 2 }).vm.createVcpu(1)).toBe(-Errno.EBUSY);
  });

  it('MPIDR_EL1 follows from the id', () => {
    const wide = new GuestVm({ vcpuMax: 18 });
    const { vm } = another(wide, 0);
    const vcpu = granted(vm.createVcpu(17));
    accept(vcpu.init(vm.preferredTarget()));
    expect(wide.getRegister('MPIDR_EL1', vcpu)).toBe(0x8000_0101n);
  });
});

describe('KVM_ARM_VCPU_INIT', () => {
  const guest = new GuestVm({ vcpuMax: 3 });
  const init = (vcpu: Vcpu, features: number, target = uapi.KVM_ARM_TARGET_GENERIC_V8) =>
    vcpu.init({ target, features: [features] });

  it.each([
    ['another target', PSCI, 0, -Errno.EINVAL],
    ['a feature that the CPU has not', 1 << uapi.KVM_ARM_VCPU_SVE, 5, -Errno.EINVAL],
    ['a feature that nobody knows', 1 << 20, 5, -Errno.ENOENT],
  ])('%s: %i, %i', (_name, features, target, errno) => {
    const { vm, vcpus } = another(guest);
    expect(init(vcpus[0]!, features, target)).toBe(errno);
    expect(vcpus[0]!.initialized).toBe(false);
    vm.destroy();
  });

  it('again with other features: EINVAL, the registers stay', () => {
    const { vm, vcpus } = another(guest);
    const [vcpu] = vcpus;
    accept(init(vcpu!, PSCI));
    vcpu!.writeX(3, 5n);
    expect(init(vcpu!, 0)).toBe(-Errno.EINVAL);
    expect(vcpu!.readX(3)).toBe(5n);
    accept(init(vcpu!, PSCI | (1 << uapi.KVM_ARM_VCPU_POWER_OFF)));
    expect([vcpu!.readX(3), vcpu!.mpState]).toEqual([0n, uapi.KVM_MP_STATE_STOPPED]);
    vm.destroy();
  });

  it('another vCPU with other features: EINVAL, they are the VM’s', () => {
    const { vm, vcpus } = another(guest, 2);
    accept(init(vcpus[0]!, PSCI));
    expect(init(vcpus[1]!, 0)).toBe(-Errno.EINVAL);
    accept(init(vcpus[1]!, PSCI));
    vm.destroy();
  });
});

describe('KVM_SET_ONE_REG between runs', () => {
  const guest = new GuestVm();
  const [vcpu] = guest.vcpus;

  it('PSTATE, SP_EL0, SP_EL1: the banks stay apart whichever is in use', () => {
    for (const mode of [0x3c5n, 0x3c4n, 0n]) {
      accept(vcpu!.setOneReg(uapi.KVM_REG_CORE_PSTATE, mode));
      accept(vcpu!.setOneReg(uapi.KVM_REG_CORE_SP, 0x100n + mode));
      accept(vcpu!.setOneReg(uapi.KVM_REG_CORE_SP_EL1, 0x200n + mode));
      expect(guest.getCore(uapi.KVM_REG_CORE_SP)).toBe(0x100n + mode);
      expect(guest.getCore(uapi.KVM_REG_CORE_SP_EL1)).toBe(0x200n + mode);
    }
    accept(vcpu!.setOneReg(uapi.KVM_REG_CORE_PSTATE, 0x3c5n));
    expect(guest.getCore(uapi.KVM_REG_CORE_SP_EL1)).toBe(0x200n);
    expect(guest.value('mrs x0, sp_el0')).toBe(0x100n);
  });

  it.each([0x3c9n, 0x3cdn, 0x10n])('PSTATE of a mode that is not there, %i: EINVAL', (value) => {
    const before = guest.getCore(uapi.KVM_REG_CORE_PSTATE);
    expect(vcpu!.setOneReg(uapi.KVM_REG_CORE_PSTATE, value)).toBe(-Errno.EINVAL);
    expect(guest.getCore(uapi.KVM_REG_CORE_PSTATE)).toBe(before);
  });

  it('the virtual counter: set, and the guest counts on from there', () => {
    accept(vcpu!.setOneReg(uapi.KVM_REG_ARM_TIMER_CNT, 1n << 40n));
    const count = guest.value('mrs x0, cntvct_el0');
    expect(count - (1n << 40n)).toBeLessThan(100n);
    expect(count).toBeGreaterThanOrEqual(1n << 40n);
    const later = guest.value('mov x1, #1000\n1: subs x1, x1, #1\n b.ne 1b\n mrs x0, cntvct_el0');
    expect(Number(later - count)).toBeGreaterThan(100);
  });

  it('an ID register after the first run: EBUSY, unless it stays the same', () => {
    const id = uapi.ARM64_SYS_REG(3, 0, 0, 4, 1);
    const value = guest.getCore(id);
    expect(vcpu!.setOneReg(id, value)).toBe(0);
    expect(vcpu!.setOneReg(id, 0n)).toBe(-Errno.EBUSY);
  });

  it('registers of an interrupt controller that is not there: UNDEFINED', () => {
    expect(guest.run('mrs x0, icc_iar1_el1')).toMatchObject({ esr: 0x0200_0000n });
    expect(new GuestVm({ vgic: true }).runAtEl0('mrs x0, icc_iar1_el1')).toMatchObject({
      vector: 0x400,
      esr: 0x0200_0000n,
    });
  });
});

describe('VMs side by side', () => {
  it('the same addresses, other memory: each sees its own, in turns', () => {
    const guest = new GuestVm({ vcpuMax: 2 });
    const own = guest.addSlot();
    guest.process.memory.writeU64(own, 111n);
    const { vm, vcpus } = another(guest);
    // The second VM has the same programs and tables, and other data.
    const region = { slot: 0, flags: 0, guestPhysAddr: CODE, memorySize: 2 * MIB };
    accept(vm.setUserMemoryRegion({ ...region, userspaceAddr: guest.codeHva }));
    const other = guest.map({});
    guest.process.memory.writeU64(other, 222n);
    const data = { slot: 1, flags: 0, guestPhysAddr: DATA, memorySize: 0x10000 };
    accept(vm.setUserMemoryRegion({ ...data, userspaceAddr: other }));
    guest.initVcpu(vcpus[0]!);

    const loop = `ldr x1, =${DATA}\n1: ldr x0, [x1]\n str x0, [x28]\n b 1b`;
    const first = guest.begin(loop);
    vcpus[0]!.writePc(BigInt(CODE));
    for (let i = 0; i < 6; i++) {
      const [vcpu, value] = i % 2 === 0 ? [first, 111n] : [vcpus[0]!, 222n];
      expect(vcpu!.run()).toMatchObject({ kind: 'mmio', ipa: REPORT, data: value });
    }
    // Taking memory from one leaves the other's.
    accept(guest.setSlot(0, 0));
    expect(first.run()).toMatchObject({ kind: 'mmio', ipa: DATA, isWrite: false });
    expect(vcpus[0]!.run()).toMatchObject({ kind: 'mmio', data: 222n });
  });

  it('each has a VMID of its own', () => {
    const guest = new GuestVm({ vcpuMax: 2 });
    expect(another(guest).vm.vm.stage2.vmid).not.toBe(guest.vm.vm.stage2.vmid);
  });

  it('destroyed: frames, TLB regions and notifiers come back, again and again', () => {
    const guest = new GuestVm({ vcpuMax: 2 });
    const memory = guest.addSlot({ length: 4 * MIB });
    const free = () => guest.host.frames.freeCount;
    let before: number | undefined;
    for (let i = 0; i < 5; i++) {
      const { vm, vcpus } = another(guest);
      const region = { slot: 0, flags: 0, guestPhysAddr: CODE, memorySize: 2 * MIB };
      accept(vm.setUserMemoryRegion({ ...region, userspaceAddr: guest.codeHva }));
      guest.initVcpu(vcpus[0]!);
      guest.load('mov x0, #1');
      vcpus[0]!.writePc(BigInt(CODE));
      expect(vcpus[0]!.run()).toMatchObject({ kind: 'mmio', data: 1n });
      vm.destroy();
      before ??= free();
      expect(free()).toBe(before);
    }
    // Nobody listens who is gone.
    expect(guest.process.munmap(memory, 4 * MIB)).toBe(0);
    guest.host.frames.check();
  });
});
