/**
 * Rounding an exact value into a format, and what becomes of NaN operands.
 *
 * The only place that raises overflow, underflow and inexact for results in a floating-point
 * format. Used by arith.ts, convert.ts and estimate.ts.
 */
import {
  type FpContext,
  Fpcr,
  type FpFormat,
  Fpsr,
  fpInfinity,
  fpMaxNormal,
  fpZero,
  Rounding,
  roundingOf,
  type Unpacked,
} from './format.ts';

/** An exact finite value, `(-1)^sign × mantissa × 2^exponent`. */
export interface Exact {
  readonly sign: 0 | 1;
  readonly mantissa: bigint;
  readonly exponent: number;
}

/** Number of significant bits of a non-negative value. */
export function bitLength(value: bigint): number {
  let length = 0;
  let rest = value;
  while (rest > 0xffff_ffffn) {
    rest >>= 32n;
    length += 32;
  }
  return length + 32 - Math.clz32(Number(rest));
}

/** An integer quotient and what was cut off, compared with half a unit. */
interface Cut {
  readonly quotient: bigint;
  /** 0: exact, 1: below half, 2: half, 3: above half. */
  readonly error: 0 | 1 | 2 | 3;
}

/** `value / 2^shift` rounded towards minus infinity; a negative shift multiplies. */
function cutBits(value: bigint, shift: number): Cut {
  if (shift <= 0) return { quotient: value << BigInt(-shift), error: 0 };
  const quotient = value >> BigInt(shift);
  const rest = value - (quotient << BigInt(shift));
  if (rest === 0n) return { quotient, error: 0 };
  const half = 1n << BigInt(shift - 1);
  return { quotient, error: rest < half ? 1 : rest === half ? 2 : 3 };
}

/** Whether a magnitude that was cut is incremented. Arm: the rounding switch of FPRoundBase(). */
function roundsUp(cut: Cut, sign: number, rounding: Rounding): boolean {
  switch (rounding) {
    case Rounding.TIE_EVEN:
      return cut.error === 3 || (cut.error === 2 && (cut.quotient & 1n) === 1n);
    case Rounding.PLUS_INFINITY:
      return cut.error !== 0 && sign === 0;
    case Rounding.MINUS_INFINITY:
      return cut.error !== 0 && sign === 1;
    case Rounding.TIE_AWAY:
      return cut.error >= 2;
    default:
      return false;
  }
}

/** Whether a magnitude too large for the format becomes infinity rather than the largest number. */
export function overflowsToInfinity(sign: number, rounding: Rounding): boolean {
  switch (rounding) {
    case Rounding.PLUS_INFINITY:
      return sign === 0;
    case Rounding.MINUS_INFINITY:
      return sign === 1;
    case Rounding.ZERO:
    case Rounding.ODD:
      return false;
    default:
      return true;
  }
}

/** Rounds a value that is not zero; AHP is ignored. Arm: FPRound(). */
export function round(
  ctx: FpContext,
  format: FpFormat,
  value: Exact,
  rounding: Rounding = roundingOf(ctx),
): bigint {
  return roundBase(ctx, format, value, rounding, {
    flush: (ctx.fpcr & format.flushBit) !== 0,
    alternative: false,
  });
}

/**
 * Rounds the result of a conversion between formats: AHP counts, FZ16 does not. Arm: FPRoundCV().
 */
export function roundForConvert(
  ctx: FpContext,
  format: FpFormat,
  value: Exact,
  rounding: Rounding,
): bigint {
  return roundBase(ctx, format, value, rounding, {
    flush: format.size !== 16 && (ctx.fpcr & Fpcr.FZ) !== 0,
    alternative: format.size === 16 && (ctx.fpcr & Fpcr.AHP) !== 0,
  });
}

/** Arm: FPRoundBase(). */
function roundBase(
  ctx: FpContext,
  format: FpFormat,
  value: Exact,
  rounding: Rounding,
  mode: { flush: boolean; alternative: boolean },
): bigint {
  const { fractionBits, minExponent } = format;
  const exponent = value.exponent + bitLength(value.mantissa) - 1;
  if (mode.flush && exponent < minExponent) {
    ctx.flags |= Fpsr.UFC; // flushing a result is not inexact
    return fpZero(format, value.sign);
  }
  let biased = Math.max(exponent - minExponent + 1, 0);
  const unit = Math.max(exponent, minExponent) - fractionBits;
  const cut = cutBits(value.mantissa, unit - value.exponent);
  // Tininess is detected before rounding.
  if (biased === 0 && cut.error !== 0) ctx.flags |= Fpsr.UFC;
  let mantissa = cut.quotient;
  if (roundsUp(cut, value.sign, rounding)) {
    mantissa += 1n;
    if (mantissa >> BigInt(fractionBits) === 1n && biased === 0) biased = 1;
    if (mantissa >> BigInt(fractionBits) === 2n) {
      mantissa >>= 1n;
      biased += 1;
    }
  } else if (rounding === Rounding.ODD && cut.error !== 0) {
    mantissa |= 1n;
  }
  if (mode.alternative) {
    if (biased > format.exponentMax) {
      ctx.flags |= Fpsr.IOC;
      return fpZero(format, value.sign) | (format.signBit - 1n);
    }
  } else if (biased >= format.exponentMax) {
    ctx.flags |= Fpsr.OFC | Fpsr.IXC;
    return overflowsToInfinity(value.sign, rounding)
      ? fpInfinity(format, value.sign)
      : fpMaxNormal(format, value.sign);
  }
  if (cut.error !== 0) ctx.flags |= Fpsr.IXC;
  return (
    fpZero(format, value.sign) |
    (BigInt(biased) << BigInt(fractionBits)) |
    (mantissa & format.fractionMask)
  );
}

/**
 * Rounds a signed value to an integer: `{ integer, inexact }`, the integer unbounded.
 * Arm: the common part of FPToFixed() and FPRoundInt().
 */
export function roundToInteger(
  value: Exact,
  rounding: Rounding,
): { integer: bigint; inexact: boolean } {
  const cut = cutBits(value.mantissa, -value.exponent);
  const magnitude = cut.quotient + (roundsUp(cut, value.sign, rounding) ? 1n : 0n);
  return { integer: value.sign ? -magnitude : magnitude, inexact: cut.error !== 0 };
}

/** The result for one NaN operand; raises IOC for a signalling one. Arm: FPProcessNaN(). */
export function processNaN(
  ctx: FpContext,
  format: FpFormat,
  operand: Unpacked,
  bits: bigint,
): bigint {
  if (operand.kind === 'snan') ctx.flags |= Fpsr.IOC;
  return ctx.fpcr & Fpcr.DN ? format.defaultNaN : bits | format.quietBit;
}

/**
 * The NaN result of an operation, or undefined if no operand is a NaN: the first signalling one,
 * else the first quiet one. Arm: FPProcessNaNs(), FPProcessNaNs3().
 */
export function processNaNs(
  ctx: FpContext,
  format: FpFormat,
  operands: readonly Unpacked[],
  bits: readonly bigint[],
): bigint | undefined {
  let index = operands.findIndex((operand) => operand.kind === 'snan');
  if (index < 0) index = operands.findIndex((operand) => operand.kind === 'qnan');
  const operand = operands[index];
  return operand && processNaN(ctx, format, operand, bits[index] ?? 0n);
}

/** The default NaN of an invalid operation; raises IOC. */
export function invalid(ctx: FpContext, format: FpFormat): bigint {
  ctx.flags |= Fpsr.IOC;
  return format.defaultNaN;
}

/** `±mantissa × 2^exponent` as bits; exact by construction, so nothing is raised. */
export function constant(format: FpFormat, sign: 0 | 1, mantissa: bigint, exponent = 0): bigint {
  return round({ fpcr: 0, flags: 0 }, format, { sign, mantissa, exponent });
}
