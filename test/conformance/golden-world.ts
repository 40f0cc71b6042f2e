/**
 * The memory that golden vectors run in: a page of code, and two buffers whose pages are writable,
 * writable and read-only, with nothing mapped before and behind. The second buffer is Tagged. The
 * same virtual addresses hold in QEMU's user emulation, in its system emulation and in the engine;
 * the physical addresses and the stage-1 tables are those of the latter two.
 */
import { Prng } from '../../src/base/index.ts';

export const PAGE = 4096;

/** The page that holds the instructions; all of it is BRK but for the vector's words. */
export const CODE_VA = 0x500000;
/** Where a vector's words are. */
export const PC = CODE_VA + 0x800;
export const BRK = 0xd4200000;

export interface Buffer3 {
  /** First of three mapped pages: two writable, one read-only. */
  readonly va: number;
  readonly tagged: boolean;
}
export const PLAIN: Buffer3 = { va: 0x511000, tagged: false };
export const TAGGED: Buffer3 = { va: 0x521000, tagged: true };
export const BUFFERS = [PLAIN, TAGGED] as const;
export const BUFFER_PAGES = 3;
export const WRITABLE_BYTES = 2 * PAGE;
export const BUFFER_BYTES = BUFFER_PAGES * PAGE;

/** What a buffer holds when a vector begins. */
export function pristineBytes(buffer: Buffer3): Uint8Array {
  return new Prng(buffer.va).bytes(BUFFER_BYTES);
}

/** Allocation tags of the Tagged buffer's tag granules, one a byte: runs of equal tags. */
export function pristineTags(): Uint8Array {
  const prng = new Prng(TAGGED.va + 1);
  const tags = new Uint8Array(BUFFER_BYTES / 16);
  for (let i = 0; i < tags.length; ) {
    const tag = prng.below(16);
    for (let run = 1 + prng.below(12); run > 0 && i < tags.length; run--) tags[i++] = tag;
  }
  return tags;
}

// ---- physical memory and stage 1, without an operating system -----------------------------------

/** 2 MiB of RAM that holds all of it. */
export const RAM_PA = 0x41000000;
export const RAM_BYTES = 0x200000;
const TABLES_PA = RAM_PA;
const TABLES = { level1: TABLES_PA, level2: TABLES_PA + PAGE, level3: TABLES_PA + 2 * PAGE };
export const CODE_PA = RAM_PA + 0x100000;
/** A page of EL1 code at the same VA and PA: where exceptions go. */
export const VECTORS_PA = RAM_PA + 0x180000;
export const bufferPa = (buffer: Buffer3): number => buffer.va + RAM_PA + 0x100000 - CODE_VA;

const VALID_PAGE = 3n;
const AF = 1n << 10n;
const INNER_SHAREABLE = 3n << 8n;
const EL0_WRITABLE = 1n << 6n;
const EL0_READABLE = 3n << 6n;
const UXN = 1n << 54n;
const PXN = 1n << 53n;
const attribute = (index: number): bigint => BigInt(index) << 2n;
const NORMAL = attribute(0);
const NORMAL_TAGGED = attribute(1);

/** System registers that the tables and the vectors assume. */
export const WORLD_REGISTERS = {
  MAIR_EL1: 0xf0ffn,
  /** 39-bit VA, 4 KiB, TBI in both halves, no walks of the upper half. */
  TCR_EL1:
    25n |
    (5n << 8n) |
    (3n << 12n) |
    (25n << 16n) |
    (1n << 23n) |
    (2n << 30n) |
    (2n << 32n) |
    (3n << 37n),
  TTBR0_EL1: BigInt(TABLES.level1),
  /** M, C, SA, SA0, I, DZE, UCT, SPAN, UCI, ATA0, ATA, and the RES1 bits. */
  SCTLR_EL1:
    0x30d00800n | 0x1dn | (1n << 12n) | (1n << 14n) | (1n << 15n) | (1n << 26n) | (3n << 42n),
  /** FP and SIMD do not trap. */
  CPACR_EL1: 3n << 20n,
  /** Tag 0 is not generated. */
  GCR_EL1: 1n,
} as const;

/**
 * SCTLR_EL1 with the same tag check faults for EL0 (TCF0) and EL1 (TCF): 1 sync, 2 async, 3 asym.
 */
export const sctlrWithTcf = (tcf: number): bigint =>
  WORLD_REGISTERS.SCTLR_EL1 | (BigInt(tcf) << 38n) | (BigInt(tcf) << 40n);

/** The three translation tables, in one piece that starts at TTBR0_EL1. */
export function tables(): Uint8Array {
  const bytes = new Uint8Array(3 * PAGE);
  const view = new DataView(bytes.buffer);
  const set = (table: number, index: number, descriptor: bigint): void =>
    view.setBigUint64(table - TABLES_PA + 8 * index, descriptor, true);
  set(TABLES.level1, 0, BigInt(TABLES.level2) | 3n);
  // 1 GiB of RAM as it is, for EL1 only and for what runs the vectors; EL1 may execute it.
  set(TABLES.level1, 1, 0x4000_0000n | 1n | AF | INNER_SHAREABLE | NORMAL_TAGGED | UXN);
  set(TABLES.level2, CODE_VA >> 21, BigInt(TABLES.level3) | 3n);
  const page = (va: number, pa: number, attributes: bigint): void =>
    set(
      TABLES.level3,
      (va >> 12) & 511,
      BigInt(pa) | VALID_PAGE | AF | INNER_SHAREABLE | attributes,
    );
  page(CODE_VA, CODE_PA, EL0_READABLE | NORMAL);
  for (const buffer of BUFFERS) {
    for (let i = 0; i < BUFFER_PAGES; i++) {
      const access = i === BUFFER_PAGES - 1 ? EL0_READABLE : EL0_WRITABLE;
      const type = buffer.tagged ? NORMAL_TAGGED : NORMAL;
      page(buffer.va + i * PAGE, bufferPa(buffer) + i * PAGE, access | type | UXN | PXN);
    }
  }
  return bytes;
}
