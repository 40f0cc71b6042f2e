/**
 * What KVM_CREATE_VM gives: the descriptor of a VM with all its ioctls. Memory and capabilities are
 * `vm.ts`'s, interrupts `vm-interrupts.ts`'s; here are the vCPUs, what their timers and hypercalls
 * share, and the calls that concern several vCPUs.
 */

import { Prng } from '../base/index.ts';
import { Errno, errnoName, isRefusal, type Refusal, refuse } from '../host/index.ts';
import type { MachineClock } from './clock.ts';
import { VmTimers } from './counter.ts';
import type { HypercallVm, PtpClock } from './hypercall.ts';
import { IoEventFds } from './ioeventfd.ts';
import type { Kvm } from './kvm.ts';
import type { KvmArmCopyMteTags } from './mte.ts';
import type { KvmPolicy } from './policy.ts';
import { createVmRegisters, type VmRegisters } from './registers.ts';
import { SmcccFilter } from './smccc-filter.ts';
import type { KvmArmReadTagLog } from './tag-log.ts';
import {
  KVM_ARM_TAGS_FROM_GUEST,
  KVM_ARM_TARGET_GENERIC_V8,
  KVM_ARM_VM_SMCCC_CTRL,
  KVM_ARM_VM_SMCCC_FILTER,
  KVM_CAP_MAX_VCPUS,
  type KvmArmCounterOffset,
  type KvmDeviceAttr,
  type KvmEnableCap,
  type KvmIoEventfd,
  type KvmIrqfd,
  type KvmIrqLevel,
  type KvmIrqRouting,
  type KvmSmcccFilter,
  type KvmVcpuInit,
} from './uapi.ts';
import { Vcpu } from './vcpu.ts';
import type { VgicDevice } from './vgic/device.ts';
import type { Vgic } from './vgic/vgic.ts';
import type { KvmClearDirtyLog, KvmUserspaceMemoryRegion, Vm } from './vm.ts';
import { VmInterrupts } from './vm-interrupts.ts';

/** What `--trace` and tests want to hear of. */
export interface VmObserver {
  exit?(vcpu: number, reason: string, detail: string): void;
  stage2Fault?(vcpu: number, text: string): void;
  interrupt?(vcpu: number, text: string): void;
  /** MTE is switched on, tags of pages are initialised, or the VMM copies tags. */
  mte?(text: string): void;
}

export interface KvmVmOptions {
  readonly ipaBits?: number;
  readonly policy?: KvmPolicy;
  /** Seeds what the VM's TRNG service gives out. */
  readonly seed?: number;
  readonly observer?: VmObserver;
}

/** What a VM's PTP calls read. */
const ptpClock = (clock: MachineClock, timers: VmTimers): PtpClock => ({
  realTimeNs: () => clock.realTimeNs(),
  virtualCount: () => timers.virtualOffset.exactCount(clock.now()),
  physicalCount: () => timers.physicalOffset.exactCount(clock.now()),
});

export class KvmVm {
  readonly kvm: Kvm;
  readonly vm: Vm;
  readonly timers: VmTimers;
  readonly registers: VmRegisters = createVmRegisters();
  readonly smcccFilter = new SmcccFilter();
  readonly interrupts: VmInterrupts;
  readonly ioEventFds = new IoEventFds();
  readonly vcpus: Vcpu[] = [];
  readonly observer: VmObserver;
  /** The VM as its hypercalls see it. */
  readonly hypercalls: HypercallVm;
  /** A vCPU is inside KVM_RUN. */
  isRunning = false;
  readonly #unwatch: () => void;

  /** Called by `Kvm.createVm`. */
  constructor(kvm: Kvm, vm: Vm, options: KvmVmOptions) {
    this.kvm = kvm;
    this.vm = vm;
    this.observer = options.observer ?? {};
    this.timers = new VmTimers(kvm.clock);
    this.interrupts = new VmInterrupts(this);
    const self = this;
    this.hypercalls = {
      ptp: ptpClock(kvm.clock, this.timers),
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

  /** The VGIC, from its initialisation on. */
  get vgic(): Vgic | undefined {
    return this.interrupts.vgic;
  }

  get vgicDevice(): VgicDevice | undefined {
    return this.interrupts.device;
  }

  /** KVM_CHECK_EXTENSION. */
  checkExtension(cap: number): number {
    return this.vm.checkExtension(cap);
  }

  /** KVM_ENABLE_CAP; see `Vm.enableCap`. */
  enableCap(request: KvmEnableCap): 0 | Refusal {
    const result = this.vm.enableCap(request);
    if (this.vm.mte && !this.registers.mte) this.observer.mte?.('KVM_CAP_ARM_MTE enabled');
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
    const result = this.vm.copyTags(request);
    this.#traceCopy(request, result);
    return result;
  }

  #traceCopy({ guestIpa, flags }: KvmArmCopyMteTags, result: number | Refusal): void {
    if (this.observer.mte === undefined) return;
    const direction = flags === KVM_ARM_TAGS_FROM_GUEST ? 'from' : 'to';
    const outcome = isRefusal(result) ? errnoName(result) : `${result} bytes`;
    this.observer.mte(
      `KVM_ARM_MTE_COPY_TAGS ${direction} guest, ipa=0x${guestIpa.toString(16)}: ${outcome}`,
    );
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
   * KVM_CREATE_VCPU. EINVAL: id beyond the maximum, or as many as there can be; EBUSY: the VGIC is
   * initialised; EEXIST: taken; ENOMEM: the machine has no room for another vCPU's TLBs. Linux:
   * kvm_vm_ioctl_create_vcpu().
   */
  createVcpu(id: number): Vcpu | Refusal {
    const most = this.checkExtension(KVM_CAP_MAX_VCPUS);
    if (!Number.isInteger(id) || id < 0 || id >= most || this.vcpus.length >= most) {
      return refuse(Errno.EINVAL);
    }
    if (this.vgic !== undefined) return refuse(Errno.EBUSY);
    if (this.vcpus.some((vcpu) => vcpu.vcpuId === id)) return refuse(Errno.EEXIST);
    const contextIndex = this.kvm.takeContextIndex();
    if (contextIndex < 0) return refuse(Errno.ENOMEM);
    const vcpu = new Vcpu(this, { id, index: this.vcpus.length, contextIndex });
    this.vcpus.push(vcpu);
    const room = this.vgicDevice?.vcpuCreated() ?? 0;
    if (isRefusal(room)) {
      this.vcpus.pop();
      vcpu.destroy();
      return room;
    }
    this.vm.vcpuCreated();
    return vcpu;
  }

  // ---- interrupts and devices -----------------------------------------------------------------

  /** KVM_CREATE_DEVICE; see `VmInterrupts.createDevice`. */
  createDevice(type: number): VgicDevice | Refusal {
    return this.interrupts.createDevice(type);
  }

  /** KVM_CREATE_DEVICE with KVM_CREATE_DEVICE_TEST: ENODEV for a type that does not exist. */
  testDevice(type: number): 0 | Refusal {
    return this.interrupts.testDevice(type);
  }

  /** KVM_IRQ_LINE; see `VmInterrupts.irqLine`. */
  irqLine(request: KvmIrqLevel): 0 | Refusal {
    return this.interrupts.irqLine(request);
  }

  /** KVM_IRQFD; see `IrqFds.request`. */
  irqfd(request: KvmIrqfd): 0 | Refusal {
    return this.interrupts.irqfd(request);
  }

  /** KVM_SET_GSI_ROUTING; see `GsiRouting.set`. */
  setGsiRouting(request: KvmIrqRouting): 0 | Refusal {
    return this.interrupts.setGsiRouting(request);
  }

  /** KVM_IOEVENTFD; see `IoEventFds.request`. */
  ioeventfd(request: KvmIoEventfd): 0 | Refusal {
    return this.ioEventFds.request(request);
  }

  // ---- time and hypercalls --------------------------------------------------------------------

  /** KVM_ARM_SET_COUNTER_OFFSET; see `VmTimers.setCounterOffset`. */
  setCounterOffset({ counterOffset, reserved = 0n }: KvmArmCounterOffset): 0 | Refusal {
    return this.timers.setCounterOffset(counterOffset, reserved, this.isRunning);
  }

  /**
   * KVM_SET_DEVICE_ATTR on the VM: KVM_ARM_VM_SMCCC_FILTER, `filter` being what the attribute's
   * address points to. ENXIO for another attribute, otherwise see `SmcccFilter.set`.
   */
  setAttr(attr: KvmDeviceAttr, filter: KvmSmcccFilter): 0 | Refusal {
    const has = this.hasAttr(attr);
    if (isRefusal(has)) return has;
    const { base, nrFunctions: count, action } = filter;
    return this.smcccFilter.set({ base, count, action, hasRunOnce: this.registers.hasRunOnce });
  }

  /** KVM_GET_DEVICE_ATTR on the VM: EINVAL, as there is nothing to get. */
  getAttr(_attr: KvmDeviceAttr): Refusal {
    return refuse(Errno.EINVAL);
  }

  /** KVM_HAS_DEVICE_ATTR on the VM: 0, or ENXIO. */
  hasAttr({ group, attr }: KvmDeviceAttr): 0 | Refusal {
    const known = group === KVM_ARM_VM_SMCCC_CTRL && attr === BigInt(KVM_ARM_VM_SMCCC_FILTER);
    return known ? 0 : refuse(Errno.ENXIO);
  }

  /** Gives back memory and TLB regions; neither the VM nor its vCPUs are used again. */
  destroy(): void {
    for (const vcpu of this.vcpus) vcpu.destroy();
    this.interrupts.release();
    this.ioEventFds.release();
    this.#unwatch();
    this.vm.destroy();
  }
}
