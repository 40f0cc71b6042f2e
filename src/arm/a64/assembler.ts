/**
 * Assembles one instruction: text to word. The forms of a mnemonic are tried in table order, rows
 * before aliases, and the first whose operands read is taken. Nothing is compiled before the first
 * use of a mnemonic. Labels, directives and literal pools are `program.ts`; the assembler of the
 * whole table is made in `text.ts`.
 */
import type { Form, Forms } from './form.ts';
import { Scanner, type Symbols } from './scanner.ts';

/** Why text was refused; the message holds the line number where there is one, and the text. */
export class AssemblyError extends Error {
  override readonly name = 'AssemblyError';
  readonly reason: string;

  constructor(reason: string, text = '', line?: number) {
    const where = line === undefined ? '' : `line ${line}: `;
    super(text.trim() === '' ? `${where}${reason}` : `${where}${reason}: ${text.trim()}`);
    this.reason = reason;
  }
}

export class Assembler {
  readonly #all: Forms;
  /** Forms by the literal part of their mnemonic. */
  readonly #forms = new Map<string, Form[]>();
  /** Literal parts in front of an operand within the mnemonic (`b.` of `b.<cond:c>`). */
  readonly #prefixes = new Set<string>();

  constructor(all: Forms) {
    this.#all = all;
    for (const form of [...all.rows, ...all.aliases]) {
      const { syntax } = form.spelling;
      const mnemonic = /^[^\s<{]*/.exec(syntax)![0];
      const next = syntax[mnemonic.length];
      if (next === '<' || next === '{') this.#prefixes.add(mnemonic);
      const forms = this.#forms.get(mnemonic);
      if (forms === undefined) this.#forms.set(mnemonic, [form]);
      else forms.push(form);
    }
  }

  /**
   * The word of one instruction at address `pc`.
   * Throws AssemblyError when no form of the mnemonic reads the text.
   */
  assemble(line: string, pc = 0n, symbols?: Symbols): number {
    const text = new Scanner(line, (name) => (name === '.' ? pc : symbols?.(name)));
    const forms = this.#candidates(line);
    for (const form of forms) {
      text.at = 0;
      const word = form.template.parse(text, pc);
      if (word === undefined) continue;
      if (form.accepts(word) && this.#all.rowOf(word) !== undefined) return word;
      text.deny('this combination of operands has no encoding', line.length);
    }
    const reason = forms.length === 0 ? 'no such instruction' : text.complaint;
    throw new AssemblyError(reason, line);
  }

  #candidates(line: string): readonly Form[] {
    const mnemonic = (/^\s*(\S*)/.exec(line)![1] ?? '').toLowerCase();
    const exact = this.#forms.get(mnemonic) ?? [];
    const inner: Form[] = [];
    for (let length = mnemonic.length - 1; length > 0; length--) {
      const prefix = mnemonic.slice(0, length);
      if (this.#prefixes.has(prefix)) inner.push(...(this.#forms.get(prefix) ?? []));
    }
    return inner.length === 0 ? exact : [...exact, ...inner];
  }
}
