/**
 * Operand kinds of every chapter: general and SIMD&FP registers, plain immediates, PC-relative
 * targets, conditions. See `row.ts` for the list and `operands.ts` for the form.
 */
import {
  type Argument,
  choice,
  chooseName,
  formatNumber,
  type Names,
  nameBy,
  type OperandKind,
} from './operands.ts';
import type { Scanner } from './scanner.ts';

// ---- registers ----------------------------------------------------------------------------------

const REGISTER_NAMES: Readonly<Record<string, number>> = { lr: 30, fp: 29, ip0: 16, ip1: 17 };

/** A general register as text: X or W; number 31 is the stack pointer or zero. */
export function formatRegister(number: number, is64: boolean, stack: boolean): string {
  if (number === 31) return stack ? (is64 ? 'sp' : 'wsp') : is64 ? 'xzr' : 'wzr';
  return `${is64 ? 'x' : 'w'}${number}`;
}

/** Reads a general register of either size; undefined (nothing read) when there is none. */
export function readRegister(
  text: Scanner,
  stack: boolean,
): { number: number; is64: boolean } | undefined {
  const start = text.at;
  const found = text.match(/(?:([xw])(\d+|zr)|(w?)sp|lr|fp|ip[01])\b/iy);
  if (found === undefined) return text.deny('a general register expected here');
  const whole = found[0].toLowerCase();
  const named = REGISTER_NAMES[whole];
  if (named !== undefined) return { number: named, is64: true };
  const is64 = whole[0] !== 'w';
  if (whole.endsWith('sp') || whole.endsWith('zr')) {
    if (whole.endsWith('sp') === stack) return { number: 31, is64 };
    text.at = start;
    return text.deny(`${whole} is not possible here`);
  }
  const number = Number(found[2]);
  if (number <= 30) return { number, is64 };
  text.at = start;
  return text.deny(`no register ${whole}`);
}

/**
 * `<X:d>`, or with a size field `<R:s,d>`, whose first argument is 1 for X. `plus`: the register
 * that many after the field's (`<X+1:d>`).
 */
function general(size: 'x' | 'w' | 'field', stack: boolean, plus = 0): OperandKind {
  const last = size === 'field' ? 1 : 0;
  return {
    print: (values) => {
      const number = (values[last]! + plus) % 32;
      return formatRegister(number, size === 'field' ? values[0] === 1 : size === 'x', stack);
    },
    parse(text) {
      const start = text.at;
      const register = readRegister(text, stack);
      if (register === undefined) return undefined;
      const number = (register.number + 32 - plus) % 32;
      if (size === 'field') return [register.is64 ? 1 : 0, number];
      if (register.is64 === (size === 'x')) return [number];
      return text.deny(`${size === 'x' ? 'an X' : 'a W'} register expected here`, start);
    },
  };
}

/** `<RB:s,t>` of TBZ and TBNZ: W where field s is 0, yet an X register may be written there. */
const testedRegister: OperandKind = {
  print: ([is64, number]) => formatRegister(number!, is64 === 1, false),
  parse(text) {
    const register = readRegister(text, false);
    return register && [register.is64 ? undefined : 0, register.number];
  },
};

/** Reads `prefix` and a register number below 32 (`v7`, `d31`). */
export function readVectorRegister(text: Scanner, prefix: string): number | undefined {
  const start = text.at;
  const found = text.match(/([bhsdqv])(\d+)(?!\w)/iy);
  if (found?.[1]?.toLowerCase() === prefix && Number(found[2]) < 32) return Number(found[2]);
  text.at = start;
  return text.deny(`a ${prefix.toUpperCase()} register expected here`);
}

/** `<S:t>`: a SIMD&FP register by its size's letter. */
function vectorRegister(prefix: string): OperandKind {
  return {
    print: ([number]) => `${prefix}${number}`,
    parse(text) {
      const number = readVectorRegister(text, prefix);
      return number === undefined ? undefined : [number];
    },
  };
}

/**
 * `<F:y,d>`: a scalar register whose size letter follows from the arguments before the register
 * (joined). Row files make their own with other tables.
 */
export function scalarBy(prefixes: Names): OperandKind {
  return {
    print(values, args) {
      const prefix = nameBy(prefixes, values.slice(0, -1), args.slice(0, -1));
      return prefix === undefined ? undefined : `${prefix}${values.at(-1)}`;
    },
    parse(text, form) {
      const found = text.match(/([bhsdq])(\d+)(?!\w)/iy);
      if (found === undefined || Number(found[2]) > 31) {
        return text.deny('a scalar SIMD&FP register expected here');
      }
      const size = chooseName(prefixes, found[1]!.toLowerCase(), form, 1);
      return size === undefined
        ? text.deny(`no form with ${found[0]}`)
        : [...size, Number(found[2])];
    },
  };
}

// ---- immediates ---------------------------------------------------------------------------------

/** The field value as a signed number. */
export const signed = (value: number, width: number): number =>
  value >= 2 ** (width - 1) ? value - 2 ** width : value;

/** `<u:i>` and `<s:i>`: an immediate, scaled and offset. */
function immediate(isSigned: boolean): OperandKind {
  return {
    print([value], [arg]) {
      const plain = isSigned ? signed(value!, arg!.width) : value!;
      return formatNumber(plain * arg!.scale + arg!.offset);
    },
    parse(text, form) {
      const start = text.at;
      const value = text.expression();
      if (value === undefined) return undefined;
      const raw = toField(value, form.args[0]!, isSigned);
      return typeof raw === 'number' ? [raw] : text.denyValue(raw, start);
    },
  };
}

/** The field value that shows as `value`, or why there is none. */
function toField(value: bigint, arg: Argument, isSigned: boolean): number | string {
  const { width, scale, offset } = arg;
  const low = isSigned ? -(2 ** (width - 1)) : 0;
  const high = low + 2 ** width - 1;
  const [min, max] = [low * scale + offset, high * scale + offset];
  const number = Number(value);
  if (number < min || number > max) return `immediate ${value} is outside ${min}..${max}`;
  if ((number - offset) % scale !== 0) return `immediate ${value} is not a multiple of ${scale}`;
  const field = (number - offset) / scale;
  return field < 0 ? field + 2 ** width : field;
}

/** `<label:i*4>`: signed distance from the instruction; `<page:ij>`: from its 4 KiB page. */
function target(pageBits: bigint): OperandKind {
  const base = (pc: bigint): bigint => (pc >> pageBits) << pageBits;
  return {
    print([value], [arg], pc) {
      const distance = BigInt(signed(value!, arg!.width) * arg!.scale) << pageBits;
      return `0x${BigInt.asUintN(64, base(pc) + distance).toString(16)}`;
    },
    parse(text, form) {
      const start = text.at;
      text.match(/#/y);
      const address = text.expression();
      if (address === undefined) return undefined;
      const distance = BigInt.asIntN(64, base(address) - base(form.pc)) >> pageBits;
      const raw = toField(distance, form.args[0]!, true);
      return typeof raw === 'number' ? [raw] : text.denyValue(`target: ${raw}`, start);
    },
  };
}

// ---- conditions ---------------------------------------------------------------------------------

const CONDITIONS = 'eq ne cs cc mi pl vs vc hi ls ge lt gt le al nv'.split(' ');
const CONDITION_SYNONYMS: Readonly<Record<string, string>> = { hs: 'cs', lo: 'cc' };

/** `<cond:c>`, and `<icond:c>` which shows the inverse and has no `al` and `nv`. */
function condition(inverse: boolean): OperandKind {
  return {
    print: ([value]) =>
      inverse && value! >= 14 ? undefined : CONDITIONS[value! ^ Number(inverse)],
    parse(text) {
      const start = text.at;
      const word = text.match(/[a-z]+/iy)?.[0].toLowerCase() ?? '';
      const value = CONDITIONS.indexOf(CONDITION_SYNONYMS[word] ?? word);
      if (value >= 0 && !(inverse && value >= 14)) return [value ^ Number(inverse)];
      return text.deny('a condition expected here', start);
    },
  };
}

export const basicOperands: Readonly<Record<string, OperandKind>> = {
  X: general('x', false),
  W: general('w', false),
  'X+1': general('x', false, 1),
  'W+1': general('w', false, 1),
  'X|SP': general('x', true),
  'W|SP': general('w', true),
  R: general('field', false),
  'R|SP': general('field', true),
  RB: testedRegister,
  B: vectorRegister('b'),
  H: vectorRegister('h'),
  S: vectorRegister('s'),
  D: vectorRegister('d'),
  Q: vectorRegister('q'),
  V: vectorRegister('v'),
  F: scalarBy(['s', 'd', undefined, 'h']),
  u: immediate(false),
  s: immediate(true),
  label: target(0n),
  page: target(12n),
  cond: condition(false),
  icond: condition(true),
  shift: choice(['lsl', 'lsr', 'asr', 'ror']),
};
