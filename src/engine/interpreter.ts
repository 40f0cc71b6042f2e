/**
 * The interpreter: makes the WebAssembly module of handlers from the rows, and instantiates it over
 * a machine's memory. One module serves every machine of the process. What handlers cannot do is
 * asked of `EngineHooks`, which the CPU core (machine/) implements.
 */
import { Decoder, knownInVariant } from '../arm/a64/decoder.ts';
import { SystemOp } from '../arm/a64/ops.ts';
import { rows } from '../arm/a64/table.ts';
import { assert } from '../base/index.ts';
import {
  DISPATCH,
  dispatchType,
  HANDLER_TYPE_INDEX,
  Handler,
  handlerType,
  ImportIndex,
  imports,
  RP_LOCAL,
} from './handler.ts';
import { InterpreterBuilder } from './interpreter-builder.ts';
import { BuiltinHandler, ROW_HANDLERS } from './records.ts';
import * as S from './state.ts';
import { FETCH_RECORDS, FETCH_TLB_ENTRIES, FETCH_TLB_ENTRY_SHIFT } from './tlb.ts';
import { BLOCK_EMPTY, Op } from './wasm/code.ts';
import { encodeModule, type FunctionBody, typeIndices } from './wasm/module.ts';

/**
 * What generated code asks of TypeScript. RP and BUDGET in the state are current in `slow` and
 * `system`.
 */
export interface EngineHooks {
  /**
   * A memory access that the fast path could not do; `packed` is for `decodeSlowAccess`, the VA is
   * in SLOW_VA. Returns a linear address to access, or 0 when the instruction must be left.
   */
  slow(packed: number): number;
  /** Writes the bounce buffer to where the last slow write belongs. */
  commit(): void;
  /**
   * Carries out a `SystemOp`; 1 when execution must leave, 0 to go on with the next instruction.
   */
  system(op: number): number;
  /** Runs soft operation `id` on SCRATCH. */
  soft(id: number): void;
  /** Fills the record at `rp`. */
  decode(rp: number): void;
}

let sharedDecoder: Decoder | undefined;

/** The decoder over all rows, made on first use. */
export function decoder(): Decoder {
  sharedDecoder ??= new Decoder(rows);
  return sharedDecoder;
}

/** Emits "leave to TypeScript with this reason", given PC and BUDGET already in the state. */
function emitLeave(h: Handler, reason: S.Leave): void {
  h.code.i32(0).i32(reason).memory(Op.i32Store, S.LEAVE).op(Op.return);
}

/**
 * dispatch(pc, remaining): goes on at a VA. Leaves when the budget is used up, or when the fetch
 * TLB does not know the page.
 */
function dispatchFunction(): FunctionBody {
  const h = new Handler(2);
  const { code } = h;
  const pc = 0;
  const remaining = 1;
  const entry = h.newLocal('i32');
  const rp = h.newLocal('i32');
  const save = (): void => {
    code.i32(0).get(pc).memory(Op.i64Store, S.PC);
    code.i32(0).get(remaining).memory(Op.i32Store, S.BUDGET);
  };
  code.get(remaining).i32(0).op(Op.i32LeS).op(Op.if).op(BLOCK_EMPTY);
  save();
  emitLeave(h, S.Leave.budget);
  code.op(Op.end);
  const mask = (FETCH_TLB_ENTRIES - 1) << FETCH_TLB_ENTRY_SHIFT;
  code
    .get(pc)
    .i64(BigInt(12 - FETCH_TLB_ENTRY_SHIFT))
    .op(Op.i64ShrU)
    .op(Op.i32WrapI64);
  code.i32(mask).op(Op.i32And).loadAt(Op.i32Load, S.FETCH_TLB).op(Op.i32Add).tee(entry);
  // A PC that is not aligned never matches: its low bits stay in the comparison.
  code.memory(Op.i64Load, 0).get(pc).i64(-4093n).op(Op.i64And).op(Op.i64Ne);
  code.op(Op.if).op(BLOCK_EMPTY);
  save();
  emitLeave(h, S.Leave.fetch);
  code.op(Op.end);
  code.i32(0).get(pc).i64(-4096n).op(Op.i64And).memory(Op.i64Store, S.PAGE_VA);
  code.i32(0).get(entry).memory(Op.i32Load, FETCH_RECORDS).tee(rp);
  code.memory(Op.i32Store, S.RECORD_BASE);
  code.get(pc).op(Op.i32WrapI64).i32(4092).op(Op.i32And).i32(1).op(Op.i32Shl);
  code.get(rp).op(Op.i32Add).tee(rp);
  code.get(rp).get(remaining).op(Op.i32Add);
  code.get(rp).memory(Op.i32Load, 0).op(Op.returnCallIndirect).u32(HANDLER_TYPE_INDEX).u32(0);
  return { type: dispatchType, locals: h.locals, code };
}

/** enter(): goes on from PC with BUDGET. */
function enterFunction(): FunctionBody {
  const h = new Handler(0);
  h.code.loadAt(Op.i64Load, S.PC).loadAt(Op.i32Load, S.BUDGET);
  h.code.op(Op.call).u32(DISPATCH);
  return { type: { parameters: [], results: [] }, locals: [], code: h.code };
}

/** step(): runs the record at STEP_RECORD and nothing behind it. */
function stepFunction(): FunctionBody {
  const h = new Handler(0);
  h.code
    .i32(S.STEP_RECORD)
    .i32(S.STEP_RECORD + 8)
    .loadAt(Op.i32Load, S.STEP_RECORD);
  h.code.op(Op.callIndirect).u32(HANDLER_TYPE_INDEX).u32(0);
  return { type: { parameters: [], results: [] }, locals: [], code: h.code };
}

/** Behind an isolated record: leaves with PC at the next instruction. */
function stopHandler(): FunctionBody {
  const h = new Handler();
  const { code } = h;
  code.i32(0).loadAt(Op.i64Load, S.PAGE_VA);
  code.get(RP_LOCAL).loadAt(Op.i32Load, S.RECORD_BASE).op(Op.i32Sub);
  code.i32(1).op(Op.i32ShrU).op(Op.i64ExtendI32U).op(Op.i64Add).memory(Op.i64Store, S.PC);
  code.i32(0).i32(0).memory(Op.i32Store, S.BUDGET);
  emitLeave(h, S.Leave.budget);
  return { type: handlerType, locals: h.locals, code };
}

/** Decodes the record and tries it again. */
function decodeHandler(): FunctionBody {
  const h = new Handler();
  h.code.get(RP_LOCAL).op(Op.call).u32(ImportIndex.decode);
  h.code.get(RP_LOCAL).get(1).get(RP_LOCAL).memory(Op.i32Load, 0);
  h.code.op(Op.returnCallIndirect).u32(HANDLER_TYPE_INDEX).u32(0);
  return { type: handlerType, locals: h.locals, code: h.code };
}

/** The record behind the last of a page: goes on at the next page, without counting. */
function pageEndHandler(): FunctionBody {
  const h = new Handler();
  h.code.loadAt(Op.i64Load, S.PAGE_VA).i64(4096n).op(Op.i64Add);
  h.code.get(1).get(RP_LOCAL).op(Op.i32Sub).op(Op.returnCall).u32(DISPATCH);
  return { type: handlerType, locals: h.locals, code: h.code };
}

function systemHandler(op: SystemOp): FunctionBody {
  const h = new Handler();
  h.saveProgress();
  h.code.i32(op).op(Op.call).u32(ImportIndex.system).op(0x1a);
  return { type: handlerType, locals: h.locals, code: h.code };
}

function rowHandlers(source: Decoder): FunctionBody[] {
  const bodies: FunctionBody[] = [];
  const builder = new InterpreterBuilder();
  const { handler: h, ops } = builder;
  for (const decoded of source.rows) {
    for (let i = 0; i < decoded.variantCount; i++) {
      builder.begin(decoded.pattern, knownInVariant(decoded, i));
      if (decoded.row.fp === true) {
        h.code.loadAt(Op.i32Load, S.FP_ENABLED).op(Op.i32Eqz).op(Op.if).op(BLOCK_EMPTY);
        ops.system(SystemOp.fpTrap);
        h.code.op(Op.end);
      }
      decoded.row.semantics(ops);
      if (!h.ended) h.next();
      const code = h.finish();
      bodies.push({ type: handlerType, locals: h.locals, code });
    }
  }
  return bodies;
}

/** The bytes of the interpreter's module for `source`'s rows. */
export function encodeInterpreter(source: Decoder): Uint8Array<ArrayBuffer> {
  const builtin: FunctionBody[] = [];
  builtin[BuiltinHandler.decode] = decodeHandler();
  builtin[BuiltinHandler.pageEnd] = pageEndHandler();
  builtin[BuiltinHandler.unallocated] = systemHandler(SystemOp.undefined);
  builtin[BuiltinHandler.stop] = stopHandler();
  assert(builtin.length === ROW_HANDLERS, 'builtin handlers come before the rows');
  const handlers = [...builtin, ...rowHandlers(source)];
  const functions = [dispatchFunction(), enterFunction(), stepFunction(), ...handlers];
  const firstHandler = DISPATCH + 3;
  const plan = {
    imports,
    memoryPagesMin: 1,
    functions,
    exports: [
      { name: 'enter', function: DISPATCH + 1 },
      { name: 'step', function: DISPATCH + 2 },
    ],
    table: handlers.map((_, i) => firstHandler + i),
  };
  assert(
    typeIndices(plan).get('i32,i32>') === HANDLER_TYPE_INDEX,
    'the handler type has its expected index',
  );
  return encodeModule(plan);
}

let sharedModule: WebAssembly.Module | undefined;

/**
 * Takes a module that `encodeInterpreter` made earlier from these very rows (the build keeps one,
 * as making it takes longer than starting a guest). Has no effect once a machine exists.
 */
export function usePrebuiltInterpreter(bytes: Uint8Array<ArrayBuffer>): void {
  sharedModule ??= new WebAssembly.Module(bytes);
}

export interface InterpreterInstance {
  /** Runs from PC until it must leave; see state.ts. */
  enter(): void;
  /** Runs the one instruction at STEP_RECORD. */
  step(): void;
}

/** Instantiates the interpreter over a memory. */
export function instantiateInterpreter(
  memory: WebAssembly.Memory,
  hooks: EngineHooks,
): InterpreterInstance {
  sharedModule ??= new WebAssembly.Module(encodeInterpreter(decoder()));
  const e = {
    memory,
    slow: (packed: number) => hooks.slow(packed),
    commit: () => hooks.commit(),
    system: (op: number) => hooks.system(op),
    soft: (id: number) => hooks.soft(id),
    decode: (rp: number) => hooks.decode(rp),
  };
  const instance = new WebAssembly.Instance(sharedModule, { e });
  const { enter, step } = instance.exports;
  return { enter: enter as () => void, step: step as () => void };
}
