/**
 * A vCPU: its ioctls and the run loop. KVM_RUN enters the core, settles what the kernel settles
 * (stage 2 faults, hypercalls, GIC and timer accesses, waiting for interrupts) and returns what the
 * VMM must do. One host thread runs all vCPUs in turn, so two answers exist that Linux hides inside
 * the call: the turn is over, and the vCPU waits. Linux: arch/arm64/kvm/arm.c, handle_exit.c,
 * mmio.c.
 */
import { brkEsr, type LoadStoreSyndrome, softwareStepEsr } from '../arm/syndrome.ts';
import { features } from '../arm/sysreg/index.ts';
import { assertNever, type Hva, type Ipa } from '../base/index.ts';
import * as S from '../engine/state.ts';
import { Errno, EventFd, errnoOf, isRefusal, type Refusal, refuse } from '../host/index.ts';
import { CpuContext } from '../machine/context.ts';
import type { CoreExit } from '../machine/core.ts';
import { loadStoreSyndrome } from '../machine/load-store-syndrome.ts';
import type { FaultRecord, MmuFeatures } from '../machine/mmu.ts';
import { GUEST_DEBUG_FLAGS } from './capability.ts';
import { type AbortOutcome, handleGuestAbort } from './fault.ts';
import type { HypercallAction } from './hypercall.ts';
import type { KvmVm } from './kvm-vm.ts';
import { injectAbort, PendingExceptions } from './pending-exceptions.ts';
import {
  checkVcpuInit,
  finalizeVcpuRegisters,
  psciVersion,
  resetVcpuRegisters,
} from './registers.ts';
import { handleHypercall } from './smccc.ts';
import type { VcpuTimers } from './timer.ts';
import {
  KVM_ARM_VCPU_POWER_OFF,
  KVM_ARM_VCPU_TIMER_CTRL,
  KVM_GUESTDBG_ENABLE,
  KVM_GUESTDBG_SINGLESTEP,
  KVM_GUESTDBG_USE_SW_BP,
  KVM_MP_STATE_RUNNABLE,
  KVM_MP_STATE_STOPPED,
  KVM_MP_STATE_SUSPENDED,
  KVM_SYSTEM_EVENT_WAKEUP,
  type KvmDeviceAttr,
  type KvmMpState,
  type KvmVcpuEvents,
  type KvmVcpuInit,
} from './uapi.ts';
import type { VcpuExit } from './vcpu-exit.ts';
import { VcpuInterrupts } from './vcpu-interrupts.ts';
import { VcpuMmio } from './vcpu-mmio.ts';
import { VcpuState } from './vcpu-state.ts';

export type { VcpuExit } from './vcpu-exit.ts';

/** ESR_ELx.ISS of a data abort: WnR. */
const WNR = 1 << 6;

const PREEMPTED: VcpuExit = { kind: 'preempted' };
const BLOCKED: VcpuExit = { kind: 'blocked' };
const YIELDED: VcpuExit = { kind: 'yielded' };
const INTERRUPTED: VcpuExit = { kind: 'interrupted' };
const WAKEUP: VcpuExit = { kind: 'system-event', type: KVM_SYSTEM_EVENT_WAKEUP, data: [] };

/** Answers that are the scheduler's business and no exits of the guest's. */
const TURN_ENDS: readonly VcpuExit['kind'][] = ['preempted', 'blocked', 'yielded', 'interrupted'];

/**
 * Pages brought in for one instruction before others get their turn: more than any needs, unless
 * the host takes away what it gives.
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

export class Vcpu extends VcpuState {
  /** Position among the VM's vCPUs. */
  readonly index: number;
  readonly interrupts: VcpuInterrupts;
  readonly statistics: VcpuStatistics = {
    instructionCount: 0,
    stage2FaultCount: 0,
    exitsByReason: {},
  };
  /**
   * Makes the next run return before the guest executes anything. Linux: kvm_run.immediate_exit.
   */
  immediateExit = false;
  readonly #vm: KvmVm;
  readonly #mmio = new VcpuMmio();
  readonly #pending: PendingExceptions;
  #mpState: KvmMpState = KVM_MP_STATE_RUNNABLE;
  #waiting = false;
  /** The page of the VMM that this vCPU touched and that is on its way. */
  #awaited: Hva | undefined;
  /** The guest's last address that stage 2 refused. Linux: kvm_vcpu_get_hfar(). */
  #faultAddress = 0n;
  #hasRun = false;

  /** Called by `KvmVm.createVcpu`. */
  constructor(vm: KvmVm, options: { id: number; index: number; contextIndex: number }) {
    const { core, host } = vm.kvm;
    const { stage2, mte } = vm.vm;
    const interrupts = new VcpuInterrupts(vm, options.index, (lines) =>
      core.setInterruptLines(context, lines),
    );
    const context = new CpuContext(host.memory, {
      index: options.contextIndex,
      hypervisor: interrupts,
      features: { ...mmuFeatures, fwb: stage2.fwb, mtePerm: host.cpu.mtePerm },
    });
    super({ vcpuId: options.id, vm: vm.registers, core, context });
    this.#vm = vm;
    this.#pending = new PendingExceptions(core, context);
    this.index = options.index;
    this.interrupts = interrupts;
    context.mte = mte;
    context.vmid = stage2.vmid;
    context.reset();
    context.mmu.setStage2({ hcr: stage2.hcr, vtcr: stage2.vtcr, vttbr: stage2.vttbr });
    core.tlbs.register(context);
  }

  get timers(): VcpuTimers {
    return this.interrupts.timers;
  }

  /** KVM_ENABLE_CAP on a vCPU: there is none. */
  enableCap(): Refusal {
    return refuse(Errno.EINVAL);
  }

  /**
   * KVM_ARM_VCPU_INIT: the reset state. EINVAL for other features than the VM's vCPUs have, and see
   * `checkVcpuInit`. Linux: kvm_arch_vcpu_ioctl_vcpu_init().
   */
  init(request: KvmVcpuInit): 0 | Refusal {
    const refusal = checkVcpuInit(request);
    if (isRefusal(refusal)) return refusal;
    const given = request.features[0] ?? 0;
    const wanted = given & ~(1 << KVM_ARM_VCPU_POWER_OFF);
    if ((this.vm.vcpuFeatures ?? wanted) !== wanted) return refuse(Errno.EINVAL);
    this.vm.vcpuFeatures = wanted;
    this.#reset();
    this.#pending.clear();
    this.interrupts.reset();
    this.initialized = true;
    this.#mpState = wanted === given ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_STOPPED;
    return 0;
  }

  #reset(): void {
    this.core.unload();
    resetVcpuRegisters(this);
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
  get mpState(): KvmMpState {
    return this.#mpState;
  }

  /**
   * KVM_SET_MP_STATE: runnable, stopped, or suspended until an interrupt wakes it, which the VMM is
   * told of (KVM_SYSTEM_EVENT_WAKEUP) and answers with another state. EINVAL for any other.
   */
  setMpState(state: number): 0 | Refusal {
    switch (state) {
      case KVM_MP_STATE_RUNNABLE:
      case KVM_MP_STATE_STOPPED:
      case KVM_MP_STATE_SUSPENDED:
        this.#mpState = state;
        return 0;
      default:
        return refuse(Errno.EINVAL);
    }
  }

  get poweredOff(): boolean {
    return this.#mpState === KVM_MP_STATE_STOPPED;
  }

  // ---- events and attributes ------------------------------------------------------------------

  /** KVM_GET_VCPU_EVENTS. */
  get events(): Required<KvmVcpuEvents> {
    return this.#pending.events;
  }

  /**
   * KVM_SET_VCPU_EVENTS; see `PendingExceptions.add`. An abort answers the load or store that the
   * VMM was last asked for: it is not carried out.
   */
  setEvents(events: KvmVcpuEvents): 0 | Refusal {
    const result = this.#pending.add(events, this.#faultAddress);
    if (this.#pending.hasAbort) this.#waiting = false;
    return result;
  }

  /**
   * KVM_SET_DEVICE_ATTR on the vCPU: the PPIs of the timers, for all vCPUs. ENXIO for another
   * group, otherwise see `VmTimers.setPpi`.
   */
  setAttr({ group, attr }: KvmDeviceAttr, value: bigint): 0 | Refusal {
    if (group !== KVM_ARM_VCPU_TIMER_CTRL) return refuse(Errno.ENXIO);
    const haveVgic = this.#vm.vgicDevice !== undefined;
    return this.#vm.timers.setPpi(Number(attr), Number(BigInt.asIntN(32, value)), haveVgic);
  }

  /** KVM_GET_DEVICE_ATTR on the vCPU; ENXIO for what is not the PPI of a timer. */
  getAttr({ group, attr }: KvmDeviceAttr): bigint | Refusal {
    if (group !== KVM_ARM_VCPU_TIMER_CTRL) return refuse(Errno.ENXIO);
    const ppi = this.#vm.timers.ppi(Number(attr));
    return isRefusal(ppi) ? ppi : BigInt(ppi);
  }

  /** KVM_HAS_DEVICE_ATTR on the vCPU: 0, or ENXIO. */
  hasAttr(attr: KvmDeviceAttr): 0 | Refusal {
    const value = this.getAttr(attr);
    return isRefusal(value) ? value : 0;
  }

  // ---- waiting and interrupts -----------------------------------------------------------------

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

  /** Whether a run would do anything: powered on, waiting for no interrupt and no page. */
  get runnable(): boolean {
    if (this.poweredOff || this.#awaitsPage()) return false;
    if (!this.#waiting && this.#mpState === KVM_MP_STATE_RUNNABLE) return true;
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
    return this.context.sErrorPending || this.interrupts.pending;
  }

  /**
   * Without a VGIC, the levels of the timers' interrupts as the VMM was last told of them
   * (KVM_ARM_DEV_EL1_…). Linux: kvm_run.s.regs.device_irq_level.
   */
  get deviceIrqLevel(): number {
    return this.interrupts.shownLevels;
  }

  /** Stage 2 lost translations: nothing derived from it may be used. */
  stage2Changed(): void {
    this.context.mmu.invalidateStage2();
    this.core.tlbs.flush(this.context);
  }

  // ---- KVM_RUN --------------------------------------------------------------------------------

  /**
   * KVM_RUN, for at most about `budget` instructions. ENOEXEC before KVM_ARM_VCPU_INIT, what the
   * VGIC's device says that is not ready; the errnos of an exit that KVM cannot settle. After an
   * error the guest stands where it stood, and may be run again.
   */
  run(budget = 1_000_000): VcpuExit {
    if (!this.initialized) return { kind: 'error', errno: Errno.ENOEXEC };
    const refusal = this.#firstRun();
    if (isRefusal(refusal)) return { kind: 'error', errno: errnoOf(refusal) };
    this.#completeMmio();
    this.#pending.deliverAbort();
    if (this.immediateExit) {
      // A signal ends a wait; the guest goes on behind its WFI. Linux: kvm_vcpu_check_block().
      this.#waiting = false;
      return INTERRUPTED;
    }
    this.#vm.isRunning = true;
    try {
      this.core.beginTurn(this.context);
      const exit = this.#loop(budget);
      this.interrupts.showTimers();
      if (!TURN_ENDS.includes(exit.kind)) this.#count(exit.kind);
      return exit;
    } finally {
      this.#vm.isRunning = false;
    }
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
      this.interrupts.update();
      if (this.#mpState === KVM_MP_STATE_SUSPENDED) {
        return this.#interruptPending() ? WAKEUP : BLOCKED;
      }
      if (this.interrupts.showTimers()) return INTERRUPTED;
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
    if ((control & ~GUEST_DEBUG_FLAGS) !== 0) return refuse(Errno.EINVAL);
    const on = (control & KVM_GUESTDBG_ENABLE) !== 0;
    this.context.debugStep = on && (control & KVM_GUESTDBG_SINGLESTEP) !== 0;
    this.context.debugBrk = on && (control & KVM_GUESTDBG_USE_SW_BP) !== 0;
    return 0;
  }

  /** ESR_EL2 as KVM reports it: a BRK with its immediate, or a software step. */
  #debugExit(): VcpuExit {
    if (this.context.debugStep) return { kind: 'debug', esr: BigInt(softwareStepEsr(true)) };
    const immediate = (this.core.opcode() >>> 5) & 0xffff;
    return { kind: 'debug', esr: BigInt(brkEsr(immediate)) };
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
        this.#mpState = KVM_MP_STATE_STOPPED;
        return undefined;
      case 'cpu-on':
        this.#vm.vcpus[action.target]!.powerOn(action.entry, action.context);
        return undefined;
      case 'system-event':
        if (action.stopAll)
          for (const vcpu of this.#vm.vcpus) vcpu.setMpState(KVM_MP_STATE_STOPPED);
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
    this.#mpState = KVM_MP_STATE_RUNNABLE;
  }

  // ---- stage 2 faults and MMIO ----------------------------------------------------------------

  #stage2Fault(exit: Extract<CoreExit, { kind: 'stage2-fault' }>): VcpuExit | 'again' | undefined {
    const { fault, fetch, opcode } = exit;
    const access = fetch || fault.s1ptw ? undefined : loadStoreSyndrome(opcode);
    const far = (BigInt(fault.vaHigh >>> 0) << 32n) | BigInt(fault.vaLow >>> 0);
    this.#faultAddress = far;
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
        this.core.countInstruction();
        injectAbort(this.core, outcome);
        return undefined;
      case 'inject-serror':
        this.#pending.addSError();
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

  #startMmio(ipa: Ipa, access: LoadStoreSyndrome, isWrite: boolean): VcpuExit | undefined {
    const { vgic, ioEventFds, observer } = this.#vm;
    const request = { ipa, access, isWrite, vgic, ioEventFds };
    const exit = this.#mmio.begin(this.core.memory.u64, request);
    if (exit === 'gic' || exit instanceof EventFd) {
      this.core.advancePc();
      this.#count(exit === 'gic' ? 'gic' : 'ioeventfd');
      // Whoever hears it may look at this vCPU, so its state must be complete.
      if (exit !== 'gic') exit.signal();
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
    if (this.#pending.hasAbort) this.#mmio.abandon();
    if (!this.#mmio.isPending) return;
    const words = this.words();
    this.#mmio.complete(words);
    words[S.PC / 8] = BigInt.asUintN(64, words[S.PC / 8]! + 4n);
  }

  /** Gives back the core's TLB region; the vCPU is not used again. */
  destroy(): void {
    this.core.unload();
    this.core.tlbs.unregister(this.context);
    this.#vm.kvm.releaseContextIndex(this.context.index);
  }
}

/** SYS with CRn = 7 (DC, IC), without DC ZVA, GVA and GZVA (CRm = 4): they are stores. */
const isCacheMaintenance = (opcode: number): boolean =>
  (opcode & 0xfff8f000) >>> 0 === 0xd5087000 && ((opcode >>> 8) & 15) !== 4;
