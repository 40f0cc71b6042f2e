/**
 * The compiled form of a row's or alias's syntax: prints an instruction word as text and reads the
 * operands of a line back into a word. Compiled on first use by the assembler and disassembler.
 */
import { assert } from '../../base/index.ts';
import type { Argument, Learnt, OperandKind, ReadForm, SomeBits } from './operands.ts';
import { type Field, fieldOf, type Pattern, parsePattern, withField } from './pattern.ts';
import type { Scanner } from './scanner.ts';

/** What rows and aliases have in common. */
export interface Spelling {
  readonly name: string;
  readonly pattern: string;
  readonly syntax: string;
}

/** Finds an operand kind by name. */
export type Kinds = (name: string) => OperandKind | undefined;

/** An argument with the fields that hold it. */
interface BoundArgument extends Argument {
  /** Concatenated, most significant first; none for a constant. */
  readonly fields: readonly Field[];
  /** Fields that hold the same value. */
  readonly ties: readonly Field[];
  readonly constant: number;
  /** Value when left out. */
  readonly absent: number;
}

/** A word or a punctuation mark of literal text; an open word goes on in the operand behind it. */
interface Token {
  readonly text: string;
  readonly open: boolean;
}

type Node =
  | { readonly kind: 'text'; readonly text: string; readonly tokens: readonly Token[] }
  | { readonly kind: 'operand'; readonly operand: OperandKind; readonly args: BoundArgument[] }
  | { readonly kind: 'optional'; readonly nodes: readonly Node[] };

/** A row's or alias's syntax, ready to print and to read. */
export interface Template {
  readonly pattern: Pattern;
  /** Text of a word that matches the pattern, or undefined where this spelling does not apply. */
  print(word: number, pc: bigint): string | undefined;
  /**
   * Reads a whole instruction, mnemonic included, and returns its word; undefined when the text is
   * something else (`text.complaint` says why). Bits that the pattern ignores are written as 1, as
   * the `(1)` bits of the Arm ARM's diagrams ask.
   */
  parse(text: Scanner, pc: bigint): number | undefined;
}

export function compileTemplate(spelling: Spelling, kinds: Kinds): Template {
  const pattern = parsePattern(spelling.pattern);
  const nodes = parseNodes(spelling.syntax, { pattern, kinds, at: 0 }, '');
  return {
    pattern,
    print: (word, pc) => printNodes(nodes, word, pc),
    parse(text, pc) {
      const reading = new Reading(pattern, pc);
      if (!readNodes(nodes, text, reading)) return undefined;
      if (!text.done) return text.deny('unexpected text after the operands');
      return reading.word >>> 0;
    },
  };
}

// ---- compiling ----------------------------------------------------------------------------------

interface Compiling {
  readonly pattern: Pattern;
  readonly kinds: Kinds;
  at: number;
}

/** Parses nodes up to `end` (`}` or the end of the text). */
function parseNodes(syntax: string, state: Compiling, end: string): Node[] {
  const nodes: Node[] = [];
  while (state.at < syntax.length && syntax[state.at] !== end) {
    const character = syntax[state.at]!;
    if (character === '{') {
      state.at++;
      nodes.push({ kind: 'optional', nodes: parseNodes(syntax, state, '}') });
      assert(syntax[state.at] === '}', "a syntax closes its '{'");
      state.at++;
    } else if (character === '<') {
      const close = syntax.indexOf('>', state.at);
      nodes.push(parseOperand(syntax.slice(state.at + 1, close), state));
      state.at = close + 1;
    } else {
      const text = /[^<{}]+/y;
      text.lastIndex = state.at;
      const literal = text.exec(syntax)![0];
      state.at += literal.length;
      nodes.push({ kind: 'text', text: literal, tokens: tokensOf(literal, syntax[state.at]) });
    }
  }
  return nodes;
}

function tokensOf(literal: string, next: string | undefined): Token[] {
  const words = literal.match(/\w+|[^\w\s]/g) ?? [];
  const joined = next !== undefined && next !== '}' && !/\s$/.test(literal);
  return words.map((text, i) => ({ text, open: joined && i === words.length - 1 }));
}

function parseOperand(text: string, state: Compiling): Node {
  const colon = text.indexOf(':');
  const name = colon < 0 ? text : text.slice(0, colon);
  const operand = state.kinds(name);
  if (operand === undefined) throw new SyntaxError(`no operand kind '${name}' (<${text}>)`);
  const args = colon < 0 ? [] : text.slice(colon + 1).split(',');
  return {
    kind: 'operand',
    operand,
    args: args.map((arg) => parseArgument(arg.trim(), state.pattern)),
  };
}

function parseArgument(text: string, pattern: Pattern): BoundArgument {
  const plain = { scale: 1, offset: 0, absent: 0, constant: 0, width: 0, fields: [], ties: [] };
  if (/^\d+$/.test(text)) return { ...plain, constant: Number(text) };
  const found = /^([A-Za-z]+)(?:\*(\d+))?([+-]\d+)?(?:=(\d+|[A-Za-z]+))?$/.exec(text);
  if (found === null) throw new SyntaxError(`operand argument '${text}' not understood`);
  const [, letters, scale = '1', offset = '0', equal = '0'] = found;
  const fields = fieldsOf(letters!, pattern);
  const tied = !/^\d/.test(equal);
  return {
    fields,
    ties: tied ? fieldsOf(equal, pattern) : [],
    width: fields.reduce((sum, field) => sum + field.width, 0),
    scale: Number(scale),
    offset: Number(offset),
    absent: tied ? 0 : Number(equal),
    constant: 0,
  };
}

function fieldsOf(letters: string, pattern: Pattern): Field[] {
  return [...letters].map((letter) => {
    const field = pattern.fields.get(letter);
    if (field === undefined) throw new SyntaxError(`the pattern has no field '${letter}'`);
    return field;
  });
}

// ---- printing -----------------------------------------------------------------------------------

const join = (fields: readonly Field[], read: (field: Field) => number): number =>
  fields.reduce((sum, field) => sum * 2 ** field.width + read(field), 0);

/** The argument's value in a word; undefined when a tied field differs. */
function argumentOf(arg: BoundArgument, word: number): number | undefined {
  if (arg.fields.length === 0) return arg.constant;
  const read = (field: Field): number => fieldOf(field, word);
  const value = join(arg.fields, read);
  return arg.ties.length > 0 && join(arg.ties, read) !== value ? undefined : value;
}

function printNodes(nodes: readonly Node[], word: number, pc: bigint): string | undefined {
  let text = '';
  for (const node of nodes) {
    const part = printNode(node, word, pc);
    if (part === undefined) return undefined;
    text += part;
  }
  return text;
}

function printNode(node: Node, word: number, pc: bigint): string | undefined {
  switch (node.kind) {
    case 'text':
      return node.text;
    case 'operand': {
      const values: number[] = [];
      for (const arg of node.args) {
        const value = argumentOf(arg, word);
        if (value === undefined) return undefined;
        values.push(value);
      }
      return node.operand.print(values, node.args, pc);
    }
    case 'optional':
      return isAbsent(node.nodes, word) ? '' : printNodes(node.nodes, word, pc);
  }
}

const isAbsent = (nodes: readonly Node[], word: number): boolean =>
  nodes.every((node) => {
    if (node.kind === 'text') return true;
    if (node.kind === 'optional') return isAbsent(node.nodes, word);
    return node.args.every(
      (arg) => arg.fields.length === 0 || argumentOf(arg, word) === arg.absent,
    );
  });

// ---- reading ------------------------------------------------------------------------------------

/** The word as far as the operands read so far settle it. */
class Reading implements ReadForm {
  readonly pc: bigint;
  /** Arguments of the operand that is being read. */
  args: readonly BoundArgument[] = [];
  /** Bits not settled are 0. */
  word: number;
  /** Which bits are settled. */
  settled: number;

  constructor(pattern: Pattern, pc: bigint) {
    let fields = 0;
    for (const field of pattern.fields.values()) fields = withField(field, fields, -1);
    this.pc = pc;
    this.settled = ~fields;
    this.word = pattern.value | ~(pattern.mask | fields);
  }

  partly(index: number): SomeBits {
    const { fields, constant } = this.args[index]!;
    if (fields.length === 0) return { value: constant, mask: -1 };
    const { word, settled } = this;
    return {
      value: join(fields, (field) => fieldOf(field, word)),
      mask: join(fields, (field) => fieldOf(field, settled)),
    };
  }

  known(index: number): number | undefined {
    const { value, mask } = this.partly(index);
    return mask === -1 || mask === maskOf(this.args[index]!.width) ? value : undefined;
  }

  /** Settles bits of an argument's fields; false when they contradict what is settled. */
  settle(arg: BoundArgument, bits: SomeBits): boolean {
    if (arg.fields.length === 0) return ((arg.constant ^ bits.value) & bits.mask) === 0;
    return this.#settleFields(arg.fields, bits) && this.#settleFields(arg.ties, bits);
  }

  #settleFields(fields: readonly Field[], bits: SomeBits): boolean {
    let { value, mask } = bits;
    for (let i = fields.length - 1; i >= 0; i--) {
      const field = fields[i]!;
      const settled = withField(field, 0, mask);
      const word = withField(field, 0, value) & settled;
      if (((this.word ^ word) & this.settled & settled) !== 0) return false;
      this.word |= word;
      this.settled |= settled;
      value = Math.floor(value / 2 ** field.width);
      mask = Math.floor(mask / 2 ** field.width);
    }
    return true;
  }
}

const maskOf = (width: number): number => 2 ** width - 1;

const readNodes = (nodes: readonly Node[], text: Scanner, reading: Reading): boolean =>
  nodes.every((node) => readNode(node, text, reading));

function readNode(node: Node, text: Scanner, reading: Reading): boolean {
  switch (node.kind) {
    case 'text':
      return node.tokens.every((token) => text.token(token.text, token.open));
    case 'operand':
      return readOperand(node.operand, node.args, text, reading);
    case 'optional':
      return readOptional(node.nodes, text, reading);
  }
}

function readOperand(
  operand: OperandKind,
  args: readonly BoundArgument[],
  text: Scanner,
  reading: Reading,
): boolean {
  const start = text.at;
  reading.args = args;
  const learnt: Learnt | undefined = operand.parse(text, reading);
  const agrees = learnt?.every((bits, i) => {
    if (bits === undefined) return true;
    const arg = args[i]!;
    const mask = arg.fields.length === 0 ? -1 : maskOf(arg.width);
    return reading.settle(arg, typeof bits === 'number' ? { value: bits, mask } : bits);
  });
  if (agrees === true) return true;
  if (agrees === false) text.deny('operand does not go with those before it', start);
  text.at = start;
  return false;
}

function readOptional(nodes: readonly Node[], text: Scanner, reading: Reading): boolean {
  const { at } = text;
  const { word, settled } = reading;
  if (readNodes(nodes, text, reading)) return true;
  text.at = at;
  reading.word = word;
  reading.settled = settled;
  return settleAbsent(nodes, reading);
}

const settleAbsent = (nodes: readonly Node[], reading: Reading): boolean =>
  nodes.every((node) => {
    if (node.kind === 'text') return true;
    if (node.kind === 'optional') return settleAbsent(node.nodes, reading);
    return node.args.every(
      (arg) =>
        arg.fields.length === 0 ||
        reading.settle(arg, { value: arg.absent, mask: maskOf(arg.width) }),
    );
  });
