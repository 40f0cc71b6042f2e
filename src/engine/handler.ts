/**
 * One handler under construction: its code, its locals, and the few sequences that every part of
 * the builder needs. A handler is a WebAssembly function (rp, B) → (); it ends by tail-calling the
 * handler of the next record, so there is no dispatch loop. See state.ts for rp and B.
 */
import type { I32, I64, V128, Value } from '../arm/a64/ops.ts';
import { asI32, asI64, asV128 } from './expressions.ts';
import * as S from './state.ts';
import { Code, Op, type ValueType } from './wasm/code.ts';
import type { FunctionType } from './wasm/module.ts';

export const RP_LOCAL = 0;
export const B_LOCAL = 1;

/** Functions that generated code imports, in index order. */
export const imports = [
  { name: 'slow', type: { parameters: ['i32'], results: ['i32'] } },
  { name: 'commit', type: { parameters: [], results: [] } },
  { name: 'system', type: { parameters: ['i32'], results: ['i32'] } },
  { name: 'soft', type: { parameters: ['i32'], results: [] } },
  { name: 'decode', type: { parameters: ['i32'], results: [] } },
] as const satisfies readonly { name: string; type: FunctionType }[];

export const ImportIndex = { slow: 0, commit: 1, system: 2, soft: 3, decode: 4 } as const;
/** The first function of our own: `dispatch(pc, remaining)`. */
export const DISPATCH = imports.length;

export const handlerType: FunctionType = { parameters: ['i32', 'i32'], results: [] };
export const dispatchType: FunctionType = { parameters: ['i64', 'i32'], results: [] };
/** Index of `handlerType` in the module's types; asserted where the module is made. */
export const HANDLER_TYPE_INDEX = 4;

export class Handler {
  readonly code = new Code();
  readonly locals: ValueType[] = [];
  readonly #parameterCount: number;
  #opcode: number | undefined;
  /** Whether control has left for another handler on every path so far. */
  ended = false;

  constructor(parameterCount = 2) {
    this.#parameterCount = parameterCount;
  }

  newLocal(type: ValueType): number {
    this.locals.push(type);
    return this.#parameterCount + this.locals.length - 1;
  }

  /** The local that holds the opcode; loaded in the prologue when anything asked for it. */
  opcode(): number {
    this.#opcode ??= this.newLocal('i32');
    return this.#opcode;
  }

  /** The code with its prologue. */
  finish(): Code {
    if (this.#opcode === undefined) return this.code;
    const whole = new Code().get(RP_LOCAL).memory(Op.i32Load, 4).set(this.#opcode);
    return whole.append(this.code);
  }

  /** Sets a new local from the top of the stack and gives it as a value. */
  pop(type: 'i32'): I32;
  pop(type: 'i64'): I64;
  pop(type: 'v128'): V128;
  pop(type: 'i32' | 'i64' | 'v128'): Value {
    const local = this.newLocal(type);
    this.code.set(local);
    return this.local(type, local);
  }

  local(type: 'i32' | 'i64' | 'v128', local: number): Value {
    const get = (c: Code): void => {
      c.get(local);
    };
    return type === 'i32' ? asI32(get) : type === 'i64' ? asI64(get) : asV128(get);
  }

  /** Saves rp and B before a call into TypeScript. */
  saveProgress(): void {
    this.code.i32(0).get(RP_LOCAL).memory(Op.i32Store, S.RP);
    this.code.i32(0).get(B_LOCAL).memory(Op.i32Store, S.BUDGET);
  }

  /** Goes on with the record behind this one. */
  next(): void {
    this.code.get(RP_LOCAL).i32(8).op(Op.i32Add).tee(RP_LOCAL).get(B_LOCAL);
    this.code.get(RP_LOCAL).memory(Op.i32Load, 0);
    this.code.op(Op.returnCallIndirect).u32(HANDLER_TYPE_INDEX).u32(0);
    this.ended = true;
  }

  /** Pushes the budget that is left after this instruction, times 8. */
  pushRemaining(): void {
    this.code.get(B_LOCAL).get(RP_LOCAL).op(Op.i32Sub).i32(8).op(Op.i32Sub);
  }
}
