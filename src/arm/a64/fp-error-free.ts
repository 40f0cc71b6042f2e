/**
 * Error-free transformations: what rounding lost in a sum or a product, computed with the same
 * arithmetic (Knuth, Veltkamp, Dekker), and from them the fused multiply-add that WebAssembly does
 * not have (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms
 * using rounding to odd"). All for rounding to nearest. Called by `fp-lanes.ts`.
 */
import { atLeast, fop, isZero, nativeOf } from './fp-native.ts';
import type { Ops, V128 } from './ops.ts';
import {
  bitsOf,
  repeat,
  type Size,
  vadd,
  vand,
  vor,
  vselect,
  vshr,
  vsub,
  vxor,
} from './simd-lanes.ts';

/** `x + y - sum`, exactly, where nothing overflows. */
function sumError(b: Ops, size: Size, x: V128, y: V128, sum: V128): V128 {
  const virtual = b.let(fop(b, size, 'sub', sum, x));
  const left = fop(b, size, 'sub', x, fop(b, size, 'sub', sum, virtual));
  return fop(b, size, 'add', left, fop(b, size, 'sub', y, virtual));
}

/** Whether `sum` is exactly `x + y`. */
export const sumIsExact = (b: Ops, size: Size, x: V128, y: V128, sum: V128): V128 =>
  isZero(b, size, sumError(b, size, x, y, sum));

/** The upper half of a significand, and the rest (Veltkamp). */
function split(b: Ops, size: Size, x: V128): { high: V128; low: V128 } {
  const scaled = b.let(fop(b, size, 'mul', x, repeat(b, size, nativeOf(size).splitter)));
  const high = b.let(fop(b, size, 'sub', scaled, fop(b, size, 'sub', scaled, x)));
  return { high, low: b.let(fop(b, size, 'sub', x, high)) };
}

/**
 * `x × y - product`, exact for a product that is rounded and not too small (Dekker); a NaN where
 * the splitting overflows.
 */
function productError(b: Ops, size: Size, x: V128, y: V128, product: V128): V128 {
  const p = split(b, size, x);
  const q = split(b, size, y);
  const mul = (u: V128, v: V128): V128 => fop(b, size, 'mul', u, v);
  const sum = (u: V128, v: V128): V128 => fop(b, size, 'add', u, v);
  const first = fop(b, size, 'sub', mul(p.high, q.high), product);
  return sum(sum(sum(first, mul(p.high, q.low)), mul(p.low, q.high)), mul(p.low, q.low));
}

/** Whether `product` is exactly `x × y`; may say no where it is. */
export function productIsExact(b: Ops, size: Size, x: V128, y: V128, product: V128): V128 {
  const error = productError(b, size, x, y, product);
  const reliable = vor(
    b,
    atLeast(b, size, product, nativeOf(size).errorFloor),
    vor(b, isZero(b, size, x), isZero(b, size, y)),
  );
  return vand(b, isZero(b, size, error), reliable);
}

/** Whether `quotient × y` is exactly `x`; may say no where it is. */
export function quotientIsExact(b: Ops, size: Size, x: V128, y: V128, quotient: V128): V128 {
  const product = b.let(fop(b, size, 'mul', quotient, y));
  const same = fop(b, size, 'eq', product, x);
  return vand(b, same, productIsExact(b, size, quotient, y, product));
}

// ---- fused multiply-add -------------------------------------------------------------------------

interface Sum {
  readonly sum: V128;
  readonly error: V128;
}

function twoSum(b: Ops, size: Size, x: V128, y: V128): Sum {
  const sum = b.let(fop(b, size, 'add', x, y));
  return { sum, error: b.let(sumError(b, size, x, y, sum)) };
}

/** The sum rounded to odd: an inexact one with an even significand moves towards its error. */
function roundedToOdd(b: Ops, size: Size, { sum, error }: Sum): V128 {
  const one = repeat(b, size, 1n);
  const even = vsub(b, size, vand(b, sum, one), one);
  const moves = b.vop('v128.andnot', even, isZero(b, size, error));
  // One unit away from zero when the signs agree, else towards it: +1 or -1 on the bits.
  const opposite = vshr(b, size, vxor(b, sum, error), b.i32(bitsOf(size) - 1), true);
  const step = vor(b, opposite, one);
  return vadd(b, size, sum, vand(b, moves, step));
}

/** `addend + x × y` as WebAssembly can do it. */
export interface Fused {
  readonly result: V128;
  /** Mask of elements where the result is right: nothing overflowed or became tiny on the way. */
  readonly good: V128;
  /** Mask of elements where it is exact. */
  exact(): V128;
}

export function fusedMultiplyAdd(b: Ops, size: Size, addend: V128, x: V128, y: V128): Fused {
  const product = b.let(fop(b, size, 'mul', x, y));
  const low = b.let(productError(b, size, x, y, product));
  const inner = twoSum(b, size, addend, low);
  const outer = twoSum(b, size, product, inner.sum);
  const rest = twoSum(b, size, inner.error, outer.error);
  const odd = b.let(roundedToOdd(b, size, rest));
  const fused = b.let(fop(b, size, 'add', outer.sum, odd));
  // A product that is zero has no error, but signs of zeros would get lost above.
  const zero = b.let(vor(b, isZero(b, size, x), isZero(b, size, y)));
  const result = b.let(vselect(b, zero, fop(b, size, 'add', addend, product), fused));
  const { errorFloor, small } = nativeOf(size);
  const safe = vand(
    b,
    atLeast(b, size, product, errorFloor),
    vor(b, atLeast(b, size, result, small), isZero(b, size, result)),
  );
  return {
    result,
    good: vor(b, zero, safe),
    exact() {
      const last = sumError(b, size, outer.sum, odd, fused);
      return vor(b, zero, vand(b, isZero(b, size, rest.error), isZero(b, size, last)));
    },
  };
}
