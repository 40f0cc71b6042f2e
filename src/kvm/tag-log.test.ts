/**
 * The tag log: tags are kept when a page is cleaned, dropped when the guest writes, and read two to
 * a byte; what is refused.
 */
import { describe, expect, it } from 'vitest';
import { TestGuest } from '../../test/support/test-guest.ts';
import { assert, hva, ipa, MIB, PAGE_SIZE } from '../base/index.ts';
import { Errno, Host, isRefusal, MapFlag, Prot } from '../host/index.ts';
import { dramOnly, PhysicalMemory } from '../machine/memory.ts';
import { KVM_CAP_ARM_MTE_TAG_LOG } from './tag-log.ts';
import {
  KVM_CAP_ARM_MTE,
  KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
  KVM_DIRTY_LOG_INITIALLY_SET,
  KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
  KVM_MEM_LOG_DIRTY_PAGES,
} from './uapi.ts';
import { createVm } from './vm.ts';

const BASE = 0x4000_0000;
const PAGES = 128;

/** A slot that logs, with every page dirty at first. */
function logging() {
  const host = new Host({ memory: new PhysicalMemory({ zones: dramOnly(8 * MIB) }) });
  const process = host.createProcess();
  const vm = createVm({ host, process });
  assert(!isRefusal(vm), 'a VM is created');
  const map = (length: number): number => {
    const at = process.mmap({
      length,
      prot: Prot.read | Prot.write,
      flags: MapFlag.private | MapFlag.anonymous,
    });
    assert(!isRefusal(at), 'memory is mapped');
    return at;
  };
  const slotHva = map(PAGES * PAGE_SIZE);
  const setSlot = (flags: number): number =>
    vm.setUserMemoryRegion({
      slot: 0,
      flags,
      guestPhysAddr: BASE,
      memorySize: PAGES * PAGE_SIZE,
      userspaceAddr: slotHva,
    });
  vm.enableCap({ cap: KVM_CAP_ARM_MTE });
  setSlot(0);
  const guest = new TestGuest(vm);
  const start = (): void => {
    vm.enableCap({ cap: KVM_CAP_ARM_MTE_TAG_LOG, args: [1n] });
    const flags = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET;
    vm.enableCap({ cap: KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, args: [BigInt(flags)] });
    setSlot(KVM_MEM_LOG_DIRTY_PAGES);
  };
  const clean = (...pages: number[]): void => {
    const bitmap = new Uint32Array(PAGES / 32);
    for (const page of pages) bitmap[page >>> 5] = bitmap[page >>> 5]! | (1 << (page & 31));
    expect(vm.clearDirtyLog({ slot: 0, firstPage: 0, pageCount: PAGES, bitmap })).toBe(0);
  };
  const buffer = map(PAGES * 128 + PAGE_SIZE);
  /** The first packed tag of each of the pages from `firstPage`, undefined where none is kept. */
  const kept = (firstPage: number, pageCount: number): (number | undefined)[] => {
    const bitmap = buffer + PAGES * 128;
    expect(vm.readTagLog({ slot: 0, firstPage, pageCount, addr: buffer, bitmap })).toBe(0);
    return Array.from({ length: pageCount }, (_, i) => {
      const bits = process.memory.readU8(hva(bitmap + (i >>> 3)));
      const isKept = ((bits >> (i & 7)) & 1) === 1;
      return isKept ? process.memory.readU8(hva(buffer + i * 128)) : undefined;
    });
  };
  return { vm, guest, start, clean, kept, buffer };
}

const at = (page: number, granule = 0) => ipa(BASE + page * PAGE_SIZE + 16 * granule);

describe('tag log', () => {
  it('tag log: pages that are dirty, none kept; cleaned, theirs of that moment', () => {
    const { guest, start, clean, kept } = logging();
    guest.storeTag(at(1), 5);
    guest.storeTag(at(1, 1), 0xa);
    start();
    expect(kept(0, 3)).toEqual([undefined, undefined, undefined]);
    clean(1, 2);
    expect(kept(0, 3)).toEqual([undefined, 0xa5, 0]);
  });

  it.each<[string, (guest: TestGuest) => void]>([
    ['STG', (guest) => void guest.storeTag(at(1), 7)],
    ['STR', (guest) => void guest.store(at(1), 7)],
  ])('tag log: the guest writes by %s, dropped until the page is cleaned again', (_, write) => {
    const { guest, start, clean, kept } = logging();
    guest.storeTag(at(1), 5);
    start();
    clean(1, 2);
    write(guest);
    expect(kept(1, 2)).toEqual([undefined, 0]);
    clean(1);
    expect(kept(1, 1)[0]).toBeDefined();
  });

  it('tag log: the guest reads, kept', () => {
    const { guest, start, clean, kept } = logging();
    guest.storeTag(at(1), 5);
    start();
    clean(1);
    guest.load(at(1));
    guest.loadTag(at(1));
    expect(kept(1, 1)).toEqual([5]);
  });

  it('tag log: what is refused', () => {
    const { vm, start, buffer } = logging();
    const request = { slot: 0, firstPage: 0, pageCount: 1, addr: buffer, bitmap: buffer };
    expect(vm.readTagLog(request)).toBe(-Errno.ENOENT);
    expect(vm.checkExtension(KVM_CAP_ARM_MTE_TAG_LOG)).toBe(1);
    expect(vm.enableCap({ cap: KVM_CAP_ARM_MTE_TAG_LOG, args: [2n] })).toBe(-Errno.EINVAL);
    start();
    expect(vm.readTagLog({ ...request, slot: -1 })).toBe(-Errno.EINVAL);
    expect(vm.readTagLog({ ...request, slot: 1 })).toBe(-Errno.ENOENT);
    expect(vm.readTagLog({ ...request, firstPage: PAGES })).toBe(-Errno.EINVAL);
    expect(vm.readTagLog({ ...request, pageCount: PAGES + 1 })).toBe(-Errno.EINVAL);
    expect(vm.readTagLog({ ...request, bitmap: 0 })).toBe(-Errno.EFAULT);
  });

  it('tag log: a VM without MTE, there is none', () => {
    const host = new Host({ memory: new PhysicalMemory({ zones: dramOnly(8 * MIB) }) });
    const vm = createVm({ host, process: host.createProcess() });
    assert(!isRefusal(vm), 'a VM is created');
    expect(vm.checkExtension(KVM_CAP_ARM_MTE_TAG_LOG)).toBe(0);
    expect(vm.enableCap({ cap: KVM_CAP_ARM_MTE_TAG_LOG, args: [1n] })).toBe(-Errno.EINVAL);
  });
});
