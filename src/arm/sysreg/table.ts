/**
 * The system registers that software at EL0 and EL1 can name, as data: encoding, access rule, reset
 * value, writable bits, storage and KVM's view of each. The CPU core dispatches MRS and MSR on
 * these rows, the vCPU state keeps one 64-bit slot for each row that has one, KVM_GET/SET_ONE_REG
 * and the register list come from them, the assembler and the disassembler take their names.
 * Behaviour of the 'computed' ones is with their owners (CPU core, GIC, timer). A register that is
 * not here is UNDEFINED. Facts: Arm ARM DDI 0487 D19; what KVM lists: Linux 6.12,
 * arch/arm64/kvm/sys_regs.c.
 */
import { assert } from '../../base/index.ts';
import { encodingKey, genericName, type SystemRegisterEncoding } from './encoding.ts';
import { type FeatureName, features, idRegisterValues, type VmFeature } from './id-registers.ts';

/**
 * 'plain': a 64-bit slot of the vCPU state; 'constant': a read-only value in a slot, set by
 * KVM_ARM_VCPU_INIT; 'computed': the CPU core or KVM implements it; 'ignored': RAZ/WI.
 */
export type RegisterKind = 'plain' | 'constant' | 'computed' | 'ignored';

/** Who must see a write at once (and computes the value, for a computed register). */
export type RegisterEffect = 'mmu' | 'mode' | 'timer' | 'gic' | 'debug' | 'cache' | 'fp';

/**
 * A control of EL1 over EL0's access: when the bits are all `trapsWhen`, EL0 traps to EL1 (EC
 * 0x18).
 */
export interface El0Control {
  readonly register: 'SCTLR_EL1' | 'CNTKCTL_EL1' | 'MDSCR_EL1';
  readonly bits: bigint;
  readonly trapsWhen: 'clear' | 'set';
}

/**
 * How KVM_GET/SET_ONE_REG treat a listed register. 'value': any 64 bits are kept; 'id': of the VM,
 * may be lowered before the first run, field by field; 'idIgnored': reads zero, a write is ignored
 * (the AArch32 ID registers without AArch32); 'invariant': the host's value, a write must equal it;
 * 'oslsr': only OSLK may change; 'clidr': RES0 bits are refused.
 */
export type KvmRule = 'value' | 'id' | 'idIgnored' | 'invariant' | 'oslsr' | 'clidr';

export interface SystemRegister<Name extends string = string> extends SystemRegisterEncoding {
  /** Arm's name: 'SCTLR_EL1'; unallocated ID registers have the generic form 'S3_0_C0_C3_3'. */
  readonly name: Name;
  /** The 16-bit encoding key, see `encodingKey`. */
  readonly key: number;
  readonly kind: RegisterKind;
  /** The lowest EL that may read; 'none': UNDEFINED at EL0 and EL1. */
  readonly read: 0 | 1 | 'none';
  /** The lowest EL that may write; 'none': UNDEFINED at EL0 and EL1. */
  readonly write: 0 | 1 | 'none';
  /** Value after KVM_ARM_VCPU_INIT. */
  readonly reset: bigint;
  /** Bits that keep what MSR writes; the others become 0 (RES0). */
  readonly writable: bigint;
  readonly effect?: RegisterEffect;
  /** UNDEFINED, and not a KVM register, in a VM that hides the feature. */
  readonly feature?: VmFeature;
  readonly el0?: El0Control;
  /** Index of its 64-bit slot in the vCPU state, or -1. */
  readonly slot: number;
  readonly kvm?: KvmRule;
}

/** KVM's reset value for registers that the architecture leaves UNKNOWN. Linux: reset_unknown(). */
export const UNKNOWN_RESET = 0x1de7_ec7e_dbad_c0den;
/** Frequency of the system counter in ticks per second, the reset value of CNTFRQ_EL0. */
export const COUNTER_FREQUENCY_HZ = 62_500_000;
/**
 * Number of CSSELR_EL1 values (level and kind) for which CCSIDR_EL1 has a value. Linux: CSSELR_MAX.
 */
export const CCSIDR_COUNT = 14;

// ---------------------------------------------------------------------------- how rows are written

type Encoding = readonly [op0: number, op1: number, crn: number, crm: number, op2: number];
/** Lowest EL that reads (r) and writes (w); a missing letter is UNDEFINED. */
type Access = '' | 'r0' | 'r1' | 'w0' | 'w1' | 'r0 w0' | 'r0 w1' | 'r1 w1';

interface Options {
  readonly reset?: bigint;
  readonly writable?: bigint;
  readonly effect?: RegisterEffect;
  readonly feature?: VmFeature;
  /**
   * The CPU has the register only with this feature: without it UNDEFINED, the name stays known.
   */
  readonly needs?: FeatureName;
  readonly el0?: El0Control;
  readonly kvm?: KvmRule;
  /** A computed register with a slot for its owner's use. */
  readonly stored?: boolean;
}

interface Row<Name extends string> extends Options {
  readonly name: Name;
  readonly encoding: Encoding;
  readonly kind: RegisterKind;
  readonly access: Access;
}

const ALL = (1n << 64n) - 1n;
const LOW32 = 0xffff_ffffn;
const mask = (...lowBits: readonly number[]): bigint =>
  lowBits.reduce((word, n) => word | (1n << BigInt(n)), 0n);
const range = (hi: number, lo: number): bigint => ((1n << BigInt(hi - lo + 1)) - 1n) << BigInt(lo);

const row =
  (kind: RegisterKind) =>
  <const Name extends string>(
    name: Name,
    encoding: Encoding,
    access: Access,
    options: Options = {},
  ): Row<Name> => ({ name, encoding, kind, access, ...options });

const plain = row('plain');
const constant = row('constant');
const computed = row('computed');
const ignored = row('ignored');

/** A register that this CPU does not have: UNDEFINED, yet named. */
const absent = <const Name extends string>(
  name: Name,
  encoding: Encoding,
  needs: FeatureName,
): Row<Name> => ({ name, encoding, kind: 'ignored', access: 'r1 w1', needs });

/** Storage that KVM lists although software at EL1 finds the register UNDEFINED. */
const hidden = <const Name extends string>(
  name: Name,
  encoding: Encoding,
  reset = 0n,
): Row<Name> => ({ name, encoding, kind: 'plain', access: '', reset, kvm: 'value' });

// ------------------------------------------------------------------------------- numbered families

type Digit16 = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12 | 13 | 14 | 15;
const DIGITS_16: readonly Digit16[] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
type Digit4 = 0 | 1 | 2 | 3;
const DIGITS_4: readonly Digit4[] = [0, 1, 2, 3];

const BCR_WRITABLE = range(23, 13) | range(8, 5) | range(2, 0);
const WCR_WRITABLE = range(28, 24) | range(20, 0);

/** DBGBVR, DBGBCR, DBGWVR and DBGWCR: those beyond the CPU's count keep KVM's storage only. */
const debugPoints = DIGITS_16.flatMap((n) => {
  const breakpoint = n < features.breakpoints ? 'r1 w1' : '';
  const watchpoint = n < features.watchpoints ? 'r1 w1' : '';
  const options = (writable: bigint): Options => ({ writable, effect: 'debug', kvm: 'value' });
  return [
    plain(`DBGBVR${n}_EL1`, [2, 0, 0, n, 4], breakpoint, options(ALL)),
    plain(`DBGBCR${n}_EL1`, [2, 0, 0, n, 5], breakpoint, options(BCR_WRITABLE)),
    plain(`DBGWVR${n}_EL1`, [2, 0, 0, n, 6], watchpoint, options(ALL & ~3n)),
    plain(`DBGWCR${n}_EL1`, [2, 0, 0, n, 7], watchpoint, options(WCR_WRITABLE)),
  ];
});

const gicActivePriorities = DIGITS_4.flatMap((n) => [
  computed(`ICC_AP0R${n}_EL1`, [3, 0, 12, 8, 4 + n], 'r1 w1', { effect: 'gic' }),
  computed(`ICC_AP1R${n}_EL1`, [3, 0, 12, 9, n], 'r1 w1', { effect: 'gic' }),
]);

/**
 * ID registers with a name, by CRm and op2; the rest of op0 = 3, op1 = 0, CRn = 0, CRm = 1 … 7 are
 * RAZ.
 */
const idNames = [
  ['ID_PFR0_EL1', 1, 0],
  ['ID_PFR1_EL1', 1, 1],
  ['ID_DFR0_EL1', 1, 2],
  ['ID_AFR0_EL1', 1, 3],
  ['ID_MMFR0_EL1', 1, 4],
  ['ID_MMFR1_EL1', 1, 5],
  ['ID_MMFR2_EL1', 1, 6],
  ['ID_MMFR3_EL1', 1, 7],
  ['ID_ISAR0_EL1', 2, 0],
  ['ID_ISAR1_EL1', 2, 1],
  ['ID_ISAR2_EL1', 2, 2],
  ['ID_ISAR3_EL1', 2, 3],
  ['ID_ISAR4_EL1', 2, 4],
  ['ID_ISAR5_EL1', 2, 5],
  ['ID_MMFR4_EL1', 2, 6],
  ['ID_ISAR6_EL1', 2, 7],
  ['MVFR0_EL1', 3, 0],
  ['MVFR1_EL1', 3, 1],
  ['MVFR2_EL1', 3, 2],
  ['ID_PFR2_EL1', 3, 4],
  ['ID_DFR1_EL1', 3, 5],
  ['ID_MMFR5_EL1', 3, 6],
  ['ID_AA64PFR0_EL1', 4, 0],
  ['ID_AA64PFR1_EL1', 4, 1],
  ['ID_AA64PFR2_EL1', 4, 2],
  ['ID_AA64ZFR0_EL1', 4, 4],
  ['ID_AA64SMFR0_EL1', 4, 5],
  ['ID_AA64FPFR0_EL1', 4, 7],
  ['ID_AA64DFR0_EL1', 5, 0],
  ['ID_AA64DFR1_EL1', 5, 1],
  ['ID_AA64DFR2_EL1', 5, 2],
  ['ID_AA64AFR0_EL1', 5, 4],
  ['ID_AA64AFR1_EL1', 5, 5],
  ['ID_AA64ISAR0_EL1', 6, 0],
  ['ID_AA64ISAR1_EL1', 6, 1],
  ['ID_AA64ISAR2_EL1', 6, 2],
  ['ID_AA64ISAR3_EL1', 6, 3],
  ['ID_AA64MMFR0_EL1', 7, 0],
  ['ID_AA64MMFR1_EL1', 7, 1],
  ['ID_AA64MMFR2_EL1', 7, 2],
  ['ID_AA64MMFR3_EL1', 7, 3],
  ['ID_AA64MMFR4_EL1', 7, 4],
] as const;
type IdName = (typeof idNames)[number][0];
type ReservedIdName = `S3_0_C0_C${1 | 2 | 3 | 4 | 5 | 6 | 7}_${0 | 1 | 2 | 3 | 4 | 5 | 6 | 7}`;

/** AArch32 ID registers that KVM treats as if they were unallocated. */
const HIDDEN_AARCH32: readonly string[] = ['ID_AFR0_EL1', 'ID_DFR1_EL1'];

const idValues: Readonly<Partial<Record<IdName, bigint>>> = idRegisterValues;

const idRegisters = [1, 2, 3, 4, 5, 6, 7].flatMap((crm) =>
  [0, 1, 2, 3, 4, 5, 6, 7].map((op2): Row<IdName | ReservedIdName> => {
    const named = idNames.find((entry) => entry[1] === crm && entry[2] === op2)?.[0];
    const name = named ?? (genericName(encodingKey(3, 0, 0, crm, op2)) as ReservedIdName);
    return constant(name, [3, 0, 0, crm, op2], 'r1', {
      reset: named === undefined ? 0n : (idValues[named] ?? 0n),
      kvm: named !== undefined && crm <= 3 && !HIDDEN_AARCH32.includes(named) ? 'idIgnored' : 'id',
    });
  }),
);

// ------------------------------------------------------------------------------------- field masks

/**
 * SCTLR_EL1. Kept: M A C SA SA0 UMA I DZE UCT nTWI nTWE WXN SPAN UCI ITFSB TCF0 TCF ATA0 ATA, and
 * the bits that are RES1 here and that software writes as it likes (CP15BEN nAA SED EOS TSCXT EIS
 * LSMAOE nTLSMD). EE and E0E are RES0: there is no big-endian data.
 */
const SCTLR_WRITABLE =
  mask(0, 1, 2, 3, 4, 9, 12, 14, 15, 16, 18, 19, 23, 26) |
  mask(5, 6, 8, 11, 20, 22, 28, 29) |
  mask(37, 42, 43) |
  range(41, 38);
/** TCR_EL1: up to IPS, AS, TBI0/1, HA, HD, HPD0/1, TCMA0/1, E0PD0/1 (no TBID, NFD, DS, HWU). */
const TCR_WRITABLE = (range(34, 0) & ~mask(6)) | range(42, 36) | range(58, 55);
const SPSR_WRITABLE = range(31, 28) | mask(25, 24, 22, 21, 20) | range(9, 0);
/** MDSCR_EL1: SS, ERR, TDCC, KDE, HDE, MDE and the bits that save the communication channel. */
const MDSCR_WRITABLE = mask(0, 6, 12, 13, 14, 15, 26, 27, 29, 30, 31) | range(23, 22);

const sctlrAllows = (bit: number): El0Control => ({
  register: 'SCTLR_EL1',
  bits: mask(bit),
  trapsWhen: 'clear',
});
const cntkctlAllows = (...bits: readonly number[]): El0Control => ({
  register: 'CNTKCTL_EL1',
  bits: mask(...bits),
  trapsWhen: 'clear',
});
const mdscrForbids: El0Control = { register: 'MDSCR_EL1', bits: mask(12), trapsWhen: 'set' };
const gic: Options = { effect: 'gic' };

// ------------------------------------------------------------------------------------------- rows

const rows = [
  // Translation and memory
  plain('SCTLR_EL1', [3, 0, 1, 0, 0], 'r1 w1', {
    reset: 0x00c5_0078n,
    writable: SCTLR_WRITABLE,
    effect: 'mmu',
    kvm: 'value',
  }),
  plain('TTBR0_EL1', [3, 0, 2, 0, 0], 'r1 w1', {
    reset: UNKNOWN_RESET,
    writable: range(63, 1),
    effect: 'mmu',
    kvm: 'value',
  }),
  plain('TTBR1_EL1', [3, 0, 2, 0, 1], 'r1 w1', {
    reset: UNKNOWN_RESET,
    writable: range(63, 1),
    effect: 'mmu',
    kvm: 'value',
  }),
  plain('TCR_EL1', [3, 0, 2, 0, 2], 'r1 w1', {
    writable: TCR_WRITABLE,
    effect: 'mmu',
    kvm: 'value',
  }),
  plain('MAIR_EL1', [3, 0, 10, 2, 0], 'r1 w1', {
    reset: UNKNOWN_RESET,
    effect: 'mmu',
    kvm: 'value',
  }),
  plain('AMAIR_EL1', [3, 0, 10, 3, 0], 'r1 w1', { kvm: 'value' }),
  plain('CONTEXTIDR_EL1', [3, 0, 13, 0, 1], 'r1 w1', { writable: LOW32, kvm: 'value' }),
  plain('PAR_EL1', [3, 0, 7, 4, 0], 'r1 w1', { reset: UNKNOWN_RESET, kvm: 'value' }),
  hidden('TCR2_EL1', [3, 0, 2, 0, 3]),
  hidden('PIRE0_EL1', [3, 0, 10, 2, 2], UNKNOWN_RESET),
  hidden('PIR_EL1', [3, 0, 10, 2, 3], UNKNOWN_RESET),
  absent('LORSA_EL1', [3, 0, 10, 4, 0], 'LOR'),
  absent('LOREA_EL1', [3, 0, 10, 4, 1], 'LOR'),
  absent('LORN_EL1', [3, 0, 10, 4, 2], 'LOR'),
  absent('LORC_EL1', [3, 0, 10, 4, 3], 'LOR'),
  absent('LORID_EL1', [3, 0, 10, 4, 7], 'LOR'),

  // Exceptions
  plain('SPSR_EL1', [3, 0, 4, 0, 0], 'r1 w1', { writable: SPSR_WRITABLE }),
  plain('ELR_EL1', [3, 0, 4, 0, 1], 'r1 w1'),
  plain('ESR_EL1', [3, 0, 5, 2, 0], 'r1 w1', {
    reset: UNKNOWN_RESET,
    writable: LOW32,
    kvm: 'value',
  }),
  plain('FAR_EL1', [3, 0, 6, 0, 0], 'r1 w1', { reset: UNKNOWN_RESET, kvm: 'value' }),
  plain('AFSR0_EL1', [3, 0, 5, 1, 0], 'r1 w1', { reset: UNKNOWN_RESET, kvm: 'value' }),
  plain('AFSR1_EL1', [3, 0, 5, 1, 1], 'r1 w1', { reset: UNKNOWN_RESET, kvm: 'value' }),
  plain('VBAR_EL1', [3, 0, 12, 0, 0], 'r1 w1', { writable: range(63, 11), kvm: 'value' }),
  computed('ISR_EL1', [3, 0, 12, 1, 0], 'r1', { effect: 'gic' }),
  /** Present with FEAT_RAS only; KVM lists it in any case. */
  hidden('DISR_EL1', [3, 0, 12, 1, 1]),
  absent('ERRIDR_EL1', [3, 0, 5, 3, 0], 'RAS'),
  absent('ERRSELR_EL1', [3, 0, 5, 3, 1], 'RAS'),
  absent('ERXFR_EL1', [3, 0, 5, 4, 0], 'RAS'),
  absent('ERXCTLR_EL1', [3, 0, 5, 4, 1], 'RAS'),
  absent('ERXSTATUS_EL1', [3, 0, 5, 4, 2], 'RAS'),
  absent('ERXADDR_EL1', [3, 0, 5, 4, 3], 'RAS'),
  absent('ERXMISC0_EL1', [3, 0, 5, 5, 0], 'RAS'),
  absent('ERXMISC1_EL1', [3, 0, 5, 5, 1], 'RAS'),
  /** AArch32's: storage of KVM's core registers, no more. */
  plain('SPSR_irq', [3, 4, 4, 3, 0], ''),
  plain('SPSR_abt', [3, 4, 4, 3, 1], ''),
  plain('SPSR_und', [3, 4, 4, 3, 2], ''),
  plain('SPSR_fiq', [3, 4, 4, 3, 3], ''),
  hidden('DACR32_EL2', [3, 4, 3, 0, 0], UNKNOWN_RESET),
  hidden('IFSR32_EL2', [3, 4, 5, 0, 1], UNKNOWN_RESET),
  hidden('FPEXC32_EL2', [3, 4, 5, 3, 0], 0x700n),

  // PSTATE and stack pointers
  /**
   * UNDEFINED at EL1 while SPSel = 0, which the CPU core checks. The slot holds the copy not in
   * use.
   */
  computed('SP_EL0', [3, 0, 4, 1, 0], 'r1 w1', { effect: 'mode', stored: true }),
  plain('SP_EL1', [3, 4, 4, 1, 0], ''),
  computed('SPSel', [3, 0, 4, 2, 0], 'r1 w1', { effect: 'mode', writable: 1n }),
  computed('CurrentEL', [3, 0, 4, 2, 2], 'r1', { effect: 'mode' }),
  computed('PAN', [3, 0, 4, 2, 3], 'r1 w1', { effect: 'mode', writable: mask(22), needs: 'PAN' }),
  absent('UAO', [3, 0, 4, 2, 4], 'UAO'),
  absent('ALLINT', [3, 0, 4, 3, 0], 'NMI'),
  computed('NZCV', [3, 3, 4, 2, 0], 'r0 w0', { effect: 'mode', writable: range(31, 28) }),
  computed('DAIF', [3, 3, 4, 2, 1], 'r0 w0', {
    effect: 'mode',
    writable: range(9, 6),
    el0: sctlrAllows(9),
  }),
  computed('DIT', [3, 3, 4, 2, 5], 'r0 w0', { effect: 'mode', writable: mask(24), needs: 'DIT' }),
  absent('SSBS', [3, 3, 4, 2, 6], 'SSBS'),
  computed('TCO', [3, 3, 4, 2, 7], 'r0 w0', { effect: 'mode', writable: mask(25), needs: 'MTE' }),
  /**
   * In slots for generated code; MRS and MSR check CPACR_EL1.FPEN first (EC 0x07), hence computed.
   */
  computed('FPCR', [3, 3, 4, 4, 0], 'r0 w0', {
    effect: 'fp',
    writable: range(26, 22) | (features.FP16 ? mask(19) : 0n),
    stored: true,
  }),
  computed('FPSR', [3, 3, 4, 4, 1], 'r0 w0', {
    effect: 'fp',
    writable: mask(27, 7) | range(4, 0),
    stored: true,
  }),

  // Control, and words for software
  plain('ACTLR_EL1', [3, 0, 1, 0, 1], 'r1 w1', { writable: 0n, kvm: 'value' }),
  plain('CPACR_EL1', [3, 0, 1, 0, 2], 'r1 w1', {
    writable: range(21, 20),
    effect: 'mode',
    kvm: 'value',
  }),
  plain('TPIDR_EL0', [3, 3, 13, 0, 2], 'r0 w0', { reset: UNKNOWN_RESET, kvm: 'value' }),
  plain('TPIDRRO_EL0', [3, 3, 13, 0, 3], 'r0 w1', { reset: UNKNOWN_RESET, kvm: 'value' }),
  plain('TPIDR_EL1', [3, 0, 13, 0, 4], 'r1 w1', { reset: UNKNOWN_RESET, kvm: 'value' }),
  absent('TPIDR2_EL0', [3, 3, 13, 0, 5], 'SME'),
  absent('SCXTNUM_EL0', [3, 3, 13, 0, 7], 'SCXTNUM'),
  absent('SCXTNUM_EL1', [3, 0, 13, 0, 7], 'SCXTNUM'),
  absent('RNDR', [3, 3, 2, 4, 0], 'RNG'),
  absent('RNDRRS', [3, 3, 2, 4, 1], 'RNG'),
  absent('ZCR_EL1', [3, 0, 1, 2, 0], 'SVE'),
  absent('SMCR_EL1', [3, 0, 1, 2, 6], 'SME'),
  absent('SVCR', [3, 3, 4, 2, 2], 'SME'),
  absent('APIAKeyLo_EL1', [3, 0, 2, 1, 0], 'PAuth'),
  absent('APIAKeyHi_EL1', [3, 0, 2, 1, 1], 'PAuth'),
  absent('APIBKeyLo_EL1', [3, 0, 2, 1, 2], 'PAuth'),
  absent('APIBKeyHi_EL1', [3, 0, 2, 1, 3], 'PAuth'),
  absent('APDAKeyLo_EL1', [3, 0, 2, 2, 0], 'PAuth'),
  absent('APDAKeyHi_EL1', [3, 0, 2, 2, 1], 'PAuth'),
  absent('APDBKeyLo_EL1', [3, 0, 2, 2, 2], 'PAuth'),
  absent('APDBKeyHi_EL1', [3, 0, 2, 2, 3], 'PAuth'),
  absent('APGAKeyLo_EL1', [3, 0, 2, 3, 0], 'PAuth'),
  absent('APGAKeyHi_EL1', [3, 0, 2, 3, 1], 'PAuth'),

  // Memory tagging
  plain('RGSR_EL1', [3, 0, 1, 0, 5], 'r1 w1', {
    reset: UNKNOWN_RESET,
    writable: range(23, 8) | range(3, 0),
    feature: 'MTE',
    kvm: 'value',
  }),
  plain('GCR_EL1', [3, 0, 1, 0, 6], 'r1 w1', {
    reset: UNKNOWN_RESET,
    writable: range(16, 0),
    feature: 'MTE',
    kvm: 'value',
  }),
  plain('TFSR_EL1', [3, 0, 5, 6, 0], 'r1 w1', {
    reset: UNKNOWN_RESET,
    writable: range(1, 0),
    feature: 'MTE',
    kvm: 'value',
  }),
  plain('TFSRE0_EL1', [3, 0, 5, 6, 1], 'r1 w1', {
    reset: UNKNOWN_RESET,
    writable: range(1, 0),
    feature: 'MTE',
    kvm: 'value',
  }),
  constant('GMID_EL1', [3, 1, 0, 0, 4], 'r1', {
    reset: BigInt(features.gmidBlockLog2Words),
    feature: 'MTE',
  }),

  // Identification
  constant('MIDR_EL1', [3, 0, 0, 0, 0], 'r1', { reset: 0x000f_0510n, kvm: 'invariant' }),
  constant('MPIDR_EL1', [3, 0, 0, 0, 5], 'r1', { reset: 0x8000_0000n, kvm: 'value' }),
  constant('REVIDR_EL1', [3, 0, 0, 0, 6], 'r1', { kvm: 'invariant' }),
  constant('AIDR_EL1', [3, 1, 0, 0, 7], 'r1', { kvm: 'invariant' }),
  ...idRegisters,
  constant('CTR_EL0', [3, 3, 0, 0, 1], 'r0', {
    reset: 0xb444_c004n,
    el0: sctlrAllows(15),
    kvm: 'id',
  }),
  /**
   * DZP (bit 4) depends on SCTLR_EL1.DZE at EL0, so it is computed; the slot holds the block size.
   */
  computed('DCZID_EL0', [3, 3, 0, 0, 7], 'r0', {
    effect: 'cache',
    reset: BigInt(features.dczidBlockLog2Words),
    stored: true,
  }),
  /** KVM's fabricated caches: level 1 unified, with the tags in it in a VM that has MTE. */
  constant('CLIDR_EL1', [3, 1, 0, 0, 1], 'r1', {
    reset: 0x0100_0004n,
    kvm: 'clidr',
  }),
  /** Selected by CSSELR_EL1 from the slots at `ccsidrSlot`. */
  computed('CCSIDR_EL1', [3, 1, 0, 0, 0], 'r1', { effect: 'cache' }),
  absent('CCSIDR2_EL1', [3, 1, 0, 0, 2], 'CCIDX'),
  absent('SMIDR_EL1', [3, 1, 0, 0, 6], 'SME'),
  plain('CSSELR_EL1', [3, 2, 0, 0, 0], 'r1 w1', {
    reset: UNKNOWN_RESET,
    writable: range(4, 0),
    kvm: 'value',
  }),

  // Generic timer
  constant('CNTFRQ_EL0', [3, 3, 14, 0, 0], 'r0', {
    reset: BigInt(COUNTER_FREQUENCY_HZ),
    el0: cntkctlAllows(0, 1),
  }),
  computed('CNTPCT_EL0', [3, 3, 14, 0, 1], 'r0', { effect: 'timer', el0: cntkctlAllows(0) }),
  computed('CNTVCT_EL0', [3, 3, 14, 0, 2], 'r0', { effect: 'timer', el0: cntkctlAllows(1) }),
  absent('CNTPCTSS_EL0', [3, 3, 14, 0, 5], 'ECV'),
  absent('CNTVCTSS_EL0', [3, 3, 14, 0, 6], 'ECV'),
  plain('CNTKCTL_EL1', [3, 0, 14, 1, 0], 'r1 w1', { writable: range(9, 0), kvm: 'value' }),
  computed('CNTP_TVAL_EL0', [3, 3, 14, 2, 0], 'r0 w0', { effect: 'timer', el0: cntkctlAllows(9) }),
  computed('CNTP_CTL_EL0', [3, 3, 14, 2, 1], 'r0 w0', { effect: 'timer', el0: cntkctlAllows(9) }),
  computed('CNTP_CVAL_EL0', [3, 3, 14, 2, 2], 'r0 w0', { effect: 'timer', el0: cntkctlAllows(9) }),
  computed('CNTV_TVAL_EL0', [3, 3, 14, 3, 0], 'r0 w0', { effect: 'timer', el0: cntkctlAllows(8) }),
  computed('CNTV_CTL_EL0', [3, 3, 14, 3, 1], 'r0 w0', { effect: 'timer', el0: cntkctlAllows(8) }),
  computed('CNTV_CVAL_EL0', [3, 3, 14, 3, 2], 'r0 w0', { effect: 'timer', el0: cntkctlAllows(8) }),

  // GIC CPU interface
  computed('ICC_PMR_EL1', [3, 0, 4, 6, 0], 'r1 w1', gic),
  computed('ICC_IAR0_EL1', [3, 0, 12, 8, 0], 'r1', gic),
  computed('ICC_EOIR0_EL1', [3, 0, 12, 8, 1], 'w1', gic),
  computed('ICC_HPPIR0_EL1', [3, 0, 12, 8, 2], 'r1', gic),
  computed('ICC_BPR0_EL1', [3, 0, 12, 8, 3], 'r1 w1', gic),
  ...gicActivePriorities,
  absent('ICC_NMIAR1_EL1', [3, 0, 12, 9, 5], 'NMI'),
  computed('ICC_DIR_EL1', [3, 0, 12, 11, 1], 'w1', gic),
  computed('ICC_RPR_EL1', [3, 0, 12, 11, 3], 'r1', gic),
  computed('ICC_SGI1R_EL1', [3, 0, 12, 11, 5], 'w1', gic),
  computed('ICC_ASGI1R_EL1', [3, 0, 12, 11, 6], 'w1', gic),
  computed('ICC_SGI0R_EL1', [3, 0, 12, 11, 7], 'w1', gic),
  computed('ICC_IAR1_EL1', [3, 0, 12, 12, 0], 'r1', gic),
  computed('ICC_EOIR1_EL1', [3, 0, 12, 12, 1], 'w1', gic),
  computed('ICC_HPPIR1_EL1', [3, 0, 12, 12, 2], 'r1', gic),
  computed('ICC_BPR1_EL1', [3, 0, 12, 12, 3], 'r1 w1', gic),
  computed('ICC_CTLR_EL1', [3, 0, 12, 12, 4], 'r1 w1', gic),
  computed('ICC_SRE_EL1', [3, 0, 12, 12, 5], 'r1 w1', gic),
  computed('ICC_IGRPEN0_EL1', [3, 0, 12, 12, 6], 'r1 w1', gic),
  computed('ICC_IGRPEN1_EL1', [3, 0, 12, 12, 7], 'r1 w1', gic),

  // Debug
  plain('MDSCR_EL1', [2, 0, 0, 2, 2], 'r1 w1', {
    writable: MDSCR_WRITABLE,
    effect: 'debug',
    kvm: 'value',
  }),
  plain('MDCCINT_EL1', [2, 0, 0, 2, 0], 'r1 w1', { writable: range(30, 29), kvm: 'value' }),
  ...debugPoints,
  /** KVM injects UNDEFINED for the next three. */
  ignored('OSDTRRX_EL1', [2, 0, 0, 0, 2], ''),
  ignored('OSDTRTX_EL1', [2, 0, 0, 3, 2], ''),
  ignored('OSECCR_EL1', [2, 0, 0, 6, 2], ''),
  ignored('MDRAR_EL1', [2, 0, 1, 0, 0], 'r1'),
  /** A write to OSLAR sets or clears OSLSR_EL1.OSLK (bit 1). */
  computed('OSLAR_EL1', [2, 0, 1, 0, 4], 'w1', { effect: 'debug', writable: 1n }),
  plain('OSLSR_EL1', [2, 0, 1, 1, 4], 'r1', {
    reset: 0x8n,
    kvm: 'oslsr',
  }),
  ignored('OSDLR_EL1', [2, 0, 1, 3, 4], 'r1 w1'),
  ignored('DBGPRCR_EL1', [2, 0, 1, 4, 4], 'r1 w1'),
  ignored('DBGCLAIMSET_EL1', [2, 0, 7, 8, 6], 'r1 w1'),
  ignored('DBGCLAIMCLR_EL1', [2, 0, 7, 9, 6], 'r1 w1'),
  ignored('DBGAUTHSTATUS_EL1', [2, 0, 7, 14, 6], 'r1'),
  ignored('MDCCSR_EL0', [2, 3, 0, 1, 0], 'r0', { el0: mdscrForbids }),
  ignored('DBGDTR_EL0', [2, 3, 0, 4, 0], 'r0 w0', { el0: mdscrForbids }),
  /** DBGDTRRX_EL0 when read, DBGDTRTX_EL0 when written. */
  ignored('DBGDTRRX_EL0', [2, 3, 0, 5, 0], 'r0 w0', { el0: mdscrForbids }),
  hidden('DBGVCR32_EL2', [2, 4, 0, 7, 0]),

  // Performance monitors
  absent('PMCR_EL0', [3, 3, 9, 12, 0], 'PMUv3'),
  absent('PMCNTENSET_EL0', [3, 3, 9, 12, 1], 'PMUv3'),
  absent('PMCNTENCLR_EL0', [3, 3, 9, 12, 2], 'PMUv3'),
  absent('PMOVSCLR_EL0', [3, 3, 9, 12, 3], 'PMUv3'),
  absent('PMSWINC_EL0', [3, 3, 9, 12, 4], 'PMUv3'),
  absent('PMSELR_EL0', [3, 3, 9, 12, 5], 'PMUv3'),
  absent('PMCEID0_EL0', [3, 3, 9, 12, 6], 'PMUv3'),
  absent('PMCEID1_EL0', [3, 3, 9, 12, 7], 'PMUv3'),
  absent('PMCCNTR_EL0', [3, 3, 9, 13, 0], 'PMUv3'),
  absent('PMXEVTYPER_EL0', [3, 3, 9, 13, 1], 'PMUv3'),
  absent('PMXEVCNTR_EL0', [3, 3, 9, 13, 2], 'PMUv3'),
  absent('PMUSERENR_EL0', [3, 3, 9, 14, 0], 'PMUv3'),
  absent('PMINTENSET_EL1', [3, 0, 9, 14, 1], 'PMUv3'),
  absent('PMINTENCLR_EL1', [3, 0, 9, 14, 2], 'PMUv3'),
  absent('PMOVSSET_EL0', [3, 3, 9, 14, 3], 'PMUv3'),
  absent('PMMIR_EL1', [3, 0, 9, 14, 6], 'PMUv3'),
  absent('PMCCFILTR_EL0', [3, 3, 14, 15, 7], 'PMUv3'),
] as const;

export type SystemRegisterName = (typeof rows)[number]['name'];

// ---------------------------------------------------------------------------------------- assembly

const lowestEl = (access: Access, letter: 'r' | 'w'): 0 | 1 | 'none' =>
  access.includes(`${letter}0`) ? 0 : access.includes(`${letter}1`) ? 1 : 'none';

/** Has the CPU itself, whatever a VM shows, the feature? */
const present = (needs: FeatureName | undefined): boolean =>
  needs === undefined || features[needs] === true;

function build(): readonly SystemRegister<SystemRegisterName>[] {
  let slots = 0;
  return rows.map((source: Row<SystemRegisterName>) => {
    const { name, encoding, kind, access, needs, stored, reset, writable, ...rest } = source;
    const [op0, op1, crn, crm, op2] = encoding;
    const here = present(needs);
    const hasSlot = here && (kind === 'plain' || kind === 'constant' || stored === true);
    return {
      ...rest,
      name,
      kind,
      key: encodingKey(op0, op1, crn, crm, op2),
      op0,
      op1,
      crn,
      crm,
      op2,
      read: here ? lowestEl(access, 'r') : 'none',
      write: here ? lowestEl(access, 'w') : 'none',
      reset: reset ?? 0n,
      writable: writable ?? ALL,
      slot: hasSlot ? slots++ : -1,
    };
  });
}

/** All rows, in table order. */
export const systemRegisters: readonly SystemRegister<SystemRegisterName>[] = build();

const byKey = new Map(systemRegisters.map((register) => [register.key, register]));
const byName = new Map<string, SystemRegister<SystemRegisterName>>(
  systemRegisters.map((register) => [register.name, register]),
);
assert(byKey.size === rows.length, 'two system registers share an encoding');
assert(byName.size === rows.length, 'two system registers share a name');

/** The row with this encoding key, or undefined: then the register is UNDEFINED. */
export const findSystemRegister = (key: number): SystemRegister<SystemRegisterName> | undefined =>
  byKey.get(key);

/** The row of a register known by name. */
export function systemRegister(name: SystemRegisterName): SystemRegister<SystemRegisterName> {
  const register = byName.get(name);
  assert(register !== undefined, 'unknown system register');
  return register;
}

const byLowerName = new Map(
  systemRegisters.map((register) => [register.name.toLowerCase(), register]),
);
/** The row with this name in any case, or undefined; for assemblers and debuggers. */
export const findSystemRegisterByName = (
  name: string,
): SystemRegister<SystemRegisterName> | undefined => byLowerName.get(name.toLowerCase());

/** Arm's name of the register with this key, or the generic one. */
export const systemRegisterName = (key: number): string => byKey.get(key)?.name ?? genericName(key);

/** Slot of each register by name; -1 for those without storage. */
export const slotOf = Object.fromEntries(
  systemRegisters.map((register) => [register.name, register.slot]),
) as Readonly<Record<SystemRegisterName, number>>;

const registerSlotCount = systemRegisters.filter((register) => register.slot >= 0).length;

/** Slot of CCSIDR_EL1's value for a CSSELR_EL1 value (Level and InD) below CCSIDR_COUNT. */
export const ccsidrSlot = (csselr: number): number => registerSlotCount + csselr;

/** Number of 64-bit slots in the vCPU state: the rows' slots, then CCSIDR_EL1's values. */
export const SYSTEM_REGISTER_SLOT_COUNT = registerSlotCount + CCSIDR_COUNT;
