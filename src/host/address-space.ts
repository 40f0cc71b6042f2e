/**
 * A host process's memory (Linux: struct mm_struct): areas, the stage-1 tables that show them, and
 * the watchers who must hear before a translation goes away. A VMM maps guest memory here; KVM
 * finds pages through `faultIn` and nothing else. Pages come on first touch (`fault.ts`); the
 * process's own loads and stores go through `memory` (`user-memory.ts`).
 *
 * Invariants: what the tables map lies in an area and permits no more than the area does; each
 * present page, those of device files apart, holds one reference on its frames; tags of a frame are
 * initialised before a Tagged mapping shows it; watchers are told before a mapping is removed,
 * replaced or loses rights.
 */
import {
  alignDown,
  alignUp,
  assert,
  BLOCK_SIZE,
  type Hva,
  hva,
  isAligned,
  PAGE_SIZE,
  type Pa,
  pa,
} from '../base/index.ts';
import { type Area, AreaList, sliceArea, VM_ACCESS_FLAGS, VmFlag } from './area.ts';
import { Errno, isRefusal, type Refusal, refuse } from './errno.ts';
import { handleFault } from './fault.ts';
import { ShmemFile } from './file.ts';
import { copyAddressSpace } from './fork.ts';
import type { Host } from './host.ts';
import { isMergeable, unmergeRange } from './ksm.ts';
import {
  accessFlags,
  isValidProtection,
  Madvise,
  MapFlag,
  type MmapRequest,
  planMapping,
  TASK_SIZE,
} from './mmap.ts';
import { type MremapRequest, mremap } from './mremap.ts';
import { adviseAway } from './reclaim.ts';
import { SwappedPages } from './swapped-pages.ts';
import { UserMemory } from './user-memory.ts';
import { type UserMapping, UserTable } from './user-table.ts';
import { Userfault } from './userfault.ts';

/** Where areas are placed from, downwards. */
const MMAP_TOP = 0xffff_f000_0000;
/** Nothing is mapped below. Linux: vm.mmap_min_addr. */
const MMAP_FLOOR = 0x1_0000;

const ADVICE: readonly number[] = Object.values(Madvise);

/** Who must drop translations of an address space before it changes. Linux: struct mmu_notifier. */
export interface MmuNotifier {
  /** The mappings of `start … end` are about to go, to be replaced or to lose rights. */
  invalidateRange(start: Hva, end: Hva): void;
}

/** A page of a process, as KVM takes it. */
export interface UserPage {
  /** Where the page that holds the address begins. */
  readonly pa: Pa;
  /** Bytes that the process's tables map as one, aligned, around it: 4 KiB or 2 MiB. */
  readonly sizeBytes: number;
  /** The process could store to it without a fault. */
  readonly writable: boolean;
  readonly area: Area;
}

export class AddressSpace {
  readonly host: Host;
  readonly areas = new AreaList();
  readonly table: UserTable;
  /** Loads and stores of the process. */
  readonly memory: UserMemory;
  /** Pages that the process supplies itself when they are missing. */
  readonly userfault: Userfault;
  /**
   * Pages that an access did not get yet (EAGAIN), by address; it may try again when its page is
   * here no longer.
   */
  readonly awaited = new Set<number>();
  /** Private pages that are in swap. */
  readonly swapped = new SwappedPages();
  readonly #notifiers = new Set<MmuNotifier>();

  constructor(host: Host) {
    this.host = host;
    this.table = new UserTable(host.frames);
    this.memory = new UserMemory(this);
    this.userfault = new Userfault(this);
    host.processes.add(this);
  }

  /**
   * Makes an area and returns its address. Refused with EINVAL, EBADF, EEXIST, ENOMEM and
   * EOVERFLOW as Linux does. Linux: mmap().
   */
  mmap(request: MmapRequest): Hva | Refusal {
    const plan = planMapping(request, {
      mte: this.host.cpu.mte,
      anonymousFile: (sizeBytes, hugetlb) => {
        const file = new ShmemFile(this.host, { sizeBytes, hugetlb });
        file.close();
        return file;
      },
    });
    if (typeof plan === 'number') return plan;
    const at = this.#place(request, plan.sizeBytes, plan.flags);
    if (isRefusal(at)) return at;
    const start = hva(at);
    const end = hva(start + plan.sizeBytes);
    const area = { start, end, flags: plan.flags, backing: plan.backing };
    return this.replaceAreas(start, end, [area]) ? start : refuse(Errno.ENOMEM);
  }

  /** Removes what is mapped in the range. EINVAL for a bad range, ENOMEM. Linux: munmap(). */
  munmap(start: Hva, length: number): 0 | Refusal {
    const end = hva(start + alignUp(length, PAGE_SIZE));
    if (!isAligned(start, PAGE_SIZE) || length <= 0 || start < 0 || end > TASK_SIZE) {
      return refuse(Errno.EINVAL);
    }
    if (this.#splitsHugePage(start, end)) return refuse(Errno.EINVAL);
    return this.replaceAreas(start, end, []) ? 0 : refuse(Errno.ENOMEM);
  }

  /**
   * Changes rights; PROT_MTE is only ever added. Stops at the first area that refuses, with what
   * came before changed: EINVAL (PROT_MTE not possible), ENOMEM (a hole, no memory for tables).
   * Linux: mprotect().
   */
  mprotect(start: Hva, length: number, prot: number): 0 | Refusal {
    if (!isAligned(start, PAGE_SIZE)) return refuse(Errno.EINVAL);
    if (length === 0) return 0;
    const end = hva(start + alignUp(length, PAGE_SIZE));
    if (length < 0 || end > TASK_SIZE) return refuse(Errno.ENOMEM);
    if (!isValidProtection(prot, this.host.cpu.mte)) return refuse(Errno.EINVAL);
    const access = accessFlags(prot, this.host.cpu.mte);
    let at: number = start;
    for (const area of [...this.areas.within(start, end)]) {
      if (area.start > at) return refuse(Errno.ENOMEM);
      const from = hva(Math.max(area.start, start));
      const to = hva(Math.min(area.end, end));
      if ((access & VmFlag.mte) !== 0 && (area.flags & VmFlag.mteAllowed) === 0) {
        return refuse(Errno.EINVAL);
      }
      if (this.#splitsHugePage(from, to)) return refuse(Errno.EINVAL);
      const changed = {
        ...sliceArea(area, from, to),
        flags: (area.flags & ~VM_ACCESS_FLAGS) | access,
      };
      if (changed.flags !== area.flags && !this.#reprotect(changed)) return refuse(Errno.ENOMEM);
      at = to;
    }
    return at < end ? refuse(Errno.ENOMEM) : 0;
  }

  /**
   * MADV_DONTNEED: pages of the range go; anonymous memory reads as zero (data and tags), file
   * pages come back from the file. MADV_REMOVE punches a hole into the file of a shared mapping.
   * MADV_PAGEOUT swaps out what can be. MADV_MERGEABLE offers equal pages to `ksm.ts`,
   * MADV_UNMERGEABLE takes that back. EINVAL (device memory, unknown advice, hugetlb pages paged
   * out, a hole punched into no file), EACCES (a hole punched through a private mapping), ENOMEM (a
   * hole). Linux: madvise().
   */
  madvise(start: Hva, length: number, advice: number): 0 | Refusal {
    if (!isAligned(start, PAGE_SIZE) || length < 0) return refuse(Errno.EINVAL);
    if (!ADVICE.includes(advice)) return refuse(Errno.EINVAL);
    const end = hva(start + alignUp(length, PAGE_SIZE));
    for (const area of [...this.areas.within(start, end)]) {
      const from = hva(Math.max(area.start, start));
      const to = hva(Math.min(area.end, end));
      if ((area.flags & VmFlag.pfnMap) !== 0 || this.#splitsHugePage(from, to)) {
        return refuse(Errno.EINVAL);
      }
      const refusal = this.#advise(area, from, to, advice);
      if (refusal !== 0) return refusal;
    }
    return this.areas.covers(start, end) ? 0 : refuse(Errno.ENOMEM);
  }

  /**
   * A copy of this process's memory: shared areas stay shared, private pages are copied when
   * either side writes, tags with them. ENOMEM when tables cannot be made. Linux: dup_mmap().
   */
  fork(): AddressSpace | Refusal {
    const child = new AddressSpace(this.host);
    if (!copyAddressSpace(this, child)) {
      child.destroy();
      return refuse(Errno.ENOMEM);
    }
    return child;
  }

  /** Grows, shrinks or moves a mapping with its pages and tags; see `mremap.ts`. */
  mremap(request: MremapRequest): Hva | Refusal {
    return mremap(this, request);
  }

  /** Gives back every page and the tables; the address space is not used again. */
  destroy(): void {
    this.replaceAreas(hva(0), hva(TASK_SIZE), []);
    this.table.destroy();
    this.host.processes.delete(this);
  }

  /** Tells `notifier` of changes from now on; returns what ends it. */
  watch(notifier: MmuNotifier): () => void {
    this.#notifiers.add(notifier);
    return () => this.#notifiers.delete(notifier);
  }

  /**
   * The page at `address`, brought in for reading or writing as the process itself would.
   * EFAULT: no area, or none that permits it; EAGAIN: the page is on its way (`awaited`); ENOMEM;
   * what a handler of missing pages refuses with. Takes no reference: whoever keeps the PA watches
   * the address space. Linux: hva_to_pfn().
   */
  faultIn(address: Hva, access: { readonly write: boolean }): UserPage | Refusal {
    const area = this.areas.at(address);
    if (area === undefined) return refuse(Errno.EFAULT);
    const needed = access.write ? VmFlag.write : VmFlag.read;
    if ((area.flags & needed) === 0) return refuse(Errno.EFAULT);
    let mapping = this.table.lookup(address);
    while (mapping === undefined || (access.write && !mapping.writable)) {
      const refusal = handleFault(this, { area, address, write: access.write, mapping });
      if (refusal !== 0) return refusal;
      mapping = this.table.lookup(address);
    }
    const { pa, sizeBytes, writable } = mapping;
    return { pa: alignDown(pa, PAGE_SIZE), sizeBytes, writable, area };
  }

  /** Where the page at `address` is. Linux: /proc/PID/pagemap. */
  pageState(address: Hva): 'none' | 'present' | 'swapped' {
    if (this.table.lookup(address) !== undefined) return 'present';
    if (this.swapped.get(alignDown(address, PAGE_SIZE)) !== undefined) return 'swapped';
    const area = this.areas.at(address);
    if (area?.backing.kind !== 'shmem') return 'none';
    const { file, offset } = area.backing;
    return file.slotOf(offset + (address - area.start)) === undefined ? 'none' : 'swapped';
  }

  /**
   * Drops the pages of the range from the tables and from swap, and this process's references on
   * them. False: no memory to split a block, nothing changed.
   */
  zap(start: Hva, end: Hva): boolean {
    const pages: UserMapping[] = [];
    for (const area of this.areas.within(start, end)) {
      if (area.backing.kind === 'device') continue;
      const from = Math.max(area.start, start);
      for (const page of this.table.mappings(from, Math.min(area.end, end))) pages.push(page);
    }
    this.#willInvalidate(start, end);
    if (!this.table.unmap(start, end - start)) return false;
    for (const [, slot] of this.swapped.take(start, end)) this.host.swap?.put(slot);
    for (const { start: at, startPa, sizeBytes } of pages) {
      const from = Math.max(at, start);
      const to = Math.min(at + sizeBytes, end);
      this.host.frames.put(pa(startPa + (from - at)), to - from);
    }
    return true;
  }

  /** Drops the pages that show `file` from byte `offset` to `end`; private copies stay. */
  unmapFilePages(file: ShmemFile, offset: number, end: number): void {
    for (const area of this.areas.all) {
      const { backing } = area;
      if (backing.kind !== 'shmem' || backing.file !== file) continue;
      const from = Math.max(area.start, area.start + (offset - backing.offset));
      const to = Math.min(area.end, area.start + (end - backing.offset));
      if (from >= to) continue;
      if ((area.flags & VmFlag.shared) !== 0) this.zap(hva(from), hva(to));
      else this.#zapFileOriginals(area, from, to);
    }
  }

  /**
   * Maps `page` at `at`, Tagged where the area is; the caller's reference becomes the mapping's.
   */
  install(area: Area, at: Hva, page: Pa, sizeBytes: number, writable: boolean): 0 | Refusal {
    const tagged = (area.flags & VmFlag.mte) !== 0;
    if (this.host.swapTags.looks(tagged)) this.host.statistics.tagLookCount++;
    if (tagged) this.host.frames.initialiseTags(page, sizeBytes);
    if (this.table.map(area, at, page, sizeBytes, writable)) return 0;
    if (area.backing.kind !== 'device') this.host.frames.put(page, sizeBytes);
    return refuse(Errno.ENOMEM);
  }

  /** Whether the 2 MiB from `start` hold no page, in the tables or in swap. */
  isEmptyBlock(start: Hva): boolean {
    return this.table.isEmptyBlock(start) && !this.swapped.hasAny(start, start + BLOCK_SIZE);
  }

  /** Lets stores through to what is mapped from `at`. ENOMEM: a block could not be split. */
  allowWrites(at: Hva, sizeBytes: number): 0 | Refusal {
    this.memory.forgetTranslations();
    return this.table.setWritable(at, sizeBytes, true) ? 0 : refuse(Errno.ENOMEM);
  }

  /**
   * Puts `areas` in place of what the range holds, and keeps the files' lists of mappers right.
   * False: no memory to split a block, nothing changed.
   */
  replaceAreas(start: Hva, end: Hva, areas: readonly Area[]): boolean {
    const before = [...this.areas.within(start, end)];
    if (before.length > 0 && !this.zap(start, end)) return false;
    this.areas.replace(start, end, areas);
    this.userfault.rangeUnmapped(start, end);
    for (const page of this.awaited) if (page >= start && page < end) this.awaited.delete(page);
    for (const { backing } of areas) if (backing.kind === 'shmem') backing.file.attach(this);
    for (const { backing } of before) {
      if (backing.kind === 'shmem' && !this.#maps(backing.file)) backing.file.detach(this);
    }
    return true;
  }

  /**
   * A free place for `sizeBytes`; large ones lie so that 2 MiB pages fit. ENOMEM: there is none.
   * Linux: thp_get_unmapped_area().
   */
  findRoom(sizeBytes: number): Hva | Refusal {
    const align = sizeBytes >= BLOCK_SIZE ? BLOCK_SIZE : PAGE_SIZE;
    const found = this.areas.freeBelow(MMAP_TOP, MMAP_FLOOR, sizeBytes, align);
    return found === -1 ? refuse(Errno.ENOMEM) : found;
  }

  /**
   * Takes the right to write from what is mapped in the range: the next store asks `fault.ts`.
   * False: no memory to split a block, nothing changed.
   */
  writeProtect(start: Hva, end: Hva): boolean {
    this.#willInvalidate(start, end);
    return this.table.setWritable(start, end - start, false);
  }

  /**
   * Sets or clears a flag that no table entry shows, in all areas of the range; where they are cut,
   * so are blocks. ENOMEM: nothing changed.
   */
  setFlags(start: Hva, end: Hva, flag: number, on: boolean): 0 | Refusal {
    if (!this.table.splitAt(start) || !this.table.splitAt(end)) return refuse(Errno.ENOMEM);
    for (const area of [...this.areas.within(start, end)]) {
      const piece = sliceArea(area, Math.max(start, area.start), Math.min(end, area.end));
      const flags = on ? piece.flags | flag : piece.flags & ~flag;
      this.areas.replace(piece.start, piece.end, [{ ...piece, flags }]);
    }
    return 0;
  }

  /** Carries out an advice for a part of an area. */
  #advise(area: Area, start: Hva, end: Hva, advice: number): 0 | Refusal {
    const { backing } = area;
    switch (advice) {
      case Madvise.dontNeed:
        return this.zap(start, end) ? 0 : refuse(Errno.ENOMEM);
      case Madvise.pageOut:
        if ((area.flags & VmFlag.hugetlb) !== 0) return refuse(Errno.EINVAL);
        adviseAway(this, area, start, end);
        return 0;
      case Madvise.mergeable:
        return isMergeable(area) ? this.setFlags(start, end, VmFlag.mergeable, true) : 0;
      case Madvise.unmergeable:
        if (!unmergeRange(this, start, end)) return refuse(Errno.ENOMEM);
        return this.setFlags(start, end, VmFlag.mergeable, false);
      default:
        // MADV_REMOVE.
        if (backing.kind !== 'shmem') return refuse(Errno.EINVAL);
        if ((area.flags & VmFlag.shared) === 0) return refuse(Errno.EACCES);
        backing.file.punchHole(backing.offset + (start - area.start), end - start);
        return 0;
    }
  }

  /** Where a new area goes, or why it cannot. Linux: get_unmapped_area(). */
  #place(request: MmapRequest, sizeBytes: number, flags: number): number {
    const { address } = request;
    const fixed = (request.flags & (MapFlag.fixed | MapFlag.fixedNoReplace)) !== 0;
    const pageBytes = (flags & VmFlag.hugetlb) !== 0 ? BLOCK_SIZE : PAGE_SIZE;
    if (fixed) {
      if (address === undefined || !isAligned(address, pageBytes)) return refuse(Errno.EINVAL);
      if (address + sizeBytes > TASK_SIZE) return refuse(Errno.ENOMEM);
      if (address < MMAP_FLOOR) return refuse(Errno.EPERM);
      const taken = !this.areas.within(address, address + sizeBytes).next().done;
      if (taken && (request.flags & MapFlag.fixedNoReplace) !== 0) return refuse(Errno.EEXIST);
      return this.#splitsHugePage(address, address + sizeBytes) ? refuse(Errno.EINVAL) : address;
    }
    if (address !== undefined) {
      const hint = alignUp(address, pageBytes);
      const free = this.areas.within(hint, hint + sizeBytes).next().done;
      if (free && hint >= MMAP_FLOOR && hint + sizeBytes <= TASK_SIZE) return hint;
    }
    return this.findRoom(sizeBytes);
  }

  #maps(file: ShmemFile): boolean {
    return this.areas.all.some((a) => a.backing.kind === 'shmem' && a.backing.file === file);
  }

  /** Whether `start` or `end` lies inside a hugetlb page, which cannot be split. */
  #splitsHugePage(start: number, end: number): boolean {
    for (const edge of [start, end]) {
      const area = this.areas.at(edge);
      const inside = area !== undefined && edge > area.start;
      if (inside && (area.flags & VmFlag.hugetlb) !== 0 && !isAligned(edge, BLOCK_SIZE))
        return true;
    }
    return false;
  }

  /** Brings areas and tables in line with new rights. Linux: mprotect_fixup(). */
  #reprotect(area: Area): boolean {
    this.#willInvalidate(area.start, area.end);
    if (!this.table.protect(area)) return false;
    this.areas.replace(area.start, area.end, [area]);
    if ((area.flags & VmFlag.mte) !== 0) {
      for (const { startPa, sizeBytes } of this.table.mappings(area.start, area.end)) {
        if (this.host.swapTags.looks(true)) this.host.statistics.tagLookCount++;
        this.host.frames.initialiseTags(startPa, sizeBytes);
      }
    }
    return true;
  }

  /** Unmaps what `area` shows of its file itself; pages that are private copies stay. */
  #zapFileOriginals(area: Area, from: number, to: number): void {
    const { backing } = area;
    assert(backing.kind === 'shmem', 'the area shows a file');
    for (const { start, startPa, sizeBytes } of this.table.mappings(from, to)) {
      const original = backing.file.peek(backing.offset + (start - area.start));
      if (original === startPa) this.zap(start, hva(start + sizeBytes));
    }
  }

  #willInvalidate(start: Hva, end: Hva): void {
    for (const notifier of this.#notifiers) notifier.invalidateRange(start, end);
    this.memory.forgetTranslations();
  }
}
