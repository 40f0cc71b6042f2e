/**
 * Where swapped pages are stored: memory, a file that the caller opened, and a wrapper that makes a
 * device slow and unreliable from a seed, for simulation. Data only; the tags of a swapped page
 * stay in the kernel's memory (`swap.ts`), because no disk has room for them beside a page.
 */
import { assert, PAGE_SIZE, type Prng } from '../base/index.ts';

/** A device of `slotCount` slots of a page each. */
export interface SwapDevice {
  readonly slotCount: number;
  /** Stores a page; false: an I/O error, what the slot holds now means nothing. */
  write(slot: number, data: Uint8Array): boolean;
  /**
   * Fetches a page into `into`. With `onReady` the answer may be 'later': `onReady` is called when
   * it is worth asking again. Without, the caller sleeps until the device is done.
   */
  read(slot: number, into: Uint8Array, onReady?: () => void): 'done' | 'failed' | 'later';
}

/** A device in memory (Linux: zram without compression). */
export class MemorySwapDevice implements SwapDevice {
  readonly slotCount: number;
  readonly #pages = new Map<number, Uint8Array>();

  constructor(slotCount: number) {
    this.slotCount = slotCount;
  }

  write(slot: number, data: Uint8Array): boolean {
    this.#pages.set(slot, data.slice());
    return true;
  }

  read(slot: number, into: Uint8Array): 'done' {
    const page = this.#pages.get(slot);
    assert(page !== undefined, 'a slot is written before it is read');
    into.set(page);
    return 'done';
  }
}

/** A file that can be read and written in place: what `node:fs` does with a descriptor. */
export interface SwapFileAccess {
  /** Bytes transferred, fewer than the buffer has for an error. */
  readAt(buffer: Uint8Array, position: number): number;
  writeAt(buffer: Uint8Array, position: number): number;
}

/** A swap file, slot n at byte 4096 n. */
export class FileSwapDevice implements SwapDevice {
  readonly slotCount: number;
  readonly #file: SwapFileAccess;

  constructor(file: SwapFileAccess, slotCount: number) {
    this.slotCount = slotCount;
    this.#file = file;
  }

  write(slot: number, data: Uint8Array): boolean {
    return this.#file.writeAt(data, slot * PAGE_SIZE) === data.length;
  }

  read(slot: number, into: Uint8Array): 'done' | 'failed' {
    return this.#file.readAt(into, slot * PAGE_SIZE) === into.length ? 'done' : 'failed';
  }
}

/** How a simulated device misbehaves; each chance is one in so many, 0: never. */
export interface SwapFaults {
  readonly prng: Prng;
  readonly writeFailsOneIn?: number;
  readonly readFailsOneIn?: number;
  /** A read takes 0 … so many ticks of `advance`, drawn for each. */
  readonly readTicksMax?: number;
}

/** Another device behind delays and failures; time passes only through `advance`. */
export class SimulatedSwapDevice implements SwapDevice {
  readonly slotCount: number;
  readonly #device: SwapDevice;
  readonly #faults: SwapFaults;
  /** Reads under way: the tick when each is done, and whom to tell. */
  readonly #reads = new Map<number, { readonly due: number; readonly onReady: () => void }>();
  #now = 0;

  constructor(device: SwapDevice, faults: SwapFaults) {
    this.#device = device;
    this.#faults = faults;
    this.slotCount = device.slotCount;
  }

  /** Reads that are not done. */
  get pendingCount(): number {
    let count = 0;
    for (const { due } of this.#reads.values()) if (due > this.#now) count++;
    return count;
  }

  write(slot: number, data: Uint8Array): boolean {
    this.#reads.delete(slot);
    return !this.#fails(this.#faults.writeFailsOneIn) && this.#device.write(slot, data);
  }

  read(slot: number, into: Uint8Array, onReady?: () => void): 'done' | 'failed' | 'later' {
    if (onReady !== undefined && this.#isLater(slot, onReady)) return 'later';
    this.#reads.delete(slot);
    if (this.#fails(this.#faults.readFailsOneIn)) return 'failed';
    return this.#device.read(slot, into);
  }

  /** Lets time pass, and tells of the reads that are done then, in order of slots asked for. */
  advance(ticks: number): void {
    const before = this.#now;
    this.#now += ticks;
    for (const { due, onReady } of [...this.#reads.values()]) {
      if (due > before && due <= this.#now) onReady();
    }
  }

  #isLater(slot: number, onReady: () => void): boolean {
    const under = this.#reads.get(slot);
    if (under !== undefined) return under.due > this.#now;
    const ticks = this.#faults.prng.below((this.#faults.readTicksMax ?? 0) + 1);
    if (ticks === 0) return false;
    this.#reads.set(slot, { due: this.#now + ticks, onReady });
    return true;
  }

  #fails(oneIn = 0): boolean {
    return oneIn > 0 && this.#faults.prng.chance(1, oneIn);
  }
}
