/**
 * Disassembles one instruction: word to text. An alias is preferred to its row, as the Arm ARM
 * does. The disassembler of the whole table is made in `text.ts`.
 */
import type { Forms } from './form.ts';

export class Disassembler {
  readonly #forms: Forms;

  constructor(forms: Forms) {
    this.#forms = forms;
  }

  /** The text of `word` at address `pc`, or undefined when it is unallocated. */
  disassemble(word: number, pc = 0n): string | undefined {
    const row = this.#forms.rowOf(word);
    if (row === undefined) return undefined;
    for (const form of [...this.#forms.aliasesOf(word), row]) {
      const text = form.template.print(word, pc);
      if (text !== undefined) return text.trimEnd();
    }
    return undefined;
  }
}
