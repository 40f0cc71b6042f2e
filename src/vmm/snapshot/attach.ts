/**
 * A run that goes on from a snapshot: what `runMachine` calls before its first slice. State at
 * once, RAM when it is touched, and what is not touched one chunk between two slices, until the
 * machine does not need the file any more.
 */
import type { Machine } from '../machine.ts';
import type { Attach } from '../machine-options.ts';
import type { RunControl } from '../monitor/run-control.ts';
import type { LazyRam } from './lazy-ram.ts';
import { restoreSnapshot, restoreSnapshotLazily } from './restore.ts';
import { SnapshotError } from './snapshot-error.ts';
import type { SnapshotFile } from './snapshot-file.ts';

/** When RAM is loaded: when it is touched, or all of it, checked, before the guest runs. */
export const restoreModes = ['lazy', 'eager'] as const;
export type RestoreMode = (typeof restoreModes)[number];

/**
 * Takes part in a run of a machine of `file`'s shape (`machineOf`), and takes over the file. A
 * chunk that turns out to be corrupted ends the run with a `SnapshotError`.
 */
export function restoring(file: SnapshotFile, mode: RestoreMode): Attach {
  return async (machine, control) => {
    if (mode === 'eager') {
      restoreSnapshot(machine, file);
      return async () => {};
    }
    return loadBeside(machine, control, file);
  };
}

function loadBeside(
  machine: Machine,
  control: RunControl,
  file: SnapshotFile,
): () => Promise<void> {
  const ram = restoreSnapshotLazily(machine, file);
  let next = setImmediate(loadNext);
  function loadNext(): void {
    if (!isLoaded(ram)) next = setImmediate(loadNext);
    else if (ram.failure !== undefined) control.leave('quit');
  }
  return async () => {
    clearImmediate(next);
    file.close();
    if (ram.failure !== undefined) throw ram.failure;
  };
}

/** Loads one chunk; true when there is no more to load, or no more that can be. */
function isLoaded(ram: LazyRam): boolean {
  try {
    return !ram.loadSome(1);
  } catch (error) {
    if (error instanceof SnapshotError && ram.failure !== undefined) return true;
    throw error;
  }
}
