/**
 * The processing element: runs a context (a vCPU) on the engine until something needs the
 * hypervisor. It owns the engine's instance, the software TLBs and the record pages of a machine,
 * and carries out what generated code asks for; memory accesses are in `slow-access.ts`, system
 * instructions in `system.ts`, exceptions in `exceptions.ts`. It knows EL1&0 and nothing of EL2:
 * what would be taken to EL2 is a `CoreExit`. Called by `kvm/vcpu.ts` and by tests.
 */

import { decodeBitmask } from '../arm/a64/bitmask.ts';
import type { SystemOp } from '../arm/a64/ops.ts';
import { type FpContext, softOperationList } from '../arm/fp/index.ts';
import {
  encodeFsc,
  illegalStateEsr,
  instructionAbortEsr,
  pcAlignmentEsr,
  SERROR_IDS,
  sErrorEsr,
  softwareStepEsr,
} from '../arm/syndrome.ts';
import { encodingKey, systemRegisters } from '../arm/sysreg/index.ts';
import {
  decoder,
  type EngineHooks,
  type InterpreterInstance,
  instantiateInterpreter,
} from '../engine/interpreter.ts';
import { Records } from '../engine/records.ts';
import * as S from '../engine/state.ts';
import {
  ENTRY_CHECKED,
  ENTRY_TAGGED,
  FETCH_RECORDS,
  FETCH_TLB_BYTES,
  FETCH_TLB_ENTRIES,
  FETCH_TLB_ENTRY_SHIFT,
  FETCH_TLB_OFFSET,
  TLB_BYTES,
} from '../engine/tlb.ts';
import { type CpuContext, slotIndex } from './context.ts';
import { softwareStepActive, takeAbort, takeException, Vector } from './exceptions.ts';
import type { PhysicalMemory } from './memory.ts';
import { AccessKind, type FaultRecord, FaultType, newTranslation } from './mmu.ts';
import { SlowAccesses } from './slow-access.ts';
import { SoftwareTlbs } from './software-tlbs.ts';
import { carryOut } from './system.ts';

/** Why a run ended: what real hardware would take to EL2, or the budget. */
export type CoreExit =
  | { readonly kind: 'budget' }
  /** The hypervisor asked for it (`Hypervisor.writeRegister` said 'leave'). */
  | { readonly kind: 'kick' }
  /** A stage 2 fault. PC is at the instruction; `opcode` is it (0 for a fetch). */
  | {
      readonly kind: 'stage2-fault';
      readonly fault: FaultRecord;
      readonly fetch: boolean;
      readonly opcode: number;
    }
  /** HVC or SMC; PC is behind it. */
  | { readonly kind: 'call'; readonly call: 'hvc' | 'smc'; readonly immediate: number }
  /** One instruction of a context with `debugStep` has run, or BRK met one with `debugBrk`. */
  | { readonly kind: 'debug' }
  /** WFI, WFE or YIELD; PC is behind it. */
  | { readonly kind: 'wait'; readonly wait: 'wfi' | 'wfe' | 'yield' };

const BUDGET_EXIT: CoreExit = { kind: 'budget' };

const SCTLR = slotIndex('SCTLR_EL1');
const TCR = slotIndex('TCR_EL1');
const CPACR = slotIndex('CPACR_EL1');
const FPCR = slotIndex('FPCR');
const FPSR = slotIndex('FPSR');
const SP_EL0_SLOT = slotIndex('SP_EL0') * 4;
const SP_EL0_KEY = encodingKey(3, 0, 4, 1, 0) & 0x7fff;

/** PSTATE.A, I and F as bits of `S.DAIF`. */
const DAIF_A = 4;
const DAIF_I = 2;
const DAIF_F = 1;

const FSC_EXTERNAL_ABORT = encodeFsc(FaultType.externalAbort);

export class Core implements EngineHooks {
  readonly memory: PhysicalMemory;
  /** i32 view of linear memory; the running context's state is at index 0. */
  readonly s: Int32Array;
  readonly u64: BigUint64Array;
  readonly records: Records;
  readonly tlbs: SoftwareTlbs;
  readonly #slow: SlowAccesses;
  readonly #interpreter: InterpreterInstance;
  readonly #translation = newTranslation();
  readonly #fetchAccess = { kind: AccessKind.fetch, el: 0 as 0 | 1, pan: false };
  readonly #fp: FpContext = { fpcr: 0, flags: 0 };
  #context: CpuContext | undefined;
  #exit: CoreExit | undefined;
  /** Budget at the start of the slice, and instructions executed in all slices before it. */
  #sliceBudget = 0;
  #executedBefore = 0;
  /** Exceptions taken to EL1 since the machine began; a statistic. */
  exceptionCount = 0;

  constructor(memory: PhysicalMemory) {
    this.memory = memory;
    this.s = memory.i32;
    this.u64 = memory.u64;
    this.tlbs = new SoftwareTlbs(memory);
    this.records = new Records({
      layout: memory.layout,
      memory: memory.memory,
      decoder: decoder(),
      codePages: memory.codePages,
      onFlush: () => this.tlbs.flushFetches(),
      onCode: (page) => this.tlbs.purgeWrites(page),
    });
    memory.onCodeWrite = (page) => this.records.dropPage(page);
    this.#slow = new SlowAccesses(this);
    this.#interpreter = instantiateInterpreter(memory.memory, this);
    fillTables(memory);
  }

  /** The context that runs. Precondition: inside `run`, or after `load`. */
  get context(): CpuContext {
    return this.#context!;
  }

  /** Instructions executed since the machine began, all contexts together. */
  get executed(): number {
    return this.#executedBefore + this.#sliceBudget - this.#remaining();
  }

  /** Instructions left of the slice; inside a hook, not counting the current one. */
  #inHook = false;
  #remaining(): number {
    const { s } = this;
    const budget = s[S.BUDGET / 4]!;
    return (this.#inHook ? budget - s[S.RP / 4]! : budget) / 8;
  }

  /** Makes `context` the one whose registers lie at address 0. */
  load(context: CpuContext): void {
    if (this.#context === context) return;
    this.unload();
    this.memory.u8.set(context.saved, 0);
    this.#context = context;
    // Another vCPU may have written what this one's monitor watches; that is an event.
    if (this.s[S.MONITOR_ADDRESS / 4] !== 0) this.beginTurn(context);
    this.modeChanged();
    this.translationChanged();
  }

  /** Puts the registers of the loaded context back into its copy. */
  unload(): void {
    const context = this.#context;
    if (context === undefined) return;
    context.saved.set(this.memory.u8.subarray(0, S.STATE_BYTES));
    this.#context = undefined;
  }

  /**
   * Runs `context` for at most about `budget` instructions (it ends at the first taken branch
   * behind that). Interrupts are taken on entry and whenever they become deliverable.
   */
  run(context: CpuContext, budget: number): CoreExit {
    this.load(context);
    const { s } = this;
    this.#sliceBudget = budget;
    s[S.BUDGET / 4] = budget * 8;
    this.#updateLine(context);
    this.#exit = undefined;
    this.takePendingInterrupt();
    while (this.#exit === undefined) {
      s[S.LEAVE / 4] = S.Leave.event;
      if (s[S.PSTATE_IL / 4] === 1) this.#illegalState();
      if (context.debugStep || softwareStepActive(s)) {
        this.#step();
        continue;
      }
      this.#interpreter.enter();
      const leave = s[S.LEAVE / 4];
      if (leave === S.Leave.fetch) this.#fetch();
      else if (leave === S.Leave.budget) this.#exit = BUDGET_EXIT;
    }
    this.#executedBefore = this.executed;
    this.#sliceBudget = 0;
    s[S.BUDGET / 4] = 0;
    return this.#exit;
  }

  /** An instruction that ends in an abort which the hypervisor injects: it counts, time goes on. */
  countInstruction(): void {
    this.#executedBefore++;
  }

  /** Ends the run after the current event. */
  leave(exit: CoreExit): void {
    this.#exit = exit;
  }

  // ---- what generated code asks for -----------------------------------------------------------

  slow(packed: number): number {
    this.#inHook = true;
    const address = this.#slow.access(packed);
    if (address === 0) this.#leaveHook(this.#isRetried() ? 0 : 8);
    this.#inHook = false;
    return address;
  }

  commit(): void {
    this.#slow.commit();
  }

  system(op: number): number {
    this.#inHook = true;
    this.pcToState();
    const leave = carryOut(this, op as SystemOp);
    if (leave) this.#leaveHook(this.#isRetried() ? 0 : 8);
    this.#inHook = false;
    return leave ? 1 : 0;
  }

  soft(id: number): void {
    const { s, u64 } = this;
    const operation = softOperationList[id]!;
    const fp = this.#fp;
    fp.fpcr = s[FPCR]!;
    fp.flags = 0;
    const args: bigint[] = [];
    for (let i = 0; i < operation.args; i++) args.push(u64[S.SCRATCH / 8 + i]!);
    u64[S.SCRATCH / 8] = operation.run(fp, args);
    s[FPSR] = s[FPSR]! | fp.flags;
  }

  decode(rp: number): void {
    this.records.decode(rp);
  }

  /** The instruction is tried again later; one that ends in an exception to EL1 is not. */
  #isRetried(): boolean {
    return this.#exit?.kind === 'stage2-fault';
  }

  /** Turns BUDGET from "B" back into "left", `executed` × 8 counting the current instruction. */
  #leaveHook(executedTimes8: number): void {
    const { s } = this;
    s[S.BUDGET / 4] = s[S.BUDGET / 4]! - s[S.RP / 4]! - executedTimes8;
  }

  /** Writes the address of the current instruction to PC. Precondition: inside a hook. */
  pcToState(): void {
    const { s } = this;
    s[S.PC / 4] = s[S.PAGE_VA / 4]! | ((s[S.RP / 4]! - s[S.RECORD_BASE / 4]!) >>> 1);
    s[S.PC / 4 + 1] = s[S.PAGE_VA / 4 + 1]!;
  }

  /** PC := PC + 4. */
  advancePc(): void {
    const { s } = this;
    const low = (s[S.PC / 4]! + 4) | 0;
    s[S.PC / 4] = low;
    if (low >= 0 && low < 4) s[S.PC / 4 + 1] = (s[S.PC / 4 + 1]! + 1) | 0;
  }

  /** The opcode of the current instruction. Precondition: inside a hook. */
  opcode(): number {
    return this.s[this.s[S.RP / 4]! / 4 + 1]!;
  }

  // ---- single steps ---------------------------------------------------------------------------

  /**
   * One step: the pending software step exception, or one instruction. An exception that the
   * instruction takes ends it as well. Arm: D2.12, the software step state machine.
   */
  #step(): void {
    const { s, context } = this;
    const bySoftware = softwareStepActive(s) && !context.debugStep;
    if (bySoftware && s[S.PSTATE_SS / 4] === 0) {
      this.#softwareStepException();
      return;
    }
    const rp = this.#recordOfPc();
    if (rp < 0) {
      this.#fetch();
      return;
    }
    const exceptions = this.exceptionCount;
    const budget = s[S.BUDGET / 4]!;
    const low = s[S.PC / 4]!;
    s[S.PAGE_VA / 4] = low & -4096;
    s[S.PAGE_VA / 4 + 1] = s[S.PC / 4 + 1]!;
    this.records.isolate(rp, low & 0xfff);
    this.#interpreter.step();
    const left = s[S.LEAVE / 4] === S.Leave.event ? s[S.BUDGET / 4]! : 0;
    s[S.BUDGET / 4] = budget - 8 + Math.max(0, left);
    if (this.exceptionCount === exceptions && bySoftware) s[S.PSTATE_SS / 4] = 0;
    if (context.debugStep) this.#exit ??= { kind: 'debug' };
    else if (s[S.BUDGET / 4]! <= 0) this.#exit ??= BUDGET_EXIT;
  }

  /** Address of the record for PC, or -1 when the fetch TLB has none. */
  #recordOfPc(): number {
    const { s } = this;
    const low = s[S.PC / 4]!;
    const index = (low >>> 12) & (FETCH_TLB_ENTRIES - 1);
    const at = (s[S.FETCH_TLB / 4]! + (index << FETCH_TLB_ENTRY_SHIFT)) / 4;
    const hit = s[at] === (low & -4093) && s[at + 1] === s[S.PC / 4 + 1];
    return hit ? s[at + FETCH_RECORDS / 4]! + 2 * (low & 0xfff) : -1;
  }

  #softwareStepException(): void {
    takeException(this, Vector.sync, softwareStepEsr(this.s[S.EL / 4] === 0, false));
  }

  // ---- instruction fetch ----------------------------------------------------------------------

  /** Fills the fetch TLB for PC, or takes the fault. Arm: AArch64.FetchInstruction(). */
  #fetch(): void {
    const { s } = this;
    this.#canonicalPc();
    const low = s[S.PC / 4]!;
    const high = s[S.PC / 4 + 1]!;
    if ((low & 3) !== 0) {
      this.#chargeException();
      takeAbort(this, pcAlignmentEsr(), high, low);
      return;
    }
    const access = this.#fetchAccess;
    access.el = s[S.EL / 4] as 0 | 1;
    const out = this.#translation;
    if (!this.context.mmu.translate(high, low, access, out)) {
      this.#fetchFault(out.fault);
      return;
    }
    const linear = this.memory.linear(out.pa);
    if (linear < 0) {
      this.#instructionAbort(FSC_EXTERNAL_ABORT, false, high, low);
      return;
    }
    const record = this.records.forPage(linear - (linear % 4096));
    this.tlbs.fillFetch(this.context, high, low, record, out.global, out.pageBytes);
  }

  /**
   * An exception that no instruction was executed for costs one all the same: a guest whose vectors
   * cannot be fetched must not run for ever.
   */
  #chargeException(): void {
    this.s[S.BUDGET / 4] = this.s[S.BUDGET / 4]! - 8;
  }

  /** With TBI on, a branch drops the tag byte. Arm: AArch64.BranchAddr(). */
  #canonicalPc(): void {
    const { s } = this;
    const high = s[S.PC / 4 + 1]!;
    const upper = (high & (1 << 23)) !== 0;
    const tbi = s[TCR + 1]! & (upper ? 1 << 6 : 1 << 5);
    if (tbi !== 0) s[S.PC / 4 + 1] = (high << 8) >> 8;
  }

  #fetchFault(fault: FaultRecord): void {
    if (fault.stage === 2) {
      this.leave({ kind: 'stage2-fault', fault, fetch: true, opcode: 0 });
      return;
    }
    this.#instructionAbort(fault.fsc, fault.s1ptw, fault.vaHigh, fault.vaLow);
  }

  #instructionAbort(fsc: number, s1ptw: boolean, high: number, low: number): void {
    this.#chargeException();
    const fromEl0 = this.s[S.EL / 4] === 0;
    takeAbort(this, instructionAbortEsr({ fsc, s1ptw }, fromEl0), high, low);
  }

  #illegalState(): void {
    this.#chargeException();
    takeException(this, Vector.sync, illegalStateEsr());
  }

  // ---- events ---------------------------------------------------------------------------------

  /** Sets the event register of the context that runs. Arm: SendEventLocal(). */
  sendEventLocal(): void {
    this.s[S.EVENT_REGISTER / 4] = 1;
  }

  /** Sets the event registers of all contexts of its VM. Arm: SendEvent(). */
  sendEvent(): void {
    for (const context of this.tlbs.sharing(this.context.vmid)) {
      this.#stateOf(context)[S.EVENT_REGISTER / 4] = 1;
    }
  }

  #stateOf(context: CpuContext): Int32Array {
    return context === this.#context ? this.s : context.savedI32;
  }

  /**
   * The exception return with which a hypervisor begins a turn of `context`: its monitor is clear
   * and its event register set. That other runs of the turn are one too is left out, so that a
   * guest runs alike however often stage 2 faults. Arm: AArch64.ExceptionReturn().
   */
  beginTurn(context: CpuContext): void {
    const s = this.#stateOf(context);
    s[S.MONITOR_ADDRESS / 4] = 0;
    s[S.EVENT_REGISTER / 4] = 1;
  }

  /** Whether the event register was set; it is clear afterwards. Arm: ClearEventRegister(). */
  takeEvent(): boolean {
    const { s } = this;
    const wasSet = s[S.EVENT_REGISTER / 4] === 1;
    s[S.EVENT_REGISTER / 4] = 0;
    return wasSet;
  }

  // ---- interrupts and mode --------------------------------------------------------------------

  /** Sets the virtual IRQ and FIQ inputs of a context; if it runs, it notices at the next check. */
  setInterruptLines(context: CpuContext, lines: { irq: boolean; fiq: boolean }): void {
    context.irqLine = lines.irq;
    context.fiqLine = lines.fiq;
    if (context === this.#context) this.#updateLine(context);
  }

  /** Makes a virtual SError pending for a context, or takes it back. */
  setSErrorPending(context: CpuContext, pending: boolean): void {
    context.sErrorPending = pending;
    if (context === this.#context) this.#updateLine(context);
  }

  /** What generated code looks at where it unmasks interrupts. */
  #updateLine({ irqLine, fiqLine, sErrorPending }: CpuContext): void {
    this.s[S.IRQ_LINE / 4] = irqLine || fiqLine || sErrorPending ? 1 : 0;
  }

  /** Whether an interrupt, masked or not, is there: it ends a WFI. */
  interruptPending(): boolean {
    const { irqLine, fiqLine, sErrorPending } = this.context;
    return irqLine || fiqLine || sErrorPending;
  }

  /** Whether an interrupt would be taken now. */
  interruptDeliverable(): boolean {
    const daif = this.s[S.DAIF / 4]!;
    const { irqLine, fiqLine, sErrorPending } = this.context;
    return (
      (irqLine && (daif & DAIF_I) === 0) ||
      (fiqLine && (daif & DAIF_F) === 0) ||
      (sErrorPending && (daif & DAIF_A) === 0)
    );
  }

  /**
   * Takes the SError, FIQ or IRQ exception if one is deliverable; PC must be where to come back to.
   */
  takePendingInterrupt(): boolean {
    if (!this.interruptDeliverable()) return false;
    const { context } = this;
    const daif = this.s[S.DAIF / 4]!;
    if (context.sErrorPending && (daif & DAIF_A) === 0) {
      this.setSErrorPending(context, false);
      takeException(this, Vector.sError, sErrorEsr(SERROR_IDS));
    } else {
      const fiq = context.fiqLine && (daif & DAIF_F) === 0;
      takeException(this, fiq ? Vector.fiq : Vector.irq, undefined);
    }
    return true;
  }

  /** EL, SPSel, PAN, TCO, or a register that decides about checks changed. */
  modeChanged(): void {
    const { s } = this;
    const context = this.context;
    const el = s[S.EL / 4]!;
    const sctlr = s[SCTLR]!;
    const sctlrHigh = s[SCTLR + 1]!;
    const strict = (sctlr & 2) !== 0;
    const data = el === 0 ? 0 : s[S.PSTATE_PAN / 4] === 1 ? 2 : 1;
    const none = this.tlbs.empty;
    s[S.TLB / 4] = strict ? none : context.tlbBase + data * TLB_BYTES;
    s[S.TLB_EL0 / 4] = strict ? none : context.tlbBase;
    s[S.FETCH_TLB / 4] = context.tlbBase + FETCH_TLB_OFFSET + el * FETCH_TLB_BYTES;
    const checking = context.mte && s[S.PSTATE_TCO / 4] === 0;
    // SCTLR_EL1: TCF0 39:38, TCF 41:40, ATA0 42, ATA 43.
    const ata0 = context.mte && (sctlrHigh & (1 << 10)) !== 0;
    const ata1 = context.mte && (sctlrHigh & (1 << 11)) !== 0;
    const checks0 = checking && ata0 && (sctlrHigh & 0xc0) !== 0;
    const checks1 = checking && ata1 && (sctlrHigh & 0x300) !== 0;
    s[S.CHECK_FLAGS / 4] = (el === 0 ? checks0 : checks1) ? ENTRY_CHECKED : 0;
    s[S.CHECK_FLAGS_EL0 / 4] = checks0 ? ENTRY_CHECKED : 0;
    s[S.TAG_FLAGS / 4] = (el === 0 ? ata0 : ata1) ? ENTRY_TAGGED : 0;
    const fpen = (s[CPACR]! >>> 20) & 3;
    s[S.FP_ENABLED / 4] = fpen === 3 || (fpen === 1 && el === 1) ? 1 : 0;
    s[S.SP_CHECK / 4] = (sctlr & (el === 0 ? 1 << 4 : 1 << 3)) !== 0 ? 15 : 0;
    // SP_EL0 is in its slot only while it is not SP.
    const spEl0 = el === 1 && s[S.PSTATE_SPSEL / 4] === 1 ? SP_EL0_SLOT : 0;
    this.memory.u16[S.MRS_TABLE / 2 + SP_EL0_KEY] = spEl0;
    this.memory.u16[S.MSR_TABLE / 2 + SP_EL0_KEY] = spEl0;
  }

  /** A stage 1 control changed (or a context was loaded): the MMU follows. */
  translationChanged(): void {
    const { u64 } = this;
    this.context.mmu.setStage1({
      sctlr: u64[SCTLR / 2]!,
      tcr: u64[TCR / 2]!,
      ttbr0: u64[slotIndex('TTBR0_EL1') / 2]!,
      ttbr1: u64[slotIndex('TTBR1_EL1') / 2]!,
      mair: u64[slotIndex('MAIR_EL1') / 2]!,
    });
  }
}

/** The tables that generated code looks things up in: MRS and MSR slots, logical immediates. */
function fillTables(memory: PhysicalMemory): void {
  const { u16, u64 } = memory;
  for (const register of systemRegisters) {
    if (register.slot < 0 || register.feature !== undefined || register.kind === 'computed') {
      continue;
    }
    const at = register.key & 0x7fff;
    const slot = S.SYSREG + register.slot * 8;
    const el0 = (access: 0 | 1 | 'none'): number =>
      access === 0 && register.el0 === undefined ? 1 : 0;
    if (register.read !== 'none') u16[S.MRS_TABLE / 2 + at] = slot | el0(register.read);
    const inPlace =
      register.kind === 'plain' &&
      register.write !== 'none' &&
      register.effect === undefined &&
      register.writable === (1n << 64n) - 1n;
    if (inPlace) u16[S.MSR_TABLE / 2 + at] = slot | el0(register.write);
  }
  bitmasks ??= decodeBitmasks();
  u64.set(bitmasks, S.BITMASK_TABLE / 8);
}

/** The logical immediates by N:immr:imms; the same for every machine. */
let bitmasks: BigUint64Array | undefined;

const decodeBitmasks = (): BigUint64Array =>
  BigUint64Array.from({ length: 8192 }, (_, field) => {
    const parts = { n: field >> 12, immr: (field >> 6) & 63, imms: field & 63 };
    return decodeBitmask(parts, true) ?? 0n;
  });
