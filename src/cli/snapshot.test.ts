/**
 * `granule snapshot`: what is asked for, what is printed, and a save over a real control socket.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { Command as Commander } from 'commander';
import { afterAll, describe, expect, it } from 'vitest';
import { runSlices, testMachine } from '../../test/support/machines.ts';
import { MachineError } from '../vmm/machine-error.ts';
import { MachineSession } from '../vmm/monitor/machine-session.ts';
import { RunControl } from '../vmm/monitor/run-control.ts';
import { MonitorServer } from '../vmm/monitor/server.ts';
import { processTime } from '../vmm/run-machine.ts';
import { machineOf, restoreSnapshot } from '../vmm/snapshot/restore.ts';
import { saveSnapshot } from '../vmm/snapshot/save.ts';
import { SnapshotError } from '../vmm/snapshot/snapshot-error.ts';
import { openSnapshot } from '../vmm/snapshot/snapshot-file.ts';
import { hashMachine } from '../vmm/state-hash.ts';
import { runSnapshotCommand, type SnapshotOptions, snapshotCommand } from './snapshot.ts';

const directory = mkdtempSync(join(tmpdir(), 'granule-cli-snapshot-'));
afterAll(() => rmSync(directory, { recursive: true }));

function parse(line: string): SnapshotOptions | undefined {
  let options: SnapshotOptions | undefined;
  const program = new Commander().exitOverride().configureOutput({ writeErr: () => {} });
  snapshotCommand(program, (found) => {
    options = found;
  });
  program.parse(
    line.split(' ').map((word) => (word === '""' ? '' : word)),
    { from: 'user' },
  );
  return options;
}

async function run(options: SnapshotOptions): Promise<string> {
  const stdout = new PassThrough();
  expect(await runSnapshotCommand(options, { stdout })).toBe(0);
  return String(stdout.read());
}

describe('granule snapshot', () => {
  it('snapshotCommand: info and save, as values', () => {
    expect(parse('snapshot info f')).toEqual({ action: 'info', file: 'f' });
    const save = { action: 'save', socket: 's', file: 'f', compress: 'lz4' };
    expect(parse('snapshot save s f')).toEqual(save);
    expect(parse('snapshot save s f --compress none')).toEqual({ ...save, compress: 'none' });
  });

  it.each([
    ['snapshot info', 'missing required argument'],
    ['snapshot save s', 'missing required argument'],
    ['snapshot save s f --compress zip', '--compress zip: not one of none, lz4'],
    ['snapshot info ""', 'the file name is empty'],
    ['snapshot save s ""', 'the file name is empty'],
    ['snapshot load f', "unknown command 'load'"],
  ])('snapshotCommand: %s, refused', (line, sentence) => {
    expect(() => parse(line)).toThrow(sentence);
  });

  it('info: what is in a file', async () => {
    const file = join(directory, 'info');
    await saveSnapshot(testMachine().machine, file);
    const text = await run({ action: 'info', file });
    expect(text.split('\n')[0]).toBe(file);
    expect(text).toMatch(/RAM +8 MiB/);
    expect(text).toMatch(/CPUs +2, 1 of them off/);
  });

  it('info: no such file, one sentence', async () => {
    const file = join(directory, 'nothing');
    await expect(run({ action: 'info', file })).rejects.toThrow(
      new SnapshotError('file-missing', `${file}: no such file`),
    );
  });

  it('save: over the control socket of a machine, which can be restored', async () => {
    const { machine } = testMachine();
    runSlices(machine, 9);
    const newId = (): string => '0123456789abcdef0123456789abcdef';
    const control = new RunControl();
    const session = new MachineSession({ machine, control, time: processTime, newId });
    const socket = join(directory, 'monitor');
    const server = await MonitorServer.listen(
      { path: socket, version: '0.1.0', seconds: () => 0 },
      session,
    );
    try {
      const path = join(directory, 'saved');
      const text = await run({ action: 'save', socket, file: path, compress: 'lz4' });
      const file = openSnapshot(path);
      expect(text).toBe(`${path}: ${file.fileBytes.toLocaleString('en-US')} bytes\n`);
      const target = testMachine(machineOf(file)).machine;
      restoreSnapshot(target, file);
      expect(hashMachine(target)).toBe(hashMachine(machine));

      const nowhere = join(directory, 'no', 'folder');
      const refused = run({ action: 'save', socket, file: nowhere, compress: 'lz4' });
      await expect(refused).rejects.toThrow(`${nowhere}: cannot be written (ENOENT)`);
      expect(existsSync(nowhere)).toBe(false);
    } finally {
      await session.close();
      await server.close();
    }
  });

  it('save: nobody at the socket, one sentence', async () => {
    const options = { action: 'save', socket: join(directory, 'no'), file: 'f' } as const;
    await expect(run({ ...options, compress: 'none' })).rejects.toThrow(MachineError);
  });
});
