/**
 * Saves a machine to a file: its state, then its RAM by chunks, then their index. The machine does
 * not run meanwhile and goes on unchanged. The file appears whole or not at all. Called by the
 * monitor's `snapshot-save` and by programs.
 */
import { realpath, stat } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import type { Machine } from '../machine.ts';
import { captureState } from '../state/capture.ts';
import { encodeState } from '../state/codec.ts';
import { AtomicFile } from './atomic-file.ts';
import { pack, packBuffer } from './compression.ts';
import {
  type ChunkEntry,
  type Compression,
  encodeHeader,
  encodeIndex,
  HEADER_BYTES,
} from './format.ts';
import { RamReader } from './ram-reader.ts';
import { SnapshotError } from './snapshot-error.ts';

export interface SaveOptions {
  /** How RAM is stored; 'lz4' where absent. */
  readonly compress?: Compression;
  /** Called after each chunk of RAM. */
  readonly onProgress?: (progress: SaveProgress) => void;
}

export interface SaveProgress {
  readonly chunksDone: number;
  readonly chunkCount: number;
  readonly fileBytes: number;
}

/**
 * Writes `machine` to `path`; resolves to the size of the file in bytes. Rejects with
 * `SnapshotError` 'file-unwritable' or 'refused', and then nothing has changed at `path`.
 * Precondition: until then nobody runs or changes the machine (`MachineSession.saveSnapshot`).
 */
export async function saveSnapshot(
  machine: Machine,
  path: string,
  options: SaveOptions = {},
): Promise<number> {
  const state = encodeState(captureState(machine));
  const ram = new RamReader(machine);
  let file: AtomicFile | undefined;
  try {
    file = await AtomicFile.open(await placeFor(path), String(process.pid));
    await write(file, state, ram, options);
    await file.commit();
    return file.length;
  } catch (error) {
    await file?.discard();
    if (!isFileSystemError(error)) throw error;
    throw new SnapshotError('file-unwritable', `${path}: cannot be written (${error.code})`);
  } finally {
    ram.close();
  }
}

/**
 * Where a file called `path` lies, behind links. Rejects where something is that a file must not
 * take the place of, like a device: the name would be given to the snapshot.
 */
async function placeFor(path: string): Promise<string> {
  if (path.includes('\0')) {
    throw new SnapshotError('file-unwritable', `${JSON.stringify(path)}: no file can be called so`);
  }
  const place = await realpath(path).catch((error: unknown) => {
    if (isFileSystemError(error) && error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (place === undefined) return path;
  if ((await stat(place)).isFile()) return place;
  throw new SnapshotError('file-unwritable', `${path}: is there and is no regular file`);
}

/** The header comes last, so that a file that is not finished is none. */
async function write(
  file: AtomicFile,
  state: Uint8Array,
  ram: RamReader,
  { compress = 'lz4', onProgress }: SaveOptions,
): Promise<void> {
  await file.append(new Uint8Array(HEADER_BYTES));
  await file.append(state);
  const entries: ChunkEntry[] = [];
  const buffer = packBuffer();
  for (let chunk = 0; chunk < ram.chunkCount; chunk++) {
    const raw = ram.read(chunk);
    if (raw !== undefined) {
      const { compression, bytes } = pack(raw, compress, buffer);
      const sizes = { storedBytes: bytes.length, rawBytes: raw.length };
      entries.push({ chunk, compression, ...sizes, crc: crc32(bytes) });
      await file.append(bytes);
    }
    onProgress?.({ chunksDone: chunk + 1, chunkCount: ram.chunkCount, fileBytes: file.length });
  }
  const index = encodeIndex(entries);
  const indexOffset = file.length;
  await file.append(index);
  const header = encodeHeader({
    fileBytes: file.length,
    stateBytes: state.length,
    stateCrc: crc32(state),
    indexOffset,
    indexBytes: index.length,
    indexCrc: crc32(index),
  });
  await file.overwrite(header, 0);
}

const isFileSystemError = (error: unknown): error is Error & { code: string } =>
  error instanceof Error && 'syscall' in error && 'code' in error;
