/** A full boot repeats: same seed and input, same instructions, same hash over everything. */
import { expect, it } from 'vitest';
import { MIB } from '../../src/base/index.ts';
import { GUEST_SUCCESS } from '../../src/vmm/demo-initramfs.ts';
import { Machine } from '../../src/vmm/machine.ts';
import { hashMachine } from '../../src/vmm/state-hash.ts';
import { debianGuest, demoPlan } from '../support/debian-guest.ts';

interface Run {
  readonly instructions: bigint;
  readonly hash: string;
  readonly console: string;
}

/** Boots to power-off in slices that end where `slice` says. */
function boot(plan: ReturnType<typeof demoPlan>, seed: number): Run {
  const bytes: number[] = [];
  const machine = new Machine({
    plan,
    mte: true,
    seed,
    transmit: (byte) => void bytes.push(byte),
  });
  let event = machine.runSlice();
  while (typeof event !== 'string') event = machine.runSlice();
  expect(event).toBe('power-off');
  return {
    instructions: machine.statistics(0).instructionCount,
    hash: hashMachine(machine),
    console: Buffer.from(bytes).toString(),
  };
}

it('a boot to power-off: with the same seed equal, with another not', async (context) => {
  const debian = await debianGuest(context);
  const run = (seed: number): Run => {
    const options = { mte: true, cpuCount: 2, ramBytes: 256 * MIB, seed };
    return boot(demoPlan(debian, options), seed);
  };
  const first = run(11);
  expect(first.console).toContain(GUEST_SUCCESS);
  expect(run(11)).toEqual(first);
  const other = run(12);
  expect(other.console).toContain(GUEST_SUCCESS);
  expect(other.hash).not.toBe(first.hash);
  expect(other.instructions).not.toBe(first.instructions);
});
