/**
 * One element shifted by a signed amount from a register: SSHL, USHL and their rounding and
 * saturating relatives. Called by the three-same rows for every element at run time.
 */
import type { I64, Ops } from './ops.ts';
import { bitsOf, type Size } from './simd-lanes.ts';

export interface RegisterShift {
  readonly signed: boolean;
  readonly saturating?: boolean;
  readonly rounding?: boolean;
}

/**
 * `value` (extended to 64 bits) shifted left by `by` (-128…127), right when it is negative; the low
 * bits of the answer are the element. Raises QC where it saturates.
 */
export function shiftByRegister(
  b: Ops,
  size: Size,
  value: I64,
  by: I64,
  options: RegisterShift,
): I64 {
  const amount = b.let(by);
  const result = b.variable(b.i64(0));
  b.if(
    b.ltS(amount, b.i64(0)),
    () => result.set(shiftRightBy(b, value, b.sub(b.i64(0), amount), options)),
    () =>
      result.set(
        options.saturating
          ? shiftLeftSaturated(b, size, value, amount, options.signed)
          : b.select(b.ltU(amount, b.i64(64)), b.shl(value, amount), b.i64(0)),
      ),
  );
  return result.value;
}

/** By 1…128. A right shift never saturates. */
function shiftRightBy(b: Ops, value: I64, by: I64, { signed, rounding }: RegisterShift): I64 {
  const shift = signed ? b.shrS : b.shrU;
  // In two steps, as 64-bit shifts take their amount modulo 64.
  const almost = b.let(shift(value, b.sub(by, b.i64(1))));
  const shifted = shift(almost, b.i64(1));
  const near = rounding ? b.add(shifted, b.and(almost, b.i64(1))) : shifted;
  const far = signed && !rounding ? b.shrS(value, b.i64(63)) : b.i64(0);
  return b.select(b.leU(by, b.i64(64)), near, far);
}

/** Arm: SatQ() of a left shift by 0…127. */
function shiftLeftSaturated(b: Ops, size: Size, value: I64, by: I64, signed: boolean): I64 {
  const bits = bitsOf(size);
  // The element at the top of 64 bits, so that what leaves it leaves the register.
  const placed = b.let(b.shl(value, b.i64(64 - bits)));
  const shifted = b.let(b.shl(placed, by));
  const back = signed ? b.shrS(shifted, by) : b.shrU(shifted, by);
  const lost = b.or(b.ne(back, placed), b.and(b.leU(b.i64(64), by), b.ne(placed, b.i64(0))));
  const over = b.let(lost);
  b.setSaturated(over);
  const limit = signed ? b.xor(b.shrS(placed, b.i64(63)), b.i64((1n << 63n) - 1n)) : b.i64(-1n);
  return b.shrU(b.select(over, limit, shifted), b.i64(64 - bits));
}
