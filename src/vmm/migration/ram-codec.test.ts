/** Guest memory on the wire: what is built is parsed; what is not as the format says is refused. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hva, ipa, PAGE_SIZE } from '../../base/index.ts';
import { FRAME_HEADER_BYTES } from './frame.ts';
import { type RamRange, TAG_BYTES } from './guest-ram.ts';
import { MigrationError } from './migration-error.ts';
import { type PageImage, parseRam, RamFrameBuilder, TAGS_DIFFER } from './ram-codec.ts';

const range: RamRange = {
  slot: 0,
  base: ipa(0x4000_0000),
  sizeBytes: 64 * PAGE_SIZE,
  hva: hva(0x1_0000_0000),
  shared: false,
};
const ranges = [range, { ...range, slot: 1, base: ipa(0x8000_0000) }];
const NO_TAGS = new Uint8Array(TAG_BYTES);

const build = (pages: readonly PageImage[]): Uint8Array => {
  const builder = new RamFrameBuilder(64);
  for (const page of pages) builder.add(page);
  return builder.finish().slice(FRAME_HEADER_BYTES);
};

const zeros = (page: number, tag = 0, index = 0): PageImage => ({
  range: index,
  page,
  data: undefined,
  tag,
  packedTags: NO_TAGS,
});

const pageImage = fc.record({
  range: fc.nat({ max: 1 }),
  page: fc.nat({ max: 63 }),
  data: fc.option(
    fc.nat({ max: 255 }).map((byte) => new Uint8Array(PAGE_SIZE).fill(byte)),
    {
      nil: undefined,
    },
  ),
  tag: fc.integer({ min: TAGS_DIFFER, max: 15 }),
  packedTags: fc.uint8Array({ minLength: TAG_BYTES, maxLength: TAG_BYTES }),
});

describe('ram messages', () => {
  it('ram: any pages in any order, the same pages', () => {
    fc.assert(
      fc.property(fc.array(pageImage, { maxLength: 20 }), (pages) => {
        const found: unknown[] = [];
        for (const run of parseRam(build(pages), ranges)) {
          for (let i = 0; i < run.pageCount; i++) {
            const at = i * run.pageBytes;
            const data = run.hasData ? run.contents.subarray(at, at + PAGE_SIZE) : undefined;
            const end = at + run.pageBytes;
            const differ = run.tag === TAGS_DIFFER;
            found.push({
              range: run.range,
              page: run.firstPage + i,
              first: data?.[0],
              tag: run.tag,
              tags: differ ? [...run.contents.subarray(end - TAG_BYTES, end)] : undefined,
            });
          }
        }
        expect(found).toEqual(
          pages.map(({ range: index, page, data, tag, packedTags }) => ({
            range: index,
            page,
            first: data?.[0],
            tag,
            tags: tag === TAGS_DIFFER ? [...packedTags] : undefined,
          })),
        );
      }),
    );
  });

  it('ram: neighbours of one shape, one run of twelve bytes', () => {
    const payload = build(Array.from({ length: 64 }, (_, page) => zeros(page, 5)));
    expect(payload).toHaveLength(4 + 12);
    expect(parseRam(payload, ranges)).toMatchObject([{ firstPage: 0, pageCount: 64, tag: 5 }]);
  });

  it('ram: another tag, range or a gap, another run', () => {
    const payload = build([zeros(0), zeros(1, 3), zeros(2, 3, 1), zeros(4, 3, 1)]);
    expect(parseRam(payload, ranges)).toHaveLength(4);
  });

  it('ram: any cut, refused', () => {
    const data = new Uint8Array(PAGE_SIZE).fill(1);
    const payload = build([{ ...zeros(3), data, tag: TAGS_DIFFER }, zeros(9)]);
    for (let length = 0; length < payload.length; length += 7) {
      expect(() => parseRam(payload.subarray(0, length), ranges)).toThrow(MigrationError);
    }
  });

  it.each<[string, number, number, string]>([
    ['a range that is not there', 4 + 8, 2, 'range 2 of 2'],
    ['a page behind the end', 4 + 0, 64, 'pages 64 + 1 in a range of 64'],
    ['no pages', 4 + 4, 0, 'pages 0 + 0'],
    ['an unknown shape of data', 4 + 9, 2, 'a run of shape 2, 0, 0'],
    ['an unknown shape of tags', 4 + 10, 2, 'a run of shape 0, 2, 0'],
    ['a tag of five bits', 4 + 11, 16, 'a run of shape 0, 0, 16'],
    ['a run that is missing', 0, 2, 'run 1 of 2 is cut'],
    ['a run too many', 0, 0, '12 bytes behind the last run'],
    ['data that is not there', 4 + 9, 1, '4096 bytes of pages where 0 are left'],
  ])('ram: %s, refused', (_, at, value, sentence) => {
    const payload = build([zeros(0)]);
    payload[at] = value;
    expect(() => parseRam(payload, ranges)).toThrow(sentence);
  });
});
