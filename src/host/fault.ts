/**
 * The page fault handler of a host process: demand-zero and file pages, 2 MiB pages where they fit,
 * copy on write, physical addresses. It is called by `AddressSpace.faultIn` when the tables do not
 * permit what the area does, and changes the tables so that they do, or refuses.
 *
 * Rules kept here: the tags of a page are initialised before the page is mapped Tagged; a private
 * copy takes data and tags; whoever watches the address space (KVM) hears of a page being replaced
 * before it is.
 */
import { alignDown, BLOCK_SIZE, type Hva, hva, PAGE_SIZE, type Pa, pa } from '../base/index.ts';
import type { AddressSpace } from './address-space.ts';
import { type Area, VmFlag } from './area.ts';
import { Errno, isRefusal, type Refusal, refuse } from './errno.ts';
import type { ShmemFile } from './file.ts';
import { BLOCK_ORDER } from './page.ts';
import type { UserMapping } from './user-table.ts';

/**
 * Makes `address`, which lies in `area`, accessible for reading or writing. Preconditions: the area
 * permits the access and the tables do not yet. Refused with EFAULT (behind the end of a file, a
 * store to a private mapping of physical addresses) and ENOMEM. Linux: handle_mm_fault().
 */
export function handleFault(
  space: AddressSpace,
  area: Area,
  address: Hva,
  write: boolean,
): 0 | Refusal {
  const { backing } = area;
  const mapping = space.table.lookup(address);
  if (mapping !== undefined) return write ? makeWritable(space, area, address, mapping) : 0;
  switch (backing.kind) {
    case 'anonymous':
      return anonymousFault(space, area, address, write);
    case 'shmem':
      return fileFault(space, area, address, write, backing.file, backing.offset);
    case 'device': {
      if (write && (area.flags & VmFlag.shared) === 0) return refuse(Errno.EFAULT);
      const target = pa(backing.file.base + backing.offset + (address - area.start));
      return deviceFault(space, area, address, target);
    }
  }
}

/** Linux: do_anonymous_page() and do_huge_pmd_anonymous_page(). */
function anonymousFault(
  space: AddressSpace,
  area: Area,
  address: Hva,
  write: boolean,
): 0 | Refusal {
  const { frames, zeroPage } = space.host;
  const writable = (area.flags & VmFlag.write) !== 0;
  const hugetlb = (area.flags & VmFlag.hugetlb) !== 0;
  if (hugetlb || blockFits(space, area, address)) {
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

/** Whether a 2 MiB page can stand around `address`: the area has room, and nothing is mapped there. */
function blockFits(space: AddressSpace, area: Area, address: Hva): boolean {
  if (space.host.policy.transparentHugePages !== 'always') return false;
  const start = alignDown(address, BLOCK_SIZE);
  if (start < area.start || start + BLOCK_SIZE > area.end) return false;
  return space.table.isEmptyBlock(start);
}

/** Linux: do_shared_fault(), do_read_fault() and do_cow_fault(). */
function fileFault(
  space: AddressSpace,
  area: Area,
  address: Hva,
  write: boolean,
  file: ShmemFile,
  offset: number,
): 0 | Refusal {
  const { frames } = space.host;
  const sizeBytes = file.pageBytes;
  const at = alignDown(address, sizeBytes);
  const page = file.page(offset + (at - area.start));
  if (isRefusal(page)) return page;
  const shared = (area.flags & VmFlag.shared) !== 0;
  if (!shared && write) return installCopy(space, area, at, page, sizeBytes);
  frames.get(page, sizeBytes);
  const writable = shared && (area.flags & VmFlag.write) !== 0;
  return space.install(area, at, page, sizeBytes, writable);
}

/** Physical addresses need no frame: the largest block that fits is mapped as it is. */
function deviceFault(space: AddressSpace, area: Area, address: Hva, target: Pa): 0 | Refusal {
  const writable = (area.flags & (VmFlag.shared | VmFlag.write)) === (VmFlag.shared | VmFlag.write);
  const start = alignDown(address, BLOCK_SIZE);
  const block =
    start >= area.start &&
    start + BLOCK_SIZE <= area.end &&
    (target - (address - start)) % BLOCK_SIZE === 0 &&
    space.table.isEmptyBlock(start);
  const sizeBytes = block ? BLOCK_SIZE : PAGE_SIZE;
  const at = alignDown(address, sizeBytes);
  return space.install(area, at, alignDown(target, sizeBytes), sizeBytes, writable);
}

/** A store to a page that is mapped read-only in a writable area. Linux: do_wp_page(). */
function makeWritable(
  space: AddressSpace,
  area: Area,
  address: Hva,
  mapping: UserMapping,
): 0 | Refusal {
  const { frames } = space.host;
  const { start, startPa, sizeBytes } = mapping;
  const shared = (area.flags & VmFlag.shared) !== 0;
  if (!shared && area.backing.kind === 'device') return refuse(Errno.EFAULT);
  // Ours alone: nobody else sees the store.
  if (shared || frames.isExclusive(startPa, sizeBytes)) return space.allowWrites(start, sizeBytes);
  const unit = (area.flags & VmFlag.hugetlb) !== 0 ? sizeBytes : PAGE_SIZE;
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
  const copy = source === zeroPage ? frames.allocateZeroed() : frames.allocate(order);
  if (copy === -1) return refuse(Errno.ENOMEM);
  if (source !== zeroPage) {
    for (let done = 0; done < sizeBytes; done += PAGE_SIZE) {
      frames.copy(pa(copy + done), pa(source + done));
    }
  }
  const present = space.table.lookup(at) !== undefined;
  if (present && !space.zap(at, hva(at + sizeBytes))) {
    frames.put(copy, sizeBytes);
    return refuse(Errno.ENOMEM);
  }
  return space.install(area, at, copy, sizeBytes, (area.flags & VmFlag.write) !== 0);
}
