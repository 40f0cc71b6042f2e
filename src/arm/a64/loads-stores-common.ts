/**
 * What the rows of the loads-and-stores chapter share: how an address is formed, whether the access
 * is Tag Checked, and writing the base back. Not for address generation without an access (ADR,
 * ADDG), and no row stands here. Called by `loads-stores-*.ts`, `atomics.ts` and `mte.ts`.
 */
import type { I64, Ops } from './ops.ts';

/**
 * Every row with a base register splits on `n=31`: SP must be aligned (Arm: CheckSPAlignment(),
 * which `access` does when it knows the base to be SP), and SP without writeback is Tag Unchecked.
 */
export const SPLIT_ON_SP = 'n=31';

/** Where an instruction accesses memory, and what becomes of its base register. */
export interface Place {
  readonly va: I64;
  /** Arm: `tagchecked = wback || n != 31` of most decode functions. */
  readonly checked: boolean;
  /** The base register's new value, for the forms with writeback. */
  readonly after?: I64;
}

/** How a row forms its address; runs when code is generated. */
export type Addressing = (b: Ops) => Place;

/** `[<Xn|SP>, #offset]` */
export const atOffset =
  (offset: (b: Ops) => I64): Addressing =>
  (b) => ({ va: b.add(b.xsp('n'), offset(b)), checked: !b.is31('n') });

/** `[<Xn|SP>]` */
export const atBase: Addressing = (b) => ({ va: b.xsp('n'), checked: !b.is31('n') });

/** `[<Xn|SP>, #offset]!` */
export const preIndexed =
  (offset: (b: Ops) => I64): Addressing =>
  (b) => {
    const va = b.let(b.add(b.xsp('n'), offset(b)));
    return { va, checked: true, after: va };
  };

/** `[<Xn|SP>], #offset` */
export const postIndexed =
  (offset: (b: Ops) => I64): Addressing =>
  (b) => {
    const va = b.xsp('n');
    return { va, checked: true, after: b.add(va, offset(b)) };
  };

/**
 * Writes the base back. Comes after the transferred registers are written, so that a load whose
 * destination is its own base (CONSTRAINED UNPREDICTABLE) leaves the new address there.
 */
export function writeBack(b: Ops, place: Place): void {
  if (place.after !== undefined) b.setXsp('n', place.after);
}

/** An addressing form with an immediate: how it is called, spelt and formed. */
export interface ImmediateForm {
  readonly name: string;
  /** Text of the address, `IMM` standing for the immediate's operand. */
  readonly syntax: string;
  readonly place: (offset: (b: Ops) => I64) => Addressing;
}

export const offsetForm: ImmediateForm = {
  name: 'offset',
  syntax: '[<X|SP:n>{, #IMM}]',
  place: atOffset,
};
export const preForm: ImmediateForm = {
  name: 'pre',
  syntax: '[<X|SP:n>, #IMM]!',
  place: preIndexed,
};
export const postForm: ImmediateForm = {
  name: 'post',
  syntax: '[<X|SP:n>], #IMM',
  place: postIndexed,
};
