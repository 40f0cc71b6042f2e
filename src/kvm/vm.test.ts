/**
 * Capabilities and memory slots, where no row of the recordings asks (those are tests in
 * test/kvm/oracle).
 */
import { beforeEach, describe, expect, it } from 'vitest';
import { TestGuest } from '../../test/support/test-guest.ts';
import { BLOCK_SIZE, GIB, type Hva, hva, ipa, MIB, PAGE_SIZE, pa } from '../base/index.ts';
import {
  type AddressSpace,
  type DeviceFile,
  Errno,
  Host,
  isRefusal,
  MapFlag,
  Prot,
} from '../host/index.ts';
import { dramOnly, PhysicalMemory } from '../machine/memory.ts';
import { checkExtension } from './capability.ts';
import * as uapi from './uapi.ts';
import { createVm, type KvmUserspaceMemoryRegion, type Vm } from './vm.ts';

const { EINVAL, EEXIST, EFAULT } = Errno;
const RW = Prot.read | Prot.write;
const PRIVATE = MapFlag.private | MapFlag.anonymous;

let host: Host;
let process: AddressSpace;
let vm: Vm;
let memory: Hva;

function makeVm(ipaBits?: number): Vm {
  const made = createVm({ host, process, ...(ipaBits === undefined ? {} : { ipaBits }) });
  if (isRefusal(made)) throw new Error('no VM');
  return made;
}

beforeEach(() => {
  const zones = dramOnly(16 * MIB);
  host = new Host({ memory: new PhysicalMemory({ zones, vcpuMax: 8, recordPageCount: 16 }) });
  process = host.createProcess();
  const mapped = process.mmap({ length: 8 * MIB, prot: RW, flags: PRIVATE });
  if (isRefusal(mapped)) throw new Error('no memory');
  memory = mapped;
  vm = makeVm();
});

describe('KVM_ENABLE_CAP(KVM_CAP_ARM_MTE)', () => {
  const enable = (flags?: number, args?: bigint[]) =>
    vm.enableCap({
      cap: uapi.KVM_CAP_ARM_MTE,
      ...(flags === undefined ? {} : { flags }),
      ...(args === undefined ? {} : { args }),
    });

  it('refused: the VM is as it was', () => {
    expect(enable(1)).toBe(-EINVAL);
    expect(vm.mte).toBe(false);
    vm.vcpuCreated();
    expect(enable()).toBe(-EINVAL);
    expect(vm.mte).toBe(false);
  });

  it('enabled, and refused after a vCPU was created: still enabled', () => {
    expect(enable(0, [7n])).toBe(0);
    vm.vcpuCreated();
    expect(enable()).toBe(-EINVAL);
    expect(vm.mte).toBe(true);
  });

  it('on a host without MTE: not there, EINVAL', () => {
    const zones = dramOnly(4 * MIB);
    const plain = new Host({
      memory: new PhysicalMemory({ zones, recordPageCount: 16 }),
      cpu: { mte: false },
    });
    const other = createVm({ host: plain, process: plain.createProcess() });
    if (isRefusal(other)) throw new Error('no VM');
    expect(other.checkExtension(uapi.KVM_CAP_ARM_MTE)).toBe(0);
    expect(other.enableCap({ cap: uapi.KVM_CAP_ARM_MTE })).toBe(-EINVAL);
  });
});

describe('KVM_CHECK_EXTENSION', () => {
  it('KVM_CAP_MAX_VCPUS: as many as the machine has room for', () => {
    expect(vm.checkExtension(uapi.KVM_CAP_MAX_VCPUS)).toBe(8);
  });

  it.each([12345, -1])('%i, which does not exist: 0', (cap) => {
    expect(vm.checkExtension(cap)).toBe(0);
    expect(checkExtension(host, cap)).toBe(0);
  });
});

describe('KVM_ENABLE_CAP: others', () => {
  it('unknown, or flags set: EINVAL', () => {
    expect(vm.enableCap({ cap: 9999 })).toBe(-EINVAL);
    expect(vm.enableCap({ cap: uapi.KVM_CAP_ARM_NISV_TO_USER, flags: 1 })).toBe(-EINVAL);
    expect(vm.returnsNisvToUser).toBe(false);
    expect(vm.enableCap({ cap: uapi.KVM_CAP_ARM_NISV_TO_USER })).toBe(0);
    expect(vm.returnsNisvToUser).toBe(true);
  });

  it.each([
    [0n, 0],
    [1n, 0],
    [3n, 0],
    [2n, -EINVAL],
    [4n, -EINVAL],
  ])('MANUAL_DIRTY_LOG_PROTECT2 %s: %i', (argument, expected) => {
    const cap = uapi.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2;
    expect(vm.enableCap({ cap, args: [argument] })).toBe(expected);
  });

  it('ARM_EAGER_SPLIT_CHUNK_SIZE: a block size, and before the first slot', () => {
    const cap = uapi.KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE;
    expect(vm.enableCap({ cap, args: [12345n] })).toBe(-EINVAL);
    expect(vm.enableCap({ cap, args: [BigInt(BLOCK_SIZE)] })).toBe(0);
    expect(vm.checkExtension(cap)).toBe(BLOCK_SIZE);
    expect(vm.setUserMemoryRegion(region({}))).toBe(0);
    expect(vm.enableCap({ cap, args: [0n] })).toBe(-EINVAL);
  });
});

describe('KVM_CREATE_VM', () => {
  it.each([
    [31, -EINVAL],
    [49, -EINVAL],
    [40.5, -EINVAL],
    [-1, -EINVAL],
  ])('IPA bits %f: %i', (ipaBits, expected) => {
    expect(createVm({ host, process, ipaBits })).toBe(expected);
  });

  it.each([
    [32, 2],
    [36, 1],
    [40, 1],
    [44, 0],
    [48, 0],
  ])('IPA bits %i: walks start at level %i', (ipaBits, level) => {
    const made = makeVm(ipaBits);
    const sl0 = Number((made.stage2.vtcr >> 6n) & 3n);
    expect(2 - sl0).toBe(level);
    expect(made.stage2.vtcr & 0x3fn).toBe(BigInt(64 - ipaBits));
    const top = 2 ** ipaBits - PAGE_SIZE;
    const last = { guestPhysAddr: top, memorySize: PAGE_SIZE };
    expect(made.setUserMemoryRegion(region(last))).toBe(0);
    expect(new TestGuest(made).store(ipa(top), 1)).toBe('done');
    expect(process.memory.readU8(memory)).toBe(1);
  });

  it('VMIDs differ, and come back when a VM is gone; so does all memory', () => {
    const free = host.frames.freeCount;
    const first = makeVm();
    const second = makeVm();
    expect(new Set([vm, first, second].map((v) => v.stage2.vmid)).size).toBe(3);
    second.setUserMemoryRegion(region({}));
    new TestGuest(second).store(ipa(0), 1);
    first.destroy();
    expect(makeVm().stage2.vmid).toBe(first.stage2.vmid);
    second.destroy();
    process.munmap(memory, 8 * MIB);
    expect(host.frames.freeCount).toBeLessThanOrEqual(free);
    host.frames.check();
  });

  it('no frame for the tables: ENOMEM', () => {
    while (host.frames.allocate() !== -1);
    expect(createVm({ host, process })).toBe(-Errno.ENOMEM);
  });
});

/** A whole region at IPA 0 over the first 2 MiB of `memory`. */
function region(change: Partial<KvmUserspaceMemoryRegion>): KvmUserspaceMemoryRegion {
  return {
    slot: 0,
    flags: 0,
    guestPhysAddr: 0,
    memorySize: 2 * MIB,
    userspaceAddr: memory,
    ...change,
  };
}

describe('KVM_SET_USER_MEMORY_REGION: refusals', () => {
  const cases: readonly [string, (at: Hva) => Partial<KvmUserspaceMemoryRegion>, number][] = [
    ['size not whole pages', () => ({ memorySize: 4097 }), -EINVAL],
    ['IPA not aligned', () => ({ guestPhysAddr: 0x1010 }), -EINVAL],
    ['HVA not aligned', (at) => ({ userspaceAddr: at + 8 }), -EINVAL],
    ['HVA with a tag', (at) => ({ userspaceAddr: at + 2 ** 56 }), -EINVAL],
    ['HVA range over the end', () => ({ userspaceAddr: 2 ** 48 - PAGE_SIZE }), -EINVAL],
    ['negative size', () => ({ memorySize: -PAGE_SIZE }), -EINVAL],
    ['not a number', () => ({ guestPhysAddr: Number.NaN }), -EINVAL],
    ['unknown flag', () => ({ flags: 1 << 5 }), -EINVAL],
    ['KVM_MEM_GUEST_MEMFD', () => ({ flags: uapi.KVM_MEM_GUEST_MEMFD }), -EINVAL],
    ['slot 32767', () => ({ slot: 32767 }), -EINVAL],
    ['slot of another address space', () => ({ slot: 1 << 16 }), -EINVAL],
    ['negative slot', () => ({ slot: -1 }), -EINVAL],
    ['IPA wraps', () => ({ guestPhysAddr: 2 ** 64 - 2 * MIB }), -EINVAL],
    ['too many pages', () => ({ memorySize: 2 ** 43, userspaceAddr: 0 }), -EINVAL],
    ['beyond the IPA space', () => ({ guestPhysAddr: 2 ** 40 }), -EFAULT],
    ['over the end of the IPA space', () => ({ guestPhysAddr: 2 ** 40 - MIB }), -EFAULT],
    ['delete of no slot', () => ({ memorySize: 0, slot: 7 }), -EINVAL],
    ['overlap by its end', () => ({ slot: 2, guestPhysAddr: 6 * GIB - MIB }), -EEXIST],
    ['overlap by its start', () => ({ slot: 2, guestPhysAddr: 6 * GIB + MIB }), -EEXIST],
    ['overlap inside', () => ({ slot: 2, guestPhysAddr: 6 * GIB, memorySize: 4096 }), -EEXIST],
    ['another size', () => ({ slot: 1, guestPhysAddr: 6 * GIB, memorySize: MIB }), -EINVAL],
    [
      'another HVA',
      (at) => ({ slot: 1, guestPhysAddr: 6 * GIB, userspaceAddr: at + MIB }),
      -EINVAL,
    ],
    ['becoming read-only', () => ({ slot: 1, guestPhysAddr: 6 * GIB, flags: 2 }), -EINVAL],
    ['move onto another', () => ({ slot: 1, guestPhysAddr: 5 * GIB }), -EEXIST],
    ['move out of the IPA space', () => ({ slot: 1, guestPhysAddr: 2 ** 41 }), -EFAULT],
  ];
  it.each(cases)('%s', (_name, change, expected) => {
    vm.setUserMemoryRegion(region({ slot: 1, guestPhysAddr: 6 * GIB }));
    vm.setUserMemoryRegion(region({ slot: 3, guestPhysAddr: 5 * GIB }));
    const before = [...vm.slots.all];
    expect(vm.setUserMemoryRegion(region(change(memory)))).toBe(expected);
    expect(vm.slots.all).toEqual(before);
  });

  it('dirty logging of device memory: EINVAL', () => {
    const file: DeviceFile = {
      kind: 'device',
      base: pa(0),
      sizeBytes: MIB,
      memoryType: 'Device-nGnRnE',
    };
    const at = process.mmap({ length: MIB, prot: RW, flags: MapFlag.shared, file });
    const request = region({ memorySize: MIB, userspaceAddr: at });
    const logging = { ...request, flags: uapi.KVM_MEM_LOG_DIRTY_PAGES };
    expect(vm.setUserMemoryRegion(logging)).toBe(-EINVAL);
    expect(vm.setUserMemoryRegion(request)).toBe(0);
  });
});

describe('KVM_SET_USER_MEMORY_REGION', () => {
  it('the highest slot, the same again, side by side: accepted', () => {
    expect(vm.setUserMemoryRegion(region({ slot: 32766 }))).toBe(0);
    expect(vm.setUserMemoryRegion(region({ slot: 32766 }))).toBe(0);
    const next = region({ slot: 0, guestPhysAddr: 2 * MIB });
    expect(vm.setUserMemoryRegion(next)).toBe(0);
    expect(vm.slots.all.map((slot) => slot.id)).toEqual([32766, 0]);
  });

  it('delete: the guest loses the memory, the process keeps it', () => {
    vm.setUserMemoryRegion(region({}));
    const guest = new TestGuest(vm);
    guest.store(ipa(5), 0x5a);
    expect(vm.setUserMemoryRegion(region({ memorySize: 0 }))).toBe(0);
    expect(guest.load(ipa(5))).toEqual({ kind: 'errno', errno: Errno.ENOSYS });
    expect(process.memory.readU8(hva(memory + 5))).toBe(0x5a);
    expect(vm.setUserMemoryRegion(region({ memorySize: 0 }))).toBe(-EINVAL);
    vm.stage2.check();
  });

  it('move: the same memory at another IPA, the old one gone', () => {
    vm.setUserMemoryRegion(region({}));
    const guest = new TestGuest(vm);
    guest.store(ipa(0), 0x77);
    expect(vm.setUserMemoryRegion(region({ guestPhysAddr: 4 * GIB }))).toBe(0);
    expect(guest.load(ipa(4 * GIB))).toBe(0x77);
    expect(guest.load(ipa(0))).toEqual({ kind: 'errno', errno: Errno.ENOSYS });
  });

  it('a move may overlap where the slot was', () => {
    vm.setUserMemoryRegion(region({}));
    expect(vm.setUserMemoryRegion(region({ guestPhysAddr: MIB }))).toBe(0);
    expect(vm.slots.at(ipa(0))).toBeUndefined();
    expect(vm.slots.at(ipa(3 * MIB - 1))?.id).toBe(0);
  });
});

describe('the process changes its mapping under a guest', () => {
  it('munmap: the guest’s next access fails with EFAULT', () => {
    vm.setUserMemoryRegion(region({}));
    const guest = new TestGuest(vm);
    guest.store(ipa(0), 1);
    process.munmap(memory, 2 * MIB);
    expect(vm.stage2.lookup(ipa(0))).toBeUndefined();
    expect(guest.load(ipa(0))).toEqual({ kind: 'errno', errno: Errno.EFAULT });
  });

  it('MADV_DONTNEED: the guest sees zeros, and tags of 0', () => {
    vm.enableCap({ cap: uapi.KVM_CAP_ARM_MTE });
    vm.setUserMemoryRegion(region({}));
    const guest = new TestGuest(vm);
    guest.store(ipa(0), 1);
    guest.storeTag(ipa(0), 5);
    process.madvise(memory, PAGE_SIZE, 4);
    expect([guest.load(ipa(0)), guest.loadTag(ipa(0))]).toEqual([0, 0]);
    expect(guest.loadTag(ipa(PAGE_SIZE))).toBe(0);
    vm.stage2.check();
    host.frames.check();
  });

  it('fork and a store by the process: the guest follows the process’s copy', () => {
    vm.setUserMemoryRegion(region({}));
    const guest = new TestGuest(vm);
    guest.store(ipa(0), 1);
    const child = process.fork();
    if (isRefusal(child)) throw new Error('fork refused');
    expect(guest.load(ipa(0))).toBe(1);
    process.memory.writeU8(memory, 2);
    expect(guest.load(ipa(0))).toBe(2);
    expect(guest.store(ipa(PAGE_SIZE), 3)).toBe('done');
    expect(process.memory.readU8(hva(memory + PAGE_SIZE))).toBe(3);
    expect(child.memory.readU8(hva(memory + PAGE_SIZE))).toBe(0);
  });

  it('a process that dies before its VM leaves nothing mapped', () => {
    vm.setUserMemoryRegion(region({}));
    new TestGuest(vm).store(ipa(0), 1);
    process.destroy();
    expect(vm.stage2.lookup(ipa(0))).toBeUndefined();
    host.frames.check();
  });
});
