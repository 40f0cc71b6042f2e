/**
 * Bit fields of 64-bit values held as `bigint`, for cold code (registers, syndromes, descriptors).
 */

export const U64_MAX = (1n << 64n) - 1n;

/** Bits `hi:lo` of `value`, as a bigint. Arm: value<hi:lo>. */
export const bits = (value: bigint, hi: number, lo: number): bigint =>
  (value >> BigInt(lo)) & ((1n << BigInt(hi - lo + 1)) - 1n);

/** Bit `n` of `value` as 0 or 1. */
export const bit = (value: bigint, n: number): 0 | 1 => ((value >> BigInt(n)) & 1n ? 1 : 0);

/** `value` with bits `hi:lo` replaced by `field`. */
export function withBits(value: bigint, hi: number, lo: number, field: bigint | number): bigint {
  const mask = ((1n << BigInt(hi - lo + 1)) - 1n) << BigInt(lo);
  return (value & ~mask) | ((BigInt(field) << BigInt(lo)) & mask);
}

/** `value` wrapped to an unsigned 64-bit bigint. */
export const u64 = (value: bigint): bigint => BigInt.asUintN(64, value);

/** 0x-prefixed hexadecimal, for messages. */
export const hex = (value: bigint | number): string => `0x${value.toString(16)}`;
