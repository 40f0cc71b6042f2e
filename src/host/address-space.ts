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
import type { Host } from './host.ts';
import { accessFlags, Madvise, MapFlag, type MmapRequest, planMapping, TASK_SIZE } from './mmap.ts';
import { UserMemory } from './user-memory.ts';
import { type UserMapping, UserTable } from './user-table.ts';
import { Userfault } from './userfault.ts';

/** Where areas are placed from, downwards. */
const MMAP_TOP = 0xffff_f000_0000;
/** Nothing is mapped below. Linux: vm.mmap_min_addr. */
const MMAP_FLOOR = 0x1_0000;

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
  readonly #notifiers = new Set<MmuNotifier>();

  constructor(host: Host) {
    this.host = host;
    this.table = new UserTable(host.frames);
    this.memory = new UserMemory(this);
    this.userfault = new Userfault(this);
  }

  /**
   * Makes an area and returns its address. Refused with EINVAL, EBADF, EEXIST, ENOMEM and
   * EOVERFLOW as Linux does. Linux: mmap().
   */
  mmap(request: MmapRequest): Hva | Refusal {
    const plan = planMapping(request, {
      mte: this.host.cpu.mte,
      anonymousFile: (sizeBytes, hugetlb) => {
        const file = new ShmemFile(this.host.frames, { sizeBytes, hugetlb });
        file.close();
        return file;
      },
    });
    if (typeof plan === 'number') return plan;
    const at = this.#place(request, plan.sizeBytes, plan.alignBytes, plan.flags);
    if (isRefusal(at)) return at;
    const start = hva(at);
    const end = hva(start + plan.sizeBytes);
    const area = { start, end, flags: plan.flags, backing: plan.backing };
    return this.#replace(start, end, [area]) ? start : refuse(Errno.ENOMEM);
  }

  /** Removes what is mapped in the range. EINVAL for a bad range, ENOMEM. Linux: munmap(). */
  munmap(start: Hva, length: number): 0 | Refusal {
    const end = hva(start + alignUp(length, PAGE_SIZE));
    if (!isAligned(start, PAGE_SIZE) || length <= 0 || start < 0 || end > TASK_SIZE) {
      return refuse(Errno.EINVAL);
    }
    if (this.#splitsHugePage(start, end)) return refuse(Errno.EINVAL);
    return this.#replace(start, end, []) ? 0 : refuse(Errno.ENOMEM);
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
    const access = accessFlags(prot, this.host.cpu.mte);
    if (isRefusal(access)) return access;
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
   * EINVAL (device memory, unknown advice), ENOMEM (a hole). Linux: madvise().
   */
  madvise(start: Hva, length: number, advice: number): 0 | Refusal {
    if (!isAligned(start, PAGE_SIZE) || length < 0) return refuse(Errno.EINVAL);
    if (advice !== Madvise.dontNeed && advice !== Madvise.remove) return refuse(Errno.EINVAL);
    const end = hva(start + alignUp(length, PAGE_SIZE));
    for (const area of [...this.areas.within(start, end)]) {
      const from = hva(Math.max(area.start, start));
      const to = hva(Math.min(area.end, end));
      if ((area.flags & VmFlag.pfnMap) !== 0 || this.#splitsHugePage(from, to)) {
        return refuse(Errno.EINVAL);
      }
      const { backing } = area;
      if (advice === Madvise.dontNeed) {
        if (!this.zap(from, to)) return refuse(Errno.ENOMEM);
      } else if (backing.kind === 'shmem' && (area.flags & VmFlag.shared) !== 0) {
        backing.file.punchHole(backing.offset + (from - area.start), to - from);
      } else {
        return refuse(Errno.EINVAL);
      }
    }
    return this.areas.covers(start, end) ? 0 : refuse(Errno.ENOMEM);
  }

  /**
   * A copy of this process's memory: shared areas stay shared, private pages are copied when
   * either side writes, tags with them. ENOMEM when tables cannot be made. Linux: dup_mmap().
   */
  fork(): AddressSpace | Refusal {
    const child = new AddressSpace(this.host);
    for (const parents of this.areas.all) {
      // The child's missing pages are nobody's to supply. Linux: dup_userfaultfd().
      const area = { ...parents, flags: parents.flags & ~VmFlag.uffdMissing };
      child.#replace(area.start, area.end, [area]);
      const privatePages = (area.flags & VmFlag.shared) === 0 && area.backing.kind !== 'device';
      if (privatePages && !this.#sharePages(child, area)) {
        child.destroy();
        return refuse(Errno.ENOMEM);
      }
    }
    return child;
  }

  /** Gives back every page and the tables; the address space is not used again. */
  destroy(): void {
    this.#replace(hva(0), hva(TASK_SIZE), []);
    this.table.destroy();
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

  /**
   * Drops the pages of the range from the tables, and this process's references on them. False:
   * no memory to split a block, nothing changed.
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
    if ((area.flags & VmFlag.mte) !== 0) this.host.frames.initialiseTags(page, sizeBytes);
    if (this.table.map(area, at, page, sizeBytes, writable)) return 0;
    if (area.backing.kind !== 'device') this.host.frames.put(page, sizeBytes);
    return refuse(Errno.ENOMEM);
  }

  /** Lets stores through to what is mapped from `at`. ENOMEM: a block could not be split. */
  allowWrites(at: Hva, sizeBytes: number): 0 | Refusal {
    this.memory.forgetTranslations();
    return this.table.setWritable(at, sizeBytes, true) ? 0 : refuse(Errno.ENOMEM);
  }

  /** Where a new area goes, or why it cannot. Linux: get_unmapped_area(). */
  #place(request: MmapRequest, sizeBytes: number, alignBytes: number, flags: number): number {
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
    const found = this.areas.freeBelow(MMAP_TOP, MMAP_FLOOR, sizeBytes, alignBytes);
    return found === -1 ? refuse(Errno.ENOMEM) : found;
  }

  /**
   * Puts `areas` in place of what the range holds, and keeps the files' lists of mappers right.
   * False: no memory to split a block, nothing changed.
   */
  #replace(start: Hva, end: Hva, areas: readonly Area[]): boolean {
    const before = [...this.areas.within(start, end)];
    if (before.length > 0 && !this.zap(start, end)) return false;
    this.areas.replace(start, end, areas);
    this.userfault.rangeUnmapped(start, end);
    for (const { backing } of areas) if (backing.kind === 'shmem') backing.file.attach(this);
    for (const { backing } of before) {
      if (backing.kind === 'shmem' && !this.#maps(backing.file)) backing.file.detach(this);
    }
    return true;
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
        this.host.frames.initialiseTags(startPa, sizeBytes);
      }
    }
    return true;
  }

  /**
   * Gives `child` the private pages of `area`, read-only on both sides. Linux: copy_page_range().
   */
  #sharePages(child: AddressSpace, area: Area): boolean {
    this.#willInvalidate(area.start, area.end);
    const whole = this.table.setWritable(area.start, area.end - area.start, false);
    assert(whole, 'a change of a whole area splits no block');
    return this.table.mappings(area.start, area.end).every(({ start, startPa, sizeBytes }) => {
      this.host.frames.get(startPa, sizeBytes);
      return child.install(area, start, startPa, sizeBytes, false) === 0;
    });
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
