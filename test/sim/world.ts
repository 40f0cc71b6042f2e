/**
 * A world under one seed: virtual time and randomness. Whatever waits does so by `time`; the world
 * lets the next thing happen only when all that the last one set off has come to rest, so that a
 * run is a function of its seed. Between two events it checks what must always hold.
 */
import { Prng } from '../../src/base/index.ts';
import type { Time } from '../../src/vmm/migration/link.ts';

interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly action: () => void;
}

/** Events without an end: something goes round in circles. */
const EVENTS_MAX = 2_000_000;

const atRest = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export class SimWorld {
  readonly prng: Prng;
  /** Called after every event; throws where an invariant is broken. */
  check: () => void = () => {};
  #nowMs = 0;
  #order = 0;
  #events: Event[] = [];
  #failure: unknown;

  constructor(seed: number) {
    this.prng = new Prng(seed);
  }

  get nowMs(): number {
    return this.#nowMs;
  }

  readonly time: Time = {
    nowMs: () => this.#nowMs,
    after: (ms, action) => this.after(ms, action),
    turn: () => new Promise((resolve) => void this.after(0, resolve)),
  };

  /** Calls `action` in `ms`; returns what calls it off. */
  after(ms: number, action: () => void): () => void {
    const event: Event = { atMs: this.#nowMs + Math.max(0, ms), order: this.#order++, action };
    let at = this.#events.length;
    while (at > 0 && later(this.#events[at - 1]!, event)) at--;
    this.#events.splice(at, 0, event);
    return () => {
      const index = this.#events.indexOf(event);
      if (index >= 0) this.#events.splice(index, 1);
    };
  }

  /** A random time between `min` and `max`. */
  between(min: number, max: number): number {
    return min + (this.prng.u32() / 2 ** 32) * (max - min);
  }

  /** Something went wrong where no one listens: the run ends with it. */
  fail(error: unknown): void {
    this.#failure ??= error;
  }

  /** Lets things happen until `work` is done; rejects with what it, or a check, rejects with. */
  async run<T>(work: Promise<T>): Promise<T> {
    let done = false;
    work.then(
      () => {
        done = true;
      },
      () => {
        done = true;
      },
    );
    for (let count = 0; ; count++) {
      await atRest();
      if (this.#failure !== undefined) throw this.#failure;
      this.check();
      if (done) return work;
      const event = this.#events.shift();
      if (event === undefined) throw new Error(`the world stands still at ${this.#nowMs} ms`);
      if (count > EVENTS_MAX) throw new Error(`no end after ${EVENTS_MAX} events`);
      this.#nowMs = event.atMs;
      event.action();
    }
  }
}

const later = (a: Event, b: Event): boolean =>
  a.atMs > b.atMs || (a.atMs === b.atMs && a.order > b.order);
