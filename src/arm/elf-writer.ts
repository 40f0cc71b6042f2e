/**
 * Writes a static ELF64 executable for AArch64 Linux from segments of memory, for guest programs
 * that our own assembler made. No sections, no symbols, no dynamic linking; reading ELF files is
 * the boot code's business.
 */
import { assert } from '../base/index.ts';

export interface ElfSegment {
  /** Virtual address of its first byte. */
  readonly address: bigint;
  readonly bytes: Uint8Array;
  /** Size in memory in bytes, zero-filled behind `bytes`; their length unless given. */
  readonly memorySize?: number;
  readonly access: 'r' | 'rx' | 'rw';
}

const HEADER_SIZE = 64;
const PROGRAM_HEADER_SIZE = 56;
/** Largest page size of arm64 Linux: address and file offset agree modulo this. */
const ALIGNMENT = 0x10000;

const ET_EXEC = 2;
const EM_AARCH64 = 183;
const PT_LOAD = 1;
const PT_GNU_STACK = 0x6474e551;
const ACCESS = { r: 4, rw: 6, rx: 5 } as const;

/** The bytes of an executable that starts at `entry`; its stack is not executable. */
export function writeElf(entry: bigint, segments: readonly ElfSegment[]): Uint8Array {
  const count = segments.length + 1;
  let end = HEADER_SIZE + count * PROGRAM_HEADER_SIZE;
  const offsets = segments.map((segment) => {
    assert(segment.address >= 0n && segment.address < 1n << 48n, 'a user address');
    const place = Number(segment.address % BigInt(ALIGNMENT));
    const offset = end + ((place - (end % ALIGNMENT) + ALIGNMENT) % ALIGNMENT);
    if (segment.bytes.length > 0) end = offset + segment.bytes.length;
    return offset;
  });
  const file = new Uint8Array(end);
  const view = new DataView(file.buffer);
  writeHeader(view, entry, count);
  segments.forEach((segment, i) => {
    writeSegment(view, HEADER_SIZE + i * PROGRAM_HEADER_SIZE, segment, offsets[i]!);
    if (segment.bytes.length > 0) file.set(segment.bytes, offsets[i]!);
  });
  const stack = HEADER_SIZE + segments.length * PROGRAM_HEADER_SIZE;
  view.setUint32(stack, PT_GNU_STACK, true);
  view.setUint32(stack + 4, ACCESS.rw, true);
  return file;
}

function writeHeader(view: DataView, entry: bigint, programHeaders: number): void {
  // Magic, 64-bit, little endian, version 1, System V ABI.
  [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1].forEach((byte, i) => {
    view.setUint8(i, byte);
  });
  view.setUint16(16, ET_EXEC, true);
  view.setUint16(18, EM_AARCH64, true);
  view.setUint32(20, 1, true);
  view.setBigUint64(24, entry, true);
  view.setBigUint64(32, BigInt(HEADER_SIZE), true);
  view.setUint16(52, HEADER_SIZE, true);
  view.setUint16(54, PROGRAM_HEADER_SIZE, true);
  view.setUint16(56, programHeaders, true);
}

function writeSegment(view: DataView, at: number, segment: ElfSegment, offset: number): void {
  const { address, bytes, access, memorySize = bytes.length } = segment;
  assert(memorySize >= bytes.length, 'a segment holds its bytes');
  view.setUint32(at, PT_LOAD, true);
  view.setUint32(at + 4, ACCESS[access], true);
  view.setBigUint64(at + 8, BigInt(offset), true);
  view.setBigUint64(at + 16, address, true);
  view.setBigUint64(at + 24, address, true);
  view.setBigUint64(at + 32, BigInt(bytes.length), true);
  view.setBigUint64(at + 40, BigInt(memorySize), true);
  view.setBigUint64(at + 48, BigInt(ALIGNMENT), true);
}
