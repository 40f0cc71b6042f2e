/**
 * userfaultfd in MISSING mode: the process supplies the pages of a range itself, when they are
 * first touched. Lazy restore of a snapshot answers at once through a handler; post-copy migration
 * takes the fault as an event, lets the one who touched the page wait, and installs it with
 * UFFDIO_COPY. `fault.ts` asks here before it would make a zero page; the VMM calls the rest.
 *
 * Beyond Linux: a page is installed together with its allocation tags, and 2 MiB of content become
 * one 2 MiB page where the area has room for it, so that neither data without tags nor tags without
 * data are ever seen.
 *
 * One thread runs everything, so whoever touches a missing page cannot sleep in the fault: it is
 * refused with EAGAIN and may try again when the page is no longer in `AddressSpace.awaited`.
 *
 * Invariants: a page that is present is never replaced; an awaited page of a range is reported by
 * one event; data and tags are complete before a table shows the page.
 */
import {
  alignDown,
  assert,
  BLOCK_SIZE,
  type Hva,
  hva,
  isAligned,
  PAGE_SIZE,
  type Pa,
} from '../base/index.ts';
import type { AddressSpace } from './address-space.ts';
import { type Area, VmFlag } from './area.ts';
import { Errno, isRefusal, type Refusal, refuse } from './errno.ts';
import { TASK_SIZE } from './mmap.ts';
import { BLOCK_ORDER, PACKED_TAG_BYTES } from './page.ts';

/** What a missing page holds. */
export interface PageContent {
  /**
   * How much of memory this is, from the multiple of it at or below the address asked for: 4 KiB
   * (when absent) or 2 MiB.
   */
  readonly sizeBytes?: number;
  /** `sizeBytes` bytes; absent: zero. They are copied. */
  readonly data?: Uint8Array | undefined;
  /** Tags, 128 bytes for each 4 KiB, low nibble first; absent: the pages were never tagged. */
  readonly packedTags?: Uint8Array | undefined;
}

/**
 * Supplies the page at `address` (page-aligned): its content, 'pending' to make it an event, or a
 * refusal (EIO: it cannot be had), which the access gets. It must not touch the address space.
 */
export type MissingHandler = (address: Hva) => PageContent | 'pending' | Refusal;

/** A page was touched that is missing. Linux: struct uffd_msg, UFFD_EVENT_PAGEFAULT. */
export interface UserfaultEvent {
  readonly address: Hva;
  readonly write: boolean;
}

/** UFFDIO_COPY. */
export interface UserfaultCopy extends Omit<PageContent, 'sizeBytes'> {
  readonly address: Hva;
  /** Whole pages. */
  readonly data: Uint8Array;
  /** False: UFFDIO_COPY_MODE_DONTWAKE. */
  readonly wake?: boolean;
}

type SizedContent = PageContent & { readonly sizeBytes: number };

interface Registration {
  readonly start: number;
  readonly end: number;
  readonly onMissing: MissingHandler | undefined;
}

/** Counts since the process began. */
export interface UserfaultStatistics {
  /** Faults on missing pages, however they were answered. */
  faultCount: number;
  /** Bytes installed, as 2 MiB pages and as 4 KiB pages. */
  blockBytes: number;
  pageBytes: number;
}

export class Userfault {
  /** Called when an event has been queued: the descriptor is readable. */
  onEvent: () => void = () => {};
  readonly statistics: UserfaultStatistics = { faultCount: 0, blockBytes: 0, pageBytes: 0 };
  readonly #space: AddressSpace;
  #registrations: Registration[] = [];
  /** Pages of ours in `AddressSpace.awaited`. */
  readonly #pending = new Set<number>();
  #events: UserfaultEvent[] = [];

  constructor(space: AddressSpace) {
    this.#space = space;
  }

  /**
   * UFFDIO_REGISTER: missing pages of the range are this process's to supply, by `onMissing` where
   * it is given. EINVAL: bad range, or memory that is no anonymous or shared memory; ENOMEM:
   * nothing mapped there, no memory to split a block. Linux: userfaultfd_register().
   */
  register(
    start: Hva,
    length: number,
    options: { readonly onMissing?: MissingHandler } = {},
  ): 0 | Refusal {
    const areas = this.#areasOf(start, length);
    if (isRefusal(areas)) return areas;
    const refusal = this.#space.setFlags(start, hva(start + length), VmFlag.uffdMissing, true);
    if (refusal !== 0) return refusal;
    this.#forgetRange(start, start + length);
    this.#registrations.push({ start, end: start + length, onMissing: options.onMissing });
    return 0;
  }

  /**
   * UFFDIO_UNREGISTER: missing pages read as zero again; who waits for one goes on. As `register`.
   */
  unregister(start: Hva, length: number): 0 | Refusal {
    const areas = this.#areasOf(start, length);
    if (isRefusal(areas)) return areas;
    const refusal = this.#space.setFlags(start, hva(start + length), VmFlag.uffdMissing, false);
    if (refusal !== 0) return refusal;
    this.#forgetRange(start, start + length);
    this.#wakeRange(start, start + length);
    return 0;
  }

  /** The oldest event that has not been taken. Linux: read() of the descriptor. */
  nextEvent(): UserfaultEvent | undefined {
    return this.#events.shift();
  }

  /** Whether somebody waits for the page at `address`. */
  isPending(address: Hva): boolean {
    if (this.#pending.size === 0) return false;
    return (
      this.#pending.has(alignDown(address, PAGE_SIZE)) ||
      this.#pending.has(alignDown(address, BLOCK_SIZE))
    );
  }

  /**
   * UFFDIO_COPY: installs pages with their tags and wakes who waits for them. Returns the bytes
   * installed, fewer than given when a page behind the first is refused. EINVAL: alignment, length
   * of `data` or `packedTags`, tags for memory that has none; ENOENT: not registered; EEXIST: a
   * page is present; ENOMEM. Linux: mfill_atomic().
   */
  copy(request: UserfaultCopy): number | Refusal {
    const { data, packedTags } = request;
    const tagBytes = (data.length / PAGE_SIZE) * PACKED_TAG_BYTES;
    if (packedTags !== undefined && packedTags.length !== tagBytes) return refuse(Errno.EINVAL);
    return this.#fill(request.address, data.length, { data, packedTags }, request.wake !== false);
  }

  /** UFFDIO_ZEROPAGE: as `copy`, of pages that are zero and were never tagged; EINVAL: hugetlb. */
  zeroPage(address: Hva, length: number, options: { wake?: boolean } = {}): number | Refusal {
    const area = this.#space.areas.at(address);
    if (area !== undefined && isRegistered(area) && unitOf(area) === BLOCK_SIZE) {
      return refuse(Errno.EINVAL);
    }
    return this.#fill(address, length, {}, options.wake !== false);
  }

  /** UFFDIO_WAKE: who waits for a page of the range tries again. EINVAL: bad range. */
  wake(address: Hva, length: number): 0 | Refusal {
    if (!isRange(address, length)) return refuse(Errno.EINVAL);
    this.#wakeRange(address, address + length);
    return 0;
  }

  /**
   * A page of a registered area is missing: 0 when it has been installed, EAGAIN when it will be,
   * or the handler's refusal. Called by `fault.ts`. Linux: handle_userfault().
   */
  missing(area: Area, address: Hva, write: boolean): 0 | Refusal {
    this.statistics.faultCount++;
    const at = alignDown(address, unitOf(area));
    const onMissing = this.#handlerAt(address);
    const content = onMissing === undefined ? 'pending' : onMissing(at);
    if (isRefusal(content)) return content;
    if (content === 'pending') return this.#wait(at, write);
    const sizeBytes = content.sizeBytes ?? PAGE_SIZE;
    assert(sizeBytes >= unitOf(area), 'a handler supplies whole pages');
    assert(content.data === undefined || content.data.length === sizeBytes, 'data of that size');
    if (sizeBytes === PAGE_SIZE) return this.#installPage(area, at, { ...content, write });
    return this.#installAround(area, at, content);
  }

  /** Areas of the range are gone: nobody waits for their pages any more. */
  rangeUnmapped(start: number, end: number): void {
    this.#wakeRange(start, end);
  }

  #wait(at: Hva, write: boolean): Refusal {
    if (!this.#pending.has(at)) {
      this.#pending.add(at);
      this.#space.awaited.add(at);
      this.#events.push({ address: at, write });
      this.onEvent();
    }
    return refuse(Errno.EAGAIN);
  }

  #wakeRange(start: number, end: number): void {
    if (this.#pending.size === 0) return;
    for (const page of this.#pending) {
      if (page < start || page >= end) continue;
      this.#pending.delete(page);
      this.#space.awaited.delete(page);
    }
    this.#events = this.#events.filter(({ address }) => this.#pending.has(address));
  }

  #handlerAt(address: number): MissingHandler | undefined {
    return this.#registrations.find(({ start, end }) => address >= start && address < end)
      ?.onMissing;
  }

  /** Cuts the range out of the registrations. */
  #forgetRange(start: number, end: number): void {
    this.#registrations = this.#registrations.flatMap((old) => {
      if (old.end <= start || old.start >= end) return [old];
      const left = { ...old, end: start };
      const right = { ...old, start: end };
      return [left, right].filter((piece) => piece.start < piece.end);
    });
  }

  /** The areas of a range to register, all of a kind that can be supplied. */
  #areasOf(start: number, length: number): Area[] | Refusal {
    if (!isRange(start, length)) return refuse(Errno.EINVAL);
    const areas = [...this.#space.areas.within(start, start + length)];
    if (areas.length === 0) return refuse(Errno.ENOMEM);
    const usable = areas.every(
      (area) =>
        area.backing.kind !== 'device' &&
        isAligned(Math.max(start, area.start), unitOf(area)) &&
        isAligned(Math.min(start + length, area.end), unitOf(area)),
    );
    return usable ? areas : refuse(Errno.EINVAL);
  }

  #fill(
    address: Hva,
    length: number,
    content: Pick<PageContent, 'data' | 'packedTags'>,
    wake: boolean,
  ): number | Refusal {
    if (!isRange(address, length)) return refuse(Errno.EINVAL);
    const area = this.#space.areas.at(address);
    if (area === undefined || !isRegistered(area)) return refuse(Errno.ENOENT);
    if (address + length > area.end) return refuse(Errno.ENOENT);
    const unit = unitOf(area);
    if (!isAligned(address, unit) || !isAligned(length, unit)) return refuse(Errno.EINVAL);
    if (content.packedTags !== undefined && (area.flags & VmFlag.mteAllowed) === 0) {
      return refuse(Errno.EINVAL);
    }
    let done = 0;
    let result: number | Refusal = 0;
    while (done < length) {
      const part = partOf(content, done, length - done);
      result = this.#installNext(area, hva(address + done), part);
      if (isRefusal(result)) break;
      done += result;
    }
    if (wake) this.#wakeRange(address, address + done);
    return done > 0 ? done : result;
  }

  /** Installs the first 2 MiB or 4 KiB of `content`; returns the bytes, EEXIST or ENOMEM. */
  #installNext(area: Area, at: Hva, content: SizedContent): number | Refusal {
    if (content.sizeBytes >= BLOCK_SIZE && isAligned(at, BLOCK_SIZE) && this.#fitsBlock(area, at)) {
      const refusal = this.#installBlock(area, at, partOf(content, 0, BLOCK_SIZE));
      if (refusal === 0) return BLOCK_SIZE;
      if (unitOf(area) === BLOCK_SIZE) return refusal;
    }
    if (this.#isPresent(area, at)) return refuse(Errno.EEXIST);
    const write = content.data !== undefined;
    const refusal = this.#installPage(area, at, { ...partOf(content, 0, PAGE_SIZE), write });
    return refusal === 0 ? PAGE_SIZE : refusal;
  }

  /** Installs what is missing of the 2 MiB that a handler supplied around `address`. */
  #installAround(area: Area, address: Hva, content: PageContent): 0 | Refusal {
    const start = alignDown(address, BLOCK_SIZE);
    if (this.#fitsBlock(area, start)) {
      const refusal = this.#installBlock(area, start, content);
      if (refusal === 0 || unitOf(area) === BLOCK_SIZE) return refusal;
    }
    const from = Math.max(start, area.start);
    const to = Math.min(start + BLOCK_SIZE, area.end);
    for (let at = hva(from); at < to; at = hva(at + PAGE_SIZE)) {
      if (this.#isPresent(area, at)) continue;
      const part = partOf(content, at - start, PAGE_SIZE);
      const refusal = this.#installPage(area, at, { ...part, write: true });
      // The page asked for is what counts; the others can be supplied again.
      if (refusal !== 0 && at <= address) return refusal;
      if (refusal !== 0) break;
    }
    return 0;
  }

  /** Whether a 2 MiB page can stand at `start`: as for a first touch, see `fault.ts`. */
  #fitsBlock(area: Area, start: Hva): boolean {
    if (start < area.start || start + BLOCK_SIZE > area.end) return false;
    if (unitOf(area) === BLOCK_SIZE) return !this.#isPresent(area, start);
    return (
      !isSharedFile(area) &&
      this.#space.host.policy.transparentHugePages === 'always' &&
      this.#space.isEmptyBlock(start)
    );
  }

  /** Whether the page exists: in the tables, in swap, or for shared memory in the file. */
  #isPresent(area: Area, at: Hva): boolean {
    const { backing } = area;
    if (this.#space.table.lookup(at) !== undefined) return true;
    if (this.#space.swapped.get(at) !== undefined) return true;
    if (!isSharedFile(area) || backing.kind !== 'shmem') return false;
    return backing.file.exists(backing.offset + (at - area.start));
  }

  #installBlock(area: Area, at: Hva, content: PageContent): 0 | Refusal {
    const { frames } = this.#space.host;
    const page =
      content.data === undefined
        ? frames.allocateZeroed(BLOCK_ORDER)
        : frames.allocate(BLOCK_ORDER);
    if (page === -1) return refuse(Errno.ENOMEM);
    frames.writeContent(page, content);
    this.statistics.blockBytes += BLOCK_SIZE;
    return this.#map(area, at, { page, sizeBytes: BLOCK_SIZE });
  }

  #installPage(area: Area, at: Hva, content: PageContent & { write: boolean }): 0 | Refusal {
    const { frames, zeroPage } = this.#space.host;
    const { data, packedTags } = content;
    this.statistics.pageBytes += PAGE_SIZE;
    const isZero = data === undefined && packedTags === undefined;
    if (isZero && !content.write && !isSharedFile(area)) {
      frames.get(zeroPage);
      return this.#space.install(area, at, zeroPage, PAGE_SIZE, false);
    }
    const page = data === undefined ? frames.allocateZeroed() : frames.allocate();
    if (page === -1) return refuse(Errno.ENOMEM);
    frames.writeContent(page, content);
    return this.#map(area, at, { page, sizeBytes: PAGE_SIZE });
  }

  /** Makes a complete page visible: private memory gets it, or the file that all mappers see. */
  #map(area: Area, at: Hva, { page, sizeBytes }: { page: Pa; sizeBytes: number }): 0 | Refusal {
    const { backing } = area;
    const writable = (area.flags & VmFlag.write) !== 0;
    if (!isSharedFile(area) || backing.kind !== 'shmem') {
      return this.#space.install(area, at, page, sizeBytes, writable);
    }
    const offset = backing.offset + (at - area.start);
    if (offset >= backing.file.sizeBytes) {
      this.#space.host.frames.put(page, sizeBytes);
      return refuse(Errno.EFAULT);
    }
    backing.file.adopt(offset, page);
    this.#space.host.frames.get(page, sizeBytes);
    return this.#space.install(area, at, page, sizeBytes, writable);
  }
}

const isRegistered = (area: Area): boolean => (area.flags & VmFlag.uffdMissing) !== 0;

const isSharedFile = (area: Area): boolean =>
  area.backing.kind === 'shmem' && (area.flags & VmFlag.shared) !== 0;

const unitOf = (area: Area): number =>
  (area.flags & VmFlag.hugetlb) !== 0 ? BLOCK_SIZE : PAGE_SIZE;

/** Linux: validate_range(). */
const isRange = (start: number, length: number): boolean =>
  isAligned(start, PAGE_SIZE) &&
  isAligned(length, PAGE_SIZE) &&
  length > 0 &&
  start >= 0 &&
  start + length <= TASK_SIZE;

/** `sizeBytes` of a longer content, from byte `offset`. */
function partOf(content: PageContent, offset: number, sizeBytes: number): SizedContent {
  const tagAt = (offset / PAGE_SIZE) * PACKED_TAG_BYTES;
  const tagBytes = (sizeBytes / PAGE_SIZE) * PACKED_TAG_BYTES;
  return {
    sizeBytes,
    data: content.data?.subarray(offset, offset + sizeBytes),
    packedTags: content.packedTags?.subarray(tagAt, tagAt + tagBytes),
  };
}
