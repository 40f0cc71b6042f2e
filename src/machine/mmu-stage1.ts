/**
 * Stage 1 of the EL1&0 regime: VA to IPA through the tables of TTBR0_EL1 and TTBR1_EL1, each
 * descriptor fetched through stage 2. `mmu.ts` owns it and takes the output through stage 2.
 */
import { bit, ipa } from '../base/index.ts';
import type { MmuFeatures } from './mmu-features.ts';
import { ROW_DEFAULT_CACHEABLE, ROW_FLAT } from './mmu-memory-table.ts';
import { Half, type Stage1Registers } from './mmu-stage1-controls.ts';
import {
  S2_CLEAN,
  S2_DEVICE,
  S2_FLAGS,
  S2_READ,
  S2_WORD,
  S2_WRITE,
  type Stage2,
} from './mmu-stage2.ts';
import type { TableMemory } from './mmu-table-memory.ts';
import {
  type Access,
  AccessKind,
  EXEC,
  type FaultRecord,
  FaultType,
  fromHalves,
  READ,
  refusedBy,
  setFault,
  WRITE,
} from './translation.ts';

/** Bits of a descriptor's low half. */
const VALID = 1 << 0;
const TABLE = 1 << 1;
const AP_EL0 = 1 << 6;
const AP_READ_ONLY = 1 << 7;
const AF = 1 << 10;
const NOT_GLOBAL = 1 << 11;
/** Bits of its high half: in a leaf, then in a table. */
const DBM = 1 << 19;
const PXN = 1 << 21;
const UXN = 1 << 22;
const PXN_TABLE = 1 << 27;
const UXN_TABLE = 1 << 28;
const AP_TABLE_NO_EL0 = 1 << 29;
const AP_TABLE_READ_ONLY = 1 << 30;

/** log2 of the "leaf" of stage 1 switched off. */
export const FLAT_SIZE = 30;

export class Stage1 {
  /* The output of the last translation: address, row of the memory table, SH, permissions, size. */
  outHigh = 0;
  outLow = 0;
  row = 0;
  sh = 0;
  permissions = 0;
  size = 0;
  global = false;

  readonly #memory: TableMemory;
  readonly #stage2: Stage2;
  readonly #hafdbs: boolean;
  readonly #pan3: boolean;
  readonly #lower: Half;
  readonly #upper: Half;
  #enabled = false;
  #defaultCacheable = false;
  #writeNotExec = false;
  #epan = false;
  #accessFlag = false;
  #dirtyState = false;
  /** S2_DEVICE where HCR_EL2.PTW makes a table in Device memory a fault. */
  #walkDevice = 0;

  /* The leaf that the last walk found: the descriptor, where it lies, what the tables above say. */
  #low = 0;
  #high = 0;
  #level = 0;
  #hierarchy = 0;
  /** Its IPA, and its index in `memory.i32`. */
  #tableHigh = 0;
  #address = 0;
  #word = 0;

  constructor(memory: TableMemory, stage2: Stage2, features: MmuFeatures) {
    this.#memory = memory;
    this.#stage2 = stage2;
    this.#hafdbs = features.hafdbs;
    this.#pan3 = features.pan3;
    this.#lower = new Half(features, false);
    this.#upper = new Half(features, true);
  }

  configure(regs: Stage1Registers): void {
    const { sctlr, tcr } = regs;
    this.#enabled = bit(sctlr, 0) === 1;
    this.#writeNotExec = bit(sctlr, 19) === 1;
    this.#epan = this.#pan3 && bit(sctlr, 57) === 1;
    this.#accessFlag = this.#hafdbs && bit(tcr, 39) === 1;
    this.#dirtyState = this.#accessFlag && bit(tcr, 40) === 1;
    this.#lower.configure(tcr, regs.ttbr0);
    this.#upper.configure(tcr, regs.ttbr1);
  }

  /** HCR_EL2.DC switches stage 1 off; PTW (unless TGE) forbids tables in Device memory. */
  configureHcr(hcr: bigint): void {
    this.#defaultCacheable = bit(hcr, 12) === 1;
    this.#walkDevice = bit(hcr, 2) === 1 && bit(hcr, 27) === 0 ? S2_DEVICE : 0;
  }

  /**
   * Translates a VA (int32 halves). True: the output fields are set; false: `fault` is.
   * Arm: AArch64.S1Translate().
   */
  translate(vaHigh: number, vaLow: number, access: Access, fault: FaultRecord): boolean {
    const half = (vaHigh & (1 << 23)) === 0 ? this.#lower : this.#upper;
    const fetch = access.kind === AccessKind.fetch;
    if (!this.#enabled || this.#defaultCacheable) {
      const mask = fetch ? half.flatFetchHighMask : half.flatDataHighMask;
      return this.#flat(mask, vaHigh, vaLow, access, fault);
    }
    const mask = fetch ? half.fetchHighMask : half.dataHighMask;
    if (
      ((vaHigh ^ half.sign) & mask) !== 0 ||
      ((vaLow ^ half.sign) & half.lowMask) !== 0 ||
      half.disabled ||
      (half.el0Disabled && access.el === 0)
    ) {
      return this.#fail(fault, FaultType.translation, 0, access, vaHigh, vaLow);
    }
    return this.#walk(half, vaHigh, vaLow, access, fault);
  }

  /** Arm: AArch64.S1DisabledOutput(). */
  #flat(mask: number, vaHigh: number, vaLow: number, access: Access, fault: FaultRecord): boolean {
    if ((vaHigh & mask) !== 0) {
      return this.#fail(fault, FaultType.addressSize, 0, access, vaHigh, vaLow);
    }
    this.outHigh = vaHigh & 0xffff;
    this.outLow = vaLow;
    this.row = this.#defaultCacheable ? ROW_DEFAULT_CACHEABLE : ROW_FLAT;
    this.sh = this.#defaultCacheable ? 0 : 2;
    this.permissions = READ | WRITE | EXEC;
    this.size = FLAT_SIZE;
    this.global = true;
    return true;
  }

  /** From the table of the start level to the leaf. Arm: AArch64.S1Walk(). */
  #walk(half: Half, vaHigh: number, vaLow: number, access: Access, fault: FaultRecord): boolean {
    const entries = this.#stage2.entries;
    let level = half.startLevel;
    let shift = half.startShift;
    let mask = half.startMask;
    let tableHigh = half.tableHigh;
    let tableLow = half.tableLow;
    let hierarchy = 0;
    if ((tableHigh & half.oaHighMask) !== 0) {
      return this.#fail(fault, FaultType.addressSize, 0, access, vaHigh, vaLow);
    }
    for (;;) {
      const index =
        (shift < 32 ? (vaLow >>> shift) | (vaHigh << (32 - shift)) : vaHigh >>> (shift - 32)) &
        mask;
      const address = tableLow | (index << 3);
      const entry = this.#stage2.lookupFor(tableHigh, address, S2_READ, this.#walkDevice);
      if (entry < 0) return this.#failStage2(fault, false, vaHigh, vaLow, tableHigh, address);
      const page = entries[entry + S2_WORD]!;
      if (page < 0) {
        return this.#fail(fault, FaultType.externalAbortOnWalk, level, access, vaHigh, vaLow);
      }
      const word = page + ((address & 0xfff) >>> 2);
      const low = this.#memory.i32[word]!;
      const high = this.#memory.i32[word + 1]!;
      if ((low & TABLE) === 0 || level === 3) {
        if ((low & VALID) === 0 || ((low & TABLE) === 0 && !half.isBlockLevel(level))) {
          return this.#fail(fault, FaultType.translation, level, access, vaHigh, vaLow);
        }
        this.#word = word;
        this.#low = low;
        this.#high = high;
        this.#level = level;
        this.size = shift;
        this.#hierarchy = half.hierarchical ? hierarchy : 0;
        this.#tableHigh = tableHigh;
        this.#address = address;
        return this.#leaf(half, vaHigh, vaLow, access, fault);
      }
      if ((low & VALID) === 0) {
        return this.#fail(fault, FaultType.translation, level, access, vaHigh, vaLow);
      }
      if ((high & half.oaHighMask) !== 0) {
        return this.#fail(fault, FaultType.addressSize, level, access, vaHigh, vaLow);
      }
      hierarchy |= high;
      tableHigh = high & 0xffff;
      tableLow = low & half.granuleMask;
      level++;
      shift -= half.stride;
      mask = half.strideMask;
    }
  }

  /** Checks the leaf that the walk found, updates it, and sets the output. */
  #leaf(half: Half, vaHigh: number, vaLow: number, access: Access, fault: FaultRecord): boolean {
    const low = this.#low;
    const high = this.#high;
    if ((high & half.oaHighMask) !== 0) {
      return this.#fail(fault, FaultType.addressSize, this.#level, access, vaHigh, vaLow);
    }
    if ((low & AF) === 0 && !this.#accessFlag) {
      return this.#fail(fault, FaultType.accessFlag, this.#level, access, vaHigh, vaLow);
    }
    const clean = this.#dirtyState && (high & DBM) !== 0 && (low & AP_READ_ONLY) !== 0;
    const permissions = this.#permissionsOf(clean ? low & ~AP_READ_ONLY : low, high, access);
    const refused = refusedBy(permissions, access.kind);
    if (refused !== 0) {
      this.#fail(fault, FaultType.permission, this.#level, access, vaHigh, vaLow);
      fault.write = refused === WRITE;
      return false;
    }
    const dirties = clean && (access.kind & 1) !== 0 && access.at !== true;
    const updated = (low | AF) & (dirties ? ~AP_READ_ONLY : -1);
    if (updated !== low && !this.#update(updated, vaHigh, vaLow, fault)) return false;

    const inLeaf = (1 << this.size) - 1;
    this.outHigh = high & 0xffff;
    this.outLow = (low & ~inLeaf) | (vaLow & inLeaf);
    this.row = (low >>> 2) & 7;
    this.sh = (low >>> 8) & 3;
    this.permissions = clean && !dirties ? permissions & ~WRITE : permissions;
    this.global = (low & NOT_GLOBAL) === 0;
    return true;
  }

  /** What the leaf permits to the access's EL. Arm: AArch64.S1DirectBasePermissions(). */
  #permissionsOf(low: number, high: number, access: Access): number {
    const hierarchy = this.#hierarchy;
    const write = (low & AP_READ_ONLY) === 0 && (hierarchy & AP_TABLE_READ_ONLY) === 0;
    const user = (low & AP_EL0) !== 0 && (hierarchy & AP_TABLE_NO_EL0) === 0;
    const userExec = (high & UXN) === 0 && (hierarchy & UXN_TABLE) === 0;
    if (access.el === 0) {
      const exec = userExec && !(this.#writeNotExec && write && user);
      return (user ? (write ? READ | WRITE : READ) : 0) | (exec ? EXEC : 0);
    }
    const exec =
      (high & PXN) === 0 &&
      (hierarchy & PXN_TABLE) === 0 &&
      !(write && (user || this.#writeNotExec));
    const data = access.pan && (user || (this.#epan && userExec)) ? 0 : READ;
    return (data !== 0 && write ? READ | WRITE : data) | (exec ? EXEC : 0);
  }

  /** Hardware update of the leaf, for which stage 2 must permit a write. */
  #update(low: number, vaHigh: number, vaLow: number, fault: FaultRecord): boolean {
    const stage2 = this.#stage2;
    const entry = stage2.lookupFor(this.#tableHigh, this.#address, S2_WRITE, 0);
    if (entry < 0) {
      return this.#failStage2(fault, true, vaHigh, vaLow, this.#tableHigh, this.#address);
    }
    const clean = (stage2.entries[entry + S2_FLAGS]! & S2_CLEAN) !== 0;
    if (clean) stage2.markDirty(this.#tableHigh, this.#address);
    this.#memory.update(this.#word, low);
    return true;
  }

  #fail(
    fault: FaultRecord,
    type: FaultType,
    level: number,
    access: Access,
    vaHigh: number,
    vaLow: number,
  ): false {
    fault.stage = 1;
    fault.s1ptw = false;
    fault.write = access.kind === AccessKind.write;
    fault.ipa = ipa(0);
    return setFault(fault, type, level, vaHigh, vaLow);
  }

  /** A fault of stage 2 on the descriptor at an IPA; `write`: on its update. */
  #failStage2(
    fault: FaultRecord,
    write: boolean,
    vaHigh: number,
    vaLow: number,
    ipaHigh: number,
    ipaLow: number,
  ): false {
    fault.stage = 2;
    fault.s1ptw = true;
    fault.write = write;
    fault.ipa = ipa(fromHalves(ipaHigh, ipaLow));
    return setFault(fault, this.#stage2.faultType, this.#stage2.faultLevel, vaHigh, vaLow);
  }
}
