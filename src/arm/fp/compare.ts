/**
 * Floating-point comparison, minimum and maximum.
 *
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
  isNan,
  type Unpacked,
  unpack,
} from './format.ts';
import { processNaNs, round } from './round.ts';

/** Orders two operands that are no NaNs: negative, zero or positive. */
function order(a: Unpacked, b: Unpacked): number {
  const left = rank(a);
  const right = rank(b);
  if (left !== right || a.kind !== 'nonzero') return left - right;
  const exponent = Math.min(a.exponent, b.exponent);
  const x = a.mantissa << BigInt(a.exponent - exponent);
  const y = b.mantissa << BigInt(b.exponent - exponent);
  const magnitude = x < y ? -1 : x > y ? 1 : 0;
  return a.sign ? -magnitude : magnitude;
}

/** Coarse order: -infinity, negative, zero (both signs), positive, +infinity. */
function rank(value: Unpacked): number {
  if (value.kind === 'zero') return 0;
  const magnitude = value.kind === 'infinity' ? 2 : 1;
  return value.sign ? -magnitude : magnitude;
}

/**
 * NZCV (4 bits) of a comparison; any NaN raises IOC when `signalAll`, a signalling NaN always.
 * Arm: FPCompare().
 */
export function fpCompare(
  ctx: FpContext,
  a: bigint,
  b: bigint,
  size: FpSize,
  signalAll: boolean,
): bigint {
  const ordering = orderOf(ctx, a, b, size, signalAll);
  if (ordering === undefined) return 0b0011n;
  return ordering === 0 ? 0b0110n : ordering < 0 ? 0b1000n : 0b0010n;
}

/** The order of two operands, or undefined when one is a NaN. */
function orderOf(
  ctx: FpContext,
  a: bigint,
  b: bigint,
  size: FpSize,
  signalAll: boolean,
): number | undefined {
  const format = formatOf(size);
  const x = unpack(ctx, format, a);
  const y = unpack(ctx, format, b);
  if (!isNan(x) && !isNan(y)) return order(x, y);
  if (signalAll || x.kind === 'snan' || y.kind === 'snan') ctx.flags |= Fpsr.IOC;
  return undefined;
}

const mask = (size: FpSize, condition: boolean): bigint =>
  condition ? (1n << BigInt(size)) - 1n : 0n;

/** All ones where equal, else zero; quiet NaNs raise nothing. Arm: FPCompareEQ(). */
export function fpCompareEq(ctx: FpContext, a: bigint, b: bigint, size: FpSize): bigint {
  return mask(size, orderOf(ctx, a, b, size, false) === 0);
}

/** All ones where `a >= b`, else zero; any NaN raises IOC. Arm: FPCompareGE(). */
export function fpCompareGe(ctx: FpContext, a: bigint, b: bigint, size: FpSize): bigint {
  return mask(size, (orderOf(ctx, a, b, size, true) ?? -1) >= 0);
}

/** All ones where `a > b`, else zero; any NaN raises IOC. Arm: FPCompareGT(). */
export function fpCompareGt(ctx: FpContext, a: bigint, b: bigint, size: FpSize): bigint {
  return mask(size, (orderOf(ctx, a, b, size, true) ?? -1) > 0);
}

/** Arm: FPMax(). */
export function fpMax(ctx: FpContext, a: bigint, b: bigint, size: FpSize): bigint {
  return select(ctx, a, b, size, (ordering) => ordering > 0);
}

/** Arm: FPMin(). */
export function fpMin(ctx: FpContext, a: bigint, b: bigint, size: FpSize): bigint {
  return select(ctx, a, b, size, (ordering) => ordering < 0);
}

function select(
  ctx: FpContext,
  a: bigint,
  b: bigint,
  size: FpSize,
  takesFirst: (ordering: number) => boolean,
): bigint {
  const format = formatOf(size);
  const x = unpack(ctx, format, a);
  const y = unpack(ctx, format, b);
  const nan = processNaNs(ctx, format, [x, y], [a, b]);
  if (nan !== undefined) return nan;
  if (x.kind === 'zero' && y.kind === 'zero') {
    // Of zeros with different signs, max takes +0 and min takes -0.
    const sign = takesFirst(1) ? x.sign & y.sign : x.sign | y.sign;
    return fpZero(format, sign);
  }
  return pack(ctx, format, takesFirst(order(x, y)) ? x : y);
}

function pack(ctx: FpContext, format: FpFormat, value: Unpacked): bigint {
  if (value.kind === 'infinity') return fpInfinity(format, value.sign);
  return value.kind === 'zero' ? fpZero(format, value.sign) : round(ctx, format, value);
}

/** As `fpMax`, but a number wins over a quiet NaN. Arm: FPMaxNum(). */
export function fpMaxNum(ctx: FpContext, a: bigint, b: bigint, size: FpSize): bigint {
  const [x, y] = replaceQuiet(ctx, a, b, formatOf(size), 1);
  return fpMax(ctx, x, y, size);
}

/** As `fpMin`, but a number wins over a quiet NaN. Arm: FPMinNum(). */
export function fpMinNum(ctx: FpContext, a: bigint, b: bigint, size: FpSize): bigint {
  const [x, y] = replaceQuiet(ctx, a, b, formatOf(size), 0);
  return fpMin(ctx, x, y, size);
}

/** Puts the infinity that always loses in place of a lone quiet NaN. */
function replaceQuiet(
  ctx: FpContext,
  a: bigint,
  b: bigint,
  format: FpFormat,
  sign: number,
): [bigint, bigint] {
  const first = unpack(ctx, format, a).kind === 'qnan';
  const second = unpack(ctx, format, b).kind === 'qnan';
  if (first === second) return [a, b];
  const loser = fpInfinity(format, sign);
  return first ? [loser, b] : [a, loser];
}
