/** The register table: encodings, slots, access rules and masks are consistent with each other. */
import { describe, expect, it, test } from 'vitest';
import {
  CCSIDR_COUNT,
  ccsidrSlot,
  decodeKey,
  ENCODING_COUNT,
  encodingKey,
  encodingKeyOfOpcode,
  features,
  findSystemRegister,
  findSystemRegisterByName,
  genericName,
  keyOfGenericName,
  SYSTEM_REGISTER_SLOT_COUNT,
  type SystemRegisterName,
  slotOf,
  systemRegister,
  systemRegisterName,
  systemRegisters,
} from './index.ts';

describe('encodings', () => {
  it('encodingKey: every key, decodeKey is its inverse', () => {
    for (let key = 0; key < ENCODING_COUNT; key++) {
      const { op0, op1, crn, crm, op2 } = decodeKey(key);
      if (encodingKey(op0, op1, crn, crm, op2) !== key) expect.fail(`key ${key}`);
    }
  });

  it('encodingKey: a field too large, refused', () => {
    expect(() => encodingKey(4, 0, 0, 0, 0)).toThrow('too large');
    expect(() => encodingKey(3, 0, 0, 16, 0)).toThrow('too large');
  });

  // Opcodes as GNU as assembles them, Rt = 0.
  test.each<[number, SystemRegisterName]>([
    [0xd538_1000, 'SCTLR_EL1'],
    [0xd538_10c0, 'GCR_EL1'],
    [0xd518_10a0, 'RGSR_EL1'],
    [0xd538_5600, 'TFSR_EL1'],
    [0xd538_5620, 'TFSRE0_EL1'],
    [0xd539_0080, 'GMID_EL1'],
    [0xd53b_42e0, 'TCO'],
    [0xd53b_e040, 'CNTVCT_EL0'],
    [0xd538_0740, 'ID_AA64MMFR2_EL1'],
    [0xd510_0240, 'MDSCR_EL1'],
    [0xd538_cc00, 'ICC_IAR1_EL1'],
  ])('encodingKeyOfOpcode: %i, %s', (opcode, name) => {
    expect(findSystemRegister(encodingKeyOfOpcode(opcode))?.name).toBe(name);
  });

  it('keyOfGenericName: every key, genericName is its inverse', () => {
    for (let key = 0; key < ENCODING_COUNT; key += 7) {
      if (keyOfGenericName(genericName(key)) !== key) expect.fail(genericName(key));
    }
    expect(keyOfGenericName('s3_0_c1_c0_0')).toBe(systemRegister('SCTLR_EL1').key);
  });

  test.each(['SCTLR_EL1', 'S3_0_C16_C0_0', 'S4_0_C0_C0_0', 'S3_8_C0_C0_0', 'S3_0_C0_C0', ''])(
    'keyOfGenericName: %j, -1',
    (name) => expect(keyOfGenericName(name)).toBe(-1),
  );

  it('names: found in any case, those without a row spelled generically', () => {
    expect(findSystemRegisterByName('tpidr_el0')?.name).toBe('TPIDR_EL0');
    expect(findSystemRegisterByName('spsel')?.name).toBe('SPSel');
    expect(findSystemRegisterByName('nonsense_el1')).toBeUndefined();
    expect(systemRegisterName(encodingKey(3, 0, 11, 0, 0))).toBe('S3_0_C11_C0_0');
  });
});

describe('rows', () => {
  it('slots: dense, distinct, CCSIDR_EL1 values behind them', () => {
    const slots = systemRegisters.map(({ slot }) => slot).filter((slot) => slot >= 0);
    expect(slots).toEqual(slots.map((_, index) => index));
    expect(ccsidrSlot(0)).toBe(slots.length);
    expect(ccsidrSlot(CCSIDR_COUNT - 1)).toBe(SYSTEM_REGISTER_SLOT_COUNT - 1);
    expect(slotOf.SCTLR_EL1).toBe(systemRegister('SCTLR_EL1').slot);
  });

  test.each(systemRegisters)('$name: kind, slot, access and masks agree', (register) => {
    const { kind, slot, read, write, key, op0, op1, crn, crm, op2 } = register;
    expect(key).toBe(encodingKey(op0, op1, crn, crm, op2));
    expect(op0).toBeGreaterThanOrEqual(2);
    if (kind === 'plain' || kind === 'constant') expect(slot).toBeGreaterThanOrEqual(0);
    if (kind === 'ignored') expect(slot).toBe(-1);
    if (kind === 'constant') expect(write).toBe('none');
    if (kind === 'computed' && (read !== 'none' || write !== 'none')) {
      expect(register.effect).toBeDefined();
    }
    if (register.kvm !== undefined) expect(slot).toBeGreaterThanOrEqual(0);
    expect(register.reset).toBe(BigInt.asUintN(64, register.reset));
    expect(register.writable).toBe(BigInt.asUintN(64, register.writable));
    if (register.el0 !== undefined) {
      expect(read === 0 || write === 0).toBe(true);
      expect(systemRegister(register.el0.register).kind).toBe('plain');
    }
  });

  it('names that end in _EL1: never open to EL0; those in _EL0: not closed to EL1', () => {
    for (const { name, read, write } of systemRegisters) {
      if (name.endsWith('_EL1')) expect([name, read === 0 || write === 0]).toEqual([name, false]);
    }
  });

  it('ID space: CRm 1 to 7 are readable constants, whatever op2', () => {
    for (let crm = 1; crm <= 7; crm++) {
      for (let op2 = 0; op2 < 8; op2++) {
        const register = findSystemRegister(encodingKey(3, 0, 0, crm, op2));
        expect(register).toMatchObject({ kind: 'constant', read: 1, write: 'none' });
      }
    }
  });

  test.each<SystemRegisterName>([
    'LORC_EL1',
    'ERRIDR_EL1',
    'DISR_EL1',
    'PMCR_EL0',
    'APIAKeyLo_EL1',
    'ZCR_EL1',
    'TCR2_EL1',
    'PIR_EL1',
    'UAO',
    'SSBS',
    'RNDR',
    'CNTVCTSS_EL0',
    'SP_EL1',
    'DBGVCR32_EL2',
    'OSECCR_EL1',
  ])('%s: named, and UNDEFINED', (name) => {
    expect(systemRegister(name)).toMatchObject({ read: 'none', write: 'none' });
  });

  it('debug registers: as many as the ID register counts, storage for all sixteen', () => {
    const readable = (prefix: string): number =>
      systemRegisters.filter(({ name, read }) => name.startsWith(prefix) && read === 1).length;
    expect(readable('DBGBVR')).toBe(features.breakpoints);
    expect(readable('DBGBCR')).toBe(features.breakpoints);
    expect(readable('DBGWVR')).toBe(features.watchpoints);
    expect(readable('DBGWCR')).toBe(features.watchpoints);
    expect(slotOf.DBGBVR15_EL1).toBeGreaterThanOrEqual(0);
  });

  it('memory tagging: the five registers that a VM can hide, and no other', () => {
    const hidden = systemRegisters.filter(({ feature }) => feature === 'MTE');
    expect(hidden.map(({ name }) => name)).toEqual([
      'RGSR_EL1',
      'GCR_EL1',
      'TFSR_EL1',
      'TFSRE0_EL1',
      'GMID_EL1',
    ]);
  });
});

describe('writable bits', () => {
  const bitsOf = (name: SystemRegisterName): bigint => systemRegister(name).writable;

  test.each<[SystemRegisterName, string, bigint]>([
    ['SCTLR_EL1', 'M, C, I', (1n << 0n) | (1n << 2n) | (1n << 12n)],
    ['SCTLR_EL1', 'ITFSB, TCF0, TCF, ATA0, ATA', 0xfe0_0000_0000n & ~(1n << 36n)],
    ['SCTLR_EL1', 'its reset value', 0x00c5_0078n],
    ['TCR_EL1', 'HA, HD, HPD0, HPD1', 0xfn << 39n],
    ['TCR_EL1', 'TCMA0, TCMA1', 3n << 57n],
    ['TCR_EL1', 'TBI0, TBI1, AS', 7n << 36n],
    ['CPACR_EL1', 'FPEN', 3n << 20n],
    ['GCR_EL1', 'Exclude, RRND', 0x1_ffffn],
  ])('%s: keeps %s', (name, _, kept) => {
    expect(bitsOf(name) & kept).toBe(kept);
  });

  test.each<[SystemRegisterName, string, bigint]>([
    ['SCTLR_EL1', 'EE, E0E (no big-endian data)', (1n << 25n) | (1n << 24n)],
    ['SCTLR_EL1', 'EnIA, EnIB, EnDA, EnDB (no PAuth)', 0xc800_2000n],
    ['SCTLR_EL1', 'BT0, BT1, DSSBS, EPAN', (3n << 35n) | (1n << 44n) | (1n << 57n)],
    ['TCR_EL1', 'TBID0, TBID1 (no PAuth)', 3n << 51n],
    ['TCR_EL1', 'DS, bits 6 and 35', (1n << 59n) | (1n << 35n) | 0x40n],
    ['TTBR0_EL1', 'CnP', 1n],
    ['VBAR_EL1', 'bits 10:0', 0x7ffn],
    ['TFSR_EL1', 'all but TF0 and TF1', ~3n & 0xffff_ffff_ffff_ffffn],
    ['RGSR_EL1', 'bits 7:4', 0xf0n],
    ['ACTLR_EL1', 'all', 0xffff_ffff_ffff_ffffn],
  ])('%s: %s are RES0', (name, _, res0) => {
    expect(bitsOf(name) & res0).toBe(0n);
  });
});
