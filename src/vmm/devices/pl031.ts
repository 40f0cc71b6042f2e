/**
 * The Arm PrimeCell real-time clock (PL031): seconds since 1970 from a clock that is passed in, a
 * settable offset, and a match interrupt. Arm DDI 0224. Time passes outside, so the run loop calls
 * `poll` when the clock may have reached `secondsToMatch`.
 */
import { type Ipa, ipa } from '../../base/index.ts';
import {
  type AccessSize,
  type IrqLine,
  LevelLine,
  type MmioDevice,
  readLanes,
  writeLanes,
} from './device.ts';
import { primecellId, primecellIds } from './primecell.ts';

const DR = 0x00;
const MR = 0x04;
const LR = 0x08;
const CR = 0x0c;
const IMSC = 0x10;
const RIS = 0x14;
const MIS = 0x18;
const ICR = 0x1c;

const IDS = primecellIds(0x031, 1);

/** Everything that a restored PL031 needs; `offset` and `seen` are 32-bit seconds. */
export interface Pl031State {
  /** Added to the clock to give RTCDR; set by a write of RTCLR. */
  readonly offset: number;
  readonly match: number;
  readonly load: number;
  readonly imsc: number;
  readonly ris: number;
  /** RTCDR when the match was last looked for. */
  readonly seen: number;
}

export interface Pl031Options {
  readonly base: number;
  readonly irq: IrqLine;
  /** Seconds since 1970; never goes back. */
  readonly seconds: () => number;
}

export class Pl031 implements MmioDevice {
  readonly name = 'pl031';
  readonly base: Ipa;
  readonly sizeBytes = 0x1000;
  readonly #irq: LevelLine;
  readonly #seconds: () => number;
  #state: { -readonly [K in keyof Pl031State]: number };

  constructor(options: Pl031Options) {
    this.base = ipa(options.base);
    this.#irq = new LevelLine(options.irq);
    this.#seconds = options.seconds;
    this.#state = this.#resetState();
  }

  read(offset: number, size: AccessSize): bigint {
    this.poll();
    return readLanes(offset, size, (word) => this.#readRegister(word));
  }

  write(offset: number, size: AccessSize, value: bigint): void {
    this.poll();
    this.#writeRegister(offset - (offset % 4), writeLanes(offset, size, value));
    this.#updateIrq();
  }

  /** Raises the interrupt if the match second has come since the last look. */
  poll(): void {
    const now = this.#now();
    const passed = (now - this.#state.seen) >>> 0;
    const toMatch = (this.#state.match - this.#state.seen) >>> 0;
    if (toMatch !== 0 && toMatch <= passed) this.#state.ris = 1;
    this.#state.seen = now;
    this.#updateIrq();
  }

  /** Seconds until RTCDR comes to RTCMR, 1 to 2^32; undefined while its interrupt is masked. */
  secondsToMatch(): number | undefined {
    if (this.#state.imsc === 0) return undefined;
    return (this.#state.match - this.#now()) >>> 0 || 2 ** 32;
  }

  /** Back to the state after reset: RTCDR follows the clock again. */
  reset(): void {
    this.#state = this.#resetState();
    this.#updateIrq();
  }

  save(): Pl031State {
    return { ...this.#state };
  }

  restore(state: Pl031State): void {
    this.#state = { ...state };
    this.#updateIrq();
  }

  #resetState(): Pl031State {
    return {
      offset: 0,
      match: 0,
      load: 0,
      imsc: 0,
      ris: 0,
      seen: Math.floor(this.#seconds()) >>> 0,
    };
  }

  #now(): number {
    return (Math.floor(this.#seconds()) + this.#state.offset) >>> 0;
  }

  #readRegister(offset: number): number {
    const state = this.#state;
    switch (offset) {
      case DR:
        return this.#now();
      case MR:
        return state.match;
      case LR:
        return state.load;
      case CR: // RTC start: always on, a write of 0 has no effect
        return 1;
      case IMSC:
        return state.imsc;
      case RIS:
        return state.ris;
      case MIS:
        return state.ris & state.imsc;
      default:
        return primecellId(IDS, offset) ?? 0;
    }
  }

  #writeRegister(offset: number, value: number): void {
    const state = this.#state;
    switch (offset) {
      case MR:
        state.match = value;
        this.#matchNow();
        break;
      case LR:
        state.load = value;
        state.offset = (value - Math.floor(this.#seconds())) >>> 0;
        state.seen = value;
        this.#matchNow();
        break;
      case IMSC:
        state.imsc = value & 1;
        break;
      case ICR:
        state.ris &= ~value;
        break;
      default: // read-only and reserved
    }
  }

  /** The comparator works on equality: a match value that is the time now matches at once. */
  #matchNow(): void {
    if (this.#state.match === this.#now()) this.#state.ris = 1;
  }

  #updateIrq(): void {
    this.#irq.set((this.#state.ris & this.#state.imsc) !== 0);
  }
}
