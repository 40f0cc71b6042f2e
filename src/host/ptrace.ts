/**
 * A debugger's view of a process's tags: PTRACE_PEEKMTETAGS and PTRACE_POKEMTETAGS, the register
 * set that says which checks are on, and the segments of a core dump that hold tags. Rules are
 * Linux's (arch/arm64/kernel/mte.c, ptrace.c and elfcore.c); where versions differ the host's
 * policy says which.
 */
import { alignDown, type Hva, hva, PAGE_SIZE, pa } from '../base/index.ts';
import type { AddressSpace } from './address-space.ts';
import { VmFlag } from './area.ts';
import { Errno, isRefusal, type Refusal, refuse } from './errno.ts';
import { TASK_SIZE } from './mmap.ts';
import { PACKED_TAG_BYTES, TAG_GRANULES } from './page.ts';

/** PTRACE_*. */
export const PtraceRequest = { peekMteTags: 33, pokeMteTags: 34 } as const;
export type PtraceRequest = (typeof PtraceRequest)[keyof typeof PtraceRequest];

/** The register set with the value of PR_GET_TAGGED_ADDR_CTRL. */
export const NT_ARM_TAGGED_ADDR_CTRL = 0x409;

/** struct iovec: the debugger's buffer, one byte a tag granule. */
export interface Iovec {
  readonly base: Hva;
  /** Tags asked for; afterwards, when the call was not refused, tags done. */
  length: number;
}

/**
 * Copies tags between `tracee` from `address` on (rounded down to a tag granule) and a buffer of
 * `tracer`, as far as both go. EIO: the tracee has no PROT_MTE memory there that permits it;
 * EFAULT: the buffer, or no tags asked for. Linux: mte_ptrace_copy_tags(), which for a debugger's
 * sake also reads PROT_NONE and pokes into private read-only memory; here EIO.
 */
export function ptraceMteTags(
  tracee: AddressSpace,
  request: PtraceRequest,
  options: { readonly tracer: AddressSpace; readonly address: bigint; readonly iov: Iovec },
): 0 | Refusal {
  const { tracer, iov } = options;
  if (!tracee.host.cpu.mte) return refuse(Errno.EIO);
  const oldRules = tracee.host.policy.ptraceMteTags === '6.1';
  const address = oldRules ? untaggedAddress(options.address) : options.address;
  if (iov.length < 0 || iov.base + iov.length > TASK_SIZE) return refuse(Errno.EFAULT);
  let done = 0;
  while (done < iov.length) {
    const at = (address & ~15n) + 16n * BigInt(done);
    if (at >= BigInt(TASK_SIZE)) return done === 0 ? refuse(Errno.EIO) : finish(iov, done);
    const place = hva(Number(at));
    const offset = (place - alignDown(place, PAGE_SIZE)) / 16;
    const count = Math.min(iov.length - done, TAG_GRANULES - offset);
    const buffer = hva(iov.base + done);
    const copied =
      request === PtraceRequest.peekMteTags
        ? peek(tracee, tracer, { place, offset, count, buffer })
        : poke(tracee, tracer, { place, offset, count, buffer });
    if (isRefusal(copied)) return done === 0 ? copied : finish(iov, done);
    done += copied;
    if (copied < count) break;
  }
  if (done > 0) return finish(iov, done);
  return refuse(oldRules && iov.length === 0 ? Errno.EIO : Errno.EFAULT);
}

/** The address without its tag, if it is a user's. Linux: __untagged_addr(). */
const untaggedAddress = (address: bigint): bigint =>
  (address & (1n << 55n)) === 0n ? address & ((1n << 56n) - 1n) : address;

function finish(iov: Iovec, done: number): 0 {
  iov.length = done;
  return 0;
}

/** Tags of one page. */
interface Piece {
  readonly place: Hva;
  /** Number of the first tag granule in its page. */
  readonly offset: number;
  readonly count: number;
  readonly buffer: Hva;
}

function peek(tracee: AddressSpace, tracer: AddressSpace, piece: Piece): number | Refusal {
  const page = taggedPage(tracee, piece.place, false);
  if (isRefusal(page)) return page;
  const tags = tracee.host.frames.readTags(pa(page));
  return tracer.memory.writeFrom(
    piece.buffer,
    tags.subarray(piece.offset, piece.offset + piece.count),
  );
}

function poke(tracee: AddressSpace, tracer: AddressSpace, piece: Piece): number | Refusal {
  const tags = new Uint8Array(piece.count);
  const copied = tracer.memory.readInto(piece.buffer, tags);
  // The page last: reading the buffer may have paged it out.
  const page = taggedPage(tracee, piece.place, true);
  if (isRefusal(page)) return page;
  const { memory } = tracee.host;
  for (let i = 0; i < copied; i++) {
    memory.writeTag(pa(page + 16 * (piece.offset + i)), tags[i]! & 15);
  }
  return copied;
}

/** Where the page of PROT_MTE memory at `place` is, brought in; EIO. */
function taggedPage(tracee: AddressSpace, place: Hva, write: boolean): number | Refusal {
  const page = tracee.faultIn(place, { write });
  if (isRefusal(page) || (page.area.flags & VmFlag.mte) === 0) return refuse(Errno.EIO);
  return page.pa;
}

/**
 * PTRACE_GETREGSET of NT_ARM_TAGGED_ADDR_CTRL: one little-endian word of 64 bits. EINVAL: another
 * register set, or a host without MTE. Linux: tagged_addr_ctrl_get().
 */
export function ptraceGetRegset(tracee: AddressSpace, note: number): Uint8Array | Refusal {
  if (note !== NT_ARM_TAGGED_ADDR_CTRL || !tracee.host.cpu.mte) return refuse(Errno.EINVAL);
  const bytes = new Uint8Array(8);
  const control = BigInt(tracee.memory.taggedAddressControl);
  new DataView(bytes.buffer).setBigUint64(0, control, true);
  return bytes;
}

/** p_type of a segment of tags. */
export const PT_AARCH64_MEMTAG_MTE = 0x7000_0002;
const PROGRAM_HEADER_BYTES = 56;

/** What a core dump says of the tags of one PROT_MTE area. */
export interface MemtagSegment {
  /** Elf64_Phdr: p_vaddr and p_memsz are the area's, p_filesz is 1/32 of it. */
  readonly header: Uint8Array;
  /** Packed tags of all pages, low nibble first; 0 for pages that are not there. */
  readonly tags: Uint8Array;
}

/**
 * The tag segments of a core dump of `space`, which follow each other in the file from `fileOffset`
 * on. Linux: elf_core_write_extra_phdrs() and elf_core_write_extra_data().
 */
export function memtagSegments(space: AddressSpace, fileOffset: number): MemtagSegment[] {
  const segments: MemtagSegment[] = [];
  let offset = fileOffset;
  for (const { start, end, flags } of space.areas.all) {
    if ((flags & VmFlag.mte) === 0) continue;
    const tags = packedTagsOf(space, start, end);
    segments.push({ header: programHeader({ offset, start, end }), tags });
    offset += tags.length;
  }
  return segments;
}

function packedTagsOf(space: AddressSpace, start: Hva, end: Hva): Uint8Array {
  const tags = new Uint8Array(((end - start) / PAGE_SIZE) * PACKED_TAG_BYTES);
  const swapped = space.swapped.within(start, end).map(([page]) => hva(page));
  // A page that swap does not give back is dumped as one that is not there.
  for (const page of swapped) space.faultIn(page, { write: false });
  for (const { start: first, startPa, sizeBytes } of space.table.mappings(start, end)) {
    const from = Math.max(first, start);
    const to = Math.min(first + sizeBytes, end);
    for (let at = from; at < to; at += PAGE_SIZE) {
      const packed = space.host.frames.packedTags(pa(startPa + (at - first)));
      if (packed !== undefined) tags.set(packed, (at - start) / 32);
    }
  }
  return tags;
}

function programHeader(segment: { offset: number; start: number; end: number }): Uint8Array {
  const { offset, start, end } = segment;
  const header = new Uint8Array(PROGRAM_HEADER_BYTES);
  const view = new DataView(header.buffer);
  view.setUint32(0, PT_AARCH64_MEMTAG_MTE, true);
  view.setBigUint64(8, BigInt(offset), true);
  view.setBigUint64(16, BigInt(start), true);
  view.setBigUint64(32, BigInt((end - start) / 32), true);
  view.setBigUint64(40, BigInt(end - start), true);
  return header;
}
