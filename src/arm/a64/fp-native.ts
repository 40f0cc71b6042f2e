/**
 * The two formats WebAssembly computes in: instruction names, constants, and masks of the elements
 * that have a property. Called by the other `fp-*.ts` files of this chapter.
 */
import type { Ops, V128 } from './ops.ts';
import { repeat, type Size, zeroes } from './simd-lanes.ts';

/** Names, and constants as bits, of the two formats WebAssembly computes in. */
interface Native {
  readonly shape: 'f32x4' | 'f64x2';
  readonly sign: bigint;
  readonly infinity: bigint;
  /** Twice the smallest normal number: from here on nothing was tiny before rounding. */
  readonly small: bigint;
  /** From here on the error of a product is a normal number too. */
  readonly errorFloor: bigint;
  /** 2^k + 1 with k half the significand: Veltkamp's constant. */
  readonly splitter: bigint;
  readonly half: bigint;
  readonly two: bigint;
  readonly three: bigint;
}

const SINGLE: Native = {
  shape: 'f32x4',
  sign: 1n << 31n,
  infinity: 0x7f80_0000n,
  small: 2n << 23n,
  errorFloor: 52n << 23n,
  splitter: 0x4580_0800n,
  half: 0x3f00_0000n,
  two: 0x4000_0000n,
  three: 0x4040_0000n,
};
const DOUBLE: Native = {
  shape: 'f64x2',
  sign: 1n << 63n,
  infinity: 0x7ffn << 52n,
  small: 2n << 52n,
  errorFloor: 110n << 52n,
  splitter: 0x41a0_0000_0200_0000n,
  half: 0x3fe0n << 48n,
  two: 0x4000n << 48n,
  three: 0x4008n << 48n,
};

export const nativeOf = (size: Size): Native => (size === 3 ? DOUBLE : SINGLE);

/** One of WebAssembly's instructions on elements of this size. */
export const fop = (b: Ops, size: Size, name: string, ...operands: V128[]): V128 =>
  b.vop(`${nativeOf(size).shape}.${name}`, ...operands);

export const magnitude = (b: Ops, size: Size, x: V128): V128 => fop(b, size, 'abs', x);

/** Neither a NaN nor infinite. */
export const isFiniteValue = (b: Ops, size: Size, x: V128): V128 =>
  fop(b, size, 'lt', magnitude(b, size, x), repeat(b, size, nativeOf(size).infinity));

export const isZero = (b: Ops, size: Size, x: V128): V128 => fop(b, size, 'eq', x, zeroes(b));

export const atLeast = (b: Ops, size: Size, x: V128, bound: bigint): V128 =>
  fop(b, size, 'ge', magnitude(b, size, x), repeat(b, size, bound));
