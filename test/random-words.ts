/**
 * Instruction words of a row for the tests of assembler and disassembler: random fields, each now
 * and then all zeros or all ones, since that is where spellings change; ignored bits as the
 * assembler writes them.
 */
import { parsePattern, withField } from '../src/arm/a64/pattern.ts';
import type { Alias, Row } from '../src/arm/a64/row.ts';
import type { Prng } from '../src/base/index.ts';

/** A word of `row` with random fields. It may be a reserved one. */
export function randomWord(row: Row | Alias, prng: Prng): number {
  const { mask, value, fields } = parsePattern(row.pattern);
  let all = 0;
  let word = 0;
  for (const field of fields.values()) {
    all = withField(field, all, -1);
    word = withField(field, word, [0, -1][prng.below(6)] ?? prng.u32());
  }
  return (word | value | ~(mask | all)) >>> 0;
}
