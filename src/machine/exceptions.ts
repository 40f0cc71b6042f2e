/**
 * Taking exceptions to EL1 and returning from them, over the running state. Who raises them, and
 * with which syndrome, is elsewhere; `Core.modeChanged` recomputes what depends on EL and PSTATE.
 */
import * as S from '../engine/state.ts';
import { slotIndex } from './context.ts';
import type { Core } from './core.ts';
import { PSTATE_M_EL0T, packPstate, unpackPstate } from './pstate.ts';

/** Offsets in the vector table by kind; 0x200 and 0x400 are added by where it came from. */
export const Vector = { sync: 0x000, irq: 0x080, fiq: 0x100, sError: 0x180 } as const;
export type Vector = (typeof Vector)[keyof typeof Vector];

const SPSR = slotIndex('SPSR_EL1');
const ELR = slotIndex('ELR_EL1');
const ESR = slotIndex('ESR_EL1');
const FAR = slotIndex('FAR_EL1');
const VBAR = slotIndex('VBAR_EL1');
const SCTLR = slotIndex('SCTLR_EL1');
const SP_EL0 = slotIndex('SP_EL0');
const SP_EL1 = slotIndex('SP_EL1');
const SPAN = 1 << 23;

/** Puts SP away into the bank of the current EL and SPSel. */
function bankOut(s: Int32Array): void {
  const bank = s[S.EL / 4] === 1 && s[S.PSTATE_SPSEL / 4] === 1 ? SP_EL1 : SP_EL0;
  s[bank] = s[S.SP / 4]!;
  s[bank + 1] = s[S.SP / 4 + 1]!;
}

function bankIn(s: Int32Array): void {
  const bank = s[S.EL / 4] === 1 && s[S.PSTATE_SPSEL / 4] === 1 ? SP_EL1 : SP_EL0;
  s[S.SP / 4] = s[bank]!;
  s[S.SP / 4 + 1] = s[bank + 1]!;
}

/** Changes EL and SPSel, and with them which stack pointer SP is. */
export function setElAndSp(s: Int32Array, el: number, spsel: number): void {
  bankOut(s);
  s[S.EL / 4] = el;
  s[S.PSTATE_SPSEL / 4] = spsel;
  bankIn(s);
}

/**
 * Takes an exception to EL1: PC must be the preferred return address. `esr` is of
 * `arm/syndrome.ts`, or undefined for interrupts; nothing taken to EL1 has an ISS2. Arm:
 * AArch64.TakeException().
 */
export function takeException(core: Core, vector: Vector, esr: number | undefined): void {
  const { s } = core;
  const spsr = packPstate(s);
  const fromEl0 = s[S.EL / 4] === 0;
  const fromSp0 = s[S.PSTATE_SPSEL / 4] === 0;
  s[SPSR] = spsr;
  s[SPSR + 1] = 0;
  s[ELR] = s[S.PC / 4]!;
  s[ELR + 1] = s[S.PC / 4 + 1]!;
  if (esr !== undefined) {
    s[ESR] = esr;
    s[ESR + 1] = 0;
  }
  setElAndSp(s, 1, 1);
  s[S.DAIF / 4] = 15;
  s[S.PSTATE_TCO / 4] = 1;
  s[S.PSTATE_SS / 4] = 0;
  s[S.PSTATE_IL / 4] = 0;
  if ((s[SCTLR]! & SPAN) === 0) s[S.PSTATE_PAN / 4] = 1;
  // VBAR_EL1 is 2 KiB aligned: the offset never carries.
  s[S.PC / 4] = s[VBAR]! | (vector + (fromEl0 ? 0x400 : fromSp0 ? 0 : 0x200));
  s[S.PC / 4 + 1] = s[VBAR + 1]!;
  core.modeChanged();
  core.exceptionCount++;
}

/** The same with FAR_EL1. */
export function takeAbort(core: Core, esr: number, farHigh: number, farLow: number): void {
  core.s[FAR] = farLow;
  core.s[FAR + 1] = farHigh;
  takeException(core, 0, esr);
}

const MDSCR = slotIndex('MDSCR_EL1');
const OSLSR = slotIndex('OSLSR_EL1');
const MDSCR_SS = 1 << 0;
const MDSCR_KDE = 1 << 13;
const OSLSR_OSLK = 1 << 1;

/**
 * Whether software step is active in a state: MDSCR_EL1.SS, and debug exceptions are enabled there.
 * Arm: AArch64.GenerateDebugExceptions(), SSAdvance()'s condition.
 */
export function softwareStepActive(s: Int32Array): boolean {
  const mdscr = s[MDSCR]!;
  if ((mdscr & MDSCR_SS) === 0 || (s[OSLSR]! & OSLSR_OSLK) !== 0) return false;
  if (s[S.EL / 4] === 0) return true;
  return (mdscr & MDSCR_KDE) !== 0 && (s[S.DAIF / 4]! & 8) === 0;
}

/** ERET from EL1. Arm: AArch64.ExceptionReturn(). */
export function exceptionReturn(core: Core): void {
  const { s } = core;
  const spsr = s[SPSR]!;
  const mode = spsr & 0x1f;
  // AArch32, EL2 and above, and EL0 with SP_EL1 do not exist: an illegal return stays at this EL.
  const legal = mode === PSTATE_M_EL0T || mode === 4 || mode === 5;
  const [el, spsel] = legal ? [mode >> 2, mode & 1] : [s[S.EL / 4]!, s[S.PSTATE_SPSEL / 4]!];
  const wasStepping = softwareStepActive(s);
  unpackPstate(s, spsr);
  setElAndSp(s, el, spsel);
  // Arm: DebugExceptionReturnSS(): the step bit counts only where stepping begins.
  if (wasStepping || !softwareStepActive(s)) s[S.PSTATE_SS / 4] = 0;
  if (!legal) s[S.PSTATE_IL / 4] = 1;
  s[S.PC / 4] = s[ELR]!;
  s[S.PC / 4 + 1] = s[ELR + 1]!;
  s[S.MONITOR_ADDRESS / 4] = 0;
  core.sendEventLocal();
  core.modeChanged();
}
