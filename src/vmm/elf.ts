/**
 * Reads what a bare-metal or kernel ELF64 for AArch64 says about loading: PT_LOAD segments by
 * physical address, and the entry point. No relocation, no dynamic linking. `boot.ts` calls it.
 * System V gABI, chapters 4 and 5; the machine number is the AArch64 ELF ABI's.
 */
import { BootError } from './boot-error.ts';
import type { LoadedFile } from './boot-file.ts';

const HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const ELFCLASS64 = 2;
const ELFDATA2LSB = 1;
const ET_EXEC = 2;
const ET_DYN = 3;
const EM_AARCH64 = 183;
const PT_LOAD = 1;

/** A PT_LOAD segment that takes memory. */
export interface ElfSegment {
  /** Physical address, not yet checked against RAM. */
  readonly physical: bigint;
  readonly virtual: bigint;
  readonly bytes: Uint8Array;
  /** Bytes in memory; what exceeds `bytes` is zero. */
  readonly memoryBytes: bigint;
}

export interface Elf {
  /** The entry point as a physical address. */
  readonly entry: bigint;
  /** By ascending physical address, disjoint, at least one. */
  readonly segments: readonly ElfSegment[];
}

/** Whether `bytes` start with the ELF magic. */
export function isElf(bytes: Uint8Array): boolean {
  return bytes[0] === 0x7f && bytes[1] === 0x45 && bytes[2] === 0x4c && bytes[3] === 0x46;
}

/** The loadable parts of `file`; throws `BootError`. */
export function readElf(file: LoadedFile): Elf {
  const { name, bytes } = file;
  if (bytes.length < HEADER_BYTES) {
    throw new BootError('truncated', `${name}: ${bytes.length} bytes hold no 64-byte ELF header`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  checkHeader(name, view);
  const segments = programHeaders(file, view)
    .filter((segment) => segment.memoryBytes > 0n)
    .sort((a, b) => (a.physical < b.physical ? -1 : 1));
  if (segments.length === 0) throw new BootError('bad-header', `${name}: has nothing to load`);
  segments.forEach((segment, i) => {
    const before = segments[i - 1];
    if (before !== undefined && before.physical + before.memoryBytes > segment.physical) {
      throw new BootError(
        'bad-header',
        `${name}: two segments overlap at physical address ${hex(segment.physical)}`,
      );
    }
  });
  return { entry: physicalEntry(name, view.getBigUint64(24, true), segments), segments };
}

function checkHeader(name: string, view: DataView): void {
  if (view.getUint8(4) !== ELFCLASS64 || view.getUint8(5) !== ELFDATA2LSB) {
    throw new BootError('unsupported', `${name}: not a 64-bit little-endian ELF`);
  }
  const machine = view.getUint16(18, true);
  if (machine !== EM_AARCH64) {
    throw new BootError('unsupported', `${name}: an ELF for machine ${machine}, not AArch64 (183)`);
  }
  const type = view.getUint16(16, true);
  if (type !== ET_EXEC && type !== ET_DYN) {
    throw new BootError('unsupported', `${name}: an ELF of type ${type}, not an executable (2, 3)`);
  }
}

function programHeaders({ name, bytes }: LoadedFile, view: DataView): ElfSegment[] {
  const offset = Number(view.getBigUint64(32, true));
  const entryBytes = view.getUint16(54, true);
  const count = view.getUint16(56, true);
  if (count > 0 && entryBytes !== PROGRAM_HEADER_BYTES) {
    throw new BootError('bad-header', `${name}: program headers of ${entryBytes} bytes, not 56`);
  }
  const end = offset + count * PROGRAM_HEADER_BYTES;
  if (end > bytes.length) {
    throw new BootError(
      'truncated',
      `${name}: its program headers end at byte ${end} and the file at ${bytes.length}`,
    );
  }
  const out: ElfSegment[] = [];
  for (let at = offset; at < end; at += PROGRAM_HEADER_BYTES) {
    if (view.getUint32(at, true) === PT_LOAD) out.push(loadSegment(name, bytes, view, at));
  }
  return out;
}

function loadSegment(name: string, bytes: Uint8Array, view: DataView, at: number): ElfSegment {
  const offset = view.getBigUint64(at + 8, true);
  const fileBytes = view.getBigUint64(at + 32, true);
  const memoryBytes = view.getBigUint64(at + 40, true);
  if (offset + fileBytes > BigInt(bytes.length)) {
    throw new BootError(
      'truncated',
      `${name}: a segment ends at byte ${offset + fileBytes} and the file at ${bytes.length}`,
    );
  }
  if (fileBytes > memoryBytes) {
    throw new BootError(
      'bad-header',
      `${name}: a segment has ${fileBytes} bytes in the file and ${memoryBytes} in memory`,
    );
  }
  return {
    physical: view.getBigUint64(at + 24, true),
    virtual: view.getBigUint64(at + 16, true),
    bytes: bytes.subarray(Number(offset), Number(offset + fileBytes)),
    memoryBytes,
  };
}

/** ELF entry points are virtual; the MMU is off at boot, so the physical one counts. */
function physicalEntry(name: string, entry: bigint, segments: readonly ElfSegment[]): bigint {
  for (const { virtual, physical, memoryBytes } of segments) {
    if (entry >= virtual && entry < virtual + memoryBytes) return entry - virtual + physical;
  }
  throw new BootError('bad-header', `${name}: its entry point ${hex(entry)} is in no segment`);
}

const hex = (value: bigint): string => `0x${value.toString(16)}`;
