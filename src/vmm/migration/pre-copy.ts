/**
 * Pre-copy: memory is sent in rounds while the guest runs, each round what was written during the
 * one before, until what is left can be sent within the downtime limit. Part of the source.
 */
import { PAGE_SIZE } from '../../base/index.ts';
import type { DirtyPages } from './dirty-pages.ts';
import { TAG_BYTES } from './guest-ram.ts';
import type { Time } from './link.ts';
import { RateMeter } from './pace.ts';
import type { PageSender } from './page-sender.ts';
import type { MigrationStatistics } from './progress.ts';

export interface PreCopy {
  /** Logging, with every page dirty. */
  readonly dirty: DirtyPages;
  readonly sender: PageSender;
  readonly statistics: MigrationStatistics;
  readonly time: Time;
  readonly downtimeLimitMs: number;
  /** A round begins. */
  readonly onRound: (round: number) => void;
  /** Called often; throws what ends the migration. */
  readonly check: () => void;
}

/** What a page costs on the wire at most. */
const PAGE_WIRE_BYTES = PAGE_SIZE + TAG_BYTES;
/** State of vCPUs and devices, and the answers that hand over: what is never saved by copying. */
const FIXED_DOWNTIME_MS = 10;

/**
 * Sends rounds until the rest fits the downtime limit; rejects with what `check` throws. A guest
 * that writes faster than the link carries never fits: it is the caller who ends that.
 */
export async function preCopy(migration: PreCopy): Promise<void> {
  const { dirty, statistics, time, downtimeLimitMs } = migration;
  const rate = new RateMeter(time);
  for (let round = 1; ; round++) {
    statistics.rounds = round;
    migration.onRound(round);
    dirty.collect();
    await sendRound(migration, rate);
    const ms = rate.endRound();
    estimate(migration, rate, ms);
    const { expectedDowntimeMs } = statistics;
    if (expectedDowntimeMs !== undefined && expectedDowntimeMs <= downtimeLimitMs) return;
    // Nothing was sent and still too much is dirty: give the guest and the link their time.
    if (ms === 0) await time.turn();
  }
}

async function sendRound({ dirty, sender, statistics, check }: PreCopy, rate: RateMeter) {
  const before = statistics.bytes;
  for (let chunk = dirty.take(); chunk !== undefined; chunk = dirty.take()) {
    // What is put off is dirty in the log, and so in the next round.
    await sender.send(chunk);
    statistics.remainingPages = dirty.pendingCount;
    check();
  }
  await sender.drain();
  rate.add(statistics.bytes - before);
}

function estimate({ dirty, statistics }: PreCopy, rate: RateMeter, roundMs: number): void {
  const left = dirty.estimate();
  const { bytesPerSecond } = rate;
  statistics.remainingPages = left;
  statistics.bytesPerSecond = bytesPerSecond ?? 0;
  if (roundMs > 0) statistics.dirtyPagesPerSecond = (left * 1000) / roundMs;
  if (bytesPerSecond === undefined) return;
  statistics.expectedDowntimeMs =
    FIXED_DOWNTIME_MS + (left * PAGE_WIRE_BYTES * 1000) / bytesPerSecond;
}
