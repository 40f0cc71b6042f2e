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
import { fusedMultiplyAdd, productIsExact, quotientIsExact, sumIsExact } from './fp-error-free.ts';
import { atLeast, fop, isFiniteValue, isZero, nativeOf } from './fp-native.ts';
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

/** Neither operand is a NaN. */
const areOrdered = (b: Ops, size: Size, x: V128, y: V128): V128 =>
  vand(b, fop(b, size, 'eq', x, x), fop(b, size, 'eq', y, y));

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

/** Takes as many of the operands as it has. */
type TernaryAttempt = (b: Ops, size: Size, x: V128, y: V128, z: V128) => Attempt;

/** An operation that is attempted on single and double precision. */
const arithmetic =
  (attempt: TernaryAttempt, soft: string): FpOperation =>
  (b, part, ...operands) => {
    const [x, y, z] = operands;
    const long = (): V128 => softly(soft)(b, part, ...operands);
    if (part.size === 1) return long();
    return attemptOr(b, part, attempt(b, part.size, x!, y!, z!), long);
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

function fusedAttempt(b: Ops, size: Size, addend: V128, x: V128, y: V128): Attempt {
  const { result, good, exact } = fusedMultiplyAdd(b, size, addend, x, y);
  return { result, good: vand(b, isFiniteValue(b, size, result), good), exact };
}

/** Operands: addend, two factors. Arm: FPMulAdd(). */
export const fpMulAdd = arithmetic(fusedAttempt, 'fmuladd');

/** `start - x × y`, fused. */
const stepAttempt =
  (start: (size: Size) => bigint) =>
  (b: Ops, size: Size, x: V128, y: V128): Attempt => {
    const addend = b.let(repeat(b, size, start(size)));
    return fusedAttempt(b, size, addend, b.let(fop(b, size, 'neg', x)), y);
  };

/** Arm: FPRecipStepFused(). */
export const fpRecipStep = arithmetic(
  stepAttempt((size) => nativeOf(size).two),
  'frecps',
);

/** Arm: FPRSqrtStepFused(); halving does not round. */
export const fpRSqrtStep = arithmetic((b, size, x, y) => {
  const attempt = stepAttempt((of) => nativeOf(of).three)(b, size, x, y);
  const half = repeat(b, size, nativeOf(size).half);
  return { ...attempt, result: fop(b, size, 'mul', attempt.result, half) };
}, 'frsqrts');

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
