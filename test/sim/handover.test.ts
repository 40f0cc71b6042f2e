/**
 * The handover broken off: the source has given its guest up, the link breaks, and it is not known
 * whether the guest runs at the destination. The table in docs/formats.md, row by row: who may run,
 * who decides, and what `cancel` and `force` do at each message. Two copies never run.
 */
import { describe, expect, it } from 'vitest';
import { MigrationDestination } from '../../src/vmm/migration/destination.ts';
import type { MigrationMode } from '../../src/vmm/migration/source.ts';
import type { Fault } from './faulty-link.ts';
import { type SimOptions, type SimParts, simulateMigration } from './migration-run.ts';

const MODES: readonly MigrationMode[] = ['precopy', 'postcopy'];

const cutAt = (atSend: number): Fault => ({ kind: 'cut', atSend, partly: false });

const base = (mode: MigrationMode): SimOptions & { faultOf: () => undefined } => ({
  seed: 41,
  mode,
  policy: 'ioctl',
  pages: 9,
  how: {},
  faultOf: () => undefined,
});

/** How many sends a migration takes when nothing goes wrong. */
const sendsOf = async (mode: MigrationMode): Promise<number> =>
  (await simulateMigration(base(mode))).sends;

/** Calls `act` once, when the source has lost its destination behind the handover. */
function whenRecovering(act: (sim: SimParts) => void): NonNullable<SimOptions['onSourceEvent']> {
  let done = false;
  return ({ phase }, sim) => {
    if (done || phase.kind !== 'recovering') return;
    done = true;
    act(sim);
  };
}

describe.each(MODES)('a %s cut at each message', (mode) => {
  it('cancel: what the destination has not run comes back, what it runs stays there', async () => {
    const ends = new Set<string>();
    for (let atSend = 0; atSend < (await sendsOf(mode)); atSend++) {
      // The second link, which asks for the guest back, is cut as well.
      for (const second of [0, 1, 2, 3, undefined]) {
        let asked = false;
        let ran = false;
        const { outcomes, source, destination } = await simulateMigration({
          ...base(mode),
          attemptsMax: 1,
          faultOf: (link) => {
            if (link === 0) return cutAt(atSend);
            return link === 1 && second !== undefined ? cutAt(second) : undefined;
          },
          onSourceEvent: whenRecovering(({ migration, target }) => {
            asked = migration.cancel();
            ran = target.phase.kind !== 'prepared';
          }),
        });
        const kind = outcomes[0]!.kind;
        expect([source.mayRun, destination.mayRun]).toEqual(
          kind === 'completed' ? [false, true] : [true, false],
        );
        if (asked) ends.add(kind);
        if (asked && ran) expect(kind, `cut at ${atSend}, then ${second}`).toBe('completed');
        if (asked && !ran) expect(kind, `cut at ${atSend}, then ${second}`).toBe('cancelled');
      }
    }
    expect(ends).toEqual(new Set(['cancelled', 'completed']));
  });

  it('force: the destination is dead for good, the guest goes on at the source', async () => {
    let forced = 0;
    for (let atSend = 0; atSend < (await sendsOf(mode)); atSend++) {
      let isDead = false;
      const { outcomes, source } = await simulateMigration({
        ...base(mode),
        attemptsMax: 1,
        faultOf: (link) => (link === 0 ? cutAt(atSend) : undefined),
        isUnreachable: () => isDead,
        onSourceEvent: whenRecovering(({ world, migration, destination }) => {
          // What it has done there is lost with it: then nothing can be compared.
          if (destination.steps > 0 || destination.mayRun) return;
          destination.dead = true;
          isDead = true;
          world.after(7_000, () => {
            expect(migration.phase.kind).toBe('recovering');
            expect(migration.force()).toBe(true);
          });
        }),
      });
      if (!isDead) continue;
      forced++;
      expect(outcomes[0]).toMatchObject({ kind: 'forced', error: { code: 'cancelled' } });
      expect(source.mayRun).toBe(true);
    }
    expect(forced).toBeGreaterThan(0);
  });

  it('force: refused while the destination answers and where nothing was handed over', async () => {
    const answers: [string, boolean][] = [];
    await simulateMigration({
      ...base(mode),
      onSourceEvent: ({ kind, phase }, { migration }) => {
        if (kind === 'phase') answers.push([phase.kind, migration.force()]);
      },
    });
    expect(answers.length).toBeGreaterThan(3);
    for (const [phase, answer] of answers) expect(answer, phase).toBe(false);
  });
});

it('force: the source is dead for good, a destination that has it all runs it', async () => {
  let forced = 0;
  for (let atSend = 0; atSend < (await sendsOf('precopy')); atSend++) {
    let went = false;
    let early: boolean | undefined;
    const run = simulateMigration({
      ...base('precopy'),
      attemptsMax: 1,
      faultOf: (link) => (link === 0 ? cutAt(atSend) : undefined),
      isUnreachable: (link) => link > 0 && !went,
      onSourceEvent: ({ phase }, { world, source, destination, target }) => {
        if (phase.kind === 'pre-copy') early ??= target.force();
        if (phase.kind !== 'recovering' || went) return;
        world.after(1_000, () => {
          if (went || target.phase.kind !== 'prepared') return;
          source.dead = true;
          expect(target.force()).toBe(true);
          expect(destination.mayRun).toBe(true);
          forced++;
        });
        world.after(2_000, () => {
          went = true;
        });
      },
    });
    // A source that was only away finds that the guest runs there.
    const { outcomes } = await run;
    expect(['completed', 'failed']).toContain(outcomes[0]!.kind);
    expect(early ?? false).toBe(false);
  }
  expect(forced).toBeGreaterThan(0);
});

it('recovering: a destination that was started anew cannot know, the source waits', async () => {
  const unknown = 'the destination knows nothing of this guest any more';
  let waited = 0;
  for (let atSend = 0; atSend < (await sendsOf('precopy')); atSend++) {
    let anew: MigrationDestination | undefined;
    const { outcomes } = await simulateMigration({
      ...base('precopy'),
      attemptsMax: 1,
      faultOf: (link) => (link === 0 ? cutAt(atSend) : undefined),
      targetOf: () => anew,
      onSourceEvent: ({ phase }, { world, migration, destination }) => {
        if (phase.kind !== 'recovering' || destination.mayRun) return;
        anew ??= new MigrationDestination(
          destination,
          { tags: { policy: 'ioctl' } },
          { time: world.time },
        );
        if (phase.error.message !== unknown) return;
        world.after(0, () => migration.force());
      },
    });
    if (anew === undefined) continue;
    waited++;
    expect(outcomes[0]!.kind).toBe('forced');
  }
  expect(waited).toBeGreaterThan(0);
});
