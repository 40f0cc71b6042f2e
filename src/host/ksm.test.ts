/** Same-page merging: equal pages share a frame until a store; tagged pages are refused. */
import { describe, expect, it } from 'vitest';
import {
  granted,
  map,
  newHost,
  pagesOn,
  RW_MTE,
  SHARED,
  tagRow,
  tagUp,
} from '../../test/support/host-process.ts';
import { BLOCK_SIZE, type Hva, PAGE_SIZE } from '../base/index.ts';
import { type AddressSpace, type Host, Madvise, mergePass, Prot } from './index.ts';

const MTE = { prot: RW_MTE };

function offer(space: AddressSpace, at: Hva, pages = 4): void {
  expect(space.madvise(at, pages * PAGE_SIZE, Madvise.mergeable)).toBe(0);
}

function fill(space: AddressSpace, at: Hva, values: readonly number[]): void {
  values.forEach((value, i) => {
    granted(space.memory.fill(pagesOn(at, i), value, PAGE_SIZE));
  });
}

const frameOf = (space: AddressSpace, at: Hva): number =>
  granted(space.faultIn(at, { write: false })).pa;

const smallHost = (): Host => newHost({ policy: { transparentHugePages: 'never' } });

describe('mergePass', () => {
  it('equal pages of one process and of two become one frame; a store takes one out', () => {
    const host = smallHost();
    const [a, b] = [host.createProcess(), host.createProcess()] as const;
    const [atA, atB] = [map(a), map(b)] as const;
    fill(a, atA, [1, 2, 1, 3]);
    fill(b, atB, [3, 1, 4, 1]);
    offer(a, atA);
    offer(b, atB);
    const free = host.frames.freeCount;
    expect(mergePass(host)).toEqual({ pagesScanned: 8, pagesMerged: 4, pagesTagged: 0 });
    expect(host.frames.freeCount).toBe(free + 4);
    expect(frameOf(a, atA)).toBe(frameOf(b, pagesOn(atB, 3)));
    granted(b.memory.writeU8(pagesOn(atB, 3), 9));
    expect([a.memory.readU8(atA), b.memory.readU8(pagesOn(atB, 3))]).toEqual([1, 9]);
    expect(mergePass(host).pagesMerged).toBe(0);
    for (const space of [a, b]) space.destroy();
    host.frames.check();
  });

  it('pages with valid tags are left alone, even with tags of 0', () => {
    const host = smallHost();
    const space = host.createProcess();
    const [plain, tagged] = [map(space), map(space, MTE)] as const;
    fill(space, plain, [1, 1]);
    fill(space, tagged, [1, 1]);
    tagUp(space, tagged, 4);
    offer(space, plain);
    offer(space, tagged);
    expect(mergePass(host)).toEqual({ pagesScanned: 4, pagesMerged: 1, pagesTagged: 2 });
    expect(tagRow(space, tagged)).toBe('456789ab');
    expect(tagRow(space, pagesOn(tagged))).toBe('00000000');
  });

  it('only what was offered, and nothing that is shared or a page of a file', () => {
    const host = smallHost();
    const space = host.createProcess();
    const file = host.createMemfd(2 * PAGE_SIZE);
    const places = [map(space), map(space, { flags: SHARED }), map(space, { flags: 2, file })];
    file.write(0, new Uint8Array(2 * PAGE_SIZE).fill(1));
    for (const at of places.slice(0, 2)) fill(space, at, [1, 1]);
    space.memory.read(places[2]!, 2 * PAGE_SIZE);
    for (const at of places.slice(1)) offer(space, at);
    expect(mergePass(host)).toEqual({ pagesScanned: 0, pagesMerged: 0, pagesTagged: 0 });
  });

  it('a 2 MiB page is split where a part of it is merged', () => {
    const host = newHost();
    const space = host.createProcess();
    const at = map(space, { length: BLOCK_SIZE });
    fill(space, at, [5, 6, 5]);
    offer(space, at, 512);
    // All 509 untouched pages are equal as well.
    expect(mergePass(host).pagesMerged).toBe(1 + 508);
    expect(space.memory.readU8(pagesOn(at, 2))).toBe(5);
    expect(space.memory.readU8(pagesOn(at, 400))).toBe(0);
    space.table.check();
    space.destroy();
    host.frames.check();
  });

  it('MADV_UNMERGEABLE: frames of their own again', () => {
    const host = smallHost();
    const space = host.createProcess();
    const at = map(space);
    fill(space, at, [1, 1, 1, 1]);
    offer(space, at);
    expect(mergePass(host).pagesMerged).toBe(3);
    expect(space.madvise(at, 4 * PAGE_SIZE, Madvise.unmergeable)).toBe(0);
    const frames = [0, 1, 2, 3].map((page) => frameOf(space, pagesOn(at, page)));
    expect(new Set(frames).size).toBe(4);
    expect(mergePass(host).pagesScanned).toBe(0);
  });

  it('merged pages that become PROT_MTE have tags of 0, and a tag store takes one out', () => {
    const host = smallHost();
    const space = host.createProcess();
    const at = map(space);
    fill(space, at, [1, 1]);
    offer(space, at);
    mergePass(host);
    space.mprotect(at, 2 * PAGE_SIZE, RW_MTE);
    tagUp(space, at, 1);
    expect([tagRow(space, at), tagRow(space, pagesOn(at))]).toEqual(['12345678', '00000000']);
  });

  it('watchers hear of both sides', () => {
    const host = smallHost();
    const space = host.createProcess();
    const at = map(space);
    fill(space, at, [1, 1]);
    offer(space, at);
    const heard: number[] = [];
    space.watch({ invalidateRange: (start) => heard.push((start - at) / PAGE_SIZE) });
    mergePass(host);
    expect(heard).toEqual([0, 1]);
  });

  it('advice on memory that cannot be merged is accepted and means nothing', () => {
    const space = smallHost().createProcess();
    const at = map(space, { flags: SHARED, prot: Prot.read });
    offer(space, at);
  });
});
