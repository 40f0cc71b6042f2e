/**
 * The slow path of memory accesses: everything that the inlined probe in generated code could not
 * settle. Checks in the architecture's order (alignment, translation of every page touched, tags),
 * and only then fills a TLB entry or uses the bounce buffer; so an access that faults has had no
 * effect. Arm: AArch64.MemSingle() and MemTag(), with what they call.
 */
import { dataAbortEsr, encodeFsc } from '../arm/syndrome.ts';
import {
  matchesAll,
  TagFaultMode,
  tagFaultMode,
  tagFaultOutcome,
  tfsrBit,
  topByteIgnored,
} from '../arm/tag.ts';
import { PAGE_SIZE, type Pa, pa } from '../base/index.ts';
import { decodeSlowAccess, type SlowAccess } from '../engine/memory-access.ts';
import * as S from '../engine/state.ts';
import { ENTRY_CHECKED, ENTRY_TAGGED, TLB_BYTES } from '../engine/tlb.ts';
import { slotIndex } from './context.ts';
import type { Core } from './core.ts';
import { takeAbort } from './exceptions.ts';
import { elementBytes } from './load-store-syndrome.ts';
import {
  type Access,
  AccessKind,
  type FaultRecord,
  FaultType,
  newTranslation,
  type Translation,
} from './mmu.ts';
import type { TlbFill } from './software-tlbs.ts';
import { setFault } from './translation.ts';

const SCTLR = slotIndex('SCTLR_EL1');
const TCR = slotIndex('TCR_EL1');
const TFSR = slotIndex('TFSR_EL1');
const TFSRE0 = slotIndex('TFSRE0_EL1');

const FSC_EXTERNAL_ABORT = encodeFsc(FaultType.externalAbort);
const FSC_TAG_CHECK = encodeFsc(FaultType.tagCheck);
const FSC_ALIGNMENT = encodeFsc(FaultType.alignment);

/** An address from its 32-bit halves, signed or not. */
const fromSignedHalves = (high: number, low: number): bigint =>
  (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);

/** One page's part of an access. */
interface Part {
  linear: number;
  bytes: number;
}

export class SlowAccesses {
  readonly #core: Core;
  readonly #request: SlowAccess = {
    bytes: 0,
    read: false,
    write: false,
    checked: false,
    unprivileged: false,
    tag: false,
    align: 1,
  };
  readonly #access: Access = { kind: AccessKind.read, el: 0, pan: false };
  readonly #first = newTranslation();
  readonly #second = newTranslation();
  readonly #fill: TlbFill = {
    tlb: 0,
    vaHigh: 0,
    vaLow: 0,
    page: 0,
    read: false,
    write: false,
    ignoreTop: false,
    flags: 0,
    global: false,
    pageBytes: PAGE_SIZE,
  };
  readonly #tagFault = newTranslation().fault;
  /** Where the bounce buffer's bytes go on commit. */
  #parts: Part[] = [];

  constructor(core: Core) {
    this.#core = core;
  }

  /** See `EngineHooks.slow`. */
  access(packed: number): number {
    const { s } = this.#core;
    const request = this.#request;
    decodeSlowAccess(packed, request);
    const low = s[S.SLOW_VA / 4]!;
    const high = s[S.SLOW_VA / 4 + 1]!;
    s[S.SLOW_TAGGED / 4] = 0;
    if (request.align > 1 && (low & (request.align - 1)) !== 0) {
      return this.#abort(FSC_ALIGNMENT, high, low);
    }
    const access = this.#access;
    const el = s[S.EL / 4]! as 0 | 1;
    access.el = request.unprivileged ? 0 : el;
    access.pan = s[S.PSTATE_PAN / 4] === 1;
    access.kind = request.write
      ? request.read
        ? AccessKind.readWrite
        : AccessKind.write
      : AccessKind.read;
    const strict = (s[SCTLR]! & 2) !== 0;
    if (strict && !request.tag && this.#misaligned(low)) {
      return this.#abort(FSC_ALIGNMENT, high, low);
    }
    return this.#translated(high, low);
  }

  /** Whether the elements of the access are not aligned to their size. */
  #misaligned(low: number): boolean {
    const size = elementBytes(this.#core.opcode(), this.#request.bytes);
    return (low & (size - 1)) !== 0;
  }

  /** DC ZVA and DC GZVA: to Device memory they take an Alignment fault however aligned. */
  #isBlockZero(): boolean {
    return (this.#core.opcode() & 0xfff80000) >>> 0 === 0xd5080000;
  }

  #translated(high: number, low: number): number {
    const { context } = this.#core;
    const request = this.#request;
    const first = this.#first;
    if (!context.mmu.translate(high, low, this.#access, first)) {
      return this.#isStage1Misaligned(first.fault, high, low)
        ? this.#abort(FSC_ALIGNMENT, high, low)
        : this.#fault(first.fault);
    }
    if (first.isDevice && !request.tag && (this.#isBlockZero() || this.#misaligned(low))) {
      return this.#deviceAlignment(first, high, low);
    }
    const inPage = PAGE_SIZE - (low & (PAGE_SIZE - 1));
    if (request.bytes > inPage) return this.#twoPages(high, low, inPage);
    const linear = this.#core.memory.linear(first.pa);
    if (linear < 0) return this.#abort(FSC_EXTERNAL_ABORT, high, low);
    if (request.tag) return this.#tagTarget(first, linear, high, low);
    if (!this.#tagsPass(first, linear, request.bytes, high, low)) return 0;
    if (request.write) this.#aboutToWrite(linear);
    this.#fillTlb(first, linear, high, low);
    return linear;
  }

  /**
   * Whether a fault of stage 2 comes too late, because stage 1 alone makes the access an unaligned
   * one to Device memory. Arm: AArch64.S1HasAlignmentFault().
   */
  #isStage1Misaligned(fault: FaultRecord, high: number, low: number): boolean {
    if (fault.stage !== 2 || fault.s1ptw || this.#request.tag || !this.#misaligned(low)) {
      return false;
    }
    const out = this.#second;
    const { mmu } = this.#core.context;
    return mmu.translateStage1(high, low, this.#access, out) && out.isDevice;
  }

  /** Code on the page must be decoded again; then the page may be written freely. */
  #aboutToWrite(linear: number): void {
    const { memory, records } = this.#core;
    const page = memory.ramPage(linear);
    if (memory.codePages[page] === 1) records.dropPage(page);
  }

  #fillTlb(out: Translation, linear: number, high: number, low: number): void {
    const core = this.#core;
    const { s, context, memory } = core;
    if (!out.isNormalWriteBack || out.noTagAccess) return;
    const taggable = out.tagged && memory.holdsTags(out.pa);
    // A Tagged mapping of memory without tag storage: each access is looked at.
    if (out.tagged && !taggable) return;
    const request = this.#request;
    const fill = this.#fill;
    const upper = (high & (1 << 23)) !== 0;
    const tbi = (s[TCR + 1]! & (upper ? 1 << 6 : 1 << 5)) !== 0;
    const mode = request.unprivileged || s[S.EL / 4] === 0 ? 0 : s[S.PSTATE_PAN / 4] === 1 ? 2 : 1;
    fill.tlb = context.tlbBase + mode * TLB_BYTES;
    fill.vaHigh = high;
    fill.vaLow = low;
    fill.page = linear - (linear % PAGE_SIZE);
    fill.read = out.mayRead;
    fill.write = out.mayRead && out.mayWrite && memory.codePages[memory.ramPage(linear)] === 0;
    fill.ignoreTop = tbi;
    fill.flags = taggable ? ENTRY_TAGGED | (tbi ? ENTRY_CHECKED : 0) : 0;
    fill.global = out.global;
    fill.pageBytes = out.pageBytes;
    core.tlbs.fill(context, fill);
  }

  /** An access that touches two pages: both are translated and checked, then bounced. */
  #twoPages(high: number, low: number, inPage: number): number {
    const core = this.#core;
    const { context, memory } = core;
    const { bytes, read, write } = this.#request;
    const second = this.#second;
    const nextLow = (low + inPage) | 0;
    const nextHigh = nextLow === 0 ? (high + 1) | 0 : high;
    if (!context.mmu.translate(nextHigh, nextLow, this.#access, second)) {
      return this.#fault(second.fault);
    }
    if (second.isDevice && this.#misaligned(low)) {
      return this.#deviceAlignment(second, nextHigh, nextLow);
    }
    const parts = [
      { linear: memory.linear(this.#first.pa), bytes: inPage },
      { linear: memory.linear(second.pa), bytes: bytes - inPage },
    ];
    if (parts[0]!.linear < 0) return this.#abort(FSC_EXTERNAL_ABORT, high, low);
    if (parts[1]!.linear < 0) return this.#abort(FSC_EXTERNAL_ABORT, nextHigh, nextLow);
    if (!this.#tagsPass(this.#first, parts[0]!.linear, inPage, high, low)) return 0;
    // The tag byte of the second page is that of the address the instruction used.
    const taggedHigh = (nextHigh & 0x00ffffff) | (high & 0xff000000) | 0;
    if (!this.#tagsPass(second, parts[1]!.linear, parts[1]!.bytes, taggedHigh, nextLow)) return 0;
    if (write) for (const part of parts) this.#aboutToWrite(part.linear);
    if (read) {
      let at = S.BOUNCE;
      for (const part of parts) {
        memory.u8.copyWithin(at, part.linear, part.linear + part.bytes);
        at += part.bytes;
      }
    }
    this.#parts = parts;
    return S.BOUNCE;
  }

  /** See `EngineHooks.commit`. */
  commit(): void {
    const { u8 } = this.#core.memory;
    let at = S.BOUNCE;
    for (const part of this.#parts) {
      u8.copyWithin(part.linear, at, at + part.bytes);
      at += part.bytes;
    }
  }

  // ---- allocation tags ------------------------------------------------------------------------

  /** A tag load or store: where its tags are, and whether there are any. */
  #tagTarget(out: Translation, linear: number, high: number, low: number): number {
    const core = this.#core;
    const { s, memory } = core;
    if (out.tagged && s[S.TAG_FLAGS / 4] !== 0) {
      if (out.noTagAccess) return this.#noTagAccess(out, high, low);
      if (memory.holdsTags(out.pa)) s[S.SLOW_TAGGED / 4] = 1;
      else if (!this.#tagAccessWithoutStorage(out.pa, high, low)) return 0;
    }
    if (this.#request.write) this.#aboutToWrite(linear);
    this.#fillTlb(out, linear, high, low);
    return linear;
  }

  /** A tag access to a zone without tag storage; false when it ended in an abort. */
  #tagAccessWithoutStorage(address: Pa, high: number, low: number): boolean {
    const zone = this.#core.memory.zoneAt(address);
    if (zone?.kind !== 'no-tags') return true;
    if (zone.noTags === 'external-abort') {
      this.#abort(FSC_EXTERNAL_ABORT, high, low);
      return false;
    }
    if (zone.noTags === 'corrupt-neighbour' && this.#request.write) {
      // The tag lands where a tag carve-out of this memory would be: in the zone's own data.
      const offset = Math.floor((address - zone.base) / 32);
      const at = this.#core.memory.linear(pa(zone.base + offset));
      this.#core.memory.u8[at] = this.#core.memory.u8[at]! ^ 0xff;
    }
    return true;
  }

  /** Compares tags; false when a synchronous fault was taken. Arm: AArch64.CheckTag(). */
  #tagsPass(out: Translation, linear: number, bytes: number, high: number, low: number): boolean {
    const core = this.#core;
    const { s, memory } = core;
    const request = this.#request;
    if (!request.checked || !out.tagged) return true;
    const flags = request.unprivileged ? S.CHECK_FLAGS_EL0 : S.CHECK_FLAGS;
    if (s[flags / 4] === 0) return true;
    const address = fromSignedHalves(high, low);
    const tcr = core.u64[TCR / 2]!;
    if (!topByteIgnored(address, tcr) || matchesAll(address, tcr)) return true;
    if (out.noTagAccess && this.#effectiveTcf() !== TagFaultMode.none) {
      this.#noTagAccess(out, high, low);
      return false;
    }
    const logical = (high >>> 24) & 15;
    const hasStorage = memory.holdsTags(out.pa);
    if (!hasStorage && !this.#tagAccessWithoutStorage(out.pa, high, low)) return false;
    for (let at = linear - (linear % 16); at < linear + bytes; at += 16) {
      const byte = memory.u8[memory.tagByte(at)]!;
      const tag = !hasStorage ? 0 : Math.floor(at / 16) % 2 === 1 ? byte >> 4 : byte & 15;
      if (tag !== logical) {
        const offset = Math.max(0, at - linear);
        return this.#tagCheckFailed(high, low + offset);
      }
    }
    return true;
  }

  /** Arm: AArch64.TagCheckFault(). */
  #tagCheckFailed(high: number, low: number): boolean {
    const { s } = this.#core;
    const request = this.#request;
    const el = request.unprivileged ? 0 : s[S.EL / 4];
    const outcome = tagFaultOutcome(this.#effectiveTcf(), request.write && !request.read);
    if (outcome === 'sync') {
      this.#abort(FSC_TAG_CHECK, high, low | 0);
      return false;
    }
    if (outcome === 'async') {
      const register = el === 0 ? TFSRE0 : TFSR;
      s[register] = s[register]! | tfsrBit(fromSignedHalves(high, low));
    }
    return true;
  }

  /** Arm: AArch64.EffectiveTCF(). */
  #effectiveTcf(): TagFaultMode {
    const el = this.#request.unprivileged ? 0 : (this.#core.s[S.EL / 4] as 0 | 1);
    return tagFaultMode(this.#core.u64[SCTLR / 2]!, el);
  }

  /**
   * An access to tags that stage 2 withholds (FEAT_MTE_PERM): its permission fault, WnR only for a
   * tag store. The level is that of the smaller leaf of both stages. Arm:
   * AArch64.S2CheckPermissions().
   */
  #noTagAccess(out: Translation, high: number, low: number): 0 {
    const fault = this.#tagFault;
    fault.stage = 2;
    fault.s1ptw = false;
    fault.ipa = out.ipa;
    fault.write = this.#request.tag && this.#request.write;
    fault.tagAccess = true;
    setFault(fault, FaultType.permission, out.pageBytes > PAGE_SIZE ? 2 : 3, high, low);
    return this.#fault(fault);
  }

  // ---- faults ---------------------------------------------------------------------------------

  #fault(fault: FaultRecord): 0 {
    if (fault.stage === 2) {
      this.#core.pcToState();
      const opcode = this.#core.opcode();
      this.#core.leave({ kind: 'stage2-fault', fault, fetch: false, opcode });
      return 0;
    }
    return this.#dataAbort(fault.fsc, fault.write, fault.s1ptw, fault.vaHigh, fault.vaLow);
  }

  /** A data abort at EL1 that is not the walker's; WnR is set for pure writes. */
  #abort(fsc: number, high: number, low: number): 0 {
    const { read, write } = this.#request;
    return this.#dataAbort(fsc, write && !read, false, high, low);
  }

  #dataAbort(fsc: number, wnr: boolean, s1ptw: boolean, high: number, low: number): 0 {
    const core = this.#core;
    core.pcToState();
    takeAbort(core, dataAbortEsr({ fsc, wnr, s1ptw }, core.s[S.EL / 4] === 0), high, low);
    return 0;
  }

  /** An unaligned access to Device memory; stage 2's is the hypervisor's. */
  #deviceAlignment(out: Translation, high: number, low: number): 0 {
    if (out.deviceStage !== 2) return this.#abort(FSC_ALIGNMENT, high, low);
    const { fault } = out;
    fault.type = FaultType.alignment;
    fault.stage = 2;
    fault.s1ptw = false;
    fault.write = this.#request.write;
    fault.ipa = out.ipa;
    fault.vaHigh = high;
    fault.vaLow = low;
    fault.fsc = FSC_ALIGNMENT;
    return this.#fault(fault);
  }
}
