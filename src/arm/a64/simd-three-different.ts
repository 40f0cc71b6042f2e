/**
 * Rows for "Advanced SIMD three different": long, wide and narrowing arithmetic, where operands and
 * result differ in element size. Those ending in 2 work on upper halves. Collected by `simd.ts`.
 */
import type { Ops, V128 } from './ops.ts';
import { type Row, row } from './row.ts';
import {
  addSaturated,
  bitsOf,
  extend,
  multiplyLong,
  narrowedHigh,
  noteSaturated,
  readPart,
  repeat,
  type Size,
  scalarPart,
  shapeOf,
  subSaturated,
  vadd,
  vand,
  vsub,
  vxor,
  writeHalf,
  writePart,
  zeroes,
} from './simd-lanes.ts';
import { doublingLong } from './simd-multiply.ts';
import { polynomialProduct } from './simd-polynomial.ts';

/** Operands as the low (or upper) halves, with elements of `size`. */
interface Halves {
  readonly size: Size;
  readonly upper: boolean;
}

const wider = (size: Size): Size => (size + 1) as Size;

type Operation = (b: Ops, halves: Halves) => void;

// ---- the operations -----------------------------------------------------------------------------

type Combine = (b: Ops, size: Size, x: V128, y: V128) => V128;

/** Both sources extended, then combined. */
const long =
  (combine: Combine, signed: boolean): Operation =>
  (b, { size, upper }) => {
    const n = extend(b, size, b.v('n'), signed, upper);
    const m = extend(b, size, b.v('m'), signed, upper);
    b.setV('d', combine(b, wider(size), n, m));
  };

/** The second source extended, the first one as wide as the result. */
const wide =
  (combine: Combine, signed: boolean): Operation =>
  (b, { size, upper }) => {
    const m = extend(b, size, b.v('m'), signed, upper);
    b.setV('d', combine(b, wider(size), b.v('n'), m));
  };

/** The upper halves of the combined elements, optionally rounded. */
const highNarrow =
  (combine: Combine, rounding: boolean): Operation =>
  (b, { size, upper }) => {
    const full = combine(b, wider(size), b.v('n'), b.v('m'));
    const half = repeat(b, wider(size), 1n << BigInt(bitsOf(size) - 1));
    const rounded = rounding ? vadd(b, wider(size), full, half) : full;
    writeHalf(b, upper, 'd', narrowedHigh(b, size, b.let(rounded)));
  };

/** |n - m| in the wide elements, where the difference always fits. */
function longDifference(b: Ops, { size, upper }: Halves, signed: boolean): V128 {
  const n = extend(b, size, b.v('n'), signed, upper);
  const m = extend(b, size, b.v('m'), signed, upper);
  return b.vop(`${shapeOf(wider(size))}.abs`, vsub(b, wider(size), n, m));
}

const longProduct = (b: Ops, { size, upper }: Halves, signed: boolean): V128 =>
  multiplyLong(b, size, b.v('n'), b.v('m'), signed, upper);

/** A long result that stands alone, or is added to or taken from the destination. */
const accumulating =
  (
    operation: (b: Ops, halves: Halves, signed: boolean) => V128,
    signed: boolean,
    combine?: Combine,
  ): Operation =>
  (b, halves) => {
    const value = operation(b, halves, signed);
    const size = wider(halves.size);
    b.setV('d', combine === undefined ? value : combine(b, size, b.v('d'), value));
  };

// ---- rows ---------------------------------------------------------------------------------------

interface Entry {
  readonly name: string;
  readonly u: 0 | 1;
  readonly opcode: string;
  /** Which operands have narrow elements: both sources, the second one, or the result. */
  readonly form: 'long' | 'wide' | 'narrow';
  readonly operation: Operation;
}

/** The signed and the unsigned instruction of one opcode. */
const signedAndUnsigned = (
  name: string,
  opcode: string,
  form: 'long' | 'wide',
  operation: (signed: boolean) => Operation,
): Entry[] =>
  [true, false].map((signed) => ({
    name: `${signed ? 'S' : 'U'}${name}`,
    u: signed ? 0 : 1,
    opcode,
    form,
    operation: operation(signed),
  }));

const narrowing = (name: string, opcode: string, combine: Combine): Entry[] =>
  [false, true].map((rounding) => ({
    name: `${rounding ? 'R' : ''}${name}`,
    u: rounding ? 1 : 0,
    opcode,
    form: 'narrow',
    operation: highNarrow(combine, rounding),
  }));

const product =
  (combine?: Combine) =>
  (signed: boolean): Operation =>
    accumulating(longProduct, signed, combine);

const difference =
  (combine?: Combine) =>
  (signed: boolean): Operation =>
    accumulating(longDifference, signed, combine);

const entries: readonly Entry[] = [
  ...signedAndUnsigned('ADDL', '0000', 'long', (signed) => long(vadd, signed)),
  ...signedAndUnsigned('ADDW', '0001', 'wide', (signed) => wide(vadd, signed)),
  ...signedAndUnsigned('SUBL', '0010', 'long', (signed) => long(vsub, signed)),
  ...signedAndUnsigned('SUBW', '0011', 'wide', (signed) => wide(vsub, signed)),
  ...narrowing('ADDHN', '0100', vadd),
  ...signedAndUnsigned('ABAL', '0101', 'long', difference(vadd)),
  ...narrowing('SUBHN', '0110', vsub),
  ...signedAndUnsigned('ABDL', '0111', 'long', difference()),
  ...signedAndUnsigned('MLAL', '1000', 'long', product(vadd)),
  ...signedAndUnsigned('MLSL', '1010', 'long', product(vsub)),
  ...signedAndUnsigned('MULL', '1100', 'long', product()),
];

const SYNTAX = {
  long: (q: number): string => `<VW:z,d>, <VT:${q},z,n>, <VT:${q},z,m>`,
  wide: (q: number): string => `<VW:z,d>, <VW:z,n>, <VT:${q},z,m>`,
  narrow: (q: number): string => `<VT:${q},z,d>, <VW:z,n>, <VW:z,m>`,
};

const rowsOf = ({ name, u, opcode, form, operation }: Entry): Row[] =>
  [0, 1].map((q) => {
    const two = q === 1 ? '2' : '';
    return row(
      `${name}${two}`,
      `0${q}${u}01110zz1mmmmm${opcode}00nnnnnddddd`,
      `${name.toLowerCase()}${two} ${SYNTAX[form](q)}`,
      (b) => {
        const size = b.fixed('z') as Size;
        if (size === 3) b.undefined();
        else operation(b, { size, upper: q === 1 });
      },
      { split: 'z', fp: true, reserved: (field) => field('z') === 3 },
    );
  });

// ---- saturating doubling ------------------------------------------------------------------------

/** How a doubled product goes into the destination; both steps saturate. */
const doubling: readonly [name: string, opcode: string, combine?: typeof addSaturated][] = [
  ['SQDMLAL', '1001', addSaturated],
  ['SQDMLSL', '1011', subSaturated],
  ['SQDMULL', '1101'],
];

/** The result of a doubling long multiplication; raises QC. Shared with the by-element rows. */
export function doublingLongResult(
  b: Ops,
  halves: Halves,
  operands: { n: V128; m: V128; d: () => V128 },
  combine?: typeof addSaturated,
): V128 {
  const { size, upper } = halves;
  const { value, mask } = doublingLong(b, size, operands.n, operands.m, upper);
  noteSaturated(b, mask);
  if (combine === undefined) return value;
  const sum = combine(b, wider(size), true, operands.d(), b.let(value));
  noteSaturated(b, sum.mask);
  return sum.value;
}

const isMiddle = (size: number): boolean => size === 1 || size === 2;

const doublingRows = doubling.flatMap(([name, opcode, combine]) => {
  const mnemonic = name.toLowerCase();
  const reserved = (field: (letter: string) => number): boolean => !isMiddle(field('z'));
  const vector = [0, 1].map((q) =>
    row(
      `${name}${q === 1 ? '2' : ''}`,
      `0${q}001110zz1mmmmm${opcode}00nnnnnddddd`,
      `${mnemonic}${q === 1 ? '2' : ''} ${SYNTAX.long(q)}`,
      (b) => {
        const size = b.fixed('z') as Size;
        if (!isMiddle(size)) {
          b.undefined();
          return;
        }
        const operands = { n: b.v('n'), m: b.v('m'), d: () => b.v('d') };
        b.setV('d', doublingLongResult(b, { size, upper: q === 1 }, operands, combine));
      },
      { split: 'z', fp: true, reserved },
    ),
  );
  const scalar = row(
    `${name}_scalar`,
    `01011110zz1mmmmm${opcode}00nnnnnddddd`,
    `${mnemonic} <FZW:z,d>, <FZ:z,n>, <FZ:z,m>`,
    (b) => {
      const size = b.fixed('z') as Size;
      if (!isMiddle(size)) {
        b.undefined();
        return;
      }
      const wideScalar = scalarPart(wider(size));
      const n = readPart(b, scalarPart(size), 'n');
      const m = readPart(b, scalarPart(size), 'm');
      const operands = { n, m, d: () => readPart(b, wideScalar, 'd') };
      const value = doublingLongResult(b, { size, upper: false }, operands, combine);
      writePart(b, wideScalar, 'd', value);
    },
    { split: 'z', fp: true, reserved },
  );
  return [...vector, scalar];
});

// ---- polynomials --------------------------------------------------------------------------------

/** Arm: PolynomialMult() of bytes to 16 bits. */
function polynomialBytes(b: Ops, upper: boolean): V128 {
  const n = b.let(extend(b, 0, b.v('n'), false, upper));
  const m = b.let(extend(b, 0, b.v('m'), false, upper));
  let result = zeroes(b);
  for (let i = 0; i < 8; i++) {
    const bit = b.vop('i16x8.shr_s', b.vop('i16x8.shl', m, b.i32(15 - i)), b.i32(15));
    result = vxor(b, result, vand(b, bit, b.vop('i16x8.shl', n, b.i32(i))));
  }
  return result;
}

const polynomialRows = [0, 1].flatMap((q) => {
  const two = q === 1 ? '2' : '';
  return [
    row(
      `PMULL${two}_8`,
      `0${q}001110001mmmmm111000nnnnnddddd`,
      `pmull${two} <VW:0,d>, <VT:${q},0,n>, <VT:${q},0,m>`,
      (b) => b.setV('d', polynomialBytes(b, q === 1)),
      { fp: true },
    ),
    row(
      `PMULL${two}_64`,
      `0${q}001110111mmmmm111000nnnnnddddd`,
      `pmull${two} <VW:3,d>, <VT:${q},3,n>, <VT:${q},3,m>`,
      (b) => {
        const { low, high } = polynomialProduct(b, b.element('n', 64, q), b.element('m', 64, q));
        b.setV('d', b.withLane(b.withLane(zeroes(b), 64, 0, low), 64, 1, high));
      },
      { fp: true, feature: 'FEAT_PMULL' },
    ),
  ];
});

export const rows: Row[] = [...entries.flatMap(rowsOf), ...doublingRows, ...polynomialRows];
