/**
 * The files a boot is made of: read from disk with their size checked first, or given as bytes; and
 * the wrappings a kernel comes in (gzip, EFI zboot) taken off. `boot.ts` calls it.
 */
import { readFileSync, statSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { GIB } from '../base/index.ts';
import { BootError, sizeText } from './boot-error.ts';

/** A file on disk, or bytes with the name that messages give them. */
export type BootFile =
  | { readonly path: string }
  | { readonly name: string; readonly bytes: Uint8Array };

/** The largest kernel file, and what it may unpack to: far above any real one. */
export const KERNEL_FILE_BYTES_MAX = GIB;

/** A file whose size is known and whose contents are not read yet. */
export interface OpenedFile {
  readonly name: string;
  readonly sizeBytes: number;
  /** Its contents; throws `BootError`. */
  readonly load: () => LoadedFile;
}

export interface LoadedFile {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** `file` with its size; throws `BootError` where it is missing or no regular file. */
export function openFile(file: BootFile): OpenedFile {
  if ('bytes' in file) {
    return { name: file.name, sizeBytes: file.bytes.length, load: () => file };
  }
  const name = file.path;
  return { name, sizeBytes: fileSize(name), load: () => ({ name, bytes: contents(name) }) };
}

/** The kernel in `file` without its gzip or EFI zboot wrapping; throws `BootError`. */
export function loadKernelFile(file: BootFile): LoadedFile {
  const opened = openFile(file);
  if (opened.sizeBytes > KERNEL_FILE_BYTES_MAX) {
    throw new BootError(
      'file-too-large',
      `${opened.name}: ${opened.sizeBytes} bytes exceed the ${sizeText(KERNEL_FILE_BYTES_MAX)} ` +
        'a kernel file may have',
    );
  }
  return unwrapKernel(opened.load());
}

function fileSize(path: string): number {
  let stat: ReturnType<typeof statSync>;
  try {
    stat = statSync(path);
  } catch (error) {
    throw unreadable(path, error);
  }
  if (!stat.isFile()) throw new BootError('file-unreadable', `${path}: not a regular file`);
  return stat.size;
}

function contents(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (error) {
    throw unreadable(path, error);
  }
}

function unreadable(path: string, error: unknown): BootError {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
  return code === 'ENOENT'
    ? new BootError('file-missing', `${path}: no such file`)
    : new BootError('file-unreadable', `${path}: cannot be read (${code})`);
}

function unwrapKernel(file: LoadedFile): LoadedFile {
  const { name, bytes } = file;
  if (isGzip(bytes)) return { name, bytes: gunzip(name, bytes) };
  if (isZboot(bytes)) return { name, bytes: unwrapZboot(file) };
  return file;
}

const isGzip = (bytes: Uint8Array): boolean => bytes[0] === 0x1f && bytes[1] === 0x8b;

const ascii = (bytes: Uint8Array, from: number, length: number): string =>
  String.fromCharCode(...bytes.subarray(from, from + length));

const isZboot = (bytes: Uint8Array): boolean =>
  ascii(bytes, 0, 2) === 'MZ' && ascii(bytes, 4, 4) === 'zimg';

const ZBOOT_HEADER_BYTES = 64;

/**
 * The zboot header: 'MZ', 'zimg', payload offset and size, and the name of the compression.
 * Linux: drivers/firmware/efi/libstub/zboot-header.S.
 */
function unwrapZboot({ name, bytes }: LoadedFile): Uint8Array {
  if (bytes.length < ZBOOT_HEADER_BYTES) {
    throw new BootError('truncated', `${name}: ends inside its ${ZBOOT_HEADER_BYTES}-byte header`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const offset = view.getUint32(8, true);
  const sizeBytes = view.getUint32(12, true);
  const compression = ascii(bytes, 24, 32).split('\0')[0] ?? '';
  if (offset + sizeBytes > bytes.length) {
    throw new BootError(
      'truncated',
      `${name}: its payload ends at byte ${offset + sizeBytes} and the file at ${bytes.length}`,
    );
  }
  if (compression !== 'gzip') {
    throw new BootError(
      'unsupported',
      `${name}: an EFI zboot kernel compressed with '${compression}'; only gzip is understood`,
    );
  }
  return gunzip(name, bytes.subarray(offset, offset + sizeBytes));
}

function gunzip(name: string, bytes: Uint8Array): Uint8Array {
  try {
    return gunzipSync(bytes, { maxOutputLength: KERNEL_FILE_BYTES_MAX });
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ERR_BUFFER_TOO_LARGE') {
      throw new BootError(
        'file-too-large',
        `${name}: unpacks to more than ${sizeText(KERNEL_FILE_BYTES_MAX)}`,
      );
    }
    throw new BootError('corrupt', `${name}: its gzip data is damaged or cut short`);
  }
}
