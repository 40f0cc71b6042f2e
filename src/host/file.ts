/**
 * What a process can map besides anonymous memory: shared-memory files (memfd, tmpfs, the hidden
 * file behind MAP_SHARED | MAP_ANONYMOUS and behind MAP_HUGETLB), /dev/zero, and physical addresses
 * (/dev/mem, VFIO, persistent memory). Created by a VMM or a test, mapped by `AddressSpace.mmap`.
 *
 * A shared-memory file keeps its pages, and their tags, until they are punched out or the last user
 * of the file is gone; private copies belong to the address space that made them.
 *
 * Invariant: the page cache holds one reference on each frame in it.
 */
import { assert, BLOCK_SIZE, PAGE_SIZE, type Pa, pa } from '../base/index.ts';
import type { AddressSpace } from './address-space.ts';
import { Errno, isRefusal, type Refusal, refuse } from './errno.ts';
import { BLOCK_ORDER, type PageFrames } from './page.ts';

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
  readonly #frames: PageFrames;
  readonly #pages = new Map<number, Pa>();
  /** Address spaces with at least one area of this file. */
  readonly #mappers = new Set<AddressSpace>();
  #sizeBytes: number;
  #open = true;

  /** `hugetlb` files are made of 2 MiB pages. Linux: memfd_create(), shmem_file_setup(). */
  constructor(frames: PageFrames, options: { sizeBytes: number; hugetlb?: boolean }) {
    this.#frames = frames;
    this.#sizeBytes = options.sizeBytes;
    this.pageBytes = options.hugetlb === true ? BLOCK_SIZE : PAGE_SIZE;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get hugetlb(): boolean {
    return this.pageBytes === BLOCK_SIZE;
  }

  /** Pages that exist now. */
  get pageCount(): number {
    return this.#pages.size;
  }

  /**
   * The page that holds byte `offset`, made (zero) if there is none yet. Refused with EFAULT behind
   * the end of the file (the process would take SIGBUS) and with ENOMEM. Linux: shmem_fault().
   */
  page(offset: number): Pa | Refusal {
    if (offset >= this.#sizeBytes) return refuse(Errno.EFAULT);
    const index = Math.floor(offset / this.pageBytes);
    const present = this.#pages.get(index);
    if (present !== undefined) return present;
    const made = this.#frames.allocateZeroed(this.hugetlb ? BLOCK_ORDER : 0);
    if (made === -1) return refuse(Errno.ENOMEM);
    this.#pages.set(index, made);
    return made;
  }

  /**
   * Takes `page`, complete and with one reference, as the page that holds byte `offset`.
   * Preconditions: there is none yet, and `offset` lies in the file. Linux: shmem_add_to_page_cache().
   */
  adopt(offset: number, page: Pa): void {
    const index = Math.floor(offset / this.pageBytes);
    assert(!this.#pages.has(index), 'a page of a file is not replaced');
    this.#pages.set(index, page);
  }

  /** The page that holds byte `offset`, if it exists already. */
  peek(offset: number): Pa | undefined {
    return this.#pages.get(Math.floor(offset / this.pageBytes));
  }

  /** Copies file data out; holes read as zero. Short at the end of the file. Linux: pread(). */
  read(offset: number, sizeBytes: number): Uint8Array {
    const length = Math.max(0, Math.min(sizeBytes, this.#sizeBytes - offset));
    const out = new Uint8Array(length);
    this.#forEachPiece(offset, length, (at, within, piece) => {
      const page = this.#pages.get(Math.floor(at / this.pageBytes));
      if (page === undefined) return;
      out.set(this.#frames.memory.readBytes(pa(page + within), piece), at - offset);
    });
    return out;
  }

  /** Writes file data, growing the file; tags stay as they are. Linux: pwrite(). */
  write(offset: number, data: Uint8Array): number | Refusal {
    this.#sizeBytes = Math.max(this.#sizeBytes, offset + data.length);
    let refusal: Refusal | 0 = 0;
    this.#forEachPiece(offset, data.length, (at, within, piece) => {
      const page = this.page(at);
      if (isRefusal(page)) refusal = page;
      else {
        const from = at - offset;
        this.#frames.memory.writeBytes(pa(page + within), data.subarray(from, from + piece));
      }
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
    const last = this.#pages.get(Math.floor(sizeBytes / this.pageBytes));
    if (last !== undefined && kept > sizeBytes) {
      const within = sizeBytes % this.pageBytes;
      this.#frames.memory.fill(pa(last + within), 0, this.pageBytes - within);
    }
    this.punchHole(kept, Math.ceil(old / this.pageBytes) * this.pageBytes - kept);
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
    for (const index of [...this.#pages.keys()]) this.#drop(index);
  }

  #drop(index: number): void {
    const page = this.#pages.get(index);
    if (page === undefined) return;
    this.#pages.delete(index);
    this.#frames.put(page, this.pageBytes);
  }

  /**
   * Calls `visit` for each part of the range that lies in one page: its offset, where in the page,
   * its size.
   */
  #forEachPiece(
    offset: number,
    sizeBytes: number,
    visit: (at: number, within: number, pieceBytes: number) => void,
  ): void {
    const end = offset + sizeBytes;
    for (let at = offset; at < end; ) {
      const within = at % this.pageBytes;
      const piece = Math.min(this.pageBytes - within, end - at);
      visit(at, within, piece);
      at += piece;
    }
  }
}
