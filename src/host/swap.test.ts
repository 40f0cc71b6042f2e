/** Page-out and page-in: tags beside the swap entry, reclaim, slow and failing devices. */
import fc from 'fast-check';
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
import { BLOCK_SIZE, type Hva, hva, MIB, PAGE_SIZE, Prng } from '../base/index.ts';
import {
  type AddressSpace,
  Errno,
  FileSwapDevice,
  type Host,
  Madvise,
  MapFlag,
  MemorySwapDevice,
  SimulatedSwapDevice,
  type SwapTags,
} from './index.ts';

const MTE = { prot: RW_MTE };
const away = (space: AddressSpace, at: Hva, pages = 1): number =>
  space.madvise(at, pages * PAGE_SIZE, Madvise.pageOut);

function withSwap(options: Parameters<typeof newHost>[0] = {}, slotCount = 1024): Host {
  const host = newHost(options);
  granted(host.swapOn(new MemorySwapDevice(slotCount)));
  return host;
}

describe('MADV_PAGEOUT', () => {
  it('the page is in swap, and comes back with data and tags', () => {
    const space = withSwap().createProcess();
    const at = map(space, MTE);
    space.memory.writeU32(at, 0x1234);
    tagUp(space, at, 2);
    expect(away(space, at)).toBe(0);
    expect(space.pageState(at)).toBe('swapped');
    expect(tagRow(space, at)).toBe('23456789');
    expect(space.pageState(at)).toBe('present');
    expect(space.memory.readU32(at)).toBe(0x1234);
    expect(space.host.swap!.statistics).toMatchObject({ tagsSaved: 1, tagsRestored: 1 });
    space.host.swap!.check();
  });

  it('without swap: 0, and nothing happens', () => {
    const space = newHost().createProcess();
    const at = map(space);
    space.memory.writeU8(at, 1);
    expect(away(space, at)).toBe(0);
    expect(space.pageState(at)).toBe('present');
  });

  it('a page that was never tagged has no tags beside its slot', () => {
    const space = withSwap().createProcess();
    const at = map(space);
    space.memory.writeU8(at, 1);
    away(space, at);
    expect(space.host.swap!.tagCount).toBe(0);
    expect(space.memory.readU8(at)).toBe(1);
  });

  it('a 2 MiB page is split; what was not asked for stays', () => {
    const space = withSwap().createProcess();
    const at = map(space, { ...MTE, length: BLOCK_SIZE });
    tagUp(space, pagesOn(at, 7), 1);
    away(space, pagesOn(at, 7), 2);
    expect([6, 7, 8, 9].map((page) => space.pageState(pagesOn(at, page)))).toEqual([
      'present',
      'swapped',
      'swapped',
      'present',
    ]);
    expect(tagRow(space, pagesOn(at, 7))).toBe('12345678');
  });

  it('a fault beside pages in swap: no 2 MiB page over them', () => {
    const space = withSwap().createProcess();
    const at = map(space, { length: BLOCK_SIZE });
    space.memory.writeU8(pagesOn(at, 3), 3);
    space.madvise(at, 3 * PAGE_SIZE, Madvise.dontNeed);
    away(space, pagesOn(at, 3), 509);
    expect(space.memory.readU8(at)).toBe(0);
    expect(space.memory.readU8(pagesOn(at, 3))).toBe(3);
  });

  it('pages that another process has too stay', () => {
    const space = withSwap().createProcess();
    const at = map(space);
    const file = space.host.createMemfd(PAGE_SIZE);
    const shared = map(space, { flags: MapFlag.shared, file, length: PAGE_SIZE });
    space.memory.writeU8(at, 1);
    space.memory.writeU8(shared, 2);
    const child = granted(space.fork());
    child.memory.readU8(shared);
    away(space, at);
    away(space, shared);
    expect(space.pageState(at)).toBe('present');
    expect(space.pageState(shared)).toBe('present');
  });

  it('hugetlb, device memory, a hole', () => {
    const space = withSwap().createProcess();
    const huge = map(space, { flags: PRIVATE | MapFlag.hugetlb, length: BLOCK_SIZE });
    space.memory.writeU8(huge, 1);
    expect(space.madvise(huge, BLOCK_SIZE, Madvise.pageOut)).toBe(-Errno.EINVAL);
    expect(space.pageState(huge)).toBe('present');
    const file = { kind: 'device', base: 0, sizeBytes: PAGE_SIZE, memoryType: 'Normal-NC' };
    const device = map(space, { flags: MapFlag.shared, file: file as never, length: PAGE_SIZE });
    expect(away(space, device)).toBe(-Errno.EINVAL);
    expect(away(space, hva(0x10_0000))).toBe(-Errno.ENOMEM);
  });
});

describe('what is in swap', () => {
  it('shared memory: gone for every mapping, back for every mapping, with tags', () => {
    const host = withSwap();
    const space = host.createProcess();
    const file = host.createMemfd(4 * PAGE_SIZE);
    const request = { ...MTE, flags: MapFlag.shared, file };
    const at = map(space, request);
    const other = map(host.createProcess(), request);
    tagUp(space, at, 5);
    file.write(0, new Uint8Array([7]));
    expect(host.reclaim(1)).toBe(1);
    expect(space.pageState(at)).toBe('swapped');
    expect(file.exists(0)).toBe(true);
    const second = [...host.processes][1]!;
    expect(tagRow(second, other)).toBe('56789abc');
    expect(space.memory.readU8(at)).toBe(7);
  });

  it('read and write of a file bring its pages in; a cut clears the end of the last one', () => {
    const host = withSwap();
    const space = host.createProcess();
    const file = host.createMemfd(2 * PAGE_SIZE);
    const at = map(space, { ...MTE, flags: MapFlag.shared, file, length: 2 * PAGE_SIZE });
    file.write(0, new Uint8Array(2 * PAGE_SIZE).fill(9));
    tagUp(space, at, 1);
    const out = (): void => {
      space.memory.readU8(at);
      space.memory.readU8(pagesOn(at));
      away(space, at, 2);
      expect(host.swap!.freeSlotCount).toBe(1022);
    };
    out();
    expect(file.read(PAGE_SIZE - 1, 2)).toEqual(new Uint8Array([9, 9]));
    out();
    expect(file.write(1, new Uint8Array([3]))).toBe(1);
    expect(tagRow(space, at, 3)).toBe('123');
    out();
    file.truncate(100);
    expect(host.swap!.freeSlotCount).toBe(1024);
    file.truncate(2 * PAGE_SIZE);
    expect(file.read(98, 4)).toEqual(new Uint8Array([9, 9, 0, 0]));
  });

  it.each<[string, (space: AddressSpace, at: Hva) => unknown]>([
    ['munmap', (space, at) => space.munmap(at, 4 * PAGE_SIZE)],
    ['MADV_DONTNEED', (space, at) => space.madvise(at, 4 * PAGE_SIZE, Madvise.dontNeed)],
    ['exit', (space) => space.destroy()],
  ])('%s: slots and saved tags are freed', (_, end) => {
    const host = withSwap();
    const space = host.createProcess();
    const at = map(space, MTE);
    tagUp(space, at, 1);
    away(space, at);
    expect(host.swap!.tagCount).toBe(1);
    end(space, at);
    expect([host.swap!.tagCount, host.swap!.freeSlotCount]).toEqual([0, 1024]);
    host.swap!.check();
  });

  it('a punched hole frees the slots of a file', () => {
    const host = withSwap();
    const space = host.createProcess();
    const at = map(space, { ...MTE, flags: SHARED });
    tagUp(space, at, 1);
    away(space, at);
    expect(space.pageState(at)).toBe('swapped');
    space.madvise(at, PAGE_SIZE, Madvise.remove);
    expect(host.swap!.freeSlotCount).toBe(1024);
    expect(tagRow(space, at)).toBe('00000000');
  });

  it('fork: parent and child each get the page and its tags', () => {
    const host = withSwap();
    const space = host.createProcess();
    const at = map(space, MTE);
    tagUp(space, at, 3);
    away(space, at);
    const child = granted(space.fork());
    expect(tagRow(space, at)).toBe('3456789a');
    expect(host.swap!.tagCount).toBe(1);
    space.memory.storeTag(at, 0);
    expect(tagRow(child, at)).toBe('3456789a');
    expect(host.swap!.freeSlotCount).toBe(1024);
  });

  it('mprotect adding PROT_MTE to a page in swap: its tags are seen', () => {
    const host = withSwap();
    const space = host.createProcess();
    const file = host.createMemfd(PAGE_SIZE);
    const at = map(space, { flags: MapFlag.shared, file, length: PAGE_SIZE });
    const tagged = map(space, { ...MTE, flags: MapFlag.shared, file, length: PAGE_SIZE });
    tagUp(space, tagged, 1);
    host.reclaim(1);
    space.mprotect(at, PAGE_SIZE, RW_MTE);
    expect(tagRow(space, at)).toBe('12345678');
  });
});

describe('swapTags', () => {
  /** Tags that a process sees after page-out, first touch without PROT_MTE or with it. */
  function survivors(swapTags: SwapTags): { plain: string; tagged: string; looks: number } {
    const host = withSwap({ policy: { swapTags, transparentHugePages: 'never' } });
    const space = host.createProcess();
    const at = map(space);
    const tagged = map(space, MTE);
    // A guest of this process tagged its page; the process has no PROT_MTE there.
    granted(space.memory.writeU8(at, 1));
    const page = granted(space.faultIn(at, { write: true })).pa;
    host.frames.writeTags(page, new Uint8Array(256).fill(5));
    host.frames.setMteTagged(page);
    tagUp(space, tagged, 1);
    away(space, at);
    away(space, tagged);
    host.statistics.tagLookCount = 0;
    space.memory.readU8(at);
    space.memory.readU8(tagged);
    space.mprotect(at, PAGE_SIZE, RW_MTE);
    const { tagLookCount } = host.statistics;
    return { plain: tagRow(space, at, 4), tagged: tagRow(space, tagged, 4), looks: tagLookCount };
  }

  it.each<[SwapTags, ReturnType<typeof survivors>]>([
    ['restore-at-swap-in', { plain: '5555', tagged: '1234', looks: 0 }],
    ['restore-when-mapped', { plain: '5555', tagged: '1234', looks: 3 }],
    ['restore-through-prot-mte-only', { plain: '0000', tagged: '1234', looks: 2 }],
    ['drop', { plain: '0000', tagged: '0000', looks: 0 }],
  ])('%s', (swapTags, expected) => {
    expect(survivors(swapTags)).toEqual(expected);
  });
});

describe('memory is short', () => {
  it('a process larger than memory runs, and loses neither data nor tags', () => {
    const host = withSwap({ sizeBytes: 4 * MIB }, 4096);
    const space = host.createProcess();
    const pages = 2000;
    const at = map(space, { ...MTE, length: pages * PAGE_SIZE });
    for (let i = 0; i < pages; i++) {
      granted(space.memory.writeU32(pagesOn(at, i), i));
      granted(space.memory.storeTag(pagesOn(at, i), i % 16));
    }
    expect(host.swap!.statistics.pagesOut).toBeGreaterThan(900);
    for (let i = 0; i < pages; i++) {
      expect(space.memory.readU32(pagesOn(at, i))).toBe(i);
      expect(space.memory.loadTag(pagesOn(at, i))).toBe(i % 16);
    }
    space.table.check();
    space.destroy();
    host.frames.check();
    host.swap!.check();
  });

  it('reclaim: goes round, and stops when a round brought nothing', () => {
    const host = withSwap();
    const spaces = [host.createProcess(), host.createProcess()];
    const places = spaces.map((space) => map(space));
    for (const [i, space] of spaces.entries()) {
      for (let page = 0; page < 4; page++) space.memory.writeU8(pagesOn(places[i]!, page), 1);
    }
    const states = () =>
      spaces.map((space, i) =>
        [0, 1, 2, 3].map((page) => space.pageState(pagesOn(places[i]!, page))[0]).join(''),
      );
    expect(host.reclaim(3)).toBe(3);
    expect(states()).toEqual(['sssp', 'pppp']);
    spaces[0]!.memory.readU8(places[0]!);
    expect(host.reclaim(3)).toBe(3);
    expect(states()).toEqual(['psss', 'sspp']);
    expect(host.reclaim(100)).toBe(3);
    expect(host.reclaim(100)).toBe(0);
  });

  it('the device is full: ENOMEM in the end, nothing lost', () => {
    const host = withSwap({ sizeBytes: 2 * MIB }, 16);
    const space = host.createProcess();
    const at = map(space, { length: 4 * MIB });
    let written = 0;
    while (space.memory.writeU32(pagesOn(at, written), written) === 0) written++;
    expect(space.memory.writeU32(pagesOn(at, written), 0)).toBe(-Errno.ENOMEM);
    expect(host.swap!.freeSlotCount).toBe(0);
    for (const page of [5, 100, written - 1]) {
      const found = space.memory.readU32(pagesOn(at, page));
      expect([page, -Errno.ENOMEM]).toContain(found);
    }
  });

  it('swapOn twice: EBUSY', () => {
    expect(withSwap().swapOn(new MemorySwapDevice(1))).toBe(-Errno.EBUSY);
  });
});

describe('devices', () => {
  it('a write error: the page stays', () => {
    const host = newHost();
    const faults = { prng: new Prng(1), writeFailsOneIn: 1 };
    granted(host.swapOn(new SimulatedSwapDevice(new MemorySwapDevice(8), faults)));
    const space = host.createProcess();
    const at = map(space, MTE);
    tagUp(space, at, 1);
    away(space, at);
    expect(space.pageState(at)).toBe('present');
    expect(tagRow(space, at)).toBe('12345678');
    expect(host.swap!.statistics.writeErrors).toBe(1);
    host.swap!.check();
  });

  it('a read error: EIO, and the page is there for another try', () => {
    const host = newHost();
    const faults = { prng: new Prng(3), readFailsOneIn: 2 };
    granted(host.swapOn(new SimulatedSwapDevice(new MemorySwapDevice(8), faults)));
    const space = host.createProcess();
    const at = map(space);
    const answers = new Set<unknown>();
    for (let i = 0; i < 20; i++) {
      space.memory.writeU8(at, 4);
      away(space, at);
      answers.add(space.memory.readU8(at));
    }
    expect(answers).toEqual(new Set([4, -Errno.EIO]));
  });

  it('a slow read: EAGAIN until the device is done', () => {
    const host = newHost();
    const device = new SimulatedSwapDevice(new MemorySwapDevice(8), {
      prng: new Prng(5),
      readTicksMax: 1000,
    });
    granted(host.swapOn(device));
    const space = host.createProcess();
    const at = map(space, MTE);
    tagUp(space, at, 6);
    away(space, at);
    expect(space.memory.readU8(at)).toBe(-Errno.EAGAIN);
    expect(space.awaited.has(at)).toBe(true);
    expect(device.pendingCount).toBe(1);
    expect(space.memory.readU8(at)).toBe(-Errno.EAGAIN);
    device.advance(1000);
    expect(space.awaited.size).toBe(0);
    expect(tagRow(space, at)).toBe('6789abcd');
  });

  it('unmapped while the device reads: nobody waits, and the slot can be used again', () => {
    const host = newHost();
    const device = new SimulatedSwapDevice(new MemorySwapDevice(1), {
      prng: new Prng(5),
      readTicksMax: 1000,
    });
    granted(host.swapOn(device));
    const space = host.createProcess();
    const at = map(space);
    space.memory.writeU8(at, 1);
    away(space, at);
    expect(space.memory.readU8(at)).toBe(-Errno.EAGAIN);
    space.munmap(at, 4 * PAGE_SIZE);
    expect(space.awaited.size).toBe(0);
    const again = map(space);
    space.memory.writeU8(again, 2);
    away(space, again);
    device.advance(2000);
    device.advance(2000);
    space.memory.readU8(again);
    device.advance(2000);
    expect(space.memory.readU8(again)).toBe(2);
  });

  it('a file: pages at their places; a short transfer is an error', () => {
    const disk = new Uint8Array(4 * PAGE_SIZE);
    let limit = disk.length;
    const device = new FileSwapDevice(
      {
        readAt: (buffer, position) => {
          buffer.set(disk.subarray(position, position + buffer.length));
          return Math.min(buffer.length, limit - position);
        },
        writeAt: (buffer, position) => {
          disk.set(buffer, position);
          return Math.min(buffer.length, limit - position);
        },
      },
      4,
    );
    const page = new Uint8Array(PAGE_SIZE).fill(7);
    expect(device.write(2, page)).toBe(true);
    expect(disk[2 * PAGE_SIZE]).toBe(7);
    const into = new Uint8Array(PAGE_SIZE);
    expect(device.read(2, into)).toBe('done');
    expect(into).toEqual(page);
    limit = 3 * PAGE_SIZE - 1;
    expect(device.read(2, into)).toBe('failed');
    expect(device.write(2, page)).toBe(false);
  });

  it('any mix of slow and failing transfers: what is read is what was written', () => {
    const run = (seed: number): void => {
      const prng = new Prng(seed);
      const host = newHost({ policy: { transparentHugePages: 'never' } });
      const faults = { prng, writeFailsOneIn: 4, readFailsOneIn: 4, readTicksMax: 3 };
      const device = new SimulatedSwapDevice(new MemorySwapDevice(6), faults);
      granted(host.swapOn(device));
      const space = host.createProcess();
      const at = map(space, { ...MTE, length: 8 * PAGE_SIZE });
      const model = Array.from({ length: 8 }, () => 0);
      for (let step = 0; step < 200; step++) {
        const index = prng.below(8);
        const page = pagesOn(at, index);
        const value = prng.below(16);
        if (prng.chance(1, 4)) host.reclaim(prng.below(4));
        else if (prng.chance(1, 3)) device.advance(1);
        else if (prng.chance(1, 2)) {
          if (space.memory.writeU8(page, value) !== 0) continue;
          expect(space.memory.storeTag(page, value)).toBe(0);
          model[index] = value;
        } else {
          const found = space.memory.readU8(page);
          expect([model[index], -Errno.EAGAIN, -Errno.EIO]).toContain(found);
          if (found >= 0) expect(space.memory.loadTag(page)).toBe(model[index]);
        }
      }
      host.swap!.check();
      host.frames.check();
    };
    fc.assert(fc.property(fc.integer(), run), { numRuns: 50 });
  });
});
