/**
 * The carry-less product of two 64-bit polynomials over {0, 1}, for PMULL. Integer multiplication
 * does it when operands are spread out: with one bit in four kept, column k (from 0 to 15) of a
 * product sums at most k + 1 ones, so a carry leaves the bits that are masked away in the last
 * column only, and with it the register. Called by the three-different rows.
 */
import type { I64, Ops } from './ops.ts';

/** Bits 0, 4, 8 …, and the same moved up. */
const EVERY_FOURTH = [0, 1, 2, 3].map((at) => 0x1111_1111_1111_1111n << BigInt(at));

/** Product modulo 2^64. */
function lowProduct(b: Ops, x: I64, y: I64): I64 {
  const parts = (value: I64): I64[] => EVERY_FOURTH.map((mask) => b.let(b.and(value, b.i64(mask))));
  const xs = parts(x);
  const ys = parts(y);
  let result = b.i64(0);
  EVERY_FOURTH.forEach((mask, column) => {
    let sum = b.i64(0);
    xs.forEach((part, i) => {
      sum = b.xor(sum, b.mul(part, ys[(column - i + 4) % 4]!));
    });
    result = b.or(result, b.and(sum, b.i64(mask)));
  });
  return b.let(result);
}

const SWAPS: readonly [mask: bigint, by: number][] = [
  [0x5555_5555_5555_5555n, 1],
  [0x3333_3333_3333_3333n, 2],
  [0x0f0f_0f0f_0f0f_0f0fn, 4],
  [0x00ff_00ff_00ff_00ffn, 8],
  [0x0000_ffff_0000_ffffn, 16],
];

/** The bits in reverse order. */
function reversed(b: Ops, value: I64): I64 {
  let result = value;
  for (const [mask, by] of SWAPS) {
    const kept = b.let(result);
    const up = b.shl(b.and(kept, b.i64(mask)), b.i64(by));
    const down = b.and(b.shrU(kept, b.i64(by)), b.i64(mask));
    result = b.or(up, down);
  }
  return b.let(b.rotr(result, b.i64(32)));
}

/** All 127 bits of the product. Arm: PolynomialMult(). */
export function polynomialProduct(b: Ops, x: I64, y: I64): { low: I64; high: I64 } {
  const low = lowProduct(b, x, y);
  // Reversed operands give the reversed product, whose low half is the upper half here.
  const top = lowProduct(b, reversed(b, x), reversed(b, y));
  return { low, high: b.let(b.shrU(reversed(b, top), b.i64(1))) };
}
