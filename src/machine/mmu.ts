/**
 * The one walker of real descriptors: VA to PA for the EL1&0 regime, stage 1 times stage 2, with
 * every fault as a record. It fills TLBs (a caller asks once a page) and answers AT; it holds no
 * TLB of its own beyond the stage 2 pages it met last, so stage 1 maintenance does not concern it;
 * it knows no ASID or VMID, and checks no alignment, tag or breakpoint. Called by the CPU core,
 * `kvm/` and the debugger.
 *
 * Hot: some three million walks a kernel boot. Addresses are two int32 halves, nothing is
 * allocated, registers are taken apart when they change.
 *
 * Order of checks, updates and faults: Arm, AArch64.FullTranslate() and what it calls.
 */
import {
  COMBINED_SHAREABILITY,
  MEM_ATTR_MASK,
  MEM_DEVICE,
  MEM_FORCED_OUTER,
  MEM_NO_TAG_ACCESS,
  MEM_S1_DEVICE,
  MEM_S2_DEVICE,
  MEM_TAGGED,
  MEM_WRITE_BACK,
  Shareability,
} from '../arm/memattr.ts';
import { bit, high32, type Ipa, ipa, low32, pa } from '../base/index.ts';
import type { PhysicalMemory } from './memory.ts';
import { DEFAULT_MMU_FEATURES, type MmuFeatures } from './mmu-features.ts';
import {
  FETCH_ENTRIES,
  fillMemoryTable,
  memoryIndex,
  newMemoryTable,
  ROW_DEFAULT_CACHEABLE,
} from './mmu-memory-table.ts';
import { FLAT_SIZE, Stage1 } from './mmu-stage1.ts';
import type { Stage1Registers } from './mmu-stage1-controls.ts';
import {
  S2_CLEAN,
  S2_COLUMN_MASK,
  S2_COLUMN_SHIFT,
  S2_EXEC_EL0,
  S2_EXEC_EL1,
  S2_FLAGS,
  S2_OFF_FLAGS,
  S2_PA_HIGH,
  S2_PA_LOW,
  S2_READ,
  S2_SH_SHIFT,
  S2_SIZE_SHIFT,
  S2_WRITE,
  Stage2,
  type Stage2Registers,
} from './mmu-stage2.ts';
import { TableMemory } from './mmu-table-memory.ts';
import {
  type Access,
  AccessKind,
  EXEC,
  FaultType,
  fromHalves,
  READ,
  setFault,
  type Translation,
  WRITE,
} from './translation.ts';

export { DEFAULT_MMU_FEATURES, type MmuFeatures } from './mmu-features.ts';
export type { Stage1Registers } from './mmu-stage1-controls.ts';
export type { Stage2Registers } from './mmu-stage2.ts';
export {
  type Access,
  AccessKind,
  type FaultRecord,
  FaultType,
  newTranslation,
  parFromTranslation,
  type Translation,
} from './translation.ts';

/** The bits the memory table depends on: SCTLR_EL1.C and I; HCR_EL2.CD, ID, FWB and DCT. */
const SCTLR_MEMORY = (1n << 2n) | (1n << 12n);
const HCR_MEMORY = (1n << 32n) | (1n << 33n) | (1n << 46n) | (1n << 57n);

export class Mmu {
  readonly #features: MmuFeatures;
  readonly #stage1: Stage1;
  readonly #stage2: Stage2;
  readonly #memoryTable = newMemoryTable();
  /** What `#memoryTable` was filled for: MAIR_EL1, and the bits that matter of the others. */
  #mair = -1n;
  #sctlr = 0n;
  #hcr = 0n;

  constructor(memory: PhysicalMemory, features: Partial<MmuFeatures> = {}) {
    this.#features = { ...DEFAULT_MMU_FEATURES, ...features };
    const tables = new TableMemory(memory);
    this.#stage2 = new Stage2(tables, this.#features);
    this.#stage1 = new Stage1(tables, this.#stage2, this.#features);
    this.setStage1({ sctlr: 0n, tcr: 0n, ttbr0: 0n, ttbr1: 0n, mair: 0n });
  }

  /** Takes the stage 1 controls of the EL1&0 regime; call when one of them changes. */
  setStage1(regs: Stage1Registers): void {
    this.#stage1.configure(regs);
    this.#updateMemoryTable(regs.sctlr & SCTLR_MEMORY, regs.mair, this.#hcr);
  }

  /** Takes the stage 2 controls; `undefined` = stage 2 off, and HCR_EL2 as 0. */
  setStage2(regs: Stage2Registers | undefined): void {
    const hcr = regs?.hcr ?? 0n;
    this.#stage1.configureHcr(hcr);
    this.#stage2.configure(regs);
    this.#updateMemoryTable(this.#sctlr, this.#mair, hcr & HCR_MEMORY);
  }

  /** Forgets what is cached of stage 2, as a TLBI by IPA or by VMID does. */
  invalidateStage2(): void {
    this.#stage2.invalidate();
  }

  #updateMemoryTable(sctlr: bigint, mair: bigint, hcr: bigint): void {
    if (sctlr === this.#sctlr && mair === this.#mair && hcr === this.#hcr) return;
    this.#sctlr = sctlr;
    this.#mair = mair;
    this.#hcr = hcr;
    fillMemoryTable(this.#memoryTable, mair, {
      c: bit(sctlr, 2) === 1,
      i: bit(sctlr, 12) === 1,
      fwb: this.#features.fwb && bit(hcr, 46) === 1,
      dct: bit(hcr, 57) === 1,
      cd: bit(hcr, 32) === 1,
      id: bit(hcr, 33) === 1,
      mtePerm: this.#features.mtePerm,
    });
  }

  /**
   * Translates the VA `vaHigh`:`vaLow` (32-bit halves, signed or not) through both stages. True:
   * `out` is filled; false: `out.fault` is. Arm: AArch64.FullTranslate().
   */
  translate(vaHigh: number, vaLow: number, access: Access, out: Translation): boolean {
    return (
      this.#stage1.translate(vaHigh | 0, vaLow | 0, access, out.fault) &&
      this.#throughStage2(vaHigh | 0, vaLow | 0, access, out)
    );
  }

  /**
   * Translates through stage 1 alone, as AT S1E1R does: `out.pa` is the IPA and the attributes are
   * stage 1's. Stage 2 can still fault the walk, with `s1ptw`.
   */
  translateStage1(vaHigh: number, vaLow: number, access: Access, out: Translation): boolean {
    const stage1 = this.#stage1;
    if (!stage1.translate(vaHigh | 0, vaLow | 0, access, out.fault)) return false;
    this.#fill(access, out, stage1.outHigh, stage1.outLow, S2_OFF_FLAGS);
    return true;
  }

  /** Translates an IPA through stage 2 alone, as if stage 1 made it Normal Write-Back. */
  translateStage2(address: Ipa, access: Access, out: Translation): boolean {
    const stage1 = this.#stage1;
    stage1.outHigh = high32(address);
    stage1.outLow = low32(address) | 0;
    stage1.row = ROW_DEFAULT_CACHEABLE;
    stage1.sh = Shareability.non;
    stage1.permissions = READ | WRITE | EXEC;
    stage1.size = FLAT_SIZE;
    stage1.global = true;
    return this.#throughStage2(0, 0, access, out);
  }

  /** Takes the output of stage 1 through stage 2. Arm: AArch64.S2Translate(). */
  #throughStage2(vaHigh: number, vaLow: number, access: Access, out: Translation): boolean {
    const { outHigh, outLow } = this.#stage1;
    const stage2 = this.#stage2;
    const { kind } = access;
    const required = kind === AccessKind.fetch ? execFlag(access.el) : REQUIRED[kind];
    const entry = stage2.lookupFor(outHigh, outLow, required, 0);
    if (entry < 0) return this.#fail(access, vaHigh, vaLow, out);
    let flags = stage2.entries[entry + S2_FLAGS]!;
    if ((flags & S2_CLEAN) !== 0 && (kind & 1) !== 0 && access.at !== true) {
      stage2.markDirty(outHigh, outLow);
      flags = stage2.entries[entry + S2_FLAGS]!;
    }
    const low = stage2.entries[entry + S2_PA_LOW]! | (outLow & 0xfff);
    this.#fill(access, out, stage2.entries[entry + S2_PA_HIGH]!, low, flags);
    return true;
  }

  /** Fills `out` for PA `high`:`low` under a stage 2 page with `flags`. */
  #fill(access: Access, out: Translation, high: number, low: number, flags: number): void {
    const stage1 = this.#stage1;
    const row = memoryIndex(stage1.row, (flags >>> S2_COLUMN_SHIFT) & S2_COLUMN_MASK);
    const fetch = access.kind === AccessKind.fetch;
    const memory = this.#memoryTable[fetch ? row + FETCH_ENTRIES : row]!;
    const shareability = COMBINED_SHAREABILITY[(stage1.sh << 2) | ((flags >>> S2_SH_SHIFT) & 3)]!;
    const { permissions } = stage1;
    out.pa = pa(fromHalves(high, low));
    out.ipa = ipa(fromHalves(stage1.outHigh, stage1.outLow));
    out.attr = memory & MEM_ATTR_MASK;
    out.shareability =
      (memory & MEM_FORCED_OUTER) !== 0 ? Shareability.outer : (shareability as Shareability);
    out.isNormalWriteBack = (memory & MEM_WRITE_BACK) !== 0;
    out.isDevice = (memory & MEM_DEVICE) !== 0;
    out.deviceStage = (memory & MEM_S1_DEVICE) !== 0 ? 1 : (memory & MEM_S2_DEVICE) !== 0 ? 2 : 0;
    out.tagged = (memory & MEM_TAGGED) !== 0;
    out.noTagAccess = (memory & MEM_NO_TAG_ACCESS) !== 0;
    out.mayRead = (permissions & READ) !== 0 && (flags & S2_READ) !== 0;
    out.mayWrite = (permissions & WRITE) !== 0 && (flags & (S2_WRITE | S2_CLEAN)) === S2_WRITE;
    out.mayExecute = (permissions & EXEC) !== 0 && (flags & execFlag(access.el)) !== 0;
    out.global = stage1.global;
    out.pageBytes = 1 << Math.min(stage1.size, flags >>> S2_SIZE_SHIFT);
    out.fault.type = FaultType.none;
  }

  /** A stage 2 fault on the output of stage 1. */
  #fail(access: Access, vaHigh: number, vaLow: number, out: Translation): false {
    const { fault } = out;
    const { faultType, faultLevel, faultReadable } = this.#stage2;
    const { kind } = access;
    fault.stage = 2;
    fault.s1ptw = false;
    fault.write = kind === AccessKind.write || (kind === AccessKind.readWrite && faultReadable);
    fault.ipa = ipa(fromHalves(this.#stage1.outHigh, this.#stage1.outLow));
    return setFault(fault, faultType, faultLevel, vaHigh, vaLow);
  }
}

const execFlag = (el: 0 | 1): number => (el === 0 ? S2_EXEC_EL0 : S2_EXEC_EL1);

/** What stage 2 must permit for each kind of access; fetches have `execFlag`. */
const REQUIRED: Readonly<Record<AccessKind, number>> = [S2_READ, S2_WRITE, 0, S2_READ | S2_WRITE];
