/**
 * Hypercalls by the SMC Calling Convention: a guest's HVC, or SMC, with a function id in x0.
 * Answers the architecture's and KVM's own calls here and hands the rest to psci.ts and trng.ts;
 * what is unknown, or refused by smccc-filter.ts, is NOT_SUPPORTED. Called by the vCPU, which
 * carries out the action. Linux: arch/arm64/kvm/hypercalls.c. Arm: DEN 0028.
 */

import { bit } from '../base/index.ts';
import {
  answer,
  type GeneralRegisters,
  type Hypercall,
  type HypercallAction,
  type HypercallVm,
  low32Of,
  RESUME,
} from './hypercall.ts';
import { callPsci } from './psci.ts';
import { SmcccAction } from './smccc-filter.ts';
import { callTrng } from './trng.ts';
import {
  ARM_SMCCC_ARCH_FEATURES_FUNC_ID,
  ARM_SMCCC_ARCH_WORKAROUND_1,
  ARM_SMCCC_ARCH_WORKAROUND_2,
  ARM_SMCCC_ARCH_WORKAROUND_3,
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
  ARM_SMCCC_VENDOR_HYP_UID_KVM,
  ARM_SMCCC_VERSION_1_1,
  ARM_SMCCC_VERSION_FUNC_ID,
  KVM_HYPERCALL_EXIT_SMC,
  KVM_REG_ARM_STD_HYP_BIT_PV_TIME,
  SMCCC_ARCH_WORKAROUND_RET_UNAFFECTED,
  SMCCC_RET_NOT_REQUIRED,
  SMCCC_RET_NOT_SUPPORTED,
  SMCCC_RET_SUCCESS,
} from './uapi.ts';

/** Counters that the PTP call can be asked about. */
const PTP_VIRTUAL_COUNTER = 0;
const PTP_PHYSICAL_COUNTER = 1;

/**
 * Carries out the call in `registers` (x0 … x30 of the calling vCPU, live) and leaves its results
 * there. Never fails: what cannot be done is a negative result in x0.
 */
export function handleHypercall(
  vm: HypercallVm,
  call: Hypercall,
  registers: GeneralRegisters,
): HypercallAction {
  // An SMC with an immediate is reserved (DEN 0028, 2.9) and of the results touches only x0.
  if (call.conduit === 'smc' && call.immediate !== 0) {
    registers[0] = BigInt(SMCCC_RET_NOT_SUPPORTED);
    return RESUME;
  }
  const functionId = low32Of(registers, 0);
  switch (vm.smcccFilter.actionFor(functionId, vm.registers)) {
    case SmcccAction.DENY:
      return answer(registers, SMCCC_RET_NOT_SUPPORTED);
    case SmcccAction.FORWARD_TO_USER:
      return {
        kind: 'forward',
        functionId,
        flags: call.conduit === 'smc' ? KVM_HYPERCALL_EXIT_SMC : 0n,
      };
    case SmcccAction.HANDLE:
      return dispatch(vm, call, registers, functionId);
  }
}

function dispatch(
  vm: HypercallVm,
  call: Hypercall,
  registers: GeneralRegisters,
  functionId: number,
): HypercallAction {
  switch (functionId) {
    case ARM_SMCCC_VERSION_FUNC_ID:
      return answer(registers, ARM_SMCCC_VERSION_1_1);
    case ARM_SMCCC_ARCH_FEATURES_FUNC_ID:
      return answer(registers, architectureFeature(vm, low32Of(registers, 1)));
    case ARM_SMCCC_HV_PV_TIME_FEATURES:
    case ARM_SMCCC_HV_PV_TIME_ST:
      // No vCPU has a place for its stolen time: there is no KVM_ARM_VCPU_PVTIME_CTRL.
      return answer(registers, SMCCC_RET_NOT_SUPPORTED);
    case ARM_SMCCC_VENDOR_HYP_CALL_UID_FUNC_ID:
      return answer(registers, ...ARM_SMCCC_VENDOR_HYP_UID_KVM);
    case ARM_SMCCC_VENDOR_HYP_KVM_FEATURES_FUNC_ID:
      return answer(registers, vm.registers.vendorHypBmap);
    case ARM_SMCCC_VENDOR_HYP_KVM_PTP_FUNC_ID:
      return answer(registers, ...ptpTime(vm, low32Of(registers, 1)));
    case ARM_SMCCC_TRNG_VERSION:
    case ARM_SMCCC_TRNG_FEATURES:
    case ARM_SMCCC_TRNG_GET_UUID:
    case ARM_SMCCC_TRNG_RND32:
    case ARM_SMCCC_TRNG_RND64:
      return callTrng(vm.prng, registers);
    default:
      return callPsci(vm, call, registers);
  }
}

/**
 * Answer of ARCH_FEATURES about function `feature`. Nothing here speculates: of the workarounds for
 * Spectre v2, v4 and BHB none is required, and the calls themselves do not exist.
 */
function architectureFeature(vm: HypercallVm, feature: number): number {
  switch (feature) {
    case ARM_SMCCC_ARCH_WORKAROUND_1:
    case ARM_SMCCC_ARCH_WORKAROUND_3:
      return SMCCC_ARCH_WORKAROUND_RET_UNAFFECTED;
    case ARM_SMCCC_ARCH_WORKAROUND_2:
      return SMCCC_RET_NOT_REQUIRED;
    case ARM_SMCCC_HV_PV_TIME_FEATURES: {
      const hasPvTime = bit(vm.registers.stdHypBmap, KVM_REG_ARM_STD_HYP_BIT_PV_TIME) === 1;
      return hasPvTime ? SMCCC_RET_SUCCESS : SMCCC_RET_NOT_SUPPORTED;
    }
    default:
      return SMCCC_RET_NOT_SUPPORTED;
  }
}

/** Host time and a counter of the guest's, each as upper and lower half. */
function ptpTime({ ptp }: HypercallVm, counter: number): (number | bigint)[] {
  if (counter > PTP_PHYSICAL_COUNTER) return [SMCCC_RET_NOT_SUPPORTED];
  const time = ptp.realTimeNs();
  const count = counter === PTP_VIRTUAL_COUNTER ? ptp.virtualCount() : ptp.physicalCount();
  return [time, count].flatMap((value) => [value >> 32n, value & 0xffff_ffffn]);
}
