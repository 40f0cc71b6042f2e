/**
 * Runs that go on from a snapshot: nobody sees anything of a guest whose snapshot is not sound,
 * however far it has come by then.
 */
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runSlices, testMachine } from '../../../test/support/machines.ts';
import { ipa, MIB } from '../../base/index.ts';
import { RAM_BASE } from '../board.ts';
import {
  type Attach,
  type MachineOutcome,
  RESTORE_MODES,
  type RestoreMode,
} from '../machine-options.ts';
import { runMachine } from '../run-machine.ts';
import { restoring } from './attach.ts';
import { machineOf } from './restore.ts';
import { saveSnapshot } from './save.ts';
import { SnapshotError } from './snapshot-error.ts';
import { openSnapshot } from './snapshot-file.ts';

const directory = mkdtempSync(join(tmpdir(), 'granule-attach-'));
afterAll(() => rmSync(directory, { recursive: true }));

const good = join(directory, 'good');
/** What the guest says after the snapshot; how often its CPUs waited depends on their turns. */
const REST = /^smp: done, 001e[0-9a-f]{12}\n$/;

beforeAll(async () => {
  const { machine } = testMachine();
  runSlices(machine, 17);
  // The last chunk, which the guest does not touch.
  machine.memory.write(ipa(RAM_BASE + 7 * MIB), Uint8Array.of(1));
  await saveSnapshot(machine, good);
});

interface Run {
  readonly outcome: Promise<MachineOutcome>;
  readonly output: () => string;
  readonly quit: () => void;
}

function start(path: string, mode: RestoreMode, also: Attach = async () => async () => {}): Run {
  const file = openSnapshot(path);
  const quit = new AbortController();
  let output = '';
  const outcome = runMachine(
    {
      ...machineOf(file),
      realtime: false,
      onReset: 'exit',
      trace: new Set(),
      onTrace: () => {},
      attach: async (machine, control) => {
        const detach = await restoring(file, mode)(machine, control);
        const detachAlso = await also(machine, control);
        return async () => {
          await detachAlso();
          await detach();
        };
      },
    },
    {
      write: (bytes) => {
        output += Buffer.from(bytes).toString('latin1');
      },
      onInput: () => () => {},
      setInputPaused: () => {},
      quit: quit.signal,
    },
  );
  return { outcome, output: () => output, quit: () => quit.abort() };
}

/** The good snapshot with one bit of a chunk changed. */
function corrupted(which: number): string {
  const path = join(directory, 'bad');
  const bytes = readFileSync(good);
  const file = openSnapshot(good);
  const { offset, storedBytes } = file.chunks.at(which)!;
  file.close();
  const at = offset + Math.floor(storedBytes / 2);
  bytes[at] = bytes[at]! ^ 0x10;
  writeFileSync(path, bytes);
  return path;
}

describe('restoring', () => {
  it.each(RESTORE_MODES)('restoring: %s, the rest of the output', async (mode) => {
    const run = start(good, mode);
    expect((await run.outcome).reason).toBe('power-off');
    expect(run.output()).toMatch(REST);
  });

  it.each([
    ['eager', 'touched', 0],
    ['eager', 'untouched', -1],
    ['lazy', 'touched', 0],
    ['lazy', 'untouched', -1],
  ] as const)('restoring: %s, a chunk %s corrupted, refused unseen', async (mode, _, which) => {
    const run = start(corrupted(which), mode);
    await expect(run.outcome).rejects.toThrow(/bad: RAM at 0x[0-9a-f]+ .* has a wrong checksum/);
    expect(run.output()).toBe('');
  });

  it('restoring: cut after it was opened, refused unseen', async () => {
    const path = join(directory, 'cut');
    writeFileSync(path, readFileSync(good));
    const run = start(path, 'lazy');
    truncateSync(path, 1000);
    await expect(run.outcome).rejects.toThrow(SnapshotError);
    expect(run.output()).toBe('');
  });

  it('restoring: the guest has ended and is not known to be sound, its end waits', async () => {
    let show = (): void => {};
    const run = start(good, 'lazy', async (_, control) => {
      show = control.withhold();
      return async () => {};
    });
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(run.output()).toBe('');
    show();
    expect((await run.outcome).reason).toBe('power-off');
    expect(run.output()).toMatch(REST);
  });

  it('restoring: left before the file is checked, ends quietly and unseen', async () => {
    const run = start(good, 'lazy');
    run.quit();
    expect((await run.outcome).reason).toBe('quit');
    expect(run.output()).toBe('');
  });
});
