/**
 * Operand kinds of Advanced SIMD: registers with an arrangement, elements, register lists. Row
 * files make further ones from the same makers with other tables.
 */

import { chooseName, type Names, nameBy, type OperandKind, type ReadForm } from './operands.ts';
import { readVectorRegister } from './operands-basic.ts';
import type { Scanner } from './scanner.ts';

/** A table of arrangements by joined argument value: `?` where there is none. */
export const arrangements = (names: string): (string | undefined)[] =>
  names.split(' ').map((name) => (name === '?' ? undefined : name));

/** By Q and size: all integer arrangements. */
const BY_SIZE = arrangements('8b 4h 2s 1d 16b 8h 4s 2d');
/** By Q and sz: floating point. */
const BY_SZ = arrangements('2s ? 4s 2d');

const readArrangement = (text: Scanner): string | undefined =>
  text.match(/\.\s*(\d*[bhsdq])(?!\w)/iy)?.[1]?.toLowerCase();

/**
 * `<VT:q,z,d>`: a vector register whose arrangement follows from the arguments before the register
 * (joined, index into `names`).
 */
export function vectorBy(names: Names): OperandKind {
  return {
    print(values, args) {
      const name = nameBy(names, values.slice(0, -1), args.slice(0, -1));
      return name === undefined ? undefined : `v${values.at(-1)}.${name}`;
    },
    parse(text, form) {
      const start = text.at;
      const register = readVectorRegister(text, 'v');
      if (register === undefined) return undefined;
      const name = readArrangement(text);
      if (name === undefined) return text.deny('an arrangement such as .4s expected here');
      const values = chooseName(names, name, form, 1);
      return values === undefined
        ? text.deny(`no form with arrangement .${name}`, start)
        : [...values, register];
    },
  };
}

// ---- lists --------------------------------------------------------------------------------------

const listText = (count: number, first: number, suffix: string): string =>
  `{${Array.from({ length: count }, (_, i) => `v${(first + i) % 32}${suffix}`).join(', ')}}`;

/** Reads `{v0.s, v1.s}` or `{v0.s-v3.s}`; the count, the first register, the arrangement. */
function readList(text: Scanner): { count: number; first: number; suffix: string } | undefined {
  const start = text.at;
  const registers: number[] = [];
  let suffix: string | undefined;
  if (!text.match(/\{/y)) return text.deny("'{' expected here");
  for (;;) {
    const register = readVectorRegister(text, 'v');
    if (register === undefined) return undefined;
    const name = readArrangement(text) ?? '';
    if (suffix !== undefined && name !== suffix) {
      return text.deny('the registers of a list have one arrangement', start);
    }
    suffix = name;
    registers.push(register);
    const next = text.match(/[,}-]/y)?.[0];
    if (next === '}') break;
    if (next === undefined) return text.deny("',' or '}' expected here");
    if (next === '-') {
      const last = readVectorRegister(text, 'v');
      if (last === undefined || (readArrangement(text) ?? '') !== suffix || !text.match(/\}/y)) {
        return text.deny('register range not understood', start);
      }
      const count = ((last - register + 32) % 32) + 1;
      for (let i = 1; i < count; i++) registers.push((register + i) % 32);
      break;
    }
  }
  const first = registers[0]!;
  if (!registers.every((register, i) => register === (first + i) % 32)) {
    return text.deny('the registers of a list follow each other', start);
  }
  return { count: registers.length, first, suffix };
}

/** The form without its first argument. */
const behind = (form: ReadForm): ReadForm => ({
  ...form,
  args: form.args.slice(1),
  known: (i) => form.known(i + 1),
  partly: (i) => form.partly(i + 1),
});

/**
 * `<VL:4,q,z,t>`: a list of consecutive registers: how many, the arguments that give the
 * arrangement (joined, index into `names`), the first register.
 */
export function listBy(names: Names): OperandKind {
  return {
    print(values, args) {
      const name = nameBy(names, values.slice(1, -1), args.slice(1, -1));
      return name === undefined ? undefined : listText(values[0]!, values.at(-1)!, `.${name}`);
    },
    parse(text, form) {
      const start = text.at;
      const list = readList(text);
      if (list === undefined) return undefined;
      const values = chooseName(names, list.suffix, behind(form), 1);
      return values === undefined
        ? text.deny(`no form with arrangement .${list.suffix}`, start)
        : [list.count, ...values, list.first];
    },
  };
}

/** `<VLs:2,i,t>`: a list of elements with an index, `{v0.s, v1.s}[3]`. */
function elementList(size: string): OperandKind {
  return {
    print: ([count, index, first]) => `${listText(count!, first!, `.${size}`)}[${index}]`,
    parse(text, form) {
      const start = text.at;
      const list = readList(text);
      if (list === undefined) return undefined;
      if (list.suffix !== size) return text.deny(`elements of size .${size} expected here`, start);
      const index = readIndex(text, 2 ** form.args[1]!.width);
      return index === undefined ? undefined : [list.count, index, list.first];
    },
  };
}

// ---- elements -----------------------------------------------------------------------------------

function readIndex(text: Scanner, limit: number): number | undefined {
  const start = text.at;
  if (!text.match(/\[/y)) return text.deny("'[' expected here");
  const index = text.expression();
  if (index === undefined) return undefined;
  if (index < 0n || index >= limit)
    return text.denyValue(`element ${index} is outside 0..${limit - 1}`, start);
  return text.match(/\]/y) ? Number(index) : text.deny("']' expected here");
}

export const vectorOperands: Readonly<Record<string, OperandKind>> = {
  VT: vectorBy(BY_SIZE),
  VF: vectorBy(BY_SZ),
  VL: listBy(BY_SIZE),
  VLb: elementList('b'),
  VLh: elementList('h'),
  VLs: elementList('s'),
  VLd: elementList('d'),
};
