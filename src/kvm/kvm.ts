/**
 * /dev/kvm of one host: makes VMs, and owns the processing element that runs all their vCPUs and
 * the machine's clock. The VMM opens it once.
 */

import {
  type AddressSpace,
  Errno,
  type Host,
  isRefusal,
  type Refusal,
  refuse,
} from '../host/index.ts';
import { Core } from '../machine/core.ts';
import { checkExtension } from './capability.ts';
import { InstructionClock, type MachineClock } from './clock.ts';
import { KvmVm, type KvmVmOptions } from './kvm-vm.ts';
import { KVM_API_VERSION } from './uapi.ts';
import { createVm } from './vm.ts';

export interface KvmOptions {
  readonly host: Host;
  /** Absent: time is counted in executed instructions. */
  readonly clock?: MachineClock;
}

export class Kvm {
  readonly host: Host;
  readonly core: Core;
  readonly clock: MachineClock;
  readonly #indices = new Set<number>();

  constructor(options: KvmOptions) {
    this.host = options.host;
    this.core = new Core(options.host.memory);
    this.clock = options.clock ?? new InstructionClock(() => this.core.executed);
  }

  /** KVM_GET_API_VERSION. */
  get apiVersion(): number {
    return KVM_API_VERSION;
  }

  /** KVM_CHECK_EXTENSION on /dev/kvm. */
  checkExtension(cap: number): number {
    return checkExtension(this.host, cap);
  }

  /** KVM_ENABLE_CAP on /dev/kvm: there is none. */
  enableCap(): Refusal {
    return refuse(Errno.EINVAL);
  }

  /** KVM_CREATE_VM for a process. EINVAL, ENOMEM: see `createVm`. */
  createVm(process: AddressSpace, options: KvmVmOptions = {}): KvmVm | Refusal {
    const { ipaBits, policy, observer } = options;
    const vm = createVm({
      host: this.host,
      process,
      ...(ipaBits === undefined ? {} : { ipaBits }),
      ...(policy === undefined ? {} : { policy }),
      ...(observer?.mte === undefined ? {} : { traceMte: (text) => observer.mte?.(text) }),
    });
    return isRefusal(vm) ? vm : new KvmVm(this, vm, options);
  }

  /** A free TLB region of the core for one more vCPU, or -1. */
  takeContextIndex(): number {
    for (let index = 0; index < this.host.memory.layout.vcpuMax; index++) {
      if (!this.#indices.has(index)) {
        this.#indices.add(index);
        return index;
      }
    }
    return -1;
  }

  releaseContextIndex(index: number): void {
    this.#indices.delete(index);
  }
}
