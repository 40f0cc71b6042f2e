/**
 * Which hypercalls KVM answers: the VMM's filter (KVM_ARM_VM_SMCCC_FILTER) decides first, then the
 * bitmaps of services in the firmware registers; what neither allows is NOT_SUPPORTED. Asked by
 * smccc.ts before each call. The registers themselves are one-reg.ts's.
 * Linux: arch/arm64/kvm/hypercalls.c.
 */

import { bit } from '../base/index.ts';
import { Errno, type Refusal, refuse } from '../host/index.ts';
import type { VmRegisters } from './registers.ts';
import {
  ARM_SMCCC_ARCH_FEATURES_FUNC_ID,
  ARM_SMCCC_HV_PV_TIME_FEATURES,
  ARM_SMCCC_HV_PV_TIME_ST,
  ARM_SMCCC_TRNG_FEATURES,
  ARM_SMCCC_TRNG_GET_UUID,
  ARM_SMCCC_TRNG_RND32,
  ARM_SMCCC_TRNG_RND64,
  ARM_SMCCC_TRNG_VERSION,
  ARM_SMCCC_VENDOR_HYP_CALL_UID_FUNC_ID,
  ARM_SMCCC_VENDOR_HYP_KVM_FEATURES_FUNC_ID,
  ARM_SMCCC_VENDOR_HYP_KVM_PTP_FUNC_ID,
  ARM_SMCCC_VERSION_FUNC_ID,
  KVM_PSCI_FN_CPU_SUSPEND,
  KVM_PSCI_FN_MIGRATE,
  KVM_REG_ARM_STD_BIT_TRNG_V1_0,
  KVM_REG_ARM_STD_HYP_BIT_PV_TIME,
  KVM_REG_ARM_VENDOR_HYP_BIT_FUNC_FEAT,
  KVM_REG_ARM_VENDOR_HYP_BIT_PTP,
  KVM_SMCCC_FILTER_DENY,
  KVM_SMCCC_FILTER_FWD_TO_USER,
  KVM_SMCCC_FILTER_HANDLE,
} from './uapi.ts';

/** What becomes of a call. Linux: enum kvm_smccc_filter_action. */
export const SmcccAction = {
  HANDLE: KVM_SMCCC_FILTER_HANDLE,
  DENY: KVM_SMCCC_FILTER_DENY,
  FORWARD_TO_USER: KVM_SMCCC_FILTER_FWD_TO_USER,
} as const;
export type SmcccAction = (typeof SmcccAction)[keyof typeof SmcccAction];

/** The bitmaps that the firmware registers hold. */
export type ServiceBitmaps = Pick<VmRegisters, 'stdBmap' | 'stdHypBmap' | 'vendorHypBmap'>;

interface FilterRange {
  readonly first: number;
  readonly last: number;
  readonly action: SmcccAction;
}

/** The architecture's calls: a VMM must not answer those in KVM's place. */
const RESERVED_RANGES: readonly FilterRange[] = [
  { first: 0x8000_0000, last: 0x8000_ffff, action: SmcccAction.HANDLE },
  { first: 0xc000_0000, last: 0xc000_ffff, action: SmcccAction.HANDLE },
];

/** The VMM's choice for ranges of function ids. */
export class SmcccFilter {
  readonly #ranges: FilterRange[] = [];

  /**
   * KVM_ARM_VM_SMCCC_FILTER: what to do with `count` function ids from `base` on. EINVAL for an
   * unknown action or a range past 2^32, EBUSY after a vCPU ran, EEXIST where it meets one set
   * before.
   */
  set(request: { base: number; count: number; action: number; hasRunOnce: boolean }): 0 | Refusal {
    const { base, count, action } = request;
    const last = (base + count - 1) >>> 0;
    if (last < base || !isAction(action)) return refuse(Errno.EINVAL);
    if (request.hasRunOnce) return refuse(Errno.EBUSY);
    if (this.#ranges.length === 0) this.#ranges.push(...RESERVED_RANGES);
    if (this.#ranges.some((range) => base <= range.last && range.first <= last)) {
      return refuse(Errno.EEXIST);
    }
    this.#ranges.push({ first: base, last, action });
    return 0;
  }

  /** What becomes of a call to `functionId` in a VM with these services. */
  actionFor(functionId: number, services: ServiceBitmaps): SmcccAction {
    const range = this.#ranges.find(({ first, last }) => functionId >= first && functionId <= last);
    if (range !== undefined && range.action !== SmcccAction.HANDLE) return range.action;
    return isAllowed(functionId, services) ? SmcccAction.HANDLE : SmcccAction.DENY;
  }
}

const isAction = (value: number): value is SmcccAction =>
  value === SmcccAction.HANDLE ||
  value === SmcccAction.DENY ||
  value === SmcccAction.FORWARD_TO_USER;

/** Linux: kvm_smccc_test_fw_bmap(), kvm_smccc_default_allowed(). */
function isAllowed(functionId: number, services: ServiceBitmaps): boolean {
  switch (functionId) {
    case ARM_SMCCC_VERSION_FUNC_ID:
    case ARM_SMCCC_ARCH_FEATURES_FUNC_ID:
      return true;
    case ARM_SMCCC_TRNG_VERSION:
    case ARM_SMCCC_TRNG_FEATURES:
    case ARM_SMCCC_TRNG_GET_UUID:
    case ARM_SMCCC_TRNG_RND32:
    case ARM_SMCCC_TRNG_RND64:
      return bit(services.stdBmap, KVM_REG_ARM_STD_BIT_TRNG_V1_0) === 1;
    case ARM_SMCCC_HV_PV_TIME_FEATURES:
    case ARM_SMCCC_HV_PV_TIME_ST:
      return bit(services.stdHypBmap, KVM_REG_ARM_STD_HYP_BIT_PV_TIME) === 1;
    case ARM_SMCCC_VENDOR_HYP_CALL_UID_FUNC_ID:
    case ARM_SMCCC_VENDOR_HYP_KVM_FEATURES_FUNC_ID:
      return bit(services.vendorHypBmap, KVM_REG_ARM_VENDOR_HYP_BIT_FUNC_FEAT) === 1;
    case ARM_SMCCC_VENDOR_HYP_KVM_PTP_FUNC_ID:
      return bit(services.vendorHypBmap, KVM_REG_ARM_VENDOR_HYP_BIT_PTP) === 1;
    default:
      return isPsci(functionId);
  }
}

/** Functions 0-31 of the standard secure services (owner 4), or KVM's own numbers for PSCI 0.1. */
const isPsci = (functionId: number): boolean =>
  (((functionId >>> 24) & 0x3f) === 4 && (functionId & 0xffff) <= 0x1f) ||
  (functionId >= KVM_PSCI_FN_CPU_SUSPEND && functionId <= KVM_PSCI_FN_MIGRATE);
