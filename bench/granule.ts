/** Times the benchmark's guest on granule, in this process: one vCPU, time by instructions. */
import { assert, MIB } from '../src/base/index.ts';
import { planBoot } from '../src/vmm/boot.ts';
import { Machine } from '../src/vmm/machine.ts';
import type { BenchGuest } from './guest.ts';
import { MarkTimer, type Timing } from './marks.ts';

const RAM_BYTES = 64 * MIB;

/** Million guest instructions a second of each loop. */
export function timeOnGranule(guest: BenchGuest, timing: Timing): readonly number[] {
  const timer = new MarkTimer(guest, timing);
  const kernel = { name: 'the benchmark', bytes: guest.bytes };
  const machine = new Machine({
    plan: planBoot({ kernel, cmdline: '', ramBytes: RAM_BYTES, cpuCount: 1, seed: 1 }),
    mte: guest.tags,
    seed: 1,
    transmit: (byte) => {
      const done = timer.take(String.fromCharCode(byte), performance.now());
      if (done) machine.input.push(Uint8Array.of(10));
    },
  });
  for (;;) {
    const turn = machine.runSlice();
    if (turn === 'power-off') return timer.results;
    assert(typeof turn === 'object' && turn.kind === 'budget', 'the guest runs until its end');
  }
}
