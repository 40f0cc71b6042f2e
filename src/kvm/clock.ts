/**
 * The machine's time, from which all counters run. `InstructionClock` counts executed instructions,
 * so that a run depends on nothing else; `WallClock` follows the host, for people at a console.
 */
import { COUNTER_FREQUENCY_HZ, type CounterClock } from './counter.ts';

/** A counter that can also be told that nothing happens for a while. */
export interface MachineClock extends CounterClock {
  /** Instructions that may run before `ticks` counter ticks have passed. */
  instructionsFor(ticks: number): number;
  /** Every vCPU waits: lets `ticks` pass at once; false when they pass by themselves. */
  skip(ticks: number): boolean;
}

/** Instructions to a tick of the counter: 1 GHz worth at 62.5 MHz. */
const INSTRUCTIONS_PER_TICK = 16;

export class InstructionClock implements MachineClock {
  readonly #executed: () => number;
  #skipped = 0;

  /** `executed`: instructions executed since the machine began, all CPUs. */
  constructor(executed: () => number) {
    this.#executed = executed;
  }

  now(): number {
    return Math.floor(this.#executed() / INSTRUCTIONS_PER_TICK) + this.#skipped;
  }

  instructionsFor(ticks: number): number {
    return ticks * INSTRUCTIONS_PER_TICK;
  }

  skip(ticks: number): boolean {
    this.#skipped += ticks;
    return true;
  }
}

/** Below the rate of any engine: a slice that is estimated so ends in time to look at the clock. */
const INSTRUCTIONS_PER_WALL_TICK = 1;

export class WallClock implements MachineClock {
  readonly #startMs: number;
  readonly #nowMs: () => number;

  /** `nowMs`: milliseconds that never go back, e.g. `performance.now`. */
  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
    this.#startMs = nowMs();
  }

  now(): number {
    return Math.floor(((this.#nowMs() - this.#startMs) * COUNTER_FREQUENCY_HZ) / 1000);
  }

  instructionsFor(ticks: number): number {
    return Math.max(1000, ticks * INSTRUCTIONS_PER_WALL_TICK);
  }

  skip(): boolean {
    return false;
  }
}
