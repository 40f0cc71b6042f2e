/**
 * One simulated migration under a seed: two machines, links that fail, and what must hold. Used by
 * the simulation's tests and to replay a seed that failed.
 */

import { MigrationDestination } from '../../src/vmm/migration/destination.ts';
import type { Link } from '../../src/vmm/migration/link.ts';
import { MigrationError } from '../../src/vmm/migration/migration-error.ts';
import type {
  DestinationPhase,
  MigrationEvent,
  SourcePhase,
} from '../../src/vmm/migration/progress.ts';
import {
  type MigrationMode,
  MigrationSource,
  type SourceOptions,
  type SourceOutcome,
} from '../../src/vmm/migration/source.ts';
import { TAG_POLICIES, type TagPolicy } from '../../src/vmm/migration/tag-policies.ts';
import { type Fault, faultyLinkPair, type LinkOptions } from './faulty-link.ts';
import { GuestMemoryModel, SimMachine } from './sim-machine.ts';
import { SimWorld } from './world.ts';

export interface SimOptions {
  readonly seed: number;
  readonly mode?: MigrationMode;
  readonly policy?: TagPolicy;
  /** How the source is to go about it; what is absent is chosen by the seed. */
  readonly how?: Partial<
    Pick<SourceOptions, 'autoConverge' | 'postCopyAfterRounds' | 'bandwidthMax' | 'downtimeLimitMs'>
  >;
  /** When `startPostCopy` is called in the first attempt. */
  readonly startPostCopyAtMs?: number;
  /** Sees the source of each attempt before it begins. */
  readonly onSource?: (source: MigrationSource) => void;
  readonly onSourceEvent?: (event: MigrationEvent<SourcePhase>, sim: SimParts) => void;
  /** Who takes the nth link; undefined: the destination. */
  readonly targetOf?: (link: number) => MigrationDestination | undefined;
  /** Whether nobody answers the nth link. */
  readonly isUnreachable?: (link: number) => boolean;
  /** The fault of the nth link that is made; absent: chosen by the seed. */
  readonly faultOf?: (link: number) => Fault | undefined;
  readonly cancelAtMs?: number;
  /** See `SimMachineOptions`; absent: as the seed says. */
  readonly slowStopMs?: number;
  readonly slowDiskMs?: number;
  /** Attempts after which it is enough that the guest is well; absent: until it has moved. */
  readonly attemptsMax?: number;
  readonly tap?: LinkOptions['tap'];
  readonly pages?: number;
  /** Hears of each phase that either side enters. */
  readonly onPhase?: (line: string) => void;
}

/** What a test may have its hands on while a simulation runs. */
export interface SimParts {
  readonly world: SimWorld;
  readonly migration: MigrationSource;
  readonly source: SimMachine;
  readonly destination: SimMachine;
  readonly target: MigrationDestination;
}

export interface SimResult {
  readonly outcomes: readonly SourceOutcome[];
  readonly links: number;
  /** Sends over all links, both directions. */
  readonly sends: number;
  readonly source: SimMachine;
  readonly destination: SimMachine;
  readonly world: SimWorld;
}

/** Runs a migration to its end and checks the guest; throws where something does not hold. */
export async function simulateMigration(options: SimOptions): Promise<SimResult> {
  const { seed } = options;
  const world = new SimWorld(seed);
  const { prng } = world;
  const mode = options.mode ?? (prng.chance(1, 2) ? 'precopy' : 'postcopy');
  const policy = options.policy ?? TAG_POLICIES[prng.below(TAG_POLICIES.length)]!;
  const pages = options.pages ?? 8 + prng.below(120);
  const model = new GuestMemoryModel(pages);
  const { slowDiskMs = prng.chance(1, 3) ? world.between(0, 20) : 0 } = options;
  const machine = (): SimMachine =>
    new SimMachine(world, {
      pages,
      model,
      memfd: policy === 'dual-mapping' || prng.chance(1, 4),
      slowStopMs: options.slowStopMs ?? (prng.chance(1, 3) ? world.between(0, 400) : 0),
      slowDiskMs,
    });
  const source = machine();
  const destination = machine();
  destination.held = true;
  world.check = () => {
    if (source.mayRun && destination.mayRun) throw new Error('two copies of the guest run');
    if (target.phase.kind === 'paused' && destination.mayRun) {
      throw new Error('the guest runs while its memory cannot be reached');
    }
  };

  const tags = { policy, pagesPerCall: prng.chance(1, 3) ? 1 : 64 };
  const note = (side: string, { kind }: SourcePhase | DestinationPhase): void =>
    options.onPhase?.(`${world.nowMs.toFixed(1)} ms: ${side} ${kind}`);
  const target: MigrationDestination = new MigrationDestination(
    destination,
    { tags },
    {
      time: world.time,
      onEvent: (event) => {
        if (event.kind === 'phase') note('destination', event.phase);
      },
    },
  );
  const faultOf = options.faultOf ?? randomFaults(world);
  const counters: (() => number)[] = [];
  let served: Promise<unknown> = Promise.resolve();
  const connect = async (): Promise<Link> => {
    const index = counters.length;
    const fault = faultOf(index);
    const { near, far, sends } = faultyLinkPair(world, {
      latencyMs: prng.chance(1, 5) ? world.between(0, 50) : 0.05,
      bytesPerMs: prng.chance(1, 4) ? 8_000 : 200_000,
      ...(fault === undefined ? {} : { fault }),
      ...(options.tap === undefined ? {} : { tap: options.tap }),
    });
    counters.push(sends);
    const nobody = prng.chance(1, 12) && options.faultOf === undefined;
    if (nobody || options.isUnreachable?.(index) === true) {
      throw new MigrationError('link', 'nobody listens');
    }
    served = (options.targetOf?.(index) ?? target).serve(far).catch((error) => world.fail(error));
    return near;
  };

  const outcomes: SourceOutcome[] = [];
  const work = (async () => {
    await pause(world, world.between(0, 30));
    for (let attempt = 0; attempt < (options.attemptsMax ?? 40); attempt++) {
      const migration: MigrationSource = new MigrationSource(
        source,
        {
          mode,
          tags,
          downtimeLimitMs: 80 + prng.below(200),
          ...(options.how ?? randomWay(world)),
          session: attempt.toString(16).padStart(32, '0'),
        },
        {
          time: world.time,
          connect,
          onEvent: (event) => {
            if (event.kind === 'phase') note('source', event.phase);
            options.onSourceEvent?.(event, { world, migration, source, destination, target });
          },
        },
      );
      const { cancelAtMs = randomCancel(world, options) } = options;
      if (cancelAtMs !== undefined && attempt === 0) {
        world.after(cancelAtMs, () => migration.cancel());
      }
      if (options.startPostCopyAtMs !== undefined && attempt === 0) {
        world.after(options.startPostCopyAtMs, () => migration.startPostCopy());
      }
      options.onSource?.(migration);
      const outcome = await migration.run();
      outcomes.push(outcome);
      if (outcome.kind === 'completed') break;
      if (!source.mayRun) throw new Error(`the source stands still after '${outcome.kind}'`);
      if (destination.mayRun) throw new Error(`the destination runs after '${outcome.kind}'`);
      await pause(world, world.between(0, 20));
    }
    await served;
    // The guest goes on for a while where it is now.
    await pause(world, 20);
    const moved = outcomes.at(-1)?.kind === 'completed';
    if (!moved && options.attemptsMax === undefined) throw new Error('the guest never moves');
    const home = moved ? destination : source;
    if (!home.mayRun) throw new Error('the guest stands still in the end');
    home.held = true;
    home.verify();
    home.held = false;
  })();
  await world.run(work);
  const sends = counters.reduce((sum, count) => sum + count(), 0);
  return { outcomes, links: counters.length, sends, source, destination, world };
}

const pause = (world: SimWorld, ms: number): Promise<void> =>
  new Promise((resolve) => void world.after(ms, resolve));

/** A way that comes to an end: who limits the bandwidth says what to do about it. */
function randomWay({ prng }: SimWorld): NonNullable<SimOptions['how']> {
  const bandwidthMax = 200_000 + prng.below(800_000);
  switch (prng.below(6)) {
    case 0:
      return { autoConverge: true, bandwidthMax };
    case 1:
      return { postCopyAfterRounds: 1 + prng.below(3), bandwidthMax };
    case 2:
      return { autoConverge: true, postCopyAfterRounds: 1 + prng.below(20), bandwidthMax };
    default:
      return {};
  }
}

/** Where nothing was said about faults, some first attempts are cancelled at any time. */
const randomCancel = (world: SimWorld, { faultOf }: SimOptions): number | undefined =>
  faultOf === undefined && world.prng.chance(1, 3) ? world.between(0, 400) : undefined;

/** Most of the first links fail somewhere, later ones hold: what is broken heals in the end. */
function randomFaults(world: SimWorld): (link: number) => Fault | undefined {
  const { prng } = world;
  return (link) => {
    if (link > 6 || prng.chance(1, 4)) return undefined;
    const atSend = prng.below(prng.chance(1, 2) ? 14 : 80);
    switch (prng.below(4)) {
      case 0:
        return { kind: 'silence', atSend };
      case 1:
        return { kind: 'change', atSend, byte: prng.below(1 << 20), xor: 1 + prng.below(255) };
      default:
        return { kind: 'cut', atSend, partly: prng.chance(1, 2) };
    }
  };
}
