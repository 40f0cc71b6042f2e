/** Tag rules one by one, against recorded sequences and spelled-out tables. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  advanceSeed,
  chooseNonExcludedTag,
  isTagChecked,
  logicalTag,
  matchesAll,
  nextRgsr,
  type TagCheckControls,
  TagFaultMode,
  tagAccessEnabled,
  tagFaultMode,
  tagFaultOutcome,
  tfsrBit,
  withLogicalTag,
} from './tag.ts';

describe('logical tags', () => {
  it('withLogicalTag: any address and tag, only bits 59:56 change', () => {
    fc.assert(
      fc.property(fc.bigInt(0n, 2n ** 64n - 1n), fc.integer({ min: 0, max: 15 }), (va, tag) => {
        const tagged = withLogicalTag(va, tag);
        expect(logicalTag(tagged)).toBe(tag);
        expect((tagged ^ va) & ~(15n << 56n)).toBe(0n);
      }),
    );
  });
});

describe('chooseNonExcludedTag', () => {
  const cases: [tag: number, offset: number, exclude: number, chosen: number][] = [
    [3, 0, 0, 3],
    [3, 2, 0, 5],
    [15, 1, 0, 0],
    [3, 0, 0b1000, 4],
    [3, 1, 0b1000, 5],
    [15, 0, 0x8000, 0],
    [0, 15, 0xfffe, 0],
    [7, 5, 0xffff, 0],
    [14, 3, 0, 1],
    [0, 1, 0x7ffe, 15],
  ];
  for (const [tag, offset, exclude, chosen] of cases) {
    it(`chooseNonExcludedTag: ${tag} + ${offset} but 0x${exclude.toString(16)}, ${chosen}`, () => {
      expect(chooseNonExcludedTag(tag, offset, exclude)).toBe(chosen);
    });
  }

  it('chooseNonExcludedTag: any arguments, never an excluded tag unless all are', () => {
    const u4 = fc.integer({ min: 0, max: 15 });
    fc.assert(
      fc.property(u4, u4, fc.integer({ min: 0, max: 0xfffe }), (tag, offset, exclude) => {
        const chosen = chooseNonExcludedTag(tag, offset, exclude);
        expect((exclude >> chosen) & 1).toBe(0);
      }),
    );
  });
});

describe('nextRgsr', () => {
  const sequences: [rgsr: number, exclude: number, tags: string, end: number][] = [
    [0x000100, 0x0000, '119F04', 0x416804],
    [0x123400, 0x0000, 'E48A52', 0xdb2402],
    [0xffff05, 0x0001, '55DBB8', 0xc0d808],
    [0xabcd0a, 0x8001, '561485', 0xb43905],
    [0x000100, 0xfffe, '000000', 0x416800],
    [0x000003, 0x0000, '3333', 0x000003],
    [0x000003, 0x0008, '4444', 0x000004],
    [0x000003, 0xffff, '0000', 0x000000],
  ];
  for (const [start, exclude, tags, end] of sequences) {
    it(`nextRgsr: from 0x${start.toString(16)} without 0x${exclude.toString(16)}, ${tags}`, () => {
      let rgsr = start;
      let drawn = '';
      for (let i = 0; i < tags.length; i++) {
        rgsr = nextRgsr(rgsr, exclude);
        drawn += (rgsr & 15).toString(16).toUpperCase();
      }
      expect(drawn).toBe(tags);
      expect(rgsr).toBe(end);
    });
  }

  it('advanceSeed: bits above the sixteen of the LFSR, ignored', () => {
    expect(advanceSeed(0x12345)).toBe(0x6234);
  });
});

const TBI0 = 1n << 37n;
const TBI1 = 1n << 38n;
const TCMA0 = 1n << 57n;
const TCMA1 = 1n << 58n;
const ATA0 = 1n << 42n;
const ATA = 1n << 43n;
const all: TagCheckControls = {
  tcr: TBI0 | TBI1,
  sctlr: ATA0 | ATA,
  hcrAta: true,
  el: 1,
  tco: false,
};
const LOW = 0x0500_0000_0000_1000n;
const HIGH = 0xf5ff_0000_0000_1000n;

describe('isTagChecked', () => {
  const cases: [string, bigint, Partial<TagCheckControls>, boolean][] = [
    ['all enabled, lower half', LOW, {}, true],
    ['all enabled, upper half', HIGH, {}, true],
    ['TBI of the other half only', LOW, { tcr: TBI1 }, false],
    ['TBI of its half only', HIGH, { tcr: TBI1 }, true],
    ['no TBI', LOW, { tcr: 0n }, false],
    ['PSTATE.TCO', LOW, { tco: true }, false],
    ['HCR_EL2.ATA = 0', LOW, { hcrAta: false }, false],
    ['SCTLR.ATA = 0 at EL1', LOW, { sctlr: ATA0 }, false],
    ['SCTLR.ATA0 = 0 at EL1', LOW, { sctlr: ATA }, true],
    ['SCTLR.ATA0 = 0 at EL0', LOW, { sctlr: ATA, el: 0 }, false],
    ['SCTLR.ATA = 0 at EL0', LOW, { sctlr: ATA0, el: 0 }, true],
    ['TCMA0 and tag 0', 0x1000n, { tcr: TBI0 | TBI1 | TCMA0 }, false],
    ['TCMA1 and tag 0 below', 0x1000n, { tcr: TBI0 | TBI1 | TCMA1 }, true],
    ['TCMA0 and tag 15 below', 0x0f00_0000_0000_0000n, { tcr: TBI0 | TBI1 | TCMA0 }, true],
    ['TCMA1 and tag 15', 0xffff_0000_0000_0000n, { tcr: TBI0 | TBI1 | TCMA1 }, false],
    ['TCMA1 and tag 0 above', 0xf0ff_0000_0000_0000n, { tcr: TBI0 | TBI1 | TCMA1 }, true],
    ['TCMA1, tag 15 and other top bits 0', 0x0fff_0000_0000_0000n, { tcr: TBI1 | TCMA1 }, false],
  ];
  for (const [name, address, change, expected] of cases) {
    it(`isTagChecked: ${name}, ${expected ? 'checked' : 'unchecked'}`, () => {
      expect(isTagChecked(address, { ...all, ...change })).toBe(expected);
    });
  }

  it('tagAccessEnabled: each of the two controls off, disabled', () => {
    expect(tagAccessEnabled(all)).toBe(true);
    expect(tagAccessEnabled({ ...all, hcrAta: false })).toBe(false);
    expect(tagAccessEnabled({ ...all, sctlr: 0n })).toBe(false);
  });

  it('matchesAll: VA[59:55] uniform without TCMA, no match-all', () => {
    expect(matchesAll(0n, 0n)).toBe(false);
  });
});

describe('tag faults', () => {
  const table: [TagFaultMode, read: string, write: string][] = [
    [TagFaultMode.none, 'none', 'none'],
    [TagFaultMode.sync, 'sync', 'sync'],
    [TagFaultMode.async, 'async', 'async'],
    [TagFaultMode.asymmetric, 'sync', 'async'],
  ];
  for (const [mode, read, write] of table) {
    it(`tagFaultOutcome: TCF ${mode}, read ${read}, write ${write}`, () => {
      expect(tagFaultOutcome(mode, false)).toBe(read);
      expect(tagFaultOutcome(mode, true)).toBe(write);
    });
  }

  it('tagFaultMode: TCF0 for EL0, TCF for EL1', () => {
    const sctlr = (1n << 38n) | (2n << 40n);
    expect(tagFaultMode(sctlr, 0)).toBe(TagFaultMode.sync);
    expect(tagFaultMode(sctlr, 1)).toBe(TagFaultMode.async);
  });

  it('tfsrBit: by VA[55]', () => {
    expect([tfsrBit(LOW), tfsrBit(HIGH)]).toEqual([1, 2]);
  });
});
