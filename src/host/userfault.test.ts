/** userfaultfd: registration, events, UFFDIO_COPY with tags, and pages supplied by a handler. */
import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE, type Hva, hva, MIB, PAGE_SIZE, pa } from '../base/index.ts';
import { dramOnly, PhysicalMemory } from '../machine/memory.ts';
import {
  type AddressSpace,
  Errno,
  Host,
  type HostPolicy,
  isRefusal,
  linux,
  Madvise,
  MapFlag,
  type MmapRequest,
  PACKED_TAG_BYTES,
  type PageContent,
  Prot,
  refuse,
  smallPages,
} from './index.ts';

const RW = Prot.read | Prot.write;
const MTE = { prot: RW | Prot.mte };
const PRIVATE = MapFlag.private | MapFlag.anonymous;
const SHARED = MapFlag.shared | MapFlag.anonymous;

function newProcess(options: { policy?: HostPolicy; sizeBytes?: number } = {}): AddressSpace {
  const zones = dramOnly(options.sizeBytes ?? 16 * MIB);
  const memory = new PhysicalMemory({ zones, recordPageCount: 16 });
  return new Host({ memory, policy: options.policy ?? linux }).createProcess();
}

function map(space: AddressSpace, request: Partial<MmapRequest> = {}): Hva {
  const at = space.mmap({ length: 4 * PAGE_SIZE, prot: RW, flags: PRIVATE, ...request });
  if (isRefusal(at)) throw new Error(`mmap refused: ${at}`);
  return at;
}

const page = (value: number): Uint8Array => new Uint8Array(PAGE_SIZE).fill(value);
const tags = (value: number): Uint8Array => new Uint8Array(PACKED_TAG_BYTES).fill(value * 0x11);
const next = (at: Hva, pages = 1): Hva => hva(at + pages * PAGE_SIZE);

describe('register, unregister: refusals', () => {
  const space = newProcess();
  const at = map(space);
  const device = { kind: 'device', base: pa(0), sizeBytes: PAGE_SIZE, memoryType: 'Normal-NC' };
  const deviceAt = map(space, { flags: MapFlag.shared, file: device as never, length: PAGE_SIZE });
  const huge = map(space, { flags: PRIVATE | MapFlag.hugetlb, length: BLOCK_SIZE });
  const cases: readonly [string, number, number, Errno][] = [
    ['unaligned start', at + 16, PAGE_SIZE, Errno.EINVAL],
    ['unaligned length', at, 16, Errno.EINVAL],
    ['length 0', at, 0, Errno.EINVAL],
    ['beyond user addresses', 2 ** 48 - PAGE_SIZE, 2 * PAGE_SIZE, Errno.EINVAL],
    ['nothing mapped', 0x10_0000, PAGE_SIZE, Errno.ENOMEM],
    ['physical addresses', deviceAt, PAGE_SIZE, Errno.EINVAL],
    ['a part of a hugetlb page', huge, PAGE_SIZE, Errno.EINVAL],
  ];
  it.each(cases)('%s', (_, start, length, errno) => {
    expect(space.userfault.register(hva(start), length)).toBe(-errno);
    expect(space.userfault.unregister(hva(start), length)).toBe(-errno);
  });
});

describe('copy, zeroPage: refusals change nothing', () => {
  const space = newProcess();
  const at = map(space, { ...MTE, length: 8 * PAGE_SIZE });
  const outside = map(space);
  const { userfault } = space;
  userfault.register(at, 8 * PAGE_SIZE);
  expect(userfault.copy({ address: at, data: page(1) })).toBe(PAGE_SIZE);
  const two = new Uint8Array(2 * PAGE_SIZE);
  it.each<[string, Parameters<typeof userfault.copy>[0], Errno]>([
    ['unaligned', { address: hva(at + 16), data: page(2) }, Errno.EINVAL],
    ['half a page', { address: next(at), data: new Uint8Array(2048) }, Errno.EINVAL],
    ['nothing', { address: next(at), data: new Uint8Array(0) }, Errno.EINVAL],
    ['tags too short', { address: next(at), data: two, packedTags: tags(1) }, Errno.EINVAL],
    ['not registered', { address: outside, data: page(2) }, Errno.ENOENT],
    ['nothing mapped', { address: hva(0x10_0000), data: page(2) }, Errno.ENOENT],
    ['over the end of the area', { address: next(at, 7), data: two }, Errno.ENOENT],
    ['a present page', { address: at, data: page(2), packedTags: tags(2) }, Errno.EEXIST],
  ])('%s', (_, request, errno) => {
    expect(userfault.copy(request)).toBe(-errno);
    expect(space.memory.readU8(at)).toBe(1);
    expect(space.memory.loadTag(at)).toBe(0);
  });

  it('a present page behind the first: what came before is installed', () => {
    userfault.copy({ address: next(at, 4), data: page(4) });
    const data = new Uint8Array(3 * PAGE_SIZE).fill(3);
    expect(userfault.copy({ address: next(at, 2), data })).toBe(2 * PAGE_SIZE);
    expect(space.memory.readU8(next(at, 3))).toBe(3);
    expect(space.memory.readU8(next(at, 4))).toBe(4);
    expect(userfault.zeroPage(at, PAGE_SIZE)).toBe(-Errno.EEXIST);
  });

  it('hugetlb memory: no tags, which it cannot have, and no zero page', () => {
    const huge = map(space, { flags: PRIVATE | MapFlag.hugetlb, length: BLOCK_SIZE });
    userfault.register(huge, BLOCK_SIZE);
    expect(userfault.zeroPage(huge, BLOCK_SIZE)).toBe(-Errno.EINVAL);
    const packedTags = new Uint8Array(512 * PACKED_TAG_BYTES);
    const data = new Uint8Array(BLOCK_SIZE);
    expect(userfault.copy({ address: huge, data, packedTags })).toBe(-Errno.EINVAL);
    expect(userfault.copy({ address: huge, data })).toBe(BLOCK_SIZE);
  });
});

describe('events', () => {
  it('a touch: EAGAIN and one event, until the page is installed', () => {
    const space = newProcess();
    const at = map(space, MTE);
    const { userfault, memory } = space;
    userfault.register(at, 4 * PAGE_SIZE);
    let readable = 0;
    userfault.onEvent = () => readable++;
    expect(memory.readU32(hva(at + 20))).toBe(-Errno.EAGAIN);
    expect(memory.write(hva(at + 8), new Uint8Array(8))).toBe(-Errno.EAGAIN);
    expect(readable).toBe(1);
    expect(space.awaited.has(at)).toBe(true);
    expect(userfault.isPending(hva(at + 20))).toBe(true);
    expect(userfault.nextEvent()).toEqual({ address: at, write: false });
    expect(userfault.nextEvent()).toBeUndefined();
    expect(userfault.copy({ address: at, data: page(7), packedTags: tags(9) })).toBe(PAGE_SIZE);
    expect(space.awaited.size).toBe(0);
    expect(memory.readU8(at)).toBe(7);
    expect(memory.loadTag(at)).toBe(9);
  });

  it('a range access: done up to the missing page, then EAGAIN', () => {
    const space = newProcess({ policy: smallPages });
    const at = map(space);
    space.memory.writeU8(at, 1);
    space.userfault.register(at, 4 * PAGE_SIZE);
    const data = new Uint8Array(2 * PAGE_SIZE).fill(5);
    expect(space.memory.writeFrom(at, data)).toBe(PAGE_SIZE);
    expect(space.memory.read(at, 2 * PAGE_SIZE)).toBe(-Errno.EAGAIN);
    expect(space.memory.readU8(at)).toBe(5);
  });

  it('UFFDIO_COPY_MODE_DONTWAKE: the page is there, who waits goes on with UFFDIO_WAKE', () => {
    const space = newProcess();
    const at = map(space);
    const { userfault } = space;
    userfault.register(at, 4 * PAGE_SIZE);
    space.memory.readU8(at);
    userfault.copy({ address: at, data: page(1), wake: false });
    expect(space.awaited.has(at)).toBe(true);
    expect(userfault.wake(at, 16)).toBe(-Errno.EINVAL);
    expect(userfault.wake(at, PAGE_SIZE)).toBe(0);
    expect(space.awaited.size).toBe(0);
  });

  it('a wake without a page: the next touch is a new event', () => {
    const space = newProcess();
    const at = map(space);
    const { userfault } = space;
    userfault.register(at, 4 * PAGE_SIZE);
    space.memory.readU8(at);
    userfault.nextEvent();
    userfault.wake(at, PAGE_SIZE);
    expect(space.memory.readU8(at)).toBe(-Errno.EAGAIN);
    expect(userfault.nextEvent()).toEqual({ address: at, write: false });
  });

  it.each<[string, (space: AddressSpace, at: Hva) => unknown, number]>([
    ['unregister', (space, at) => space.userfault.unregister(at, 4 * PAGE_SIZE), 0],
    ['munmap', (space, at) => space.munmap(at, 4 * PAGE_SIZE), -Errno.EFAULT],
  ])('%s: nobody waits any more', (_, change, then) => {
    const space = newProcess();
    const at = map(space);
    space.userfault.register(at, 4 * PAGE_SIZE);
    space.memory.readU8(next(at));
    change(space, at);
    expect(space.awaited.size).toBe(0);
    expect(space.userfault.nextEvent()).toBeUndefined();
    expect(space.memory.readU8(next(at))).toBe(then);
  });

  it('unregister of a part: the rest stays missing', () => {
    const space = newProcess();
    const at = map(space);
    space.userfault.register(at, 4 * PAGE_SIZE);
    space.userfault.unregister(next(at), PAGE_SIZE);
    expect(space.memory.readU8(at)).toBe(-Errno.EAGAIN);
    expect(space.memory.readU8(next(at))).toBe(0);
    expect(space.memory.readU8(next(at, 2))).toBe(-Errno.EAGAIN);
  });

  it('MADV_DONTNEED: the page is missing again', () => {
    const space = newProcess();
    const at = map(space);
    space.memory.writeU8(at, 1);
    space.userfault.register(at, 4 * PAGE_SIZE);
    expect(space.memory.readU8(at)).toBe(1);
    space.madvise(at, PAGE_SIZE, Madvise.dontNeed);
    expect(space.memory.readU8(at)).toBe(-Errno.EAGAIN);
  });

  it('fork: the child has no missing pages', () => {
    const space = newProcess();
    const at = map(space);
    space.userfault.register(at, 4 * PAGE_SIZE);
    const child = space.fork();
    if (isRefusal(child)) throw new Error('no child');
    expect(child.memory.readU8(at)).toBe(0);
    expect(space.memory.readU8(at)).toBe(-Errno.EAGAIN);
  });
});

describe('what is installed', () => {
  it('shared memory: in the file, for every mapping; a page of the file is not missing', () => {
    const space = newProcess();
    const file = space.host.createMemfd(4 * PAGE_SIZE);
    const at = map(space, { ...MTE, flags: MapFlag.shared, file });
    const other = map(space, { ...MTE, flags: MapFlag.shared, file });
    space.userfault.register(at, 4 * PAGE_SIZE);
    file.write(PAGE_SIZE, page(8));
    expect(space.memory.readU8(next(at))).toBe(8);
    expect(space.memory.readU8(at)).toBe(-Errno.EAGAIN);
    space.userfault.copy({ address: at, data: page(3), packedTags: tags(6) });
    expect(space.memory.readU8(other)).toBe(3);
    expect(space.memory.loadTag(other)).toBe(6);
    expect(space.userfault.copy({ address: next(at), data: page(1) })).toBe(-Errno.EEXIST);
    space.munmap(at, 4 * PAGE_SIZE);
    space.munmap(other, 4 * PAGE_SIZE);
    file.close();
    space.host.frames.check();
  });

  it('shared memory behind the end of the file: EFAULT', () => {
    const space = newProcess();
    const file = space.host.createMemfd(PAGE_SIZE);
    const at = map(space, { flags: MapFlag.shared, file });
    space.userfault.register(at, 4 * PAGE_SIZE);
    expect(space.userfault.copy({ address: next(at), data: page(1) })).toBe(-Errno.EFAULT);
  });

  it('a private file mapping: the process’s own copy', () => {
    const space = newProcess();
    const file = space.host.createMemfd(4 * PAGE_SIZE);
    const at = map(space, { flags: MapFlag.private, file });
    space.userfault.register(at, 4 * PAGE_SIZE);
    space.userfault.copy({ address: at, data: page(3) });
    expect(space.memory.readU8(at)).toBe(3);
    expect(file.pageCount).toBe(0);
  });

  it('UFFDIO_ZEROPAGE: the shared zero page until a store', () => {
    const space = newProcess();
    const at = map(space, MTE);
    space.userfault.register(at, 4 * PAGE_SIZE);
    const free = space.host.frames.freeCount;
    expect(space.userfault.zeroPage(at, 2 * PAGE_SIZE)).toBe(2 * PAGE_SIZE);
    expect(space.memory.readU8(at)).toBe(0);
    expect(space.host.frames.freeCount).toBeGreaterThan(free - 5);
    expect(space.memory.writeU8(at, 1)).toBe(0);
    expect(space.memory.storeTag(at, 3)).toBe(0);
    expect(space.memory.readU8(next(at))).toBe(0);
    expect(space.memory.loadTag(next(at))).toBe(0);
  });

  it('without PROT_MTE tags stay with the page, unseen', () => {
    const space = newProcess();
    const at = map(space);
    space.userfault.register(at, 4 * PAGE_SIZE);
    space.userfault.copy({ address: at, data: page(1), packedTags: tags(5) });
    expect(space.memory.loadTag(at)).toBe(0);
    space.mprotect(at, PAGE_SIZE, MTE.prot);
    expect(space.memory.loadTag(at)).toBe(5);
  });

  it('2 MiB of content: one 2 MiB page where there is room, else the pages that are missing', () => {
    const space = newProcess();
    const at = map(space, { ...MTE, length: 2 * BLOCK_SIZE });
    space.memory.writeU8(hva(at + BLOCK_SIZE), 1);
    space.madvise(hva(at + BLOCK_SIZE), BLOCK_SIZE - PAGE_SIZE, Madvise.dontNeed);
    space.userfault.register(at, 2 * BLOCK_SIZE);
    const data = new Uint8Array(2 * BLOCK_SIZE).fill(4);
    const packedTags = new Uint8Array((2 * BLOCK_SIZE) / 32).fill(0x77);
    const last = 2 * BLOCK_SIZE - PAGE_SIZE;
    expect(space.userfault.copy({ address: at, data, packedTags })).toBe(last);
    expect(space.userfault.statistics.blockBytes).toBe(BLOCK_SIZE);
    expect(space.userfault.statistics.pageBytes).toBe(last - BLOCK_SIZE);
    expect(space.memory.loadTag(hva(at + last - 16))).toBe(7);
    expect(space.memory.readU8(hva(at + last))).toBe(0);
  });

  it('no frames left: ENOMEM, and the page stays missing', () => {
    const space = newProcess({ sizeBytes: 2 * MIB });
    const at = map(space, { length: 8 * MIB });
    space.userfault.register(at, 8 * MIB);
    const data = new Uint8Array(4 * MIB);
    const done = space.userfault.copy({ address: at, data });
    expect(done).toBeGreaterThan(MIB);
    expect(done).toBeLessThan(2 * MIB);
    expect(space.userfault.copy({ address: hva(at + done), data: page(1) })).toBe(-Errno.ENOMEM);
    expect(space.memory.readU8(hva(at + done))).toBe(-Errno.EAGAIN);
  });
});

describe('a handler', () => {
  it('supplies pages at once, with tags, and is asked once for each', () => {
    const space = newProcess();
    const at = map(space, MTE);
    const asked: number[] = [];
    const onMissing = (address: Hva): PageContent => {
      asked.push(address);
      const value = (address - at) / PAGE_SIZE;
      return value === 3 ? {} : { data: page(value + 1), packedTags: tags(value + 1) };
    };
    space.userfault.register(at, 4 * PAGE_SIZE, { onMissing });
    expect(space.memory.readU8(hva(at + 2 * PAGE_SIZE + 17))).toBe(3);
    expect(space.memory.loadTag(hva(at + 2 * PAGE_SIZE))).toBe(3);
    expect(space.memory.writeU8(next(at, 3), 9)).toBe(0);
    expect(space.memory.readU8(hva(at + 3 * PAGE_SIZE + 1))).toBe(0);
    expect(asked).toEqual([next(at, 2), next(at, 3)]);
    expect(space.userfault.statistics.faultCount).toBe(2);
  });

  it('2 MiB at a time: a block, or around a page that is there already', () => {
    for (const policy of [linux, smallPages]) {
      const space = newProcess({ policy });
      const at = map(space, { length: 2 * BLOCK_SIZE });
      let asked = 0;
      const onMissing = (): PageContent => {
        asked++;
        return { sizeBytes: BLOCK_SIZE, data: new Uint8Array(BLOCK_SIZE).fill(6) };
      };
      space.userfault.register(at, 2 * BLOCK_SIZE, { onMissing });
      space.userfault.copy({ address: hva(at + BLOCK_SIZE), data: page(2) });
      expect(space.memory.readU8(hva(at + 5 * PAGE_SIZE))).toBe(6);
      expect(space.memory.readU8(hva(at + BLOCK_SIZE + 5 * PAGE_SIZE))).toBe(6);
      expect(space.memory.readU8(hva(at + 2 * BLOCK_SIZE - 1))).toBe(6);
      expect(space.memory.readU8(hva(at + BLOCK_SIZE))).toBe(2);
      expect(asked).toBe(2);
      expect(space.userfault.statistics.blockBytes).toBe(policy === linux ? BLOCK_SIZE : 0);
    }
  });

  it('refuses: the access is refused, and the page may come later', () => {
    const space = newProcess();
    const at = map(space);
    let broken = true;
    const onMissing = () => (broken ? refuse(Errno.EIO) : { data: page(1) });
    space.userfault.register(at, 4 * PAGE_SIZE, { onMissing });
    expect(space.memory.readU8(at)).toBe(-Errno.EIO);
    expect(space.awaited.size).toBe(0);
    broken = false;
    expect(space.memory.readU8(at)).toBe(1);
  });

  it('says pending: an event, as without a handler', () => {
    const space = newProcess();
    const at = map(space, { flags: SHARED });
    space.userfault.register(at, 4 * PAGE_SIZE, { onMissing: () => 'pending' });
    expect(space.memory.readU8(at)).toBe(-Errno.EAGAIN);
    expect(space.userfault.nextEvent()).toEqual({ address: at, write: false });
  });
});
