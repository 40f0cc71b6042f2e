/**
 * The VGIC as a device of KVM's: KVM_CREATE_DEVICE makes one, KVM_SET_DEVICE_ATTR gives it
 * interrupts and addresses and initialises it, and afterwards its registers are saved and restored
 * through the attributes of its groups. Refusals are Linux's. The VM calls it; the running VGIC is
 * vgic.ts. Linux: arch/arm64/kvm/vgic/vgic-kvm-device.c, vgic-init.c, vgic-mmio-v3.c, vgic-v3.c.
 */

import { Errno, type Refusal, refuse } from '../../host/index.ts';
import {
  KVM_ARM_IRQ_NUM_MASK,
  KVM_ARM_IRQ_TYPE_CPU,
  KVM_ARM_IRQ_TYPE_MASK,
  KVM_ARM_IRQ_TYPE_PPI,
  KVM_ARM_IRQ_TYPE_SHIFT,
  KVM_ARM_IRQ_TYPE_SPI,
  KVM_ARM_IRQ_VCPU_MASK,
  KVM_ARM_IRQ_VCPU_SHIFT,
  KVM_ARM_IRQ_VCPU2_MASK,
  KVM_ARM_IRQ_VCPU2_SHIFT,
  KVM_DEV_ARM_VGIC_CTRL_INIT,
  KVM_DEV_ARM_VGIC_GRP_ADDR,
  KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
  KVM_DEV_ARM_VGIC_GRP_CTRL,
  KVM_DEV_ARM_VGIC_GRP_DIST_REGS,
  KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO,
  KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
  KVM_DEV_ARM_VGIC_GRP_REDIST_REGS,
  KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES,
  KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT,
  KVM_DEV_TYPE_ARM_VGIC_V3,
  type KvmDeviceAttr,
  type KvmIrqLevel,
} from '../uapi.ts';
import { AddressMap } from './address-map.ts';
import { hasRegister, type RegisterAttr, readRegister, writeRegister } from './device-registers.ts';
import { affinityOfId } from './interrupts.ts';
import { PRIVATE_IRQS, SGI_COUNT } from './registers.ts';
import { DEFAULT_IRQ_COUNT, Vgic } from './vgic.ts';

/** Linux: VGIC_V3_MAX_CPUS. */
const VCPUS_MAX = 512;
/** Linux: VGIC_MAX_RESERVED. */
const IRQS_MAX = 1023;

/** The VM as its VGIC sees it. */
export interface VgicVm {
  readonly ipaBits: number;
  /** vCPUs that exist; their indices are 0 … vcpuCount - 1. */
  readonly vcpuCount: number;
  /** The id that KVM_CREATE_VCPU gave the vCPU: its affinity and its lines go by it. */
  vcpuId(index: number): number;
  /** Some vCPU is in KVM_RUN. */
  readonly isRunning: boolean;
  /** Some vCPU has been. */
  readonly hasRunOnce: boolean;
  /** Whether a device in KVM drives this PPI: then the VMM's KVM_IRQ_LINE for it does nothing. */
  ownsPpi(intid: number): boolean;
}

/** What the VM wants to hear of its VGIC. */
export interface VgicHooks {
  /** The IRQ or FIQ input of a vCPU, by its index, rose. */
  onSignal(vcpu: number): void;
  /** It is initialised and has so many SPIs. */
  onInitialised?(spiCount: number): void;
  /** A guest has ended a level-sensitive SPI. */
  onSpiEnded?(intid: number): void;
}

/**
 * KVM_CREATE_DEVICE. ENODEV for a type other than the GICv3, EEXIST for a second one, EBUSY while
 * or after a vCPU ran, E2BIG for a VM with too many vCPUs.
 */
export function createVgicDevice(
  vm: VgicVm,
  options: { type: number; exists: boolean } & VgicHooks,
): VgicDevice | Refusal {
  if (options.type !== KVM_DEV_TYPE_ARM_VGIC_V3) return refuse(Errno.ENODEV);
  if (options.exists) return refuse(Errno.EEXIST);
  if (vm.isRunning || vm.hasRunOnce) return refuse(Errno.EBUSY);
  if (vm.vcpuCount > VCPUS_MAX) return refuse(Errno.E2BIG);
  return new VgicDevice(vm, options);
}

export class VgicDevice {
  readonly #vm: VgicVm;
  readonly #hooks: VgicHooks;
  readonly #addresses: AddressMap;
  /** Zero until the VMM or the initialisation decides. */
  #irqCount = 0;
  #vgic: Vgic | undefined;
  #ready = false;

  /** Called by `createVgicDevice`. */
  constructor(vm: VgicVm, hooks: VgicHooks) {
    this.#vm = vm;
    this.#hooks = hooks;
    this.#addresses = new AddressMap(vm);
  }

  /** The VGIC, from its initialisation on; then no vCPU can be added (EBUSY of KVM_CREATE_VCPU). */
  get vgic(): Vgic | undefined {
    return this.#vgic;
  }

  /** A vCPU was added: EINVAL where its redistributor has no room. Linux: kvm_vgic_vcpu_init(). */
  vcpuCreated(): 0 | Refusal {
    return this.#addresses.vcpuCreated();
  }

  /**
   * Before a vCPU's first run: ENXIO where an address is missing, EINVAL where frames overlap,
   * EBUSY before initialisation. Linux: kvm_vgic_map_resources().
   */
  mapResources(): 0 | Refusal {
    if (this.#ready) return 0;
    const refusal = this.#addresses.checkComplete();
    if (refusal !== 0) return refusal;
    if (this.#vgic === undefined) return refuse(Errno.EBUSY);
    this.#ready = true;
    return 0;
  }

  /** KVM_SET_DEVICE_ATTR; `value` is what the attribute's address points to. */
  setAttr({ group, attr }: KvmDeviceAttr, value: bigint): 0 | Refusal {
    switch (group) {
      case KVM_DEV_ARM_VGIC_GRP_ADDR: {
        const result = this.#addresses.set(attr, value);
        this.#vgic?.place(this.#addresses.places);
        return result;
      }
      case KVM_DEV_ARM_VGIC_GRP_NR_IRQS:
        return this.#setIrqCount(Number(BigInt.asUintN(32, value)));
      case KVM_DEV_ARM_VGIC_GRP_CTRL:
        return this.#control(attr);
      case KVM_DEV_ARM_VGIC_GRP_DIST_REGS:
      case KVM_DEV_ARM_VGIC_GRP_REDIST_REGS:
      case KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS:
      case KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO:
        return this.#access(group, attr, (vgic, register) => writeRegister(vgic, register, value));
      default:
        return refuse(Errno.ENXIO);
    }
  }

  /**
   * KVM_GET_DEVICE_ATTR: what is stored where the attribute's address points to. `value` is what is
   * there before, which only KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION reads.
   */
  getAttr({ group, attr }: KvmDeviceAttr, value = 0n): bigint | Refusal {
    switch (group) {
      case KVM_DEV_ARM_VGIC_GRP_ADDR:
        return this.#addresses.get(attr, value);
      case KVM_DEV_ARM_VGIC_GRP_NR_IRQS:
        return BigInt(this.#irqCount || PRIVATE_IRQS);
      case KVM_DEV_ARM_VGIC_GRP_DIST_REGS:
      case KVM_DEV_ARM_VGIC_GRP_REDIST_REGS:
      case KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS:
      case KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO:
        return this.#access(group, attr, readRegister);
      default:
        return refuse(Errno.ENXIO);
    }
  }

  /** KVM_HAS_DEVICE_ATTR: 0, or ENXIO; EINVAL for registers of a vCPU that does not exist. */
  hasAttr({ group, attr }: KvmDeviceAttr): 0 | Refusal {
    switch (group) {
      case KVM_DEV_ARM_VGIC_GRP_ADDR:
        return this.#addresses.has(attr);
      case KVM_DEV_ARM_VGIC_GRP_NR_IRQS:
        return 0;
      case KVM_DEV_ARM_VGIC_GRP_CTRL:
        return isControl(attr) ? 0 : refuse(Errno.ENXIO);
      case KVM_DEV_ARM_VGIC_GRP_DIST_REGS:
      case KVM_DEV_ARM_VGIC_GRP_REDIST_REGS:
      case KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS:
        if (this.#vcpuOf(group, attr) < 0) return refuse(Errno.EINVAL);
        return hasRegister(group, attr, this.#irqCount || PRIVATE_IRQS);
      default:
        return hasRegister(group, attr, this.#irqCount || PRIVATE_IRQS);
    }
  }

  /**
   * KVM_IRQ_LINE. ENXIO for a CPU's own lines, which only a VM without VGIC has; EBUSY before
   * initialisation; EINVAL for an interrupt or vCPU that does not exist. Linux:
   * kvm_vgic_inject_irq().
   */
  irqLine({ irq, level }: KvmIrqLevel): 0 | Refusal {
    const intid = irq & KVM_ARM_IRQ_NUM_MASK;
    switch ((irq >>> KVM_ARM_IRQ_TYPE_SHIFT) & KVM_ARM_IRQ_TYPE_MASK) {
      case KVM_ARM_IRQ_TYPE_SPI:
        if (intid < PRIVATE_IRQS) return refuse(Errno.EINVAL);
        if (this.#vgic === undefined) return refuse(Errno.EBUSY);
        if (intid >= this.#irqCount) return refuse(Errno.EINVAL);
        this.#vgic.setIrqLine(intid, level !== 0);
        return 0;
      case KVM_ARM_IRQ_TYPE_PPI: {
        const vcpu = this.#vcpuWithId(vcpuOfLine(irq));
        const exists = vcpu >= 0 && intid >= SGI_COUNT && intid < PRIVATE_IRQS;
        if (!exists) return refuse(Errno.EINVAL);
        if (this.#vgic === undefined) return refuse(Errno.EBUSY);
        if (!this.#vm.ownsPpi(intid)) this.#vgic.setPpi(vcpu, intid, level !== 0);
        return 0;
      }
      case KVM_ARM_IRQ_TYPE_CPU:
        return refuse(Errno.ENXIO);
      default:
        return refuse(Errno.EINVAL);
    }
  }

  #setIrqCount(count: number): 0 | Refusal {
    if (count < 2 * PRIVATE_IRQS || count > IRQS_MAX || count % 32 !== 0) {
      return refuse(Errno.EINVAL);
    }
    if (this.#irqCount !== 0) return refuse(Errno.EBUSY);
    this.#irqCount = count;
    return 0;
  }

  #control(attr: bigint): 0 | Refusal {
    if (!isControl(attr)) return refuse(Errno.ENXIO);
    if (attr === BigInt(KVM_DEV_ARM_VGIC_CTRL_INIT)) return this.#initialise();
    // KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES: there are no LPIs that could be pending.
    if (this.#vm.isRunning) return refuse(Errno.EBUSY);
    return this.#vgic === undefined ? refuse(Errno.ENXIO) : 0;
  }

  /** Linux: vgic_init(). */
  #initialise(): 0 {
    if (this.#vgic !== undefined) return 0;
    this.#irqCount ||= DEFAULT_IRQ_COUNT;
    const { vcpuCount } = this.#vm;
    const hooks = this.#hooks;
    this.#vgic = new Vgic({
      vcpuCount,
      irqCount: this.#irqCount,
      affinities: Array.from({ length: vcpuCount }, (_, vcpu) => this.#affinityOf(vcpu)),
      onSignal: (vcpu) => hooks.onSignal(vcpu),
      onSpiEnded: (intid) => hooks.onSpiEnded?.(intid),
    });
    this.#vgic.place(this.#addresses.places);
    hooks.onInitialised?.(this.#irqCount - PRIVATE_IRQS);
    return 0;
  }

  /**
   * Runs `access` on a register. EINVAL without its vCPU, EBUSY before initialisation or in a run.
   */
  #access<T>(
    group: number,
    attr: bigint,
    access: (vgic: Vgic, register: RegisterAttr) => T,
  ): T | Refusal {
    const vcpu = this.#vcpuOf(group, attr);
    if (vcpu < 0) return refuse(Errno.EINVAL);
    if (this.#vm.isRunning || this.#vgic === undefined) return refuse(Errno.EBUSY);
    return access(this.#vgic, { group, attr, vcpu });
  }

  /**
   * The vCPU whose affinity is in an attribute's upper half, or -1; the distributor asks for none.
   */
  #vcpuOf(group: number, attr: bigint): number {
    const affinity =
      group === KVM_DEV_ARM_VGIC_GRP_DIST_REGS
        ? 0
        : Number(attr >> KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT);
    for (let vcpu = 0; vcpu < this.#vm.vcpuCount; vcpu++) {
      if (this.#affinityOf(vcpu) === affinity) return vcpu;
    }
    return -1;
  }

  #affinityOf(vcpu: number): number {
    return affinityOfId(this.#vm.vcpuId(vcpu));
  }

  /** Index of the vCPU with this id, or -1. */
  #vcpuWithId(id: number): number {
    for (let vcpu = 0; vcpu < this.#vm.vcpuCount; vcpu++) {
      if (this.#vm.vcpuId(vcpu) === id) return vcpu;
    }
    return -1;
  }
}

const isControl = (attr: bigint): boolean =>
  attr === BigInt(KVM_DEV_ARM_VGIC_CTRL_INIT) ||
  attr === BigInt(KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES);

/** The vCPU id in kvm_irq_level.irq. */
export const vcpuOfLine = (irq: number): number =>
  ((irq >>> KVM_ARM_IRQ_VCPU_SHIFT) & KVM_ARM_IRQ_VCPU_MASK) +
  256 * ((irq >>> KVM_ARM_IRQ_VCPU2_SHIFT) & KVM_ARM_IRQ_VCPU2_MASK);
