/**
 * A Debian guest with two CPUs runs the tag workload and is moved ten times in a row while it does,
 * over TCP, in each mode and with each way of carrying tags. Not one of its checks fails, and what
 * it prints in the end is what an undisturbed guest prints, which the model of the workload says.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { planBoot } from '../../src/vmm/boot.ts';
import { demoCommandLine, demoInitramfs, GUEST_SUCCESS } from '../../src/vmm/demo-initramfs.ts';
import {
  buildTagWorkload,
  TAG_WORKLOAD_LINE,
  tagWorkloadChecksum,
} from '../../src/vmm/guests/tag-workload.ts';
import type { MachineOptions, MachineOutcome } from '../../src/vmm/machine-options.ts';
import type { TcpAddress } from '../../src/vmm/migration/address.ts';
import type { MigrationMode } from '../../src/vmm/migration/source.ts';
import { TAG_POLICIES, type TagPolicy } from '../../src/vmm/migration/tag-policies.ts';
import { MachineSession } from '../../src/vmm/monitor/machine-session.ts';
import { processTime, runMachine } from '../../src/vmm/run-machine.ts';
import { debianGuest } from '../support/debian-guest.ts';

const HOPS = 10;
const BOARD = { ramBytes: 192 * 1024 * 1024, cpuCount: 2 };
/** Enough that the guest still works after the last hop, which the test checks. */
const ROUNDS = 120_000;
const LOOPBACK = { host: '127.0.0.1', port: 0 };

interface Running {
  readonly session: MachineSession;
  readonly outcome: Promise<MachineOutcome>;
  /** Where it waits for a guest. */
  readonly address: TcpAddress | undefined;
}

/** Starts a machine that boots `plan`, or waits for a guest; what it prints goes to `write`. */
function start(
  options: Pick<MachineOptions, 'plan' | 'backing'>,
  policy: TagPolicy,
  write: (text: string) => void,
): Promise<Running> {
  return new Promise((resolve, reject) => {
    const outcome = runMachine(
      {
        ...options,
        mte: true,
        seed: 1,
        realtime: false,
        onReset: 'exit',
        trace: new Set(),
        onTrace: () => {},
        attach: async (machine, control) => {
          const newId = (): string => randomBytes(16).toString('hex');
          const session = new MachineSession({ machine, control, time: processTime, newId });
          session.listen((event) => {
            if (event.kind !== 'migration' || event.side !== 'source') return;
            if (event.phase.kind === 'completed') control.leave('migrated');
          });
          const waits = !machine.canBoot;
          const tags = { policy };
          const incoming = waits ? await session.awaitGuest({ at: LOOPBACK, tags }) : undefined;
          // `runMachine` has returned its promise only when it has been left once.
          queueMicrotask(() => resolve({ session, outcome, address: incoming?.address }));
          return () => session.close();
        },
      },
      {
        write: (bytes) => write(new TextDecoder().decode(bytes)),
        onInput: () => () => {},
        setInputPaused: () => {},
        quit: new AbortController().signal,
      },
    );
    outcome.catch(reject);
  });
}

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
    const write = (text: string): void => {
      output += text;
    };
    let here = await start({ plan, backing }, policy, write);
    while (!output.includes('tag-workload: running')) await pause(20);
    for (let hop = 0; hop < HOPS; hop++) {
      await pause(30);
      expect(output, `still at work before hop ${hop}`).not.toContain(TAG_WORKLOAD_LINE);
      const there = await start({ plan: BOARD, backing }, policy, write);
      const migration = here.session.migrate({
        to: there.address!,
        mode,
        tags: { policy },
        downtimeLimitMs: 300,
      });
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
