/**
 * What the handlers of hypercalls (smccc.ts, psci.ts, trng.ts) need of the VM, what they are told
 * about the call, and what they may ask the vCPU to do afterwards. Types, and how results are
 * returned.
 */

import type { Prng } from '../base/index.ts';
import type { ServiceBitmaps, SmcccFilter } from './smccc-filter.ts';

/** Readings for the PTP call, taken at one moment. */
export interface PtpClock {
  /** Nanoseconds since 1970; below 2^63. */
  realTimeNs(): bigint;
  virtualCount(): bigint;
  physicalCount(): bigint;
}

/** The VM as hypercalls see it. */
export interface HypercallVm {
  /** The firmware registers that say which services there are. */
  readonly registers: ServiceBitmaps;
  readonly smcccFilter: SmcccFilter;
  /** KVM_CAP_ARM_SYSTEM_SUSPEND is enabled. */
  readonly systemSuspendEnabled: boolean;
  /** Source of the TRNG's bits. */
  readonly prng: Prng;
  /** Host time for guests that ask for it. */
  readonly ptp: PtpClock;
  readonly vcpuCount: number;
  /** Affinity fields of a vCPU's MPIDR_EL1: Aff3 in 39:32, Aff2:Aff1:Aff0 in 23:0. */
  affinityOf(vcpu: number): bigint;
  /** Whether the vCPU is powered off. */
  isStopped(vcpu: number): boolean;
}

/** One call: who made it and how. */
export interface Hypercall {
  readonly conduit: 'hvc' | 'smc';
  /** The instruction's 16-bit immediate. */
  readonly immediate: number;
  /** The PSCI version this vCPU meets, a KVM_ARM_PSCI value. */
  readonly psciVersion: number;
  /** Whether the caller runs big-endian: a CPU it starts does too. */
  readonly bigEndian?: boolean;
}

/**
 * What the vCPU does after the call; the results are in its registers already. The PC is past the
 * instruction in all cases.
 */
export type HypercallAction =
  | { readonly kind: 'resume' }
  /** As WFI: wait for an interrupt, then resume. */
  | { readonly kind: 'wait' }
  /** Power the caller off. */
  | { readonly kind: 'cpu-off' }
  /** Reset vCPU `target` and power it on, with PC `entry` and x0 `context`. */
  | {
      readonly kind: 'cpu-on';
      readonly target: number;
      readonly entry: bigint;
      readonly context: bigint;
      readonly bigEndian: boolean;
    }
  /** KVM_EXIT_SYSTEM_EVENT. `stopAll`: every vCPU is powered off first. */
  | {
      readonly kind: 'system-event';
      readonly type: number;
      readonly data: readonly bigint[];
      readonly stopAll: boolean;
    }
  /** KVM_EXIT_HYPERCALL: the VMM answers. */
  | { readonly kind: 'forward'; readonly functionId: number; readonly flags: bigint };

export const RESUME: HypercallAction = { kind: 'resume' };

/** A guest's x0 … x30, live: what is stored wraps to 64 bits. */
export type GeneralRegisters = BigUint64Array;

/** Function id or any other 32-bit argument: the low half of a register. */
export const low32Of = (registers: GeneralRegisters, index: number): number =>
  Number(registers[index]! & 0xffff_ffffn);

/** Returns up to four values in x0 … x3, and zero in what is left of them. Negative ones wrap. */
export function setResult(registers: GeneralRegisters, ...values: (number | bigint)[]): void {
  for (let i = 0; i < 4; i++) registers[i] = BigInt(values[i] ?? 0);
}

/** Returns `values` and resumes. */
export function answer(
  registers: GeneralRegisters,
  ...values: (number | bigint)[]
): HypercallAction {
  setResult(registers, ...values);
  return RESUME;
}
