/**
 * The rules of the Memory Tagging Extension as pure functions: logical tags in addresses, the tags
 * IRG and ADDG choose, which accesses are Tag Checked, and what a failed check does. Where tags
 * are stored is `machine/memory.ts`; the engine has its own inline form of the check.
 */
import { bit, withBits } from '../base/index.ts';

/** Bytes that share one allocation tag. */
export const TAG_GRANULE = 16;

/** Bits 59:56 of an address. Arm: AArch64.AllocationTagFromAddress(). */
export const logicalTag = (address: bigint): number => Number((address >> 56n) & 15n);

/** `address` with its logical tag replaced. Arm: AArch64.AddressWithAllocationTag(). */
export const withLogicalTag = (address: bigint, tag: number): bigint =>
  withBits(address, 59, 56, tag);

/**
 * The tag `offset` places after `tag` (0 … 15), counting only tags whose bit in `exclude` is clear;
 * with offset 0 `tag` itself unless excluded; 0 where all sixteen are. Arm:
 * AArch64.ChooseNonExcludedTag().
 */
export function chooseNonExcludedTag(tag: number, offset: number, exclude: number): number {
  if ((exclude & 0xffff) === 0xffff) return 0;
  let chosen = tag;
  const skipExcluded = (): void => {
    while ((exclude >> chosen) & 1) chosen = (chosen + 1) & 15;
  };
  skipExcluded();
  for (let left = offset; left > 0; left--) {
    chosen = (chosen + 1) & 15;
    skipExcluded();
  }
  return chosen;
}

/** GCR_EL1.RRND: IRG may use a generator of the implementation's own. */
export const GCR_RRND = 1 << 16;
/** What RGSR_EL1 holds: TAG 3:0 and SEED 23:8. */
export const RGSR_MASK = 0xffff0f;

/** SEED after the four random bits of one tag. Arm: AArch64.NextRandomTagBit(), four times. */
export function advanceSeed(seed: number): number {
  let s = seed & 0xffff;
  for (let i = 0; i < 4; i++) {
    const top = (s ^ (s >> 2) ^ (s >> 3) ^ (s >> 5)) & 1;
    s = (s >> 1) | (top << 15);
  }
  return s;
}

/**
 * RGSR_EL1 after one IRG with `exclude` (GCR_EL1.Exclude or the register operand); bits 3:0 of it
 * are the tag that IRG inserts. A seed of 0 stays 0: the tag then moves only if excluded. With
 * GCR_EL1.RRND = 1, which leaves the algorithm open, the same sequence is used.
 * Arm: AArch64.RandomTag(), IRG.
 */
export function nextRgsr(rgsr: number, exclude: number): number {
  const seed = advanceSeed(rgsr >>> 8);
  // The four bits, first one lowest, now stand at the top of the seed.
  const tag = chooseNonExcludedTag(rgsr & 15, seed >>> 12, exclude);
  return (seed << 8) | tag;
}

/** The controls that decide whether an access is Tag Checked, at one EL. */
export interface TagCheckControls {
  /** TCR_EL1. */
  readonly tcr: bigint;
  /** SCTLR_EL1; ATA0 counts for accesses with EL0's permissions, ATA for EL1's. */
  readonly sctlr: bigint;
  /** HCR_EL2.ATA. */
  readonly hcrAta: boolean;
  /** Whose permissions the access has (LDTR at EL1: 0). */
  readonly el: 0 | 1;
  /** PSTATE.TCO. */
  readonly tco: boolean;
}

const SCTLR_ATA0 = 42;
const SCTLR_TCF0 = 38;
const TCR_TBI0 = 37;
const TCR_TCMA0 = 57;

/** Whether allocation tags exist for an EL. Arm: AArch64.AllocationTagAccessIsEnabled(). */
export const tagAccessEnabled = (controls: Omit<TagCheckControls, 'tcr' | 'tco'>): boolean =>
  controls.hcrAta && bit(controls.sctlr, SCTLR_ATA0 + controls.el) === 1;

/** Whether the top byte is ignored for data at this half of the VA space. Arm: EffectiveTBI(). */
export const topByteIgnored = (address: bigint, tcr: bigint): boolean =>
  bit(tcr, TCR_TBI0 + bit(address, 55)) === 1;

/**
 * Whether the logical tag of `address` matches all allocation tags: TCMA0 and tag 0 below VA[55],
 * TCMA1 and tag 15 above. Arm: EffectiveTCMA() as AArch64.AccessIsTagChecked() uses it.
 */
export function matchesAll(address: bigint, tcr: bigint): boolean {
  const half = bit(address, 55);
  return bit(tcr, TCR_TCMA0 + half) === 1 && logicalTag(address) === (half === 1 ? 15 : 0);
}

/**
 * Whether an access of a checked instruction class is Tag Checked; the memory must also turn out
 * Tagged. Arm: AArch64.AccessIsTagChecked(), without FEAT_MTE4.
 */
export const isTagChecked = (address: bigint, controls: TagCheckControls): boolean =>
  topByteIgnored(address, controls.tcr) &&
  !matchesAll(address, controls.tcr) &&
  tagAccessEnabled(controls) &&
  !controls.tco;

/** SCTLR_EL1.TCF and TCF0. Asymmetric (FEAT_MTE3): reads synchronous, writes asynchronous. */
export const TagFaultMode = { none: 0, sync: 1, async: 2, asymmetric: 3 } as const;
export type TagFaultMode = (typeof TagFaultMode)[keyof typeof TagFaultMode];

/** SCTLR_EL1.TCF for EL1, TCF0 for EL0. Arm: AArch64.EffectiveTCF(). */
export const tagFaultMode = (sctlr: bigint, el: 0 | 1): TagFaultMode =>
  Number((sctlr >> BigInt(SCTLR_TCF0 + 2 * el)) & 3n) as TagFaultMode;

/**
 * What a failed check does: nothing, a synchronous Data Abort, or a bit in TFSR. An atomic is a
 * read here. Arm: AArch64.TagCheckFault().
 */
export function tagFaultOutcome(mode: TagFaultMode, write: boolean): 'none' | 'sync' | 'async' {
  if (mode === TagFaultMode.none) return 'none';
  if (mode === TagFaultMode.sync) return 'sync';
  return mode === TagFaultMode.asymmetric && !write ? 'sync' : 'async';
}

/** The bit of TFSR_EL1 or TFSRE0_EL1 for a fault at `address`: TF0 or TF1 by VA[55]. */
export const tfsrBit = (address: bigint): 1 | 2 => (bit(address, 55) === 1 ? 2 : 1);
