/**
 * What KVM_CREATE_VM gives: the descriptor of a VM with all its ioctls. Memory and capabilities are
 * `vm.ts`'s; here are the vCPUs, the interrupt controller, the timers' common part and the calls
 * that concern several vCPUs.
 */

import { Prng } from '../base/index.ts';
import { Errno, isRefusal, type Refusal, refuse } from '../host/index.ts';
import { VmTimers } from './counter.ts';
import type { HypercallVm } from './hypercall.ts';
import type { Kvm } from './kvm.ts';
import type { KvmArmCopyMteTags } from './mte.ts';
import type { KvmPolicy } from './policy.ts';
import { createVmRegisters, type VmRegisters } from './registers.ts';
import { SmcccFilter } from './smccc-filter.ts';
import type { KvmArmReadTagLog } from './tag-log.ts';
import {
  KVM_ARM_TARGET_GENERIC_V8,
  KVM_CAP_MAX_VCPUS,
  type KvmEnableCap,
  type KvmIrqLevel,
  type KvmVcpuInit,
} from './uapi.ts';
import { Vcpu } from './vcpu.ts';
import { createVgicDevice, type VgicDevice, type VgicVm } from './vgic/device.ts';
import type { KvmClearDirtyLog, KvmUserspaceMemoryRegion, Vm } from './vm.ts';

/** What `--trace` and tests want to hear of. */
export interface VmObserver {
  exit?(vcpu: number, reason: string, detail: string): void;
  stage2Fault?(vcpu: number, text: string): void;
  interrupt?(vcpu: number, text: string): void;
}

export interface KvmVmOptions {
  readonly ipaBits?: number;
  readonly policy?: KvmPolicy;
  /** Seeds what the VM's TRNG service gives out. */
  readonly seed?: number;
  readonly observer?: VmObserver;
}

export class KvmVm {
  readonly kvm: Kvm;
  readonly vm: Vm;
  readonly timers: VmTimers;
  readonly registers: VmRegisters = createVmRegisters();
  readonly smcccFilter = new SmcccFilter();
  readonly vcpus: Vcpu[] = [];
  readonly observer: VmObserver;
  /** The VM as its hypercalls see it. */
  readonly hypercalls: HypercallVm;
  #vgicDevice: VgicDevice | undefined;
  /** A vCPU is inside KVM_RUN. */
  isRunning = false;
  readonly #unwatch: () => void;

  /** Called by `Kvm.createVm`. */
  constructor(kvm: Kvm, vm: Vm, options: KvmVmOptions) {
    this.kvm = kvm;
    this.vm = vm;
    this.observer = options.observer ?? {};
    this.timers = new VmTimers(kvm.clock);
    const self = this;
    this.hypercalls = {
      registers: this.registers,
      smcccFilter: this.smcccFilter,
      prng: new Prng(options.seed ?? 0),
      get systemSuspendEnabled() {
        return vm.systemSuspendEnabled;
      },
      get vcpuCount() {
        return self.vcpus.length;
      },
      affinityOf: (index) => this.vcpus[index]!.affinity,
      isStopped: (index) => this.vcpus[index]!.poweredOff,
    };
    this.#unwatch = vm.stage2.onInvalidate(() => {
      for (const vcpu of this.vcpus) vcpu.stage2Changed();
    });
  }

  get vgic(): VgicDevice['vgic'] {
    return this.#vgicDevice?.vgic;
  }

  get vgicDevice(): VgicDevice | undefined {
    return this.#vgicDevice;
  }

  /** KVM_CHECK_EXTENSION. */
  checkExtension(cap: number): number {
    return this.vm.checkExtension(cap);
  }

  /** KVM_ENABLE_CAP; see `Vm.enableCap`. */
  enableCap(request: KvmEnableCap): 0 | Refusal {
    const result = this.vm.enableCap(request);
    this.registers.mte = this.vm.mte;
    return result;
  }

  /** KVM_SET_USER_MEMORY_REGION; see `Vm.setUserMemoryRegion`. */
  setUserMemoryRegion(region: KvmUserspaceMemoryRegion): 0 | Refusal {
    return this.vm.setUserMemoryRegion(region);
  }

  /** KVM_GET_DIRTY_LOG. */
  getDirtyLog(slot: number): Uint32Array | Refusal {
    return this.vm.getDirtyLog(slot);
  }

  /** KVM_CLEAR_DIRTY_LOG. */
  clearDirtyLog(request: KvmClearDirtyLog): 0 | Refusal {
    return this.vm.clearDirtyLog(request);
  }

  /** KVM_ARM_MTE_COPY_TAGS. */
  copyTags(request: KvmArmCopyMteTags): number | Refusal {
    return this.vm.copyTags(request);
  }

  /** KVM_ARM_READ_TAG_LOG. */
  readTagLog(request: KvmArmReadTagLog): 0 | Refusal {
    return this.vm.readTagLog(request);
  }

  /** KVM_ARM_PREFERRED_TARGET. */
  preferredTarget(): KvmVcpuInit {
    return { target: KVM_ARM_TARGET_GENERIC_V8, features: [0] };
  }

  /**
   * KVM_CREATE_VCPU. EINVAL: id beyond the maximum; EEXIST: taken; EBUSY: the VGIC is initialised;
   * ENOMEM: the machine has no room for another vCPU's TLBs. Linux: kvm_vm_ioctl_create_vcpu().
   */
  createVcpu(id: number): Vcpu | Refusal {
    if (!Number.isInteger(id) || id < 0 || id >= this.checkExtension(KVM_CAP_MAX_VCPUS)) {
      return refuse(Errno.EINVAL);
    }
    if (this.vgic !== undefined) return refuse(Errno.EBUSY);
    if (this.vcpus.some((vcpu) => vcpu.vcpuId === id)) return refuse(Errno.EEXIST);
    const contextIndex = this.kvm.takeContextIndex();
    if (contextIndex < 0) return refuse(Errno.ENOMEM);
    const vcpu = new Vcpu(this, { id, index: this.vcpus.length, contextIndex });
    this.vcpus.push(vcpu);
    const room = this.#vgicDevice?.vcpuCreated() ?? 0;
    if (isRefusal(room)) {
      this.vcpus.pop();
      vcpu.destroy();
      return room;
    }
    this.vm.vcpuCreated();
    return vcpu;
  }

  /** KVM_CREATE_DEVICE: only the VGIC, once; see `createVgicDevice` for refusals. */
  createDevice(type: number): VgicDevice | Refusal {
    const view: VgicVm = vgicView(this);
    const device = createVgicDevice(view, {
      type,
      exists: this.#vgicDevice !== undefined,
      onSignal: (index) => this.vcpus[index]?.interruptRaised(),
    });
    if (!isRefusal(device)) this.#vgicDevice = device;
    return device;
  }

  /** KVM_IRQ_LINE. ENXIO without a VGIC; otherwise see `VgicDevice.irqLine`. */
  irqLine(request: KvmIrqLevel): 0 | Refusal {
    return this.#vgicDevice?.irqLine(request) ?? refuse(Errno.ENXIO);
  }

  /** Gives back memory and TLB regions; neither the VM nor its vCPUs are used again. */
  destroy(): void {
    for (const vcpu of this.vcpus) vcpu.destroy();
    this.#unwatch();
    this.vm.destroy();
  }
}

/** The VM as the VGIC sees it; timers own their PPIs. */
function vgicView(vm: KvmVm): VgicVm {
  return {
    ipaBits: vm.vm.ipaBits,
    get vcpuCount() {
      return vm.vcpus.length;
    },
    get isRunning() {
      return vm.isRunning;
    },
    get hasRunOnce() {
      return vm.registers.hasRunOnce;
    },
    ownsPpi: (intid) => intid === vm.timers.virtualPpi || intid === vm.timers.physicalPpi,
  };
}
