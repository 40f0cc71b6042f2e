/**
 * Operand kinds: how the `<kind:letters>` of a row's syntax reads and prints. An operand names some
 * fields of the row's pattern; its kind turns their values into text and text into their values.
 * This file holds the form every kind has and helpers to make kinds; the kinds themselves are in
 * `operands-*.ts` by subject, and row files may export more of their own. `template.ts` calls them.
 *
 * ## Arguments
 * `<kind:a,b,…>`: each argument is one or more field letters, concatenated with the first letter
 * most significant (`<page:ij>`), or a decimal constant (`<VL:4,q,0,t>`). After the letters:
 *
 *   *8 +1 -1    scale and offset: the operand shows field * 8, field + 1 (`<u:i*8>`, `<X:s+1>`)
 *   =m          the field letter m holds the same value (`ror` as `extr` with n = m: `<R:s,n=m>`)
 *   =15         the value when a `{…}` around it is left out, in place of 0 (`clrex{ #<u:m=15>}`)
 */
import type { Scanner } from './scanner.ts';

/** One argument of an operand, resolved against a pattern. */
export interface Argument {
  /** Bits of its fields together; 0 for a constant. */
  readonly width: number;
  readonly scale: number;
  readonly offset: number;
}

/** Bits of an argument that an operand learnt from its text, where it did not learn all of them. */
export interface SomeBits {
  readonly value: number;
  readonly mask: number;
}

/** The operand that is being read: its arguments, and what earlier operands settled about them. */
export interface ReadForm {
  readonly args: readonly Argument[];
  /** Address of the instruction. */
  readonly pc: bigint;
  /** Value of argument `index` when it is settled: a constant, or a field read before. */
  known(index: number): number | undefined;
  /** The bits of argument `index` that are settled. */
  partly(index: number): SomeBits;
}

/** What `parse` learnt about each argument: its value, some bits, or nothing. */
export type Learnt = readonly (number | SomeBits | undefined)[];

export interface OperandKind {
  /**
   * The text for the arguments' values (unsigned, as the fields hold them), or undefined where they
   * have no spelling in this form: then the row or alias is not used for this word.
   */
  print(values: readonly number[], args: readonly Argument[], pc: bigint): string | undefined;
  /**
   * Reads the operand; what it says about each argument, or undefined when the text is something
   * else (`text.deny` says why). The caller checks the answer against what is known and restores
   * the position on failure.
   */
  parse(text: Scanner, form: ReadForm): Learnt | undefined;
}

/** Decimal up to 64, so that shifts and bit numbers read well, then hexadecimal. */
export function formatNumber(value: bigint | number): string {
  const magnitude = value < 0 ? -value : value;
  const digits = magnitude <= 64 ? magnitude.toString() : `0x${magnitude.toString(16)}`;
  return value < 0 ? `-${digits}` : digits;
}

/** The arguments' values as one number, the first most significant. */
export const joinValues = (values: readonly number[], args: readonly Argument[]): number =>
  joinBits(values, args.map(widthOf));

/** The inverse of `joinValues`. */
export const splitValue = (joined: number, args: readonly Argument[]): number[] =>
  splitBits(joined, args.map(widthOf));

const widthOf = (arg: Argument): number => arg.width;

const joinBits = (values: readonly number[], widths: readonly number[]): number =>
  values.reduce((sum, value, i) => sum * 2 ** widths[i]! + value, 0);

function splitBits(joined: number, widths: readonly number[]): number[] {
  const values: number[] = [];
  let rest = joined;
  for (let i = widths.length - 1; i >= 0; i--) {
    const size = 2 ** widths[i]!;
    values[i] = rest % size;
    rest = Math.floor(rest / size);
  }
  return values;
}

/** Names by the joined values of selecting arguments; `undefined` where there is none. */
export type Names = readonly (string | undefined)[];

/**
 * Widths of the arguments that select among `names`. A constant has the width its place asks for:
 * all are one bit (Q) but the last.
 */
function selectorWidths(names: Names, args: readonly Argument[]): number[] {
  const last = args.length - 1;
  const whole = Math.ceil(Math.log2(names.length));
  return args.map((arg, i) => {
    if (arg.width > 0) return arg.width;
    return i < last
      ? 1
      : whole - args.slice(0, last).reduce((sum, { width }) => sum + (width || 1), 0);
  });
}

/** The name that the values select. */
export const nameBy = (
  names: Names,
  values: readonly number[],
  args: readonly Argument[],
): string | undefined => names[joinBits(values, selectorWidths(names, args))];

/**
 * The values of the arguments before the last `rest` ones that select this name and fit what is
 * known; the lowest where several do.
 */
export function chooseName(
  names: Names,
  name: string,
  form: ReadForm,
  rest = 0,
): number[] | undefined {
  const widths = selectorWidths(names, form.args.slice(0, form.args.length - rest));
  for (let joined = names.indexOf(name); joined >= 0; joined = names.indexOf(name, joined + 1)) {
    const values = splitBits(joined, widths);
    if (joinBits(values, widths) === joined && fits(values, form)) return values;
  }
  return undefined;
}

/** Whether values of the first arguments agree with what is known of them. */
function fits(values: readonly number[], form: ReadForm): boolean {
  return values.every((value, i) => {
    const known = form.partly(i);
    return (value & known.mask) === known.value;
  });
}

/**
 * A kind with one fixed spelling per value of its arguments (joined): shifts, barriers, hints.
 * Values without a name are not spelt.
 */
export function choice(names: Names): OperandKind {
  return {
    print: (values, args) => nameBy(names, values, args),
    parse(text, form) {
      const start = text.at;
      const word = text.match(/[\w.]+/y)?.[0].toLowerCase() ?? '';
      const values = chooseName(names, word, form);
      return values ?? text.deny(`'${word}' is not one of ${namesOf(names)}`, start);
    },
  };
}

const namesOf = (names: Names): string =>
  [...new Set(names.filter((name) => name !== undefined))].join(' ');
