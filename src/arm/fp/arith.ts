/**
 * Floating-point arithmetic with one rounding: add, multiply, divide, square root, fused
 * multiply-add.
 *
 * Each function takes and returns bits of one format and ORs what it raises into `ctx.flags`.
 * Called through the table in operations.ts, and by tests.
 */
import {
  type FpContext,
  type FpFormat,
  type FpSize,
  Fpsr,
  formatOf,
  fpInfinity,
  fpZero,
  Rounding,
  roundingOf,
  type Unpacked,
  unpack,
} from './format.ts';
import {
  bitLength,
  constant,
  type Exact,
  invalid,
  processNaN,
  processNaNs,
  round,
} from './round.ts';

/** Arm: FPNeg(); raises nothing, also for NaNs. */
export const fpNeg = (bits: bigint, size: FpSize): bigint => bits ^ formatOf(size).signBit;

/** Arm: FPAbs(); raises nothing, also for NaNs. */
export const fpAbs = (bits: bigint, size: FpSize): bigint => bits & (formatOf(size).signBit - 1n);

/** Exact sum; mantissa 0 when the operands cancel (its sign is then decided by the caller). */
export function addExact(a: Exact, b: Exact): Exact {
  const exponent = Math.min(a.exponent, b.exponent);
  const left = a.mantissa << BigInt(a.exponent - exponent);
  const right = b.mantissa << BigInt(b.exponent - exponent);
  const sum = (a.sign ? -left : left) + (b.sign ? -right : right);
  return { sign: sum < 0n ? 1 : 0, mantissa: sum < 0n ? -sum : sum, exponent };
}

/** Rounds a sum; an exact zero is +0, or -0 when rounding towards minus infinity. */
export function roundSum(ctx: FpContext, format: FpFormat, sum: Exact): bigint {
  if (sum.mantissa !== 0n) return round(ctx, format, sum);
  return fpZero(format, roundingOf(ctx) === Rounding.MINUS_INFINITY ? 1 : 0);
}

/** Arm: FPAdd(). */
export function fpAdd(ctx: FpContext, a: bigint, b: bigint, size: FpSize): bigint {
  return addUnpacked(ctx, a, b, size, false);
}

/** Arm: FPSub(); the sign of a NaN second operand is kept. */
export function fpSub(ctx: FpContext, a: bigint, b: bigint, size: FpSize): bigint {
  return addUnpacked(ctx, a, b, size, true);
}

function addUnpacked(ctx: FpContext, a: bigint, b: bigint, size: FpSize, negate: boolean): bigint {
  const format = formatOf(size);
  const x = unpack(ctx, format, a);
  const second = unpack(ctx, format, b);
  const nan = processNaNs(ctx, format, [x, second], [a, b]);
  if (nan !== undefined) return nan;
  const y: Unpacked = negate ? { ...second, sign: second.sign ? 0 : 1 } : second;
  if (x.kind === 'infinity' || y.kind === 'infinity') {
    if (x.kind === y.kind && x.sign !== y.sign) return invalid(ctx, format);
    return fpInfinity(format, x.kind === 'infinity' ? x.sign : y.sign);
  }
  if (x.kind === 'zero' && y.kind === 'zero' && x.sign === y.sign) return fpZero(format, x.sign);
  return roundSum(ctx, format, addExact(x, y));
}

/** Exact product of two finite operands. */
export const mulExact = (a: Exact, b: Exact): Exact => ({
  sign: a.sign === b.sign ? 0 : 1,
  mantissa: a.mantissa * b.mantissa,
  exponent: a.exponent + b.exponent,
});

/** True for infinity times zero, in either order. */
export const isInfinityTimesZero = (a: Unpacked, b: Unpacked): boolean =>
  (a.kind === 'infinity' && b.kind === 'zero') || (a.kind === 'zero' && b.kind === 'infinity');

/** Arm: FPMul(). */
export function fpMul(ctx: FpContext, a: bigint, b: bigint, size: FpSize): bigint {
  return multiply(ctx, a, b, size, false);
}

/** As `fpMul`, but infinity times zero is 2 with the product's sign. Arm: FPMulX(). */
export function fpMulX(ctx: FpContext, a: bigint, b: bigint, size: FpSize): bigint {
  return multiply(ctx, a, b, size, true);
}

/** Arm: FPMul() followed by FPNeg(), as FNMUL does; a NaN result is negated too. */
export function fpNMul(ctx: FpContext, a: bigint, b: bigint, size: FpSize): bigint {
  return fpNeg(fpMul(ctx, a, b, size), size);
}

function multiply(ctx: FpContext, a: bigint, b: bigint, size: FpSize, extended: boolean): bigint {
  const format = formatOf(size);
  const x = unpack(ctx, format, a);
  const y = unpack(ctx, format, b);
  const nan = processNaNs(ctx, format, [x, y], [a, b]);
  if (nan !== undefined) return nan;
  const sign = x.sign === y.sign ? 0 : 1;
  if (isInfinityTimesZero(x, y)) {
    return extended ? constant(format, sign, 2n) : invalid(ctx, format);
  }
  if (x.kind === 'infinity' || y.kind === 'infinity') return fpInfinity(format, sign);
  if (x.kind === 'zero' || y.kind === 'zero') return fpZero(format, sign);
  return round(ctx, format, mulExact(x, y));
}

/** Arm: FPDiv(). */
export function fpDiv(ctx: FpContext, a: bigint, b: bigint, size: FpSize): bigint {
  const format = formatOf(size);
  const x = unpack(ctx, format, a);
  const y = unpack(ctx, format, b);
  const nan = processNaNs(ctx, format, [x, y], [a, b]);
  if (nan !== undefined) return nan;
  const sign = x.sign === y.sign ? 0 : 1;
  if (x.kind === y.kind && x.kind !== 'nonzero') return invalid(ctx, format);
  if (x.kind === 'infinity' || y.kind === 'zero') {
    if (x.kind !== 'infinity') ctx.flags |= Fpsr.DZC;
    return fpInfinity(format, sign);
  }
  if (x.kind === 'zero' || y.kind === 'infinity') return fpZero(format, sign);
  // Three quotient bits beyond the significand, and a sticky bit for the remainder.
  const extra = format.fractionBits + 4 + bitLength(y.mantissa);
  const dividend = x.mantissa << BigInt(extra);
  const quotient = dividend / y.mantissa;
  const sticky = quotient * y.mantissa === dividend ? 0n : 1n;
  return round(ctx, format, {
    sign,
    mantissa: (quotient << 1n) | sticky,
    exponent: x.exponent - y.exponent - extra - 1,
  });
}

/** Largest integer whose square is at most `value` (> 0), by Newton's iteration from above. */
function integerSqrt(value: bigint): bigint {
  let root = 1n << BigInt((bitLength(value) + 1) >> 1);
  for (;;) {
    const next = (root + value / root) >> 1n;
    if (next >= root) return root;
    root = next;
  }
}

/** Arm: FPSqrt(). */
export function fpSqrt(ctx: FpContext, a: bigint, size: FpSize): bigint {
  const format = formatOf(size);
  const x = unpack(ctx, format, a);
  if (x.kind === 'qnan' || x.kind === 'snan') return processNaN(ctx, format, x, a);
  if (x.kind === 'zero') return fpZero(format, x.sign);
  if (x.sign) return invalid(ctx, format);
  if (x.kind === 'infinity') return format.infinity;
  // An even exponent, and twice the bits the root needs, so that the sticky bit is the rest.
  const widen = 2 * format.fractionBits + 8;
  const shift = (x.exponent - widen) % 2 === 0 ? widen : widen + 1;
  const radicand = x.mantissa << BigInt(shift);
  const root = integerSqrt(radicand);
  const sticky = root * root === radicand ? 0n : 1n;
  return round(ctx, format, {
    sign: 0,
    mantissa: (root << 1n) | sticky,
    exponent: (x.exponent - shift) / 2 - 1,
  });
}

/** `addend + a × b` with a single rounding. Arm: FPMulAdd(). */
export function fpMulAdd(
  ctx: FpContext,
  addend: bigint,
  a: bigint,
  b: bigint,
  size: FpSize,
): bigint {
  const format = formatOf(size);
  const z = unpack(ctx, format, addend);
  const x = unpack(ctx, format, a);
  const y = unpack(ctx, format, b);
  const nan = processNaNs(ctx, format, [z, x, y], [addend, a, b]);
  if (z.kind === 'qnan' && isInfinityTimesZero(x, y)) return invalid(ctx, format);
  if (nan !== undefined) return nan;
  if (isInfinityTimesZero(x, y)) return invalid(ctx, format);
  const sign = x.sign === y.sign ? 0 : 1;
  if (x.kind === 'infinity' || y.kind === 'infinity') {
    if (z.kind === 'infinity' && z.sign !== sign) return invalid(ctx, format);
    return fpInfinity(format, sign);
  }
  if (z.kind === 'infinity') return fpInfinity(format, z.sign);
  const product = mulExact(x, y);
  if (z.kind === 'zero' && product.mantissa === 0n && z.sign === sign) return fpZero(format, sign);
  return roundSum(ctx, format, addExact(z, product));
}
