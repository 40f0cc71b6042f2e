/**
 * Page-out: which pages may leave memory, and how one leaves. MADV_PAGEOUT and `Host.reclaim` come
 * here, and the allocator when memory runs short. Private pages that one process alone has, and
 * pages of shared-memory files; never device memory, hugetlb pages, the zero page, or a page that
 * somebody holds a reference on. 2 MiB pages are split (Linux before 6.10 did so where it had MTE).
 *
 * KVM and the process's own translations hear of it as of any lost mapping; the guest faults, and
 * the page comes back through `fault.ts` with its tags.
 */
import { type Hva, hva, PAGE_SIZE } from '../base/index.ts';
import type { AddressSpace } from './address-space.ts';
import { type Area, VmFlag } from './area.ts';
import { isRefusal } from './errno.ts';
import type { Host } from './host.ts';

/**
 * Pages out what is mapped at `at` (page-aligned) in `area`; whether a frame is free now. Linux:
 * reclaim_folio_list(), as far as madvise_cold_or_pageout_pte_range() lets it.
 */
function pageOut(space: AddressSpace, area: Area, at: Hva): boolean {
  const { swap, frames, zeroPage } = space.host;
  const { backing } = area;
  if (swap === undefined || backing.kind === 'device') return false;
  if ((area.flags & VmFlag.hugetlb) !== 0) return false;
  const mapping = space.table.lookup(at);
  if (mapping === undefined || mapping.pa === zeroPage) return false;
  if (backing.kind === 'shmem') {
    const offset = backing.offset + (at - area.start);
    if (backing.file.peek(offset) === mapping.pa) return backing.file.pageOut(offset);
  }
  if (!frames.isExclusive(mapping.pa)) return false;
  const slot = swap.store(mapping.pa);
  if (isRefusal(slot)) return false;
  if (!space.zap(at, hva(at + PAGE_SIZE))) {
    swap.put(slot);
    return false;
  }
  space.swapped.set(at, slot);
  return true;
}

/** What is left of a range when some of it has been paged out. */
interface Progress {
  readonly freed: number;
  /** The address behind the last page that was freed, or the end of the range. */
  readonly next: Hva;
}

/** Pages out what it can of `start … end` in `area`, at most `pageCount` pages. */
function pageOutRange(
  space: AddressSpace,
  area: Area,
  range: { readonly start: number; readonly end: number; readonly pageCount: number },
): Progress {
  let freed = 0;
  for (const mapping of space.table.mappings(range.start, range.end)) {
    const from = Math.max(mapping.start, range.start);
    const to = Math.min(mapping.start + mapping.sizeBytes, range.end);
    for (let at = hva(from); at < to; at = hva(at + PAGE_SIZE)) {
      if (!pageOut(space, area, at)) continue;
      freed++;
      if (freed === range.pageCount) return { freed, next: hva(at + PAGE_SIZE) };
    }
  }
  return { freed, next: hva(range.end) };
}

/**
 * MADV_PAGEOUT of `start … end` in `area`: pages that no other process maps. Linux:
 * madvise_pageout().
 */
export function adviseAway(space: AddressSpace, area: Area, start: Hva, end: Hva): void {
  const { frames } = space.host;
  for (const { start: at, startPa, sizeBytes } of space.table.mappings(start, end)) {
    const fromFile = sizeBytes === PAGE_SIZE && area.backing.kind === 'shmem';
    // The file has one reference and this mapping another.
    if (fromFile && frames.references(startPa) > 2) continue;
    const range = { start: Math.max(at, start), end: Math.min(at + sizeBytes, end) };
    pageOutRange(space, area, { ...range, pageCount: Number.POSITIVE_INFINITY });
  }
}

/**
 * The hand of the clock that goes round all pages of all processes. There is no record of what was
 * used when: the page that was looked at longest ago goes first.
 */
export class Reclaimer {
  readonly #host: Host;
  /** Where the hand stands: a process, and the address to go on from. */
  #space: AddressSpace | undefined;
  #next: Hva = hva(0);
  #running = false;

  constructor(host: Host) {
    this.#host = host;
  }

  /**
   * Pages out until `pageCount` frames have been freed or the hand has gone round once; returns how
   * many. Not entered again from within. Linux: try_to_free_pages().
   */
  reclaim(pageCount: number): number {
    if (this.#running || this.#host.swap === undefined) return 0;
    this.#running = true;
    const freed = this.#turn(pageCount);
    this.#running = false;
    return freed;
  }

  #turn(pageCount: number): number {
    const spaces = [...this.#host.processes];
    if (spaces.length === 0) return 0;
    const first = Math.max(0, this.#space === undefined ? 0 : spaces.indexOf(this.#space));
    const from = spaces[first] === this.#space ? this.#next : hva(0);
    let freed = 0;
    // The process of the hand comes twice: its upper part first, its lower part at the end.
    for (let i = 0; i <= spaces.length && freed < pageCount; i++) {
      const space = spaces[(first + i) % spaces.length]!;
      const start = i === 0 ? from : hva(0);
      const end = i === spaces.length ? from : undefined;
      freed += this.#sweep(space, { start, end, pageCount: pageCount - freed });
    }
    return freed;
  }

  #sweep(
    space: AddressSpace,
    range: { start: Hva; end: Hva | undefined; pageCount: number },
  ): number {
    let freed = 0;
    this.#space = space;
    for (const area of [...space.areas.all]) {
      const from = Math.max(area.start, range.start);
      const to = Math.min(area.end, range.end ?? area.end);
      if (from >= to) continue;
      const left = range.pageCount - freed;
      const done = pageOutRange(space, area, { start: from, end: to, pageCount: left });
      freed += done.freed;
      this.#next = done.next;
      if (done.freed === left) return freed;
    }
    this.#next = hva(0);
    return freed;
  }
}
