/**
 * The tag log, which Linux does not have: the tags of a memslot's pages, kept by the hypervisor
 * from the moment a page is cleaned in the dirty log until the guest writes to it again. A VMM that
 * migrates an MTE guest then needs no second look at guest memory for tags, gets them two to a
 * byte, and is told which pages are not worth sending because they are dirty again already.
 *
 * KVM_CAP_ARM_MTE_TAG_LOG is enabled on the VM before a slot begins to log dirty pages; the log
 * belongs to the slot's dirty bitmap (`dirty-log.ts`), which says when a page is dirtied, and is
 * filled by `vm.ts` when it cleans one, after write protection, so that no store falls between.
 *
 * Invariant: tags that are kept are those of the page now, whoever wrote them, except for what the
 * VMM itself has stored, which no dirty log sees.
 */
import { type Hva, hva, PAGE_SIZE } from '../base/index.ts';
import { Errno, isRefusal, type Refusal, refuse } from '../host/index.ts';
import { KVM_USER_MEM_SLOTS } from './capability.ts';
import { hvaOf, type Memslot, pageOf } from './memslot.ts';
import type { Vm } from './vm.ts';

/** No number of Linux's: those count up from 0. */
export const KVM_CAP_ARM_MTE_TAG_LOG = 0x4d54_4501;

/** Bytes of a page's tags, two to a byte, low nibble first. */
const PACKED_BYTES = PAGE_SIZE / 32;
/** Pages whose tags are kept in one piece of memory, made when the first is. */
const CHUNK_PAGES = 512;

/** Arguments of KVM_ARM_READ_TAG_LOG. Numbers as the VMM wrote them: nothing has been checked. */
export interface KvmArmReadTagLog {
  readonly slot: number;
  readonly firstPage: number;
  readonly pageCount: number;
  /** Address in the VMM of 128 bytes a page; pages without kept tags are left as they are. */
  readonly addr: number;
  /** Address in the VMM of a bit a page, rounded up to 64: whether its tags are kept. */
  readonly bitmap: number;
}

/** The kept tags of one slot. */
export class TagLog {
  readonly #chunks = new Map<number, Uint8Array>();
  readonly #kept: Uint32Array;

  constructor(pageCount: number) {
    this.#kept = new Uint32Array(Math.ceil(pageCount / 32));
  }

  /** Keeps the tags of a page; undefined: it never had any, they are 0. */
  keep(page: number, packed: Uint8Array | undefined): void {
    const place = this.#place(page);
    if (packed === undefined) place.fill(0);
    else place.set(packed);
    this.#kept[page >>> 5] = this.#kept[page >>> 5]! | (1 << (page & 31));
  }

  /** The guest writes to the page: its tags are kept no longer. */
  drop(page: number): void {
    this.#kept[page >>> 5] = this.#kept[page >>> 5]! & ~(1 << (page & 31));
  }

  /** The packed tags of a page, or undefined; a view. */
  get(page: number): Uint8Array | undefined {
    const kept = (this.#kept[page >>> 5]! & (1 << (page & 31))) !== 0;
    return kept ? this.#place(page) : undefined;
  }

  #place(page: number): Uint8Array {
    const index = Math.floor(page / CHUNK_PAGES);
    let chunk = this.#chunks.get(index);
    if (chunk === undefined) {
      chunk = new Uint8Array(CHUNK_PAGES * PACKED_BYTES);
      this.#chunks.set(index, chunk);
    }
    const at = (page % CHUNK_PAGES) * PACKED_BYTES;
    return chunk.subarray(at, at + PACKED_BYTES);
  }
}

/**
 * Keeps the tags of pages that have just been cleaned and write-protected; one that was never
 * touched is made, as by reading its data. A page that cannot be had now keeps none.
 */
export function keepTags(vm: Vm, slot: Memslot, log: TagLog, first: number, count: number): void {
  const { frames } = vm.host;
  for (let page = first; page < first + count; page++) {
    const found = vm.process.faultIn(hvaOf(slot, pageOf(slot, page)), { write: false });
    if (!isRefusal(found) && frames.isOnline(found.pa)) {
      log.keep(page, frames.packedTags(found.pa));
    }
  }
}

/**
 * KVM_ARM_READ_TAG_LOG: copies kept tags to the VMM. EINVAL (slot id, a range outside the slot),
 * ENOENT (no slot, or one without a tag log), EFAULT (buffers).
 */
export function readTagLog(vm: Vm, request: KvmArmReadTagLog): 0 | Refusal {
  const { slot: id, firstPage, pageCount } = request;
  if (id < 0 || id >= KVM_USER_MEM_SLOTS) return refuse(Errno.EINVAL);
  const dirty = vm.slots.get(id)?.dirty;
  if (dirty?.tagLog === undefined) return refuse(Errno.ENOENT);
  if (firstPage < 0 || pageCount < 0 || firstPage + pageCount > dirty.pageCount) {
    return refuse(Errno.EINVAL);
  }
  const bitmap = new Uint8Array(Math.ceil(pageCount / 64) * 8);
  const { memory } = vm.process;
  for (let i = 0; i < pageCount; i++) {
    const packed = dirty.tagLog.get(firstPage + i);
    if (packed === undefined) continue;
    bitmap[i >>> 3] = bitmap[i >>> 3]! | (1 << (i & 7));
    const written = memory.write(bufferAt(request.addr + i * PACKED_BYTES), packed);
    if (isRefusal(written)) return refuse(Errno.EFAULT);
  }
  return isRefusal(memory.write(bufferAt(request.bitmap), bitmap)) ? refuse(Errno.EFAULT) : 0;
}

const bufferAt = (address: number): Hva => hva(address);
