/**
 * A Debian guest with two CPUs runs the tag workload and is moved ten times in a row while it does,
 * over TCP, in each mode and with each way of carrying tags. Not one of its checks fails, and what
 * it prints in the end is what an undisturbed guest prints, which the model of the workload says.
 */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { planBoot } from '../../src/vmm/boot.ts';
import { demoCommandLine, demoInitramfs, GUEST_SUCCESS } from '../../src/vmm/demo-initramfs.ts';
import {
  buildTagWorkload,
  TAG_WORKLOAD_LINE,
  tagWorkloadChecksum,
} from '../../src/vmm/guests/tag-workload.ts';
import type { MigrationMode } from '../../src/vmm/migration/source.ts';
import { TAG_POLICIES, type TagPolicy } from '../../src/vmm/migration/tag-policies.ts';
import { startMachine } from '../../src/vmm/start-machine.ts';
import { debianGuest } from '../support/debian-guest.ts';

const HOPS = 10;
const BOARD = { ramBytes: 192 * 1024 * 1024, cpuCount: 2 };
/** Enough that the guest still works after the last hop, which the test checks. */
const ROUNDS = 120_000;
const LOOPBACK = { host: '127.0.0.1', port: 0 };

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const cases = (['precopy', 'postcopy'] as const).flatMap((mode) =>
  TAG_POLICIES.map((policy): [MigrationMode, TagPolicy] => [mode, policy]),
);

it.for(cases)(
  'Debian, moved ten times by %s with tags %s: right to the end',
  async (given, context) => {
    const [mode, policy] = given;
    const files = await debianGuest(context);
    const plan = planBoot({
      kernel: { path: files.kernelPath },
      initrd: {
        name: 'the workload initrd',
        bytes: demoInitramfs({
          busybox: readFileSync(files.busyboxPath),
          mteTest: buildTagWorkload({ rounds: ROUNDS }),
        }),
      },
      cmdline: demoCommandLine({ mte: true, cpuCount: BOARD.cpuCount }),
      ...BOARD,
      seed: 1,
    });
    const backing = policy === 'dual-mapping' ? 'memfd' : 'anonymous';
    let output = '';
    const onOutput = (bytes: Uint8Array): void => {
      output += new TextDecoder().decode(bytes);
    };
    const common = { backing, onReset: 'exit', onOutput } as const;
    const tags = { policy };
    let here = await startMachine({ plan, ...common });
    while (!output.includes('tag-workload: running')) await pause(20);
    for (let hop = 0; hop < HOPS; hop++) {
      await pause(30);
      expect(output, `still at work before hop ${hop}`).not.toContain(TAG_WORKLOAD_LINE);
      const there = await startMachine({ plan: BOARD, ...common });
      const { address } = await there.session.awaitGuest({ at: LOOPBACK, tags });
      const to = address!;
      const migration = here.session.migrate({ to, mode, tags, downtimeLimitMs: 300 });
      expect(await migration.outcome, `hop ${hop}`).toEqual({ kind: 'completed' });
      expect((await here.outcome).reason).toBe('migrated');
      here = there;
    }
    expect(output, 'still at work after the last hop').not.toContain(TAG_WORKLOAD_LINE);
    expect((await here.outcome).reason).toBe('power-off');
    const checksum = tagWorkloadChecksum({ rounds: ROUNDS, cpuCount: BOARD.cpuCount });
    expect(output).toContain(`${TAG_WORKLOAD_LINE}${checksum}`);
    expect(output).not.toContain('FAILED');
    expect(output).toContain(GUEST_SUCCESS);
  },
);
