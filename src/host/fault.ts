/**
 * The page fault handler of a host process: demand-zero and file pages, 2 MiB pages where they fit,
 * copy on write, physical addresses. It is called by `AddressSpace.faultIn` when the tables do not
 * permit what the area does, and changes the tables so that they do, or refuses.
 *
 * Rules kept here: the tags of a page are initialised before the page is mapped Tagged; a private
 * copy takes data and tags; whoever watches the address space (KVM) hears of a page being replaced
 * before it is.
 */
import {
  alignDown,
  assert,
  BLOCK_SIZE,
  type Hva,
  hva,
  isAligned,
  PAGE_SIZE,
  type Pa,
  pa,
} from '../base/index.ts';
import type { AddressSpace } from './address-space.ts';
import { type Area, VmFlag } from './area.ts';
import { Errno, isRefusal, type Refusal, refuse } from './errno.ts';
import { BLOCK_ORDER } from './page.ts';
import type { UserMapping } from './user-table.ts';

/** An access that an area permits and the tables do not. */
export interface PageFault {
  readonly area: Area;
  readonly address: Hva;
  readonly write: boolean;
  /** What the tables have at the address; if anything, the access is a store. */
  readonly mapping: UserMapping | undefined;
}

/**
 * Changes the tables so that they permit the access, or so far that trying again gets on. Refused
 * with EFAULT (behind the end of a file, a store to a private mapping of physical addresses),
 * EAGAIN (the page is on its way, see `AddressSpace.awaited`) and ENOMEM. Linux: handle_mm_fault().
 */
export function handleFault(space: AddressSpace, fault: PageFault): 0 | Refusal {
  if (fault.mapping !== undefined) return makeWritable(space, fault, fault.mapping);
  const slot = space.swapped.get(alignDown(fault.address, PAGE_SIZE));
  if (slot !== undefined) return swapFault(space, fault, slot);
  switch (fault.area.backing.kind) {
    case 'anonymous':
      return anonymousFault(space, fault);
    case 'shmem':
      return fileFault(space, fault);
    case 'device':
      return deviceFault(space, fault);
  }
}

/**
 * A private page that is in swap: a frame of this process's own, with its tags. EAGAIN, EIO,
 * ENOMEM. Linux: do_swap_page(), which shares the page among forked processes until one writes.
 */
function swapFault(space: AddressSpace, { area, address }: PageFault, slot: number): 0 | Refusal {
  const { swap, swapTags } = space.host;
  assert(swap !== undefined, 'a page in swap has a device');
  const at = alignDown(address, PAGE_SIZE);
  const page = swap.load(slot, { restoreTags: swapTags.restores(has(area, VmFlag.mte)) });
  if (page === -Errno.EAGAIN) return awaitSwap(space, at, slot);
  if (isRefusal(page)) return page;
  const refusal = space.install(area, at, page, PAGE_SIZE, has(area, VmFlag.write));
  if (refusal !== 0) return refusal;
  space.swapped.delete(at);
  swap.put(slot);
  return 0;
}

/** Lets whoever touched the page at `at` wait until the device has read `slot`. */
function awaitSwap(space: AddressSpace, at: Hva, slot: number): Refusal {
  if (!space.awaited.has(at)) {
    space.awaited.add(at);
    space.host.swap?.whenReady(slot, () => space.awaited.delete(at));
  }
  return refuse(Errno.EAGAIN);
}

const has = (area: Area, flag: number): boolean => (area.flags & flag) !== 0;

/** Linux: do_anonymous_page() and do_huge_pmd_anonymous_page(). */
function anonymousFault(space: AddressSpace, { area, address, write }: PageFault): 0 | Refusal {
  if (has(area, VmFlag.uffdMissing)) return space.userfault.missing(area, address, write);
  const { frames, zeroPage } = space.host;
  const writable = has(area, VmFlag.write);
  const hugetlb = has(area, VmFlag.hugetlb);
  if (hugetlb || fitsTransparentHugePage(space, area, address)) {
    const block = frames.allocateZeroed(BLOCK_ORDER);
    if (block !== -1) {
      return space.install(area, alignDown(address, BLOCK_SIZE), block, BLOCK_SIZE, writable);
    }
    if (hugetlb) return refuse(Errno.ENOMEM);
  }
  const at = alignDown(address, PAGE_SIZE);
  if (!write) {
    frames.get(zeroPage);
    return space.install(area, at, zeroPage, PAGE_SIZE, false);
  }
  const page = frames.allocateZeroed();
  if (page === -1) return refuse(Errno.ENOMEM);
  return space.install(area, at, page, PAGE_SIZE, writable);
}

const fitsTransparentHugePage = (space: AddressSpace, area: Area, address: Hva): boolean =>
  space.host.policy.transparentHugePages === 'always' && fitsBlock(space, area, address);

/** Whether the area has room for a 2 MiB page around `address`, and has no page there. */
function fitsBlock(space: AddressSpace, area: Area, address: Hva): boolean {
  const start = alignDown(address, BLOCK_SIZE);
  return start >= area.start && start + BLOCK_SIZE <= area.end && space.isEmptyBlock(start);
}

/** Linux: do_shared_fault(), do_read_fault() and do_cow_fault(). */
function fileFault(space: AddressSpace, { area, address, write }: PageFault): 0 | Refusal {
  const { backing } = area;
  assert(backing.kind === 'shmem', 'the area shows a file');
  const sizeBytes = backing.file.pageBytes;
  const at = alignDown(address, sizeBytes);
  const offset = backing.offset + (at - area.start);
  if (has(area, VmFlag.uffdMissing) && !backing.file.exists(offset)) {
    return space.userfault.missing(area, address, write);
  }
  const page = backing.file.page(offset);
  if (page === -Errno.EAGAIN) return awaitSwap(space, at, backing.file.slotOf(offset)!);
  if (isRefusal(page)) return page;
  const shared = has(area, VmFlag.shared);
  if (!shared && write) return installCopy(space, area, at, page, sizeBytes);
  space.host.frames.get(page, sizeBytes);
  return space.install(area, at, page, sizeBytes, shared && has(area, VmFlag.write));
}

/** Physical addresses need no frame: the largest block that fits is mapped as it is. */
function deviceFault(space: AddressSpace, { area, address, write }: PageFault): 0 | Refusal {
  const { backing } = area;
  assert(backing.kind === 'device', 'the area shows physical addresses');
  const shared = has(area, VmFlag.shared);
  if (write && !shared) return refuse(Errno.EFAULT);
  const target = backing.file.base + backing.offset + (address - area.start);
  const block = isAligned(target - address, BLOCK_SIZE) && fitsBlock(space, area, address);
  const sizeBytes = block ? BLOCK_SIZE : PAGE_SIZE;
  const at = alignDown(address, sizeBytes);
  const page = pa(target - (address - at));
  return space.install(area, at, page, sizeBytes, shared && has(area, VmFlag.write));
}

/** A store to a page that is mapped read-only in a writable area. Linux: do_wp_page(). */
function makeWritable(
  space: AddressSpace,
  { area, address }: PageFault,
  { start, startPa, sizeBytes }: UserMapping,
): 0 | Refusal {
  const { frames } = space.host;
  const shared = has(area, VmFlag.shared);
  if (!shared && area.backing.kind === 'device') return refuse(Errno.EFAULT);
  // Ours alone: nobody else sees the store.
  if (shared || frames.isExclusive(startPa, sizeBytes)) return space.allowWrites(start, sizeBytes);
  const unit = has(area, VmFlag.hugetlb) ? sizeBytes : PAGE_SIZE;
  const at = alignDown(address, unit);
  const page = pa(startPa + (at - start));
  if (frames.isExclusive(page, unit)) return space.allowWrites(at, unit);
  return installCopy(space, area, at, page, unit);
}

/** Maps a private copy of `source` at `at`, in place of what is there. Linux: wp_page_copy(). */
function installCopy(
  space: AddressSpace,
  area: Area,
  at: Hva,
  source: Pa,
  sizeBytes: number,
): 0 | Refusal {
  const { frames, zeroPage } = space.host;
  const order = sizeBytes === BLOCK_SIZE ? BLOCK_ORDER : 0;
  // Held, so that an allocation that has to page out does not take the source itself.
  frames.get(source, sizeBytes);
  const copy = source === zeroPage ? frames.allocateZeroed() : frames.allocate(order);
  if (copy !== -1 && source !== zeroPage) {
    for (let done = 0; done < sizeBytes; done += PAGE_SIZE) {
      frames.copy(pa(copy + done), pa(source + done));
    }
  }
  frames.put(source, sizeBytes);
  if (copy === -1) return refuse(Errno.ENOMEM);
  const present = space.table.lookup(at) !== undefined;
  if (present && !space.zap(at, hva(at + sizeBytes))) {
    frames.put(copy, sizeBytes);
    return refuse(Errno.ENOMEM);
  }
  return space.install(area, at, copy, sizeBytes, has(area, VmFlag.write));
}
