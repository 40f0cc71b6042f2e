/**
 * Rows of scalar floating-point conversions: between formats, to and from general registers as
 * integers, fixed point or plain bits. Collected by `simd.ts`.
 */
import { Rounding } from '../fp/index.ts';
import { readScalar, type ScalarSemantics, scalarRows, writeScalar } from './fp-common.ts';
import {
  fpNarrow,
  fpToRegister,
  fpWiden,
  registerToFp,
  type ToInteger,
} from './fp-lanes-convert.ts';
import type { ElementSize, I64, Ops } from './ops.ts';
import { type Row, type RowOptions, row } from './row.ts';
import { bitsOf, type Size, scalarPart } from './simd-lanes.ts';

/** Width of the general register: field s splits every row here. */
const widthOf = (b: Ops): 32 | 64 => (b.fixed('s') === 1 ? 64 : 32);

/** Writes the low `width` bits of `value` to a general register. */
function setRegister(b: Ops, width: 32 | 64, value: I64): void {
  if (width === 64) b.setX('d', value);
  else b.setW('d', b.wrap(value));
}

// ---- to and from integers -----------------------------------------------------------------------

const toInteger: readonly [name: string, rmode: string, opcode: string, how: ToInteger][] = [
  ['FCVTNS', '00', '000', { unsigned: false, rounding: Rounding.TIE_EVEN }],
  ['FCVTNU', '00', '001', { unsigned: true, rounding: Rounding.TIE_EVEN }],
  ['FCVTAS', '00', '100', { unsigned: false, rounding: Rounding.TIE_AWAY }],
  ['FCVTAU', '00', '101', { unsigned: true, rounding: Rounding.TIE_AWAY }],
  ['FCVTPS', '01', '000', { unsigned: false, rounding: Rounding.PLUS_INFINITY }],
  ['FCVTPU', '01', '001', { unsigned: true, rounding: Rounding.PLUS_INFINITY }],
  ['FCVTMS', '10', '000', { unsigned: false, rounding: Rounding.MINUS_INFINITY }],
  ['FCVTMU', '10', '001', { unsigned: true, rounding: Rounding.MINUS_INFINITY }],
  ['FCVTZS', '11', '000', { unsigned: false, rounding: Rounding.ZERO }],
  ['FCVTZU', '11', '001', { unsigned: true, rounding: Rounding.ZERO }],
];

const toIntegerRows = toInteger.flatMap(([name, rmode, opcode, how]) =>
  scalarRows({
    name: `${name}_int`,
    pattern: `s0011110YY1${rmode}${opcode}000000nnnnnddddd`,
    syntax: `${name.toLowerCase()} <R:s,d>, <F:y,n>`,
    semantics(b, part) {
      const width = widthOf(b);
      const n = readScalar(b, part, 'n');
      setRegister(b, width, fpToRegister(b, part.size, n, width, how));
    },
    options: { split: 's' },
  }),
);

const fromIntegerRows = [false, true].flatMap((unsigned) =>
  scalarRows({
    name: unsigned ? 'UCVTF_int' : 'SCVTF_int',
    pattern: `s0011110YY100${unsigned ? '011' : '010'}000000nnnnnddddd`,
    syntax: `${unsigned ? 'ucvtf' : 'scvtf'} <F:y,d>, <R:s,n>`,
    semantics(b, part) {
      const value = registerToFp(b, part.size, b.x('n'), widthOf(b), unsigned);
      writeScalar(b, part, value);
    },
    options: { split: 's' },
  }),
);

// ---- to and from fixed point --------------------------------------------------------------------

/** In 32 bits there are 1 to 32 fraction bits. */
const reservedScale = (field: (letter: string) => number): boolean =>
  field('s') === 0 && field('i') < 32;

const fractionBits = (b: Ops): I64 => b.sub(b.i64(64), b.imm('i'));

const toFixed =
  (unsigned: boolean): ScalarSemantics =>
  (b, part) => {
    const width = widthOf(b);
    const bits = bitsOf(part.size);
    const name = `fcvt${unsigned ? 'u' : 's'}_${bits}_${width}`;
    const args = [b.element('n', bits, 0), fractionBits(b), b.i64(Rounding.ZERO)];
    setRegister(b, width, b.soft(name, args));
  };

const fromFixed =
  (unsigned: boolean): ScalarSemantics =>
  (b, part) => {
    const bits = bitsOf(part.size);
    const name = `${unsigned ? 'u' : 's'}cvtf_${widthOf(b)}_${bits}`;
    b.setScalar('d', bits, b.soft(name, [b.x('n'), fractionBits(b)]));
  };

const fixedRows = [false, true].flatMap((unsigned) => [
  ...scalarRows({
    name: unsigned ? 'FCVTZU_fixed' : 'FCVTZS_fixed',
    pattern: `s0011110YY011${unsigned ? '001' : '000'}iiiiiinnnnnddddd`,
    syntax: `${unsigned ? 'fcvtzu' : 'fcvtzs'} <R:s,d>, <F:y,n>, #<from:64,i>`,
    semantics: toFixed(unsigned),
    options: { split: 's', reserved: reservedScale },
  }),
  ...scalarRows({
    name: unsigned ? 'UCVTF_fixed' : 'SCVTF_fixed',
    pattern: `s0011110YY000${unsigned ? '011' : '010'}iiiiiinnnnnddddd`,
    syntax: `${unsigned ? 'ucvtf' : 'scvtf'} <F:y,d>, <R:s,n>, #<from:64,i>`,
    semantics: fromFixed(unsigned),
    options: { split: 's', reserved: reservedScale },
  }),
]);

// ---- between formats ----------------------------------------------------------------------------

const formats: readonly { letter: string; bits: string; size: Size }[] = [
  { letter: 'S', bits: '00', size: 2 },
  { letter: 'D', bits: '01', size: 3 },
  { letter: 'H', bits: '11', size: 1 },
];

function convert(b: Ops, from: Size, to: Size): void {
  const bits = bitsOf(to);
  if (Math.abs(from - to) === 2) {
    const name = `fcvt_${bitsOf(from)}_${bits}`;
    b.setScalar('d', bits, b.soft(name, [b.element('n', bitsOf(from), 0), b.i64(7)]));
    return;
  }
  const n = readScalar(b, scalarPart(from), 'n');
  const value = from < to ? fpWiden(b, scalarPart(to), n) : fpNarrow(b, scalarPart(from), n);
  b.setScalar('d', bits, b.lane(value, 64, 0));
}

const formatRows = formats.flatMap((from) =>
  formats
    .filter((to) => to !== from)
    .map((to) =>
      row(
        `FCVT_${from.letter}_${to.letter}`,
        `00011110${from.bits}10001${to.bits}10000nnnnnddddd`,
        `fcvt <${to.letter}:d>, <${from.letter}:n>`,
        (b) => convert(b, from.size, to.size),
        { fp: true },
      ),
    ),
);

// ---- plain bits ---------------------------------------------------------------------------------

interface Move {
  readonly general: 'W' | 'X';
  readonly vector: 'H' | 'S' | 'D';
  /** Bits 31 (sf) and 23:22 (ftype). */
  readonly sf: 0 | 1;
  readonly type: string;
  readonly bits: ElementSize;
}

const moves: readonly Move[] = [
  { general: 'W', vector: 'S', sf: 0, type: '00', bits: 32 },
  { general: 'X', vector: 'D', sf: 1, type: '01', bits: 64 },
  { general: 'W', vector: 'H', sf: 0, type: '11', bits: 16 },
  { general: 'X', vector: 'H', sf: 1, type: '11', bits: 16 },
];

const moveRows = moves.flatMap(({ general, vector, sf, type, bits }) => {
  const options: RowOptions = vector === 'H' ? { fp: true, feature: 'FEAT_FP16' } : { fp: true };
  return [
    row(
      `FMOV_${vector}_${general}`,
      `${sf}0011110${type}100110000000nnnnnddddd`,
      `fmov <${general}:d>, <${vector}:n>`,
      (b) => b.setX('d', b.element('n', bits, 0)),
      options,
    ),
    row(
      `FMOV_${general}_${vector}`,
      `${sf}0011110${type}100111000000nnnnnddddd`,
      `fmov <${vector}:d>, <${general}:n>`,
      (b) => b.setScalar('d', bits, b.x('n')),
      options,
    ),
  ];
});

/** To and from the upper half of a V register. */
const upperRows = [
  row(
    'FMOV_upper_X',
    '1001111010101110000000nnnnnddddd',
    'fmov <X:d>, <V:n>.d[1]',
    (b) => b.setX('d', b.element('n', 64, 1)),
    { fp: true },
  ),
  row(
    'FMOV_X_upper',
    '1001111010101111000000nnnnnddddd',
    'fmov <V:d>.d[1], <X:n>',
    (b) => b.setElement('d', 64, 1, b.x('n')),
    { fp: true },
  ),
];

export const rows: Row[] = [
  ...toIntegerRows,
  ...fromIntegerRows,
  ...fixedRows,
  ...formatRows,
  ...moveRows,
  ...upperRows,
];
