/** Speeds from marks: warming up, windows, the fastest of them, and marks that come too late. */
import { describe, expect, it } from 'vitest';
import { buildBenchGuest } from './guest.ts';
import { benchLoops } from './loops.ts';
import { MarkTimer } from './marks.ts';

const guest = buildBenchGuest(benchLoops.slice(0, 2), 1_000_000);
const [batch] = guest.batchInstructions;
const timing = { warmUpMs: 100, windowMs: 50, windowCount: 2 };

/** Sends 'a' at each of these times; the last answer. */
function send(timer: MarkTimer, times: readonly number[]): boolean {
  let answer = false;
  for (const ms of times) answer = timer.take('a', ms);
  return answer;
}

describe('MarkTimer', () => {
  it('two windows: the speed of the faster one', () => {
    const timer = new MarkTimer(guest, timing);
    // 100 begins the first window: one batch in 50 ms, then two in 50.
    expect(send(timer, [0, 99, 100, 150, 175])).toBe(false);
    expect(timer.results).toEqual([]);
    expect(timer.take('a', 200)).toBe(true);
    expect(timer.results).toEqual([(2 * batch!) / 50 / 1000]);
  });

  it('after a loop is done: its late marks do not count, the next loop begins', () => {
    const timer = new MarkTimer(guest, timing);
    send(timer, [0, 100, 150, 200]);
    expect(timer.take('a', 201)).toBe(false);
    for (const ms of [300, 400, 450]) expect(timer.take('b', ms)).toBe(false);
    expect(timer.take('b', 500)).toBe(true);
    expect(timer.results).toHaveLength(2);
    expect(timer.take('b', 600)).toBe(false);
  });

  it('other output: ignored', () => {
    const timer = new MarkTimer(guest, timing);
    for (const mark of ['b', '\n', 'x']) expect(timer.take(mark, 1000)).toBe(false);
    expect(send(timer, [2000, 2050])).toBe(false);
  });
});
