/**
 * Guest memory by pages, wherever it comes from: what a snapshot is written from and what a machine
 * is filled from. A page and its tags are one thing: whoever has one has the other.
 */
import { PAGE_SIZE } from '../../base/index.ts';

/** Bytes of a page's tags, two to a byte, low nibble first. */
export const PACKED_TAG_BYTES = PAGE_SIZE / 32;

export interface GuestPage {
  /** 4096 bytes; undefined: zero. */
  readonly data: Uint8Array | undefined;
  /** 128 bytes; undefined: all tags are 0. */
  readonly packedTags: Uint8Array | undefined;
}

export interface PageSource {
  readonly pageCount: number;
  /** The page at `index` from the beginning of RAM; views are good until the next call. */
  page(index: number): GuestPage;
}
