/**
 * Reads assembly text: literals, patterns, and expressions over symbols. It never throws for what
 * the text says: a reader answers `undefined` and the scanner remembers the weightiest complaint,
 * which is the one worth showing when every form of an instruction failed.
 * Used by the operand kinds, the assembler and the program assembler.
 */
import { U64_MAX } from '../../base/index.ts';

/** What expressions may name. Local labels come as `1b` or `1f`, the current address as `.`. */
export type Symbols = (name: string) => bigint | undefined;

const NUMBER = /0x[0-9a-f]+|0b[01]+(?![\w.])|(\d+)(?![\w.])/iy;
const SYMBOL = /(?:[a-z_.$][\w.$]*|\d+[bf](?![\w.]))/iy;
const CHARACTER = /'(\\?.)'/y;

/** Binary operators with their precedence, which is C's. */
const PRECEDENCE: Readonly<Record<string, number>> = {
  '|': 1,
  '^': 2,
  '&': 3,
  '<<': 4,
  '>>': 4,
  '+': 5,
  '-': 5,
  '*': 6,
  '/': 6,
  '%': 6,
};

const CALCULATE: Readonly<Record<string, (a: bigint, b: bigint) => bigint>> = {
  '|': (a, b) => a | b,
  '^': (a, b) => a ^ b,
  '&': (a, b) => a & b,
  '<<': (a, b) => (a << b) & U64_MAX,
  '>>': (a, b) => a >> b,
  '+': (a, b) => a + b,
  '-': (a, b) => a - b,
  '*': (a, b) => a * b,
  '/': (a, b) => a / b,
  '%': (a, b) => a % b,
};

/** The character a backslash escape stands for. */
export const ESCAPES: Readonly<Record<string, string>> = {
  n: '\n',
  r: '\r',
  t: '\t',
  0: '\0',
  '\\': '\\',
  '"': '"',
  "'": "'",
};

/** Letters, digits and `_`; false for the NaN behind the end. */
const isWord = (code: number): boolean =>
  (code >= 0x30 && code <= 0x39) ||
  (code >= 0x41 && code <= 0x5a) ||
  (code >= 0x61 && code <= 0x7a) ||
  code === 0x5f;

export class Scanner {
  readonly text: string;
  /** The same with ASCII letters in lower case. */
  readonly #lower: string;
  readonly #symbols: Symbols;
  /** Where the next reader starts. */
  at = 0;
  #complaint = '';
  #weight = -1;

  constructor(text: string, symbols: Symbols = () => undefined) {
    this.text = text;
    this.#lower = text.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
    this.#symbols = symbols;
  }

  /** The weightiest complaint, or a general one. */
  get complaint(): string {
    return this.#complaint === '' ? 'operands not understood' : this.#complaint;
  }

  /** Records why the text at `at` was refused; answers `undefined` for the reader to return. */
  deny(message: string, at = this.at): undefined {
    return this.#record(message, at);
  }

  /** The same for a value that was understood and does not fit; outweighs what was expected. */
  denyValue(message: string, at = this.at): undefined {
    return this.#record(message, this.text.length + at);
  }

  #record(message: string, weight: number): undefined {
    if (weight <= this.#weight) return;
    this.#complaint = message;
    this.#weight = weight;
  }

  skipBlanks(): void {
    while (this.text[this.at] === ' ' || this.text[this.at] === '\t') this.at++;
  }

  /** True when only blanks are left. */
  get done(): boolean {
    this.skipBlanks();
    return this.at >= this.text.length;
  }

  /** Reads a sticky pattern after blanks; the match, or undefined with nothing read. */
  match(pattern: RegExp): RegExpExecArray | undefined {
    this.skipBlanks();
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (found === null) return undefined;
    this.at += found[0].length;
    return found;
  }

  /**
   * Reads one token of a template, a word or a punctuation mark, in any case. A word must end
   * where the text's word ends unless it is `open` (an operand follows it without a blank). A `#`
   * may be left out, as the GNU assembler allows.
   */
  token(expected: string, open = false): boolean {
    this.skipBlanks();
    const end = this.at + expected.length;
    if (!this.#lower.startsWith(expected, this.at)) {
      if (expected === '#') return true;
      this.deny(`'${expected}' expected${this.at >= this.text.length ? '' : ' here'}`);
      return false;
    }
    if (!open && isWord(expected.charCodeAt(0)) && isWord(this.text.charCodeAt(end))) {
      this.deny(`'${expected}' expected here`);
      return false;
    }
    this.at = end;
    return true;
  }

  /** Reads a 64-bit expression: C's operators and precedence, symbols, `'c'`, `:lo12:`. */
  expression(): bigint | undefined {
    const start = this.at;
    const value = this.#binary(1);
    if (value === undefined) this.at = start;
    return value;
  }

  /** Operators of at least this precedence. */
  #binary(weakest: number): bigint | undefined {
    let left = this.#unary();
    while (left !== undefined) {
      const operator = this.#peekOperator();
      const precedence = PRECEDENCE[operator] ?? 0;
      if (precedence < weakest) return left;
      this.at += operator.length;
      const right = this.#binary(precedence + 1);
      if (right === undefined) return undefined;
      if (right === 0n && (operator === '/' || operator === '%')) {
        return this.denyValue('division by zero');
      }
      if (operator.length === 2 && (right < 0n || right > 63n)) {
        return this.denyValue(`shift by ${right} is outside 0..63`);
      }
      left = CALCULATE[operator]!(left, right);
    }
    return undefined;
  }

  /** The binary operator that comes next, or a text that is none. */
  #peekOperator(): string {
    this.skipBlanks();
    const character = this.text[this.at] ?? '';
    return character === '<' || character === '>'
      ? this.text.slice(this.at, this.at + 2)
      : character;
  }

  #unary(): bigint | undefined {
    const sign = this.match(/[-~+]/y)?.[0];
    if (sign === undefined) return this.#primary();
    const value = this.#unary();
    if (value === undefined) return undefined;
    return sign === '-' ? -value : sign === '~' ? ~value : value;
  }

  #primary(): bigint | undefined {
    const number = this.match(NUMBER);
    if (number !== undefined) return BigInt(number[0]);
    const character = this.match(CHARACTER)?.[1];
    if (character !== undefined) {
      const plain = character[0] === '\\' ? ESCAPES[character[1] ?? ''] : character;
      return plain === undefined ? this.deny('unknown escape') : BigInt(plain.charCodeAt(0));
    }
    if (this.match(/\(/y)) {
      const value = this.#binary(1);
      if (value === undefined) return undefined;
      return this.match(/\)/y) ? value : this.deny("')' expected");
    }
    const low = this.match(/:lo12:/iy) !== undefined;
    const start = this.at;
    const name = this.match(SYMBOL)?.[0];
    if (name === undefined) return this.deny('a number or a symbol expected here', start);
    const value = this.#symbols(name);
    if (value === undefined) return this.deny(`unknown symbol '${name}'`, start);
    return low ? value & 0xfffn : value;
  }
}
