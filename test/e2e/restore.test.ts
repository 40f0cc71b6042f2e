/** `granule run --restore`: a guest goes on, and what is refused, on the command line. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseKvmPolicy } from '../../src/kvm/index.ts';
import { RESTORE_MODES } from '../../src/vmm/machine-options.ts';
import { saveSnapshot } from '../../src/vmm/snapshot/save.ts';
import { granule } from '../support/granule-cli.ts';
import { runSlices, testMachine } from '../support/machines.ts';

const folder = mkdtempSync(join(tmpdir(), 'granule-e2e-restore-'));
afterAll(() => rmSync(folder, { recursive: true }));

const file = join(folder, 'saved');
const DONE = /^smp: done, [0-9a-f]{16}\n$/;

beforeAll(async () => {
  const { machine } = testMachine();
  runSlices(machine, 17);
  await saveSnapshot(machine, file);
});

const run = (...args: readonly string[]) => granule(['run', '--restore', ...args]);

describe('granule run --restore', () => {
  it.each(RESTORE_MODES)('--restore-mode %s: the guest goes on to its end', async (mode) => {
    const { status, output } = await run(file, '--restore-mode', mode);
    expect(output).toMatch(DONE);
    expect(status).toBe(0);
  });

  it('the machine as it is in the file, asked for again: the same', async () => {
    const same = ['-m', '8M', '--smp', '2', '--mte', 'on', '--seed', '7', '--policy', ''];
    const { status, output } = await run(file, ...same);
    expect(output).toMatch(DONE);
    expect(status).toBe(0);
  });

  it.each([
    ['-m', '16M', 'of a machine with -m 8 MiB, not 16 MiB'],
    ['--smp', '3', 'of a machine with --smp 2, not 3'],
    ['--mte', 'off', 'of a machine with --mte on, not off'],
    ['--seed', '8', 'of a machine with --seed 7, not 8'],
    ['--policy', 'linux=6.1', 'of a machine with --policy linux-6.12, not linux-6.1'],
  ])('%s %s, and the file is of another machine: refused', async (option, value, sentence) => {
    const { status, output, messages } = await run(file, option, value);
    expect(messages).toBe(`granule: ${file}: ${sentence}\n`);
    expect(output).toBe('');
    expect(status).toBe(2);
  });

  it.each(RESTORE_MODES)('--restore-mode %s: one wrong bit, one sentence alone', async (mode) => {
    const bytes = readFileSync(file);
    bytes[bytes.length >> 1] = bytes[bytes.length >> 1]! ^ 1;
    const bad = join(folder, 'bad');
    writeFileSync(bad, bytes);
    const { status, output, messages } = await run(bad, '--restore-mode', mode);
    expect(messages).toMatch(/^granule: \S+bad: .*checksum\n$/);
    expect(output).toBe('');
    expect(status).toBe(1);
  });

  it.each(['tagging=require-prot-mte', 'untaggable=no-tag-access,linux=6.1'])(
    'a machine of the policy %s: goes on with it',
    async (policy) => {
      const { machine } = testMachine({ policy: parseKvmPolicy(policy) });
      runSlices(machine, 5);
      const other = join(folder, 'other');
      await saveSnapshot(machine, other);
      const { status, output } = await run(other, '--policy', policy);
      expect(output).toMatch(DONE);
      expect(status).toBe(0);
    },
  );
});
