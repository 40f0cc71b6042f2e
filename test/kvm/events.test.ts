/**
 * What a VMM does to a vCPU between runs: KVM_SET_VCPU_EVENTS with SErrors and external aborts,
 * KVM_SET_MP_STATE with suspension, attributes of VM and vCPU, and the inputs and timers of vCPUs
 * without a VGIC.
 */
import { describe, expect, it } from 'vitest';
import { PAGE_SIZE } from '../../src/base/index.ts';
import { Errno, EventFd } from '../../src/host/index.ts';
import * as uapi from '../../src/kvm/uapi.ts';
import { CODE, DATA, GIC_DISTRIBUTOR, GuestVm, NOWHERE } from '../support/guest-vm.ts';

const SERROR = 0xbf00_0000n;
const PPI = 20;

describe('KVM_SET_VCPU_EVENTS: SError', () => {
  it('masked: stays pending through a run, and is taken when PSTATE.A permits', () => {
    const guest = new GuestVm();
    const vcpu = guest.begin('mrs x0, isr_el1');
    expect(vcpu.setEvents({ serrorPending: true })).toBe(0);
    expect(guest.answer()).toEqual({ kind: 'value', value: 0x100n });
    expect(vcpu.events.serrorPending).toBe(true);
    guest.begin('msr daifclr, #4\n nop');
    expect(guest.answer()).toMatchObject({ kind: 'exception', vector: 0x380, esr: SERROR });
    expect(vcpu.events).toEqual({
      serrorPending: false,
      serrorHasEsr: false,
      extDabtPending: false,
      serrorEsr: 0n,
    });
  });

  it('unmasked: taken before the next instruction', () => {
    const guest = new GuestVm();
    const vcpu = guest.begin('mov x0, #1');
    vcpu.writePstate(0x2c5n);
    vcpu.setEvents({ serrorPending: true });
    const answer = guest.answer();
    expect(answer).toMatchObject({ kind: 'exception', vector: 0x380, elr: BigInt(CODE) });
  });

  it('at EL0, masked for EL1 or not: PSTATE.A decides', () => {
    const guest = new GuestVm();
    const vcpu = guest.beginAtEl0('nop');
    vcpu.setEvents({ serrorPending: true });
    expect(guest.answer()).toMatchObject({ kind: 'exception', vector: 0x580, esr: SERROR });
  });

  it('not pending: takes nothing back; KVM_ARM_VCPU_INIT does', () => {
    const guest = new GuestVm();
    const [vcpu] = guest.vcpus;
    vcpu!.setEvents({ serrorPending: true });
    expect(vcpu!.setEvents({ serrorPending: false })).toBe(0);
    expect(vcpu!.events.serrorPending).toBe(true);
    guest.initVcpu(vcpu!);
    expect(vcpu!.events.serrorPending).toBe(false);
  });

  it('with a syndrome: EINVAL, and nothing else happens', () => {
    const guest = new GuestVm();
    const vcpu = guest.begin('mov x0, #1');
    const events = { serrorPending: true, serrorHasEsr: true, serrorEsr: 0n };
    expect(vcpu.setEvents({ ...events, extDabtPending: true })).toBe(-Errno.EINVAL);
    expect(vcpu.events.serrorPending).toBe(false);
    expect(guest.answer()).toEqual({ kind: 'value', value: 1n });
  });

  it('a vCPU that waits: wakes', () => {
    const guest = new GuestVm({ vgic: true });
    const vcpu = guest.begin('wfi\n mov x0, #1');
    expect(vcpu.run()).toEqual({ kind: 'blocked' });
    vcpu.setEvents({ serrorPending: true });
    expect(vcpu.runnable).toBe(true);
    expect(guest.answer()).toEqual({ kind: 'value', value: 1n });
  });
});

describe('KVM_SET_VCPU_EVENTS: external abort', () => {
  it.each([
    ['a load', 'ldr x0, [x1, #8]'],
    ['a store', 'str x0, [x1, #8]'],
  ])('as the answer to %s: it is not carried out, and FAR has its address', (_name, access) => {
    const guest = new GuestVm();
    const vcpu = guest.begin(`mov x0, #7\n ldr x1, =${NOWHERE}\n ${access}`);
    const exit = vcpu.run();
    if (exit.kind !== 'mmio') throw new Error(exit.kind);
    if (!exit.isWrite) exit.data = 99n;
    const pc = vcpu.readPc();
    expect(vcpu.setEvents({ extDabtPending: true })).toBe(0);
    expect(vcpu.events.extDabtPending).toBe(false);
    expect(vcpu.readPc()).toBe(pc);
    expect(guest.answer()).toMatchObject({
      kind: 'exception',
      vector: 0x200,
      esr: 0x9600_0010n,
      far: BigInt(NOWHERE + 8),
      elr: pc,
    });
    expect(vcpu.readX(0)).toBe(7n);
  });

  it('at EL0: an abort from a lower level', () => {
    const guest = new GuestVm();
    const vcpu = guest.beginAtEl0('nop');
    vcpu.setEvents({ extDabtPending: true });
    expect(guest.answer()).toMatchObject({ vector: 0x400, esr: 0x9200_0010n });
  });

  it('immediate_exit: the guest stands in the handler already', () => {
    const guest = new GuestVm();
    const vcpu = guest.begin('nop');
    vcpu.setEvents({ extDabtPending: true });
    vcpu.immediateExit = true;
    expect(vcpu.run()).toEqual({ kind: 'interrupted' });
    expect(vcpu.readPc()).toBe(guest.getRegister('VBAR_EL1') + 0x200n);
    vcpu.immediateExit = false;
    expect(guest.answer()).toMatchObject({ kind: 'exception', vector: 0x200 });
  });
});

describe('KVM_SET_MP_STATE: suspended', () => {
  const irq = uapi.kvmArmIrq({ type: uapi.KVM_ARM_IRQ_TYPE_PPI, num: PPI });
  const wakeup = { kind: 'system-event', type: uapi.KVM_SYSTEM_EVENT_WAKEUP, data: [] };
  const enable = `
    ldr x9, =${GIC_DISTRIBUTOR}
    mov w10, #2
    str w10, [x9]
    ldr x9, =${0x080b_0000}
    mov w10, #-1
    str w10, [x9, #0x80]
    str w10, [x9, #0x100]
    mov x10, #0xff
    msr icc_pmr_el1, x10
    mov x10, #1
    msr icc_igrpen1_el1, x10
    isb`;

  it('blocks until an interrupt, then says so at each run until it is runnable again', () => {
    const guest = new GuestVm({ vgic: true });
    guest.run(enable);
    const vcpu = guest.begin('mov x0, #1');
    expect(vcpu.setMpState(uapi.KVM_MP_STATE_SUSPENDED)).toBe(0);
    expect(vcpu.mpState).toBe(uapi.KVM_MP_STATE_SUSPENDED);
    expect(vcpu.run()).toEqual({ kind: 'blocked' });
    expect(vcpu.runnable).toBe(false);
    expect(guest.vm.irqLine({ irq, level: 1 })).toBe(0);
    expect(vcpu.runnable).toBe(true);
    expect([vcpu.run(), vcpu.run()]).toEqual([wakeup, wakeup]);
    expect(vcpu.setMpState(uapi.KVM_MP_STATE_RUNNABLE)).toBe(0);
    expect(guest.answer()).toEqual({ kind: 'value', value: 1n });
  });

  it('as the answer to SYSTEM_SUSPEND: the guest goes on where the VMM puts it', () => {
    const guest = new GuestVm({ vgic: true });
    expect(guest.vm.enableCap({ cap: uapi.KVM_CAP_ARM_SYSTEM_SUSPEND })).toBe(0);
    guest.run(enable);
    const call = `ldr x0, =${uapi.PSCI_1_0_FN64_SYSTEM_SUSPEND}\n mov x1, #5\n hvc #0`;
    const vcpu = guest.begin(call);
    const suspend = { kind: 'system-event', type: uapi.KVM_SYSTEM_EVENT_SUSPEND, data: [] };
    expect(vcpu.run()).toEqual(suspend);
    expect(vcpu.readX(1)).toBe(5n);
    vcpu.setMpState(uapi.KVM_MP_STATE_SUSPENDED);
    expect(vcpu.run()).toEqual({ kind: 'blocked' });
    guest.vm.irqLine({ irq, level: 1 });
    expect(vcpu.run()).toEqual(wakeup);
    vcpu.setMpState(uapi.KVM_MP_STATE_RUNNABLE);
    vcpu.writeX(0, 77n);
    expect(guest.answer()).toEqual({ kind: 'value', value: 77n });
  });
});

describe('attributes of a vCPU', () => {
  const group = uapi.KVM_ARM_VCPU_TIMER_CTRL;
  const attr = (number: number, of = group) => ({ flags: 0, group: of, attr: BigInt(number) });
  const virtual = attr(uapi.KVM_ARM_VCPU_TIMER_IRQ_VTIMER);
  const physical = attr(uapi.KVM_ARM_VCPU_TIMER_IRQ_PTIMER);

  it('KVM_ARM_VCPU_TIMER_CTRL: the four timers have PPIs; others ENXIO', () => {
    const [vcpu] = new GuestVm().vcpus;
    expect([0, 1, 2, 3, 4].map((n) => vcpu!.hasAttr(attr(n)))).toEqual([0, 0, 0, 0, -Errno.ENXIO]);
    expect([vcpu!.getAttr(virtual), vcpu!.getAttr(physical)]).toEqual([27n, 30n]);
    for (const other of [uapi.KVM_ARM_VCPU_PMU_V3_CTRL, uapi.KVM_ARM_VCPU_PVTIME_CTRL, 9]) {
      expect(vcpu!.hasAttr(attr(0, other))).toBe(-Errno.ENXIO);
      expect(vcpu!.getAttr(attr(0, other))).toBe(-Errno.ENXIO);
      expect(vcpu!.setAttr(attr(0, other), 20n)).toBe(-Errno.ENXIO);
    }
  });

  it('setting: EINVAL without a VGIC, for no PPI; for all vCPUs; EBUSY after a run', () => {
    expect(new GuestVm().vcpus[0]!.setAttr(virtual, 20n)).toBe(-Errno.EINVAL);
    const guest = new GuestVm({ vgic: true, vcpuCount: 2 });
    const [first, second] = guest.vcpus;
    for (const value of [15n, 32n, -1n]) {
      expect(first!.setAttr(virtual, value)).toBe(-Errno.EINVAL);
    }
    expect(first!.setAttr(attr(4), 20n)).toBe(-Errno.ENXIO);
    expect(first!.setAttr(virtual, 20n)).toBe(0);
    expect(second!.getAttr(virtual)).toBe(20n);
    guest.run('nop');
    expect(second!.setAttr(virtual, 21n)).toBe(-Errno.EBUSY);
  });

  it('the same PPI for both timers: KVM_RUN is EINVAL until they differ', () => {
    const guest = new GuestVm({ vgic: true });
    const [vcpu] = guest.vcpus;
    expect(vcpu!.setAttr(virtual, 30n)).toBe(0);
    expect(vcpu!.run()).toEqual({ kind: 'error', errno: Errno.EINVAL });
    expect(vcpu!.setAttr(virtual, 20n)).toBe(0);
    expect(guest.value('mov x0, #1')).toBe(1n);
  });
});

describe('attributes of a VM', () => {
  const attr = {
    flags: 0,
    group: uapi.KVM_ARM_VM_SMCCC_CTRL,
    attr: BigInt(uapi.KVM_ARM_VM_SMCCC_FILTER),
  };
  const filter = (base: number, action: number = uapi.KVM_SMCCC_FILTER_DENY) => ({
    base,
    nrFunctions: 1,
    action,
  });
  const CALL = 0xc600_1234;

  it('KVM_ARM_VM_SMCCC_FILTER: there, cannot be read; others ENXIO', () => {
    const { vm } = new GuestVm();
    expect(vm.hasAttr(attr)).toBe(0);
    expect(vm.getAttr(attr)).toBe(-Errno.EINVAL);
    for (const other of [
      { ...attr, attr: 1n },
      { ...attr, group: 1 },
    ]) {
      expect(vm.hasAttr(other)).toBe(-Errno.ENXIO);
      expect(vm.setAttr(other, filter(CALL))).toBe(-Errno.ENXIO);
    }
  });

  it('a range: EINVAL, EEXIST, EBUSY as Linux, and the guest’s call is forwarded', () => {
    const guest = new GuestVm();
    const { vm } = guest;
    const forward = filter(CALL, uapi.KVM_SMCCC_FILTER_FWD_TO_USER);
    expect(vm.setAttr(attr, filter(CALL, 3))).toBe(-Errno.EINVAL);
    expect(vm.setAttr(attr, { ...forward, nrFunctions: 0 })).toBe(-Errno.EINVAL);
    expect(vm.setAttr(attr, filter(0x8000_0000))).toBe(-Errno.EEXIST);
    expect(vm.setAttr(attr, forward)).toBe(0);
    expect(vm.setAttr(attr, forward)).toBe(-Errno.EEXIST);
    const vcpu = guest.begin(`ldr x0, =${CALL}\n hvc #0`);
    expect(vcpu.run()).toEqual({ kind: 'hypercall', functionId: CALL, flags: 0n });
    expect(vm.setAttr(attr, filter(CALL + 1))).toBe(-Errno.EBUSY);
  });
});

describe('KVM_ARM_SET_COUNTER_OFFSET', () => {
  it('both counters of all vCPUs follow it; their registers no longer move them', () => {
    const guest = new GuestVm();
    expect(guest.vm.setCounterOffset({ counterOffset: 0n, reserved: 1n })).toBe(-Errno.EINVAL);
    expect(guest.vm.setCounterOffset({ counterOffset: -(1n << 40n) })).toBe(0);
    const vcpu = guest.vcpus[0]!;
    vcpu.setOneReg(uapi.KVM_REG_ARM_TIMER_CNT, 5n);
    for (const register of ['cntvct_el0', 'cntpct_el0']) {
      expect(guest.value(`mrs x0, ${register}`) >> 40n).toBe(1n);
    }
  });
});

describe('without a VGIC', () => {
  const line = (num: number, type: number = uapi.KVM_ARM_IRQ_TYPE_CPU, vcpu = 0): number =>
    uapi.kvmArmIrq({ type, vcpu, num });

  it.each([
    ['SPI', line(40, uapi.KVM_ARM_IRQ_TYPE_SPI), Errno.ENXIO],
    ['PPI', line(20, uapi.KVM_ARM_IRQ_TYPE_PPI), Errno.ENXIO],
    ['no type', line(0, 3), Errno.EINVAL],
    ['no such vCPU', line(0, uapi.KVM_ARM_IRQ_TYPE_CPU, 1), Errno.EINVAL],
    ['no such input', line(2), Errno.EINVAL],
  ])('KVM_IRQ_LINE of %s: refused', (_name, irq, errno) => {
    expect(new GuestVm().vm.irqLine({ irq, level: 1 })).toBe(-errno);
  });

  it.each([
    ['IRQ', uapi.KVM_ARM_IRQ_CPU_IRQ, 0x280],
    ['FIQ', uapi.KVM_ARM_IRQ_CPU_FIQ, 0x300],
  ])('the %s input: wakes a WFI and is taken when unmasked', (_name, num, vector) => {
    const guest = new GuestVm();
    const vcpu = guest.begin('wfi\n msr daifclr, #3\n nop');
    expect(vcpu.run()).toEqual({ kind: 'blocked' });
    expect(guest.vm.irqLine({ irq: line(num), level: 1 })).toBe(0);
    expect(vcpu.runnable).toBe(true);
    expect(guest.answer()).toMatchObject({ kind: 'exception', vector });
    expect(guest.vm.irqLine({ irq: line(num), level: 0 })).toBe(0);
    expect(guest.value('mrs x0, isr_el1')).toBe(0n);
  });

  it('with one: a CPU’s own input is ENXIO', () => {
    const { vm } = new GuestVm({ vgic: true });
    expect(vm.irqLine({ irq: line(0), level: 1 })).toBe(-Errno.ENXIO);
  });

  it('a timer: the VMM is told of its level, once, and again when it falls', () => {
    const guest = new GuestVm();
    const vcpu = guest.begin(`
      mov x9, #200
      msr cntv_tval_el0, x9
      mov x9, #1
      msr cntv_ctl_el0, x9
      isb
      wfi
      msr cntv_ctl_el0, xzr
      mov x0, #3`);
    expect(vcpu.run()).toEqual({ kind: 'blocked' });
    expect(vcpu.deviceIrqLevel).toBe(0);
    guest.kvm.clock.skip(vcpu.nextDeadline()!);
    expect(vcpu.run()).toEqual({ kind: 'interrupted' });
    expect(vcpu.deviceIrqLevel).toBe(uapi.KVM_ARM_DEV_EL1_VTIMER);
    expect(vcpu.run()).toEqual({ kind: 'interrupted' });
    expect(vcpu.deviceIrqLevel).toBe(0);
    expect(guest.answer()).toEqual({ kind: 'value', value: 3n });
  });

  it('a vCPU runs, and ID_AA64PFR0_EL1 shows no GIC', () => {
    expect((new GuestVm().value('mrs x0, id_aa64pfr0_el1') >> 24n) & 15n).toBe(0n);
    const vgic = new GuestVm({ vgic: true });
    expect((vgic.value('mrs x0, id_aa64pfr0_el1') >> 24n) & 15n).toBe(1n);
  });
});

describe('a VGIC that is not ready', () => {
  it('KVM_RUN: ENXIO without addresses, EBUSY before its initialisation, then it runs', () => {
    const guest = new GuestVm();
    const device = guest.vm.createDevice(uapi.KVM_DEV_TYPE_ARM_VGIC_V3);
    if (typeof device === 'number') throw new Error('no device');
    const [vcpu] = guest.vcpus;
    const set = (group: number, attr: number, value: number) =>
      device.setAttr({ flags: 0, group, attr: BigInt(attr) }, BigInt(value));
    const ADDRESS = uapi.KVM_DEV_ARM_VGIC_GRP_ADDR;
    expect(vcpu!.run()).toEqual({ kind: 'error', errno: Errno.ENXIO });
    set(ADDRESS, uapi.KVM_VGIC_V3_ADDR_TYPE_DIST, GIC_DISTRIBUTOR);
    expect(vcpu!.run()).toEqual({ kind: 'error', errno: Errno.ENXIO });
    set(ADDRESS, uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST, 0x080a_0000);
    expect(vcpu!.run()).toEqual({ kind: 'error', errno: Errno.EBUSY });
    expect(guest.vm.registers.hasRunOnce).toBe(false);
    set(uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, uapi.KVM_DEV_ARM_VGIC_CTRL_INIT, 0);
    expect(guest.value('mov x0, #1')).toBe(1n);
  });

  it('KVM_CREATE_DEVICE_TEST: there is a GICv3 and no GICv2; none is made', () => {
    const { vm } = new GuestVm();
    expect(vm.testDevice(uapi.KVM_DEV_TYPE_ARM_VGIC_V3)).toBe(0);
    expect(vm.testDevice(uapi.KVM_DEV_TYPE_ARM_VGIC_V2)).toBe(-Errno.ENODEV);
    expect(vm.vgicDevice).toBeUndefined();
  });
});

describe('KVM_RUN that fails', () => {
  /** A VGIC attribute that is EBUSY while a vCPU runs. */
  const vgicIsFree = (guest: GuestVm): boolean =>
    typeof guest.vm.vgicDevice!.getAttr({
      flags: 0,
      group: uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS,
      attr: 0n,
    }) === 'bigint';

  it('ENOSYS: the VM counts as not running, registers can be set, and another vCPU runs', () => {
    const guest = new GuestVm({ vgic: true, vcpuCount: 2 });
    const vcpu = guest.begin(`ldr x1, =${NOWHERE}\n ldp x2, x3, [x1]\n mov x0, #5`);
    expect(vcpu.run()).toEqual({ kind: 'error', errno: Errno.ENOSYS });
    expect(vgicIsFree(guest)).toBe(true);
    expect(guest.value('mov x0, #1', 1)).toBe(1n);
    vcpu.writePc(vcpu.readPc() + 4n);
    expect(guest.answer()).toEqual({ kind: 'value', value: 5n });
  });

  it('KVM_ARM_VCPU_INIT after it: as new', () => {
    const guest = new GuestVm();
    const vcpu = guest.begin(`ldr x1, =${NOWHERE}\n ldp x2, x3, [x1]`);
    expect(vcpu.run().kind).toBe('error');
    vcpu.setEvents({ extDabtPending: true, serrorPending: true });
    guest.initVcpu(vcpu);
    expect(guest.value('mrs x0, isr_el1')).toBe(0n);
  });

  it('a watcher of the VMM that throws: the VM counts as not running, and goes on', () => {
    const guest = new GuestVm({ vgic: true });
    const fd = new EventFd();
    guest.vm.ioeventfd({ fd, addr: NOWHERE, len: 4 });
    const stop = fd.watch(() => {
      throw new Error('of the VMM');
    });
    const vcpu = guest.begin(`ldr x1, =${NOWHERE}\n str w1, [x1]\n mov x0, #5`);
    expect(() => vcpu.run()).toThrow('of the VMM');
    stop();
    expect(vgicIsFree(guest)).toBe(true);
    expect(guest.answer()).toEqual({ kind: 'value', value: 5n });
  });
});

describe('the end of a VM', () => {
  it('after runs, faults and failures: every frame is free again', () => {
    const guest = new GuestVm({ vgic: true, vcpuCount: 2 });
    guest.addSlot();
    guest.value(`ldr x1, =${DATA}\n str x1, [x1]\n mov x0, #1`);
    expect(guest.begin(`ldr x1, =${NOWHERE}\n ldp x2, x3, [x1]`, 1).run().kind).toBe('error');
    guest.vm.destroy();
    guest.process.destroy();
    const { frames, memory } = guest.host;
    frames.check();
    const total = memory.zones.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) / PAGE_SIZE;
    // The host keeps its zero page.
    expect(frames.freeCount).toBe(total - 1);
  });
});
