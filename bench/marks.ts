/**
 * Makes speeds of the marks that the benchmark's guest sends (guest.ts). A loop is timed from
 * outside by the clock of the machine that runs the emulator: first it runs unmeasured, so that the
 * emulator may compile what it likes, then over a few windows of which the fastest counts. What
 * else happens on the machine slows windows down and speeds none up.
 */
import { type BenchGuest, markOf } from './guest.ts';

export interface Timing {
  readonly warmUpMs: number;
  readonly windowMs: number;
  readonly windowCount: number;
}

export const DEFAULT_TIMING: Timing = { warmUpMs: 1500, windowMs: 500, windowCount: 5 };

export class MarkTimer {
  readonly #guest: BenchGuest;
  readonly #timing: Timing;
  readonly #results: number[] = [];
  #best = 0;
  #startedMs: number | undefined;
  #windowStartMs: number | undefined;
  #windowBatches = 0;
  #windowsDone = 0;

  constructor(guest: BenchGuest, timing: Timing) {
    this.#guest = guest;
    this.#timing = timing;
  }

  /** Million guest instructions a second, by loop, of the loops that are done. */
  get results(): readonly number[] {
    return this.#results;
  }

  /** Takes a mark that came at `nowMs`; true: the guest is to go on to the next loop. */
  take(mark: string, nowMs: number): boolean {
    const index = this.#results.length;
    // Of the loop before, sent until it heard that it is done; or the console's own output.
    if (mark !== markOf(index) || index === this.#guest.loops.length) return false;
    this.#startedMs ??= nowMs;
    if (nowMs - this.#startedMs < this.#timing.warmUpMs) return false;
    if (this.#windowStartMs === undefined) {
      this.#windowStartMs = nowMs;
      return false;
    }
    this.#windowBatches++;
    const elapsedMs = nowMs - this.#windowStartMs;
    return elapsedMs >= this.#timing.windowMs && this.#endWindow(index, elapsedMs, nowMs);
  }

  #endWindow(index: number, elapsedMs: number, nowMs: number): boolean {
    const instructions = this.#windowBatches * this.#guest.batchInstructions[index]!;
    this.#best = Math.max(this.#best, instructions / elapsedMs / 1000);
    this.#windowStartMs = nowMs;
    this.#windowBatches = 0;
    if (++this.#windowsDone < this.#timing.windowCount) return false;
    this.#results.push(this.#best);
    this.#best = 0;
    this.#startedMs = undefined;
    this.#windowStartMs = undefined;
    this.#windowsDone = 0;
    return true;
  }
}
