/**
 * PSTATE as a word in SPSR_ELx's layout, over the state in linear memory or in a saved copy: both
 * are i32 views with the state at index 0.
 */
import * as S from '../engine/state.ts';

export const PSTATE_M_EL0T = 0b0000;
export const PSTATE_M_EL1T = 0b0100;
export const PSTATE_M_EL1H = 0b0101;

/** NZCV in bits 31:28. */
export function packNzcv(s: Int32Array): number {
  const n = s[S.FLAG_N / 4 + 1]! < 0 ? 8 : 0;
  const z = s[S.FLAG_Z / 4] === 0 && s[S.FLAG_Z / 4 + 1] === 0 ? 4 : 0;
  return ((n | z | (s[S.FLAG_C / 4]! << 1) | s[S.FLAG_V / 4]!) << 28) | 0;
}

export function unpackNzcv(s: Int32Array, word: number): void {
  s[S.FLAG_N / 4 + 1] = word & 0x80000000;
  s[S.FLAG_N / 4] = 0;
  s[S.FLAG_Z / 4] = (word >>> 30) & 1 ? 0 : 1;
  s[S.FLAG_Z / 4 + 1] = 0;
  s[S.FLAG_C / 4] = (word >>> 29) & 1;
  s[S.FLAG_V / 4] = (word >>> 28) & 1;
}

/** PSTATE as SPSR_EL1 holds it, an int32. Arm: GetPSRFromPSTATE(). */
export function packPstate(s: Int32Array): number {
  const mode = s[S.EL / 4] === 0 ? 0 : 4 | s[S.PSTATE_SPSEL / 4]!;
  return (
    packNzcv(s) |
    (s[S.PSTATE_TCO / 4]! << 25) |
    (s[S.PSTATE_DIT / 4]! << 24) |
    (s[S.PSTATE_PAN / 4]! << 22) |
    (s[S.PSTATE_SS / 4]! << 21) |
    (s[S.PSTATE_IL / 4]! << 20) |
    (s[S.DAIF / 4]! << 6) |
    mode
  );
}

/** Everything of PSTATE but EL and SP, from an SPSR. Arm: SetPSTATEFromPSR(). */
export function unpackPstate(s: Int32Array, spsr: number): void {
  unpackNzcv(s, spsr);
  s[S.PSTATE_TCO / 4] = (spsr >>> 25) & 1;
  s[S.PSTATE_DIT / 4] = (spsr >>> 24) & 1;
  s[S.PSTATE_PAN / 4] = (spsr >>> 22) & 1;
  s[S.PSTATE_SS / 4] = (spsr >>> 21) & 1;
  s[S.PSTATE_IL / 4] = (spsr >>> 20) & 1;
  s[S.DAIF / 4] = (spsr >>> 6) & 15;
}
