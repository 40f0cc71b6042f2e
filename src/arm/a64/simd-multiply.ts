/**
 * Multiplications of Advanced SIMD that several chapters share: doubling ones that keep the high
 * half, doubling long ones, dot products. Called by the three-same, three-different and by-element
 * rows.
 */
import type { I64, Ops, V128 } from './ops.ts';
import {
  addSaturated,
  bitsOf,
  compareLanes,
  countOf,
  multiplyLong,
  noteSaturated,
  type Part,
  permute,
  repeat,
  type Saturated,
  type Size,
  vadd,
  vand,
  vshr,
  vxor,
  zeroes,
} from './simd-lanes.ts';

/**
 * High half of the doubled product, optionally rounded, saturated, of 16- or 32-bit elements;
 * raises QC. Arm: SQDMULH, SQRDMULH.
 */
export function doublingHigh(b: Ops, size: Size, n: V128, m: V128, rounding: boolean): V128 {
  const bits = bitsOf(size);
  const wide = (size + 1) as Size;
  const half = (high: boolean): V128 => {
    const product = multiplyLong(b, size, n, m, true, high);
    const rounded = rounding
      ? vadd(b, wide, product, repeat(b, wide, 1n << BigInt(bits - 2)))
      : product;
    return vshr(b, wide, rounded, b.i32(bits - 1), true);
  };
  const packed = permute(b, size, half(false), half(true), (i) => 2 * i);
  // Only the square of the most negative number does not fit, and it comes out as that number.
  const lowest = repeat(b, size, 1n << BigInt(bits - 1));
  const over = b.let(
    vand(b, compareLanes(b, size, 'eq', n, lowest), compareLanes(b, size, 'eq', m, lowest)),
  );
  noteSaturated(b, over);
  return vxor(b, packed, over);
}

/**
 * `d ± n × m` with doubling and rounding, high half, one saturation; raises QC. The part has 16- or
 * 32-bit elements. Arm: SQRDMLAH, SQRDMLSH.
 */
export function doublingHighAccumulate(
  b: Ops,
  part: Part,
  combine: 'add' | 'sub',
  { d, n, m }: { d: V128; n: V128; m: V128 },
): V128 {
  const bits = bitsOf(part.size);
  const read = (vector: V128, i: number): I64 =>
    b.sextFrom(b.lane(vector, bits, i), bits as 16 | 32);
  const limit = (1n << BigInt(bits - 1)) - 1n;
  const saturated = b.variable(b.i32(0));
  let result = zeroes(b);
  for (let i = 0; i < countOf(part); i++) {
    // Halved throughout, so that the sum fits in 64 bits.
    const start = b.add(b.shl(read(d, i), b.i64(bits - 1)), b.i64(1n << BigInt(bits - 2)));
    const sum = b[combine](start, b.mul(read(n, i), read(m, i)));
    const high = b.let(b.shrS(sum, b.i64(bits - 1)));
    const fits = b.let(b.eq(b.sextFrom(high, bits as 16 | 32), high));
    saturated.set(b.or(saturated.value, b.eqz(fits)));
    const extreme = b.xor(b.shrS(high, b.i64(63)), b.i64(limit));
    result = b.withLane(result, bits, i, b.select(fits, high, extreme));
  }
  b.setSaturated(saturated.value);
  return result;
}

/** The doubled product of the low (or high) halves in twice the element size. Arm: SQDMULL. */
export function doublingLong(b: Ops, size: Size, n: V128, m: V128, high: boolean): Saturated {
  const product = b.let(multiplyLong(b, size, n, m, true, high));
  return addSaturated(b, (size + 1) as Size, true, product, product);
}

/** For each 32-bit element the sum of the products of its four bytes. Arm: SDOT, UDOT. */
export function dotProduct(b: Ops, n: V128, m: V128, signed: boolean): V128 {
  const pairs = (high: boolean): V128 =>
    b.vop(
      `i32x4.extadd_pairwise_i16x8_${signed ? 's' : 'u'}`,
      multiplyLong(b, 0, n, m, signed, high),
    );
  const low = b.let(pairs(false));
  const high = b.let(pairs(true));
  return vadd(
    b,
    2,
    permute(b, 2, low, high, (i) => 2 * i),
    permute(b, 2, low, high, (i) => 2 * i + 1),
  );
}
