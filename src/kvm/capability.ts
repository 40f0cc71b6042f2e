/**
 * KVM_CHECK_EXTENSION: what this KVM can do, as numbers by capability. What exists is said, nothing
 * else: a capability that Linux has and this table lacks is not there (0). Used by `vm.ts`.
 */
import { features } from '../arm/sysreg/index.ts';
import { BLOCK_SIZE, GIB, PAGE_SIZE } from '../base/index.ts';
import type { Host } from '../host/index.ts';
import * as uapi from './uapi.ts';

/** Number of memory slots of a VM; ids are 0 … 32766. Linux: KVM_USER_MEM_SLOTS. */
export const KVM_USER_MEM_SLOTS = 32767;

/** Sizes that stage 2 can map as one block, as a bitmap. Linux: kvm_supported_block_sizes(). */
export const SUPPORTED_BLOCK_SIZES = GIB + BLOCK_SIZE + PAGE_SIZE;

/** What KVM_SET_GUEST_DEBUG takes; hardware breakpoints are not modelled. */
export const GUEST_DEBUG_FLAGS =
  uapi.KVM_GUESTDBG_ENABLE | uapi.KVM_GUESTDBG_SINGLESTEP | uapi.KVM_GUESTDBG_USE_SW_BP;

/** Capabilities that are there whatever the host and the VM. */
const always: readonly number[] = [
  uapi.KVM_CAP_IRQCHIP,
  uapi.KVM_CAP_USER_MEMORY,
  uapi.KVM_CAP_MP_STATE,
  uapi.KVM_CAP_SYNC_MMU,
  uapi.KVM_CAP_DESTROY_MEMORY_REGION_WORKS,
  uapi.KVM_CAP_JOIN_MEMORY_REGIONS_WORKS,
  uapi.KVM_CAP_IRQFD,
  uapi.KVM_CAP_IOEVENTFD,
  uapi.KVM_CAP_INTERNAL_ERROR_DATA,
  uapi.KVM_CAP_VCPU_EVENTS,
  uapi.KVM_CAP_ONE_REG,
  uapi.KVM_CAP_READONLY_MEM,
  uapi.KVM_CAP_IRQFD_RESAMPLE,
  uapi.KVM_CAP_ARM_PSCI,
  uapi.KVM_CAP_DEVICE_CTRL,
  uapi.KVM_CAP_ENABLE_CAP_VM,
  uapi.KVM_CAP_SET_GUEST_DEBUG,
  uapi.KVM_CAP_ARM_PSCI_0_2,
  uapi.KVM_CAP_CHECK_EXTENSION_VM,
  uapi.KVM_CAP_IOEVENTFD_ANY_LENGTH,
  uapi.KVM_CAP_VCPU_ATTRIBUTES,
  uapi.KVM_CAP_IMMEDIATE_EXIT,
  uapi.KVM_CAP_ARM_USER_IRQ,
  uapi.KVM_CAP_ARM_IRQ_LINE_LAYOUT_2,
  uapi.KVM_CAP_ARM_NISV_TO_USER,
  uapi.KVM_CAP_ARM_INJECT_EXT_DABT,
  uapi.KVM_CAP_SYSTEM_EVENT_DATA,
  uapi.KVM_CAP_ARM_SYSTEM_SUSPEND,
  uapi.KVM_CAP_COUNTER_OFFSET,
  uapi.KVM_CAP_PTP_KVM,
];

/** The answer of KVM_CHECK_EXTENSION for `cap`, 0 for what is not there or not known. */
export function checkExtension(host: Host, cap: number): number {
  switch (cap) {
    case uapi.KVM_CAP_NR_VCPUS:
    case uapi.KVM_CAP_MAX_VCPUS:
    case uapi.KVM_CAP_MAX_VCPU_ID:
      return host.memory.layout.vcpuMax;
    case uapi.KVM_CAP_NR_MEMSLOTS:
      return KVM_USER_MEM_SLOTS;
    case uapi.KVM_CAP_IRQ_ROUTING:
      return uapi.KVM_MAX_IRQ_ROUTES;
    case uapi.KVM_CAP_SET_GUEST_DEBUG2:
      return GUEST_DEBUG_FLAGS;
    case uapi.KVM_CAP_ARM_INJECT_SERROR_ESR:
      return features.RAS ? 1 : 0;
    case uapi.KVM_CAP_ARM_VM_IPA_SIZE:
      return host.cpu.paBits;
    case uapi.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
      return uapi.KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | uapi.KVM_DIRTY_LOG_INITIALLY_SET;
    case uapi.KVM_CAP_ARM_MTE:
      return host.cpu.mte ? 1 : 0;
    case uapi.KVM_CAP_ARM_SUPPORTED_BLOCK_SIZES:
      return SUPPORTED_BLOCK_SIZES;
    case uapi.KVM_CAP_ARM_EL1_32BIT:
      return features.AArch32 ? 1 : 0;
    case uapi.KVM_CAP_ARM_SVE:
      return features.SVE ? 1 : 0;
    case uapi.KVM_CAP_ARM_PMU_V3:
      return features.PMUv3 ? 1 : 0;
    case uapi.KVM_CAP_ARM_PTRAUTH_ADDRESS:
    case uapi.KVM_CAP_ARM_PTRAUTH_GENERIC:
      return features.PAuth ? 1 : 0;
    default:
      return always.includes(cap) ? 1 : 0;
  }
}
