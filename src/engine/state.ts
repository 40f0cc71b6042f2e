/**
 * The state of the vCPU being run, in linear memory: what generated code and TypeScript share.
 * Every vCPU has its own copy of STATE_BYTES; the one that runs is copied to address 0 and back
 * (`machine/context.ts`, `machine/core.ts`), so generated code addresses it with constants.
 *
 *   0x000  X0 … X30, then XZR, which is 0 whenever an instruction begins
 *   0x100  SP (the current one), PC, flags, bookkeeping (below)
 *   0x200  V0 … V31
 *   0x400  bounce buffer of accesses that generated code cannot do in place
 *   0x800  system register slots, 8 bytes each, by `SystemRegister.slot`
 *
 * Execution is on *records* (records.ts): `rp` points at the current one. `B` is the budget: B - rp
 * is 8 × the instructions that may still run, so straight-line code counts itself. Both travel as
 * parameters of the handlers and are saved to RP and BUDGET before any call into TypeScript.
 */

export const X = 0x000;
export const XZR = 31 * 8;
export const SP = 0x100;
/** Where to go on; valid while no handler runs. */
export const PC = 0x108;
/** i64 whose sign is N. */
export const FLAG_N = 0x110;
/** i64 that is 0 when Z is set. */
export const FLAG_Z = 0x118;
/** i32 0 or 1. */
export const FLAG_C = 0x120;
/** i32 0 or 1. */
export const FLAG_V = 0x124;
export const RP = 0x128;
/** While a handler runs: B. Otherwise: 8 × instructions left. */
export const BUDGET = 0x12c;
/** Record page being executed, and the VA of its first instruction. */
export const RECORD_BASE = 0x130;
/** i32: why `enter` returned, a `Leave`. */
export const LEAVE = 0x134;
export const PAGE_VA = 0x138;
/** i32: 1 while the event register is set, so that WFE does not wait. */
export const EVENT_REGISTER = 0x140;
/** i32 linear addresses of the TLBs in use. */
export const TLB = 0x148;
export const TLB_EL0 = 0x14c;
export const FETCH_TLB = 0x150;
/** i32: ENTRY_CHECKED when tag checks are on, at this EL and for unprivileged accesses. */
export const CHECK_FLAGS = 0x154;
export const CHECK_FLAGS_EL0 = 0x158;
/** i32: ENTRY_TAGGED when allocation tag access is enabled at this EL. */
export const TAG_FLAGS = 0x15c;
export const EL = 0x160;
/** i32: 1 when FP and SIMD instructions do not trap at this EL. */
export const FP_ENABLED = 0x164;
/** Exclusive monitor: linear address and size in bytes; address 0 = open. */
export const MONITOR_ADDRESS = 0x168;
export const MONITOR_BYTES = 0x16c;
/** Arguments of the slow path. */
export const SLOW_VA = 0x170;
export const SLOW_TAGGED = 0x178;
/** i32: 15 when SP must be 16-byte aligned as a base register at this EL, else 0. */
export const SP_CHECK = 0x17c;
/** 96 bytes: operands and result of soft operations. */
export const SCRATCH = 0x180;
/** i32 each: the rest of PSTATE. */
export const DAIF = 0x1e0;
export const PSTATE_SPSEL = 0x1e4;
export const PSTATE_PAN = 0x1e8;
export const PSTATE_TCO = 0x1ec;
export const PSTATE_DIT = 0x1f0;
export const PSTATE_SS = 0x1f8;
export const PSTATE_IL = 0x1fc;
export const V = 0x200;
/** i32: 1 while an IRQ is signalled to the vCPU; unmasking it must leave. */
export const IRQ_LINE = 0x480;
export const BOUNCE = 0x400;
export const SYSREG = 0x800;
export const STATE_BYTES = 0x2000;
export const SYSREG_SLOTS = (STATE_BYTES - SYSREG) / 8;

/**
 * u16 tables by the 15 bits o0:op1:CRn:CRm:op2 of MRS and MSR: address of the slot to read or write
 * in place, or 0 for the slow path. Bit 0 set: also from EL0.
 */
export const MRS_TABLE = 0x10000;
export const MSR_TABLE = 0x20000;

/** A record copied here runs alone: the one behind it stops. Used for single steps. */
export const STEP_RECORD = 0x4000;

/** Why the generated code returned to TypeScript. */
export const Leave = { budget: 0, fetch: 1, event: 2 } as const;
export type Leave = (typeof Leave)[keyof typeof Leave];

/** i64 by N:immr:imms: the logical immediates, so that handlers need not compute them. */
export const BITMASK_TABLE = 0x30000;
