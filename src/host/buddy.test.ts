/** The buddy allocator: order of allocation, merging, exhaustion. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BuddyAllocator, MAX_ORDER } from './buddy.ts';

const BLOCK = 1 << MAX_ORDER;

describe('BuddyAllocator', () => {
  it('allocate: the lowest block first, halves in order', () => {
    const buddy = new BuddyAllocator(BLOCK, 2 * BLOCK);
    expect(buddy.allocate(MAX_ORDER)).toBe(BLOCK);
    expect(buddy.allocate(0)).toBe(2 * BLOCK);
    expect(buddy.allocate(0)).toBe(2 * BLOCK + 1);
    expect(buddy.allocate(3)).toBe(2 * BLOCK + 8);
  });

  it('allocate: no block left, -1 and nothing changed', () => {
    const buddy = new BuddyAllocator(0, BLOCK);
    expect(buddy.allocate(0)).toBe(0);
    const before = buddy.check();
    expect(buddy.allocate(MAX_ORDER)).toBe(-1);
    expect(buddy.check()).toEqual(before);
  });

  it('free: a block given back frame by frame becomes one block again', () => {
    const buddy = new BuddyAllocator(0, BLOCK);
    const block = buddy.allocate(MAX_ORDER);
    for (let i = 0; i < BLOCK; i++) buddy.free(block + ((i * 37) % BLOCK), 0);
    expect(buddy.check()[MAX_ORDER]).toBe(1);
    expect(buddy.allocate(MAX_ORDER)).toBe(0);
  });

  it('free: twice, or unaligned, is our bug', () => {
    const buddy = new BuddyAllocator(0, BLOCK);
    const frame = buddy.allocate(2);
    buddy.free(frame, 2);
    expect(() => buddy.free(frame, 2)).toThrow('was not free');
    expect(() => buddy.free(frame + 1, 1)).toThrow('aligned');
    expect(() => buddy.free(BLOCK, 0)).toThrow('zone');
  });

  it('allocate, free: any sequence keeps blocks apart, frames counted and buddies merged', () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant('allocate' as const), order: fc.nat(MAX_ORDER) }),
      fc.record({ kind: fc.constant('free' as const), pick: fc.nat(1000) }),
      fc.record({ kind: fc.constant('shatter' as const), pick: fc.nat(1000) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const buddy = new BuddyAllocator(BLOCK, 3 * BLOCK);
        const held: { frame: number; order: number }[] = [];
        const owner = new Set<number>();
        for (const s of steps) {
          if (s.kind === 'allocate') {
            const frame = buddy.allocate(s.order);
            if (frame < 0) continue;
            expect(frame % (1 << s.order)).toBe(0);
            for (let i = 0; i < 1 << s.order; i++) {
              expect(owner.has(frame + i)).toBe(false);
              owner.add(frame + i);
            }
            held.push({ frame, order: s.order });
          } else if (held.length > 0) {
            const [block] = held.splice(s.pick % held.length, 1);
            if (block === undefined) continue;
            const { frame, order } = block;
            for (let i = 0; i < 1 << order; i++) owner.delete(frame + i);
            if (s.kind === 'free') buddy.free(frame, order);
            else for (let i = 0; i < 1 << order; i++) buddy.free(frame + i, 0);
          }
          buddy.check();
          expect(buddy.freeCount).toBe(3 * BLOCK - owner.size);
        }
        for (const { frame, order } of held) buddy.free(frame, order);
        expect(buddy.check()[MAX_ORDER]).toBe(3);
      }),
      { numRuns: 60 },
    );
  });
});
