/**
 * The IRQ and FIQ inputs of one vCPU and the registers behind them: the timers', which drive PPIs,
 * and the GIC's CPU interface. A VGIC drives the inputs; without one the VMM does, and is told of
 * the timers. The core calls the register hooks, vcpu.ts the rest.
 * Linux: arch/arm64/kvm/arm.c, arch_timer.c.
 */
import type { SystemRegister } from '../arm/sysreg/index.ts';
import type { Hypervisor } from '../machine/context.ts';
import type { KvmVm } from './kvm-vm.ts';
import { VcpuTimers } from './timer.ts';

export interface InterruptLines {
  readonly irq: boolean;
  readonly fiq: boolean;
}

export class VcpuInterrupts implements Hypervisor {
  readonly timers: VcpuTimers;
  readonly #vm: KvmVm;
  readonly #index: number;
  readonly #setLines: (lines: InterruptLines) => void;
  /** Inputs that the VMM drives where there is no VGIC. */
  readonly #userLines = { irq: false, fiq: false };
  #shownLevels = 0;

  /** `index`: the vCPU's position in the VM; `setLines` drives its inputs. */
  constructor(vm: KvmVm, index: number, setLines: (lines: InterruptLines) => void) {
    this.#vm = vm;
    this.#index = index;
    this.#setLines = setLines;
    this.timers = new VcpuTimers(vm.timers, index, (vcpu, intid, level) =>
      vm.vgic?.setPpi(vcpu, intid, level),
    );
  }

  /** Whether an input is up, masked or not. Linux: kvm_arch_vcpu_runnable(). */
  get pending(): boolean {
    const { irq, fiq } = this.#lines();
    // Linux: kvm_cpu_has_pending_timer().
    return irq || fiq || (this.#vm.vgic === undefined && this.timers.levels !== 0);
  }

  #lines(): InterruptLines {
    const { vgic } = this.#vm;
    if (vgic === undefined) return this.#userLines;
    return { irq: vgic.irqPending(this.#index), fiq: vgic.fiqPending(this.#index) };
  }

  /** Something that drives the inputs has changed. */
  update(): void {
    this.#setLines(this.#lines());
  }

  /** KVM_IRQ_LINE of a CPU's own input, for a VMM that emulates the interrupt controller. */
  setUserLine(line: 'irq' | 'fiq', level: boolean): void {
    this.#userLines[line] = level;
    this.update();
  }

  /** KVM_ARM_VCPU_INIT: what the VMM drives falls. */
  reset(): void {
    this.#userLines.irq = false;
    this.#userLines.fiq = false;
    this.update();
  }

  /** Levels of the timers as the VMM was last told of them; 0 with a VGIC. */
  get shownLevels(): number {
    return this.#shownLevels;
  }

  /**
   * Without a VGIC the VMM is to hear of the timers' interrupts: whether that is news. Linux:
   * kvm_timer_should_notify_user(), kvm_timer_update_run().
   */
  showTimers(): boolean {
    if (this.#vm.vgicDevice !== undefined) return false;
    const { levels } = this.timers;
    const changed = levels !== this.#shownLevels;
    this.#shownLevels = levels;
    return changed;
  }

  /** See `Hypervisor`. */
  readRegister(register: SystemRegister): bigint | undefined {
    if (register.effect === 'timer') return this.timers.read(register.key);
    const { vgic } = this.#vm;
    if (register.effect !== 'gic' || vgic === undefined) return undefined;
    const value = vgic.readIcc(this.#index, register.key);
    this.update();
    if (value < 0) return undefined;
    this.#vm.observer.interrupt?.(this.#index, `${register.name} -> ${value}`);
    return BigInt(value);
  }

  /** See `Hypervisor`. */
  writeRegister(register: SystemRegister, value: bigint): 'resume' | 'leave' | 'undefined' {
    if (register.effect === 'timer') {
      if (!this.timers.write(register.key, value)) return 'undefined';
      this.update();
      // The slice that runs may now be too long.
      return 'leave';
    }
    const { vgic } = this.#vm;
    if (register.effect !== 'gic' || vgic === undefined) return 'undefined';
    const low = Number(BigInt.asIntN(32, value));
    const high = Number(BigInt.asIntN(32, value >> 32n));
    if (!vgic.writeIcc(this.#index, register.key, low, high)) return 'undefined';
    this.update();
    this.#vm.observer.interrupt?.(this.#index, `${register.name} <- 0x${value.toString(16)}`);
    return 'resume';
  }
}
