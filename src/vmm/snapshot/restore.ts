/**
 * Makes a machine go on from a snapshot. `machineOf` says which machine to construct; then either
 * everything is checked and loaded before the first instruction, or state and index are, and RAM
 * comes when it is touched (lazy-ram.ts). Called by `granule run --restore` and by programs.
 */
import { assert } from '../../base/index.ts';
import { kvmPolicyNamed } from '../../kvm/index.ts';
import type { Machine, MachineSetup } from '../machine.ts';
import { applyState, checkSameMachine } from '../state/apply.ts';
import { describeMachine } from '../state/capture.ts';
import { LazyRam } from './lazy-ram.ts';
import { RamWriter } from './ram-writer.ts';
import { SnapshotError, withState } from './snapshot-error.ts';
import type { SnapshotFile } from './snapshot-file.ts';

/** What of a machine's setup the snapshot decides. Throws `SnapshotError` 'machine-differs'. */
export function machineOf({
  path,
  state,
}: SnapshotFile): Required<Pick<MachineSetup, 'plan' | 'mte' | 'seed' | 'policy'>> {
  const { ramBytes, cpuCount, mte, seed, policy: name } = state.machine;
  const policy = kvmPolicyNamed(name);
  if (policy === undefined) {
    const text = `${path}: of a machine with KVM's policy ${name}, which is not known`;
    throw new SnapshotError('machine-differs', text);
  }
  return { plan: { ramBytes, cpuCount }, mte, seed, policy };
}

/**
 * Loads the whole snapshot into a new machine of its shape (`machineOf`) and closes it. Throws
 * `SnapshotError`, and then nothing of it is loaded: every byte is checked before it is, and where
 * one is not right RAM is emptied again.
 */
export function restoreSnapshot(machine: Machine, file: SnapshotFile): void {
  try {
    prepare(machine, file);
    loadRam(machine, file);
    withState(file.path, () => applyState(machine, file.state));
  } finally {
    file.close();
  }
}

function loadRam(machine: Machine, file: SnapshotFile): void {
  const writer = new RamWriter(machine);
  try {
    for (const { chunk: number } of file.chunks) {
      const chunk = file.chunk(number);
      assert(chunk !== undefined, 'a chunk of the index is there');
      writer.write(number, chunk);
    }
  } catch (error) {
    writer.discard();
    throw error;
  } finally {
    writer.close();
  }
}

/**
 * The same at once, whatever the size: header, state and index have been checked, RAM is loaded and
 * checked when it is touched. The answer takes over the file. Throws `SnapshotError`.
 */
export function restoreSnapshotLazily(machine: Machine, file: SnapshotFile): LazyRam {
  try {
    prepare(machine, file);
    const ram = new LazyRam(machine, file);
    withState(file.path, () => applyState(machine, file.state));
    return ram;
  } catch (error) {
    file.close();
    throw error;
  }
}

function prepare(machine: Machine, file: SnapshotFile): void {
  assert(machine.isBlank, 'a machine that goes on has not booted');
  withState(file.path, () => checkSameMachine(describeMachine(machine), file.state));
}
