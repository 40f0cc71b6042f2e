/**
 * KVM's user interface for arm64: capability numbers, exit reasons, register ids, flags and
 * argument structures, by Linux's names and with Linux's numbers (6.12: include/uapi/linux/kvm.h,
 * arch/arm64/include/uapi/asm/kvm.h, include/uapi/linux/psci.h, include/linux/arm-smccc.h).
 * Register ids are 64-bit and bigint, all else is a number. What the VMM knows of KVM it knows from
 * here; this file has no behaviour but the functions that Linux writes as macros.
 */
import type { EventFd } from '../host/index.ts';

export const KVM_API_VERSION = 12;

// ------------------------------------------------------------------------------------ capabilities

export const KVM_CAP_IRQCHIP = 0;
export const KVM_CAP_USER_MEMORY = 3;
export const KVM_CAP_NR_VCPUS = 9;
export const KVM_CAP_NR_MEMSLOTS = 10;
export const KVM_CAP_MP_STATE = 14;
export const KVM_CAP_COALESCED_MMIO = 15;
export const KVM_CAP_SYNC_MMU = 16;
export const KVM_CAP_DESTROY_MEMORY_REGION_WORKS = 21;
export const KVM_CAP_SET_GUEST_DEBUG = 23;
export const KVM_CAP_IRQ_ROUTING = 25;
export const KVM_CAP_JOIN_MEMORY_REGIONS_WORKS = 30;
export const KVM_CAP_IRQFD = 32;
export const KVM_CAP_IOEVENTFD = 36;
export const KVM_CAP_INTERNAL_ERROR_DATA = 40;
export const KVM_CAP_VCPU_EVENTS = 41;
export const KVM_CAP_ENABLE_CAP = 54;
export const KVM_CAP_MAX_VCPUS = 66;
export const KVM_CAP_ONE_REG = 70;
export const KVM_CAP_SIGNAL_MSI = 77;
export const KVM_CAP_READONLY_MEM = 81;
export const KVM_CAP_IRQFD_RESAMPLE = 82;
export const KVM_CAP_ARM_PSCI = 87;
export const KVM_CAP_ARM_SET_DEVICE_ADDR = 88;
export const KVM_CAP_DEVICE_CTRL = 89;
export const KVM_CAP_ARM_EL1_32BIT = 93;
export const KVM_CAP_ENABLE_CAP_VM = 98;
export const KVM_CAP_IOEVENTFD_NO_LENGTH = 100;
export const KVM_CAP_VM_ATTRIBUTES = 101;
export const KVM_CAP_ARM_PSCI_0_2 = 102;
export const KVM_CAP_CHECK_EXTENSION_VM = 105;
export const KVM_CAP_MULTI_ADDRESS_SPACE = 118;
export const KVM_CAP_GUEST_DEBUG_HW_BPS = 119;
export const KVM_CAP_GUEST_DEBUG_HW_WPS = 120;
export const KVM_CAP_IOEVENTFD_ANY_LENGTH = 122;
export const KVM_CAP_ARM_PMU_V3 = 126;
export const KVM_CAP_VCPU_ATTRIBUTES = 127;
export const KVM_CAP_MAX_VCPU_ID = 128;
export const KVM_CAP_MSI_DEVID = 131;
export const KVM_CAP_IMMEDIATE_EXIT = 136;
export const KVM_CAP_ARM_USER_IRQ = 144;
export const KVM_CAP_ARM_INJECT_SERROR_ESR = 158;
export const KVM_CAP_ARM_VM_IPA_SIZE = 165;
export const KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 = 168;
export const KVM_CAP_ARM_SVE = 170;
export const KVM_CAP_ARM_PTRAUTH_ADDRESS = 171;
export const KVM_CAP_ARM_PTRAUTH_GENERIC = 172;
export const KVM_CAP_ARM_IRQ_LINE_LAYOUT_2 = 174;
export const KVM_CAP_ARM_NISV_TO_USER = 177;
export const KVM_CAP_ARM_INJECT_EXT_DABT = 178;
export const KVM_CAP_HALT_POLL = 182;
export const KVM_CAP_LAST_CPU = 184;
export const KVM_CAP_STEAL_TIME = 187;
export const KVM_CAP_DIRTY_LOG_RING = 192;
export const KVM_CAP_SET_GUEST_DEBUG2 = 195;
export const KVM_CAP_PTP_KVM = 198;
export const KVM_CAP_BINARY_STATS_FD = 203;
export const KVM_CAP_ARM_MTE = 205;
export const KVM_CAP_SYSTEM_EVENT_DATA = 215;
export const KVM_CAP_ARM_SYSTEM_SUSPEND = 216;
export const KVM_CAP_DIRTY_LOG_RING_ACQ_REL = 223;
export const KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP = 225;
export const KVM_CAP_COUNTER_OFFSET = 227;
export const KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE = 228;
export const KVM_CAP_ARM_SUPPORTED_BLOCK_SIZES = 229;
export const KVM_CAP_ARM_SUPPORTED_REG_MASK_RANGES = 230;
export const KVM_CAP_USER_MEMORY2 = 231;
export const KVM_CAP_MEMORY_FAULT_INFO = 232;
export const KVM_CAP_MEMORY_ATTRIBUTES = 233;
export const KVM_CAP_GUEST_MEMFD = 234;
export const KVM_CAP_ARM_WRITABLE_IMP_ID_REGS = 239;
export const KVM_CAP_ARM_EL2 = 240;

/** Bits of KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2's argument. */
export const KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE = 1 << 0;
export const KVM_DIRTY_LOG_INITIALLY_SET = 1 << 1;

/** The argument of KVM_CREATE_VM: IPA bits in its low byte, 0 for the default of 40. */
export const KVM_VM_TYPE_ARM_IPA_SIZE_MASK = 0xff;

// ------------------------------------------------------------------------------------ exit reasons

export const KVM_EXIT_UNKNOWN = 0;
export const KVM_EXIT_HYPERCALL = 3;
export const KVM_EXIT_DEBUG = 4;
export const KVM_EXIT_MMIO = 6;
export const KVM_EXIT_SHUTDOWN = 8;
export const KVM_EXIT_FAIL_ENTRY = 9;
export const KVM_EXIT_INTR = 10;
export const KVM_EXIT_INTERNAL_ERROR = 17;
export const KVM_EXIT_SYSTEM_EVENT = 24;
export const KVM_EXIT_ARM_NISV = 28;
export const KVM_EXIT_DIRTY_RING_FULL = 31;
export const KVM_EXIT_MEMORY_FAULT = 39;

/**
 * Flag of KVM_EXIT_MEMORY_FAULT: the guest used tags of memory that has none. Proposed for Linux,
 * not merged.
 */
export const KVM_MEMORY_EXIT_FLAG_NOTAGACCESS = 1n << 4n;

const exitNames: Readonly<Record<number, string>> = {
  [KVM_EXIT_UNKNOWN]: 'KVM_EXIT_UNKNOWN',
  [KVM_EXIT_HYPERCALL]: 'KVM_EXIT_HYPERCALL',
  [KVM_EXIT_DEBUG]: 'KVM_EXIT_DEBUG',
  [KVM_EXIT_MMIO]: 'KVM_EXIT_MMIO',
  [KVM_EXIT_SHUTDOWN]: 'KVM_EXIT_SHUTDOWN',
  [KVM_EXIT_FAIL_ENTRY]: 'KVM_EXIT_FAIL_ENTRY',
  [KVM_EXIT_INTR]: 'KVM_EXIT_INTR',
  [KVM_EXIT_INTERNAL_ERROR]: 'KVM_EXIT_INTERNAL_ERROR',
  [KVM_EXIT_SYSTEM_EVENT]: 'KVM_EXIT_SYSTEM_EVENT',
  [KVM_EXIT_ARM_NISV]: 'KVM_EXIT_ARM_NISV',
  [KVM_EXIT_DIRTY_RING_FULL]: 'KVM_EXIT_DIRTY_RING_FULL',
  [KVM_EXIT_MEMORY_FAULT]: 'KVM_EXIT_MEMORY_FAULT',
};

/** Linux's name of an exit reason, for summaries and traces. */
export const kvmExitName = (reason: number): string => exitNames[reason] ?? `exit ${reason}`;

export const KVM_SYSTEM_EVENT_SHUTDOWN = 1;
export const KVM_SYSTEM_EVENT_RESET = 2;
export const KVM_SYSTEM_EVENT_CRASH = 3;
export const KVM_SYSTEM_EVENT_WAKEUP = 4;
export const KVM_SYSTEM_EVENT_SUSPEND = 5;
export const KVM_SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2 = 1n << 0n;

export const KVM_INTERNAL_ERROR_EMULATION = 1;
export const KVM_EXIT_FAIL_ENTRY_CPU_UNSUPPORTED = 1 << 0;
export const KVM_MEMORY_EXIT_FLAG_PRIVATE = 1n << 3n;
export const KVM_HYPERCALL_EXIT_SMC = 1n << 0n;
export const KVM_HYPERCALL_EXIT_16BIT = 1n << 1n;

// ------------------------------------------------------------------------------------ vCPU and VM

export const KVM_ARM_TARGET_GENERIC_V8 = 5;
export const KVM_ARM_NUM_TARGETS = 6;

/** Bit numbers in kvm_vcpu_init.features[0]. */
export const KVM_ARM_VCPU_POWER_OFF = 0;
export const KVM_ARM_VCPU_EL1_32BIT = 1;
export const KVM_ARM_VCPU_PSCI_0_2 = 2;
export const KVM_ARM_VCPU_PMU_V3 = 3;
export const KVM_ARM_VCPU_SVE = 4;
export const KVM_ARM_VCPU_PTRAUTH_ADDRESS = 5;
export const KVM_ARM_VCPU_PTRAUTH_GENERIC = 6;
export const KVM_ARM_VCPU_HAS_EL2 = 7;
/** Number of feature bits that KVM_ARM_VCPU_INIT knows; a higher one is ENOENT. */
export const KVM_VCPU_MAX_FEATURES = 7;

export const KVM_MP_STATE_RUNNABLE = 0;
export const KVM_MP_STATE_STOPPED = 5;
export const KVM_MP_STATE_SUSPENDED = 10;
export type KvmMpState =
  | typeof KVM_MP_STATE_RUNNABLE
  | typeof KVM_MP_STATE_STOPPED
  | typeof KVM_MP_STATE_SUSPENDED;

export const KVM_GUESTDBG_ENABLE = 1 << 0;
export const KVM_GUESTDBG_SINGLESTEP = 1 << 1;
export const KVM_GUESTDBG_USE_SW_BP = 1 << 16;
export const KVM_GUESTDBG_USE_HW = 1 << 17;

/** Flags of a memory region. */
export const KVM_MEM_LOG_DIRTY_PAGES = 1 << 0;
export const KVM_MEM_READONLY = 1 << 1;
export const KVM_MEM_GUEST_MEMFD = 1 << 2;

export const KVM_ARM_TAGS_TO_GUEST = 0;
export const KVM_ARM_TAGS_FROM_GUEST = 1;

// ------------------------------------------------------------------------------------ register ids

export const KVM_REG_ARCH_MASK = 0xff00_0000_0000_0000n;
export const KVM_REG_ARM64 = 0x6000_0000_0000_0000n;
export const KVM_REG_SIZE_SHIFT = 52n;
export const KVM_REG_SIZE_MASK = 0x00f0_0000_0000_0000n;
export const KVM_REG_SIZE_U8 = 0n;
export const KVM_REG_SIZE_U16 = 0x0010_0000_0000_0000n;
export const KVM_REG_SIZE_U32 = 0x0020_0000_0000_0000n;
export const KVM_REG_SIZE_U64 = 0x0030_0000_0000_0000n;
export const KVM_REG_SIZE_U128 = 0x0040_0000_0000_0000n;
export const KVM_REG_SIZE_U256 = 0x0050_0000_0000_0000n;
export const KVM_REG_SIZE_U512 = 0x0060_0000_0000_0000n;
export const KVM_REG_SIZE_U2048 = 0x0080_0000_0000_0000n;

/** Bytes of the register that `id` names. */
export const KVM_REG_SIZE = (id: bigint): number =>
  2 ** Number((id & KVM_REG_SIZE_MASK) >> KVM_REG_SIZE_SHIFT);

export const KVM_REG_ARM_COPROC_MASK = 0x0fff_0000n;
export const KVM_REG_ARM_COPROC_SHIFT = 16n;
export const KVM_REG_ARM_CORE = 0x0010_0000n;
export const KVM_REG_ARM_DEMUX = 0x0011_0000n;
export const KVM_REG_ARM64_SYSREG = 0x0013_0000n;
export const KVM_REG_ARM_FW = 0x0014_0000n;
export const KVM_REG_ARM64_SVE = 0x0015_0000n;
export const KVM_REG_ARM_FW_FEAT_BMAP = 0x0016_0000n;

/**
 * Offsets in 32-bit words of the members of struct kvm_regs, as KVM_REG_ARM_CORE_REG() computes
 * them: `regs[n]` and `spsr[n]` are 2 words apart, `vregs[n]` 4.
 */
export const KVM_CORE_OFFSET = {
  regs: 0x00,
  sp: 0x3e,
  pc: 0x40,
  pstate: 0x42,
  sp_el1: 0x44,
  elr_el1: 0x46,
  spsr: 0x48,
  vregs: 0x54,
  fpsr: 0xd4,
  fpcr: 0xd5,
} as const;
/** Size of struct kvm_regs in 32-bit words. */
export const KVM_REGS_WORDS = 0xd8;

/** Indices into `spsr`. */
export const KVM_SPSR_EL1 = 0;
export const KVM_SPSR_ABT = 1;
export const KVM_SPSR_UND = 2;
export const KVM_SPSR_IRQ = 3;
export const KVM_SPSR_FIQ = 4;
export const KVM_NR_SPSR = 5;

const coreId = (size: bigint, offset: number): bigint =>
  KVM_REG_ARM64 | size | KVM_REG_ARM_CORE | BigInt(offset);

/** Id of X0 … X30. */
export const kvmRegX = (n: number): bigint =>
  coreId(KVM_REG_SIZE_U64, KVM_CORE_OFFSET.regs + 2 * n);
/** Id of V0 … V31. */
export const kvmRegV = (n: number): bigint =>
  coreId(KVM_REG_SIZE_U128, KVM_CORE_OFFSET.vregs + 4 * n);
/** Id of SPSR_EL1 (KVM_SPSR_EL1) and of AArch32's four. */
export const kvmRegSpsr = (n: number): bigint =>
  coreId(KVM_REG_SIZE_U64, KVM_CORE_OFFSET.spsr + 2 * n);
/** Ids of the other core registers. `KVM_REG_CORE_SP` is SP_EL0. */
export const KVM_REG_CORE_SP = coreId(KVM_REG_SIZE_U64, KVM_CORE_OFFSET.sp);
export const KVM_REG_CORE_PC = coreId(KVM_REG_SIZE_U64, KVM_CORE_OFFSET.pc);
export const KVM_REG_CORE_PSTATE = coreId(KVM_REG_SIZE_U64, KVM_CORE_OFFSET.pstate);
export const KVM_REG_CORE_SP_EL1 = coreId(KVM_REG_SIZE_U64, KVM_CORE_OFFSET.sp_el1);
export const KVM_REG_CORE_ELR_EL1 = coreId(KVM_REG_SIZE_U64, KVM_CORE_OFFSET.elr_el1);
export const KVM_REG_CORE_FPSR = coreId(KVM_REG_SIZE_U32, KVM_CORE_OFFSET.fpsr);
export const KVM_REG_CORE_FPCR = coreId(KVM_REG_SIZE_U32, KVM_CORE_OFFSET.fpcr);

/** Id of the system register with an encoding key (`arm/sysreg`): the key is the id's low half. */
export const kvmRegSystem = (key: number): bigint =>
  KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM64_SYSREG | BigInt(key);

/** Linux: ARM64_SYS_REG(). */
export const ARM64_SYS_REG = (
  op0: number,
  op1: number,
  crn: number,
  crm: number,
  op2: number,
): bigint => kvmRegSystem((op0 << 14) | (op1 << 11) | (crn << 7) | (crm << 3) | op2);

/**
 * Timer registers. CVAL and CNT of the virtual timer are exchanged: the id built from CNTVCT_EL0's
 * encoding is the compare value, that from CNTV_CVAL_EL0's the count. It was a mistake and is ABI.
 */
export const KVM_REG_ARM_TIMER_CTL = ARM64_SYS_REG(3, 3, 14, 3, 1);
export const KVM_REG_ARM_TIMER_CVAL = ARM64_SYS_REG(3, 3, 14, 0, 2);
export const KVM_REG_ARM_TIMER_CNT = ARM64_SYS_REG(3, 3, 14, 3, 2);
export const KVM_REG_ARM_PTIMER_CTL = ARM64_SYS_REG(3, 3, 14, 2, 1);
export const KVM_REG_ARM_PTIMER_CVAL = ARM64_SYS_REG(3, 3, 14, 2, 2);
export const KVM_REG_ARM_PTIMER_CNT = ARM64_SYS_REG(3, 3, 14, 0, 1);

export const KVM_REG_ARM_FW_REG = (n: number): bigint =>
  KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_FW | BigInt(n);
export const KVM_REG_ARM_PSCI_VERSION = KVM_REG_ARM_FW_REG(0);
export const KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1 = KVM_REG_ARM_FW_REG(1);
export const KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1_NOT_AVAIL = 0;
export const KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1_AVAIL = 1;
export const KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1_NOT_REQUIRED = 2;
export const KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2 = KVM_REG_ARM_FW_REG(2);
export const KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_NOT_AVAIL = 0;
export const KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_UNKNOWN = 1;
export const KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_AVAIL = 2;
export const KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_NOT_REQUIRED = 3;
export const KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_ENABLED = 1 << 4;
export const KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3 = KVM_REG_ARM_FW_REG(3);
export const KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3_NOT_AVAIL = 0;
export const KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3_AVAIL = 1;
export const KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3_NOT_REQUIRED = 2;

export const KVM_REG_ARM_FW_FEAT_BMAP_REG = (n: number): bigint =>
  KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_FW_FEAT_BMAP | BigInt(n);
export const KVM_REG_ARM_STD_BMAP = KVM_REG_ARM_FW_FEAT_BMAP_REG(0);
export const KVM_REG_ARM_STD_BIT_TRNG_V1_0 = 0;
export const KVM_REG_ARM_STD_HYP_BMAP = KVM_REG_ARM_FW_FEAT_BMAP_REG(1);
export const KVM_REG_ARM_STD_HYP_BIT_PV_TIME = 0;
export const KVM_REG_ARM_VENDOR_HYP_BMAP = KVM_REG_ARM_FW_FEAT_BMAP_REG(2);
export const KVM_REG_ARM_VENDOR_HYP_BIT_FUNC_FEAT = 0;
export const KVM_REG_ARM_VENDOR_HYP_BIT_PTP = 1;

export const KVM_REG_ARM_DEMUX_ID_MASK = 0xff00n;
export const KVM_REG_ARM_DEMUX_ID_CCSIDR = 0n;
export const KVM_REG_ARM_DEMUX_VAL_MASK = 0x00ffn;
/** Id of CCSIDR_EL1 for a value of CSSELR_EL1. */
export const kvmRegCcsidr = (csselr: number): bigint =>
  KVM_REG_ARM64 | KVM_REG_SIZE_U32 | KVM_REG_ARM_DEMUX | BigInt(csselr);

export const KVM_REG_ARM64_SVE_VLS =
  KVM_REG_ARM64 | KVM_REG_ARM64_SVE | KVM_REG_SIZE_U512 | 0xffffn;

// ----------------------------------------------------------------------------- interrupts, devices

/** Fields of kvm_irq_level.irq for KVM_IRQ_LINE. */
export const KVM_ARM_IRQ_VCPU2_SHIFT = 28;
export const KVM_ARM_IRQ_VCPU2_MASK = 0xf;
export const KVM_ARM_IRQ_TYPE_SHIFT = 24;
export const KVM_ARM_IRQ_TYPE_MASK = 0xf;
export const KVM_ARM_IRQ_VCPU_SHIFT = 16;
export const KVM_ARM_IRQ_VCPU_MASK = 0xff;
export const KVM_ARM_IRQ_NUM_SHIFT = 0;
export const KVM_ARM_IRQ_NUM_MASK = 0xffff;
export const KVM_ARM_IRQ_TYPE_CPU = 0;
export const KVM_ARM_IRQ_TYPE_SPI = 1;
export const KVM_ARM_IRQ_TYPE_PPI = 2;
export const KVM_ARM_IRQ_CPU_IRQ = 0;
export const KVM_ARM_IRQ_CPU_FIQ = 1;

/**
 * kvm_irq_level.irq, unsigned: `type` is KVM_ARM_IRQ_TYPE_…, `vcpu` counts for PPIs and CPU lines.
 */
export const kvmArmIrq = (line: { type: number; vcpu?: number; num: number }): number => {
  const vcpu = line.vcpu ?? 0;
  const low = vcpu & KVM_ARM_IRQ_VCPU_MASK;
  const high = (vcpu >> 8) & KVM_ARM_IRQ_VCPU2_MASK;
  return (
    ((high << KVM_ARM_IRQ_VCPU2_SHIFT) |
      (line.type << KVM_ARM_IRQ_TYPE_SHIFT) |
      (low << KVM_ARM_IRQ_VCPU_SHIFT) |
      line.num) >>>
    0
  );
};

/** Levels of a vCPU's own devices where no VGIC takes them: kvm_run.s.regs.device_irq_level. */
export const KVM_ARM_DEV_EL1_VTIMER = 1 << 0;
export const KVM_ARM_DEV_EL1_PTIMER = 1 << 1;

/** Types of KVM_SET_GSI_ROUTING's entries. */
export const KVM_IRQ_ROUTING_IRQCHIP = 1;
export const KVM_IRQ_ROUTING_MSI = 2;
export const KVM_MSI_VALID_DEVID = 1 << 0;
/** GSIs are below it. */
export const KVM_MAX_IRQ_ROUTES = 4096;
export const KVM_NR_IRQCHIPS = 1;
/** Pins of the one irqchip: pin n is SPI n, INTID n + 32. */
export const KVM_IRQCHIP_NUM_PINS = 1020 - 32;

export const KVM_IRQFD_FLAG_DEASSIGN = 1 << 0;
export const KVM_IRQFD_FLAG_RESAMPLE = 1 << 1;

export const KVM_IOEVENTFD_FLAG_DATAMATCH = 1 << 0;
export const KVM_IOEVENTFD_FLAG_PIO = 1 << 1;
export const KVM_IOEVENTFD_FLAG_DEASSIGN = 1 << 2;
export const KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY = 1 << 3;
export const KVM_IOEVENTFD_FLAG_FAST_MMIO = 1 << 4;
export const KVM_IOEVENTFD_VALID_FLAG_MASK = (1 << 5) - 1;

export const KVM_DEV_TYPE_VFIO = 4;
export const KVM_DEV_TYPE_ARM_VGIC_V2 = 5;
export const KVM_DEV_TYPE_ARM_VGIC_V3 = 7;
export const KVM_DEV_TYPE_ARM_VGIC_ITS = 8;
export const KVM_DEV_TYPE_ARM_PV_TIME = 10;
export const KVM_CREATE_DEVICE_TEST = 1;

export const KVM_VGIC_V3_ADDR_TYPE_DIST = 2;
export const KVM_VGIC_V3_ADDR_TYPE_REDIST = 3;
export const KVM_VGIC_ITS_ADDR_TYPE = 4;
export const KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION = 5;
export const KVM_VGIC_V3_DIST_SIZE = 0x1_0000;
export const KVM_VGIC_V3_REDIST_SIZE = 0x2_0000;

export const KVM_DEV_ARM_VGIC_GRP_ADDR = 0;
export const KVM_DEV_ARM_VGIC_GRP_DIST_REGS = 1;
export const KVM_DEV_ARM_VGIC_GRP_CPU_REGS = 2;
export const KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT = 32n;
export const KVM_DEV_ARM_VGIC_V3_MPIDR_MASK = 0xffff_ffff_0000_0000n;
export const KVM_DEV_ARM_VGIC_OFFSET_MASK = 0xffff_ffffn;
export const KVM_DEV_ARM_VGIC_SYSREG_INSTR_MASK = 0xffffn;
export const KVM_DEV_ARM_VGIC_GRP_NR_IRQS = 3;
export const KVM_DEV_ARM_VGIC_GRP_CTRL = 4;
export const KVM_DEV_ARM_VGIC_GRP_REDIST_REGS = 5;
export const KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS = 6;
export const KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO = 7;
export const KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_SHIFT = 10n;
export const KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_MASK = 0xffff_fc00n;
export const KVM_DEV_ARM_VGIC_LINE_LEVEL_INTID_MASK = 0x3ffn;
export const VGIC_LEVEL_INFO_LINE_LEVEL = 0;
export const KVM_DEV_ARM_VGIC_CTRL_INIT = 0;
export const KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES = 3;

/** Attribute groups of a vCPU. */
export const KVM_ARM_VCPU_PMU_V3_CTRL = 0;
export const KVM_ARM_VCPU_TIMER_CTRL = 1;
export const KVM_ARM_VCPU_TIMER_IRQ_VTIMER = 0;
export const KVM_ARM_VCPU_TIMER_IRQ_PTIMER = 1;
export const KVM_ARM_VCPU_TIMER_IRQ_HVTIMER = 2;
export const KVM_ARM_VCPU_TIMER_IRQ_HPTIMER = 3;
export const KVM_ARM_VCPU_PVTIME_CTRL = 2;
export const KVM_ARM_VCPU_PVTIME_IPA = 0;

/** Attribute groups of a VM. */
export const KVM_ARM_VM_SMCCC_CTRL = 0;
export const KVM_ARM_VM_SMCCC_FILTER = 0;
export const KVM_SMCCC_FILTER_HANDLE = 0;
export const KVM_SMCCC_FILTER_DENY = 1;
export const KVM_SMCCC_FILTER_FWD_TO_USER = 2;

// -------------------------------------------------------------------------------- PSCI and SMCCC

/** PSCI function ids of the SMC32 and, with PSCI_0_2_64BIT, the SMC64 calling convention. */
export const PSCI_0_2_64BIT = 0x4000_0000;
export const PSCI_0_2_FN_PSCI_VERSION = 0x8400_0000;
export const PSCI_0_2_FN_CPU_SUSPEND = 0x8400_0001;
export const PSCI_0_2_FN64_CPU_SUSPEND = 0xc400_0001;
export const PSCI_0_2_FN_CPU_OFF = 0x8400_0002;
export const PSCI_0_2_FN_CPU_ON = 0x8400_0003;
export const PSCI_0_2_FN64_CPU_ON = 0xc400_0003;
export const PSCI_0_2_FN_AFFINITY_INFO = 0x8400_0004;
export const PSCI_0_2_FN64_AFFINITY_INFO = 0xc400_0004;
export const PSCI_0_2_FN_MIGRATE = 0x8400_0005;
export const PSCI_0_2_FN64_MIGRATE = 0xc400_0005;
export const PSCI_0_2_FN_MIGRATE_INFO_TYPE = 0x8400_0006;
export const PSCI_0_2_FN_MIGRATE_INFO_UP_CPU = 0x8400_0007;
export const PSCI_0_2_FN64_MIGRATE_INFO_UP_CPU = 0xc400_0007;
export const PSCI_0_2_FN_SYSTEM_OFF = 0x8400_0008;
export const PSCI_0_2_FN_SYSTEM_RESET = 0x8400_0009;
export const PSCI_1_0_FN_PSCI_FEATURES = 0x8400_000a;
export const PSCI_1_0_FN_SYSTEM_SUSPEND = 0x8400_000e;
export const PSCI_1_0_FN64_SYSTEM_SUSPEND = 0xc400_000e;
export const PSCI_1_0_FN_SET_SUSPEND_MODE = 0x8400_000f;
export const PSCI_1_1_FN_SYSTEM_RESET2 = 0x8400_0012;
export const PSCI_1_1_FN64_SYSTEM_RESET2 = 0xc400_0012;
export const PSCI_1_1_RESET_TYPE_VENDOR_START = 0x8000_0000;

export const PSCI_0_2_AFFINITY_LEVEL_ON = 0;
export const PSCI_0_2_AFFINITY_LEVEL_OFF = 1;
export const PSCI_0_2_AFFINITY_LEVEL_ON_PENDING = 2;
export const PSCI_0_2_TOS_MP = 2;

/** Results of PSCI calls; negative ones travel sign-extended to 64 bits. */
export const PSCI_RET_SUCCESS = 0;
export const PSCI_RET_NOT_SUPPORTED = -1;
export const PSCI_RET_INVALID_PARAMS = -2;
export const PSCI_RET_DENIED = -3;
export const PSCI_RET_ALREADY_ON = -4;
export const PSCI_RET_ON_PENDING = -5;
export const PSCI_RET_INTERNAL_FAILURE = -6;
export const PSCI_RET_NOT_PRESENT = -7;
export const PSCI_RET_DISABLED = -8;
export const PSCI_RET_INVALID_ADDRESS = -9;

/** Values of KVM_REG_ARM_PSCI_VERSION: major in bits 31:16, minor in 15:0. */
export const KVM_ARM_PSCI_0_1 = 0x0_0001;
export const KVM_ARM_PSCI_0_2 = 0x0_0002;
export const KVM_ARM_PSCI_1_0 = 0x1_0000;
export const KVM_ARM_PSCI_1_1 = 0x1_0001;
export const KVM_ARM_PSCI_LATEST = KVM_ARM_PSCI_1_1;

/** KVM's own numbers for PSCI 0.1, for a vCPU without KVM_ARM_VCPU_PSCI_0_2. */
export const KVM_PSCI_FN_CPU_SUSPEND = 0x95c1_ba5e;
export const KVM_PSCI_FN_CPU_OFF = 0x95c1_ba5f;
export const KVM_PSCI_FN_CPU_ON = 0x95c1_ba60;
export const KVM_PSCI_FN_MIGRATE = 0x95c1_ba61;

export const ARM_SMCCC_VERSION_FUNC_ID = 0x8000_0000;
export const ARM_SMCCC_ARCH_FEATURES_FUNC_ID = 0x8000_0001;
export const ARM_SMCCC_ARCH_SOC_ID = 0x8000_0002;
export const ARM_SMCCC_ARCH_WORKAROUND_1 = 0x8000_8000;
export const ARM_SMCCC_ARCH_WORKAROUND_2 = 0x8000_7fff;
export const ARM_SMCCC_ARCH_WORKAROUND_3 = 0x8000_3fff;
export const ARM_SMCCC_HV_PV_TIME_FEATURES = 0xc500_0020;
export const ARM_SMCCC_HV_PV_TIME_ST = 0xc500_0021;
export const ARM_SMCCC_TRNG_VERSION = 0x8400_0050;
export const ARM_SMCCC_TRNG_FEATURES = 0x8400_0051;
export const ARM_SMCCC_TRNG_GET_UUID = 0x8400_0052;
export const ARM_SMCCC_TRNG_RND32 = 0x8400_0053;
export const ARM_SMCCC_TRNG_RND64 = 0xc400_0053;
export const ARM_SMCCC_VENDOR_HYP_CALL_UID_FUNC_ID = 0x8600_ff01;
export const ARM_SMCCC_VENDOR_HYP_KVM_FEATURES_FUNC_ID = 0x8600_0000;
export const ARM_SMCCC_VENDOR_HYP_KVM_PTP_FUNC_ID = 0x8600_0001;
/** KVM's UUID, the four words that the UID call returns. */
export const ARM_SMCCC_VENDOR_HYP_UID_KVM = [
  0xb66f_b428, 0xe911_c52e, 0x564b_caa9, 0x743a_004d,
] as const;

export const ARM_SMCCC_VERSION_1_1 = 0x1_0001;
export const SMCCC_RET_SUCCESS = 0;
export const SMCCC_RET_NOT_SUPPORTED = -1;
export const SMCCC_RET_NOT_REQUIRED = -2;
export const SMCCC_RET_INVALID_PARAMETER = -3;
export const SMCCC_ARCH_WORKAROUND_RET_UNAFFECTED = 1;

// ------------------------------------------------------------------------------------- structures

/** struct kvm_vcpu_init. */
export interface KvmVcpuInit {
  readonly target: number;
  /** Seven words; only bits of the first are defined. */
  readonly features: readonly number[];
}

/** struct kvm_reg_list: `n` is the room in `reg` before the call, the number of registers after. */
export interface KvmRegList {
  n: number;
  reg: bigint[];
}

/** struct kvm_irq_level; `irq` as `kvmArmIrq` makes it. */
export interface KvmIrqLevel {
  readonly irq: number;
  readonly level: 0 | 1;
}

/** struct kvm_irqfd; the descriptors are the objects. `resamplefd` counts with its flag only. */
export interface KvmIrqfd {
  readonly fd: EventFd;
  readonly gsi: number;
  readonly flags?: number;
  readonly resamplefd?: EventFd;
}

/** struct kvm_ioeventfd; `len` 0: whatever the size of the store. */
export interface KvmIoEventfd {
  readonly fd: EventFd;
  readonly addr: number;
  readonly len: number;
  readonly flags?: number;
  readonly datamatch?: bigint;
}

/** struct kvm_irq_routing_entry: where a GSI goes. */
export type KvmIrqRoutingEntry =
  | {
      readonly gsi: number;
      readonly type: typeof KVM_IRQ_ROUTING_IRQCHIP;
      readonly flags?: number;
      readonly irqchip: number;
      readonly pin: number;
    }
  | {
      readonly gsi: number;
      readonly type: typeof KVM_IRQ_ROUTING_MSI;
      readonly flags?: number;
      readonly address: bigint;
      readonly data: number;
      readonly devid?: number;
    };

/** struct kvm_irq_routing. */
export interface KvmIrqRouting {
  readonly flags?: number;
  readonly entries: readonly KvmIrqRoutingEntry[];
}

/** struct kvm_vcpu_events.exception; absent members are 0. */
export interface KvmVcpuEvents {
  readonly serrorPending?: boolean;
  readonly serrorHasEsr?: boolean;
  /** Only ever set by the VMM. */
  readonly extDabtPending?: boolean;
  /** ESR_ELx.ISS of the SError, with `serrorHasEsr`. */
  readonly serrorEsr?: bigint;
}

/** struct kvm_smccc_filter. */
export interface KvmSmcccFilter {
  /** First function id, uint32. */
  readonly base: number;
  readonly nrFunctions: number;
  /** KVM_SMCCC_FILTER_… */
  readonly action: number;
}

/** struct kvm_arm_counter_offset. */
export interface KvmArmCounterOffset {
  readonly counterOffset: bigint;
  readonly reserved?: bigint;
}

/** struct kvm_device_attr; `attr` is 64-bit. What `addr` points to is an argument of its own. */
export interface KvmDeviceAttr {
  readonly flags: number;
  readonly group: number;
  readonly attr: bigint;
}

/** struct kvm_enable_cap. */
export interface KvmEnableCap {
  readonly cap: number;
  readonly flags?: number;
  readonly args?: readonly bigint[];
}
