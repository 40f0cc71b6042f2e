/**
 * How scalar floating-point rows are written: one row for single and double precision, told apart
 * by the field y, and one for half precision (FEAT_FP16), from one description. Called by
 * `fp-data-processing.ts` and `fp-conversion.ts`.
 */
import type { I64, Ops, V128 } from './ops.ts';
import { type Row, type RowOptions, row } from './row.ts';
import { type Part, readPart, type Size, scalarPart, writePart } from './simd-lanes.ts';

/** Semantics of a scalar instruction in the format of `part`. */
export type ScalarSemantics = (b: Ops, part: Part) => void;

export interface ScalarRow {
  readonly name: string;
  /** The pattern, with `YY` for the two bits of ftype. */
  readonly pattern: string;
  /** The syntax, with `F:y` for registers of the format. */
  readonly syntax: string;
  readonly semantics: ScalarSemantics;
  readonly options?: RowOptions;
}

/** The rows of one instruction for single and double, and for half precision. */
export function scalarRows({ name, pattern, syntax, semantics, options = {} }: ScalarRow): Row[] {
  const split = `y ${options.split ?? ''}`.trim();
  return [
    row(
      name,
      pattern.replace('YY', '0y'),
      syntax,
      (b) => semantics(b, scalarPart((2 + b.fixed('y')) as Size)),
      { ...options, split, fp: true },
    ),
    row(
      `${name}_half`,
      pattern.replace('YY', '11'),
      syntax.replaceAll('F:y', 'F:3'),
      (b) => semantics(b, scalarPart(1)),
      { ...options, fp: true, feature: 'FEAT_FP16' },
    ),
  ];
}

/** A V register's scalar of the part's format, the rest zero. */
export const readScalar = (b: Ops, part: Part, letter: string): V128 => readPart(b, part, letter);

export const writeScalar = (b: Ops, part: Part, value: V128): void =>
  writePart(b, part, 'd', value);

/** Where the pieces of an 8-bit immediate go, by format. */
const EXPANSION: Readonly<Record<1 | 2 | 3, { shift: number; small: bigint; large: bigint }>> = {
  1: { shift: 6, small: 0x3000n, large: 0x4000n },
  2: { shift: 19, small: 0x3e00_0000n, large: 0x4000_0000n },
  3: { shift: 48, small: 0x3fc0n << 48n, large: 0x4000n << 48n },
};

/** Bits of the number an 8-bit immediate stands for. Arm: VFPExpandImm(). */
export function expandImmediate(b: Ops, size: 1 | 2 | 3, imm8: I64): I64 {
  const { shift, small, large } = EXPANSION[size];
  const low = b.shl(b.and(imm8, b.i64(0x3f)), b.i64(shift));
  const exponent = b.select(b.wrap(b.and(imm8, b.i64(0x40))), b.i64(small), b.i64(large));
  const sign = b.shl(b.shrU(imm8, b.i64(7)), b.i64((8 << size) - 1));
  return b.or(b.or(sign, exponent), low);
}
