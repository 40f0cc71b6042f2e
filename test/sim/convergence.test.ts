/**
 * Pre-copy of guests that write faster than the link carries: held back they converge, left alone
 * they never do and say why, and by a switch to post-copy they move at once. A simulated guest that
 * checks each load, and real machines whose end must be that of an undisturbed run, both in virtual
 * time.
 */
import { describe, expect, it } from 'vitest';
import { planBoot } from '../../src/vmm/boot.ts';
import {
  buildBareTagWorkload,
  TAG_WORKLOAD_LINE,
  tagWorkloadChecksum,
} from '../../src/vmm/guests/tag-workload.ts';
import { MigrationDestination } from '../../src/vmm/migration/destination.ts';
import { type Link, memoryLinkPair } from '../../src/vmm/migration/link.ts';
import { MachinePort } from '../../src/vmm/migration/machine-port.ts';
import {
  MigrationSource,
  type SourceOptions,
  type SourceOutcome,
} from '../../src/vmm/migration/source.ts';
import { TAG_POLICIES } from '../../src/vmm/migration/tag-policies.ts';
import { RunControl } from '../../src/vmm/monitor/run-control.ts';
import { SLICE, SMALL_RAM_BYTES, testMachine } from '../support/machines.ts';
import { type SimOptions, simulateMigration } from './migration-run.ts';
import { SimWorld } from './world.ts';

/** A quarter of the memory is written all the time, and that takes three times the limit. */
const TOO_FAST = {
  pages: 64,
  faultOf: () => undefined,
  mode: 'precopy',
  slowStopMs: 0,
  slowDiskMs: 0,
} as const;
const SLOW_LINK = { bandwidthMax: 250_000, downtimeLimitMs: 80 } as const;

interface Watched {
  readonly phases: string[];
  readonly percents: number[];
  source: MigrationSource | undefined;
}

async function watch(options: SimOptions) {
  const watched: Watched = { phases: [], percents: [], source: undefined };
  const result = await simulateMigration({
    ...options,
    onSource: (source) => {
      watched.source = source;
    },
    onSourceEvent: ({ phase }) => {
      if (watched.phases.at(-1) !== phase.kind) watched.phases.push(phase.kind);
      if (phase.kind === 'pre-copy') watched.percents.push(phase.throttlePercent);
    },
  });
  return { ...result, ...watched, statistics: watched.source!.statistics };
}

describe.each(TAG_POLICIES)('a guest that writes too fast, tags %s', (policy) => {
  const base = { ...TOO_FAST, policy, seed: 5 };

  it('auto-converge: held back in steps from 20 % on, it moves by pre-copy alone', async () => {
    const { outcomes, phases, percents, statistics } = await watch({
      ...base,
      how: { ...SLOW_LINK, autoConverge: true },
    });
    expect(outcomes).toEqual([{ kind: 'completed' }]);
    expect(phases).toEqual([
      'connecting',
      'pre-copy',
      'stop-and-copy',
      'handing-over',
      'completed',
    ]);
    const steps = [...new Set(percents)];
    expect(steps).toEqual([0, 20, 30, 40, 50, 60, 70, 80, 90, 99].slice(0, steps.length));
    expect(steps.length).toBeGreaterThan(2);
    expect(statistics.throttlePercent).toBe(steps.at(-1));
    expect(statistics.expectedDowntimeMs).toBeLessThanOrEqual(SLOW_LINK.downtimeLimitMs);
  });

  it('pre-copy: left alone it never ends, the expected downtime says so, it can be cancelled', async () => {
    const { outcomes, statistics, source, percents } = await watch({
      ...base,
      how: SLOW_LINK,
      cancelAtMs: 20_000,
      attemptsMax: 1,
    });
    expect(outcomes).toEqual([{ kind: 'cancelled' }]);
    expect(statistics.rounds).toBeGreaterThan(10);
    expect(statistics.expectedDowntimeMs).toBeGreaterThan(SLOW_LINK.downtimeLimitMs);
    expect(new Set(percents)).toEqual(new Set([0]));
    expect(source).toBeDefined();
  });

  it.each([
    ['after two rounds', { how: { ...SLOW_LINK, postCopyAfterRounds: 2 } }, 2],
    ['when told to', { how: SLOW_LINK, startPostCopyAtMs: 1500 }, undefined],
    ['when told to at once', { how: SLOW_LINK, startPostCopyAtMs: 0 }, 1],
  ])('switch to post-copy: %s, it moves', async (_, options, rounds) => {
    const { outcomes, phases, statistics } = await watch({ ...base, ...options });
    expect(outcomes).toEqual([{ kind: 'completed' }]);
    expect(phases).toEqual([
      'connecting',
      'pre-copy',
      'stop-and-copy',
      'handing-over',
      'post-copy',
      'completed',
    ]);
    if (rounds !== undefined) expect(statistics.rounds).toBe(rounds);
    expect(statistics.downtimeMs).toBeLessThan(100);
  });
});

it('switch to post-copy: the link cut at every message, the guest moves all the same', async () => {
  const base: SimOptions = {
    seed: 17,
    mode: 'precopy',
    pages: 12,
    how: { postCopyAfterRounds: 1, bandwidthMax: 500_000, downtimeLimitMs: 0 },
  };
  const { sends } = await simulateMigration({ ...base, faultOf: () => undefined });
  for (let atSend = 0; atSend < sends; atSend++) {
    const { outcomes } = await simulateMigration({
      ...base,
      faultOf: (link) =>
        link === 0 ? { kind: 'cut', atSend, partly: atSend % 2 === 1 } : undefined,
    });
    expect(outcomes.at(-1), `cut at message ${atSend}`).toEqual({ kind: 'completed' });
  }
});

// ---- real machines, in virtual time -------------------------------------------------------------

/** So many instructions a virtual millisecond, and a link that carries 500 kB in a second. */
const ROUNDS = 30_000;
const LINK = { bandwidthMax: 500_000 } as const;
const CHECKSUM = tagWorkloadChecksum({ rounds: ROUNDS, cpuCount: 2 });

const BOARD = { ramBytes: SMALL_RAM_BYTES, cpuCount: 2 };
const PLAN = planBoot({
  kernel: { name: 'the workload', bytes: buildBareTagWorkload({ rounds: ROUNDS }).bytes },
  cmdline: '',
  seed: 7,
  ...BOARD,
});

/** A machine that runs a slice each virtual millisecond while it may. */
class Living {
  readonly control = new RunControl();
  readonly port: MachinePort;
  readonly #test: ReturnType<typeof testMachine>;
  poweredOff = false;

  constructor(world: SimWorld, kind: 'boots' | 'waits', backing: 'anonymous' | 'memfd') {
    this.#test = testMachine({ backing, plan: kind === 'waits' ? BOARD : PLAN });
    this.port = new MachinePort(this.machine, {
      control: this.control,
      guestId: '0'.repeat(32),
    });
    if (kind === 'waits') void this.port.hold();
    const live = (): void => {
      if (this.control.mayRun && !this.poweredOff) this.#runSlice();
      world.after(1, live);
    };
    live();
  }

  get machine() {
    return this.#test.machine;
  }

  get output(): string {
    return this.#test.output();
  }

  runToEnd(): void {
    for (let slices = 0; !this.poweredOff; slices++) {
      if (slices > 100_000) throw new Error('the guest has no end');
      this.#runSlice();
    }
  }

  #runSlice(): void {
    this.poweredOff = this.machine.runSlice(SLICE) === 'power-off';
  }
}

describe.each(TAG_POLICIES)('a real machine behind a slow link, tags %s', (policy) => {
  /** Moves the guest in the middle of its work; how it ended and where it is. */
  async function move(how: Partial<SourceOptions>, cancelAtMs?: number) {
    const world = new SimWorld(3);
    const backing = policy === 'dual-mapping' ? 'memfd' : 'anonymous';
    const from = new Living(world, 'boots', backing);
    const to = new Living(world, 'waits', backing);
    const tags = { policy };
    const target = new MigrationDestination(to.port, { tags }, { time: world.time });
    const connect = async (): Promise<Link> => {
      const [near, far] = memoryLinkPair();
      void target.serve(far).catch((error) => world.fail(error));
      return near;
    };
    const session = '1'.repeat(32);
    const options = { mode: 'precopy', tags, downtimeLimitMs: 50, session, ...how } as const;
    const source = new MigrationSource(from.port, options, { time: world.time, connect });
    const outcome = await world.run(
      new Promise<SourceOutcome>((resolve) => {
        world.after(30, () => void source.run().then(resolve));
        if (cancelAtMs !== undefined) world.after(cancelAtMs, () => source.cancel());
      }),
    );
    const home = outcome.kind === 'completed' ? to : from;
    const stillBusy = !home.poweredOff;
    home.runToEnd();
    return { outcome, statistics: source.statistics, stillBusy, text: from.output + to.output };
  }

  const done = expect.stringContaining(`${TAG_WORKLOAD_LINE}${CHECKSUM}\n`);

  it.each([
    ['auto-converge', { autoConverge: true }],
    ['switch to post-copy', { postCopyAfterRounds: 2 }],
  ])('%s: it moves in the middle of its work, its checksum is right', async (_, how) => {
    const { outcome, stillBusy, text, statistics } = await move({ ...how, ...LINK });
    expect(outcome).toEqual({ kind: 'completed' });
    expect(stillBusy).toBe(true);
    expect(text).toEqual(done);
    expect(statistics.throttlePercent > 0).toBe('autoConverge' in how);
  });

  it('pre-copy: neither, it stays until it is cancelled, its checksum is right', async () => {
    const { outcome, text, statistics } = await move(LINK, 3_000);
    expect(outcome).toEqual({ kind: 'cancelled' });
    expect(statistics.expectedDowntimeMs).toBeGreaterThan(50);
    expect(text).toEqual(done);
  });
});
