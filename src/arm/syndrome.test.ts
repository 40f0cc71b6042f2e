/** Syndromes: known words, round trips, and when HPFAR counts. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ipa } from '../base/index.ts';
import {
  breakpointEsr,
  brkEsr,
  callEsr,
  type DataAbort,
  dataAbortEsr,
  decodeEsr,
  decodeFsc,
  decodeHpfar,
  describeEsr,
  describeFsc,
  Ec,
  encodeFsc,
  encodeHpfar,
  esrEc,
  FaultType,
  fpAccessEsr,
  hpfarIsValid,
  illegalStateEsr,
  instructionAbortEsr,
  pcAlignmentEsr,
  SERROR_IDS,
  sErrorEsr,
  softwareStepEsr,
  spAlignmentEsr,
  sysregTrapEsr,
  unknownEsr,
  WfxKind,
  watchpointEsr,
  wfxEsr,
} from './syndrome.ts';

describe('fault status codes', () => {
  const codes: [FaultType, number, number][] = [
    [FaultType.addressSize, 0, 0x00],
    [FaultType.addressSize, 3, 0x03],
    [FaultType.addressSize, -1, 0x29],
    [FaultType.translation, 0, 0x04],
    [FaultType.translation, 2, 0x06],
    [FaultType.translation, -1, 0x2b],
    [FaultType.accessFlag, 3, 0x0b],
    [FaultType.permission, 1, 0x0d],
    [FaultType.externalAbort, 0, 0x10],
    [FaultType.tagCheck, 0, 0x11],
    [FaultType.externalAbortOnWalk, -1, 0x13],
    [FaultType.externalAbortOnWalk, 2, 0x16],
    [FaultType.alignment, 0, 0x21],
    [FaultType.debug, 0, 0x22],
    [FaultType.tlbConflict, 0, 0x30],
    [FaultType.unsupportedAtomicUpdate, 0, 0x31],
    [FaultType.exclusive, 0, 0x35],
  ];
  for (const [type, level, fsc] of codes) {
    it(`encodeFsc: ${describeFsc(fsc)}, 0x${fsc.toString(16)}`, () => {
      expect(encodeFsc(type, level)).toBe(fsc);
      expect(decodeFsc(fsc)?.type).toBe(type);
    });
  }

  it('decodeFsc: every code it knows, encoded back to itself', () => {
    let known = 0;
    for (let fsc = 0; fsc < 64; fsc++) {
      const fault = decodeFsc(fsc);
      if (fault === undefined) continue;
      known++;
      expect(encodeFsc(fault.type, fault.level)).toBe(fsc);
    }
    expect(known).toBe(5 * 4 + 3 + 7);
  });

  it('decodeFsc: parity, unallocated and lockdown codes, undefined', () => {
    for (const fsc of [0x12, 0x18, 0x1c, 0x2a, 0x34, 0x3f]) expect(decodeFsc(fsc)).toBeUndefined();
  });

  it('encodeFsc: no fault, our bug', () => {
    expect(() => encodeFsc(FaultType.none)).toThrow('status code');
  });
});

describe('ESR_ELx', () => {
  const access = { sas: 2, sse: false, srt: 1, sf: false, ar: false };
  const words: [string, number, number][] = [
    ['UNDEFINED instruction', unknownEsr(), 0x0200_0000],
    ['WFI', wfxEsr(WfxKind.wfi), 0x07e0_0000],
    ['WFE', wfxEsr(WfxKind.wfe), 0x07e0_0001],
    ['WFIT x3', wfxEsr(WfxKind.wfit, 3), 0x07e0_0066],
    ['FP access', fpAccessEsr(), 0x1fe0_0000],
    ['illegal state', illegalStateEsr(), 0x3a00_0000],
    ['SVC #0', callEsr(Ec.svc, 0), 0x5600_0000],
    ['HVC #0x1234', callEsr(Ec.hvc, 0x1234), 0x5a00_1234],
    ['SMC #0', callEsr(Ec.smc, 0), 0x5e00_0000],
    ['PC alignment', pcAlignmentEsr(), 0x8a00_0000],
    ['SP alignment', spAlignmentEsr(), 0x9a00_0000],
    ['SError with IDS', sErrorEsr(SERROR_IDS), 0xbf00_0000],
    ['BRK #0xf000', brkEsr(0xf000), 0xf200_f000],
    ['breakpoint, lower EL', breakpointEsr(true), 0xc200_0022],
    ['step of a load-exclusive', softwareStepEsr(false, true), 0xcf00_0062],
    ['step, not known', softwareStepEsr(true), 0xca00_0022],
    ['watchpoint, store', watchpointEsr({ wnr: true }, false), 0xd600_0062],
    ['translation fault level 3, load from EL0', dataAbortEsr({ fsc: 0x07 }, true), 0x9200_0007],
    [
      'permission fault level 3, store at EL1',
      dataAbortEsr({ fsc: 0x0f, wnr: true }, false),
      0x9600_004f,
    ],
    [
      'stage 2 fault on a PL011 store of w1',
      dataAbortEsr({ fsc: 0x06, wnr: true, access }, true),
      0x9381_0046,
    ],
    ['stage 2 fault on a walk', dataAbortEsr({ fsc: 0x07, s1ptw: true }, true), 0x9200_0087],
    ['DC CIVAC', dataAbortEsr({ fsc: 0x07, cm: true }, true), 0x9200_0147],
    ['tag check', dataAbortEsr({ fsc: 0x11 }, true), 0x9200_0011],
    [
      'tag access withheld by stage 2',
      dataAbortEsr({ fsc: 0x0f, tagAccess: true }, true),
      2 ** 41 + 0x9200_000f,
    ],
    ['instruction abort', instructionAbortEsr({ fsc: 0x07 }, true), 0x8200_0007],
    [
      'MRS x5, ID_AA64PFR0_EL1',
      sysregTrapEsr({ op0: 3, op1: 0, crn: 0, crm: 4, op2: 0, rt: 5, read: true }),
      0x6230_00a9,
    ],
  ];
  for (const [name, esr, expected] of words) {
    it(`ESR: ${name}, 0x${expected.toString(16)}`, () => {
      expect(esr).toBe(expected);
    });
  }

  const flag = fc.boolean();
  const abort: fc.Arbitrary<Required<DataAbort>> = fc.record({
    access: fc.option(
      fc.record({
        sas: fc.integer({ min: 0, max: 3 }),
        sse: flag,
        srt: fc.integer({ min: 0, max: 31 }),
        sf: flag,
        ar: flag,
      }),
      { nil: undefined },
    ),
    fnv: flag,
    ea: flag,
    cm: flag,
    s1ptw: flag,
    wnr: flag,
    fsc: fc.integer({ min: 0, max: 63 }),
    tagAccess: flag,
    tagNotData: flag,
  });

  it('decodeEsr: any Data Abort, its fields, and WnR where CM is set', () => {
    fc.assert(
      fc.property(abort, flag, (fields, fromLowerEl) => {
        const esr = dataAbortEsr(fields, fromLowerEl);
        const wnr = fields.wnr || fields.cm;
        expect(decodeEsr(BigInt(esr))).toEqual({ kind: 'data-abort', fromLowerEl, ...fields, wnr });
      }),
    );
  });

  it('decodeEsr: any Instruction Abort, its fields', () => {
    fc.assert(
      fc.property(abort, flag, ({ fnv, ea, s1ptw, fsc }, fromLowerEl) => {
        const fields = { fnv, ea, s1ptw, fsc };
        const esr = instructionAbortEsr(fields, fromLowerEl);
        expect(decodeEsr(BigInt(esr))).toEqual({
          kind: 'instruction-abort',
          fromLowerEl,
          ...fields,
        });
      }),
    );
  });

  it('decodeEsr: any trapped register access, its fields', () => {
    const u = (bits: number) => fc.integer({ min: 0, max: 2 ** bits - 1 });
    const trap = fc.record({
      op0: u(2),
      op1: u(3),
      crn: u(4),
      crm: u(4),
      op2: u(3),
      rt: u(5),
      read: flag,
    });
    fc.assert(
      fc.property(trap, (fields) => {
        expect(decodeEsr(BigInt(sysregTrapEsr(fields)))).toEqual({ kind: 'sysreg', ...fields });
      }),
    );
  });

  it('decodeEsr: calls and waits, their operands', () => {
    expect(decodeEsr(BigInt(callEsr(Ec.smc, 0xbeef)))).toEqual({
      kind: 'call',
      ec: Ec.smc,
      imm16: 0xbeef,
    });
    const wfx = { kind: 'wfx', instruction: WfxKind.wfet, rn: 7 };
    expect(decodeEsr(BigInt(wfxEsr(WfxKind.wfet, 7)))).toEqual(wfx);
    expect(esrEc(BigInt(sErrorEsr(0)))).toBe(Ec.sError);
  });

  const texts: [number, string][] = [
    [
      dataAbortEsr({ fsc: 0x06, wnr: true, access: { ...access, ar: true } }, true),
      'data abort (lower EL): write, translation fault, level 2, 32-bit, w1, ordered',
    ],
    [
      dataAbortEsr({ fsc: 0x0f, s1ptw: true }, false),
      'data abort: read, permission fault, level 3, on a stage 1 walk',
    ],
    [
      dataAbortEsr({ fsc: 0x15, cm: true, tagAccess: true }, false),
      'data abort: write, external abort on walk, level 1, by cache maintenance, for tag access',
    ],
    [
      dataAbortEsr({ fsc: 4, access: { sas: 1, sse: true, srt: 9, sf: true, ar: false } }, true),
      'data abort (lower EL): read, translation fault, level 0, signed 16-bit, x9',
    ],
    [
      instructionAbortEsr({ fsc: 0x0d, s1ptw: true }, false),
      'instruction abort: permission fault, level 1, on a stage 1 walk',
    ],
    [
      sysregTrapEsr({ op0: 3, op1: 3, crn: 14, crm: 2, op2: 1, rt: 0, read: false }),
      'MSR or MRS: MSR S3_3_C14_C2_1, x0',
    ],
    [callEsr(Ec.hvc, 1), 'HVC #0x1'],
    [wfxEsr(WfxKind.wfe), 'WFE'],
    [unknownEsr(), 'unknown reason'],
    [breakpointEsr(false), 'breakpoint: ISS 0x22'],
    [0x3f * 2 ** 26, 'EC 0x3f'],
  ];
  for (const [esr, text] of texts) {
    it(`describeEsr: 0x${esr.toString(16)}, ${text}`, () => {
      expect(describeEsr(BigInt(esr))).toBe(text);
    });
  }
});

describe('HPFAR_EL2', () => {
  it('HPFAR: IPA[47:12] at bits 39:4, back to the page', () => {
    expect(encodeHpfar(ipa(0x0900_0018))).toBe(0x9_0000n);
    expect(decodeHpfar(encodeHpfar(ipa(0xffff_ffff_ffff)))).toBe(0xffff_ffff_f000);
  });

  const cases: [string, 1 | 2, FaultType, boolean, boolean][] = [
    ['stage 2 translation', 2, FaultType.translation, false, true],
    ['stage 2 access flag', 2, FaultType.accessFlag, false, true],
    ['stage 2 address size', 2, FaultType.addressSize, false, true],
    ['stage 2 permission', 2, FaultType.permission, false, false],
    ['stage 2 permission on a walk', 2, FaultType.permission, true, true],
    ['stage 2 alignment', 2, FaultType.alignment, false, false],
    ['stage 2 external abort on a walk', 2, FaultType.externalAbortOnWalk, true, false],
    ['stage 1 translation', 1, FaultType.translation, false, false],
    ['tag check', 1, FaultType.tagCheck, false, false],
  ];
  for (const [name, stage, type, s1ptw, valid] of cases) {
    it(`hpfarIsValid: ${name}, ${valid ? 'valid' : 'UNKNOWN'}`, () => {
      expect(hpfarIsValid({ stage, type, s1ptw })).toBe(valid);
    });
  }
});
