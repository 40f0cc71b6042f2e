/**
 * Guest memory on the wire: runs of neighbouring pages of one shape. A page and its tags lie in the
 * same run, one behind the other, so that no cut of the stream parts them.
 *
 *     u32 number of runs, then for each run
 *     u32 first page   u32 pages   u8 range   u8 data   u8 tags   u8 tag
 *     for each page: 4096 bytes if data is 1, then 128 bytes of packed tags if tags is 1
 *
 * data 0: the pages are zero. tags 0: all tag granules have the tag `tag`. Packed tags are two to a
 * byte, low nibble first. Twelve bytes say that a gigabyte is zero, and four bits that it is tagged
 * alike.
 */
import { assert, PAGE_SIZE } from '../../base/index.ts';
import { FRAME_HEADER_BYTES } from './frame.ts';
import { pageCountOf, type RamRange, TAG_BYTES } from './guest-ram.ts';
import { MigrationError } from './migration-error.ts';

const RUN_HEADER_BYTES = 12;
const COUNT_BYTES = 4;

/** The tag of a page whose tag granules differ. */
export const TAGS_DIFFER = -1;

/** A page as it is put into a frame. */
export interface PageImage {
  readonly range: number;
  readonly page: number;
  /** 4096 bytes; undefined: zero. */
  readonly data: Uint8Array | undefined;
  /** The one tag of all tag granules, or TAGS_DIFFER and `packedTags` counts. */
  readonly tag: number;
  readonly packedTags: Uint8Array;
}

/** Builds one `ram` frame in place; used again after `reset`. */
export class RamFrameBuilder {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #length = 0;
  #runCount = 0;
  /** Where the header of the run that may grow lies; 0: none. */
  #runAt = 0;
  #nextPage = 0;
  pageCount = 0;

  /** Room for `pages` pages with data and packed tags, each in a run of its own. */
  constructor(pages: number) {
    const perPage = RUN_HEADER_BYTES + PAGE_SIZE + TAG_BYTES;
    this.#bytes = new Uint8Array(FRAME_HEADER_BYTES + COUNT_BYTES + pages * perPage);
    this.#view = new DataView(this.#bytes.buffer);
    this.reset();
  }

  reset(): void {
    this.#length = FRAME_HEADER_BYTES + COUNT_BYTES;
    this.#runCount = 0;
    this.#runAt = 0;
    this.pageCount = 0;
  }

  get isEmpty(): boolean {
    return this.#runCount === 0;
  }

  /** Whether so many pages still fit, whatever is in them. */
  hasRoomFor(pages: number): boolean {
    const perPage = RUN_HEADER_BYTES + PAGE_SIZE + TAG_BYTES;
    return this.#bytes.length - this.#length >= pages * perPage;
  }

  /** Appends a page. Preconditions: `hasRoomFor(1)`. */
  add(image: PageImage): void {
    assert(this.hasRoomFor(1), 'a frame has room for the page');
    if (!this.#continues(image)) this.#beginRun(image);
    const { data, tag, packedTags } = image;
    if (data !== undefined) this.#put(data);
    if (tag === TAGS_DIFFER) this.#put(packedTags);
    const count = this.#view.getUint32(this.#runAt + 4, true);
    this.#view.setUint32(this.#runAt + 4, count + 1, true);
    this.#nextPage = image.page + 1;
    this.pageCount++;
  }

  /** The frame, its header still empty; a view that `reset` makes void. */
  finish(): Uint8Array {
    this.#view.setUint32(FRAME_HEADER_BYTES, this.#runCount, true);
    return this.#bytes.subarray(0, this.#length);
  }

  #continues({ range, page, data, tag }: PageImage): boolean {
    const at = this.#runAt;
    return (
      at !== 0 &&
      this.#nextPage === page &&
      this.#bytes[at + 8] === range &&
      this.#bytes[at + 9] === (data === undefined ? 0 : 1) &&
      this.#bytes[at + 10] === (tag === TAGS_DIFFER ? 1 : 0) &&
      this.#bytes[at + 11] === (tag === TAGS_DIFFER ? 0 : tag)
    );
  }

  #beginRun({ range, page, data, tag }: PageImage): void {
    const at = this.#length;
    this.#view.setUint32(at, page, true);
    this.#view.setUint32(at + 4, 0, true);
    this.#bytes[at + 8] = range;
    this.#bytes[at + 9] = data === undefined ? 0 : 1;
    this.#bytes[at + 10] = tag === TAGS_DIFFER ? 1 : 0;
    this.#bytes[at + 11] = tag === TAGS_DIFFER ? 0 : tag;
    this.#runAt = at;
    this.#length += RUN_HEADER_BYTES;
    this.#runCount++;
  }

  #put(bytes: Uint8Array): void {
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }
}

/** Neighbouring pages of one shape, as they came in. */
export interface RamRun {
  readonly range: number;
  readonly firstPage: number;
  readonly pageCount: number;
  readonly hasData: boolean;
  /** The one tag of all tag granules, or TAGS_DIFFER. */
  readonly tag: number;
  /** The pages' contents, `pageBytes` each: data if any, then packed tags if any. */
  readonly contents: Uint8Array;
  readonly pageBytes: number;
}

/** The runs of a `ram` payload, all of them checked; throws `MigrationError` 'protocol'. */
export function parseRam(payload: Uint8Array, ranges: readonly RamRange[]): RamRun[] {
  if (payload.length < COUNT_BYTES) throw malformed(`${payload.length} bytes are no run count`);
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  const runCount = view.getUint32(0, true);
  const runs: RamRun[] = [];
  let at = COUNT_BYTES;
  for (let i = 0; i < runCount; i++) {
    if (payload.length - at < RUN_HEADER_BYTES) throw malformed(`run ${i} of ${runCount} is cut`);
    const run = parseRun(payload, view, at, ranges);
    runs.push(run);
    at += RUN_HEADER_BYTES + run.contents.length;
  }
  if (at !== payload.length) throw malformed(`${payload.length - at} bytes behind the last run`);
  return runs;
}

function parseRun(
  payload: Uint8Array,
  view: DataView,
  at: number,
  ranges: readonly RamRange[],
): RamRun {
  const firstPage = view.getUint32(at, true);
  const pageCount = view.getUint32(at + 4, true);
  const [rangeIndex, data, tags, tag] = payload.subarray(at + 8, at + RUN_HEADER_BYTES);
  const range = ranges[rangeIndex!];
  if (range === undefined) throw malformed(`range ${rangeIndex} of ${ranges.length}`);
  if (pageCount === 0 || firstPage + pageCount > pageCountOf(range)) {
    throw malformed(`pages ${firstPage} + ${pageCount} in a range of ${pageCountOf(range)}`);
  }
  if (data! > 1 || tags! > 1 || tag! > 15 || (tags === 1 && tag !== 0)) {
    throw malformed(`a run of shape ${data}, ${tags}, ${tag}`);
  }
  const pageBytes = (data === 1 ? PAGE_SIZE : 0) + (tags === 1 ? TAG_BYTES : 0);
  const start = at + RUN_HEADER_BYTES;
  const sizeBytes = pageCount * pageBytes;
  if (payload.length - start < sizeBytes) {
    throw malformed(`${sizeBytes} bytes of pages where ${payload.length - start} are left`);
  }
  return {
    range: rangeIndex!,
    firstPage,
    pageCount,
    hasData: data === 1,
    tag: tags === 1 ? TAGS_DIFFER : tag!,
    contents: payload.subarray(start, start + sizeBytes),
    pageBytes,
  };
}

const malformed = (what: string): MigrationError =>
  new MigrationError('protocol', `message 'ram': ${what}`);
