/**
 * Floating-point arithmetic on all elements of a part at once: WebAssembly's own instructions where
 * they give Arm's result and flags, else the functions of `arm/fp` element by element.
 *
 * WebAssembly rounds to nearest, keeps denormals and raises no flags. So its result stands when
 * FPCR asks for that, it is no NaN and within range, and it is exact or FPSR.IXC is set already
 * (the flags are cumulative). Whether it is exact is found out with error-free transformations.
 * Half precision always goes the long way. Called by the scalar and the vector rows.
 */
import { Fpcr, Fpsr } from '../fp/index.ts';
import type { I32, I64, Ops, V128 } from './ops.ts';
import {
  bitsOf,
  countOf,
  type Part,
  repeat,
  type Size,
  vand,
  vor,
  vxor,
  zeroes,
} from './simd-lanes.ts';

/** Names, and constants as bits, of the two formats WebAssembly computes in. */
interface Native {
  readonly shape: 'f32x4' | 'f64x2';
  readonly sign: bigint;
  readonly infinity: bigint;
  /** Twice the smallest normal number: from here on nothing was tiny before rounding. */
  readonly small: bigint;
  /** From here on the error of a product is a normal number too. */
  readonly errorFloor: bigint;
  /** 2^k + 1 with k half the significand: Veltkamp's constant. */
  readonly splitter: bigint;
}

const SINGLE: Native = {
  shape: 'f32x4',
  sign: 1n << 31n,
  infinity: 0x7f80_0000n,
  small: 2n << 23n,
  errorFloor: 52n << 23n,
  splitter: 0x4580_0800n,
};
const DOUBLE: Native = {
  shape: 'f64x2',
  sign: 1n << 63n,
  infinity: 0x7ffn << 52n,
  small: 2n << 52n,
  errorFloor: 110n << 52n,
  splitter: 0x41a0_0000_0200_0000n,
};

const nativeOf = (size: Size): Native => (size === 3 ? DOUBLE : SINGLE);

/** An operation on the parts of vectors; unused elements of the result are anything. */
export type FpOperation = (b: Ops, part: Part, ...operands: readonly V128[]) => V128;

// ---- state --------------------------------------------------------------------------------------

const fpcrBits = (b: Ops, mask: number): I32 => b.and(b.wrap(b.sysreg('FPCR')), b.i32(mask));

/** 1 when denormals are kept. */
export const keepsDenormals = (b: Ops): I32 => b.eqz(fpcrBits(b, Fpcr.FZ));

/** 1 when FPCR asks for what WebAssembly does: round to nearest, denormals kept. */
export const isNativeMode = (b: Ops): I32 => b.eqz(fpcrBits(b, Fpcr.FZ | (3 << Fpcr.RMODE_SHIFT)));

const inexactIsSet = (b: Ops): I32 => b.and(b.wrap(b.sysreg('FPSR')), b.i32(Fpsr.IXC));

// ---- element by element -------------------------------------------------------------------------

/** `name` of `arm/fp` for every element; `constants` follow the operands. */
export function softLanes(
  b: Ops,
  part: Part,
  name: string,
  operands: readonly V128[],
  constants: readonly I64[] = [],
): V128 {
  const bits = bitsOf(part.size);
  let result = zeroes(b);
  for (let i = 0; i < countOf(part); i++) {
    const elements = operands.map((operand) => b.lane(operand, bits, i));
    result = b.withLane(result, bits, i, b.soft(name, [...elements, ...constants]));
  }
  return result;
}

/** A soft operation named with the width of the part's elements, on vectors. */
const softly =
  (name: string): FpOperation =>
  (b, part, ...operands) =>
    softLanes(b, part, `${name}${bitsOf(part.size)}`, operands);

// ---- conditions per element ---------------------------------------------------------------------

/** 1 when the mask holds for every element of the part. */
export function holds(b: Ops, part: Part, mask: V128): I32 {
  const rest = part.bits === 128 ? mask : vor(b, mask, outside(b, part));
  return b.vtest('i32x4.all_true', rest);
}

/** All ones behind the part. */
const outside = (b: Ops, part: Part): V128 => b.v128(-1n << BigInt(part.bits), -1n);

export const fop = (b: Ops, size: Size, name: string, ...operands: V128[]): V128 =>
  b.vop(`${nativeOf(size).shape}.${name}`, ...operands);

export const magnitude = (b: Ops, size: Size, x: V128): V128 => fop(b, size, 'abs', x);

/** Neither a NaN nor infinite. */
export const isFiniteValue = (b: Ops, size: Size, x: V128): V128 =>
  fop(b, size, 'lt', magnitude(b, size, x), repeat(b, size, nativeOf(size).infinity));

export const isZero = (b: Ops, size: Size, x: V128): V128 => fop(b, size, 'eq', x, zeroes(b));

export const atLeast = (b: Ops, size: Size, x: V128, bound: bigint): V128 =>
  fop(b, size, 'ge', magnitude(b, size, x), repeat(b, size, bound));

/** Neither operand is a NaN. */
const areOrdered = (b: Ops, size: Size, x: V128, y: V128): V128 =>
  vand(b, fop(b, size, 'eq', x, x), fop(b, size, 'eq', y, y));

// ---- error-free transformations -----------------------------------------------------------------

/** Whether `sum` is exactly `x + y` (Knuth's TwoSum). */
function sumIsExact(b: Ops, size: Size, x: V128, y: V128, sum: V128): V128 {
  const virtual = b.let(fop(b, size, 'sub', sum, x));
  const left = fop(b, size, 'sub', x, fop(b, size, 'sub', sum, virtual));
  const right = fop(b, size, 'sub', y, virtual);
  return isZero(b, size, fop(b, size, 'add', left, right));
}

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
function productIsExact(b: Ops, size: Size, x: V128, y: V128, product: V128): V128 {
  const error = productError(b, size, x, y, product);
  const reliable = vor(
    b,
    atLeast(b, size, product, nativeOf(size).errorFloor),
    vor(b, isZero(b, size, x), isZero(b, size, y)),
  );
  return vand(b, isZero(b, size, error), reliable);
}

// ---- arithmetic ---------------------------------------------------------------------------------

export interface Attempt {
  /** WebAssembly's result. */
  readonly result: V128;
  /** Mask of elements where the result is Arm's and raises at most IXC. */
  readonly good: V128;
  /** Mask of elements where it raises nothing; all of them when left out. */
  readonly exact?: (() => V128) | undefined;
}

/** The attempt where it stands, else what `fallback` emits; `mode` is 1 when FPCR allows it. */
export function attemptOr(
  b: Ops,
  part: Part,
  attempt: Attempt,
  fallback: () => V128,
  mode = isNativeMode(b),
): V128 {
  const result = b.variable(attempt.result);
  const stands = b.variable(b.and(mode, holds(b, part, attempt.good)));
  const { exact } = attempt;
  if (exact !== undefined) {
    b.if(b.and(stands.value, b.eqz(inexactIsSet(b))), () => {
      stands.set(holds(b, part, exact()));
    });
  }
  b.if(b.eqz(stands.value), () => result.set(fallback()));
  return result.value;
}

const arithmetic =
  (attempt: (b: Ops, size: Size, x: V128, y: V128) => Attempt, soft: string): FpOperation =>
  (b, part, x, y = zeroes(b)) => {
    const operands = soft === 'fsqrt' ? [x!] : [x!, y];
    const long = (): V128 => softly(soft)(b, part, ...operands);
    if (part.size === 1) return long();
    return attemptOr(b, part, attempt(b, part.size, x!, y), long);
  };

export function addAttempt(b: Ops, size: Size, x: V128, y: V128): Attempt {
  const result = b.let(fop(b, size, 'add', x, y));
  return {
    result,
    good: isFiniteValue(b, size, result),
    exact: () => sumIsExact(b, size, x, y, result),
  };
}

/** The sign bits flipped, NaNs included. Arm: FPNeg(). */
export const negate: FpOperation = (b, { size }, x) =>
  vxor(b, x!, repeat(b, size, 1n << BigInt(bitsOf(size) - 1)));

/** The sign bits cleared, NaNs included. Arm: FPAbs(). */
export const absolute: FpOperation = (b, { size }, x) =>
  vand(b, x!, repeat(b, size, (1n << BigInt(bitsOf(size) - 1)) - 1n));

function mulAttempt(b: Ops, size: Size, x: V128, y: V128): Attempt {
  const result = b.let(fop(b, size, 'mul', x, y));
  const zero = vor(b, isZero(b, size, x), isZero(b, size, y));
  const large = atLeast(b, size, result, nativeOf(size).small);
  return {
    result,
    good: vand(b, isFiniteValue(b, size, result), vor(b, large, zero)),
    exact: () => productIsExact(b, size, x, y, result),
  };
}

function divAttempt(b: Ops, size: Size, x: V128, y: V128): Attempt {
  const result = b.let(fop(b, size, 'div', x, y));
  const large = atLeast(b, size, result, nativeOf(size).small);
  return {
    result,
    good: vand(b, isFiniteValue(b, size, result), vor(b, large, isZero(b, size, x))),
    exact: () => quotientIsExact(b, size, x, y, result),
  };
}

/** Whether `quotient × y` is exactly `x`; may say no where it is. */
function quotientIsExact(b: Ops, size: Size, x: V128, y: V128, quotient: V128): V128 {
  const product = b.let(fop(b, size, 'mul', quotient, y));
  const same = fop(b, size, 'eq', product, x);
  return vand(b, same, productIsExact(b, size, quotient, y, product));
}

function sqrtAttempt(b: Ops, size: Size, x: V128): Attempt {
  const result = b.let(fop(b, size, 'sqrt', x));
  return {
    result,
    good: isFiniteValue(b, size, result),
    exact: () => quotientIsExact(b, size, x, result, result),
  };
}

export const fpAdd = arithmetic(addAttempt, 'fadd');
export const fpSub = arithmetic(
  (b, size, x, y) => addAttempt(b, size, x, b.let(fop(b, size, 'neg', y))),
  'fsub',
);
export const fpMul = arithmetic(mulAttempt, 'fmul');
export const fpMulX = arithmetic(mulAttempt, 'fmulx');
/** Arm: FPNeg(FPMul()). */
export const fpNMul = arithmetic(
  (b, size, x, y) => mulAttempt(b, size, x, b.let(fop(b, size, 'neg', y))),
  'fnmul',
);
export const fpDiv = arithmetic(divAttempt, 'fdiv');
export const fpSqrt = arithmetic(sqrtAttempt, 'fsqrt');

/** Arm: FPAbs(FPSub()). */
export const fpAbsoluteDifference: FpOperation = (b, part, x, y) =>
  absolute(b, part, fpSub(b, part, x!, y!));

// ---- without rounding ---------------------------------------------------------------------------

/** Operations that raise nothing and do not round unless there is a NaN or a flushed denormal. */
const orderedOr =
  (native: (b: Ops, size: Size, x: V128, y: V128) => V128, soft: string): FpOperation =>
  (b, part, x, y) => {
    const long = (): V128 => softly(soft)(b, part, x!, y!);
    if (part.size === 1) return long();
    const { size } = part;
    const result = b.variable(native(b, size, x!, y!));
    const stands = b.and(keepsDenormals(b), holds(b, part, areOrdered(b, size, x!, y!)));
    b.if(b.eqz(stands), () => result.set(long()));
    return result.value;
  };

const native =
  (name: string) =>
  (b: Ops, size: Size, x: V128, y: V128): V128 =>
    fop(b, size, name, x, y);

export const fpMax = orderedOr(native('max'), 'fmax');
export const fpMin = orderedOr(native('min'), 'fmin');
export const fpMaxNum = orderedOr(native('max'), 'fmaxnm');
export const fpMinNum = orderedOr(native('min'), 'fminnm');
export const fpCompareEq = orderedOr(native('eq'), 'fcmeq');
export const fpCompareGe = orderedOr(native('ge'), 'fcmge');
export const fpCompareGt = orderedOr(native('gt'), 'fcmgt');

/** FACGE and FACGT compare magnitudes. */
export const ofMagnitudes =
  (operation: FpOperation): FpOperation =>
  (b, part, x, y) =>
    operation(b, part, b.let(absolute(b, part, x!)), b.let(absolute(b, part, y!)));

// ---- the long way -------------------------------------------------------------------------------

export const fpRecipEstimate = softly('frecpe');
export const fpRSqrtEstimate = softly('frsqrte');
export const fpRecipExponent = softly('frecpx');
export const fpRecipStep = softly('frecps');
export const fpRSqrtStep = softly('frsqrts');
/** Operands: addend, two factors. Arm: FPMulAdd(). */
export const fpMulAdd = softly('fmuladd');
