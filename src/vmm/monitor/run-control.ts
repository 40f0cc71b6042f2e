/**
 * Whether a machine may run, and who says otherwise: its user (pause and resume), a migration that
 * takes it away or has not brought it yet. The run loop (`machine.ts`) asks before each slice; the
 * control socket and migrations steer. States carry the names that QMP gives them.
 */

/** Why a guest stands still though its user has not paused it. */
export type HoldReason =
  /** It has not come here yet. */
  | 'inmigrate'
  /** It is on its way elsewhere. */
  | 'finish-migrate'
  /** It runs here, but a part of its memory cannot be reached. */
  | 'postmigrate-paused'
  /** It is elsewhere now. */
  | 'postmigrate'
  /** Its state is being written to a file. */
  | 'save-vm';

export type RunState = 'running' | 'paused' | 'shutdown' | HoldReason;

/** Why a run ends other than by the guest's own doing. */
export type LeaveReason = 'quit' | 'migrated';

export type RunEvent =
  | { readonly kind: 'stop' }
  | { readonly kind: 'resume' }
  | { readonly kind: 'reset' }
  | { readonly kind: 'shutdown'; readonly reason: string };

export class RunControl {
  readonly #holds = new Set<HoldReason>();
  readonly #listeners = new Set<(event: RunEvent) => void>();
  #paused = false;
  #resting = false;
  #ended = false;
  #leaving: LeaveReason | undefined;
  #sharers = 0;
  #withholders = 0;
  #wake: (() => void)[] = [];

  get state(): RunState {
    if (this.#ended) return 'shutdown';
    const [hold] = this.#holds;
    return hold ?? (this.#paused ? 'paused' : 'running');
  }

  /** What the run loop asks. */
  get mayRun(): boolean {
    return this.state === 'running' && !this.#resting;
  }

  /** Held back for a moment by a migration that does not keep up: no change of state. */
  get resting(): boolean {
    return this.#resting;
  }

  set resting(resting: boolean) {
    this.#resting = resting;
    this.wake();
  }

  /** What its user wants; a hold goes before it. */
  get paused(): boolean {
    return this.#paused;
  }

  set paused(paused: boolean) {
    this.#change(() => {
      this.#paused = paused;
    });
  }

  /** The run loop ends when it next looks, for this reason. */
  get leaving(): LeaveReason | undefined {
    return this.#leaving;
  }

  /** Others need the thread: slices are to be short. */
  get isShared(): boolean {
    return this.#sharers > 0;
  }

  hold(reason: HoldReason): void {
    this.#change(() => this.#holds.add(reason));
  }

  release(reason: HoldReason): void {
    this.#change(() => this.#holds.delete(reason));
  }

  leave(reason: LeaveReason): void {
    this.#leaving ??= reason;
    this.wake();
  }

  /** Asks for short slices; returns what ends that. */
  share(): () => void {
    this.#sharers++;
    let over = false;
    return () => {
      if (!over) this.#sharers--;
      over = true;
    };
  }

  /**
   * Whether what the guest does is to stay inside: its output is kept, and its end waits. So a
   * guest may run before all of it is known to be sound.
   */
  get isWithheld(): boolean {
    return this.#withholders > 0;
  }

  /** Asks for that; returns what ends it. What is still kept when the run ends is dropped. */
  withhold(): () => void {
    this.#withholders++;
    let over = false;
    return () => {
      if (over) return;
      over = true;
      this.#withholders--;
      this.wake();
    };
  }

  /** Resolves when that is over, or the run is. */
  async untilShown(): Promise<void> {
    while (this.isWithheld && this.leaving === undefined && !this.#ended) await this.changed();
  }

  /** Tells `listener` of events from now on; returns what ends it. */
  listen(listener: (event: RunEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Whoever waits for something to do looks again. */
  wake(): void {
    const waiting = this.#wake;
    this.#wake = [];
    for (const wake of waiting) wake();
  }

  /** Resolves at the next change, or when `wake` is called. */
  changed(): Promise<void> {
    return new Promise((resolve) => this.#wake.push(resolve));
  }

  // ---- called by the run loop -----------------------------------------------------------------

  /** The guest was reset and starts anew. */
  reset(): void {
    this.#tell({ kind: 'reset' });
  }

  /** The run is over. */
  end(reason: string): void {
    this.#ended = true;
    this.#tell({ kind: 'shutdown', reason });
    this.wake();
  }

  #change(change: () => void): void {
    const before = this.state === 'running';
    change();
    const after = this.state === 'running';
    if (before !== after) this.#tell({ kind: after ? 'resume' : 'stop' });
    this.wake();
  }

  #tell(event: RunEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}
