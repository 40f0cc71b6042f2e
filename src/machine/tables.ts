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
 * Guests fault through here, so nothing on the way to a leaf is a bigint: an entry is two int32,
 * low half first, and a table is the index of its first half in `memory.i32`. Code is never
 * translated from a table page: `fill` of a new one reports what was there before.
 *
 * Operations check, then commit: the table pages a change may need are taken first, and where they
 * cannot be had the operation returns false and nothing has changed.
 *
 * Invariants (`checkTable`): every table but the root belongs to one entry and has at least one
 * entry in use; leaves are aligned to their size and inside the PA range.
 */
import { isBlockLevel, LEAF_ATTRIBUTES, leafBytes } from '../arm/descriptor.ts';
import { assert, GIB, high32, isAligned, low32, PAGE_SIZE, type Pa, pa } from '../base/index.ts';
import type { PhysicalMemory } from './memory.ts';

/** Where table pages come from and go to. */
export interface TableAllocator {
  /** A 4 KiB-aligned page of RAM, contents arbitrary; undefined when there is none. */
  allocTable(): Pa | undefined;
  freeTable(table: Pa): void;
}

/** A leaf found by `lookup` or `walkLeaves`. */
export class Leaf {
  /** First input address that the leaf maps. */
  readonly input: number;
  readonly level: number;
  /** Output address: of `input`, or in `lookup` of the address asked for. */
  readonly pa: Pa;
  /** Halves of the descriptor, as int32. */
  readonly low: number;
  readonly high: number;

  constructor(input: number, level: number, address: Pa, low: number, high: number) {
    this.input = input;
    this.level = level;
    this.pa = address;
    this.low = low;
    this.high = high;
  }

  get sizeBytes(): number {
    return SIZE[this.level]!;
  }

  get descriptor(): bigint {
    return (BigInt(this.high >>> 0) << 32n) | BigInt(this.low >>> 0);
  }
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
/** int32s of a table. */
const TABLE_WORDS = PAGE_SIZE / 4;
/** Bytes that an entry maps, by level, and its reciprocal. */
const SIZE: readonly number[] = [0, 1, 2, 3].map((level) => leafBytes(level));
const PER_BYTE: readonly number[] = SIZE.map((size) => 1 / size);
/** The address bits in the low half of a leaf, by level; a table's are those of level 3. */
const LOW_ADDRESS: readonly number[] = SIZE.map((size) => -Math.min(size, 2 ** 31) | 0);
const LOW_ATTRIBUTES = Number(LEAF_ATTRIBUTES & 0xffff_ffffn);
const HIGH_ATTRIBUTES = Number(BigInt.asIntN(32, LEAF_ATTRIBUTES >> 32n));
/** Bits 47:32 of an address. */
const HIGH_ADDRESS = 0xffff;
const TABLE_TYPE = 3;

/** The first input address of the entry at `level` that maps `input`. */
const floorTo = (input: number, level: number): number =>
  Math.floor(input * PER_BYTE[level]!) * SIZE[level]!;

const isValid = (low: number): boolean => (low & 1) !== 0;
const isTable = (low: number, level: number): boolean => level < 3 && (low & 3) === TABLE_TYPE;
const leafType = (level: number): number => (level === 3 ? 3 : 1);

/** The output address of a leaf at `level`. */
const leafAddress = (low: number, high: number, level: number): Pa =>
  pa((high & HIGH_ADDRESS) * 4294967296 + ((low & LOW_ADDRESS[level]!) >>> 0));
const tableAddress = (low: number, high: number): Pa => leafAddress(low, high, 3);

/** A request with its attributes in halves and where it ends. */
interface Mapping {
  readonly input: number;
  readonly end: number;
  readonly pa: Pa;
  readonly maxLeafBytes: number;
  readonly low: number;
  readonly high: number;
}

/** Attribute bits to clear and set, in halves. */
interface Change {
  readonly keepLow: number;
  readonly keepHigh: number;
  readonly setLow: number;
  readonly setHigh: number;
}

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
  readonly #rootWord: number;
  #tablePageCount = 0;
  /** Table pages taken for the operation being committed. */
  #reserved: Pa[] = [];
  /** The attributes of the last request and their halves: most requests have the same. */
  #attributes = 0n;
  #attributesLow = 0;
  #attributesHigh = 0;

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
    this.#rootWord = this.#wordOf(this.root);
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
    this.#splitAttributes(request.attributes);
    const mapping: Mapping = {
      input: request.input,
      end: request.input + request.sizeBytes,
      pa: request.pa,
      maxLeafBytes: request.maxLeafBytes ?? GIB,
      low: this.#attributesLow,
      high: this.#attributesHigh,
    };
    if (this.#mapInPlace(mapping)) return true;
    const fits: Fits = (level, at) => leafFits(mapping, level, at);
    if (!this.#reserve(this.#tablesNeeded(this.#rootWord, this.startLevel, request, fits, true))) {
      return false;
    }
    this.#map(this.#rootWord, this.startLevel, mapping.input, mapping);
    return true;
  }

  /**
   * Unmaps a range, splitting the blocks at its ends. False: out of table pages, nothing changed.
   */
  unmapRange(range: InputRange): boolean {
    this.#checkRange(range);
    if (!this.#reserveSplits(range)) return false;
    this.#unmap(this.#rootWord, this.startLevel, range.input, range.input + range.sizeBytes);
    return true;
  }

  /**
   * Clears and sets attribute bits of every leaf in a range, splitting the blocks at its ends; what
   * is not mapped stays so. Returns how many leaves are no longer what they were, or -1: out of
   * table pages, nothing changed.
   */
  changeAttributes(range: InputRange, change: { clear: bigint; set: bigint }): number {
    this.#checkRange(range);
    const { clear, set } = change;
    assert(((clear | set) & ~LEAF_ATTRIBUTES) === 0n, 'attributes hold nothing else');
    if (!this.#reserveSplits(range)) return -1;
    return this.#change(
      this.#rootWord,
      this.startLevel,
      range.input,
      range.input + range.sizeBytes,
      {
        keepLow: ~Number(BigInt.asIntN(32, clear)),
        keepHigh: ~Number(BigInt.asIntN(32, clear >> 32n)),
        setLow: Number(BigInt.asIntN(32, set)),
        setHigh: Number(BigInt.asIntN(32, set >> 32n)),
      },
    );
  }

  /** As `changeAttributes`; false for -1. */
  setAttributes(range: InputRange, change: { clear: bigint; set: bigint }): boolean {
    return this.changeAttributes(range, change) >= 0;
  }

  /** The leaf that maps `input`, with the PA of `input` itself, or undefined. */
  lookup(input: number): Leaf | undefined {
    assert(input >= 0 && input < 2 ** this.inputBits, 'input address in range');
    const { i32 } = this.#memory;
    let table = this.#rootWord;
    for (let level = this.startLevel; level <= 3; level++) {
      const entry = this.#entry(table, level, input);
      const low = i32[entry]!;
      const high = i32[entry + 1]!;
      if (isTable(low, level)) {
        table = this.#wordOf(tableAddress(low, high));
        continue;
      }
      if (!isValid(low)) return undefined;
      const offset = input - floorTo(input, level);
      const output = pa(leafAddress(low, high, level) + offset);
      return new Leaf(input - offset, level, output, low, high);
    }
    return undefined;
  }

  /** Calls `visit` for every leaf that overlaps a range, in order; `visit` changes no tables. */
  walkLeaves(range: InputRange, visit: (leaf: Leaf) => void): void {
    this.#checkRange(range);
    const end = range.input + range.sizeBytes;
    this.#visit(this.#rootWord, this.startLevel, range.input, end, (leaf) => {
      visit(leaf);
      return true;
    });
  }

  /** Whether any leaf overlaps a range. */
  mapsAny(range: InputRange): boolean {
    this.#checkRange(range);
    const end = range.input + range.sizeBytes;
    return !this.#visit(this.#rootWord, this.startLevel, range.input, end, () => false);
  }

  /** Unmaps everything and gives back every table but the root. */
  clear(): void {
    this.unmapRange({ input: 0, sizeBytes: 2 ** this.inputBits });
  }

  #checkRange({ input, sizeBytes }: InputRange): void {
    // The low bits of a number are those of its int32, which are had for less than a remainder.
    assert((input & (PAGE_SIZE - 1)) === 0, 'input address is page-aligned');
    assert((sizeBytes & (PAGE_SIZE - 1)) === 0 && sizeBytes > 0, 'size is whole pages');
    assert(input >= 0 && input + sizeBytes <= 2 ** this.inputBits, 'input range in range');
  }

  #splitAttributes(attributes: bigint): void {
    if (attributes === this.#attributes) return;
    assert((attributes & ~LEAF_ATTRIBUTES) === 0n, 'attributes hold nothing else');
    this.#attributes = attributes;
    this.#attributesLow = Number(BigInt.asIntN(32, attributes));
    this.#attributesHigh = Number(BigInt.asIntN(32, attributes >> 32n));
  }

  /** Index in `memory.i32` of a table's first entry. */
  #wordOf(table: Pa): number {
    return this.#memory.linear(table) / 4;
  }

  /** Index in `memory.i32` of the entry for `input` in a table at `level`. */
  #entry(table: number, level: number, input: number): number {
    const index = Math.floor(input * PER_BYTE[level]!);
    return table + 2 * (level === this.startLevel ? index : index & (TABLE_ENTRIES - 1));
  }

  #childOf(entry: number): number {
    const { i32 } = this.#memory;
    return this.#wordOf(tableAddress(i32[entry]!, i32[entry + 1]!));
  }

  /**
   * Table pages that a change of `range` needs at most: one for each entry that the change does not
   * fit and that is no table yet. `table` undefined = one that is still to be made;
   * `fillsHoles`: unmapped entries count too. `range` is cut to the table by the caller.
   */
  #tablesNeeded(
    table: number | undefined,
    level: number,
    range: InputRange,
    fits: Fits,
    fillsHoles: boolean,
  ): number {
    if (level === 3) return 0;
    const size = SIZE[level]!;
    const end = range.input + range.sizeBytes;
    let count = 0;
    for (let at = floorTo(range.input, level); at < end; at += size) {
      if (fits(level, at)) continue;
      const entry = table === undefined ? undefined : this.#entry(table, level, at);
      const low = entry === undefined ? 0 : this.#memory.i32[entry]!;
      if (entry !== undefined && !isValid(low) && !fillsHoles) continue;
      const child = entry !== undefined && isTable(low, level) ? this.#childOf(entry) : undefined;
      const input = Math.max(at, range.input);
      const part = { input, sizeBytes: Math.min(at + size, end) - input };
      if (child === undefined) count++;
      count += this.#tablesNeeded(child, level + 1, part, fits, fillsHoles);
    }
    return count;
  }

  #reserveSplits(range: InputRange): boolean {
    const end = range.input + range.sizeBytes;
    if (!this.#cutsBlock(range.input) && !this.#cutsBlock(end)) return true;
    const covered: Fits = (level, at) => at >= range.input && at + SIZE[level]! <= end;
    return this.#reserve(
      this.#tablesNeeded(this.#rootWord, this.startLevel, range, covered, false),
    );
  }

  /** Whether `at` lies inside a block. */
  #cutsBlock(at: number): boolean {
    if (isAligned(at, GIB) || at >= 2 ** this.inputBits) return false;
    const leaf = this.lookup(at);
    return leaf !== undefined && leaf.level < 3 && leaf.input !== at;
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

  /** A request for one page or block whose tables are there: no check, no recursion. */
  #mapInPlace(mapping: Mapping): boolean {
    const size = mapping.end - mapping.input;
    const leafLevel = size === PAGE_SIZE ? 3 : 2;
    if (size !== SIZE[leafLevel] || !isAligned(mapping.input, size)) return false;
    if (!leafFits(mapping, leafLevel, mapping.input)) return false;
    let table = this.#rootWord;
    for (let level = this.startLevel; level < leafLevel; level++) {
      const entry = this.#entry(table, level, mapping.input);
      if (!isTable(this.#memory.i32[entry]!, level)) return false;
      table = this.#childOf(entry);
    }
    this.#mapLeaf(this.#entry(table, leafLevel, mapping.input), leafLevel, mapping.pa, mapping);
    return true;
  }

  #mapLeaf(entry: number, level: number, output: Pa, { low, high }: Mapping): void {
    this.#replace(entry, level, low32(output) | low | leafType(level), high32(output) | high);
  }

  #map(table: number, level: number, start: number, mapping: Mapping): void {
    const size = SIZE[level]!;
    const end = Math.min(mapping.end, this.#tableEnd(level, start));
    for (let at = floorTo(start, level); at < end; at += size) {
      const entry = this.#entry(table, level, at);
      if (leafFits(mapping, level, at)) {
        this.#mapLeaf(entry, level, pa(mapping.pa + (at - mapping.input)), mapping);
      } else {
        this.#map(this.#childTable(entry, level), level + 1, Math.max(at, start), mapping);
      }
    }
  }

  /** Where what the table at `level` with the entry for `input` maps ends. */
  #tableEnd(level: number, input: number): number {
    if (level === this.startLevel) return 2 ** this.inputBits;
    return floorTo(input, level - 1) + SIZE[level - 1]!;
  }

  /** The table below an entry: the one there, a block split up, or an empty one. */
  #childTable(entry: number, level: number): number {
    const { i32 } = this.#memory;
    const low = i32[entry]!;
    const high = i32[entry + 1]!;
    if (isTable(low, level)) return this.#wordOf(tableAddress(low, high));
    const made = this.#takeTable();
    this.#memory.fill(made, 0, PAGE_SIZE);
    const table = this.#wordOf(made);
    if (isValid(low)) this.#fillFromBlock(table, level + 1, low, high);
    i32[entry] = low32(made) | TABLE_TYPE;
    i32[entry + 1] = high32(made);
    return table;
  }

  /** Leaves at `level` that together map what a block, one level up, did. */
  #fillFromBlock(table: number, level: number, blockLow: number, blockHigh: number): void {
    const { i32 } = this.#memory;
    const output = leafAddress(blockLow, blockHigh, level - 1);
    const low = (blockLow & LOW_ATTRIBUTES) | leafType(level);
    const high = blockHigh & HIGH_ATTRIBUTES;
    for (let i = 0; i < TABLE_ENTRIES; i++) {
      const part = output + i * SIZE[level]!;
      i32[table + 2 * i] = low32(part) | low;
      i32[table + 2 * i + 1] = high32(part) | high;
    }
  }

  /** Writes an entry and gives back the tables that hung below it. */
  #replace(entry: number, level: number, low: number, high: number): void {
    const { i32 } = this.#memory;
    const oldLow = i32[entry]!;
    const oldHigh = i32[entry + 1]!;
    i32[entry] = low;
    i32[entry + 1] = high;
    if (isTable(oldLow, level)) this.#freeTable(tableAddress(oldLow, oldHigh), level + 1);
  }

  #freeTable(table: Pa, level: number): void {
    if (level < 3) {
      const first = this.#wordOf(table);
      for (let entry = first; entry < first + TABLE_WORDS; entry += 2) {
        const low = this.#memory.i32[entry]!;
        if (!isTable(low, level)) continue;
        this.#freeTable(tableAddress(low, this.#memory.i32[entry + 1]!), level + 1);
      }
    }
    this.#tablePageCount--;
    this.#allocator.freeTable(table);
  }

  #unmap(table: number, level: number, start: number, end: number): void {
    const size = SIZE[level]!;
    for (let at = floorTo(start, level); at < end; at += size) {
      const entry = this.#entry(table, level, at);
      if (!isValid(this.#memory.i32[entry]!)) continue;
      if (at >= start && at + size <= end) {
        this.#replace(entry, level, 0, 0);
        continue;
      }
      const child = this.#childTable(entry, level);
      this.#unmap(child, level + 1, Math.max(at, start), Math.min(at + size, end));
      if (this.#isEmpty(child)) this.#replace(entry, level, 0, 0);
    }
  }

  #isEmpty(table: number): boolean {
    const { i32 } = this.#memory;
    for (let i = table; i < table + TABLE_WORDS; i++) if (i32[i] !== 0) return false;
    return true;
  }

  /** Returns the leaves that differ now. */
  #change(table: number, level: number, start: number, end: number, change: Change): number {
    const { i32 } = this.#memory;
    const size = SIZE[level]!;
    let changed = 0;
    for (let at = floorTo(start, level); at < end; at += size) {
      const entry = this.#entry(table, level, at);
      const low = i32[entry]!;
      if (!isValid(low)) continue;
      if (!isTable(low, level) && at >= start && at + size <= end) {
        const high = i32[entry + 1]!;
        const newLow = (low & change.keepLow) | change.setLow;
        const newHigh = (high & change.keepHigh) | change.setHigh;
        if (newLow === low && newHigh === high) continue;
        i32[entry] = newLow;
        i32[entry + 1] = newHigh;
        changed++;
        continue;
      }
      const child = this.#childTable(entry, level);
      const from = Math.max(at, start);
      changed += this.#change(child, level + 1, from, Math.min(at + size, end), change);
    }
    return changed;
  }

  /** Stops at a leaf for which `visit` is false, and is false then. */
  #visit(
    table: number,
    level: number,
    start: number,
    end: number,
    visit: (leaf: Leaf) => boolean,
  ): boolean {
    const { i32 } = this.#memory;
    const size = SIZE[level]!;
    for (let at = floorTo(start, level); at < end; at += size) {
      const entry = this.#entry(table, level, at);
      const low = i32[entry]!;
      if (!isValid(low)) continue;
      const high = i32[entry + 1]!;
      if (isTable(low, level)) {
        const child = this.#wordOf(tableAddress(low, high));
        const to = Math.min(at + size, end);
        if (!this.#visit(child, level + 1, Math.max(at, start), to, visit)) return false;
      } else if (!visit(new Leaf(at, level, leafAddress(low, high, level), low, high))) {
        return false;
      }
    }
    return true;
  }

  /** Asserts the invariants at the head of this file over the whole table. */
  checkTable(): void {
    const seen = new Set<number>();
    for (let i = 0; i < this.rootBytes / PAGE_SIZE; i++) seen.add(this.root + i * PAGE_SIZE);
    const tables = this.#checkBelow(this.#rootWord, this.startLevel, this.#rootEntries, seen);
    assert(tables === this.#tablePageCount, 'tables reached are the tables counted');
    assert(this.#reserved.length === 0, 'no table is reserved between operations');
  }

  #checkBelow(table: number, level: number, entryCount: number, seen: Set<number>): number {
    const { i32 } = this.#memory;
    let tables = 0;
    for (let i = 0; i < entryCount; i++) {
      const low = i32[table + 2 * i]!;
      const high = i32[table + 2 * i + 1]!;
      if (low === 0 && high === 0) continue;
      assert(isValid(low), 'an entry is empty or valid');
      if (isTable(low, level)) {
        const child = tableAddress(low, high);
        assert(!seen.has(child), 'a table hangs below one entry');
        assert(this.#memory.linear(child) >= 0, 'a table lies in RAM');
        assert(!this.#isEmpty(this.#wordOf(child)), 'a table has an entry in use');
        seen.add(child);
        tables += 1 + this.#checkBelow(this.#wordOf(child), level + 1, TABLE_ENTRIES, seen);
        continue;
      }
      assert(level === 3 ? (low & 3) === 3 : isBlockLevel(level), 'a leaf at a level with leaves');
      const lowBits = LOW_ADDRESS[level]! | LOW_ATTRIBUTES | leafType(level);
      assert((low & ~lowBits) === 0, 'clean leaf');
      assert((high & ~(HIGH_ADDRESS | HIGH_ATTRIBUTES)) === 0, 'clean leaf');
    }
    return tables;
  }
}

/** Whether a leaf at `level` for input address `at` serves a mapping. */
function leafFits(mapping: Mapping, level: number, at: number): boolean {
  if (level === 3) return true;
  const size = SIZE[level]!;
  if (!isBlockLevel(level) || size > mapping.maxLeafBytes) return false;
  if (at < mapping.input || at + size > mapping.end) return false;
  return isAligned(mapping.pa + (at - mapping.input), size);
}
