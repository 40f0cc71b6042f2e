/** The ways a chunk's bytes are stored, by name; `format.ts` numbers them. */
import { RAW_BYTES_MAX } from './chunk.ts';
import type { Compression } from './format.ts';
import { lz4Bound, lz4Compress, lz4Decompress } from './lz4.ts';

/** Saved less than an eighth, a chunk is stored as it is: reading it back is then a copy. */
const WORTH_IT = 7 / 8;

export interface Packed {
  readonly compression: Compression;
  readonly bytes: Uint8Array;
}

/** Room for what `pack` makes. */
export const packBuffer = (): Uint8Array => new Uint8Array(lz4Bound(RAW_BYTES_MAX));

/** `raw` as it is to be stored when `wanted` is asked for: itself, or in `buffer`. */
export function pack(raw: Uint8Array, wanted: Compression, buffer: Uint8Array): Packed {
  if (wanted === 'none') return { compression: 'none', bytes: raw };
  const length = lz4Compress(raw, buffer);
  if (length > raw.length * WORTH_IT) return { compression: 'none', bytes: raw };
  return { compression: 'lz4', bytes: buffer.subarray(0, length) };
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
