/**
 * ioeventfd and irqfd with a guest that runs, as a virtio device of a VMM uses them: a store to a
 * doorbell signals an eventfd, and an eventfd that is signalled is an interrupt; with resampling,
 * the guest's end of the interrupt comes back. Refusals are tested in src/kvm.
 */
import { describe, expect, it } from 'vitest';
import { Errno, EventFd } from '../../src/host/index.ts';
import * as uapi from '../../src/kvm/uapi.ts';
import { GIC_DISTRIBUTOR, GuestVm, NOWHERE } from '../support/guest-vm.ts';

const DOORBELL = NOWHERE + 0x50;
/** GSI 8 is SPI 8, INTID 40. */
const GSI = 8;
const INTID = 40;

describe('KVM_IOEVENTFD', () => {
  const ring = (register: string, value: number): string =>
    `ldr x1, =${DOORBELL}\n mov x2, #${value}\n ${register}, [x1]`;

  it('a store that matches: signals, and the guest goes on without an exit', () => {
    const guest = new GuestVm();
    const fd = new EventFd();
    expect(guest.vm.ioeventfd({ fd, addr: DOORBELL, len: 4 })).toBe(0);
    const text = `${ring('str w2', 5)}\n str w2, [x1]\n mov x0, #1`;
    expect(guest.value(text)).toBe(1n);
    expect(fd.read()).toBe(2n);
    expect(guest.vcpus[0]!.statistics.exitsByReason).toMatchObject({ ioeventfd: 2, mmio: 1 });
  });

  it.each([
    ['another value', ring('str w2', 6), { flags: uapi.KVM_IOEVENTFD_FLAG_DATAMATCH }],
    ['another size', ring('strh w2', 5), {}],
    ['a load', ring('ldr w2', 5), {}],
  ])('%s: exits as MMIO', (_name, text, request) => {
    const guest = new GuestVm();
    const fd = new EventFd();
    guest.vm.ioeventfd({ fd, addr: DOORBELL, len: 4, datamatch: 5n, ...request });
    expect(guest.begin(text).run()).toMatchObject({ kind: 'mmio', ipa: DOORBELL });
    expect(fd.read()).toBe(-Errno.EAGAIN);
  });

  it('xzr matches 0', () => {
    const guest = new GuestVm();
    const fd = new EventFd();
    const flags = uapi.KVM_IOEVENTFD_FLAG_DATAMATCH;
    guest.vm.ioeventfd({ fd, addr: DOORBELL, len: 4, flags, datamatch: 0n });
    expect(guest.value(`${ring('str wzr', 5)}\n mov x0, #1`)).toBe(1n);
    expect(fd.isReadable).toBe(true);
  });

  it('a watcher may read and write the vCPU: it stands behind the store', () => {
    const guest = new GuestVm();
    const fd = new EventFd();
    guest.vm.ioeventfd({ fd, addr: DOORBELL, len: 0 });
    const vcpu = guest.begin(`${ring('str x2', 5)}\n mov x4, #1\n add x0, x3, x4`);
    const store = vcpu.readPc();
    let seen = 0n;
    fd.watch(() => {
      seen = vcpu.readPc();
      vcpu.writeX(3, 41n);
      return true;
    });
    expect(guest.answer()).toEqual({ kind: 'value', value: 42n });
    expect(seen).toBeGreaterThan(store);
    expect(vcpu.readX(2)).toBe(5n);
  });

  it('deassigned: exits again', () => {
    const guest = new GuestVm();
    const fd = new EventFd();
    const request = { fd, addr: DOORBELL, len: 4 };
    guest.vm.ioeventfd(request);
    const flags = uapi.KVM_IOEVENTFD_FLAG_DEASSIGN;
    expect(guest.vm.ioeventfd({ ...request, flags })).toBe(0);
    expect(guest.begin(ring('str w2', 5)).run()).toMatchObject({ kind: 'mmio', ipa: DOORBELL });
  });

  it('a memslot over the address: memory, and no signal', () => {
    const guest = new GuestVm();
    const fd = new EventFd();
    guest.vm.ioeventfd({ fd, addr: DOORBELL, len: 4 });
    guest.addSlot({ at: NOWHERE });
    expect(guest.value(`${ring('str w2', 5)}\n ldr w0, [x1]`)).toBe(5n);
    expect(fd.isReadable).toBe(false);
  });
});

describe('KVM_IRQFD', () => {
  /** Enables the GIC and SPI 40 for vCPU 0, level-sensitive or edge-triggered. */
  const start = (trigger: 'level' | 'edge'): string => `
    ldr x9, =${GIC_DISTRIBUTOR}
    mov w10, #2
    str w10, [x9]
    mov w10, #-1
    str w10, [x9, #0x84]
    mov w10, #${trigger === 'edge' ? 2 << (2 * (INTID % 16)) : 0}
    str w10, [x9, #${0xc00 + 4 * Math.floor(INTID / 16)}]
    mov w10, #${1 << (INTID - 32)}
    str w10, [x9, #0x104]
    mov x10, #0xff
    msr icc_pmr_el1, x10
    mov x10, #1
    msr icc_igrpen1_el1, x10
    isb`;
  /** Acknowledges: x0 is the INTID, 1023 if there is none. */
  const acknowledge = 'mrs x0, icc_iar1_el1';
  const end = `mov x0, #${INTID}\n msr icc_eoir1_el1, x0\n isb`;

  it('before the VGIC is initialised: EAGAIN', () => {
    const { vm } = new GuestVm();
    expect(vm.irqfd({ fd: new EventFd(), gsi: GSI })).toBe(-Errno.EAGAIN);
  });

  it('a signal wakes the guest; each is one interrupt of an edge-triggered SPI', () => {
    const guest = new GuestVm({ vgic: true });
    const fd = new EventFd();
    expect(guest.vm.irqfd({ fd, gsi: GSI })).toBe(0);
    const vcpu = guest.begin(`${start('edge')}\n wfi\n ${acknowledge}`);
    expect(vcpu.run()).toEqual({ kind: 'blocked' });
    fd.signal();
    expect(vcpu.runnable).toBe(true);
    expect(guest.answer()).toEqual({ kind: 'value', value: BigInt(INTID) });
    guest.run(end);
    expect(guest.value(acknowledge)).toBe(1023n);
    fd.signal();
    expect(guest.value(acknowledge)).toBe(BigInt(INTID));
  });

  it('KVM_SET_GSI_ROUTING: the GSI raises another SPI', () => {
    const guest = new GuestVm({ vgic: true });
    const fd = new EventFd();
    guest.vm.irqfd({ fd, gsi: 77 });
    const entry: uapi.KvmIrqRoutingEntry = {
      gsi: 77,
      type: uapi.KVM_IRQ_ROUTING_IRQCHIP,
      irqchip: 0,
      pin: INTID - 32,
    };
    expect(guest.vm.setGsiRouting({ entries: [entry] })).toBe(0);
    guest.run(start('edge'));
    fd.signal();
    expect(guest.value(acknowledge)).toBe(BigInt(INTID));
  });

  it('a GSI whose pin the VGIC has not: nothing', () => {
    const guest = new GuestVm({ vgic: true });
    const fd = new EventFd();
    const entry: uapi.KvmIrqRoutingEntry = {
      gsi: 1,
      type: uapi.KVM_IRQ_ROUTING_IRQCHIP,
      irqchip: 0,
      pin: 900,
    };
    guest.vm.setGsiRouting({ entries: [entry] });
    expect(guest.vm.irqfd({ fd, gsi: 1 })).toBe(0);
    fd.signal();
    expect(guest.value(`${start('level')}\n ${acknowledge}`)).toBe(1023n);
  });

  it.each([
    ['ICC_EOIR1_EL1', end],
    [
      'ICC_EOIR1_EL1 and ICC_DIR_EL1, split',
      `mov x10, #2\n msr icc_ctlr_el1, x10\n isb\n ${end}\n msr icc_dir_el1, x0\n isb`,
    ],
  ])('resampling: %s ends it; the device is asked, and may raise it again', (_name, ending) => {
    const guest = new GuestVm({ vgic: true });
    const fd = new EventFd();
    const resamplefd = new EventFd();
    let wanted = 2;
    resamplefd.watch(() => {
      if (--wanted > 0) fd.signal();
      return true;
    });
    const flags = uapi.KVM_IRQFD_FLAG_RESAMPLE;
    expect(guest.vm.irqfd({ fd, gsi: GSI, flags, resamplefd })).toBe(0);
    guest.run(start('level'));
    fd.signal();
    for (let i = 0; i < 2; i++) {
      expect(guest.value(acknowledge)).toBe(BigInt(INTID));
      expect(guest.value(acknowledge)).toBe(1023n);
      guest.run(ending);
    }
    expect(wanted).toBe(0);
    expect(resamplefd.read()).toBe(2n);
    expect(guest.value(acknowledge)).toBe(1023n);
  });

  it('split: priority drop alone does not ask the device', () => {
    const guest = new GuestVm({ vgic: true });
    const fd = new EventFd();
    const resamplefd = new EventFd();
    const flags = uapi.KVM_IRQFD_FLAG_RESAMPLE;
    guest.vm.irqfd({ fd, gsi: GSI, flags, resamplefd });
    guest.run(start('level'));
    fd.signal();
    guest.run(`mov x10, #2\n msr icc_ctlr_el1, x10\n isb\n ${acknowledge}\n ${end}`);
    expect(resamplefd.isReadable).toBe(false);
    guest.run(`mov x0, #${INTID}\n msr icc_dir_el1, x0\n isb`);
    expect(resamplefd.isReadable).toBe(true);
  });

  it('the VM is destroyed: the eventfds are the VMM’s alone', () => {
    const guest = new GuestVm({ vgic: true });
    const fd = new EventFd();
    guest.vm.irqfd({ fd, gsi: GSI });
    guest.vm.ioeventfd({ fd, addr: DOORBELL, len: 4 });
    guest.vm.destroy();
    fd.signal();
    expect(fd.read()).toBe(1n);
  });
});
