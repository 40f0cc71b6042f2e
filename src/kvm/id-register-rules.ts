/**
 * Which values a VMM may give an ID register: every field the limit's or one that promises less.
 * Asked by KVM_SET_ONE_REG. It holds no values: the limit is what the host offers the VM.
 */
import type { SystemRegister, SystemRegisterName } from '../arm/sysreg/index.ts';
import { bits } from '../base/index.ts';

interface Field {
  readonly low: number;
  readonly width: number;
  /** Two's complement: 0xf (not implemented) is below 0. */
  readonly signed: boolean;
  /** The value that promises less. */
  readonly safe: 'lower' | 'higher';
}

const field = (low: number, options: Partial<Field> = {}): Field => ({
  low,
  width: 4,
  signed: false,
  safe: 'lower',
  ...options,
});
const lower = (...lows: readonly number[]): readonly Field[] => lows.map((low) => field(low));

/**
 * Fields that may differ from the limit, by the number of their lowest bit. All others, those of
 * unlisted registers included, must equal it. Linux: the masks in sys_reg_descs and the field kinds
 * in arch/arm64/kernel/cpufeature.c.
 */
const adjustable: Readonly<Partial<Record<SystemRegisterName, readonly Field[]>>> = {
  // EL0 EL1 EL2 EL3 GIC SEL2 DIT CSV2 CSV3, not: FP AdvSIMD RAS SVE MPAM AMU
  ID_AA64PFR0_EL1: lower(0, 4, 8, 12, 24, 36, 48, 56, 60),
  // BT SSBS, not: MTE
  ID_AA64PFR1_EL1: lower(0, 4),
  // DebugVer PMUVer WRPs DoubleLock, not: BRPs CTX_CMPs
  ID_AA64DFR0_EL1: [...lower(0, 8, 20), field(36, { signed: true })],
  ID_AA64ISAR0_EL1: lower(4, 8, 12, 16, 20, 28, 32, 36, 40, 44, 48, 52, 56, 60),
  // DPB JSCVT FCMA LRCPC FRINTTS SB SPECRES BF16 DGH I8MM XS, not: pointer authentication
  ID_AA64ISAR1_EL1: lower(0, 12, 16, 20, 32, 36, 40, 44, 48, 52, 56),
  // PARange BigEnd SNSMem BigEndEL0 TGran16 ExS FGT ECV TGran64 TGran4, not: ASIDBits
  ID_AA64MMFR0_EL1: [
    ...lower(0, 8, 12, 16, 20, 44, 56, 60),
    field(24, { signed: true }),
    field(28, { signed: true }),
  ],
  // HAFDBS HPDS LO PAN ETS AFP TIDCP1 SpecSEI, not: VMIDBits VH XNX TWED HCX
  ID_AA64MMFR1_EL1: [...lower(0, 12, 16, 20, 36, 44, 52), field(24, { safe: 'higher' })],
  // CnP UAO LSM IESB VARange ST AT TTL BBM E0PD, not: CCIDX NV IDS FWB EVT
  ID_AA64MMFR2_EL1: lower(0, 4, 8, 12, 16, 28, 32, 48, 52, 60),
  // IminLine DminLine IDC DIC
  CTR_EL0: [field(0), field(16), field(28, { width: 1 }), field(29, { width: 1 })],
};

const fieldMask = ({ low, width }: Field): bigint => ((1n << BigInt(width)) - 1n) << BigInt(low);

function fieldOf(value: bigint, { low, width, signed }: Field): bigint {
  const raw = bits(value, low + width - 1, low);
  return signed ? BigInt.asIntN(width, raw) : raw;
}

const PMUVER_LOW = 8n;
const PMUVER_IMP_DEF = 0xfn << PMUVER_LOW;
const DEBUGVER_ARMV8 = 6n;

/**
 * The value that an ID register takes when the VMM writes `value` and the host's limit is `limit`,
 * or -1n when the write must be refused (EINVAL). Linux: arm64_check_features(),
 * set_id_aa64dfr0_el1().
 */
export function acceptIdRegister(register: SystemRegister, value: bigint, limit: bigint): bigint {
  let accepted = value;
  if (register.name === 'ID_AA64DFR0_EL1') {
    if ((value & PMUVER_IMP_DEF) === PMUVER_IMP_DEF) accepted = value & ~PMUVER_IMP_DEF;
    if ((value & 0xfn) < DEBUGVER_ARMV8) return -1n;
  }
  let fixed = (1n << 64n) - 1n;
  for (const each of adjustable[register.name as SystemRegisterName] ?? []) {
    const wanted = fieldOf(accepted, each);
    const most = fieldOf(limit, each);
    if (each.safe === 'lower' ? wanted > most : wanted < most) return -1n;
    fixed &= ~fieldMask(each);
  }
  return (accepted & fixed) === (limit & fixed) ? accepted : -1n;
}
