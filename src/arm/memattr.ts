/**
 * Memory attributes: what a MAIR_EL1 byte and a stage-2 MemAttr field mean, and what two stages
 * make of each other. Pure functions and one table; the walker (`machine/mmu.ts`) reads the table,
 * the debugger and tests read the functions. Nothing here knows descriptors or permissions.
 *
 * A stage's memory is held as a MAIR-style byte: Device 0x00, 0x04, 0x08, 0x0c, or Normal with the
 * outer cacheability in the high nibble and the inner in the low one (0x44 is Non-cacheable). What
 * a MAIR spends extra bytes on (Tagged, XS) stands in fields of its own and is folded in again by
 * `parByte`.
 */

/** SH[1:0] of a descriptor; 0b01 is reserved and read as outer shareable. */
export const Shareability = { non: 0, outer: 2, inner: 3 } as const;
export type Shareability = (typeof Shareability)[keyof typeof Shareability];

/** The memory types by the names used throughout; cacheability is the weaker of inner and outer. */
export const MemoryType = {
  deviceNGnRnE: 'Device-nGnRnE',
  deviceNGnRE: 'Device-nGnRE',
  deviceNGRE: 'Device-nGRE',
  deviceGRE: 'Device-GRE',
  normalNC: 'Normal-NC',
  normalWT: 'Normal-WT',
  normalWB: 'Normal-WB',
  normalWBTagged: 'Normal-WB-Tagged',
} as const;
export type MemoryType = (typeof MemoryType)[keyof typeof MemoryType];

/** MAIR bytes that software uses; also the PAR_EL1.ATTR values of the same memory. */
export const Attr = {
  deviceNGnRnE: 0x00,
  deviceNGnRE: 0x04,
  deviceNGRE: 0x08,
  deviceGRE: 0x0c,
  normalNC: 0x44,
  normalWT: 0xbb,
  normalWB: 0xff,
  normalWBTagged: 0xf0,
  /** PAR_EL1.ATTR only: Tagged memory whose tags stage 2 withholds (FEAT_MTE_PERM). */
  taggedNoTagAccess: 0xe0,
} as const;

/** Stage-2 MemAttr[3:0] values that hypervisors use. */
export const Stage2MemAttr = {
  /** HCR_EL2.FWB = 0. */
  deviceNGnRE: 0b0001,
  normalNC: 0b0101,
  /** Normal Write-Back: the stage-1 attributes stay in force, Tagged included. */
  normal: 0b1111,
  /** FEAT_MTE_PERM: Normal Write-Back, tags withheld. */
  noTagAccess: 0b0100,
  /** HCR_EL2.FWB = 1. */
  fwbDeviceNGnRE: 0b0001,
  fwbNormalNC: 0b0101,
  /** Write-Back whatever stage 1 says, Device included. */
  fwbForceWB: 0b0110,
  fwbAsStage1: 0b0111,
  /** FEAT_MTE_PERM: Write-Back whatever stage 1 says, tags withheld. */
  fwbForceWBNoTagAccess: 0b1110,
} as const;

/** Attributes of memory after one stage or both. */
export interface MemoryAttributes {
  /** MAIR-style byte without the Tagged and XS encodings; see the head of this file. */
  readonly base: number;
  readonly shareability: Shareability;
  /** Allocation tags exist and are checked. */
  readonly tagged: boolean;
  /** Tagged, but stage 2 forbids access to the tags (FEAT_MTE_PERM). */
  readonly noTagAccess: boolean;
  /** XS (FEAT_XS): a TLBI with the nXS qualifier need not wait for accesses to this memory. */
  readonly xs: boolean;
}

/** What a stage-2 MemAttr field asks for. */
export interface Stage2Attributes {
  /** MAIR-style byte of the weakest memory stage 1 may keep; the hints in it mean nothing. */
  readonly base: number;
  /** HCR_EL2.FWB = 1 and MemAttr 0bx110: Write-Back over anything. */
  readonly forceWriteBack: boolean;
  readonly noTagAccess: boolean;
}

export interface Stage2Options {
  /** HCR_EL2.FWB (FEAT_S2FWB). */
  readonly fwb: boolean;
  /** FEAT_MTE_PERM. */
  readonly mtePerm: boolean;
}

const NORMAL_NC = 0x44;
const NORMAL_WB = 0xff;

export const isDevice = (base: number): boolean => base < 0x10;
const isWriteBackNibble = (nibble: number): boolean => (nibble & 4) !== 0 && nibble !== 4;
const isWriteThroughNibble = (nibble: number): boolean => (nibble & 4) === 0;

/** Normal and Write-Back at inner and outer level, whatever the hints. */
export const isWriteBack = (base: number): boolean =>
  !isDevice(base) && isWriteBackNibble(base >> 4) && isWriteBackNibble(base & 15);

/** Device and wholly Non-cacheable memory is outer shareable. Arm: EffectiveShareability(). */
export const effectiveShareability = (base: number, sh: Shareability): Shareability =>
  isDevice(base) || base === NORMAL_NC ? Shareability.outer : sh;

/** SH[1:0] with its reserved value 0b01 read as outer shareable. Arm: DecodeShareability(). */
export const decodeShareability = (sh: number): Shareability =>
  sh === 0 ? Shareability.non : sh === 3 ? Shareability.inner : Shareability.outer;

/** Arm: S2CombineS1Shareability(): outer beats inner beats non-shareable. */
export function combineShareability(s1: Shareability, s2: Shareability): Shareability {
  if (s1 === Shareability.outer || s2 === Shareability.outer) return Shareability.outer;
  if (s1 === Shareability.inner || s2 === Shareability.inner) return Shareability.inner;
  return Shareability.non;
}

/** Whether a MAIR byte is reserved with MTE2. Arm: S1ConstrainUnpredictableRESMAIR(). */
export function isReservedMair(byte: number, options: { xs: boolean }): boolean {
  if (byte < 0x10) return (byte & 2) !== 0 || ((byte & 1) !== 0 && !options.xs);
  if (byte === 0x40 || byte === 0xa0) return !options.xs;
  return (byte & 15) === 0 && byte !== Attr.normalWBTagged;
}

/**
 * The memory a MAIR_EL1 byte and SH field of a stage-1 descriptor describe; reserved bytes read as
 * Device-nGnRnE. Of the two the architecture allows, Device leaves stage 1 outer shareable and
 * Non-cacheable keeps its SH until both stages are combined; the choice shows only where stage 2
 * forces Write-Back. Arm: S1DecodeMemAttrs(), with FEAT_MTE2.
 */
export function decodeMair(
  byte: number,
  sh: number,
  options: { xs: boolean } = { xs: false },
): MemoryAttributes {
  const make = (base: number, xs: boolean, tagged = false): MemoryAttributes => ({
    base,
    shareability: isDevice(base) ? Shareability.outer : decodeShareability(sh),
    tagged,
    noTagAccess: false,
    xs,
  });
  if (isReservedMair(byte, options)) return make(0, true);
  if (byte < 0x10) return make(byte & 0x0c, (byte & 1) === 0);
  if (byte === 0x40) return make(NORMAL_NC, false);
  if (byte === 0xa0) return make(0xaa, false);
  if (byte === Attr.normalWBTagged) return make(NORMAL_WB, false, true);
  return make(byte, !isWriteBack(byte));
}

/** Whether a stage-2 MemAttr field is reserved; bit 3 is RES0 under FWB without FEAT_MTE_PERM. */
export function isReservedStage2(memAttr: number, options: Stage2Options): boolean {
  if (!options.fwb) {
    return memAttr === 8 || memAttr === 12 || (memAttr === 4 && !options.mtePerm);
  }
  if (!options.mtePerm) return memAttr >= 8 || memAttr === 4;
  return memAttr === 4 || (memAttr >= 8 && memAttr < 14);
}

/** Nibbles for MemAttr[3:2] and [1:0] of a Normal type; reserved 0b00 reads as Non-cacheable. */
const STAGE2_NIBBLE = [4, 4, 0xb, 0xf] as const;

/**
 * What a stage-2 MemAttr[3:0] asks for. Under FWB, 0bx0dd, 0bx101 and 0bx111 act as Device dd,
 * Non-cacheable and Write-Back do without it; only 0bx110 is a rule of its own. Reserved values
 * read as the pseudocode's Non-cacheable choice, and bits that FWB does not decode are ignored.
 * Arm: S2DecodeMemAttrs(), AArch64.S2ApplyFWBMemAttrs().
 */
export function decodeStage2(memAttr: number, options: Stage2Options): Stage2Attributes {
  const low = memAttr & 3;
  if (options.fwb) {
    const noTagAccess = options.mtePerm && memAttr >= 14;
    if ((memAttr & 4) === 0) return { base: low << 2, forceWriteBack: false, noTagAccess: false };
    if (low < 2) return { base: NORMAL_NC, forceWriteBack: false, noTagAccess: false };
    return { base: NORMAL_WB, forceWriteBack: low === 2, noTagAccess };
  }
  if (memAttr < 4) return { base: low << 2, forceWriteBack: false, noTagAccess: false };
  if (memAttr === 4 && options.mtePerm) {
    return { base: NORMAL_WB, forceWriteBack: false, noTagAccess: true };
  }
  const base = (STAGE2_NIBBLE[memAttr >> 2]! << 4) | STAGE2_NIBBLE[low]!;
  return { base, forceWriteBack: false, noTagAccess: false };
}

/** NC beats WT beats WB; the hints are stage 1's. Arm: S2CombineS1AttrHints(). */
function combineNibble(s1: number, s2: number): number {
  if (s1 === 4 || s2 === 4) return 4;
  return isWriteThroughNibble(s2) ? s1 & 0b1011 : s1;
}

/** Write-Back with stage 1's hints where stage 1 was cacheable, else read- and write-allocate. */
const forceNibble = (s1: number): number => (s1 === 4 ? 15 : s1 | 4);

function combineBase(s1: number, s2: Stage2Attributes): number {
  if (s2.forceWriteBack) {
    return isDevice(s1) ? NORMAL_WB : (forceNibble(s1 >> 4) << 4) | forceNibble(s1 & 15);
  }
  if (isDevice(s1) && isDevice(s2.base)) return Math.min(s1, s2.base);
  if (isDevice(s1)) return s1;
  if (isDevice(s2.base)) return s2.base;
  return (combineNibble(s1 >> 4, s2.base >> 4) << 4) | combineNibble(s1 & 15, s2.base & 15);
}

/**
 * The memory that results from stage 1 and stage 2. `sh` is SH[1:0] of the stage-2 descriptor,
 * `fnXS` its bit 11 (FEAT_XS). Arm: S2CombineS1MemAttrs(), AArch64.S2ApplyFWBMemAttrs().
 */
export function combineStages(
  s1: MemoryAttributes,
  s2: Stage2Attributes,
  sh: number,
  fnXS = false,
): MemoryAttributes {
  const base = combineBase(s1.base, s2);
  const tagged = s1.tagged && base === NORMAL_WB;
  return {
    base,
    tagged,
    noTagAccess: tagged && s2.noTagAccess,
    xs: s1.xs && !isWriteBack(base) && !fnXS,
    shareability: effectiveShareability(
      base,
      combineShareability(s1.shareability, decodeShareability(sh)),
    ),
  };
}

/** PAR_EL1.ATTR of `memory`; without FEAT_XS no XS encoding is used. Arm: EncodePARAttrs(). */
export function parByte(
  memory: MemoryAttributes,
  options: { xs: boolean } = { xs: false },
): number {
  if (memory.tagged) return memory.noTagAccess ? Attr.taggedNoTagAccess : Attr.normalWBTagged;
  if (!options.xs || memory.xs) return memory.base;
  if (isDevice(memory.base)) return memory.base | 1;
  if (memory.base === NORMAL_NC) return 0x40;
  return memory.base === 0xaa ? 0xa0 : memory.base;
}

const DEVICE_TYPES = [
  MemoryType.deviceNGnRnE,
  MemoryType.deviceNGnRE,
  MemoryType.deviceNGRE,
  MemoryType.deviceGRE,
] as const;

/** The name of the memory type that a PAR-style or MAIR byte denotes. */
export function memoryTypeOf(byte: number): MemoryType {
  if (byte < 0x10) return DEVICE_TYPES[byte >> 2]!;
  if (byte === Attr.normalWBTagged || byte === Attr.taggedNoTagAccess) {
    return MemoryType.normalWBTagged;
  }
  if (byte === 0x40) return MemoryType.normalNC;
  if (byte === 0xa0) return MemoryType.normalWT;
  if (byte >> 4 === 4 || (byte & 15) === 4) return MemoryType.normalNC;
  return isWriteBack(byte) ? MemoryType.normalWB : MemoryType.normalWT;
}

/*
 * The table form: PAR_EL1.ATTR in bits 7:0 and MEM_* flags above. Shareability is not in an entry
 * (two more fields would square the table); it comes from COMBINED_SHAREABILITY.
 */
export const MEM_ATTR_MASK = 0xff;
export const MEM_TAGGED = 1 << 8;
export const MEM_NO_TAG_ACCESS = 1 << 9;
/** Normal and Write-Back at both levels. */
export const MEM_WRITE_BACK = 1 << 10;
export const MEM_DEVICE = 1 << 11;
/** Outer shareable whatever SH says: Device at stage 1, or Device or Non-cacheable in sum. */
export const MEM_FORCED_OUTER = 1 << 12;
/** Stage 1 is Device: an unaligned access is stage 1's Alignment fault. */
export const MEM_S1_DEVICE = 1 << 13;
/** Stage 1 is Normal and stage 2 Device: an unaligned access is stage 2's Alignment fault. */
export const MEM_S2_DEVICE = 1 << 14;

/** `combineShareability` of s1 * 4 + s2, both raw SH fields. */
export const COMBINED_SHAREABILITY: Uint8Array = Uint8Array.from({ length: 16 }, (_, i) =>
  combineShareability(decodeShareability(i >> 2), decodeShareability(i & 3)),
);

const forcedOuter = (base: number): boolean => isDevice(base) || base === NORMAL_NC;

/** The table entry for stage 1 memory `s1` under stage 2 `s2`; undefined = stage 2 is off. */
export function packStages(s1: MemoryAttributes, s2: Stage2Attributes | undefined): number {
  const memory = s2 === undefined ? s1 : combineStages(s1, s2, Shareability.non);
  const { base } = memory;
  return (
    parByte(memory) |
    (memory.tagged ? MEM_TAGGED : 0) |
    (memory.noTagAccess ? MEM_NO_TAG_ACCESS : 0) |
    (isWriteBack(base) ? MEM_WRITE_BACK : 0) |
    (isDevice(base) ? MEM_DEVICE : 0) |
    (forcedOuter(base) || isDevice(s1.base) ? MEM_FORCED_OUTER : 0) |
    (isDevice(s1.base) ? MEM_S1_DEVICE : isDevice(base) ? MEM_S2_DEVICE : 0)
  );
}
