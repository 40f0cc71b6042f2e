/** Tags two to a byte and one to a byte. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { packTags, unpackTags } from './packed-tags.ts';

describe('packed tags', () => {
  it('packTags: the lower address in the low nibble, high nibbles of a byte dropped', () => {
    const packed = new Uint8Array(2);
    packTags(Uint8Array.of(0x1, 0x2, 0xf3, 0xa4, 0x5), packed);
    expect([...packed]).toEqual([0x21, 0x43]);
  });

  it('unpackTags: where it is told, and nothing else', () => {
    const tags = new Uint8Array(6).fill(0xee);
    unpackTags(Uint8Array.of(0x21, 0x43), tags, 1);
    expect([...tags]).toEqual([0xee, 1, 2, 3, 4, 0xee]);
  });

  it('packTags, unpackTags: there and back, the same', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 128 }), (packed) => {
        const tags = new Uint8Array(2 * packed.length);
        unpackTags(packed, tags);
        const back = new Uint8Array(packed.length);
        packTags(tags, back);
        expect(back).toEqual(packed);
      }),
    );
  });
});
