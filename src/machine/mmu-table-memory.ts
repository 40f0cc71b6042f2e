/**
 * Descriptors where they lie: PA halves to an index in `memory.i32`, and hardware updates of a
 * descriptor's low word. Used by both stages of the walker.
 */
import type { PhysicalMemory } from './memory.ts';

export class TableMemory {
  readonly i32: Int32Array;
  readonly #memory: PhysicalMemory;
  /** Of each zone: first PA, one past the last, and linear offset minus first PA. */
  readonly #bases: Float64Array;
  readonly #ends: Float64Array;
  readonly #offsets: Float64Array;

  constructor(memory: PhysicalMemory) {
    this.i32 = memory.i32;
    this.#memory = memory;
    this.#bases = Float64Array.from(memory.zones, (z) => z.base);
    this.#ends = Float64Array.from(memory.zones, (z) => z.base + z.sizeBytes);
    this.#offsets = Float64Array.from(memory.zones, (z) => memory.linear(z.base) - z.base);
  }

  /** Index in `i32` of the aligned word at PA `high`:`low`, or -1 where no RAM is. */
  wordAt(high: number, low: number): number {
    const address = high * 4294967296 + (low >>> 0);
    const bases = this.#bases;
    for (let zone = 0; zone < bases.length; zone++) {
      if (address >= bases[zone]! && address < this.#ends[zone]!) {
        return (address + this.#offsets[zone]!) / 4;
      }
    }
    return -1;
  }

  /**
   * Writes the low word of the descriptor at index `word`: all that hardware ever updates (AF, and
   * the write permission that records dirty state) lies there. Arm: AArch64.MemSwapTableDesc().
   */
  update(word: number, low: number): void {
    const page = this.#memory.ramPage(word * 4);
    if (this.#memory.codePages[page] === 1) this.#memory.onCodeWrite(page);
    this.i32[word] = low;
  }
}
