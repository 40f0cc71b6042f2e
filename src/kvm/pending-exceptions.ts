/**
 * Exceptions that a vCPU owes its guest: an SError, which waits until PSTATE.A permits it, and the
 * external abort with which a VMM may answer a load or store. KVM_GET_VCPU_EVENTS and
 * KVM_SET_VCPU_EVENTS are here, and how KVM makes a guest take an abort. Called by vcpu.ts.
 * Linux: arch/arm64/kvm/inject_fault.c, __kvm_arm_vcpu_set_events().
 */
import { dataAbortEsr, encodeFsc, FaultType, instructionAbortEsr } from '../arm/syndrome.ts';
import * as S from '../engine/state.ts';
import { Errno, type Refusal, refuse } from '../host/index.ts';
import type { CpuContext } from '../machine/context.ts';
import type { Core } from '../machine/core.ts';
import { takeAbort } from '../machine/exceptions.ts';
import type { KvmVcpuEvents } from './uapi.ts';

/**
 * Makes the guest that is loaded take an instruction or data abort to EL1. Linux: inject_abt64().
 */
export function injectAbort(core: Core, abort: { fetch: boolean; fsc: number; far: bigint }): void {
  const makeEsr = abort.fetch ? instructionAbortEsr : dataAbortEsr;
  const esr = makeEsr({ fsc: abort.fsc }, core.s[S.EL / 4] === 0);
  const farHigh = Number(BigInt.asIntN(32, abort.far >> 32n));
  const farLow = Number(BigInt.asIntN(32, abort.far));
  takeAbort(core, esr, farHigh, farLow);
}

export class PendingExceptions {
  readonly #core: Core;
  readonly #context: CpuContext;
  /** Where the external data abort is to be reported, if there is to be one. */
  #abortAddress: bigint | undefined;

  constructor(core: Core, context: CpuContext) {
    this.#core = core;
    this.#context = context;
  }

  /** KVM_GET_VCPU_EVENTS. An abort is never shown: it is on its way into the guest. */
  get events(): Required<KvmVcpuEvents> {
    return {
      serrorPending: this.#context.sErrorPending,
      serrorHasEsr: false,
      extDabtPending: false,
      serrorEsr: 0n,
    };
  }

  /**
   * KVM_SET_VCPU_EVENTS: adds to what is pending and takes nothing away. EINVAL: an SError with a
   * syndrome, which needs FEAT_RAS. `faultAddress`: the guest's last that stage 2 refused.
   */
  add(events: KvmVcpuEvents, faultAddress: bigint): 0 | Refusal {
    const { serrorPending, serrorHasEsr, extDabtPending } = events;
    if (serrorPending === true && serrorHasEsr === true) return refuse(Errno.EINVAL);
    if (serrorPending === true) this.addSError();
    if (extDabtPending === true) this.#abortAddress = faultAddress;
    return 0;
  }

  /** Linux: kvm_inject_vabt(). */
  addSError(): void {
    this.#core.setSErrorPending(this.#context, true);
  }

  /** The guest will begin in the handler of an abort. */
  get hasAbort(): boolean {
    return this.#abortAddress !== undefined;
  }

  /** Before the guest is entered: takes the abort, if there is one. */
  deliverAbort(): void {
    const far = this.#abortAddress;
    if (far === undefined) return;
    this.#abortAddress = undefined;
    this.#core.load(this.#context);
    injectAbort(this.#core, { fetch: false, fsc: encodeFsc(FaultType.externalAbort), far });
  }

  /** KVM_ARM_VCPU_INIT. */
  clear(): void {
    this.#abortAddress = undefined;
    this.#core.setSErrorPending(this.#context, false);
  }
}
