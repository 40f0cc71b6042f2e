/** Logical immediates: every encoding of both widths, and values that have none. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeBitmask, encodeBitmask } from './bitmask.ts';

/** Every encoding of a width, with its value. */
function allEncodings(is64: boolean): bigint[] {
  const values: bigint[] = [];
  for (let n = 0; n < 2; n++) {
    for (let immr = 0; immr < 64; immr++) {
      for (let imms = 0; imms < 64; imms++) {
        const value = decodeBitmask({ n, immr, imms }, is64);
        if (value !== undefined) values.push(value);
      }
    }
  }
  return values;
}

describe('bitmask immediates', () => {
  it.each([
    // Known counts: sum over element sizes of size * (size - 1).
    [true, 5334],
    [false, 1302],
  ])('64 bits %s: every value encodes, and to itself', (is64, count) => {
    const values = new Set(allEncodings(is64));
    expect(values.size).toBe(count);
    for (const value of values) {
      const fields = encodeBitmask(value, is64);
      expect(fields && decodeBitmask(fields, is64)).toBe(value);
    }
  });

  it('random values: encode only what decodes to them', () => {
    const values = new Set(allEncodings(true));
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), (value) => {
        expect(encodeBitmask(value, true) !== undefined).toBe(values.has(value));
      }),
    );
  });

  it('0 and all ones: no encoding', () => {
    expect(encodeBitmask(0n, true)).toBeUndefined();
    expect(encodeBitmask((1n << 64n) - 1n, true)).toBeUndefined();
    expect(encodeBitmask(0xffff_ffffn, false)).toBeUndefined();
  });
});
