/**
 * The dirty log of a memslot: one bit a page, set when the guest writes. Only the bitmap; the write
 * protection that makes writes fault is `stage2.ts`'s, and who may read the log `vm.ts`'s.
 */
import { PAGE_SIZE } from '../base/index.ts';
import type { TagLog } from './tag-log.ts';

/** Pages that one word of Linux's bitmap covers; lengths are rounded up to it. */
const PAGES_PER_LONG = 64;

export class DirtyBitmap {
  readonly pageCount: number;
  /** Bit n % 32 of word n / 32 is page n; an even number of words, as Linux has 64-bit ones. */
  readonly #words: Uint32Array;
  /** Tags kept while their page is clean, where the VM has them kept. */
  readonly tagLog: TagLog | undefined;

  /** `allSet`: every page counts as dirty at first (KVM_DIRTY_LOG_INITIALLY_SET). */
  constructor(sizeBytes: number, allSet: boolean, tagLog?: TagLog) {
    this.pageCount = sizeBytes / PAGE_SIZE;
    this.tagLog = tagLog;
    this.#words = new Uint32Array(Math.ceil(this.pageCount / PAGES_PER_LONG) * 2);
    if (allSet) for (let page = 0; page < this.pageCount; page++) this.mark(page);
  }

  mark(page: number): void {
    this.#words[page >>> 5] = this.#words[page >>> 5]! | (1 << (page & 31));
    this.tagLog?.drop(page);
  }

  isMarked(page: number): boolean {
    return (this.#words[page >>> 5]! & (1 << (page & 31))) !== 0;
  }

  /** A copy of the bitmap. */
  read(): Uint32Array {
    return this.#words.slice();
  }

  /**
   * Clears, from page `firstPage` (a multiple of 32) on, the bits that `mask` has set, and returns
   * the runs of pages that were dirty among them, as [first page, count].
   */
  clear(firstPage: number, mask: Uint32Array): [number, number][] {
    const runs: [number, number][] = [];
    for (let i = 0; i < mask.length; i++) {
      const index = firstPage / 32 + i;
      const word = this.#words[index] ?? 0;
      const cleared = word & mask[i]!;
      if (cleared === 0) continue;
      this.#words[index] = word & ~cleared;
      for (let bit = 0; bit < 32; bit++) {
        if ((cleared & (1 << bit)) !== 0) addToRuns(runs, index * 32 + bit);
      }
    }
    return runs;
  }
}

function addToRuns(runs: [number, number][], page: number): void {
  const last = runs.at(-1);
  if (last !== undefined && last[0] + last[1] === page) last[1]++;
  else runs.push([page, 1]);
}
