/** KVM_IOEVENTFD: which stores match, and what is refused. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Errno, EventFd } from '../host/index.ts';
import { IoEventFds } from './ioeventfd.ts';
import {
  KVM_IOEVENTFD_FLAG_DATAMATCH,
  KVM_IOEVENTFD_FLAG_DEASSIGN,
  KVM_IOEVENTFD_FLAG_PIO,
  KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY,
  KVM_IOEVENTFD_VALID_FLAG_MASK,
  type KvmIoEventfd,
} from './uapi.ts';

const ADDR = 0x0a00_0050;
const MATCH = KVM_IOEVENTFD_FLAG_DATAMATCH;
const DEASSIGN = KVM_IOEVENTFD_FLAG_DEASSIGN;

const fds = new IoEventFds();
const assign = (request: Partial<KvmIoEventfd>, list = fds): number =>
  list.request({ fd: new EventFd(), addr: ADDR, len: 4, ...request });

describe('assign', () => {
  it.each([
    ['a length of 3', { len: 3 }, Errno.EINVAL],
    ['a length of 16', { len: 16 }, Errno.EINVAL],
    ['a range past 2^64', { addr: 2 ** 64 - 4096, len: 8192 }, Errno.EINVAL],
    ['a flag beyond those known', { flags: KVM_IOEVENTFD_VALID_FLAG_MASK + 1 }, Errno.EINVAL],
    ['a value without a length', { len: 0, flags: MATCH }, Errno.EINVAL],
  ])('%s: refused', (_name, request, errno) => {
    expect(assign(request)).toBe(-errno);
  });

  it('a closed eventfd: EBADF', () => {
    const fd = new EventFd();
    fd.close();
    expect(assign({ fd })).toBe(-Errno.EBADF);
  });

  it.each<[string, Partial<KvmIoEventfd>, Partial<KvmIoEventfd>, number]>([
    ['the same', {}, {}, -Errno.EEXIST],
    ['any length beside one', {}, { len: 0 }, -Errno.EEXIST],
    ['any value beside one', { flags: MATCH, datamatch: 1n }, {}, -Errno.EEXIST],
    ['the same value', { flags: MATCH }, { flags: MATCH }, -Errno.EEXIST],
    ['another value', { flags: MATCH }, { flags: MATCH, datamatch: 1n }, 0],
    ['another length', {}, { len: 2 }, 0],
    ['another address', {}, { addr: ADDR + 4 }, 0],
    ['an address inside', { len: 8 }, { addr: ADDR + 4 }, 0],
    ['another bus', {}, { flags: KVM_IOEVENTFD_FLAG_PIO }, 0],
    ['a third bus', {}, { flags: KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY }, 0],
  ])('a second one, %s', (_name, first, second, result) => {
    const list = new IoEventFds();
    expect(assign(first, list)).toBe(0);
    expect(assign(second, list)).toBe(result);
  });
});

describe('find', () => {
  it.each<[string, Partial<KvmIoEventfd>, [number, number, bigint], boolean]>([
    ['its address and length, any value', {}, [ADDR, 4, 7n], true],
    ['another length', {}, [ADDR, 2, 7n], false],
    ['an address inside', { len: 8 }, [ADDR + 4, 4, 7n], false],
    ['any length', { len: 0 }, [ADDR, 8, 7n], true],
    ['its value', { flags: MATCH, datamatch: 7n }, [ADDR, 4, 7n], true],
    ['another value', { flags: MATCH, datamatch: 7n }, [ADDR, 4, 8n], false],
    ['a value beyond the length', { flags: MATCH, datamatch: 2n ** 32n }, [ADDR, 4, 0n], false],
    ['a bus that Arm has not', { flags: KVM_IOEVENTFD_FLAG_PIO }, [ADDR, 4, 7n], false],
  ])('%s', (_name, request, [address, size, data], found) => {
    const list = new IoEventFds();
    expect(assign(request, list)).toBe(0);
    expect(list.find(address, size, data) !== undefined).toBe(found);
  });

  it('several values at one address: each its own eventfd', () => {
    const list = new IoEventFds();
    const queues = [new EventFd(), new EventFd()];
    queues.forEach((fd, n) => {
      expect(assign({ fd, flags: MATCH, datamatch: BigInt(n) }, list)).toBe(0);
    });
    expect(list.find(ADDR, 4, 1n)).toBe(queues[1]);
    expect(list.find(ADDR, 4, 2n)).toBeUndefined();
  });

  it('at most one assigned eventfd can match a store', () => {
    const request = fc.record({
      addr: fc.constantFrom(ADDR, ADDR + 4),
      len: fc.constantFrom(0, 1, 2, 4, 8),
      flags: fc.constantFrom(0, MATCH),
      datamatch: fc.constantFrom(0n, 1n),
    });
    fc.assert(
      fc.property(fc.array(request, { maxLength: 12 }), (requests) => {
        const list = new IoEventFds();
        const made = requests.filter((each) => assign(each, list) === 0);
        for (const size of [1, 2, 4, 8]) {
          for (const data of [0n, 1n, 2n]) {
            const matching = made.filter(
              ({ addr, len, flags, datamatch }) =>
                addr === ADDR &&
                (len === 0 || (len === size && (flags === 0 || datamatch === data))),
            );
            expect(matching.length).toBeLessThanOrEqual(1);
            expect(list.find(ADDR, size, data) !== undefined).toBe(matching.length === 1);
          }
        }
      }),
    );
  });
});

describe('deassign', () => {
  it.each<[string, Partial<KvmIoEventfd>]>([
    ['another eventfd', { fd: new EventFd() }],
    ['another address', { addr: ADDR + 4 }],
    ['another length', { len: 8 }],
    ['without the value', { flags: DEASSIGN }],
    ['another value', { datamatch: 6n }],
    ['another bus', { flags: DEASSIGN | MATCH | KVM_IOEVENTFD_FLAG_PIO }],
  ])('%s: ENOENT', (_name, change) => {
    const list = new IoEventFds();
    const request = { fd: new EventFd(), flags: MATCH, datamatch: 7n };
    assign(request, list);
    expect(assign({ ...request, flags: DEASSIGN | MATCH, ...change }, list)).toBe(-Errno.ENOENT);
    expect(list.find(ADDR, 4, 7n)).toBe(request.fd);
  });

  it('the same: gone, and it can be assigned again', () => {
    const list = new IoEventFds();
    const fd = new EventFd();
    assign({ fd }, list);
    expect(assign({ fd, flags: DEASSIGN }, list)).toBe(0);
    expect(list.find(ADDR, 4, 7n)).toBeUndefined();
    expect(assign({ fd, flags: DEASSIGN }, list)).toBe(-Errno.ENOENT);
    expect(assign({ fd }, list)).toBe(0);
  });
});
