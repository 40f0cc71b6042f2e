/**
 * Rows for "Advanced SIMD modified immediate": MOVI, MVNI, ORR, BIC and FMOV. The immediate is the
 * field i, abc:defgh of the Arm ARM; how it is expanded follows from the row. Collected by
 * `simd.ts`.
 */
import { expandImmediate } from './fp-common.ts';
import type { I64, Ops, V128 } from './ops.ts';
import { type Row, type RowOptions, row } from './row.ts';
import { bitsOf, type Size, vectorPart, vnot, vor, writePart } from './simd-lanes.ts';

const pattern = (op: 0 | 1, cmode: string, o2: 0 | 1 = 0, q = 'q'): string =>
  `0${q}${op}0111100000iii${cmode}${o2}1iiiiiddddd`;

// ---- MOVI, MVNI, ORR, BIC -----------------------------------------------------------------------

/** What the expanded immediate does to the destination. */
type Use = (b: Ops, immediate: V128) => V128;

const plain: Use = (_b, immediate) => immediate;
const inverted: Use = (b, immediate) => vnot(b, immediate);
const or: Use = (b, immediate) => vor(b, b.v('d'), immediate);
const clear: Use = (b, immediate) => b.vop('v128.andnot', b.v('d'), immediate);

interface Entry {
  readonly name: string;
  readonly op: 0 | 1;
  readonly cmode: string;
  readonly size: Size;
  /** Text behind the immediate. */
  readonly shift: string;
  readonly expand: (b: Ops, imm8: I64) => I64;
  readonly use: Use;
}

/** The immediate moved up by whole bytes, field s. */
const shifted = (b: Ops, imm8: I64): I64 => b.shl(imm8, b.imm('s', 3));

/** Moved up by 8 or 16 bits (field s), with ones shifted in. */
function shiftingOnes(b: Ops, imm8: I64): I64 {
  const by = b.let(b.shl(b.add(b.imm('s'), b.i64(1)), b.i64(3)));
  return b.sub(b.shl(b.add(imm8, b.i64(1)), by), b.i64(1));
}

const LSL = '{, lsl #<u:s*8>}';
const MSL = ', msl #<u:s*8+8>';

/** The instructions that take a shifted immediate; bit 0 of cmode tells the logical ones. */
const shiftedEntries: readonly Entry[] = (
  [
    ['MOVI', 0, '0', plain],
    ['MVNI', 1, '0', inverted],
    ['ORR', 0, '1', or],
    ['BIC', 1, '1', clear],
  ] as const
).flatMap(([name, op, low, use]) => [
  { name: `${name}_s`, op, cmode: `0ss${low}`, size: 2, shift: LSL, expand: shifted, use },
  { name: `${name}_h`, op, cmode: `10s${low}`, size: 1, shift: LSL, expand: shifted, use },
]);

const entries: readonly Entry[] = [
  ...shiftedEntries,
  {
    name: 'MOVI_s_ones',
    op: 0,
    cmode: '110s',
    size: 2,
    shift: MSL,
    expand: shiftingOnes,
    use: plain,
  },
  {
    name: 'MVNI_s_ones',
    op: 1,
    cmode: '110s',
    size: 2,
    shift: MSL,
    expand: shiftingOnes,
    use: inverted,
  },
  {
    name: 'MOVI_b',
    op: 0,
    cmode: '1110',
    size: 0,
    shift: '',
    expand: (_b, imm8) => imm8,
    use: plain,
  },
];

const immediateRows = entries.map(({ name, op, cmode, size, shift, expand, use }) => {
  const mnemonic = name.slice(0, name.indexOf('_')).toLowerCase();
  return row(
    `${name}_imm_vector`,
    pattern(op, cmode),
    `${mnemonic} <VT:q,${size},d>, #<u:i>${shift}`,
    (b) => {
      const value = b.splat(bitsOf(size), expand(b, b.imm('i')));
      writePart(b, vectorPart(size, b.fixed('q')), 'd', use(b, value));
    },
    { split: 'q', fp: true },
  );
});

// ---- 64 bits ------------------------------------------------------------------------------------

/** Every bit of the immediate as a byte. */
function expandToBytes(b: Ops): V128 {
  const copies = b.mul(b.imm('i'), b.i64(0x0101_0101_0101_0101n));
  const bits = b.and(copies, b.i64(0x8040_2010_0804_0201n));
  return b.vop('i8x16.ne', b.splat(64, bits), b.v128(0n, 0n));
}

const wideRows = [
  row(
    'MOVI_d_imm_scalar',
    pattern(1, '1110', 0, '0'),
    'movi <D:d>, #<byte8:i>',
    (b) => b.setScalar('d', 64, b.lane(expandToBytes(b), 64, 0)),
    { fp: true },
  ),
  row(
    'MOVI_d_imm_vector',
    pattern(1, '1110', 0, '1'),
    'movi <V:d>.2d, #<byte8:i>',
    (b) => b.setV('d', expandToBytes(b)),
    { fp: true },
  ),
];

// ---- FMOV ---------------------------------------------------------------------------------------

function moveFp(name: string, size: 1 | 2 | 3, bits: string, options: RowOptions): Row {
  const arrangement = size === 3 ? '<V:d>.2d' : `<VT:q,${size},d>`;
  return row(
    `FMOV_${name}_imm_vector`,
    bits,
    `fmov ${arrangement}, #<fpimm:i>`,
    (b) => {
      const part = vectorPart(size, size === 3 ? 1 : b.fixed('q'));
      const value = b.let(expandImmediate(b, size, b.let(b.imm('i'))));
      writePart(b, part, 'd', b.splat(bitsOf(size), value));
    },
    { fp: true, ...options },
  );
}

const fpRows = [
  moveFp('s', 2, pattern(0, '1111'), { split: 'q' }),
  moveFp('d', 3, pattern(1, '1111', 0, '1'), {}),
  moveFp('h', 1, pattern(0, '1111', 1), { split: 'q', feature: 'FEAT_FP16' }),
];

export const rows: Row[] = [...immediateRows, ...wideRows, ...fpRows];
