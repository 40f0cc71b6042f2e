/**
 * Rows for "Advanced SIMD three same" and its scalar form, integers only, with the rounding
 * doubling multiply-accumulates and dot products of "three same extra". Floating point is in
 * `simd-three-same-fp.ts`. Collected by `simd.ts`.
 */
import type { I32, I64, Ops, V128 } from './ops.ts';
import { type Alias, alias, type Row, type RowOptions, row, type Semantics } from './row.ts';
import {
  absoluteDifference,
  addSaturated,
  alternate,
  type Comparison,
  clearRest,
  compareLanes,
  countOf,
  eachElement,
  extremum,
  multiplyLanes,
  noteSaturated,
  type Part,
  readElement,
  readPart,
  repeat,
  type Saturated,
  type Size,
  scalarPart,
  subSaturated,
  vadd,
  vand,
  vectorPart,
  vnot,
  vor,
  vselect,
  vshr,
  vsub,
  vxor,
  writePart,
  zeroes,
} from './simd-lanes.ts';
import { dotProduct, doublingHigh, doublingHighAccumulate } from './simd-multiply.ts';
import { shiftByRegister } from './simd-shift-register.ts';

/** Elements of `n` and `m` to elements of the result; what the part does not hold is zero. */
type ThreeSame = (b: Ops, part: Part, n: V128, m: V128) => V128;

const elementwise =
  (operation: ThreeSame) =>
  (b: Ops, part: Part): void => {
    const n = readPart(b, part, 'n');
    const m = readPart(b, part, 'm');
    writePart(b, part, 'd', operation(b, part, n, m));
  };

// ---- the operations -----------------------------------------------------------------------------

const one = (b: Ops): I32 => b.i32(1);

/** Arm: (n + m) >> 1 without the carry being lost. */
const halvingAdd = (signed: boolean) =>
  elementwise((b, { size }, n, m) =>
    vadd(b, size, vand(b, n, m), vshr(b, size, vxor(b, n, m), one(b), signed)),
  );

const roundingHalvingAdd = (signed: boolean) =>
  elementwise((b, { size }, n, m) =>
    vsub(b, size, vor(b, n, m), vshr(b, size, vxor(b, n, m), one(b), signed)),
  );

const halvingSub = (signed: boolean) =>
  elementwise((b, { size }, n, m) => {
    const halves = vsub(
      b,
      size,
      vshr(b, size, n, one(b), signed),
      vshr(b, size, m, one(b), signed),
    );
    const borrow = vand(b, b.vop('v128.andnot', m, n), repeat(b, size, 1n));
    return vsub(b, size, halves, borrow);
  });

const saturating = (operation: (b: Ops, size: Size, n: V128, m: V128) => Saturated) =>
  elementwise((b, { size }, n, m) => {
    const { value, mask } = operation(b, size, n, m);
    noteSaturated(b, mask);
    return value;
  });

const saturatingAdd = (signed: boolean) =>
  saturating((b, size, n, m) => addSaturated(b, size, signed, n, m));

const saturatingSub = (signed: boolean) =>
  saturating((b, size, n, m) => subSaturated(b, size, signed, n, m));

const compare = (how: Comparison) =>
  elementwise((b, { size }, n, m) => compareLanes(b, size, how, n, m));

const compareTest = elementwise((b, { size }, n, m) =>
  vnot(b, compareLanes(b, size, 'eq', vand(b, n, m), zeroes(b))),
);

const minMax = (which: 'min' | 'max', signed: boolean) =>
  elementwise((b, { size }, n, m) => extremum(b, size, which, signed, n, m));

const difference = (signed: boolean) =>
  elementwise((b, { size }, n, m) => absoluteDifference(b, size, signed, n, m));

/** An operation whose result is added to, or taken from, the destination. */
const accumulating = (operation: ThreeSame, combine: typeof vadd) =>
  elementwise((b, part, n, m) => combine(b, part.size, b.v('d'), operation(b, part, n, m)));

const differenceAccumulate = (signed: boolean) =>
  accumulating((b, { size }, n, m) => absoluteDifference(b, size, signed, n, m), vadd);

const multiply: ThreeSame = (b, { size }, n, m) => multiplyLanes(b, size, n, m);

/** Arm: PolynomialMult() of bytes, the low half. */
const polynomial = elementwise((b, _part, n, m) => {
  let product = zeroes(b);
  for (let i = 0; i < 8; i++) {
    const bit = b.vop('i8x16.shr_s', b.vop('i8x16.shl', m, b.i32(7 - i)), b.i32(7));
    product = vxor(b, product, vand(b, bit, b.vop('i8x16.shl', n, b.i32(i))));
  }
  return product;
});

const pairwise = (operation: (b: Ops, size: Size, x: V128, y: V128) => V128) =>
  elementwise((b, part, n, m) =>
    operation(b, part.size, alternate(b, part, n, m, 0), alternate(b, part, n, m, 1)),
  );

const pairwiseMinMax = (which: 'min' | 'max', signed: boolean) =>
  pairwise((b, size, x, y) => extremum(b, size, which, signed, x, y));

/** Shifts by a register go element by element: WebAssembly shifts all elements by one amount. */
const shifting =
  (options: { signed: boolean; saturating?: boolean; rounding?: boolean }) =>
  (b: Ops, part: Part): void => {
    const { signed } = options;
    eachElement(b, countOf(part), (i) => {
      const value = readElement(b, 'n', part.size, i, signed);
      const by: I64 = b.sextFrom(readElement(b, 'm', part.size, i, false), 8);
      b.setElement(
        'd',
        (8 << part.size) as 8,
        i,
        shiftByRegister(b, part.size, value, by, options),
      );
    });
    clearRest(b, part, 'd');
  };

// ---- rows ---------------------------------------------------------------------------------------

type Operation = (b: Ops, part: Part) => void;

interface Entry {
  readonly mnemonic: string;
  readonly u: 0 | 1;
  readonly opcode: string;
  /** Sizes of the vector form; 3 only with Q = 1. */
  readonly sizes: readonly Size[];
  /** Sizes of the scalar form. */
  readonly scalar?: readonly Size[];
  readonly operation: Operation;
  readonly feature?: `FEAT_${string}`;
}

const ALL: readonly Size[] = [0, 1, 2, 3];
const NARROW: readonly Size[] = [0, 1, 2];
const MIDDLE: readonly Size[] = [1, 2];
const D_ONLY: readonly Size[] = [3];

const entries: readonly Entry[] = [
  { mnemonic: 'shadd', u: 0, opcode: '00000', sizes: NARROW, operation: halvingAdd(true) },
  { mnemonic: 'uhadd', u: 1, opcode: '00000', sizes: NARROW, operation: halvingAdd(false) },
  ...saturatingEntries('qadd', '00001', saturatingAdd),
  { mnemonic: 'srhadd', u: 0, opcode: '00010', sizes: NARROW, operation: roundingHalvingAdd(true) },
  {
    mnemonic: 'urhadd',
    u: 1,
    opcode: '00010',
    sizes: NARROW,
    operation: roundingHalvingAdd(false),
  },
  { mnemonic: 'shsub', u: 0, opcode: '00100', sizes: NARROW, operation: halvingSub(true) },
  { mnemonic: 'uhsub', u: 1, opcode: '00100', sizes: NARROW, operation: halvingSub(false) },
  ...saturatingEntries('qsub', '00101', saturatingSub),
  ...compareEntries('cmgt', 'cmhi', '00110', 'gt_s', 'gt_u'),
  ...compareEntries('cmge', 'cmhs', '00111', 'ge_s', 'ge_u'),
  ...shiftEntries('shl', '01000', D_ONLY, {}),
  ...shiftEntries('qshl', '01001', ALL, { saturating: true }),
  ...shiftEntries('rshl', '01010', D_ONLY, { rounding: true }),
  ...shiftEntries('qrshl', '01011', ALL, { saturating: true, rounding: true }),
  { mnemonic: 'smax', u: 0, opcode: '01100', sizes: NARROW, operation: minMax('max', true) },
  { mnemonic: 'umax', u: 1, opcode: '01100', sizes: NARROW, operation: minMax('max', false) },
  { mnemonic: 'smin', u: 0, opcode: '01101', sizes: NARROW, operation: minMax('min', true) },
  { mnemonic: 'umin', u: 1, opcode: '01101', sizes: NARROW, operation: minMax('min', false) },
  { mnemonic: 'sabd', u: 0, opcode: '01110', sizes: NARROW, operation: difference(true) },
  { mnemonic: 'uabd', u: 1, opcode: '01110', sizes: NARROW, operation: difference(false) },
  { mnemonic: 'saba', u: 0, opcode: '01111', sizes: NARROW, operation: differenceAccumulate(true) },
  {
    mnemonic: 'uaba',
    u: 1,
    opcode: '01111',
    sizes: NARROW,
    operation: differenceAccumulate(false),
  },
  {
    mnemonic: 'add',
    u: 0,
    opcode: '10000',
    sizes: ALL,
    scalar: D_ONLY,
    operation: elementwise((b, { size }, n, m) => vadd(b, size, n, m)),
  },
  {
    mnemonic: 'sub',
    u: 1,
    opcode: '10000',
    sizes: ALL,
    scalar: D_ONLY,
    operation: elementwise((b, { size }, n, m) => vsub(b, size, n, m)),
  },
  { mnemonic: 'cmtst', u: 0, opcode: '10001', sizes: ALL, scalar: D_ONLY, operation: compareTest },
  { mnemonic: 'cmeq', u: 1, opcode: '10001', sizes: ALL, scalar: D_ONLY, operation: compare('eq') },
  {
    mnemonic: 'mla',
    u: 0,
    opcode: '10010',
    sizes: NARROW,
    operation: accumulating(multiply, vadd),
  },
  {
    mnemonic: 'mls',
    u: 1,
    opcode: '10010',
    sizes: NARROW,
    operation: accumulating(multiply, vsub),
  },
  { mnemonic: 'mul', u: 0, opcode: '10011', sizes: NARROW, operation: elementwise(multiply) },
  { mnemonic: 'pmul', u: 1, opcode: '10011', sizes: [0], operation: polynomial },
  {
    mnemonic: 'smaxp',
    u: 0,
    opcode: '10100',
    sizes: NARROW,
    operation: pairwiseMinMax('max', true),
  },
  {
    mnemonic: 'umaxp',
    u: 1,
    opcode: '10100',
    sizes: NARROW,
    operation: pairwiseMinMax('max', false),
  },
  {
    mnemonic: 'sminp',
    u: 0,
    opcode: '10101',
    sizes: NARROW,
    operation: pairwiseMinMax('min', true),
  },
  {
    mnemonic: 'uminp',
    u: 1,
    opcode: '10101',
    sizes: NARROW,
    operation: pairwiseMinMax('min', false),
  },
  ...[false, true].map(
    (rounding): Entry => ({
      mnemonic: rounding ? 'sqrdmulh' : 'sqdmulh',
      u: rounding ? 1 : 0,
      opcode: '10110',
      sizes: MIDDLE,
      scalar: MIDDLE,
      operation: elementwise((b, { size }, n, m) => doublingHigh(b, size, n, m, rounding)),
    }),
  ),
  { mnemonic: 'addp', u: 0, opcode: '10111', sizes: ALL, operation: pairwise(vadd) },
];

function saturatingEntries(
  name: string,
  opcode: string,
  operation: (signed: boolean) => Operation,
): Entry[] {
  return [
    { mnemonic: `s${name}`, u: 0, opcode, sizes: ALL, scalar: ALL, operation: operation(true) },
    { mnemonic: `u${name}`, u: 1, opcode, sizes: ALL, scalar: ALL, operation: operation(false) },
  ];
}

function compareEntries(
  signed: string,
  unsigned: string,
  opcode: string,
  how: Comparison,
  unsignedHow: Comparison,
): Entry[] {
  const common = { opcode, sizes: ALL, scalar: D_ONLY };
  return [
    { ...common, mnemonic: signed, u: 0, operation: compare(how) },
    { ...common, mnemonic: unsigned, u: 1, operation: compare(unsignedHow) },
  ];
}

function shiftEntries(
  name: string,
  opcode: string,
  scalar: readonly Size[],
  options: { saturating?: boolean; rounding?: boolean },
): Entry[] {
  return ([0, 1] as const).map((u) => ({
    mnemonic: `${u === 0 ? 's' : 'u'}${name}`,
    u,
    opcode,
    sizes: ALL,
    scalar,
    operation: shifting({ ...options, signed: u === 0 }),
  }));
}

const options = (entry: Entry, more: RowOptions): RowOptions => ({
  fp: true,
  ...more,
  ...(entry.feature === undefined ? {} : { feature: entry.feature }),
});

function vectorSemantics(entry: Entry): Semantics {
  return (b) => {
    const size = b.fixed('z') as Size;
    const q = b.fixed('q');
    if (isReserved(entry, size, q)) b.undefined();
    else entry.operation(b, vectorPart(size, q));
  };
}

const isReserved = (entry: Entry, size: number, q: number): boolean =>
  !entry.sizes.includes(size as Size) || (size === 3 && q === 0);

const vectorRow = (entry: Entry): Row =>
  row(
    `${entry.mnemonic.toUpperCase()}_vector`,
    `0q${entry.u}01110zz1mmmmm${entry.opcode}1nnnnnddddd`,
    `${entry.mnemonic} <VT:q,z,d>, <VT:q,z,n>, <VT:q,z,m>`,
    vectorSemantics(entry),
    options(entry, {
      split: 'q z',
      reserved: (field) => isReserved(entry, field('z'), field('q')),
    }),
  );

const scalarRow = (entry: Entry, sizes: readonly Size[]): Row =>
  row(
    `${entry.mnemonic.toUpperCase()}_scalar`,
    `01${entry.u}11110zz1mmmmm${entry.opcode}1nnnnnddddd`,
    `${entry.mnemonic} <FZ:z,d>, <FZ:z,n>, <FZ:z,m>`,
    (b) => {
      const size = b.fixed('z') as Size;
      if (sizes.includes(size)) entry.operation(b, scalarPart(size));
      else b.undefined();
    },
    options(entry, { split: 'z', reserved: (field) => !sizes.includes(field('z') as Size) }),
  );

// ---- logical ------------------------------------------------------------------------------------

type Logical = (b: Ops, n: V128, m: V128, d: () => V128) => V128;

const logicals: readonly [mnemonic: string, u: 0 | 1, size: string, operation: Logical][] = [
  ['and', 0, '00', vand],
  ['bic', 0, '01', (b, n, m) => b.vop('v128.andnot', n, m)],
  ['orr', 0, '10', vor],
  ['orn', 0, '11', (b, n, m) => vor(b, n, vnot(b, m))],
  ['eor', 1, '00', vxor],
  ['bsl', 1, '01', (b, n, m, d) => vselect(b, d(), n, m)],
  ['bit', 1, '10', (b, n, m, d) => vselect(b, m, n, d())],
  ['bif', 1, '11', (b, n, m, d) => vselect(b, m, d(), n)],
];

const logicalRows = logicals.map(([mnemonic, u, size, operation]) =>
  row(
    `${mnemonic.toUpperCase()}_vector`,
    `0q${u}01110${size}1mmmmm000111nnnnnddddd`,
    `${mnemonic} <VT:q,0,d>, <VT:q,0,n>, <VT:q,0,m>`,
    (b) => {
      const part = vectorPart(0, b.fixed('q'));
      const [n, m] = [b.v('n'), b.v('m')];
      writePart(
        b,
        part,
        'd',
        operation(b, n, m, () => b.v('d')),
      );
    },
    { split: 'q', fp: true },
  ),
);

// ---- three same extra ---------------------------------------------------------------------------

const extra: readonly Entry[] = [
  ...(['add', 'sub'] as const).map(
    (combine): Entry => ({
      mnemonic: combine === 'add' ? 'sqrdmlah' : 'sqrdmlsh',
      u: 1,
      opcode: combine === 'add' ? '10000' : '10001',
      sizes: MIDDLE,
      scalar: MIDDLE,
      feature: 'FEAT_RDM',
      operation: (b, part) => {
        const d = readPart(b, part, 'd');
        const n = readPart(b, part, 'n');
        const m = readPart(b, part, 'm');
        writePart(b, part, 'd', doublingHighAccumulate(b, part, combine, { d, n, m }));
      },
    }),
  ),
];

const dotRows = ([0, 1] as const).map((u) =>
  row(
    `${u === 0 ? 'S' : 'U'}DOT_vector`,
    `0q${u}01110100mmmmm100101nnnnnddddd`,
    `${u === 0 ? 's' : 'u'}dot <VT:q,2,d>, <VT:q,0,n>, <VT:q,0,m>`,
    (b) => {
      const part = vectorPart(2, b.fixed('q'));
      const product = dotProduct(b, b.v('n'), b.v('m'), u === 0);
      writePart(b, part, 'd', vadd(b, 2, b.v('d'), product));
    },
    { split: 'q', fp: true, feature: 'FEAT_DotProd' },
  ),
);

const extraPattern = (made: Row): Row => ({
  ...made,
  // Bit 21 is 0 here.
  pattern: `${made.pattern.slice(0, 10)}0${made.pattern.slice(11)}`,
});

export const rows: Row[] = [
  ...entries.map(vectorRow),
  ...entries.flatMap((entry) => (entry.scalar ? [scalarRow(entry, entry.scalar)] : [])),
  ...logicalRows,
  ...extra.map(vectorRow).map(extraPattern),
  ...extra.map((entry) => extraPattern(scalarRow(entry, MIDDLE))),
  ...dotRows,
];

export const aliases: Alias[] = [
  alias('MOV_vector', '0q001110101mmmmm000111nnnnnddddd', 'mov <VT:q,0,d>, <VT:q,0,n=m>'),
];
