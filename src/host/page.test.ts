/** Page frames: reference counts, zeroing, and the state of their tags. */
import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE, MIB, PAGE_SIZE, type Pa, pa } from '../base/index.ts';
import { dramOnly, PhysicalMemory } from '../machine/memory.ts';
import { BLOCK_ORDER, PACKED_TAG_BYTES, PageFrames, TAG_GRANULES } from './page.ts';

function frames(sizeBytes = 4 * MIB): PageFrames {
  return new PageFrames(new PhysicalMemory({ zones: dramOnly(sizeBytes), recordPageCount: 16 }));
}

function taken(page: Pa | -1): Pa {
  if (page === -1) throw new Error('no page left');
  return page;
}

describe('PageFrames', () => {
  it('allocateZeroed: a page that was written and freed is zero again', () => {
    const f = frames();
    const first = taken(f.allocate());
    f.memory.fill(first, 0xa5, PAGE_SIZE);
    f.put(first);
    const again = taken(f.allocateZeroed());
    expect(again).toBe(first);
    expect(f.memory.readBytes(again, PAGE_SIZE).every((byte) => byte === 0)).toBe(true);
  });

  it('put: a block in which one frame is still held is freed but for that frame', () => {
    const f = frames();
    const block = taken(f.allocate(BLOCK_ORDER));
    const kept = pa(block + 5 * PAGE_SIZE);
    f.get(kept);
    f.put(block, BLOCK_SIZE);
    expect(f.freeCount).toBe(1023);
    f.check();
    f.put(kept);
    expect(f.freeCount).toBe(1024);
    expect(f.allocate(BLOCK_ORDER)).not.toBe(-1);
    f.check();
  });

  it('put: without a reference, or get on a free frame, is our bug', () => {
    const f = frames();
    const page = taken(f.allocate());
    f.put(page);
    expect(() => f.put(page)).toThrow('dropped by somebody');
    expect(() => f.get(page)).toThrow('somebody holds');
  });

  it('initialiseTags: tags left by the last owner are cleared once, later ones are kept', () => {
    const f = frames();
    const page = taken(f.allocate());
    f.initialiseTags(page);
    f.memory.writeTag(page, 9);
    f.initialiseTags(page);
    expect(f.memory.readTag(page)).toBe(9);
    f.put(page);
    expect(f.allocate()).toBe(page);
    expect(f.isMteTagged(page)).toBe(false);
    expect(f.readTags(page).every((tag) => tag === 0)).toBe(true);
    f.initialiseTags(page);
    expect(f.memory.readTag(page)).toBe(0);
  });

  it('initialiseTags: tags written without being called valid do not survive it', () => {
    const f = frames();
    const page = taken(f.allocate());
    f.writeTags(page, new Uint8Array(8).fill(0x77));
    expect(f.memory.readTag(page)).toBe(7);
    f.initialiseTags(page);
    expect(f.memory.readTag(page)).toBe(0);
  });

  it('packTags, unpackTags: low nibbles of 256 bytes, there and back; 0 while not initialised', () => {
    const f = frames();
    const [page, buffer] = [taken(f.allocate()), taken(f.allocate())];
    const at = f.memory.linear(buffer) + 6;
    const bytes = Uint8Array.from({ length: TAG_GRANULES }, (_, i) => (i * 7) & 0xff);
    f.memory.u8.set(bytes, at);
    f.packTags(page, at);
    expect(f.readTags(page)).toEqual(bytes.map((byte) => byte & 15));
    expect(f.packedTags(page)?.[0]).toBe((7 << 4) | 0);
    f.memory.u8.fill(0xff, at, at + TAG_GRANULES);
    f.unpackTags(page, at);
    expect(f.memory.u8.slice(at, at + TAG_GRANULES)).toEqual(bytes.map((byte) => byte & 15));
    f.put(page);
    const again = taken(f.allocate());
    expect(again).toBe(page);
    f.unpackTags(again, at);
    expect(f.memory.u8.slice(at - 1, at + TAG_GRANULES)).toEqual(new Uint8Array(TAG_GRANULES + 1));
  });

  it('writeContent: data and tags of several frames, tags only where given', () => {
    const f = frames();
    const block = taken(f.allocate(1));
    f.writeContent(block, { data: new Uint8Array(2 * PAGE_SIZE).fill(3) });
    expect([f.isMteTagged(block), f.memory.readBytes(block, 1)[0]]).toEqual([false, 3]);
    f.writeContent(block, { packedTags: new Uint8Array(2 * PACKED_TAG_BYTES).fill(0x21) });
    expect([...f.readTags(pa(block + PAGE_SIZE)).subarray(0, 3)]).toEqual([1, 2, 1]);
  });

  it('reserveCount: single frames ask for more below it, blocks are refused, tables take the last', () => {
    const f = frames(2 * MIB);
    f.reserveCount = 100;
    let asked = 0;
    f.onShortage = () => asked++;
    expect(f.allocate(BLOCK_ORDER)).toBe(-1);
    expect(asked).toBe(0);
    for (let i = 0; i < 412; i++) taken(f.allocate());
    expect(asked).toBe(0);
    taken(f.allocate());
    expect(asked).toBe(1);
    for (let i = 0; i < 99; i++) expect(f.tableAllocator.allocTable()).toBeDefined();
    expect(f.tableAllocator.allocTable()).toBeUndefined();
    expect(asked).toBe(1);
  });

  it('copy: data always, tags only where they are valid', () => {
    const f = frames();
    const source = taken(f.allocate());
    const target = taken(f.allocate());
    f.memory.fill(source, 0x11, PAGE_SIZE);
    f.memory.writeTag(source, 3);
    f.copy(target, source);
    expect(f.memory.readBytes(target, 1)[0]).toBe(0x11);
    expect(f.isMteTagged(target)).toBe(false);
    f.writeTags(
      source,
      new Uint8Array(TAG_GRANULES).map((_, i) => i),
    );
    f.setMteTagged(source);
    f.copy(target, source);
    expect(f.readTags(target)).toEqual(f.readTags(source));
    expect(f.readTags(target)[17]).toBe(1);
  });

  it('allocate: memory without tags is never given out', () => {
    const memory = new PhysicalMemory({
      zones: [
        { kind: 'no-tags', base: pa(0x4000_0000), sizeBytes: 2 * MIB, noTags: 'external-abort' },
        { kind: 'dram', base: pa(0x8000_0000), sizeBytes: 2 * MIB },
      ],
      recordPageCount: 16,
    });
    const f = new PageFrames(memory);
    expect(f.freeCount).toBe(512);
    expect(f.allocate(BLOCK_ORDER)).toBe(0x8000_0000);
    expect(f.allocate()).toBe(-1);
    expect(f.isOnline(pa(0x4000_0000))).toBe(false);
  });
});
