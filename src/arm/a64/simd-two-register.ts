/**
 * Rows for "Advanced SIMD two-register miscellaneous" on integers, vector and scalar, and for the
 * integer reductions across lanes and pairwise. Floating point is in `simd-two-register-fp.ts`.
 * Collected by `simd.ts`.
 */
import type { I64, Ops, V128 } from './ops.ts';
import { type Alias, alias, type Row, row } from './row.ts';
import {
  addSaturated,
  bitsOf,
  type Comparison,
  clearRest,
  compareLanes,
  countOf,
  eachElement,
  extend,
  extremum,
  keep,
  type Narrowing,
  narrowed,
  narrowSaturated,
  noteSaturated,
  type Part,
  permute,
  readElement,
  readPart,
  repeat,
  type Size,
  scalarPart,
  shapeOf,
  subSaturated,
  vadd,
  vand,
  vectorPart,
  vnot,
  vor,
  vselect,
  vshl,
  vshr,
  vxor,
  writeHalf,
  writePart,
  zeroes,
} from './simd-lanes.ts';

type Unary = (b: Ops, part: Part, n: V128) => V128;
type Operation = (b: Ops, part: Part) => void;

const elementwise =
  (operation: Unary): Operation =>
  (b, part) =>
    writePart(b, part, 'd', operation(b, part, readPart(b, part, 'n')));

// ---- the operations -----------------------------------------------------------------------------

/** Elements of `size` in reverse order within containers of `bytes`. */
const reverse = (bytes: number): Operation =>
  elementwise((b, { size }, n) => {
    const last = (bytes >> size) - 1;
    return permute(b, size, n, n, (i) => i ^ last);
  });

/** Sums of neighbours in elements of twice the size. */
function pairSums(b: Ops, size: Size, n: V128, signed: boolean): V128 {
  const wide = (size + 1) as Size;
  const half = b.i32(bitsOf(size));
  const low = vshr(b, wide, vshl(b, wide, n, half), half, signed);
  return vadd(b, wide, low, vshr(b, wide, n, half, signed));
}

const addLongPairwise = (signed: boolean, accumulate: boolean): Operation =>
  elementwise((b, { size }, n) => {
    const sums = pairSums(b, size, n, signed);
    return accumulate ? vadd(b, (size + 1) as Size, b.v('d'), sums) : sums;
  });

/** Leading zeros go element by element: WebAssembly counts them in scalars only. */
const countLeading =
  (signBits: boolean): Operation =>
  (b, part) => {
    const { size } = part;
    const spare = b.i64(64 - bitsOf(size));
    eachElement(b, countOf(part), (i) => {
      const value = readElement(b, 'n', size, i, signBits);
      // Bits equal to the sign bit, without it: leading zeros of x ^ (x >> 1), less one.
      const bits: I64 = signBits ? b.xor(value, b.shrS(value, b.i64(1))) : value;
      const zeros = b.sub(b.clz(bits), spare);
      const count = signBits ? b.sub(zeros, b.i64(1)) : zeros;
      b.setElement('d', bitsOf(size), i, count);
    });
    clearRest(b, part, 'd');
  };

const compareZero = (how: Comparison, swapped = false): Operation =>
  elementwise((b, { size }, n) =>
    swapped ? compareLanes(b, size, how, zeroes(b), n) : compareLanes(b, size, how, n, zeroes(b)),
  );

const lowest = (b: Ops, size: Size): V128 => repeat(b, size, 1n << BigInt(bitsOf(size) - 1));

/** Absolute value or negation; the most negative number saturates. */
const saturatingUnary = (name: 'abs' | 'neg'): Operation =>
  elementwise((b, { size }, n) => {
    const over = b.let(compareLanes(b, size, 'eq', n, lowest(b, size)));
    noteSaturated(b, over);
    return vxor(b, b.vop(`${shapeOf(size)}.${name}`, n), over);
  });

/** Signed destination plus unsigned source, saturated as signed. */
const addUnsignedToSigned: Operation = elementwise((b, part, n) => {
  const { size } = part;
  const bias = keep(b, part, lowest(b, size));
  const d = b.let(vxor(b, readPart(b, part, 'd'), bias));
  // With the sign bit flipped the signed range lies in the unsigned one.
  const { value, mask } = addSaturated(b, size, false, d, n);
  noteSaturated(b, mask);
  return vxor(b, value, bias);
});

/** Unsigned destination plus signed source, saturated as unsigned. */
const addSignedToUnsigned: Operation = elementwise((b, part, n) => {
  const { size } = part;
  const d = readPart(b, part, 'd');
  const minus = b.let(b.vop(`${shapeOf(size)}.neg`, n));
  const sum = addSaturated(b, size, false, d, n);
  const difference = subSaturated(b, size, false, d, minus);
  const negative = b.let(vshr(b, size, n, b.i32(bitsOf(size) - 1), true));
  noteSaturated(b, vselect(b, negative, difference.mask, sum.mask));
  return vselect(b, negative, difference.value, sum.value);
});

/** Bits in reverse order within bytes: a table for each half of a byte. */
const reverseBits: Operation = elementwise((b, _part, n) => {
  let table = 0n;
  for (let i = 0; i < 16; i++) {
    const reversed = ((i & 1) << 3) | ((i & 2) << 1) | ((i & 4) >> 1) | ((i & 8) >> 3);
    table |= BigInt(reversed) << BigInt(8 * i);
  }
  const lookup = b.v128(BigInt.asUintN(64, table), table >> 64n);
  const low = b.vop('i8x16.swizzle', lookup, vand(b, n, repeat(b, 0, 15n)));
  const high = b.vop('i8x16.swizzle', lookup, b.vop('i8x16.shr_u', n, b.i32(4)));
  return vor(b, b.vop('i8x16.shl', low, b.i32(4)), high);
});

// ---- rows ---------------------------------------------------------------------------------------

interface Entry {
  readonly name: string;
  readonly u: 0 | 1;
  readonly opcode: string;
  readonly sizes: readonly Size[];
  readonly scalar?: readonly Size[];
  readonly operation: Operation;
  /** What follows the source (`, #0`). */
  readonly suffix?: string;
  /** Destination with elements of twice the size. */
  readonly wide?: true;
}

const ALL: readonly Size[] = [0, 1, 2, 3];
const NARROW: readonly Size[] = [0, 1, 2];
const D_ONLY: readonly Size[] = [3];
const ZERO = { suffix: ', #0', sizes: ALL, scalar: D_ONLY };

const entries: readonly Entry[] = [
  { name: 'REV64', u: 0, opcode: '00000', sizes: NARROW, operation: reverse(8) },
  { name: 'REV32', u: 1, opcode: '00000', sizes: [0, 1], operation: reverse(4) },
  { name: 'REV16', u: 0, opcode: '00001', sizes: [0], operation: reverse(2) },
  ...[false, true].flatMap((accumulate) =>
    [true, false].map(
      (signed): Entry => ({
        name: `${signed ? 'S' : 'U'}AD${accumulate ? 'A' : 'D'}LP`,
        u: signed ? 0 : 1,
        opcode: accumulate ? '00110' : '00010',
        sizes: NARROW,
        wide: true,
        operation: addLongPairwise(signed, accumulate),
      }),
    ),
  ),
  {
    name: 'SUQADD',
    u: 0,
    opcode: '00011',
    sizes: ALL,
    scalar: ALL,
    operation: addUnsignedToSigned,
  },
  {
    name: 'USQADD',
    u: 1,
    opcode: '00011',
    sizes: ALL,
    scalar: ALL,
    operation: addSignedToUnsigned,
  },
  { name: 'CLS', u: 0, opcode: '00100', sizes: NARROW, operation: countLeading(true) },
  { name: 'CLZ', u: 1, opcode: '00100', sizes: NARROW, operation: countLeading(false) },
  {
    name: 'CNT',
    u: 0,
    opcode: '00101',
    sizes: [0],
    operation: elementwise((b, _part, n) => b.vop('i8x16.popcnt', n)),
  },
  {
    name: 'SQABS',
    u: 0,
    opcode: '00111',
    sizes: ALL,
    scalar: ALL,
    operation: saturatingUnary('abs'),
  },
  {
    name: 'SQNEG',
    u: 1,
    opcode: '00111',
    sizes: ALL,
    scalar: ALL,
    operation: saturatingUnary('neg'),
  },
  { name: 'CMGT', u: 0, opcode: '01000', operation: compareZero('gt_s'), ...ZERO },
  { name: 'CMGE', u: 1, opcode: '01000', operation: compareZero('ge_s'), ...ZERO },
  { name: 'CMEQ', u: 0, opcode: '01001', operation: compareZero('eq'), ...ZERO },
  { name: 'CMLE', u: 1, opcode: '01001', operation: compareZero('ge_s', true), ...ZERO },
  { name: 'CMLT', u: 0, opcode: '01010', operation: compareZero('gt_s', true), ...ZERO },
  ...(['abs', 'neg'] as const).map(
    (name): Entry => ({
      name: name.toUpperCase(),
      u: name === 'abs' ? 0 : 1,
      opcode: '01011',
      sizes: ALL,
      scalar: D_ONLY,
      operation: elementwise((b, { size }, n) => b.vop(`${shapeOf(size)}.${name}`, n)),
    }),
  ),
];

const nameOf = (entry: Entry, form: string): string =>
  `${entry.name}${entry.suffix === undefined ? '' : '_zero'}_${form}`;

const vectorRow = (entry: Entry): Row => {
  const { sizes, u, opcode, suffix = '', operation } = entry;
  const reserved = (size: number, q: number): boolean =>
    !sizes.includes(size as Size) || (size === 3 && q === 0);
  return row(
    nameOf(entry, 'vector'),
    `0q${u}01110zz10000${opcode}10nnnnnddddd`,
    `${entry.name.toLowerCase()} <${entry.wide ? 'VP' : 'VT'}:q,z,d>, <VT:q,z,n>${suffix}`,
    (b) => {
      const [size, q] = [b.fixed('z') as Size, b.fixed('q')];
      if (reserved(size, q)) b.undefined();
      else operation(b, vectorPart(size, q));
    },
    { split: 'q z', fp: true, reserved: (field) => reserved(field('z'), field('q')) },
  );
};

const scalarRow = (entry: Entry, sizes: readonly Size[]): Row =>
  row(
    nameOf(entry, 'scalar'),
    `01${entry.u}11110zz10000${entry.opcode}10nnnnnddddd`,
    `${entry.name.toLowerCase()} <FZ:z,d>, <FZ:z,n>${entry.suffix ?? ''}`,
    (b) => {
      const size = b.fixed('z') as Size;
      if (sizes.includes(size)) entry.operation(b, scalarPart(size));
      else b.undefined();
    },
    { split: 'z', fp: true, reserved: (field) => !sizes.includes(field('z') as Size) },
  );

/** On bytes whatever the size field, which selects the instruction. */
const byteRow = (name: string, size: string, operation: Operation): Row =>
  row(
    `${name}_vector`,
    `0q101110${size}100000010110nnnnnddddd`,
    `${name.toLowerCase()} <VT:q,0,d>, <VT:q,0,n>`,
    (b) => operation(b, vectorPart(0, b.fixed('q'))),
    { split: 'q', fp: true },
  );

const byteRows = [
  byteRow(
    'NOT',
    '00',
    elementwise((b, _part, n) => vnot(b, n)),
  ),
  byteRow('RBIT', '01', reverseBits),
];

// ---- narrowing and widening ---------------------------------------------------------------------

const narrowings: readonly [name: string, u: 0 | 1, opcode: string, how: Narrowing | undefined][] =
  [
    ['XTN', 0, '10010', undefined],
    ['SQXTUN', 1, '10010', 'to-unsigned'],
    ['SQXTN', 0, '10100', 'signed'],
    ['UQXTN', 1, '10100', 'unsigned'],
  ];

const reservedSize3 = (field: (letter: string) => number): boolean => field('z') === 3;

const narrowRows = narrowings.flatMap(([name, u, opcode, how]) => {
  const mnemonic = name.toLowerCase();
  const vector = [0, 1].map((q) =>
    row(
      `${name}${q === 1 ? '2' : ''}`,
      `0${q}${u}01110zz10000${opcode}10nnnnnddddd`,
      `${mnemonic}${q === 1 ? '2' : ''} <VT:${q},z,d>, <VW:z,n>`,
      (b) => {
        const size = b.fixed('z') as Size;
        if (size === 3) {
          b.undefined();
          return;
        }
        const n = b.v('n');
        const value = how === undefined ? narrowed(b, size, n) : narrowSaturated(b, size, how, n);
        writeHalf(b, q === 1, 'd', value);
      },
      { split: 'z', fp: true, reserved: reservedSize3 },
    ),
  );
  if (how === undefined) return vector;
  const scalar = row(
    `${name}_scalar`,
    `01${u}11110zz10000${opcode}10nnnnnddddd`,
    `${mnemonic} <FZ:z,d>, <FZW:z,n>`,
    (b) => {
      const size = b.fixed('z') as Size;
      if (size === 3) {
        b.undefined();
        return;
      }
      const n = readPart(b, scalarPart((size + 1) as Size), 'n');
      writePart(b, scalarPart(size), 'd', narrowSaturated(b, size, how, n));
    },
    { split: 'z', fp: true, reserved: reservedSize3 },
  );
  return [...vector, scalar];
});

/** SHLL shifts by the size of the source elements, so that the extension does not matter. */
const shiftLongRows = [0, 1].map((q) =>
  row(
    `SHLL${q === 1 ? '2' : ''}`,
    `0${q}101110zz100001001110nnnnnddddd`,
    `shll${q === 1 ? '2' : ''} <VW:z,d>, <VT:${q},z,n>, #<shll:z>`,
    (b) => {
      const size = b.fixed('z') as Size;
      if (size === 3) {
        b.undefined();
        return;
      }
      const wide = extend(b, size, b.v('n'), false, q === 1);
      b.setV('d', vshl(b, (size + 1) as Size, wide, b.i32(bitsOf(size))));
    },
    { split: 'z', fp: true, reserved: reservedSize3 },
  ),
);

// ---- across lanes -------------------------------------------------------------------------------

type Combine = (b: Ops, size: Size, x: V128, y: V128) => V128;

/** Folds halves onto each other until element 0 holds the result. */
function fold(b: Ops, part: Part, value: V128, combine: Combine): V128 {
  let rest = value;
  for (let bits = part.bits / 2; bits >= bitsOf(part.size); bits /= 2) {
    const step = bits / bitsOf(part.size);
    const count = 16 >> part.size;
    const moved = permute(b, part.size, rest, rest, (i) => (i + step) % count);
    rest = b.let(combine(b, part.size, rest, moved));
  }
  return rest;
}

const addAcross: Operation = (b, part) =>
  writePart(b, scalarPart(part.size), 'd', fold(b, part, b.v('n'), vadd));

/** Sums in elements of twice the size. */
const addLongAcross =
  (signed: boolean): Operation =>
  (b, part) => {
    const wide = (part.size + 1) as Size;
    const sums = b.let(pairSums(b, part.size, b.v('n'), signed));
    const result = fold(b, { ...part, size: wide }, sums, vadd);
    writePart(b, scalarPart(wide), 'd', result);
  };

const extremumAcross =
  (which: 'min' | 'max', signed: boolean): Operation =>
  (b, part) => {
    const combine: Combine = (_b, size, x, y) => extremum(b, size, which, signed, x, y);
    writePart(b, scalarPart(part.size), 'd', fold(b, part, b.v('n'), combine));
  };

const across: readonly [
  name: string,
  u: 0 | 1,
  opcode: string,
  destination: 'FZ' | 'FZW',
  operation: Operation,
][] = [
  ['SADDLV', 0, '00011', 'FZW', addLongAcross(true)],
  ['UADDLV', 1, '00011', 'FZW', addLongAcross(false)],
  ['SMAXV', 0, '01010', 'FZ', extremumAcross('max', true)],
  ['UMAXV', 1, '01010', 'FZ', extremumAcross('max', false)],
  ['SMINV', 0, '11010', 'FZ', extremumAcross('min', true)],
  ['UMINV', 1, '11010', 'FZ', extremumAcross('min', false)],
  ['ADDV', 0, '11011', 'FZ', addAcross],
];

/** Two elements are too few, and 64-bit ones do not exist here. */
const reservedAcross = (size: number, q: number): boolean => size === 3 || (size === 2 && q === 0);

const acrossRows = across.map(([name, u, opcode, destination, operation]) =>
  row(
    name,
    `0q${u}01110zz11000${opcode}10nnnnnddddd`,
    `${name.toLowerCase()} <${destination}:z,d>, <VT:q,z,n>`,
    (b) => {
      const [size, q] = [b.fixed('z') as Size, b.fixed('q')];
      if (reservedAcross(size, q)) b.undefined();
      else operation(b, vectorPart(size, q));
    },
    { split: 'q z', fp: true, reserved: (field) => reservedAcross(field('z'), field('q')) },
  ),
);

const pairRow = row(
  'ADDP_scalar',
  '0101111011110001101110nnnnnddddd',
  'addp <D:d>, <V:n>.2d',
  (b) => b.setScalar('d', 64, b.add(b.element('n', 64, 0), b.element('n', 64, 1))),
  { fp: true },
);

export const rows: Row[] = [
  ...entries.map(vectorRow),
  ...entries.flatMap((entry) => (entry.scalar ? [scalarRow(entry, entry.scalar)] : [])),
  ...byteRows,
  ...narrowRows,
  ...shiftLongRows,
  ...acrossRows,
  pairRow,
];

export const aliases: Alias[] = [
  alias('MVN_vector', '0q10111000100000010110nnnnnddddd', 'mvn <VT:q,0,d>, <VT:q,0,n>'),
];
