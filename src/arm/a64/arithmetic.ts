/** Semantics shared by the integer chapters: AddWithCarry and its flags, for both widths. */
import type { I32, I64, Int, Letter, Ops } from './ops.ts';

/** A register of the row's width: field `s` says 64-bit. */
export const readReg = (b: Ops, letter: Letter): Int =>
  b.fixed('s') === 1 ? b.x(letter) : b.w(letter);

export const readRegSp = (b: Ops, letter: Letter): Int =>
  b.fixed('s') === 1 ? b.xsp(letter) : b.wsp(letter);

export function writeReg(b: Ops, letter: Letter, value: Int): void {
  if (value.type === 'i64') b.setX(letter, value);
  else b.setW(letter, value);
}

export function writeRegSp(b: Ops, letter: Letter, value: Int): void {
  if (value.type === 'i64') b.setXsp(letter, value);
  else b.setWsp(letter, value);
}

/** A constant of the same width as `like`. */
export const same = <T extends Int>(b: Ops, like: T, value: number): T =>
  (like.type === 'i64' ? b.i64(value) : b.i32(value)) as T;

/** Sign-extended and zero-extended 64-bit views of a result, as `setFlags` wants them. */
export const signOf = (b: Ops, value: Int): I64 => (value.type === 'i64' ? value : b.sext(value));
export const zeroOf = (b: Ops, value: Int): I64 => (value.type === 'i64' ? value : b.zext(value));

/** The top bit as 0 or 1. */
export function topBit(b: Ops, value: Int): I32 {
  return value.type === 'i64' ? b.wrap(b.shrU(value, b.i64(63))) : b.shrU(value, b.i32(31));
}

/** a + c, setting flags. Arm: AddWithCarry(a, c, 0). */
export function addFlags<T extends Int>(b: Ops, x: T, y: T): T {
  const result = b.let(b.add(x, y));
  const overflow = b.and(b.xor(x, result), b.xor(y, result));
  b.setFlags(signOf(b, result), zeroOf(b, result), b.ltU(result, x), topBit(b, overflow));
  return result;
}

/** x - y, setting flags. Arm: AddWithCarry(x, NOT(y), 1). */
export function subFlags<T extends Int>(b: Ops, x: T, y: T): T {
  const result = b.let(b.sub(x, y));
  const overflow = b.and(b.xor(x, y), b.xor(x, result));
  b.setFlags(signOf(b, result), zeroOf(b, result), b.leU(y, x), topBit(b, overflow));
  return result;
}

/** N and Z of a logical result; C and V become 0. */
export function logicFlags(b: Ops, result: Int): void {
  b.setFlags(signOf(b, result), zeroOf(b, result), b.i32(0), b.i32(0));
}
