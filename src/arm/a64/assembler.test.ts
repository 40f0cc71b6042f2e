/**
 * The assembler against its disassembler on every row, and against recorded words of the GNU
 * assembler.
 */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { randomWord } from '../../../test/random-words.ts';
import { Prng } from '../../base/index.ts';
import { AssemblyError } from './assembler.ts';
import { parsePattern, withField } from './pattern.ts';
import type { Row } from './row.ts';
import { aliases, rows } from './table.ts';
import { a64Forms, assemble, disassemble } from './text.ts';

const golden: Record<string, string> = JSON.parse(
  readFileSync(new URL('../../../test/golden/assembler.json', import.meta.url), 'utf8'),
);

const PC = 0x4000_0000n;
const SEED = 0x6a64;
const WORDS_EACH = 12;

/** Logical immediates ignore immr bits above the element size: many words, one text. */
const redundant = /^(AND|ORR|EOR|ANDS)_imm$/;

/** Bits of a row's fields that its syntax does not show; they change nothing. */
function hidden(row: Row): number {
  const shown = new Set(
    [...row.syntax.matchAll(/<[^:>]*:([^>]*)>/g)].flatMap(([, args]) => [...args!]),
  );
  let bits = 0;
  for (const field of parsePattern(row.pattern).fields.values()) {
    if (!shown.has(field.letter)) bits = withField(field, bits, -1);
  }
  return bits;
}

/** Rows with field values that have no name: PSTATE fields that do not exist. */
const unspelt = new Set(['MSR_imm']);

const hex = (word: number): string => word.toString(16).padStart(8, '0');

describe('assembler', () => {
  it('every row and alias: a word, disassembled and assembled, is the same word', () => {
    const prng = new Prng(SEED);
    const faults: string[] = [];
    for (const spelling of [...rows, ...aliases]) {
      for (let i = 0; i < WORDS_EACH; i++) {
        const word = randomWord(spelling, prng);
        const row = a64Forms().rowOf(word);
        if (row === undefined) continue;
        const text = disassemble(word, PC);
        if (text === undefined && unspelt.has(row.spelling.name)) continue;
        if (text === undefined) {
          faults.push(`${row.spelling.name} ${hex(word)}: no text`);
          continue;
        }
        const back = assemble(text, PC);
        const same =
          ((back ^ word) & ~hidden(row.spelling)) === 0 || redundant.test(row.spelling.name);
        if (!same || disassemble(back, PC) !== text) {
          faults.push(`${row.spelling.name} ${hex(word)} '${text}' ${hex(back)}`);
        }
      }
    }
    expect(faults).toEqual([]);
  });

  it('words recorded from the GNU assembler: the same', () => {
    const different = Object.entries(golden).flatMap(([text, word]) => {
      const ours = hex(assemble(text));
      return ours === word ? [] : [`${text}: ${ours}, recorded ${word}`];
    });
    expect(different).toEqual([]);
    expect(Object.keys(golden).length).toBeGreaterThan(500);
  });

  it.each([
    ['nop x0', 'unexpected text after the operands: nop x0'],
    ['frob x0', 'no such instruction: frob x0'],
    ['', 'no such instruction'],
    ['add x0, x1', "',' expected: add x0, x1"],
    ['add x0, x1, #4097', '4097 is neither below 4096 nor a multiple of it: add x0, x1, #4097'],
    ['add x0, x1, x2, lsl #64', 'immediate 64 is outside 0..63: add x0, x1, x2, lsl #64'],
    [
      'add w0, w1, w2, lsl #32',
      'this combination of operands has no encoding: add w0, w1, w2, lsl #32',
    ],
    ['add x0, w1, x2', 'operand does not go with those before it: add x0, w1, x2'],
    ['ldr x0, [x1, #7]', 'immediate 7 is not a multiple of 8: ldr x0, [x1, #7]'],
    ['ldr x0, [x1, #32768]', 'immediate 32768 is outside 0..32760: ldr x0, [x1, #32768]'],
    ['ldr x31, [x1]', 'no register x31: ldr x31, [x1]'],
    ['ldr x0, [xzr]', 'xzr is not possible here: ldr x0, [xzr]'],
    ['ldrsw w0, [x1]', 'an X register expected here: ldrsw w0, [x1]'],
    ['and x0, x1, #5', '0x5 is not a bitmask immediate: and x0, x1, #5'],
    ['and w0, w1, #0x100000000', '4294967296 does not fit 32 bits: and w0, w1, #0x100000000'],
    ['mov x0, #0x12345', '0x12345 needs more than one instruction: mov x0, #0x12345'],
    ['b 2', 'target: immediate 2 is not a multiple of 4: b 2'],
    ['b 0x8000000', 'target: immediate 134217728 is outside -134217728..134217724: b 0x8000000'],
    ['b nowhere', "unknown symbol 'nowhere': b nowhere"],
    ['b.xx 8', 'a condition expected here: b.xx 8'],
    ['csinc x0, x1, x2, zz', 'a condition expected here: csinc x0, x1, x2, zz'],
    ['mrs x0, no_such_el1', "no system register 'no_such_el1': mrs x0, no_such_el1"],
    ['bfi w0, w1, #30, #3', '3 is outside 1..2: bfi w0, w1, #30, #3'],
    ['movz x0, #1 << 64', 'shift by 64 is outside 0..63: movz x0, #1 << 64'],
    ['movz x0, #1 / 0', 'division by zero: movz x0, #1 / 0'],
    ['movz x0, #(1', "')' expected: movz x0, #(1"],
  ])('%s: refused with the reason', (text, message) => {
    const [reason] = message.split(`: ${text}`);
    expect(() => assemble(text)).toThrow(new AssemblyError(reason!, text));
  });

  it('texts that are broken in one place: a word or an AssemblyError, nothing else', () => {
    const texts = Object.keys(golden);
    const piece = fc.constantFrom('', ' ', ',', '#', '[', ']', '{', '}', '.', '-', 'x', 'v0', '0x');
    fc.assert(
      fc.property(fc.nat(texts.length - 1), fc.nat(40), fc.nat(3), piece, (i, at, cut, put) => {
        const text = texts[i]!.slice(0, at) + put + texts[i]!.slice(at + cut);
        try {
          expect(disassemble(assemble(text))).toBeDefined();
        } catch (error) {
          expect(error).toBeInstanceOf(AssemblyError);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it.each([
    ['ADD  X0 ,x1,X2', 'add x0, x1, x2'],
    ['add x0, x1, 4', 'add x0, x1, #4'],
    ['add x0, x1, #0x2000', 'add x0, x1, #2, lsl #12'],
    ['mov x0, #~0', 'mov x0, #-1'],
    ["movz w0, #'a' - 1", 'mov w0, #0x60'],
    ['movz w0, #1 << 4 | 2 * (3 + 1)', 'mov w0, #24'],
    ['ldr lr, [fp]', 'ldr x30, [x29]'],
    ['tbz x3, #3, .', 'tbz w3, #3, 0x0'],
    ['b.hs .+8', 'b.cs 0x8'],
    ['ldr x0, [x1, x2, lsl #0]', 'ldr x0, [x1, x2]'],
    ['add x0, x1, x2, uxtx', 'add x0, x1, x2, uxtx'],
    ['add x0, sp, x2, lsl #1', 'add x0, sp, x2, lsl #1'],
    ['add sp, x1, x2', 'add sp, x1, x2'],
    ['msr S3_0_C1_C0_6, x0', 'msr gcr_el1, x0'],
    ['sys #3, c7, c4, #1, x0', 'dc zva, x0'],
    ['add x0, x0, #:lo12:label', 'add x0, x0, #0x678'],
  ])('%s: read as %s', (text, canonical) => {
    const symbols = (name: string) => (name === 'label' ? 0x12345678n : undefined);
    expect(disassemble(assemble(text, 0n, symbols))).toBe(canonical);
  });
});

describe('disassembler', () => {
  it.each([
    ['unallocated', 0x00000000],
    ['reserved shift of a W register', 0x0b028420],
    ['reserved MOVZ of a W register', 0x52c00000],
    ['logical immediate of all ones', 0x9240fc20],
  ])('%s: no text', (_, word) => {
    expect(disassemble(word)).toBeUndefined();
  });
});
