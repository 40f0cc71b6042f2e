/** Descriptor round trips, and the geometry of the three translation granules. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { pa } from '../base/index.ts';
import {
  contiguousRun,
  decodeDescriptor,
  decodeStage1,
  decodeStage2Leaf,
  encodeStage1,
  encodeStage2,
  type GranuleBits,
  isBlockLevel,
  LEAF_ATTRIBUTES,
  leafBytes,
  makeLeaf,
  makeTable,
  stage1StartLevel,
  stage2Root,
  stage2Sl0,
  stage2StartLevel,
} from './descriptor.ts';

const field = (bits: number) => fc.integer({ min: 0, max: 2 ** bits - 1 });
const flag = fc.boolean();
const stage1 = fc.record({
  attrIndex: field(3),
  el0: flag,
  readOnly: flag,
  sh: field(2),
  accessed: flag,
  notGlobal: flag,
  guarded: flag,
  dbm: flag,
  contiguous: flag,
  pxn: flag,
  uxn: flag,
  software: field(4),
});
const stage2 = fc.record({
  memAttr: field(4),
  read: flag,
  write: flag,
  sh: field(2),
  accessed: flag,
  fnxs: flag,
  dbm: flag,
  contiguous: flag,
  xn: field(2),
  software: field(4),
});
const granule = fc.constantFrom<GranuleBits>(12, 14, 16);

describe('leaves', () => {
  it('encodeStage1: any fields, read back the same and inside the attribute bits', () => {
    fc.assert(
      fc.property(stage1, (fields) => {
        const word = encodeStage1(fields);
        expect(decodeStage1(word)).toEqual(fields);
        expect(word & ~LEAF_ATTRIBUTES).toBe(0n);
      }),
    );
  });

  it('encodeStage2: any fields, read back the same and inside the attribute bits', () => {
    fc.assert(
      fc.property(stage2, (fields) => {
        const word = encodeStage2(fields);
        expect(decodeStage2Leaf(word)).toEqual(fields);
        expect(word & ~LEAF_ATTRIBUTES).toBe(0n);
      }),
    );
  });

  it('makeLeaf: any address and granule, decoded to the same', () => {
    fc.assert(
      fc.property(
        granule,
        fc.constantFrom(1, 2, 3),
        field(18),
        stage1,
        (bits, level, n, fields) => {
          fc.pre(level === 3 || isBlockLevel(level, bits));
          const size = leafBytes(level, bits);
          const address = pa((n % (2 ** 48 / size)) * size);
          const attributes = encodeStage1(fields);
          const kind = level === 3 ? 'page' : 'block';
          const word = makeLeaf(address, attributes, level, bits);
          expect(decodeDescriptor(word, level, bits)).toEqual({ kind, address, attributes });
        },
      ),
    );
  });

  const LINUX: [string, bigint, bigint][] = [
    // The bits Linux gives kernel data (without its software ones) and a page of guest RAM.
    [
      'stage 1 kernel data',
      encodeStage1({ attrIndex: 1, sh: 3, accessed: true, dbm: true, pxn: true, uxn: true }),
      0x0068_0000_0000_0704n,
    ],
    [
      'stage 2 RAM',
      encodeStage2({ memAttr: 15, read: true, write: true, sh: 3, accessed: true }),
      0x7fcn,
    ],
    ['stage 2 execute-never', encodeStage2({ xn: 0b10 }), 1n << 54n],
  ];
  for (const [name, word, expected] of LINUX) {
    it(`encode: ${name}, 0x${expected.toString(16)}`, () => {
      expect(word).toBe(expected);
    });
  }

  it('makeLeaf: address not aligned to the leaf, our bug', () => {
    expect(() => makeLeaf(pa(0x1000), 0n, 2)).toThrow('aligned');
  });

  it('makeLeaf: level without blocks, our bug', () => {
    expect(() => makeLeaf(pa(0), 0n, 0)).toThrow('no leaf');
    expect(() => makeLeaf(pa(0), 0n, 1, 16)).toThrow('no leaf');
  });
});

describe('decodeDescriptor', () => {
  const cases: [string, bigint, number, GranuleBits, string][] = [
    ['bit 0 clear', 0xdead_0000n, 1, 12, 'invalid'],
    ['table', 0x1003n, 0, 12, 'table'],
    ['block at level 0', 0x1n, 0, 12, 'invalid'],
    ['block at level 1', 0x1n, 1, 12, 'block'],
    ['block at level 1, 16 KiB', 0x1n, 1, 14, 'invalid'],
    ['block at level 1, 64 KiB', 0x1n, 1, 16, 'invalid'],
    ['block at level 2, 64 KiB', 0x1n, 2, 16, 'block'],
    ['page', 0x1003n, 3, 12, 'page'],
    ['0b01 at level 3', 0x1001n, 3, 12, 'invalid'],
  ];
  for (const [name, word, level, bits, kind] of cases) {
    it(`decodeDescriptor: ${name}, ${kind}`, () => {
      expect(decodeDescriptor(word, level, bits).kind).toBe(kind);
    });
  }

  it('makeTable: hierarchical attributes, read back', () => {
    const attributes = { noEl0: true, readOnly: false, pxn: true, uxn: false };
    expect(decodeDescriptor(makeTable(pa(0x12345000), attributes), 1)).toEqual({
      kind: 'table',
      address: 0x12345000,
      ...attributes,
    });
  });
});

describe('geometry', () => {
  const starts: [GranuleBits, [from: number, to: number, level: number][]][] = [
    [
      12,
      [
        [25, 30, 2],
        [31, 39, 1],
        [40, 48, 0],
      ],
    ],
    [
      14,
      [
        [25, 25, 3],
        [26, 36, 2],
        [37, 47, 1],
        [48, 48, 0],
      ],
    ],
    [
      16,
      [
        [25, 29, 3],
        [30, 42, 2],
        [43, 48, 1],
      ],
    ],
  ];
  for (const [bits, ranges] of starts) {
    it(`stage1StartLevel: ${2 ** (bits - 10)} KiB, by the size of the input`, () => {
      for (const [from, to, level] of ranges) {
        for (let size = from; size <= to; size++) expect(stage1StartLevel(size, bits)).toBe(level);
      }
    });
  }

  it('stage2Root: as KVM chooses for 4 KiB', () => {
    expect(stage2Root(32)).toEqual({ level: 2, tableCount: 4 });
    expect(stage2Root(36)).toEqual({ level: 1, tableCount: 1 });
    expect(stage2Root(40)).toEqual({ level: 1, tableCount: 2 });
    expect(stage2Root(43)).toEqual({ level: 1, tableCount: 16 });
    expect(stage2Root(44)).toEqual({ level: 0, tableCount: 1 });
    expect(stage2Root(48)).toEqual({ level: 0, tableCount: 1 });
  });

  it('stage2Sl0: the inverse of stage2StartLevel', () => {
    for (const bits of [12, 14, 16] as const) {
      for (let sl0 = 0; sl0 < 4; sl0++) {
        const level = stage2StartLevel(sl0, bits);
        if (level !== undefined) expect(stage2Sl0(level, bits)).toBe(sl0);
      }
    }
    expect(stage2StartLevel(3, 16)).toBeUndefined();
  });

  it('leafBytes and contiguousRun: the sizes of the architecture', () => {
    const sizes = [
      [12, 1, 2 ** 30, 16],
      [12, 2, 2 ** 21, 16],
      [12, 3, 2 ** 12, 16],
      [14, 2, 2 ** 25, 32],
      [14, 3, 2 ** 14, 128],
      [16, 2, 2 ** 29, 32],
      [16, 3, 2 ** 16, 32],
      [16, 1, 2 ** 42, 1],
    ] as const;
    for (const [bits, level, bytes, run] of sizes) {
      expect([leafBytes(level, bits), contiguousRun(level, bits)]).toEqual([bytes, run]);
    }
  });
});
