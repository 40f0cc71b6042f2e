/**
 * The disassembler against Capstone's on random words of every row; differences are listed by name.
 */
import { Capstone, Const, loadCapstone } from 'capstone-wasm';
import { beforeAll, describe, expect, it } from 'vitest';
import { randomWord } from '../../../test/random-words.ts';
import { Prng } from '../../base/index.ts';
import type { Row } from './row.ts';
import { rows } from './table.ts';
import { a64Forms, disassemble } from './text.ts';

const PC = 0x1000_0000;
const SEED = 0xca9;
const WORDS_EACH = 8;

let capstone: Capstone;
beforeAll(async () => {
  await loadCapstone();
  capstone = new Capstone(Const.CS_ARCH_ARM64, Const.CS_MODE_LITTLE_ENDIAN);
});

/** Capstone's text; undefined where it refuses the word. */
function capstoneText(word: number): string | undefined {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, word, true);
  try {
    const [instruction] = capstone.disasm(bytes, { address: PC });
    return instruction && `${instruction.mnemonic} ${instruction.opStr}`;
  } catch {
    return undefined; // disasm throws where it decodes nothing
  }
}

/** The same for texts that differ in blanks, `#` and how numbers are written. */
function normalize(text: string): string {
  return text
    .replace(/#/g, '')
    .replace(/\s+/g, ' ')
    .replace(/ ?, ?/g, ',')
    .replace(
      /(?<![\w.])(-?)(0x[0-9a-f]+|\d+\.\d+|\d+)(?![\w.])/g,
      (_, sign: string, digits: string) =>
        digits.includes('.')
          ? `${sign}${Number(digits)}`
          : `${BigInt.asIntN(64, sign === '-' ? -BigInt(digits) : BigInt(digits))}`,
    )
    .trim();
}

/** Where we and Capstone 5 may differ, each for a reason. */
const differences: readonly {
  readonly reason: string;
  readonly explains: (row: Row, ours: string, theirs: string | undefined) => boolean;
}[] = [
  {
    reason: 'Capstone prints hs and lo where GNU prints cs and cc',
    explains: (_, ours, theirs) =>
      theirs !== undefined &&
      normalize(ours) ===
        normalize(theirs).replace(/\b(hs|lo)\b/, (name) => (name === 'hs' ? 'cs' : 'cc')),
  },
  {
    reason: 'Capstone shows 32-bit values of mov signed',
    explains: (_, ours, theirs) =>
      ours.startsWith('mov w') &&
      theirs !== undefined &&
      (numberIn(ours) - numberIn(theirs)) % (1n << 32n) === 0n,
  },
  {
    reason: 'Capstone has no alias for lengthening without a shift',
    explains: (_, ours, theirs) =>
      theirs !== undefined &&
      normalize(ours).replace(/^([su])xtl/, '$1shll') === normalize(theirs).replace(/,0$/, ''),
  },
  {
    reason: 'Capstone names hints that no row here has',
    explains: (row, ours) => row.name === 'HINT' && ours.startsWith('hint '),
  },
  {
    reason: 'Capstone refuses PSTATE fields of one bit with a larger value',
    explains: (row, _, theirs) => row.name === 'MSR_imm' && theirs === undefined,
  },
  {
    reason: 'Capstone knows no MTE',
    explains: (row, _, theirs) =>
      row.feature?.startsWith('FEAT_MTE') === true &&
      (theirs === undefined || theirs.startsWith('sys ')),
  },
  {
    reason: 'Capstone refuses loads whose result is CONSTRAINED UNPREDICTABLE',
    explains: (_, ours, theirs) =>
      theirs === undefined && /^(ld|st)/.test(ours) && repeatsRegister(ours),
  },
  {
    reason: 'Capstone leaves prefetch operations without a name out',
    explains: (_, ours, theirs) =>
      theirs !== undefined &&
      /^prfu?m #/.test(ours) &&
      normalize(ours).replace(/ \d+,/, ',') === normalize(theirs),
  },
];

const numberIn = (text: string): bigint => BigInt(/-?\d+$/.exec(normalize(text))?.[0] ?? 0);

/** A register is named twice, or is base of a writeback and transferred. */
function repeatsRegister(text: string): boolean {
  const numbers = [...text.matchAll(/\b[xwbhsdq](\d+|zr)\b|\bsp\b/g)].map(([name, n]) => n ?? name);
  return new Set(numbers).size < numbers.length;
}

describe('disassembler', () => {
  it('random words of every row: the text of Capstone, but for listed differences', () => {
    const prng = new Prng(SEED);
    const unexplained: string[] = [];
    const used = new Set<string>();
    for (const source of rows) {
      for (let i = 0; i < WORDS_EACH; i++) {
        const word = randomWord(source, prng);
        const ours = disassemble(word, BigInt(PC));
        const row = a64Forms().rowOf(word)?.spelling;
        if (row === undefined || ours === undefined) continue;
        const theirs = capstoneText(word);
        if (theirs !== undefined && normalize(ours) === normalize(theirs)) continue;
        const difference = differences.find(({ explains }) => explains(row, ours, theirs));
        if (difference === undefined) {
          unexplained.push(`${row.name} ${word.toString(16)}: '${ours}', Capstone '${theirs}'`);
        } else used.add(difference.reason);
      }
    }
    expect(unexplained).toEqual([]);
    expect(differences.map(({ reason }) => reason).filter((reason) => !used.has(reason))).toEqual(
      [],
    );
  });
});
