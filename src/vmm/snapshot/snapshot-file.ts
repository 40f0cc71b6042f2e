/**
 * A snapshot as a file that is open: header, state and index are read and checked when it is
 * opened, chunks of RAM when they are asked for, or all of them (`verify`). Called by `restore.ts`,
 * `lazy-ram.ts` and `info.ts`.
 */
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readSync,
  read as readWithCallback,
} from 'node:fs';
import { promisify } from 'node:util';
import { crc32 } from 'node:zlib';
import { hex, MIB } from '../../base/index.ts';
import { RAM_BASE } from '../board.ts';
import { checkBoard } from '../boot.ts';
import { BootError } from '../boot-error.ts';
import { decodeState } from '../state/codec.ts';
import type { MachineState } from '../state/machine-state.ts';
import { CHUNK_BYTES, CHUNK_PAGES, type Chunk, parseChunk, RAW_BYTES_MAX } from './chunk.ts';
import { unpack } from './compression.ts';
import { decodeHeader, decodeIndex, HEADER_BYTES, type PlacedChunk } from './format.ts';
import { type GuestPage, PACKED_TAG_BYTES, type PageSource } from './page-source.ts';
import { SnapshotError, withState } from './snapshot-error.ts';

/** Of the file, checked in one go. */
const WINDOW_BYTES = 8 * MIB;
const NO_BYTES = Promise.resolve(new Uint8Array(0));

const read = promisify(readWithCallback);

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
    checkMachine(path, this.state);
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
   * Checks every byte that `openSnapshot` has not: the checksums of all chunks. Reads ahead, and
   * gives up the thread while it waits. Rejects as `chunk` throws.
   */
  async verify(): Promise<void> {
    const [first] = this.chunks;
    if (first === undefined) return;
    let index = 0;
    let crc = 0;
    let done = 0;
    for await (const bytes of this.#reader.stream(first.offset, this.#chunksEnd)) {
      for (let at = 0; at < bytes.length; ) {
        const placed = this.chunks[index]!;
        const piece = bytes.subarray(at, at + placed.storedBytes - done);
        crc = crc32(piece, crc);
        done += piece.length;
        at += piece.length;
        if (done < placed.storedBytes) continue;
        if (crc !== placed.crc) throw this.#wrongChecksum(placed);
        index++;
        crc = 0;
        done = 0;
      }
    }
  }

  get #chunksEnd(): number {
    const last = this.chunks.at(-1);
    return last === undefined ? 0 : last.offset + last.storedBytes;
  }

  close(): void {
    this.#reader.close();
  }

  #storedBytes(placed: PlacedChunk): Uint8Array {
    const bytes = this.#stored.subarray(0, placed.storedBytes);
    this.#reader.readInto(bytes, placed.offset);
    if (crc32(bytes) !== placed.crc) throw this.#wrongChecksum(placed);
    return bytes;
  }

  #wrongChecksum(placed: PlacedChunk): SnapshotError {
    return this.#corrupted(placed, 'has a wrong checksum');
  }

  #corrupted({ chunk, offset, storedBytes }: PlacedChunk, what: string): SnapshotError {
    const address = hex(RAM_BASE + chunk * CHUNK_BYTES);
    const range = `bytes ${offset} to ${offset + storedBytes - 1}`;
    return new SnapshotError('corrupted', `${this.path}: RAM at ${address} (${range}) ${what}`);
  }
}

/** Checksums do not say that whoever wrote the file had a machine that can be. */
function checkMachine(path: string, { machine }: MachineState): void {
  try {
    checkBoard(machine);
  } catch (error) {
    if (!(error instanceof BootError)) throw error;
    throw new SnapshotError('machine-differs', `${path}: not of a machine here: ${error.message}`);
  }
}

/** The file itself, read by position. */
class Reader {
  readonly path: string;
  readonly fileBytes: number;
  #descriptor: number;
  /** Reads that another thread is at: only then may the descriptor go. */
  #readCount = 0;
  #isClosed = false;

  constructor(path: string) {
    this.path = path;
    // A pipe would wait for its writer.
    const flags = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0);
    this.#descriptor = this.#attempt(() => openSync(path, flags));
    const found = this.#attempt(() => fstatSync(this.#descriptor));
    this.fileBytes = found.size;
    if (found.isFile()) return;
    this.close();
    throw new SnapshotError('file-unreadable', `${path}: not a regular file`);
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
      if (count === 0) throw this.#cut(position + done);
      done += count;
    }
  }

  /**
   * The bytes from `position` to `end` in pieces, each good until the next one; one is read while
   * another is looked at.
   */
  async *stream(position: number, end: number): AsyncGenerator<Uint8Array> {
    const buffers = [new Uint8Array(WINDOW_BYTES), new Uint8Array(WINDOW_BYTES)] as const;
    const begin = (buffer: Uint8Array, from: number): Promise<Uint8Array> => {
      const read = from < end ? this.#readSome(buffer.subarray(0, end - from), from) : NO_BYTES;
      // Told to whoever waits for it, if anybody still does.
      read.catch(() => {});
      return read;
    };
    let [current, other] = buffers;
    let next = begin(current, position);
    for (let at = position; at < end; ) {
      const bytes = await next;
      at += bytes.length;
      [current, other] = [other, current];
      next = begin(current, at);
      yield bytes;
    }
  }

  /** As many of the bytes at `position` as come at once. */
  async #readSome(buffer: Uint8Array, position: number): Promise<Uint8Array> {
    if (this.#isClosed) throw this.#unreadable('EBADF');
    this.#readCount++;
    try {
      const { bytesRead } = await read(this.#descriptor, buffer, 0, buffer.length, position);
      if (bytesRead === 0) throw this.#cut(position);
      return buffer.subarray(0, bytesRead);
    } catch (error) {
      throw error instanceof SnapshotError ? error : this.#unreadable(codeOf(error));
    } finally {
      this.#readCount--;
      if (this.#isClosed) this.#closeDescriptor();
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
    this.#isClosed = true;
    this.#closeDescriptor();
  }

  #closeDescriptor(): void {
    if (this.#readCount > 0 || this.#descriptor < 0) return;
    closeSync(this.#descriptor);
    this.#descriptor = -1;
  }

  #attempt<T>(call: () => T): T {
    try {
      return call();
    } catch (error) {
      const code = codeOf(error);
      if (code === 'ENOENT') throw new SnapshotError('file-missing', `${this.path}: no such file`);
      throw this.#unreadable(code);
    }
  }

  #cut(position: number): SnapshotError {
    return new SnapshotError('cut', `${this.path}: cut while it is read, at byte ${position}`);
  }

  #unreadable(code: string): SnapshotError {
    return new SnapshotError('file-unreadable', `${this.path}: cannot be read (${code})`);
  }
}

const codeOf = (error: unknown): string =>
  error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
