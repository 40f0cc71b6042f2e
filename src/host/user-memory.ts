/**
 * Loads and stores of a host process that has no code of its own (the VMM): bytes, words and tags
 * at its addresses. They obey the process's mappings as instructions would: pages are brought in,
 * what the areas forbid is refused with EFAULT, tags exist only through PROT_MTE. Reaches RAM only;
 * a mapping of physical addresses without RAM refuses. A page that is on its way refuses with
 * EAGAIN: try again when it is no longer in `AddressSpace.awaited`.
 *
 * Tag checks belong to the calls that name a logical tag (`load`, `store`, `copyFromUser`); the
 * others access with checks overridden, as a VMM does that uses untagged pointers to its own
 * untagged memory, or PSTATE.TCO.
 *
 * A small table of page translations stands in front; `AddressSpace` empties it whenever a mapping
 * changes.
 */
import { alignDown, type Hva, hva, PAGE_SIZE, type Pa, pa, unpackTags } from '../base/index.ts';
import type { PhysicalMemory } from '../machine/memory.ts';
import type { AddressSpace } from './address-space.ts';
import { VmFlag } from './area.ts';
import { Errno, isRefusal, type Refusal, refuse } from './errno.ts';
import { TAG_GRANULES } from './page.ts';

/** What a load or store of a process that fails raises: si_code of SIGSEGV, or SIGBUS. */
export type MemorySignal =
  | 'SEGV_MAPERR'
  | 'SEGV_ACCERR'
  | 'SEGV_MTESERR'
  | 'SEGV_MTEAERR'
  | 'BUS_ADRERR';

/** How a failed tag check shows. Linux: PR_MTE_TCF_*. */
export type TagCheckMode = 'none' | 'sync' | 'async';

/** Bits of PR_SET_TAGGED_ADDR_CTRL. */
export const PR_TAGGED_ADDR_ENABLE = 1 << 0;
export const PR_MTE_TCF_SYNC = 1 << 1;
export const PR_MTE_TCF_ASYNC = 1 << 2;
/** Where the mask of tags that IRG may give begins. */
export const PR_MTE_TAG_SHIFT = 3;
const TAGGED_ADDR_CTRL_BITS =
  PR_TAGGED_ADDR_ENABLE | PR_MTE_TCF_SYNC | PR_MTE_TCF_ASYNC | (0xffff << PR_MTE_TAG_SHIFT);

const CACHED_PAGES = 64;
const PAGE_MASK = PAGE_SIZE - 1;

export class UserMemory {
  /** The thread's tag check mode; `none` until it asks. */
  tagCheckMode: TagCheckMode = 'none';
  #taggedAddressControl = 0;
  readonly #space: AddressSpace;
  readonly #memory: PhysicalMemory;
  /**
   * Page address, -1 = empty; beside it the linear offset of the page and whether it is writable.
   */
  readonly #pages = new Float64Array(CACHED_PAGES).fill(-1);
  readonly #linear = new Float64Array(CACHED_PAGES);
  readonly #writable = new Uint8Array(CACHED_PAGES);
  /** TFSRE0_EL1: an asynchronous tag check failed since the last system call. */
  #asyncFault = false;
  /** Why the last range access was short. */
  #stoppedBy: Refusal = refuse(Errno.EFAULT);

  constructor(space: AddressSpace) {
    this.#space = space;
    this.#memory = space.host.memory;
  }

  /** PR_GET_TAGGED_ADDR_CTRL, and what NT_ARM_TAGGED_ADDR_CTRL shows a debugger. */
  get taggedAddressControl(): number {
    return this.#taggedAddressControl;
  }

  /**
   * PR_SET_TAGGED_ADDR_CTRL: whether system calls take tagged pointers, how failed checks show, and
   * which tags IRG may give (kept, not used: nothing here executes IRG). EINVAL: unknown bits, and
   * those of MTE on a host without it.
   */
  setTaggedAddressControl(control: number): 0 | Refusal {
    const known = this.#space.host.cpu.mte ? TAGGED_ADDR_CTRL_BITS : PR_TAGGED_ADDR_ENABLE;
    if ((control & ~known) !== 0) return refuse(Errno.EINVAL);
    this.#taggedAddressControl = control;
    const asynchronous = (control & PR_MTE_TCF_ASYNC) !== 0;
    const synchronous = (control & PR_MTE_TCF_SYNC) !== 0;
    // Where both are asked for, Linux takes the CPU's preferred one, by default asynchronous.
    this.tagCheckMode = asynchronous ? 'async' : synchronous ? 'sync' : 'none';
    return 0;
  }

  /** Called by the address space before a mapping changes. */
  forgetTranslations(): void {
    this.#pages.fill(-1);
  }

  /** A copy of `sizeBytes` bytes; EFAULT when any of them cannot be read. */
  read(address: Hva, sizeBytes: number): Uint8Array | Refusal {
    const out = new Uint8Array(sizeBytes);
    return this.readInto(address, out) === sizeBytes ? out : this.#stoppedBy;
  }

  /**
   * Where a range is in linear memory, brought in; negative when it is not to be had or crosses
   * into another page. Good until the next call that may change a mapping.
   */
  locate(address: Hva, sizeBytes: number, write: boolean): number {
    const linear = this.#translateSpan(address, sizeBytes, write);
    if (write && linear >= 0) this.#willWrite(linear);
    return linear;
  }

  /**
   * Reads into `target`; returns the bytes read, fewer where the mapping ends. Linux:
   * copy_from_user().
   */
  readInto(address: Hva, target: Uint8Array): number {
    return this.#forEachPiece(address, target.length, false, (linear, pieceBytes, done) => {
      target.set(this.#memory.u8.subarray(linear, linear + pieceBytes), done);
    });
  }

  /** Writes all of `data`; EFAULT when a byte cannot be written, with those before it written. */
  write(address: Hva, data: Uint8Array): 0 | Refusal {
    return this.writeFrom(address, data) === data.length ? 0 : this.#stoppedBy;
  }

  /**
   * Writes `data`; returns the bytes written, fewer where the mapping ends. Linux: copy_to_user().
   */
  writeFrom(address: Hva, data: Uint8Array): number {
    return this.#forEachPiece(address, data.length, true, (linear, pieceBytes, done) => {
      this.#memory.u8.set(data.subarray(done, done + pieceBytes), linear);
    });
  }

  /** Sets `sizeBytes` bytes to `value`; EFAULT as `write`. */
  fill(address: Hva, value: number, sizeBytes: number): 0 | Refusal {
    const done = this.#forEachPiece(address, sizeBytes, true, (linear, pieceBytes) => {
      this.#memory.u8.fill(value, linear, linear + pieceBytes);
    });
    return done === sizeBytes ? 0 : this.#stoppedBy;
  }

  /** The byte at `address`, or EFAULT. */
  readU8(address: Hva): number | Refusal {
    const linear = this.#translate(address, false);
    return linear < 0 ? linear : this.#memory.u8[linear]!;
  }

  /** The little-endian halfword at `address`, which need not be aligned, or EFAULT. */
  readU16(address: Hva): number | Refusal {
    const linear = this.#translateSpan(address, 2, false);
    if (linear >= 0) return this.#memory.view.getUint16(linear, true);
    return this.#acrossPages(address, 2, (view) => view.getUint16(0, true));
  }

  readU32(address: Hva): number | Refusal {
    const linear = this.#translateSpan(address, 4, false);
    if (linear >= 0) return this.#memory.view.getUint32(linear, true);
    return this.#acrossPages(address, 4, (view) => view.getUint32(0, true));
  }

  readU64(address: Hva): bigint | Refusal {
    const linear = this.#translateSpan(address, 8, false);
    if (linear >= 0) return this.#memory.view.getBigUint64(linear, true);
    return this.#acrossPages(address, 8, (view) => view.getBigUint64(0, true));
  }

  writeU8(address: Hva, value: number): 0 | Refusal {
    const linear = this.#translate(address, true);
    if (isRefusal(linear)) return linear;
    this.#willWrite(linear);
    this.#memory.u8[linear] = value;
    return 0;
  }

  writeU16(address: Hva, value: number): 0 | Refusal {
    return this.#writeWord(address, 2, (view, at) => view.setUint16(at, value, true));
  }

  writeU32(address: Hva, value: number): 0 | Refusal {
    return this.#writeWord(address, 4, (view, at) => view.setUint32(at, value, true));
  }

  writeU64(address: Hva, value: bigint): 0 | Refusal {
    return this.#writeWord(address, 8, (view, at) => view.setBigUint64(at, value, true));
  }

  /** LDG: the allocation tag (0–15) of the tag granule at `address`; 0 without PROT_MTE; EFAULT. */
  loadTag(address: Hva): number | Refusal {
    const page = this.#space.faultIn(address, { write: false });
    if (isRefusal(page)) return page;
    if ((page.area.flags & VmFlag.mte) === 0) return 0;
    return this.#memory.readTag(byteOf(page.pa, address));
  }

  /**
   * STG: sets the allocation tag; ignored without PROT_MTE, but the page must be writable; EFAULT.
   */
  storeTag(address: Hva, tag: number): 0 | Refusal {
    const page = this.#space.faultIn(address, { write: true });
    if (isRefusal(page)) return page;
    if ((page.area.flags & VmFlag.mte) !== 0) {
      this.#memory.writeTag(byteOf(page.pa, address), tag);
    }
    return 0;
  }

  /**
   * A loop of LDG over whole pages: their tags into `tags`, one to a byte, 256 a page. Refusals as
   * `loadTag`, with the pages before read. Preconditions: `address` is page-aligned.
   */
  loadTags(address: Hva, tags: Uint8Array): 0 | Refusal {
    const { frames } = this.#space.host;
    for (let done = 0; done < tags.length; done += TAG_GRANULES) {
      const page = this.#space.faultIn(hva(address + 16 * done), { write: false });
      if (isRefusal(page)) return page;
      const tagged = (page.area.flags & VmFlag.mte) !== 0;
      const packed = tagged ? frames.packedTags(page.pa) : undefined;
      if (packed === undefined) tags.fill(0, done, done + TAG_GRANULES);
      else unpackTags(packed, tags, done);
    }
    return 0;
  }

  /** A loop of STG over whole pages; as `loadTags`, and ignored as `storeTag` is. */
  storeTags(address: Hva, tags: Uint8Array): 0 | Refusal {
    const { frames } = this.#space.host;
    for (let done = 0; done < tags.length; done += TAG_GRANULES) {
      const page = this.#space.faultIn(hva(address + 16 * done), { write: true });
      if (isRefusal(page)) return page;
      if ((page.area.flags & VmFlag.mte) === 0) continue;
      frames.writeTags(page.pa, tags.subarray(done, done + TAG_GRANULES));
    }
    return 0;
  }

  /** A load through a pointer with logical tag `tag`: the bytes, or the signal it raises. */
  load(address: Hva, tag: number, sizeBytes: number): Uint8Array | MemorySignal {
    const out = this.read(address, sizeBytes);
    if (isRefusal(out)) return this.#signalOf(address, VmFlag.read);
    return this.#checkTags(address, tag, sizeBytes) ?? out;
  }

  /** A store through a pointer with logical tag `tag`; a synchronous tag fault writes nothing. */
  store(address: Hva, tag: number, data: Uint8Array): MemorySignal | undefined {
    const page = this.#space.faultIn(address, { write: true });
    if (isRefusal(page)) return this.#signalOf(address, VmFlag.write);
    const signal = this.#checkTags(address, tag, data.length);
    if (signal !== undefined) return signal;
    return isRefusal(this.write(address, data)) ? this.#signalOf(address, VmFlag.write) : undefined;
  }

  /**
   * What a system call reads through a user pointer with logical tag `tag`: EFAULT also for a
   * synchronous tag mismatch; asynchronous ones are not seen. Linux: copy_from_user().
   */
  copyFromUser(address: Hva, tag: number, sizeBytes: number): Uint8Array | Refusal {
    return this.#kernelMayPass(address, tag, sizeBytes)
      ? this.read(address, sizeBytes)
      : refuse(Errno.EFAULT);
  }

  /** What a system call writes through a user pointer; refusals as `copyFromUser`. */
  copyToUser(address: Hva, tag: number, data: Uint8Array): 0 | Refusal {
    return this.#kernelMayPass(address, tag, data.length)
      ? this.write(address, data)
      : refuse(Errno.EFAULT);
  }

  /** A system call begins: the asynchronous tag fault since the last one, once. */
  takeAsyncFault(): 'SEGV_MTEAERR' | undefined {
    const pending = this.#asyncFault;
    this.#asyncFault = false;
    return pending ? 'SEGV_MTEAERR' : undefined;
  }

  #kernelMayPass(address: Hva, tag: number, sizeBytes: number): boolean {
    return this.tagCheckMode !== 'sync' || !this.#mismatch(address, tag, sizeBytes);
  }

  #checkTags(address: Hva, tag: number, sizeBytes: number): MemorySignal | undefined {
    if (this.tagCheckMode === 'none' || !this.#mismatch(address, tag, sizeBytes)) return undefined;
    if (this.tagCheckMode === 'sync') return 'SEGV_MTESERR';
    this.#asyncFault = true;
    return undefined;
  }

  /**
   * Whether a tag granule of the range is Tagged memory with another tag. Arm: AArch64.CheckTag().
   */
  #mismatch(address: Hva, tag: number, sizeBytes: number): boolean {
    for (let at = alignDown(address, 16); at < address + sizeBytes; at = hva(at + 16)) {
      const area = this.#space.areas.at(at);
      if (area === undefined || (area.flags & VmFlag.mte) === 0) continue;
      const stored = this.loadTag(at);
      if (!isRefusal(stored) && stored !== tag) return true;
    }
    return false;
  }

  /** Why an access at `address` or behind it failed. Linux: the si_code of do_page_fault(). */
  #signalOf(address: Hva, needed: number): MemorySignal {
    const area = this.#space.areas.at(address);
    if (area === undefined) return 'SEGV_MAPERR';
    return (area.flags & needed) === 0 ? 'SEGV_ACCERR' : 'BUS_ADRERR';
  }

  #writeWord(
    address: Hva,
    sizeBytes: number,
    put: (view: DataView, at: number) => void,
  ): 0 | Refusal {
    const linear = this.#translateSpan(address, sizeBytes, true);
    if (linear >= 0) {
      this.#willWrite(linear);
      put(this.#memory.view, linear);
      return 0;
    }
    const bytes = new Uint8Array(sizeBytes);
    put(new DataView(bytes.buffer), 0);
    return this.write(address, bytes);
  }

  #acrossPages<T>(address: Hva, sizeBytes: number, get: (view: DataView) => T): T | Refusal {
    const bytes = this.read(address, sizeBytes);
    return isRefusal(bytes) ? bytes : get(new DataView(bytes.buffer));
  }

  /** Like `#translate`, and negative for a range that crosses into another page. */
  #translateSpan(address: number, sizeBytes: number, write: boolean): number {
    if ((address & PAGE_MASK) > PAGE_SIZE - sizeBytes) return -1;
    return this.#translate(address, write);
  }

  /**
   * Visits the range in pieces that lie together in linear memory, up to 2 MiB each; returns the
   * bytes visited, fewer where the mapping ends.
   */
  #forEachPiece(
    address: Hva,
    sizeBytes: number,
    write: boolean,
    visit: (linear: number, pieceBytes: number, done: number) => void,
  ): number {
    let done = 0;
    while (done < sizeBytes) {
      const at = hva(address + done);
      let left = PAGE_SIZE - (at & PAGE_MASK);
      let linear: number;
      if (sizeBytes - done <= left) {
        linear = this.#translate(at, write);
      } else {
        const page = this.#space.faultIn(at, { write });
        if (isRefusal(page)) {
          linear = page;
        } else {
          linear = this.#ramOffset(byteOf(page.pa, at));
          left = alignDown(at, page.sizeBytes) + page.sizeBytes - at;
        }
      }
      if (isRefusal(linear)) {
        this.#stoppedBy = linear;
        break;
      }
      const pieceBytes = Math.min(sizeBytes - done, left);
      if (write) this.#willWrite(linear, pieceBytes);
      visit(linear, pieceBytes, done);
      done += pieceBytes;
    }
    return done;
  }

  /** Offset in linear memory of the byte at `address`, brought in; a refusal otherwise. */
  #translate(address: number, write: boolean): number {
    const page = address - (address & PAGE_MASK);
    const slot = Math.floor(page / PAGE_SIZE) & (CACHED_PAGES - 1);
    if (this.#pages[slot] !== page || (write && this.#writable[slot] === 0)) {
      const refusal = this.#fill(slot, page, write);
      if (refusal !== 0) return refusal;
    }
    return this.#linear[slot]! + (address & PAGE_MASK);
  }

  #fill(slot: number, page: number, write: boolean): 0 | Refusal {
    const found = this.#space.faultIn(hva(page), { write });
    if (isRefusal(found)) return found;
    const linear = this.#ramOffset(found.pa);
    if (isRefusal(linear)) return linear;
    this.#pages[slot] = page;
    this.#linear[slot] = linear;
    this.#writable[slot] = found.writable ? 1 : 0;
    return 0;
  }

  /** Offset in linear memory of a byte of RAM; EFAULT where no RAM is. */
  #ramOffset(address: Pa): number | Refusal {
    const linear = this.#memory.linear(address);
    return linear < 0 ? refuse(Errno.EFAULT) : linear;
  }

  /** Tells the engine before pages that hold translated code change. */
  #willWrite(linear: number, sizeBytes = 1): void {
    const { codePages } = this.#memory;
    const last = this.#memory.ramPage(linear + sizeBytes - 1);
    for (let page = this.#memory.ramPage(linear); page <= last; page++) {
      if (codePages[page] === 1) this.#memory.onCodeWrite(page);
    }
  }
}

/** Two tags a byte to one a byte, into `tags` from `at` on. */
const byteOf = (page: Pa, address: Hva): Pa => pa(page + (address & PAGE_MASK));
