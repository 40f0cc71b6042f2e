/**
 * ID register values: every field is what `features` says, and nothing that is not there is shown.
 */
import { describe, expect, it, test } from 'vitest';
import { bits } from '../../base/index.ts';
import {
  features,
  hasFeature,
  ID_AA64PFR1_MTE_MASK,
  idRegisterValues,
  systemRegister,
} from './index.ts';

type IdName = keyof typeof idRegisterValues;

describe('fields that are not zero', () => {
  const fields: readonly [IdName, string, number, number][] = [
    ['ID_AA64PFR0_EL1', 'EL0: AArch64 only', 0, 1],
    ['ID_AA64PFR0_EL1', 'EL1: AArch64 only', 4, 1],
    ['ID_AA64PFR0_EL1', 'FP', 16, features.FP16 ? 1 : 0],
    ['ID_AA64PFR0_EL1', 'AdvSIMD', 20, features.FP16 ? 1 : 0],
    ['ID_AA64PFR0_EL1', 'GIC', 24, 1],
    ['ID_AA64PFR0_EL1', 'DIT', 48, 1],
    ['ID_AA64PFR0_EL1', 'CSV2', 56, 1],
    ['ID_AA64PFR0_EL1', 'CSV3', 60, 1],
    ['ID_AA64PFR1_EL1', 'MTE: synchronous, asynchronous, asymmetric', 8, 3],
    ['ID_AA64DFR0_EL1', 'DebugVer: Armv8', 0, 6],
    ['ID_AA64DFR0_EL1', 'BRPs: 6', 12, 5],
    ['ID_AA64DFR0_EL1', 'WRPs: 4', 20, 3],
    ['ID_AA64DFR0_EL1', 'CTX_CMPs: 2', 28, 1],
    ['ID_AA64ISAR0_EL1', 'AES and PMULL', 4, 2],
    ['ID_AA64ISAR0_EL1', 'SHA1', 8, 1],
    ['ID_AA64ISAR0_EL1', 'SHA2: SHA256', 12, 1],
    ['ID_AA64ISAR0_EL1', 'CRC32', 16, 1],
    ['ID_AA64ISAR0_EL1', 'Atomic: LSE', 20, 2],
    ['ID_AA64ISAR0_EL1', 'RDM', 28, 1],
    ['ID_AA64ISAR0_EL1', 'DP', 44, 1],
    ['ID_AA64ISAR0_EL1', 'TS: FlagM', 52, 1],
    ['ID_AA64ISAR1_EL1', 'DPB', 0, 1],
    ['ID_AA64ISAR1_EL1', 'LRCPC: level 2', 20, 2],
    ['ID_AA64ISAR1_EL1', 'SB', 36, features.SB ? 1 : 0],
    ['ID_AA64MMFR0_EL1', 'PARange: 48 bits', 0, 5],
    ['ID_AA64MMFR0_EL1', 'ASIDBits: 16', 4, 2],
    ['ID_AA64MMFR0_EL1', 'TGran16: supported', 20, 1],
    ['ID_AA64MMFR1_EL1', 'HAFDBS: access flag and dirty state', 0, 2],
    ['ID_AA64MMFR1_EL1', 'HPDS', 12, 1],
    ['ID_AA64MMFR1_EL1', 'PAN: with AT S1E1RP', 20, 2],
    ['ID_AA64MMFR1_EL1', 'XNX', 28, 1],
    ['ID_AA64MMFR2_EL1', 'E0PD', 60, 1],
  ];

  test.each(fields)('%s.%s', (name, _, low, expected) => {
    expect(bits(idRegisterValues[name], low + 3, low)).toBe(BigInt(expected));
  });

  it('all registers: no other field is set', () => {
    for (const name of Object.keys(idRegisterValues) as IdName[]) {
      const known = fields
        .filter(([register]) => register === name)
        .reduce((word, [, , low, value]) => word | (BigInt(value) << BigInt(low)), 0n);
      expect([name, idRegisterValues[name]]).toEqual([name, known]);
    }
  });
});

describe('hasFeature', () => {
  it('by its full name: there, not there, unknown', () => {
    expect(hasFeature('FEAT_LSE')).toBe(true);
    expect(hasFeature('FEAT_SVE')).toBe(false);
    expect(() => hasFeature('FEAT_Nonsense')).toThrow('unknown feature');
    expect(() => hasFeature('FEAT_paBits')).toThrow('unknown feature');
  });
});

describe('consistency', () => {
  it('MTE mask: what a VM without MTE loses is MTE alone', () => {
    expect(idRegisterValues.ID_AA64PFR1_EL1 & ~ID_AA64PFR1_MTE_MASK).toBe(0n);
  });

  it('AArch32 ID registers: zero', () => {
    for (const name of ['ID_PFR0_EL1', 'ID_ISAR0_EL1', 'ID_MMFR0_EL1', 'MVFR0_EL1'] as const) {
      expect(systemRegister(name).reset).toBe(0n);
    }
  });

  it('GMID_EL1 and DCZID_EL0: the block sizes of LDGM and DC ZVA', () => {
    expect(4 * 2 ** Number(systemRegister('GMID_EL1').reset)).toBe(256);
    expect(4 * 2 ** Number(systemRegister('DCZID_EL0').reset)).toBe(64);
  });

  it('levels: a later step is never there without the earlier ones', () => {
    expect(!features.MTE3 || features.MTE2).toBe(true);
    expect(!features.PMULL || features.AES).toBe(true);
    expect(!features.PAN2 || features.PAN).toBe(true);
    expect(!features.LRCPC2 || features.LRCPC).toBe(true);
    expect(!features.FlagM2 || features.FlagM).toBe(true);
    expect(!features.DPB2 || features.DPB).toBe(true);
  });
});
