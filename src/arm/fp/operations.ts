/**
 * The table of operations that generated code calls where it cannot do the work itself.
 *
 * Operands and results are unsigned bits of the named sizes in 64-bit slots. The position of a row
 * is its id in generated code, fixed for the life of a process. The engine looks up and runs rows;
 * semantics name them.
 */
import { assert } from '../../base/index.ts';
import { fpAdd, fpDiv, fpMul, fpMulAdd, fpMulX, fpNMul, fpSqrt, fpSub } from './arith.ts';
import {
  fpCompare,
  fpCompareEq,
  fpCompareGe,
  fpCompareGt,
  fpMax,
  fpMaxNum,
  fpMin,
  fpMinNum,
} from './compare.ts';
import { fixedToFp, fpConvert, fpRoundInt, fpToFixed } from './convert.ts';
import {
  fpRecipEstimate,
  fpRecipStep,
  fpRecpX,
  fpRSqrtEstimate,
  fpRSqrtStep,
  unsignedRecipEstimate,
  unsignedRSqrtEstimate,
} from './estimate.ts';
import { type FpContext, type FpSize, type Rounding, roundingOf } from './format.ts';

export interface SoftOperation {
  /** Number of operands `run` expects. */
  readonly args: number;
  /** Bits of the result; raised flags are ORed into `ctx.flags`. */
  readonly run: (ctx: FpContext, args: readonly bigint[]) => bigint;
}

/** Value of a rounding operand that means FPCR.RMode. */
export const ROUNDING_FPCR = 7;

const roundingFrom = (ctx: FpContext, operand: bigint): Rounding =>
  operand === BigInt(ROUNDING_FPCR) ? roundingOf(ctx) : (Number(operand) as Rounding);

const SIZES = [16, 32, 64] as const;
type Size = (typeof SIZES)[number];
type Unary = (ctx: FpContext, a: bigint, size: FpSize) => bigint;
type Binary = (ctx: FpContext, a: bigint, b: bigint, size: FpSize) => bigint;

/** Operations of one operand, named with the size appended. */
const UNARY = {
  fsqrt: fpSqrt,
  frecpe: fpRecipEstimate,
  frsqrte: fpRSqrtEstimate,
  frecpx: fpRecpX,
} as const satisfies Record<string, Unary>;

/** Operations of two operands, named with the size appended; compares give a mask or NZCV. */
const BINARY = {
  fadd: fpAdd,
  fsub: fpSub,
  fmul: fpMul,
  fnmul: fpNMul,
  fmulx: fpMulX,
  fdiv: fpDiv,
  fmax: fpMax,
  fmin: fpMin,
  fmaxnm: fpMaxNum,
  fminnm: fpMinNum,
  frecps: fpRecipStep,
  frsqrts: fpRSqrtStep,
  fcmeq: fpCompareEq,
  fcmge: fpCompareGe,
  fcmgt: fpCompareGt,
  fcmp: (ctx, a, b, size) => fpCompare(ctx, a, b, size, false),
  fcmpe: (ctx, a, b, size) => fpCompare(ctx, a, b, size, true),
} as const satisfies Record<string, Binary>;

type Entry = [name: string, operation: SoftOperation];

const at = (args: readonly bigint[], index: number): bigint => args[index] ?? 0n;

function entriesOfSize(size: Size): Entry[] {
  const unary = Object.entries<Unary>(UNARY).map(
    ([name, run]): Entry => [
      `${name}${size}`,
      { args: 1, run: (ctx, args) => run(ctx, at(args, 0), size) },
    ],
  );
  const binary = Object.entries<Binary>(BINARY).map(
    ([name, run]): Entry => [
      `${name}${size}`,
      { args: 2, run: (ctx, args) => run(ctx, at(args, 0), at(args, 1), size) },
    ],
  );
  return [
    ...unary,
    ...binary,
    [
      `fmuladd${size}`,
      { args: 3, run: (ctx, args) => fpMulAdd(ctx, at(args, 0), at(args, 1), at(args, 2), size) },
    ],
    [
      `frint${size}`,
      {
        args: 3,
        run: (ctx, args) =>
          fpRoundInt(ctx, at(args, 0), size, roundingFrom(ctx, at(args, 1)), at(args, 2) !== 0n),
      },
    ],
    ...SIZES.filter((to) => to !== size).map(
      (to): Entry => [
        `fcvt_${size}_${to}`,
        {
          args: 2,
          run: (ctx, args) => fpConvert(ctx, at(args, 0), size, to, roundingFrom(ctx, at(args, 1))),
        },
      ],
    ),
    ...SIZES.flatMap((width) => integerEntries(size, width)),
  ];
}

function integerEntries(size: Size, width: Size): Entry[] {
  const toInteger = (unsigned: boolean): SoftOperation => ({
    args: 3,
    run: (ctx, args) =>
      fpToFixed(ctx, at(args, 0), size, {
        width,
        unsigned,
        fractionBits: Number(at(args, 1)),
        rounding: roundingFrom(ctx, at(args, 2)),
      }),
  });
  const fromInteger = (extend: (bits: number, value: bigint) => bigint): SoftOperation => ({
    args: 2,
    run: (ctx, args) => fixedToFp(ctx, extend(width, at(args, 0)), size, Number(at(args, 1))),
  });
  return [
    [`fcvts_${size}_${width}`, toInteger(false)],
    [`fcvtu_${size}_${width}`, toInteger(true)],
    [`scvtf_${width}_${size}`, fromInteger(BigInt.asIntN)],
    [`ucvtf_${width}_${size}`, fromInteger(BigInt.asUintN)],
  ];
}

const ENTRIES: readonly Entry[] = [
  ...SIZES.flatMap(entriesOfSize),
  ['urecpe32', { args: 1, run: (_ctx, args) => unsignedRecipEstimate(at(args, 0)) }],
  ['ursqrte32', { args: 1, run: (_ctx, args) => unsignedRSqrtEstimate(at(args, 0)) }],
];

/**
 * All operations by name: `fadd32`; `fmuladd64` (addend, a, b); `frint32` (value, rounding, exact);
 * `fcvt_64_32` (value, rounding), from 64 to 32; `fcvts_64_32` and `fcvtu_64_32` (value, fraction
 * bits, rounding), format 64 to a 32-bit integer; `scvtf_64_32` and `ucvtf_64_32` (integer,
 * fraction bits), from a 64-bit integer to format 32; `urecpe32`, `ursqrte32`.
 */
export const softOperations: ReadonlyMap<string, SoftOperation> = new Map(ENTRIES);

/** All operations by id. */
export const softOperationList: readonly SoftOperation[] = ENTRIES.map(
  ([, operation]) => operation,
);

const IDS = new Map(ENTRIES.map(([name], id) => [name, id]));

/** The id that generated code passes for `name`, a name of the table. */
export function softOperationId(name: string): number {
  const id = IDS.get(name);
  assert(id !== undefined, 'no such soft operation');
  return id;
}
