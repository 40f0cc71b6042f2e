/**
 * Dirty logs. The rows are what a real Linux 6.12 answered for a slot of 16 pages (section H of the
 * recordings under QEMU 10).
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TestGuest } from '../../test/support/test-guest.ts';
import { BLOCK_SIZE, type Hva, hva, type Ipa, ipa, MIB, PAGE_SIZE } from '../base/index.ts';
import { type AddressSpace, Errno, Host, isRefusal, MapFlag, Prot } from '../host/index.ts';
import { dramOnly, PhysicalMemory } from '../machine/memory.ts';
import { DirtyBitmap } from './dirty-log.ts';
import * as uapi from './uapi.ts';
import { createVm, type Vm } from './vm.ts';

const LOG = uapi.KVM_MEM_LOG_DIRTY_PAGES;
const BASE = ipa(0x4000_0000);
const page = (index: number): Ipa => ipa(BASE + index * PAGE_SIZE);

interface Setup {
  process: AddressSpace;
  vm: Vm;
  guest: TestGuest;
  memory: Hva;
  /** Sets the slot's flags. */
  flags(flags: number): number;
  /** KVM_GET_DIRTY_LOG, the first 32 pages. */
  log(): number;
}

function setUp(options: { pages: number; manual?: bigint; chunk?: bigint }): Setup {
  const memory = new PhysicalMemory({ zones: dramOnly(24 * MIB), recordPageCount: 16 });
  const host = new Host({ memory });
  const process = host.createProcess();
  const length = options.pages * PAGE_SIZE;
  const prot = Prot.read | Prot.write | Prot.mte;
  const at = process.mmap({ length, prot, flags: MapFlag.private | MapFlag.anonymous });
  const vm = createVm({ host, process });
  if (isRefusal(at) || isRefusal(vm)) throw new Error('no memory');
  vm.enableCap({ cap: uapi.KVM_CAP_ARM_MTE });
  if (options.manual !== undefined) {
    const cap = uapi.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2;
    expect(vm.enableCap({ cap, args: [options.manual] })).toBe(0);
  }
  if (options.chunk !== undefined) {
    const cap = uapi.KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE;
    expect(vm.enableCap({ cap, args: [options.chunk] })).toBe(0);
  }
  const region = { slot: 0, guestPhysAddr: BASE, memorySize: length, userspaceAddr: at };
  return {
    process,
    vm,
    memory: at,
    guest: new TestGuest(vm),
    flags: (flags) => vm.setUserMemoryRegion({ ...region, flags }),
    log: () => {
      const bitmap = vm.getDirtyLog(0);
      return isRefusal(bitmap) ? bitmap : bitmap[0]!;
    },
  };
}

describe('H: KVM_GET_DIRTY_LOG of a slot of 16 pages', () => {
  it('H01 to H21', () => {
    const { process, vm, guest, memory, flags, log } = setUp({ pages: 16 });
    expect(flags(LOG)).toBe(0);
    expect(log()).toBe(0);
    const row = (act: () => unknown): number => {
      expect(act()).not.toMatchObject({ kind: 'errno' });
      return log();
    };
    expect(row(() => guest.load(page(1)))).toBe(0); // H04
    expect(row(() => guest.loadTag(page(2)))).toBe(0); // H05
    expect(row(() => guest.store(page(3), 1))).toBe(0x0008); // H06
    expect(row(() => guest.storeTag(page(4), 1))).toBe(0x0010); // H07
    expect(row(() => guest.storeTag(page(1), 1))).toBe(0x0002); // H09, was read-mapped
    expect(row(() => guest.storeTag(page(4), 2))).toBe(0x0010); // again, after the log was read
    expect(log()).toBe(0);
    const buffer = process.mmap({
      length: PAGE_SIZE,
      prot: Prot.read | Prot.write,
      flags: MapFlag.private | MapFlag.anonymous,
    });
    for (const index of [9, 4]) {
      // H14, H15: tags that the VMM copies in are not the guest's stores.
      const request = { guestIpa: page(index), length: PAGE_SIZE, addr: buffer, flags: 0 };
      expect(vm.copyTags(request)).toBe(PAGE_SIZE);
      expect(log()).toBe(0);
    }
    const host = process.memory;
    expect(row(() => host.writeU8(hva(memory + 10 * PAGE_SIZE), 1))).toBe(0); // H16
    expect(row(() => host.storeTag(hva(memory + 11 * PAGE_SIZE), 1))).toBe(0); // H17
    expect(guest.storeTag(page(12), 1)).toBe('done');
    expect(flags(0)).toBe(0);
    expect(log()).toBe(-Errno.ENOENT); // H19
    expect(guest.store(page(12), 1)).toBe('done');
    expect(flags(LOG)).toBe(0);
    expect(log()).toBe(0); // H20
    expect(row(() => guest.storeTag(page(12), 3))).toBe(0x1000); // H21
  });

  it('refusals: slot id, no slot, a slot that does not log', () => {
    const { vm, flags } = setUp({ pages: 16 });
    flags(0);
    expect(vm.getDirtyLog(32767)).toBe(-Errno.EINVAL);
    expect(vm.getDirtyLog(-1)).toBe(-Errno.EINVAL);
    expect(vm.getDirtyLog(5)).toBe(-Errno.ENOENT);
    expect(vm.getDirtyLog(0)).toBe(-Errno.ENOENT);
  });

  it('the bitmap is whole 64-bit words', () => {
    const { vm, flags } = setUp({ pages: 65 });
    flags(LOG);
    expect(vm.getDirtyLog(0)).toEqual(new Uint32Array(4));
  });

  it('a moved slot keeps its log', () => {
    const { vm, guest, flags, log, memory } = setUp({ pages: 16 });
    flags(LOG);
    guest.store(page(2), 1);
    const moved = { slot: 0, flags: LOG, memorySize: 16 * PAGE_SIZE, userspaceAddr: memory };
    expect(vm.setUserMemoryRegion({ ...moved, guestPhysAddr: 0 })).toBe(0);
    expect(log()).toBe(4);
    expect(guest.store(ipa(3 * PAGE_SIZE), 1)).toBe('done');
    expect(log()).toBe(8);
  });
});

describe('blocks under dirty logging', () => {
  it('a block loses its right to write; the first store to a page splits it', () => {
    const { vm, guest, flags, log } = setUp({ pages: 1024 });
    flags(0);
    guest.store(page(5), 1);
    expect(vm.stage2.lookup(page(5))?.sizeBytes).toBe(BLOCK_SIZE);
    flags(LOG);
    expect(vm.stage2.lookup(page(5))?.sizeBytes).toBe(BLOCK_SIZE);
    const before = guest.abortCount;
    expect(guest.load(page(6))).toBe(0);
    expect(guest.abortCount).toBe(before);
    guest.store(page(5), 2);
    guest.store(page(31), 2);
    expect(vm.stage2.lookup(page(5))?.sizeBytes).toBe(PAGE_SIZE);
    expect(log()).toBe(0x8000_0020);
    // Logging ends: the next fault makes the block whole again.
    flags(0);
    guest.store(page(6), 1);
    expect(vm.stage2.lookup(page(5))?.sizeBytes).toBe(BLOCK_SIZE);
    expect(guest.load(page(5))).toBe(2);
    vm.stage2.check();
  });

  it('with KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE blocks are split when logging begins', () => {
    const { vm, guest, flags, log } = setUp({ pages: 512, chunk: BigInt(BLOCK_SIZE) });
    flags(0);
    guest.store(page(5), 1);
    flags(LOG);
    expect(vm.stage2.lookup(page(5))?.sizeBytes).toBe(PAGE_SIZE);
    expect(guest.store(page(5), 1)).toBe('done');
    expect(log()).toBe(0x20);
    vm.stage2.check();
  });
});

describe('KVM_CLEAR_DIRTY_LOG', () => {
  it('with manual protection GET leaves the log, CLEAR takes pages from it and protects them', () => {
    const { vm, guest, flags, log } = setUp({ pages: 128, manual: 1n });
    flags(LOG);
    for (const index of [1, 2, 70]) guest.store(page(index), 1);
    expect([log(), log()]).toEqual([6, 6]);
    const bitmap = new Uint32Array([2, 0]);
    expect(vm.clearDirtyLog({ slot: 0, firstPage: 0, pageCount: 64, bitmap })).toBe(0);
    expect(vm.getDirtyLog(0)).toEqual(new Uint32Array([4, 0, 64, 0]));
    const before = guest.abortCount;
    guest.store(page(2), 1);
    expect(guest.abortCount).toBe(before);
    guest.store(page(1), 1);
    expect(log()).toBe(6);
    const second = { slot: 0, firstPage: 64, pageCount: 64, bitmap: new Uint32Array([64, 0]) };
    expect(vm.clearDirtyLog(second)).toBe(0);
    expect(vm.getDirtyLog(0)).toEqual(new Uint32Array([6, 0, 0, 0]));
  });

  it('with all pages dirty at first, protection begins with CLEAR', () => {
    const { vm, guest, flags, log } = setUp({ pages: 16, manual: 3n });
    flags(0);
    guest.store(page(3), 1);
    flags(LOG);
    expect(log()).toBe(0xffff);
    const before = guest.abortCount;
    guest.store(page(3), 1);
    expect(guest.abortCount).toBe(before);
    const bitmap = new Uint32Array([0xffff]);
    expect(vm.clearDirtyLog({ slot: 0, firstPage: 0, pageCount: 16, bitmap })).toBe(0);
    guest.store(page(3), 1);
    expect(log()).toBe(8);
  });

  it.each([
    ['slot id', { slot: 40000 }, Errno.EINVAL],
    ['first page unaligned', { firstPage: 32 }, Errno.EINVAL],
    ['first page behind the slot', { firstPage: 192 }, Errno.EINVAL],
    ['more pages than there are', { pageCount: 131 }, Errno.EINVAL],
    ['count unaligned before the end', { pageCount: 65 }, Errno.EINVAL],
    ['bitmap too short', { bitmap: new Uint32Array(1) }, Errno.EFAULT],
    ['no such slot', { slot: 3 }, Errno.ENOENT],
  ])('refused: %s', (_name, change, errno) => {
    const { vm, flags } = setUp({ pages: 130, manual: 1n });
    flags(LOG);
    const request = { slot: 0, firstPage: 0, pageCount: 130, bitmap: new Uint32Array(6) };
    expect(vm.clearDirtyLog(request)).toBe(0);
    expect(vm.clearDirtyLog({ ...request, ...change })).toBe(-errno);
  });
});

describe('any guest stores and clears', () => {
  it('the log holds the pages stored to since they were cleared', () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant('store' as const), index: fc.nat(1023) }),
      fc.record({ kind: fc.constant('load' as const), index: fc.nat(1023) }),
      fc.record({ kind: fc.constant('read' as const), index: fc.constant(0) }),
      fc.record({ kind: fc.constant('dontneed' as const), index: fc.nat(1023) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const { process, vm, guest, flags, memory } = setUp({ pages: 1024 });
        flags(0);
        guest.store(page(0), 1);
        flags(LOG);
        const dirty = new Set<number>();
        for (const { kind, index } of [...steps, { kind: 'read' as const, index: 0 }]) {
          if (kind === 'store') {
            expect(guest.store(page(index), 1)).toBe('done');
            dirty.add(index);
          } else if (kind === 'load') {
            expect(typeof guest.load(page(index))).toBe('number');
          } else if (kind === 'dontneed') {
            process.madvise(hva(memory + index * PAGE_SIZE), PAGE_SIZE, 4);
          } else {
            const expected = new DirtyBitmap(1024 * PAGE_SIZE, false);
            for (const stored of dirty) expected.mark(stored);
            expect(vm.getDirtyLog(0)).toEqual(expected.read());
            dirty.clear();
          }
        }
        vm.stage2.check();
      }),
      { numRuns: 25 },
    );
  });
});
