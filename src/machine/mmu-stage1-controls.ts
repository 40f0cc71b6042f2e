/**
 * The stage 1 controls of one half of the VA space (TTBR0 or TTBR1), taken out of TCR_EL1 and the
 * TTBR when they change. Used by `mmu-stage1.ts` alone.
 */
import { bit, bits } from '../base/index.ts';
import { clampTxsz, type MmuFeatures, outOfRangeMask } from './mmu-features.ts';

/** The registers stage 1 depends on. */
export interface Stage1Registers {
  readonly sctlr: bigint;
  readonly tcr: bigint;
  readonly ttbr0: bigint;
  readonly ttbr1: bigint;
  readonly mair: bigint;
}

/** Granule bits by TCR_EL1.TG0 and TG1; their reserved values read as 4 KiB. */
const TG0_BITS = [12, 16, 14, 12] as const;
const TG1_BITS = [12, 14, 12, 16] as const;

/** Bits 63 (55 with TBI) down to `from` of an address, as two int32 masks. */
function topBits(from: number, tbi: boolean): { high: number; low: number } {
  const high = from >= 32 ? -1 << (from - 32) : -1;
  return { high: tbi ? high & 0x00ffffff : high, low: from >= 32 ? 0 : -1 << from };
}

export class Half {
  /** TCR_EL1.EPDn: a walk is a level 0 Translation fault. */
  disabled = false;
  /** TCR_EL1.E0PDn: so is an access with EL0's permissions. */
  el0Disabled = false;
  /** Hierarchical permissions count (HPDn = 0). */
  hierarchical = true;
  startLevel = 0;
  /** Lowest index bit, and mask of the index, at the start level. */
  startShift = 0;
  startMask = 0;
  stride = 9;
  strideMask = 511;
  /** -1 << granule bits. */
  granuleMask = -4096;
  /** Lowest level with block descriptors: 1 with 4 KiB, else 2. */
  blockLevel = 1;
  tableHigh = 0;
  tableLow = 0;
  /** Bits of an output address's high half that must be 0 (TCR_EL1.IPS). */
  oaHighMask = 0;
  /** Bits of a VA that must equal `sign`, for data and for fetches, and with stage 1 off. */
  dataHighMask = 0;
  fetchHighMask = 0;
  lowMask = 0;
  flatDataHighMask = 0;
  flatFetchHighMask = 0;
  /** 0 or -1: what those bits are in this half. */
  readonly sign: 0 | -1;

  readonly #features: MmuFeatures;
  #tcr = -1n;
  #ttbr = -1n;

  constructor(features: MmuFeatures, upper: boolean) {
    this.#features = features;
    this.sign = upper ? -1 : 0;
  }

  /** Arm: AArch64.S1TTWParamsEL10(), S1StartLevel(), S1TTBaseAddress(). */
  configure(tcr: bigint, ttbr: bigint): void {
    // Most changes of a control concern the other half, or neither.
    if (tcr === this.#tcr && ttbr === this.#ttbr) return;
    this.#tcr = tcr;
    this.#ttbr = ttbr;
    const n = this.sign === 0 ? 0 : 1;
    const { paBits, hpds, e0pd, tbid, ttst } = this.#features;
    const granuleBits =
      n === 0 ? TG0_BITS[Number(bits(tcr, 15, 14))]! : TG1_BITS[Number(bits(tcr, 31, 30))]!;
    const txsz = Number(n === 0 ? bits(tcr, 5, 0) : bits(tcr, 21, 16));
    const iaBits = 64 - clampTxsz(txsz, granuleBits, 16, ttst);
    this.disabled = bit(tcr, n === 0 ? 7 : 23) === 1;
    this.el0Disabled = e0pd && bit(tcr, 55 + n) === 1;
    this.hierarchical = !(hpds && bit(tcr, 41 + n) === 1);
    this.oaHighMask = outOfRangeMask(Number(bits(tcr, 34, 32)), paBits);

    this.stride = granuleBits - 3;
    this.strideMask = (1 << this.stride) - 1;
    this.granuleMask = -1 << granuleBits;
    this.blockLevel = granuleBits === 12 ? 1 : 2;
    this.startLevel = 3 - Math.floor((iaBits - 1 - granuleBits) / this.stride);
    this.startShift = (3 - this.startLevel) * this.stride + granuleBits;
    this.startMask = (1 << (iaBits - this.startShift)) - 1;
    const align = BigInt(iaBits - this.startShift + 3);
    const base = (bits(ttbr, 47, 0) >> align) << align;
    this.tableHigh = Number(base >> 32n);
    this.tableLow = Number(BigInt.asIntN(32, base));

    const tbi = bit(tcr, 37 + n) === 1;
    const fetchTbi = tbi && !(tbid && bit(tcr, 51 + n) === 1);
    this.dataHighMask = topBits(iaBits, tbi).high;
    this.fetchHighMask = topBits(iaBits, fetchTbi).high;
    this.lowMask = topBits(iaBits, tbi).low;
    this.flatDataHighMask = topBits(paBits, tbi).high;
    this.flatFetchHighMask = topBits(paBits, fetchTbi).high;
  }

  /** Whether a descriptor at `level` may be a block. Arm: AArch64.BlockDescSupported(). */
  isBlockLevel(level: number): boolean {
    return level >= this.blockLevel && level < 3;
  }
}
