/**
 * What instruction semantics may say. A row's semantics is a function `(b: Ops) => void` that runs
 * when code is *generated*: it emits operations through `b`, and the engine's builders turn them
 * into an interpreter handler (fields read from the opcode at run time) or into a translated region
 * (fields known). So JavaScript `if` and `for` in semantics decide at generation time, `b.if` and
 * `b.while` at run time.
 *
 * Values are typed, opaque and pure: everything that reads state (`x`, `load`, `field` …) is
 * evaluated where it is called, so an expression may be used any number of times, also after the
 * register it came from was written. Constants fold: an operation on known values emits nothing.
 *
 * Order inside one instruction (Arm: no side effect before the last check): first every `access`,
 * then register, memory and flag writes, then `commit`, then a branch. `access` and `system` may
 * leave the instruction for good (a fault, an exception, an exit); what was written before then
 * would be written twice when the instruction is tried again.
 */

import type { SystemRegisterName } from '../sysreg/index.ts';

/** A 32-bit value; `known` is its value as a signed number when generation knows it. */
export interface I32 {
  readonly type: 'i32';
  readonly known: number | undefined;
}
/** A 64-bit value; `known` is its value as a signed bigint when generation knows it. */
export interface I64 {
  readonly type: 'i64';
  readonly known: bigint | undefined;
}
/** A 128-bit vector value. */
export interface V128 {
  readonly type: 'v128';
  readonly known: undefined;
}
export type Value = I32 | I64 | V128;
export type Int = I32 | I64;

/** A run-time variable, for values that differ by control flow. */
export interface Variable<T extends Value> {
  readonly value: T;
  set(value: T): void;
}

/** A field of the row's pattern, by its letter. */
export type Letter = string;

/** Element size in bits. */
export type ElementSize = 8 | 16 | 32 | 64;

export interface AccessOptions {
  /** The address as the instruction computed it, tag and all. */
  readonly va: I64;
  /** How many bytes, at most 64, are accessed from `va` upwards. */
  readonly bytes: number;
  readonly kind: 'read' | 'write' | 'read-write';
  /** Is the access Tag Checked (ARCH: class of the instruction)? */
  readonly checked: boolean | I32;
  /** LDTR and STTR: EL0's permissions and tag controls. */
  readonly unprivileged?: boolean;
  /** Alignment fault unless `va` is a multiple of this many bytes. */
  readonly align?: number;
}

/** System operations that TypeScript carries out (machine/), each looking at the opcode itself. */
export const SystemOp = {
  undefined: 0,
  svc: 1,
  hvc: 2,
  smc: 3,
  brk: 4,
  hlt: 5,
  eret: 6,
  mrs: 7,
  msr: 8,
  msrImmediate: 9,
  sys: 10,
  sysl: 11,
  wfi: 12,
  wfe: 13,
  yield: 14,
  isb: 15,
  /** An FP or SIMD instruction while CPACR_EL1 traps it. */
  fpTrap: 16,
  sev: 17,
  /**
   * A load or store whose base is SP, not 16-byte aligned, while SCTLR_EL1.SA or SA0 forbids it.
   */
  spAlignment: 18,
  /** An interrupt may have become deliverable. */
  irqCheck: 19,
  sevl: 20,
} as const;
export type SystemOp = (typeof SystemOp)[keyof typeof SystemOp];

export interface Ops {
  // ---- constants and fields -------------------------------------------------------------------
  i32(value: number): I32;
  i64(value: bigint | number): I64;
  /** The field, zero-extended. */
  field(letter: Letter): I32;
  /** The field, zero-extended to 64 bits, shifted left by `shift`. */
  imm(letter: Letter, shift?: number): I64;
  /** The field, sign-extended to 64 bits, shifted left by `shift`. */
  simm(letter: Letter, shift?: number): I64;
  /** Logical immediate of bits 22:10, N:immr:imms. Arm: DecodeBitMasks(…, TRUE), its wmask. */
  bitmask(): I64;
  /** The field as a number known at generation time; the row must split on it (`split: 's'`). */
  fixed(letter: Letter): number;
  /** Whether the register field is 31, at generation time; the row must split on it (`'n=31'`). */
  is31(letter: Letter): boolean;

  // ---- registers ------------------------------------------------------------------------------
  /** X register; 31 is XZR. `plus`: the one behind it, of a pair whose first number is even. */
  x(letter: Letter, plus?: 0 | 1): I64;
  /** X register; 31 is SP. */
  xsp(letter: Letter): I64;
  /** Low half of an X register; 31 is WZR. */
  w(letter: Letter): I32;
  wsp(letter: Letter): I32;
  setX(letter: Letter, value: I64, plus?: 0 | 1): void;
  setXsp(letter: Letter, value: I64): void;
  /** Writes a W register: the upper half becomes zero. */
  setW(letter: Letter, value: I32): void;
  setWsp(letter: Letter, value: I32): void;
  /** X30 := value. */
  setLink(value: I64): void;
  /** V register `(field + plus) mod 32`. */
  v(letter: Letter, plus?: number): V128;
  setV(letter: Letter, value: V128, plus?: number): void;
  /** Element `index` of a V register, zero-extended. */
  element(letter: Letter, size: ElementSize, index: number | I32, plus?: number): I64;
  /** Writes one element, leaving the rest. */
  setElement(
    letter: Letter,
    size: ElementSize,
    index: number | I32,
    value: I64,
    plus?: number,
  ): void;
  /** Writes element 0 with the low `size` bits of `value` and zeroes the rest of the register. */
  setScalar(letter: Letter, size: ElementSize, value: I64): void;

  // ---- integers -------------------------------------------------------------------------------
  add<T extends Int>(a: T, b: T): T;
  sub<T extends Int>(a: T, b: T): T;
  mul<T extends Int>(a: T, b: T): T;
  /** Undefined for b = 0: guard it. */
  divU<T extends Int>(a: T, b: T): T;
  /** Undefined for b = 0 and for most negative / -1: guard them. */
  divS<T extends Int>(a: T, b: T): T;
  and<T extends Int>(a: T, b: T): T;
  or<T extends Int>(a: T, b: T): T;
  xor<T extends Int>(a: T, b: T): T;
  not<T extends Int>(a: T): T;
  /** Shifts take the amount modulo the width. */
  shl<T extends Int>(a: T, amount: T): T;
  shrU<T extends Int>(a: T, amount: T): T;
  shrS<T extends Int>(a: T, amount: T): T;
  rotr<T extends Int>(a: T, amount: T): T;
  clz<T extends Int>(a: T): T;
  ctz<T extends Int>(a: T): T;
  popcnt<T extends Int>(a: T): T;
  eq<T extends Int>(a: T, b: T): I32;
  ne<T extends Int>(a: T, b: T): I32;
  ltU<T extends Int>(a: T, b: T): I32;
  ltS<T extends Int>(a: T, b: T): I32;
  leU<T extends Int>(a: T, b: T): I32;
  leS<T extends Int>(a: T, b: T): I32;
  eqz(a: Int): I32;
  select<T extends Value>(condition: I32, yes: T, no: T): T;
  wrap(a: I64): I32;
  zext(a: I32): I64;
  sext(a: I32): I64;
  /** Sign-extends from the low 8, 16 or 32 bits. */
  sextFrom<T extends Int>(a: T, bits: 8 | 16 | 32): T;
  /** Keeps `value` in a local, so that a costly expression is computed once. */
  let<T extends Value>(value: T): T;
  variable<T extends Value>(initial: T): Variable<T>;

  // ---- control --------------------------------------------------------------------------------
  if(condition: I32, then: () => void, otherwise?: () => void): void;
  while(condition: () => I32, body: () => void): void;

  // ---- flags ----------------------------------------------------------------------------------
  /** N := sign of `n`; Z := `z` is 0; C := `c`; V := `v` (both 0 or 1). */
  setFlags(n: I64, z: I64, c: I32, v: I32): void;
  /** NZCV from bits 3:0. */
  setNzcv(value: I32): void;
  /** NZCV in bits 3:0. */
  nzcv(): I32;
  /** C as 0 or 1. */
  carry(): I32;
  /** Arm: ConditionHolds() of a field, 0 or 1. */
  condition(letter: Letter): I32;

  // ---- where next -----------------------------------------------------------------------------
  /** Address of this instruction. */
  pc(): I64;
  /** Branches to an address computed at run time. Ends the instruction. */
  branchTo(target: I64): void;
  /** Branches by a signed byte offset from this instruction. Ends the instruction. */
  branchBy(offset: I64): void;
  /** The instruction is UNDEFINED. Ends it. */
  undefined(): void;
  /** TypeScript carries out `op`; goes on with the next instruction or leaves. */
  system(op: SystemOp): void;

  // ---- memory ---------------------------------------------------------------------------------
  /**
   * Translates and checks an access; faults leave the instruction. Returns where in linear memory
   * the bytes are (or a bounce buffer). After writes through it, call `commit`.
   */
  access(options: AccessOptions): I32;
  /** Carries a bounce buffer's bytes to where they belong. Cannot fail. */
  commit(address: I32): void;
  /** `bytes` (1, 2, 4, 8) at `address + offset`, zero-extended. */
  ld(address: I32, offset: number, bytes: number): I64;
  ldV(address: I32, offset: number): V128;
  st(address: I32, offset: number, bytes: number, value: I64): void;
  stV(address: I32, offset: number, value: V128): void;
  /** Exclusive monitor: `mark` it for an address returned by `access`, ask, or clear it. */
  markExclusive(address: I32, bytes: number): void;
  exclusiveHeld(address: I32, bytes: number): I32;
  clearExclusive(): void;

  // ---- allocation tags ------------------------------------------------------------------------
  /** 1 when allocation tag access is enabled at this EL. Arm: AllocationTagAccessIsEnabled(). */
  tagAccessEnabled(): I32;
  /**
   * Translates for a tag read or write of the tag granule(s) at `va`, not Tag Checked.
   * `tagged` is 1 where the memory is Tagged and tag access is enabled, otherwise tags read as 0
   * and writes are ignored.
   */
  tagAccess(options: { va: I64; bytes: number; kind: 'read' | 'write'; align?: number }): {
    address: I32;
    tagged: I32;
  };
  /** Allocation tag of the tag granule at `address + offset`. */
  ldTag(address: I32, offset?: number): I32;
  stTag(address: I32, tag: I32, offset?: number): void;

  // ---- system state ---------------------------------------------------------------------------
  /** A system register that is a plain slot of the state ('GCR_EL1', 'FPCR', 'FPSR' …). */
  sysreg(name: SystemRegisterName): I64;
  setSysreg(name: SystemRegisterName, value: I64): void;
  /** MRS of the register named by the 15-bit field o0:op1:CRn:CRm:op2. */
  readSystemRegister(register: Letter, target: Letter): void;
  /** MSR (register). */
  writeSystemRegister(register: Letter, source: Letter): void;
  /** PSTATE.DAIF in bits 3:0. */
  daif(): I32;
  /** Writes PSTATE.DAIF; an interrupt that this unmasks is taken before the next instruction. */
  setDaif(value: I32): void;
  /** Current exception level, 0 or 1. */
  el(): I32;

  // ---- vectors --------------------------------------------------------------------------------
  /** A WebAssembly SIMD instruction by name, e.g. `vop('i16x8.add', a, b)`. */
  vop(name: string, ...operands: Value[]): V128;
  /** The same for those that return an integer, e.g. `vtest('i8x16.bitmask', a)`. */
  vtest(name: string, ...operands: Value[]): I32;
  /** 16 bytes of `a` and `b` (0–15, 16–31) by constant indices. */
  shuffle(a: V128, b: V128, lanes: readonly number[]): V128;
  v128(low: bigint, high: bigint): V128;
  /** Element `index` of a value, zero-extended. */
  lane(vector: V128, size: ElementSize, index: number): I64;
  withLane(vector: V128, size: ElementSize, index: number, value: I64): V128;
  splat(size: ElementSize, value: I64): V128;

  // ---- floating point -------------------------------------------------------------------------
  /** An operation of `arm/fp` (`softOperations`) on raw bits; sets FPSR's cumulative flags. */
  soft(name: string, args: readonly I64[]): I64;
  /** FPSR.QC |= condition. */
  setSaturated(condition: I32): void;
}
