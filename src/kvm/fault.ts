/**
 * Stage 2 faults: what KVM makes of a guest's access that stage 2 did not permit. The vCPU's run
 * loop calls `handleGuestAbort` and does what the answer says; nothing here touches vCPU state.
 *
 * The order of decisions is Linux's (arch/arm64/kvm/mmu.c, kvm_handle_guest_abort() and
 * user_mem_abort(), 6.12). Tags of a page are initialised before stage 2 shows it to an MTE guest.
 */
import { encodeFsc, FaultType } from '../arm/syndrome.ts';
import {
  alignDown,
  BLOCK_SIZE,
  type Hva,
  type Ipa,
  ipa,
  isAligned,
  PAGE_SIZE,
  type Pa,
} from '../base/index.ts';
import {
  Errno,
  errnoOf,
  isRefusal,
  type Refusal,
  refuse,
  type UserPage,
  VmFlag,
} from '../host/index.ts';
import { hvaOf, type Memslot } from './memslot.ts';
import { sanitiseMteTags } from './mte.ts';
import type { GuestMemoryKind } from './stage2.ts';
import { KVM_MEMORY_EXIT_FLAG_NOTAGACCESS } from './uapi.ts';
import type { Vm } from './vm.ts';

/** A stage 2 abort as the syndrome registers report it (ESR_EL2, FAR_EL2, HPFAR_EL2). */
export interface GuestAbort {
  readonly type: FaultType;
  /** Level of the stage 2 descriptor, 0 … 3. */
  readonly level: number;
  /** The address stage 2 refused; only its page counts, the low 12 bits are taken from `far`. */
  readonly ipa: Ipa;
  /** The guest's faulting address. */
  readonly far: bigint;
  /** An instruction abort. */
  readonly fetch: boolean;
  /** WnR. */
  readonly write: boolean;
  /** The access was stage 1's walk. */
  readonly s1ptw: boolean;
  /** A cache maintenance instruction. */
  readonly cacheMaintenance: boolean;
  /** The syndrome describes the instruction (SAS, SRT and so on are valid). */
  readonly isv: boolean;
  /** TagAccess: a permission fault for the tags of memory mapped NoTagAccess. */
  readonly tagAccess?: boolean;
}

/** What the run loop does next. */
export type AbortOutcome =
  /** Run the same instruction again. */
  | { readonly kind: 'resume' }
  /** Go on behind the instruction. */
  | { readonly kind: 'skip' }
  /** No memory there: a device's, in the kernel or in the VMM. */
  | { readonly kind: 'mmio'; readonly ipa: Ipa }
  /** The same without a valid syndrome, for a VMM that asked for it: KVM_EXIT_ARM_NISV. */
  | { readonly kind: 'nisv'; readonly ipa: Ipa }
  /** The guest takes an instruction or data abort with this status code and fault address. */
  | {
      readonly kind: 'inject-abort';
      readonly fetch: boolean;
      readonly fsc: number;
      readonly far: bigint;
    }
  /** The guest takes an SError. */
  | { readonly kind: 'inject-serror' }
  /**
   * The page is on its way: run other vCPUs, and this one again when `Vm.process.awaited` no longer
   * has it. Linux: the vCPU's thread sleeps in handle_userfault().
   */
  | { readonly kind: 'userfault'; readonly hva: Hva }
  /** The same for a page that the host itself brings in (swap): the VMM need not know. */
  | { readonly kind: 'wait'; readonly hva: Hva }
  /** KVM_RUN fails with EFAULT and says where: KVM_EXIT_MEMORY_FAULT. */
  | {
      readonly kind: 'memory-fault';
      readonly ipa: Ipa;
      readonly sizeBytes: number;
      readonly flags: bigint;
    }
  /** KVM_RUN fails. */
  | { readonly kind: 'errno'; readonly errno: Errno };

const RESUME: AbortOutcome = { kind: 'resume' };
const SKIP: AbortOutcome = { kind: 'skip' };
const SERROR: AbortOutcome = { kind: 'inject-serror' };
const EXTERNAL_ABORT = encodeFsc(FaultType.externalAbort);
const ADDRESS_SIZE_LEVEL_0 = encodeFsc(FaultType.addressSize, 0);

/** Decides a guest's stage 2 abort and, for guest memory, maps the page. */
export function handleGuestAbort(vm: Vm, abort: GuestAbort): AbortOutcome {
  const { type } = abort;
  if (type === FaultType.translation) {
    const outside = outsideIpaSpace(vm, abort);
    if (outside !== undefined) return outside;
  }
  if (type === FaultType.externalAbort || type === FaultType.externalAbortOnWalk) return SERROR;
  if (
    type !== FaultType.translation &&
    type !== FaultType.permission &&
    type !== FaultType.accessFlag
  ) {
    return { kind: 'errno', errno: Errno.EFAULT };
  }
  const slot = vm.slots.at(abort.ipa);
  const write = isWrite(abort);
  if (slot === undefined || (write && slot.readOnly)) return outsideMemory(vm, abort, slot);
  if (type === FaultType.accessFlag) {
    vm.stage2.setAccessed(abort.ipa);
    return RESUME;
  }
  if (type === FaultType.permission && abort.tagAccess === true) return noTagAccess(abort);
  const result = mapGuestMemory(vm, slot, abort, write);
  if (result === 0) return RESUME;
  const errno = errnoOf(result);
  if (errno === Errno.EAGAIN) return waitFor(vm, hvaOf(slot, pageOf(abort.ipa)));
  if (errno === Errno.ENOEXEC) return injectAbort(true, abort.far);
  return { kind: 'errno', errno };
}

const noTagAccess = (abort: GuestAbort): AbortOutcome => ({
  kind: 'memory-fault',
  ipa: pageOf(abort.ipa),
  sizeBytes: PAGE_SIZE,
  flags: KVM_MEMORY_EXIT_FLAG_NOTAGACCESS,
});

const waitFor = (vm: Vm, address: Hva): AbortOutcome =>
  vm.process.userfault.isPending(address)
    ? { kind: 'userfault', hva: address }
    : { kind: 'wait', hva: address };

/** Beyond the CPU's physical addresses, or between them and the VM's IPA space. */
function outsideIpaSpace(vm: Vm, abort: GuestAbort): AbortOutcome | undefined {
  if (abort.ipa < 2 ** vm.ipaBits) return undefined;
  const far = BigInt(exactIpa(abort));
  const fsc = abort.ipa >= 2 ** vm.host.cpu.paBits ? ADDRESS_SIZE_LEVEL_0 : EXTERNAL_ABORT;
  return { kind: 'inject-abort', fetch: abort.fetch, fsc, far };
}

/** No memslot, or a store to a read-only one. */
function outsideMemory(vm: Vm, abort: GuestAbort, slot: Memslot | undefined): AbortOutcome {
  // Neither instructions nor tables can be emulated: the guest gets its abort back.
  if (abort.fetch || abort.s1ptw) return injectAbort(abort.fetch, abort.far);
  // Nothing there can be cached, so there is nothing to maintain.
  if (slot === undefined && abort.cacheMaintenance) return SKIP;
  const at = exactIpa(abort);
  if (abort.isv) return { kind: 'mmio', ipa: at };
  if (vm.returnsNisvToUser) return { kind: 'nisv', ipa: at };
  return { kind: 'errno', errno: Errno.ENOSYS };
}

const injectAbort = (fetch: boolean, far: bigint): AbortOutcome => ({
  kind: 'inject-abort',
  fetch,
  fsc: EXTERNAL_ABORT,
  far,
});

/** HPFAR_EL2 has the page; the bytes within it are those of the guest's address. */
const exactIpa = (abort: GuestAbort): Ipa => ipa(pageOf(abort.ipa) + Number(abort.far & 0xfffn));

const pageOf = (address: Ipa): Ipa => alignDown(address, PAGE_SIZE);

/**
 * Whether the access counts as a store. A walk counts as one only where it may update a descriptor,
 * so that tables in a read-only slot work. Linux: kvm_is_write_fault().
 */
function isWrite(abort: GuestAbort): boolean {
  if (abort.s1ptw) return abort.type === FaultType.permission;
  return !abort.fetch && abort.write;
}

/** Linux: user_mem_abort(). ENOEXEC: the guest executes device memory. */
function mapGuestMemory(vm: Vm, slot: Memslot, abort: GuestAbort, write: boolean): 0 | Refusal {
  const permission = abort.type === FaultType.permission;
  const fetch = abort.fetch && !abort.s1ptw;
  // Stage 2 always permits reading what it maps.
  if (permission && !write && !fetch) return refuse(Errno.EFAULT);
  const { memory } = vm.host;
  const pageIpa = pageOf(abort.ipa);
  const address = hvaOf(slot, pageIpa);
  const sequence = vm.invalidateSequence;
  const page = vm.process.faultIn(address, { write });
  if (isRefusal(page)) return page === -Errno.EAGAIN ? page : refuse(Errno.EFAULT);
  // The page that was mapped here has just been replaced: let the guest fault on what is there now.
  if (vm.invalidateSequence !== sequence) return 0;

  const kind = memoryKind(vm, page);
  if (kind === 'refuse') return refuse(Errno.EFAULT);
  const device = kind === 'device' || kind === 'normal-nc';
  if (fetch && device) return refuse(Errno.ENOEXEC);
  const logging = slot.dirty !== undefined;
  const block = !logging && page.sizeBytes === BLOCK_SIZE && holdsBlock(slot, pageIpa, address);
  const sizeBytes = block ? BLOCK_SIZE : PAGE_SIZE;
  const target: Pa = alignDown(page.pa, sizeBytes);
  // Linux leaves permission faults out, but one may gather pages into a block again (a store after
  // logging has ended), and nobody has looked at the tags of the block's other pages yet.
  if (vm.mte && memory.zoneAt(target) !== undefined) {
    if (!vm.policy.mteMappingAllowed(page.area)) return refuse(Errno.EFAULT);
    sanitiseMteTags(vm, alignDown(pageIpa, sizeBytes), target, sizeBytes);
  }

  // While the slot logs, only stores make a page writable, so that each first store is seen.
  const writable = page.writable && !slot.readOnly && (write || device || !logging);
  const mapped = vm.stage2.map({
    ipa: alignDown(pageIpa, sizeBytes),
    pa: target,
    sizeBytes,
    writable,
    memory: kind,
  });
  if (mapped !== 0) return mapped;
  if (writable) slot.dirty?.mark((pageIpa - slot.baseIpa) / PAGE_SIZE);
  return 0;
}

/** How the guest sees a page: as the host's memory, as a device's, or not at all. */
function memoryKind(vm: Vm, page: UserPage): GuestMemoryKind | 'refuse' {
  const { memory } = vm.host;
  if (memory.zoneAt(page.pa) === undefined) {
    const uncached = (page.area.flags & VmFlag.allowAnyUncached) !== 0;
    return uncached && vm.policy.allowAnyUncached ? 'normal-nc' : 'device';
  }
  return vm.mte && !memory.holdsTags(page.pa) ? vm.policy.untaggableMemory : 'normal';
}

/**
 * Whether a 2 MiB block around `address` lies in the slot, IPA and HVA aligned alike. Linux:
 * fault_supports_stage2_huge_mapping().
 */
function holdsBlock(slot: Memslot, at: Ipa, address: number): boolean {
  if (!isAligned(at - address, BLOCK_SIZE)) return false;
  const start = alignDown(at, BLOCK_SIZE);
  return start >= slot.baseIpa && start + BLOCK_SIZE <= slot.baseIpa + slot.sizeBytes;
}
