/**
 * Finds the row of an opcode, and which of the row's handlers (its split) serves it. Built once
 * from the rows; called for every instruction that is predecoded. `checkRows` proves that no two
 * rows claim one opcode.
 */
import { assert } from '../../base/index.ts';
import { type Field, fieldOf, type Pattern, parsePattern } from './pattern.ts';
import type { Row } from './row.ts';

/** One factor of a row's split: every value of a field, or whether it is 31. */
export interface SplitFactor {
  readonly letter: string;
  readonly field: Field;
  readonly kind: 'value' | 'is31';
  /** How many handlers this factor multiplies by. */
  readonly count: number;
}

export interface DecodedRow {
  readonly row: Row;
  readonly pattern: Pattern;
  readonly split: readonly SplitFactor[];
  readonly variantCount: number;
  /** Number of the first of its variants among those of all rows. */
  readonly firstVariant: number;
}

function parseSplit(row: Row, pattern: Pattern): SplitFactor[] {
  if (row.split === undefined || row.split === '') return [];
  return row.split.split(' ').map((text) => {
    const letter = text[0]!;
    const field = pattern.fields.get(letter);
    assert(field !== undefined, 'a split names a field of the pattern');
    if (text.endsWith('=31')) return { letter, field, kind: 'is31', count: 2 };
    return { letter, field, kind: 'value', count: 2 ** field.width };
  });
}

const popcount = (value: number): number => {
  let rest = value >>> 0;
  let count = 0;
  for (; rest !== 0; rest = (rest & (rest - 1)) >>> 0) count++;
  return count;
};

export class Decoder {
  readonly rows: readonly DecodedRow[];
  readonly variantCount: number;
  /** Candidate rows by bits 31:21 of the opcode, most specific first. */
  readonly #buckets: (readonly DecodedRow[])[];

  constructor(rows: readonly Row[]) {
    let next = 0;
    this.rows = rows.map((row) => {
      const pattern = parsePattern(row.pattern);
      const split = parseSplit(row, pattern);
      const variantCount = split.reduce((product, factor) => product * factor.count, 1);
      const firstVariant = next;
      next += variantCount;
      return { row, pattern, split, variantCount, firstVariant };
    });
    this.variantCount = next;
    this.#buckets = bucketize(this.rows);
  }

  /** The row that `word` belongs to, or undefined when it is unallocated. */
  find(word: number): DecodedRow | undefined {
    const bucket = this.#buckets[word >>> 21]!;
    for (const candidate of bucket) {
      const { mask, value } = candidate.pattern;
      if ((word & mask) >>> 0 === value) {
        const { reserved } = candidate.row;
        if (reserved?.((letter) => this.field(candidate, letter, word)) === true) return undefined;
        return candidate;
      }
    }
    return undefined;
  }

  /** Number of the variant that serves `word`, which `decoded` matches. */
  variant(decoded: DecodedRow, word: number): number {
    let number = 0;
    for (const factor of decoded.split) {
      const value = fieldOf(factor.field, word);
      number = number * factor.count + (factor.kind === 'value' ? value : value === 31 ? 1 : 0);
    }
    return decoded.firstVariant + number;
  }

  field(decoded: DecodedRow, letter: string, word: number): number {
    const field = decoded.pattern.fields.get(letter);
    assert(field !== undefined, 'the pattern has this field');
    return fieldOf(field, word);
  }
}

/** What is known of the split fields in variant `index` (from 0) of a row. */
export function knownInVariant(
  decoded: DecodedRow,
  index: number,
): { values: Map<string, number>; is31: Map<string, boolean> } {
  const values = new Map<string, number>();
  const is31 = new Map<string, boolean>();
  let rest = index;
  for (const factor of [...decoded.split].reverse()) {
    const value = rest % factor.count;
    rest = Math.floor(rest / factor.count);
    if (factor.kind === 'value') values.set(factor.letter, value);
    else is31.set(factor.letter, value === 1);
  }
  return { values, is31 };
}

function bucketize(rows: readonly DecodedRow[]): DecodedRow[][] {
  const buckets: DecodedRow[][] = Array.from({ length: 2048 }, () => []);
  const ordered = [...rows].sort((a, b) => popcount(b.pattern.mask) - popcount(a.pattern.mask));
  for (const decoded of ordered) {
    const mask = decoded.pattern.mask >>> 21;
    const value = decoded.pattern.value >>> 21;
    // Every setting of the free bits among 31:21.
    const free = ~mask & 0x7ff;
    let bits = 0;
    do {
      buckets[value | bits]!.push(decoded);
      bits = (bits - free) & free;
    } while (bits !== 0);
  }
  return buckets;
}

/**
 * Faults of the table in words: overlaps that no `refines` explains, bad patterns, double names.
 */
export function checkRows(rows: readonly Row[]): string[] {
  const faults: string[] = [];
  const names = new Set<string>();
  for (const row of rows) {
    if (row.pattern.length !== 32) faults.push(`${row.name}: ${row.pattern.length} bits, not 32`);
    if (!/^[01a-zA-Z]+$/.test(row.pattern)) faults.push(`${row.name}: a character is no bit`);
    if (names.has(row.name)) faults.push(`${row.name}: named twice`);
    names.add(row.name);
  }
  if (faults.length > 0) return faults;
  const { rows: decoded } = new Decoder(rows);
  for (const row of decoded) {
    if (row.variantCount > 64) faults.push(`${row.row.name}: ${row.variantCount} handlers`);
  }
  for (const bucket of bucketize(decoded)) {
    for (let i = 0; i < bucket.length; i++) {
      for (let j = i + 1; j < bucket.length; j++) {
        const fault = overlap(bucket[i]!, bucket[j]!);
        if (fault !== undefined) faults.push(fault);
      }
    }
  }
  return [...new Set(faults)];
}

/** `narrow` comes first in its bucket: it has at least as many fixed bits as `wide`. */
function overlap(narrow: DecodedRow, wide: DecodedRow): string | undefined {
  const common = narrow.pattern.mask & wide.pattern.mask;
  if (((narrow.pattern.value ^ wide.pattern.value) & common) !== 0) return undefined;
  const contained = (narrow.pattern.mask & wide.pattern.mask) >>> 0 === wide.pattern.mask;
  if (contained && narrow.row.refines === wide.row.name) return undefined;
  return `${narrow.row.name} and ${wide.row.name} overlap`;
}
