/**
 * The 2 MiB of guest memory that are stored together, before compression: what each page is, the
 * tags of pages that have several, and the data of pages that are not zero.
 *
 *     512 bytes, one a page    bits 1:0  data: 0 zero, 1 stored
 *                              bits 3:2  tags: 0 all zero, 1 one tag, in bits 7:4; 2 stored
 *     128 bytes for each page with tags stored: two to a byte, low nibble first
 *     4096 bytes for each page with data stored
 *
 * All parts are multiples of 4 bytes, which the compressor likes (lz4.ts).
 */
import { BLOCK_SIZE, PAGE_SIZE, unpackTags } from '../../base/index.ts';
import { PACKED_TAG_BYTES } from './page-source.ts';

/** The size of a block at both stages: a chunk that is loaded on touch can be mapped as one. */
export const CHUNK_BYTES = BLOCK_SIZE;
export const CHUNK_PAGES = CHUNK_BYTES / PAGE_SIZE;
/** One tag a byte, as KVM_ARM_MTE_COPY_TAGS has them. */
export const TAGS_PER_PAGE = PAGE_SIZE / 16;
export const CHUNK_TAG_BYTES = CHUNK_PAGES * TAGS_PER_PAGE;
export const CHUNK_PACKED_TAG_BYTES = CHUNK_PAGES * PACKED_TAG_BYTES;
/** A chunk whose pages all have data and several tags. */
export const RAW_BYTES_MAX = CHUNK_PAGES + CHUNK_PACKED_TAG_BYTES + CHUNK_BYTES;

const DATA_STORED = 1;
const ONE_TAG = 1 << 2;
const TAGS_STORED = 2 << 2;
const TAG_KIND = 3 << 2;

/** How many pages of a chunk are what; for people. */
export interface ChunkCounts {
  zeroPages: number;
  dataPages: number;
  /** Pages whose tags are all zero, all the same, and different. */
  untaggedPages: number;
  oneTagPages: number;
  taggedPages: number;
}

/** Makes raw chunks; its buffers are used again for the next one. */
export class ChunkEncoder {
  /** The tags of its 2 MiB, one a byte. Filled by the caller before `encode`. */
  readonly tags = new Uint8Array(CHUNK_TAG_BYTES);
  readonly #tagWords = new Int32Array(this.tags.buffer);
  readonly #raw = new Uint8Array(RAW_BYTES_MAX);
  readonly #rawHalves = new Uint16Array(this.#raw.buffer);
  readonly #rawWords = new Int32Array(this.#raw.buffer);

  /**
   * The raw chunk, good until the next call; undefined when all is zero. `readData` fills in the
   * 2 MiB of data: where they are to stay, unless there are pages of zeros among them.
   */
  encode(readData: (target: Uint8Array) => void): Uint8Array | undefined {
    const raw = this.#raw;
    let at = CHUNK_PAGES;
    for (let page = 0; page < CHUNK_PAGES; page++) {
      const kind = this.#tagKind(page);
      raw[page] = kind;
      if (kind === TAGS_STORED) {
        this.#packTags(page, at);
        at += PACKED_TAG_BYTES;
      }
    }
    const hasTags = !isZeroWords(this.#rawWords, 0, CHUNK_PAGES / 4);
    const dataAt = at;
    readData(raw.subarray(dataAt, dataAt + CHUNK_BYTES));
    for (let page = 0; page < CHUNK_PAGES; page++) {
      const from = dataAt + page * PAGE_SIZE;
      if (isZeroWords(this.#rawWords, from / 4, PAGE_SIZE / 4)) continue;
      if (from !== at) raw.copyWithin(at, from, from + PAGE_SIZE);
      raw[page] = raw[page]! | DATA_STORED;
      at += PAGE_SIZE;
    }
    return hasTags || at > dataAt ? raw.subarray(0, at) : undefined;
  }

  /** The tag part of a page's kind. */
  #tagKind(page: number): number {
    const words = this.#tagWords;
    const from = page * (TAGS_PER_PAGE / 4);
    const first = words[from]!;
    for (let i = from + 1; i < from + TAGS_PER_PAGE / 4; i++) {
      if (words[i] !== first) return TAGS_STORED;
    }
    if (first === 0) return 0;
    const tag = first & 15;
    return first === Math.imul(tag, 0x01010101) ? ONE_TAG | (tag << 4) : TAGS_STORED;
  }

  #packTags(page: number, at: number): void {
    const from = page * (TAGS_PER_PAGE / 4);
    for (let i = 0; i < TAGS_PER_PAGE / 4; i++) {
      const four = this.#tagWords[from + i]!;
      this.#rawHalves[at / 2 + i] =
        (four & 0xf) | ((four >>> 4) & 0xf0) | ((four >>> 8) & 0xf00) | ((four >>> 12) & 0xf000);
    }
  }
}

/** Whether `count` words (a multiple of 8) are zero. */
function isZeroWords(words: Int32Array, from: number, count: number): boolean {
  for (let i = from; i < from + count; i += 8) {
    const bits =
      words[i]! |
      words[i + 1]! |
      words[i + 2]! |
      words[i + 3]! |
      words[i + 4]! |
      words[i + 5]! |
      words[i + 6]! |
      words[i + 7]!;
    if (bits !== 0) return false;
  }
  return true;
}

/** A raw chunk taken apart; nothing is copied. */
export class Chunk {
  readonly #raw: Uint8Array;
  /** Where each page's data and tags lie in the raw chunk; 0: nowhere. */
  readonly #dataAt = new Int32Array(CHUNK_PAGES);
  readonly #tagsAt = new Int32Array(CHUNK_PAGES);
  readonly counts: ChunkCounts;

  /** Called by `parseChunk`, which has checked `raw`. */
  constructor(raw: Uint8Array) {
    this.#raw = raw;
    const counts = { zeroPages: 0, dataPages: 0, untaggedPages: 0, oneTagPages: 0, taggedPages: 0 };
    let at = CHUNK_PAGES;
    for (let page = 0; page < CHUNK_PAGES; page++) {
      const kind = raw[page]! & TAG_KIND;
      if (kind === TAGS_STORED) {
        this.#tagsAt[page] = at;
        at += PACKED_TAG_BYTES;
        counts.taggedPages++;
      } else if (kind === ONE_TAG) counts.oneTagPages++;
      else counts.untaggedPages++;
    }
    for (let page = 0; page < CHUNK_PAGES; page++) {
      if ((raw[page]! & DATA_STORED) === 0) continue;
      this.#dataAt[page] = at;
      at += PAGE_SIZE;
      counts.dataPages++;
    }
    counts.zeroPages = CHUNK_PAGES - counts.dataPages;
    this.counts = counts;
  }

  /** A page's data, a view; undefined: zero. */
  data(page: number): Uint8Array | undefined {
    const at = this.#dataAt[page]!;
    return at === 0 ? undefined : this.#raw.subarray(at, at + PAGE_SIZE);
  }

  /**
   * Calls `visit` for each longest run of pages with data: they lie one behind the other, so `data`
   * is a view of all of them.
   */
  forEachDataRun(visit: (firstPage: number, data: Uint8Array) => void): void {
    for (let page = 0; page < CHUNK_PAGES; ) {
      const first = page;
      while (page < CHUNK_PAGES && this.#dataAt[page] !== 0) page++;
      const at = this.#dataAt[first]!;
      if (page > first) visit(first, this.#raw.subarray(at, at + (page - first) * PAGE_SIZE));
      else page++;
    }
  }

  /** Calls `visit` for each longest run of pages with a tag that is not zero. */
  forEachTagRun(visit: (firstPage: number, pageCount: number) => void): void {
    for (let page = 0; page < CHUNK_PAGES; ) {
      const first = page;
      while (page < CHUNK_PAGES && this.isTagged(page)) page++;
      if (page > first) visit(first, page - first);
      else page++;
    }
  }

  /** Whether any tag of a page is not zero. */
  isTagged(page: number): boolean {
    return (this.#raw[page]! & TAG_KIND) !== 0;
  }

  get hasTags(): boolean {
    return this.counts.untaggedPages < CHUNK_PAGES;
  }

  /** Writes a page's tags, two to a byte, to `target` from `at` on. */
  packedTagsInto(page: number, target: Uint8Array, at: number): void {
    const from = this.#tagsAt[page]!;
    if (from !== 0) target.set(this.#raw.subarray(from, from + PACKED_TAG_BYTES), at);
    else target.fill((this.#raw[page]! >>> 4) * 0x11, at, at + PACKED_TAG_BYTES);
  }

  /** Writes a page's tags, one a byte, to `target` from `at` on. */
  tagsInto(page: number, target: Uint8Array, at: number): void {
    const from = this.#tagsAt[page]!;
    if (from === 0) {
      target.fill(this.#raw[page]! >>> 4, at, at + TAGS_PER_PAGE);
      return;
    }
    unpackTags(this.#raw.subarray(from, from + PACKED_TAG_BYTES), target, at);
  }
}

/** Only the combinations that `ChunkEncoder` makes: the same memory has one encoding. */
function isKind(kind: number): boolean {
  const tag = kind >>> 4;
  switch (kind & TAG_KIND) {
    case 0:
    case TAGS_STORED:
      return tag === 0 && (kind & 3) <= DATA_STORED;
    case ONE_TAG:
      return tag !== 0 && (kind & 3) <= DATA_STORED;
    default:
      return false;
  }
}

/** The chunk in `raw`, which it keeps; undefined where that is none. */
export function parseChunk(raw: Uint8Array): Chunk | undefined {
  if (raw.length < CHUNK_PAGES) return undefined;
  let sizeBytes = CHUNK_PAGES;
  for (let page = 0; page < CHUNK_PAGES; page++) {
    const kind = raw[page]!;
    if (!isKind(kind)) return undefined;
    if ((kind & DATA_STORED) !== 0) sizeBytes += PAGE_SIZE;
    if ((kind & TAG_KIND) === TAGS_STORED) sizeBytes += PACKED_TAG_BYTES;
  }
  return sizeBytes === raw.length ? new Chunk(raw) : undefined;
}
