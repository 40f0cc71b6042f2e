/**
 * Rows for "Advanced SIMD two-register miscellaneous" in floating point, vector and scalar, single,
 * double and half precision. Collected by `simd.ts`.
 */
import { ROUNDING_FPCR, Rounding } from '../fp/index.ts';
import {
  absolute,
  type FpOperation,
  fpCompareEq,
  fpCompareGe,
  fpCompareGt,
  fpRecipEstimate,
  fpRecipExponent,
  fpRSqrtEstimate,
  fpSqrt,
  negate,
  softLanes,
} from './fp-lanes.ts';
import {
  fpNarrow,
  fpNarrowToOdd,
  fpRoundInt,
  fpToInteger,
  fpWiden,
  integerToFp,
  type RoundingMode,
} from './fp-lanes-convert.ts';
import type { Ops, V128 } from './ops.ts';
import { type Row, type RowOptions, row } from './row.ts';
import {
  type Part,
  permute,
  readPart,
  type Size,
  scalarPart,
  vectorPart,
  writeHalf,
  writePart,
  zeroes,
} from './simd-lanes.ts';

interface Entry {
  readonly name: string;
  readonly u: 0 | 1;
  /** Bit 23. */
  readonly a: 0 | 1;
  readonly opcode: string;
  readonly operation: FpOperation;
  readonly forms: 'vector' | 'scalar' | 'both';
  /** What follows the source (`, #0.0`). */
  readonly suffix?: string;
}

const round = (
  name: string,
  u: 0 | 1,
  a: 0 | 1,
  opcode: string,
  rounding: RoundingMode,
  exact = false,
): Entry => ({ name, u, a, opcode, operation: fpRoundInt(rounding, exact), forms: 'vector' });

/** The signed and the unsigned conversion to an integer. */
const toInteger = (letter: string, a: 0 | 1, opcode: string, rounding: Rounding): Entry[] =>
  ([0, 1] as const).map((u) => ({
    name: `FCVT${letter}${u === 0 ? 'S' : 'U'}`,
    u,
    a,
    opcode,
    operation: fpToInteger({ unsigned: u === 1, rounding }),
    forms: 'both',
  }));

const compareZero = (
  name: string,
  u: 0 | 1,
  opcode: string,
  operation: FpOperation,
  swapped: boolean,
): Entry => ({
  name,
  u,
  a: 1,
  opcode,
  operation: (b, part, n) => {
    const zero = b.let(zeroes(b));
    return swapped ? operation(b, part, zero, n!) : operation(b, part, n!, zero);
  },
  forms: 'both',
  suffix: ', #0.0',
});

const entries: readonly Entry[] = [
  round('FRINTN', 0, 0, '11000', Rounding.TIE_EVEN),
  round('FRINTM', 0, 0, '11001', Rounding.MINUS_INFINITY),
  round('FRINTP', 0, 1, '11000', Rounding.PLUS_INFINITY),
  round('FRINTZ', 0, 1, '11001', Rounding.ZERO),
  round('FRINTA', 1, 0, '11000', Rounding.TIE_AWAY),
  round('FRINTX', 1, 0, '11001', ROUNDING_FPCR, true),
  round('FRINTI', 1, 1, '11001', ROUNDING_FPCR),
  ...toInteger('N', 0, '11010', Rounding.TIE_EVEN),
  ...toInteger('M', 0, '11011', Rounding.MINUS_INFINITY),
  ...toInteger('A', 0, '11100', Rounding.TIE_AWAY),
  ...toInteger('P', 1, '11010', Rounding.PLUS_INFINITY),
  ...toInteger('Z', 1, '11011', Rounding.ZERO),
  { name: 'SCVTF', u: 0, a: 0, opcode: '11101', operation: integerToFp(false), forms: 'both' },
  { name: 'UCVTF', u: 1, a: 0, opcode: '11101', operation: integerToFp(true), forms: 'both' },
  compareZero('FCMGT', 0, '01100', fpCompareGt, false),
  compareZero('FCMGE', 1, '01100', fpCompareGe, false),
  compareZero('FCMEQ', 0, '01101', fpCompareEq, false),
  compareZero('FCMLE', 1, '01101', fpCompareGe, true),
  compareZero('FCMLT', 0, '01110', fpCompareGt, true),
  { name: 'FABS', u: 0, a: 1, opcode: '01111', operation: absolute, forms: 'vector' },
  { name: 'FNEG', u: 1, a: 1, opcode: '01111', operation: negate, forms: 'vector' },
  { name: 'FSQRT', u: 1, a: 1, opcode: '11111', operation: fpSqrt, forms: 'vector' },
  { name: 'FRECPE', u: 0, a: 1, opcode: '11101', operation: fpRecipEstimate, forms: 'both' },
  { name: 'FRSQRTE', u: 1, a: 1, opcode: '11101', operation: fpRSqrtEstimate, forms: 'both' },
  { name: 'FRECPX', u: 0, a: 1, opcode: '11111', operation: fpRecipExponent, forms: 'scalar' },
];

const HALF: RowOptions = { fp: true, feature: 'FEAT_FP16' };

const sizeOf = (b: Ops): Size => (2 + b.fixed('y')) as Size;

const apply = (b: Ops, part: Part, operation: FpOperation): void =>
  writePart(b, part, 'd', operation(b, part, readPart(b, part, 'n')));

const nameOf = ({ name, suffix }: Entry, form: string): string =>
  `${name}${suffix === undefined ? '' : '_zero'}_${form}`;

const reservedDouble = (field: (letter: string) => number): boolean => field('y') > field('q');

function vectorRows(entry: Entry): Row[] {
  const { u, a, opcode, operation, suffix = '' } = entry;
  const mnemonic = entry.name.toLowerCase();
  return [
    row(
      nameOf(entry, 'vector'),
      `0q${u}01110${a}y10000${opcode}10nnnnnddddd`,
      `${mnemonic} <VF:q,y,d>, <VF:q,y,n>${suffix}`,
      (b) => {
        if (reservedDouble((letter) => b.fixed(letter))) b.undefined();
        else apply(b, vectorPart(sizeOf(b), b.fixed('q')), operation);
      },
      { split: 'q y', fp: true, reserved: reservedDouble },
    ),
    row(
      nameOf(entry, 'vector_half'),
      `0q${u}01110${a}111100${opcode}10nnnnnddddd`,
      `${mnemonic} <VT:q,1,d>, <VT:q,1,n>${suffix}`,
      (b) => apply(b, vectorPart(1, b.fixed('q')), operation),
      { ...HALF, split: 'q' },
    ),
  ];
}

function scalarRows(entry: Entry): Row[] {
  const { u, a, opcode, operation, suffix = '' } = entry;
  const mnemonic = entry.name.toLowerCase();
  return [
    row(
      nameOf(entry, 'scalar'),
      `01${u}11110${a}y10000${opcode}10nnnnnddddd`,
      `${mnemonic} <F:y,d>, <F:y,n>${suffix}`,
      (b) => apply(b, scalarPart(sizeOf(b)), operation),
      { split: 'y', fp: true },
    ),
    row(
      nameOf(entry, 'scalar_half'),
      `01${u}11110${a}111100${opcode}10nnnnnddddd`,
      `${mnemonic} <H:d>, <H:n>${suffix}`,
      (b) => apply(b, scalarPart(1), operation),
      HALF,
    ),
  ];
}

// ---- estimates of integers ----------------------------------------------------------------------

const estimateRows = (['urecpe', 'ursqrte'] as const).map((mnemonic) =>
  row(
    mnemonic.toUpperCase(),
    `0q${mnemonic === 'urecpe' ? 0 : 1}0111010100001110010nnnnnddddd`,
    `${mnemonic} <VF:q,0,d>, <VF:q,0,n>`,
    (b) => {
      const part = vectorPart(2, b.fixed('q'));
      apply(b, part, (_b, _part, n) => softLanes(b, part, `${mnemonic}32`, [n!]));
    },
    { split: 'q', fp: true },
  ),
);

// ---- between formats ----------------------------------------------------------------------------

/** The low or the upper half of a register, as the low half. */
function readHalf(b: Ops, upper: boolean): V128 {
  const n = b.v('n');
  return upper ? b.let(permute(b, 3, n, n, () => 1)) : n;
}

const formatRows = [0, 1].flatMap((q) => {
  const two = q === 1 ? '2' : '';
  return [
    row(
      `FCVTL${two}`,
      `0${q}0011100y100001011110nnnnnddddd`,
      `fcvtl${two} <VFW:y,d>, <VFN:${q},y,n>`,
      (b) => {
        const part = vectorPart(sizeOf(b), 1);
        b.setV('d', fpWiden(b, part, readHalf(b, q === 1)));
      },
      { split: 'y', fp: true },
    ),
    row(
      `FCVTN${two}`,
      `0${q}0011100y100001011010nnnnnddddd`,
      `fcvtn${two} <VFN:${q},y,d>, <VFW:y,n>`,
      (b) => writeHalf(b, q === 1, 'd', fpNarrow(b, vectorPart(sizeOf(b), 1), b.v('n'))),
      { split: 'y', fp: true },
    ),
    row(
      `FCVTXN${two}`,
      `0${q}10111001100001011010nnnnnddddd`,
      `fcvtxn${two} <VFN:${q},1,d>, <V:n>.2d`,
      (b) => writeHalf(b, q === 1, 'd', fpNarrowToOdd(b, vectorPart(3, 1), b.v('n'))),
      { fp: true },
    ),
  ];
});

const narrowToOddScalar = row(
  'FCVTXN_scalar',
  '0111111001100001011010nnnnnddddd',
  'fcvtxn <S:d>, <D:n>',
  (b) => writePart(b, scalarPart(2), 'd', fpNarrowToOdd(b, scalarPart(3), b.v('n'))),
  { fp: true },
);

export const rows: Row[] = [
  ...entries.filter((entry) => entry.forms !== 'scalar').flatMap(vectorRows),
  ...entries.filter((entry) => entry.forms !== 'vector').flatMap(scalarRows),
  ...estimateRows,
  ...formatRows,
  narrowToOddScalar,
];
