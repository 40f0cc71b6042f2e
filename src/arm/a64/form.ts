/**
 * Rows and aliases as forms of text: their templates, compiled when first needed, and which of them
 * hold for a word. Shared by the assembler and the disassembler.
 */
import { assert } from '../../base/index.ts';
import { fieldOf } from './pattern.ts';
import type { Alias, Row } from './row.ts';
import { compileTemplate, type Kinds, type Template } from './template.ts';

/** What an assembler or disassembler is made from. */
export interface InstructionTable {
  readonly rows: readonly Row[];
  readonly aliases: readonly Alias[];
  readonly kinds: Kinds;
}

/** A row or an alias. */
export class Form<T extends Row | Alias = Row | Alias> {
  readonly spelling: T;
  readonly #kinds: Kinds;
  #template: Template | undefined;

  constructor(spelling: T, kinds: Kinds) {
    this.spelling = spelling;
    this.#kinds = kinds;
  }

  get template(): Template {
    this.#template ??= compileTemplate(this.spelling, this.#kinds);
    return this.#template;
  }

  /** Whether the row is allocated, or the alias preferred, for a word that matches the pattern. */
  accepts(word: number): boolean {
    const { spelling } = this;
    if ('semantics' in spelling) return spelling.reserved?.(this.#fields(word)) !== true;
    return spelling.when?.(this.#fields(word)) !== false;
  }

  #fields(word: number): (letter: string) => number {
    const { fields } = this.template.pattern;
    return (letter) => {
      const field = fields.get(letter);
      assert(field !== undefined, 'a condition names fields of its pattern');
      return fieldOf(field, word);
    };
  }
}

/** A form with its fixed bits, known without compiling its template. */
interface Indexed<T extends Row | Alias> {
  readonly form: Form<T>;
  readonly mask: number;
  readonly value: number;
  /** Number of fixed bits. */
  readonly weight: number;
}

const ZERO = '0'.charCodeAt(0);
const ONE = '1'.charCodeAt(0);

/** Runs for every row before the first alias is assembled, hence no pattern objects here. */
function indexed<T extends Row | Alias>(form: Form<T>): Indexed<T> {
  const { pattern } = form.spelling;
  let [mask, value, weight] = [0, 0, 0];
  for (let i = 0; i < 32; i++) {
    const code = pattern.charCodeAt(i);
    mask <<= 1;
    value <<= 1;
    if (code !== ZERO && code !== ONE) continue;
    mask |= 1;
    value |= code - ZERO;
    weight++;
  }
  return { form, mask, value, weight };
}

/** Forms are found by bits 28:21 of a word. */
const BUCKET_COUNT = 256;
const bucketOf = (word: number): number => (word >>> 21) & 0xff;

/** Forms by the words they hold for, the more specific pattern first. */
class FormIndex<T extends Row | Alias> {
  readonly #buckets: readonly (readonly Indexed<T>[])[];

  constructor(forms: readonly Form<T>[]) {
    const buckets: Indexed<T>[][] = Array.from({ length: BUCKET_COUNT }, () => []);
    for (const entry of forms.map(indexed).sort((a, b) => b.weight - a.weight)) {
      const free = bucketOf(~entry.mask);
      let bits = 0;
      do {
        buckets[bucketOf(entry.value) | bits]!.push(entry);
        bits = (bits - free) & free;
      } while (bits !== 0);
    }
    this.#buckets = buckets;
  }

  matching(word: number): Form<T>[] {
    return this.#buckets[bucketOf(word)]!.filter(({ mask, value }) => (word & mask) === value).map(
      ({ form }) => form,
    );
  }
}

/** All forms of a table, in its order, and which of them a word has. */
export class Forms {
  readonly rows: readonly Form<Row>[];
  readonly aliases: readonly Form<Alias>[];
  #rowIndex: FormIndex<Row> | undefined;
  #aliasIndex: FormIndex<Alias> | undefined;

  constructor({ rows, aliases, kinds }: InstructionTable) {
    this.rows = rows.map((row) => new Form(row, kinds));
    this.aliases = aliases.map((alias) => new Form(alias, kinds));
  }

  /** The row that a word belongs to, or undefined when it is unallocated. */
  rowOf(word: number): Form<Row> | undefined {
    this.#rowIndex ??= new FormIndex(this.rows);
    const row = this.#rowIndex.matching(word)[0];
    return row?.accepts(word) ? row : undefined;
  }

  /** The aliases that are preferred for a word. */
  aliasesOf(word: number): Form<Alias>[] {
    this.#aliasIndex ??= new FormIndex(this.aliases);
    return this.#aliasIndex.matching(word).filter((alias) => alias.accepts(word));
  }
}
