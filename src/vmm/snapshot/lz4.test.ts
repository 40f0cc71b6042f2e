/**
 * LZ4 blocks: what goes in comes out, known blocks of the format, and nothing malformed gets far.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { lz4Bound, lz4Compress, lz4Decompress } from './lz4.ts';

function roundTrip(source: Uint8Array): { back: Uint8Array; length: number } {
  const target = new Uint8Array(lz4Bound(source.length));
  const length = lz4Compress(source, target);
  const back = new Uint8Array(source.length);
  expect(lz4Decompress(target.subarray(0, length), back)).toBe(source.length);
  return { back, length };
}

/** Decompresses into room that ends in a wall nobody may write on. */
function decompressWalled(block: Uint8Array, room: number): number {
  const memory = new Uint8Array(room + 64).fill(0xa5);
  const result = lz4Decompress(block, memory.subarray(0, room));
  expect(memory.subarray(room).every((byte) => byte === 0xa5)).toBe(true);
  return result;
}

/** Bytes with repetitions, at aligned places and others. */
const compressible = fc
  .array(
    fc.oneof(
      fc.uint8Array({ maxLength: 40 }),
      fc.tuple(fc.nat(255), fc.nat(3000)).map(([value, n]) => new Uint8Array(n).fill(value)),
      fc
        .tuple(fc.uint8Array({ minLength: 1, maxLength: 20 }), fc.nat(100))
        .map(([piece, times]) =>
          Uint8Array.from({ length: times * piece.length }, (_, i) => piece[i % piece.length]!),
        ),
    ),
    { maxLength: 12 },
  )
  .map((parts) => Uint8Array.from(parts.flatMap((part) => [...part])));

describe('lz4', () => {
  it('lz4Compress, lz4Decompress: any bytes, the same bytes', () => {
    fc.assert(
      fc.property(compressible, (source) => {
        const { back, length } = roundTrip(source);
        expect(back).toEqual(source);
        expect(length).toBeLessThanOrEqual(lz4Bound(source.length));
      }),
      { numRuns: 300 },
    );
  });

  it('lz4Compress: zeros, almost nothing', () => {
    expect(roundTrip(new Uint8Array(1 << 20)).length).toBeLessThan(5000);
  });

  it('lz4Compress: noise, hardly longer', () => {
    const words = new Uint32Array(1 << 16);
    let state = 1;
    for (let i = 0; i < words.length; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      words[i] = state ^ (state >>> 15);
    }
    const source = new Uint8Array(words.buffer);
    const { back, length } = roundTrip(source);
    expect(back).toEqual(source);
    expect(length).toBeLessThanOrEqual(lz4Bound(source.length));
  });

  it('lz4Compress: repeated beyond 64 KiB, never an offset that does not fit', () => {
    const source = new Uint8Array(300_000);
    for (let i = 0; i < source.length; i++) source[i] = (i % 70_000) ^ ((i % 70_000) >> 8);
    expect(roundTrip(source).back).toEqual(source);
  });

  it.each([
    ['no bytes', [0x00], ''],
    ['literals only', [0x50, 0x68, 0x65, 0x6c, 0x6c, 0x6f], 'hello'],
    // "abcd", then 8 bytes from 4 before, then 5 literals: an overlapping match
    [
      'an overlapping match',
      [0x44, 97, 98, 99, 100, 4, 0, 0x50, 1, 2, 3, 4, 5],
      'abcdabcdabcd\x01\x02\x03\x04\x05',
    ],
    // 15 + 2 literals
    ['a longer literal length', [0xf0, 2, ...new Array<number>(17).fill(120)], 'x'.repeat(17)],
    // one literal, a match of 4 + 15 + 255 + 1 bytes from 1 before, 5 literals
    [
      'a longer match length',
      [0x1f, 122, 1, 0, 255, 1, 0x50, 48, 49, 50, 51, 52],
      `${'z'.repeat(276)}01234`,
    ],
  ])('lz4Decompress: %s', (_, block, text) => {
    const target = new Uint8Array(400);
    const length = lz4Decompress(Uint8Array.from(block), target);
    expect(String.fromCharCode(...target.subarray(0, Math.max(0, length)))).toBe(text);
    expect(length).toBe(text.length);
  });

  it.each([
    ['no token', []],
    ['literals that are cut', [0x50, 1, 2]],
    ['a literal length that is cut', [0xf0]],
    ['an offset that is cut', [0x14, 1, 2]],
    ['an offset of 0', [0x14, 1, 0, 0, 0x10, 9]],
    ['an offset before the beginning', [0x14, 1, 2, 0, 0x10, 9]],
    ['a match length that is cut', [0x1f, 1, 1, 0, 255]],
    ['a match at the end', [0x14, 1, 1, 0]],
    ['more literals than room', [0xf0, 255, 255, 255, 0]],
    ['a match longer than room', [0x1f, 1, 1, 0, 255, 255, 255, 255, 0, 0x10, 9]],
  ])('lz4Decompress: %s, refused', (_, block) => {
    expect(decompressWalled(Uint8Array.from(block), 400)).toBe(-1);
  });

  it('lz4Decompress: any bytes at all, within its bounds', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), fc.nat(100), (block, room) => {
        expect(decompressWalled(block, room)).toBeLessThanOrEqual(room);
      }),
      { numRuns: 2000 },
    );
  });

  it('lz4Decompress: too little room by one byte, refused', () => {
    fc.assert(
      fc.property(compressible, (source) => {
        fc.pre(source.length > 0);
        const target = new Uint8Array(lz4Bound(source.length));
        const length = lz4Compress(source, target);
        expect(decompressWalled(target.subarray(0, length), source.length - 1)).toBe(-1);
      }),
    );
  });
});
