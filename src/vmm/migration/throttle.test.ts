/** Holding a guest back: in which steps, for what share of the time, and that it ends. */
import { expect, it } from 'vitest';
import { SimWorld } from '../../../test/sim/world.ts';
import { THROTTLE_PERCENT_MAX, Throttle } from './throttle.ts';

/** A guest that notes how long it ran, in a world of virtual time. */
function held(grows: number) {
  const world = new SimWorld(1);
  const guest = { resting: false };
  const throttle = new Throttle(world.time, guest);
  for (let i = 0; i < grows; i++) throttle.grow();
  let ranMs = 0;
  const note = (): void => {
    if (!guest.resting) ranMs += 0.5;
    world.after(0.5, note);
  };
  world.after(0.25, note);
  const pass = (ms: number): Promise<void> =>
    world.run(new Promise((resolve) => void world.after(ms, resolve)));
  return { guest, throttle, pass, ran: () => ranMs };
}

it.each([
  [0, 0],
  [1, 20],
  [2, 30],
  [8, 90],
  [9, 99],
  [50, THROTTLE_PERCENT_MAX],
])('throttle: grown %i times, %i %% of the time the guest rests', async (grows, percent) => {
  const { throttle, pass, ran } = held(grows);
  expect(throttle.percent).toBe(percent);
  await pass(4000);
  expect(ran() / 4000).toBeCloseTo(1 - percent / 100, 2);
});

it('throttle: stopped while the guest rests, it runs at once and for good', async () => {
  const { guest, throttle, pass, ran } = held(9);
  await pass(20);
  expect(guest.resting).toBe(true);
  throttle.stop();
  throttle.stop();
  expect(guest.resting).toBe(false);
  const before = ran();
  await pass(1000);
  expect(ran() - before).toBe(1000);
});
