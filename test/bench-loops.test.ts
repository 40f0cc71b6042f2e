/** The loops that are timed: they assemble, use no register beyond their own, and return. */
import { describe, expect, it } from 'vitest';
import { benchLoops } from '../bench/loops.ts';
import { assembleProgram } from '../src/arm/a64/program.ts';

const RET = 0xd65f03c0;

describe('bench loops', () => {
  it.each(benchLoops.map((loop) => [loop.name, loop] as const))(
    '%s: assembles, keeps to its registers, returns',
    (_, { prepare = 'ret', source }) => {
      for (const text of [prepare, source]) {
        const { bytes } = assembleProgram(text);
        const view = new DataView(bytes.buffer);
        const words = Array.from({ length: bytes.length / 4 }, (_, i) =>
          view.getUint32(4 * i, true),
        );
        expect(words.some((word) => word === RET || word === RET - (21 << 5))).toBe(true);
        const numbers = [...text.matchAll(/\b[xw](\d+)\b/g)].map((match) => Number(match[1]));
        expect(numbers.filter((number) => number > 17 && number !== 30)).toEqual([]);
      }
    },
  );

  it('names: all different', () => {
    expect(new Set(benchLoops.map(({ name }) => name)).size).toBe(benchLoops.length);
  });
});
