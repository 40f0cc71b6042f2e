/** mremap: what it refuses, and that pages keep their data and tags wherever they go. */
import { describe, expect, it } from 'vitest';
import {
  granted,
  map,
  newHost,
  PRIVATE,
  pagesOn,
  RW_MTE,
  SHARED,
  tagRow,
  tagUp,
} from '../../test/support/host-process.ts';
import { BLOCK_SIZE, type Hva, hva, MIB, PAGE_SIZE } from '../base/index.ts';
import {
  type AddressSpace,
  Errno,
  Madvise,
  MapFlag,
  MemorySwapDevice,
  MremapFlag,
} from './index.ts';

const MTE = { prot: RW_MTE };
const MOVE = MremapFlag.mayMove;
const FIXED = MOVE | MremapFlag.fixed;
const FOUR = { oldLength: 4 * PAGE_SIZE, newLength: 4 * PAGE_SIZE };
const FAR = hva(0x7000_0000);

/** Four pages with data 1, 2, 3, 4 and tags from 1, 2, 3, 4 on. */
function numbered(space: AddressSpace): Hva {
  const at = map(space, MTE);
  for (let i = 0; i < 4; i++) {
    granted(space.memory.writeU8(pagesOn(at, i), i + 1));
    tagUp(space, pagesOn(at, i), i + 1, 2);
  }
  return at;
}

const seen = (space: AddressSpace, at: Hva, pages = 4): string[] =>
  Array.from({ length: pages }, (_, i) => {
    const page = pagesOn(at, i);
    return `${space.memory.readU8(page)}:${tagRow(space, page, 2)}`;
  });
const NUMBERED = ['1:12', '2:23', '3:34', '4:45'];

describe('refusals', () => {
  const space = newHost().createProcess();
  const at = map(space);
  const huge = map(space, { flags: PRIVATE | MapFlag.hugetlb, length: BLOCK_SIZE });
  it.each<[string, Parameters<AddressSpace['mremap']>[0], Errno]>([
    ['unknown flag', { address: at, ...FOUR, flags: 4 }, Errno.EINVAL],
    ['fixed without mayMove', { address: at, ...FOUR, flags: 2, newAddress: FAR }, Errno.EINVAL],
    ['unaligned', { address: hva(at + 8), ...FOUR }, Errno.EINVAL],
    ['new length 0', { address: at, oldLength: PAGE_SIZE, newLength: 0 }, Errno.EINVAL],
    ['old length 0', { address: at, oldLength: 0, newLength: PAGE_SIZE }, Errno.EINVAL],
    ['nothing mapped', { address: hva(0x10_0000), ...FOUR }, Errno.EFAULT],
    ['more than the area', { address: pagesOn(at), ...FOUR }, Errno.EFAULT],
    ['hugetlb', { address: huge, oldLength: BLOCK_SIZE, newLength: BLOCK_SIZE }, Errno.EINVAL],
    ['fixed without a place', { address: at, ...FOUR, flags: FIXED }, Errno.EINVAL],
    [
      'a place inside itself',
      { address: at, ...FOUR, flags: FIXED, newAddress: pagesOn(at, 2) },
      Errno.EINVAL,
    ],
    [
      'a place beyond user addresses',
      { address: at, ...FOUR, flags: FIXED, newAddress: hva(2 ** 48) },
      Errno.EINVAL,
    ],
  ])('%s', (_, request, errno) => {
    expect(space.mremap(request)).toBe(-errno);
  });

  it('no room to grow and not allowed to move: ENOMEM', () => {
    const top = map(space, { length: PAGE_SIZE });
    const below = map(space, { length: PAGE_SIZE });
    expect(pagesOn(below)).toBe(top);
    const request = { address: below, oldLength: PAGE_SIZE, newLength: 2 * PAGE_SIZE };
    expect(space.mremap(request)).toBe(-Errno.ENOMEM);
    expect(space.mremap({ ...request, flags: MOVE })).not.toBe(below);
  });
});

describe('pages keep data and tags', () => {
  it('moved to a place of the caller’s, over what was there', () => {
    const space = newHost().createProcess();
    const at = numbered(space);
    const target = map(space, { ...MTE, length: 8 * PAGE_SIZE });
    tagUp(space, target, 9);
    const request = { address: at, ...FOUR, flags: FIXED, newAddress: pagesOn(target, 2) };
    expect(space.mremap(request)).toBe(pagesOn(target, 2));
    expect(seen(space, pagesOn(target, 2))).toEqual(NUMBERED);
    expect(space.memory.readU8(at)).toBe(-Errno.EFAULT);
    expect(tagRow(space, target)).toBe('9abcdef0');
    space.destroy();
    space.host.frames.check();
  });

  it('grown where there is room, else moved', () => {
    const space = newHost().createProcess();
    const above = map(space, { length: PAGE_SIZE });
    const at = numbered(space);
    expect(pagesOn(at, 4)).toBe(above);
    const request = { address: at, oldLength: 4 * PAGE_SIZE, newLength: 6 * PAGE_SIZE };
    const moved = granted(space.mremap({ ...request, flags: MOVE }));
    expect(moved).not.toBe(at);
    expect(seen(space, moved, 5)).toEqual([...NUMBERED, '0:00']);
    space.munmap(pagesOn(moved, 5), PAGE_SIZE);
    expect(space.mremap({ ...request, address: moved, oldLength: 5 * PAGE_SIZE })).toBe(moved);
    expect(space.memory.readU8(pagesOn(moved, 5))).toBe(0);
  });

  it('shrunk: the rest goes', () => {
    const space = newHost().createProcess();
    const at = numbered(space);
    expect(space.mremap({ address: at, oldLength: FOUR.oldLength, newLength: 1 })).toBe(at);
    expect(seen(space, at, 2)).toEqual(['1:12', `${-Errno.EFAULT}:${'-e-e'}`]);
  });

  it('a part of a 2 MiB page', () => {
    const space = newHost().createProcess();
    const at = map(space, { ...MTE, length: 2 * MIB });
    tagUp(space, pagesOn(at, 100), 7, 2);
    const request = { address: pagesOn(at, 99), ...FOUR, flags: FIXED, newAddress: FAR };
    expect(space.mremap(request)).toBe(FAR);
    expect(tagRow(space, pagesOn(FAR), 2)).toBe('78');
    expect(space.memory.readU8(pagesOn(at, 98))).toBe(0);
    space.table.check();
    space.destroy();
    space.host.frames.check();
  });

  it('in swap', () => {
    const space = newHost().createProcess();
    granted(space.host.swapOn(new MemorySwapDevice(8)));
    const at = numbered(space);
    space.madvise(at, 2 * PAGE_SIZE, Madvise.pageOut);
    granted(space.mremap({ address: at, ...FOUR, flags: FIXED, newAddress: FAR }));
    expect(space.pageState(FAR)).toBe('swapped');
    expect(seen(space, FAR)).toEqual(NUMBERED);
    expect(space.host.swap!.freeSlotCount).toBe(8);
  });

  it('of a shared file, and copies after a fork', () => {
    const space = newHost().createProcess();
    const shared = map(space, { ...MTE, flags: SHARED });
    tagUp(space, shared, 3, 2);
    const at = numbered(space);
    const child = granted(space.fork());
    granted(space.mremap({ address: shared, ...FOUR, flags: FIXED, newAddress: FAR }));
    const target = hva(FAR + MIB);
    granted(space.mremap({ address: at, ...FOUR, flags: FIXED, newAddress: target }));
    space.memory.storeTag(FAR, 9);
    space.memory.writeU8(target, 9);
    expect(tagRow(child, shared, 2)).toBe('94');
    expect(seen(child, at)).toEqual(NUMBERED);
    expect(seen(space, target)[0]).toBe('9:12');
  });

  it('watchers hear of the old place', () => {
    const space = newHost().createProcess();
    const at = numbered(space);
    const heard: number[] = [];
    space.watch({ invalidateRange: (start) => heard.push(start) });
    granted(space.mremap({ address: at, ...FOUR, flags: FIXED, newAddress: FAR }));
    expect(heard).toEqual([at]);
  });

  it('missing pages are supplied at the old place only', () => {
    const space = newHost().createProcess();
    const at = map(space);
    space.userfault.register(at, 4 * PAGE_SIZE);
    granted(space.mremap({ address: at, ...FOUR, flags: FIXED, newAddress: FAR }));
    expect(space.memory.readU8(FAR)).toBe(0);
  });
});
