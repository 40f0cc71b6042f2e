/**
 * Memory that is still elsewhere, while the guest runs: post-copy's half of the destination. All of
 * RAM is registered with userfaultfd; a vCPU (or the VMM) that touches a page that is not here
 * makes an event, which becomes a request to the source. A page is installed with its tags in one
 * call (UFFDIO_COPY as `host/userfault.ts` has it), so nothing ever sees the one without the other;
 * a page that is here is never replaced, since the guest may have written to it.
 *
 * Invariant: until `close`, the host never makes zeros of a page that is not marked as received; of
 * one that is marked and not here it may, since it was sent as zeros.
 */
import { alignDown, assert, hva, PAGE_SIZE } from '../../base/index.ts';
import { Errno, type PageContent } from '../../host/index.ts';
import {
  accept,
  clearTail,
  countMarked,
  type GuestRam,
  isMarked,
  mark,
  type PageMaps,
  pageHva,
  spansOf,
  TAG_BYTES,
} from './guest-ram.ts';
import { REQUEST_PAGES_MAX } from './messages.ts';
import { type RamRun, TAGS_DIFFER } from './ram-codec.ts';
import { dropAdvice } from './ram-receiver.ts';

/** A page by the index of its range and its number there. */
export type PageName = [range: number, page: number];

const ZERO_PAGE = new Uint8Array(PAGE_SIZE);

export class MissingPages {
  /** Pages left. */
  missingCount: number;
  readonly #ram: GuestRam;
  readonly #received: PageMaps;
  readonly #packed = new Uint8Array(TAG_BYTES);

  /**
   * Registers all of `ram` and throws away those pages of it that `absent` marks, which are out of
   * date. `onFault`: `takeFaults` has something new.
   */
  constructor(ram: GuestRam, absent: PageMaps, onFault: () => void) {
    this.#ram = ram;
    this.#received = absent.map((map, i) => {
      const received = map.map((word) => ~word);
      clearTail(received, ram.ranges[i]!);
      return received;
    });
    this.missingCount = countMarked(absent);
    this.#drop(absent);
    const { userfault } = ram.process;
    const onMissing = (address: number): PageContent | 'pending' => this.#supply(address);
    for (const { hva, sizeBytes } of ram.ranges) {
      accept('UFFDIO_REGISTER', userfault.register(hva, sizeBytes, { onMissing }));
    }
    userfault.onEvent = onFault;
  }

  /** Pages that have come to be missed since the last call, a request's worth at most. */
  takeFaults(): PageName[] {
    const pages: PageName[] = [];
    while (pages.length < REQUEST_PAGES_MAX) {
      const event = this.#ram.process.userfault.nextEvent();
      if (event === undefined) break;
      const page = this.#nameOf(event.address);
      if (page !== undefined) pages.push(page);
    }
    return pages;
  }

  /** All pages that somebody waits for now: what a new link has to be asked for again. */
  awaited(): PageName[] {
    return [...this.#ram.process.awaited]
      .map((address) => this.#nameOf(address))
      .filter((page) => page !== undefined)
      .slice(0, REQUEST_PAGES_MAX);
  }

  /** The maps of what is here, as bytes in the order of ranges. */
  receivedMaps(): Uint8Array[] {
    return this.#received.map((map) => new Uint8Array(map.buffer.slice(0)));
  }

  /** Installs what is still missing of a checked run. Throws `MigrationError` 'machine'. */
  install(run: RamRun): void {
    if (!run.hasData && run.tag === 0) {
      this.#forget(run);
      return;
    }
    for (let i = 0; i < run.pageCount; i++) {
      if (this.#take(run.range, run.firstPage + i)) this.#installPage(run, i);
    }
  }

  /** Stops supplying pages; what is not here reads as zero from now on. */
  close(): void {
    const { userfault } = this.#ram.process;
    userfault.onEvent = () => {};
    for (const { hva, sizeBytes } of this.#ram.ranges) {
      accept('UFFDIO_UNREGISTER', userfault.unregister(hva, sizeBytes));
    }
  }

  #drop(absent: PageMaps): void {
    const { process, ranges } = this.#ram;
    ranges.forEach((range, i) => {
      for (const [first, count] of spansOf(absent[i]!)) {
        const start = pageHva(range, first);
        const dropped = process.madvise(start, count * PAGE_SIZE, dropAdvice(range));
        accept('madvise of guest memory', dropped);
      }
    });
  }

  /**
   * Zero pages that were never tagged need not be made: `#supply` does that, if they are touched.
   */
  #forget({ range, firstPage, pageCount }: RamRun): void {
    for (let page = firstPage; page < firstPage + pageCount; page++) this.#take(range, page);
    const at = pageHva(this.#ram.ranges[range]!, firstPage);
    accept('UFFDIO_WAKE', this.#ram.process.userfault.wake(at, pageCount * PAGE_SIZE));
  }

  /** A page that was received and is not here is zero; any other is to be asked for. */
  #supply(address: number): PageContent | 'pending' {
    const [range, page] = this.#nameOf(address)!;
    return isMarked(this.#received[range]!, page) ? {} : 'pending';
  }

  #installPage(run: RamRun, i: number): void {
    const { contents, pageBytes, hasData, tag } = run;
    const at = i * pageBytes;
    const data = hasData ? contents.subarray(at, at + PAGE_SIZE) : ZERO_PAGE;
    const differ = tag === TAGS_DIFFER;
    const packed = differ
      ? contents.subarray(at + pageBytes - TAG_BYTES, at + pageBytes)
      : this.#packed.fill(tag * 0x11);
    const installed = this.#ram.process.userfault.copy({
      address: pageHva(this.#ram.ranges[run.range]!, run.firstPage + i),
      data,
      packedTags: this.#ram.mte ? packed : undefined,
    });
    assert(installed !== -Errno.EEXIST, 'a page that was not received is not here');
    accept('UFFDIO_COPY', installed);
  }

  /** Marks a page as received; false: it was already. */
  #take(range: number, page: number): boolean {
    const map = this.#received[range]!;
    if (isMarked(map, page)) return false;
    mark(map, page);
    this.missingCount--;
    return true;
  }

  #nameOf(address: number): PageName | undefined {
    const index = this.#ram.ranges.findIndex(
      (range) => address >= range.hva && address < range.hva + range.sizeBytes,
    );
    const range = this.#ram.ranges[index];
    if (range === undefined) return undefined;
    return [index, (alignDown(hva(address), PAGE_SIZE) - range.hva) / PAGE_SIZE];
  }
}
