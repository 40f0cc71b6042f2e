/**
 * Disassembles one instruction: word to text. Aliases come before rows, the more specific pattern
 * before the more general, as the Arm ARM prefers them. The disassembler of the whole table is made
 * in `text.ts`.
 */
import { Form, type InstructionTable } from './form.ts';

/** Candidates are found by bits 28:21 of the word. */
const BUCKET_COUNT = 256;
const bucketOf = (word: number): number => (word >>> 21) & 0xff;

/** Pattern text as mask and value; templates are not needed for this. */
function fixedBits(pattern: string): { mask: number; value: number } {
  const mask = Number.parseInt(
    pattern.replace(/./g, (c) => (c === '0' || c === '1' ? '1' : '0')),
    2,
  );
  const value = Number.parseInt(pattern.replace(/[^1]/g, '0'), 2);
  return { mask, value };
}

interface Candidate {
  readonly form: Form;
  readonly mask: number;
  readonly value: number;
  /** Number of fixed bits. */
  readonly weight: number;
}

export class Disassembler {
  readonly #buckets: readonly (readonly Candidate[])[];

  constructor({ rows, aliases, kinds }: InstructionTable) {
    const buckets: Candidate[][] = Array.from({ length: BUCKET_COUNT }, () => []);
    const byWeight = (spellings: InstructionTable['rows'] | InstructionTable['aliases']) =>
      spellings
        .map((spelling): Candidate => {
          const weight = spelling.pattern.replace(/[^01]/g, '').length;
          return { form: new Form(spelling, kinds), ...fixedBits(spelling.pattern), weight };
        })
        .sort((a, b) => b.weight - a.weight);
    for (const candidate of [...byWeight(aliases), ...byWeight(rows)]) {
      const mask = bucketOf(candidate.mask);
      const value = bucketOf(candidate.value);
      for (let i = 0; i < BUCKET_COUNT; i++) if ((i & mask) === value) buckets[i]!.push(candidate);
    }
    this.#buckets = buckets;
  }

  /** The text of `word` at address `pc`, or undefined when it is unallocated. */
  disassemble(word: number, pc = 0n): string | undefined {
    for (const { form, mask, value } of this.#buckets[bucketOf(word)]!) {
      if ((word & mask) >>> 0 !== value) continue;
      if (!form.accepts(word)) {
        if ('semantics' in form.spelling) return undefined;
        continue;
      }
      const text = form.template.print(word, pc);
      if (text !== undefined) return text.trimEnd();
    }
    return undefined;
  }
}
