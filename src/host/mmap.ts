/**
 * What a process may ask of mmap and mprotect: Linux's constants, and the checks that turn a
 * request into an area's flags and backing. Pure decisions; `address-space.ts` carries them out.
 */
import { alignUp, BLOCK_SIZE, type Hva, isAligned, PAGE_SIZE } from '../base/index.ts';
import { type Backing, VmFlag } from './area.ts';
import { Errno, type Refusal, refuse } from './errno.ts';
import type { MappableFile, ShmemFile } from './file.ts';

/** PROT_* of Linux arm64. */
export const Prot = { none: 0, read: 0x1, write: 0x2, exec: 0x4, mte: 0x20 } as const;

/** MAP_* of Linux arm64, as far as they mean something here. */
export const MapFlag = {
  shared: 0x1,
  private: 0x2,
  fixed: 0x10,
  anonymous: 0x20,
  hugetlb: 0x40000,
  fixedNoReplace: 0x100000,
} as const;

export const Madvise = {
  dontNeed: 4,
  remove: 9,
  mergeable: 12,
  unmergeable: 13,
  pageOut: 21,
} as const;

/** The first address that is not a user's: 48-bit VAs. */
export const TASK_SIZE = 2 ** 48;

export interface MmapRequest {
  /** A hint, or the place itself with MAP_FIXED. */
  readonly address?: Hva;
  readonly length: number;
  /** Bits of `Prot`. */
  readonly prot: number;
  /** Bits of `MapFlag`; one of `shared` and `private`. */
  readonly flags: number;
  readonly file?: MappableFile;
  /** Bytes into the file. */
  readonly offset?: number;
}

/** What a request becomes, its place apart. */
export interface MappingPlan {
  readonly flags: number;
  readonly backing: Backing;
  readonly sizeBytes: number;
}

/** Whether `prot` has only bits that mean something on this host. Linux: arch_validate_prot(). */
export const isValidProtection = (prot: number, mte: boolean): boolean =>
  (prot & ~(Prot.read | Prot.write | Prot.exec | (mte ? Prot.mte : 0))) === 0;

/**
 * The access bits of `prot` as area flags; others are passed over, PROT_MTE among them where there
 * is no MTE. Linux: calc_vm_prot_bits().
 */
export function accessFlags(prot: number, mte: boolean): number {
  return (
    (prot & Prot.read ? VmFlag.read : 0) |
    // A writable page of VMSAv8 is readable.
    (prot & Prot.write ? VmFlag.write | VmFlag.read : 0) |
    (prot & Prot.exec ? VmFlag.exec : 0) |
    (mte && prot & Prot.mte ? VmFlag.mte : 0)
  );
}

/**
 * Checks an mmap and says what to make of it. `anonymousFile` makes the hidden file behind shared
 * anonymous, shared /dev/zero and hugetlb memory. Linux: do_mmap() and arch_validate_flags().
 */
export function planMapping(
  request: MmapRequest,
  host: {
    readonly mte: boolean;
    anonymousFile(sizeBytes: number, hugetlb: boolean): ShmemFile;
  },
): MappingPlan | Refusal {
  const { flags, file, offset = 0 } = request;
  const shared = (flags & MapFlag.shared) !== 0;
  const anonymous = (flags & MapFlag.anonymous) !== 0;
  const hugetlb =
    (flags & MapFlag.hugetlb) !== 0 || (!anonymous && file?.kind === 'shmem' && file.hugetlb);
  if (shared === ((flags & MapFlag.private) !== 0)) return refuse(Errno.EINVAL);
  if (!anonymous && file === undefined) return refuse(Errno.EBADF);
  if (request.length <= 0) return refuse(Errno.EINVAL);
  const pageBytes = hugetlb ? BLOCK_SIZE : PAGE_SIZE;
  const sizeBytes = alignUp(request.length, pageBytes);
  if (sizeBytes > TASK_SIZE) return refuse(Errno.ENOMEM);
  if (!isAligned(offset, pageBytes) || offset < 0) return refuse(Errno.EINVAL);
  if (offset + sizeBytes > Number.MAX_SAFE_INTEGER) return refuse(Errno.EOVERFLOW);
  if (file?.kind === 'device' && !anonymous && offset + sizeBytes > file.sizeBytes) {
    return refuse(Errno.EINVAL);
  }

  // mprotect refuses bits of `prot` that it does not know; mmap never looked at them.
  const access = accessFlags(request.prot, host.mte);
  // What can carry tags: anonymous memory and shared-memory files, not made of hugetlb pages.
  const mteAllowed = host.mte && !hugetlb && (anonymous || file?.kind === 'shmem');
  if ((access & VmFlag.mte) !== 0 && !mteAllowed) return refuse(Errno.EINVAL);
  const device = !anonymous && file?.kind === 'device' ? file : undefined;
  return {
    flags:
      access |
      (shared ? VmFlag.shared : 0) |
      (mteAllowed ? VmFlag.mteAllowed : 0) |
      (hugetlb ? VmFlag.hugetlb : 0) |
      (device === undefined || device.memoryType === 'Normal-WB' ? 0 : VmFlag.pfnMap) |
      (device?.allowAnyUncached === true ? VmFlag.allowAnyUncached : 0),
    backing: backingOf(),
    sizeBytes,
  };

  function backingOf(): Backing {
    if (!anonymous && file?.kind === 'shmem') return { kind: 'shmem', file, offset };
    if (device !== undefined) return { kind: 'device', file: device, offset };
    if (!shared) return { kind: 'anonymous' };
    return { kind: 'shmem', file: host.anonymousFile(sizeBytes, hugetlb), offset: 0 };
  }
}
