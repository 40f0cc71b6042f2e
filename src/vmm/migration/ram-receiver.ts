/**
 * Puts pages that came in into a guest's memory that does not run yet: pre-copy's half of the
 * destination. A page that comes again replaces what is there, tags included. Post-copy's half is
 * `missing-pages.ts`.
 */
import { PAGE_SIZE } from '../../base/index.ts';
import { Madvise } from '../../host/index.ts';
import {
  accept,
  type GuestRam,
  isMarked,
  mark,
  newPageMaps,
  type PageMaps,
  pageHva,
  type RamRange,
  TAG_BYTES,
} from './guest-ram.ts';
import { type RamRun, TAGS_DIFFER } from './ram-codec.ts';
import type { TagWriter } from './tag-transfer.ts';

export class RamReceiver {
  readonly #ram: GuestRam;
  readonly #tags: TagWriter;
  /** Pages that hold anything but zeros and tags of 0. */
  readonly #filled: PageMaps;
  #packed = new Uint8Array(0);

  constructor(ram: GuestRam, tags: TagWriter) {
    this.#ram = ram;
    this.#tags = tags;
    this.#filled = newPageMaps(ram.ranges);
  }

  /** Takes over a checked run. Throws `MigrationError` 'machine' where memory or KVM refuses. */
  receive(run: RamRun): void {
    this.#dropSwapped(run);
    if (!run.hasData && run.tag === 0) {
      this.#clear(run);
      return;
    }
    this.#writeData(run);
    this.#writeTags(run);
    for (let i = 0; i < run.pageCount; i++) mark(this.#filled[run.range]!, run.firstPage + i);
  }

  /** Zero pages: those that never held anything else are left untouched, and cost nothing. */
  #clear({ range: index, firstPage, pageCount }: RamRun): void {
    const range = this.#ram.ranges[index]!;
    for (let page = firstPage; page < firstPage + pageCount; page++) {
      if (!isMarked(this.#filled[index]!, page)) continue;
      accept('storing a page', this.#ram.process.memory.fill(pageHva(range, page), 0, PAGE_SIZE));
      this.#tags.write({ range, firstPage: page, pageCount: 1 }, new Uint8Array(TAG_BYTES));
    }
  }

  /** What is replaced as a whole need not be read from a disk first. */
  #dropSwapped({ range: index, firstPage, pageCount }: RamRun): void {
    const { process, ranges } = this.#ram;
    if (process.host.swap === undefined) return;
    const range = ranges[index]!;
    for (let page = firstPage; page < firstPage + pageCount; page++) {
      const at = pageHva(range, page);
      if (process.pageState(at) !== 'swapped') continue;
      accept('madvise of guest memory', process.madvise(at, PAGE_SIZE, dropAdvice(range)));
    }
  }

  #writeData({ range: index, firstPage, pageCount, hasData, contents, pageBytes }: RamRun): void {
    const { memory } = this.#ram.process;
    const range = this.#ram.ranges[index]!;
    const start = pageHva(range, firstPage);
    if (!hasData) {
      accept('storing pages', memory.fill(start, 0, pageCount * PAGE_SIZE));
    } else if (pageBytes === PAGE_SIZE) {
      accept('storing pages', memory.write(start, contents));
    } else {
      for (let i = 0; i < pageCount; i++) {
        const data = contents.subarray(i * pageBytes, i * pageBytes + PAGE_SIZE);
        accept('storing a page', memory.write(pageHva(range, firstPage + i), data));
      }
    }
  }

  #writeTags(run: RamRun): void {
    const { range: index, firstPage, pageCount } = run;
    if (run.tag === 0 && !this.#anyFilled(run)) return;
    const packed = this.#packedTags(run);
    this.#tags.write({ range: this.#ram.ranges[index]!, firstPage, pageCount }, packed);
  }

  #anyFilled({ range, firstPage, pageCount }: RamRun): boolean {
    for (let i = 0; i < pageCount; i++) {
      if (isMarked(this.#filled[range]!, firstPage + i)) return true;
    }
    return false;
  }

  #packedTags({ pageCount, tag, contents, pageBytes }: RamRun): Uint8Array {
    const sizeBytes = pageCount * TAG_BYTES;
    if (this.#packed.length < sizeBytes) this.#packed = new Uint8Array(sizeBytes);
    const packed = this.#packed.subarray(0, sizeBytes);
    if (tag !== TAGS_DIFFER) return packed.fill(tag * 0x11);
    for (let i = 0; i < pageCount; i++) {
      const end = (i + 1) * pageBytes;
      packed.set(contents.subarray(end - TAG_BYTES, end), i * TAG_BYTES);
    }
    return packed;
  }
}

/** Makes memory what it is when nobody has touched it. Throws `MigrationError` 'machine'. */
export function clearRam({ process, ranges }: GuestRam): void {
  for (const range of ranges) {
    const dropped = process.madvise(range.hva, range.sizeBytes, dropAdvice(range));
    accept('madvise of guest memory', dropped);
  }
}

/** What makes pages of a range as if nobody had touched them. */
export const dropAdvice = ({ shared }: RamRange): number =>
  shared ? Madvise.remove : Madvise.dontNeed;
