/**
 * The ways tags travel, as named policies. A `TagReader` gets a guest's tags at the source, a
 * `TagWriter` puts them in at the destination; both work in packed tags (128 bytes a page), the
 * form of the wire, and count what they cost. All policies end with the same tags:
 *
 *     ioctl         KVM_ARM_MTE_COPY_TAGS, one byte a tag granule, in ranges or page by page
 *     dual-mapping  guest RAM is a memfd that the VMM maps twice, once PROT_MTE: it reads and
 *                   writes tags itself through the second mapping
 *     dirty-log     the hypervisor keeps the tags of a page from the moment it is cleaned in the
 *                   dirty log until the guest writes to it again (kvm/tag-log.ts); a page that was
 *                   is not sent now, since its next turn has come already
 *
 * Order matters and is the caller's: a page is cleaned in the dirty log before its data and tags
 * are read, so that whatever races with the reading sends it again.
 */
import type { GuestRam } from './guest-ram.ts';
import type { Time } from './link.ts';
import { MigrationError } from './migration-error.ts';
import type { TagPolicy } from './tag-policies.ts';
import { noTagCost, type TagReader, type TagWriter } from './tag-transfer.ts';
import { LoggedTagReader } from './tags-dirty-log.ts';
import { DualMappingTagReader, DualMappingTagWriter } from './tags-dual-mapping.ts';
import { IoctlTagReader, IoctlTagWriter } from './tags-ioctl.ts';

export interface TagOptions {
  readonly policy: TagPolicy;
  /** Pages a call of `ioctl` copies at most; 1: page by page. */
  readonly pagesPerCall?: number;
}

/**
 * The reader of a policy. Throws `MigrationError` 'machine' where the machine is not made for it.
 */
export function tagReader(ram: GuestRam, options: TagOptions, time: Time): TagReader {
  if (!ram.mte) return UNTAGGED;
  switch (options.policy) {
    case 'ioctl':
      return new IoctlTagReader(ram, options, time);
    case 'dual-mapping':
      requireSecondMapping(ram);
      return new DualMappingTagReader(ram, time);
    case 'dirty-log':
      return new LoggedTagReader(ram, time);
  }
}

/** The writer that goes with a policy; what the log is at the source is the ioctl here. */
export function tagWriter(ram: GuestRam, options: TagOptions, time: Time): TagWriter {
  if (!ram.mte) return UNTAGGED;
  if (options.policy !== 'dual-mapping') return new IoctlTagWriter(ram, options, time);
  requireSecondMapping(ram);
  return new DualMappingTagWriter(ram, time);
}

function requireSecondMapping({ ranges }: GuestRam): void {
  if (ranges.every(({ taggedHva }) => taggedHva !== undefined)) return;
  throw new MigrationError(
    'machine',
    'tags dual-mapping needs guest memory that is mapped twice: start the machine with --memory memfd',
  );
}

/** A guest without MTE: there are no tags, and none may come. */
const UNTAGGED: TagReader & TagWriter = {
  get cost() {
    return noTagCost();
  },
  read: (_span, packed) => void packed.fill(0),
  write: (_span, packed) => {
    if (packed.some((byte) => byte !== 0)) {
      throw new MigrationError('protocol', 'tags for a guest without MTE');
    }
  },
  close: () => {},
};
