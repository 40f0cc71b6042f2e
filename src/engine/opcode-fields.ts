/**
 * The fields of an instruction for its handler: read from the opcode at run time, or numbers where
 * the row splits on them. Used by the parts of the builder.
 */
import type { I32, I64, Letter, Ops } from '../arm/a64/ops.ts';
import type { Field, Pattern } from '../arm/a64/pattern.ts';
import { assert } from '../base/index.ts';
import * as E from './expressions.ts';
import type { Handler } from './handler.ts';
import * as S from './state.ts';
import { Op } from './wasm/code.ts';

/**
 * What generation knows of an instruction: fields of the row's split, and registers that are 31.
 */
export interface KnownFields {
  readonly values: ReadonlyMap<Letter, number>;
  readonly is31: ReadonlyMap<Letter, boolean>;
}

const NOTHING_KNOWN: KnownFields = { values: new Map(), is31: new Map() };

export class OpcodeFields {
  readonly #h: Handler;
  #pattern: Pattern | undefined;
  #known = NOTHING_KNOWN;

  constructor(h: Handler) {
    this.#h = h;
  }

  /** The instruction is of another row or variant. */
  reset(pattern: Pattern, known: KnownFields): void {
    this.#pattern = pattern;
    this.#known = known;
  }

  info(letter: Letter): Field {
    const field = this.#pattern?.fields.get(letter);
    assert(field !== undefined, 'the pattern has this field');
    return field;
  }

  /** The field's value where the row splits on it, or on its being 31. */
  known(letter: Letter): number | undefined {
    return this.split(letter) ?? (this.isKnown31(letter) === true ? 31 : undefined);
  }

  /** The field's value where the row splits on it. */
  split(letter: Letter): number | undefined {
    return this.#known.values.get(letter);
  }

  /** Whether the field is 31, where the row splits on that. */
  isKnown31(letter: Letter): boolean | undefined {
    return this.#known.is31.get(letter);
  }

  /** The field shifted left by `shift`, zero-extended. */
  scaled(letter: Letter, shift: number): I32 {
    const known = this.known(letter);
    if (known !== undefined) return E.i32(known << shift);
    const opcode = this.#h.opcode();
    let sum: I32 | undefined;
    for (const part of this.info(letter).parts) {
      const to = part.to + shift;
      const mask = ((part.width === 32 ? -1 : (1 << part.width) - 1) << to) | 0;
      const bits = E.asI32((c) => {
        c.get(opcode);
        if (part.lo > to) c.i32(part.lo - to).op(Op.i32ShrU);
        if (part.lo < to) c.i32(to - part.lo).op(Op.i32Shl);
        c.i32(mask).op(Op.i32And);
      });
      sum = sum === undefined ? bits : E.or(sum, bits);
    }
    assert(sum !== undefined, 'a field has bits');
    return sum;
  }
}

type FieldOps = Pick<Ops, 'field' | 'imm' | 'simm' | 'bitmask' | 'fixed' | 'is31'>;

/** The part of `Ops` that reads fields. */
export const fieldOps = (h: Handler, fields: OpcodeFields): FieldOps => ({
  field: (letter) => fields.scaled(letter, 0),

  imm: (letter, shift = 0): I64 => E.shl(E.zext(fields.scaled(letter, 0)), E.i64(shift)),

  simm(letter, shift = 0) {
    const top = E.i32(32 - fields.info(letter).width);
    const signed = E.shrS(E.shl(fields.scaled(letter, 0), top), top);
    return E.shl(E.sext(signed), E.i64(shift));
  },

  bitmask() {
    const opcode = h.opcode();
    const at = E.asI32((c) => c.get(opcode).i32(7).op(Op.i32ShrU).i32(0xfff8).op(Op.i32And));
    return h.loadI64(at, S.BITMASK_TABLE);
  },

  fixed(letter) {
    const value = fields.split(letter);
    assert(value !== undefined, 'the row splits on this field');
    return value;
  },

  is31(letter) {
    const known = fields.known(letter);
    if (known !== undefined) return known === 31;
    const value = fields.isKnown31(letter);
    assert(value !== undefined, 'the row splits on this register being 31');
    return value;
  },
});
