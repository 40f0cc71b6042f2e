/**
 * Page frames of the machine's DRAM: who holds how many references, whether the tags of a frame are
 * initialised (`mteTagged`), and which frames are known to be zero. Address spaces, shared memory,
 * translation tables and KVM take frames here. Frames are named by their PA.
 *
 * A 2 MiB page is 512 frames that were allocated together; what makes it a block is that a table
 * maps it as one, so splitting it costs nothing here and its frames go back one by one.
 *
 * Invariants: a frame with references is not free and the reverse; a free frame is not mteTagged;
 * a frame marked zero (data or tags) has not been given out for writing since memory was created.
 * The last one keeps pages of a fresh machine untouched, and so out of the resident set.
 *
 * Where the host has swap, single frames are given out until `reserveCount` are left, then
 * `onShortage` is asked to free some; translation tables and blocks never ask, so that paging out
 * and changing tables do not enter each other.
 *
 * Zones that cannot hold tags (persistent memory, on-chip memory) are not allocated from: they are
 * reached through files that map them by PA (`file.ts`), as Linux keeps ZONE_DEVICE apart.
 */
import { assert, PAGE_SIZE, type Pa, pa, packTags, unpackTags } from '../base/index.ts';
import type { PhysicalMemory } from '../machine/memory.ts';
import type { TableAllocator } from '../machine/tables.ts';
import { BuddyAllocator, MAX_ORDER } from './buddy.ts';

/** The data of the frame was never written since memory was created. */
const DATA_ZERO = 1;
/** The tags of the frame were never written since memory was created. */
const TAGS_ZERO = 2;
/** The tags of the frame are valid. Linux: PG_mte_tagged. */
const MTE_TAGGED = 4;

/** Tag granules of a frame. */
export const TAG_GRANULES = PAGE_SIZE / 16;

/** Bytes of a frame's tags, two to a byte. */
export const PACKED_TAG_BYTES = TAG_GRANULES / 2;

/** Two tags in a byte to two bytes, little-endian. */
const UNPACKED = Uint16Array.from({ length: 256 }, (_, pair) => (pair & 15) | ((pair >>> 4) << 8));

/** Order of a 2 MiB block of frames. */
export const BLOCK_ORDER = MAX_ORDER;

export class PageFrames {
  readonly memory: PhysicalMemory;
  /** Frames below which memory is short; 0 while nobody can free any. Linux: the low watermark. */
  reserveCount = 0;
  /** Frees frames, if it can. */
  onShortage: () => void = () => {};
  readonly #references: Int32Array;
  readonly #state: Uint8Array;
  readonly #zones: { readonly base: Pa; readonly buddy: BuddyAllocator }[] = [];

  constructor(memory: PhysicalMemory) {
    this.memory = memory;
    const frameCount = memory.layout.ramBytes / PAGE_SIZE;
    this.#references = new Int32Array(frameCount);
    this.#state = new Uint8Array(frameCount).fill(DATA_ZERO | TAGS_ZERO);
    for (const zone of memory.zones) {
      if (zone.kind !== 'dram') continue;
      const first = this.#frame(zone.base);
      const buddy = new BuddyAllocator(first, zone.sizeBytes / PAGE_SIZE);
      this.#zones.push({ base: zone.base, buddy });
    }
  }

  /** Where translation tables come from and go to. */
  get tableAllocator(): TableAllocator {
    return {
      allocTable: () => {
        const table = this.#take(0, false);
        return table === -1 ? undefined : table;
      },
      freeTable: (table) => this.put(table),
    };
  }

  /** Frames of DRAM that nobody holds. */
  get freeCount(): number {
    return this.#zones.reduce((sum, zone) => sum + zone.buddy.freeCount, 0);
  }

  /** Whether `address` is DRAM whose frames are kept here. Linux: pfn_to_online_page(). */
  isOnline(address: Pa): boolean {
    return this.memory.holdsTags(address);
  }

  /**
   * A block of 2^order frames, each with one reference, contents undefined; -1 when none is left.
   * Linux: alloc_pages() followed by split_page().
   */
  allocate(order = 0): Pa | -1 {
    return this.#allocate(order, false);
  }

  /** Like `allocate`, with the data zero; frames that never were written are not touched. */
  allocateZeroed(order = 0): Pa | -1 {
    return this.#allocate(order, true);
  }

  #allocate(order: number, zeroed: boolean): Pa | -1 {
    if (this.reserveCount > 0 && this.freeCount - (1 << order) < this.reserveCount) {
      if (order > 0) return -1;
      this.onShortage();
    }
    return this.#take(order, zeroed);
  }

  #take(order: number, zeroed: boolean): Pa | -1 {
    for (const { base, buddy } of this.#zones) {
      const frame = buddy.allocate(order);
      if (frame < 0) continue;
      const end = frame + (1 << order);
      const address = pa(base + (frame - buddy.firstFrame) * PAGE_SIZE);
      for (let at = frame; at < end; at++) {
        assert(this.#references[at] === 0, 'a free frame has no references');
        const state = this.#state[at]!;
        if (zeroed && (state & DATA_ZERO) === 0) {
          this.memory.fill(pa(address + (at - frame) * PAGE_SIZE), 0, PAGE_SIZE);
        }
        this.#references[at] = 1;
        this.#state[at] = state & ~DATA_ZERO;
      }
      return address;
    }
    return -1;
  }

  /** References held on the frame at `address`. */
  references(address: Pa): number {
    return this.#references[this.#frame(address)]!;
  }

  /** Whether each frame of the range has one reference, its caller's. */
  isExclusive(address: Pa, sizeBytes = PAGE_SIZE): boolean {
    const first = this.#frame(address);
    for (let i = 0; i < sizeBytes / PAGE_SIZE; i++) {
      if (this.#references[first + i] !== 1) return false;
    }
    return true;
  }

  /** Takes one more reference on each frame of the range. */
  get(address: Pa, sizeBytes = PAGE_SIZE): void {
    const first = this.#frame(address);
    const end = first + sizeBytes / PAGE_SIZE;
    for (let at = first; at < end; at++) {
      assert(this.#references[at]! > 0, 'a reference is taken on a frame that somebody holds');
      this.#references[at] = this.#references[at]! + 1;
    }
  }

  /** Drops one reference on each frame of the range; frames without any become free. */
  put(address: Pa, sizeBytes = PAGE_SIZE): void {
    const first = this.#frame(address);
    const end = first + sizeBytes / PAGE_SIZE;
    const buddy = this.#buddy(first);
    let freed = 0;
    for (let at = first; at < end; at++) {
      const left = this.#references[at]! - 1;
      assert(left >= 0, 'a reference is dropped by somebody who holds it');
      this.#references[at] = left;
      if (left === 0) {
        this.#state[at] = this.#state[at]! & ~MTE_TAGGED;
        freed++;
      }
    }
    const blockFrames = 1 << BLOCK_ORDER;
    if (freed === blockFrames && freed === end - first && first % blockFrames === 0) {
      buddy.free(first, BLOCK_ORDER);
    } else if (freed > 0) {
      for (let at = first; at < end; at++) {
        if (this.#references[at] === 0) buddy.free(at, 0);
      }
    }
  }

  /** Whether the tags of the frame at `address` are initialised. Linux: page_mte_tagged(). */
  isMteTagged(address: Pa): boolean {
    return (this.#state[this.#frame(address)]! & MTE_TAGGED) !== 0;
  }

  /** The tags of a frame, one byte a tag granule; all 0 while they are not initialised. */
  readTags(address: Pa): Uint8Array {
    const tags = new Uint8Array(TAG_GRANULES);
    if (!this.isMteTagged(address)) return tags;
    unpackTags(this.memory.packedTags(address, PAGE_SIZE), tags);
    return tags;
  }

  /**
   * The tags of a frame, one byte a tag granule, to linear offset `at` (even); 0 while they are not
   * initialised.
   */
  unpackTags(address: Pa, at: number): void {
    const { u16, u8 } = this.memory;
    const first = at / 2;
    if (!this.isMteTagged(address)) {
      u16.fill(0, first, first + PACKED_TAG_BYTES);
      return;
    }
    const packed = this.memory.tagByte(this.memory.linear(address));
    for (let i = 0; i < PACKED_TAG_BYTES; i++) u16[first + i] = UNPACKED[u8[packed + i]!]!;
  }

  /** Sets all tags of a frame from the low nibbles of 256 bytes at linear offset `at` (even). */
  packTags(address: Pa, at: number): void {
    const { u16, u8 } = this.memory;
    const first = at / 2;
    const packed = this.memory.tagByte(this.memory.linear(address));
    for (let i = 0; i < PACKED_TAG_BYTES; i++) {
      const pair = u16[first + i]!;
      u8[packed + i] = (pair & 15) | ((pair >>> 4) & 0xf0);
    }
    this.setMteTagged(address);
  }

  /** Sets the first tags of a frame (the low nibble of each byte) and leaves the others. */
  writeTags(address: Pa, tags: Uint8Array): void {
    const frame = this.#frame(address);
    this.#state[frame] = this.#state[frame]! & ~TAGS_ZERO;
    const packed = this.memory.packedTags(address, PAGE_SIZE);
    const pairs = tags.length >>> 1;
    packTags(tags, packed.subarray(0, pairs));
    if (tags.length % 2 === 1) packed[pairs] = (packed[pairs]! & 0xf0) | (tags.at(-1)! & 15);
  }

  /**
   * The tags of a frame, two to a byte, low nibble first, or undefined while they are not
   * initialised. A view: good until the frame changes.
   */
  packedTags(address: Pa): Uint8Array | undefined {
    return this.isMteTagged(address) ? this.memory.packedTags(address, PAGE_SIZE) : undefined;
  }

  /**
   * Gives frames that nobody sees yet their data and, where there are any, their tags (packed);
   * without tags they are as never tagged. Lengths say how many frames.
   */
  writeContent(
    address: Pa,
    content: {
      readonly data?: Uint8Array | undefined;
      readonly packedTags?: Uint8Array | undefined;
    },
  ): void {
    const { data, packedTags } = content;
    if (data !== undefined) this.memory.writeBytes(address, data);
    if (packedTags === undefined) return;
    const sizeBytes = packedTags.length * 32;
    this.memory.packedTags(address, sizeBytes).set(packedTags);
    for (let done = 0; done < sizeBytes; done += PAGE_SIZE) this.setMteTagged(pa(address + done));
  }

  /** Says that the tags of a frame are valid; its owner has just written all of them. */
  setMteTagged(address: Pa): void {
    const frame = this.#frame(address);
    this.#state[frame] = (this.#state[frame]! | MTE_TAGGED) & ~TAGS_ZERO;
  }

  /**
   * Makes the range safe to be seen as tagged: the tags of each frame that is not mteTagged yet
   * become 0. Linux: mte_sync_tags(), try_page_mte_tagging() and mte_clear_page_tags().
   */
  initialiseTags(address: Pa, sizeBytes = PAGE_SIZE): void {
    const first = this.#frame(address);
    const count = sizeBytes / PAGE_SIZE;
    for (let i = 0; i < count; i++) {
      const state = this.#state[first + i]!;
      if ((state & MTE_TAGGED) !== 0) continue;
      if ((state & TAGS_ZERO) === 0) this.clearTags(pa(address + i * PAGE_SIZE));
      this.#state[first + i] = (state | MTE_TAGGED) & ~TAGS_ZERO;
    }
  }

  /** Sets all tags of a frame to 0, without saying that they are valid. */
  clearTags(address: Pa): void {
    this.memory.packedTags(address, PAGE_SIZE).fill(0);
  }

  /** Copies a frame's data, and its tags if they are valid. Linux: copy_highpage(). */
  copy(target: Pa, source: Pa): void {
    this.memory.copy(target, source, PAGE_SIZE);
    if (!this.memory.holdsTags(source) || !this.isMteTagged(source)) return;
    this.memory.packedTags(target, PAGE_SIZE).set(this.memory.packedTags(source, PAGE_SIZE));
    this.setMteTagged(target);
  }

  /** Checks the allocators and that a frame is free exactly when it has no references. */
  check(): void {
    for (const { buddy } of this.#zones) {
      buddy.check();
      let free = 0;
      const end = buddy.firstFrame + buddy.frameCount;
      for (let at = buddy.firstFrame; at < end; at++) {
        if (this.#references[at] !== 0) continue;
        free++;
        assert((this.#state[at]! & MTE_TAGGED) === 0, 'a free frame is not mteTagged');
      }
      assert(free === buddy.freeCount, 'frames without references are free, the others are not');
    }
  }

  #frame(address: Pa): number {
    const linear = this.memory.linear(address);
    assert(linear >= 0, 'the frame lies in RAM');
    return this.memory.ramPage(linear);
  }

  #buddy(frame: number): BuddyAllocator {
    const zone = this.#zones.find(({ buddy }) => buddy.contains(frame));
    assert(zone !== undefined, 'the frame lies in DRAM');
    return zone.buddy;
  }
}
