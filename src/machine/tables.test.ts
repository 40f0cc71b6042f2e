/** The table builder against a list of intervals, and what it refuses. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeStage2Leaf, encodeStage1, encodeStage2, leafAttributes } from '../arm/descriptor.ts';
import { BLOCK_SIZE, GIB, MIB, PAGE_SIZE, type Pa, pa } from '../base/index.ts';
import { DRAM_BASE, dramOnly, PhysicalMemory } from './memory.ts';
import { type Leaf, PageTable } from './tables.ts';

/** Counts table pages out and in, and refuses beyond `limit`. */
class Pool {
  limit = Number.POSITIVE_INFINITY;
  readonly out = new Set<number>();
  readonly #free: Pa[] = [];

  constructor(first: Pa, count: number) {
    for (let i = count - 1; i >= 0; i--) this.#free.push(pa(first + i * PAGE_SIZE));
  }

  allocTable(): Pa | undefined {
    if (this.out.size >= this.limit) return undefined;
    const table = this.#free.pop();
    if (table !== undefined) this.out.add(table);
    return table;
  }

  freeTable(table: Pa): void {
    if (!this.out.delete(table)) throw new Error('freed a table that was not out');
    this.#free.push(table);
  }
}

const INPUT_BITS = 40;
/** Two concatenated level 1 tables, as KVM has for 40 bits. */
const ROOT_BYTES = 2 * PAGE_SIZE;
const memory = new PhysicalMemory({ zones: dramOnly(16 * MIB), recordPageCount: 1 });

function newTable(): { table: PageTable; pool: Pool } {
  const pool = new Pool(pa(DRAM_BASE + ROOT_BYTES), 4000);
  const table = new PageTable({
    memory,
    allocator: pool,
    root: DRAM_BASE,
    startLevel: 1,
    inputBits: INPUT_BITS,
  });
  return { table, pool };
}

const RW = encodeStage2({ memAttr: 15, read: true, write: true, sh: 3, accessed: true });
const RO = encodeStage2({ memAttr: 15, read: true, sh: 3, accessed: true });
const WRITE = encodeStage2({ write: true });
const all = { input: 0, sizeBytes: 2 ** INPUT_BITS };

function leaves(table: PageTable): Leaf[] {
  const found: Leaf[] = [];
  table.walkLeaves(all, (leaf) => found.push(leaf));
  return found;
}

const shapes = (table: PageTable): string[] =>
  leaves(table).map((l) => `${l.input.toString(16)}+${l.sizeBytes / 1024}K`);

describe('mapRange', () => {
  it('mapRange: 1 GiB aligned at both ends, one block at level 1 and no table', () => {
    const { table, pool } = newTable();
    expect(table.mapRange({ input: GIB, pa: pa(4 * GIB), sizeBytes: GIB, attributes: RW })).toBe(
      true,
    );
    expect(shapes(table)).toEqual(['40000000+1048576K']);
    expect(pool.out.size).toBe(0);
  });

  it('mapRange: 1 GiB with maxLeafBytes 2 MiB, 512 blocks', () => {
    const { table } = newTable();
    const request = { input: GIB, pa: pa(GIB), sizeBytes: GIB, attributes: RW };
    expect(table.mapRange({ ...request, maxLeafBytes: BLOCK_SIZE })).toBe(true);
    expect(leaves(table)).toHaveLength(512);
    expect(table.tablePageCount).toBe(1);
  });

  it('mapRange: PA not aligned with the input, pages', () => {
    const { table } = newTable();
    const request = { input: GIB, pa: pa(GIB + PAGE_SIZE), sizeBytes: BLOCK_SIZE, attributes: RW };
    expect(table.mapRange(request)).toBe(true);
    expect(leaves(table).every((l) => l.level === 3)).toBe(true);
  });

  it('mapRange: block over a table, the child table is freed', () => {
    const { table, pool } = newTable();
    const page = { input: GIB, pa: pa(GIB), sizeBytes: PAGE_SIZE, attributes: RW };
    table.mapRange(page);
    expect(table.tablePageCount).toBe(2);
    table.mapRange({ ...page, sizeBytes: BLOCK_SIZE });
    expect(shapes(table)).toEqual(['40000000+2048K']);
    table.mapRange({ ...page, sizeBytes: GIB });
    expect(shapes(table)).toEqual(['40000000+1048576K']);
    expect(table.tablePageCount).toBe(0);
    expect(pool.out.size).toBe(0);
    table.checkTable();
  });

  it('mapRange: a page inside a 1 GiB block, the block is split around it', () => {
    const { table } = newTable();
    table.mapRange({ input: 0, pa: pa(0), sizeBytes: GIB, attributes: RW });
    const page = { input: 5 * PAGE_SIZE, pa: pa(9 * PAGE_SIZE), sizeBytes: PAGE_SIZE };
    expect(table.mapRange({ ...page, attributes: RO })).toBe(true);
    expect(table.tablePageCount).toBe(2);
    expect(leaves(table)).toHaveLength(511 + 512);
    expect(table.lookup(4 * PAGE_SIZE)?.pa).toBe(4 * PAGE_SIZE);
    expect(table.lookup(5 * PAGE_SIZE + 3)?.pa).toBe(9 * PAGE_SIZE + 3);
    expect(leafAttributes(table.lookup(5 * PAGE_SIZE)!.descriptor)).toBe(RO);
    table.checkTable();
  });

  it('mapRange: across the seam of two concatenated root tables, both sides found', () => {
    const { table } = newTable();
    const input = 512 * GIB - PAGE_SIZE;
    table.mapRange({ input, pa: pa(GIB), sizeBytes: 2 * PAGE_SIZE, attributes: RW });
    expect(table.lookup(input)?.pa).toBe(GIB);
    expect(table.lookup(512 * GIB)?.pa).toBe(GIB + PAGE_SIZE);
    table.checkTable();
  });

  it('mapRange: every number of table pages below what it needs, refused and unchanged', () => {
    const request = {
      input: GIB - PAGE_SIZE,
      pa: pa(0),
      sizeBytes: 2 * BLOCK_SIZE,
      attributes: RW,
    };
    for (let limit = 0; limit < 6; limit++) {
      const { table, pool } = newTable();
      pool.limit = limit;
      const before = memory.readBytes(DRAM_BASE, ROOT_BYTES);
      const done = table.mapRange(request);
      expect(done).toBe(limit >= 5);
      if (!done) expect(memory.readBytes(DRAM_BASE, ROOT_BYTES)).toEqual(before);
      expect(pool.out.size).toBe(done ? 5 : 0);
      table.checkTable();
    }
  });

  it('mapRange: attributes with type or address bits, our bug', () => {
    const { table } = newTable();
    const request = { input: 0, pa: pa(0), sizeBytes: PAGE_SIZE };
    expect(() => table.mapRange({ ...request, attributes: 1n })).toThrow('attributes');
    expect(() => table.mapRange({ ...request, attributes: 0x1000n })).toThrow('attributes');
  });

  it('mapRange: beyond the input size, our bug', () => {
    const { table } = newTable();
    const request = { pa: pa(0), sizeBytes: PAGE_SIZE, attributes: RW };
    expect(() => table.mapRange({ ...request, input: 2 ** INPUT_BITS })).toThrow('range');
    expect(() => table.mapRange({ ...request, input: 12 })).toThrow('page-aligned');
  });
});

describe('unmapRange', () => {
  it('unmapRange: the last page of a table, the table and its parent are freed', () => {
    const { table, pool } = newTable();
    table.mapRange({ input: GIB, pa: pa(GIB), sizeBytes: PAGE_SIZE, attributes: RW });
    expect(table.unmapRange({ input: GIB, sizeBytes: PAGE_SIZE })).toBe(true);
    expect(pool.out.size).toBe(0);
    expect(leaves(table)).toEqual([]);
  });

  it('unmapRange: nothing mapped, nothing allocated', () => {
    const { table, pool } = newTable();
    pool.limit = 0;
    expect(table.unmapRange({ input: 3 * PAGE_SIZE, sizeBytes: 7 * GIB })).toBe(true);
  });

  it('unmapRange: the middle of a block without a table page, refused and unchanged', () => {
    const { table, pool } = newTable();
    table.mapRange({ input: GIB, pa: pa(GIB), sizeBytes: GIB, attributes: RW });
    pool.limit = 1;
    expect(table.unmapRange({ input: GIB + PAGE_SIZE, sizeBytes: PAGE_SIZE })).toBe(false);
    expect(shapes(table)).toEqual(['40000000+1048576K']);
    expect(pool.out.size).toBe(0);
    pool.limit = 2;
    expect(table.unmapRange({ input: GIB + PAGE_SIZE, sizeBytes: PAGE_SIZE })).toBe(true);
    expect(table.lookup(GIB + PAGE_SIZE)).toBeUndefined();
    expect(table.lookup(GIB + 2 * PAGE_SIZE)?.pa).toBe(GIB + 2 * PAGE_SIZE);
    table.checkTable();
  });
});

describe('setAttributes', () => {
  it('setAttributes: part of a block, only that part changes', () => {
    const { table } = newTable();
    table.mapRange({ input: 0, pa: pa(0), sizeBytes: BLOCK_SIZE, attributes: RW });
    const range = { input: PAGE_SIZE, sizeBytes: PAGE_SIZE };
    expect(table.setAttributes(range, { clear: WRITE, set: 0n })).toBe(true);
    const writable = [0, 1, 2].map(
      (page) => decodeStage2Leaf(table.lookup(page * PAGE_SIZE)!.descriptor).write,
    );
    expect(writable).toEqual([true, false, true]);
  });

  it('setAttributes: whole blocks and holes, no table page needed', () => {
    const { table, pool } = newTable();
    table.mapRange({ input: GIB, pa: pa(0), sizeBytes: GIB, attributes: RW });
    pool.limit = 0;
    expect(table.setAttributes(all, { clear: WRITE, set: 0n })).toBe(true);
    expect(leafAttributes(table.lookup(GIB)!.descriptor)).toBe(RO);
  });
});

describe('changeAttributes, mapsAny', () => {
  it('changeAttributes: how many leaves differ; -1 without a table page, nothing changed', () => {
    const { table, pool } = newTable();
    table.mapRange({ input: 0, pa: pa(0), sizeBytes: BLOCK_SIZE, attributes: RW });
    table.mapRange({ input: GIB, pa: pa(0), sizeBytes: 3 * PAGE_SIZE, attributes: RW });
    table.mapRange({ input: GIB, pa: pa(0), sizeBytes: PAGE_SIZE, attributes: RO });
    const change = { clear: WRITE, set: 0n };
    expect(table.changeAttributes({ input: GIB, sizeBytes: 5 * PAGE_SIZE }, change)).toBe(2);
    expect(table.changeAttributes({ input: GIB, sizeBytes: 5 * PAGE_SIZE }, change)).toBe(0);
    pool.limit = 0;
    expect(table.changeAttributes({ input: PAGE_SIZE, sizeBytes: PAGE_SIZE }, change)).toBe(-1);
    expect(leafAttributes(table.lookup(PAGE_SIZE)!.descriptor)).toBe(RW);
    expect(table.changeAttributes(all, change)).toBe(1);
  });

  it('mapsAny: a leaf that overlaps the range anywhere', () => {
    const { table } = newTable();
    table.mapRange({ input: GIB, pa: pa(0), sizeBytes: BLOCK_SIZE, attributes: RW });
    const at = (input: number): boolean => table.mapsAny({ input, sizeBytes: PAGE_SIZE });
    expect([GIB - PAGE_SIZE, GIB, GIB + BLOCK_SIZE - PAGE_SIZE, GIB + BLOCK_SIZE].map(at)).toEqual([
      false,
      true,
      true,
      false,
    ]);
  });

  it('a page or block in a table that is there: no other table page is asked for', () => {
    const { table, pool } = newTable();
    table.mapRange({ input: 0, pa: pa(0), sizeBytes: PAGE_SIZE, attributes: RW });
    pool.limit = 0;
    const page = { input: 5 * PAGE_SIZE, pa: pa(8 * GIB), sizeBytes: PAGE_SIZE, attributes: RO };
    expect(table.mapRange(page)).toBe(true);
    const block = { input: BLOCK_SIZE, pa: pa(0), sizeBytes: BLOCK_SIZE, attributes: RW };
    expect(table.mapRange(block)).toBe(true);
    expect(shapes(table)).toEqual(['0+4K', '5000+4K', '200000+2048K']);
    expect(table.lookup(5 * PAGE_SIZE)).toMatchObject({ pa: 8 * GIB, sizeBytes: PAGE_SIZE });
    expect(table.mapRange({ ...block, input: BLOCK_SIZE + PAGE_SIZE })).toBe(false);
    table.checkTable();
  });
});

describe('checkTable', () => {
  it('checkTable: an entry that is neither valid nor 0, asserted', () => {
    const { table } = newTable();
    memory.write64(DRAM_BASE, 2n);
    expect(() => table.checkTable()).toThrow('empty or valid');
  });

  it('checkTable: a table below two entries, asserted', () => {
    const { table } = newTable();
    table.mapRange({ input: 0, pa: pa(0), sizeBytes: PAGE_SIZE, attributes: RW });
    memory.write64(pa(DRAM_BASE + 8), memory.read64(DRAM_BASE));
    expect(() => table.checkTable()).toThrow('below one entry');
  });
});

/* The model: disjoint intervals in any order, cut and inserted naively. */
interface Interval {
  start: number;
  end: number;
  pa: number;
  attributes: bigint;
}

function cut(model: Interval[], start: number, end: number): Interval[] {
  return model.flatMap((i) => {
    const parts: Interval[] = [];
    if (i.start < start) parts.push({ ...i, end: Math.min(i.end, start) });
    if (i.end > end) {
      const from = Math.max(i.start, end);
      parts.push({ ...i, start: from, pa: i.pa + (from - i.start) });
    }
    return parts;
  });
}

function changed(model: Interval[], start: number, end: number, bits: bigint): Interval[] {
  const inside = model
    .filter((i) => i.start < end && i.end > start)
    .map((i) => {
      const from = Math.max(i.start, start);
      const pa = i.pa + (from - i.start);
      return { start: from, end: Math.min(i.end, end), pa, attributes: i.attributes & ~bits };
    });
  return [...cut(model, start, end), ...inside];
}

/** Both forms as maximal runs of equal attributes and contiguous PAs, for comparison. */
function runs(parts: Interval[]): string[] {
  const sorted = parts.filter((i) => i.end > i.start).sort((a, b) => a.start - b.start);
  const merged: Interval[] = [];
  for (const part of sorted) {
    const last = merged.at(-1);
    const joins =
      last !== undefined &&
      last.end === part.start &&
      last.attributes === part.attributes &&
      last.pa + (last.end - last.start) === part.pa;
    if (joins) last.end = part.end;
    else merged.push({ ...part });
  }
  return merged.map((i) => `${i.start}-${i.end}:${i.pa}:${i.attributes}`);
}

const tableRuns = (table: PageTable): string[] =>
  runs(
    leaves(table).map((l) => ({
      start: l.input,
      end: l.input + l.sizeBytes,
      pa: l.pa,
      attributes: leafAttributes(l.descriptor),
    })),
  );

/** Sizes and places near every kind of boundary. */
const place = fc
  .tuple(
    fc.integer({ min: 0, max: 2 }),
    fc.integer({ min: 0, max: 3 }),
    fc.integer({ min: 0, max: 4 }),
  )
  .map(([g, b, p]) => g * GIB + b * BLOCK_SIZE + p * PAGE_SIZE);
const size = fc.oneof(
  fc.integer({ min: 1, max: 6 }).map((n) => n * PAGE_SIZE),
  fc.integer({ min: 1, max: 4 }).map((n) => n * BLOCK_SIZE),
  fc.constantFrom(GIB, GIB - PAGE_SIZE, BLOCK_SIZE + PAGE_SIZE, 2 * GIB),
);
const operation = fc.record({
  kind: fc.constantFrom('map', 'map', 'unmap', 'protect'),
  input: place,
  pa: place,
  sizeBytes: size,
  writable: fc.boolean(),
  maxLeafBytes: fc.constantFrom(BLOCK_SIZE, GIB),
  tablesLeft: fc.constantFrom(0, 1, 2, 3, 50, 50, 50),
});

describe('PageTable', () => {
  it('PageTable: map, unmap, protect in any order, as the model; a refusal changes nothing', () => {
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 12 }), (operations) => {
        const { table, pool } = newTable();
        let model: Interval[] = [];
        for (const drawn of operations) {
          // A large range on a PA that is off by a page would take a quarter of a million pages.
          const aligned = drawn.input + GIB;
          const op = { ...drawn, pa: drawn.sizeBytes > 8 * MIB ? aligned : drawn.pa };
          pool.limit = pool.out.size + op.tablesLeft;
          const end = op.input + op.sizeBytes;
          const attributes = op.writable ? RW : RO;
          let done: boolean;
          let next: Interval[];
          if (op.kind === 'map') {
            done = table.mapRange({ ...op, pa: pa(op.pa), attributes });
            next = [...cut(model, op.input, end), { start: op.input, end, pa: op.pa, attributes }];
          } else if (op.kind === 'unmap') {
            done = table.unmapRange(op);
            next = cut(model, op.input, end);
          } else {
            done = table.setAttributes(op, { clear: WRITE, set: 0n });
            next = changed(model, op.input, end, WRITE);
          }
          if (done) model = next;
          else expect(op.tablesLeft).toBeLessThan(50);
          expect(tableRuns(table)).toEqual(runs(model));
          expect(table.tablePageCount).toBe(pool.out.size);
          table.checkTable();
        }
        pool.limit = 0;
        table.clear();
        expect(pool.out.size).toBe(0);
        expect(leaves(table)).toEqual([]);
      }),
      { numRuns: 120 },
    );
  });

  it('PageTable: stage 1 of a process, start level 0 over 48 bits', () => {
    const pool = new Pool(pa(DRAM_BASE + PAGE_SIZE), 100);
    const options = { memory, allocator: pool, root: DRAM_BASE, startLevel: 0, inputBits: 48 };
    const table = new PageTable(options);
    const attributes = encodeStage1({ el0: true, accessed: true, notGlobal: true });
    const top = 2 ** 48 - PAGE_SIZE;
    table.mapRange({ input: top, pa: pa(GIB), sizeBytes: PAGE_SIZE, attributes });
    expect(table.lookup(top + 5)?.pa).toBe(GIB + 5);
    expect(table.tablePageCount).toBe(3);
    table.checkTable();
  });
});
