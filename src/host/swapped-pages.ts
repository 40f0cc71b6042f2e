/**
 * Which private pages of an address space are in swap, and where: what Linux writes into the
 * not-present table entries. Kept beside the tables so that these hold nothing but what the
 * hardware reads. Used by `address-space.ts`, `fault.ts` and `reclaim.ts`.
 */
import { PAGE_SIZE } from '../base/index.ts';

export class SwappedPages {
  /** Page address to swap slot. */
  readonly #slots = new Map<number, number>();

  get size(): number {
    return this.#slots.size;
  }

  get(page: number): number | undefined {
    return this.#slots.get(page);
  }

  set(page: number, slot: number): void {
    this.#slots.set(page, slot);
  }

  delete(page: number): void {
    this.#slots.delete(page);
  }

  /** Whether a page of the range is in swap. */
  hasAny(start: number, end: number): boolean {
    return this.within(start, end).length > 0;
  }

  /** Pages of the range that are in swap, with their slots, in order of address. */
  within(start: number, end: number): [page: number, slot: number][] {
    if (this.#slots.size === 0) return [];
    const found: [number, number][] = [];
    if ((end - start) / PAGE_SIZE > this.#slots.size) {
      for (const [page, slot] of this.#slots) {
        if (page >= start && page < end) found.push([page, slot]);
      }
      return found.sort((a, b) => a[0] - b[0]);
    }
    for (let page = start; page < end; page += PAGE_SIZE) {
      const slot = this.#slots.get(page);
      if (slot !== undefined) found.push([page, slot]);
    }
    return found;
  }

  /** Forgets the pages of the range, and returns them. */
  take(start: number, end: number): [page: number, slot: number][] {
    const taken = this.within(start, end);
    for (const [page] of taken) this.#slots.delete(page);
    return taken;
  }
}
