/**
 * System instructions that generated code leaves to TypeScript: exception generation, MRS and MSR
 * of registers that are not plain slots, PSTATE writes, hints, and the SYS space (cache and TLB
 * maintenance, address translation; `system-instructions.ts`). At the call PC is the address of
 * the instruction; the answer says whether to leave (with PC where to go on) or to go on.
 */
import { SystemOp } from '../arm/a64/ops.ts';
import {
  brkEsr,
  callEsr,
  Ec,
  fpAccessEsr,
  spAlignmentEsr,
  sysregTrapEsr,
  unknownEsr,
  WfxKind,
  wfxEsr,
} from '../arm/syndrome.ts';
import {
  ccsidrSlot,
  encodingKeyOfOpcode,
  findSystemRegister,
  type SystemRegister,
} from '../arm/sysreg/index.ts';
import { assertNever } from '../base/index.ts';
import * as S from '../engine/state.ts';
import { slotIndex } from './context.ts';
import type { Core } from './core.ts';
import {
  exceptionReturn,
  setElAndSp,
  softwareStepActive,
  takeException,
  Vector,
} from './exceptions.ts';
import { packNzcv, unpackNzcv } from './pstate.ts';
import { systemInstruction } from './system-instructions.ts';

const SCTLR = slotIndex('SCTLR_EL1');

/** Takes an exception to EL1 with the current instruction as return address. */
function raise(core: Core, esr: number): true {
  takeException(core, Vector.sync, esr);
  return true;
}

export const raiseUndefined = (core: Core): true => raise(core, unknownEsr());

const immediate16 = (opcode: number): number => (opcode >>> 5) & 0xffff;

/** See `EngineHooks.system`. */
export function carryOut(core: Core, op: SystemOp): boolean {
  const { s } = core;
  switch (op) {
    case SystemOp.undefined:
    case SystemOp.hlt:
      return raiseUndefined(core);
    case SystemOp.svc:
      core.advancePc();
      // The call itself was the step. Arm: SSAdvance().
      s[S.PSTATE_SS / 4] = 0;
      return raise(core, callEsr(Ec.svc, immediate16(core.opcode())));
    case SystemOp.brk:
      if (core.context.debugBrk) {
        core.leave({ kind: 'debug' });
        return true;
      }
      return raise(core, brkEsr(immediate16(core.opcode())));
    case SystemOp.hvc:
    case SystemOp.smc:
      return call(core, op === SystemOp.hvc ? 'hvc' : 'smc');
    case SystemOp.eret:
      if (s[S.EL / 4] === 0) return raiseUndefined(core);
      exceptionReturn(core);
      core.takePendingInterrupt();
      return true;
    case SystemOp.mrs:
      return readRegister(core);
    case SystemOp.msr:
      return writeRegister(core);
    case SystemOp.msrImmediate:
      return writePstate(core);
    case SystemOp.sys:
    case SystemOp.sysl:
      return systemInstruction(core, op === SystemOp.sysl);
    case SystemOp.wfi:
      // A pending interrupt, masked or not, ends a WFI at once.
      return core.interruptPending() ? interruptsAfter(core) : wait(core, WfxKind.wfi);
    case SystemOp.wfe:
      return core.takeEvent() ? false : wait(core, WfxKind.wfe);
    case SystemOp.yield:
      return giveWay(core, 'yield');
    case SystemOp.sev:
      core.sendEvent();
      return false;
    case SystemOp.sevl:
      core.sendEventLocal();
      return false;
    case SystemOp.isb:
      return false;
    case SystemOp.fpTrap:
      return raise(core, fpAccessEsr());
    case SystemOp.spAlignment:
      return raise(core, spAlignmentEsr());
    case SystemOp.irqCheck:
      return interruptsAfter(core);
    default:
      return assertNever(op);
  }
}

/** Behind an instruction that may have unmasked interrupts: takes one if so. */
function interruptsAfter(core: Core): boolean {
  if (!core.interruptDeliverable()) return false;
  core.advancePc();
  core.takePendingInterrupt();
  return true;
}

/** HVC and SMC are UNDEFINED at EL0; at EL1 the hypervisor handles both. */
function call(core: Core, name: 'hvc' | 'smc'): boolean {
  if (core.s[S.EL / 4] === 0) return raiseUndefined(core);
  core.advancePc();
  core.leave({ kind: 'call', call: name, immediate: immediate16(core.opcode()) });
  return true;
}

const NTWI = 1 << 16;
const NTWE = 1 << 18;

/**
 * WFI or WFE with nothing that ends it already. At EL0 SCTLR_EL1.nTWI and nTWE may trap it; else it
 * is the hypervisor's, as under HCR_EL2.TWI and TWE. Arm: AArch64.CheckForWFxTrap().
 */
function wait(core: Core, kind: typeof WfxKind.wfi | typeof WfxKind.wfe): true {
  const { s } = core;
  const isWfe = kind === WfxKind.wfe;
  if (s[S.EL / 4] === 0 && (s[SCTLR]! & (isWfe ? NTWE : NTWI)) === 0) {
    return raise(core, wfxEsr(kind));
  }
  return giveWay(core, isWfe ? 'wfe' : 'wfi');
}

function giveWay(core: Core, name: 'wfi' | 'wfe' | 'yield'): true {
  core.advancePc();
  core.leave({ kind: 'wait', wait: name });
  return true;
}

// ---- MRS and MSR --------------------------------------------------------------------------------

/** EC 0x18: an access that EL1 trapped from EL0. */
export function trapToEl1(core: Core): true {
  const opcode = core.opcode();
  const field = (hi: number, lo: number): number => (opcode >>> lo) & ((1 << (hi - lo + 1)) - 1);
  const trap = {
    op0: field(20, 19),
    op1: field(18, 16),
    crn: field(15, 12),
    crm: field(11, 8),
    op2: field(7, 5),
    rt: field(4, 0),
    read: field(21, 21) === 1,
  };
  return raise(core, sysregTrapEsr(trap));
}

/** Whether a control of EL1 keeps EL0 from a register. */
function trappedAtEl0(core: Core, register: SystemRegister): boolean {
  const { el0 } = register;
  if (el0 === undefined || core.s[S.EL / 4] !== 0) return false;
  const value = core.u64[slotIndex(el0.register) / 2]! & el0.bits;
  return el0.trapsWhen === 'clear' ? value === 0n : value !== 0n;
}

/** The register an MRS or MSR names if this EL may access it, else undefined. */
function accessible(core: Core, direction: 'read' | 'write'): SystemRegister | undefined {
  const register = findSystemRegister(encodingKeyOfOpcode(core.opcode()));
  if (register === undefined) return undefined;
  const lowest = register[direction];
  if (lowest === 'none' || core.s[S.EL / 4]! < lowest) return undefined;
  if (register.feature === 'MTE' && !core.context.mte) return undefined;
  return register;
}

const fpTraps = (core: Core, register: SystemRegister): boolean =>
  register.effect === 'fp' && core.s[S.FP_ENABLED / 4] === 0;

function readRegister(core: Core): boolean {
  const { u64 } = core;
  const register = accessible(core, 'read');
  if (register === undefined) return raiseUndefined(core);
  if (trappedAtEl0(core, register)) return trapToEl1(core);
  if (fpTraps(core, register)) return raise(core, fpAccessEsr());
  const target = core.opcode() & 31;
  const value = registerValue(core, register);
  if (value === undefined) return raiseUndefined(core);
  if (target !== 31) u64[S.X / 8 + target] = value;
  return false;
}

function registerValue(core: Core, register: SystemRegister): bigint | undefined {
  const { s, u64 } = core;
  switch (register.kind) {
    case 'plain':
    case 'constant':
      return u64[S.SYSREG / 8 + register.slot]!;
    case 'ignored':
      return 0n;
    case 'computed':
      break;
  }
  switch (register.name) {
    case 'FPCR':
    case 'FPSR':
      return u64[S.SYSREG / 8 + register.slot]!;
    case 'SP_EL0':
      return s[S.PSTATE_SPSEL / 4] === 0 ? undefined : u64[S.SYSREG / 8 + register.slot]!;
    case 'CurrentEL':
      return BigInt(s[S.EL / 4]! << 2);
    case 'SPSel':
      return BigInt(s[S.PSTATE_SPSEL / 4]!);
    case 'PAN':
      return BigInt(s[S.PSTATE_PAN / 4]!) << 22n;
    case 'DIT':
      return BigInt(s[S.PSTATE_DIT / 4]!) << 24n;
    case 'TCO':
      return BigInt(s[S.PSTATE_TCO / 4]!) << 25n;
    case 'NZCV':
      return BigInt(packNzcv(s) >>> 0);
    case 'DAIF':
      return BigInt(s[S.DAIF / 4]! << 6);
    case 'DCZID_EL0': {
      const prohibited = s[S.EL / 4] === 0 && (s[SCTLR]! & (1 << 14)) === 0;
      return register.reset | (prohibited ? 16n : 0n);
    }
    case 'CCSIDR_EL1': {
      const csselr = Number(u64[slotIndex('CSSELR_EL1') / 2]! & 31n);
      return csselr < 14 ? u64[S.SYSREG / 8 + ccsidrSlot(csselr)]! : 0n;
    }
    case 'ISR_EL1':
      return interruptStatus(core);
    default:
      return core.context.hypervisor.readRegister(register);
  }
}

/** ISR_EL1: A, I and F say what is pending, masked or not. */
function interruptStatus({ context }: Core): bigint {
  const { sErrorPending, irqLine, fiqLine } = context;
  return BigInt((sErrorPending ? 1 << 8 : 0) | (irqLine ? 1 << 7 : 0) | (fiqLine ? 1 << 6 : 0));
}

function writeRegister(core: Core): boolean {
  const { u64 } = core;
  const register = accessible(core, 'write');
  if (register === undefined) return raiseUndefined(core);
  if (trappedAtEl0(core, register)) return trapToEl1(core);
  if (fpTraps(core, register)) return raise(core, fpAccessEsr());
  const source = core.opcode() & 31;
  const value = (source === 31 ? 0n : u64[S.X / 8 + source]!) & register.writable;
  if (register.kind === 'computed') return writeComputed(core, register, value);
  if (register.slot < 0) return false;
  const at = S.SYSREG / 8 + register.slot;
  if (u64[at] === value) return false;
  u64[at] = value;
  return wrote(core, register);
}

/** What a changed plain register entails. */
function wrote(core: Core, register: SystemRegister): boolean {
  if (register.effect === 'mode') core.modeChanged();
  if (register.effect === 'debug' && softwareStepActive(core.s)) {
    // Stepping begins with the next instruction.
    core.advancePc();
    return true;
  }
  if (register.effect !== 'mmu') return false;
  core.translationChanged();
  const { context, tlbs } = core;
  switch (register.name) {
    case 'TTBR0_EL1':
    case 'TTBR1_EL1':
      // Another ASID or other tables: what is tagged with the old ASID is out of reach. Entries
      // of one ASID with the tables changed under them must be invalidated by software.
      tlbs.flushNonGlobal(context);
      break;
    default:
      tlbs.flush(context);
      core.modeChanged();
  }
  // Tables, types or M changed: the next fetch must look again.
  core.advancePc();
  core.takePendingInterrupt();
  return true;
}

function writeComputed(core: Core, register: SystemRegister, value: bigint): boolean {
  const { s, u64 } = core;
  const bitOf = (n: bigint): number => Number((value >> n) & 1n);
  switch (register.name) {
    case 'FPCR':
    case 'FPSR':
      u64[S.SYSREG / 8 + register.slot] = value;
      return false;
    case 'SP_EL0':
      if (s[S.PSTATE_SPSEL / 4] === 0) return raiseUndefined(core);
      u64[S.SYSREG / 8 + register.slot] = value;
      return false;
    case 'SPSel':
      setElAndSp(s, s[S.EL / 4]!, bitOf(0n));
      core.modeChanged();
      return false;
    case 'PAN':
      s[S.PSTATE_PAN / 4] = bitOf(22n);
      core.modeChanged();
      return false;
    case 'DIT':
      s[S.PSTATE_DIT / 4] = bitOf(24n);
      return false;
    case 'TCO':
      s[S.PSTATE_TCO / 4] = bitOf(25n);
      core.modeChanged();
      return false;
    case 'NZCV':
      unpackNzcv(s, Number(value) | 0);
      return false;
    case 'DAIF':
      s[S.DAIF / 4] = Number((value >> 6n) & 15n);
      return interruptsAfter(core);
    case 'OSLAR_EL1': {
      const oslsr = slotIndex('OSLSR_EL1');
      s[oslsr] = (s[oslsr]! & ~2) | (bitOf(0n) << 1);
      return false;
    }
    default:
      return writeThroughHypervisor(core, register, value);
  }
}

function writeThroughHypervisor(core: Core, register: SystemRegister, value: bigint): boolean {
  const answer = core.context.hypervisor.writeRegister(register, value);
  if (answer === 'undefined') return raiseUndefined(core);
  if (answer === 'resume') return interruptsAfter(core);
  core.advancePc();
  core.takePendingInterrupt();
  core.leave({ kind: 'kick' });
  return true;
}

// ---- MSR (immediate) ----------------------------------------------------------------------------

/** op1:op2 of the PSTATE fields. */
const PstateField = {
  spsel: 0b000_101,
  pan: 0b000_100,
  dit: 0b011_010,
  tco: 0b011_100,
  daifSet: 0b011_110,
  daifClear: 0b011_111,
} as const;

function writePstate(core: Core): boolean {
  const { s } = core;
  const opcode = core.opcode();
  const field = (((opcode >>> 16) & 7) << 3) | ((opcode >>> 5) & 7);
  const immediate = (opcode >>> 8) & 15;
  const atEl0 = s[S.EL / 4] === 0;
  switch (field) {
    case PstateField.spsel:
      if (atEl0) return raiseUndefined(core);
      setElAndSp(s, 1, immediate & 1);
      core.modeChanged();
      return false;
    case PstateField.pan:
      if (atEl0) return raiseUndefined(core);
      s[S.PSTATE_PAN / 4] = immediate & 1;
      core.modeChanged();
      return false;
    case PstateField.dit:
      s[S.PSTATE_DIT / 4] = immediate & 1;
      return false;
    case PstateField.tco:
      s[S.PSTATE_TCO / 4] = immediate & 1;
      core.modeChanged();
      return false;
    case PstateField.daifSet:
    case PstateField.daifClear: {
      // SCTLR_EL1.UMA lets EL0 mask interrupts.
      if (atEl0 && (s[SCTLR]! & (1 << 9)) === 0) return trapToEl1(core);
      const daif = s[S.DAIF / 4]!;
      s[S.DAIF / 4] = field === PstateField.daifSet ? daif | immediate : daif & ~immediate;
      return interruptsAfter(core);
    }
    default:
      return raiseUndefined(core);
  }
}
