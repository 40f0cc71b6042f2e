/**
 * Same-page merging (Linux: KSM): private pages of equal data, in areas advised MADV_MERGEABLE,
 * become one frame mapped read-only; a store copies it again. A page whose tags are valid is never
 * merged, because data may be equal where tags are not (Linux: memcmp_pages() of
 * arch/arm64/mm/mte.c). The host's owner calls `mergePass`; nothing runs by itself.
 *
 * A pass keeps nothing for the next one: what was merged before is met again as pages that share a
 * frame already.
 */
import { type Hva, hva, PAGE_SIZE, type Pa, pa } from '../base/index.ts';
import type { AddressSpace } from './address-space.ts';
import { type Area, VmFlag } from './area.ts';
import type { Host } from './host.ts';

/** What a pass did. Linux: /sys/kernel/mm/ksm. */
export interface MergeResult {
  pagesScanned: number;
  /** Mappings that now show another page's frame, whose own frame was given up. */
  pagesMerged: number;
  /** Pages left alone because their tags are valid. */
  pagesTagged: number;
}

/** A page that others may be merged with. */
interface Candidate {
  readonly space: AddressSpace;
  readonly at: Hva;
  readonly page: Pa;
}

/** Whether KSM may be advised for an area; for others the advice means nothing. */
export const isMergeable = (area: Area): boolean =>
  area.backing.kind !== 'device' &&
  (area.flags & (VmFlag.shared | VmFlag.pfnMap | VmFlag.hugetlb)) === 0;

/**
 * Merges what is equal in all mergeable areas of all processes. Linux: ksm_do_scan(), a full scan.
 */
export function mergePass(host: Host): MergeResult {
  const result: MergeResult = { pagesScanned: 0, pagesMerged: 0, pagesTagged: 0 };
  const byHash = new Map<number, Candidate[]>();
  for (const candidate of candidates(host)) {
    result.pagesScanned++;
    if (host.frames.isMteTagged(candidate.page)) {
      result.pagesTagged++;
      continue;
    }
    const hash = hashOf(host, candidate.page);
    const equals = byHash.get(hash);
    if (equals === undefined) byHash.set(hash, [candidate]);
    else if (!equals.some((other) => other.page === candidate.page)) {
      const into = equals.find((other) => isEqual(host, other.page, candidate.page));
      if (into === undefined) equals.push(candidate);
      else if (merge(candidate, into)) result.pagesMerged++;
    }
  }
  return result;
}

/**
 * Gives a process frames of its own for what is merged in a range. ENOMEM: some stay merged. Linux:
 * unmerge_ksm_pages(), for MADV_UNMERGEABLE.
 */
export function unmergeRange(space: AddressSpace, start: Hva, end: Hva): boolean {
  const { frames, zeroPage } = space.host;
  for (const { start: at, startPa, sizeBytes } of space.table.mappings(start, end)) {
    const merged = sizeBytes === PAGE_SIZE && startPa !== zeroPage && !frames.isExclusive(startPa);
    if (merged && typeof space.faultIn(at, { write: true }) === 'number') return false;
  }
  return true;
}

/** Private pages in mergeable areas, each process's in order of address. */
function* candidates(host: Host): Generator<Candidate> {
  for (const space of host.processes) {
    for (const area of [...space.areas.all]) {
      if ((area.flags & VmFlag.mergeable) === 0) continue;
      for (const { start, startPa, sizeBytes } of space.table.mappings(area.start, area.end)) {
        for (let done = 0; done < sizeBytes; done += PAGE_SIZE) {
          const candidate = { space, at: hva(start + done), page: pa(startPa + done) };
          if (isPrivatePage(area, candidate)) yield candidate;
        }
      }
    }
  }
}

/** Neither the zero page nor a page that the file still owns; and mapped now, as it was found. */
function isPrivatePage(area: Area, { space, at, page }: Candidate): boolean {
  if (page === space.host.zeroPage || space.table.lookup(at)?.pa !== page) return false;
  const { backing } = area;
  return backing.kind !== 'shmem' || backing.file.peek(backing.offset + (at - area.start)) !== page;
}

/** Lets `from` show the frame of `into`, both read-only. False: no memory for tables. */
function merge(from: Candidate, into: Candidate): boolean {
  const { frames } = from.space.host;
  const area = from.space.areas.at(from.at);
  if (area === undefined || !into.space.writeProtect(into.at, hva(into.at + PAGE_SIZE)))
    return false;
  // Held, so that it stays whatever happens to the mapping it was found in.
  frames.get(into.page);
  if (!from.space.zap(from.at, hva(from.at + PAGE_SIZE))) {
    frames.put(into.page);
    return false;
  }
  return from.space.install(area, from.at, into.page, PAGE_SIZE, false) === 0;
}

/** FNV-1a over the words of a page, with every bit of the words mixed in. */
function hashOf(host: Host, page: Pa): number {
  const { memory } = host;
  const first = memory.linear(page) / 4;
  let hash = 0x811c9dc5;
  for (let i = 0; i < PAGE_SIZE / 4; i++) {
    hash = Math.imul(hash ^ memory.i32[first + i]!, 0x01000193);
    hash ^= hash >>> 15;
  }
  return hash >>> 0;
}

function isEqual(host: Host, a: Pa, b: Pa): boolean {
  const { memory } = host;
  const atA = memory.linear(a) / 4;
  const atB = memory.linear(b) / 4;
  for (let i = 0; i < PAGE_SIZE / 4; i++) {
    if (memory.i32[atA + i] !== memory.i32[atB + i]) return false;
  }
  return true;
}
