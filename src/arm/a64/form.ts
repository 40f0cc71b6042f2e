/**
 * A row or alias as a form of text: its template, compiled when first needed, and whether it holds
 * for a word. Shared by the assembler and the disassembler.
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

export class Form {
  readonly spelling: Row | Alias;
  readonly #kinds: Kinds;
  #template: Template | undefined;

  constructor(spelling: Row | Alias, kinds: Kinds) {
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
