/**
 * mremap: a mapping grows, shrinks or moves, and its pages go with it, whether they are in memory
 * or in swap, tags included. A function beside `AddressSpace`, which calls it.
 */
import { alignUp, type Hva, hva, isAligned, PAGE_SIZE } from '../base/index.ts';
import type { AddressSpace } from './address-space.ts';
import { type Area, sliceArea, VmFlag } from './area.ts';
import { Errno, isRefusal, type Refusal, refuse } from './errno.ts';
import { TASK_SIZE } from './mmap.ts';

/** MREMAP_*. */
export const MremapFlag = { mayMove: 1, fixed: 2 } as const;

export interface MremapRequest {
  readonly address: Hva;
  readonly oldLength: number;
  readonly newLength: number;
  /** Bits of `MremapFlag`. */
  readonly flags?: number;
  /** Where to, with MREMAP_FIXED. */
  readonly newAddress?: Hva;
}

/**
 * Carries out an mremap and returns the new address. EINVAL (arguments), EFAULT (not one area),
 * ENOMEM (no room, no memory for tables). Linux: mremap(), without MREMAP_DONTUNMAP, the doubling
 * of shared mappings by a length of 0, and hugetlb.
 */
export function mremap(space: AddressSpace, request: MremapRequest): Hva | Refusal {
  const { address, flags = 0 } = request;
  const oldBytes = alignUp(request.oldLength, PAGE_SIZE);
  const newBytes = alignUp(request.newLength, PAGE_SIZE);
  const mayMove = (flags & MremapFlag.mayMove) !== 0;
  const fixed = (flags & MremapFlag.fixed) !== 0;
  if ((flags & ~(MremapFlag.mayMove | MremapFlag.fixed)) !== 0) return refuse(Errno.EINVAL);
  if ((fixed && !mayMove) || !isAligned(address, PAGE_SIZE)) return refuse(Errno.EINVAL);
  if (newBytes <= 0 || oldBytes <= 0) return refuse(Errno.EINVAL);
  const area = space.areas.at(address);
  if (area === undefined || address + oldBytes > area.end) return refuse(Errno.EFAULT);
  if ((area.flags & VmFlag.hugetlb) !== 0) return refuse(Errno.EINVAL);
  if (fixed) return moveTo(space, area, { ...request, oldBytes, newBytes });
  if (newBytes <= oldBytes) return shrink(space, address, oldBytes, newBytes);
  if (growsInPlace(space, area, address, oldBytes, newBytes)) return address;
  if (!mayMove) return refuse(Errno.ENOMEM);
  const target = space.findRoom(newBytes);
  return isRefusal(target) ? target : move(space, area, { address, target, oldBytes, newBytes });
}

function shrink(space: AddressSpace, address: Hva, old: number, wanted: number): Hva | Refusal {
  if (wanted === old) return address;
  const refusal = space.munmap(hva(address + wanted), old - wanted);
  return refusal === 0 ? address : refusal;
}

/** The end of the area is moved up where nothing is in the way. */
function growsInPlace(
  space: AddressSpace,
  area: Area,
  address: Hva,
  oldBytes: number,
  newBytes: number,
): boolean {
  const end = hva(address + newBytes);
  if (address + oldBytes !== area.end || end > TASK_SIZE) return false;
  if (!space.areas.within(area.end, end).next().done) return false;
  if (area.backing.kind === 'device' && !reaches(area, address, newBytes)) return false;
  space.areas.replace(area.start, end, [{ ...area, end }]);
  return true;
}

/** MREMAP_FIXED: to a place of the caller's, over whatever is there. */
function moveTo(
  space: AddressSpace,
  area: Area,
  request: MremapRequest & { oldBytes: number; newBytes: number },
): Hva | Refusal {
  const { address, newAddress: target, oldBytes, newBytes } = request;
  if (target === undefined || !isAligned(target, PAGE_SIZE)) return refuse(Errno.EINVAL);
  if (target + newBytes > TASK_SIZE || target <= 0) return refuse(Errno.EINVAL);
  if (target < address + oldBytes && address < target + newBytes) return refuse(Errno.EINVAL);
  const cleared = space.munmap(target, newBytes);
  if (isRefusal(cleared)) return cleared;
  return move(space, area, { address, target, oldBytes, newBytes });
}

/** Linux: move_vma() and move_page_tables(). */
function move(
  space: AddressSpace,
  area: Area,
  where: { address: Hva; target: Hva; oldBytes: number; newBytes: number },
): Hva | Refusal {
  const { address, target, oldBytes, newBytes } = where;
  if (area.backing.kind === 'device' && !reaches(area, address, newBytes)) {
    return refuse(Errno.EINVAL);
  }
  const keptBytes = Math.min(oldBytes, newBytes);
  const from = sliceArea(area, address, address + keptBytes);
  const to: Area = {
    ...from,
    start: target,
    end: hva(target + newBytes),
    // Missing pages are supplied at the old place only. Linux: userfaultfd_remap_complete().
    flags: from.flags & ~VmFlag.uffdMissing,
  };
  space.replaceAreas(target, to.end, [to]);
  if (!copyMappings(space, from, to)) {
    space.munmap(target, newBytes);
    return refuse(Errno.ENOMEM);
  }
  for (const [page, slot] of space.swapped.within(from.start, from.end)) {
    space.host.swap?.get(slot);
    space.swapped.set(target + (page - address), slot);
  }
  const cleared = space.munmap(address, oldBytes);
  // A block at an end of the old place cannot be split: the new place is given up, as above.
  if (isRefusal(cleared)) space.munmap(target, newBytes);
  return isRefusal(cleared) ? cleared : target;
}

/** Maps at `to` what is mapped at `from`; both hold references until the old place goes. */
function copyMappings(space: AddressSpace, from: Area, to: Area): boolean {
  const { frames } = space.host;
  return space.table.mappings(from.start, from.end).every((mapping) => {
    const start = Math.max(mapping.start, from.start);
    const end = Math.min(mapping.start + mapping.sizeBytes, from.end);
    const at = hva(to.start + (start - from.start));
    const page = space.table.lookup(start)!.pa;
    if (to.backing.kind !== 'device') frames.get(page, end - start);
    return space.install(to, at, page, end - start, mapping.writable) === 0;
  });
}

/** Whether the file behind an area goes on for `bytes` from `address`. */
function reaches(area: Area, address: Hva, bytes: number): boolean {
  const { backing } = area;
  if (backing.kind !== 'device') return true;
  return backing.offset + (address - area.start) + bytes <= backing.file.sizeBytes;
}
