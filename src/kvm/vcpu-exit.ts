/**
 * Why KVM_RUN returned: `struct kvm_run`, as a union. `vcpu.ts` makes these; a VMM's loop takes
 * them apart. Types only.
 */
import type { Hva, Ipa } from '../base/index.ts';
import type { Errno } from '../host/index.ts';

/** KVM_EXIT_MMIO. For a load, fill `data` before the next run. */
export interface MmioExit {
  readonly kind: 'mmio';
  readonly ipa: Ipa;
  readonly isWrite: boolean;
  readonly size: 1 | 2 | 4 | 8;
  /** The value stored, or to be loaded, unsigned. */
  data: bigint;
}

export type VcpuExit =
  | MmioExit
  /** KVM_EXIT_SYSTEM_EVENT; `type` is a KVM_SYSTEM_EVENT number. */
  | { readonly kind: 'system-event'; readonly type: number; readonly data: readonly bigint[] }
  /** KVM_EXIT_HYPERCALL: a call that the SMCCC filter sends to the VMM. */
  | { readonly kind: 'hypercall'; readonly functionId: number; readonly flags: bigint }
  /** KVM_EXIT_DEBUG: a step or a BRK that `setGuestDebug` asked for. */
  | { readonly kind: 'debug'; readonly esr: bigint }
  /** KVM_EXIT_ARM_NISV. */
  | { readonly kind: 'nisv'; readonly ipa: Ipa; readonly esrIss: number }
  /**
   * KVM_RUN = -1, EINTR: `immediateExit` was set; or, without a VGIC, `Vcpu.deviceIrqLevel`
   * changed.
   */
  | { readonly kind: 'interrupted' }
  /** The turn is over; run it again. */
  | { readonly kind: 'preempted' }
  /** The vCPU waits (WFI, a page of the host, or it is off); run it again when `runnable`. */
  | { readonly kind: 'blocked' }
  /**
   * A page of the VMM is missing that the VMM itself supplies (userfaultfd,
   * `AddressSpace.awaited`); run it again when `runnable`. Linux hides it: the thread of the vCPU
   * sleeps.
   */
  | { readonly kind: 'userfault'; readonly hva: Hva }
  /** KVM_EXIT_MEMORY_FAULT, KVM_RUN = -1 with EFAULT; `flags` say why. */
  | {
      readonly kind: 'memory-fault';
      readonly ipa: Ipa;
      readonly sizeBytes: number;
      /** KVM_MEMORY_EXIT_FLAG_*. */
      readonly flags: bigint;
    }
  /** The vCPU spins (WFE, YIELD): the turn is another's. */
  | { readonly kind: 'yielded' }
  /** KVM_RUN = -1 with this errno. */
  | { readonly kind: 'error'; readonly errno: Errno };
