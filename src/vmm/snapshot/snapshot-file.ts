/**
 * A snapshot as a file that is open: header, state and index are read and checked when it is
 * opened, chunks of RAM when they are asked for. Called by `restore.ts`, `lazy-ram.ts` and
 * `info.ts`.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { hex } from '../../base/index.ts';
import { RAM_BASE } from '../board.ts';
import { decodeState } from '../state/codec.ts';
import type { MachineState } from '../state/machine-state.ts';
import { CHUNK_BYTES, CHUNK_PAGES, type Chunk, parseChunk, RAW_BYTES_MAX } from './chunk.ts';
import { unpack } from './compression.ts';
import { decodeHeader, decodeIndex, HEADER_BYTES, type PlacedChunk } from './format.ts';
import { type GuestPage, PACKED_TAG_BYTES, type PageSource } from './page-source.ts';
import { SnapshotError, withState } from './snapshot-error.ts';

const NOTHING: GuestPage = { data: undefined, packedTags: undefined };

/** Opens the snapshot at `path`. Throws `SnapshotError`, with nothing left open. */
export function openSnapshot(path: string): SnapshotFile {
  const reader = new Reader(path);
  try {
    return new SnapshotFile(reader);
  } catch (error) {
    reader.close();
    throw error;
  }
}

export class SnapshotFile implements PageSource {
  readonly path: string;
  readonly fileBytes: number;
  readonly stateBytes: number;
  readonly state: MachineState;
  /** The chunks that are not all zero, ascending. */
  readonly chunks: readonly PlacedChunk[];
  /** Chunks of RAM, those included that are all zero. */
  readonly chunkCount: number;
  readonly #reader: Reader;
  readonly #byNumber: ReadonlyMap<number, PlacedChunk>;
  readonly #stored = new Uint8Array(RAW_BYTES_MAX);
  readonly #raw = new Uint8Array(RAW_BYTES_MAX);
  readonly #packedTags = new Uint8Array(PACKED_TAG_BYTES);
  /** The chunk in `#stored` or `#raw`. */
  #loaded: { readonly number: number; readonly chunk: Chunk } | undefined;

  /** Called by `openSnapshot`. */
  constructor(reader: Reader) {
    const { path, fileBytes } = reader;
    const header = decodeHeader(path, reader.read(0, Math.min(HEADER_BYTES, fileBytes)), fileBytes);
    const state = reader.checked('the state', HEADER_BYTES, header.stateBytes, header.stateCrc);
    const index = reader.checked(
      'the index of RAM',
      header.indexOffset,
      header.indexBytes,
      header.indexCrc,
    );
    this.#reader = reader;
    this.path = path;
    this.fileBytes = fileBytes;
    this.stateBytes = header.stateBytes;
    this.state = withState(path, () => decodeState(state));
    this.chunkCount = this.state.machine.ramBytes / CHUNK_BYTES;
    this.chunks = decodeIndex(path, index, {
      firstOffset: HEADER_BYTES + header.stateBytes,
      endOffset: header.indexOffset,
      chunkCount: this.chunkCount,
    });
    this.#byNumber = new Map(this.chunks.map((placed) => [placed.chunk, placed]));
  }

  get pageCount(): number {
    return this.chunkCount * CHUNK_PAGES;
  }

  /**
   * The `number`th 2 MiB of RAM, undefined where all is zero; good until the next chunk is asked
   * for. Throws `SnapshotError` 'corrupted', 'cut', 'file-unreadable'.
   */
  chunk(number: number): Chunk | undefined {
    if (this.#loaded?.number === number) return this.#loaded.chunk;
    const placed = this.#byNumber.get(number);
    if (placed === undefined) return undefined;
    this.#loaded = undefined;
    const bytes = this.#storedBytes(placed);
    const raw = unpack({ compression: placed.compression, bytes }, placed.rawBytes, this.#raw);
    const chunk = raw === undefined ? undefined : parseChunk(raw);
    if (chunk === undefined) throw this.#corrupted(placed, 'is not as the format says');
    if (chunk.hasTags && !this.state.machine.mte) {
      throw this.#corrupted(placed, 'has tags, and the machine has no MTE');
    }
    this.#loaded = { number, chunk };
    return chunk;
  }

  page(index: number): GuestPage {
    const chunk = this.chunk(Math.floor(index / CHUNK_PAGES));
    if (chunk === undefined) return NOTHING;
    const page = index % CHUNK_PAGES;
    const packedTags = chunk.isTagged(page) ? this.#packedTags : undefined;
    if (packedTags !== undefined) chunk.packedTagsInto(page, packedTags, 0);
    return { data: chunk.data(page), packedTags };
  }

  /**
   * Checks every byte that `openSnapshot` has not: the checksums of all chunks. Throws as `chunk`.
   */
  verify(): void {
    this.#loaded = undefined;
    for (const placed of this.chunks) this.#storedBytes(placed);
  }

  close(): void {
    this.#reader.close();
  }

  #storedBytes(placed: PlacedChunk): Uint8Array {
    const bytes = this.#stored.subarray(0, placed.storedBytes);
    this.#reader.readInto(bytes, placed.offset);
    if (crc32(bytes) !== placed.crc) throw this.#corrupted(placed, 'has a wrong checksum');
    return bytes;
  }

  #corrupted({ chunk, offset, storedBytes }: PlacedChunk, what: string): SnapshotError {
    const address = hex(RAM_BASE + chunk * CHUNK_BYTES);
    const range = `bytes ${offset} to ${offset + storedBytes - 1}`;
    return new SnapshotError('corrupted', `${this.path}: RAM at ${address} (${range}) ${what}`);
  }
}

/** The file itself, read by position. */
class Reader {
  readonly path: string;
  readonly fileBytes: number;
  #descriptor: number;

  constructor(path: string) {
    this.path = path;
    this.#descriptor = this.#attempt(() => openSync(path, 'r'));
    this.fileBytes = this.#attempt(() => fstatSync(this.#descriptor).size);
  }

  read(position: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    this.readInto(bytes, position);
    return bytes;
  }

  readInto(bytes: Uint8Array, position: number): void {
    for (let done = 0; done < bytes.length; ) {
      const count = this.#attempt(() =>
        readSync(this.#descriptor, bytes, done, bytes.length - done, position + done),
      );
      if (count === 0) {
        throw new SnapshotError(
          'cut',
          `${this.path}: cut while it is read, at byte ${position + done}`,
        );
      }
      done += count;
    }
  }

  /** A part that has its checksum in the header. */
  checked(what: string, position: number, length: number, crc: number): Uint8Array {
    const bytes = this.read(position, length);
    if (crc32(bytes) === crc) return bytes;
    const range = `bytes ${position} to ${position + length - 1}`;
    throw new SnapshotError('corrupted', `${this.path}: ${what} (${range}) has a wrong checksum`);
  }

  close(): void {
    if (this.#descriptor >= 0) closeSync(this.#descriptor);
    this.#descriptor = -1;
  }

  #attempt<T>(call: () => T): T {
    try {
      return call();
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
      if (code === 'ENOENT') throw new SnapshotError('file-missing', `${this.path}: no such file`);
      throw new SnapshotError('file-unreadable', `${this.path}: cannot be read (${code})`);
    }
  }
}
