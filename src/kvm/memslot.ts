/**
 * Memory slots: the ranges of IPA that KVM finds in the VMM's address space. Plain data and a list
 * sorted by IPA; the rules for making them are `vm.ts`'s, their dirty bitmaps `dirty-log.ts`'s.
 *
 * Invariants: slots are page-aligned, not empty, sorted by IPA and do not overlap; ids are unique.
 */
import { type Hva, hva, type Ipa, ipa, PAGE_SIZE } from '../base/index.ts';
import type { DirtyBitmap } from './dirty-log.ts';

export interface Memslot {
  readonly id: number;
  readonly baseIpa: Ipa;
  readonly sizeBytes: number;
  readonly baseHva: Hva;
  readonly readOnly: boolean;
  /** Present while the slot has KVM_MEM_LOG_DIRTY_PAGES. */
  readonly dirty: DirtyBitmap | undefined;
}

/** The address in the VMM that backs `address`, which lies in the slot. */
export const hvaOf = (slot: Memslot, address: Ipa): Hva =>
  hva(slot.baseHva + (address - slot.baseIpa));

/** The guest's address of a page of the slot. */
export const pageOf = (slot: Memslot, page: number): Ipa => ipa(slot.baseIpa + page * PAGE_SIZE);

/** The guest's address of `address`, which lies in the slot's memory of the VMM. */
export const ipaOf = (slot: Memslot, address: Hva): Ipa =>
  ipa(slot.baseIpa + (address - slot.baseHva));

export class MemslotList {
  readonly #byId = new Map<number, Memslot>();
  #sorted: Memslot[] = [];
  /** The slot found last: most guests live in one. */
  #last: Memslot | undefined;

  get all(): readonly Memslot[] {
    return this.#sorted;
  }

  get(id: number): Memslot | undefined {
    return this.#byId.get(id);
  }

  /** The slot that holds `address`. Linux: gfn_to_memslot(). */
  at(address: Ipa): Memslot | undefined {
    const last = this.#last;
    if (last !== undefined && address >= last.baseIpa && address - last.baseIpa < last.sizeBytes) {
      return last;
    }
    let low = 0;
    let high = this.#sorted.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const slot = this.#sorted[middle]!;
      if (slot.baseIpa + slot.sizeBytes <= address) low = middle + 1;
      else high = middle;
    }
    const found = this.#sorted[low];
    if (found === undefined || address < found.baseIpa) return undefined;
    this.#last = found;
    return found;
  }

  /**
   * Whether a slot other than `exceptId` has an IPA in the range. Linux:
   * kvm_check_memslot_overlap().
   */
  overlaps(base: Ipa, sizeBytes: number, exceptId: number): boolean {
    return this.#sorted.some(
      (slot) =>
        slot.id !== exceptId &&
        slot.baseIpa < base + sizeBytes &&
        base < slot.baseIpa + slot.sizeBytes,
    );
  }

  /** Adds `slot`, in place of the one with its id if there is one. */
  put(slot: Memslot): void {
    this.#byId.set(slot.id, slot);
    this.#rebuild();
  }

  delete(id: number): void {
    this.#byId.delete(id);
    this.#rebuild();
  }

  #rebuild(): void {
    this.#sorted = [...this.#byId.values()].sort((a, b) => a.baseIpa - b.baseIpa);
    this.#last = undefined;
  }
}
