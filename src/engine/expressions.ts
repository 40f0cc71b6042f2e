/**
 * Pure values of the builders: expressions that append their code, with constants folded. They read
 * nothing but locals, so one may be appended any number of times. Statements, registers and memory
 * are the builders' own.
 */
import type { I32, I64, Int, V128, Value } from '../arm/a64/ops.ts';
import { type Code, Op, type ValueType } from './wasm/code.ts';

type Emit = (code: Code) => void;

interface Expression {
  readonly type: ValueType;
  readonly known: number | bigint | undefined;
  readonly emit: Emit;
}

/** Appends the code of a value. */
export function emit(value: Value, code: Code): void {
  (value as unknown as Expression).emit(code);
}

const make = (type: ValueType, known: number | bigint | undefined, emitter: Emit): Expression => ({
  type,
  known,
  emit: emitter,
});

/** A 32-bit value computed by `emitter`. */
export const asI32 = (emitter: Emit): I32 => make('i32', undefined, emitter) as unknown as I32;
export const asI64 = (emitter: Emit): I64 => make('i64', undefined, emitter) as unknown as I64;
export const asV128 = (emitter: Emit): V128 => make('v128', undefined, emitter) as unknown as V128;

/** A value of the same type as `like`. */
export const asLike = <T extends Value>(like: T, emitter: Emit): T =>
  make(like.type, undefined, emitter) as unknown as T;

export function i32(value: number): I32 {
  const known = value | 0;
  return make('i32', known, (c) => c.i32(known)) as unknown as I32;
}

export function i64(value: bigint | number): I64 {
  const known = BigInt.asIntN(64, BigInt(value));
  return make('i64', known, (c) => c.i64(known)) as unknown as I64;
}

const constant = <T extends Int>(like: T, value: bigint): T =>
  (like.type === 'i32' ? i32(Number(BigInt.asIntN(32, value))) : i64(value)) as T;

type Fold = (a: bigint, b: bigint, width: bigint) => bigint;
const unsigned = (a: bigint, width: bigint): bigint => BigInt.asUintN(Number(width), a);

function known(value: Int): bigint | undefined {
  return value.known === undefined ? undefined : BigInt(value.known);
}

const widthOf = (value: Int): bigint => (value.type === 'i32' ? 32n : 64n);

function binary(
  op32: number,
  op64: number,
  fold: Fold,
  /** `b` that leaves `a` as it is. */
  neutral?: bigint,
): <T extends Int>(a: T, b: T) => T {
  return <T extends Int>(a: T, b: T): T => {
    const ka = known(a);
    const kb = known(b);
    if (ka !== undefined && kb !== undefined) return constant(a, fold(ka, kb, widthOf(a)));
    if (kb !== undefined && kb === neutral) return a;
    const opcode = a.type === 'i32' ? op32 : op64;
    return asLike(a, (c) => {
      emit(a, c);
      emit(b, c);
      c.op(opcode);
    });
  };
}

export const add = binary(0x6a, 0x7c, (a, b) => a + b, 0n);
export const sub = binary(0x6b, 0x7d, (a, b) => a - b, 0n);
export const mul = binary(0x6c, 0x7e, (a, b) => a * b, 1n);
export const divS = binary(0x6d, 0x7f, (a, b) => a / b);
export const divU = binary(0x6e, 0x80, (a, b, w) => unsigned(a, w) / unsigned(b, w));
export const and = binary(0x71, 0x83, (a, b) => a & b, -1n);
export const or = binary(0x72, 0x84, (a, b) => a | b, 0n);
export const xor = binary(0x73, 0x85, (a, b) => a ^ b, 0n);
export const shl = binary(0x74, 0x86, (a, b, w) => a << (b & (w - 1n)), 0n);
export const shrS = binary(0x75, 0x87, (a, b, w) => a >> (b & (w - 1n)), 0n);
export const shrU = binary(0x76, 0x88, (a, b, w) => unsigned(a, w) >> (b & (w - 1n)), 0n);
export const rotr = binary(
  0x78,
  0x8a,
  (a, b, w) => {
    const by = b & (w - 1n);
    const u = unsigned(a, w);
    return (u >> by) | (u << (w - by));
  },
  0n,
);
export const not = <T extends Int>(a: T): T => xor(a, constant(a, -1n));

function unary(op32: number, op64: number): <T extends Int>(a: T) => T {
  return <T extends Int>(a: T): T =>
    asLike(a, (c) => {
      emit(a, c);
      c.op(a.type === 'i32' ? op32 : op64);
    });
}

export const clz = unary(0x67, 0x79);
export const ctz = unary(0x68, 0x7a);
export const popcnt = unary(0x69, 0x7b);

function comparison(
  op32: number,
  op64: number,
  fold: (a: bigint, b: bigint, width: bigint) => boolean,
): <T extends Int>(a: T, b: T) => I32 {
  return <T extends Int>(a: T, b: T): I32 => {
    const ka = known(a);
    const kb = known(b);
    if (ka !== undefined && kb !== undefined) return i32(fold(ka, kb, widthOf(a)) ? 1 : 0);
    return asI32((c) => {
      emit(a, c);
      emit(b, c);
      c.op(a.type === 'i32' ? op32 : op64);
    });
  };
}

export const eq = comparison(0x46, 0x51, (a, b) => a === b);
export const ne = comparison(0x47, 0x52, (a, b) => a !== b);
export const ltS = comparison(0x48, 0x53, (a, b) => a < b);
export const ltU = comparison(0x49, 0x54, (a, b, w) => unsigned(a, w) < unsigned(b, w));
export const leS = comparison(0x4c, 0x57, (a, b) => a <= b);
export const leU = comparison(0x4d, 0x58, (a, b, w) => unsigned(a, w) <= unsigned(b, w));

export function eqz(a: Int): I32 {
  if (a.known !== undefined) return i32(BigInt(a.known) === 0n ? 1 : 0);
  return asI32((c) => {
    emit(a, c);
    c.op(a.type === 'i32' ? Op.i32Eqz : Op.i64Eqz);
  });
}

export function select<T extends Value>(condition: I32, yes: T, no: T): T {
  if (condition.known !== undefined) return condition.known !== 0 ? yes : no;
  return asLike(yes, (c) => {
    emit(yes, c);
    emit(no, c);
    emit(condition, c);
    if (yes.type === 'v128') c.op(0x1c).u32(1).op(0x7b);
    else c.op(Op.select);
  });
}

export function wrap(a: I64): I32 {
  if (a.known !== undefined) return i32(Number(BigInt.asIntN(32, a.known)));
  return asI32((c) => {
    emit(a, c);
    c.op(Op.i32WrapI64);
  });
}

export function zext(a: I32): I64 {
  if (a.known !== undefined) return i64(a.known >>> 0);
  return asI64((c) => {
    emit(a, c);
    c.op(Op.i64ExtendI32U);
  });
}

export function sext(a: I32): I64 {
  if (a.known !== undefined) return i64(a.known);
  return asI64((c) => {
    emit(a, c);
    c.op(Op.i64ExtendI32S);
  });
}

export function sextFrom<T extends Int>(a: T, bits: 8 | 16 | 32): T {
  const value = known(a);
  if (value !== undefined) return constant(a, BigInt.asIntN(bits, value));
  if (a.type === 'i32' && bits === 32) return a;
  const base = a.type === 'i32' ? 0xc0 : 0xc2;
  const opcode = base + (bits === 8 ? 0 : bits === 16 ? 1 : 2);
  return asLike(a, (c) => {
    emit(a, c);
    c.op(opcode);
  });
}
