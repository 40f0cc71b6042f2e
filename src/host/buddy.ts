/**
 * A buddy allocator over a run of page frames: blocks of 2^order frames, order 0 (4 KiB) to
 * MAX_ORDER (2 MiB). It hands out frame numbers and knows nothing of what frames hold; `page.ts`
 * keeps one for each zone of memory.
 *
 * Invariants: a block of order n begins at a multiple of 2^n; free blocks do not overlap; two free
 * buddies of one order never stand side by side (they have been merged); `freeCount` is the number
 * of frames in free blocks.
 */
import { assert } from '../base/index.ts';

/** Order of the largest block: 512 frames, 2 MiB. */
export const MAX_ORDER = 9;

const NONE = -1;

export class BuddyAllocator {
  readonly firstFrame: number;
  readonly frameCount: number;
  #freeCount = 0;
  /** Order of the free block that begins at a frame (relative to firstFrame), or NONE. */
  readonly #order: Int8Array;
  /** Neighbours in the list of free blocks of one order. */
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #head = new Int32Array(MAX_ORDER + 1).fill(NONE);

  /** All frames are free at first. Preconditions: both numbers are multiples of 2^MAX_ORDER. */
  constructor(firstFrame: number, frameCount: number) {
    assert(firstFrame % (1 << MAX_ORDER) === 0, 'a zone begins at a multiple of the largest block');
    assert(frameCount % (1 << MAX_ORDER) === 0, 'a zone is a multiple of the largest block');
    this.firstFrame = firstFrame;
    this.frameCount = frameCount;
    this.#order = new Int8Array(frameCount).fill(NONE);
    this.#next = new Int32Array(frameCount).fill(NONE);
    this.#previous = new Int32Array(frameCount).fill(NONE);
    // Downwards, so that the lowest block is the first to be given out.
    for (let at = frameCount - (1 << MAX_ORDER); at >= 0; at -= 1 << MAX_ORDER) {
      this.#insert(at, MAX_ORDER);
    }
    this.#freeCount = frameCount;
  }

  /** Frames that lie in free blocks. */
  get freeCount(): number {
    return this.#freeCount;
  }

  contains(frame: number): boolean {
    return frame >= this.firstFrame && frame < this.firstFrame + this.frameCount;
  }

  /** The first frame of a block of 2^order frames, or -1 when there is none. */
  allocate(order: number): number {
    let from = order;
    while (from <= MAX_ORDER && this.#head[from] === NONE) from++;
    if (from > MAX_ORDER) return NONE;
    const at = this.#head[from]!;
    this.#remove(at, from);
    // Keep the lower half, give the upper one back, until the block has the size asked for.
    while (from > order) {
      from--;
      this.#insert(at + (1 << from), from);
    }
    this.#freeCount -= 1 << order;
    return this.firstFrame + at;
  }

  /** Takes back 2^order frames that were given out, together or one by one. */
  free(frame: number, order: number): void {
    let at = frame - this.firstFrame;
    assert(at >= 0 && at < this.frameCount, 'the frame belongs to this zone');
    assert(at % (1 << order) === 0, 'a block is aligned to its size');
    assert(!this.#isFree(at), 'the block was not free');
    this.#freeCount += 1 << order;
    let merged = order;
    while (merged < MAX_ORDER) {
      const buddy = at ^ (1 << merged);
      if (this.#order[buddy] !== merged) break;
      this.#remove(buddy, merged);
      at &= ~(1 << merged);
      merged++;
    }
    this.#insert(at, merged);
  }

  /** Free blocks of each order, the whole structure checked against the invariants above. */
  check(): number[] {
    const counts: number[] = [];
    let frames = 0;
    let coveredTo = 0;
    for (let at = 0; at < this.frameCount; at++) {
      const order = this.#order[at]!;
      if (order === NONE) continue;
      assert(at >= coveredTo, 'free blocks do not overlap');
      assert(at % (1 << order) === 0, 'a free block is aligned to its size');
      const buddy = at ^ (1 << order);
      assert(order === MAX_ORDER || this.#order[buddy] !== order, 'free buddies are merged');
      coveredTo = at + (1 << order);
      frames += 1 << order;
    }
    for (let order = 0; order <= MAX_ORDER; order++) {
      let count = 0;
      for (let at = this.#head[order]!; at !== NONE; at = this.#next[at]!) {
        assert(this.#order[at] === order, 'a list holds blocks of its order');
        frames -= 1 << order;
        count++;
      }
      counts.push(count);
    }
    assert(frames === 0, 'every free block is in a list');
    return counts;
  }

  /** Whether `at` lies in a free block. */
  #isFree(at: number): boolean {
    for (let order = 0; order <= MAX_ORDER; order++) {
      const start = at & ~((1 << order) - 1);
      if (this.#order[start]! >= order) return true;
    }
    return false;
  }

  #insert(at: number, order: number): void {
    const head = this.#head[order]!;
    this.#order[at] = order;
    this.#next[at] = head;
    this.#previous[at] = NONE;
    if (head !== NONE) this.#previous[head] = at;
    this.#head[order] = at;
  }

  #remove(at: number, order: number): void {
    const next = this.#next[at]!;
    const previous = this.#previous[at]!;
    if (previous === NONE) this.#head[order] = next;
    else this.#next[previous] = next;
    if (next !== NONE) this.#previous[next] = previous;
    this.#order[at] = NONE;
  }
}
