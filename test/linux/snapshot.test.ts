/**
 * Debian's kernel saved to a file in the middle of its boot: the machine that was saved goes on
 * undisturbed, and the one restored from the file, its memory loaded as it is touched, ends alike.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { MIB } from '../../src/base/index.ts';
import { GUEST_SUCCESS } from '../../src/vmm/demo-initramfs.ts';
import { Machine, type MachineSetup } from '../../src/vmm/machine.ts';
import { machineOf, restoreSnapshotLazily } from '../../src/vmm/snapshot/restore.ts';
import { saveSnapshot } from '../../src/vmm/snapshot/save.ts';
import { openSnapshot } from '../../src/vmm/snapshot/snapshot-file.ts';
import { hashMachine } from '../../src/vmm/state-hash.ts';
import { debianGuest, demoPlan } from '../support/debian-guest.ts';

/**
 * What the init writes first: from then on there is user space, and the MTE program is still to
 * come.
 */
const INIT_LINE = 'granule: Linux';

/**
 * Short, so that the save comes soon behind that line; the same for all machines, as the turns of
 * several CPUs depend on where slices end.
 */
const SLICE_INSTRUCTIONS = 100_000;

class Boot {
  readonly machine: Machine;
  #console = '';

  constructor(setup: Omit<MachineSetup, 'transmit'>) {
    this.machine = new Machine({
      ...setup,
      transmit: (byte) => {
        this.#console += String.fromCharCode(byte);
      },
    });
  }

  runTo(line: string): void {
    while (!this.#console.includes(line))
      expect(this.machine.runSlice(SLICE_INSTRUCTIONS)).not.toBeTypeOf('string');
  }

  end(): { readonly instructions: bigint; readonly hash: string; readonly console: string } {
    let event = this.machine.runSlice(SLICE_INSTRUCTIONS);
    while (typeof event !== 'string') event = this.machine.runSlice(SLICE_INSTRUCTIONS);
    expect(event).toBe('power-off');
    return {
      instructions: this.machine.statistics(0).instructionCount,
      hash: hashMachine(this.machine),
      console: this.#console,
    };
  }
}

it.for([1, 2])(
  '%d CPU(s): saved, restored and undisturbed end alike',
  async (cpuCount, context) => {
    const options = { mte: true, cpuCount, ramBytes: 512 * MIB, seed: 5 };
    const plan = demoPlan(await debianGuest(context), options);
    const undisturbed = new Boot({ plan, mte: true, seed: 5 }).end();
    expect(undisturbed.console).toContain(GUEST_SUCCESS);

    const directory = mkdtempSync(join(tmpdir(), 'granule-debian-'));
    try {
      const path = join(directory, 'debian');
      const saved = new Boot({ plan, mte: true, seed: 5 });
      saved.runTo(INIT_LINE);
      // Most of RAM is zero, and the rest compresses.
      expect(await saveSnapshot(saved.machine, path)).toBeLessThan(options.ramBytes / 8);
      expect(saved.end()).toEqual(undisturbed);

      const file = openSnapshot(path);
      const restored = new Boot(machineOf(file));
      restoreSnapshotLazily(restored.machine, file);
      const { console, ...end } = restored.end();
      expect(undisturbed).toMatchObject(end);
      expect(console).toContain(GUEST_SUCCESS);
      expect(console).not.toContain(INIT_LINE);
      expect(undisturbed.console.endsWith(console)).toBe(true);
    } finally {
      rmSync(directory, { recursive: true });
    }
  },
);
