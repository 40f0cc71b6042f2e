/** A process saved and put back, on the same host or another: data, tags, rights, files. */
import { describe, expect, it } from 'vitest';
import {
  granted,
  map,
  newHost,
  PRIVATE,
  pagesOn,
  RW,
  RW_MTE,
  SHARED,
  tagRow,
  tagUp,
} from '../../test/support/host-process.ts';
import { BLOCK_SIZE, MIB, PAGE_SIZE, Prng } from '../base/index.ts';
import {
  Errno,
  Madvise,
  MapFlag,
  MemorySwapDevice,
  Prot,
  restoreProcess,
  SimulatedSwapDevice,
  saveProcess,
} from './index.ts';

const MTE = { prot: RW_MTE };

describe('saveProcess, restoreProcess', () => {
  it('private memory: data and tags, untouched pages not at all, rights as they were', () => {
    const space = newHost().createProcess();
    const at = map(space, MTE);
    const readOnly = map(space);
    space.memory.writeU32(at, 0x1234);
    tagUp(space, at, 3);
    tagUp(space, pagesOn(at, 2), 7);
    space.memory.writeU8(readOnly, 5);
    space.mprotect(readOnly, PAGE_SIZE, Prot.read);
    const image = granted(saveProcess(space));
    expect(image.areas.flatMap(({ pages }) => pages).length).toBe(3);

    const copy = granted(restoreProcess(newHost(), image));
    expect(copy.memory.readU32(at)).toBe(0x1234);
    expect([0, 1, 2].map((page) => tagRow(copy, pagesOn(at, page), 4))).toEqual([
      '3456',
      '0000',
      '789a',
    ]);
    expect(copy.memory.readU8(readOnly)).toBe(5);
    expect(copy.memory.writeU8(readOnly, 1)).toBe(-Errno.EFAULT);
    expect(saveProcess(copy)).toEqual(image);
    copy.destroy();
    copy.host.frames.check();
  });

  it('a file mapped twice is one file again, with a private copy beside it', () => {
    const host = newHost();
    const space = host.createProcess();
    const file = host.createMemfd(4 * PAGE_SIZE);
    const shared = map(space, { ...MTE, flags: MapFlag.shared, file });
    const other = map(space, { ...MTE, flags: MapFlag.shared, file, length: PAGE_SIZE });
    const own = map(space, { ...MTE, flags: MapFlag.private, file });
    tagUp(space, shared, 1);
    space.memory.writeU8(own, 9);
    const image = granted(saveProcess(space));
    expect(image.files.length).toBe(1);

    const copy = granted(restoreProcess(newHost(), image));
    copy.memory.writeU8(shared, 4);
    copy.memory.storeTag(shared, 0xf);
    expect([copy.memory.readU8(other), tagRow(copy, other, 3)]).toEqual([4, 'f23']);
    expect([copy.memory.readU8(own), tagRow(copy, own, 3)]).toEqual([9, '123']);
    expect(file.read(0, 1)[0]).toBe(0);
    copy.destroy();
    copy.host.frames.check();
  });

  it('pages in swap are saved with the tags kept beside them, and stay there', () => {
    const space = newHost().createProcess();
    granted(space.host.swapOn(new MemorySwapDevice(8)));
    const at = map(space, MTE);
    tagUp(space, at, 2);
    space.madvise(at, PAGE_SIZE, Madvise.pageOut);
    const image = granted(saveProcess(space));
    expect(space.pageState(at)).toBe('swapped');
    expect(tagRow(granted(restoreProcess(newHost(), image)), at)).toBe('23456789');
  });

  it.each([
    ['private', PRIVATE],
    ['shared', SHARED],
  ])('hugetlb pages, %s, with the tags a guest gave them', (_, flags) => {
    const space = newHost().createProcess();
    const at = map(space, { flags: flags | MapFlag.hugetlb, length: BLOCK_SIZE });
    space.memory.writeU8(pagesOn(at, 300), 7);
    // The process cannot map them PROT_MTE; KVM of Linux 6.1 lets a guest tag them.
    const tagged = granted(space.faultIn(pagesOn(at, 300), { write: true })).pa;
    space.host.frames.initialiseTags(tagged);
    space.host.memory.writeTag(tagged, 5);
    const copy = granted(restoreProcess(newHost(), granted(saveProcess(space))));
    expect(copy.memory.readU8(pagesOn(at, 300))).toBe(7);
    const page = granted(copy.faultIn(pagesOn(at, 300), { write: true }));
    expect(page.sizeBytes).toBe(BLOCK_SIZE);
    expect([copy.host.frames.isMteTagged(page.pa), copy.host.memory.readTag(page.pa)]).toEqual([
      true,
      5,
    ]);
  });

  it('a host without room: ENOMEM, and nothing left of it', () => {
    const space = newHost().createProcess();
    const at = map(space, { length: 4 * MIB, prot: RW });
    space.memory.fill(at, 1, 4 * MIB);
    const small = newHost({ sizeBytes: 2 * MIB });
    const free = small.frames.freeCount;
    expect(restoreProcess(small, granted(saveProcess(space)))).toBe(-Errno.ENOMEM);
    expect(small.frames.freeCount).toBe(free);
    small.frames.check();
  });

  it('swap that cannot be read: EIO', () => {
    const space = newHost().createProcess();
    const faults = { prng: new Prng(1), readFailsOneIn: 1 };
    granted(space.host.swapOn(new SimulatedSwapDevice(new MemorySwapDevice(8), faults)));
    const at = map(space);
    space.memory.writeU8(at, 1);
    space.madvise(at, PAGE_SIZE, Madvise.pageOut);
    expect(saveProcess(space)).toBe(-Errno.EIO);
  });
});
