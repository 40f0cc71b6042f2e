/**
 * What a migration tells whoever watches: its phase as a union, its numbers, and events. Plain
 * data; made by source and destination, shown by the CLI and the control socket.
 */
import type { MigrationError } from './migration-error.ts';
import { noTagCost, type TagCost } from './tag-transfer.ts';

/** How far the source is. */
export type SourcePhase =
  | { readonly kind: 'connecting' }
  /** The guest runs, held back by so much of its time; `round` counts from 1. */
  | { readonly kind: 'pre-copy'; readonly round: number; readonly throttlePercent: number }
  /** The guest stands still: its last pages and its state are on their way. */
  | { readonly kind: 'stop-and-copy' }
  /** The destination has everything and is told to run; the guest does not run here again. */
  | { readonly kind: 'handing-over' }
  /** The guest runs there and its memory follows. */
  | { readonly kind: 'post-copy' }
  /** The link broke after the guest was given up; it is being made again. */
  | { readonly kind: 'recovering'; readonly error: MigrationError }
  | { readonly kind: 'completed' }
  /** The guest runs here as before. */
  | { readonly kind: 'failed'; readonly error: MigrationError }
  | { readonly kind: 'cancelled' };

/** How far the destination is. */
export type DestinationPhase =
  | { readonly kind: 'waiting' }
  | { readonly kind: 'receiving' }
  /** It has everything and waits for the word to run. */
  | { readonly kind: 'prepared' }
  /** The guest runs here and some of its memory is still there. */
  | { readonly kind: 'post-copy' }
  /** The same without a link: the guest stands still until the source is back. */
  | { readonly kind: 'paused'; readonly error: MigrationError }
  | { readonly kind: 'completed' };

/** Numbers of a migration; those of a rate or an expectation are of the last round. */
export interface MigrationStatistics {
  rounds: number;
  /** Pages sent, those that were sent before included. */
  pages: number;
  zeroPages: number;
  pagesSentAgain: number;
  /** Pages that were not sent because the tag log said that they are dirty again. */
  pagesPutOff: number;
  /** Pages of post-copy that the destination asked for. */
  pagesRequested: number;
  /** Bytes on the wire, and those of them that are tags. */
  bytes: number;
  tagBytes: number;
  readonly tags: TagCost;
  remainingPages: number;
  dirtyPagesPerSecond: number;
  bytesPerSecond: number;
  /** Undefined until the first round has ended. */
  expectedDowntimeMs: number | undefined;
  /** The most that auto-converge has held the guest back; 0: not at all. */
  throttlePercent: number;
  /** From the moment the guest stopped here to the moment it ran there. */
  downtimeMs: number | undefined;
  totalMs: number;
}

export const newStatistics = (): MigrationStatistics => ({
  rounds: 0,
  pages: 0,
  zeroPages: 0,
  pagesSentAgain: 0,
  pagesPutOff: 0,
  pagesRequested: 0,
  bytes: 0,
  tagBytes: 0,
  tags: noTagCost(),
  remainingPages: 0,
  dirtyPagesPerSecond: 0,
  bytesPerSecond: 0,
  expectedDowntimeMs: undefined,
  throttlePercent: 0,
  downtimeMs: undefined,
  totalMs: 0,
});

export type MigrationEvent<P> =
  | { readonly kind: 'phase'; readonly phase: P }
  /** Some more has been sent or received. */
  | { readonly kind: 'progress'; readonly phase: P };
