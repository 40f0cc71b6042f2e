/**
 * KVM_GET_REG_LIST, KVM_GET_ONE_REG and KVM_SET_ONE_REG: which registers a vCPU has, by KVM's
 * 64-bit ids, and the rules for reading and writing each. Called by vcpu.ts. State is in
 * VcpuRegisters and VmRegisters; nothing is kept here. Linux 6.12: arch/arm64/kvm/guest.c,
 * sys_regs.c, hypercalls.c. Registers of pointer authentication, PMU and SVE do not exist, as on a
 * vCPU without them.
 */
import {
  CCSIDR_COUNT,
  ccsidrSlot,
  findSystemRegister,
  type SystemRegister,
  type SystemRegisterName,
  slotOf,
  systemRegisters,
} from '../arm/sysreg/index.ts';
import { assertNever, bits } from '../base/index.ts';
import { Errno, isRefusal, type Refusal, refuse } from '../host/index.ts';
import { acceptIdRegister } from './id-register-rules.ts';
import {
  idRegisterLimit,
  isListed,
  minCacheLineLog2Bytes,
  psciVersion,
  smcccFeatures,
  type VcpuRegisters,
} from './registers.ts';
import * as uapi from './uapi.ts';

const { KVM_CORE_OFFSET, KVM_REG_SIZE } = uapi;

// ---------------------------------------------------------------------------------- core registers

/** A member of struct kvm_regs. */
type CoreRegister =
  | { readonly kind: 'x' | 'v' | 'sp'; readonly index: number; readonly sizeBytes: number }
  | { readonly kind: 'pc' | 'pstate'; readonly sizeBytes: 8 }
  | { readonly kind: 'slot'; readonly slot: number; readonly sizeBytes: 4 | 8 };

const spsrNames = ['SPSR_EL1', 'SPSR_abt', 'SPSR_und', 'SPSR_irq', 'SPSR_fiq'] as const;

const coreSlot = (name: SystemRegisterName, sizeBytes: 4 | 8): CoreRegister => ({
  kind: 'slot',
  slot: slotOf[name],
  sizeBytes,
});

/** The core registers by their offset in struct kvm_regs, counted in 32-bit words, ascending. */
const coreRegisters: ReadonlyMap<number, CoreRegister> = new Map<number, CoreRegister>([
  ...Array.from({ length: 31 }, (_, index): [number, CoreRegister] => [
    KVM_CORE_OFFSET.regs + 2 * index,
    { kind: 'x', index, sizeBytes: 8 },
  ]),
  [KVM_CORE_OFFSET.sp, { kind: 'sp', index: 0, sizeBytes: 8 }],
  [KVM_CORE_OFFSET.pc, { kind: 'pc', sizeBytes: 8 }],
  [KVM_CORE_OFFSET.pstate, { kind: 'pstate', sizeBytes: 8 }],
  [KVM_CORE_OFFSET.sp_el1, { kind: 'sp', index: 1, sizeBytes: 8 }],
  [KVM_CORE_OFFSET.elr_el1, coreSlot('ELR_EL1', 8)],
  ...spsrNames.map((name, index): [number, CoreRegister] => [
    KVM_CORE_OFFSET.spsr + 2 * index,
    coreSlot(name, 8),
  ]),
  ...Array.from({ length: 32 }, (_, index): [number, CoreRegister] => [
    KVM_CORE_OFFSET.vregs + 4 * index,
    { kind: 'v', index, sizeBytes: 16 },
  ]),
  [KVM_CORE_OFFSET.fpsr, coreSlot('FPSR', 4)],
  [KVM_CORE_OFFSET.fpcr, coreSlot('FPCR', 4)],
]);

/**
 * The core register with this id: ENOENT beyond struct kvm_regs, EINVAL inside it but not a
 * register.
 */
function findCore(id: bigint): CoreRegister | Refusal {
  const offset = Number(BigInt.asUintN(32, id & ~uapi.KVM_REG_ARM_CORE));
  const sizeBytes = KVM_REG_SIZE(id);
  if (offset + sizeBytes / 4 >= uapi.KVM_REGS_WORDS) return refuse(Errno.ENOENT);
  const register = coreRegisters.get(offset);
  if (register === undefined || register.sizeBytes !== sizeBytes) return refuse(Errno.EINVAL);
  return register;
}

function readCore(vcpu: VcpuRegisters, register: CoreRegister): bigint {
  switch (register.kind) {
    case 'x':
      return vcpu.readX(register.index);
    case 'v':
      return vcpu.readV(register.index);
    case 'sp':
      return vcpu.readSp(register.index === 0 ? 0 : 1);
    case 'pc':
      return vcpu.readPc();
    case 'pstate':
      return vcpu.readPstate();
    case 'slot':
      return vcpu.readSlot(register.slot);
    default:
      return assertNever(register);
  }
}

/** PSTATE.M values of AArch64 at EL0 and EL1; AArch32 and EL2 do not exist here. */
const EL0T = 0x0n;
const EL1T = 0x4n;
const EL1H = 0x5n;

function writeCore(vcpu: VcpuRegisters, register: CoreRegister, value: bigint): 0 | Refusal {
  switch (register.kind) {
    case 'x':
      vcpu.writeX(register.index, value);
      return 0;
    case 'v':
      vcpu.writeV(register.index, value);
      return 0;
    case 'sp':
      vcpu.writeSp(register.index === 0 ? 0 : 1, value);
      return 0;
    case 'pc':
      vcpu.writePc(value);
      return 0;
    case 'pstate': {
      const mode = bits(value, 4, 0);
      if (mode !== EL0T && mode !== EL1T && mode !== EL1H) return refuse(Errno.EINVAL);
      vcpu.writePstate(value);
      return 0;
    }
    case 'slot':
      vcpu.writeSlot(register.slot, value);
      return 0;
    default:
      return assertNever(register);
  }
}

// --------------------------------------------------------------------------------- timer registers

/** In the order of KVM_GET_REG_LIST; what they mean is the timers' business. */
const timerIds: readonly bigint[] = [
  uapi.KVM_REG_ARM_TIMER_CTL,
  uapi.KVM_REG_ARM_TIMER_CNT,
  uapi.KVM_REG_ARM_TIMER_CVAL,
  uapi.KVM_REG_ARM_PTIMER_CTL,
  uapi.KVM_REG_ARM_PTIMER_CNT,
  uapi.KVM_REG_ARM_PTIMER_CVAL,
];

// ------------------------------------------------------------------------------ firmware registers

/**
 * State of the host's Spectre mitigations, the most a VMM may ask for. Nothing here speculates, so
 * none is required: workaround 1 is Spectre v2, 2 is v4 (SSBD), 3 is BHB. Linux:
 * get_kernel_wa_level().
 */
const workaroundLevel: ReadonlyMap<bigint, number> = new Map([
  [uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1, uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1_NOT_REQUIRED],
  [uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2, uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_NOT_REQUIRED],
  [uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3, uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3_NOT_REQUIRED],
]);

/** The bitmaps of allowed hypercalls: where each is kept, and its highest value. */
const bitmaps = new Map([
  [uapi.KVM_REG_ARM_STD_BMAP, { member: 'stdBmap', most: smcccFeatures.std }],
  [uapi.KVM_REG_ARM_STD_HYP_BMAP, { member: 'stdHypBmap', most: smcccFeatures.stdHyp }],
  [uapi.KVM_REG_ARM_VENDOR_HYP_BMAP, { member: 'vendorHypBmap', most: smcccFeatures.vendorHyp }],
] as const);

/** In the order of KVM_GET_REG_LIST. */
const firmwareIds: readonly bigint[] = [
  uapi.KVM_REG_ARM_PSCI_VERSION,
  ...workaroundLevel.keys(),
  ...bitmaps.keys(),
];

function readFirmware(vcpu: VcpuRegisters, id: bigint): bigint | Refusal {
  if (id === uapi.KVM_REG_ARM_PSCI_VERSION) return BigInt(psciVersion(vcpu));
  const level = workaroundLevel.get(id);
  if (level !== undefined) return BigInt(level);
  const bitmap = bitmaps.get(id);
  return bitmap === undefined ? refuse(Errno.ENOENT) : vcpu.vm[bitmap.member];
}

function writePsciVersion(vcpu: VcpuRegisters, value: bigint): 0 | Refusal {
  const old = value === BigInt(uapi.KVM_ARM_PSCI_0_1);
  const known =
    old ||
    value === BigInt(uapi.KVM_ARM_PSCI_0_2) ||
    value === BigInt(uapi.KVM_ARM_PSCI_1_0) ||
    value === BigInt(uapi.KVM_ARM_PSCI_1_1);
  const wantsOld = (vcpu.features & (1 << uapi.KVM_ARM_VCPU_PSCI_0_2)) === 0;
  if (!known || old !== wantsOld) return refuse(Errno.EINVAL);
  vcpu.vm.psciVersion = Number(value);
  return 0;
}

/**
 * A workaround may be promised up to the host's level; nothing is stored, the level stays the
 * host's.
 */
function checkWorkaround(id: bigint, value: bigint, most: number): 0 | Refusal {
  const level = Number(bits(value, 3, 0));
  if (id !== uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2) {
    return value > 0xfn || level > most ? refuse(Errno.EINVAL) : 0;
  }
  const enabled = BigInt(uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_ENABLED);
  if ((value & ~(0xfn | enabled)) !== 0n) return refuse(Errno.EINVAL);
  const available = level === uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_AVAIL;
  if ((value & enabled) !== 0n && !available) return refuse(Errno.EINVAL);
  if (level > uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_NOT_REQUIRED) return refuse(Errno.EINVAL);
  const wanted = available ? uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_NOT_REQUIRED : level;
  return wanted > most ? refuse(Errno.EINVAL) : 0;
}

function writeFirmware(vcpu: VcpuRegisters, id: bigint, value: bigint): 0 | Refusal {
  if (id === uapi.KVM_REG_ARM_PSCI_VERSION) return writePsciVersion(vcpu, value);
  const level = workaroundLevel.get(id);
  if (level !== undefined) return checkWorkaround(id, value, level);
  const bitmap = bitmaps.get(id);
  if (bitmap === undefined) return refuse(Errno.ENOENT);
  if ((value & ~bitmap.most) !== 0n) return refuse(Errno.EINVAL);
  if (vcpu.vm.hasRunOnce && value !== vcpu.vm[bitmap.member]) return refuse(Errno.EBUSY);
  vcpu.vm[bitmap.member] = value;
  return 0;
}

// -------------------------------------------------------------------------------- system registers

const ascending = systemRegisters.toSorted((a, b) => a.key - b.key);
/** In the order of KVM_GET_REG_LIST: the invariant ones first, each part by encoding. */
const listedRegisters: readonly SystemRegister[] = [
  ...ascending.filter((register) => register.kvm === 'invariant'),
  ...ascending.filter((register) => register.kvm !== undefined && register.kvm !== 'invariant'),
];

/** The listed system register with this id, or undefined: then it is ENOENT. */
function findListed(vcpu: VcpuRegisters, id: bigint): SystemRegister | undefined {
  const key = Number(id & 0xffffn);
  if (id !== uapi.kvmRegSystem(key)) return undefined;
  const register = findSystemRegister(key);
  return register !== undefined && isListed(register, vcpu.vm) ? register : undefined;
}

function readSystem(vcpu: VcpuRegisters, register: SystemRegister): bigint {
  switch (register.kvm) {
    case 'id':
      return vcpu.vm.idRegisters.get(register.slot) ?? 0n;
    case 'idIgnored':
      return 0n;
    default:
      return vcpu.readSlot(register.slot);
  }
}

/** ID registers: EBUSY for a change after the VM has run, EINVAL for more than the host offers. */
function writeId(vcpu: VcpuRegisters, register: SystemRegister, value: bigint): 0 | Refusal {
  const { vm } = vcpu;
  const now = vm.idRegisters.get(register.slot) ?? 0n;
  if (vm.hasRunOnce) return value === now ? 0 : refuse(Errno.EBUSY);
  const accepted = acceptIdRegister(register, value, idRegisterLimit(register, vm));
  if (accepted < 0n) return refuse(Errno.EINVAL);
  vm.idRegisters.set(register.slot, accepted);
  return 0;
}

const OSLSR_OSLK = 1n << 1n;
/** CLIDR_EL1 bits 63:47. */
const CLIDR_RES0_LOW = 47n;

function writeSystem(vcpu: VcpuRegisters, register: SystemRegister, value: bigint): 0 | Refusal {
  switch (register.kvm) {
    case 'id':
      return writeId(vcpu, register, value);
    case 'idIgnored':
      return 0;
    case 'invariant':
      return value === register.reset ? 0 : refuse(Errno.EINVAL);
    case 'oslsr':
      if (((value ^ register.reset) & ~OSLSR_OSLK) !== 0n) return refuse(Errno.EINVAL);
      break;
    case 'clidr':
      if (value >> CLIDR_RES0_LOW !== 0n) return refuse(Errno.EINVAL);
      break;
    case 'value':
    case undefined:
      break;
    default:
      return assertNever(register.kvm);
  }
  vcpu.writeSlot(register.slot, value);
  return 0;
}

/** CSSELR_EL1's value in the id of a CCSIDR register, or -1 when there is no such register. */
function findCcsidr(id: bigint): number {
  const csselr = Number(id & uapi.KVM_REG_ARM_DEMUX_VAL_MASK);
  return id === uapi.kvmRegCcsidr(csselr) && csselr < CCSIDR_COUNT ? csselr : -1;
}

/** EINVAL for a line smaller than the host's. Linux: set_ccsidr(). */
function writeCcsidr(vcpu: VcpuRegisters, csselr: number, value: bigint): 0 | Refusal {
  const lineLog2Bytes = Number(bits(value, 2, 0)) + 4;
  if (lineLog2Bytes < minCacheLineLog2Bytes((csselr & 1) === 1)) return refuse(Errno.EINVAL);
  vcpu.writeSlot(ccsidrSlot(csselr), value);
  return 0;
}

// ------------------------------------------------------------------------------------------- calls

/** Ids of all registers of a vCPU, in Linux's order. Linux: kvm_arm_copy_reg_indices(). */
function registerIds(vcpu: VcpuRegisters): readonly bigint[] {
  const size = { 4: uapi.KVM_REG_SIZE_U32, 8: uapi.KVM_REG_SIZE_U64, 16: uapi.KVM_REG_SIZE_U128 };
  const core = [...coreRegisters].map(
    ([offset, { sizeBytes }]) =>
      uapi.KVM_REG_ARM64 |
      uapi.KVM_REG_ARM_CORE |
      size[sizeBytes as keyof typeof size] |
      BigInt(offset),
  );
  return [
    ...core,
    ...firmwareIds,
    ...timerIds,
    ...listedRegisters
      .filter((register) => isListed(register, vcpu.vm))
      .map((register) => uapi.kvmRegSystem(register.key)),
    ...Array.from({ length: CCSIDR_COUNT }, (_, csselr) => uapi.kvmRegCcsidr(csselr)),
  ];
}

/**
 * KVM_GET_REG_LIST. Fills `list.reg` when `list.n` has room for all, and always sets `list.n` to
 * their number. ENOEXEC before KVM_ARM_VCPU_INIT (n unchanged), E2BIG when there is too little
 * room.
 */
export function getRegList(vcpu: VcpuRegisters, list: uapi.KvmRegList): 0 | Refusal {
  if (!vcpu.initialized) return refuse(Errno.ENOEXEC);
  const ids = registerIds(vcpu);
  const room = list.n;
  list.n = ids.length;
  if (room < ids.length) return refuse(Errno.E2BIG);
  list.reg = [...ids];
  return 0;
}

/** Is the id, apart from its size, one of arm64's: nothing in bits 51:32? */
const isArm64Id = (id: bigint): boolean =>
  (id & ~uapi.KVM_REG_SIZE_MASK) >> 32n === uapi.KVM_REG_ARM64 >> 32n;

/** Registers of SVE: known ids do not exist on a vCPU without it (ENOENT), others are EINVAL. */
function refuseSve(id: bigint): Refusal {
  const base = uapi.KVM_REG_ARM64 | uapi.KVM_REG_ARM64_SVE;
  const isZ = id >> 10n === (base | uapi.KVM_REG_SIZE_U2048) >> 10n;
  const p0 = base | uapi.KVM_REG_SIZE_U256 | 0x400n;
  const isPOrFfr = id >= p0 && id <= p0 + 0x21fn;
  const known = isZ || isPOrFfr || id === uapi.KVM_REG_ARM64_SVE_VLS;
  return refuse(known ? Errno.ENOENT : Errno.EINVAL);
}

/**
 * KVM_GET_ONE_REG: the value, unsigned and of the id's size. ENOEXEC before KVM_ARM_VCPU_INIT,
 * EINVAL for an id that is not arm64's or not a core register, ENOENT for any other that is not
 * listed.
 */
export function getOneReg(vcpu: VcpuRegisters, id: bigint): bigint | Refusal {
  if (!vcpu.initialized) return refuse(Errno.ENOEXEC);
  if (!isArm64Id(id)) return refuse(Errno.EINVAL);
  switch (id & uapi.KVM_REG_ARM_COPROC_MASK) {
    case uapi.KVM_REG_ARM_CORE: {
      const core = findCore(id);
      return isRefusal(core) ? core : readCore(vcpu, core);
    }
    case uapi.KVM_REG_ARM_FW:
    case uapi.KVM_REG_ARM_FW_FEAT_BMAP:
      return readFirmware(vcpu, id);
    case uapi.KVM_REG_ARM64_SVE:
      return refuseSve(id);
    case uapi.KVM_REG_ARM_DEMUX: {
      const csselr = findCcsidr(id);
      return csselr < 0 ? refuse(Errno.ENOENT) : vcpu.readSlot(ccsidrSlot(csselr));
    }
    default: {
      if (timerIds.includes(id)) return vcpu.timers.getOneReg(id);
      const register = findListed(vcpu, id);
      return register === undefined ? refuse(Errno.ENOENT) : readSystem(vcpu, register);
    }
  }
}

/**
 * KVM_SET_ONE_REG. Bits of `value` above the id's size are not looked at. Refusals as for
 * `getOneReg`, then: EINVAL for a value the register does not take, EBUSY for an ID register or a
 * hypercall bitmap that would change after the VM has run. Nothing changes when refused.
 */
export function setOneReg(vcpu: VcpuRegisters, id: bigint, value: bigint): 0 | Refusal {
  if (!vcpu.initialized) return refuse(Errno.ENOEXEC);
  if (!isArm64Id(id)) return refuse(Errno.EINVAL);
  const sized = BigInt.asUintN(KVM_REG_SIZE(id) * 8, value);
  switch (id & uapi.KVM_REG_ARM_COPROC_MASK) {
    case uapi.KVM_REG_ARM_CORE: {
      const core = findCore(id);
      return isRefusal(core) ? core : writeCore(vcpu, core, sized);
    }
    case uapi.KVM_REG_ARM_FW:
    case uapi.KVM_REG_ARM_FW_FEAT_BMAP:
      return writeFirmware(vcpu, id, sized);
    case uapi.KVM_REG_ARM64_SVE:
      return refuseSve(id);
    case uapi.KVM_REG_ARM_DEMUX: {
      const csselr = findCcsidr(id);
      return csselr < 0 ? refuse(Errno.ENOENT) : writeCcsidr(vcpu, csselr, sized);
    }
    default: {
      if (timerIds.includes(id)) return vcpu.timers.setOneReg(id, sized);
      const register = findListed(vcpu, id);
      return register === undefined ? refuse(Errno.ENOENT) : writeSystem(vcpu, register, sized);
    }
  }
}
