/**
 * PSCI, the firmware interface that turns CPUs and the system on and off: versions 0.1, 0.2, 1.0
 * and 1.1 as KVM implements them. Called by smccc.ts for calls that are allowed; changes the
 * caller's registers and returns what else is to be done.
 * Linux: arch/arm64/kvm/psci.c. Arm: DEN 0022.
 */

import {
  answer,
  type GeneralRegisters,
  type Hypercall,
  type HypercallAction,
  type HypercallVm,
  low32Of,
  setResult,
} from './hypercall.ts';
import {
  ARM_SMCCC_VERSION_FUNC_ID,
  KVM_ARM_PSCI_0_1,
  KVM_ARM_PSCI_0_2,
  KVM_ARM_PSCI_1_0,
  KVM_ARM_PSCI_1_1,
  KVM_PSCI_FN_CPU_OFF,
  KVM_PSCI_FN_CPU_ON,
  KVM_SYSTEM_EVENT_RESET,
  KVM_SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2,
  KVM_SYSTEM_EVENT_SHUTDOWN,
  KVM_SYSTEM_EVENT_SUSPEND,
  PSCI_0_2_AFFINITY_LEVEL_OFF,
  PSCI_0_2_AFFINITY_LEVEL_ON,
  PSCI_0_2_FN_AFFINITY_INFO,
  PSCI_0_2_FN_CPU_OFF,
  PSCI_0_2_FN_CPU_ON,
  PSCI_0_2_FN_CPU_SUSPEND,
  PSCI_0_2_FN_MIGRATE_INFO_TYPE,
  PSCI_0_2_FN_PSCI_VERSION,
  PSCI_0_2_FN_SYSTEM_OFF,
  PSCI_0_2_FN_SYSTEM_RESET,
  PSCI_0_2_FN64_AFFINITY_INFO,
  PSCI_0_2_FN64_CPU_ON,
  PSCI_0_2_FN64_CPU_SUSPEND,
  PSCI_0_2_TOS_MP,
  PSCI_1_0_FN_PSCI_FEATURES,
  PSCI_1_0_FN_SYSTEM_SUSPEND,
  PSCI_1_0_FN64_SYSTEM_SUSPEND,
  PSCI_1_1_FN_SYSTEM_RESET2,
  PSCI_1_1_FN64_SYSTEM_RESET2,
  PSCI_1_1_RESET_TYPE_VENDOR_START,
  PSCI_RET_ALREADY_ON,
  PSCI_RET_INTERNAL_FAILURE,
  PSCI_RET_INVALID_PARAMS,
  PSCI_RET_NOT_SUPPORTED,
  PSCI_RET_SUCCESS,
} from './uapi.ts';

/** Affinity fields of an MPIDR. Linux: MPIDR_HWID_BITMASK. */
const AFFINITY_MASK = 0xff_00ff_ffffn;

/** What a call has at hand. */
interface Call {
  readonly vm: HypercallVm;
  readonly call: Hypercall;
  readonly registers: GeneralRegisters;
  readonly functionId: number;
}

/** Carries out the PSCI call whose function id is in x0. */
export function callPsci(
  vm: HypercallVm,
  call: Hypercall,
  registers: GeneralRegisters,
): HypercallAction {
  const context: Call = { vm, call, registers, functionId: low32Of(registers, 0) };
  switch (call.psciVersion) {
    case KVM_ARM_PSCI_1_1:
      return psci1(context, 1);
    case KVM_ARM_PSCI_1_0:
      return psci1(context, 0);
    case KVM_ARM_PSCI_0_2:
      return psci02(context);
    default:
      return psci01(context);
  }
}

function psci1(context: Call, minor: 0 | 1): HypercallAction {
  const { registers, functionId } = context;
  switch (functionId) {
    case PSCI_0_2_FN_PSCI_VERSION:
      return answer(registers, minor === 0 ? KVM_ARM_PSCI_1_0 : KVM_ARM_PSCI_1_1);
    case PSCI_1_0_FN_PSCI_FEATURES:
      return answer(registers, features(context, minor));
    case PSCI_1_0_FN_SYSTEM_SUSPEND:
      narrowArguments(registers);
      return systemSuspend(context);
    case PSCI_1_0_FN64_SYSTEM_SUSPEND:
      return systemSuspend(context);
    case PSCI_1_1_FN_SYSTEM_RESET2:
      narrowArguments(registers);
      return systemReset2(context, minor);
    case PSCI_1_1_FN64_SYSTEM_RESET2:
      return systemReset2(context, minor);
    default:
      return psci02(context);
  }
}

function psci02(context: Call): HypercallAction {
  const { registers, functionId } = context;
  switch (functionId) {
    case PSCI_0_2_FN_PSCI_VERSION:
      return answer(registers, KVM_ARM_PSCI_0_2);
    case PSCI_0_2_FN_CPU_SUSPEND:
    case PSCI_0_2_FN64_CPU_SUSPEND:
      // Every power state keeps the registers: a wait for an interrupt, as DEN 0022 allows.
      setResult(registers, PSCI_RET_SUCCESS);
      return { kind: 'wait' };
    case PSCI_0_2_FN_CPU_OFF:
      return cpuOff(context);
    case PSCI_0_2_FN_CPU_ON:
      narrowArguments(registers);
      return cpuOn(context);
    case PSCI_0_2_FN64_CPU_ON:
      return cpuOn(context);
    case PSCI_0_2_FN_AFFINITY_INFO:
      narrowArguments(registers);
      return answer(registers, affinityInfo(context));
    case PSCI_0_2_FN64_AFFINITY_INFO:
      return answer(registers, affinityInfo(context));
    case PSCI_0_2_FN_MIGRATE_INFO_TYPE:
      return answer(registers, PSCI_0_2_TOS_MP);
    case PSCI_0_2_FN_SYSTEM_OFF:
      return systemEvent(context, KVM_SYSTEM_EVENT_SHUTDOWN, 0n);
    case PSCI_0_2_FN_SYSTEM_RESET:
      return systemEvent(context, KVM_SYSTEM_EVENT_RESET, 0n);
    default:
      return answer(registers, PSCI_RET_NOT_SUPPORTED);
  }
}

/** KVM's own, before PSCI had numbers. */
function psci01(context: Call): HypercallAction {
  switch (context.functionId) {
    case KVM_PSCI_FN_CPU_OFF:
      return cpuOff(context);
    case KVM_PSCI_FN_CPU_ON:
      return cpuOn(context);
    default:
      return answer(context.registers, PSCI_RET_NOT_SUPPORTED);
  }
}

/** Arguments of the 32-bit convention: the upper halves of x1 … x3 do not count. */
function narrowArguments(registers: GeneralRegisters): void {
  for (let i = 1; i < 4; i++) registers[i] = registers[i]! & 0xffff_ffffn;
}

function features({ vm, registers }: Call, minor: 0 | 1): number {
  switch (low32Of(registers, 1)) {
    case PSCI_0_2_FN_PSCI_VERSION:
    case PSCI_0_2_FN_CPU_SUSPEND:
    case PSCI_0_2_FN64_CPU_SUSPEND:
    case PSCI_0_2_FN_CPU_OFF:
    case PSCI_0_2_FN_CPU_ON:
    case PSCI_0_2_FN64_CPU_ON:
    case PSCI_0_2_FN_AFFINITY_INFO:
    case PSCI_0_2_FN64_AFFINITY_INFO:
    case PSCI_0_2_FN_MIGRATE_INFO_TYPE:
    case PSCI_0_2_FN_SYSTEM_OFF:
    case PSCI_0_2_FN_SYSTEM_RESET:
    case PSCI_1_0_FN_PSCI_FEATURES:
    case ARM_SMCCC_VERSION_FUNC_ID:
      return PSCI_RET_SUCCESS;
    case PSCI_1_0_FN_SYSTEM_SUSPEND:
    case PSCI_1_0_FN64_SYSTEM_SUSPEND:
      return vm.systemSuspendEnabled ? PSCI_RET_SUCCESS : PSCI_RET_NOT_SUPPORTED;
    case PSCI_1_1_FN_SYSTEM_RESET2:
    case PSCI_1_1_FN64_SYSTEM_RESET2:
      return minor >= 1 ? PSCI_RET_SUCCESS : PSCI_RET_NOT_SUPPORTED;
    default:
      return PSCI_RET_NOT_SUPPORTED;
  }
}

/** x0 is what the vCPU sees should somebody turn it on by another way than CPU_ON. */
function cpuOff({ registers }: Call): HypercallAction {
  setResult(registers, PSCI_RET_SUCCESS);
  return { kind: 'cpu-off' };
}

/** x1: MPIDR of the CPU to start, x2: its PC, x3: its x0. Never ON_PENDING: it is on at once. */
function cpuOn({ vm, call, registers }: Call): HypercallAction {
  const affinity = registers[1]!;
  const entry = registers[2]!;
  const context = registers[3]!;
  const target = (affinity & ~AFFINITY_MASK) === 0n ? vcpuAt(vm, affinity) : -1;
  if (target < 0) return answer(registers, PSCI_RET_INVALID_PARAMS);
  if (!vm.isStopped(target)) {
    const isOld = call.psciVersion === KVM_ARM_PSCI_0_1;
    return answer(registers, isOld ? PSCI_RET_INVALID_PARAMS : PSCI_RET_ALREADY_ON);
  }
  setResult(registers, PSCI_RET_SUCCESS);
  return { kind: 'cpu-on', target, entry, context, bigEndian: call.bigEndian ?? false };
}

/** Index of the vCPU with this affinity, or -1. */
function vcpuAt(vm: HypercallVm, affinity: bigint): number {
  for (let v = 0; v < vm.vcpuCount; v++) if (vm.affinityOf(v) === affinity) return v;
  return -1;
}

/** x1: an MPIDR, x2: the lowest affinity level of it that counts. On if any CPU there is on. */
function affinityInfo({ vm, registers }: Call): number {
  const affinity = registers[1]!;
  const level = registers[2]!;
  if ((affinity & ~AFFINITY_MASK) !== 0n || level > 3n) return PSCI_RET_INVALID_PARAMS;
  const mask = AFFINITY_MASK & ~((1n << (8n * level)) - 1n);
  let found = false;
  for (let v = 0; v < vm.vcpuCount; v++) {
    if ((vm.affinityOf(v) & mask) !== (affinity & mask)) continue;
    if (!vm.isStopped(v)) return PSCI_0_2_AFFINITY_LEVEL_ON;
    found = true;
  }
  return found ? PSCI_0_2_AFFINITY_LEVEL_OFF : PSCI_RET_INVALID_PARAMS;
}

/** A guest that comes back from being turned off sees an INTERNAL_FAILURE. */
function systemEvent({ registers }: Call, type: number, flags: bigint): HypercallAction {
  setResult(registers, PSCI_RET_INTERNAL_FAILURE);
  return { kind: 'system-event', type, data: [flags], stopAll: true };
}

/** x1: 0, a warm reset, or a vendor's own kind. Of the registers only x0 changes. */
function systemReset2({ registers }: Call, minor: 0 | 1): HypercallAction {
  if (minor < 1) return answer(registers, PSCI_RET_NOT_SUPPORTED);
  const type = low32Of(registers, 1);
  if (type !== 0 && type < PSCI_1_1_RESET_TYPE_VENDOR_START) {
    return answer(registers, PSCI_RET_INVALID_PARAMS);
  }
  registers[0] = BigInt(PSCI_RET_INTERNAL_FAILURE);
  return {
    kind: 'system-event',
    type: KVM_SYSTEM_EVENT_RESET,
    data: [KVM_SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2],
    stopAll: true,
  };
}

/**
 * The VMM carries it out; it finds the call's arguments in the registers, which stay as they are.
 */
function systemSuspend({ vm, registers }: Call): HypercallAction {
  if (!vm.systemSuspendEnabled) return answer(registers, PSCI_RET_NOT_SUPPORTED);
  return { kind: 'system-event', type: KVM_SYSTEM_EVENT_SUSPEND, data: [], stopAll: false };
}
