/** Chunks: pages and tags come back as they were, and every shape of page takes what it should. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PAGE_SIZE } from '../../base/index.ts';
import {
  CHUNK_BYTES,
  CHUNK_PAGES,
  ChunkEncoder,
  parseChunk,
  RAW_BYTES_MAX,
  TAGS_PER_PAGE,
} from './chunk.ts';
import { PACKED_TAG_BYTES } from './page-source.ts';

const encoder = new ChunkEncoder();
const data = new Uint8Array(CHUNK_BYTES);
const encode = (): Uint8Array | undefined => encoder.encode((target) => target.set(data));

function clear(): void {
  data.fill(0);
  encoder.tags.fill(0);
}

interface Page {
  readonly data: 'zero' | 'first' | 'last' | 'full';
  readonly tags: 'zero' | 'one' | 'two' | 'many';
}

const page: fc.Arbitrary<Page> = fc.record({
  data: fc.constantFrom('zero', 'first', 'last', 'full'),
  tags: fc.constantFrom('zero', 'one', 'two', 'many'),
});

function put(index: number, { data: content, tags }: Page): void {
  const at = index * PAGE_SIZE;
  if (content === 'first') data[at] = 1;
  if (content === 'last') data[at + PAGE_SIZE - 1] = 0x80;
  if (content === 'full') data.fill((index % 255) + 1, at, at + PAGE_SIZE);
  const first = index * TAGS_PER_PAGE;
  const end = first + TAGS_PER_PAGE;
  if (tags !== 'zero') encoder.tags.fill((index % 15) + 1, first, end);
  if (tags === 'two') encoder.tags[end - 1] = 0;
  if (tags === 'many') for (let i = first; i < end; i++) encoder.tags[i] = (i * 7) & 15;
}

describe('chunk', () => {
  it('encode: zero data and zero tags, nothing', () => {
    clear();
    expect(encode()).toBeUndefined();
  });

  it.each<[Page, number]>([
    [{ data: 'last', tags: 'zero' }, PAGE_SIZE],
    [{ data: 'zero', tags: 'one' }, 0],
    [{ data: 'zero', tags: 'two' }, PACKED_TAG_BYTES],
    [{ data: 'full', tags: 'many' }, PAGE_SIZE + PACKED_TAG_BYTES],
  ])('encode: one page %o, %d bytes beside the table of pages', (shape, sizeBytes) => {
    clear();
    put(511, shape);
    expect(encode()?.length).toBe(CHUNK_PAGES + sizeBytes);
  });

  it('encode: all pages full, the most there is', () => {
    clear();
    for (let i = 0; i < CHUNK_PAGES; i++) put(i, { data: 'full', tags: 'many' });
    expect(encode()?.length).toBe(RAW_BYTES_MAX);
  });

  it('encode, parseChunk: pages of all shapes, the same data and tags', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(CHUNK_PAGES - 1), page), { maxLength: 40 }), (pages) => {
        clear();
        for (const [index, shape] of pages) put(index, shape);
        const raw = encode();
        const chunk = raw === undefined ? undefined : parseChunk(raw.slice());
        const tags = new Uint8Array(TAGS_PER_PAGE);
        const packed = new Uint8Array(PACKED_TAG_BYTES);
        for (let i = 0; i < CHUNK_PAGES; i++) {
          const content = data.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE);
          const isZero = content.every((byte) => byte === 0);
          const found = chunk?.data(i);
          if (isZero) expect(found).toBeUndefined();
          else expect(Buffer.compare(found!, content)).toBe(0);
          const expected = encoder.tags.subarray(i * TAGS_PER_PAGE, (i + 1) * TAGS_PER_PAGE);
          chunk?.tagsInto(i, tags, 0);
          if (chunk !== undefined) expect(Buffer.compare(tags, expected)).toBe(0);
          chunk?.packedTagsInto(i, packed, 0);
          if (chunk !== undefined) expect(packed[5]).toBe(expected[10]! | (expected[11]! << 4));
          expect(chunk?.isTagged(i) ?? false).toBe(expected.some((tag) => tag !== 0));
        }
      }),
      { numRuns: 30 },
    );
  });

  it('forEachDataRun, forEachTagRun: neighbours together, gaps between', () => {
    clear();
    for (const i of [0, 1, 2, 9, 510, 511]) put(i, { data: 'full', tags: 'zero' });
    for (const i of [1, 2, 300]) put(i, { data: 'zero', tags: 'one' });
    const chunk = parseChunk(encode()!)!;
    const runs: [number, number][] = [];
    chunk.forEachDataRun((first, data) => runs.push([first, data.length / PAGE_SIZE]));
    expect(runs).toEqual([
      [0, 3],
      [9, 1],
      [510, 2],
    ]);
    const tagRuns: [number, number][] = [];
    chunk.forEachTagRun((first, count) => tagRuns.push([first, count]));
    expect(tagRuns).toEqual([
      [1, 2],
      [300, 1],
    ]);
    expect(chunk.counts).toEqual({
      zeroPages: 506,
      dataPages: 6,
      untaggedPages: 509,
      oneTagPages: 3,
      taggedPages: 0,
    });
  });

  it.each([
    ['too short', new Uint8Array(CHUNK_PAGES - 1)],
    ['longer than its pages', new Uint8Array(CHUNK_PAGES + 4)],
    ['an unknown kind of data', new Uint8Array(CHUNK_PAGES).fill(2, 0, 1)],
    ['an unknown kind of tags', new Uint8Array(CHUNK_PAGES).fill(0x0c, 0, 1)],
    ['one tag of 0', new Uint8Array(CHUNK_PAGES).fill(0x04, 0, 1)],
    ['a tag where none is', new Uint8Array(CHUNK_PAGES).fill(0x10, 0, 1)],
  ])('parseChunk: %s, none', (_, raw) => {
    expect(parseChunk(raw)).toBeUndefined();
  });
});
