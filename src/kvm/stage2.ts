/**
 * Stage 2 of one VM: IPA to PA as real descriptors in the host's memory, with the registers that
 * make a CPU walk them. Mechanism only: what may be mapped, and how, `fault.ts` and `vm.ts` decide.
 *
 * Descriptors are Linux's (arch/arm64/kvm/hyp/pgtable.c): inner shareable, AF set, reading always
 * permitted, executing permitted where the memory is Normal (CTR_EL0.DIC is 1, so no cache needs
 * cleaning first). Whoever holds translations (vCPU TLBs) subscribes with `onInvalidate` and is
 * told after a leaf has gone or lost rights; gaining rights is not told, a fault finds it out.
 */
import {
  encodeStage2,
  LEAF_ATTRIBUTES,
  leafAttributes,
  stage2Root,
  stage2Sl0,
} from '../arm/descriptor.ts';
import { Shareability, Stage2MemAttr } from '../arm/memattr.ts';
import { features } from '../arm/sysreg/index.ts';
import { assert, type Ipa, ipa, PAGE_SIZE, type Pa } from '../base/index.ts';
import { Errno, type Host, type Refusal, refuse } from '../host/index.ts';
import { type Leaf, PageTable } from '../machine/tables.ts';

/** How a guest sees memory: as the host's own, the same without its tags, or as a device's. */
export type GuestMemoryKind = 'normal' | 'no-tag-access' | 'normal-nc' | 'device';

export interface Stage2Mapping {
  readonly ipa: Ipa;
  readonly pa: Pa;
  /** 4 KiB or 2 MiB; both addresses are multiples of it. */
  readonly sizeBytes: number;
  readonly writable: boolean;
  readonly memory: GuestMemoryKind;
}

/** Translations of `sizeBytes` bytes from `ipa` have gone or lost rights. */
export type Stage2Listener = (ipa: Ipa, sizeBytes: number) => void;

const S2AP_WRITE = encodeStage2({ write: true });
const S2AP_WRITE_LOW = Number(S2AP_WRITE);
const ATTRIBUTES_LOW = Number(BigInt.asIntN(32, LEAF_ATTRIBUTES));
const ATTRIBUTES_HIGH = Number(BigInt.asIntN(32, LEAF_ATTRIBUTES >> 32n));
const ACCESSED = encodeStage2({ accessed: true });
/** XN[1:0] that forbids execution at both ELs. */
const EXECUTE_NEVER = 0b10;

/** HCR_EL2.VM and FWB. */
const HCR_VM = 1n << 0n;
const HCR_FWB = 1n << 46n;

const VMID_BITS: number = features.vmidBits;
/** VMIDs in use on each host; 0 is the host's own. */
const vmidsInUse = new WeakMap<Host, Set<number>>();

export class Stage2 {
  readonly ipaBits: number;
  readonly vmid: number;
  /** HCR_EL2.FWB: stage 2 decides the memory type of guest memory alone. */
  readonly fwb: boolean;
  readonly #host: Host;
  readonly #table: PageTable;
  readonly #listeners = new Set<Stage2Listener>();
  /** Attribute bits of leaves that may be written, and of those that may not. */
  readonly #writable: Readonly<Record<GuestMemoryKind, bigint>>;
  readonly #readOnly: Readonly<Record<GuestMemoryKind, bigint>>;

  /** An empty stage 2 for 2^ipaBits bytes of IPA. ENOMEM: no frames or no VMID left. */
  static create(host: Host, ipaBits: number): Stage2 | Refusal {
    const { tableCount } = stage2Root(ipaBits);
    const root = host.frames.allocate(Math.log2(tableCount));
    if (root === -1) return refuse(Errno.ENOMEM);
    const vmid = allocateVmid(host);
    if (vmid !== undefined) return new Stage2(host, ipaBits, root, vmid);
    host.frames.put(root, tableCount * PAGE_SIZE);
    return refuse(Errno.ENOMEM);
  }

  private constructor(host: Host, ipaBits: number, root: Pa, vmid: number) {
    this.#host = host;
    this.ipaBits = ipaBits;
    this.vmid = vmid;
    this.fwb = host.cpu.fwb;
    this.#writable = forEachKind((kind) => this.#attributes(kind, true));
    this.#readOnly = forEachKind((kind) => this.#attributes(kind, false));
    this.#table = new PageTable({
      memory: host.memory,
      allocator: host.frames.tableAllocator,
      root,
      startLevel: stage2Root(ipaBits).level,
      inputBits: ipaBits,
    });
  }

  /**
   * VTCR_EL2: T0SZ, SL0, write-back inner shareable walks, 4 KiB, PS, RES1. Linux: kvm_get_vtcr().
   */
  get vtcr(): bigint {
    const paRange = [32, 36, 40, 42, 44, 48].indexOf(this.#host.cpu.paBits);
    assert(paRange >= 0, 'physical address bits are a PARange');
    return (
      BigInt(64 - this.ipaBits) |
      (BigInt(stage2Sl0(this.#table.startLevel)) << 6n) |
      (0b01n << 8n) | // IRGN0: write-back, write-allocate
      (0b01n << 10n) | // ORGN0
      (BigInt(Shareability.inner) << 12n) |
      (BigInt(paRange) << 16n) |
      (VMID_BITS === 16 ? 1n << 19n : 0n) |
      (1n << 31n)
    );
  }

  /** VTTBR_EL2: VMID and the root table. */
  get vttbr(): bigint {
    return (BigInt(this.vmid) << 48n) | BigInt(this.#table.root);
  }

  /** The bits of HCR_EL2 that stage 2 asks for. */
  get hcr(): bigint {
    return HCR_VM | (this.fwb ? HCR_FWB : 0n);
  }

  /** Table pages in use, root included. */
  get tablePageCount(): number {
    return this.#table.tablePageCount + this.#table.rootBytes / PAGE_SIZE;
  }

  /** Tells `listener` of lost translations from now on; returns what ends it. */
  onInvalidate(listener: Stage2Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The leaf that maps `address`, or undefined. */
  lookup(address: Ipa): Leaf | undefined {
    return this.#table.lookup(address);
  }

  /**
   * Maps one page or block over what is there; a block that it lies in is split, and keeps mapping
   * the rest. ENOMEM: nothing changed. Linux: kvm_pgtable_stage2_map(), which drops the rest.
   */
  map(mapping: Stage2Mapping): 0 | Refusal {
    const { ipa: input, sizeBytes } = mapping;
    const old = this.#table.lookup(input);
    const attributes = (mapping.writable ? this.#writable : this.#readOnly)[mapping.memory];
    const request = { input, pa: mapping.pa, sizeBytes, attributes, maxLeafBytes: sizeBytes };
    if (!this.#table.mapRange(request)) return refuse(Errno.ENOMEM);
    if (old === undefined) return 0;
    const now = this.#table.lookup(input);
    assert(now !== undefined, 'what was mapped is found');
    if (!isContinued(old, now)) this.#invalidated(input, sizeBytes);
    return 0;
  }

  /** Removes what is mapped in the range. */
  unmap(start: Ipa, sizeBytes: number): void {
    const range = { input: start, sizeBytes };
    if (!this.#table.mapsAny(range)) return;
    if (this.#table.unmapRange(range)) this.#invalidated(start, sizeBytes);
    else this.#unmapLeaves(start, sizeBytes);
  }

  /** Takes the right to write from everything in the range. Linux: kvm_stage2_wp_range(). */
  writeProtect(start: Ipa, sizeBytes: number): void {
    this.writeProtectRuns(start, [[0, sizeBytes / PAGE_SIZE]]);
  }

  /**
   * Takes the right to write from runs of pages, each [first page behind `base`, count] and in
   * order, and tells of it once. Linux: kvm_arch_mmu_enable_log_dirty_pt_masked(), and one flush.
   */
  writeProtectRuns(base: Ipa, runs: readonly (readonly [number, number])[]): void {
    let from = Number.POSITIVE_INFINITY;
    let to = 0;
    for (const [first, count] of runs) {
      const range = { input: base + first * PAGE_SIZE, sizeBytes: count * PAGE_SIZE };
      const changed = this.#table.changeAttributes(range, { clear: S2AP_WRITE, set: 0n });
      if (changed < 0) this.#unmapLeaves(ipa(range.input), range.sizeBytes);
      if (changed <= 0) continue;
      from = Math.min(from, range.input);
      to = range.input + range.sizeBytes;
    }
    if (to > 0) this.#invalidated(ipa(from), to - from);
  }

  /** Sets the access flag of the leaf at `address`. Linux: kvm_pgtable_stage2_mkyoung(). */
  setAccessed(address: Ipa): void {
    const leaf = this.#table.lookup(address);
    if (leaf === undefined) return;
    const range = { input: leaf.input, sizeBytes: leaf.sizeBytes };
    this.#table.setAttributes(range, { clear: 0n, set: ACCESSED });
  }

  /**
   * Turns the blocks of the range into pages, as far as there is memory. Linux:
   * kvm_pgtable_stage2_split().
   */
  splitBlocks(start: Ipa, sizeBytes: number): void {
    for (const { input, pa, sizeBytes: leafBytes, descriptor } of this.#leaves(start, sizeBytes)) {
      if (leafBytes === PAGE_SIZE) continue;
      const attributes = leafAttributes(descriptor);
      this.#table.mapRange({
        input,
        pa,
        sizeBytes: leafBytes,
        attributes,
        maxLeafBytes: PAGE_SIZE,
      });
    }
  }

  /** Gives back the tables and the VMID. */
  destroy(): void {
    this.#table.clear();
    this.#host.frames.put(this.#table.root, this.#table.rootBytes);
    vmidsInUse.get(this.#host)?.delete(this.vmid);
    this.#invalidated(ipa(0), 2 ** this.ipaBits);
    this.#listeners.clear();
  }

  /** Asserts that the tables are well formed. */
  check(): void {
    this.#table.checkTable();
  }

  /** Linux: stage2_set_prot_attr(). */
  #attributes(memory: GuestMemoryKind, writable: boolean): bigint {
    const memAttr = {
      normal: this.fwb ? Stage2MemAttr.fwbForceWB : Stage2MemAttr.normal,
      // Preconditions: the CPU has FEAT_MTE_PERM.
      'no-tag-access': this.fwb ? Stage2MemAttr.fwbForceWBNoTagAccess : Stage2MemAttr.noTagAccess,
      'normal-nc': this.fwb ? Stage2MemAttr.fwbNormalNC : Stage2MemAttr.normalNC,
      device: this.fwb ? Stage2MemAttr.fwbDeviceNGnRE : Stage2MemAttr.deviceNGnRE,
    }[memory];
    return encodeStage2({
      memAttr,
      read: true,
      write: writable,
      sh: Shareability.inner,
      accessed: true,
      xn: memory === 'normal' || memory === 'no-tag-access' ? 0 : EXECUTE_NEVER,
    });
  }

  #leaves(start: Ipa, sizeBytes: number): Leaf[] {
    const leaves: Leaf[] = [];
    this.#table.walkLeaves({ input: start, sizeBytes }, (leaf) => leaves.push(leaf));
    return leaves;
  }

  /**
   * Unmaps every leaf of a range whole: where a block would have to be split and there is no memory
   * for it, all of it goes, and the guest faults and maps it anew.
   */
  #unmapLeaves(start: Ipa, sizeBytes: number): void {
    for (const { input, sizeBytes: leafBytes } of this.#leaves(start, sizeBytes)) {
      this.#table.unmapRange({ input, sizeBytes: leafBytes });
      this.#invalidated(ipa(input), leafBytes);
    }
  }

  #invalidated(start: Ipa, sizeBytes: number): void {
    for (const listener of this.#listeners) listener(start, sizeBytes);
  }
}

const forEachKind = (
  make: (kind: GuestMemoryKind) => bigint,
): Readonly<Record<GuestMemoryKind, bigint>> => ({
  normal: make('normal'),
  'no-tag-access': make('no-tag-access'),
  'normal-nc': make('normal-nc'),
  device: make('device'),
});

/**
 * Whether translations made from `old` still hold under the new mapping, perhaps with fewer rights.
 */
function isContinued(old: Leaf, now: Leaf): boolean {
  const samePlace = old.pa === now.pa && old.sizeBytes >= now.sizeBytes;
  const differentLow = (old.low ^ now.low) & ATTRIBUTES_LOW & ~S2AP_WRITE_LOW;
  const differentHigh = (old.high ^ now.high) & ATTRIBUTES_HIGH;
  const lostWrite = old.low & ~now.low & S2AP_WRITE_LOW;
  return samePlace && differentLow === 0 && differentHigh === 0 && lostWrite === 0;
}

function allocateVmid(host: Host): number | undefined {
  const used = vmidsInUse.get(host) ?? new Set<number>();
  vmidsInUse.set(host, used);
  for (let vmid = 1; vmid < 2 ** VMID_BITS; vmid++) {
    if (used.has(vmid)) continue;
    used.add(vmid);
    return vmid;
  }
  return undefined;
}
