/**
 * Reads chunks of pages with their tags and sends them in frames: what pre-copy, stop-and-copy and
 * post-copy share. Two frames are under way at most; a chunk is read right after it was cleaned in
 * the dirty log, never before. Pages that the host has paged out come later, when the disk has
 * brought them: nobody keeps the tags of a page that is not there.
 */
import { assert, PAGE_SIZE } from '../../base/index.ts';
import { Errno, isRefusal } from '../../host/index.ts';
import type { Channel } from './channel.ts';
import { CHUNK_PAGES, type DirtyPages, type PageChunk } from './dirty-pages.ts';
import {
  countMarked,
  type GuestRam,
  isMarked,
  mark,
  newPageMaps,
  type PageMaps,
  pageHva,
  refused,
  spansOf,
  TAG_BYTES,
  unmark,
} from './guest-ram.ts';
import type { Pace } from './pace.ts';
import type { MigrationStatistics } from './progress.ts';
import { RamFrameBuilder, TAGS_DIFFER } from './ram-codec.ts';
import type { TagReader } from './tag-transfer.ts';

/** Pages with content that a frame has room for. */
const FRAME_PAGES = CHUNK_PAGES;

/** One of the frames in turn, and the end of its last journey. */
interface Slot {
  readonly builder: RamFrameBuilder;
  sent: Promise<void>;
}

export interface PageSenderOptions {
  readonly ram: GuestRam;
  /** Where chunks come from, and are cleaned. */
  readonly dirty: DirtyPages;
  readonly tags: TagReader;
  readonly statistics: MigrationStatistics;
}

export class PageSender {
  readonly #ram: GuestRam;
  readonly #dirty: DirtyPages;
  readonly #tags: TagReader;
  readonly #statistics: MigrationStatistics;
  readonly #everSent: PageMaps;
  readonly #data = new Uint8Array(CHUNK_PAGES * PAGE_SIZE);
  readonly #dataWords = new Int32Array(this.#data.buffer);
  readonly #packed = new Uint8Array(CHUNK_PAGES * TAG_BYTES);
  readonly #packedWords = new Int32Array(this.#packed.buffer);
  /** Views of each page's data and tags: made once, not for each page sent. */
  readonly #pageData = viewsOf(this.#data, PAGE_SIZE);
  readonly #pageTags = viewsOf(this.#packed, TAG_BYTES);
  readonly #current = new Uint8Array(CHUNK_PAGES);
  readonly #slots: [Slot, Slot];
  #channel: Channel | undefined;
  #pace: Pace | undefined;

  constructor({ ram, dirty, tags, statistics }: PageSenderOptions) {
    this.#ram = ram;
    this.#dirty = dirty;
    this.#tags = tags;
    this.#statistics = statistics;
    this.#everSent = newPageMaps(ram.ranges);
    const slot = (): Slot => ({
      builder: new RamFrameBuilder(FRAME_PAGES),
      sent: Promise.resolve(),
    });
    this.#slots = [slot(), slot()];
  }

  /** Sends over `channel` from now on; what a broken one had not sent is forgotten. */
  use(channel: Channel, pace: Pace): void {
    this.#channel = channel;
    this.#pace = pace;
    for (const slot of this.#slots) {
      slot.builder.reset();
      slot.sent = Promise.resolve();
    }
  }

  /**
   * Cleans and reads the chunk and sends it, or puts it into the next frame. Pages whose tags are
   * no longer those of the page are left out and returned as a mask; undefined: none.
   */
  async send(chunk: PageChunk): Promise<Uint32Array | undefined> {
    const putOff = new Uint32Array(chunk.mask.length);
    const left = chunk.mask.slice();
    for (;;) {
      if (!this.#slots[0].builder.hasRoomFor(countMarked([left]))) await this.flush();
      // Nothing else has a turn until what is here now has been cleaned and read.
      const here = this.#takeHere(chunk, left);
      this.#dirty.clean({ ...chunk, mask: here });
      for (const [first, count] of spansOf(here)) this.#sendSpan(chunk, first, count, putOff);
      if (left.every((bits) => bits === 0)) break;
      await this.#pace!.wait();
    }
    return putOff.some((bits) => bits !== 0) ? putOff : undefined;
  }

  /** Sends what has been gathered; resolves when there is a frame to go on with. */
  async flush(): Promise<void> {
    const [slot, next] = this.#slots;
    const channel = this.#channel;
    const pace = this.#pace;
    assert(channel !== undefined && pace !== undefined, 'pages are sent over a channel');
    if (slot.builder.isEmpty) return;
    const frame = slot.builder.finish();
    slot.sent = channel.sendFrame('ram', frame);
    this.#statistics.bytes += frame.length;
    this.#slots.reverse();
    // A frame that cannot be sent is heard of when its turn comes again, or from `drain`.
    slot.sent.catch(() => {});
    await next.sent;
    next.builder.reset();
    await pace.sent(frame.length);
  }

  /** Resolves when everything sent is the link's. */
  async drain(): Promise<void> {
    await this.flush();
    await Promise.all(this.#slots.map(({ sent }) => sent));
  }

  /** Moves the pages that are in memory out of `left`; those in swap are asked for. */
  #takeHere({ range, firstPage }: PageChunk, left: Uint32Array): Uint32Array {
    const here = left.slice();
    left.fill(0);
    const { process } = this.#ram;
    if (process.host.swap === undefined) return here;
    for (const [first, count] of spansOf(here)) {
      for (let page = first; page < first + count; page++) {
        const at = pageHva(range, firstPage + page);
        if (process.pageState(at) !== 'swapped') continue;
        const found = process.faultIn(at, { write: false });
        if (!isRefusal(found)) continue;
        if (found !== -Errno.EAGAIN) throw refused('bringing in a page from swap', found);
        unmark(here, page);
        mark(left, page);
      }
    }
    return here;
  }

  /** Pages of the chunk that lie side by side. */
  #sendSpan(chunk: PageChunk, first: number, count: number, putOff: Uint32Array): void {
    this.#read(chunk, first, count);
    for (let i = 0; i < count; i++) {
      if (this.#current[i] === 1) {
        this.#add(chunk, first + i, i);
      } else {
        mark(putOff, first + i);
        this.#statistics.pagesPutOff++;
      }
    }
  }

  #read({ range, firstPage }: PageChunk, first: number, count: number): void {
    const { memory } = this.#ram.process;
    const data = this.#data.subarray(0, count * PAGE_SIZE);
    const read = memory.readInto(pageHva(range, firstPage + first), data);
    if (read !== data.length) throw refused('reading guest memory', -Errno.EFAULT);
    this.#current.fill(1, 0, count);
    const span = { range, firstPage: firstPage + first, pageCount: count };
    this.#tags.read(span, this.#packed, this.#current);
  }

  /** Puts page `page` of the chunk, the `i`th that was read, into the frame. */
  #add({ rangeIndex, firstPage }: PageChunk, page: number, i: number): void {
    const statistics = this.#statistics;
    const isZero = allEqual(this.#dataWords, (i * PAGE_SIZE) / 4, PAGE_SIZE / 4, 0);
    const tag = this.#tagOf(i);
    this.#slots[0].builder.add({
      range: rangeIndex,
      page: firstPage + page,
      data: isZero ? undefined : this.#pageData[i],
      tag,
      packedTags: this.#pageTags[i]!,
    });
    statistics.pages++;
    if (isZero) statistics.zeroPages++;
    if (tag === TAGS_DIFFER) statistics.tagBytes += TAG_BYTES;
    const sent = this.#everSent[rangeIndex]!;
    if (isMarked(sent, firstPage + page)) statistics.pagesSentAgain++;
    mark(sent, firstPage + page);
  }

  /** The one tag of all tag granules of the `i`th page that was read, or TAGS_DIFFER. */
  #tagOf(i: number): number {
    const tag = this.#packed[i * TAG_BYTES]! & 15;
    const word = Math.imul(tag, 0x11111111);
    const start = (i * TAG_BYTES) / 4;
    return allEqual(this.#packedWords, start, TAG_BYTES / 4, word) ? tag : TAGS_DIFFER;
  }
}

function allEqual(words: Int32Array, start: number, count: number, value: number): boolean {
  for (let i = start; i < start + count; i++) if (words[i] !== value) return false;
  return true;
}

const viewsOf = (bytes: Uint8Array, sizeBytes: number): Uint8Array[] =>
  Array.from({ length: bytes.length / sizeBytes }, (_, i) =>
    bytes.subarray(i * sizeBytes, (i + 1) * sizeBytes),
  );
