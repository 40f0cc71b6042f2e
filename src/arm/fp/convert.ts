/**
 * Conversions: between formats, to and from integers and fixed point, to integral values.
 *
 * Called through the table in operations.ts, and by tests.
 */
import {
  type FpContext,
  Fpcr,
  type FpFormat,
  type FpSize,
  Fpsr,
  formatOf,
  fpInfinity,
  fpZero,
  isNan,
  Rounding,
  roundingOf,
  unpack,
  unpackForConvert,
} from './format.ts';
import { processNaN, round, roundForConvert, roundToInteger } from './round.ts';

/** Bits of format `to` for bits of format `from`. Arm: FPConvert(). */
export function fpConvert(
  ctx: FpContext,
  bits: bigint,
  from: FpSize,
  to: FpSize,
  rounding: Rounding = roundingOf(ctx),
): bigint {
  const source = formatOf(from);
  const target = formatOf(to);
  const value = unpackForConvert(ctx, source, bits);
  const alternative = to === 16 && (ctx.fpcr & Fpcr.AHP) !== 0;
  if (isNan(value)) {
    if (value.kind === 'snan' || alternative) ctx.flags |= Fpsr.IOC;
    if (alternative) return fpZero(target, value.sign);
    return ctx.fpcr & Fpcr.DN ? target.defaultNaN : convertNaN(source, target, bits);
  }
  if (value.kind === 'infinity') {
    if (!alternative) return fpInfinity(target, value.sign);
    ctx.flags |= Fpsr.IOC;
    return fpZero(target, value.sign) | (target.signBit - 1n);
  }
  if (value.kind === 'zero') return fpZero(target, value.sign);
  return roundForConvert(ctx, target, value, rounding);
}

/** Keeps the sign and the top bits of the payload, quietened. Arm: FPConvertNaN(). */
function convertNaN(source: FpFormat, target: FpFormat, bits: bigint): bigint {
  const sign = bits & source.signBit ? 1 : 0;
  const fraction = bits & source.fractionMask;
  const shift = target.fractionBits - source.fractionBits;
  const payload = shift >= 0 ? fraction << BigInt(shift) : fraction >> BigInt(-shift);
  return fpInfinity(target, sign) | target.quietBit | payload;
}

/**
 * A saturated two's complement integer of `width` bits holding `value × 2^fractionBits`.
 * Arm: FPToFixed().
 */
export function fpToFixed(
  ctx: FpContext,
  bits: bigint,
  size: FpSize,
  to: {
    width: FpSize;
    unsigned: boolean;
    fractionBits: number;
    rounding: Rounding;
  },
): bigint {
  const value = unpack(ctx, formatOf(size), bits);
  const width = BigInt(to.width);
  const low = to.unsigned ? 0n : -(1n << (width - 1n));
  const high = (1n << (to.unsigned ? width : width - 1n)) - 1n;
  if (isNan(value)) {
    ctx.flags |= Fpsr.IOC;
    return 0n;
  }
  if (value.kind === 'infinity') {
    ctx.flags |= Fpsr.IOC;
    return BigInt.asUintN(to.width, value.sign ? low : high);
  }
  const scaled = { ...value, exponent: value.exponent + to.fractionBits };
  const { integer, inexact } = roundToInteger(scaled, to.rounding);
  if (integer < low || integer > high) {
    ctx.flags |= Fpsr.IOC;
    return BigInt.asUintN(to.width, integer < low ? low : high);
  }
  if (inexact) ctx.flags |= Fpsr.IXC;
  return BigInt.asUintN(to.width, integer);
}

/**
 * The nearest number of format `size` to `integer / 2^fractionBits`. Arm: FixedToFP().
 *
 * `integer` is already sign- or zero-extended by the caller and may be negative.
 */
export function fixedToFp(
  ctx: FpContext,
  integer: bigint,
  size: FpSize,
  fractionBits: number,
): bigint {
  if (integer === 0n) return 0n;
  return round(ctx, formatOf(size), {
    sign: integer < 0n ? 1 : 0,
    mantissa: integer < 0n ? -integer : integer,
    exponent: -fractionBits,
  });
}

/** An integral number in the same format; IXC only when `exact`. Arm: FPRoundInt(). */
export function fpRoundInt(
  ctx: FpContext,
  bits: bigint,
  size: FpSize,
  rounding: Rounding,
  exact: boolean,
): bigint {
  const format = formatOf(size);
  const value = unpack(ctx, format, bits);
  if (isNan(value)) return processNaN(ctx, format, value, bits);
  if (value.kind === 'infinity') return fpInfinity(format, value.sign);
  if (value.kind === 'zero') return fpZero(format, value.sign);
  const { integer, inexact } = roundToInteger(value, rounding);
  if (inexact && exact) ctx.flags |= Fpsr.IXC;
  if (integer === 0n) return fpZero(format, value.sign);
  const mantissa = integer < 0n ? -integer : integer;
  return round(ctx, format, { sign: value.sign, mantissa, exponent: 0 }, Rounding.ZERO);
}
