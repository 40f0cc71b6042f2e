/**
 * How fast a source may send, and what it may expect: the bandwidth limit, turns for the guest in
 * between, the rate achieved, and the downtime that would follow if the guest stopped now.
 */
import { sleep, type Time } from './link.ts';

/** Milliseconds of sending after which everything else gets a turn. */
const TURN_MS = 4;
/** The longest sleep: somebody may have cancelled. */
const SLEEP_MS_MAX = 100;
/** Between looks at a page that a disk is to bring. */
const WAIT_MS = 1;
/** A debt below this is carried on: timers are coarse. */
const SLEEP_MS_MIN = 2;

export class Pace {
  readonly #time: Time;
  readonly #bytesPerSecondMax: number | undefined;
  readonly #check: () => void;
  /** When what was sent so far may have been sent under the limit. */
  #allowedAtMs: number;
  #turnAtMs: number;

  /** `check` is called often while `sent` waits; what it throws ends that. */
  constructor(time: Time, bytesPerSecondMax?: number, check: () => void = () => {}) {
    this.#time = time;
    this.#bytesPerSecondMax = bytesPerSecondMax;
    this.#check = check;
    this.#allowedAtMs = time.nowMs();
    this.#turnAtMs = time.nowMs();
  }

  /** `bytes` have been sent: waits while that was too fast, or until others had their turn. */
  async sent(bytes: number): Promise<void> {
    const now = this.#time.nowMs();
    const limit = this.#bytesPerSecondMax;
    if (limit !== undefined) {
      this.#allowedAtMs = Math.max(now, this.#allowedAtMs) + (bytes * 1000) / limit;
      if (this.#allowedAtMs - now >= SLEEP_MS_MIN) {
        await this.#sleepUntil(this.#allowedAtMs);
        this.#turnAtMs = this.#time.nowMs();
        return;
      }
    }
    if (now - this.#turnAtMs < TURN_MS) return;
    await this.#time.turn();
    this.#turnAtMs = this.#time.nowMs();
  }

  /** Waits for something else than the link, for a moment: a disk. */
  async wait(): Promise<void> {
    await sleep(this.#time, WAIT_MS);
    this.#check();
    this.#turnAtMs = this.#time.nowMs();
  }

  async #sleepUntil(atMs: number): Promise<void> {
    for (let left = atMs - this.#time.nowMs(); left > 0; left = atMs - this.#time.nowMs()) {
      await sleep(this.#time, Math.min(left, SLEEP_MS_MAX));
      this.#check();
    }
  }
}

/** Bytes a second over the time since `begin`, smoothed over rounds. */
export class RateMeter {
  readonly #time: Time;
  #sinceMs: number;
  #bytes = 0;
  #rate: number | undefined;

  constructor(time: Time) {
    this.#time = time;
    this.#sinceMs = time.nowMs();
  }

  add(bytes: number): void {
    this.#bytes += bytes;
  }

  /** Ends a round; returns its length in milliseconds. */
  endRound(): number {
    const now = this.#time.nowMs();
    const ms = now - this.#sinceMs;
    if (ms > 0 && this.#bytes > 0) {
      const measured = (this.#bytes * 1000) / ms;
      this.#rate = this.#rate === undefined ? measured : (this.#rate + measured) / 2;
    }
    this.#sinceMs = now;
    this.#bytes = 0;
    return ms;
  }

  /** Bytes a second, or undefined before the first round with any. */
  get bytesPerSecond(): number | undefined {
    return this.#rate;
  }
}
