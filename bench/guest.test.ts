/** The benchmark's guest: every loop sends its mark until a byte comes, then the machine is off. */
import { describe, expect, it } from 'vitest';
import { timeOnGranule } from './granule.ts';
import { buildBenchGuest } from './guest.ts';
import { benchLoops } from './loops.ts';

const ONCE = { warmUpMs: 0, windowMs: 0, windowCount: 1 };
const BATCH_INSTRUCTIONS = 3_000_000;

describe('buildBenchGuest', () => {
  it.each([false, true])('on granule, tag checks %s: a speed of each loop', (tags) => {
    const loops = benchLoops.filter((loop) => (loop.tags ?? false) === tags);
    const speeds = timeOnGranule(buildBenchGuest(loops, BATCH_INSTRUCTIONS), ONCE);
    expect(speeds).toHaveLength(loops.length);
    for (const speed of speeds) expect(speed).toBeGreaterThan(0);
  });

  it('batches: whole rounds, at least one', () => {
    const [loop] = benchLoops;
    const { instructionsPerRound } = loop!;
    const of = (instructions: number) => buildBenchGuest([loop!], instructions).batchInstructions;
    expect(of(instructionsPerRound * 7 + 1)).toEqual([instructionsPerRound * 7]);
    expect(of(1)).toEqual([instructionsPerRound]);
  });
});
