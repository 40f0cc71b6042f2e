/**
 * Stage 2 of one VM: IPA to PA as real descriptors in the host's memory, with the registers that
 * make a CPU walk them. Mechanism only: what may be mapped, and how, `fault.ts` and `vm.ts` decide.
 *
 * Descriptors are Linux's (arch/arm64/kvm/hyp/pgtable.c): inner shareable, AF set, reading always
 * permitted, executing permitted where the memory is Normal (CTR_EL0.DIC is 1, so no cache needs
 * cleaning first). Whoever holds translations (vCPU TLBs) subscribes with `onInvalidate` and is
 * told after a leaf has gone or lost rights; gaining rights is not told, a fault finds it out.
 */
import { encodeStage2, leafAttributes, stage2Root, stage2Sl0 } from '../arm/descriptor.ts';
import { Shareability, Stage2MemAttr } from '../arm/memattr.ts';
import { features } from '../arm/sysreg/index.ts';
import { assert, type Ipa, ipa, PAGE_SIZE, type Pa } from '../base/index.ts';
import { Errno, type Host, type Refusal, refuse } from '../host/index.ts';
import { type InputRange, type Leaf, type MapRequest, PageTable } from '../machine/tables.ts';

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
    const attributes = this.#attributes(mapping);
    const request = { input, pa: mapping.pa, sizeBytes, attributes, maxLeafBytes: sizeBytes };
    if (!this.#table.mapRange(request)) return refuse(Errno.ENOMEM);
    if (old !== undefined && !isContinued(old, request)) this.#invalidated(input, sizeBytes);
    return 0;
  }

  /** Removes what is mapped in the range. */
  unmap(start: Ipa, sizeBytes: number): void {
    this.#change(start, sizeBytes, (range) => this.#table.unmapRange(range));
  }

  /** Takes the right to write from everything in the range. Linux: kvm_stage2_wp_range(). */
  writeProtect(start: Ipa, sizeBytes: number): void {
    const change = { clear: S2AP_WRITE, set: 0n };
    this.#change(start, sizeBytes, (range) => this.#table.setAttributes(range, change));
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
  #attributes({ writable, memory }: Stage2Mapping): bigint {
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
   * Takes translations or rights from a range. Where a block would have to be split and there is no
   * memory for it, all of it goes: the guest faults and maps it anew.
   */
  #change(start: Ipa, sizeBytes: number, change: (range: InputRange) => boolean): void {
    const leaves = this.#leaves(start, sizeBytes);
    if (leaves.length === 0) return;
    if (change({ input: start, sizeBytes })) {
      this.#invalidated(start, sizeBytes);
      return;
    }
    for (const { input, sizeBytes: leafBytes } of leaves) {
      this.#table.unmapRange({ input, sizeBytes: leafBytes });
      this.#invalidated(ipa(input), leafBytes);
    }
  }

  #invalidated(start: Ipa, sizeBytes: number): void {
    for (const listener of this.#listeners) listener(start, sizeBytes);
  }
}

/**
 * Whether translations made from `old` still hold under the new mapping, perhaps with fewer rights.
 */
function isContinued(old: Leaf, mapping: MapRequest): boolean {
  const before = leafAttributes(old.descriptor);
  const sameMemory = (before | S2AP_WRITE) === (mapping.attributes | S2AP_WRITE);
  const keptWrite = (before & ~mapping.attributes & S2AP_WRITE) === 0n;
  return old.pa === mapping.pa && old.sizeBytes >= mapping.sizeBytes && sameMemory && keptWrite;
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
