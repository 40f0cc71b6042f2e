/**
 * What the SIMD and floating-point rows share: the part of a register an instruction works on, and
 * integer lane arithmetic that WebAssembly has no single instruction for. Element sizes are given
 * as the Arm ARM's `size` field does, the logarithm of the bytes. Nothing here knows an encoding.
 */
import type { ElementSize, I32, I64, Ops, V128 } from './ops.ts';

/** Logarithm of the bytes of an element. */
export type Size = 0 | 1 | 2 | 3;

/** Bits of an element. */
export const bitsOf = (size: Size): ElementSize => (8 << size) as ElementSize;

/** WebAssembly's name of the shape with elements of this size. */
export const shapeOf = (size: Size): string => ['i8x16', 'i16x8', 'i32x4', 'i64x2'][size]!;

/** How much of a register takes part: all of it, its low half, or element 0. */
export interface Part {
  readonly size: Size;
  readonly bits: 8 | 16 | 32 | 64 | 128;
}

/** A vector of 64 or 128 bits (Q = 0 or 1). */
export const vectorPart = (size: Size, q: number): Part => ({ size, bits: q === 1 ? 128 : 64 });
/** A scalar: element 0. */
export const scalarPart = (size: Size): Part => ({ size, bits: bitsOf(size) });
export const countOf = (part: Part): number => part.bits / bitsOf(part.size);

/** The same value in every element. */
export function repeat(b: Ops, size: Size, value: bigint): V128 {
  const bits = bitsOf(size);
  let half = 0n;
  for (let at = 0; at < 64; at += bits) half |= BigInt.asUintN(bits, value) << BigInt(at);
  return b.v128(half, half);
}

export const zeroes = (b: Ops): V128 => b.v128(0n, 0n);
export const allOnes = (b: Ops): V128 => b.v128(-1n, -1n);

/** `value` with everything behind the part cleared. */
export function keep(b: Ops, part: Part, value: V128): V128 {
  if (part.bits === 128) return value;
  return b.vop('v128.and', value, b.v128((1n << BigInt(part.bits)) - 1n, 0n));
}

/** The part of a V register, the rest zero. */
export const readPart = (b: Ops, part: Part, letter: string): V128 =>
  part.bits === 128 ? b.v(letter) : b.let(keep(b, part, b.v(letter)));

/** Writes the part and clears the rest of the register. Arm: V[] of a narrower value. */
export function writePart(b: Ops, part: Part, letter: string, value: V128): void {
  if (part.bits < 128) b.setScalar(letter, part.bits as ElementSize, b.lane(value, 64, 0));
  else b.setV(letter, value);
}

/** `write` for results that go to the lower or, leaving the rest, the upper half (`xtn2`). */
export function writeHalf(b: Ops, upper: boolean, letter: string, value: V128): void {
  if (upper) b.setElement(letter, 64, 1, b.lane(value, 64, 0));
  else b.setScalar(letter, 64, b.lane(value, 64, 0));
}

// ---- shuffles -----------------------------------------------------------------------------------

/** A shuffle given by elements: `from(i)` is the element of a:b that becomes element i. */
export function permute(
  b: Ops,
  size: Size,
  x: V128,
  y: V128,
  from: (element: number) => number,
): V128 {
  const bytes = 1 << size;
  const lanes = Array.from(
    { length: 16 },
    (_, i) => from(Math.floor(i / bytes)) * bytes + (i % bytes),
  );
  return b.shuffle(x, y, lanes);
}

/** The low half of `x`, then the low half of `y`: two 64-bit vectors as one. */
export const joinHalves = (b: Ops, x: V128, y: V128): V128 =>
  permute(b, 3, x, y, (i) => (i === 0 ? 0 : 2));

/**
 * The elements at even (`odd` = 0) or odd positions of x:y, as many as the part holds.
 * For 64 bits the inputs are the low halves.
 */
export function alternate(b: Ops, part: Part, x: V128, y: V128, odd: 0 | 1): V128 {
  const count = 128 / bitsOf(part.size);
  if (part.bits === 128) return permute(b, part.size, x, y, (i) => 2 * i + odd);
  const half = count / 2;
  return permute(b, part.size, x, y, (i) => {
    const at = 2 * (i % half) + odd;
    return at < half ? at : at - half + count;
  });
}

/** The low halves of elements of `size` + 1, in the low half of the result. */
export const narrowed = (b: Ops, size: Size, x: V128): V128 =>
  permute(b, size, x, x, (i) => (2 * i) % (16 >> size));

/** The high halves of elements of `size` + 1, in the low half of the result. */
export const narrowedHigh = (b: Ops, size: Size, x: V128): V128 =>
  permute(b, size, x, x, (i) => (2 * i + 1) % (16 >> size));

/** Elements of `size` from the low (or high) half, extended to twice the size. */
export function extend(b: Ops, size: Size, x: V128, signed: boolean, high: boolean): V128 {
  const wide = shapeOf((size + 1) as Size);
  const sign = signed ? 's' : 'u';
  return b.vop(`${wide}.extend_${high ? 'high' : 'low'}_${shapeOf(size)}_${sign}`, x);
}

/** Full products of elements of `size` from the low (or high) halves. */
export function multiplyLong(
  b: Ops,
  size: Size,
  x: V128,
  y: V128,
  signed: boolean,
  high: boolean,
): V128 {
  const wide = shapeOf((size + 1) as Size);
  const sign = signed ? 's' : 'u';
  return b.vop(`${wide}.extmul_${high ? 'high' : 'low'}_${shapeOf(size)}_${sign}`, x, y);
}

// ---- lanes --------------------------------------------------------------------------------------

export const vadd = (b: Ops, size: Size, x: V128, y: V128): V128 =>
  b.vop(`${shapeOf(size)}.add`, x, y);
export const vsub = (b: Ops, size: Size, x: V128, y: V128): V128 =>
  b.vop(`${shapeOf(size)}.sub`, x, y);
export const vand = (b: Ops, x: V128, y: V128): V128 => b.vop('v128.and', x, y);
export const vor = (b: Ops, x: V128, y: V128): V128 => b.vop('v128.or', x, y);
export const vxor = (b: Ops, x: V128, y: V128): V128 => b.vop('v128.xor', x, y);
export const vnot = (b: Ops, x: V128): V128 => b.vop('v128.not', x);
/** `mask ? yes : no`, bit by bit. */
export const vselect = (b: Ops, mask: V128, yes: V128, no: V128): V128 =>
  b.vop('v128.bitselect', yes, no, mask);
export const vshl = (b: Ops, size: Size, x: V128, by: I32): V128 =>
  b.vop(`${shapeOf(size)}.shl`, x, by);
export const vshr = (b: Ops, size: Size, x: V128, by: I32, signed: boolean): V128 =>
  b.vop(`${shapeOf(size)}.shr_${signed ? 's' : 'u'}`, x, by);

/** All ones where the top bit of the element is set. */
export const signMask = (b: Ops, size: Size, x: V128): V128 =>
  vshr(b, size, x, b.i32(bitsOf(size) - 1), true);

const mostNegative = (b: Ops, size: Size): V128 => repeat(b, size, 1n << BigInt(bitsOf(size) - 1));

export type Comparison = 'eq' | 'gt_s' | 'ge_s' | 'gt_u' | 'ge_u';

/** All ones where the comparison holds. */
export function compareLanes(b: Ops, size: Size, how: Comparison, x: V128, y: V128): V128 {
  if (size === 3 && how.endsWith('u')) {
    // WebAssembly has no unsigned comparisons of 64-bit elements: move the range.
    const bias = mostNegative(b, 3);
    return b.vop(`i64x2.${how.replace('u', 's')}`, vxor(b, x, bias), vxor(b, y, bias));
  }
  return b.vop(`${shapeOf(size)}.${how}`, x, y);
}

/** Minimum or maximum of 8-, 16- or 32-bit elements. */
export const extremum = (
  b: Ops,
  size: Size,
  which: 'min' | 'max',
  signed: boolean,
  x: V128,
  y: V128,
): V128 => b.vop(`${shapeOf(size)}.${which}_${signed ? 's' : 'u'}`, x, y);

/** Product modulo the element size. */
export function multiplyLanes(b: Ops, size: Size, x: V128, y: V128): V128 {
  if (size !== 0) return b.vop(`${shapeOf(size)}.mul`, x, y);
  const low = multiplyLong(b, 0, x, y, false, false);
  const high = multiplyLong(b, 0, x, y, false, true);
  return b.shuffle(low, high, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30]);
}

/** `|x - y|` of 8-, 16- or 32-bit elements, taken as signed or unsigned numbers. */
export const absoluteDifference = (b: Ops, size: Size, signed: boolean, x: V128, y: V128): V128 =>
  vsub(b, size, extremum(b, size, 'max', signed, x, y), extremum(b, size, 'min', signed, x, y));

/**
 * `x >> by` for 1 ≤ by ≤ element bits, optionally rounded to nearest with ties up.
 * Arm: (Int(x) + round_const) >> shift, without the bit that would overflow.
 */
export function shiftRight(
  b: Ops,
  size: Size,
  x: V128,
  by: I32,
  options: { signed: boolean; rounding: boolean },
): V128 {
  // Two steps: WebAssembly takes shift amounts modulo the element bits.
  const almost = b.let(vshr(b, size, x, b.sub(by, b.i32(1)), options.signed));
  const shifted = vshr(b, size, almost, b.i32(1), options.signed);
  if (!options.rounding) return shifted;
  return vadd(b, size, shifted, vand(b, almost, repeat(b, size, 1n)));
}

// ---- saturation ---------------------------------------------------------------------------------

/** QC := 1 where any bit of the mask is set. */
export const noteSaturated = (b: Ops, mask: V128): void =>
  b.setSaturated(b.vtest('v128.any_true', mask));

/** A saturated result and the mask of the elements that were saturated. */
export interface Saturated {
  readonly value: V128;
  readonly mask: V128;
}

/** The most positive number where `like` is positive, the most negative where it is negative. */
const extremeLike = (b: Ops, size: Size, like: V128): V128 =>
  vxor(b, signMask(b, size, like), repeat(b, size, (1n << BigInt(bitsOf(size) - 1)) - 1n));

/** Arm: SatQ() of a sum, per element. `x` and `y` must be cheap to repeat. */
export function addSaturated(b: Ops, size: Size, signed: boolean, x: V128, y: V128): Saturated {
  const sum = b.let(vadd(b, size, x, y));
  if (signed) {
    const overflow = vand(b, vxor(b, x, sum), vxor(b, y, sum));
    const mask = b.let(signMask(b, size, overflow));
    return { value: vselect(b, mask, extremeLike(b, size, x), sum), mask };
  }
  // The carry out of the top bit: both operands have it, or one has it and the sum does not.
  const carry = vor(b, vand(b, x, y), b.vop('v128.andnot', vor(b, x, y), sum));
  const mask = b.let(signMask(b, size, carry));
  return { value: vor(b, sum, mask), mask };
}

/** Arm: SatQ() of a difference, per element. `x` and `y` must be cheap to repeat. */
export function subSaturated(b: Ops, size: Size, signed: boolean, x: V128, y: V128): Saturated {
  const difference = b.let(vsub(b, size, x, y));
  if (signed) {
    const overflow = vand(b, vxor(b, x, y), vxor(b, x, difference));
    const mask = b.let(signMask(b, size, overflow));
    return { value: vselect(b, mask, extremeLike(b, size, x), difference), mask };
  }
  const borrow = vor(b, b.vop('v128.andnot', y, x), vand(b, vor(b, vnot(b, x), y), difference));
  const mask = b.let(signMask(b, size, borrow));
  return { value: b.vop('v128.andnot', difference, mask), mask };
}

/** Which numbers a narrowing takes and gives: `sqxtn`, `uqxtn`, `sqxtun`. */
export type Narrowing = 'signed' | 'unsigned' | 'to-unsigned';

/**
 * Elements of `size` + 1 saturated to `size` and packed into the low half; raises QC.
 * `x` must be cheap to repeat.
 */
export function narrowSaturated(b: Ops, size: Size, how: Narrowing, x: V128): V128 {
  const wide = (size + 1) as Size;
  const bits = bitsOf(size);
  if (how === 'signed') {
    const low = narrowed(b, size, x);
    const back = vshr(b, wide, vshl(b, wide, x, b.i32(bits)), b.i32(bits), true);
    const over = b.let(vnot(b, compareLanes(b, wide, 'eq', back, x)));
    noteSaturated(b, over);
    const limit = vxor(b, signMask(b, wide, x), repeat(b, wide, (1n << BigInt(bits - 1)) - 1n));
    return vselect(b, narrowed(b, size, over), narrowed(b, size, limit), low);
  }
  const highBits = repeat(b, wide, ~((1n << BigInt(bits)) - 1n));
  const over = b.let(vnot(b, compareLanes(b, wide, 'eq', vand(b, x, highBits), zeroes(b))));
  noteSaturated(b, over);
  if (how === 'unsigned') return narrowed(b, size, vor(b, x, over));
  return narrowed(b, size, b.vop('v128.andnot', vor(b, x, over), signMask(b, wide, x)));
}

// ---- single elements ----------------------------------------------------------------------------

/**
 * Runs `body` for every element at run time, with its index; unrolled where there is one. An
 * element may be written once the elements it depends on (those of the same index) were read.
 */
export function eachElement(b: Ops, count: number, body: (index: number | I32) => void): void {
  if (count === 1) {
    body(0);
    return;
  }
  const index = b.variable(b.i32(0));
  b.while(
    () => b.ltU(index.value, b.i32(count)),
    () => {
      body(index.value);
      index.set(b.add(index.value, b.i32(1)));
    },
  );
}

/** Element `index` of a register, sign- or zero-extended to 64 bits. */
export function readElement(
  b: Ops,
  letter: string,
  size: Size,
  index: number | I32,
  signed: boolean,
): I64 {
  const value = b.element(letter, bitsOf(size), index);
  return signed && size < 3 ? b.let(b.sextFrom(value, bitsOf(size) as 8 | 16 | 32)) : value;
}

/** Clears what lies behind the part, after its elements were written one by one. */
export function clearRest(b: Ops, part: Part, letter: string): void {
  if (part.bits === 128) return;
  if (part.bits === 64) b.setElement(letter, 64, 1, b.i64(0));
  else
    b.setScalar(letter, part.bits as ElementSize, b.element(letter, part.bits as ElementSize, 0));
}
