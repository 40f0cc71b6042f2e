/**
 * A guest's memory as migration reaches it: through KVM's calls on its memslots and through the
 * VMM's own mapping, as any VMM would. Also the VMM's own stores to guest memory, which KVM's dirty
 * log does not see (KVM-ORACLE H16), and so must be logged where they are made.
 */
import { assert, type Hva, hva, type Ipa, ipa, PAGE_SIZE } from '../../base/index.ts';
import { type AddressSpace, errnoName, isRefusal } from '../../host/index.ts';
import type { KvmVm } from '../../kvm/index.ts';
import { MigrationError } from './migration-error.ts';

/** Bytes of a page's tags, two to a byte. */
export const TAG_BYTES = PAGE_SIZE / 32;
/** Tags of a page as KVM_ARM_MTE_COPY_TAGS gives them, one to a byte. */
export const TAGS_PER_PAGE = PAGE_SIZE / 16;

/** One memslot of guest RAM. */
export interface RamRange {
  readonly slot: number;
  readonly base: Ipa;
  readonly sizeBytes: number;
  /** Where the VMM has it mapped, as the memslot says. */
  readonly hva: Hva;
  /** The memory is a file's, which keeps it when a mapping goes. */
  readonly shared: boolean;
  /** A second mapping of the same memory with PROT_MTE, where there is one. */
  readonly taggedHva?: Hva;
}

/** The ioctls of the VM's descriptor that concern memory. */
export type MemoryIoctls = Pick<
  KvmVm,
  'enableCap' | 'setUserMemoryRegion' | 'getDirtyLog' | 'clearDirtyLog' | 'copyTags' | 'readTagLog'
>;

export interface GuestRam {
  readonly kvm: MemoryIoctls;
  readonly process: AddressSpace;
  readonly ranges: readonly RamRange[];
  readonly mte: boolean;
  readonly hostWrites: HostWrites;
}

export const pageCountOf = (range: RamRange): number => range.sizeBytes / PAGE_SIZE;

export const pageIpa = (range: RamRange, page: number): Ipa => ipa(range.base + page * PAGE_SIZE);

export const pageHva = (range: RamRange, page: number): Hva => hva(range.hva + page * PAGE_SIZE);

/** A bit a page of each range, in the shape of KVM_GET_DIRTY_LOG. */
export type PageMaps = readonly Uint32Array[];

export const newPageMaps = (ranges: readonly RamRange[]): PageMaps =>
  ranges.map((range) => new Uint32Array(Math.ceil(pageCountOf(range) / 64) * 2));

export const isMarked = (map: Uint32Array, page: number): boolean =>
  (map[page >>> 5]! & (1 << (page & 31))) !== 0;

export function mark(map: Uint32Array, page: number): void {
  map[page >>> 5] = map[page >>> 5]! | (1 << (page & 31));
}

export function unmark(map: Uint32Array, page: number): void {
  map[page >>> 5] = map[page >>> 5]! & ~(1 << (page & 31));
}

/** Marks all pages of every range. */
export function markAll(maps: PageMaps, ranges: readonly RamRange[]): void {
  ranges.forEach((range, i) => {
    const map = maps[i]!;
    const pages = pageCountOf(range);
    map.fill(-1, 0, pages >>> 5);
    for (let page = pages - (pages & 31); page < pages; page++) mark(map, page);
  });
}

/** Unmarks the bits behind the last page of a range, which stand for nothing. */
export function clearTail(map: Uint32Array, range: RamRange): void {
  const pages = pageCountOf(range);
  const word = pages >>> 5;
  if (word >= map.length) return;
  map[word] = map[word]! & ((1 << (pages & 31)) - 1);
  map.fill(0, word + 1);
}

/** Runs of marked pages, as [first, count]. */
export function* spansOf(map: Uint32Array): Generator<[number, number]> {
  const end = map.length * 32;
  for (let at = 0; at < end; ) {
    if (map[at >>> 5] === 0) {
      at = (at | 31) + 1;
    } else if (!isMarked(map, at)) {
      at++;
    } else {
      const first = at;
      while (at < end && isMarked(map, at)) at++;
      yield [first, at - first];
    }
  }
}

/** Pages marked in all of `maps`. */
export function countMarked(maps: PageMaps): number {
  let count = 0;
  for (const map of maps) for (const word of map) count += popCount(word);
  return count;
}

/** Bits set in a 32-bit word (Hacker's Delight, 5-2). */
export function popCount(word: number): number {
  let x = word - ((word >>> 1) & 0x55555555);
  x = (x & 0x33333333) + ((x >>> 2) & 0x33333333);
  return Math.imul((x + (x >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/**
 * The VMM's own dirty log: whoever writes guest memory on the VMM's side calls `wrote` when it has.
 * Costs nothing while no migration listens.
 */
export class HostWrites {
  readonly #ranges: readonly RamRange[];
  #maps: PageMaps | undefined;

  constructor(ranges: readonly RamRange[]) {
    this.#ranges = ranges;
  }

  wrote(address: Ipa, sizeBytes: number): void {
    if (this.#maps === undefined || sizeBytes === 0) return;
    const index = this.#ranges.findIndex(
      (range) => address >= range.base && address < range.base + range.sizeBytes,
    );
    assert(index >= 0, 'what the VMM wrote is guest memory');
    const { base } = this.#ranges[index]!;
    const first = Math.floor((address - base) / PAGE_SIZE);
    const last = Math.floor((address + sizeBytes - 1 - base) / PAGE_SIZE);
    for (let page = first; page <= last; page++) mark(this.#maps[index]!, page);
  }

  start(): void {
    this.#maps = newPageMaps(this.#ranges);
  }

  stop(): void {
    this.#maps = undefined;
  }

  /** What was written since the last call; undefined while not started. */
  take(): PageMaps | undefined {
    const maps = this.#maps;
    if (maps !== undefined) this.#maps = newPageMaps(this.#ranges);
    return maps;
  }
}

/** Throws where a call of KVM or the host refused. */
export function accept(call: string, result: number): void {
  if (isRefusal(result)) throw refused(call, result);
}

export const refused = (call: string, refusal: number): MigrationError =>
  new MigrationError('machine', `${call}: ${errnoName(refusal)}`);
