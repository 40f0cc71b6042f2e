/**
 * Swap: pages on a device, and their allocation tags beside the swap entry, packed (128 bytes a
 * page, Linux: mte_save_tags() and mte_restore_tags() of arch/arm64/mm/mteswap.c). It knows slots
 * only; who may be paged out is `reclaim.ts`'s, and who remembers a slot is the address space
 * (`AddressSpace.swapped`) or the shared-memory file that lost the page.
 *
 * Invariants: a slot has as many references as address spaces and files remember it; saved tags
 * belong to a slot that is in use; a page that comes back has its tags before it is mapped.
 */
import { assert, PAGE_SIZE, type Pa } from '../base/index.ts';
import { Errno, type Refusal, refuse } from './errno.ts';
import type { PageFrames } from './page.ts';
import type { SwapDevice } from './swap-device.ts';

export interface SwapStatistics {
  pagesOut: number;
  pagesIn: number;
  /** Pages whose tags were kept when they went, put back when they came, and forgotten then. */
  tagsSaved: number;
  tagsRestored: number;
  tagsLost: number;
  writeErrors: number;
  readErrors: number;
}

export class Swap {
  readonly device: SwapDevice;
  readonly statistics: SwapStatistics = {
    pagesOut: 0,
    pagesIn: 0,
    tagsSaved: 0,
    tagsRestored: 0,
    tagsLost: 0,
    writeErrors: 0,
    readErrors: 0,
  };
  readonly #frames: PageFrames;
  readonly #references: Int32Array;
  /** Slots in no use, the next one to take last. */
  readonly #free: number[] = [];
  readonly #tags = new Map<number, Uint8Array>();
  /** Who asked for a slot that the device has not read yet. */
  readonly #waiters = new Map<number, (() => void)[]>();
  readonly #scratch = new Uint8Array(PAGE_SIZE);

  constructor(frames: PageFrames, device: SwapDevice) {
    this.#frames = frames;
    this.device = device;
    this.#references = new Int32Array(device.slotCount);
    for (let slot = device.slotCount - 1; slot >= 0; slot--) this.#free.push(slot);
  }

  get freeSlotCount(): number {
    return this.#free.length;
  }

  /** Slots whose tags are kept. */
  get tagCount(): number {
    return this.#tags.size;
  }

  /**
   * Writes a page and its tags away; returns the slot, with one reference. The page stays as it is.
   * ENOSPC: no slot; EIO. Linux: swap_writepage() and arch_prepare_to_swap().
   */
  store(page: Pa): number | Refusal {
    const slot = this.#free.pop();
    if (slot === undefined) return refuse(Errno.ENOSPC);
    if (!this.device.write(slot, this.#frames.memory.readBytes(page, PAGE_SIZE))) {
      this.statistics.writeErrors++;
      this.#free.push(slot);
      return refuse(Errno.EIO);
    }
    const tags = this.#frames.packedTags(page);
    if (tags !== undefined) {
      this.#tags.set(slot, tags.slice());
      this.statistics.tagsSaved++;
    }
    this.#references[slot] = 1;
    this.statistics.pagesOut++;
    return slot;
  }

  /**
   * Brings a page back into a new frame with one reference; the slot keeps its own. Its tags come
   * with it if `restoreTags`. EAGAIN: not yet, see `whenReady` (never with `sleep`); EIO; ENOMEM.
   * Linux: swap_read_folio() and arch_swap_restore().
   */
  load(slot: number, options: { restoreTags: boolean; sleep?: boolean }): Pa | Refusal {
    assert(this.#references[slot]! > 0, 'a slot that is read is in use');
    const onReady = options.sleep === true ? undefined : () => this.#wake(slot);
    const answer = this.device.read(slot, this.#scratch, onReady);
    if (answer === 'later') return refuse(Errno.EAGAIN);
    if (answer === 'failed') {
      this.statistics.readErrors++;
      return refuse(Errno.EIO);
    }
    // The data is kept aside: the allocation may have to page out others.
    const data = this.#scratch.slice();
    const page = this.#frames.allocate();
    if (page === -1) return refuse(Errno.ENOMEM);
    const tags = this.#tags.get(slot);
    this.#frames.writeContent(page, { data, packedTags: options.restoreTags ? tags : undefined });
    this.statistics.pagesIn++;
    if (tags !== undefined) this.statistics[options.restoreTags ? 'tagsRestored' : 'tagsLost']++;
    return page;
  }

  /** Calls `ready` once when a slot that answered EAGAIN is worth asking for again. */
  whenReady(slot: number, ready: () => void): void {
    const waiters = this.#waiters.get(slot);
    if (waiters === undefined) this.#waiters.set(slot, [ready]);
    else waiters.push(ready);
  }

  /** The tags kept for a slot, packed; undefined: the page was not tagged. */
  tagsOf(slot: number): Uint8Array | undefined {
    return this.#tags.get(slot);
  }

  /** Somebody else remembers the slot too. Linux: swap_duplicate(). */
  get(slot: number): void {
    assert(this.#references[slot]! > 0, 'a slot is shared by somebody who has it');
    this.#references[slot] = this.#references[slot]! + 1;
  }

  /** Somebody forgets the slot; the last one frees it. Linux: swap_free(), which calls
   * arch_swap_invalidate_page(). */
  put(slot: number): void {
    const left = this.#references[slot]! - 1;
    assert(left >= 0, 'a slot is dropped by somebody who has it');
    this.#references[slot] = left;
    if (left > 0) return;
    this.#tags.delete(slot);
    this.#wake(slot);
    this.#free.push(slot);
  }

  /** Asserts that slots without references are free, the others are not, and tags have slots. */
  check(): void {
    const free = this.#references.reduce((count, held) => count + (held === 0 ? 1 : 0), 0);
    assert(free === this.#free.length, 'slots without references are free');
    for (const slot of this.#tags.keys()) {
      assert(this.#references[slot]! > 0, 'saved tags belong to a slot in use');
    }
  }

  #wake(slot: number): void {
    const waiters = this.#waiters.get(slot);
    this.#waiters.delete(slot);
    for (const ready of waiters ?? []) ready();
  }
}
