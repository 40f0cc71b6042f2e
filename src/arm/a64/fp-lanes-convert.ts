/**
 * Conversions of all elements of a part at once: to and from integers of the same width, to
 * integral values, between single and double precision. As in `fp-lanes.ts`, WebAssembly's
 * instructions where they give Arm's result and flags, else `arm/fp`. Called by the scalar and the
 * vector rows.
 */
import { ROUNDING_FPCR, Rounding } from '../fp/index.ts';
import {
  type Attempt,
  addAttempt,
  attemptOr,
  type FpOperation,
  isNativeMode,
  keepsDenormals,
  softLanes,
} from './fp-lanes.ts';
import { atLeast, fop, isFiniteValue, isZero, magnitude } from './fp-native.ts';
import type { I32, I64, Ops, V128 } from './ops.ts';
import {
  bitsOf,
  countOf,
  type Part,
  permute,
  repeat,
  type Size,
  scalarPart,
  vadd,
  vand,
  vor,
  zeroes,
} from './simd-lanes.ts';

/** A rounding mode of an instruction: a fixed one, or FPCR's. */
export type RoundingMode = Rounding | typeof ROUNDING_FPCR;

const SIGN = [0n, 0n, 1n << 31n, 1n << 63n];
/** The number before one half: adding it and truncating rounds ties away from zero. */
const ALMOST_HALF = [0n, 0n, 0x3eff_ffffn, 0x3fdf_ffff_ffff_ffffn];
/** 2^31, 2^32, 2^63, 2^64 as numbers of the format. */
const POWER = {
  31: [0n, 0n, 0x4f00_0000n, 0x41e0_0000_0000_0000n],
  32: [0n, 0n, 0x4f80_0000n, 0x41f0_0000_0000_0000n],
  63: [0n, 0n, 0x5f00_0000n, 0x43e0_0000_0000_0000n],
  64: [0n, 0n, 0x5f80_0000n, 0x43f0_0000_0000_0000n],
} as const;
/** 2^-32, double precision. */
const REDUCE = 0x3df0_0000_0000_0000n;

// ---- integral values ----------------------------------------------------------------------------

/** Rounds to an integral value; FPCR's mode counts as to nearest. */
function integral(b: Ops, size: Size, x: V128, rounding: RoundingMode): V128 {
  switch (rounding) {
    case Rounding.PLUS_INFINITY:
      return fop(b, size, 'ceil', x);
    case Rounding.MINUS_INFINITY:
      return fop(b, size, 'floor', x);
    case Rounding.ZERO:
      return fop(b, size, 'trunc', x);
    case Rounding.TIE_AWAY: {
      const sign = vand(b, x, repeat(b, size, SIGN[size]!));
      const half = vor(b, sign, repeat(b, size, ALMOST_HALF[size]!));
      return fop(b, size, 'trunc', fop(b, size, 'add', x, half));
    }
    default:
      return fop(b, size, 'nearest', x);
  }
}

/** What FPCR must say for `integral` to be right. */
const modeFor = (b: Ops, rounding: RoundingMode): I32 =>
  rounding === ROUNDING_FPCR ? isNativeMode(b) : keepsDenormals(b);

/** Arm: FPRoundInt(); `exact` raises IXC for what was not integral. */
export const fpRoundInt =
  (rounding: RoundingMode, exact: boolean): FpOperation =>
  (b, part, x) => {
    const { size } = part;
    const long = (): V128 =>
      softLanes(b, part, `frint${bitsOf(size)}`, [x!], [b.i64(rounding), b.i64(exact ? 1 : 0)]);
    if (size === 1) return long();
    const result = b.let(integral(b, size, x!, rounding));
    const attempt: Attempt = {
      result,
      good: fop(b, size, 'eq', x!, x!),
      exact: exact ? () => fop(b, size, 'eq', result, x!) : undefined,
    };
    return attemptOr(b, part, attempt, long, modeFor(b, rounding));
  };

// ---- to integers --------------------------------------------------------------------------------

export interface ToInteger {
  readonly unsigned: boolean;
  readonly rounding: RoundingMode;
}

/** Elements (integral, no NaN) of which an integer of `width` bits surely holds the value. */
function inRange(b: Ops, size: Size, whole: V128, width: 32 | 64, unsigned: boolean): V128 {
  if (!unsigned) {
    const limit = POWER[width === 32 ? 31 : 63][size]!;
    return fop(b, size, 'lt', magnitude(b, size, whole), repeat(b, size, limit));
  }
  const limit = fop(b, size, 'lt', whole, repeat(b, size, POWER[width][size]!));
  return vand(b, limit, fop(b, size, 'ge', whole, zeroes(b)));
}

const zeroExtended = (b: Ops, x: V128): V128 => b.vop('i64x2.extend_low_i32x4_u', x);

/** Integral doubles in range as 64-bit integers: halves of 32 bits are taken one by one. */
function doublesToIntegers(b: Ops, whole: V128, unsigned: boolean): V128 {
  const high = b.let(b.vop('f64x2.floor', b.vop('f64x2.mul', whole, repeat(b, 3, REDUCE))));
  const back = b.vop('f64x2.mul', high, repeat(b, 3, POWER[32][3]));
  const low = b.vop('f64x2.sub', whole, back);
  const sign = unsigned ? 'u' : 's';
  const highBits = zeroExtended(b, b.vop(`i32x4.trunc_sat_f64x2_${sign}_zero`, high));
  const lowBits = zeroExtended(b, b.vop('i32x4.trunc_sat_f64x2_u_zero', low));
  return vor(b, b.vop('i64x2.shl', highBits, b.i32(32)), lowBits);
}

/** Integers of the elements' own width. Arm: FPToFixed(). */
export const fpToInteger =
  ({ unsigned, rounding }: ToInteger): FpOperation =>
  (b, part, x) => {
    const { size } = part;
    const width = bitsOf(size);
    const name = `fcvt${unsigned ? 'u' : 's'}_${width}_${width}`;
    const long = (): V128 => softLanes(b, part, name, [x!], [b.i64(0), b.i64(rounding)]);
    if (size === 1) return long();
    const whole = b.let(integral(b, size, x!, rounding));
    const sign = unsigned ? 'u' : 's';
    const attempt: Attempt = {
      result:
        size === 3
          ? doublesToIntegers(b, whole, unsigned)
          : b.vop(`i32x4.trunc_sat_f32x4_${sign}`, whole),
      good: inRange(b, size, whole, width as 32 | 64, unsigned),
      exact: () => fop(b, size, 'eq', whole, x!),
    };
    return attemptOr(b, part, attempt, long, modeFor(b, rounding));
  };

/** A scalar of the part's format to a general register's 32 or 64 bits. Arm: FPToFixed(). */
export function fpToRegister(
  b: Ops,
  size: Size,
  x: V128,
  width: 32 | 64,
  { unsigned, rounding }: ToInteger,
): I64 {
  const name = `fcvt${unsigned ? 'u' : 's'}_${bitsOf(size)}_${width}`;
  const part = scalarPart(3);
  const long = (): V128 => {
    const args = [b.lane(x, bitsOf(size), 0), b.i64(0), b.i64(rounding)];
    return b.withLane(zeroes(b), 64, 0, b.soft(name, args));
  };
  if (size === 1) return b.lane(long(), 64, 0);
  // Single precision is done as double, which holds every value of it.
  const wide = size === 3 ? x : b.let(b.vop('f64x2.promote_low_f32x4', x));
  const whole = b.let(integral(b, 3, wide, rounding));
  const sign = unsigned ? 'u' : 's';
  const attempt: Attempt = {
    result:
      width === 64
        ? doublesToIntegers(b, whole, unsigned)
        : b.vop(`i32x4.trunc_sat_f64x2_${sign}_zero`, whole),
    good: inRange(b, 3, whole, width, unsigned),
    exact: () => b.vop('f64x2.eq', whole, wide),
  };
  return b.lane(attemptOr(b, part, attempt, long, modeFor(b, rounding)), 64, 0);
}

// ---- from integers ------------------------------------------------------------------------------

/** Doubles whose sum is the integers: their halves of 32 bits, the upper one scaled. */
function doublesOfHalves(b: Ops, x: V128, unsigned: boolean): { high: V128; low: V128 } {
  const highHalves = permute(b, 2, x, x, (i) => (2 * i + 1) % 4);
  const lowHalves = permute(b, 2, x, x, (i) => (2 * i) % 4);
  const high = b.vop(`f64x2.convert_low_i32x4_${unsigned ? 'u' : 's'}`, highHalves);
  return {
    high: b.let(b.vop('f64x2.mul', high, repeat(b, 3, POWER[32][3]))),
    low: b.let(b.vop('f64x2.convert_low_i32x4_u', lowHalves)),
  };
}

function singlesOfIntegers(b: Ops, x: V128, unsigned: boolean): Attempt {
  // Up to 2^24 a significand holds every integer.
  const limit = 1n << 24n;
  const exact = (): V128 =>
    unsigned
      ? b.vop('i32x4.le_u', x, repeat(b, 2, limit))
      : b.vop('i32x4.le_u', vadd(b, 2, x, repeat(b, 2, limit)), repeat(b, 2, 2n * limit));
  return {
    result: b.vop(`f32x4.convert_i32x4_${unsigned ? 'u' : 's'}`, x),
    good: b.v128(-1n, -1n),
    exact,
  };
}

/** Integers of the elements' own width to numbers. Arm: FixedToFP(). */
export const integerToFp =
  (unsigned: boolean): FpOperation =>
  (b, part, x) => {
    const width = bitsOf(part.size);
    const name = `${unsigned ? 'u' : 's'}cvtf_${width}_${width}`;
    const long = (): V128 => softLanes(b, part, name, [x!], [b.i64(0)]);
    if (part.size === 1) return long();
    if (part.size === 2) return attemptOr(b, part, singlesOfIntegers(b, x!, unsigned), long);
    const { high, low } = doublesOfHalves(b, x!, unsigned);
    return attemptOr(b, part, addAttempt(b, 3, high, low), long);
  };

/** The 32 or 64 low bits of `value` to a scalar of format `size`. Arm: FixedToFP(). */
export function registerToFp(
  b: Ops,
  size: Size,
  value: I64,
  width: 32 | 64,
  unsigned: boolean,
): V128 {
  const x = b.let(b.withLane(zeroes(b), 64, 0, value));
  if (size === 3 && width === 64) return integerToFp(unsigned)(b, scalarPart(3), x);
  const name = `${unsigned ? 'u' : 's'}cvtf_${width}_${bitsOf(size)}`;
  const long = (): V128 => b.withLane(zeroes(b), 64, 0, b.soft(name, [value, b.i64(0)]));
  if (size === 1) return long();
  const double = b.let(b.vop(`f64x2.convert_low_i32x4_${unsigned ? 'u' : 's'}`, x));
  if (size === 3) return double;
  const attempt = singleOfDouble(b, double);
  if (width === 32) return attemptOr(b, scalarPart(3), attempt, long);
  const small = b.eq(unsigned ? b.zext(b.wrap(value)) : b.sextFrom(value, 32), value);
  return attemptOr(b, scalarPart(3), attempt, long, b.and(isNativeMode(b), small));
}

/** Fixed point, with `fractionBits` behind the point; always the long way. */
export const fixedToFpLanes =
  (unsigned: boolean, fractionBits: (b: Ops) => I64): FpOperation =>
  (b, part, x) => {
    const width = bitsOf(part.size);
    const name = `${unsigned ? 'u' : 's'}cvtf_${width}_${width}`;
    return softLanes(b, part, name, [x!], [b.let(fractionBits(b))]);
  };

/** To fixed point, rounding towards zero; always the long way. */
export const fpToFixedLanes =
  (unsigned: boolean, fractionBits: (b: Ops) => I64): FpOperation =>
  (b, part, x) => {
    const width = bitsOf(part.size);
    const name = `fcvt${unsigned ? 'u' : 's'}_${width}_${width}`;
    const constants = [b.let(fractionBits(b)), b.i64(Rounding.ZERO)];
    return softLanes(b, part, name, [x!], constants);
  };

// ---- between formats ----------------------------------------------------------------------------

/** Two doubles to singles in the low half; masks are of the doubles. */
function singleOfDouble(b: Ops, x: V128): Attempt {
  const result = b.let(b.vop('f32x4.demote_f64x2_zero', x));
  const back = b.let(b.vop('f64x2.promote_low_f32x4', result));
  // Twice the smallest normal single.
  const large = atLeast(b, 3, back, 0x3820_0000_0000_0000n);
  return {
    result,
    good: vand(b, isFiniteValue(b, 3, back), vor(b, large, isZero(b, 3, x))),
    exact: () => b.vop('f64x2.eq', back, x),
  };
}

/** Half the elements' width to the full one, from the low half of `x`. Arm: FPConvert(). */
export function fpWiden(b: Ops, part: Part, x: V128): V128 {
  if (part.size === 2) return convertSoftly(b, part, x, 'widen');
  const result = b.let(b.vop('f64x2.promote_low_f32x4', x));
  const attempt = { result, good: b.vop('f64x2.eq', result, result) };
  return attemptOr(b, part, attempt, () => convertSoftly(b, part, x, 'widen'), keepsDenormals(b));
}

/** To half the elements' width, into the low half. Arm: FPConvert(). */
export function fpNarrow(b: Ops, part: Part, x: V128): V128 {
  const long = (): V128 => convertSoftly(b, part, x, 'narrow');
  return part.size === 2 ? long() : attemptOr(b, part, singleOfDouble(b, x), long);
}

/** Element by element, as many as the part has, between its width and half of it. */
function convertSoftly(b: Ops, part: Part, x: V128, how: 'widen' | 'narrow'): V128 {
  const full = bitsOf(part.size);
  const half = bitsOf((part.size - 1) as Size);
  const [from, to] = how === 'narrow' ? [full, half] : [half, full];
  let result = zeroes(b);
  for (let i = 0; i < countOf(part); i++) {
    const args = [b.lane(x, from, i), b.i64(ROUNDING_FPCR)];
    result = b.withLane(result, to, i, b.soft(`fcvt_${from}_${to}`, args));
  }
  return result;
}

/** Doubles to singles, rounding to odd; always the long way. Arm: FPConvert() as FCVTXN does. */
export function fpNarrowToOdd(b: Ops, part: Part, x: V128): V128 {
  let result = zeroes(b);
  for (let i = 0; i < countOf(part); i++) {
    const args = [b.lane(x, 64, i), b.i64(Rounding.ODD)];
    result = b.withLane(result, 32, i, b.soft('fcvt_64_32', args));
  }
  return result;
}
