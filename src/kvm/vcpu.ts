/**
 * A vCPU: its ioctls and the run loop. KVM_RUN enters the core, settles what the kernel settles
 * (stage 2 faults, hypercalls, GIC and timer accesses, waiting for interrupts) and returns what the
 * VMM must do. One host thread runs all vCPUs in turn, so two answers exist that Linux hides inside
 * the call: the turn is over, and the vCPU waits. Linux: arch/arm64/kvm/arm.c, handle_exit.c,
 * mmio.c.
 */
import { brkEsr, type LoadStoreSyndrome, softwareStepEsr } from '../arm/syndrome.ts';
import { features, type SystemRegister } from '../arm/sysreg/index.ts';
import { assertNever, type Hva, type Ipa } from '../base/index.ts';
import * as S from '../engine/state.ts';
import { Errno, isRefusal, type Refusal, refuse } from '../host/index.ts';
import { CpuContext, type Hypervisor } from '../machine/context.ts';
import type { CoreExit } from '../machine/core.ts';
import { takeAbort, takeException, Vector } from '../machine/exceptions.ts';
import { loadStoreSyndrome } from '../machine/load-store-syndrome.ts';
import type { FaultRecord, MmuFeatures } from '../machine/mmu.ts';
import { type AbortOutcome, handleGuestAbort } from './fault.ts';
import type { HypercallAction } from './hypercall.ts';
import type { KvmVm } from './kvm-vm.ts';
import {
  checkVcpuInit,
  finalizeVcpuRegisters,
  psciVersion,
  resetVcpuRegisters,
} from './registers.ts';
import { handleHypercall } from './smccc.ts';
import { VcpuTimers } from './timer.ts';
import {
  KVM_ARM_VCPU_POWER_OFF,
  KVM_GUESTDBG_ENABLE,
  KVM_GUESTDBG_SINGLESTEP,
  KVM_GUESTDBG_USE_SW_BP,
  KVM_MP_STATE_RUNNABLE,
  KVM_MP_STATE_STOPPED,
  type KvmVcpuInit,
} from './uapi.ts';
import type { VcpuExit } from './vcpu-exit.ts';
import { VcpuMmio } from './vcpu-mmio.ts';
import { VcpuState } from './vcpu-state.ts';

export type { VcpuExit } from './vcpu-exit.ts';

/** ESR_ELx.ISS of a data abort: WnR. */
const WNR = 1 << 6;

const PREEMPTED: VcpuExit = { kind: 'preempted' };
const BLOCKED: VcpuExit = { kind: 'blocked' };
const YIELDED: VcpuExit = { kind: 'yielded' };
const INTERRUPTED: VcpuExit = { kind: 'interrupted' };

/** Answers that are the scheduler's business and no exits of the guest's. */
const TURN_ENDS: readonly VcpuExit['kind'][] = ['preempted', 'blocked', 'yielded', 'interrupted'];

/**
 * Pages brought in for one instruction before others get their turn: more than any needs, unless the
 * host takes away what it gives.
 */
const FAULTS_IN_VAIN_MAX = 64;

/** What of the architecture the walker may use for a guest's stage 1. */
const mmuFeatures: Partial<MmuFeatures> = {
  paBits: features.paBits,
  hafdbs: features.HAFDBS,
  hpds: features.HPDS,
  pan3: features.PAN3,
  xnx: features.XNX,
  e0pd: features.E0PD,
  tbid: features.PAuth,
  ttst: features.TTST,
};

/** Counts since the vCPU was made. */
export interface VcpuStatistics {
  instructionCount: number;
  stage2FaultCount: number;
  readonly exitsByReason: Record<string, number>;
}

export class Vcpu extends VcpuState implements Hypervisor {
  /** Position among the VM's vCPUs. */
  readonly index: number;
  readonly timers: VcpuTimers;
  readonly statistics: VcpuStatistics = {
    instructionCount: 0,
    stage2FaultCount: 0,
    exitsByReason: {},
  };
  /**
   * Makes the next run return before the guest executes anything. Linux: kvm_run.immediate_exit.
   */
  immediateExit = false;
  poweredOff = false;
  readonly #vm: KvmVm;
  readonly #mmio = new VcpuMmio();
  #waiting = false;
  /** The page of the VMM that this vCPU touched and that is on its way. */
  #awaited: Hva | undefined;
  #hasRun = false;

  /** Called by `KvmVm.createVcpu`. */
  constructor(vm: KvmVm, options: { id: number; index: number; contextIndex: number }) {
    const { core, host } = vm.kvm;
    const { stage2, mte } = vm.vm;
    const hypervisor: Hypervisor = {
      readRegister: (register) => this.readRegister(register),
      writeRegister: (register, value) => this.writeRegister(register, value),
    };
    const context = new CpuContext(host.memory, {
      index: options.contextIndex,
      hypervisor,
      features: { ...mmuFeatures, fwb: stage2.fwb, mtePerm: host.cpu.mtePerm },
    });
    super({ vcpuId: options.id, vm: vm.registers, core, context });
    this.#vm = vm;
    this.index = options.index;
    context.mte = mte;
    context.vmid = stage2.vmid;
    context.reset();
    context.mmu.setStage2({ hcr: stage2.hcr, vtcr: stage2.vtcr, vttbr: stage2.vttbr });
    core.tlbs.register(context);
    this.timers = new VcpuTimers(vm.timers, this.index, (index, intid, level) =>
      vm.vgic?.setPpi(index, intid, level),
    );
  }

  /** KVM_ENABLE_CAP on a vCPU: there is none. */
  enableCap(): Refusal {
    return refuse(Errno.EINVAL);
  }

  /**
   * KVM_ARM_VCPU_INIT: the reset state. EINVAL for other features than before, which all vCPUs of a
   * VM share, and see `checkVcpuInit`. Linux: kvm_arch_vcpu_ioctl_vcpu_init().
   */
  init(request: KvmVcpuInit): 0 | Refusal {
    const refusal = checkVcpuInit(request);
    if (isRefusal(refusal)) return refusal;
    const given = request.features[0] ?? 0;
    const wanted = given & ~(1 << KVM_ARM_VCPU_POWER_OFF);
    const differs = (vcpu: Vcpu): boolean => vcpu.initialized && vcpu.features !== wanted;
    if (this.#vm.vcpus.some(differs)) return refuse(Errno.EINVAL);
    this.features = wanted;
    this.#reset();
    this.initialized = true;
    this.poweredOff = (given & (1 << KVM_ARM_VCPU_POWER_OFF)) !== 0;
    return 0;
  }

  #reset(): void {
    this.core.unload();
    resetVcpuRegisters(this);
    this.context.savedI32[S.MONITOR_ADDRESS / 4] = 0;
    this.core.tlbs.flush(this.context);
    this.#waiting = false;
    this.#awaited = undefined;
    this.#mmio.abandon();
    // ID registers of a VM that has run do not wait for the first run again.
    if (this.#hasRun) this.#finalize();
  }

  #finalize(): void {
    finalizeVcpuRegisters(this, { gicV3: this.#vm.vgic !== undefined });
  }

  /** KVM_GET_MP_STATE. */
  get mpState(): number {
    return this.poweredOff ? KVM_MP_STATE_STOPPED : KVM_MP_STATE_RUNNABLE;
  }

  /** KVM_SET_MP_STATE. EINVAL for a state that arm64 has not. */
  setMpState(state: number): 0 | Refusal {
    if (state !== KVM_MP_STATE_RUNNABLE && state !== KVM_MP_STATE_STOPPED) {
      return refuse(Errno.EINVAL);
    }
    this.poweredOff = state === KVM_MP_STATE_STOPPED;
    return 0;
  }

  /**
   * Whether the vCPU waits for an interrupt (WFI). Linux has no call for it, as there the thread of
   * the vCPU sleeps inside KVM_RUN; here it is a part of what a VMM saves and restores.
   */
  get waiting(): boolean {
    return this.#waiting;
  }

  set waiting(value: boolean) {
    this.#waiting = value;
  }

  // ---- KVM_RUN --------------------------------------------------------------------------------

  /** Whether a run would execute anything: powered on, waiting for no interrupt and no page. */
  get runnable(): boolean {
    if (this.poweredOff || this.#awaitsPage()) return false;
    if (!this.#waiting) return true;
    this.timers.update();
    return this.#interruptPending();
  }

  /** Counter ticks until a timer wakes the vCPU, or undefined. */
  nextDeadline(): number | undefined {
    return this.poweredOff || this.#awaitsPage() ? undefined : this.timers.nextDeadline();
  }

  #awaitsPage(): boolean {
    const page = this.#awaited;
    if (page !== undefined && !this.#vm.vm.process.awaited.has(page)) this.#awaited = undefined;
    return this.#awaited !== undefined;
  }

  #interruptPending(): boolean {
    const { vgic } = this.#vm;
    return vgic !== undefined && (vgic.irqPending(this.index) || vgic.fiqPending(this.index));
  }

  /** The VGIC raised an input of this vCPU. */
  interruptRaised(): void {
    this.#updateLines();
  }

  #updateLines(): void {
    const { vgic } = this.#vm;
    if (vgic === undefined) return;
    this.core.setInterruptLines(this.context, {
      irq: vgic.irqPending(this.index),
      fiq: vgic.fiqPending(this.index),
    });
  }

  /** Stage 2 lost translations: nothing derived from it may be used. */
  stage2Changed(): void {
    this.context.mmu.invalidateStage2();
    this.core.tlbs.flush(this.context);
  }

  /**
   * KVM_RUN, for at most about `budget` instructions. ENOEXEC before KVM_ARM_VCPU_INIT; the errnos
   * of an exit that KVM cannot settle.
   */
  run(budget = 1_000_000): VcpuExit {
    if (!this.initialized) return { kind: 'error', errno: Errno.ENOEXEC };
    const refusal = this.#firstRun();
    if (isRefusal(refusal)) return { kind: 'error', errno: -refusal as Errno };
    this.#completeMmio();
    if (this.immediateExit) {
      // A signal ends a wait; the guest goes on behind its WFI. Linux: kvm_vcpu_check_block().
      this.#waiting = false;
      return INTERRUPTED;
    }
    this.#vm.isRunning = true;
    // The guest is entered by an exception return. Arm: AArch64.ExceptionReturn().
    this.core.s[S.MONITOR_ADDRESS / 4] = 0;
    const exit = this.#loop(budget);
    this.#vm.isRunning = false;
    if (!TURN_ENDS.includes(exit.kind)) this.#count(exit.kind);
    return exit;
  }

  /** Linux: kvm_arch_vcpu_run_pid_change(). */
  #firstRun(): 0 | Refusal {
    if (this.#hasRun) return 0;
    const mapped = this.#vm.vgicDevice?.mapResources() ?? 0;
    if (isRefusal(mapped)) return mapped;
    if (this.#vm.vgic !== undefined) {
      const fixed = this.#vm.timers.fixPpis();
      if (isRefusal(fixed)) return fixed;
    }
    this.#finalize();
    this.#hasRun = true;
    this.#vm.registers.hasRunOnce = true;
    return 0;
  }

  #loop(budget: number): VcpuExit {
    let left = budget;
    for (;;) {
      if (this.poweredOff || this.#awaitsPage()) return BLOCKED;
      this.timers.update();
      this.#updateLines();
      if (this.#waiting) {
        if (!this.#interruptPending()) return BLOCKED;
        this.#waiting = false;
      }
      if (left <= 0) return PREEMPTED;
      const before = this.core.executed;
      const answer = this.#runSlice(this.#slice(left));
      const executed = this.core.executed - before;
      // An exit costs something too: a guest that only faults must not keep the turn for ever.
      left -= Math.max(1, executed);
      this.statistics.instructionCount += executed;
      if (answer !== undefined) return answer;
    }
  }

  /**
   * Enters the guest until `budget` is used up or something other than memory is needed. A page
   * that is brought in does not end the slice, so that when interrupts are taken does not depend on
   * which pages are there already: a restored machine, with none, runs as the one that was saved.
   */
  #runSlice(budget: number): VcpuExit | undefined {
    const end = this.core.executed + budget;
    for (let faults = 0; faults < FAULTS_IN_VAIN_MAX; faults++) {
      const before = this.core.executed;
      // Behind the end, the faulting instruction and those up to the next branch are still due.
      const exit = this.core.run(this.context, Math.max(1, end - before));
      const answer = this.#settle(exit);
      if (answer !== 'again') return answer;
      if (this.core.executed > before) faults = 0;
    }
    return undefined;
  }

  /** Instructions until the budget or the next timer interrupt, whichever is first. */
  #slice(left: number): number {
    const ticks = this.timers.nextDeadline();
    if (ticks === undefined) return left;
    return Math.max(1, Math.min(left, this.#vm.kvm.clock.instructionsFor(ticks)));
  }

  #count(reason: string): void {
    const { exitsByReason } = this.statistics;
    exitsByReason[reason] = (exitsByReason[reason] ?? 0) + 1;
  }

  /** Does what an exit of the core asks for; undefined: enter again; 'again': in the same slice. */
  #settle(exit: CoreExit): VcpuExit | 'again' | undefined {
    switch (exit.kind) {
      case 'budget':
      case 'kick':
        return undefined;
      case 'wait':
        this.#count(exit.wait);
        if (exit.wait !== 'wfi') return YIELDED;
        this.#waiting = true;
        return undefined;
      case 'call':
        this.#count(exit.call);
        return this.#hypercall(exit);
      case 'stage2-fault':
        return this.#stage2Fault(exit);
      case 'debug':
        return this.#debugExit();
      default:
        return assertNever(exit);
    }
  }

  // ---- guest debugging ------------------------------------------------------------------------

  /**
   * KVM_SET_GUEST_DEBUG: single-stepping and BRK for the VMM's debugger. EINVAL for flags that mean
   * nothing here; hardware breakpoints are not modelled. Linux:
   * kvm_arch_vcpu_ioctl_set_guest_debug().
   */
  setGuestDebug(control: number): 0 | Refusal {
    const known = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_SW_BP;
    if ((control & ~known) !== 0) return refuse(Errno.EINVAL);
    const on = (control & KVM_GUESTDBG_ENABLE) !== 0;
    this.context.debugStep = on && (control & KVM_GUESTDBG_SINGLESTEP) !== 0;
    this.context.debugBrk = on && (control & KVM_GUESTDBG_USE_SW_BP) !== 0;
    return 0;
  }

  /** ESR_EL2 as KVM reports it: a BRK with its immediate, or a software step. */
  #debugExit(): VcpuExit {
    if (this.context.debugStep) return { kind: 'debug', esr: softwareStepEsr(true) };
    const immediate = (this.core.opcode() >>> 5) & 0xffff;
    return { kind: 'debug', esr: brkEsr(immediate) };
  }

  // ---- hypercalls -----------------------------------------------------------------------------

  #hypercall(exit: Extract<CoreExit, { kind: 'call' }>): VcpuExit | undefined {
    const registers = this.core.memory.u64.subarray(S.X / 8, S.X / 8 + 31);
    const call = {
      conduit: exit.call,
      immediate: exit.immediate,
      psciVersion: psciVersion(this),
    };
    // `psciVersion` looked at no register of the running state: the vCPU is still loaded.
    const action = handleHypercall(this.#vm.hypercalls, call, registers);
    this.#vm.observer.exit?.(this.index, exit.call, action.kind);
    return this.#act(action);
  }

  #act(action: HypercallAction): VcpuExit | undefined {
    switch (action.kind) {
      case 'resume':
        return undefined;
      case 'wait':
        this.#waiting = true;
        return undefined;
      case 'cpu-off':
        this.poweredOff = true;
        return undefined;
      case 'cpu-on':
        this.#vm.vcpus[action.target]!.powerOn(action.entry, action.context);
        return undefined;
      case 'system-event':
        if (action.stopAll) for (const vcpu of this.#vm.vcpus) vcpu.poweredOff = true;
        return { kind: 'system-event', type: action.type, data: action.data };
      case 'forward':
        return { kind: 'hypercall', functionId: action.functionId, flags: action.flags };
      default:
        return assertNever(action);
    }
  }

  /** PSCI CPU_ON: from reset to `entry` with `context` in x0. */
  powerOn(entry: bigint, context: bigint): void {
    this.#reset();
    this.writePc(entry);
    this.writeX(0, context);
    this.poweredOff = false;
  }

  // ---- stage 2 faults and MMIO ----------------------------------------------------------------

  #stage2Fault(exit: Extract<CoreExit, { kind: 'stage2-fault' }>): VcpuExit | 'again' | undefined {
    const { fault, fetch, opcode } = exit;
    const access = fetch || fault.s1ptw ? undefined : loadStoreSyndrome(opcode);
    const far = (BigInt(fault.vaHigh >>> 0) << 32n) | BigInt(fault.vaLow >>> 0);
    this.statistics.stage2FaultCount++;
    const outcome = handleGuestAbort(this.#vm.vm, {
      type: fault.type,
      level: fault.level,
      ipa: fault.ipa,
      far,
      fetch,
      write: fault.write,
      s1ptw: fault.s1ptw,
      cacheMaintenance: isCacheMaintenance(opcode),
      isv: access !== undefined,
      tagAccess: fault.tagAccess === true,
    });
    this.#vm.observer.stage2Fault?.(
      this.index,
      `ipa=0x${fault.ipa.toString(16)} far=0x${far.toString(16)} ${
        fetch ? 'fetch' : fault.write ? 'write' : 'read'
      } level=${fault.level} ${outcome.kind}`,
    );
    return this.#afterAbort(outcome, access, fault);
  }

  #afterAbort(
    outcome: AbortOutcome,
    access: LoadStoreSyndrome | undefined,
    fault: FaultRecord,
  ): VcpuExit | 'again' | undefined {
    switch (outcome.kind) {
      case 'resume':
        this.#count('memory');
        return 'again';
      case 'skip':
        this.core.advancePc();
        return undefined;
      case 'mmio':
        return this.#startMmio(outcome.ipa, access!, fault.write);
      case 'nisv':
        return { kind: 'nisv', ipa: outcome.ipa, esrIss: (fault.write ? WNR : 0) | fault.fsc };
      case 'inject-abort':
        this.#injectAbort(outcome);
        return undefined;
      case 'inject-serror':
        takeException(this.core, Vector.sError, (0x2f << 26) | (1 << 25));
        return undefined;
      case 'wait':
        this.#awaited = outcome.hva;
        return BLOCKED;
      case 'userfault':
        this.#awaited = outcome.hva;
        return { kind: 'userfault', hva: outcome.hva };
      case 'memory-fault':
        return outcome;
      case 'errno':
        return { kind: 'error', errno: outcome.errno };
      default:
        return assertNever(outcome);
    }
  }

  /** Linux: inject_abt64(). */
  #injectAbort(abort: Extract<AbortOutcome, { kind: 'inject-abort' }>): void {
    const fromEl0 = this.core.s[S.EL / 4] === 0;
    const ec = (abort.fetch ? 0x20 : 0x24) + (fromEl0 ? 0 : 1);
    const high = Number(BigInt.asIntN(32, abort.far >> 32n));
    const low = Number(BigInt.asIntN(32, abort.far));
    this.core.countInstruction();
    takeAbort(this.core, (ec << 26) | (1 << 25) | abort.fsc, high, low);
  }

  #startMmio(ipa: Ipa, access: LoadStoreSyndrome, isWrite: boolean): VcpuExit | undefined {
    const { vgic, observer } = this.#vm;
    const exit = this.#mmio.begin(this.core.memory.u64, { ipa, access, isWrite, vgic });
    if (exit === undefined) {
      this.#count('gic');
      this.core.advancePc();
      return undefined;
    }
    const stored = isWrite ? ` data=0x${exit.data.toString(16)}` : '';
    const direction = isWrite ? 'write' : 'read';
    observer.exit?.(
      this.index,
      'mmio',
      `${direction} 0x${ipa.toString(16)} size=${exit.size}${stored}`,
    );
    return exit;
  }

  #completeMmio(): void {
    if (!this.#mmio.isPending) return;
    const words = this.words();
    this.#mmio.complete(words);
    words[S.PC / 8] = BigInt.asUintN(64, words[S.PC / 8]! + 4n);
  }

  // ---- registers of GIC and timers ------------------------------------------------------------

  /** See `Hypervisor`. */
  readRegister(register: SystemRegister): bigint | undefined {
    if (register.effect === 'timer') return this.timers.read(register.key);
    const { vgic } = this.#vm;
    if (register.effect !== 'gic' || vgic === undefined) return undefined;
    const value = vgic.readIcc(this.index, register.key);
    this.#updateLines();
    if (value < 0) return undefined;
    this.#vm.observer.interrupt?.(this.index, `${register.name} -> ${value}`);
    return BigInt(value);
  }

  /** See `Hypervisor`. */
  writeRegister(register: SystemRegister, value: bigint): 'resume' | 'leave' | 'undefined' {
    if (register.effect === 'timer') {
      if (!this.timers.write(register.key, value)) return 'undefined';
      this.#updateLines();
      // The slice that runs may now be too long.
      return 'leave';
    }
    const { vgic } = this.#vm;
    if (register.effect !== 'gic' || vgic === undefined) return 'undefined';
    const low = Number(BigInt.asIntN(32, value));
    const high = Number(BigInt.asIntN(32, value >> 32n));
    if (!vgic.writeIcc(this.index, register.key, low, high)) return 'undefined';
    this.#updateLines();
    this.#vm.observer.interrupt?.(this.index, `${register.name} <- 0x${value.toString(16)}`);
    return 'resume';
  }

  destroy(): void {
    this.core.unload();
    this.core.tlbs.unregister(this.context);
    this.#vm.kvm.releaseContextIndex(this.context.index);
  }
}

/** SYS with CRn = 7 (DC, IC), without DC ZVA, GVA and GZVA (CRm = 4): they are stores. */
const isCacheMaintenance = (opcode: number): boolean =>
  (opcode & 0xfff8f000) >>> 0 === 0xd5087000 && ((opcode >>> 8) & 15) !== 4;
