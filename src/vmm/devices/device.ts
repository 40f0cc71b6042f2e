/**
 * The seam between devices and the rest of the VMM: what the MMIO bus calls, the interrupt line a
 * device drives, and the rule by which 32-bit registers answer accesses of other sizes.
 */
import type { Ipa } from '../../base/index.ts';

/** Drives an interrupt input of the GIC: called only when the level changes. */
export type IrqLine = (level: boolean) => void;

/** Bytes of one access. */
export type AccessSize = 1 | 2 | 4 | 8;

/** A device that answers loads and stores in a range of guest physical addresses. */
export interface MmioDevice {
  readonly name: string;
  readonly base: Ipa;
  readonly sizeBytes: number;
  /** The value of `size` bytes at `offset` from `base`, zero-extended. */
  read(offset: number, size: AccessSize): bigint;
  write(offset: number, size: AccessSize, value: bigint): void;
}

/**
 * Reads through `register`, which answers for the 32-bit register at a word offset: a narrower
 * access takes its byte lanes of the word, a 64-bit one reads the first word and gives 0 above it,
 * as an APB bridge does.
 */
export function readLanes(
  offset: number,
  size: AccessSize,
  register: (wordOffset: number) => number,
): bigint {
  const lane = offset % 4;
  const word = BigInt(register(offset - lane) >>> 0) >> BigInt(lane * 8);
  return size === 8 ? word : BigInt.asUintN(size * 8, word);
}

/** The word that a store of `value` at `offset` puts on the 32-bit data bus: its lanes, else 0. */
export function writeLanes(offset: number, size: AccessSize, value: bigint): number {
  const narrow = BigInt.asUintN(size * 8, value);
  return Number(BigInt.asUintN(32, narrow << BigInt((offset % 4) * 8)));
}

/** An interrupt line that drops repetitions of its level. */
export class LevelLine {
  readonly #line: IrqLine;
  #level = false;

  constructor(line: IrqLine) {
    this.#line = line;
  }

  set(level: boolean): void {
    if (level === this.#level) return;
    this.#level = level;
    this.#line(level);
  }
}
