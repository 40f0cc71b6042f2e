/**
 * What a process can map besides anonymous memory: shared-memory files (memfd, tmpfs, the hidden
 * file behind MAP_SHARED | MAP_ANONYMOUS and behind MAP_HUGETLB), /dev/zero, and physical addresses
 * (/dev/mem, VFIO, persistent memory). Created by a VMM or a test, mapped by `AddressSpace.mmap`.
 *
 * A shared-memory file keeps its pages, and their tags, until they are punched out or the last user
 * of the file is gone; private copies belong to the address space that made them.
 *
 * Invariants: the page cache holds one reference on each frame in it; a page is in memory or in
 * swap, or there is none.
 */
import { assert, BLOCK_SIZE, PAGE_SIZE, type Pa, pa } from '../base/index.ts';
import type { AddressSpace } from './address-space.ts';
import { Errno, isRefusal, type Refusal, refuse } from './errno.ts';
import type { Host } from './host.ts';
import { BLOCK_ORDER } from './page.ts';

/** How the host process itself maps physical addresses. Linux: pgprot of remap_pfn_range(). */
export type DeviceMemoryType = 'Device-nGnRnE' | 'Normal-NC' | 'Normal-WB';

/**
 * Physical addresses that can be mapped. Those that are not memory (not 'Normal-WB') are mapped
 * VM_PFNMAP; persistent memory is 'Normal-WB', and the host keeps no frames for it.
 */
export interface DeviceFile {
  readonly kind: 'device';
  readonly base: Pa;
  readonly sizeBytes: number;
  readonly memoryType: DeviceMemoryType;
  /** VFIO says so of memory that a guest may map write-combining. Linux: VM_ALLOW_ANY_UNCACHED. */
  readonly allowAnyUncached?: boolean;
}

/** /dev/zero: anonymous memory that, for Linux's own reasons, cannot be PROT_MTE. */
export const DEV_ZERO = { kind: 'dev-zero' } as const;

export type MappableFile = ShmemFile | DeviceFile | typeof DEV_ZERO;

export class ShmemFile {
  readonly kind = 'shmem';
  /** Bytes of a page of this file: 4 KiB, or 2 MiB for hugetlb. */
  readonly pageBytes: number;
  readonly #host: Host;
  readonly #pages = new Map<number, Pa>();
  /** Swap slots of pages that are not in memory. */
  readonly #swapped = new Map<number, number>();
  /** Address spaces with at least one area of this file. */
  readonly #mappers = new Set<AddressSpace>();
  #sizeBytes: number;
  #open = true;

  /** `hugetlb` files are made of 2 MiB pages. Linux: memfd_create(), shmem_file_setup(). */
  constructor(host: Host, options: { sizeBytes: number; hugetlb?: boolean }) {
    this.#host = host;
    this.#sizeBytes = options.sizeBytes;
    this.pageBytes = options.hugetlb === true ? BLOCK_SIZE : PAGE_SIZE;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get hugetlb(): boolean {
    return this.pageBytes === BLOCK_SIZE;
  }

  /** Pages in memory now. */
  get pageCount(): number {
    return this.#pages.size;
  }

  /**
   * The page that holds byte `offset`, brought in from swap or made (zero) if there is none yet.
   * Refused with EFAULT behind the end of the file (the process would take SIGBUS), ENOMEM, EIO,
   * and, unless the caller may `sleep`, with EAGAIN while swap is being read (`slotOf`). Linux:
   * shmem_get_folio().
   */
  page(offset: number, options: { sleep?: boolean } = {}): Pa | Refusal {
    if (offset >= this.#sizeBytes) return refuse(Errno.EFAULT);
    const index = Math.floor(offset / this.pageBytes);
    const present = this.#pages.get(index);
    if (present !== undefined) return present;
    const slot = this.#swapped.get(index);
    if (slot !== undefined) return this.#swapIn(index, slot, options.sleep === true);
    const made = this.#host.frames.allocateZeroed(this.hugetlb ? BLOCK_ORDER : 0);
    if (made === -1) return refuse(Errno.ENOMEM);
    this.#pages.set(index, made);
    return made;
  }

  #swapIn(index: number, slot: number, sleep: boolean): Pa | Refusal {
    const { swap, swapTags } = this.#host;
    assert(swap !== undefined, 'a page in swap has a device');
    const page = swap.load(slot, { restoreTags: swapTags.restoresFiles, sleep });
    if (isRefusal(page)) return page;
    this.#swapped.delete(index);
    swap.put(slot);
    this.#pages.set(index, page);
    return page;
  }

  /** The swap slot of the page that holds byte `offset`, if it is there. */
  slotOf(offset: number): number | undefined {
    return this.#swapped.get(Math.floor(offset / this.pageBytes));
  }

  /**
   * Pages out the page that holds byte `offset`, unless somebody has a reference on it; whether a
   * frame is free now. Linux: shmem_writepage().
   */
  pageOut(offset: number): boolean {
    const { swap, frames } = this.#host;
    const index = Math.floor(offset / this.pageBytes);
    const page = this.#pages.get(index);
    if (swap === undefined || page === undefined || this.hugetlb) return false;
    for (const space of this.#mappers) {
      space.unmapFilePages(this, index * PAGE_SIZE, (index + 1) * PAGE_SIZE);
    }
    if (!frames.isExclusive(page)) return false;
    const slot = swap.store(page);
    if (isRefusal(slot)) return false;
    this.#pages.delete(index);
    this.#swapped.set(index, slot);
    frames.put(page);
    return true;
  }

  /**
   * Takes `page`, complete and with one reference, as the page that holds byte `offset`.
   * Preconditions: there is none yet, and `offset` lies in the file. Linux:
   * shmem_add_to_page_cache().
   */
  adopt(offset: number, page: Pa): void {
    const index = Math.floor(offset / this.pageBytes);
    assert(!this.exists(offset), 'a page of a file is not replaced');
    this.#pages.set(index, page);
  }

  /** The page that holds byte `offset`, if it is in memory. */
  peek(offset: number): Pa | undefined {
    return this.#pages.get(Math.floor(offset / this.pageBytes));
  }

  /** Whether byte `offset` lies in no hole: its page is in memory or in swap. */
  exists(offset: number): boolean {
    const index = Math.floor(offset / this.pageBytes);
    return this.#pages.has(index) || this.#swapped.has(index);
  }

  /** Offsets of the pages that exist, in order. */
  pageOffsets(): number[] {
    return [...this.#pages.keys(), ...this.#swapped.keys()]
      .sort((a, b) => a - b)
      .map((index) => index * this.pageBytes);
  }

  /**
   * Copies file data out; holes read as zero. Short at the end of the file, and before a page that
   * swap does not give back. Linux: pread().
   */
  read(offset: number, sizeBytes: number): Uint8Array {
    const length = Math.max(0, Math.min(sizeBytes, this.#sizeBytes - offset));
    const out = new Uint8Array(length);
    const done = this.#forEachPiece(offset, length, (at, within, piece) => {
      if (!this.exists(at)) return true;
      const page = this.page(at, { sleep: true });
      if (isRefusal(page)) return false;
      out.set(this.#host.memory.readBytes(pa(page + within), piece), at - offset);
      return true;
    });
    return out.subarray(0, done);
  }

  /** Writes file data, growing the file; tags stay as they are. Linux: pwrite(). */
  write(offset: number, data: Uint8Array): number | Refusal {
    this.#sizeBytes = Math.max(this.#sizeBytes, offset + data.length);
    let refusal: Refusal | 0 = 0;
    this.#forEachPiece(offset, data.length, (at, within, piece) => {
      const page = this.page(at, { sleep: true });
      if (isRefusal(page)) {
        refusal = page;
        return false;
      }
      const from = at - offset;
      this.#host.memory.writeBytes(pa(page + within), data.subarray(from, from + piece));
      return true;
    });
    return refusal === 0 ? data.length : refusal;
  }

  /** Drops the pages that lie wholly in the range, tags included; they read as zero again. */
  punchHole(offset: number, sizeBytes: number): void {
    const first = Math.ceil(offset / this.pageBytes);
    const end = Math.floor((offset + sizeBytes) / this.pageBytes);
    if (end <= first) return;
    for (const space of this.#mappers) {
      space.unmapFilePages(this, first * this.pageBytes, end * this.pageBytes);
    }
    for (let index = first; index < end; index++) this.#drop(index);
  }

  /**
   * Sets the size; what lies behind it is dropped and reads as zero if the file grows again. Linux:
   * ftruncate(), differs in that private copies of dropped pages stay.
   */
  truncate(sizeBytes: number): void {
    const old = this.#sizeBytes;
    this.#sizeBytes = sizeBytes;
    if (sizeBytes >= old) return;
    const kept = Math.ceil(sizeBytes / this.pageBytes) * this.pageBytes;
    if (kept > sizeBytes) this.#clearTail(sizeBytes, kept);
    this.punchHole(kept, Math.ceil(old / this.pageBytes) * this.pageBytes - kept);
  }

  /** Zeroes the rest of the last page; one that swap does not give back is lost as a whole. */
  #clearTail(start: number, end: number): void {
    if (!this.exists(start)) return;
    const index = Math.floor(start / this.pageBytes);
    const slot = this.#swapped.get(index);
    const last = slot === undefined ? this.#pages.get(index)! : this.#swapIn(index, slot, true);
    if (isRefusal(last)) this.#drop(index);
    else this.#host.memory.fill(pa(last + (start % this.pageBytes)), 0, end - start);
  }

  /** Closes the descriptor; the pages go when no mapping is left either. */
  close(): void {
    this.#open = false;
    this.#dropIfUnused();
  }

  /** An address space has an area of this file now. */
  attach(space: AddressSpace): void {
    this.#mappers.add(space);
  }

  /** An address space has no area of this file any more. */
  detach(space: AddressSpace): void {
    this.#mappers.delete(space);
    this.#dropIfUnused();
  }

  #dropIfUnused(): void {
    if (this.#open || this.#mappers.size > 0) return;
    for (const index of [...this.#pages.keys(), ...this.#swapped.keys()]) this.#drop(index);
  }

  #drop(index: number): void {
    const slot = this.#swapped.get(index);
    if (slot !== undefined) this.#host.swap?.put(slot);
    this.#swapped.delete(index);
    const page = this.#pages.get(index);
    if (page === undefined) return;
    this.#pages.delete(index);
    this.#host.frames.put(page, this.pageBytes);
  }

  /**
   * Calls `visit` for each part of the range that lies in one page: its offset, where in the page,
   * its size. Returns the bytes visited, up to a part for which `visit` was false.
   */
  #forEachPiece(
    offset: number,
    sizeBytes: number,
    visit: (at: number, within: number, pieceBytes: number) => boolean,
  ): number {
    const end = offset + sizeBytes;
    for (let at = offset; at < end; ) {
      const within = at % this.pageBytes;
      const piece = Math.min(this.pageBytes - within, end - at);
      if (!visit(at, within, piece)) return at - offset;
      at += piece;
    }
    return sizeBytes;
  }
}
