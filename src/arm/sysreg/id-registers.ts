/**
 * What this CPU implements, once: `features`, and the identification registers computed from it. A
 * guest is told exactly what exists. The register table takes its constants from here; the decoder,
 * the walker and KVM ask `features`. Whether one VM hides a feature (MTE) is KVM's decision, not
 * kept here.
 */

import { assert } from '../../base/index.ts';

/** Features by Arm's names (FEAT_ dropped); a number where the architecture gives a size. */
export const features = {
  /** Half-precision arithmetic, scalar and vector; decides both ID fields and FPCR.FZ16. */
  FP16: true,
  AES: true,
  PMULL: true,
  SHA1: true,
  SHA256: true,
  SHA512: false,
  SHA3: false,
  SM3: false,
  SM4: false,
  CRC32: true,
  LSE: true,
  LSE2: false,
  RDM: true,
  DotProd: true,
  FHM: false,
  FCMA: false,
  JSCVT: false,
  BF16: false,
  I8MM: false,
  FRINTTS: false,
  LRCPC: true,
  LRCPC2: true,
  FlagM: true,
  FlagM2: false,
  DPB: true,
  DPB2: false,
  SB: false,
  SPECRES: false,
  RNG: false,
  TLBIOS: false,
  TLBIRANGE: false,
  PAuth: false,
  BTI: false,
  SSBS: false,
  CSV2: true,
  CSV3: true,
  SCXTNUM: false,
  DIT: true,
  RAS: false,
  IESB: false,
  SVE: false,
  SME: false,
  AMU: false,
  MPAM: false,
  SPE: false,
  TRBE: false,
  TraceRegisters: false,
  PMUv3: false,
  NMI: false,
  MTE: true,
  MTE2: true,
  MTE3: true,
  /** MTE's asynchronous faults (MTE_frac = 0). */
  MTEAsync: true,
  PAN: true,
  PAN2: true,
  PAN3: false,
  UAO: false,
  HAFDBS: true,
  HPDS: true,
  XNX: true,
  LOR: false,
  VHE: false,
  NV: false,
  ECV: false,
  FGT: false,
  ExS: false,
  TWED: false,
  ETS: false,
  TTCNP: false,
  TTST: false,
  TTL: false,
  BBM: false,
  EVT: false,
  E0PD: true,
  IDST: false,
  CCIDX: false,
  LVA: false,
  LPA2: false,
  TCR2: false,
  S1PIE: false,
  /** AArch32 at EL0 or EL1. */
  AArch32: false,
  /** The GIC's CPU interface as system registers (GICv3). */
  GICv3: true,
  TGran4: true,
  TGran16: true,
  TGran64: true,
  /** Output addresses of stage 1, in bits. */
  paBits: 48,
  asidBits: 16,
  vmidBits: 8,
  breakpoints: 6,
  watchpoints: 4,
  contextBreakpoints: 2,
  /** log2 of the words in what DC ZVA, DC GVA and DC GZVA cover: 64 bytes. */
  dczidBlockLog2Words: 4,
  /** log2 of the words in what LDGM and STGM cover: 256 bytes. */
  gmidBlockLog2Words: 6,
} as const satisfies Readonly<Record<string, boolean | number>>;

export type FeatureName = keyof typeof features;
/**
 * Whether the CPU has a feature given by its full name ('FEAT_LSE'), as instruction rows carry it.
 * A name that `features` does not know is our bug: everything that can be asked for is listed
 * there.
 */
export function hasFeature(name: `FEAT_${string}`): boolean {
  const value = Object.entries(features).find(([key]) => `FEAT_${key}` === name)?.[1];
  assert(typeof value === 'boolean', 'unknown feature');
  return value;
}

/** Features that one VM can be without although the CPU has them. */
export type VmFeature = 'MTE';

type Field = readonly [lowBit: number, value: boolean | number];

/** Four-bit ID fields put together; `true` is 1, negative numbers are taken modulo 16. */
const idValue = (...fields: readonly Field[]): bigint =>
  fields.reduce((word, [low, value]) => word | (BigInt(Number(value) & 0xf) << BigInt(low)), 0n);

/** A field that counts up: the number of leading `steps` that hold. */
const level = (...steps: readonly boolean[]): number => {
  const first = steps.indexOf(false);
  return first === -1 ? steps.length : first;
};

const f: Readonly<Record<FeatureName, boolean | number>> = features;
const has = (name: FeatureName): boolean => f[name] === true;
/** Arm's encoding of FP and AdvSIMD: both are always there. */
const floatingPoint = has('FP16') ? 1 : 0;
const PA_RANGE: Readonly<Record<number, number>> = {
  32: 0,
  36: 1,
  40: 2,
  42: 3,
  44: 4,
  48: 5,
  52: 6,
};

/** Values of the AArch64 ID registers that are not zero, all features of the CPU shown. */
export const idRegisterValues = {
  ID_AA64PFR0_EL1: idValue(
    [0, has('AArch32') ? 2 : 1],
    [4, has('AArch32') ? 2 : 1],
    [16, floatingPoint],
    [20, floatingPoint],
    [24, has('GICv3')],
    [28, has('RAS')],
    [32, has('SVE')],
    [40, has('MPAM')],
    [44, has('AMU')],
    [48, has('DIT')],
    [56, level(has('CSV2'), has('SCXTNUM'))],
    [60, has('CSV3')],
  ),
  ID_AA64PFR1_EL1: idValue(
    [0, has('BTI')],
    [4, has('SSBS') ? 2 : 0],
    [8, level(has('MTE'), has('MTE2'), has('MTE3'))],
    [24, has('SME')],
    [28, has('RNG')],
    [36, has('NMI')],
    [40, has('MTE2') && !has('MTEAsync') ? -1 : 0],
  ),
  ID_AA64DFR0_EL1: idValue(
    [0, 6],
    [4, has('TraceRegisters')],
    [8, has('PMUv3')],
    [12, features.breakpoints - 1],
    [20, features.watchpoints - 1],
    [28, features.contextBreakpoints - 1],
    [32, has('SPE')],
    [44, has('TRBE')],
  ),
  ID_AA64ISAR0_EL1: idValue(
    [4, level(has('AES'), has('PMULL'))],
    [8, has('SHA1')],
    [12, level(has('SHA256'), has('SHA512'))],
    [16, has('CRC32')],
    [20, has('LSE') ? 2 : 0],
    [28, has('RDM')],
    [32, has('SHA3')],
    [36, has('SM3')],
    [40, has('SM4')],
    [44, has('DotProd')],
    [48, has('FHM')],
    [52, level(has('FlagM'), has('FlagM2'))],
    [56, level(has('TLBIOS'), has('TLBIRANGE'))],
    [60, has('RNG')],
  ),
  ID_AA64ISAR1_EL1: idValue(
    [0, level(has('DPB'), has('DPB2'))],
    [4, has('PAuth')],
    [12, has('JSCVT')],
    [16, has('FCMA')],
    [20, level(has('LRCPC'), has('LRCPC2'))],
    [24, has('PAuth')],
    [32, has('FRINTTS')],
    [36, has('SB')],
    [40, has('SPECRES')],
    [44, has('BF16')],
    [52, has('I8MM')],
  ),
  ID_AA64MMFR0_EL1: idValue(
    [0, PA_RANGE[features.paBits] ?? 0],
    [4, features.asidBits === 16 ? 2 : 0],
    [20, has('TGran16')],
    [24, has('TGran64') ? 0 : -1],
    [28, has('TGran4') ? 0 : -1],
    [44, has('ExS')],
    [56, has('FGT')],
    [60, has('ECV')],
  ),
  ID_AA64MMFR1_EL1: idValue(
    [0, has('HAFDBS') ? 2 : 0],
    [4, features.vmidBits > 8 ? 2 : 0],
    [8, has('VHE')],
    [12, has('HPDS')],
    [16, has('LOR')],
    [20, level(has('PAN'), has('PAN2'), has('PAN3'))],
    [28, has('XNX')],
    [32, has('TWED')],
    [36, has('ETS')],
  ),
  ID_AA64MMFR2_EL1: idValue(
    [0, has('TTCNP')],
    [4, has('UAO')],
    [12, has('IESB')],
    [16, has('LVA')],
    [20, has('CCIDX')],
    [24, has('NV')],
    [28, has('TTST')],
    [32, has('LSE2')],
    [36, has('IDST')],
    [48, has('TTL')],
    [52, has('BBM')],
    [56, has('EVT')],
    [60, has('E0PD')],
  ),
  ID_AA64MMFR3_EL1: idValue([0, has('TCR2')], [8, has('S1PIE')]),
} as const satisfies Readonly<Record<string, bigint>>;

/** ID_AA64PFR1_EL1.MTE and MTE_frac: what KVM clears for a VM without MTE. */
export const ID_AA64PFR1_MTE_MASK = 0x0000_0f00_0000_0f00n;
