/** Stage 2: what is mapped, split and taken away, and who is told of it. */
import { describe, expect, it } from 'vitest';
import { decodeStage2Leaf } from '../arm/descriptor.ts';
import { BLOCK_SIZE, type Ipa, ipa, MIB, PAGE_SIZE, type Pa, pa } from '../base/index.ts';
import { Host, isRefusal } from '../host/index.ts';
import { dramOnly, PhysicalMemory } from '../machine/memory.ts';
import { Stage2 } from './stage2.ts';

const BLOCK_IPA = ipa(0x4000_0000);

function setUp() {
  const memory = new PhysicalMemory({ zones: dramOnly(8 * MIB), recordPageCount: 16 });
  const host = new Host({ memory });
  const stage2 = Stage2.create(host, 40);
  if (isRefusal(stage2)) throw new Error('no stage 2');
  const lost: string[] = [];
  stage2.onInvalidate((at, sizeBytes) => {
    lost.push(`+${(at - BLOCK_IPA) / PAGE_SIZE} ${sizeBytes / PAGE_SIZE}`);
  });
  const map = (at: Ipa, to: Pa, sizeBytes: number, writable = true) =>
    stage2.map({ ipa: at, pa: to, sizeBytes, writable, memory: 'normal' });
  return { host, stage2, lost, map };
}

const at = (page: number): Ipa => ipa(BLOCK_IPA + page * PAGE_SIZE);
const to = (page: number): Pa => pa(0x8060_0000 + page * PAGE_SIZE);

describe('Stage2', () => {
  it('registers: 40-bit IPAs, two concatenated tables at level 1, FWB', () => {
    const { stage2 } = setUp();
    expect(stage2.vtcr).toBe(0x8005_3558n);
    expect(stage2.vttbr >> 48n).toBe(BigInt(stage2.vmid));
    expect(Number(stage2.vttbr & 0xffff_ffff_ffffn) % (2 * PAGE_SIZE)).toBe(0);
    expect(stage2.hcr).toBe((1n << 46n) | 1n);
  });

  it('map: what was unmapped, or only gains rights, is told to nobody', () => {
    const { lost, map } = setUp();
    map(at(0), to(0), PAGE_SIZE, false);
    map(at(0), to(0), PAGE_SIZE, true);
    map(at(512), to(512), BLOCK_SIZE);
    expect(lost).toEqual([]);
  });

  it('map: another page, fewer rights, a block over pages are told', () => {
    const { stage2, lost, map } = setUp();
    map(at(0), to(0), PAGE_SIZE);
    map(at(0), to(1), PAGE_SIZE);
    map(at(0), to(1), PAGE_SIZE, false);
    map(at(0), to(0), BLOCK_SIZE);
    expect(lost).toEqual(['+0 1', '+0 1', '+0 512']);
    stage2.check();
  });

  it('map: a page inside a block splits it; the rest goes on', () => {
    const { stage2, lost, map } = setUp();
    map(at(0), to(0), BLOCK_SIZE, false);
    map(at(3), to(3), PAGE_SIZE, true);
    expect(lost).toEqual([]);
    expect(stage2.lookup(at(4))).toMatchObject({ sizeBytes: PAGE_SIZE, pa: to(4) });
    stage2.check();
  });

  it('unmap, writeProtect: told once, and not at all where nothing is mapped', () => {
    const { stage2, lost, map } = setUp();
    stage2.unmap(at(0), 4 * MIB);
    stage2.writeProtect(at(0), 4 * MIB);
    expect(lost).toEqual([]);
    map(at(0), to(0), BLOCK_SIZE);
    stage2.writeProtect(at(0), 4 * MIB);
    stage2.unmap(at(5), 2 * PAGE_SIZE);
    expect(lost).toEqual(['+0 1024', '+5 2']);
    expect(stage2.lookup(at(5))).toBeUndefined();
    expect(stage2.lookup(at(7))?.pa).toBe(to(7));
    stage2.check();
  });

  it('writeProtect of what cannot be written anyway: nobody told', () => {
    const { stage2, lost, map } = setUp();
    map(at(0), to(0), BLOCK_SIZE, false);
    stage2.writeProtect(at(0), BLOCK_SIZE);
    expect(lost).toEqual([]);
  });

  it('writeProtectRuns: each run, nothing between them, told once for all', () => {
    const { stage2, lost, map } = setUp();
    for (const page of [0, 1, 2, 3, 9, 600]) map(at(page), to(page), PAGE_SIZE);
    stage2.writeProtectRuns(at(0), [
      [1, 2],
      [5, 1],
      [9, 1],
      [20, 100],
    ]);
    expect(lost).toEqual(['+1 9']);
    const writable = [0, 1, 2, 3, 9, 600].filter(
      (page) => decodeStage2Leaf(stage2.lookup(at(page))!.descriptor).write,
    );
    expect(writable).toEqual([0, 3, 600]);
  });

  it.each(['unmap', 'writeProtect'] as const)(
    '%s of part of a block without memory for a table: all of the block goes',
    (change) => {
      const { host, stage2, lost, map } = setUp();
      map(at(0), to(0), BLOCK_SIZE);
      while (host.frames.allocate() !== -1);
      stage2[change](at(5), PAGE_SIZE);
      expect(stage2.lookup(at(400))).toBeUndefined();
      expect(lost).toEqual(['+0 512']);
      stage2.check();
    },
  );

  it('splitBlocks: the same memory in pages, rights kept, nobody told', () => {
    const { stage2, lost, map } = setUp();
    map(at(0), to(0), BLOCK_SIZE, false);
    stage2.splitBlocks(at(0), BLOCK_SIZE);
    expect(stage2.lookup(at(77))).toMatchObject({ sizeBytes: PAGE_SIZE, pa: to(77) });
    expect(lost).toEqual([]);
  });

  it('destroy: frames and VMID come back, listeners hear of it once', () => {
    const { host, stage2, lost, map } = setUp();
    const free = host.frames.freeCount;
    map(at(0), to(0), PAGE_SIZE);
    map(at(5000), to(0), PAGE_SIZE);
    expect(stage2.tablePageCount).toBe(2 + 3);
    stage2.destroy();
    expect(host.frames.freeCount).toBe(free + 2);
    expect(lost.length).toBe(1);
    host.frames.check();
  });
});
