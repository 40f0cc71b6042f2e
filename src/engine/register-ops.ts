/**
 * The part of `Ops` that reads and writes registers, which lie in linear memory (state.ts): X with
 * XZR and SP, V and its elements, NZCV.
 */
import type { ElementSize, I32, I64, Letter, Ops } from '../arm/a64/ops.ts';
import type { ControlOps } from './control-ops.ts';
import * as E from './expressions.ts';
import type { Handler } from './handler.ts';
import type { OpcodeFields } from './opcode-fields.ts';
import * as S from './state.ts';
import { Op } from './wasm/code.ts';

const ZERO = E.i32(0);
const ONE = E.i32(1);

export type GeneralOps = Pick<
  Ops,
  'x' | 'w' | 'xsp' | 'wsp' | 'setX' | 'setW' | 'setXsp' | 'setWsp' | 'setLink'
>;

/** X registers. */
export function generalOps(h: Handler, fields: OpcodeFields): GeneralOps {
  /** Address of an X slot where 31 means SP. */
  const spSlot = (letter: Letter): I32 => {
    const known = fields.known(letter);
    if (known !== undefined) return E.i32(known === 31 ? S.SP : known * 8);
    const slot = fields.scaled(letter, 3);
    if (fields.isKnown31(letter) === false) return slot;
    // Slot 31 is XZR and SP lies right behind it.
    return E.add(slot, E.shl(E.eq(slot, E.i32(S.XZR)), E.i32(3)));
  };

  const setX = (letter: Letter, value: I64, plus: 0 | 1 = 0): void => {
    const known = fields.known(letter);
    if (known === 31) return;
    h.store(Op.i64Store, fields.scaled(letter, 3), S.X + 8 * plus, value);
    // XZR swallowed the write: make it 0 again rather than branch before every write.
    if (known === undefined && fields.isKnown31(letter) !== false) {
      h.store(Op.i64Store, ZERO, S.XZR, E.i64(0));
    }
  };

  const setXsp = (letter: Letter, value: I64): void =>
    h.store(Op.i64Store, spSlot(letter), 0, value);

  return {
    x: (letter, plus = 0) =>
      fields.known(letter) === 31 ? E.i64(0) : h.loadI64(fields.scaled(letter, 3), S.X + 8 * plus),
    w: (letter) => (fields.known(letter) === 31 ? ZERO : h.loadI32(fields.scaled(letter, 3), S.X)),
    xsp(letter) {
      if (fields.isKnown31(letter) === true) h.isSpBase = true;
      return h.loadI64(spSlot(letter), 0);
    },
    wsp: (letter) => h.loadI32(spSlot(letter), 0),
    setX,
    setW: (letter, value) => setX(letter, E.zext(value)),
    setXsp,
    setWsp: (letter, value) => setXsp(letter, E.zext(value)),
    setLink: (value) => h.store(Op.i64Store, ZERO, S.X + 30 * 8, value),
  };
}

type VectorOps = Pick<Ops, 'v' | 'setV' | 'element' | 'setElement' | 'setScalar'>;

/** V registers. */
export function vectorOps(h: Handler, fields: OpcodeFields): VectorOps {
  /** Address of V register (field + plus) mod 32, without S.V. */
  const slotOf = (letter: Letter, plus: number): I32 => {
    const slot = fields.scaled(letter, 4);
    if (plus === 0) return slot;
    return E.and(E.add(slot, E.i32(plus * 16)), E.i32(31 * 16));
  };

  const elementAt = (
    letter: Letter,
    size: ElementSize,
    index: number | I32,
    plus: number,
  ): { address: I32; offset: number } => {
    const slot = slotOf(letter, plus);
    const bytes = size / 8;
    if (typeof index === 'number') return { address: slot, offset: S.V + index * bytes };
    const offset = E.shl(index, E.i32(31 - Math.clz32(bytes)));
    return { address: E.add(slot, offset), offset: S.V };
  };

  return {
    v: (letter, plus = 0) => h.loadV128(slotOf(letter, plus), S.V),
    setV: (letter, value, plus = 0) => h.storeV128(slotOf(letter, plus), S.V, value),
    element(letter, size, index, plus = 0) {
      const { address, offset } = elementAt(letter, size, index, plus);
      return h.loadBytes(size / 8, address, offset);
    },
    setElement(letter, size, index, value, plus = 0) {
      const { address, offset } = elementAt(letter, size, index, plus);
      h.storeBytes(size / 8, address, offset, value);
    },
    setScalar(letter, size, value) {
      const mask = E.i64(size === 64 ? -1n : (1n << BigInt(size)) - 1n);
      const slot = slotOf(letter, 0);
      h.store(Op.i64Store, slot, S.V, E.and(value, mask));
      h.store(Op.i64Store, slot, S.V + 8, E.i64(0));
    },
  };
}

type FlagOps = Pick<Ops, 'setFlags' | 'setNzcv' | 'nzcv' | 'carry' | 'condition'>;

/** NZCV, and the conditions on it. */
export function flagOps(h: Handler, fields: OpcodeFields, control: ControlOps): FlagOps {
  const n = (): I32 => E.wrap(E.shrU(h.loadI64(ZERO, S.FLAG_N), E.i64(63)));
  const z = (): I32 => E.eqz(h.loadI64(ZERO, S.FLAG_Z));
  const c = (): I32 => h.loadI32(ZERO, S.FLAG_C);
  const v = (): I32 => h.loadI32(ZERO, S.FLAG_V);

  /** By bits 3:1 of the condition. Arm: ConditionHolds(). */
  const bases: readonly (() => I32)[] = [
    z,
    c,
    n,
    v,
    () => E.and(c(), E.xor(z(), ONE)),
    () => E.eq(n(), v()),
    () => E.and(E.eq(n(), v()), E.xor(z(), ONE)),
    () => ONE,
  ];

  /** Bit 0 inverts, except in 111x, which is always true. */
  const holds = (condition: number): I32 => {
    const base = bases[condition >> 1]!();
    return (condition & 1) === 1 && condition !== 15 ? E.eqz(base) : base;
  };

  const setFlags: FlagOps['setFlags'] = (newN, newZ, newC, newV) => {
    h.store(Op.i64Store, ZERO, S.FLAG_N, newN);
    h.store(Op.i64Store, ZERO, S.FLAG_Z, newZ);
    h.store(Op.i32Store, ZERO, S.FLAG_C, newC);
    h.store(Op.i32Store, ZERO, S.FLAG_V, newV);
  };

  return {
    setFlags,
    setNzcv(value) {
      const flags = control.let(value);
      const bit = (i: number): I32 => E.and(E.shrU(flags, E.i32(i)), ONE);
      setFlags(E.shl(E.zext(flags), E.i64(60)), E.zext(E.xor(bit(2), ONE)), bit(1), bit(0));
    },
    nzcv() {
      const at = (flag: I32, i: number): I32 => E.shl(flag, E.i32(i));
      return control.let(E.or(E.or(at(n(), 3), at(z(), 2)), E.or(at(c(), 1), v())));
    },
    carry: c,
    condition(letter) {
      const known = fields.known(letter);
      if (known !== undefined) return holds(known);
      const field = control.let(fields.scaled(letter, 0));
      const result = control.variable(ONE);
      for (let base = 0; base < 7; base++) {
        control.if(E.eq(E.shrU(field, ONE), E.i32(base)), () => {
          result.set(E.xor(holds(base * 2), E.and(field, ONE)));
        });
      }
      return result.value;
    },
  };
}
