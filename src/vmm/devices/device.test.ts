/** Byte lanes of 32-bit registers, and lines that drop repetitions. */
import { describe, expect, it } from 'vitest';
import { LevelLine, readLanes, writeLanes } from './device.ts';

describe('lanes', () => {
  it.each([
    [0, 4, 0x8765_4321n],
    [0, 1, 0x21n],
    [3, 1, 0x87n],
    [2, 2, 0x8765n],
    [0, 8, 0x8765_4321n],
  ] as const)('readLanes: offset %i, %i bytes, %i', (offset, size, value) => {
    const seen: number[] = [];
    const register = (word: number): number => {
      seen.push(word);
      return 0x8765_4321 | 0; // registers are made with 32-bit operators: negative above 2^31
    };
    expect(readLanes(0x40 + offset, size, register)).toBe(value);
    expect(seen).toEqual([0x40]);
  });

  it.each([
    [0, 4, 0x1_ffff_ffffn, 0xffff_ffff],
    [0, 1, 0x1ffn, 0xff],
    [1, 1, 0xffn, 0xff00],
    [2, 2, 0xabcdn, 0xabcd_0000],
    [0, 8, 0x1111_1111_2222_2222n, 0x2222_2222],
  ] as const)('writeLanes: offset %i, %i bytes, in place', (offset, size, value, word) => {
    expect(writeLanes(offset, size, value)).toBe(word);
  });
});

describe('LevelLine', () => {
  it('LevelLine: repeated levels, passed on once', () => {
    const levels: boolean[] = [];
    const line = new LevelLine((level) => levels.push(level));
    for (const level of [false, true, true, false, false, true]) line.set(level);
    expect(levels).toEqual([true, false, true]);
  });
});
