/**
 * Assembles a source program into one flat image. Instructions come from the instruction table;
 * this file knows labels, symbols, data directives and literal pools:
 *
 *   name:  1:                 labels; a number may be defined again and again and is meant by
 *                             `1b` (the last before) and `1f` (the next after)
 *   .equ name, expr           a symbol; `name = expr` and `.set` do the same
 *   .quad .word .hword .byte  expressions, little endian (`.xword`, `.long`, `.short` are synonyms)
 *   .ascii .asciz "text"      with the escapes \n \r \t \0 \\ \" \'; `.asciz` ends with a zero byte
 *   .space n, fill            n bytes;  .align n / .p2align n  to 2^n bytes, .balign n to n bytes
 *   ldr x0, =expr             a load from the literal pool, which is placed at `.ltorg` or the end
 *   // and ;                 comments to the end of the line; C comments too
 *
 * There are no sections and no macros: TypeScript composes source text. The first pass lays out,
 * the second encodes, so that labels may be used before they are defined except where they decide
 * sizes.
 */
import { assert } from '../../base/index.ts';
import { type Assembler, AssemblyError } from './assembler.ts';
import { ESCAPES, Scanner, type Symbols } from './scanner.ts';
import { a64Assembler } from './text.ts';

export interface ProgramOptions {
  /** Address of the first byte; 0 unless given. */
  readonly base?: bigint;
  /** Symbols defined from outside. */
  readonly symbols?: Readonly<Record<string, bigint | number>>;
  readonly assembler?: Assembler;
}

export interface Program {
  readonly base: bigint;
  readonly bytes: Uint8Array;
  /** Value of every label and `.equ` symbol. */
  readonly symbols: ReadonlyMap<string, bigint>;
}

/**
 * Assembles `source`. Throws AssemblyError with the line number, the reason and the line's text.
 */
export function assembleProgram(source: string, options: ProgramOptions = {}): Program {
  return new ProgramAssembler(options).assemble(source);
}

/** A piece of the image, encoded in the second pass. */
interface Piece {
  readonly line: number;
  readonly offset: number;
  readonly encode: (view: DataView, symbols: Symbols) => void;
}

/** A literal of the pool: `text` is its expression, for sharing. */
interface Literal {
  readonly line: number;
  readonly text: string;
  readonly size: 4 | 8;
  /** Offset in the image, once the pool is placed. */
  offset: number;
}

const DATA_SIZES: Readonly<Record<string, 1 | 2 | 4 | 8>> = {
  '.byte': 1,
  '.hword': 2,
  '.short': 2,
  '.word': 4,
  '.long': 4,
  '.quad': 8,
  '.xword': 8,
};

const LABEL = /^\s*([A-Za-z_.$][\w.$]*|\d+):/;
const EQUATE = /^([A-Za-z_.$][\w.$]*)\s*=(?!=)\s*(.*)$/;
const REGISTER_LIKE = /^(?:[xwbhsdqv]\d+|[xw]zr|w?sp|lr|fp|ip[01])$/i;

class ProgramAssembler {
  readonly #assembler: Assembler;
  readonly #base: bigint;
  readonly #symbols = new Map<string, bigint>();
  /** Offsets of each numeric label, ascending. */
  readonly #locals = new Map<string, number[]>();
  readonly #pieces: Piece[] = [];
  #pool: Literal[] = [];
  #offset = 0;
  #line = 0;

  constructor(options: ProgramOptions) {
    this.#assembler = options.assembler ?? a64Assembler();
    this.#base = options.base ?? 0n;
    for (const [name, value] of Object.entries(options.symbols ?? {})) {
      this.#symbols.set(name, BigInt(value));
    }
  }

  assemble(source: string): Program {
    const lines = stripComments(source).split('\n');
    this.#forLine(lines, 0, () => {
      lines.forEach((text, i) => {
        this.#line = i + 1;
        this.#layOut(text);
      });
      this.#placePool();
    });
    const bytes = new Uint8Array(this.#offset);
    const view = new DataView(bytes.buffer);
    for (const { line, offset, encode } of this.#pieces) {
      this.#forLine(lines, line, () => encode(view, this.#symbolsAt(offset)));
    }
    return { base: this.#base, bytes, symbols: this.#symbols };
  }

  /** Runs `work`, adding the number and text of the line to its complaints. */
  #forLine(lines: readonly string[], line: number, work: () => void): void {
    this.#line = line;
    try {
      work();
    } catch (error) {
      if (!(error instanceof AssemblyError)) throw error;
      throw new AssemblyError(error.reason, lines[this.#line - 1], this.#line);
    }
  }

  // ---- first pass -------------------------------------------------------------------------------

  #layOut(line: string): void {
    let text = line;
    for (;;) {
      const label = LABEL.exec(text);
      if (label === null) break;
      this.#defineLabel(label[1]!);
      text = text.slice(label[0].length);
    }
    text = text.trim();
    if (text === '') return;
    const equate = EQUATE.exec(text);
    if (equate !== null) this.#define(equate[1]!, this.#now(equate[2]!));
    else if (text.startsWith('.')) this.#directive(text);
    else this.#instruction(text);
  }

  #defineLabel(name: string): void {
    if (!/^\d/.test(name)) {
      this.#define(name, this.#base + BigInt(this.#offset));
      return;
    }
    const offsets = this.#locals.get(name);
    if (offsets === undefined) this.#locals.set(name, [this.#offset]);
    else offsets.push(this.#offset);
  }

  #define(name: string, value: bigint): void {
    if (REGISTER_LIKE.test(name)) throw new AssemblyError(`'${name}' is a register`);
    if (this.#symbols.has(name)) throw new AssemblyError(`'${name}' is defined twice`);
    this.#symbols.set(name, value);
  }

  #directive(text: string): void {
    const [, name, rest] = /^(\.\w+)\s*(.*)$/.exec(text) ?? [];
    assert(name !== undefined && rest !== undefined, 'a directive begins with a dot');
    const size = DATA_SIZES[name];
    if (size !== undefined) {
      for (const expression of splitArguments(rest)) this.#data(expression, size);
      return;
    }
    switch (name) {
      case '.ascii':
      case '.asciz':
        this.#append(parseString(rest, name === '.asciz'));
        return;
      case '.space': {
        const [count = '', fill = '0'] = splitArguments(rest);
        this.#append(new Uint8Array(this.#size(count)).fill(Number(this.#now(fill) & 0xffn)));
        return;
      }
      case '.align':
      case '.p2align':
        this.#alignTo(2 ** this.#size(rest));
        return;
      case '.balign':
        this.#alignTo(this.#size(rest));
        return;
      case '.equ':
      case '.set': {
        const [symbol = '', value = ''] = splitArguments(rest);
        this.#define(symbol, this.#now(value));
        return;
      }
      case '.ltorg':
      case '.pool':
        this.#placePool();
        return;
      default:
        throw new AssemblyError(`no directive '${name}'`);
    }
  }

  #instruction(text: string): void {
    if (this.#offset % 4 !== 0) throw new AssemblyError('an instruction is aligned to 4 bytes');
    const literal = /^ldr\s+([xw])(\w+)\s*,\s*=\s*(.*)$/i.exec(text);
    if (literal !== null) {
      const [, letter, number, expression] = literal;
      const entry = this.#literal(expression!, letter!.toLowerCase() === 'x' ? 8 : 4);
      this.#piece(4, (view, offset, symbols) => {
        const target = this.#base + BigInt(entry.offset);
        this.#encode(view, offset, `ldr ${letter}${number}, 0x${target.toString(16)}`, symbols);
      });
      return;
    }
    this.#piece(4, (view, offset, symbols) => this.#encode(view, offset, text, symbols));
  }

  #data(expression: string, size: 1 | 2 | 4 | 8): void {
    this.#piece(size, (view, offset, symbols) => {
      store(view, offset, size, evaluate(expression, symbols));
    });
  }

  #append(bytes: Uint8Array): void {
    this.#piece(bytes.length, (view, offset) => new Uint8Array(view.buffer).set(bytes, offset));
  }

  #alignTo(bytes: number): void {
    if (bytes < 1 || bytes > 65536 || !Number.isInteger(Math.log2(bytes))) {
      throw new AssemblyError(`an alignment of ${bytes} bytes is not a power of two up to 65536`);
    }
    this.#offset = Math.ceil(this.#offset / bytes) * bytes;
  }

  #piece(size: number, encode: (view: DataView, offset: number, symbols: Symbols) => void): void {
    const offset = this.#offset;
    this.#pieces.push({
      line: this.#line,
      offset,
      encode: (view, symbols) => encode(view, offset, symbols),
    });
    this.#offset += size;
  }

  // ---- literal pools ----------------------------------------------------------------------------

  #literal(text: string, size: 4 | 8): Literal {
    // `1f` means another address at each place, so that such expressions are not shared.
    const shared = /\b\d+[bf]\b|(?:^|[^\w.$])\.(?![\w.$])/.test(text)
      ? undefined
      : this.#pool.find((literal) => literal.text === text && literal.size === size);
    if (shared !== undefined) return shared;
    const literal: Literal = { line: this.#line, text, size, offset: 0 };
    this.#pool.push(literal);
    return literal;
  }

  #placePool(): void {
    const pool = [...this.#pool].sort((a, b) => b.size - a.size);
    this.#pool = [];
    if (pool.length > 0) this.#alignTo(pool[0]!.size);
    for (const literal of pool) {
      this.#line = literal.line;
      literal.offset = this.#offset;
      this.#data(literal.text, literal.size);
    }
  }

  // ---- symbols and encoding ---------------------------------------------------------------------

  /** An expression whose symbols must be known already, in the first pass. */
  #now(expression: string): bigint {
    return evaluate(expression, this.#symbolsAt(this.#offset));
  }

  #size(expression: string): number {
    const value = this.#now(expression);
    if (value < 0n || value > 1n << 30n)
      throw new AssemblyError(`size ${value} is outside 0..2^30`);
    return Number(value);
  }

  #symbolsAt(offset: number): Symbols {
    return (name) => {
      if (name === '.') return this.#base + BigInt(offset);
      const local = /^(\d+)([bf])$/i.exec(name);
      if (local === null) return this.#symbols.get(name);
      const offsets = this.#locals.get(local[1]!) ?? [];
      const found =
        local[2]!.toLowerCase() === 'f'
          ? offsets.find((at) => at > offset)
          : offsets.findLast((at) => at <= offset);
      return found === undefined ? undefined : this.#base + BigInt(found);
    };
  }

  #encode(view: DataView, offset: number, text: string, symbols: Symbols): void {
    const pc = this.#base + BigInt(offset);
    view.setUint32(offset, this.#assembler.assemble(text, pc, symbols), true);
  }
}

function evaluate(expression: string, symbols: Symbols): bigint {
  const text = new Scanner(expression, symbols);
  const value = text.expression();
  if (value === undefined) throw new AssemblyError(text.complaint);
  if (!text.done) throw new AssemblyError('unexpected text after the expression');
  return value;
}

function store(view: DataView, offset: number, size: 1 | 2 | 4 | 8, value: bigint): void {
  const width = BigInt(8 * size);
  if (value < -(1n << (width - 1n)) || value >= 1n << width) {
    throw new AssemblyError(`${value} does not fit ${width} bits`);
  }
  for (let i = 0; i < size; i++)
    view.setUint8(offset + i, Number((value >> BigInt(8 * i)) & 0xffn));
}

/** Blanks out comments, keeping line breaks and what strings contain. */
function stripComments(source: string): string {
  const piece = /"(?:\\.|[^"\\\n])*"|'\\?.'|\/\*[\s\S]*?\*\/|\/\/[^\n]*|;[^\n]*/g;
  return source.replace(piece, (text) =>
    text[0] === '"' || text[0] === "'" ? text : text.replace(/[^\n]/g, ' '),
  );
}

/** Splits at commas outside parentheses and quotes. */
function splitArguments(text: string): string[] {
  const parts = text.match(/(?:'\\?.'|\([^)]*\)|[^,])+/g) ?? [];
  return parts.map((part) => part.trim());
}

const encoder = new TextEncoder();

function parseString(text: string, terminated: boolean): Uint8Array {
  const quoted = /^"((?:\\.|[^"\\])*)"$/.exec(text);
  if (quoted === null) throw new AssemblyError('a string in double quotes expected');
  const plain = quoted[1]!.replace(/\\(.)/g, (_, letter: string) => {
    const character = ESCAPES[letter];
    if (character === undefined) throw new AssemblyError(`unknown escape '\\${letter}'`);
    return character;
  });
  return encoder.encode(terminated ? `${plain}\0` : plain);
}
