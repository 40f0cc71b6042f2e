/**
 * Rows for "Advanced SIMD shift by immediate", vector and scalar. The position of the highest set
 * bit of immh gives the element size; each size is a row, with the bits behind it as field i: a
 * left shift by i, a right shift by the element bits less i. Collected by `simd.ts`.
 */
import { fixedToFpLanes, fpToFixedLanes } from './fp-lanes-convert.ts';
import type { I32, I64, Ops, V128 } from './ops.ts';
import { type Alias, alias, type Row, type RowOptions, row } from './row.ts';
import {
  allOnes,
  bitsOf,
  compareLanes,
  extend,
  type Narrowing,
  narrowed,
  narrowSaturated,
  noteSaturated,
  type Part,
  readPart,
  repeat,
  type Size,
  scalarPart,
  shiftRight,
  signMask,
  vadd,
  vectorPart,
  vnot,
  vor,
  vselect,
  vshl,
  vshr,
  vxor,
  writeHalf,
  writePart,
} from './simd-lanes.ts';

/** immh:immb for elements of `size`. */
const immediate = (size: Size): string => `${'0'.repeat(3 - size)}1${'i'.repeat(3 + size)}`;

const letters = ['b', 'h', 's', 'd'] as const;
const ALL: readonly Size[] = [0, 1, 2, 3];
const NARROW: readonly Size[] = [0, 1, 2];
const D_ONLY: readonly Size[] = [3];

/** 1 … element bits. */
const rightAmount = (b: Ops, size: Size): I32 => b.let(b.sub(b.i32(bitsOf(size)), b.field('i')));
const leftAmount = (b: Ops): I32 => b.let(b.field('i'));

// ---- same size ----------------------------------------------------------------------------------

type Shift = (b: Ops, part: Part, n: V128) => V128;

interface Right {
  readonly signed: boolean;
  readonly rounding: boolean;
  readonly accumulate: boolean;
}

const right =
  ({ signed, rounding, accumulate }: Right): Shift =>
  (b, { size }, n) => {
    const shifted = shiftRight(b, size, n, rightAmount(b, size), { signed, rounding });
    return accumulate ? vadd(b, size, b.v('d'), shifted) : shifted;
  };

/** SRI: bits that nothing is shifted into keep their old value. */
const rightInsert: Shift = (b, { size }, n) => {
  const amount = rightAmount(b, size);
  const plain = { signed: false, rounding: false };
  const mask = shiftRight(b, size, allOnes(b), amount, plain);
  return vselect(b, b.let(mask), shiftRight(b, size, n, amount, plain), b.v('d'));
};

const left: Shift = (b, { size }, n) => vshl(b, size, n, leftAmount(b));

/** SLI. */
const leftInsert: Shift = (b, { size }, n) => {
  const amount = leftAmount(b);
  return vselect(b, vshl(b, size, allOnes(b), amount), vshl(b, size, n, amount), b.v('d'));
};

/** Arm: SatQ() of a left shift; `to-unsigned` takes signed numbers and gives unsigned ones. */
const leftSaturated =
  (how: Narrowing): Shift =>
  (b, { size }, n) => {
    const amount = leftAmount(b);
    const shifted = b.let(vshl(b, size, n, amount));
    const signed = how === 'signed';
    const back = vshr(b, size, shifted, amount, signed);
    const lost = b.let(vnot(b, compareLanes(b, size, 'eq', back, n)));
    const sign = signMask(b, size, n);
    if (signed) {
      noteSaturated(b, lost);
      const most = repeat(b, size, (1n << BigInt(bitsOf(size) - 1)) - 1n);
      return vselect(b, lost, vxor(b, sign, most), shifted);
    }
    if (how === 'unsigned') {
      noteSaturated(b, lost);
      return vor(b, shifted, lost);
    }
    const negative = b.let(sign);
    noteSaturated(b, vor(b, lost, negative));
    return b.vop('v128.andnot', vor(b, shifted, lost), negative);
  };

interface Entry {
  readonly name: string;
  readonly u: 0 | 1;
  readonly opcode: string;
  readonly to: 'left' | 'right';
  readonly scalar: readonly Size[];
  readonly operation: Shift;
}

const rights: readonly [name: string, opcode: string, rounding: boolean, accumulate: boolean][] = [
  ['SHR', '00000', false, false],
  ['SRA', '00010', false, true],
  ['RSHR', '00100', true, false],
  ['RSRA', '00110', true, true],
];

const entries: readonly Entry[] = [
  ...rights.flatMap(([name, opcode, rounding, accumulate]) =>
    [true, false].map(
      (signed): Entry => ({
        name: `${signed ? 'S' : 'U'}${name}`,
        u: signed ? 0 : 1,
        opcode,
        to: 'right',
        scalar: D_ONLY,
        operation: right({ signed, rounding, accumulate }),
      }),
    ),
  ),
  { name: 'SRI', u: 1, opcode: '01000', to: 'right', scalar: D_ONLY, operation: rightInsert },
  { name: 'SHL', u: 0, opcode: '01010', to: 'left', scalar: D_ONLY, operation: left },
  { name: 'SLI', u: 1, opcode: '01010', to: 'left', scalar: D_ONLY, operation: leftInsert },
  {
    name: 'SQSHLU',
    u: 1,
    opcode: '01100',
    to: 'left',
    scalar: ALL,
    operation: leftSaturated('to-unsigned'),
  },
  {
    name: 'SQSHL',
    u: 0,
    opcode: '01110',
    to: 'left',
    scalar: ALL,
    operation: leftSaturated('signed'),
  },
  {
    name: 'UQSHL',
    u: 1,
    opcode: '01110',
    to: 'left',
    scalar: ALL,
    operation: leftSaturated('unsigned'),
  },
];

const apply = (b: Ops, part: Part, operation: Shift): void =>
  writePart(b, part, 'd', operation(b, part, readPart(b, part, 'n')));

/** A vector row of one element size; there is no arrangement 1d. */
function vectorRow(
  text: { name: string; syntax: string },
  bits: { u: 0 | 1; opcode: string },
  size: Size,
  semantics: (b: Ops, part: Part) => void,
  more: RowOptions = {},
): Row {
  const options: RowOptions =
    size === 3 ? { reserved: (field) => field('q') === 0, ...more } : more;
  return row(
    `${text.name}_vector_${letters[size]}`,
    `0q${bits.u}011110${immediate(size)}${bits.opcode}1nnnnnddddd`,
    text.syntax,
    (b) => {
      if (size === 3 && b.fixed('q') === 0) b.undefined();
      else semantics(b, vectorPart(size, b.fixed('q')));
    },
    { split: 'q', fp: true, ...options },
  );
}

const amountSyntax = (to: 'left' | 'right', size: Size): string =>
  to === 'left' ? '#<u:i>' : `#<from:${bitsOf(size)},i>`;

const sameSizeRows = entries.flatMap((entry) => {
  const mnemonic = entry.name.toLowerCase();
  const vectors = ALL.map((size) =>
    vectorRow(
      {
        name: `${entry.name}_imm`,
        syntax: `${mnemonic} <VT:q,${size},d>, <VT:q,${size},n>, ${amountSyntax(entry.to, size)}`,
      },
      entry,
      size,
      (b, part) => apply(b, part, entry.operation),
    ),
  );
  const scalars = entry.scalar.map((size) =>
    row(
      `${entry.name}_imm_scalar_${letters[size]}`,
      `01${entry.u}111110${immediate(size)}${entry.opcode}1nnnnnddddd`,
      `${mnemonic} <FZ:${size},d>, <FZ:${size},n>, ${amountSyntax(entry.to, size)}`,
      (b) => apply(b, scalarPart(size), entry.operation),
      { fp: true },
    ),
  );
  return [...vectors, ...scalars];
});

// ---- narrowing ----------------------------------------------------------------------------------

interface NarrowEntry {
  readonly name: string;
  readonly u: 0 | 1;
  readonly opcode: string;
  readonly rounding: boolean;
  /** Truncates when undefined. */
  readonly saturation?: Narrowing;
}

const narrowings: readonly NarrowEntry[] = [
  { name: 'SHRN', u: 0, opcode: '10000', rounding: false },
  { name: 'RSHRN', u: 0, opcode: '10001', rounding: true },
  { name: 'SQSHRUN', u: 1, opcode: '10000', rounding: false, saturation: 'to-unsigned' },
  { name: 'SQRSHRUN', u: 1, opcode: '10001', rounding: true, saturation: 'to-unsigned' },
  { name: 'SQSHRN', u: 0, opcode: '10010', rounding: false, saturation: 'signed' },
  { name: 'SQRSHRN', u: 0, opcode: '10011', rounding: true, saturation: 'signed' },
  { name: 'UQSHRN', u: 1, opcode: '10010', rounding: false, saturation: 'unsigned' },
  { name: 'UQRSHRN', u: 1, opcode: '10011', rounding: true, saturation: 'unsigned' },
];

/** Elements of twice `size` shifted right and narrowed into the low half. */
function shiftNarrow(b: Ops, entry: NarrowEntry, size: Size, n: V128): V128 {
  const { rounding, saturation } = entry;
  const signed = saturation === 'signed' || saturation === 'to-unsigned';
  const shifted = b.let(
    shiftRight(b, (size + 1) as Size, n, rightAmount(b, size), { signed, rounding }),
  );
  return saturation === undefined
    ? narrowed(b, size, shifted)
    : narrowSaturated(b, size, saturation, shifted);
}

const narrowRows = narrowings.flatMap((entry) =>
  NARROW.flatMap((size) => {
    const mnemonic = entry.name.toLowerCase();
    const amount = amountSyntax('right', size);
    const vectors = [0, 1].map((q) => {
      const two = q === 1 ? '2' : '';
      return row(
        `${entry.name}${two}_${letters[size]}`,
        `0${q}${entry.u}011110${immediate(size)}${entry.opcode}1nnnnnddddd`,
        `${mnemonic}${two} <VT:${q},${size},d>, <VW:${size},n>, ${amount}`,
        (b) => writeHalf(b, q === 1, 'd', shiftNarrow(b, entry, size, b.v('n'))),
        { fp: true },
      );
    });
    if (entry.saturation === undefined) return vectors;
    const scalar = row(
      `${entry.name}_scalar_${letters[size]}`,
      `01${entry.u}111110${immediate(size)}${entry.opcode}1nnnnnddddd`,
      `${mnemonic} <FZ:${size},d>, <FZW:${size},n>, ${amount}`,
      (b) => {
        const n = readPart(b, scalarPart((size + 1) as Size), 'n');
        writePart(b, scalarPart(size), 'd', shiftNarrow(b, entry, size, n));
      },
      { fp: true },
    );
    return [...vectors, scalar];
  }),
);

// ---- widening -----------------------------------------------------------------------------------

const longRows = NARROW.flatMap((size) =>
  [0, 1].flatMap((q) =>
    [true, false].map((signed) => {
      const name = `${signed ? 'S' : 'U'}SHLL${q === 1 ? '2' : ''}`;
      return row(
        `${name}_${letters[size]}`,
        `0${q}${signed ? 0 : 1}011110${immediate(size)}101001nnnnnddddd`,
        `${name.toLowerCase()} <VW:${size},d>, <VT:${q},${size},n>, #<u:i>`,
        (b) => {
          const wide = extend(b, size, b.v('n'), signed, q === 1);
          b.setV('d', vshl(b, (size + 1) as Size, wide, leftAmount(b)));
        },
        { fp: true },
      );
    }),
  ),
);

const longAliases = NARROW.flatMap((size) =>
  [0, 1].flatMap((q) =>
    [true, false].map((signed) => {
      const name = `${signed ? 'S' : 'U'}XTL${q === 1 ? '2' : ''}`;
      return alias(
        `${name}_${letters[size]}`,
        `0${q}${signed ? 0 : 1}011110${immediate(size).replaceAll('i', '0')}101001nnnnnddddd`,
        `${name.toLowerCase()} <VW:${size},d>, <VT:${q},${size},n>`,
      );
    }),
  ),
);

// ---- fixed point --------------------------------------------------------------------------------

const fixedRows = ([1, 2, 3] as const).flatMap((size) => {
  const fractionBits = (b: Ops): I64 => b.sub(b.i64(bitsOf(size)), b.imm('i'));
  const half: RowOptions = size === 1 ? { feature: 'FEAT_FP16' } : {};
  return ([0, 1] as const).flatMap((u) =>
    (['from', 'to'] as const).flatMap((direction) => {
      const operation =
        direction === 'from'
          ? fixedToFpLanes(u === 1, fractionBits)
          : fpToFixedLanes(u === 1, fractionBits);
      const letter = u === 1 ? 'U' : 'S';
      const name = `${direction === 'from' ? `${letter}CVTF` : `FCVTZ${letter}`}_fixed`;
      const mnemonic = name.slice(0, -6).toLowerCase();
      const opcode = direction === 'from' ? '11100' : '11111';
      const amount = amountSyntax('right', size);
      return [
        vectorRow(
          { name, syntax: `${mnemonic} <VT:q,${size},d>, <VT:q,${size},n>, ${amount}` },
          { u, opcode },
          size,
          (b, part) => apply(b, part, operation),
          half,
        ),
        row(
          `${name}_scalar_${letters[size]}`,
          `01${u}111110${immediate(size)}${opcode}1nnnnnddddd`,
          `${mnemonic} <FZ:${size},d>, <FZ:${size},n>, ${amount}`,
          (b) => apply(b, scalarPart(size), operation),
          { fp: true, ...half },
        ),
      ];
    }),
  );
});

export const rows: Row[] = [...sameSizeRows, ...narrowRows, ...longRows, ...fixedRows];

export const aliases: Alias[] = longAliases;
