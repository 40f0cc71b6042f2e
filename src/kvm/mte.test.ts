/**
 * KVM_ARM_MTE_COPY_TAGS and a guest's tags where no row of the recordings asks (those are tests in
 * test/kvm/oracle), and what the observer hears of them: `--trace mte`.
 */
import { describe, expect, it } from 'vitest';
import { TestGuest } from '../../test/support/test-guest.ts';
import { hva, ipa, MIB, PAGE_SIZE } from '../base/index.ts';
import {
  Errno,
  Host,
  isRefusal,
  MapFlag,
  type MmapRequest,
  Prot,
  smallPages,
} from '../host/index.ts';
import { dramOnly, PhysicalMemory } from '../machine/memory.ts';
import { Kvm } from './kvm.ts';
import {
  KVM_ARM_TAGS_FROM_GUEST,
  KVM_ARM_TAGS_TO_GUEST,
  KVM_CAP_ARM_MTE,
  KVM_MEM_READONLY,
} from './uapi.ts';

const GUEST = 0x8000_0000;
const RW = Prot.read | Prot.write;
const EFAULT = -Errno.EFAULT;

interface Options {
  readonly mapping?: Partial<MmapRequest>;
  readonly slotFlags?: number;
}

/** A VM and four pages, whose observer fills `told`. */
function observed({ mapping = {}, slotFlags = 0 }: Options = {}) {
  const told: string[] = [];
  const memory = new PhysicalMemory({ zones: dramOnly(8 * MIB), recordPageCount: 16 });
  const host = new Host({ memory, policy: smallPages });
  const process = host.createProcess();
  const vm = new Kvm({ host }).createVm(process, { observer: { mte: (text) => told.push(text) } });
  if (isRefusal(vm)) throw new Error('no VM');
  const map = (request: Partial<MmapRequest>): number =>
    process.mmap({
      length: 4 * PAGE_SIZE,
      prot: RW,
      flags: MapFlag.private | MapFlag.anonymous,
      ...request,
    });
  const userspaceAddr = map(mapping);
  vm.setUserMemoryRegion({
    slot: 0,
    flags: slotFlags,
    guestPhysAddr: GUEST,
    memorySize: 4 * PAGE_SIZE,
    userspaceAddr,
  });
  return { host, process, vm, told, userspaceAddr, map };
}

/** The same with MTE, and COPY_TAGS of the first page. */
function copying(options: Options = {}) {
  const made = observed(options);
  made.vm.enableCap({ cap: KVM_CAP_ARM_MTE });
  const buffer = made.map({});
  const copy = (flags: number, length = PAGE_SIZE): number =>
    made.vm.copyTags({ guestIpa: GUEST, length, addr: buffer, flags });
  return { ...made, buffer, copy };
}

describe('KVM_ARM_MTE_COPY_TAGS', () => {
  it('a negative length, EINVAL', () => {
    expect(copying().copy(KVM_ARM_TAGS_FROM_GUEST, -PAGE_SIZE)).toBe(-Errno.EINVAL);
  });

  it.each<[string, Options, number]>([
    ['a read-only slot', { slotFlags: KVM_MEM_READONLY }, PAGE_SIZE],
    ['a PROT_READ mapping', { mapping: { prot: Prot.read } }, PAGE_SIZE],
    ['a PROT_NONE mapping', { mapping: { prot: Prot.none } }, EFAULT],
  ])('%s takes no tags, EFAULT', (_, options, fromGuest) => {
    const { copy } = copying(options);
    expect(copy(KVM_ARM_TAGS_FROM_GUEST)).toBe(fromGuest);
    expect(copy(KVM_ARM_TAGS_TO_GUEST)).toBe(EFAULT);
  });

  it('a private file mapping takes tags into its own copy, the file keeps its own', () => {
    const { host, process, vm, map } = copying();
    const file = host.createMemfd(PAGE_SIZE);
    const privately = { length: PAGE_SIZE, flags: MapFlag.private, file };
    const [guestPhysAddr, memorySize] = [GUEST + 4 * PAGE_SIZE, PAGE_SIZE];
    const region = { slot: 1, flags: 0, guestPhysAddr, memorySize };
    expect(vm.setUserMemoryRegion({ ...region, userspaceAddr: map(privately) })).toBe(0);
    const addr = map({});
    process.memory.fill(hva(addr), 7, 256);
    const request = { guestIpa: guestPhysAddr, length: PAGE_SIZE, addr };
    expect(vm.copyTags({ ...request, flags: KVM_ARM_TAGS_TO_GUEST })).toBe(PAGE_SIZE);
    expect(new TestGuest(vm.vm).loadTag(ipa(guestPhysAddr))).toBe(7);
    const other = map({ ...privately, flags: MapFlag.shared, prot: RW | Prot.mte });
    expect(process.memory.loadTag(hva(other))).toBe(0);
  });
});

describe('a guest’s tags', () => {
  it('without MTE: LDG gives 0, STG is ignored, tags of the VMM stay', () => {
    const { vm, process, userspaceAddr } = observed({ mapping: { prot: RW | Prot.mte } });
    expect(process.memory.storeTag(hva(userspaceAddr), 7)).toBe(0);
    const guest = new TestGuest(vm.vm);
    expect(guest.storeTag(ipa(GUEST), 5)).toBe('done');
    expect(guest.loadTag(ipa(GUEST))).toBe(0);
    expect(process.memory.loadTag(hva(userspaceAddr))).toBe(7);
  });

  it('a read-only slot: a tag store is the VMM’s to emulate, and has no syndrome', () => {
    const { vm } = copying({ slotFlags: KVM_MEM_READONLY });
    const refused = { kind: 'errno', errno: Errno.ENOSYS };
    expect(new TestGuest(vm.vm).storeTag(ipa(GUEST), 1)).toEqual(refused);
  });
});

describe('VmObserver.mte', () => {
  it('KVM_CAP_ARM_MTE: told once, however often it is enabled', () => {
    const { vm, told } = observed();
    vm.enableCap({ cap: KVM_CAP_ARM_MTE });
    vm.enableCap({ cap: KVM_CAP_ARM_MTE });
    expect(told).toEqual(['KVM_CAP_ARM_MTE enabled']);
  });

  it('a page: told when its tags are initialised, and not when it is touched again', () => {
    const { vm, told } = observed();
    vm.enableCap({ cap: KVM_CAP_ARM_MTE });
    const guest = new TestGuest(vm.vm);
    guest.store(ipa(GUEST + PAGE_SIZE), 1);
    guest.store(ipa(GUEST + PAGE_SIZE + 8), 1);
    expect(told.slice(1)).toEqual(['tags of 1 page(s) initialised, ipa=0x80001000']);
  });

  it('without MTE: no page is told of', () => {
    const { vm, told } = observed();
    new TestGuest(vm.vm).store(ipa(GUEST), 1);
    expect(told).toEqual([]);
  });

  it('COPY_TAGS: its direction, and what came of it', () => {
    const { vm, told, userspaceAddr } = observed();
    const request = { guestIpa: GUEST, length: PAGE_SIZE, addr: userspaceAddr, flags: 0 };
    vm.copyTags(request);
    vm.enableCap({ cap: KVM_CAP_ARM_MTE });
    vm.copyTags({ ...request, flags: KVM_ARM_TAGS_FROM_GUEST });
    expect([told[0], told[2]]).toEqual([
      'KVM_ARM_MTE_COPY_TAGS to guest, ipa=0x80000000: EINVAL',
      'KVM_ARM_MTE_COPY_TAGS from guest, ipa=0x80000000: 4096 bytes',
    ]);
  });
});
