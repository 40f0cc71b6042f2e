/**
 * Reads row patterns: fixed bits and fields. Used by the decoder, the assembler and the builders.
 */
import { assert } from '../../base/index.ts';

/** A run of bits of one field: `width` bits at opcode bit `lo`, placed at field bit `to`. */
export interface FieldPart {
  readonly lo: number;
  readonly width: number;
  readonly to: number;
}

export interface Field {
  readonly letter: string;
  readonly width: number;
  readonly parts: readonly FieldPart[];
}

export interface Pattern {
  /** Bits that are fixed, and their values; unsigned. */
  readonly mask: number;
  readonly value: number;
  readonly fields: ReadonlyMap<string, Field>;
}

/** Parses 32 characters of `0 1 x` and field letters. Asserts the length. */
export function parsePattern(text: string): Pattern {
  assert(text.length === 32, 'a pattern has 32 bits');
  let mask = 0;
  let value = 0;
  const parts = new Map<string, { lo: number; width: number }[]>();
  let previous = '';
  for (let i = 0; i < 32; i++) {
    const bit = 31 - i;
    const character = text[i]!;
    if (character === '0' || character === '1') {
      mask = (mask | (1 << bit)) >>> 0;
      if (character === '1') value = (value | (1 << bit)) >>> 0;
    } else if (character !== 'x') {
      const list = parts.get(character) ?? [];
      const last = list.at(-1);
      if (character === previous && last !== undefined) {
        last.lo = bit;
        last.width++;
      } else {
        list.push({ lo: bit, width: 1 });
      }
      parts.set(character, list);
    }
    previous = character;
  }
  const fields = new Map<string, Field>();
  for (const [letter, list] of parts) {
    let to = list.reduce((sum, part) => sum + part.width, 0);
    const width = to;
    const placed = list.map((part) => {
      to -= part.width;
      return { lo: part.lo, width: part.width, to };
    });
    fields.set(letter, { letter, width, parts: placed });
  }
  return { mask, value, fields };
}

/** The value of a field in an opcode, zero-extended. */
export function fieldOf(field: Field, word: number): number {
  let value = 0;
  for (const part of field.parts) {
    const bits = (word >>> part.lo) & (part.width === 32 ? -1 : (1 << part.width) - 1);
    value |= bits << part.to;
  }
  return value >>> 0;
}

/** The opcode with the field set to the low bits of `value`. */
export function withField(field: Field, word: number, value: number): number {
  let result = word;
  for (const part of field.parts) {
    const mask = (part.width === 32 ? -1 : (1 << part.width) - 1) << part.lo;
    result = (result & ~mask) | (((value >>> part.to) << part.lo) & mask);
  }
  return result >>> 0;
}
