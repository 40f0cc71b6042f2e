/**
 * A process's memory taken away whole and put back: areas, private pages, the shared-memory files
 * it maps, and all tags, packed, as hibernation keeps them (Linux: swsusp_mte_save_tags()). Plain
 * data; writing it anywhere is the caller's business.
 *
 * Pages in swap are saved from there, with the tags that are kept beside them. Not saved: what
 * other processes share with this one (they would get files of their own), registrations of missing
 * pages, and physical addresses, which are mapped again as they were.
 */
import { hva, PAGE_SIZE, type Pa, pa } from '../base/index.ts';
import { AddressSpace } from './address-space.ts';
import { type Area, type Backing, VmFlag } from './area.ts';
import { Errno, isRefusal, type Refusal, refuse } from './errno.ts';
import { type DeviceFile, ShmemFile } from './file.ts';
import type { Host } from './host.ts';
import { BLOCK_ORDER, PACKED_TAG_BYTES } from './page.ts';

/** A page that exists; `offset` is from the start of its area or file. */
export interface SavedPage {
  readonly offset: number;
  /** Absent: zero. 4 KiB, or 2 MiB in hugetlb memory. */
  readonly data: Uint8Array | undefined;
  /** Packed, low nibble first; absent: never tagged. */
  readonly packedTags: Uint8Array | undefined;
}

export interface SavedFile {
  readonly sizeBytes: number;
  readonly hugetlb: boolean;
  readonly pages: readonly SavedPage[];
}

export interface SavedArea {
  readonly start: number;
  readonly end: number;
  readonly flags: number;
  readonly backing:
    | { readonly kind: 'anonymous' }
    /** `file` counts the image's files. */
    | { readonly kind: 'shmem'; readonly file: number; readonly offset: number }
    | { readonly kind: 'device'; readonly file: DeviceFile; readonly offset: number };
  /** Private pages. */
  readonly pages: readonly SavedPage[];
}

export interface ProcessImage {
  readonly files: readonly SavedFile[];
  readonly areas: readonly SavedArea[];
}

/** Saves a process, which stays as it is. EIO: a page in swap cannot be read. */
export function saveProcess(space: AddressSpace): ProcessImage | Refusal {
  const files: ShmemFile[] = [];
  const areas: SavedArea[] = [];
  for (const area of space.areas.all) {
    const pages = savePrivatePages(space, area);
    if (isRefusal(pages)) return pages;
    const { start, end, flags } = area;
    areas.push({ start, end, flags, backing: saveBacking(area.backing, files), pages });
  }
  const saved: SavedFile[] = [];
  for (const file of files) {
    const pages = saveFilePages(space.host, file);
    if (isRefusal(pages)) return pages;
    saved.push({ sizeBytes: file.sizeBytes, hugetlb: file.hugetlb, pages });
  }
  return { files: saved, areas };
}

/** Makes a process from an image, on any host. ENOMEM: nothing is left of it. */
export function restoreProcess(host: Host, image: ProcessImage): AddressSpace | Refusal {
  const space = new AddressSpace(host);
  const files = image.files.map(({ sizeBytes, hugetlb }) => {
    return new ShmemFile(host, { sizeBytes, hugetlb });
  });
  const whole =
    image.files.every(({ pages }, i) => restoreFilePages(host, files[i]!, pages)) &&
    image.areas.every((saved) => restoreArea(space, saved, files));
  // The areas hold on to their files.
  for (const file of files) file.close();
  if (whole) return space;
  space.destroy();
  return refuse(Errno.ENOMEM);
}

function saveBacking(backing: Backing, files: ShmemFile[]): SavedArea['backing'] {
  if (backing.kind !== 'shmem') return backing;
  if (!files.includes(backing.file)) files.push(backing.file);
  return { kind: 'shmem', file: files.indexOf(backing.file), offset: backing.offset };
}

/** What only this process has of an area: not the zero page, and not pages of its file. */
function savePrivatePages(space: AddressSpace, area: Area): SavedPage[] | Refusal {
  const { backing } = area;
  const saved: SavedPage[] = [];
  if (backing.kind === 'device' || (area.flags & VmFlag.shared) !== 0) return saved;
  const unit = (area.flags & VmFlag.hugetlb) !== 0 ? BLOCK_ORDER : 0;
  const pageBytes = PAGE_SIZE << unit;
  for (const { start, startPa, sizeBytes } of space.table.mappings(area.start, area.end)) {
    if (startPa === space.host.zeroPage) continue;
    for (let done = 0; done < sizeBytes; done += pageBytes) {
      const offset = start + done - area.start;
      const page = pa(startPa + done);
      if (backing.kind === 'shmem' && backing.file.peek(backing.offset + offset) === page) continue;
      saved.push(savePage(space.host, offset, page, pageBytes));
    }
  }
  for (const [page, slot] of space.swapped.within(area.start, area.end)) {
    const found = saveSlot(space.host, page - area.start, slot);
    if (isRefusal(found)) return found;
    saved.push(found);
  }
  return saved;
}

function saveFilePages(host: Host, file: ShmemFile): SavedPage[] | Refusal {
  const saved: SavedPage[] = [];
  for (const offset of file.pageOffsets()) {
    const page = file.peek(offset);
    const found =
      page === undefined
        ? saveSlot(host, offset, file.slotOf(offset)!)
        : savePage(host, offset, page, file.pageBytes);
    if (isRefusal(found)) return found;
    saved.push(found);
  }
  return saved;
}

function savePage(host: Host, offset: number, page: Pa, pageBytes: number): SavedPage {
  const data = withoutZeros(host.memory.readBytes(page, pageBytes));
  return { offset, data, packedTags: packedTagsOf(host, page, pageBytes) };
}

/** The packed tags of a page of any size; 0 for frames of it that were never tagged. */
function packedTagsOf({ frames }: Host, page: Pa, pageBytes: number): Uint8Array | undefined {
  let tags: Uint8Array | undefined;
  for (let done = 0; done < pageBytes; done += PAGE_SIZE) {
    const packed = frames.packedTags(pa(page + done));
    if (packed === undefined) continue;
    tags ??= new Uint8Array((pageBytes / PAGE_SIZE) * PACKED_TAG_BYTES);
    tags.set(packed, (done / PAGE_SIZE) * PACKED_TAG_BYTES);
  }
  return tags;
}

function saveSlot(host: Host, offset: number, slot: number): SavedPage | Refusal {
  const data = new Uint8Array(PAGE_SIZE);
  if (host.swap?.device.read(slot, data) !== 'done') return refuse(Errno.EIO);
  return { offset, data: withoutZeros(data), packedTags: host.swap.tagsOf(slot)?.slice() };
}

const withoutZeros = (data: Uint8Array): Uint8Array | undefined =>
  data.some((byte) => byte !== 0) ? data : undefined;

function restoreFilePages(host: Host, file: ShmemFile, pages: readonly SavedPage[]): boolean {
  return pages.every((saved) => {
    const page = restorePage(host, saved, file.pageBytes);
    if (page !== -1) file.adopt(saved.offset, page);
    return page !== -1;
  });
}

function restoreArea(space: AddressSpace, saved: SavedArea, files: readonly ShmemFile[]): boolean {
  const { backing } = saved;
  const area: Area = {
    start: hva(saved.start),
    end: hva(saved.end),
    flags: saved.flags & ~VmFlag.uffdMissing,
    backing: backing.kind === 'shmem' ? { ...backing, file: files[backing.file]! } : backing,
  };
  space.replaceAreas(area.start, area.end, [area]);
  const sizeBytes = PAGE_SIZE << ((area.flags & VmFlag.hugetlb) !== 0 ? BLOCK_ORDER : 0);
  const writable = (area.flags & VmFlag.write) !== 0;
  return saved.pages.every((one) => {
    const page = restorePage(space.host, one, sizeBytes);
    if (page === -1) return false;
    return space.install(area, hva(area.start + one.offset), page, sizeBytes, writable) === 0;
  });
}

/** A new frame with what was saved, or -1. */
function restorePage(host: Host, saved: SavedPage, sizeBytes: number): Pa | -1 {
  const order = sizeBytes === PAGE_SIZE ? 0 : BLOCK_ORDER;
  const { frames } = host;
  const page = saved.data === undefined ? frames.allocateZeroed(order) : frames.allocate(order);
  if (page !== -1) frames.writeContent(page, saved);
  return page;
}
