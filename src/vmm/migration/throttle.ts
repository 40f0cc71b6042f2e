/**
 * Auto-converge: a guest that writes faster than the link carries is held back in growing steps, so
 * that pre-copy comes to an end. It runs for a slice and rests until the slice is the wanted share
 * of the time. Driven by the migration's `Time`, and so repeatable wherever that is: in the
 * simulation, and in tests. Used by the source; what resting means is the machine's.
 *
 * QEMU: system/cpu-throttle.c and migration/ram.c, mig_throttle_guest_down(); the steps are its.
 */
import { assert } from '../../base/index.ts';
import type { Time } from './link.ts';
import type { MigratableMachine } from './migratable.ts';

/** QEMU: cpu-throttle-initial, cpu-throttle-increment, max-cpu-throttle. */
const PERCENT_FIRST = 20;
const PERCENT_STEP = 10;
export const THROTTLE_PERCENT_MAX = 99;

/** How long the guest runs at a stretch. QEMU: CPU_THROTTLE_TIMESLICE_NS. */
const SLICE_MS = 10;

/** How long the guest rests after each slice to be held back by `percent`. */
export const restMs = (percent: number): number => (SLICE_MS * percent) / (100 - percent);

export class Throttle {
  readonly #time: Time;
  readonly #machine: Pick<MigratableMachine, 'resting'>;
  #percent = 0;
  #cancel: () => void = () => {};

  constructor(time: Time, machine: Pick<MigratableMachine, 'resting'>) {
    this.#time = time;
    this.#machine = machine;
  }

  /** The share of its time that the guest is held back; 0: not at all. */
  get percent(): number {
    return this.#percent;
  }

  /** Holds the guest back more: by 20 % at first, 10 more each time, 99 at most. */
  grow(): void {
    const before = this.#percent;
    const grown = before === 0 ? PERCENT_FIRST : before + PERCENT_STEP;
    this.#percent = Math.min(grown, THROTTLE_PERCENT_MAX);
    if (before === 0) this.#rest();
  }

  /** Lets the guest run freely; may be called again. */
  stop(): void {
    this.#cancel();
    this.#cancel = () => {};
    this.#percent = 0;
    this.#machine.resting = false;
  }

  #rest(): void {
    assert(this.#percent > 0, 'a guest rests while it is held back');
    this.#machine.resting = true;
    this.#cancel = this.#time.after(restMs(this.#percent), () => this.#run());
  }

  #run(): void {
    this.#machine.resting = false;
    this.#cancel = this.#time.after(SLICE_MS, () => this.#rest());
  }
}
