/**
 * VMSAv8-64 translation table descriptors as data: fields to 64-bit words and back, for both stages
 * and the three translation granules, and the geometry of tables (levels, block sizes, start
 * levels). Pure and cold: the walker (`machine/mmu.ts`) reads raw halves; the table builder
 * (`machine/tables.ts`), the hypervisor and the debugger read these. 48-bit addresses only.
 */
import { assert, bit, bits, isAligned, type Pa, pa } from '../base/index.ts';

/** log2 of the translation granule: 4, 16 or 64 KiB. */
export type GranuleBits = 12 | 14 | 16;

/** Index bits a level resolves. */
export const strideBits = (granuleBits: GranuleBits): number => granuleBits - 3;

/** log2 of what one entry at `level` maps. */
export const leafBits = (level: number, granuleBits: GranuleBits = 12): number =>
  granuleBits + (3 - level) * strideBits(granuleBits);

/** Bytes that one entry at `level` maps. */
export const leafBytes = (level: number, granuleBits: GranuleBits = 12): number =>
  2 ** leafBits(level, granuleBits);

/** Whether `level` has block descriptors. Arm: AArch64.BlockDescSupported(). */
export const isBlockLevel = (level: number, granuleBits: GranuleBits = 12): boolean =>
  level === 2 || (level === 1 && granuleBits === 12);

/** Leaves in a contiguous run at `level`; 1 where bit 52 is ignored. Arm: ContiguousSize(). */
export function contiguousRun(level: number, granuleBits: GranuleBits = 12): number {
  if (granuleBits === 12) return level >= 1 ? 16 : 1;
  if (level < 2) return 1;
  return granuleBits === 14 && level === 3 ? 128 : 32;
}

/** Start level of stage 1 for an input of `inputBits` bits. Arm: AArch64.S1StartLevel(). */
export const stage1StartLevel = (inputBits: number, granuleBits: GranuleBits = 12): number =>
  3 - Math.floor((inputBits - 1 - granuleBits) / strideBits(granuleBits));

/** Start level of stage 2 by VTCR_EL2.SL0; undefined: reserved. Arm: AArch64.S2StartLevel(). */
export function stage2StartLevel(sl0: number, granuleBits: GranuleBits = 12): number | undefined {
  if (granuleBits === 12) return [2, 1, 0, 3][sl0];
  return sl0 === 3 ? undefined : 3 - sl0;
}

/** VTCR_EL2.SL0 for a stage 2 walk from `level`. */
export const stage2Sl0 = (level: number, granuleBits: GranuleBits = 12): number =>
  granuleBits === 12 ? [2, 1, 0, 3][level]! : 3 - level;

/**
 * Start level and number of concatenated tables for a stage 2 input of `inputBits` bits: as few
 * levels as 16 concatenated tables allow, but at least two. Linux: kvm_get_vtcr().
 */
export function stage2Root(
  inputBits: number,
  granuleBits: GranuleBits = 12,
): { level: number; tableCount: number } {
  const level = Math.min(2, stage1StartLevel(inputBits - 4, granuleBits));
  const resolved = leafBits(level, granuleBits) + strideBits(granuleBits);
  return { level, tableCount: 2 ** Math.max(0, inputBits - resolved) };
}

/** AP[2:1] of a stage 1 leaf is `readOnly` and `el0`; the rest are the fields by Arm's names. */
export interface Stage1Attributes {
  /** AttrIndx: which byte of MAIR_EL1. */
  readonly attrIndex: number;
  /** EL0 may access (AP[1]). */
  readonly el0: boolean;
  /** AP[2]. */
  readonly readOnly: boolean;
  /** SH[1:0], raw. */
  readonly sh: number;
  /** AF. */
  readonly accessed: boolean;
  readonly notGlobal: boolean;
  /** GP: guarded for branch target identification. */
  readonly guarded: boolean;
  /** DBM: hardware may clear AP[2]. */
  readonly dbm: boolean;
  readonly contiguous: boolean;
  readonly pxn: boolean;
  readonly uxn: boolean;
  /** Bits 58:55, for software. */
  readonly software: number;
}

export interface Stage2LeafAttributes {
  /** MemAttr[3:0]; see `decodeStage2` in memattr.ts. */
  readonly memAttr: number;
  /** S2AP[0] and S2AP[1]. */
  readonly read: boolean;
  readonly write: boolean;
  /** SH[1:0], raw. */
  readonly sh: number;
  /** AF. */
  readonly accessed: boolean;
  /** FnXS, with FEAT_XS. */
  readonly fnxs: boolean;
  /** DBM: hardware may set S2AP[1]. */
  readonly dbm: boolean;
  readonly contiguous: boolean;
  /** XN[1:0] as in the descriptor: 0b10 forbids execution, with and without FEAT_XNX. */
  readonly xn: number;
  /** Bits 58:55, for software. */
  readonly software: number;
}

/** What a stage 1 table descriptor adds to all below it; ignored under TCR_EL1.HPDn. */
export interface TableAttributes {
  /** APTable[0]: no access from EL0. */
  readonly noEl0: boolean;
  /** APTable[1]: no writes. */
  readonly readOnly: boolean;
  readonly pxn: boolean;
  readonly uxn: boolean;
}

const flag = (value: boolean | undefined, at: number): bigint => (value ? 1n << BigInt(at) : 0n);
const field = (value: number | undefined, at: number): bigint => BigInt(value ?? 0) << BigInt(at);
const isSet = (word: bigint, at: number): boolean => bit(word, at) === 1;

/** The attribute bits of a leaf: everything but the output address and the type. */
export const LEAF_ATTRIBUTES = (0x3fffn << 50n) | 0xffcn;

/** The attribute bits of a stage 1 leaf; what is left out is 0. */
export const encodeStage1 = (a: Partial<Stage1Attributes>): bigint =>
  field(a.attrIndex, 2) |
  flag(a.el0, 6) |
  flag(a.readOnly, 7) |
  field(a.sh, 8) |
  flag(a.accessed, 10) |
  flag(a.notGlobal, 11) |
  flag(a.guarded, 50) |
  flag(a.dbm, 51) |
  flag(a.contiguous, 52) |
  flag(a.pxn, 53) |
  flag(a.uxn, 54) |
  field(a.software, 55);

export const decodeStage1 = (word: bigint): Stage1Attributes => ({
  attrIndex: Number(bits(word, 4, 2)),
  el0: isSet(word, 6),
  readOnly: isSet(word, 7),
  sh: Number(bits(word, 9, 8)),
  accessed: isSet(word, 10),
  notGlobal: isSet(word, 11),
  guarded: isSet(word, 50),
  dbm: isSet(word, 51),
  contiguous: isSet(word, 52),
  pxn: isSet(word, 53),
  uxn: isSet(word, 54),
  software: Number(bits(word, 58, 55)),
});

/** The attribute bits of a stage 2 leaf; what is left out is 0. */
export const encodeStage2 = (a: Partial<Stage2LeafAttributes>): bigint =>
  field(a.memAttr, 2) |
  flag(a.read, 6) |
  flag(a.write, 7) |
  field(a.sh, 8) |
  flag(a.accessed, 10) |
  flag(a.fnxs, 11) |
  flag(a.dbm, 51) |
  flag(a.contiguous, 52) |
  field(a.xn, 53) |
  field(a.software, 55);

export const decodeStage2Leaf = (word: bigint): Stage2LeafAttributes => ({
  memAttr: Number(bits(word, 5, 2)),
  read: isSet(word, 6),
  write: isSet(word, 7),
  sh: Number(bits(word, 9, 8)),
  accessed: isSet(word, 10),
  fnxs: isSet(word, 11),
  dbm: isSet(word, 51),
  contiguous: isSet(word, 52),
  xn: Number(bits(word, 54, 53)),
  software: Number(bits(word, 58, 55)),
});

/** Whether hardware reads an entry at all: bit 0. The rest of an invalid one is software's. */
export const isValid = (word: bigint): boolean => (word & 1n) === 1n;

/** Whether an entry at `level` points to a table. */
export const isTable = (word: bigint, level: number): boolean => level < 3 && (word & 3n) === 3n;

/** A leaf at `level` for output address `output`, which must be a multiple of the leaf's size. */
export function makeLeaf(
  output: Pa,
  attributes: bigint,
  level: number,
  granuleBits: GranuleBits = 12,
): bigint {
  assert(level === 3 || isBlockLevel(level, granuleBits), 'no leaf at this level');
  assert(isAligned(output, leafBytes(level, granuleBits)), 'output address of a leaf is aligned');
  assert((attributes & ~LEAF_ATTRIBUTES) === 0n, 'attributes of a leaf hold nothing else');
  return BigInt(output) | attributes | (level === 3 ? 3n : 1n);
}

/** A table descriptor for the next-level table at `table`. */
export const makeTable = (table: Pa, attributes: Partial<TableAttributes> = {}): bigint =>
  BigInt(table) |
  flag(attributes.pxn, 59) |
  flag(attributes.uxn, 60) |
  flag(attributes.noEl0, 61) |
  flag(attributes.readOnly, 62) |
  3n;

/** The next-level table that a table descriptor points to. */
export const tableAddress = (word: bigint, granuleBits: GranuleBits = 12): Pa =>
  pa(Number(bits(word, 47, granuleBits) << BigInt(granuleBits)));

/** The output address of a leaf at `level`. */
export const leafAddress = (word: bigint, level: number, granuleBits: GranuleBits = 12): Pa => {
  const low = leafBits(level, granuleBits);
  return pa(Number(bits(word, 47, low) << BigInt(low)));
};

/** The attribute bits of a leaf. */
export const leafAttributes = (word: bigint): bigint => word & LEAF_ATTRIBUTES;

/** An entry taken apart. */
export type Descriptor =
  | { readonly kind: 'invalid'; readonly software: bigint }
  | ({ readonly kind: 'table'; readonly address: Pa } & TableAttributes)
  | { readonly kind: 'block' | 'page'; readonly address: Pa; readonly attributes: bigint };

/**
 * An entry of a table at `level` taken apart as hardware would; `attributes` of a leaf go to
 * `decodeStage1` or `decodeStage2Leaf`. Arm: AArch64.DecodeDescriptorType().
 */
export function decodeDescriptor(
  word: bigint,
  level: number,
  granuleBits: GranuleBits = 12,
): Descriptor {
  if (isTable(word, level)) {
    return {
      kind: 'table',
      address: tableAddress(word, granuleBits),
      pxn: isSet(word, 59),
      uxn: isSet(word, 60),
      noEl0: isSet(word, 61),
      readOnly: isSet(word, 62),
    };
  }
  const leaf = level === 3 ? (word & 3n) === 3n : isBlockLevel(level, granuleBits) && isValid(word);
  if (!leaf) return { kind: 'invalid', software: word };
  return {
    kind: level === 3 ? 'page' : 'block',
    address: leafAddress(word, level, granuleBits),
    attributes: leafAttributes(word),
  };
}
