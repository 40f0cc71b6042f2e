/** Memory attributes against the table of 9792 combinations, and the packed form against both. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  Attr,
  COMBINED_SHAREABILITY,
  combineStages,
  decodeMair,
  decodeStage2,
  isReservedMair,
  isReservedStage2,
  MEM_ATTR_MASK,
  MEM_FORCED_OUTER,
  MEM_NO_TAG_ACCESS,
  MEM_S1_DEVICE,
  MEM_S2_DEVICE,
  MEM_TAGGED,
  MEM_WRITE_BACK,
  MemoryType,
  memoryTypeOf,
  packStages,
  parByte,
  Shareability,
} from './memattr.ts';

const FILE = new URL('../../test/data/combine-vectors.json', import.meta.url);
type Vectors = { rows: Record<string, Record<string, string[]>> };
const { rows } = JSON.parse(readFileSync(FILE, 'utf8')) as Vectors;

/** The order of the nine (stage 1 SH, stage 2 SH) pairs in a vector. */
const SH_PAIRS = [0, 2, 3].flatMap((s1) => [0, 2, 3].map((s2) => [s1, s2] as const));
const XS = { xs: true };

const flag = (value: boolean): string => (value ? '1' : '0');

/** What this implementation makes of a vector's inputs, in the vector's own spelling. */
function spell(mair: number, memAttr: number, options: { fwb: boolean; mtePerm: boolean }): string {
  if (isReservedStage2(memAttr, options)) {
    return options.fwb && !options.mtePerm && memAttr >= 8 ? 'RES0bit3' : 'RES';
  }
  const s2 = decodeStage2(memAttr, options);
  const all = SH_PAIRS.map(([s1sh, s2sh]) => combineStages(decodeMair(mair, s1sh, XS), s2, s2sh));
  const one = all[0]!;
  const par = parByte(one, XS).toString(16).toUpperCase().padStart(2, '0');
  const shareabilities = all.map((m) => m.shareability).join('');
  return `${par} ${shareabilities} ${flag(one.tagged)}${flag(one.noTagAccess)}${flag(one.xs)}`;
}

describe('combineStages', () => {
  let count = 0;
  for (const [name, table] of Object.entries(rows)) {
    const options = { fwb: name.includes('fwb=1'), mtePerm: name.includes('mtePerm=1') };
    for (const [byte, expected] of Object.entries(table)) {
      count += expected.length * SH_PAIRS.length;
      it(`combineStages: ${name} MAIR 0x${byte}, all of MemAttr as recorded`, () => {
        const mair = Number.parseInt(byte, 16);
        expect(expected.map((_, memAttr) => spell(mair, memAttr, options))).toEqual(expected);
      });
    }
  }

  it('combineStages: the recorded table, complete', () => {
    expect(count).toBe(9792);
  });

  it('combineStages: FnXS set at stage 2, XS is 0', () => {
    const device = decodeMair(0x04, 0, XS);
    const s2 = decodeStage2(0b1111, { fwb: false, mtePerm: false });
    expect(combineStages(device, s2, 0).xs).toBe(true);
    expect(combineStages(device, s2, 0, true).xs).toBe(false);
    expect(parByte(combineStages(device, s2, 0, true), XS)).toBe(0x05);
  });
});

describe('decodeMair', () => {
  const cases: [number, boolean, boolean][] = [
    [0x00, false, false],
    [0x01, true, false],
    [0x02, true, true],
    [0x0f, true, true],
    [0x40, true, false],
    [0xa0, true, false],
    [0xe0, true, true],
    [0xf0, false, false],
    [0x10, true, true],
    [0x1f, false, false],
    [0xff, false, false],
  ];
  for (const [byte, without, withXs] of cases) {
    const verdict = without ? (withXs ? 'reserved' : 'reserved without FEAT_XS') : 'allocated';
    it(`decodeMair: 0x${byte.toString(16)}, ${verdict}`, () => {
      expect(isReservedMair(byte, { xs: false })).toBe(without);
      expect(isReservedMair(byte, { xs: true })).toBe(withXs);
      if (without) expect(decodeMair(byte, 0).base).toBe(Attr.deviceNGnRnE);
    });
  }

  it('decodeMair: reserved SH 0b01, outer shareable', () => {
    expect(decodeMair(0xff, 1).shareability).toBe(Shareability.outer);
  });

  it('decodeMair: Device with SH 0b00, outer shareable', () => {
    expect(decodeMair(0x04, 0).shareability).toBe(Shareability.outer);
  });
});

describe('packStages', () => {
  const MODES = [false, true].flatMap((fwb) => [false, true].map((mtePerm) => ({ fwb, mtePerm })));

  it('packStages: every byte, MemAttr and shareability, as combineStages has it', () => {
    for (const options of MODES) {
      for (let byte = 0; byte < 256; byte++) {
        for (let memAttr = 0; memAttr < 16; memAttr++) {
          const s2 = decodeStage2(memAttr, options);
          const entry = packStages(decodeMair(byte, 0), s2);
          for (const [s1sh, s2sh] of SH_PAIRS) {
            const whole = combineStages(decodeMair(byte, s1sh), s2, s2sh);
            const outer = (entry & MEM_FORCED_OUTER) !== 0;
            const sh = outer ? Shareability.outer : COMBINED_SHAREABILITY[s1sh * 4 + s2sh];
            if (
              sh !== whole.shareability ||
              (entry & MEM_ATTR_MASK) !== parByte(whole) ||
              ((entry & MEM_TAGGED) !== 0) !== whole.tagged ||
              ((entry & MEM_NO_TAG_ACCESS) !== 0) !== whole.noTagAccess
            ) {
              expect.fail(`byte ${byte} memAttr ${memAttr} sh ${s1sh},${s2sh}`);
            }
          }
        }
      }
    }
  });

  it('packStages: Device at one stage, the stage that owns the Alignment fault', () => {
    const mode = { fwb: false, mtePerm: false };
    const device = decodeMair(Attr.deviceNGnRE, 0);
    const normal = decodeMair(Attr.normalWB, 3);
    const s2Device = decodeStage2(1, mode);
    expect(packStages(device, s2Device) & (MEM_S1_DEVICE | MEM_S2_DEVICE)).toBe(MEM_S1_DEVICE);
    expect(packStages(normal, s2Device) & (MEM_S1_DEVICE | MEM_S2_DEVICE)).toBe(MEM_S2_DEVICE);
    expect(packStages(normal, undefined) & (MEM_S1_DEVICE | MEM_S2_DEVICE)).toBe(0);
  });

  it('packStages: Write-Back forced over Device, stage 1 keeps its Alignment fault', () => {
    const entry = packStages(
      decodeMair(Attr.deviceNGnRE, 0),
      decodeStage2(0b0110, { fwb: true, mtePerm: false }),
    );
    expect(entry & MEM_ATTR_MASK).toBe(Attr.normalWB);
    expect(entry & MEM_WRITE_BACK).toBe(MEM_WRITE_BACK);
    expect(entry & MEM_S1_DEVICE).toBe(MEM_S1_DEVICE);
  });
});

describe('memoryTypeOf', () => {
  const cases: [number, MemoryType][] = [
    [0x00, MemoryType.deviceNGnRnE],
    [0x05, MemoryType.deviceNGnRE],
    [0x0c, MemoryType.deviceGRE],
    [0x44, MemoryType.normalNC],
    [0x40, MemoryType.normalNC],
    [0x4f, MemoryType.normalNC],
    [0xbb, MemoryType.normalWT],
    [0xfb, MemoryType.normalWT],
    [0xa0, MemoryType.normalWT],
    [0x77, MemoryType.normalWB],
    [0xff, MemoryType.normalWB],
    [0xf0, MemoryType.normalWBTagged],
    [0xe0, MemoryType.normalWBTagged],
  ];
  for (const [byte, name] of cases) {
    it(`memoryTypeOf: 0x${byte.toString(16)}, ${name}`, () => {
      expect(memoryTypeOf(byte)).toBe(name);
    });
  }
});
