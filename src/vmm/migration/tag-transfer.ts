/**
 * What every way of carrying tags does: reads or writes the packed tags of neighbouring pages and
 * counts the cost. The ways themselves are in `tags-….ts`, the choice among them in `tags.ts`.
 */
import type { RamRange } from './guest-ram.ts';

export interface TagCost {
  /** System calls, or bulk loads through a mapping. */
  calls: number;
  /** Bytes that crossed between the hypervisor or the mapping and the VMM. */
  bytes: number;
  milliseconds: number;
  pages: number;
}

export const noTagCost = (): TagCost => ({ calls: 0, bytes: 0, milliseconds: 0, pages: 0 });

/** Neighbouring pages of a range. */
export interface PageSpan {
  readonly range: RamRange;
  readonly firstPage: number;
  readonly pageCount: number;
}

export interface TagReader {
  readonly cost: TagCost;
  /**
   * Reads the packed tags of the span into `packed`; `current[i]` becomes 0 for a page that the
   * guest has written to since it was cleaned, whose tags then count for nothing. Throws
   * `MigrationError` 'machine'.
   */
  read(span: PageSpan, packed: Uint8Array, current: Uint8Array): void;
  /** Gives back what the reader holds of the machine. */
  close(): void;
}

export interface TagWriter {
  readonly cost: TagCost;
  /** Sets the tags of the span. Throws `MigrationError` 'machine'. */
  write(span: PageSpan, packed: Uint8Array): void;
  close(): void;
}
