/**
 * The SYS and SYSL space (op0 = 1): TLB maintenance, cache maintenance, address translation. Caches
 * hold nothing of their own here, so their maintenance only checks what it must check. DC ZVA, GVA
 * and GZVA are rows of their own and come here only where EL1 forbids them to EL0.
 */
import { dataAbortEsr } from '../arm/syndrome.ts';
import * as S from '../engine/state.ts';
import { slotIndex } from './context.ts';
import type { Core } from './core.ts';
import { takeAbort } from './exceptions.ts';
import { AccessKind, newTranslation, parFromTranslation } from './mmu.ts';
import { raiseUndefined, trapToEl1 } from './system.ts';

const SCTLR = slotIndex('SCTLR_EL1');
const PAR = slotIndex('PAR_EL1');
const UCI = 1 << 26;
const DZE = 1 << 14;

interface Operation {
  readonly op1: number;
  readonly crn: number;
  readonly crm: number;
  readonly op2: number;
  /** Value of Xt as 32-bit halves. */
  readonly high: number;
  readonly low: number;
}

/** Carries out a SYS or SYSL; the answer is `carryOut`'s. */
export function systemInstruction(core: Core, isRead: boolean): boolean {
  const opcode = core.opcode();
  const field = (hi: number, lo: number): number => (opcode >>> lo) & ((1 << (hi - lo + 1)) - 1);
  const register = opcode & 31;
  const at = S.X / 4 + 2 * register;
  const operation: Operation = {
    op1: field(18, 16),
    crn: field(15, 12),
    crm: field(11, 8),
    op2: field(7, 5),
    high: register === 31 ? 0 : core.s[at + 1]!,
    low: register === 31 ? 0 : core.s[at]!,
  };
  if (isRead) return raiseUndefined(core);
  if (operation.crn === 8) return tlbMaintenance(core, operation);
  if (operation.crn !== 7) return raiseUndefined(core);
  if (operation.op1 === 0 && operation.crm === 8) return addressTranslation(core, operation);
  if (operation.op1 === 0 && operation.crm === 9) return addressTranslation(core, operation);
  return cacheMaintenance(core, operation);
}

// ---- TLBI ---------------------------------------------------------------------------------------

/**
 * TLBI at EL1. KVM runs guests with HCR_EL2.FB, so every form reaches all vCPUs of the VM.
 * CRm: 3 inner shareable, 7 local. op2: 0 VMALLE1, 1 VAE1, 2 ASIDE1, 3 VAAE1, 5 VALE1, 7 VAALE1.
 */
function tlbMaintenance(core: Core, { op1, crm, op2, high, low }: Operation): boolean {
  if (op1 !== 0 || (crm !== 3 && crm !== 7) || op2 === 4 || op2 === 6) return raiseUndefined(core);
  if (core.s[S.EL / 4] === 0) return raiseUndefined(core);
  const { context, tlbs } = core;
  for (const target of tlbs.sharing(context.vmid)) {
    switch (op2) {
      case 0:
        tlbs.flush(target);
        break;
      case 2:
        // Only the current ASID has entries; dropping them for another one does no harm.
        tlbs.flushNonGlobal(target);
        break;
      default:
        // Xt: VA[55:12] in bits 43:0.
        tlbs.flushPage(target, (high << 12) | (low >>> 20), low << 12);
    }
  }
  return leaveAfter(core);
}

/** The page being executed may have gone: goes on through a fetch. */
function leaveAfter(core: Core): true {
  core.advancePc();
  core.takePendingInterrupt();
  return true;
}

// ---- AT -----------------------------------------------------------------------------------------

const translation = newTranslation();
const access = { kind: AccessKind.read as AccessKind, el: 1 as 0 | 1, pan: false, at: true };

/** AT S1E1R, S1E1W, S1E0R, S1E0W, S1E1RP, S1E1WP. */
function addressTranslation(core: Core, { crm, op2, high, low }: Operation): boolean {
  const { s, u64 } = core;
  if (s[S.EL / 4] === 0 || (crm === 8 ? op2 > 3 : op2 > 1)) return raiseUndefined(core);
  access.kind = (op2 & 1) === 1 ? AccessKind.write : AccessKind.read;
  access.el = crm === 8 && op2 >= 2 ? 0 : 1;
  access.pan = crm === 9 && s[S.PSTATE_PAN / 4] === 1;
  const done = core.context.mmu.translateStage1(high, low, access, translation);
  if (!done && translation.fault.stage === 2) {
    core.leave({ kind: 'stage2-fault', fault: translation.fault, fetch: false, opcode: 0 });
    return true;
  }
  u64[PAR / 2] = parFromTranslation(translation);
  return false;
}

// ---- DC and IC ----------------------------------------------------------------------------------

/** By op1 and CRm: which op2 exist, and whether the operation is by VA. */
function cacheMaintenance(core: Core, operation: Operation): boolean {
  const { op1, crm, op2 } = operation;
  const atEl0 = core.s[S.EL / 4] === 0;
  const kind = op1 === 0 ? privilegedKind(crm, op2) : op1 === 3 ? userKind(crm, op2) : undefined;
  if (kind === undefined || (op1 === 0 && atEl0)) return raiseUndefined(core);
  if (atEl0) {
    const control = kind === 'zero' ? DZE : UCI;
    if ((core.s[SCTLR]! & control) === 0) return trapToEl1(core);
  }
  return kind === 'by-va' ? checkAddress(core, operation) : false;
}

type Kind = 'all' | 'by-va' | 'zero';

function privilegedKind(crm: number, op2: number): Kind | undefined {
  switch (crm) {
    case 1: // IC IALLUIS
    case 5: // IC IALLU
      return op2 === 0 ? 'all' : undefined;
    case 6: // DC IVAC, ISW, IGVAC, IGSW, IGDVAC, IGDSW
      if (op2 === 1 || op2 === 3 || op2 === 5) return 'by-va';
      return op2 === 2 || op2 === 4 || op2 === 6 ? 'all' : undefined;
    case 10: // DC CSW, CGSW, CGDSW
    case 14: // DC CISW, CIGSW, CIGDSW
      return op2 === 2 || op2 === 4 || op2 === 6 ? 'all' : undefined;
    default:
      return undefined;
  }
}

function userKind(crm: number, op2: number): Kind | undefined {
  switch (crm) {
    case 4: // DC ZVA, GVA, GZVA
      return op2 === 1 || op2 === 3 || op2 === 4 ? 'zero' : undefined;
    case 5: // IC IVAU
    case 11: // DC CVAU
      return op2 === 1 ? 'by-va' : undefined;
    case 10: // DC CVAC, CGVAC, CGDVAC
    case 12: // DC CVAP, CGVAP, CGDVAP
    case 14: // DC CIVAC, CIGVAC, CIGDVAC
      return op2 === 1 || op2 === 3 || op2 === 5 ? 'by-va' : undefined;
    default:
      return undefined;
  }
}

/** Maintenance by VA translates; its faults are data aborts with CM = 1 and WnR = 1. */
function checkAddress(core: Core, { high, low }: Operation): boolean {
  const { s, context } = core;
  access.kind = AccessKind.read;
  access.el = s[S.EL / 4] as 0 | 1;
  access.pan = false;
  if (context.mmu.translate(high, low, access, translation)) return false;
  const { fault } = translation;
  if (fault.stage === 2) {
    const opcode = core.opcode();
    core.leave({ kind: 'stage2-fault', fault, fetch: false, opcode });
    return true;
  }
  const esr = dataAbortEsr({ fsc: fault.fsc, cm: true }, s[S.EL / 4] === 0);
  takeAbort(core, esr, high, low);
  return true;
}
