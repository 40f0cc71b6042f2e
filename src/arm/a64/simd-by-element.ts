/**
 * Rows for "Advanced SIMD vector x indexed element", vector and scalar: the second factor is one
 * element of a register, for all lanes. Collected by `simd.ts`.
 */
import { type FpOperation, fpMul, fpMulAdd, fpMulX, negate } from './fp-lanes.ts';
import type { I32, Ops, V128 } from './ops.ts';
import { type Row, type RowOptions, row } from './row.ts';
import {
  addSaturated,
  bitsOf,
  multiplyLanes,
  multiplyLong,
  type Part,
  readPart,
  type Size,
  scalarPart,
  subSaturated,
  vadd,
  vectorPart,
  vsub,
  writePart,
} from './simd-lanes.ts';
import { dotProduct, doublingHigh, doublingHighAccumulate } from './simd-multiply.ts';
import { doublingLongResult } from './simd-three-different.ts';

// ---- where the element is -----------------------------------------------------------------------

/** The bits that name register and index, by element size. Bits 21, 20 and 11 are L, M and H. */
interface Place {
  readonly letter: 'h' | 's' | 'd';
  /** Bits 21:16 and 11. */
  readonly high: string;
  readonly low: string;
  readonly index: string;
}

const PLACES: Readonly<Record<1 | 2 | 3, Place>> = {
  1: { letter: 'h', high: 'lkmmmm', low: 'h', index: 'hlk' },
  2: { letter: 's', high: 'lmmmmm', low: 'h', index: 'hl' },
  3: { letter: 'd', high: '0mmmmm', low: 'h', index: 'h' },
};

type ElementSize = 1 | 2 | 3;

function indexOf(b: Ops, size: ElementSize): I32 {
  let index = b.i32(0);
  for (const letter of PLACES[size].index) {
    index = b.or(b.shl(index, b.i32(1)), b.field(letter));
  }
  return index;
}

/** The element in all lanes. */
const readFactor = (b: Ops, size: ElementSize): V128 =>
  b.let(b.splat(bitsOf(size), b.element('m', bitsOf(size), indexOf(b, size))));

const factorSyntax = (size: ElementSize): string =>
  `<${size === 1 ? 'V16' : 'V'}:m>.${PLACES[size].letter}[<u:${PLACES[size].index}>]`;

interface Encoding {
  /** Bits 31:24, with q, or 01 for a scalar; `U` stands for bit 29. */
  readonly start: string;
  readonly u: 0 | 1;
  readonly opcode: string;
  /** Bits 23:22. */
  readonly type: string;
}

const patternOf = ({ start, u, opcode, type }: Encoding, size: ElementSize): string => {
  const { high, low } = PLACES[size];
  return `${start.replace('U', String(u))}${type}${high}${opcode}${low}0nnnnnddddd`;
};

const VECTOR = '0qU01111';
const SCALAR = '01U11111';

// ---- integers -----------------------------------------------------------------------------------

type Operation = (b: Ops, part: Part, n: V128, m: V128) => V128;

interface Entry {
  readonly name: string;
  readonly u: 0 | 1;
  readonly opcode: string;
  readonly operation: Operation;
  readonly scalar?: true;
  readonly feature?: `FEAT_${string}`;
}

const high =
  (rounding: boolean): Operation =>
  (b, { size }, n, m) =>
    doublingHigh(b, size, n, m, rounding);

const highAccumulate =
  (combine: 'add' | 'sub'): Operation =>
  (b, part, n, m) =>
    doublingHighAccumulate(b, part, combine, { d: readPart(b, part, 'd'), n, m });

const entries: readonly Entry[] = [
  {
    name: 'MUL',
    u: 0,
    opcode: '1000',
    operation: (b, { size }, n, m) => multiplyLanes(b, size, n, m),
  },
  {
    name: 'MLA',
    u: 1,
    opcode: '0000',
    operation: (b, { size }, n, m) => vadd(b, size, b.v('d'), multiplyLanes(b, size, n, m)),
  },
  {
    name: 'MLS',
    u: 1,
    opcode: '0100',
    operation: (b, { size }, n, m) => vsub(b, size, b.v('d'), multiplyLanes(b, size, n, m)),
  },
  { name: 'SQDMULH', u: 0, opcode: '1100', operation: high(false), scalar: true },
  { name: 'SQRDMULH', u: 0, opcode: '1101', operation: high(true), scalar: true },
  {
    name: 'SQRDMLAH',
    u: 1,
    opcode: '1101',
    operation: highAccumulate('add'),
    scalar: true,
    feature: 'FEAT_RDM',
  },
  {
    name: 'SQRDMLSH',
    u: 1,
    opcode: '1111',
    operation: highAccumulate('sub'),
    scalar: true,
    feature: 'FEAT_RDM',
  },
];

const SIZES = [1, 2] as const;
const typeOf = (size: 1 | 2): string => (size === 1 ? '01' : '10');

const optionsOf = (
  { feature }: Pick<RowOptions, 'feature'>,
  more: RowOptions = {},
): RowOptions => ({
  fp: true,
  ...more,
  ...(feature === undefined ? {} : { feature }),
});

function apply(b: Ops, part: Part, size: ElementSize, operation: Operation): void {
  const n = readPart(b, part, 'n');
  writePart(b, part, 'd', operation(b, part, n, readFactor(b, size)));
}

const integerRows = entries.flatMap((entry) =>
  SIZES.flatMap((size) => {
    const mnemonic = entry.name.toLowerCase();
    const { letter } = PLACES[size];
    const vector = row(
      `${entry.name}_element_${letter}`,
      patternOf({ ...entry, start: VECTOR, type: typeOf(size) }, size),
      `${mnemonic} <VT:q,${size},d>, <VT:q,${size},n>, ${factorSyntax(size)}`,
      (b) => apply(b, vectorPart(size, b.fixed('q')), size, entry.operation),
      optionsOf(entry, { split: 'q' }),
    );
    if (entry.scalar === undefined) return [vector];
    const scalar = row(
      `${entry.name}_element_scalar_${letter}`,
      patternOf({ ...entry, start: SCALAR, type: typeOf(size) }, size),
      `${mnemonic} <FZ:${size},d>, <FZ:${size},n>, ${factorSyntax(size)}`,
      (b) => apply(b, scalarPart(size), size, entry.operation),
      optionsOf(entry),
    );
    return [vector, scalar];
  }),
);

// ---- long ---------------------------------------------------------------------------------------

interface LongEntry {
  readonly name: string;
  readonly u: 0 | 1;
  readonly opcode: string;
  readonly operation: (b: Ops, size: Size, upper: boolean, n: V128, m: V128) => V128;
}

const longEntries: readonly LongEntry[] = (
  [
    ['MLAL', '0010', vadd],
    ['MLSL', '0110', vsub],
    ['MULL', '1010', undefined],
  ] as const
).flatMap(([name, opcode, combine]) =>
  ([0, 1] as const).map((u) => ({
    name: `${u === 0 ? 'S' : 'U'}${name}`,
    u,
    opcode,
    operation(b, size, upper, n, m) {
      const product = multiplyLong(b, size, n, m, u === 0, upper);
      return combine === undefined ? product : combine(b, (size + 1) as Size, b.v('d'), product);
    },
  })),
);

const longRow = ({ name, u, opcode, operation }: LongEntry, size: 1 | 2, q: number): Row => {
  const two = q === 1 ? '2' : '';
  return row(
    `${name}${two}_element_${PLACES[size].letter}`,
    patternOf({ start: VECTOR.replace('q', String(q)), u, opcode, type: typeOf(size) }, size),
    `${name.toLowerCase()}${two} <VW:${size},d>, <VT:${q},${size},n>, ${factorSyntax(size)}`,
    (b) => b.setV('d', operation(b, size, q === 1, b.v('n'), readFactor(b, size))),
    { fp: true },
  );
};

const doubling = (
  [
    ['SQDMLAL', '0011', addSaturated],
    ['SQDMLSL', '0111', subSaturated],
    ['SQDMULL', '1011', undefined],
  ] as const
).map(([name, opcode, combine]) => ({ name, u: 0 as const, opcode, combine }));

const doublingRows = doubling.flatMap(({ name, u, opcode, combine }) =>
  SIZES.flatMap((size) => {
    const vector = [0, 1].map((q) =>
      longRow(
        {
          name,
          u,
          opcode,
          operation: (b, _size, upper, n, m) =>
            doublingLongResult(b, { size, upper }, { n, m, d: () => b.v('d') }, combine),
        },
        size,
        q,
      ),
    );
    const scalar = row(
      `${name}_element_scalar_${PLACES[size].letter}`,
      patternOf({ start: SCALAR, u, opcode, type: typeOf(size) }, size),
      `${name.toLowerCase()} <FZW:${size},d>, <FZ:${size},n>, ${factorSyntax(size)}`,
      (b) => {
        const wide = scalarPart((size + 1) as Size);
        const n = readPart(b, scalarPart(size), 'n');
        const operands = { n, m: readFactor(b, size), d: () => readPart(b, wide, 'd') };
        const halves = { size, upper: false };
        writePart(b, wide, 'd', doublingLongResult(b, halves, operands, combine));
      },
      { fp: true },
    );
    return [...vector, scalar];
  }),
);

const dotRows = ([0, 1] as const).map((u) => {
  const name = `${u === 0 ? 'S' : 'U'}DOT`;
  return row(
    `${name}_element`,
    patternOf({ start: VECTOR, u, opcode: '1110', type: '10' }, 2),
    `${name.toLowerCase()} <VT:q,2,d>, <VT:q,0,n>, <V:m>.4b[<u:hl>]`,
    (b) => {
      const product = dotProduct(b, b.v('n'), readFactor(b, 2), u === 0);
      writePart(b, vectorPart(2, b.fixed('q')), 'd', vadd(b, 2, b.v('d'), product));
    },
    { split: 'q', fp: true, feature: 'FEAT_DotProd' },
  );
});

// ---- floating point -----------------------------------------------------------------------------

const accumulate =
  (negated: boolean): FpOperation =>
  (b, part, n, m) =>
    fpMulAdd(b, part, readPart(b, part, 'd'), negated ? b.let(negate(b, part, n!)) : n!, m!);

const fpEntries: readonly { name: string; u: 0 | 1; opcode: string; operation: FpOperation }[] = [
  { name: 'FMLA', u: 0, opcode: '0001', operation: accumulate(false) },
  { name: 'FMLS', u: 0, opcode: '0101', operation: accumulate(true) },
  { name: 'FMUL', u: 0, opcode: '1001', operation: fpMul },
  { name: 'FMULX', u: 1, opcode: '1001', operation: fpMulX },
];

const FP_TYPES = { 1: '00', 2: '10', 3: '11' } as const;

const fpRows = fpEntries.flatMap(({ name, u, opcode, operation }) =>
  ([1, 2, 3] as const).flatMap((size) => {
    const { letter } = PLACES[size];
    const mnemonic = name.toLowerCase();
    const feature = size === 1 ? ({ feature: 'FEAT_FP16' } as const) : {};
    const type = FP_TYPES[size];
    // Unused lanes take part in WebAssembly's instructions: keep them zero.
    const run = (b: Ops, part: Part): void =>
      apply(b, part, size, (_b, _part, n, m) => operation(b, part, n, m));
    return [
      row(
        `${name}_element_${letter}`,
        patternOf({ start: VECTOR, u, opcode, type }, size),
        `${mnemonic} <VT:q,${size},d>, <VT:q,${size},n>, ${factorSyntax(size)}`,
        (b) => {
          if (size === 3 && b.fixed('q') === 0) b.undefined();
          else run(b, vectorPart(size, b.fixed('q')));
        },
        optionsOf(feature, {
          split: 'q',
          ...(size === 3 ? { reserved: (field) => field('q') === 0 } : {}),
        }),
      ),
      row(
        `${name}_element_scalar_${letter}`,
        patternOf({ start: SCALAR, u, opcode, type }, size),
        `${mnemonic} <FZ:${size},d>, <FZ:${size},n>, ${factorSyntax(size)}`,
        (b) => run(b, scalarPart(size)),
        optionsOf(feature),
      ),
    ];
  }),
);

export const rows: Row[] = [
  ...integerRows,
  ...longEntries.flatMap((entry) =>
    SIZES.flatMap((size) => [0, 1].map((q) => longRow(entry, size, q))),
  ),
  ...doublingRows,
  ...dotRows,
  ...fpRows,
];
