/**
 * Fills and empties the software TLBs (layout: engine/tlb.ts). It is told what a translation
 * allows; which VAs share an entry and how far an invalidation reaches is decided here.
 */
import { PAGE_SIZE } from '../base/index.ts';
import * as S from '../engine/state.ts';
import {
  ENTRY_GLOBAL,
  ENTRY_SIZE_SHIFT,
  FETCH_GLOBAL,
  FETCH_RECORDS,
  FETCH_TLB_BYTES,
  FETCH_TLB_ENTRIES,
  FETCH_TLB_ENTRY_SHIFT,
  FETCH_TLB_OFFSET,
  TLB_BYTES,
  TLB_BYTES_PER_VCPU,
  TLB_DELTA,
  TLB_ENTRIES,
  TLB_ENTRY_BYTES,
  TLB_ENTRY_SHIFT,
  TLB_FLAGS,
  TLB_MASK,
  TLB_MODE_COUNT,
  TLB_READ_TAG,
  TLB_WRITE_TAG,
} from '../engine/tlb.ts';
import type { CpuContext } from './context.ts';
import type { PhysicalMemory } from './memory.ts';

/** What a data TLB entry is filled with. */
export interface TlbFill {
  /** Linear address of the TLB: `context.tlbBase` plus the mode's offset. */
  tlb: number;
  vaHigh: number;
  vaLow: number;
  /** Linear address of the 4 KiB page. */
  page: number;
  read: boolean;
  write: boolean;
  /** TBI: bits 63:56 of the VA do not count. */
  ignoreTop: boolean;
  /** ENTRY_CHECKED and ENTRY_TAGGED. */
  flags: number;
  global: boolean;
  /** Bytes of the mapping; more than a page makes invalidation by VA search for its pages. */
  pageBytes: number;
}

const DATA_WORDS = (TLB_MODE_COUNT * TLB_BYTES) / 4;
/** Bits 55:32 of a VA, as its high half. */
const HIGH_MASK = 0x00ffffff;

export class SoftwareTlbs {
  readonly #i32: Int32Array;
  readonly #contexts: CpuContext[] = [];
  /** Linear address of a TLB that never hits, for when every access must be looked at. */
  readonly empty: number;

  constructor(memory: PhysicalMemory) {
    this.#i32 = memory.i32;
    const { tlbBase, vcpuMax } = memory.layout;
    // The layout reserves one region more than vCPUs.
    this.empty = tlbBase + vcpuMax * TLB_BYTES_PER_VCPU;
    const first = this.empty / 4;
    this.#i32.fill(-1, first, first + TLB_BYTES_PER_VCPU / 4);
    for (let at = first; at < first + DATA_WORDS; at += TLB_ENTRY_BYTES / 4) {
      this.#i32[at + TLB_MASK / 4] = -PAGE_SIZE;
    }
  }

  /** Empties words of a context's TLBs, given by their offset. */
  #empty(context: CpuContext, offset: number, count: number): void {
    const from = this.empty / 4 + offset;
    this.#i32.copyWithin(context.tlbBase / 4 + offset, from, from + count);
  }

  /** A context that will run, before it first does: its TLBs begin empty. */
  register(context: CpuContext): void {
    this.#contexts.push(context);
    this.flush(context);
  }

  unregister(context: CpuContext): void {
    const at = this.#contexts.indexOf(context);
    if (at >= 0) this.#contexts.splice(at, 1);
  }

  /** Contexts of the same VM. */
  sharing(vmid: number): readonly CpuContext[] {
    return this.#contexts.filter((context) => context.vmid === vmid);
  }

  fill(context: CpuContext, fill: TlbFill): void {
    const t = this.#i32;
    const index = (fill.vaLow >>> 12) & (TLB_ENTRIES - 1);
    const at = (fill.tlb + (index << TLB_ENTRY_SHIFT)) / 4;
    const tagLow = fill.vaLow & -PAGE_SIZE;
    const maskHigh = fill.ignoreTop ? HIGH_MASK : -1;
    const tagHigh = fill.vaHigh & maskHigh;
    t[at + TLB_READ_TAG / 4] = fill.read ? tagLow : -1;
    t[at + TLB_READ_TAG / 4 + 1] = fill.read ? tagHigh : -1;
    t[at + TLB_WRITE_TAG / 4] = fill.write ? tagLow : -1;
    t[at + TLB_WRITE_TAG / 4 + 1] = fill.write ? tagHigh : -1;
    t[at + TLB_DELTA / 4] = (fill.page - tagLow) | 0;
    const size = sizeClass(fill.pageBytes) << ENTRY_SIZE_SHIFT;
    t[at + TLB_FLAGS / 4] = fill.flags | (fill.global ? ENTRY_GLOBAL : 0) | size;
    t[at + TLB_MASK / 4] = -PAGE_SIZE;
    t[at + TLB_MASK / 4 + 1] = maskHigh;
    if (!fill.global) context.hasNonGlobal = true;
    if (fill.pageBytes > PAGE_SIZE) context.large |= halfOf(fill.vaHigh);
  }

  fillFetch(
    context: CpuContext,
    high: number,
    low: number,
    records: number,
    global: boolean,
    pageBytes: number,
  ): void {
    const t = this.#i32;
    const index = (low >>> 12) & (FETCH_TLB_ENTRIES - 1);
    const at = (t[S.FETCH_TLB / 4]! + (index << FETCH_TLB_ENTRY_SHIFT)) / 4;
    t[at] = low & -PAGE_SIZE;
    t[at + 1] = high;
    t[at + FETCH_RECORDS / 4] = records;
    t[at + FETCH_GLOBAL / 4] = (global ? 1 : 0) | (sizeClass(pageBytes) << 8);
    if (!global) context.hasNonGlobal = true;
    if (pageBytes > PAGE_SIZE) context.large |= halfOf(high);
  }

  /** Empties every TLB of a context. */
  flush(context: CpuContext): void {
    this.#empty(context, 0, TLB_BYTES_PER_VCPU / 4);
    context.hasNonGlobal = false;
    context.large = 0;
  }

  /** Drops what belongs to an address space: entries that are not global. */
  flushNonGlobal(context: CpuContext): void {
    if (!context.hasNonGlobal) return;
    context.hasNonGlobal = false;
    const t = this.#i32;
    const first = context.tlbBase / 4;
    // EL0's entries are hardly ever global; EL1's mostly are.
    this.#empty(context, 0, TLB_BYTES / 4);
    for (let at = first + TLB_BYTES / 4; at < first + DATA_WORDS; at += TLB_ENTRY_BYTES / 4) {
      if ((t[at + TLB_FLAGS / 4]! & ENTRY_GLOBAL) === 0) dropEntry(t, at);
    }
    const fetch = first + FETCH_TLB_OFFSET / 4;
    this.#empty(context, FETCH_TLB_OFFSET / 4, FETCH_TLB_BYTES / 4);
    for (let i = 0; i < FETCH_TLB_ENTRIES; i++) {
      const at = fetch + FETCH_TLB_BYTES / 4 + i * 4;
      if ((t[at + FETCH_GLOBAL / 4]! & 1) === 0) dropFetch(t, at);
    }
  }

  /** Drops the entries that translate a VA, given by bits 55:12; any ASID. */
  flushPage(context: CpuContext, vaHigh: number, vaLow: number): void {
    const t = this.#i32;
    const first = context.tlbBase / 4;
    if ((context.large & halfOf(vaHigh)) !== 0) {
      this.#flushLarge(context, vaHigh, vaLow);
      return;
    }
    const index = (vaLow >>> 12) & (TLB_ENTRIES - 1);
    for (let mode = 0; mode < TLB_MODE_COUNT; mode++) {
      dropEntry(t, first + (mode * TLB_BYTES + (index << TLB_ENTRY_SHIFT)) / 4);
    }
    const fetchIndex = (vaLow >>> 12) & (FETCH_TLB_ENTRIES - 1);
    for (let el = 0; el < 2; el++) {
      const fetch = FETCH_TLB_OFFSET + el * FETCH_TLB_BYTES + (fetchIndex << FETCH_TLB_ENTRY_SHIFT);
      dropFetch(t, first + fetch / 4);
    }
  }

  /** The same where some entries are parts of blocks, which go as a whole. */
  #flushLarge(context: CpuContext, vaHigh: number, vaLow: number): void {
    const t = this.#i32;
    const first = context.tlbBase / 4;
    for (let at = first; at < first + DATA_WORDS; at += TLB_ENTRY_BYTES / 4) {
      if (t[at] === -1) continue;
      const class_ = t[at + TLB_FLAGS / 4]! >> ENTRY_SIZE_SHIFT;
      if (covers(t[at + 1]!, t[at]!, class_, vaHigh, vaLow)) dropEntry(t, at);
    }
    const fetch = first + FETCH_TLB_OFFSET / 4;
    for (let at = fetch; at < fetch + FETCH_TLB_BYTES / 2; at += 4) {
      const class_ = t[at + FETCH_GLOBAL / 4]! >> 8;
      if (covers(t[at + 1]!, t[at]!, class_, vaHigh, vaLow)) dropFetch(t, at);
    }
  }

  /** Takes write permission from every entry of a RAM page: it begins to hold code. */
  purgeWrites(linearPage: number): void {
    const t = this.#i32;
    const page = linearPage | 0;
    for (const context of this.#contexts) {
      const first = context.tlbBase / 4;
      for (let at = first; at < first + DATA_WORDS; at += TLB_ENTRY_BYTES / 4) {
        if (((t[at]! + t[at + TLB_DELTA / 4]!) | 0) !== page) continue;
        t[at + TLB_WRITE_TAG / 4] = -1;
        t[at + TLB_WRITE_TAG / 4 + 1] = -1;
      }
    }
  }

  /** Empties every fetch TLB: record pages moved. */
  flushFetches(): void {
    for (const context of this.#contexts) {
      const first = (context.tlbBase + FETCH_TLB_OFFSET) / 4;
      this.#i32.fill(-1, first, first + FETCH_TLB_BYTES / 2);
    }
  }

  /** Every TLB of every context. */
  flushAll(): void {
    for (const context of this.#contexts) this.flush(context);
  }
}

/** Makes a data entry match nothing. (A `fill` of four words costs ten times as much.) */
function dropEntry(t: Int32Array, at: number): void {
  t[at] = -1;
  t[at + 1] = -1;
  t[at + 2] = -1;
  t[at + 3] = -1;
}

function dropFetch(t: Int32Array, at: number): void {
  t[at] = -1;
  t[at + 1] = -1;
}

/** 0 for a page, 1 up to 2 MiB, 2 up to 1 GiB, 3 beyond. */
function sizeClass(pageBytes: number): number {
  if (pageBytes <= PAGE_SIZE) return 0;
  if (pageBytes <= 2 * 1024 * 1024) return 1;
  return pageBytes <= 1024 * 1024 * 1024 ? 2 : 3;
}

/** Bit 0 for the lower half of the VA space, bit 1 for the upper: VA bit 55. */
const halfOf = (high: number): number => ((high & (1 << 23)) !== 0 ? 2 : 1);

const CLASS_MASK = [-4096, -0x200000, -0x40000000, 0];

/** Whether a mapping of a size class around `high:low` holds the VA (bits 55 and below count). */
function covers(high: number, low: number, class_: number, vaHigh: number, vaLow: number): boolean {
  const mask = CLASS_MASK[class_ & 3]!;
  return ((high ^ vaHigh) & HIGH_MASK) === 0 && ((low ^ vaLow) & mask) === 0;
}
