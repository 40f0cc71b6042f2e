/**
 * The part of `Ops` that decides where a handler goes on: locals, branches within it, branches of
 * the guest, and calls into TypeScript.
 */
import { type I32, type I64, type Ops, SystemOp } from '../arm/a64/ops.ts';
import * as E from './expressions.ts';
import { DISPATCH, HANDLER_TYPE_INDEX, type Handler, ImportIndex, RP_LOCAL } from './handler.ts';
import * as S from './state.ts';
import { BLOCK_EMPTY, Op } from './wasm/code.ts';

export type ControlOps = Pick<Ops, 'let' | 'variable' | 'if' | 'while'>;

/** Locals and structure within a handler. */
export const controlOps = (h: Handler): ControlOps => ({
  let(value) {
    if (value.known !== undefined) return value;
    E.emit(value, h.code);
    return h.pop(value.type as 'i32') as typeof value;
  },

  variable(initial) {
    const local = h.newLocal(initial.type);
    const set = (value: typeof initial): void => {
      E.emit(value, h.code);
      h.code.set(local);
    };
    set(initial);
    return { value: h.local(initial.type, local) as typeof initial, set };
  },

  if(condition, then, otherwise) {
    if (condition.known !== undefined) {
      if (condition.known !== 0) then();
      else otherwise?.();
      return;
    }
    E.emit(condition, h.code);
    h.code.op(Op.if).op(BLOCK_EMPTY);
    then();
    const thenEnded = h.ended;
    h.ended = false;
    if (otherwise !== undefined) {
      h.code.op(Op.else);
      otherwise();
    }
    h.code.op(Op.end);
    h.ended = thenEnded && h.ended;
    if (h.ended) h.code.op(Op.unreachable);
  },

  while(condition, body) {
    const { code } = h;
    code.op(Op.block).op(BLOCK_EMPTY).op(Op.loop).op(BLOCK_EMPTY);
    E.emit(E.eqz(condition()), code);
    code.op(Op.brIf).u32(1);
    body();
    code.op(Op.br).u32(0).op(Op.end).op(Op.end);
  },
});

/** Calls `Core.system`; leaves the handler when it answers so. */
export function emitSystem(h: Handler, op: SystemOp): void {
  h.saveProgress();
  h.code.i32(op).op(Op.call).u32(ImportIndex.system);
  h.code.op(Op.if).op(BLOCK_EMPTY).op(Op.return).op(Op.end);
}

type BranchOps = Pick<Ops, 'pc' | 'branchTo' | 'branchBy' | 'undefined' | 'system'>;

/** Where the guest goes on. */
export function branchOps(h: Handler): BranchOps {
  const pc = (): I64 => {
    const { code } = h;
    code.loadAt(Op.i64Load, S.PAGE_VA);
    code.get(RP_LOCAL).loadAt(Op.i32Load, S.RECORD_BASE).op(Op.i32Sub);
    code.i32(1).op(Op.i32ShrU).op(Op.i64ExtendI32U).op(Op.i64Add);
    return h.pop('i64');
  };

  return {
    pc,

    branchTo(target) {
      E.emit(target, h.code);
      h.pushRemaining();
      h.code.op(Op.returnCall).u32(DISPATCH);
      h.ended = true;
    },

    branchBy(offset) {
      const { code } = h;
      const target = h.newLocal('i32');
      const remaining = h.newLocal('i32');
      E.emit(E.wrap(offset), code);
      code.i32(1).op(Op.i32Shl).get(RP_LOCAL).op(Op.i32Add).set(target);
      h.pushRemaining();
      code.set(remaining);
      code.get(target).loadAt(Op.i32Load, S.RECORD_BASE).op(Op.i32Sub).i32(8192).op(Op.i32LtU);
      code.get(remaining).i32(0).op(Op.i32GtS).op(Op.i32And).op(Op.if).op(BLOCK_EMPTY);
      code.get(target).get(target).get(remaining).op(Op.i32Add);
      code.get(target).memory(Op.i32Load, 0);
      code.op(Op.returnCallIndirect).u32(HANDLER_TYPE_INDEX).u32(0).op(Op.end);
      E.emit(E.add(pc(), offset), code);
      code.get(remaining).op(Op.returnCall).u32(DISPATCH);
      h.ended = true;
    },

    undefined() {
      emitSystem(h, SystemOp.undefined);
      h.code.op(Op.return);
      h.ended = true;
    },

    system: (op) => emitSystem(h, op),
  };
}

/** Emits "if `condition`, call `Core.system`". */
export function emitSystemIf(h: Handler, condition: I32, op: SystemOp): void {
  E.emit(condition, h.code);
  h.code.op(Op.if).op(BLOCK_EMPTY);
  emitSystem(h, op);
  h.code.op(Op.end);
}
