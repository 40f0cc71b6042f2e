/**
 * Reciprocal and reciprocal square root: estimates, exponents and Newton steps.
 *
 * The estimates are Arm's exact 8-bit tables, computed. Called through the table in operations.ts.
 */
import { addExact, fpNeg, isInfinityTimesZero, mulExact, roundSum } from './arith.ts';
import {
  type FpContext,
  type FpFormat,
  type FpSize,
  Fpsr,
  formatOf,
  fpInfinity,
  fpMaxNormal,
  fpZero,
  isNan,
  roundingOf,
  type Unpacked,
  unpack,
} from './format.ts';
import {
  bitLength,
  constant,
  type Exact,
  invalid,
  overflowsToInfinity,
  processNaN,
  processNaNs,
} from './round.ts';

/**
 * 256…511 to 256…511, as `2^17 / a` rounded from the middle of the interval. Arm: RecipEstimate().
 */
function recipEstimate(a: number): number {
  const middle = a * 2 + 1;
  return (Math.floor((1 << 19) / middle) + 1) >> 1;
}

/** 128…511 to 256…511. Arm: RecipSqrtEstimate(). */
function recipSqrtEstimate(a: number): number {
  const middle = a < 256 ? a * 2 + 1 : (a | 1) * 2;
  let b = 512;
  while (middle * (b + 1) * (b + 1) < 1 << 28) b += 1;
  return (b + 1) >> 1;
}

/** Binary exponent of a finite value: that of its leading one. */
const exponentOf = (value: Exact): number => value.exponent + bitLength(value.mantissa) - 1;

/** The leading one and the eight bits below it: 256…511. */
function leadingNine(value: Exact): number {
  const shift = bitLength(value.mantissa) - 9;
  const top = shift >= 0 ? value.mantissa >> BigInt(shift) : value.mantissa << BigInt(-shift);
  return Number(top);
}

/** Assembles `estimate` (256…511, eight fraction bits) times 2^exponent, below normal included. */
function packEstimate(format: FpFormat, sign: number, exponent: number, estimate: number): bigint {
  const mantissa = BigInt(estimate) << BigInt(format.fractionBits - 8);
  const below = format.minExponent - exponent;
  const biased = below > 0 ? 0 : 1 - below;
  const fraction = (below > 0 ? mantissa >> BigInt(below) : mantissa) & format.fractionMask;
  return fpZero(format, sign) | (BigInt(biased) << BigInt(format.fractionBits)) | fraction;
}

/** Arm: FPRecipEstimate(). */
export function fpRecipEstimate(ctx: FpContext, bits: bigint, size: FpSize): bigint {
  const format = formatOf(size);
  const value = unpack(ctx, format, bits);
  if (isNan(value)) return processNaN(ctx, format, value, bits);
  if (value.kind === 'infinity') return fpZero(format, value.sign);
  if (value.kind === 'zero') {
    ctx.flags |= Fpsr.DZC;
    return fpInfinity(format, value.sign);
  }
  const exponent = exponentOf(value);
  if (exponent < format.minExponent - 2) {
    ctx.flags |= Fpsr.OFC | Fpsr.IXC;
    return overflowsToInfinity(value.sign, roundingOf(ctx))
      ? fpInfinity(format, value.sign)
      : fpMaxNormal(format, value.sign);
  }
  if (ctx.fpcr & format.flushBit && exponent >= -format.minExponent) {
    ctx.flags |= Fpsr.UFC;
    return fpZero(format, value.sign);
  }
  return packEstimate(format, value.sign, -1 - exponent, recipEstimate(leadingNine(value)));
}

/** Arm: FPRSqrtEstimate(). */
export function fpRSqrtEstimate(ctx: FpContext, bits: bigint, size: FpSize): bigint {
  const format = formatOf(size);
  const value = unpack(ctx, format, bits);
  if (isNan(value)) return processNaN(ctx, format, value, bits);
  if (value.kind === 'zero') {
    ctx.flags |= Fpsr.DZC;
    return fpInfinity(format, value.sign);
  }
  if (value.sign) return invalid(ctx, format);
  if (value.kind === 'infinity') return 0n;
  const exponent = exponentOf(value);
  const odd = Math.abs(exponent) % 2 === 1;
  const nine = leadingNine(value);
  const estimate = recipSqrtEstimate(odd ? nine : nine >> 1);
  return packEstimate(format, 0, (odd ? -1 - exponent : -2 - exponent) / 2, estimate);
}

/** A power of two near the reciprocal, sign kept, fraction zero. Arm: FPRecpX(). */
export function fpRecpX(ctx: FpContext, bits: bigint, size: FpSize): bigint {
  const format = formatOf(size);
  const value = unpack(ctx, format, bits);
  if (isNan(value)) return processNaN(ctx, format, value, bits);
  const exponent = bits & format.infinity;
  const largest = format.infinity - (format.fractionMask + 1n);
  return fpZero(format, value.sign) | (exponent === 0n ? largest : exponent ^ format.infinity);
}

/** `2 - a × b`, fused. Arm: FPRecipStepFused(). */
export function fpRecipStep(ctx: FpContext, a: bigint, b: bigint, size: FpSize): bigint {
  return step(ctx, a, b, size, { mantissa: 2n, halve: 0 });
}

/** `(3 - a × b) / 2`, fused. Arm: FPRSqrtStepFused(). */
export function fpRSqrtStep(ctx: FpContext, a: bigint, b: bigint, size: FpSize): bigint {
  return step(ctx, a, b, size, { mantissa: 3n, halve: 1 });
}

/** `(start.mantissa - a × b) / 2^halve` with one rounding; infinity times zero counts as zero. */
function step(
  ctx: FpContext,
  a: bigint,
  b: bigint,
  size: FpSize,
  start: { mantissa: bigint; halve: number },
): bigint {
  const format = formatOf(size);
  const negated = fpNeg(a, size); // before NaNs are looked at: a NaN result has the other sign
  const x: Unpacked = unpack(ctx, format, negated);
  const y: Unpacked = unpack(ctx, format, b);
  const nan = processNaNs(ctx, format, [x, y], [negated, b]);
  if (nan !== undefined) return nan;
  if (isInfinityTimesZero(x, y)) return constant(format, 0, start.mantissa, -start.halve);
  if (x.kind === 'infinity' || y.kind === 'infinity') {
    return fpInfinity(format, x.sign === y.sign ? 0 : 1);
  }
  const sum = addExact({ sign: 0, mantissa: start.mantissa, exponent: 0 }, mulExact(x, y));
  return roundSum(ctx, format, { ...sum, exponent: sum.exponent - start.halve });
}

/** Estimate of the reciprocal of a 0.32 fixed-point number. Arm: UnsignedRecipEstimate(). */
export function unsignedRecipEstimate(value: bigint): bigint {
  if (value >> 31n === 0n) return 0xffff_ffffn;
  return BigInt(recipEstimate(Number(value >> 23n))) << 23n;
}

/** Estimate of the reciprocal square root of a 0.32 number. Arm: UnsignedRSqrtEstimate(). */
export function unsignedRSqrtEstimate(value: bigint): bigint {
  if (value >> 30n === 0n) return 0xffff_ffffn;
  return BigInt(recipSqrtEstimate(Number(value >> 23n))) << 23n;
}
