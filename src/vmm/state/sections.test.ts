/** Sections hold: what comes back is what went in, and nothing else is taken for sections. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeSections, encodeSections, type Section } from './sections.ts';
import { StateError } from './state-error.ts';

const section: fc.Arbitrary<Section> = fc.record({
  name: fc.stringMatching(/^[a-z0-9-]{1,32}$/),
  version: fc.nat(65535),
  payload: fc.uint8Array({ maxLength: 64 }),
});

const codeOf = (work: () => unknown): string => {
  try {
    work();
  } catch (error) {
    if (error instanceof StateError) return error.code;
    throw error;
  }
  return 'accepted';
};

describe('sections', () => {
  it('decodeSections: what encodeSections made, the same again', () => {
    fc.assert(
      fc.property(fc.array(section, { maxLength: 5 }), (sections) => {
        expect(decodeSections(encodeSections(sections))).toEqual(sections);
      }),
    );
  });

  it('decodeSections: any byte changed, refused', () => {
    fc.assert(
      fc.property(
        fc.array(section, { maxLength: 4 }),
        fc.nat(),
        fc.integer({ min: 1, max: 255 }),
        (sections, place, difference) => {
          const bytes = encodeSections(sections);
          const at = place % bytes.length;
          bytes[at] = bytes[at]! ^ difference;
          expect(codeOf(() => decodeSections(bytes))).not.toBe('accepted');
        },
      ),
      { numRuns: 500 },
    );
  });

  it('decodeSections: cut anywhere, truncated', () => {
    const bytes = encodeSections([
      { name: 'one', version: 1, payload: new Uint8Array(20) },
      { name: 'two', version: 1, payload: new Uint8Array(0) },
    ]);
    for (let length = 0; length < bytes.length; length++) {
      expect(codeOf(() => decodeSections(bytes.subarray(0, length)))).toBe('truncated');
    }
  });

  it('decodeSections: a byte more, corrupted', () => {
    const bytes = encodeSections([]);
    const longer = new Uint8Array(bytes.length + 1);
    longer.set(bytes);
    expect(codeOf(() => decodeSections(longer))).toBe('corrupted');
  });

  it('decodeSections: arbitrary bytes, refused and never anything but a StateError', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(codeOf(() => decodeSections(bytes))).not.toBe('accepted');
      }),
    );
  });
});
