/**
 * The inlined fast path of a memory access: probe the software TLB, compare tags, and leave the
 * linear address of the bytes in a local; everything else asks the slow path in TypeScript, which
 * answers with an address (or that of the bounce buffer), or 0 when it has taken the instruction
 * away (fault, exception, exit).
 */
import type { AccessOptions, I32, I64 } from '../arm/a64/ops.ts';
import { emit } from './expressions.ts';
import { type Handler, ImportIndex } from './handler.ts';
import { TAG_OFFSET } from './layout.ts';
import * as S from './state.ts';
import {
  ENTRY_CHECKED,
  ENTRY_TAGGED,
  TLB_DELTA,
  TLB_ENTRIES,
  TLB_ENTRY_SHIFT,
  TLB_FLAGS,
  TLB_MASK,
  TLB_READ_TAG,
  TLB_WRITE_TAG,
} from './tlb.ts';
import { BLOCK_EMPTY, Op } from './wasm/code.ts';

/** Bits of the slow path's argument; see `decodeSlowAccess`. */
const SLOW_BYTES = 0x1ff;
const SLOW_WRITE = 1 << 9;
const SLOW_READ = 1 << 10;
const SLOW_CHECKED = 1 << 11;
const SLOW_UNPRIVILEGED = 1 << 12;
const SLOW_TAG = 1 << 13;
const SLOW_ALIGN_SHIFT = 16;

export interface SlowAccess {
  bytes: number;
  read: boolean;
  write: boolean;
  checked: boolean;
  unprivileged: boolean;
  /** A tag load or store rather than a data access. */
  tag: boolean;
  /** Required alignment in bytes; 1 = none. */
  align: number;
}

/** Unpacks the slow path's argument into a caller-owned record. */
export function decodeSlowAccess(packed: number, out: SlowAccess): void {
  out.bytes = packed & SLOW_BYTES;
  out.read = (packed & SLOW_READ) !== 0;
  out.write = (packed & SLOW_WRITE) !== 0;
  out.checked = (packed & SLOW_CHECKED) !== 0;
  out.unprivileged = (packed & SLOW_UNPRIVILEGED) !== 0;
  out.tag = (packed & SLOW_TAG) !== 0;
  out.align = 1 << (packed >> SLOW_ALIGN_SHIFT);
}

const log2 = (value: number): number => 31 - Math.clz32(value);

function packSlowAccess(options: AccessOptions, tag: boolean): number {
  return (
    options.bytes |
    (options.kind !== 'read' ? SLOW_WRITE : 0) |
    (options.kind !== 'write' ? SLOW_READ : 0) |
    (options.checked === true ? SLOW_CHECKED : 0) |
    (options.unprivileged === true ? SLOW_UNPRIVILEGED : 0) |
    (tag ? SLOW_TAG : 0) |
    (log2(options.align ?? 1) << SLOW_ALIGN_SHIFT)
  );
}

/** Locals of an access: the VA, the TLB entry of its page, the linear address. */
interface AccessLocals {
  readonly va: number;
  readonly entry: number;
  readonly address: number;
}

/** Emits a probe; branches to the block at `depth` on a miss. Sets the entry and address locals. */
function emitProbe(h: Handler, options: AccessOptions, locals: AccessLocals): void {
  const { code } = h;
  const { va, entry, address } = locals;
  const indexMask = (TLB_ENTRIES - 1) << TLB_ENTRY_SHIFT;
  code
    .get(va)
    .i64(BigInt(12 - TLB_ENTRY_SHIFT))
    .op(Op.i64ShrU)
    .op(Op.i32WrapI64);
  code.i32(indexMask).op(Op.i32And);
  code.loadAt(Op.i32Load, options.unprivileged === true ? S.TLB_EL0 : S.TLB).op(Op.i32Add);
  code.set(entry).get(va);
  if (options.bytes > 1) code.i64(BigInt(options.bytes - 1)).op(Op.i64Add);
  code.get(entry).memory(Op.i64Load, TLB_MASK).op(Op.i64And);
  code.get(entry).memory(Op.i64Load, options.kind === 'read' ? TLB_READ_TAG : TLB_WRITE_TAG);
  code.op(Op.i64Ne).op(Op.brIf).u32(0);
  code.get(va).op(Op.i32WrapI64).get(entry).memory(Op.i32Load, TLB_DELTA).op(Op.i32Add);
  code.set(address);
}

/** Emits "branch to the slow block unless the tag of `address + offset` is the logical tag". */
function emitTagCompare(
  h: Handler,
  target: { address: number; offset: number; logical: number; depth: number },
): void {
  const { code } = h;
  const at = h.newLocal('i32');
  code.get(target.address);
  if (target.offset !== 0) code.i32(target.offset).op(Op.i32Add);
  code.tee(at).i32(5).op(Op.i32ShrU).memory(Op.i32Load8U, TAG_OFFSET);
  code.get(at).i32(2).op(Op.i32ShrU).i32(4).op(Op.i32And).op(Op.i32ShrU);
  code.i32(15).op(Op.i32And).get(target.logical).op(Op.i32Ne).op(Op.brIf).u32(target.depth);
}

/** Emits the tag check of a data access, inside the slow block. */
function emitTagCheck(h: Handler, options: AccessOptions, locals: AccessLocals): void {
  const { code } = h;
  const { va, entry, address } = locals;
  code.get(entry).memory(Op.i32Load, TLB_FLAGS);
  code.loadAt(Op.i32Load, options.unprivileged === true ? S.CHECK_FLAGS_EL0 : S.CHECK_FLAGS);
  code.op(Op.i32And).i32(ENTRY_CHECKED).op(Op.i32And);
  if (typeof options.checked === 'object') {
    emit(options.checked, code);
    code.op(Op.i32And);
  }
  code.op(Op.if).op(BLOCK_EMPTY);
  const logical = h.newLocal('i32');
  code.get(va).i64(56n).op(Op.i64ShrU).op(Op.i32WrapI64).i32(15).op(Op.i32And).set(logical);
  emitTagCompare(h, { address, offset: 0, logical, depth: 1 });
  const last = { address, offset: options.bytes - 1, logical };
  if (options.bytes > 16) {
    for (let offset = 16; offset < options.bytes; offset += 16) {
      emitTagCompare(h, { address, offset, logical, depth: 1 });
    }
    emitTagCompare(h, { ...last, depth: 1 });
  } else if (options.bytes > 1) {
    // Only an access that is not aligned to its size reaches a second tag granule.
    code
      .get(address)
      .i32(15)
      .op(Op.i32And)
      .i32(16 - options.bytes)
      .op(Op.i32GtU);
    code.op(Op.if).op(BLOCK_EMPTY);
    emitTagCompare(h, { ...last, depth: 2 });
    code.op(Op.end);
  }
  code.op(Op.end);
}

/** Emits the slow call behind the slow block; leaves the handler when it answers 0. */
function emitSlowCall(h: Handler, options: AccessOptions, va: number, tag: boolean): void {
  const { code } = h;
  h.saveProgress();
  code.i32(0).get(va).memory(Op.i64Store, S.SLOW_VA);
  code.i32(packSlowAccess(options, tag));
  if (typeof options.checked === 'object') {
    emit(options.checked, code);
    code.i32(log2(SLOW_CHECKED)).op(Op.i32Shl).op(Op.i32Or);
  }
  code.op(Op.call).u32(ImportIndex.slow);
}

function emitAlignment(h: Handler, va: number, align: number): void {
  h.code
    .get(va)
    .op(Op.i32WrapI64)
    .i32(align - 1)
    .op(Op.i32And)
    .op(Op.brIf)
    .u32(0);
}

/** Emits a data access; returns the local with the linear address. */
export function emitAccess(h: Handler, options: AccessOptions, va: number): number {
  const { code } = h;
  const locals = { va, entry: h.newLocal('i32'), address: h.newLocal('i32') };
  code.op(Op.block).op(BLOCK_EMPTY).op(Op.block).op(BLOCK_EMPTY);
  if ((options.align ?? 1) > 1) emitAlignment(h, va, options.align ?? 1);
  emitProbe(h, options, locals);
  if (options.checked !== false) emitTagCheck(h, options, locals);
  code.op(Op.br).u32(1).op(Op.end);
  emitSlowCall(h, options, va, false);
  code.tee(locals.address).op(Op.i32Eqz).op(Op.if).op(BLOCK_EMPTY).op(Op.return).op(Op.end);
  code.op(Op.end);
  return locals.address;
}

/** Emits a tag access; returns the locals with the linear address and with "tagged" (0 or 1). */
export function emitTagAccess(
  h: Handler,
  options: { va: I64; bytes: number; kind: 'read' | 'write'; align?: number },
  va: number,
): { address: number; tagged: number } {
  const { code } = h;
  const access: AccessOptions = { ...options, checked: false };
  const tagged = h.newLocal('i32');
  const locals = { va, entry: h.newLocal('i32'), address: h.newLocal('i32') };
  code.op(Op.block).op(BLOCK_EMPTY).op(Op.block).op(BLOCK_EMPTY);
  if ((options.align ?? 1) > 1) emitAlignment(h, va, options.align ?? 1);
  emitProbe(h, access, locals);
  code.get(locals.entry).memory(Op.i32Load, TLB_FLAGS).loadAt(Op.i32Load, S.TAG_FLAGS);
  code.op(Op.i32And).i32(ENTRY_TAGGED).op(Op.i32Eq).set(tagged);
  code.op(Op.br).u32(1).op(Op.end);
  emitSlowCall(h, access, va, true);
  code.tee(locals.address).op(Op.i32Eqz).op(Op.if).op(BLOCK_EMPTY).op(Op.return).op(Op.end);
  code.loadAt(Op.i32Load, S.SLOW_TAGGED).set(tagged);
  code.op(Op.end);
  return { address: locals.address, tagged };
}

/** Pushes the allocation tag of the tag granule at `address + offset`. */
export function emitTagLoad(h: Handler, address: I32, offset: number): void {
  const { code } = h;
  const at = h.newLocal('i32');
  emit(address, code);
  if (offset !== 0) code.i32(offset).op(Op.i32Add);
  code.tee(at).i32(5).op(Op.i32ShrU).memory(Op.i32Load8U, TAG_OFFSET);
  code.get(at).i32(2).op(Op.i32ShrU).i32(4).op(Op.i32And).op(Op.i32ShrU).i32(15).op(Op.i32And);
}

/** Stores a tag (its low 4 bits) for the tag granule at `address + offset`. */
export function emitTagStore(h: Handler, address: I32, tag: I32, offset: number): void {
  const { code } = h;
  const at = h.newLocal('i32');
  const shift = h.newLocal('i32');
  emit(address, code);
  if (offset !== 0) code.i32(offset).op(Op.i32Add);
  code.tee(at).i32(2).op(Op.i32ShrU).i32(4).op(Op.i32And).set(shift);
  code.get(at).i32(5).op(Op.i32ShrU).tee(at);
  // (byte & ~(15 << shift)) | (tag & 15) << shift
  code.get(at).memory(Op.i32Load8U, TAG_OFFSET).i32(0xf0).get(shift).op(Op.i32ShrU);
  code.op(Op.i32And);
  emit(tag, code);
  code.i32(15).op(Op.i32And).get(shift).op(Op.i32Shl).op(Op.i32Or);
  code.memory(Op.i32Store8, TAG_OFFSET);
}
