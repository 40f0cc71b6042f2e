/**
 * Where everything lies in the one WebAssembly.Memory that generated code touches.
 *
 *   0          LOW_BYTES   vCPU state being run, lookup tables (state.ts)
 *   tlbs       one set of software TLBs a vCPU (tlb.ts), and one that stays empty
 *   records    predecoded instructions, a record page for each page of code (records.ts)
 *   TAGS_BASE  allocation tags: two to a byte, byte i for RAM bytes 32 i … 32 i + 31
 *   RAM_BASE   the machine's RAM zones, back to back
 *
 * Invariant: `TAG_OFFSET + (linear >> 5)` is the tag byte of RAM at `linear`. The two bases are
 * constants, so that one generated module serves every machine; what is never touched between them
 * costs no memory. Created by `machine/memory.ts`.
 */
import { alignUp, assert, MIB } from '../base/index.ts';

export const LOW_BYTES = 256 * 1024;
export const TAGS_BASE = 128 * MIB;
export const RAM_BASE = 256 * MIB;
/** Added to `linear >> 5` to find a tag byte. */
export const TAG_OFFSET = TAGS_BASE - RAM_BASE / 32;

/** Bytes of one record page: 1024 records of 8 bytes and the end-of-page record, padded. */
export const RECORD_PAGE_BYTES = 8192 + 16;

export interface MemoryLayout {
  readonly tlbBase: number;
  readonly vcpuMax: number;
  readonly recordBase: number;
  readonly recordPageCount: number;
  readonly tagsBase: number;
  readonly ramBase: number;
  readonly ramBytes: number;
  readonly totalBytes: number;
}

/** The most RAM, in bytes, that fits beside its tags and the engine in a 32-bit memory. */
export const RAM_BYTES_MAX = 3584 * MIB;

/** `tlbBytesPerVcpu`: from tlb.ts. `recordPageCount` defaults to code of 32 MiB. */
export function planLayout(options: {
  ramBytes: number;
  vcpuMax: number;
  tlbBytesPerVcpu: number;
  recordPageCount?: number;
}): MemoryLayout {
  const recordPageCount = options.recordPageCount ?? 8192;
  const tlbBase = LOW_BYTES;
  const recordBase = alignUp(tlbBase + options.tlbBytesPerVcpu * (options.vcpuMax + 1), 65536);
  assert(recordBase + recordPageCount * RECORD_PAGE_BYTES <= TAGS_BASE, 'records fit below tags');
  assert(options.ramBytes <= RAM_BYTES_MAX, 'RAM fits a 32-bit linear memory');
  return {
    tlbBase,
    vcpuMax: options.vcpuMax,
    recordBase,
    recordPageCount,
    tagsBase: TAGS_BASE,
    ramBase: RAM_BASE,
    ramBytes: options.ramBytes,
    totalBytes: alignUp(RAM_BASE + options.ramBytes, 65536),
  };
}
