/**
 * fork: a child's copy of a process's memory. Shared areas show the same file; private pages are
 * shared read-only until either side writes, and a slot of swap is remembered by both. Tags go with
 * the pages. A function beside `AddressSpace`, which calls it.
 */
import { assert } from '../base/index.ts';
import type { AddressSpace } from './address-space.ts';
import { type Area, VmFlag } from './area.ts';

/** Fills the empty `child`. False: no memory for tables, the child is to be destroyed. */
export function copyAddressSpace(parent: AddressSpace, child: AddressSpace): boolean {
  for (const area of parent.areas.all) {
    // The child's missing pages are nobody's to supply. Linux: dup_userfaultfd().
    const own = { ...area, flags: area.flags & ~VmFlag.uffdMissing };
    child.replaceAreas(own.start, own.end, [own]);
    const isPrivate = (own.flags & VmFlag.shared) === 0 && own.backing.kind !== 'device';
    if (isPrivate && !sharePages(parent, child, own)) return false;
  }
  return true;
}

/** Linux: copy_page_range(). */
function sharePages(parent: AddressSpace, child: AddressSpace, area: Area): boolean {
  const { frames, swap } = parent.host;
  const whole = parent.writeProtect(area.start, area.end);
  assert(whole, 'a change of a whole area splits no block');
  for (const [page, slot] of parent.swapped.within(area.start, area.end)) {
    swap?.get(slot);
    child.swapped.set(page, slot);
  }
  return parent.table.mappings(area.start, area.end).every(({ start, startPa, sizeBytes }) => {
    frames.get(startPa, sizeBytes);
    return child.install(area, start, startPa, sizeBytes, false) === 0;
  });
}
