/**
 * A virtual machine: its capabilities, memory slots, stage 2 and dirty logs. It belongs to the
 * process that made it and sees only that process's memory. vCPUs, interrupts and timers are in
 * files of their own and hold a `Vm`; the VMM calls its methods as ioctls of the VM's descriptor.
 *
 * Invariants: stage 2 maps only what a memslot backs and the process maps; it is taken away before
 * the process's mapping changes (`invalidateRange`); every page a guest may write while its slot
 * logs is marked dirty.
 */
import { type Hva, hva, type Ipa, ipa, isAligned, PAGE_SIZE } from '../base/index.ts';
import {
  type AddressSpace,
  Errno,
  type Host,
  isRefusal,
  type Refusal,
  refuse,
  TASK_SIZE,
  VmFlag,
} from '../host/index.ts';
import { checkExtension, KVM_USER_MEM_SLOTS, SUPPORTED_BLOCK_SIZES } from './capability.ts';
import { DirtyBitmap } from './dirty-log.ts';
import { ipaOf, type Memslot, MemslotList } from './memslot.ts';
import { copyTags, type KvmArmCopyMteTags } from './mte.ts';
import { type KvmPolicy, linux612 } from './policy.ts';
import { Stage2 } from './stage2.ts';
import {
  KVM_CAP_ARM_MTE_TAG_LOG,
  type KvmArmReadTagLog,
  keepTags,
  readTagLog,
  TagLog,
} from './tag-log.ts';
import {
  KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE,
  KVM_CAP_ARM_MTE,
  KVM_CAP_ARM_NISV_TO_USER,
  KVM_CAP_ARM_SYSTEM_SUSPEND,
  KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
  KVM_DIRTY_LOG_INITIALLY_SET,
  KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
  KVM_MEM_LOG_DIRTY_PAGES,
  KVM_MEM_READONLY,
  type KvmEnableCap,
} from './uapi.ts';

/** IPA bits of a VM that asks for none in particular. Linux: KVM_PHYS_SHIFT. */
const DEFAULT_IPA_BITS = 40;
const IPA_BITS_MIN = 32;
/** Linux: KVM_MEM_MAX_NR_PAGES. */
const SLOT_PAGES_MAX = 2 ** 31 - 1;

/** struct kvm_userspace_memory_region. Numbers as the VMM wrote them: nothing has been checked. */
export interface KvmUserspaceMemoryRegion {
  readonly slot: number;
  readonly flags: number;
  readonly guestPhysAddr: number;
  /** Bytes; 0 deletes the slot. */
  readonly memorySize: number;
  readonly userspaceAddr: number;
}

/** struct kvm_clear_dirty_log: bits set in `bitmap` are cleared, page `firstPage` being bit 0. */
export interface KvmClearDirtyLog {
  readonly slot: number;
  readonly firstPage: number;
  readonly pageCount: number;
  readonly bitmap: Uint32Array;
}

export interface VmOptions {
  readonly host: Host;
  /** The process that makes the VM. */
  readonly process: AddressSpace;
  /** 32 … the CPU's physical address bits; 40 when absent. Linux: the type of KVM_CREATE_VM. */
  readonly ipaBits?: number;
  readonly policy?: KvmPolicy;
  /** Hears what becomes of the guest's tags, a sentence each time. */
  readonly traceMte?: (text: string) => void;
}

/**
 * A new VM. EINVAL for IPA bits out of range and for a policy that needs what the CPU has not;
 * ENOMEM. Linux: KVM_CREATE_VM, kvm_init_stage2_mmu().
 */
export function createVm(options: VmOptions): Vm | Refusal {
  const { host, ipaBits = DEFAULT_IPA_BITS } = options;
  if (!Number.isInteger(ipaBits) || ipaBits < IPA_BITS_MIN || ipaBits > host.cpu.paBits) {
    return refuse(Errno.EINVAL);
  }
  if (options.policy?.untaggableMemory === 'no-tag-access' && !host.cpu.mtePerm) {
    return refuse(Errno.EINVAL);
  }
  const stage2 = Stage2.create(host, ipaBits);
  return isRefusal(stage2) ? stage2 : new Vm(options, ipaBits, stage2);
}

export class Vm {
  readonly host: Host;
  readonly process: AddressSpace;
  readonly policy: KvmPolicy;
  readonly traceMte: ((text: string) => void) | undefined;
  readonly ipaBits: number;
  readonly stage2: Stage2;
  readonly slots = new MemslotList();
  readonly #unwatch: () => void;
  #createdVcpus = 0;
  #mte = false;
  #returnsNisvToUser = false;
  #systemSuspend = false;
  #manualDirtyLog = 0;
  #eagerSplitChunk = 0;
  #tagLog = false;
  #invalidateSequence = 0;

  /** Called by `createVm`. */
  constructor(options: VmOptions, ipaBits: number, stage2: Stage2) {
    this.host = options.host;
    this.process = options.process;
    this.policy = options.policy ?? linux612;
    this.traceMte = options.traceMte;
    this.ipaBits = ipaBits;
    this.stage2 = stage2;
    this.#unwatch = this.process.watch({
      invalidateRange: (start, end) => this.#unmapUserRange(start, end),
    });
  }

  /** The guest has MTE. */
  get mte(): boolean {
    return this.#mte;
  }

  /** A store or load without syndrome outside memory goes to the VMM. */
  get returnsNisvToUser(): boolean {
    return this.#returnsNisvToUser;
  }

  /** PSCI SYSTEM_SUSPEND is there and goes to the VMM. */
  get systemSuspendEnabled(): boolean {
    return this.#systemSuspend;
  }

  get createdVcpus(): number {
    return this.#createdVcpus;
  }

  /** Counts the changes of the process's mappings under guest memory. Linux: mmu_invalidate_seq. */
  get invalidateSequence(): number {
    return this.#invalidateSequence;
  }

  /** A vCPU now exists; some capabilities can no longer be enabled. Called by `vcpu.ts`. */
  vcpuCreated(): void {
    this.#createdVcpus++;
  }

  /** KVM_CHECK_EXTENSION on the VM's descriptor. */
  checkExtension(cap: number): number {
    if (cap === KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE) return this.#eagerSplitChunk;
    if (cap === KVM_CAP_ARM_MTE_TAG_LOG) return this.#mte ? 1 : 0;
    return checkExtension(this.host, cap);
  }

  /**
   * KVM_ENABLE_CAP on the VM's descriptor. EINVAL: flags, unknown capability, KVM_CAP_ARM_MTE after
   * the first vCPU or on a CPU without MTE. Linux: kvm_vm_ioctl_enable_cap().
   */
  enableCap(request: KvmEnableCap): 0 | Refusal {
    const argument = request.args?.[0] ?? 0n;
    if ((request.flags ?? 0) !== 0) return refuse(Errno.EINVAL);
    switch (request.cap) {
      case KVM_CAP_ARM_MTE:
        if (!this.host.cpu.mte || this.#createdVcpus > 0) return refuse(Errno.EINVAL);
        this.#mte = true;
        return 0;
      case KVM_CAP_ARM_NISV_TO_USER:
        this.#returnsNisvToUser = true;
        return 0;
      case KVM_CAP_ARM_SYSTEM_SUSPEND:
        this.#systemSuspend = true;
        return 0;
      case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
        return this.#enableManualDirtyLog(argument);
      case KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE:
        return this.#setEagerSplitChunk(argument);
      case KVM_CAP_ARM_MTE_TAG_LOG:
        if (!this.#mte || argument > 1n) return refuse(Errno.EINVAL);
        this.#tagLog = argument === 1n;
        return 0;
      default:
        return refuse(Errno.EINVAL);
    }
  }

  #enableManualDirtyLog(argument: bigint): 0 | Refusal {
    const enable = BigInt(KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE);
    const all = (argument & enable) === 0n ? enable : enable | BigInt(KVM_DIRTY_LOG_INITIALLY_SET);
    if ((argument & ~all) !== 0n) return refuse(Errno.EINVAL);
    this.#manualDirtyLog = Number(argument);
    return 0;
  }

  #setEagerSplitChunk(argument: bigint): 0 | Refusal {
    const isBlockSize =
      (argument & (argument - 1n)) === 0n && (argument & BigInt(SUPPORTED_BLOCK_SIZES)) !== 0n;
    if (this.slots.all.length > 0 || (argument !== 0n && !isBlockSize)) {
      return refuse(Errno.EINVAL);
    }
    this.#eagerSplitChunk = Number(argument);
    return 0;
  }

  /**
   * KVM_SET_USER_MEMORY_REGION: creates, moves, deletes a slot or changes its dirty logging. EINVAL
   * (arguments; backing an MTE guest cannot have; logging of device memory), EEXIST (overlap),
   * EFAULT (outside the IPA space). Linux: __kvm_set_memory_region().
   */
  setUserMemoryRegion(region: KvmUserspaceMemoryRegion): 0 | Refusal {
    if (!isValidRegion(region)) return refuse(Errno.EINVAL);
    const { slot: id, flags } = region;
    const old = this.slots.get(id);
    if (region.memorySize === 0) return this.#delete(old);
    const readOnly = (flags & KVM_MEM_READONLY) !== 0;
    const logging = (flags & KVM_MEM_LOG_DIRTY_PAGES) !== 0;
    const moved = old !== undefined && old.baseIpa !== region.guestPhysAddr;
    if (old !== undefined) {
      const fixed =
        old.baseHva === region.userspaceAddr &&
        old.sizeBytes === region.memorySize &&
        old.readOnly === readOnly;
      if (!fixed) return refuse(Errno.EINVAL);
      if (!moved && logging === (old.dirty !== undefined)) return 0;
    }
    const base = ipa(region.guestPhysAddr);
    if ((old === undefined || moved) && this.slots.overlaps(base, region.memorySize, id)) {
      return refuse(Errno.EEXIST);
    }
    const refusal = this.#checkBacking(region, logging);
    if (refusal !== 0) return refusal;

    if (old !== undefined && moved) this.stage2.unmap(old.baseIpa, old.sizeBytes);
    this.slots.put({
      id,
      baseIpa: base,
      sizeBytes: region.memorySize,
      baseHva: hva(region.userspaceAddr),
      readOnly,
      dirty: logging ? (old?.dirty ?? this.#newBitmap(region.memorySize)) : undefined,
    });
    if (logging) this.#startLogging(base, region.memorySize);
    return 0;
  }

  #newBitmap(sizeBytes: number): DirtyBitmap {
    const tagLog = this.#tagLog ? new TagLog(sizeBytes / PAGE_SIZE) : undefined;
    return new DirtyBitmap(sizeBytes, this.#initiallySet, tagLog);
  }

  get #initiallySet(): boolean {
    return (this.#manualDirtyLog & KVM_DIRTY_LOG_INITIALLY_SET) !== 0;
  }

  /** Makes the first store to each page fault. Linux: kvm_arch_commit_memory_region(). */
  #startLogging(base: Ipa, sizeBytes: number): void {
    // With every page dirty at first, protection comes with the clearing of bits.
    if (this.#initiallySet) return;
    this.stage2.writeProtect(base, sizeBytes);
    if (this.#eagerSplitChunk !== 0) this.stage2.splitBlocks(base, sizeBytes);
  }

  #delete(slot: Memslot | undefined): 0 | Refusal {
    if (slot === undefined) return refuse(Errno.EINVAL);
    this.stage2.unmap(slot.baseIpa, slot.sizeBytes);
    this.slots.delete(slot.id);
    return 0;
  }

  /** Linux: kvm_arch_prepare_memory_region(). */
  #checkBacking(region: KvmUserspaceMemoryRegion, logging: boolean): 0 | Refusal {
    if (region.guestPhysAddr + region.memorySize > 2 ** this.ipaBits) return refuse(Errno.EFAULT);
    const start = region.userspaceAddr;
    for (const area of this.process.areas.within(start, start + region.memorySize)) {
      if (this.#mte && !this.policy.mteMappingAllowed(area)) return refuse(Errno.EINVAL);
      if (logging && (area.flags & VmFlag.pfnMap) !== 0) return refuse(Errno.EINVAL);
    }
    return 0;
  }

  /**
   * KVM_GET_DIRTY_LOG: a bit for each page of the slot (bit n % 32 of word n / 32). Without manual
   * protection the log starts anew. EINVAL (slot id), ENOENT (no slot, or one that does not log).
   */
  getDirtyLog(id: number): Uint32Array | Refusal {
    if (id < 0 || id >= KVM_USER_MEM_SLOTS) return refuse(Errno.EINVAL);
    const slot = this.slots.get(id);
    if (slot?.dirty === undefined) return refuse(Errno.ENOENT);
    const bitmap = slot.dirty.read();
    if ((this.#manualDirtyLog & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) === 0) {
      this.#clearDirty(slot, slot.dirty, 0, bitmap);
    }
    return bitmap;
  }

  /**
   * KVM_CLEAR_DIRTY_LOG: forgets pages and protects them again. EINVAL (arguments), ENOENT (no
   * slot, or one that does not log). Linux: kvm_clear_dirty_log_protect().
   */
  clearDirtyLog(request: KvmClearDirtyLog): 0 | Refusal {
    const { firstPage, pageCount, bitmap } = request;
    if (request.slot < 0 || request.slot >= KVM_USER_MEM_SLOTS || firstPage % 64 !== 0) {
      return refuse(Errno.EINVAL);
    }
    const slot = this.slots.get(request.slot);
    if (slot?.dirty === undefined) return refuse(Errno.ENOENT);
    const left = slot.dirty.pageCount - firstPage;
    if (left < 0 || pageCount > left || (pageCount < left && pageCount % 64 !== 0)) {
      return refuse(Errno.EINVAL);
    }
    if (bitmap.length < Math.ceil(pageCount / 32)) return refuse(Errno.EFAULT);
    const mask = bitmap.slice(0, Math.ceil(pageCount / 32));
    this.#clearDirty(slot, slot.dirty, firstPage, mask);
    return 0;
  }

  #clearDirty(slot: Memslot, dirty: DirtyBitmap, firstPage: number, mask: Uint32Array): void {
    const runs = dirty.clear(firstPage, mask);
    this.stage2.writeProtectRuns(slot.baseIpa, runs);
    if (dirty.tagLog === undefined) return;
    for (const [page, count] of runs) keepTags(this, slot, dirty.tagLog, page, count);
  }

  /** KVM_ARM_MTE_COPY_TAGS; see `mte.ts`. */
  copyTags(request: KvmArmCopyMteTags): number | Refusal {
    return copyTags(this, request);
  }

  /** KVM_ARM_READ_TAG_LOG; see `tag-log.ts`. */
  readTagLog(request: KvmArmReadTagLog): 0 | Refusal {
    return readTagLog(this, request);
  }

  /** Gives back stage 2 and stops watching the process; the VM is not used again. */
  destroy(): void {
    this.#unwatch();
    this.stage2.destroy();
  }

  /** The process's mapping of guest memory is about to change. Linux: kvm_unmap_gfn_range(). */
  #unmapUserRange(start: Hva, end: Hva): void {
    for (const slot of this.slots.all) {
      const from = hva(Math.max(start, slot.baseHva));
      const to = Math.min(end, slot.baseHva + slot.sizeBytes);
      if (from >= to) continue;
      this.#invalidateSequence++;
      this.stage2.unmap(ipaOf(slot, from), to - from);
    }
  }
}

/** What can be said of a region without the VM. Linux: the head of __kvm_set_memory_region(). */
function isValidRegion(region: KvmUserspaceMemoryRegion): boolean {
  const { slot, flags, guestPhysAddr, memorySize, userspaceAddr } = region;
  const numbersAligned = [guestPhysAddr, memorySize, userspaceAddr].every(
    (value) => value >= 0 && isAligned(value, PAGE_SIZE),
  );
  return (
    numbersAligned &&
    (flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY)) === 0 &&
    Number.isInteger(slot) &&
    slot >= 0 &&
    slot < KVM_USER_MEM_SLOTS &&
    userspaceAddr + memorySize <= TASK_SIZE &&
    guestPhysAddr + memorySize < 2 ** 64 &&
    memorySize / PAGE_SIZE <= SLOT_PAGES_MAX
  );
}
