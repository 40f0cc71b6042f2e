/**
 * Pre-copy: memory is sent in rounds while the guest runs, each round what was written during the
 * one before, until what is left can be sent within the downtime limit. Part of the source.
 *
 * A guest that writes faster than the link carries never fits. It may be held back until it does
 * (`throttle.ts`), or the rest of its memory may follow it instead (post-copy); with neither, the
 * rounds go on until somebody cancels, and the expected downtime says why.
 */
import { PAGE_SIZE } from '../../base/index.ts';
import type { DirtyPages } from './dirty-pages.ts';
import { TAG_BYTES } from './guest-ram.ts';
import type { Time } from './link.ts';
import { RateMeter } from './pace.ts';
import type { PageSender } from './page-sender.ts';
import type { MigrationStatistics } from './progress.ts';
import type { Throttle } from './throttle.ts';

export interface PreCopy {
  /** Logging, with every page dirty. */
  readonly dirty: DirtyPages;
  readonly sender: PageSender;
  readonly statistics: MigrationStatistics;
  readonly time: Time;
  readonly downtimeLimitMs: number;
  /** Holds the guest back where it writes too fast; absent: nothing does. */
  readonly throttle?: Throttle;
  /** Whether to stop copying ahead, asked often; `rounds`: those that have ended. */
  readonly wantsPostCopy: (rounds: number) => boolean;
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
 * A round in which the guest writes more than this share of what was sent does not lead anywhere;
 * QEMU: throttle-trigger-threshold.
 */
const DIRTY_SHARE_MAX = 0.5;
/** So many such rounds, and the guest is held back (more). QEMU: dirty_rate_high_cnt. */
const HIGH_ROUNDS = 2;

/**
 * Sends rounds until the rest fits the downtime limit ('fits') or post-copy is wanted ('switch':
 * what is left is dirty or pending in `dirty`); rejects with what `check` throws.
 */
export async function preCopy(migration: PreCopy): Promise<'fits' | 'switch'> {
  const { dirty, statistics, time, downtimeLimitMs, throttle, wantsPostCopy } = migration;
  const rate = new RateMeter(time);
  let highRounds = 0;
  for (let round = 1; ; round++) {
    statistics.rounds = round;
    migration.onRound(round);
    dirty.collect();
    const sentBytes = await sendRound(migration, rate);
    const ms = rate.endRound();
    estimate(migration, rate, ms);
    const { expectedDowntimeMs, remainingPages } = statistics;
    if (expectedDowntimeMs !== undefined && expectedDowntimeMs <= downtimeLimitMs) return 'fits';
    if (wantsPostCopy(round)) return 'switch';
    const isHigh = remainingPages * PAGE_WIRE_BYTES > DIRTY_SHARE_MAX * sentBytes;
    if (throttle !== undefined && isHigh && ++highRounds >= HIGH_ROUNDS) {
      highRounds = 0;
      throttle.grow();
      statistics.throttlePercent = throttle.percent;
    }
    // Nothing was sent and still too much is dirty: give the guest and the link their time.
    if (ms === 0) await time.turn();
  }
}

/** Sends what is pending, or as much of it as is wanted; returns the bytes. */
async function sendRound(migration: PreCopy, rate: RateMeter): Promise<number> {
  const { dirty, sender, statistics, check, wantsPostCopy } = migration;
  const before = statistics.bytes;
  const rounds = statistics.rounds - 1;
  while (!wantsPostCopy(rounds)) {
    const chunk = dirty.take();
    if (chunk === undefined) break;
    // What is put off is dirty in the log, and so in the next round.
    await sender.send(chunk);
    statistics.remainingPages = dirty.pendingCount;
    check();
  }
  await sender.drain();
  rate.add(statistics.bytes - before);
  return statistics.bytes - before;
}

function estimate({ dirty, statistics }: PreCopy, rate: RateMeter, roundMs: number): void {
  const left = dirty.estimate();
  const { bytesPerSecond } = rate;
  statistics.remainingPages = left;
  statistics.bytesPerSecond = bytesPerSecond ?? 0;
  if (roundMs > 0) statistics.dirtyPagesPerSecond = (left * 1000) / roundMs;
  // Nothing takes no time, however fast the link.
  if (bytesPerSecond === undefined && left > 0) return;
  const leftMs = left === 0 ? 0 : (left * PAGE_WIRE_BYTES * 1000) / bytesPerSecond!;
  statistics.expectedDowntimeMs = FIXED_DOWNTIME_MS + leftMs;
}
