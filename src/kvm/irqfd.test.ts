/** KVM_IRQFD and the table of GSIs, on an interrupt controller that only remembers its pins. */
import { beforeEach, describe, expect, it } from 'vitest';
import { Errno, EventFd } from '../host/index.ts';
import { GsiRouting } from './gsi-routing.ts';
import { IrqFds } from './irqfd.ts';
import {
  KVM_IRQ_ROUTING_IRQCHIP,
  KVM_IRQ_ROUTING_MSI,
  KVM_IRQCHIP_NUM_PINS,
  KVM_IRQFD_FLAG_DEASSIGN,
  KVM_IRQFD_FLAG_RESAMPLE,
  KVM_MAX_IRQ_ROUTES,
  type KvmIrqRoutingEntry,
} from './uapi.ts';

const RESAMPLE = KVM_IRQFD_FLAG_RESAMPLE;
const DEASSIGN = KVM_IRQFD_FLAG_DEASSIGN;

const pin = (gsi: number, number = gsi): KvmIrqRoutingEntry => ({
  gsi,
  type: KVM_IRQ_ROUTING_IRQCHIP,
  irqchip: 0,
  pin: number,
});
const msi = (gsi: number, flags = 0): KvmIrqRoutingEntry => ({
  gsi,
  type: KVM_IRQ_ROUTING_MSI,
  flags,
  address: 0x0808_0040n,
  data: 5,
});

describe('KVM_SET_GSI_ROUTING', () => {
  it.each<[string, Parameters<GsiRouting['set']>[0]]>([
    ['flags', { flags: 1, entries: [] }],
    ['too many', { entries: Array.from({ length: KVM_MAX_IRQ_ROUTES + 1 }, (_, n) => msi(n)) }],
    ['a GSI beyond the last', { entries: [pin(KVM_MAX_IRQ_ROUTES, 0)] }],
    ['a pin beyond the last', { entries: [pin(0, KVM_IRQCHIP_NUM_PINS)] }],
    ['a second irqchip', { entries: [{ ...pin(0), irqchip: 1 } as KvmIrqRoutingEntry] }],
    ['flags of a pin', { entries: [{ ...pin(0), flags: 1 }] }],
    ['an unknown flag of an MSI', { entries: [msi(0, 2)] }],
    ['an unknown type', { entries: [{ ...msi(0), type: 7 } as unknown as KvmIrqRoutingEntry] }],
    ['two pins for a GSI', { entries: [pin(0), pin(0, 1)] }],
    ['a pin and an MSI for a GSI', { entries: [pin(0), msi(0)] }],
  ])('%s: EINVAL, and the table stays', (_name, request) => {
    const routing = new GsiRouting();
    routing.setDefault(2);
    expect(routing.set(request)).toBe(-Errno.EINVAL);
    expect([routing.pinOf(1), routing.pinOf(2), routing.gsiOf(1)]).toEqual([1, undefined, 1]);
  });

  it('a table: replaces the one before; two GSIs may share a pin, the later one is its', () => {
    const routing = new GsiRouting();
    routing.setDefault(8);
    expect(routing.set({ entries: [pin(20, 3), pin(21, 3), msi(22, 1)] })).toBe(0);
    expect([3, 20, 21, 22].map((gsi) => routing.pinOf(gsi))).toEqual([undefined, 3, 3, undefined]);
    expect(routing.gsiOf(3)).toBe(21);
    expect(routing.entries.length).toBe(3);
    expect(routing.set({ entries: [] })).toBe(0);
    expect(routing.pinOf(20)).toBeUndefined();
  });
});

describe('KVM_IRQFD', () => {
  let routing: GsiRouting;
  let irqFds: IrqFds;
  let isReady: boolean;
  /** What the pins were told, `pin` up and `-pin` down. */
  let told: number[];
  beforeEach(() => {
    told = [];
    isReady = true;
    routing = new GsiRouting();
    routing.setDefault(64);
    irqFds = new IrqFds(routing, {
      get isReady() {
        return isReady;
      },
      setPin: (number, level) => told.push(level ? number : -number),
    });
  });

  it('before the VGIC is initialised: EAGAIN, but unknown flags EINVAL first', () => {
    isReady = false;
    expect(irqFds.request({ fd: new EventFd(), gsi: 5 })).toBe(-Errno.EAGAIN);
    expect(irqFds.request({ fd: new EventFd(), gsi: 5, flags: 4 })).toBe(-Errno.EINVAL);
  });

  it('a closed eventfd, or none to resample with: EBADF', () => {
    const closed = new EventFd();
    closed.close();
    const fd = new EventFd();
    expect(irqFds.request({ fd: closed, gsi: 5 })).toBe(-Errno.EBADF);
    expect(irqFds.request({ fd: closed, gsi: 5, flags: DEASSIGN })).toBe(-Errno.EBADF);
    expect(irqFds.request({ fd, gsi: 5, flags: RESAMPLE })).toBe(-Errno.EBADF);
    const request = { fd, gsi: 5, flags: RESAMPLE, resamplefd: closed };
    expect(irqFds.request(request)).toBe(-Errno.EBADF);
    expect(irqFds.request({ fd, gsi: 5 })).toBe(0);
  });

  it('an eventfd twice: EBUSY, whichever GSI; two eventfds may raise one', () => {
    const fd = new EventFd();
    expect(irqFds.request({ fd, gsi: 5 })).toBe(0);
    expect(irqFds.request({ fd, gsi: 6 })).toBe(-Errno.EBUSY);
    expect(irqFds.request({ fd: new EventFd(), gsi: 5 })).toBe(0);
  });

  it('a signal: takes the count before other watchers see it, and the pin goes up', () => {
    const fd = new EventFd();
    let seen = 0;
    fd.watch(() => ++seen > 0);
    irqFds.request({ fd, gsi: 5 });
    fd.write(3n);
    fd.signal();
    expect(told).toEqual([5, 5]);
    expect([seen, fd.isReadable]).toEqual([0, false]);
  });

  it('signalled before: raised at once, as a pulse where it is not resampled', () => {
    irqFds.request({ fd: new EventFd({ initial: 1n }), gsi: 5 });
    expect(told).toEqual([5, -5]);
    const request = { gsi: 6, flags: RESAMPLE, resamplefd: new EventFd() };
    irqFds.request({ ...request, fd: new EventFd({ initial: 1n }) });
    expect(told).toEqual([5, -5, 6]);
  });

  it('a GSI that goes nowhere, or to an MSI: nothing; a new table counts at once', () => {
    const fd = new EventFd();
    expect(irqFds.request({ fd, gsi: 100 })).toBe(0);
    fd.signal();
    routing.set({ entries: [msi(100)] });
    fd.signal();
    expect(told).toEqual([]);
    routing.set({ entries: [pin(100, 9)] });
    fd.signal();
    expect(told).toEqual([9]);
  });

  it('resampling: at the end of the interrupt the pin goes down, then every device is asked', () => {
    const devices = [new EventFd(), new EventFd()];
    for (const resamplefd of devices) {
      resamplefd.watch(() => told.push(100) > 0);
      irqFds.request({ fd: new EventFd(), gsi: 5, flags: RESAMPLE, resamplefd });
    }
    irqFds.ended(5);
    expect(told).toEqual([-5, 100, 100]);
    irqFds.ended(6);
    expect(told.length).toBe(3);
  });

  it('without resampling: the end of an interrupt is nothing to it', () => {
    irqFds.request({ fd: new EventFd(), gsi: 5 });
    irqFds.ended(5);
    expect(told).toEqual([]);
  });

  it('a device that still wants it: the pin is up again after the end', () => {
    const fd = new EventFd();
    const resamplefd = new EventFd();
    resamplefd.watch(() => {
      fd.signal();
      return true;
    });
    irqFds.request({ fd, gsi: 5, flags: RESAMPLE, resamplefd });
    fd.signal();
    irqFds.ended(5);
    expect(told).toEqual([5, -5, 5]);
  });

  it('deassign: signals do nothing; what is not there is no error', () => {
    const fd = new EventFd();
    irqFds.request({ fd, gsi: 5 });
    expect(irqFds.request({ fd, gsi: 6, flags: DEASSIGN })).toBe(0);
    fd.signal();
    expect(irqFds.request({ fd, gsi: 5, flags: DEASSIGN })).toBe(0);
    fd.signal();
    expect(told).toEqual([5]);
    expect(fd.read()).toBe(1n);
    expect(irqFds.request({ fd, gsi: 5 })).toBe(0);
  });

  it('the last that resamples a line takes it down when it goes', () => {
    const fds = [new EventFd(), new EventFd()];
    for (const fd of fds) {
      irqFds.request({ fd, gsi: 5, flags: RESAMPLE, resamplefd: new EventFd() });
    }
    irqFds.request({ fd: fds[0]!, gsi: 5, flags: DEASSIGN });
    expect(told).toEqual([]);
    fds[1]!.close();
    expect(told).toEqual([-5]);
  });

  it('release: no eventfd is watched', () => {
    const fd = new EventFd();
    irqFds.request({ fd, gsi: 5 });
    irqFds.release();
    fd.signal();
    expect([told, fd.read()]).toEqual([[], 1n]);
  });
});
