/**
 * Rows for "Advanced SIMD three same" in floating point, vector and scalar, single, double and half
 * precision, and the pairwise and across-lanes reductions. Collected by `simd.ts`.
 */
import {
  type FpOperation,
  fpAbsoluteDifference,
  fpAdd,
  fpCompareEq,
  fpCompareGe,
  fpCompareGt,
  fpDiv,
  fpMax,
  fpMaxNum,
  fpMin,
  fpMinNum,
  fpMul,
  fpMulAdd,
  fpMulX,
  fpRecipStep,
  fpRSqrtStep,
  fpSub,
  negate,
  ofMagnitudes,
} from './fp-lanes.ts';
import type { Ops, V128 } from './ops.ts';
import { type Row, type RowOptions, row } from './row.ts';
import {
  alternate,
  type Part,
  readPart,
  type Size,
  scalarPart,
  vectorPart,
  writePart,
} from './simd-lanes.ts';

type Operation = (b: Ops, part: Part) => void;

const elementwise =
  (operation: FpOperation): Operation =>
  (b, part) => {
    const n = readPart(b, part, 'n');
    const m = readPart(b, part, 'm');
    writePart(b, part, 'd', operation(b, part, n, m));
  };

const pairwise =
  (operation: FpOperation): Operation =>
  (b, part) => {
    const [n, m] = [b.v('n'), b.v('m')];
    const even = b.let(alternate(b, part, n, m, 0));
    const odd = b.let(alternate(b, part, n, m, 1));
    writePart(b, part, 'd', operation(b, part, even, odd));
  };

/** Arm: FMLA and FMLS; the latter negates its first factor. */
const multiplyAccumulate =
  (negated: boolean): Operation =>
  (b, part) => {
    const d = readPart(b, part, 'd');
    const n = readPart(b, part, 'n');
    const factor = negated ? b.let(negate(b, part, n)) : n;
    writePart(b, part, 'd', fpMulAdd(b, part, d, factor, readPart(b, part, 'm')));
  };

interface Entry {
  readonly name: string;
  readonly u: 0 | 1;
  /** Bit 23. */
  readonly a: 0 | 1;
  /** Bits 13:11 behind 11 (00 for half precision). */
  readonly opcode: string;
  readonly operation: Operation;
  readonly scalar?: true;
}

const entries: readonly Entry[] = [
  { name: 'FMAXNM', u: 0, a: 0, opcode: '000', operation: elementwise(fpMaxNum) },
  { name: 'FMLA', u: 0, a: 0, opcode: '001', operation: multiplyAccumulate(false) },
  { name: 'FADD', u: 0, a: 0, opcode: '010', operation: elementwise(fpAdd) },
  { name: 'FMULX', u: 0, a: 0, opcode: '011', operation: elementwise(fpMulX), scalar: true },
  { name: 'FCMEQ', u: 0, a: 0, opcode: '100', operation: elementwise(fpCompareEq), scalar: true },
  { name: 'FMAX', u: 0, a: 0, opcode: '110', operation: elementwise(fpMax) },
  { name: 'FRECPS', u: 0, a: 0, opcode: '111', operation: elementwise(fpRecipStep), scalar: true },
  { name: 'FMINNM', u: 0, a: 1, opcode: '000', operation: elementwise(fpMinNum) },
  { name: 'FMLS', u: 0, a: 1, opcode: '001', operation: multiplyAccumulate(true) },
  { name: 'FSUB', u: 0, a: 1, opcode: '010', operation: elementwise(fpSub) },
  { name: 'FMIN', u: 0, a: 1, opcode: '110', operation: elementwise(fpMin) },
  { name: 'FRSQRTS', u: 0, a: 1, opcode: '111', operation: elementwise(fpRSqrtStep), scalar: true },
  { name: 'FMAXNMP', u: 1, a: 0, opcode: '000', operation: pairwise(fpMaxNum) },
  { name: 'FADDP', u: 1, a: 0, opcode: '010', operation: pairwise(fpAdd) },
  { name: 'FMUL', u: 1, a: 0, opcode: '011', operation: elementwise(fpMul) },
  { name: 'FCMGE', u: 1, a: 0, opcode: '100', operation: elementwise(fpCompareGe), scalar: true },
  {
    name: 'FACGE',
    u: 1,
    a: 0,
    opcode: '101',
    operation: elementwise(ofMagnitudes(fpCompareGe)),
    scalar: true,
  },
  { name: 'FMAXP', u: 1, a: 0, opcode: '110', operation: pairwise(fpMax) },
  { name: 'FDIV', u: 1, a: 0, opcode: '111', operation: elementwise(fpDiv) },
  { name: 'FMINNMP', u: 1, a: 1, opcode: '000', operation: pairwise(fpMinNum) },
  {
    name: 'FABD',
    u: 1,
    a: 1,
    opcode: '010',
    operation: elementwise(fpAbsoluteDifference),
    scalar: true,
  },
  { name: 'FCMGT', u: 1, a: 1, opcode: '100', operation: elementwise(fpCompareGt), scalar: true },
  {
    name: 'FACGT',
    u: 1,
    a: 1,
    opcode: '101',
    operation: elementwise(ofMagnitudes(fpCompareGt)),
    scalar: true,
  },
  { name: 'FMINP', u: 1, a: 1, opcode: '110', operation: pairwise(fpMin) },
];

const HALF: RowOptions = { fp: true, feature: 'FEAT_FP16' };

const sizeOf = (b: Ops): Size => (2 + b.fixed('y')) as Size;

function vectorRows({ name, u, a, opcode, operation }: Entry): Row[] {
  const mnemonic = name.toLowerCase();
  return [
    row(
      `${name}_vector`,
      `0q${u}01110${a}y1mmmmm11${opcode}1nnnnnddddd`,
      `${mnemonic} <VF:q,y,d>, <VF:q,y,n>, <VF:q,y,m>`,
      (b) => {
        if (b.fixed('y') > b.fixed('q')) b.undefined();
        else operation(b, vectorPart(sizeOf(b), b.fixed('q')));
      },
      { split: 'q y', fp: true, reserved: (field) => field('y') > field('q') },
    ),
    row(
      `${name}_vector_half`,
      `0q${u}01110${a}10mmmmm00${opcode}1nnnnnddddd`,
      `${mnemonic} <VT:q,1,d>, <VT:q,1,n>, <VT:q,1,m>`,
      (b) => operation(b, vectorPart(1, b.fixed('q'))),
      { ...HALF, split: 'q' },
    ),
  ];
}

function scalarRows({ name, u, a, opcode, operation }: Entry): Row[] {
  const mnemonic = name.toLowerCase();
  return [
    row(
      `${name}_scalar`,
      `01${u}11110${a}y1mmmmm11${opcode}1nnnnnddddd`,
      `${mnemonic} <F:y,d>, <F:y,n>, <F:y,m>`,
      (b) => operation(b, scalarPart(sizeOf(b))),
      { split: 'y', fp: true },
    ),
    row(
      `${name}_scalar_half`,
      `01${u}11110${a}10mmmmm00${opcode}1nnnnnddddd`,
      `${mnemonic} <H:d>, <H:n>, <H:m>`,
      (b) => operation(b, scalarPart(1)),
      HALF,
    ),
  ];
}

// ---- reductions ---------------------------------------------------------------------------------

/** Neighbours first, down to one element. Arm: Reduce(). */
function reduce(b: Ops, part: Part, value: V128, operation: FpOperation): V128 {
  let rest = value;
  for (let bits = part.bits / 2; bits >= 8 << part.size; bits /= 2) {
    const half: Part = { size: part.size, bits: bits as 64 };
    const whole: Part = { size: part.size, bits: 128 };
    const even = b.let(alternate(b, whole, rest, rest, 0));
    const odd = b.let(alternate(b, whole, rest, rest, 1));
    rest = b.let(operation(b, half, even, odd));
  }
  return rest;
}

/** Opcode, bit 23 and operation of the maxima and minima, pairwise and across. */
const extrema: readonly [name: string, a: 0 | 1, opcode: string, operation: FpOperation][] = [
  ['FMAXNM', 0, '01100', fpMaxNum],
  ['FMAX', 0, '01111', fpMax],
  ['FMINNM', 1, '01100', fpMinNum],
  ['FMIN', 1, '01111', fpMin],
];

const acrossRows = extrema.flatMap(([name, a, opcode, operation]) => [
  row(
    `${name}V`,
    `01101110${a}0110000${opcode.slice(1)}10nnnnnddddd`,
    `${name.toLowerCase()}v <S:d>, <V:n>.4s`,
    (b) => {
      const result = reduce(b, vectorPart(2, 1), b.v('n'), operation);
      writePart(b, scalarPart(2), 'd', result);
    },
    { fp: true },
  ),
  row(
    `${name}V_half`,
    `0q001110${a}0110000${opcode.slice(1)}10nnnnnddddd`,
    `${name.toLowerCase()}v <H:d>, <VT:q,1,n>`,
    (b) => {
      const result = reduce(b, vectorPart(1, b.fixed('q')), b.v('n'), operation);
      writePart(b, scalarPart(1), 'd', result);
    },
    { ...HALF, split: 'q' },
  ),
]);

const pairRows = [...extrema, ['FADD', 0, '01101', fpAdd] as const].flatMap(
  ([name, a, opcode, operation]) => {
    const semantics = (b: Ops, size: Size): void => {
      const part: Part = { size, bits: (16 << size) as 32 | 64 | 128 };
      writePart(b, scalarPart(size), 'd', reduce(b, part, b.v('n'), operation));
    };
    return [
      row(
        `${name}P_scalar`,
        `01111110${a}y110000${opcode.slice(1)}10nnnnnddddd`,
        `${name.toLowerCase()}p <F:y,d>, <V2:y,n>`,
        (b) => semantics(b, sizeOf(b)),
        { split: 'y', fp: true },
      ),
      row(
        `${name}P_scalar_half`,
        `01011110${a}0110000${opcode.slice(1)}10nnnnnddddd`,
        `${name.toLowerCase()}p <H:d>, <V:n>.2h`,
        (b) => semantics(b, 1),
        HALF,
      ),
    ];
  },
);

export const rows: Row[] = [
  ...entries.flatMap(vectorRows),
  ...entries.filter((entry) => entry.scalar).flatMap(scalarRows),
  ...acrossRows,
  ...pairRows,
];
