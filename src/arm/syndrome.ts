/**
 * Exception syndromes: fault status codes, ESR_ELx for every exception class the machine raises,
 * HPFAR_EL2, and all of them back to fields and words. Pure functions; when an exception is taken
 * and where to is `machine/exceptions.ts`.
 *
 * ESR_ELx: EC 31:26, IL 25, ISS 24:0, ISS2 55:32. The words made here are non-negative numbers: no
 * field of ISS2 that the machine sets lies above bit 42. Stored to an i32 view they are
 * ESR_ELx[31:0].
 */
import { assert, bits, hex, type Ipa, ipa } from '../base/index.ts';

/** What failed. The numbers are ours; `encodeFsc` gives the architecture's. */
export const FaultType = {
  none: 0,
  addressSize: 1,
  translation: 2,
  accessFlag: 3,
  permission: 4,
  alignment: 5,
  tagCheck: 6,
  externalAbort: 7,
  /** External abort on the fetch or update of a descriptor. */
  externalAbortOnWalk: 8,
  debug: 9,
  tlbConflict: 10,
  unsupportedAtomicUpdate: 11,
  /** Unsupported exclusive or atomic access. */
  exclusive: 12,
} as const;
export type FaultType = (typeof FaultType)[keyof typeof FaultType];

export const FAULT_NAME = [
  'none',
  'address size',
  'translation',
  'access flag',
  'permission',
  'alignment',
  'tag check',
  'external abort',
  'external abort on walk',
  'debug',
  'TLB conflict',
  'unsupported atomic hardware update',
  'unsupported exclusive',
] as const;

/** DFSC/IFSC of the faults that carry a level, for levels -1 to 3. */
const LEVELLED: readonly { type: FaultType; base: number; minusOne: number }[] = [
  { type: FaultType.addressSize, base: 0b000000, minusOne: 0b101001 },
  { type: FaultType.translation, base: 0b000100, minusOne: 0b101011 },
  { type: FaultType.accessFlag, base: 0b001000, minusOne: -1 },
  { type: FaultType.permission, base: 0b001100, minusOne: -1 },
  { type: FaultType.externalAbortOnWalk, base: 0b010100, minusOne: 0b010011 },
];

const UNLEVELLED: readonly { type: FaultType; code: number }[] = [
  { type: FaultType.externalAbort, code: 0b010000 },
  { type: FaultType.tagCheck, code: 0b010001 },
  { type: FaultType.alignment, code: 0b100001 },
  { type: FaultType.debug, code: 0b100010 },
  { type: FaultType.tlbConflict, code: 0b110000 },
  { type: FaultType.unsupportedAtomicUpdate, code: 0b110001 },
  { type: FaultType.exclusive, code: 0b110101 },
];

/** DFSC or IFSC of a fault; `level` (-1 … 3) counts where a code has one. Arm: EncodeLDFSC(). */
export function encodeFsc(type: FaultType, level = 0): number {
  for (const row of LEVELLED) {
    if (row.type === type) return level < 0 ? row.minusOne : row.base + level;
  }
  for (const row of UNLEVELLED) if (row.type === type) return row.code;
  assert(false, 'a fault type with a status code');
}

/** The fault a DFSC or IFSC stands for, or undefined for codes the machine never produces. */
export function decodeFsc(fsc: number): { type: FaultType; level: number | undefined } | undefined {
  for (const { type, base, minusOne } of LEVELLED) {
    if (fsc === minusOne) return { type, level: -1 };
    if (fsc >= base && fsc < base + 4) return { type, level: fsc - base };
  }
  const row = UNLEVELLED.find((r) => r.code === fsc);
  return row && { type: row.type, level: undefined };
}

/** ESR_ELx.EC values the machine takes, reports or decodes. "Low" is from a lower EL. */
export const Ec = {
  unknown: 0x00,
  wfx: 0x01,
  fpAccess: 0x07,
  pauthTrap: 0x09,
  branchTarget: 0x0d,
  illegalState: 0x0e,
  svc: 0x15,
  hvc: 0x16,
  smc: 0x17,
  sysreg: 0x18,
  sveAccess: 0x19,
  pauthFail: 0x1c,
  instructionAbortLow: 0x20,
  instructionAbort: 0x21,
  pcAlignment: 0x22,
  dataAbortLow: 0x24,
  dataAbort: 0x25,
  spAlignment: 0x26,
  fpException: 0x2c,
  sError: 0x2f,
  breakpointLow: 0x30,
  breakpoint: 0x31,
  softwareStepLow: 0x32,
  softwareStep: 0x33,
  watchpointLow: 0x34,
  watchpoint: 0x35,
  brk: 0x3c,
} as const;
export type Ec = (typeof Ec)[keyof typeof Ec];

const EC_NAME: Readonly<Record<number, string>> = {
  [Ec.unknown]: 'unknown reason',
  [Ec.wfx]: 'WFI or WFE',
  [Ec.fpAccess]: 'FP access',
  [Ec.pauthTrap]: 'pointer authentication trap',
  [Ec.branchTarget]: 'branch target',
  [Ec.illegalState]: 'illegal execution state',
  [Ec.svc]: 'SVC',
  [Ec.hvc]: 'HVC',
  [Ec.smc]: 'SMC',
  [Ec.sysreg]: 'MSR or MRS',
  [Ec.sveAccess]: 'SVE access',
  [Ec.pauthFail]: 'pointer authentication failure',
  [Ec.instructionAbortLow]: 'instruction abort (lower EL)',
  [Ec.instructionAbort]: 'instruction abort',
  [Ec.pcAlignment]: 'PC alignment',
  [Ec.dataAbortLow]: 'data abort (lower EL)',
  [Ec.dataAbort]: 'data abort',
  [Ec.spAlignment]: 'SP alignment',
  [Ec.fpException]: 'FP exception',
  [Ec.sError]: 'SError',
  [Ec.breakpointLow]: 'breakpoint (lower EL)',
  [Ec.breakpoint]: 'breakpoint',
  [Ec.softwareStepLow]: 'software step (lower EL)',
  [Ec.softwareStep]: 'software step',
  [Ec.watchpointLow]: 'watchpoint (lower EL)',
  [Ec.watchpoint]: 'watchpoint',
  [Ec.brk]: 'BRK',
};

const ESR_IL = 1 << 25;
const flag = (value: boolean | undefined, bit: number): number => (value ? 2 ** bit : 0);
const isSet = (iss: number, bit: number): boolean => (iss & (1 << bit)) !== 0;
const field = (iss: number, hi: number, lo: number): number =>
  (iss >>> lo) & ((1 << (hi - lo + 1)) - 1);

/** ESR_ELx from its class and ISS; IL is 1, as it is for every exception A64 code can cause. */
export const makeEsr = (ec: Ec, iss = 0, iss2 = 0): number =>
  iss2 * 2 ** 32 + ec * 2 ** 26 + (ESR_IL | iss);

export const esrEc = (esr: bigint): number => Number(bits(esr, 31, 26));
export const esrIss = (esr: bigint): number => Number(bits(esr, 24, 0));
export const esrIss2 = (esr: bigint): number => Number(bits(esr, 55, 32));

/**
 * The load or store behind a stage 2 Data Abort (ISS with ISV = 1): one general-purpose register,
 * no writeback, no pair, no exclusive.
 */
export interface LoadStoreSyndrome {
  /** log2 of the access size in bytes, 0 … 3. */
  readonly sas: number;
  /** The load sign-extends. */
  readonly sse: boolean;
  /** Transfer register; 31 = XZR. */
  readonly srt: number;
  /** The register is 64 bits wide. */
  readonly sf: boolean;
  /** Acquire or release. */
  readonly ar: boolean;
}

/** The fields of a Data Abort syndrome; absent ones are 0. */
export interface DataAbort {
  /** ISV = 1 and what goes with it. */
  readonly access?: LoadStoreSyndrome | undefined;
  /** FAR_ELx does not hold the address (external aborts not on a walk). */
  readonly fnv?: boolean;
  /** External abort type, IMPLEMENTATION DEFINED. */
  readonly ea?: boolean;
  /** Cache maintenance or address translation instruction; such an abort reports WnR = 1. */
  readonly cm?: boolean;
  /** Stage 2 fault on the fetch or update of a stage 1 descriptor. */
  readonly s1ptw?: boolean;
  readonly wnr?: boolean;
  /** DFSC, from `encodeFsc`. */
  readonly fsc: number;
  /** ISS2: the fault is for access to tags (FEAT_MTE_PERM NoTagAccess). */
  readonly tagAccess?: boolean;
  /** ISS2: the permission fault is stage 1's, on a tag store (FEAT_MTE_CANONICAL_TAGS). */
  readonly tagNotData?: boolean;
}

/** ISS2 bits of aborts (bit 32 of ESR_ELx is bit 0 here). */
const ISS2_TAG_ACCESS = 9;
const ISS2_TND = 10;

/** ISS of a Data Abort. Arm: AArch64.FaultSyndrome(), LSInstructionSyndrome(). */
export function dataAbortIss(abort: DataAbort): number {
  const { access } = abort;
  const instruction =
    access === undefined
      ? 0
      : (1 << 24) |
        (access.sas << 22) |
        flag(access.sse, 21) |
        (access.srt << 16) |
        flag(access.sf, 15) |
        flag(access.ar, 14);
  return (
    instruction |
    flag(abort.fnv, 10) |
    flag(abort.ea, 9) |
    flag(abort.cm, 8) |
    flag(abort.s1ptw, 7) |
    flag(abort.wnr || abort.cm, 6) |
    abort.fsc
  );
}

/** ESR_ELx of a Data Abort taken from a lower EL or from the EL it is taken to. */
export const dataAbortEsr = (abort: DataAbort, fromLowerEl: boolean): number =>
  makeEsr(
    fromLowerEl ? Ec.dataAbortLow : Ec.dataAbort,
    dataAbortIss(abort),
    flag(abort.tagAccess, ISS2_TAG_ACCESS) | flag(abort.tagNotData, ISS2_TND),
  );

/** The fields of an Instruction Abort syndrome; absent ones are 0. */
export type InstructionAbort = Pick<DataAbort, 'fnv' | 'ea' | 's1ptw' | 'fsc'>;

export const instructionAbortEsr = (abort: InstructionAbort, fromLowerEl: boolean): number =>
  makeEsr(
    fromLowerEl ? Ec.instructionAbortLow : Ec.instructionAbort,
    flag(abort.fnv, 10) | flag(abort.ea, 9) | flag(abort.s1ptw, 7) | abort.fsc,
  );

/** A trapped MSR, MRS or System instruction. */
export interface SysregTrap {
  readonly op0: number;
  readonly op1: number;
  readonly crn: number;
  readonly crm: number;
  readonly op2: number;
  readonly rt: number;
  /** MRS (or SYSL); otherwise MSR (or SYS). */
  readonly read: boolean;
}

export const sysregTrapEsr = (trap: SysregTrap): number =>
  makeEsr(
    Ec.sysreg,
    (trap.op0 << 20) |
      (trap.op2 << 17) |
      (trap.op1 << 14) |
      (trap.crn << 10) |
      (trap.rt << 5) |
      (trap.crm << 1) |
      flag(trap.read, 0),
  );

/** CV = 1 and COND = 0b1110: A64 instructions report the condition "always". */
const CONDITION_ALWAYS = 0x1e << 20;

/** Which instruction of EC 0x01. */
export const WfxKind = { wfi: 0, wfe: 1, wfit: 2, wfet: 3 } as const;
export type WfxKind = (typeof WfxKind)[keyof typeof WfxKind];

/** `rn` is the timeout register of WFIT and WFET. */
export const wfxEsr = (kind: WfxKind, rn?: number): number =>
  makeEsr(Ec.wfx, CONDITION_ALWAYS | (rn === undefined ? 0 : (rn << 5) | (1 << 2)) | kind);

/** Access to Advanced SIMD or FP trapped by CPACR_EL1.FPEN or CPTR_EL2. */
export const fpAccessEsr = (): number => makeEsr(Ec.fpAccess, CONDITION_ALWAYS);

/** SVC, HVC and SMC report their 16-bit immediate. */
export const callEsr = (ec: typeof Ec.svc | typeof Ec.hvc | typeof Ec.smc, imm16: number): number =>
  makeEsr(ec, imm16);

export const brkEsr = (imm16: number): number => makeEsr(Ec.brk, imm16);
/** An UNDEFINED instruction, or another with no class of its own. */
export const unknownEsr = (): number => makeEsr(Ec.unknown);
export const illegalStateEsr = (): number => makeEsr(Ec.illegalState);
export const pcAlignmentEsr = (): number => makeEsr(Ec.pcAlignment);
export const spAlignmentEsr = (): number => makeEsr(Ec.spAlignment);

const FSC_DEBUG = 0b100010;

export const breakpointEsr = (fromLowerEl: boolean): number =>
  makeEsr(fromLowerEl ? Ec.breakpointLow : Ec.breakpoint, FSC_DEBUG);

/** `exclusive`: the stepped instruction was a Load-Exclusive; undefined = not known (ISV = 0). */
export const softwareStepEsr = (fromLowerEl: boolean, exclusive?: boolean): number =>
  makeEsr(
    fromLowerEl ? Ec.softwareStepLow : Ec.softwareStep,
    (exclusive === undefined ? 0 : (1 << 24) | flag(exclusive, 6)) | FSC_DEBUG,
  );

export const watchpointEsr = (
  watch: { readonly wnr: boolean; readonly cm?: boolean },
  fromLowerEl: boolean,
): number =>
  makeEsr(
    fromLowerEl ? Ec.watchpointLow : Ec.watchpoint,
    flag(watch.cm, 8) | flag(watch.wnr || watch.cm, 6) | FSC_DEBUG,
  );

/** ISS of an SError: IDS, the rest is IMPLEMENTATION DEFINED, as it always is without FEAT_RAS. */
export const SERROR_IDS = 1 << 24;

/** An SError with the syndrome given, as VSESR_EL2 does (24:0). */
export const sErrorEsr = (iss: number): number => makeEsr(Ec.sError, iss);

/** An exception syndrome taken apart. */
export type Syndrome =
  | ({ readonly kind: 'data-abort'; readonly fromLowerEl: boolean } & Required<DataAbort>)
  | ({
      readonly kind: 'instruction-abort';
      readonly fromLowerEl: boolean;
    } & Required<InstructionAbort>)
  | ({ readonly kind: 'sysreg' } & SysregTrap)
  | { readonly kind: 'call'; readonly ec: number; readonly imm16: number }
  | { readonly kind: 'wfx'; readonly instruction: WfxKind; readonly rn: number | undefined }
  | { readonly kind: 'other'; readonly ec: number; readonly iss: number };

function decodeDataAbort(iss: number, iss2: number): Required<DataAbort> {
  const access: LoadStoreSyndrome | undefined = !isSet(iss, 24)
    ? undefined
    : {
        sas: field(iss, 23, 22),
        sse: isSet(iss, 21),
        srt: field(iss, 20, 16),
        sf: isSet(iss, 15),
        ar: isSet(iss, 14),
      };
  return {
    access,
    fnv: isSet(iss, 10),
    ea: isSet(iss, 9),
    cm: isSet(iss, 8),
    s1ptw: isSet(iss, 7),
    wnr: isSet(iss, 6),
    fsc: iss & 0x3f,
    tagAccess: isSet(iss2, ISS2_TAG_ACCESS),
    tagNotData: isSet(iss2, ISS2_TND),
  };
}

/** ESR_ELx taken apart; classes without fields of interest come back as `other` with their ISS. */
export function decodeEsr(esr: bigint): Syndrome {
  const ec = esrEc(esr);
  const iss = esrIss(esr);
  switch (ec) {
    case Ec.dataAbort:
    case Ec.dataAbortLow: {
      const fromLowerEl = ec === Ec.dataAbortLow;
      return { kind: 'data-abort', fromLowerEl, ...decodeDataAbort(iss, esrIss2(esr)) };
    }
    case Ec.instructionAbort:
    case Ec.instructionAbortLow: {
      const { fnv, ea, s1ptw, fsc } = decodeDataAbort(iss, 0);
      const fromLowerEl = ec === Ec.instructionAbortLow;
      return { kind: 'instruction-abort', fromLowerEl, fnv, ea, s1ptw, fsc };
    }
    case Ec.sysreg:
      return {
        kind: 'sysreg',
        op0: field(iss, 21, 20),
        op1: field(iss, 16, 14),
        crn: field(iss, 13, 10),
        crm: field(iss, 4, 1),
        op2: field(iss, 19, 17),
        rt: field(iss, 9, 5),
        read: isSet(iss, 0),
      };
    case Ec.svc:
    case Ec.hvc:
    case Ec.smc:
    case Ec.brk:
      return { kind: 'call', ec, imm16: iss & 0xffff };
    case Ec.wfx: {
      const rn = isSet(iss, 2) ? field(iss, 9, 5) : undefined;
      return { kind: 'wfx', instruction: (iss & 3) as WfxKind, rn };
    }
    default:
      return { kind: 'other', ec, iss };
  }
}

/** A fault status code in words: "translation fault, level 2". */
export function describeFsc(fsc: number): string {
  const fault = decodeFsc(fsc);
  if (fault === undefined) return `fault status ${hex(fsc)}`;
  const name = FAULT_NAME[fault.type];
  const noun = name.includes('abort') ? name : `${name} fault`;
  return fault.level === undefined ? noun : `${noun}, level ${fault.level}`;
}

const describeSysreg = (t: SysregTrap): string =>
  `${t.read ? 'MRS' : 'MSR'} S${t.op0}_${t.op1}_C${t.crn}_C${t.crm}_${t.op2}, x${t.rt}`;

function describeAccess(access: LoadStoreSyndrome): string {
  const size = 8 << access.sas;
  const signed = access.sse ? 'signed ' : '';
  const register = `${access.sf ? 'x' : 'w'}${access.srt}`;
  return `${signed}${size}-bit, ${register}${access.ar ? ', ordered' : ''}`;
}

/** ESR_ELx in words, for traces and messages. */
export function describeEsr(esr: bigint): string {
  const syndrome = decodeEsr(esr);
  const name = EC_NAME[esrEc(esr)] ?? `EC ${hex(esrEc(esr))}`;
  switch (syndrome.kind) {
    case 'data-abort': {
      const parts = [syndrome.wnr ? 'write' : 'read', describeFsc(syndrome.fsc)];
      if (syndrome.s1ptw) parts.push('on a stage 1 walk');
      if (syndrome.cm) parts.push('by cache maintenance');
      if (syndrome.tagAccess) parts.push('for tag access');
      if (syndrome.access !== undefined) parts.push(describeAccess(syndrome.access));
      return `${name}: ${parts.join(', ')}`;
    }
    case 'instruction-abort':
      return `${name}: ${describeFsc(syndrome.fsc)}${syndrome.s1ptw ? ', on a stage 1 walk' : ''}`;
    case 'sysreg':
      return `${name}: ${describeSysreg(syndrome)}`;
    case 'call':
      return `${name} #${hex(syndrome.imm16)}`;
    case 'wfx':
      return ['WFI', 'WFE', 'WFIT', 'WFET'][syndrome.instruction]!;
    case 'other':
      return syndrome.iss === 0 ? name : `${name}: ISS ${hex(syndrome.iss)}`;
  }
}

/** HPFAR_EL2 for a faulting IPA: FIPA, bits 43:4, holds IPA[51:12]. */
export const encodeHpfar = (address: Ipa): bigint => BigInt(Math.floor(address / 4096)) << 4n;

/** The page of the IPA that HPFAR_EL2 reports. */
export const decodeHpfar = (hpfar: bigint): Ipa => ipa(Number(bits(hpfar, 43, 4)) * 4096);

/** Whether HPFAR_EL2 is valid for a fault taken to EL2. Arm: IPAValid(), without FEAT_RME. */
export function hpfarIsValid(fault: {
  readonly stage: 1 | 2;
  readonly type: FaultType;
  readonly s1ptw: boolean;
}): boolean {
  const { type } = fault;
  if (type === FaultType.permission) return fault.s1ptw;
  return (
    (fault.stage === 2 || fault.s1ptw) &&
    (type === FaultType.accessFlag ||
      type === FaultType.translation ||
      type === FaultType.addressSize)
  );
}
