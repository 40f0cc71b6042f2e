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

interface Candidate {
  readonly form: Form;
  /** Lower-case letter of the register that the first operand is; empty where it may be several. */
  readonly register: string;
}

/** Mnemonic (its literal part) and what follows it in a syntax. */
const SYNTAX_HEAD = /^([^\s<{]*)(?:([<{])|\s+<([XWBHSDQ]):)?/;
/** Mnemonic and first character of the operands of a line in lower case. */
const LINE_HEAD = /^\s*(\S*)\s*([xwbhsdq](?=\d|zr))?/;

export class Assembler {
  readonly #all: Forms;
  /** Forms by the literal part of their mnemonic, in table order. */
  readonly #candidates = new Map<string, Candidate[]>();
  /** Literal parts in front of an operand within the mnemonic (`b.` of `b.<cond:c>`). */
  readonly #prefixes = new Set<string>();

  constructor(all: Forms) {
    this.#all = all;
    for (const form of [...all.rows, ...all.aliases]) {
      const [, mnemonic, inner, register = ''] = SYNTAX_HEAD.exec(form.spelling.syntax)!;
      if (inner !== undefined) this.#prefixes.add(mnemonic!);
      const candidate = { form, register: register.toLowerCase() };
      const others = this.#candidates.get(mnemonic!);
      if (others === undefined) this.#candidates.set(mnemonic!, [candidate]);
      else others.push(candidate);
    }
  }

  /**
   * The word of one instruction at address `pc`.
   * Throws AssemblyError when no form of the mnemonic reads the text.
   */
  assemble(line: string, pc = 0n, symbols?: Symbols): number {
    const text = new Scanner(line, (name) => (name === '.' ? pc : symbols?.(name)));
    const forms = this.#formsOf(line);
    for (const form of forms) {
      text.at = 0;
      const word = form.template.parse(text, pc);
      if (word === undefined) continue;
      if (form.accepts(word) && this.#all.rowOf(word) !== undefined) return word;
      text.denyValue('this combination of operands has no encoding', line.length);
    }
    const reason = forms.length === 0 ? 'no such instruction' : text.complaint;
    throw new AssemblyError(reason, line);
  }

  /** Forms worth trying: of the mnemonic, without those for other registers (`ldr` has many). */
  #formsOf(line: string): readonly Form[] {
    const [, mnemonic = '', register] = LINE_HEAD.exec(line.toLowerCase())!;
    const candidates = [...(this.#candidates.get(mnemonic) ?? [])];
    for (let length = mnemonic.length - 1; length > 0; length--) {
      const prefix = mnemonic.slice(0, length);
      if (this.#prefixes.has(prefix)) candidates.push(...(this.#candidates.get(prefix) ?? []));
    }
    const fitting = candidates.filter(
      (candidate) =>
        register === undefined || candidate.register === '' || candidate.register === register,
    );
    return (fitting.length > 0 ? fitting : candidates).map(({ form }) => form);
  }
}
