/**
 * Which pages are still to be sent: what KVM's dirty log and the VMM's own writes say, gathered at
 * the beginning of a round and worked off in chunks. Asked by the source.
 *
 * A chunk is cleaned in KVM's log (and so write-protected again) by `clean`, right before it is
 * read; a store that comes later marks it anew. With KVM_DIRTY_LOG_INITIALLY_SET every page is
 * dirty at first, and protection, with the splitting of blocks it needs, comes chunk by chunk
 * rather than at once. Linux: Documentation/virt/kvm/api.rst, 4.117 and 7.18.
 */
import { isRefusal } from '../../host/index.ts';
import {
  KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
  KVM_DIRTY_LOG_INITIALLY_SET,
  KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
  KVM_MEM_LOG_DIRTY_PAGES,
} from '../../kvm/index.ts';
import {
  accept,
  countMarked,
  type GuestRam,
  markAll,
  newPageMaps,
  type PageMaps,
  pageCountOf,
  popCount,
  type RamRange,
  refused,
} from './guest-ram.ts';

/** Pages of a chunk: what is cleaned at once and read soon after. */
export const CHUNK_PAGES = 256;
const CHUNK_WORDS = CHUNK_PAGES / 32;

/** Pages to be sent, out of CHUNK_PAGES from `firstPage` on. */
export interface PageChunk {
  readonly rangeIndex: number;
  readonly range: RamRange;
  readonly firstPage: number;
  /** Bit n % 32 of word n / 32: page `firstPage` + n. */
  readonly mask: Uint32Array;
}

export class DirtyPages {
  readonly #ram: GuestRam;
  readonly #pending: PageMaps;
  #pendingCount = 0;
  /** Where `take` goes on. */
  #rangeIndex = 0;
  #word = 0;
  #logging = false;

  constructor(ram: GuestRam) {
    this.#ram = ram;
    this.#pending = newPageMaps(ram.ranges);
  }

  /** Pages of this round that have not been taken. */
  get pendingCount(): number {
    return this.#pendingCount;
  }

  /** What is to be sent and has not been taken: a bit a page. */
  get pending(): PageMaps {
    return this.#pending;
  }

  /** Logs from now on; every page counts as dirty. Throws `MigrationError` 'machine'. */
  start(): void {
    const { kvm, hostWrites } = this.#ram;
    const flags = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET;
    accept(
      'KVM_ENABLE_CAP(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)',
      kvm.enableCap({ cap: KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, args: [BigInt(flags)] }),
    );
    this.#setLogging(true);
    hostWrites.start();
    this.#logging = true;
  }

  /** Ends logging; may be called when it never began. */
  stop(): void {
    if (!this.#logging) return;
    this.#logging = false;
    this.#ram.hostWrites.stop();
    this.#setLogging(false);
  }

  /** All pages are to be sent, logged or not: for a guest that stands still. */
  markAll(): void {
    markAll(this.#pending, this.#ram.ranges);
    this.#restart();
  }

  /** Begins a round with what has been written since pages were last taken; returns how many. */
  collect(): number {
    const written = this.#ram.hostWrites.take();
    this.#ram.ranges.forEach((range, i) => {
      const map = this.#pending[i]!;
      merge(map, this.#log(range));
      if (written !== undefined) merge(map, written[i]!);
    });
    this.#restart();
    return this.#pendingCount;
  }

  /** Exactly `maps` is to be sent, whatever was pending. */
  replace(maps: PageMaps): void {
    this.#pending.forEach((map, i) => {
      map.set(maps[i]!);
    });
    this.#restart();
  }

  /** How many pages would have to be sent if the guest stopped now. */
  estimate(): number {
    return countMarked(this.#ram.ranges.map((range) => this.#log(range))) + this.#pendingCount;
  }

  /** The next chunk with pages to be sent, not cleaned yet; undefined: the round is over. */
  take(): PageChunk | undefined {
    for (; this.#rangeIndex < this.#pending.length; this.#rangeIndex++, this.#word = 0) {
      const map = this.#pending[this.#rangeIndex]!;
      while (this.#word < map.length && map[this.#word] === 0) this.#word++;
      if (this.#word >= map.length) continue;
      return this.#takeAt(this.#rangeIndex, this.#word - (this.#word % CHUNK_WORDS));
    }
    return undefined;
  }

  /** As `take`, of the chunk that holds one page; undefined: nothing of it is to be sent. */
  takeAround(rangeIndex: number, page: number): PageChunk | undefined {
    const word = page >>> 5;
    const first = word - (word % CHUNK_WORDS);
    const map = this.#pending[rangeIndex]!;
    const isEmpty = map.subarray(first, first + CHUNK_WORDS).every((bits) => bits === 0);
    return isEmpty ? undefined : this.#takeAt(rangeIndex, first);
  }

  /** Cleans a chunk in the log: what is written to it from now on is dirty. */
  clean({ range, firstPage, mask }: PageChunk): void {
    if (!this.#logging) return;
    const pageCount = Math.min(CHUNK_PAGES, pageCountOf(range) - firstPage);
    accept(
      'KVM_CLEAR_DIRTY_LOG',
      this.#ram.kvm.clearDirtyLog({ slot: range.slot, firstPage, pageCount, bitmap: mask }),
    );
  }

  #takeAt(rangeIndex: number, word: number): PageChunk {
    const range = this.#ram.ranges[rangeIndex]!;
    const map = this.#pending[rangeIndex]!;
    const mask = map.slice(word, word + CHUNK_WORDS);
    map.fill(0, word, word + CHUNK_WORDS);
    for (const bits of mask) this.#pendingCount -= popCount(bits);
    return { rangeIndex, range, firstPage: word * 32, mask };
  }

  #restart(): void {
    this.#rangeIndex = 0;
    this.#word = 0;
    this.#pendingCount = countMarked(this.#pending);
  }

  #log(range: RamRange): Uint32Array {
    const log = this.#ram.kvm.getDirtyLog(range.slot);
    if (isRefusal(log)) throw refused('KVM_GET_DIRTY_LOG', log);
    return log;
  }

  #setLogging(on: boolean): void {
    for (const range of this.#ram.ranges) {
      const region = {
        slot: range.slot,
        flags: on ? KVM_MEM_LOG_DIRTY_PAGES : 0,
        guestPhysAddr: range.base,
        memorySize: range.sizeBytes,
        userspaceAddr: range.hva,
      };
      accept('KVM_SET_USER_MEMORY_REGION', this.#ram.kvm.setUserMemoryRegion(region));
    }
  }
}

function merge(into: Uint32Array, from: Uint32Array): void {
  for (let i = 0; i < into.length; i++) into[i] = into[i]! | from[i]!;
}
