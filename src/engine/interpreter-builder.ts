/**
 * The builder of interpreter handlers: `Ops` with fields read from the opcode at run time and
 * registers in linear memory (state.ts). One instance builds one handler.
 */
import type {
  AccessOptions,
  ElementSize,
  I32,
  I64,
  Letter,
  Ops,
  V128,
  Value,
  Variable,
} from '../arm/a64/ops.ts';
import { SystemOp } from '../arm/a64/ops.ts';
import type { Field, Pattern } from '../arm/a64/pattern.ts';
import { softOperationId } from '../arm/fp/index.ts';
import { type SystemRegisterName, systemRegister } from '../arm/sysreg/index.ts';
import { assert } from '../base/index.ts';
import * as E from './expressions.ts';
import { DISPATCH, HANDLER_TYPE_INDEX, type Handler, ImportIndex, RP_LOCAL } from './handler.ts';
import { emitAccess, emitTagAccess, emitTagLoad, emitTagStore } from './memory-access.ts';
import * as S from './state.ts';
import { lane, shuffle, splat, v128, vop, vtest, withLane } from './vector-expressions.ts';
import { Op } from './wasm/code.ts';
import { SimdOp } from './wasm/simd.ts';

const BLOCK_EMPTY = 0x40;
const loadOp = { 1: Op.i64Load8U, 2: Op.i64Load16U, 4: Op.i64Load32U, 8: Op.i64Load } as const;
const storeOp = { 1: Op.i64Store8, 2: Op.i64Store16, 4: Op.i64Store32, 8: Op.i64Store } as const;
const widthOp = (bytes: number): 1 | 2 | 4 | 8 => {
  assert(bytes === 1 || bytes === 2 || bytes === 4 || bytes === 8, 'access of 1, 2, 4 or 8 bytes');
  return bytes;
};

/**
 * What generation knows of an instruction: fields of the row's split, and registers that are 31.
 */
export interface KnownFields {
  readonly values: ReadonlyMap<Letter, number>;
  readonly is31: ReadonlyMap<Letter, boolean>;
}

export class InterpreterBuilder implements Ops {
  readonly #h: Handler;
  readonly #pattern: Pattern;
  readonly #known: KnownFields;
  /** Set when the base register of this handler is known to be SP: its alignment is checked. */
  #spBase = false;
  /** Second halves of tag accesses that may touch two pages, by their first address. */
  readonly #secondTag = new Map<I32, { address: I32; tagged: I32; first: I32 }>();

  constructor(handler: Handler, pattern: Pattern, known: KnownFields) {
    this.#h = handler;
    this.#pattern = pattern;
    this.#known = known;
  }

  // ---- pure values ----------------------------------------------------------------------------
  readonly i32 = E.i32;
  readonly i64 = E.i64;
  readonly add = E.add;
  readonly sub = E.sub;
  readonly mul = E.mul;
  readonly divU = E.divU;
  readonly divS = E.divS;
  readonly and = E.and;
  readonly or = E.or;
  readonly xor = E.xor;
  readonly not = E.not;
  readonly shl = E.shl;
  readonly shrU = E.shrU;
  readonly shrS = E.shrS;
  readonly rotr = E.rotr;
  readonly clz = E.clz;
  readonly ctz = E.ctz;
  readonly popcnt = E.popcnt;
  readonly eq = E.eq;
  readonly ne = E.ne;
  readonly ltU = E.ltU;
  readonly ltS = E.ltS;
  readonly leU = E.leU;
  readonly leS = E.leS;
  readonly eqz = E.eqz;
  readonly select = E.select;
  readonly wrap = E.wrap;
  readonly zext = E.zext;
  readonly sext = E.sext;
  readonly sextFrom = E.sextFrom;
  readonly vop = vop;
  readonly vtest = vtest;
  readonly shuffle = shuffle;
  readonly v128 = v128;
  readonly lane = lane;
  readonly withLane = withLane;
  readonly splat = splat;

  let<T extends Value>(value: T): T {
    if (value.known !== undefined) return value;
    E.emit(value, this.#h.code);
    return this.#h.pop(value.type as 'i32') as Value as T;
  }

  variable<T extends Value>(initial: T): Variable<T> {
    const { code } = this.#h;
    const local = this.#h.newLocal(initial.type);
    const set = (value: T): void => {
      E.emit(value, code);
      code.set(local);
    };
    set(initial);
    return { value: this.#h.local(initial.type, local) as T, set };
  }

  // ---- fields ---------------------------------------------------------------------------------
  #fieldInfo(letter: Letter): Field {
    const field = this.#pattern.fields.get(letter);
    assert(field !== undefined, 'the pattern has this field');
    return field;
  }

  #knownField(letter: Letter): number | undefined {
    const value = this.#known.values.get(letter);
    if (value !== undefined) return value;
    return this.#known.is31.get(letter) === true ? 31 : undefined;
  }

  /** The field shifted left by `shift`, zero-extended, as an i32. */
  #scaled(letter: Letter, shift: number): I32 {
    const known = this.#knownField(letter);
    if (known !== undefined) return E.i32(known << shift);
    const opcode = this.#h.opcode();
    let sum: I32 | undefined;
    for (const part of this.#fieldInfo(letter).parts) {
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

  field(letter: Letter): I32 {
    return this.#scaled(letter, 0);
  }

  imm(letter: Letter, shift = 0): I64 {
    return E.shl(E.zext(this.field(letter)), E.i64(shift));
  }

  simm(letter: Letter, shift = 0): I64 {
    const { width } = this.#fieldInfo(letter);
    const top = E.i32(32 - width);
    const signed = E.shrS(E.shl(this.field(letter), top), top);
    return E.shl(E.sext(signed), E.i64(shift));
  }

  bitmask(): I64 {
    const opcode = this.#h.opcode();
    const at = E.asI32((c) => c.get(opcode).i32(7).op(Op.i32ShrU).i32(0xfff8).op(Op.i32And));
    return this.#load(Op.i64Load, at, S.BITMASK_TABLE, 'i64') as I64;
  }

  fixed(letter: Letter): number {
    const value = this.#known.values.get(letter);
    assert(value !== undefined, 'the row splits on this field');
    return value;
  }

  is31(letter: Letter): boolean {
    const known = this.#knownField(letter);
    if (known !== undefined) return known === 31;
    const value = this.#known.is31.get(letter);
    assert(value !== undefined, 'the row splits on this register being 31');
    return value;
  }

  // ---- registers ------------------------------------------------------------------------------
  #load(opcode: number, address: I32, offset: number, type: 'i32' | 'i64'): Value {
    E.emit(address, this.#h.code);
    this.#h.code.memory(opcode, offset);
    return this.#h.pop(type as 'i32');
  }

  #store(opcode: number, address: I32, offset: number, value: Value): void {
    E.emit(address, this.#h.code);
    E.emit(value, this.#h.code);
    this.#h.code.memory(opcode, offset);
  }

  /** Address of an X slot where 31 means SP. */
  #spSlot(letter: Letter): I32 {
    const known = this.#knownField(letter);
    if (known !== undefined) return E.i32(known === 31 ? S.SP : known * 8);
    const slot = this.#scaled(letter, 3);
    if (this.#known.is31.get(letter) === false) return slot;
    // Slot 31 is XZR and SP lies right behind it.
    return E.add(slot, E.shl(E.eq(slot, E.i32(S.XZR)), E.i32(3)));
  }

  x(letter: Letter, plus: 0 | 1 = 0): I64 {
    if (this.#knownField(letter) === 31) return E.i64(0);
    return this.#load(Op.i64Load, this.#scaled(letter, 3), S.X + 8 * plus, 'i64') as I64;
  }

  w(letter: Letter): I32 {
    if (this.#knownField(letter) === 31) return E.i32(0);
    return this.#load(Op.i32Load, this.#scaled(letter, 3), S.X, 'i32') as I32;
  }

  xsp(letter: Letter): I64 {
    if (this.#known.is31.get(letter) === true) this.#spBase = true;
    return this.#load(Op.i64Load, this.#spSlot(letter), 0, 'i64') as I64;
  }

  wsp(letter: Letter): I32 {
    return this.#load(Op.i32Load, this.#spSlot(letter), 0, 'i32') as I32;
  }

  setX(letter: Letter, value: I64, plus: 0 | 1 = 0): void {
    const known = this.#knownField(letter);
    if (known === 31) return;
    this.#store(Op.i64Store, this.#scaled(letter, 3), S.X + 8 * plus, value);
    // XZR swallowed the write: make it 0 again rather than branch before every write.
    if (known === undefined && this.#known.is31.get(letter) !== false) {
      this.#store(Op.i64Store, E.i32(0), S.XZR, E.i64(0));
    }
  }

  setW(letter: Letter, value: I32): void {
    this.setX(letter, E.zext(value));
  }

  setXsp(letter: Letter, value: I64): void {
    this.#store(Op.i64Store, this.#spSlot(letter), 0, value);
  }

  setWsp(letter: Letter, value: I32): void {
    this.setXsp(letter, E.zext(value));
  }

  setLink(value: I64): void {
    this.#store(Op.i64Store, E.i32(0), S.X + 30 * 8, value);
  }

  /** Address of V register (field + plus) mod 32, without S.V. */
  #vSlot(letter: Letter, plus: number): I32 {
    const slot = this.#scaled(letter, 4);
    if (plus === 0) return slot;
    return E.and(E.add(slot, E.i32(plus * 16)), E.i32(31 * 16));
  }

  v(letter: Letter, plus = 0): V128 {
    E.emit(this.#vSlot(letter, plus), this.#h.code);
    this.#h.code.op(Op.prefixFd).u32(SimdOp.load).u32(0).u32(S.V);
    return this.#h.pop('v128');
  }

  setV(letter: Letter, value: V128, plus = 0): void {
    E.emit(this.#vSlot(letter, plus), this.#h.code);
    E.emit(value, this.#h.code);
    this.#h.code.op(Op.prefixFd).u32(SimdOp.store).u32(0).u32(S.V);
  }

  #elementAddress(
    letter: Letter,
    size: ElementSize,
    index: number | I32,
    plus: number,
  ): { address: I32; offset: number } {
    const slot = this.#vSlot(letter, plus);
    const bytes = size / 8;
    if (typeof index === 'number') return { address: slot, offset: S.V + index * bytes };
    const offset = E.shl(index, E.i32(31 - Math.clz32(bytes)));
    return { address: E.add(slot, offset), offset: S.V };
  }

  element(letter: Letter, size: ElementSize, index: number | I32, plus = 0): I64 {
    const { address, offset } = this.#elementAddress(letter, size, index, plus);
    return this.#load(loadOp[widthOp(size / 8)], address, offset, 'i64') as I64;
  }

  setElement(letter: Letter, size: ElementSize, index: number | I32, value: I64, plus = 0): void {
    const { address, offset } = this.#elementAddress(letter, size, index, plus);
    this.#store(storeOp[widthOp(size / 8)], address, offset, value);
  }

  setScalar(letter: Letter, size: ElementSize, value: I64): void {
    const mask = E.i64(size === 64 ? -1n : (1n << BigInt(size)) - 1n);
    const slot = this.#vSlot(letter, 0);
    this.#store(Op.i64Store, slot, S.V, E.and(value, mask));
    this.#store(Op.i64Store, slot, S.V + 8, E.i64(0));
  }

  // ---- control --------------------------------------------------------------------------------
  if(condition: I32, then: () => void, otherwise?: () => void): void {
    if (condition.known !== undefined) {
      if (condition.known !== 0) then();
      else otherwise?.();
      return;
    }
    const h = this.#h;
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
  }

  while(condition: () => I32, body: () => void): void {
    const { code } = this.#h;
    code.op(Op.block).op(BLOCK_EMPTY).op(Op.loop).op(BLOCK_EMPTY);
    E.emit(E.eqz(condition()), code);
    code.op(Op.brIf).u32(1);
    body();
    code.op(Op.br).u32(0).op(Op.end).op(Op.end);
  }

  // ---- flags ----------------------------------------------------------------------------------
  setFlags(n: I64, z: I64, c: I32, v: I32): void {
    const zero = E.i32(0);
    this.#store(Op.i64Store, zero, S.FLAG_N, n);
    this.#store(Op.i64Store, zero, S.FLAG_Z, z);
    this.#store(Op.i32Store, zero, S.FLAG_C, c);
    this.#store(Op.i32Store, zero, S.FLAG_V, v);
  }

  setNzcv(value: I32): void {
    const flags = this.let(value);
    const bit = (n: number): I32 => E.and(E.shrU(flags, E.i32(n)), E.i32(1));
    this.setFlags(E.shl(E.zext(flags), E.i64(60)), E.zext(E.xor(bit(2), E.i32(1))), bit(1), bit(0));
  }

  #flagN(): I32 {
    const n = this.#load(Op.i64Load, E.i32(0), S.FLAG_N, 'i64') as I64;
    return E.wrap(E.shrU(n, E.i64(63)));
  }

  #flagZ(): I32 {
    return E.eqz(this.#load(Op.i64Load, E.i32(0), S.FLAG_Z, 'i64') as I64);
  }

  carry(): I32 {
    return this.#load(Op.i32Load, E.i32(0), S.FLAG_C, 'i32') as I32;
  }

  #flagV(): I32 {
    return this.#load(Op.i32Load, E.i32(0), S.FLAG_V, 'i32') as I32;
  }

  nzcv(): I32 {
    const at = (flag: I32, n: number): I32 => E.shl(flag, E.i32(n));
    return this.let(
      E.or(
        E.or(at(this.#flagN(), 3), at(this.#flagZ(), 2)),
        E.or(at(this.carry(), 1), this.#flagV()),
      ),
    );
  }

  condition(letter: Letter): I32 {
    const known = this.#knownField(letter);
    if (known !== undefined) return this.#knownCondition(known);
    // Arm: ConditionHolds(): bits 3:1 choose, bit 0 inverts, except 111x which is always true.
    const field = this.let(this.field(letter));
    const result = this.variable(E.i32(1));
    for (let base = 0; base < 7; base++) {
      this.if(E.eq(E.shrU(field, E.i32(1)), E.i32(base)), () => {
        result.set(E.xor(this.#knownCondition(base * 2), E.and(field, E.i32(1))));
      });
    }
    return result.value;
  }

  #knownCondition(condition: number): I32 {
    const one = E.i32(1);
    const base = ((): I32 => {
      switch (condition >> 1) {
        case 0:
          return this.#flagZ();
        case 1:
          return this.carry();
        case 2:
          return this.#flagN();
        case 3:
          return this.#flagV();
        case 4:
          return E.and(this.carry(), E.xor(this.#flagZ(), one));
        case 5:
          return E.eq(this.#flagN(), this.#flagV());
        case 6:
          return E.and(E.eq(this.#flagN(), this.#flagV()), E.xor(this.#flagZ(), one));
        default:
          return one;
      }
    })();
    return (condition & 1) === 1 && condition !== 15 ? E.eqz(base) : base;
  }

  // ---- where next -----------------------------------------------------------------------------
  pc(): I64 {
    const { code } = this.#h;
    code.loadAt(Op.i64Load, S.PAGE_VA);
    code.get(RP_LOCAL).loadAt(Op.i32Load, S.RECORD_BASE).op(Op.i32Sub);
    code.i32(1).op(Op.i32ShrU).op(Op.i64ExtendI32U).op(Op.i64Add);
    return this.#h.pop('i64');
  }

  branchTo(target: I64): void {
    E.emit(target, this.#h.code);
    this.#h.pushRemaining();
    this.#h.code.op(Op.returnCall).u32(DISPATCH);
    this.#h.ended = true;
  }

  branchBy(offset: I64): void {
    const { code } = this.#h;
    const target = this.#h.newLocal('i32');
    const remaining = this.#h.newLocal('i32');
    E.emit(E.wrap(offset), code);
    code.i32(1).op(Op.i32Shl).get(RP_LOCAL).op(Op.i32Add).set(target);
    this.#h.pushRemaining();
    code.set(remaining);
    code.get(target).loadAt(Op.i32Load, S.RECORD_BASE).op(Op.i32Sub).i32(8192).op(Op.i32LtU);
    code.get(remaining).i32(0).op(Op.i32GtS).op(Op.i32And).op(Op.if).op(BLOCK_EMPTY);
    code.get(target).get(target).get(remaining).op(Op.i32Add);
    code.get(target).memory(Op.i32Load, 0);
    code.op(Op.returnCallIndirect).u32(HANDLER_TYPE_INDEX).u32(0).op(Op.end);
    const pc = this.pc();
    E.emit(E.add(pc, offset), code);
    code.get(remaining).op(Op.returnCall).u32(DISPATCH);
    this.#h.ended = true;
  }

  undefined(): void {
    this.system(SystemOp.undefined);
    this.#h.code.op(Op.return);
    this.#h.ended = true;
  }

  system(op: SystemOp): void {
    this.#h.saveProgress();
    this.#h.code.i32(op).op(Op.call).u32(ImportIndex.system);
    this.#h.code.op(Op.if).op(BLOCK_EMPTY).op(Op.return).op(Op.end);
  }

  // ---- memory ---------------------------------------------------------------------------------
  access(options: AccessOptions): I32 {
    assert(options.bytes <= 64, 'an access has at most 64 bytes');
    this.#checkSpAlignment();
    const va = this.#localOf(options.va);
    return this.#h.local('i32', emitAccess(this.#h, options, va)) as I32;
  }

  /** Arm: CheckSPAlignment(). */
  #checkSpAlignment(): void {
    if (!this.#spBase) return;
    this.#spBase = false;
    const { code } = this.#h;
    code.loadAt(Op.i32Load, S.SP).loadAt(Op.i32Load, S.SP_CHECK).op(Op.i32And);
    code.op(Op.if).op(BLOCK_EMPTY);
    this.system(SystemOp.spAlignment);
    code.op(Op.end);
  }

  #localOf(value: I64): number {
    E.emit(value, this.#h.code);
    const local = this.#h.newLocal('i64');
    this.#h.code.set(local);
    return local;
  }

  commit(address: I32): void {
    const { code } = this.#h;
    E.emit(address, code);
    code.i32(S.BOUNCE).op(Op.i32Eq).op(Op.if).op(BLOCK_EMPTY);
    code.op(Op.call).u32(ImportIndex.commit).op(Op.end);
  }

  ld(address: I32, offset: number, bytes: number): I64 {
    return this.#load(loadOp[widthOp(bytes)], address, offset, 'i64') as I64;
  }

  ldV(address: I32, offset: number): V128 {
    E.emit(address, this.#h.code);
    this.#h.code.op(Op.prefixFd).u32(SimdOp.load).u32(0).u32(offset);
    return this.#h.pop('v128');
  }

  st(address: I32, offset: number, bytes: number, value: I64): void {
    this.#store(storeOp[widthOp(bytes)], address, offset, value);
  }

  stV(address: I32, offset: number, value: V128): void {
    E.emit(address, this.#h.code);
    E.emit(value, this.#h.code);
    this.#h.code.op(Op.prefixFd).u32(SimdOp.store).u32(0).u32(offset);
  }

  markExclusive(address: I32, bytes: number): void {
    this.#store(Op.i32Store, E.i32(0), S.MONITOR_ADDRESS, address);
    this.#store(Op.i32Store, E.i32(0), S.MONITOR_BYTES, E.i32(bytes));
  }

  exclusiveHeld(address: I32, bytes: number): I32 {
    const marked = this.#load(Op.i32Load, E.i32(0), S.MONITOR_ADDRESS, 'i32') as I32;
    const size = this.#load(Op.i32Load, E.i32(0), S.MONITOR_BYTES, 'i32') as I32;
    return this.let(E.and(E.eq(marked, address), E.eq(size, E.i32(bytes))));
  }

  clearExclusive(): void {
    this.#store(Op.i32Store, E.i32(0), S.MONITOR_ADDRESS, E.i32(0));
  }

  // ---- allocation tags ------------------------------------------------------------------------
  tagAccessEnabled(): I32 {
    const flags = this.#load(Op.i32Load, E.i32(0), S.TAG_FLAGS, 'i32') as I32;
    return E.ne(flags, E.i32(0));
  }

  tagAccess(options: { va: I64; bytes: number; kind: 'read' | 'write'; align?: number }): {
    address: I32;
    tagged: I32;
  } {
    this.#checkSpAlignment();
    const va = this.#localOf(options.va);
    const part = (bytes: number, from: number): { address: I32; tagged: I32 } => {
      const { address, tagged } = emitTagAccess(this.#h, { ...options, bytes }, from);
      return {
        address: this.#h.local('i32', address) as I32,
        tagged: this.#h.local('i32', tagged) as I32,
      };
    };
    // Two tag granules may lie in two pages (ST2G); larger accesses are aligned to their size.
    if (options.bytes !== 32) return part(options.bytes, va);
    const first = part(16, va);
    const secondVa = E.add(this.#h.local('i64', va) as I64, E.i64(16));
    const second = part(16, this.#localOf(secondVa));
    this.#secondTag.set(first.address, { ...second, first: first.tagged });
    return { address: first.address, tagged: E.or(first.tagged, second.tagged) };
  }

  ldTag(address: I32, offset = 0): I32 {
    emitTagLoad(this.#h, address, offset);
    return this.#h.pop('i32');
  }

  stTag(address: I32, tag: I32, offset = 0): void {
    const second = this.#secondTag.get(address);
    if (second === undefined) {
      emitTagStore(this.#h, address, tag, offset);
    } else if (offset === 0) {
      this.if(second.first, () => emitTagStore(this.#h, address, tag, 0));
    } else {
      this.if(second.tagged, () => emitTagStore(this.#h, second.address, tag, 0));
    }
  }

  // ---- system state ---------------------------------------------------------------------------
  #slot(name: SystemRegisterName): number {
    const { slot } = systemRegister(name);
    assert(slot >= 0, 'the system register has a slot');
    return S.SYSREG + slot * 8;
  }

  sysreg(name: SystemRegisterName): I64 {
    return this.#load(Op.i64Load, E.i32(0), this.#slot(name), 'i64') as I64;
  }

  setSysreg(name: SystemRegisterName, value: I64): void {
    this.#store(Op.i64Store, E.i32(0), this.#slot(name), value);
  }

  /** Address of the slot for in-place access, or 0, when the table and the EL allow it. */
  #systemSlot(table: number, register: Letter): I32 {
    const entry = this.#load(Op.i32Load16U, this.#scaled(register, 1), table, 'i32') as I32;
    const permitted = E.or(E.and(entry, E.i32(1)), this.el());
    return this.let(E.select(permitted, E.and(entry, E.i32(-2)), E.i32(0)));
  }

  readSystemRegister(register: Letter, target: Letter): void {
    const slot = this.#systemSlot(S.MRS_TABLE, register);
    this.if(
      slot,
      () => this.setX(target, this.#load(Op.i64Load, slot, 0, 'i64') as I64),
      () => this.system(SystemOp.mrs),
    );
  }

  writeSystemRegister(register: Letter, source: Letter): void {
    const slot = this.#systemSlot(S.MSR_TABLE, register);
    this.if(
      slot,
      () => this.#store(Op.i64Store, slot, 0, this.x(source)),
      () => this.system(SystemOp.msr),
    );
  }

  daif(): I32 {
    return this.#load(Op.i32Load, E.i32(0), S.DAIF, 'i32') as I32;
  }

  setDaif(value: I32): void {
    this.#store(Op.i32Store, E.i32(0), S.DAIF, value);
    const line = this.#load(Op.i32Load, E.i32(0), S.IRQ_LINE, 'i32') as I32;
    this.if(line, () => this.system(SystemOp.irqCheck));
  }

  el(): I32 {
    return this.#load(Op.i32Load, E.i32(0), S.EL, 'i32') as I32;
  }

  // ---- floating point -------------------------------------------------------------------------
  soft(name: string, args: readonly I64[]): I64 {
    const { code } = this.#h;
    args.forEach((value, i) => {
      this.#store(Op.i64Store, E.i32(0), S.SCRATCH + 8 * i, value);
    });
    code.i32(softOperationId(name)).op(Op.call).u32(ImportIndex.soft);
    return this.#load(Op.i64Load, E.i32(0), S.SCRATCH, 'i64') as I64;
  }

  setSaturated(condition: I32): void {
    const qc = E.shl(E.zext(condition), E.i64(27));
    this.setSysreg('FPSR', E.or(this.sysreg('FPSR'), qc));
  }
}
