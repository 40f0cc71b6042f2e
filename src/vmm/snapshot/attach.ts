/**
 * A run that goes on from a snapshot: what `runMachine` calls before its first slice. State at
 * once, RAM when it is touched, and what is not touched one chunk between two slices, until the
 * machine does not need the file any more.
 *
 * A file with one wrong byte is refused, and still the guest does not wait until all bytes have
 * been read: it runs while they are checked, and what it says is kept back until they are. Where
 * one is wrong the run ends, and nobody has seen anything of it.
 */
import type { Machine } from '../machine.ts';
import type { Attach, RestoreMode } from '../machine-options.ts';
import type { RunControl } from '../monitor/run-control.ts';
import { processTime } from '../run-machine.ts';
import { restoreSnapshot, restoreSnapshotLazily } from './restore.ts';
import { SnapshotError } from './snapshot-error.ts';
import type { SnapshotFile } from './snapshot-file.ts';

/**
 * Takes part in a run of a machine of `file`'s shape (`machineOf`), and takes over the file. A file
 * that turns out to be corrupted ends the run with a `SnapshotError`.
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
  const release = control.withhold();
  const share = control.share();
  let isOver = false;
  let failure: SnapshotError | undefined;
  const loading = load().catch((error: unknown) => {
    if (!(error instanceof SnapshotError)) throw error;
    if (isOver) return;
    failure = error;
    control.leave('quit');
  });

  async function load(): Promise<void> {
    try {
      await file.verify();
    } finally {
      share();
    }
    release();
    while (!isOver && ram.loadSome(1)) await processTime.turn();
  }

  return async () => {
    isOver = true;
    file.close();
    await loading;
    failure ??= ram.failure;
    if (failure !== undefined) throw failure;
  };
}
