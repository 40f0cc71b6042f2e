/**
 * The interrupts of a VM: its VGIC, once it has one, and the ways in which the VMM raises a line,
 * KVM_IRQ_LINE and irqfds through the table of GSIs. A VM without a VGIC has a VMM that emulates an
 * interrupt controller: it drives the IRQ and FIQ inputs of the vCPUs. Called by kvm-vm.ts.
 */
import { Errno, isRefusal, type Refusal, refuse } from '../host/index.ts';
import { GsiRouting } from './gsi-routing.ts';
import { IrqFds } from './irqfd.ts';
import type { KvmVm } from './kvm-vm.ts';
import {
  KVM_ARM_IRQ_CPU_FIQ,
  KVM_ARM_IRQ_CPU_IRQ,
  KVM_ARM_IRQ_NUM_MASK,
  KVM_ARM_IRQ_TYPE_CPU,
  KVM_ARM_IRQ_TYPE_MASK,
  KVM_ARM_IRQ_TYPE_PPI,
  KVM_ARM_IRQ_TYPE_SHIFT,
  KVM_ARM_IRQ_TYPE_SPI,
  KVM_DEV_TYPE_ARM_VGIC_V3,
  type KvmIrqfd,
  type KvmIrqLevel,
  type KvmIrqRouting,
} from './uapi.ts';
import { createVgicDevice, type VgicDevice, type VgicVm, vcpuOfLine } from './vgic/device.ts';
import { PRIVATE_IRQS } from './vgic/registers.ts';
import type { Vgic } from './vgic/vgic.ts';

export class VmInterrupts {
  readonly #vm: KvmVm;
  readonly #routing = new GsiRouting();
  readonly #irqFds: IrqFds;
  #device: VgicDevice | undefined;

  constructor(vm: KvmVm) {
    this.#vm = vm;
    const self = this;
    this.#irqFds = new IrqFds(this.#routing, {
      get isReady() {
        return self.vgic !== undefined;
      },
      setPin: (pin, level) => this.#setPin(pin, level),
    });
  }

  get device(): VgicDevice | undefined {
    return this.#device;
  }

  /** The VGIC, from its initialisation on. */
  get vgic(): Vgic | undefined {
    return this.#device?.vgic;
  }

  /** KVM_CREATE_DEVICE: only the VGIC, once; see `createVgicDevice` for refusals. */
  createDevice(type: number): VgicDevice | Refusal {
    const device = createVgicDevice(this.#view(), {
      type,
      exists: this.#device !== undefined,
      onSignal: (index) => this.#vm.vcpus[index]?.interrupts.update(),
      onInitialised: (spiCount) => this.#routing.setDefault(spiCount),
      onSpiEnded: (intid) => this.#irqFds.ended(intid - PRIVATE_IRQS),
    });
    if (!isRefusal(device)) this.#device = device;
    return device;
  }

  /** KVM_CREATE_DEVICE with KVM_CREATE_DEVICE_TEST: ENODEV for a type that does not exist. */
  testDevice(type: number): 0 | Refusal {
    return type === KVM_DEV_TYPE_ARM_VGIC_V3 ? 0 : refuse(Errno.ENODEV);
  }

  /** The VM as the VGIC sees it; timers own their PPIs. */
  #view(): VgicVm {
    const vm = this.#vm;
    return {
      ipaBits: vm.vm.ipaBits,
      get vcpuCount() {
        return vm.vcpus.length;
      },
      vcpuId: (index) => vm.vcpus[index]!.vcpuId,
      get isRunning() {
        return vm.isRunning;
      },
      get hasRunOnce() {
        return vm.registers.hasRunOnce;
      },
      ownsPpi: (intid) => intid === vm.timers.virtualPpi || intid === vm.timers.physicalPpi,
    };
  }

  /**
   * KVM_IRQ_LINE. EINVAL: an unknown type, vCPU or line; ENXIO: SPIs and PPIs without a VGIC, a
   * CPU's own inputs with one; otherwise see `VgicDevice.irqLine`.
   */
  irqLine(request: KvmIrqLevel): 0 | Refusal {
    if (this.#device !== undefined) return this.#device.irqLine(request);
    const { irq, level } = request;
    switch ((irq >>> KVM_ARM_IRQ_TYPE_SHIFT) & KVM_ARM_IRQ_TYPE_MASK) {
      case KVM_ARM_IRQ_TYPE_CPU:
        return this.#cpuLine(vcpuOfLine(irq), irq & KVM_ARM_IRQ_NUM_MASK, level !== 0);
      case KVM_ARM_IRQ_TYPE_PPI:
      case KVM_ARM_IRQ_TYPE_SPI:
        return refuse(Errno.ENXIO);
      default:
        return refuse(Errno.EINVAL);
    }
  }

  #cpuLine(vcpuId: number, line: number, level: boolean): 0 | Refusal {
    const vcpu = this.#vm.vcpus.find((each) => each.vcpuId === vcpuId);
    if (vcpu === undefined) return refuse(Errno.EINVAL);
    if (line !== KVM_ARM_IRQ_CPU_IRQ && line !== KVM_ARM_IRQ_CPU_FIQ) return refuse(Errno.EINVAL);
    vcpu.interrupts.setUserLine(line === KVM_ARM_IRQ_CPU_IRQ ? 'irq' : 'fiq', level);
    return 0;
  }

  /** KVM_IRQFD; see `IrqFds.request`. */
  irqfd(request: KvmIrqfd): 0 | Refusal {
    return this.#irqFds.request(request);
  }

  /** KVM_SET_GSI_ROUTING; see `GsiRouting.set`. */
  setGsiRouting(request: KvmIrqRouting): 0 | Refusal {
    return this.#routing.set(request);
  }

  /** Linux: vgic_irqfd_set_irq(). */
  #setPin(pin: number, level: boolean): void {
    const { vgic } = this;
    const intid = pin + PRIVATE_IRQS;
    if (vgic !== undefined && intid < vgic.irqCount) vgic.setIrqLine(intid, level);
  }

  /** The VM is gone. */
  release(): void {
    this.#irqFds.release();
  }
}
