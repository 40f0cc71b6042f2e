/**
 * The bytes around a snapshot's content: its header and the index of its RAM chunks, both ways.
 * Everything is checked here that can be told without the content; `docs/formats.md` has the format
 * in full. Little-endian.
 *
 *     header   64 bytes: what the file is, and where state and index lie
 *     state    state/codec.ts
 *     chunks   one behind the other, in the order of the index; chunk.ts
 *     index    an entry a chunk, to the end of the file
 */
import { crc32 } from 'node:zlib';
import { assert } from '../../base/index.ts';
import { RAW_BYTES_MAX } from './chunk.ts';
import { SnapshotError } from './snapshot-error.ts';

export const SNAPSHOT_VERSION = 1;
export const HEADER_BYTES = 64;

const MAGIC = 'GRANSNAP';
const INDEX_ENTRY_BYTES = 20;
/** A state is far smaller; a length beyond it is not read. */
const STATE_BYTES_MAX = 64 * 1024 * 1024;
/** Chunks of 4 TiB. */
const CHUNK_COUNT_MAX = 2 ** 21;

/** How the bytes of a chunk are stored. */
export const compressions = ['none', 'lz4'] as const;
export type Compression = (typeof compressions)[number];

export interface SnapshotHeader {
  readonly fileBytes: number;
  readonly stateBytes: number;
  readonly stateCrc: number;
  readonly indexOffset: number;
  readonly indexBytes: number;
  readonly indexCrc: number;
}

/** A chunk of RAM that is not all zero, data and tags; those that are have no entry. */
export interface ChunkEntry {
  /** Which 2 MiB of RAM, from its beginning. */
  readonly chunk: number;
  readonly compression: Compression;
  /** Bytes in the file, and before compression. */
  readonly storedBytes: number;
  readonly rawBytes: number;
  /** Of the stored bytes. */
  readonly crc: number;
}

/** A chunk's entry and its place in the file. */
export interface PlacedChunk extends ChunkEntry {
  readonly offset: number;
}

export function encodeHeader(header: SnapshotHeader): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode(MAGIC), 0);
  view.setUint32(8, SNAPSHOT_VERSION, true);
  view.setBigUint64(16, BigInt(header.fileBytes), true);
  view.setUint32(24, header.stateBytes, true);
  view.setUint32(28, header.stateCrc, true);
  view.setBigUint64(32, BigInt(header.indexOffset), true);
  view.setUint32(40, header.indexBytes, true);
  view.setUint32(44, header.indexCrc, true);
  view.setUint32(60, crc32(bytes.subarray(0, 60)), true);
  return bytes;
}

/**
 * The header in the first bytes of a file of `fileBytes`. Throws `SnapshotError`: 'not-a-snapshot',
 * 'cut', 'corrupted', 'other-version'. Where the checksum lies holds for every version.
 */
export function decodeHeader(path: string, bytes: Uint8Array, fileBytes: number): SnapshotHeader {
  const corrupted = (what: string): SnapshotError =>
    new SnapshotError(
      'corrupted',
      `${path}: ${what} in the header (bytes 0 to ${HEADER_BYTES - 1})`,
    );
  if (new TextDecoder('latin1').decode(bytes.subarray(0, MAGIC.length)) !== MAGIC) {
    throw new SnapshotError(
      'not-a-snapshot',
      `${path}: no snapshot, it does not begin with ${MAGIC}`,
    );
  }
  if (bytes.length < HEADER_BYTES) {
    throw new SnapshotError('cut', `${path}: cut in its header, after ${bytes.length} bytes`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.getUint32(60, true) !== crc32(bytes.subarray(0, 60))) throw corrupted('wrong checksum');
  const version = view.getUint32(8, true);
  if (version !== SNAPSHOT_VERSION) {
    const text = `${path}: format version ${version} is not the one known here, ${SNAPSHOT_VERSION}`;
    throw new SnapshotError('other-version', text);
  }
  const header = {
    fileBytes: Number(view.getBigUint64(16, true)),
    stateBytes: view.getUint32(24, true),
    stateCrc: view.getUint32(28, true),
    indexOffset: Number(view.getBigUint64(32, true)),
    indexBytes: view.getUint32(40, true),
    indexCrc: view.getUint32(44, true),
  };
  if (fileBytes < header.fileBytes) {
    const text = `${path}: cut, ${fileBytes} bytes are here of ${header.fileBytes}`;
    throw new SnapshotError('cut', text);
  }
  const fits =
    header.fileBytes === fileBytes &&
    header.stateBytes <= STATE_BYTES_MAX &&
    header.indexOffset >= HEADER_BYTES + header.stateBytes &&
    header.indexOffset + header.indexBytes === fileBytes &&
    header.indexBytes % INDEX_ENTRY_BYTES === 0 &&
    header.indexBytes <= CHUNK_COUNT_MAX * INDEX_ENTRY_BYTES;
  if (!fits) throw corrupted('lengths that do not fit each other');
  return header;
}

/** Precondition: ascending chunks. */
export function encodeIndex(entries: readonly ChunkEntry[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(entries.length * INDEX_ENTRY_BYTES);
  const view = new DataView(bytes.buffer);
  entries.forEach((entry, i) => {
    const at = i * INDEX_ENTRY_BYTES;
    assert(i === 0 || entries[i - 1]!.chunk < entry.chunk, 'chunks are stored in ascending order');
    view.setUint32(at, entry.chunk, true);
    view.setUint32(at + 4, entry.storedBytes, true);
    view.setUint32(at + 8, entry.rawBytes, true);
    view.setUint32(at + 12, entry.crc, true);
    view.setUint32(at + 16, compressions.indexOf(entry.compression), true);
  });
  return bytes;
}

/**
 * The chunks that fill the file from `firstOffset` to `endOffset`. Throws `SnapshotError`
 * 'corrupted' for an index that does not: the checksum was right, so whoever wrote it was not.
 */
export function decodeIndex(
  path: string,
  bytes: Uint8Array,
  place: { readonly firstOffset: number; readonly endOffset: number; readonly chunkCount: number },
): PlacedChunk[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const corrupted = (i: number, what: string): SnapshotError =>
    new SnapshotError('corrupted', `${path}: entry ${i} of the index of RAM has ${what}`);
  const chunks: PlacedChunk[] = [];
  let offset = place.firstOffset;
  for (let at = 0; at < bytes.length; at += INDEX_ENTRY_BYTES) {
    const i = chunks.length;
    const compression = compressions[view.getUint32(at + 16, true)];
    if (compression === undefined) throw corrupted(i, 'an unknown compression');
    const placed: PlacedChunk = {
      chunk: view.getUint32(at, true),
      storedBytes: view.getUint32(at + 4, true),
      rawBytes: view.getUint32(at + 8, true),
      crc: view.getUint32(at + 12, true),
      compression,
      offset,
    };
    if (placed.chunk <= (chunks[i - 1]?.chunk ?? -1) || placed.chunk >= place.chunkCount) {
      throw corrupted(i, `the wrong chunk ${placed.chunk} of ${place.chunkCount}`);
    }
    if (!lengthsFit(placed)) {
      throw corrupted(i, `${placed.storedBytes} stored bytes for ${placed.rawBytes}`);
    }
    offset += placed.storedBytes;
    chunks.push(placed);
  }
  if (offset !== place.endOffset) {
    throw corrupted(chunks.length, `chunks that end at byte ${offset}, not ${place.endOffset}`);
  }
  return chunks;
}

/** A chunk is compressed only where that makes it shorter. */
const lengthsFit = ({ compression, storedBytes, rawBytes }: ChunkEntry): boolean =>
  rawBytes > 0 &&
  rawBytes <= RAW_BYTES_MAX &&
  (compression === 'none' ? storedBytes === rawBytes : storedBytes > 0 && storedBytes < rawBytes);
