/** The ways a chunk's bytes are stored, by name; `format.ts` numbers them. */
import { alignDown } from '../../base/index.ts';
import { RAW_BYTES_MAX } from './chunk.ts';
import type { Compression } from './format.ts';
import { lz4Bound, lz4Compress, lz4Decompress } from './lz4.ts';

/**
 * The longest that a chunk may stay to be stored compressed. What shrinks less is compressed slowly
 * as well: program text at 0.65 costs 400 ms a GiB and saves 7 %; kernel memory loses nothing.
 */
const WORTH_IT = 0.6;
/** Looked at first, spread over the chunk: whether the whole is worth trying. */
const SAMPLE_COUNT = 4;
const SAMPLE_BYTES = 16 * 1024;

export interface Packed {
  readonly compression: Compression;
  readonly bytes: Uint8Array;
}

/** Room for what `pack` makes. */
export const packBuffer = (): Uint8Array => new Uint8Array(lz4Bound(RAW_BYTES_MAX));

/** `raw` as it is to be stored when `wanted` is asked for: itself, or in `buffer`. */
export function pack(raw: Uint8Array, wanted: Compression, buffer: Uint8Array): Packed {
  if (wanted === 'none' || !isWorthTrying(raw, buffer)) return { compression: 'none', bytes: raw };
  const length = lz4Compress(raw, buffer);
  if (length > raw.length * WORTH_IT) return { compression: 'none', bytes: raw };
  return { compression: 'lz4', bytes: buffer.subarray(0, length) };
}

/** Precondition: a multiple of 4 bytes. */
function isWorthTrying(raw: Uint8Array, buffer: Uint8Array): boolean {
  if (raw.length < 2 * SAMPLE_COUNT * SAMPLE_BYTES) return true;
  let length = 0;
  for (let i = 0; i < SAMPLE_COUNT; i++) {
    const middle = (raw.length / SAMPLE_COUNT) * (i + 0.5);
    const from = alignDown(middle - SAMPLE_BYTES / 2, 4);
    length += lz4Compress(raw.subarray(from, from + SAMPLE_BYTES), buffer);
  }
  return length <= SAMPLE_COUNT * SAMPLE_BYTES * WORTH_IT;
}

/**
 * The `rawBytes` (at most RAW_BYTES_MAX) behind stored bytes: themselves, or in `buffer`, which has
 * room for them; undefined where they are not what they should be.
 */
export function unpack(
  packed: Packed,
  rawBytes: number,
  buffer: Uint8Array,
): Uint8Array | undefined {
  const { compression, bytes } = packed;
  if (compression === 'none') return bytes.length === rawBytes ? bytes : undefined;
  const raw = buffer.subarray(0, rawBytes);
  return lz4Decompress(bytes, raw) === rawBytes ? raw : undefined;
}
