/**
 * Stage 2 of the EL1&0 regime: IPA to PA through the tables VTTBR_EL2 names, one 4 KiB page at a
 * time, with a cache of pages in front. `mmu.ts` asks it for every stage 1 descriptor and for the
 * output of stage 1; permissions are the asker's to check, because they differ for each.
 *
 * Addresses are two 32-bit halves (PA and IPA are at most 48 bits: the high half is 0 … 0xffff), so
 * that all arithmetic is on int32. With stage 2 off the same cache holds the identity.
 *
 * The cache is direct mapped; an entry is eight int32:
 *
 *   +0 IPA[31:12]   +1 IPA[47:32], -1 = empty    +2 PA[31:12]   +3 PA[47:32]
 *   +4 index in memory.i32 of the page's first word, -1 where no RAM is   +5 S2_* flags   +6, +7 0
 *
 * Invariant: an entry stands for a leaf that was valid, in range and accessed when it was read, as
 * the architecture allows a TLB to hold; whoever takes rights from a leaf, moves or removes it
 * calls `invalidate`. Rights gained are found without it.
 */
import { FaultType } from '../arm/syndrome.ts';
import { bit, bits } from '../base/index.ts';
import { clampTxsz, type MmuFeatures, outOfRangeMask } from './mmu-features.ts';
import { S2_OFF } from './mmu-memory-table.ts';
import type { TableMemory } from './mmu-table-memory.ts';

export interface Stage2Registers {
  /** HCR_EL2; VM, DC, DCT, CD, ID, PTW, TGE and FWB are read. */
  readonly hcr: bigint;
  readonly vtcr: bigint;
  readonly vttbr: bigint;
}

const ENTRY_COUNT = 1024;
const ENTRY_SHIFT = 3;
const KEY_LOW = 0;
const KEY_HIGH = 1;
export const S2_PA_LOW = 2;
export const S2_PA_HIGH = 3;
export const S2_WORD = 4;
export const S2_FLAGS = 5;

export const S2_READ = 1 << 0;
/** A write is permitted, perhaps after setting dirty state. */
export const S2_WRITE = 1 << 1;
export const S2_EXEC_EL0 = 1 << 2;
export const S2_EXEC_EL1 = 1 << 3;
/** S2AP[1] is still to be set by hardware: call `markDirty` before a write. */
export const S2_CLEAN = 1 << 4;
export const S2_DEVICE = 1 << 5;
/** MemAttr, or S2_OFF. */
export const S2_COLUMN_SHIFT = 8;
export const S2_COLUMN_MASK = 31;
export const S2_SH_SHIFT = 13;
const S2_LEVEL_SHIFT = 16;
/** log2 of the leaf's size in bytes. */
export const S2_SIZE_SHIFT = 20;

const ALL_PERMISSIONS = S2_READ | S2_WRITE | S2_EXEC_EL0 | S2_EXEC_EL1;
/** A page of stage 2 switched off: the largest leaf any translation granule has below 4 GiB. */
export const S2_OFF_FLAGS = ALL_PERMISSIONS | (S2_OFF << S2_COLUMN_SHIFT) | (30 << S2_SIZE_SHIFT);

const VALID = 1 << 0;
const TABLE = 1 << 1;
const S2AP_WRITE = 1 << 7;
const AF = 1 << 10;
/** Bits of the descriptor's high half. */
const DBM = 1 << 19;
const XN1 = 1 << 22;
const XN_SHIFT = 21;

/** EXEC flags of XN[1:0] with FEAT_XNX. */
const XNX_FLAGS = [S2_EXEC_EL0 | S2_EXEC_EL1, S2_EXEC_EL0, 0, S2_EXEC_EL1] as const;

/** Start levels no implementation of `features` walks from. Arm: AArch64.S2InvalidSL(). */
function startLevelIsInvalid(granuleBits: number, sl0: number, features: MmuFeatures): boolean {
  if (granuleBits === 12) return sl0 === 3 ? !features.ttst : sl0 === 2 && features.paBits < 44;
  return sl0 === 3 || (sl0 === 2 && features.paBits < (granuleBits === 14 ? 42 : 44));
}

export class Stage2 {
  /** The cache; see the head of this file. */
  readonly entries = new Int32Array(ENTRY_COUNT << ENTRY_SHIFT);
  /** Why the last `lookup` or `lookupFor` that returned -1 failed. */
  faultType: FaultType = FaultType.none;
  faultLevel = 0;
  /** It was a Permission fault of a leaf that may be read: an atomic failed as a write. */
  faultReadable = false;
  /** HCR_EL2.VM or DC. */
  enabled = false;

  readonly #memory: TableMemory;
  readonly #features: MmuFeatures;
  /** The controls name no possible walk: every address is a level 0 Translation fault. */
  #unwalkable = false;
  #tableHigh = 0;
  #tableLow = 0;
  #startLevel = 1;
  #startShift = 30;
  #startMask = 511;
  #stride = 9;
  /** -1 << granule bits. */
  #granuleMask = -4096;
  /** Lowest level with block descriptors. */
  #blockLevel = 1;
  /** Bits of an IPA's high and low half that must be 0. */
  #ipaHighMask = 0;
  #ipaLowMask = 0;
  /** Bits of an output address's high half that must be 0. */
  #oaHighMask = 0;
  #accessFlag = false;
  #dirtyState = false;
  /** A leaf with none of these bits set is Device: MemAttr[3:2], under FWB MemAttr[2]. */
  #normalMask = 0b11_0000;

  constructor(memory: TableMemory, features: MmuFeatures) {
    this.#memory = memory;
    this.#features = features;
    this.invalidate();
  }

  /** Forgets every cached page, as TLBI of stage 2 does. */
  invalidate(): void {
    this.entries.fill(-1);
  }

  /** Takes the stage 2 controls; `undefined` switches stage 2 off. Forgets every cached page. */
  configure(regs: Stage2Registers | undefined): void {
    this.invalidate();
    this.enabled = regs !== undefined && (bit(regs.hcr, 0) === 1 || bit(regs.hcr, 12) === 1);
    if (regs === undefined || !this.enabled) return;
    const fwb = this.#features.fwb && bit(regs.hcr, 46) === 1;
    this.#normalMask = fwb ? 0b01_0000 : 0b11_0000;
    this.#configureWalk(regs.vtcr, regs.vttbr);
  }

  /** Arm: AArch64.S2InvalidSL(), S2InconsistentSL(), S2TTBaseAddress(). */
  #configureWalk(vtcr: bigint, vttbr: bigint): void {
    const { paBits, hafdbs, ttst } = this.#features;
    const granuleBits = [12, 16, 14, 12][Number(bits(vtcr, 15, 14))]!;
    const stride = granuleBits - 3;
    const sl0 = Number(bits(vtcr, 7, 6));
    const startLevel = granuleBits === 12 ? [2, 1, 0, 3][sl0]! : 3 - sl0;
    const iaBits = 64 - clampTxsz(Number(bits(vtcr, 5, 0)), granuleBits, 64 - paBits, ttst);
    const startShift = (3 - startLevel) * stride + granuleBits;

    this.#unwalkable =
      startLevelIsInvalid(granuleBits, sl0, this.#features) ||
      iaBits < startShift + 1 ||
      iaBits > startShift + stride + 4;
    this.#stride = stride;
    this.#granuleMask = -1 << granuleBits;
    this.#blockLevel = granuleBits === 12 ? 1 : 2;
    this.#startLevel = startLevel;
    this.#startShift = startShift;
    this.#startMask = 2 ** Math.max(iaBits - startShift, 0) - 1;
    this.#ipaHighMask = iaBits >= 32 ? -1 << (iaBits - 32) : -1;
    this.#ipaLowMask = iaBits >= 32 ? 0 : -1 << iaBits;
    this.#oaHighMask = outOfRangeMask(Number(bits(vtcr, 18, 16)), paBits);
    this.#accessFlag = hafdbs && bit(vtcr, 21) === 1;
    this.#dirtyState = this.#accessFlag && bit(vtcr, 22) === 1;
    const alignBits = Math.max(iaBits - startShift + 3, 1);
    const base = (bits(vttbr, 47, 1) << 1n) & (-1n << BigInt(alignBits));
    this.#tableHigh = Number(base >> 32n);
    this.#tableLow = Number(BigInt.asIntN(32, base));
  }

  /**
   * The cache entry of the page of an IPA (offset in `entries`), or -1 with `faultType` and
   * `faultLevel` set. May set the access flag in the leaf.
   */
  lookup(ipaHigh: number, ipaLow: number): number {
    const at = ((ipaLow >>> 12) & (ENTRY_COUNT - 1)) << ENTRY_SHIFT;
    const entries = this.entries;
    if (entries[at + KEY_LOW] === (ipaLow & -4096) && entries[at + KEY_HIGH] === ipaHigh) return at;
    return this.#fill(ipaHigh, ipaLow, at, false);
  }

  /**
   * `lookup` that refuses (-1, a Permission fault) a page which has not all flags of `required`, or
   * any of `forbidden`. Only the descriptor itself can refuse: rights gained since the page was
   * cached need no invalidation here.
   */
  lookupFor(ipaHigh: number, ipaLow: number, required: number, forbidden: number): number {
    const entries = this.entries;
    const examined = required | forbidden;
    const cached = this.lookup(ipaHigh, ipaLow);
    if (cached < 0 || (entries[cached + S2_FLAGS]! & examined) === required) return cached;
    const entry = this.#fill(ipaHigh, ipaLow, cached, false);
    if (entry < 0 || (entries[entry + S2_FLAGS]! & examined) === required) return entry;
    const flags = entries[entry + S2_FLAGS]!;
    this.#fail(FaultType.permission, (flags >>> S2_LEVEL_SHIFT) & 3);
    this.faultReadable = (flags & S2_READ) !== 0;
    return -1;
  }

  /** Sets dirty state in the leaf of an S2_CLEAN entry, and clears the flag. */
  markDirty(ipaHigh: number, ipaLow: number): void {
    this.#fill(ipaHigh, ipaLow, ((ipaLow >>> 12) & (ENTRY_COUNT - 1)) << ENTRY_SHIFT, true);
  }

  #fill(ipaHigh: number, ipaLow: number, at: number, write: boolean): number {
    if (this.enabled) return this.#walk(ipaHigh, ipaLow, at, write);
    this.#store(at, ipaHigh, ipaLow, ipaHigh, ipaLow, S2_OFF_FLAGS);
    return at;
  }

  #store(
    at: number,
    ipaHigh: number,
    ipaLow: number,
    paHigh: number,
    paLow: number,
    flags: number,
  ): void {
    const entries = this.entries;
    entries[at + KEY_LOW] = ipaLow & -4096;
    entries[at + KEY_HIGH] = ipaHigh;
    entries[at + S2_PA_LOW] = paLow & -4096;
    entries[at + S2_PA_HIGH] = paHigh;
    entries[at + S2_WORD] = this.#memory.wordAt(paHigh, paLow & -4096);
    entries[at + S2_FLAGS] = flags;
  }

  #fail(type: FaultType, level: number): -1 {
    this.faultType = type;
    this.faultLevel = level;
    this.faultReadable = false;
    return -1;
  }

  /** Arm: AArch64.S2Walk(). */
  #walk(ipaHigh: number, ipaLow: number, at: number, write: boolean): number {
    if (
      this.#unwalkable ||
      (ipaHigh & this.#ipaHighMask) !== 0 ||
      (ipaLow & this.#ipaLowMask) !== 0
    ) {
      return this.#fail(FaultType.translation, 0);
    }
    if ((this.#tableHigh & this.#oaHighMask) !== 0) return this.#fail(FaultType.addressSize, 0);
    const i32 = this.#memory.i32;
    const strideMask = (1 << this.#stride) - 1;
    let level = this.#startLevel;
    let shift = this.#startShift;
    let mask = this.#startMask;
    let tableHigh = this.#tableHigh;
    let tableLow = this.#tableLow;
    for (;;) {
      const index =
        (shift < 32 ? (ipaLow >>> shift) | (ipaHigh << (32 - shift)) : ipaHigh >>> (shift - 32)) &
        mask;
      const word = this.#memory.wordAt(tableHigh, tableLow | (index << 3));
      if (word < 0) return this.#fail(FaultType.externalAbortOnWalk, level);
      const low = i32[word]!;
      const high = i32[word + 1]!;
      if ((low & VALID) === 0) return this.#fail(FaultType.translation, level);
      if (level === 3 || (low & TABLE) === 0) {
        if (level === 3 ? (low & TABLE) === 0 : level < this.#blockLevel) {
          return this.#fail(FaultType.translation, level);
        }
        return this.#leaf(word, low, high, level, shift, ipaHigh, ipaLow, at, write);
      }
      if ((high & this.#oaHighMask) !== 0) return this.#fail(FaultType.addressSize, level);
      tableHigh = high & 0xffff;
      tableLow = low & this.#granuleMask;
      level++;
      shift -= this.#stride;
      mask = strideMask;
    }
  }

  #leaf(
    word: number,
    low: number,
    high: number,
    level: number,
    shift: number,
    ipaHigh: number,
    ipaLow: number,
    at: number,
    write: boolean,
  ): number {
    if ((high & this.#oaHighMask) !== 0) return this.#fail(FaultType.addressSize, level);
    if ((low & AF) === 0 && !this.#accessFlag) return this.#fail(FaultType.accessFlag, level);
    const clean = this.#dirtyState && (high & DBM) !== 0 && (low & S2AP_WRITE) === 0;
    const updated = low | AF | (write && clean ? S2AP_WRITE : 0);
    if (updated !== low) this.#memory.update(word, updated);
    const exec = this.#features.xnx
      ? XNX_FLAGS[(high >>> XN_SHIFT) & 3]!
      : (high & XN1) === 0
        ? S2_EXEC_EL0 | S2_EXEC_EL1
        : 0;
    const flags =
      ((low >>> 6) & (S2_READ | S2_WRITE)) |
      exec |
      (clean ? (write ? S2_WRITE : S2_WRITE | S2_CLEAN) : 0) |
      ((low & this.#normalMask) === 0 ? S2_DEVICE : 0) |
      (((low >>> 2) & 15) << S2_COLUMN_SHIFT) |
      (((low >>> 8) & 3) << S2_SH_SHIFT) |
      (level << S2_LEVEL_SHIFT) |
      (shift << S2_SIZE_SHIFT);
    const inLeaf = (1 << shift) - 1;
    this.#store(at, ipaHigh, ipaLow, high & 0xffff, (low & ~inLeaf) | (ipaLow & inLeaf), flags);
    return at;
  }
}
