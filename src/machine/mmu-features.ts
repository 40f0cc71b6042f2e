/**
 * Which of the MMU's optional features a machine has. The ID registers must advertise the same set:
 * what is off here behaves as its control bits were RES0. 52-bit addresses (FEAT_LPA, FEAT_LPA2),
 * FEAT_XS, permission indirection and big-endian tables are never implemented.
 */

export interface MmuFeatures {
  /** Physical address size in bits: ID_AA64MMFR0_EL1.PARange as 32, 36, 40, 42, 44 or 48. */
  readonly paBits: 32 | 36 | 40 | 42 | 44 | 48;
  /** FEAT_HAFDBS: TCR.HA, TCR.HD and the same in VTCR_EL2. */
  readonly hafdbs: boolean;
  /** FEAT_HPDS: TCR.HPD0 and HPD1. */
  readonly hpds: boolean;
  /** FEAT_PAN3: SCTLR_EL1.EPAN. */
  readonly pan3: boolean;
  /** FEAT_XNX: separate EL0 and EL1 execute-never at stage 2. */
  readonly xnx: boolean;
  /** FEAT_E0PD: TCR.E0PD0 and E0PD1. */
  readonly e0pd: boolean;
  /** FEAT_PAuth brings TCR.TBID0 and TBID1. */
  readonly tbid: boolean;
  /** FEAT_TTST: TxSZ up to 48 (47 with 64 KiB), stage 2 walks that start at level 3. */
  readonly ttst: boolean;
  /** FEAT_S2FWB: HCR_EL2.FWB. */
  readonly fwb: boolean;
  /** FEAT_MTE_PERM: NoTagAccess at stage 2. */
  readonly mtePerm: boolean;
}

/** All that is implemented, FEAT_TTST and FEAT_MTE_PERM excepted: no common CPU has them. */
export const DEFAULT_MMU_FEATURES: MmuFeatures = {
  paBits: 48,
  hafdbs: true,
  hpds: true,
  pan3: true,
  xnx: true,
  e0pd: true,
  tbid: true,
  ttst: false,
  fwb: true,
  mtePerm: false,
};

const PHYSICAL_SIZES = [32, 36, 40, 42, 44, 48, 48, 48] as const;

/**
 * The bits of an output address's high half (PA[47:32]) that must be 0 for TCR_EL1.IPS or
 * VTCR_EL2.PS on a machine of `paBits`. Arm: AArch64.OAOutOfRange().
 */
export const outOfRangeMask = (ps: number, paBits: number): number =>
  0xffff & (-1 << (Math.min(PHYSICAL_SIZES[ps]!, paBits) - 32));

/** The range TxSZ is clamped to; out of range it never faults. Arm: AArch64.MaxTxSZ(). */
export function clampTxsz(txsz: number, granuleBits: number, min: number, ttst: boolean): number {
  const max = !ttst ? 39 : granuleBits === 16 ? 47 : 48;
  return Math.min(Math.max(txsz, min), max);
}
