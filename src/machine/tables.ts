/**
 * The one builder of translation tables: real VMSAv8-64 descriptors in PhysicalMemory, for stage 1
 * of host processes (`host/`) and stage 2 of guests (`kvm/`), with the 4 KiB translation granule.
 * It knows no owners, no TLBs and no policy: table pages come from an injected allocator, and who
 * changes or removes a valid leaf invalidates what has cached it.
 *
 *            root (1 … 16 concatenated tables, the caller's)     level 0 or 1
 *             ├── leaf: 1 GiB block (level 1)
 *             └── table ── leaf: 2 MiB block                     level 2
 *                      └── table ── leaf: 4 KiB page             level 3
 *
 * Operations check, then commit: the table pages a change may need are taken first, and where they
 * cannot be had the operation returns false and nothing has changed.
 *
 * Invariants (`checkTable`): every table but the root belongs to one entry and has at least one
 * entry in use; leaves are aligned to their size and inside the PA range.
 */
import {
  isBlockLevel,
  isTable,
  isValid,
  LEAF_ATTRIBUTES,
  leafAddress,
  leafAttributes,
  leafBytes,
  makeLeaf,
  makeTable,
  tableAddress,
} from '../arm/descriptor.ts';
import { alignDown, assert, GIB, isAligned, PAGE_SIZE, type Pa, pa } from '../base/index.ts';
import type { PhysicalMemory } from './memory.ts';

/** Where table pages come from and go to. */
export interface TableAllocator {
  /** A 4 KiB-aligned page of RAM, contents arbitrary; undefined when there is none. */
  allocTable(): Pa | undefined;
  freeTable(table: Pa): void;
}

/** A leaf found by `lookup` or `walkLeaves`. */
export interface Leaf {
  /** First input address that the leaf maps. */
  readonly input: number;
  readonly sizeBytes: number;
  readonly level: number;
  readonly descriptor: bigint;
  /** Output address: of `input`, or in `lookup` of the address asked for. */
  readonly pa: Pa;
}

export interface InputRange {
  /** First input address (VA or IPA), a multiple of 4 KiB. */
  readonly input: number;
  readonly sizeBytes: number;
}

export interface MapRequest extends InputRange {
  readonly pa: Pa;
  /** Attribute bits of each leaf: `encodeStage1` or `encodeStage2`. */
  readonly attributes: bigint;
  /** Largest leaf to use; 4096 forces pages. Default 1 GiB. */
  readonly maxLeafBytes?: number;
}

const TABLE_ENTRIES = 512;
/** Bytes that an entry maps, by level. */
const SIZE: readonly number[] = [0, 1, 2, 3].map((level) => leafBytes(level));

/** Whether the entry at `level` whose first input address is `at` needs no table below it. */
type Fits = (level: number, at: number) => boolean;

export class PageTable {
  /** First of the root tables; they lie back to back. */
  readonly root: Pa;
  readonly startLevel: number;
  /** Input addresses are below 2 to this power. */
  readonly inputBits: number;

  readonly #memory: PhysicalMemory;
  readonly #allocator: TableAllocator;
  readonly #rootEntries: number;
  #tablePageCount = 0;
  /** Table pages taken for the operation being committed. */
  #reserved: Pa[] = [];

  /**
   * A table over an empty root that the caller allocated, aligned to its size (see `stage2Root`)
   * and keeps: 2^`inputBits` bytes of input, walked from `startLevel`.
   */
  constructor(options: {
    memory: PhysicalMemory;
    allocator: TableAllocator;
    root: Pa;
    startLevel: number;
    inputBits: number;
  }) {
    this.#memory = options.memory;
    this.#allocator = options.allocator;
    this.root = options.root;
    this.startLevel = options.startLevel;
    this.inputBits = options.inputBits;
    this.#rootEntries = Math.ceil(2 ** options.inputBits / SIZE[options.startLevel]!);
    assert(this.#rootEntries <= 16 * TABLE_ENTRIES, 'at most 16 concatenated root tables');
    this.#memory.fill(this.root, 0, this.rootBytes);
  }

  /** Bytes of the root tables. */
  get rootBytes(): number {
    return Math.max(1, this.#rootEntries / TABLE_ENTRIES) * PAGE_SIZE;
  }

  /** Table pages in use, without the root. */
  get tablePageCount(): number {
    return this.#tablePageCount;
  }

  /**
   * Maps a range, with the largest leaves that alignment allows, over whatever was there. False:
   * out of table pages, nothing changed.
   */
  mapRange(request: MapRequest): boolean {
    this.#checkRange(request);
    assert(isAligned(request.pa, PAGE_SIZE), 'PA of a mapping is page-aligned');
    assert((request.attributes & ~LEAF_ATTRIBUTES) === 0n, 'attributes hold nothing else');
    const end = request.input + request.sizeBytes;
    const max = request.maxLeafBytes ?? GIB;
    const fits: Fits = (level, at) => {
      const size = SIZE[level]!;
      if (level === 3) return true;
      if (!isBlockLevel(level) || size > max) return false;
      if (at < request.input || at + size > end) return false;
      return isAligned(request.pa + (at - request.input), size);
    };
    if (!this.#reserve(this.#tablesNeeded(this.root, this.startLevel, request, fits, true))) {
      return false;
    }
    this.#map(this.root, this.startLevel, request.input, end, request, fits);
    return true;
  }

  /**
   * Unmaps a range, splitting the blocks at its ends. False: out of table pages, nothing changed.
   */
  unmapRange(range: InputRange): boolean {
    this.#checkRange(range);
    if (!this.#reserveSplits(range)) return false;
    this.#unmap(this.root, this.startLevel, range.input, range.input + range.sizeBytes);
    return true;
  }

  /**
   * Clears and sets attribute bits of every leaf in a range, splitting the blocks at its ends; what
   * is not mapped stays so. False: out of table pages, nothing changed.
   */
  setAttributes(range: InputRange, change: { clear: bigint; set: bigint }): boolean {
    this.#checkRange(range);
    const { clear, set } = change;
    assert(((clear | set) & ~LEAF_ATTRIBUTES) === 0n, 'attributes hold nothing else');
    if (!this.#reserveSplits(range)) return false;
    this.#change(
      this.root,
      this.startLevel,
      range.input,
      range.input + range.sizeBytes,
      (word) => (word & ~clear) | set,
    );
    return true;
  }

  /** The leaf that maps `input`, with the PA of `input` itself, or undefined. */
  lookup(input: number): Leaf | undefined {
    assert(input >= 0 && input < 2 ** this.inputBits, 'input address in range');
    let table = this.root;
    for (let level = this.startLevel; level <= 3; level++) {
      const descriptor = this.#memory.read64(this.#slot(table, level, input));
      if (!isTable(descriptor, level)) {
        if (!isValid(descriptor)) return undefined;
        const sizeBytes = SIZE[level]!;
        const address = leafAddress(descriptor, level);
        const offset = input % sizeBytes;
        return { input: input - offset, sizeBytes, level, descriptor, pa: pa(address + offset) };
      }
      table = tableAddress(descriptor);
    }
    return undefined;
  }

  /** Calls `visit` for every leaf that overlaps a range, in order; `visit` changes no tables. */
  walkLeaves(range: InputRange, visit: (leaf: Leaf) => void): void {
    this.#checkRange(range);
    this.#visit(this.root, this.startLevel, range.input, range.input + range.sizeBytes, visit);
  }

  /** Unmaps everything and gives back every table but the root. */
  clear(): void {
    this.unmapRange({ input: 0, sizeBytes: 2 ** this.inputBits });
  }

  #checkRange({ input, sizeBytes }: InputRange): void {
    assert(isAligned(input, PAGE_SIZE), 'input address is page-aligned');
    assert(isAligned(sizeBytes, PAGE_SIZE) && sizeBytes > 0, 'size is whole pages');
    assert(input >= 0 && input + sizeBytes <= 2 ** this.inputBits, 'input range in range');
  }

  /** PA of the entry for `input` in a table at `level`. */
  #slot(table: Pa, level: number, input: number): Pa {
    const index = Math.floor(input / SIZE[level]!);
    return pa(table + (level === this.startLevel ? index : index % TABLE_ENTRIES) * 8);
  }

  /**
   * Table pages that a change of `range` needs at most: one for each entry that the change does not
   * fit and that is no table yet. `table` undefined = one that is still to be made;
   * `fillsHoles`: unmapped entries count too. `range` is cut to the table by the caller.
   */
  #tablesNeeded(
    table: Pa | undefined,
    level: number,
    range: InputRange,
    fits: Fits,
    fillsHoles: boolean,
  ): number {
    const size = SIZE[level]!;
    const end = range.input + range.sizeBytes;
    let count = 0;
    for (let at = alignDown(range.input, size); at < end; at += size) {
      if (fits(level, at)) continue;
      const word =
        table === undefined ? undefined : this.#memory.read64(this.#slot(table, level, at));
      if (word !== undefined && !isValid(word) && !fillsHoles) continue;
      const child = word !== undefined && isTable(word, level) ? tableAddress(word) : undefined;
      const input = Math.max(at, range.input);
      const part = { input, sizeBytes: Math.min(at + size, end) - input };
      if (child === undefined) count++;
      count += this.#tablesNeeded(child, level + 1, part, fits, fillsHoles);
    }
    return count;
  }

  #reserveSplits(range: InputRange): boolean {
    const end = range.input + range.sizeBytes;
    const covered: Fits = (level, at) =>
      level === 3 || (at >= range.input && at + SIZE[level]! <= end);
    return this.#reserve(this.#tablesNeeded(this.root, this.startLevel, range, covered, false));
  }

  /** Takes `count` table pages for the commit that follows; all or none. */
  #reserve(count: number): boolean {
    assert(this.#reserved.length === 0, 'the last commit used all its tables');
    for (let i = 0; i < count; i++) {
      const table = this.#allocator.allocTable();
      if (table === undefined) {
        for (const taken of this.#reserved) this.#allocator.freeTable(taken);
        this.#reserved = [];
        return false;
      }
      this.#reserved.push(table);
    }
    return true;
  }

  #takeTable(): Pa {
    const table = this.#reserved.pop();
    assert(table !== undefined, 'the check counted the tables of the commit');
    this.#tablePageCount++;
    return table;
  }

  #map(
    table: Pa,
    level: number,
    start: number,
    end: number,
    request: MapRequest,
    fits: Fits,
  ): void {
    const size = SIZE[level]!;
    for (let at = alignDown(start, size); at < end; at += size) {
      const slot = this.#slot(table, level, at);
      if (fits(level, at)) {
        const output = pa(request.pa + (at - request.input));
        this.#replace(slot, level, makeLeaf(output, request.attributes, level));
        continue;
      }
      const child = this.#childTable(slot, level);
      this.#map(child, level + 1, Math.max(at, start), Math.min(at + size, end), request, fits);
    }
  }

  /** The table below an entry: the one there, a block split up, or an empty one. */
  #childTable(slot: Pa, level: number): Pa {
    const word = this.#memory.read64(slot);
    if (isTable(word, level)) return tableAddress(word);
    const table = this.#takeTable();
    this.#memory.fill(table, 0, PAGE_SIZE);
    if (isValid(word)) this.#fillFromBlock(table, level + 1, word);
    this.#memory.write64(slot, makeTable(table));
    return table;
  }

  /** Leaves at `level` that together map what `block`, one level up, did. */
  #fillFromBlock(table: Pa, level: number, block: bigint): void {
    const attributes = leafAttributes(block);
    const output = leafAddress(block, level - 1);
    for (let i = 0; i < TABLE_ENTRIES; i++) {
      const part = makeLeaf(pa(output + i * SIZE[level]!), attributes, level);
      this.#memory.write64(pa(table + i * 8), part);
    }
  }

  /** Writes an entry and gives back the tables that hung below it. */
  #replace(slot: Pa, level: number, word: bigint): void {
    const old = this.#memory.read64(slot);
    this.#memory.write64(slot, word);
    if (isTable(old, level)) this.#freeTable(tableAddress(old), level + 1);
  }

  #freeTable(table: Pa, level: number): void {
    if (level < 3) {
      for (let i = 0; i < TABLE_ENTRIES; i++) {
        const word = this.#memory.read64(pa(table + i * 8));
        if (isTable(word, level)) this.#freeTable(tableAddress(word), level + 1);
      }
    }
    this.#tablePageCount--;
    this.#allocator.freeTable(table);
  }

  #unmap(table: Pa, level: number, start: number, end: number): void {
    const size = SIZE[level]!;
    for (let at = alignDown(start, size); at < end; at += size) {
      const slot = this.#slot(table, level, at);
      if (at >= start && at + size <= end) {
        this.#replace(slot, level, 0n);
        continue;
      }
      if (!isValid(this.#memory.read64(slot))) continue;
      const child = this.#childTable(slot, level);
      this.#unmap(child, level + 1, Math.max(at, start), Math.min(at + size, end));
      if (this.#isEmpty(child)) this.#replace(slot, level, 0n);
    }
  }

  #isEmpty(table: Pa): boolean {
    const first = this.#memory.linear(table) / 4;
    for (let i = 0; i < PAGE_SIZE / 4; i++) if (this.#memory.i32[first + i] !== 0) return false;
    return true;
  }

  #change(
    table: Pa,
    level: number,
    start: number,
    end: number,
    change: (word: bigint) => bigint,
  ): void {
    const size = SIZE[level]!;
    for (let at = alignDown(start, size); at < end; at += size) {
      const slot = this.#slot(table, level, at);
      const word = this.#memory.read64(slot);
      if (!isValid(word)) continue;
      if (!isTable(word, level) && at >= start && at + size <= end) {
        const changed = change(word);
        if (changed !== word) this.#memory.write64(slot, changed);
        continue;
      }
      const child = this.#childTable(slot, level);
      this.#change(child, level + 1, Math.max(at, start), Math.min(at + size, end), change);
    }
  }

  #visit(table: Pa, level: number, start: number, end: number, visit: (leaf: Leaf) => void): void {
    const size = SIZE[level]!;
    for (let at = alignDown(start, size); at < end; at += size) {
      const word = this.#memory.read64(this.#slot(table, level, at));
      if (!isValid(word)) continue;
      if (isTable(word, level)) {
        const child = tableAddress(word);
        this.#visit(child, level + 1, Math.max(at, start), Math.min(at + size, end), visit);
      } else {
        visit({
          input: at,
          sizeBytes: size,
          level,
          descriptor: word,
          pa: leafAddress(word, level),
        });
      }
    }
  }

  /** Asserts the invariants at the head of this file over the whole table. */
  checkTable(): void {
    const seen = new Set<number>();
    for (let i = 0; i < this.rootBytes / PAGE_SIZE; i++) seen.add(this.root + i * PAGE_SIZE);
    const tables = this.#checkBelow(this.root, this.startLevel, this.#rootEntries, seen);
    assert(tables === this.#tablePageCount, 'tables reached are the tables counted');
    assert(this.#reserved.length === 0, 'no table is reserved between operations');
  }

  #checkBelow(table: Pa, level: number, entryCount: number, seen: Set<number>): number {
    let tables = 0;
    for (let i = 0; i < entryCount; i++) {
      const word = this.#memory.read64(pa(table + i * 8));
      if (word === 0n) continue;
      assert(isValid(word), 'an entry is empty or valid');
      if (isTable(word, level)) {
        const child = tableAddress(word);
        assert(!seen.has(child), 'a table hangs below one entry');
        assert(this.#memory.linear(child) >= 0, 'a table lies in RAM');
        assert(!this.#isEmpty(child), 'a table has an entry in use');
        seen.add(child);
        tables += 1 + this.#checkBelow(child, level + 1, TABLE_ENTRIES, seen);
        continue;
      }
      assert(
        level === 3 ? (word & 3n) === 3n : isBlockLevel(level),
        'a leaf at a level with leaves',
      );
      assert(
        makeLeaf(leafAddress(word, level), leafAttributes(word), level) === word,
        'clean leaf',
      );
    }
    return tables;
  }
}
