/** Migrations under a seed each; a seed that fails is in the test's message and replays alone. */
import { expect, it } from 'vitest';
import { simulateMigration } from './migration-run.ts';

it('one', async () => {
  const r = await simulateMigration({
    seed: 1,
    mode: 'precopy',
    policy: 'ioctl',
    faultOf: () => undefined,
  });
  console.log(r.outcomes, r.links, r.sends, r.source.steps, r.destination.steps);
  expect(r.outcomes.at(-1)!.kind).toBe('completed');
});
