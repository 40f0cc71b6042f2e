/**
 * What semantics emit into when a handler of the interpreter is made: `Ops` with fields read from
 * the opcode at run time and registers in linear memory (state.ts). Its parts are files of their
 * own. Called by `interpreter.ts`; there is one builder for all handlers, as putting the parts
 * together takes longer than most semantics.
 */
import type { Ops } from '../arm/a64/ops.ts';
import type { Pattern } from '../arm/a64/pattern.ts';
import { branchOps, controlOps } from './control-ops.ts';
import * as E from './expressions.ts';
import { Handler } from './handler.ts';
import { dataOps, exclusiveOps, tagOps } from './memory-ops.ts';
import { fieldOps, type KnownFields, OpcodeFields } from './opcode-fields.ts';
import { flagOps, generalOps, vectorOps } from './register-ops.ts';
import { systemOps } from './system-ops.ts';
import { lane, shuffle, splat, v128, vop, vtest, withLane } from './vector-expressions.ts';

/** Values that need no handler. */
const pureOps = {
  i32: E.i32,
  i64: E.i64,
  add: E.add,
  sub: E.sub,
  mul: E.mul,
  divU: E.divU,
  divS: E.divS,
  and: E.and,
  or: E.or,
  xor: E.xor,
  not: E.not,
  shl: E.shl,
  shrU: E.shrU,
  shrS: E.shrS,
  rotr: E.rotr,
  clz: E.clz,
  ctz: E.ctz,
  popcnt: E.popcnt,
  eq: E.eq,
  ne: E.ne,
  ltU: E.ltU,
  ltS: E.ltS,
  leU: E.leU,
  leS: E.leS,
  eqz: E.eqz,
  select: E.select,
  wrap: E.wrap,
  zext: E.zext,
  sext: E.sext,
  sextFrom: E.sextFrom,
  vop,
  vtest,
  shuffle,
  v128,
  lane,
  withLane,
  splat,
};

/**
 * Builds one handler after the other: `begin`, semantics over `ops`, then take it from `handler`.
 */
export class InterpreterBuilder {
  readonly handler = new Handler();
  readonly ops: Ops;
  readonly #fields = new OpcodeFields(this.handler);

  constructor() {
    this.ops = opsOf(this.handler, this.#fields);
  }

  /** The next handler is for a row's pattern, of whose fields some are known. */
  begin(pattern: Pattern, known: KnownFields): void {
    this.handler.reset();
    this.#fields.reset(pattern, known);
  }
}

function opsOf(h: Handler, fields: OpcodeFields): Ops {
  const general = generalOps(h, fields);
  const control = controlOps(h);
  return {
    ...pureOps,
    ...fieldOps(h, fields),
    ...general,
    ...vectorOps(h, fields),
    ...flagOps(h, fields, control),
    ...control,
    ...branchOps(h),
    ...dataOps(h),
    ...exclusiveOps(h, control),
    ...tagOps(h, control),
    ...systemOps(h, { fields, general, control }),
  };
}
