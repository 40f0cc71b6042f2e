/**
 * Migration of real machines, CPUs and all, between hosts in one process: a guest that is moved in
 * the middle of its work, again and again, prints what it prints when it is left alone.
 */
import { describe, expect, it } from 'vitest';
import {
  instructionsOf,
  runToEnd,
  SLICE,
  SMALL_RAM_BYTES,
  tagsOf,
  testMachine,
} from '../../../test/support/machines.ts';
import type { Machine } from '../machine.ts';
import { RunControl } from '../monitor/run-control.ts';
import { processTime } from '../run-machine.ts';
import { Channel } from './channel.ts';
import { MigrationDestination } from './destination.ts';
import { type Link, memoryLinkPair } from './link.ts';
import { MachinePort } from './machine-port.ts';
import { PROTOCOL_VERSION, PROTOCOL_VERSION_MIN } from './messages.ts';
import type { MigrationError } from './migration-error.ts';
import type { DestinationPhase, MigrationEvent } from './progress.ts';
import { type MigrationMode, MigrationSource, type SourceOutcome } from './source.ts';
import { TAG_POLICIES } from './tag-policies.ts';
import type { TagOptions } from './tags.ts';
import { connectTcp, TcpListener } from './tcp.ts';

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A machine and the loop that runs it. */
class Running {
  readonly control = new RunControl();
  readonly port: MachinePort;
  readonly output: () => string;
  readonly machine: Machine;
  poweredOff = false;

  constructor(kind: 'boots' | 'waits', backing: 'anonymous' | 'memfd', mte = true) {
    const board = { ramBytes: SMALL_RAM_BYTES, cpuCount: 2 };
    const { machine, output } = testMachine({
      backing,
      mte,
      ...(kind === 'waits' ? { plan: board } : {}),
    });
    this.machine = machine;
    this.output = output;
    this.port = new MachinePort(machine, { control: this.control, guestId: '0'.repeat(32) });
    if (kind === 'waits') void this.port.hold();
  }

  /** Runs slices between everything else until `until` holds or the guest is done. */
  async run(until: () => boolean): Promise<void> {
    while (!until() && !this.poweredOff) {
      if (this.control.mayRun && this.machine.runSlice(SLICE) === 'power-off') {
        this.poweredOff = true;
      }
      await nextTurn();
    }
  }
}

interface Hop {
  readonly mode: MigrationMode;
  readonly tags: TagOptions;
}

/** The guest has work for some sixty slices: so many between two moves, and during one at most. */
const SLICES_BETWEEN = 6;
const MOVING_SLICES = 4;

let attempts = 0;

/** Moves the guest while it runs; resolves when nothing of it is left at the source. */
async function migrate(from: Running, to: Running, { mode, tags }: Hop): Promise<SourceOutcome> {
  const destination = new MigrationDestination(to.port, { tags }, { time: processTime });
  let served: Promise<MigrationError | undefined> = Promise.resolve(undefined);
  const connect = async (): Promise<Link> => {
    const [near, far] = memoryLinkPair();
    served = destination.serve(far);
    return near;
  };
  const source = new MigrationSource(
    from.port,
    { mode, tags, downtimeLimitMs: 50, session: (attempts++).toString(16).padStart(32, '0') },
    { time: processTime, connect },
  );
  let settled = false;
  const work = source.run().finally(() => {
    settled = true;
  });
  // However long it takes: a guest that has ended cannot be moved.
  let slices = 0;
  const enough = (): boolean => settled || slices++ >= MOVING_SLICES;
  await Promise.all([from.run(enough), to.run(() => settled), work]);
  expect(await served).toBeUndefined();
  return work;
}

describe('a guest in the middle of its work', () => {
  const alone = testMachine();
  runToEnd(alone.machine);
  const hops: Hop[] = (['precopy', 'postcopy'] as const).flatMap((mode) =>
    TAG_POLICIES.map((policy) => ({ mode, tags: { policy } })),
  );

  it.each(hops)('$mode with tags $tags.policy, five times: nothing is different', async (hop) => {
    const backing = hop.tags.policy === 'dual-mapping' ? 'memfd' : 'anonymous';
    let here = new Running('boots', backing);
    let output = '';
    for (let i = 0; i < 5; i++) {
      let slices = 0;
      await here.run(() => slices++ >= SLICES_BETWEEN);
      const there = new Running('waits', backing);
      expect(await migrate(here, there, hop)).toEqual({ kind: 'completed' });
      expect(here.control.mayRun).toBe(false);
      output += here.output();
      here = there;
    }
    await here.run(() => false);
    output += here.output();
    expect(output).toBe(alone.output());
    expect(instructionsOf(here.machine)).toBe(instructionsOf(alone.machine));
    expect(Buffer.compare(tagsOf(here.machine), tagsOf(alone.machine))).toBe(0);
  });
});

it('a link that greeted and ends in the middle of another: its end is nobody else’s', async () => {
  const [from, to] = [new Running('boots', 'anonymous'), new Running('waits', 'anonymous')];
  const tags = { policy: 'ioctl' } as const;
  const [early, farEnd] = memoryLinkPair();
  const phases: string[] = [];
  const onEvent = ({ kind, phase }: MigrationEvent<DestinationPhase>): void => {
    if (kind !== 'phase') return;
    phases.push(phase.kind);
    if (phase.kind === 'post-copy') early.close();
  };
  const destination = new MigrationDestination(to.port, { tags }, { time: processTime, onEvent });
  const first = destination.serve(farEnd);
  const greeting = new Channel(early);
  await greeting.send({
    kind: 'hello',
    protocol: 'granule-migration',
    versions: [PROTOCOL_VERSION_MIN, PROTOCOL_VERSION],
    session: 'f'.repeat(32),
    guest: '0'.repeat(32),
    purpose: 'migrate',
  });
  expect(await greeting.receive()).toMatchObject({ kind: 'welcome', status: 'new' });
  const [near, far] = memoryLinkPair();
  const second = destination.serve(far);
  const source = new MigrationSource(
    from.port,
    { mode: 'postcopy', tags, downtimeLimitMs: 50, session: 'e'.repeat(32) },
    { time: processTime, connect: async () => near },
  );
  let settled = false;
  const work = source.run().finally(() => {
    settled = true;
  });
  await Promise.all([from.run(() => settled), to.run(() => settled), work]);
  expect(await work).toEqual({ kind: 'completed' });
  expect((await first)?.code).toBe('link');
  expect(await second).toBeUndefined();
  expect(phases).toEqual(['receiving', 'prepared', 'post-copy', 'completed']);
});

it('over TCP: a guest moves, and what differs between the machines is refused', async () => {
  const from = new Running('boots', 'anonymous');
  const links: Link[] = [];
  let onLink: (link: Link) => void = (link) => links.push(link);
  const listener = await TcpListener.listen({ host: '127.0.0.1', port: 0 }, (link) => onLink(link));
  const connect = () => connectTcp(listener.address);
  const attempt = (to: Running): Promise<SourceOutcome> => {
    const tags = { policy: 'ioctl' } as const;
    const destination = new MigrationDestination(to.port, { tags }, { time: processTime });
    onLink = (link) => void destination.serve(link);
    const session = (attempts++).toString(16).padStart(32, '0');
    const source = new MigrationSource(
      from.port,
      { mode: 'precopy', tags, downtimeLimitMs: 100, session },
      { time: processTime, connect },
    );
    return source.run();
  };
  const failed = await attempt(new Running('waits', 'anonymous', false));
  expect(failed).toMatchObject({
    kind: 'failed',
    error: {
      code: 'refused',
      message: 'the machines differ: MTE is on at the source and off at the destination',
    },
  });
  expect(from.control.mayRun).toBe(true);
  const to = new Running('waits', 'anonymous');
  expect(await attempt(to)).toEqual({ kind: 'completed' });
  expect([from.control.mayRun, to.control.mayRun]).toEqual([false, true]);
  listener.close();
});
