/**
 * Rows for "Advanced SIMD copy", "permute", "extract" and "table lookup": moving elements without
 * computing. Collected by `simd.ts`.
 */
import type { I64, Ops, V128 } from './ops.ts';
import { type Alias, alias, type Row, row } from './row.ts';
import {
  alternate,
  bitsOf,
  compareLanes,
  joinHalves,
  permute,
  type Size,
  vectorPart,
  vor,
  vselect,
  vsub,
  writePart,
} from './simd-lanes.ts';

const letters = ['b', 'h', 's', 'd'] as const;
const sizes: readonly Size[] = [0, 1, 2, 3];

/** imm5 with the index in field i: the lowest set bit gives the size. */
const imm5 = (size: Size, letter = 'i'): string => `${letter.repeat(4 - size)}1${'0'.repeat(size)}`;

// ---- copy ---------------------------------------------------------------------------------------

const reservedD = (size: Size) => (q: number) => size === 3 && q === 0;

/** All elements of the destination := one value. */
function duplicate(b: Ops, size: Size, value: I64): void {
  const q = b.fixed('q');
  if (reservedD(size)(q)) b.undefined();
  else writePart(b, vectorPart(size, q), 'd', b.splat(bitsOf(size), value));
}

const duplicateRows = sizes.flatMap((size) => {
  const bits = bitsOf(size);
  const letter = letters[size]!;
  const options = {
    split: 'q',
    fp: true,
    reserved: (field: (letter: string) => number) => reservedD(size)(field('q')),
  };
  return [
    row(
      `DUP_element_${letter}`,
      `0q001110000${imm5(size)}000001nnnnnddddd`,
      `dup <VT:q,${size},d>, <V:n>.${letter}[<u:i>]`,
      (b) => duplicate(b, size, b.element('n', bits, b.field('i'))),
      options,
    ),
    row(
      `DUP_element_${letter}_scalar`,
      `01011110000${imm5(size)}000001nnnnnddddd`,
      `dup <FZ:${size},d>, <V:n>.${letter}[<u:i>]`,
      (b) => b.setScalar('d', bits, b.element('n', bits, b.field('i'))),
      { fp: true },
    ),
    row(
      `DUP_general_${letter}`,
      `0q001110000${imm5(size, 'k')}000011nnnnnddddd`,
      `dup <VT:q,${size},d>, <${size === 3 ? 'X' : 'W'}:n>`,
      (b) => duplicate(b, size, b.x('n')),
      options,
    ),
  ];
});

const insertRows = sizes.flatMap((size) => {
  const bits = bitsOf(size);
  const letter = letters[size]!;
  return [
    row(
      `INS_general_${letter}`,
      `01001110000${imm5(size)}000111nnnnnddddd`,
      `ins <V:d>.${letter}[<u:i>], <${size === 3 ? 'X' : 'W'}:n>`,
      (b) => b.setElement('d', bits, b.field('i'), b.x('n')),
      { fp: true },
    ),
    row(
      `INS_element_${letter}`,
      `01101110000${imm5(size)}0${'j'.repeat(4 - size)}${'k'.repeat(size)}1nnnnnddddd`,
      `ins <V:d>.${letter}[<u:i>], <V:n>.${letter}[<u:j>]`,
      (b) => b.setElement('d', bits, b.field('i'), b.element('n', bits, b.field('j'))),
      { fp: true },
    ),
  ];
});

/** UMOV and SMOV: to X only what does not fit, or is sign-extended, into W. */
const moveToGeneral: readonly [name: 'UMOV' | 'SMOV', q: 0 | 1, size: Size][] = [
  ['UMOV', 0, 0],
  ['UMOV', 0, 1],
  ['UMOV', 0, 2],
  ['UMOV', 1, 3],
  ['SMOV', 0, 0],
  ['SMOV', 0, 1],
  ['SMOV', 1, 0],
  ['SMOV', 1, 1],
  ['SMOV', 1, 2],
];

const moveRows = moveToGeneral.map(([name, q, size]) => {
  const general = q === 1 ? 'X' : 'W';
  const letter = letters[size]!;
  return row(
    `${name}_${general}_${letter}`,
    `0${q}001110000${imm5(size)}0${name === 'UMOV' ? '01111' : '01011'}nnnnnddddd`,
    `${name.toLowerCase()} <${general}:d>, <V:n>.${letter}[<u:i>]`,
    (b) => {
      const value = b.element('n', bitsOf(size), b.field('i'));
      const extended = name === 'SMOV' ? b.sextFrom(value, bitsOf(size) as 8) : value;
      if (q === 1) b.setX('d', extended);
      else b.setW('d', b.wrap(extended));
    },
    { fp: true },
  );
});

// ---- permute ------------------------------------------------------------------------------------

type Permutation = (b: Ops, size: Size, q: number, n: V128, m: V128) => V128;

const unzip =
  (odd: 0 | 1): Permutation =>
  (b, size, q, n, m) =>
    alternate(b, vectorPart(size, q), n, m, odd);

/** Even (odd) elements of both, taken in turns. */
const transpose =
  (odd: 0 | 1): Permutation =>
  (b, size, _q, n, m) => {
    const count = 16 >> size;
    return permute(b, size, n, m, (i) => (i & ~1) + odd + (i & 1) * count);
  };

/** The elements of the lower (upper) halves, taken in turns. */
const zip =
  (upper: 0 | 1): Permutation =>
  (b, size, q, n, m) => {
    const count = 16 >> size;
    const start = upper * (q === 1 ? count / 2 : count / 4);
    return permute(b, size, n, m, (i) => start + (i >> 1) + (i & 1) * count);
  };

const permutations: readonly [name: string, opcode: string, operation: Permutation][] = [
  ['UZP1', '001', unzip(0)],
  ['UZP2', '101', unzip(1)],
  ['TRN1', '010', transpose(0)],
  ['TRN2', '110', transpose(1)],
  ['ZIP1', '011', zip(0)],
  ['ZIP2', '111', zip(1)],
];

const permuteRows = permutations.map(([name, opcode, operation]) =>
  row(
    name,
    `0q001110zz0mmmmm0${opcode}10nnnnnddddd`,
    `${name.toLowerCase()} <VT:q,z,d>, <VT:q,z,n>, <VT:q,z,m>`,
    (b) => {
      const [size, q] = [b.fixed('z') as Size, b.fixed('q')];
      if (reservedD(size)(q)) {
        b.undefined();
        return;
      }
      const value = operation(b, size, q, b.v('n'), b.v('m'));
      writePart(b, vectorPart(size, q), 'd', value);
    },
    {
      split: 'q z',
      fp: true,
      reserved: (field) => reservedD(field('z') as Size)(field('q')),
    },
  ),
);

// ---- extract ------------------------------------------------------------------------------------

/** 0, 1, 2 … 15. */
const counting = (b: Ops): V128 => b.v128(0x0706050403020100n, 0x0f0e0d0c0b0a0908n);

/** Bytes of the registers that `indices` name; zero beyond the last one. */
function lookup(b: Ops, table: readonly V128[], indices: V128): V128 {
  let result = b.vop('i8x16.swizzle', table[0]!, indices);
  for (let i = 1; i < table.length; i++) {
    const shifted = vsub(b, 0, indices, b.splat(8, b.i64(16 * i)));
    result = vor(b, result, b.vop('i8x16.swizzle', table[i]!, shifted));
  }
  return result;
}

const extractRow = row(
  'EXT',
  '0q101110000mmmmm0iiii0nnnnnddddd',
  'ext <VT:q,0,d>, <VT:q,0,n>, <VT:q,0,m>, #<u:i>',
  (b) => {
    const indices = b.let(vaddBytes(b, counting(b), b.splat(8, b.imm('i'))));
    const [n, m] = [b.v('n'), b.v('m')];
    const part = vectorPart(0, b.fixed('q'));
    const table = b.fixed('q') === 1 ? [n, m] : [b.let(joinHalves(b, n, m))];
    writePart(b, part, 'd', lookup(b, table, indices));
  },
  {
    split: 'q',
    fp: true,
    reserved: (field) => field('q') === 0 && field('i') > 7,
  },
);

const vaddBytes = (b: Ops, x: V128, y: V128): V128 => b.vop('i8x16.add', x, y);

// ---- table lookup -------------------------------------------------------------------------------

const tableRows = [1, 2, 3, 4].flatMap((count) =>
  (['tbl', 'tbx'] as const).map((mnemonic) =>
    row(
      `${mnemonic.toUpperCase()}_${count}`,
      `0q001110000mmmmm0${(count - 1).toString(2).padStart(2, '0')}` +
        `${mnemonic === 'tbx' ? 1 : 0}00nnnnnddddd`,
      `${mnemonic} <VT:q,0,d>, <VL:${count},1,0,n>, <VT:q,0,m>`,
      (b) => {
        const indices = b.v('m');
        const table = Array.from({ length: count }, (_, i) => b.v('n', i));
        const found = lookup(b, table, indices);
        const limit = b.splat(8, b.i64(16 * count));
        const value =
          mnemonic === 'tbl'
            ? found
            : vselect(b, compareLanes(b, 0, 'ge_u', indices, limit), b.v('d'), found);
        writePart(b, vectorPart(0, b.fixed('q')), 'd', value);
      },
      { split: 'q', fp: true },
    ),
  ),
);

export const rows: Row[] = [
  ...duplicateRows,
  ...insertRows,
  ...moveRows,
  ...permuteRows,
  extractRow,
  ...tableRows,
];

// What the GNU assembler calls these: `mov` wherever nothing is extended or repeated.
export const aliases: Alias[] = [
  ...sizes.flatMap((size) => {
    const letter = letters[size]!;
    return [
      alias(
        `MOV_element_${letter}_scalar`,
        `01011110000${imm5(size)}000001nnnnnddddd`,
        `mov <FZ:${size},d>, <V:n>.${letter}[<u:i>]`,
      ),
      alias(
        `MOV_INS_general_${letter}`,
        `01001110000${imm5(size)}000111nnnnnddddd`,
        `mov <V:d>.${letter}[<u:i>], <${size === 3 ? 'X' : 'W'}:n>`,
      ),
      alias(
        `MOV_INS_element_${letter}`,
        `01101110000${imm5(size)}0${'j'.repeat(4 - size)}${'k'.repeat(size)}1nnnnnddddd`,
        `mov <V:d>.${letter}[<u:i>], <V:n>.${letter}[<u:j>]`,
      ),
    ];
  }),
  alias('MOV_UMOV_W_s', '00001110000ii100001111nnnnnddddd', 'mov <W:d>, <V:n>.s[<u:i>]'),
  alias('MOV_UMOV_X_d', '01001110000i1000001111nnnnnddddd', 'mov <X:d>, <V:n>.d[<u:i>]'),
];
