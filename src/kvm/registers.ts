/**
 * The registers of a VM and of a vCPU as KVM sees them: what belongs to the VM and is shared by its
 * vCPUs, the access KVM needs to a vCPU's state, and what KVM_ARM_VCPU_INIT and the first KVM_RUN
 * do to both. Called by vcpu.ts, smccc.ts and one-reg.ts; the vCPU state itself is the machine's.
 */
import {
  CCSIDR_COUNT,
  ccsidrSlot,
  ID_AA64PFR1_MTE_MASK,
  type SystemRegister,
  slotOf,
  systemRegister,
  systemRegisters,
} from '../arm/sysreg/index.ts';
import { bits, withBits } from '../base/index.ts';
import { Errno, type Refusal, refuse } from '../host/index.ts';
import type { VcpuTimers } from './timer.ts';
import {
  KVM_ARM_PSCI_0_1,
  KVM_ARM_PSCI_LATEST,
  KVM_ARM_TARGET_GENERIC_V8,
  KVM_ARM_VCPU_POWER_OFF,
  KVM_ARM_VCPU_PSCI_0_2,
  KVM_REG_ARM_STD_BIT_TRNG_V1_0,
  KVM_REG_ARM_STD_HYP_BIT_PV_TIME,
  KVM_REG_ARM_VENDOR_HYP_BIT_FUNC_FEAT,
  KVM_REG_ARM_VENDOR_HYP_BIT_PTP,
  KVM_VCPU_MAX_FEATURES,
  type KvmVcpuInit,
} from './uapi.ts';

/** Registers of the VM, shared by its vCPUs. */
export interface VmRegisters {
  /** KVM_CAP_ARM_MTE is enabled; it cannot change once a vCPU exists. */
  mte: boolean;
  /**
   * The features of KVM_ARM_VCPU_INIT, the same for all vCPUs; undefined before the first call.
   * Without KVM_ARM_VCPU_POWER_OFF, which is no feature but the state of one vCPU.
   */
  vcpuFeatures: number | undefined;
  /** A vCPU has entered the guest: ID registers and hypercall bitmaps no longer change. */
  hasRunOnce: boolean;
  /** Values of the registers with rule 'id', by slot; empty until the first KVM_ARM_VCPU_INIT. */
  readonly idRegisters: Map<number, bigint>;
  /** What the VMM chose by KVM_REG_ARM_PSCI_VERSION, 0 while it has not. */
  psciVersion: number;
  /** Hypercalls that the guest may use, see KVM_REG_ARM_STD_BMAP and its neighbours. */
  stdBmap: bigint;
  stdHypBmap: bigint;
  vendorHypBmap: bigint;
}

/** KVM's access to one vCPU that is not running. Values are unsigned, of the register's width. */
export interface VcpuRegisters {
  readonly vm: VmRegisters;
  readonly vcpuId: number;
  /** KVM_ARM_VCPU_INIT has succeeded. */
  readonly initialized: boolean;
  /** `VmRegisters.vcpuFeatures`, 0 before there are any. */
  readonly features: number;
  readX(n: number): bigint;
  writeX(n: number, value: bigint): void;
  /** The stack pointer of an exception level, whichever is in use. */
  readSp(el: 0 | 1): bigint;
  writeSp(el: 0 | 1, value: bigint): void;
  readPc(): bigint;
  writePc(value: bigint): void;
  /** PSTATE in the layout of SPSR_EL1. */
  readPstate(): bigint;
  writePstate(value: bigint): void;
  /** 128 bits. */
  readV(n: number): bigint;
  writeV(n: number, value: bigint): void;
  /** A system register by its slot. What is derived from it is derived anew when the vCPU runs. */
  readSlot(slot: number): bigint;
  writeSlot(slot: number, value: bigint): void;
  readonly timers: Pick<VcpuTimers, 'getOneReg' | 'setOneReg' | 'reset'>;
}

/** The hypercalls KVM implements, all allowed at first. Linux: KVM_ARM_SMCCC_…_FEATURES. */
export const smcccFeatures = {
  std: 1n << BigInt(KVM_REG_ARM_STD_BIT_TRNG_V1_0),
  stdHyp: 1n << BigInt(KVM_REG_ARM_STD_HYP_BIT_PV_TIME),
  vendorHyp:
    (1n << BigInt(KVM_REG_ARM_VENDOR_HYP_BIT_FUNC_FEAT)) |
    (1n << BigInt(KVM_REG_ARM_VENDOR_HYP_BIT_PTP)),
} as const;

/** The registers of a new VM. */
export const createVmRegisters = (): VmRegisters => ({
  mte: false,
  vcpuFeatures: undefined,
  hasRunOnce: false,
  idRegisters: new Map(),
  psciVersion: 0,
  stdBmap: smcccFeatures.std,
  stdHypBmap: smcccFeatures.stdHyp,
  vendorHypBmap: smcccFeatures.vendorHyp,
});

/** The PSCI version the guest meets, major in bits 31:16. Linux: kvm_psci_version(). */
export function psciVersion(vcpu: VcpuRegisters): number {
  if ((vcpu.features & (1 << KVM_ARM_VCPU_PSCI_0_2)) === 0) return KVM_ARM_PSCI_0_1;
  return vcpu.vm.psciVersion === 0 ? KVM_ARM_PSCI_LATEST : vcpu.vm.psciVersion;
}

/** The most that an ID register may show in this VM, which is what it shows at first. */
export const idRegisterLimit = (register: SystemRegister, vm: VmRegisters): bigint =>
  register.name === 'ID_AA64PFR1_EL1' && !vm.mte
    ? register.reset & ~ID_AA64PFR1_MTE_MASK
    : register.reset;

/** Whether KVM lists a register for this VM; one that is hidden is ENOENT. */
export const isListed = (register: SystemRegister, vm: VmRegisters): boolean =>
  register.kvm !== undefined && (register.feature !== 'MTE' || vm.mte);

/** Affinity 0 counts to 16, affinity 1 and 2 to 256. Linux: kvm_calculate_mpidr(). */
const mpidr = (vcpuId: number): bigint =>
  (1n << 31n) |
  BigInt(vcpuId & 0x0f) |
  (BigInt((vcpuId >> 4) & 0xff) << 8n) |
  (BigInt((vcpuId >> 12) & 0xff) << 16n);

/** Log2 of the bytes of a line of the host's instruction or data cache. */
export function minCacheLineLog2Bytes(instruction: boolean): number {
  const ctr = systemRegister('CTR_EL0').reset;
  return Number(instruction ? bits(ctr, 3, 0) : bits(ctr, 19, 16)) + 2;
}

/** One set and one way of the smallest line: CCSIDR_EL1 as KVM makes it up. Linux: get_ccsidr(). */
const fabricatedCcsidr = (csselr: number): bigint =>
  BigInt(minCacheLineLog2Bytes((csselr & 1) === 1) - 4);

/** CLIDR_EL1.Ttype1: tags and data share the unified cache of level 1. Linux: reset_clidr(). */
const clidr = (vm: VmRegisters): bigint => {
  const { reset } = systemRegister('CLIDR_EL1');
  return vm.mte ? withBits(reset, 34, 33, 2) : reset;
};

/** What of a vCPU's identity KVM sets at the first KVM_ARM_VCPU_INIT and never again. */
function resetIdentity(vcpu: VcpuRegisters): void {
  vcpu.writeSlot(slotOf.MPIDR_EL1, mpidr(vcpu.vcpuId));
  vcpu.writeSlot(slotOf.CLIDR_EL1, clidr(vcpu.vm));
  for (let csselr = 0; csselr < CCSIDR_COUNT; csselr++) {
    vcpu.writeSlot(ccsidrSlot(csselr), fabricatedCcsidr(csselr));
  }
}

/** PSTATE at reset: EL1h, D, A, I and F masked. */
export const VCPU_RESET_PSTATE = 0x3c5n;

const identityNames: readonly string[] = ['MPIDR_EL1', 'CLIDR_EL1'];

/**
 * What KVM_ARM_VCPU_INIT does to the registers, each time; `vcpu.initialized` still tells whether
 * it is the first. The ID registers of the VM are set by its first vCPU. Linux: kvm_reset_vcpu(),
 * kvm_reset_sys_regs().
 */
export function resetVcpuRegisters(vcpu: VcpuRegisters): void {
  const { vm } = vcpu;
  for (let n = 0; n < 31; n++) vcpu.writeX(n, 0n);
  for (let n = 0; n < 32; n++) vcpu.writeV(n, 0n);
  const setIds = vm.idRegisters.size === 0;
  for (const register of systemRegisters) {
    if (register.slot < 0 || identityNames.includes(register.name)) continue;
    if (register.kvm !== 'id') vcpu.writeSlot(register.slot, register.reset);
    else if (setIds) vm.idRegisters.set(register.slot, idRegisterLimit(register, vm));
  }
  if (!vcpu.initialized) resetIdentity(vcpu);
  vcpu.writePstate(VCPU_RESET_PSTATE);
  vcpu.writeSp(0, 0n);
  vcpu.writeSp(1, 0n);
  vcpu.writePc(0n);
  vcpu.timers.reset();
}

/**
 * Before a vCPU's first KVM_RUN: the VM's ID registers, from now on fixed, become what the guest
 * reads. Without a GICv3 the guest is not told of its system registers. Linux:
 * kvm_finalize_sys_regs().
 */
export function finalizeVcpuRegisters(vcpu: VcpuRegisters, options: { gicV3: boolean }): void {
  const { idRegisters } = vcpu.vm;
  if (!options.gicV3) {
    const pfr0 = idRegisters.get(slotOf.ID_AA64PFR0_EL1) ?? 0n;
    idRegisters.set(slotOf.ID_AA64PFR0_EL1, withBits(pfr0, 27, 24, 0));
  }
  for (const [slot, value] of idRegisters) vcpu.writeSlot(slot, value);
}

/** The features of KVM_ARM_VCPU_INIT that exist here. */
const SUPPORTED_FEATURES = (1 << KVM_ARM_VCPU_POWER_OFF) | (1 << KVM_ARM_VCPU_PSCI_0_2);

/**
 * Checks the argument of KVM_ARM_VCPU_INIT: 0, ENOENT for a feature bit that KVM does not know,
 * EINVAL for one the host lacks and for a foreign target. Linux: kvm_vcpu_init_check_features().
 */
export function checkVcpuInit(init: KvmVcpuInit): 0 | Refusal {
  if (init.target !== KVM_ARM_TARGET_GENERIC_V8) return refuse(Errno.EINVAL);
  const [features = 0, ...rest] = init.features;
  if (features >>> KVM_VCPU_MAX_FEATURES !== 0) return refuse(Errno.ENOENT);
  if (rest.some((word) => word !== 0)) return refuse(Errno.ENOENT);
  return (features & ~SUPPORTED_FEATURES) === 0 ? 0 : refuse(Errno.EINVAL);
}
