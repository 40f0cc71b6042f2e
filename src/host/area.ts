/**
 * The areas of an address space (Linux: VMAs): which addresses are mapped, to what, with which
 * rights. Plain data and a sorted list; pages, tables and faults are not known here. Used by
 * `address-space.ts` and, read-only, by KVM when it judges a memslot.
 *
 * Invariants: areas are page-aligned, not empty, sorted by start and do not overlap.
 */
import { assert, type Hva, hva } from '../base/index.ts';
import type { DeviceFile, ShmemFile } from './file.ts';

/** What an area is and permits, as bits of `Area.flags`. Linux: VM_READ and so on. */
export const VmFlag = {
  read: 0x1,
  write: 0x2,
  exec: 0x4,
  /** Stores go to the file, not to a private copy. Linux: VM_SHARED. */
  shared: 0x8,
  /** Mapped Tagged (PROT_MTE). Linux: VM_MTE. */
  mte: 0x10,
  /** Could be mapped Tagged. Linux: VM_MTE_ALLOWED. */
  mteAllowed: 0x20,
  /** Shows physical addresses that are not memory. Linux: VM_PFNMAP. */
  pfnMap: 0x40,
  /** A guest may choose any uncached memory type. Linux: VM_ALLOW_ANY_UNCACHED. */
  allowAnyUncached: 0x80,
  /** Made of 2 MiB pages that are never split. Linux: VM_HUGETLB. */
  hugetlb: 0x100,
  /** Missing pages are supplied by the process. Linux: VM_UFFD_MISSING. */
  uffdMissing: 0x200,
  /** Pages may be merged with others of the same data. Linux: VM_MERGEABLE. */
  mergeable: 0x400,
} as const;

/** Bits that `mprotect` replaces; it can add `mte` and never takes it away. */
export const VM_ACCESS_FLAGS = VmFlag.read | VmFlag.write | VmFlag.exec;

/** What an area shows. Offsets are bytes from the start of the file to the start of the area. */
export type Backing =
  | { readonly kind: 'anonymous' }
  | { readonly kind: 'shmem'; readonly file: ShmemFile; readonly offset: number }
  | { readonly kind: 'device'; readonly file: DeviceFile; readonly offset: number };

export interface Area {
  readonly start: Hva;
  /** The first address behind the area. */
  readonly end: Hva;
  readonly flags: number;
  readonly backing: Backing;
}

/** The part of `area` from `start` to `end`. */
export function sliceArea(area: Area, start: number, end: number): Area {
  assert(start >= area.start && end <= area.end && start < end, 'a slice lies in its area');
  return { ...area, start: hva(start), end: hva(end), backing: backingAt(area, start) };
}

/** The backing of an area that would begin at `start` inside `area`. */
function backingAt(area: Area, start: number): Backing {
  const { backing } = area;
  if (backing.kind === 'anonymous' || start === area.start) return backing;
  return { ...backing, offset: backing.offset + (start - area.start) };
}

/** Whether `next` continues `area`: adjacent, the same rights, the file going on. */
function continues(area: Area, next: Area): boolean {
  if (area.end !== next.start || area.flags !== next.flags) return false;
  if (area.backing.kind === 'anonymous') return next.backing.kind === 'anonymous';
  return (
    area.backing.kind === next.backing.kind &&
    area.backing.file === next.backing.file &&
    area.backing.offset + (area.end - area.start) === next.backing.offset
  );
}

export class AreaList {
  #areas: Area[] = [];
  /** The area found last; most look-ups hit it again. */
  #last: Area | undefined;

  get all(): readonly Area[] {
    return this.#areas;
  }

  /** The area that holds `address`. Linux: vma_lookup(). */
  at(address: number): Area | undefined {
    const last = this.#last;
    if (last !== undefined && address >= last.start && address < last.end) return last;
    const found = this.#areas[this.#indexAfter(address)];
    if (found === undefined || address < found.start) return undefined;
    this.#last = found;
    return found;
  }

  /** The areas that share an address with `start … end`, in order. */
  *within(start: number, end: number): Generator<Area> {
    for (let i = this.#indexAfter(start); i < this.#areas.length; i++) {
      const area = this.#areas[i]!;
      if (area.start >= end) return;
      yield area;
    }
  }

  /** Whether every address of `start … end` lies in an area. */
  covers(start: number, end: number): boolean {
    let at = start;
    for (const area of this.within(start, end)) {
      if (area.start > at) return false;
      at = area.end;
    }
    return at >= end;
  }

  /**
   * Replaces what lies in `start … end` by `areas` (sorted, inside the range), cutting areas that
   * reach over its ends and joining neighbours that continue each other.
   */
  replace(start: number, end: number, areas: readonly Area[]): void {
    const first = this.#indexAfter(start);
    let last = first;
    while (last < this.#areas.length && this.#areas[last]!.start < end) last++;
    const pieces: Area[] = [];
    // The neighbours on both sides take part, so that they can be joined.
    const from = Math.max(0, first - 1);
    const to = Math.min(this.#areas.length, last + 1);
    for (const area of this.#areas.slice(from, to)) {
      if (area.start < start) push(pieces, sliceArea(area, area.start, Math.min(area.end, start)));
    }
    for (const area of areas) push(pieces, area);
    for (const area of this.#areas.slice(from, to)) {
      if (area.end > end) push(pieces, sliceArea(area, Math.max(area.start, end), area.end));
    }
    this.#areas.splice(from, to - from, ...pieces);
    this.#last = undefined;
  }

  /** The highest free range of `sizeBytes` below `ceiling`, aligned; -1 when there is none. */
  freeBelow(ceiling: number, floor: number, sizeBytes: number, align: number): Hva | -1 {
    let end = ceiling;
    for (let i = this.#areas.length; i >= 0; i--) {
      const area = i > 0 ? this.#areas[i - 1]! : undefined;
      const start = Math.floor((end - sizeBytes) / align) * align;
      if (start < floor) return -1;
      if (area === undefined || start >= area.end) return hva(start);
      end = Math.min(end, area.start);
    }
    return -1;
  }

  /** Index of the first area that ends above `address`. */
  #indexAfter(address: number): number {
    let low = 0;
    let high = this.#areas.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#areas[middle]!.end <= address) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Appends `area`, joined to the last one where it continues it. */
function push(areas: Area[], area: Area): void {
  const last = areas.at(-1);
  if (last !== undefined && continues(last, area)) {
    areas[areas.length - 1] = { ...last, end: area.end };
  } else {
    areas.push(area);
  }
}
