/**
 * Machines that a program starts: run to their end, saved and restored, moved within the process.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { SMALL_RAM_BYTES, smpGuestPlan } from '../../test/support/machines.ts';
import { planBoot } from './boot.ts';
import {
  buildBareTagWorkload,
  TAG_WORKLOAD_LINE,
  tagWorkloadChecksum,
} from './guests/tag-workload.ts';
import { memoryLinkPair } from './migration/link.ts';
import type { SessionEvent } from './monitor/machine-session.ts';
import { type RunningMachine, type StartOptions, startMachine } from './start-machine.ts';

const folder = mkdtempSync(join(tmpdir(), 'granule-start-'));
afterAll(() => rmSync(folder, { recursive: true }));

const BOARD = { ramBytes: SMALL_RAM_BYTES, cpuCount: 2 };
const DONE = /smp: done, 001e[0-9a-f]{12}\n$/;

/** Work for a move, and what it prints in the end. */
const ROUNDS = 30_000;
const checksum = `${TAG_WORKLOAD_LINE}${tagWorkloadChecksum({ rounds: ROUNDS, cpuCount: 2 })}\n`;

function workload() {
  const kernel = { name: 'the workload', bytes: buildBareTagWorkload({ rounds: ROUNDS }).bytes };
  return planBoot({ kernel, cmdline: '', ...BOARD, seed: 1 });
}

async function start(
  options: StartOptions,
): Promise<RunningMachine & { readonly output: () => string }> {
  let output = '';
  const onOutput = (bytes: Uint8Array): void => {
    output += Buffer.from(bytes).toString('latin1');
  };
  return { ...(await startMachine({ ...options, onOutput })), output: () => output };
}

describe('startMachine', () => {
  it('startMachine: a plan, runs to its end', async () => {
    const { outcome, output } = await start({ plan: smpGuestPlan(), seed: 7 });
    expect((await outcome).reason).toBe('power-off');
    expect(output()).toMatch(DONE);
  });

  it('startMachine: saved, and gone on from', async () => {
    const path = join(folder, 'saved');
    const first = await start({ plan: workload() });
    await first.session.saveSnapshot(path);
    first.quit();
    expect((await first.outcome).reason).toBe('quit');
    for (const restoreMode of ['lazy', 'eager'] as const) {
      const second = await start({ restore: path, restoreMode });
      expect((await second.outcome).reason).toBe('power-off');
      expect(second.output()).toContain(checksum);
    }
  });

  it('startMachine: no such snapshot, rejects', async () => {
    const restore = join(folder, 'none');
    await expect(startMachine({ restore })).rejects.toThrow(`${restore}: no such file`);
  });

  it('startMachine: only a board, waits for its guest', async () => {
    const { session, outcome, quit } = await start({ plan: BOARD });
    expect(session.control.state).toBe('inmigrate');
    quit();
    expect((await outcome).statistics.instructionCount).toBe(0n);
  });

  it.each([
    ['precopy', 'ioctl', 'anonymous'],
    ['precopy', 'dirty-log', 'anonymous'],
    ['postcopy', 'dual-mapping', 'memfd'],
  ] as const)('migrate: within the process, %s with tags %s', async (mode, policy, backing) => {
    const tags = { policy };
    const here = await start({ plan: workload(), backing });
    const there = await start({ plan: BOARD, backing });
    const events: SessionEvent[] = [];
    here.session.listen((event) => events.push(event));
    there.session.listen((event) => events.push(event));
    const incoming = await there.session.awaitGuest({ tags });
    const to = () => incoming.connect();
    const migration = here.session.migrate({ to, mode, tags, downtimeLimitMs: 300 });
    expect(await migration.outcome).toEqual({ kind: 'completed' });
    expect((await here.outcome).reason).toBe('migrated');
    expect((await there.outcome).reason).toBe('power-off');
    expect(here.output() + there.output()).toContain(checksum);
    expect(there.output()).toContain(checksum);
    const progress = events.flatMap((event) => (event.kind === 'progress' ? [event] : []));
    const sent = progress.flatMap((event) => (event.side === 'source' ? [event.statistics] : []));
    expect(sent.at(-1)?.pages).toBeGreaterThan(0);
    expect(sent.at(-1)?.tagBytes).toBeGreaterThan(0);
    const got = progress.flatMap((event) => (event.side === 'source' ? [] : [event.receivedPages]));
    expect(got).toEqual([...got].sort((a, b) => a - b));
    expect(got.at(-1)).toBe(sent.at(-1)?.pages);
  });

  it('migrate: nobody at the other end, the guest goes on', async () => {
    const { session, outcome, output } = await start({ plan: workload() });
    const to = async () => {
      const [near, far] = memoryLinkPair();
      far.close();
      return near;
    };
    const tags = { policy: 'ioctl' } as const;
    const migration = session.migrate({ to, mode: 'precopy', tags, downtimeLimitMs: 300 });
    expect((await migration.outcome).kind).toBe('failed');
    expect((await outcome).reason).toBe('power-off');
    expect(output()).toContain(checksum);
  });
});
