/**
 * The three floating-point formats, FPCR and FPSR, and unpacking bits into exact values.
 *
 * A finite value is `(-1)^sign × mantissa × 2^exponent` with a bigint mantissa, so every operation
 * above this file is exact until `round.ts` rounds it once. No rounding and no arithmetic here;
 * used by every file of this folder.
 */

/** Width of a format in bits: half, single, double precision. */
export type FpSize = 16 | 32 | 64;

/** FPCR fields that decide results; none of the trap enables exists (they are RAZ). */
export const Fpcr = {
  /** Alternative half precision: no infinities, no NaNs, one more exponent. */
  AHP: 1 << 26,
  /** Default NaN: every NaN result is the default NaN. */
  DN: 1 << 25,
  /** Flush denormals to zero, single and double precision. */
  FZ: 1 << 24,
  /** Flush denormals to zero, half precision. */
  FZ16: 1 << 19,
  /** Position of the two bits RMode. */
  RMODE_SHIFT: 22,
} as const;

/** Cumulative bits of FPSR. */
export const Fpsr = {
  IOC: 1 << 0,
  DZC: 1 << 1,
  OFC: 1 << 2,
  UFC: 1 << 3,
  IXC: 1 << 4,
  IDC: 1 << 7,
  QC: 1 << 27,
} as const;

/** Rounding modes: 0 to 3 are the values of FPCR.RMode. */
export const Rounding = {
  TIE_EVEN: 0,
  PLUS_INFINITY: 1,
  MINUS_INFINITY: 2,
  ZERO: 3,
  TIE_AWAY: 4,
  ODD: 5,
} as const;
export type Rounding = (typeof Rounding)[keyof typeof Rounding];

/** What an operation reads and changes besides its operands; owned by the caller. */
export interface FpContext {
  /** FPCR as the guest wrote it. */
  fpcr: number;
  /** FPSR bits raised so far; operations only ever set bits. */
  flags: number;
}

/** Constants of one format. `minExponent` is that of the smallest normal number. */
export interface FpFormat {
  readonly size: FpSize;
  readonly fractionBits: number;
  readonly exponentMax: number;
  readonly minExponent: number;
  readonly signBit: bigint;
  readonly fractionMask: bigint;
  readonly quietBit: bigint;
  readonly infinity: bigint;
  readonly defaultNaN: bigint;
  /** FPCR bit that flushes denormals of this format. */
  readonly flushBit: number;
}

function makeFormat(size: FpSize, exponentBits: number): FpFormat {
  const fractionBits = size - 1 - exponentBits;
  const exponentMax = (1 << exponentBits) - 1;
  const quietBit = 1n << BigInt(fractionBits - 1);
  const infinity = BigInt(exponentMax) << BigInt(fractionBits);
  return {
    size,
    fractionBits,
    exponentMax,
    minExponent: 2 - (1 << (exponentBits - 1)),
    signBit: 1n << BigInt(size - 1),
    fractionMask: (1n << BigInt(fractionBits)) - 1n,
    quietBit,
    infinity,
    defaultNaN: infinity | quietBit,
    flushBit: size === 16 ? Fpcr.FZ16 : Fpcr.FZ,
  };
}

const HALF = makeFormat(16, 5);
const SINGLE = makeFormat(32, 8);
const DOUBLE = makeFormat(64, 11);

export const formatOf = (size: FpSize): FpFormat =>
  size === 64 ? DOUBLE : size === 32 ? SINGLE : HALF;

export type FpKind = 'zero' | 'nonzero' | 'infinity' | 'qnan' | 'snan';

/** An unpacked operand; `mantissa` is zero unless `kind` is 'nonzero'. */
export interface Unpacked {
  readonly kind: FpKind;
  readonly sign: 0 | 1;
  readonly mantissa: bigint;
  readonly exponent: number;
}

export const isNan = (value: Unpacked): boolean => value.kind === 'qnan' || value.kind === 'snan';

export const roundingOf = (ctx: FpContext): Rounding =>
  ((ctx.fpcr >>> Fpcr.RMODE_SHIFT) & 3) as Rounding;

export const fpZero = (format: FpFormat, sign: number): bigint => (sign ? format.signBit : 0n);
export const fpInfinity = (format: FpFormat, sign: number): bigint =>
  fpZero(format, sign) | format.infinity;
export const fpMaxNormal = (format: FpFormat, sign: number): bigint =>
  fpZero(format, sign) | (format.infinity - 1n);

/**
 * Unpacks an operand of data processing: denormals are flushed as FPCR says (single and double
 * raise IDC), AHP is ignored. Arm: FPUnpack().
 */
export function unpack(ctx: FpContext, format: FpFormat, bits: bigint): Unpacked {
  const sign = bits & format.signBit ? 1 : 0;
  const biased = Number((bits & format.infinity) >> BigInt(format.fractionBits));
  const fraction = bits & format.fractionMask;
  if (biased === 0) return unpackSubnormal(ctx, format, sign, fraction);
  if (biased === format.exponentMax) return unpackSpecial(format, sign, fraction);
  return unpackNormal(format, sign, biased, fraction);
}

/**
 * Unpacks the operand of a conversion between formats: AHP counts, FZ16 does not.
 * Arm: FPUnpackCV().
 */
export function unpackForConvert(ctx: FpContext, format: FpFormat, bits: bigint): Unpacked {
  if (format.size !== 16) return unpack(ctx, format, bits);
  const sign = bits & format.signBit ? 1 : 0;
  const biased = Number((bits & format.infinity) >> BigInt(format.fractionBits));
  const fraction = bits & format.fractionMask;
  if (biased === 0 && fraction === 0n) return { kind: 'zero', sign, mantissa: 0n, exponent: 0 };
  if (biased === format.exponentMax && !(ctx.fpcr & Fpcr.AHP)) {
    return unpackSpecial(format, sign, fraction);
  }
  return unpackNormal(format, sign, biased, fraction);
}

function unpackSubnormal(
  ctx: FpContext,
  format: FpFormat,
  sign: 0 | 1,
  fraction: bigint,
): Unpacked {
  if (fraction !== 0n && !(ctx.fpcr & format.flushBit)) {
    return unpackNormal(format, sign, 0, fraction);
  }
  if (fraction !== 0n && format.size !== 16) ctx.flags |= Fpsr.IDC;
  return { kind: 'zero', sign, mantissa: 0n, exponent: 0 };
}

function unpackSpecial(format: FpFormat, sign: 0 | 1, fraction: bigint): Unpacked {
  const kind = fraction === 0n ? 'infinity' : fraction & format.quietBit ? 'qnan' : 'snan';
  return { kind, sign, mantissa: 0n, exponent: 0 };
}

function unpackNormal(format: FpFormat, sign: 0 | 1, biased: number, fraction: bigint): Unpacked {
  const hidden = biased === 0 ? 0n : format.fractionMask + 1n;
  const exponent = Math.max(biased, 1) - 1 + format.minExponent - format.fractionBits;
  return { kind: 'nonzero', sign, mantissa: fraction | hidden, exponent };
}
