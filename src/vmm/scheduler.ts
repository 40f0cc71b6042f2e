/**
 * Takes turns among the vCPUs of a VM on one thread: round robin by budget, passing over those that
 * wait, and letting time pass at once when all do. Knows nothing of devices; the VMM's loop handles
 * the exits it returns. Same vCPUs, same clock, same budget: same order of turns.
 */
import { assert } from '../base/index.ts';
import type { MachineClock, Vcpu, VcpuExit } from '../kvm/index.ts';

/** Instructions a vCPU runs before the next one's turn when more than one can run. */
const TURN_INSTRUCTIONS = 50_000;

export type Turn =
  /** A vCPU needs the VMM; `left` of the instructions asked for have not run. */
  | { readonly kind: 'exit'; readonly vcpu: Vcpu; readonly exit: VcpuExit; readonly left: number }
  /** Every vCPU waits; `ticks` until a timer wakes one, undefined: only a device can. */
  | { readonly kind: 'idle'; readonly ticks: number | undefined }
  /** None can run, and one only waits for a page of the VMM's: time must not pass for that. */
  | { readonly kind: 'paging' }
  /** The instructions asked for have run. */
  | { readonly kind: 'budget' };

export class Scheduler {
  readonly #vcpus: readonly Vcpu[];
  readonly #clock: MachineClock;
  #next = 0;

  /** Counter ticks until a device of the VMM wants to be looked at, or undefined. */
  readonly #deviceDeadline: () => number | undefined;
  /**
   * Leave it to the caller to let time pass while all vCPUs wait: a person at the console should
   * not pay for a guest that idles. What the guest sees is the same.
   */
  paced = false;
  /** Whether a vCPU waits for a page that the VMM supplies. */
  isPaging: () => boolean = () => false;

  constructor(
    vcpus: readonly Vcpu[],
    clock: MachineClock,
    deviceDeadline: () => number | undefined = () => undefined,
  ) {
    this.#vcpus = vcpus;
    this.#clock = clock;
    this.#deviceDeadline = deviceDeadline;
  }

  /** The vCPU whose turn is next: all that a scheduler remembers between calls of `run`. */
  get next(): number {
    return this.#next;
  }

  /** Precondition: the index of a vCPU. */
  set next(index: number) {
    assert(index >= 0 && index < this.#vcpus.length, "the turn is some vCPU's");
    this.#next = index;
  }

  /** Runs turns until the VMM is needed, everything waits, or about `budget` instructions ran. */
  run(budget: number): Turn {
    let left = budget;
    while (left > 0) {
      const vcpu = this.#pick();
      if (vcpu === undefined) {
        const turn = this.#idle();
        if (turn !== undefined) return turn;
        continue;
      }
      const alone = this.#vcpus.length === 1;
      const before = vcpu.statistics.instructionCount;
      const exit = vcpu.run(alone ? left : Math.min(left, TURN_INSTRUCTIONS));
      left -= Math.max(1, vcpu.statistics.instructionCount - before);
      switch (exit.kind) {
        case 'preempted':
        case 'blocked':
        case 'yielded':
          this.#next = (vcpu.index + 1) % this.#vcpus.length;
          break;
        default:
          return { kind: 'exit', vcpu, exit, left };
      }
    }
    return { kind: 'budget' };
  }

  /** The next vCPU in turn that can run. */
  #pick(): Vcpu | undefined {
    const count = this.#vcpus.length;
    for (let i = 0; i < count; i++) {
      const vcpu = this.#vcpus[(this.#next + i) % count]!;
      if (vcpu.runnable) return vcpu;
    }
    return undefined;
  }

  /** Nobody can run: lets time pass up to the first timer, or says how long that is. */
  #idle(): Turn | undefined {
    if (this.isPaging()) return { kind: 'paging' };
    const device = this.#deviceDeadline();
    let ticks = device;
    for (const vcpu of this.#vcpus) {
      const deadline = vcpu.nextDeadline();
      if (deadline !== undefined && (ticks === undefined || deadline < ticks)) ticks = deadline;
    }
    if (ticks === undefined || this.paced) return { kind: 'idle', ticks };
    if (!this.#clock.skip(Math.max(1, ticks))) return { kind: 'idle', ticks };
    // A device of the VMM must be looked at before time goes on.
    return ticks === device ? { kind: 'budget' } : undefined;
  }
}
