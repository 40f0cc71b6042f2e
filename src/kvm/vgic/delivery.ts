/**
 * Which vCPU is interrupted by what, now: joins the interrupts' state with the CPU interfaces,
 * keeps the IRQ and FIQ input of every vCPU up to date, and carries out acknowledge, end of
 * interrupt, deactivation and SGIs. The register files change state and then call `bankChanged` or
 * `refresh`, so that asking whether a vCPU is interrupted is one array load.
 */

import { CpuInterface } from './cpu-interface.ts';
import type { Interrupts } from './interrupts.ts';
import { FIRST_SPECIAL_INTID, PRIVATE_IRQS, SPURIOUS } from './registers.ts';

export class Delivery {
  readonly interrupts: Interrupts;
  readonly cpus: readonly CpuInterface[];
  /** GICD_CTLR.EnableGrp1; as in Linux it gates both groups. */
  distributorEnabled = false;

  /** Slot of each vCPU's highest-priority pending interrupt, or -1. */
  readonly #candidate: Int32Array;
  readonly #irq: Uint8Array;
  readonly #fiq: Uint8Array;
  readonly #onSignal: (vcpu: number) => void;
  readonly #onSpiEnded: (intid: number) => void;

  /**
   * `onSignal` is called with a vCPU's index whenever its IRQ or FIQ input rises, `onSpiEnded` with
   * the INTID of each level-sensitive SPI that a guest ends. Linux: vgic_v3_fold_lr_state().
   */
  constructor(
    interrupts: Interrupts,
    onSignal: (vcpu: number) => void,
    onSpiEnded: (intid: number) => void = () => undefined,
  ) {
    this.interrupts = interrupts;
    this.cpus = Array.from({ length: interrupts.vcpuCount }, () => new CpuInterface());
    this.#candidate = new Int32Array(interrupts.vcpuCount).fill(-1);
    this.#irq = new Uint8Array(interrupts.vcpuCount);
    this.#fiq = new Uint8Array(interrupts.vcpuCount);
    this.#onSignal = onSignal;
    this.#onSpiEnded = onSpiEnded;
  }

  /** Whether group 1 interrupts `vcpu` now: its PSTATE.I aside. */
  irqPending(vcpu: number): boolean {
    return this.#irq[vcpu] === 1;
  }

  /** Whether group 0 interrupts `vcpu` now: its PSTATE.F aside. */
  fiqPending(vcpu: number): boolean {
    return this.#fiq[vcpu] === 1;
  }

  /** Brings the inputs of one vCPU up to date after any change that may concern it. */
  refresh(vcpu: number): void {
    const { interrupts } = this;
    const cpu = this.cpus[vcpu]!;
    const slot = this.distributorEnabled
      ? interrupts.highestPending(vcpu, cpu.group0, cpu.group1)
      : -1;
    this.#candidate[vcpu] = slot;
    let irq = 0;
    let fiq = 0;
    if (slot >= 0) {
      const group = interrupts.groupOf(slot);
      if (cpu.admits(interrupts.priority[slot]!, group)) {
        irq = group;
        fiq = 1 - group;
      }
    }
    const rose = irq > this.#irq[vcpu]! || fiq > this.#fiq[vcpu]!;
    this.#irq[vcpu] = irq;
    this.#fiq[vcpu] = fiq;
    if (rose) this.#onSignal(vcpu);
  }

  refreshAll(): void {
    for (let vcpu = 0; vcpu < this.cpus.length; vcpu++) this.refresh(vcpu);
  }

  /** After a change to several interrupts of a bank. */
  bankChanged(bank: number): void {
    if (bank < this.interrupts.vcpuCount) this.refresh(bank);
    else this.refreshAll();
  }

  /** After a change to one interrupt: only the vCPU it goes to is concerned. */
  #slotChanged(slot: number): void {
    const bank = slot >>> 5;
    const vcpu = bank < this.interrupts.vcpuCount ? bank : this.interrupts.targetOf(slot);
    if (vcpu >= 0) this.refresh(vcpu);
  }

  drive(slot: number, level: boolean): void {
    if (this.interrupts.drive(slot, level)) this.#slotChanged(slot);
  }

  /** INTID of the highest-priority pending interrupt if it is of `group`, else 1023. ICC_HPPIRn. */
  pendingIntid(vcpu: number, group: 0 | 1): number {
    const slot = this.#candidate[vcpu]!;
    return slot >= 0 && this.interrupts.groupOf(slot) === group
      ? this.interrupts.intidOf(slot)
      : SPURIOUS;
  }

  /** Takes the interrupt that is signalled to `vcpu` in `group`: its INTID, or 1023. ICC_IARn. */
  acknowledge(vcpu: number, group: 0 | 1): number {
    const signalled = group === 1 ? this.#irq[vcpu] === 1 : this.#fiq[vcpu] === 1;
    if (!signalled) return SPURIOUS;
    const slot = this.#candidate[vcpu]!;
    this.cpus[vcpu]!.raise(this.interrupts.priority[slot]!, group);
    this.interrupts.activate(slot);
    this.refresh(vcpu);
    return this.interrupts.intidOf(slot);
  }

  /**
   * Priority drop, and deactivation unless EOImode splits the two. An INTID that is not active, or
   * is not what the dropped priority belongs to, is not deactivated. ICC_EOIRn; Arm: ICV_EOIRn_EL1.
   */
  endOfInterrupt(vcpu: number, group: 0 | 1, intid: number): void {
    if (intid >= FIRST_SPECIAL_INTID) return;
    const cpu = this.cpus[vcpu]!;
    const dropped = cpu.drop();
    const slot = this.interrupts.slotOf(vcpu, intid);
    const ours =
      slot >= 0 &&
      this.interrupts.isActive(slot) &&
      this.interrupts.groupOf(slot) === group &&
      cpu.matches(this.interrupts.priority[slot]!, group, dropped);
    if (ours && !cpu.splitEoi) this.#end(slot);
    this.refresh(vcpu);
  }

  /** ICC_DIR_EL1: ends an interrupt whose priority was dropped before. Nothing with EOImode 0. */
  deactivate(vcpu: number, intid: number): void {
    const slot = this.interrupts.slotOf(vcpu, intid);
    if (slot < 0 || !this.cpus[vcpu]!.splitEoi || !this.interrupts.isActive(slot)) return;
    this.#end(slot);
  }

  #end(slot: number): void {
    const { interrupts } = this;
    interrupts.deactivate(slot);
    if (interrupts.isLevelSpi(slot)) this.#onSpiEnded(interrupts.intidOf(slot));
    this.#slotChanged(slot);
  }

  /**
   * A write to ICC_SGI1R_EL1 and its like, in two halves: makes the SGI pending for the vCPUs named
   * by affinity and target list, or for all others. `anyGroup` false reaches group 0 SGIs only.
   * Linux: vgic_v3_dispatch_sgi(), which also ignores the range selector.
   */
  sendSgi(source: number, low: number, high: number, anyGroup: boolean): void {
    const sgi = (low >>> 24) & 0xf;
    if ((high & (1 << 8)) !== 0) {
      for (let v = 0; v < this.cpus.length; v++) if (v !== source) this.#pendSgi(v, sgi, anyGroup);
      return;
    }
    // An Aff3 other than zero matches nobody.
    const cluster =
      ((high >>> 16) & 0xff) * 0x100_0000 + ((high & 0xff) << 16) + ((low >>> 8) & 0xff00);
    for (let aff0 = 0; aff0 < 16; aff0++) {
      if (((low >>> aff0) & 1) === 0) continue;
      const vcpu = this.interrupts.vcpuWithAffinity(cluster + aff0);
      if (vcpu >= 0) this.#pendSgi(vcpu, sgi, anyGroup);
    }
  }

  #pendSgi(vcpu: number, sgi: number, anyGroup: boolean): void {
    const slot = vcpu * PRIVATE_IRQS + sgi;
    if (this.interrupts.groupOf(slot) === 1 && !anyGroup) return;
    this.drive(slot, true);
  }
}
