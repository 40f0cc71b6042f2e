/**
 * One handler under construction: its code, its locals, and the few sequences that every part of
 * the builder needs. A handler is a WebAssembly function (rp, B) → (); it ends by tail-calling the
 * handler of the next record, so there is no dispatch loop. See state.ts for rp and B.
 */
import type { I32, I64, V128, Value } from '../arm/a64/ops.ts';
import { assert } from '../base/index.ts';
import { asI32, asI64, asV128, emit } from './expressions.ts';
import * as S from './state.ts';
import { Code, Op, type ValueType } from './wasm/code.ts';
import type { FunctionType } from './wasm/module.ts';
import { SimdOp } from './wasm/simd.ts';

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

const LOAD = { 1: Op.i64Load8U, 2: Op.i64Load16U, 4: Op.i64Load32U, 8: Op.i64Load } as const;
const STORE = { 1: Op.i64Store8, 2: Op.i64Store16, 4: Op.i64Store32, 8: Op.i64Store } as const;

function widthOf(bytes: number): 1 | 2 | 4 | 8 {
  assert(bytes === 1 || bytes === 2 || bytes === 4 || bytes === 8, 'access of 1, 2, 4 or 8 bytes');
  return bytes;
}

export class Handler {
  code = new Code();
  locals: ValueType[] = [];
  readonly #parameterCount: number;
  #opcode: number | undefined;
  /** Whether control has left for another handler on every path so far. */
  ended = false;
  /** The base register of the access to come is known to be SP: its alignment is checked. */
  isSpBase = false;

  constructor(parameterCount = 2) {
    this.#parameterCount = parameterCount;
  }

  /** Begins another one; the code and the locals of the last stay as they are. */
  reset(): void {
    this.code = new Code();
    this.locals = [];
    this.#opcode = undefined;
    this.ended = false;
    this.isSpBase = false;
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

  /** Emits a load by `opcode` at `address + offset`; its value lies in a new local. */
  load(opcode: number, address: I32, offset: number, type: 'i32'): I32;
  load(opcode: number, address: I32, offset: number, type: 'i64'): I64;
  load(opcode: number, address: I32, offset: number, type: 'i32' | 'i64'): Value {
    emit(address, this.code);
    this.code.memory(opcode, offset);
    return this.pop(type as 'i32');
  }

  loadI32(address: I32, offset: number): I32 {
    return this.load(Op.i32Load, address, offset, 'i32');
  }

  loadI64(address: I32, offset: number): I64 {
    return this.load(Op.i64Load, address, offset, 'i64');
  }

  /** `bytes` (1, 2, 4, 8), zero-extended. */
  loadBytes(bytes: number, address: I32, offset: number): I64 {
    return this.load(LOAD[widthOf(bytes)], address, offset, 'i64');
  }

  loadV128(address: I32, offset: number): V128 {
    emit(address, this.code);
    this.code.op(Op.prefixFd).u32(SimdOp.load).u32(0).u32(offset);
    return this.pop('v128');
  }

  store(opcode: number, address: I32, offset: number, value: Value): void {
    emit(address, this.code);
    emit(value, this.code);
    this.code.memory(opcode, offset);
  }

  /** The low `bytes` (1, 2, 4, 8) of `value`. */
  storeBytes(bytes: number, address: I32, offset: number, value: I64): void {
    this.store(STORE[widthOf(bytes)], address, offset, value);
  }

  storeV128(address: I32, offset: number, value: V128): void {
    emit(address, this.code);
    emit(value, this.code);
    this.code.op(Op.prefixFd).u32(SimdOp.store).u32(0).u32(offset);
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
