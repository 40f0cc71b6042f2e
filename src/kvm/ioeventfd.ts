/**
 * KVM_IOEVENTFD: a guest's store to a certain address, perhaps of a certain size and value, signals
 * an eventfd instead of exiting. The VM owns one list of them; `vcpu.ts` asks it for each store
 * outside memory. Loads are never taken. Linux: virt/kvm/eventfd.c.
 */
import { Errno, type EventFd, type Refusal, refuse } from '../host/index.ts';
import {
  KVM_IOEVENTFD_FLAG_DATAMATCH,
  KVM_IOEVENTFD_FLAG_DEASSIGN,
  KVM_IOEVENTFD_FLAG_PIO,
  KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY,
  KVM_IOEVENTFD_VALID_FLAG_MASK,
  type KvmIoEventfd,
} from './uapi.ts';

/** Where stores come from. Arm guests have MMIO only: what is on the others never happens. */
type Bus = 'mmio' | 'pio' | 'virtio-ccw';

interface IoEventFd {
  readonly bus: Bus;
  readonly fd: EventFd;
  readonly addr: number;
  /** Bytes of a store that counts; 0: any. */
  readonly len: number;
  /** The value that counts; undefined: any. */
  readonly datamatch: bigint | undefined;
}

export class IoEventFds {
  readonly #mmio = new Map<number, IoEventFd[]>();
  #all: IoEventFd[] = [];

  /**
   * KVM_IOEVENTFD. EINVAL: a length that is none of 0, 1, 2, 4, 8; unknown flags; a range past
   * 2^64; a value to match without a length. EEXIST: a store could signal two. EBADF: a closed
   * eventfd. ENOENT: nothing like it to deassign.
   */
  request(request: KvmIoEventfd): 0 | Refusal {
    const deassign = ((request.flags ?? 0) & KVM_IOEVENTFD_FLAG_DEASSIGN) !== 0;
    return deassign ? this.#deassign(request) : this.#assign(request);
  }

  #assign(request: KvmIoEventfd): 0 | Refusal {
    const { len, addr, flags = 0 } = request;
    const isLength = len === 0 || len === 1 || len === 2 || len === 4 || len === 8;
    if (!isLength || addr + len >= 2 ** 64) return refuse(Errno.EINVAL);
    if ((flags & ~KVM_IOEVENTFD_VALID_FLAG_MASK) !== 0) return refuse(Errno.EINVAL);
    if (len === 0 && (flags & KVM_IOEVENTFD_FLAG_DATAMATCH) !== 0) return refuse(Errno.EINVAL);
    if (request.fd.isClosed) return refuse(Errno.EBADF);
    const entry = entryOf(request);
    if (this.#all.some((other) => collide(entry, other))) return refuse(Errno.EEXIST);
    this.#all.push(entry);
    this.#index();
    return 0;
  }

  #deassign(request: KvmIoEventfd): 0 | Refusal {
    if (request.fd.isClosed) return refuse(Errno.EBADF);
    const wanted = entryOf(request);
    const at = this.#all.findIndex(
      (entry) =>
        entry.bus === wanted.bus &&
        entry.fd === wanted.fd &&
        entry.addr === wanted.addr &&
        entry.len === wanted.len &&
        entry.datamatch === wanted.datamatch,
    );
    if (at < 0) return refuse(Errno.ENOENT);
    this.#all.splice(at, 1);
    this.#index();
    return 0;
  }

  #index(): void {
    this.#mmio.clear();
    for (const entry of this.#all) {
      if (entry.bus !== 'mmio') continue;
      this.#mmio.set(entry.addr, [...(this.#mmio.get(entry.addr) ?? []), entry]);
    }
  }

  /** The eventfd that a store of `data`, unsigned, signals; at most one. */
  find(address: number, size: number, data: bigint): EventFd | undefined {
    return this.#mmio
      .get(address)
      ?.find(
        ({ len, datamatch }) =>
          len === 0 || (len === size && (datamatch === undefined || datamatch === data)),
      )?.fd;
  }

  /** The VM is gone: holds no eventfd any more. */
  release(): void {
    this.#all = [];
    this.#mmio.clear();
  }
}

function entryOf({ fd, addr, len, flags = 0, datamatch = 0n }: KvmIoEventfd): IoEventFd {
  const pio = (flags & KVM_IOEVENTFD_FLAG_PIO) !== 0;
  const ccw = (flags & KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY) !== 0;
  return {
    bus: pio ? 'pio' : ccw ? 'virtio-ccw' : 'mmio',
    fd,
    addr,
    len,
    datamatch: (flags & KVM_IOEVENTFD_FLAG_DATAMATCH) === 0 ? undefined : datamatch,
  };
}

/** Whether one store could signal both. Linux: ioeventfd_check_collision(). */
function collide(a: IoEventFd, b: IoEventFd): boolean {
  if (a.bus !== b.bus || a.addr !== b.addr) return false;
  if (a.len === 0 || b.len === 0) return true;
  if (a.len !== b.len) return false;
  return a.datamatch === undefined || b.datamatch === undefined || a.datamatch === b.datamatch;
}
