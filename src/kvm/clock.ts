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
  /** What a machine needs to go on from the same time; undefined where the world keeps it. */
  save(): ClockState | undefined;
  /** Goes on from a saved time; nothing where the world keeps it. */
  restore(state: ClockState): void;
  /** The host's date for guests and devices that ask, in nanoseconds since 1970. */
  realTimeNs(): bigint;
}

/** The time of a machine that counts instructions. */
export interface ClockState {
  /** Instructions executed since the machine began, all CPUs. */
  readonly executed: number;
  /** Ticks that passed while every vCPU waited. */
  readonly skippedTicks: number;
}

/** Instructions to a tick of the counter: 1 GHz worth at 62.5 MHz. */
const INSTRUCTIONS_PER_TICK = 16;

/** 2026-01-01, where the date of a machine that counts instructions begins. */
const EPOCH_NS = 1_767_225_600_000_000_000n;
const NS_PER_MS = 1_000_000n;
const NS_PER_TICK = 1_000_000_000n / BigInt(COUNTER_FREQUENCY_HZ);

export class InstructionClock implements MachineClock {
  readonly #executedHere: () => number;
  /** What was executed before, on other machines. */
  #executedBefore = 0;
  #skipped = 0;

  /** `executedHere`: instructions executed on this machine, all CPUs. */
  constructor(executedHere: () => number) {
    this.#executedHere = executedHere;
  }

  get #executed(): number {
    return this.#executedBefore + this.#executedHere();
  }

  now(): number {
    return Math.floor(this.#executed / INSTRUCTIONS_PER_TICK) + this.#skipped;
  }

  /** Exact: a wait that is cut into several ends at the same instruction. */
  instructionsFor(ticks: number): number {
    return Math.max(0, ticks * INSTRUCTIONS_PER_TICK - (this.#executed % INSTRUCTIONS_PER_TICK));
  }

  skip(ticks: number): boolean {
    this.#skipped += ticks;
    return true;
  }

  save(): ClockState {
    return { executed: this.#executed, skippedTicks: this.#skipped };
  }

  restore({ executed, skippedTicks }: ClockState): void {
    this.#executedBefore = executed - this.#executedHere();
    this.#skipped = skippedTicks;
  }

  realTimeNs(): bigint {
    return EPOCH_NS + BigInt(this.now()) * NS_PER_TICK;
  }
}

/** Below the rate of any engine: a slice that is estimated so ends in time to look at the clock. */
const INSTRUCTIONS_PER_WALL_TICK = 1;

export class WallClock implements MachineClock {
  readonly #startMs: number;
  readonly #nowMs: () => number;
  readonly #dateMs: () => number;

  /**
   * Both in milliseconds: `nowMs` never goes back, e.g. `performance.now`; `dateMs` is since 1970,
   * e.g. `Date.now`.
   */
  constructor({ nowMs, dateMs }: { nowMs: () => number; dateMs: () => number }) {
    this.#nowMs = nowMs;
    this.#dateMs = dateMs;
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

  save(): undefined {
    return undefined;
  }

  /** The guest's counters go on by their offsets, which are registers. */
  restore(): void {}

  realTimeNs(): bigint {
    return BigInt(this.#dateMs()) * NS_PER_MS;
  }
}
