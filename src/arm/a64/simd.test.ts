/** Rows of the SIMD and floating-point chapters: what is allocated, how it is spelt, tables. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { INVERSE_SBOX, SBOX } from './aes-tables.ts';
import { checkRows, Decoder } from './decoder.ts';
import { rows } from './simd.ts';
import { assemble, disassemble } from './text.ts';

const allocation: { undefined: readonly string[]; allocated: readonly string[] } = JSON.parse(
  readFileSync(new URL('../../../test/golden/simd-allocation.json', import.meta.url), 'utf8'),
);

/** Spellings with their words, from the GNU assembler: one for each kind of operand. */
const spellings: readonly [text: string, word: number][] = [
  ['movi d3, #0xff00ff0000ff00ff', 0x2f05e4a3],
  ['movi v4.2d, #0xffffffffffffffff', 0x6f07e7e4],
  ['movi v5.4s, #18, lsl #16', 0x4f004645],
  ['movi v5.4s, #18, msl #8', 0x4f00c645],
  ['mvni v6.8h, #7', 0x6f0084e6],
  ['bic v6.4s, #128, lsl #24', 0x6f047406],
  ['fmov v1.2d, #-1.5', 0x6f07f701],
  ['fmov s1, #31.0', 0x1e27f001],
  ['fmov x3, v9.d[1]', 0x9eae0123],
  ['fmov v9.d[1], x3', 0x9eaf0069],
  ['shll2 v2.8h, v3.16b, #8', 0x6e213862],
  ['shrn2 v2.8h, v3.4s, #9', 0x4f178462],
  ['sqshrun b1, h2, #8', 0x7f088441],
  ['sxtl v0.2d, v1.2s', 0x0f20a420],
  ['uxtl2 v0.8h, v1.16b', 0x6f08a420],
  ['sshr d1, d2, #64', 0x5f400441],
  ['sli v1.8h, v2.8h, #15', 0x6f1f5441],
  ['mul v1.8h, v2.8h, v15.h[7]', 0x4f7f8841],
  ['smull2 v1.2d, v2.4s, v31.s[3]', 0x4fbfa841],
  ['fmla v1.2d, v2.2d, v31.d[1]', 0x4fdf1841],
  ['sdot v0.4s, v1.16b, v17.4b[3]', 0x4fb1e820],
  ['sqdmull d1, s2, v3.s[1]', 0x5fa3b041],
  ['tbl v1.16b, {v30.16b, v31.16b, v0.16b}, v2.16b', 0x4e0243c1],
  ['ext v1.8b, v2.8b, v3.8b, #7', 0x2e033841],
  ['mov v1.s[3], v2.s[1]', 0x6e1c2441],
  ['mov v1.h[7], w5', 0x4e1e1ca1],
  ['mov w5, v1.s[2]', 0x0e143c25],
  ['smov x5, v1.b[15]', 0x4e1f2c25],
  ['mov d5, v1.d[1]', 0x5e180425],
  ['dup v1.2d, x7', 0x4e080ce1],
  ['mvn v1.8b, v2.8b', 0x2e205841],
  ['mov v1.16b, v2.16b', 0x4ea21c41],
  ['pmull2 v1.1q, v2.2d, v3.2d', 0x4ee3e041],
  ['saddlp v1.1d, v2.2s', 0x0ea02841],
  ['uaddlv s1, v2.8h', 0x6e703841],
  ['fcvtl2 v1.4s, v2.8h', 0x4e217841],
  ['fcvtxn2 v1.4s, v2.2d', 0x6e616841],
  ['faddp d1, v2.2d', 0x7e70d841],
  ['fmaxnmv s1, v2.4s', 0x6e30c841],
  ['scvtf v1.4s, v2.4s, #32', 0x4f20e441],
  ['fcvtzs w1, d2, #1', 0x1e58fc41],
  ['ucvtf d1, x2, #64', 0x9e430041],
  ['fccmpe d1, d2, #15, ge', 0x1e62a43f],
  ['fcsel s1, s2, s3, mi', 0x1e234c41],
  ['fcmp d1, #0.0', 0x1e602028],
  ['fcmlt v1.4s, v2.4s, #0.0', 0x4ea0e841],
  ['cmle d1, d2, #0', 0x7ee09841],
  ['sha256h q1, q2, v3.4s', 0x5e034041],
  ['sha1h s1, s2', 0x5e280841],
  ['aesimc v1.16b, v2.16b', 0x4e287841],
];

describe('rows', () => {
  const decoder = new Decoder(rows);
  const rowOf = (word: string): string | undefined => decoder.find(parseInt(word, 16))?.row.name;

  it('checkRows: the chapters alone, no overlaps and at most 64 handlers each', () => {
    expect(checkRows(rows)).toEqual([]);
  });

  it('every row: traps while CPACR_EL1 does not allow SIMD and FP', () => {
    expect(rows.filter((row) => row.fp !== true)).toEqual([]);
  });

  it('words recorded as UNDEFINED: no row', () => {
    expect(allocation.undefined.filter((word) => rowOf(word) !== undefined)).toEqual([]);
  });

  it('words recorded as allocated: a row', () => {
    expect(allocation.allocated.filter((word) => rowOf(word) === undefined)).toEqual([]);
  });
});

describe('text', () => {
  it.each(spellings)('%s: assembles to its word and back', (text, word) => {
    expect(assemble(text)).toBe(word);
    expect(assemble(disassemble(word)!)).toBe(word);
  });

  it.each([
    'movi d3, #0xff00ff0000ff00fe',
    'movi v5.4s, #256',
    'movi v5.4s, #1, lsl #12',
    'movi v5.8h, #1, lsl #16',
    'fmov s1, #0.1',
    'sshr d1, d2, #65',
    'sshr v1.16b, v2.16b, #0',
    'shl v1.16b, v2.16b, #8',
    'add v1.1d, v2.1d, v3.1d',
    'add v1.4s, v2.4s, v3.2s',
    'mul v1.8h, v2.8h, v16.h[0]',
    'mul v1.4s, v2.4s, v16.s[4]',
    'mul v1.2d, v2.2d, v3.2d',
    'fadd v1.1d, v2.1d, v3.1d',
    'fcvtzs w1, s2, #33',
    'ext v1.8b, v2.8b, v3.8b, #8',
    'tbl v1.16b, {v1.16b, v3.16b}, v2.16b',
    'fmaxnmv s1, v2.2s',
    'smaxv s1, v2.2s',
    'umov w1, v2.d[0]',
    'pmul v1.8h, v2.8h, v3.8h',
    'sqdmulh v1.16b, v2.16b, v3.16b',
  ])('%s: refused', (text) => {
    expect(() => assemble(text)).toThrow();
  });
});

describe('AES tables', () => {
  it('SBOX: the values FIPS 197 prints', () => {
    expect([0x00, 0x01, 0x53, 0xff].map((x) => SBOX[x])).toEqual([0x63, 0x7c, 0xed, 0x16]);
  });

  it('INVERSE_SBOX: undoes SBOX for every byte', () => {
    for (let x = 0; x < 256; x++) expect(INVERSE_SBOX[SBOX[x]!]).toBe(x);
  });
});
