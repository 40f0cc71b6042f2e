/**
 * The LZ4 block format. The compressor is made for memory: it looks at aligned 32-bit words only,
 * which is where arm64 code, pointers and counters are, and is several times as fast in JavaScript
 * as one that looks at every byte; text suffers. The decompressor takes any block, and never reads
 * or writes outside its buffers, whatever it is given.
 *
 *     sequence  token, more literal length, literals, 16-bit offset, more match length
 *     token     high nibble: literals; low nibble: match length - 4; 15: bytes follow, each of them
 *               added, up to and including the first below 255
 *
 * The last sequence ends behind its literals. Only blocks, no frames: who stores one keeps both
 * lengths and a checksum. Format: lz4_Block_format.md of the LZ4 project, with its end conditions.
 */
import { assert, isAligned } from '../../base/index.ts';

const MATCH_BYTES_MIN = 4;
/** A match of less than two words saves nothing worth its time. */
const SEARCH_WORDS = 2;
/** The last match begins at least 12 bytes from the end, and the last 5 bytes are literals. */
const SEARCH_END_WORDS = 4;
const MATCH_END_WORDS = 2;
const OFFSET_WORDS_MAX = 65535 >>> 2;
/** Small enough for the table to stay in a CPU's first cache beside the data. */
const HASH_BITS = 12;
/** Failed look-ups before the step grows by one word: 2^5. */
const SKIP_SHIFT = 5;
/** Copies of fewer bytes are cheaper as loops than as calls. */
const LOOP_BYTES_MAX = 256;

/** The most bytes that `lz4Compress` makes of `sizeBytes`. LZ4: LZ4_compressBound(). */
export const lz4Bound = (sizeBytes: number): number => sizeBytes + Math.floor(sizeBytes / 255) + 16;

/** Where two words with this hash were seen last, in words; -1: nowhere. */
const table = new Int32Array(1 << HASH_BITS);

/**
 * Compresses `source`, which begins at an aligned address, into `target`, which has room for
 * `lz4Bound` bytes; returns the bytes written.
 */
export function lz4Compress(source: Uint8Array, target: Uint8Array): number {
  assert(isAligned(source.byteOffset, 4), 'the compressor looks at aligned words');
  assert(target.length >= lz4Bound(source.length), 'the target has room for the worst case');
  const words = new Int32Array(source.buffer, source.byteOffset, source.length >>> 2);
  const view = new DataView(target.buffer, target.byteOffset, target.length);
  const searchEnd = words.length - SEARCH_END_WORDS;
  const matchEnd = words.length - MATCH_END_WORDS;
  table.fill(-1);
  let literalsFrom = 0;
  let at = 0;
  let out = 0;
  let misses = 1 << SKIP_SHIFT;
  while (at < searchEnd) {
    const first = words[at]!;
    const second = words[at + 1]!;
    const hash = Math.imul(Math.imul(first, 0x9e3779b1) ^ second, 0x85ebca6b);
    const slot = hash >>> (32 - HASH_BITS);
    const match = table[slot]!;
    table[slot] = at;
    const isMatch =
      match >= 0 &&
      at - match <= OFFSET_WORDS_MAX &&
      words[match] === first &&
      words[match + 1] === second;
    if (!isMatch) {
      at += misses++ >>> SKIP_SHIFT;
      continue;
    }
    const end = matchEndOf(words, at + SEARCH_WORDS, match + SEARCH_WORDS, matchEnd);
    const length = 4 * (end - at) - MATCH_BYTES_MIN;
    out = putLiteralLength(target, out, 4 * (at - literalsFrom), Math.min(length, 15));
    for (let i = literalsFrom; i < at; i++, out += 4) view.setInt32(out, words[i]!, true);
    view.setUint16(out, 4 * (at - match), true);
    out += 2;
    if (length >= 15) out = putMoreLength(target, out, length - 15);
    at = end;
    literalsFrom = end;
    misses = 1 << SKIP_SHIFT;
  }
  const rest = source.subarray(4 * literalsFrom);
  out = putLiteralLength(target, out, rest.length, 0);
  target.set(rest, out);
  return out + rest.length;
}

/** The first word from `at` on that differs from its counterpart from `match` on, or `end`. */
function matchEndOf(words: Int32Array, at: number, match: number, end: number): number {
  while (at < end && words[at] === words[match]) {
    at++;
    match++;
  }
  return at;
}

/** Writes a token and what follows it of the literals' length; returns where the literals go. */
function putLiteralLength(
  target: Uint8Array,
  out: number,
  literalBytes: number,
  matchNibble: number,
): number {
  if (literalBytes < 15) {
    target[out] = (literalBytes << 4) | matchNibble;
    return out + 1;
  }
  target[out] = 0xf0 | matchNibble;
  return putMoreLength(target, out + 1, literalBytes - 15);
}

function putMoreLength(target: Uint8Array, out: number, rest: number): number {
  while (rest >= 255) {
    target[out++] = 255;
    rest -= 255;
  }
  target[out++] = rest;
  return out;
}

/**
 * Decompresses the whole of `source` into `target`, which begins at an aligned address; returns the
 * bytes written, or -1 where the block is not well formed or needs more room. What `target` then
 * holds is not defined.
 */
export function lz4Decompress(source: Uint8Array, target: Uint8Array): number {
  assert(isAligned(target.byteOffset, 4), 'the decompressor writes aligned words');
  const view = new DataView(source.buffer, source.byteOffset, source.length);
  const words = new Int32Array(target.buffer, target.byteOffset, target.length >>> 2);
  const inEnd = source.length;
  const outEnd = target.length;
  let at = 0;
  let out = 0;
  while (at < inEnd) {
    const token = source[at++]!;
    let literals = token >>> 4;
    if (literals === 15) {
      let more = 255;
      while (more === 255) {
        if (at >= inEnd) return -1;
        more = source[at++]!;
        literals += more;
      }
    }
    if (literals > inEnd - at || literals > outEnd - out) return -1;
    if (literals > LOOP_BYTES_MAX) {
      target.set(source.subarray(at, at + literals), out);
    } else if (((out | literals) & 3) === 0) {
      const end = (out + literals) >>> 2;
      for (let i = out >>> 2, from = at; i < end; i++, from += 4) {
        words[i] = view.getInt32(from, true);
      }
    } else {
      for (let i = 0; i < literals; i++) target[out + i] = source[at + i]!;
    }
    at += literals;
    out += literals;
    if (at === inEnd) return out;
    if (inEnd - at < 2) return -1;
    const offset = source[at]! | (source[at + 1]! << 8);
    at += 2;
    let length = (token & 15) + MATCH_BYTES_MIN;
    if ((token & 15) === 15) {
      let more = 255;
      while (more === 255) {
        if (at >= inEnd) return -1;
        more = source[at++]!;
        length += more;
      }
    }
    if (offset === 0 || offset > out || length > outEnd - out) return -1;
    if (length > LOOP_BYTES_MAX) {
      repeat(target, out, offset, length);
    } else if (((out | offset | length) & 3) === 0) {
      const end = (out + length) >>> 2;
      for (let i = out >>> 2; i < end; i++) words[i] = words[i - (offset >>> 2)]!;
    } else {
      for (let i = 0; i < length; i++) target[out + i] = target[out + i - offset]!;
    }
    out += length;
  }
  // A block ends behind literals: not here, where a match was last, nor before the first token.
  return -1;
}

/** Copies a long match, which may overlap itself: what is there doubles with each step. */
function repeat(target: Uint8Array, out: number, offset: number, length: number): void {
  const from = out - offset;
  for (let done = 0; done < length; ) {
    const piece = Math.min(offset + done, length - done);
    target.copyWithin(out + done, from, from + piece);
    done += piece;
  }
}
