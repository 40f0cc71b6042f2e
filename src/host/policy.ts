/**
 * The choices a host has where kernels differ, as values with names; `linux` is the default and
 * what upstream Linux 6.12 does. The mechanisms ask the policy; nothing else decides by experiment.
 */

/**
 * When the tags of a page that was swapped out come back.
 *
 * - `restore-at-swap-in` (Linux since 6.5): with the data, before any table shows the page.
 * - `restore-when-mapped` (Linux 5.14 to 6.4): when a table entry is written, whoever's; every
 *   write of an entry has to look.
 * - `restore-through-prot-mte-only` (Linux 5.10 to 5.13): when a PROT_MTE entry is written. The
 *   tags of a guest whose VMM has no PROT_MTE mapping are lost.
 * - `drop`: never; what happens without the hooks in the swap code.
 *
 * Pages of shared-memory files come back with their tags under all but `drop`: Linux restored them
 * at swap-in from the beginning.
 */
export type SwapTags =
  | 'restore-at-swap-in'
  | 'restore-when-mapped'
  | 'restore-through-prot-mte-only'
  | 'drop';

/** What a `SwapTags` means to the mechanisms. */
export interface SwapTagRules {
  /** The tags of an anonymous page come back when an area with or without PROT_MTE faults it in. */
  restores(protMte: boolean): boolean;
  /** A shared-memory file's page comes back with its tags. */
  readonly restoresFiles: boolean;
  /** A write of a table entry looks for saved tags. */
  looks(protMte: boolean): boolean;
}

export const SWAP_TAG_RULES: Readonly<Record<SwapTags, SwapTagRules>> = {
  'restore-at-swap-in': { restores: () => true, restoresFiles: true, looks: () => false },
  'restore-when-mapped': { restores: () => true, restoresFiles: true, looks: () => true },
  'restore-through-prot-mte-only': {
    restores: (protMte) => protMte,
    restoresFiles: true,
    looks: (protMte) => protMte,
  },
  drop: { restores: () => false, restoresFiles: false, looks: () => false },
};

export interface HostPolicy {
  readonly name: string;
  /**
   * Whether a first touch of anonymous memory takes a whole 2 MiB page where the area has room for
   * it. Linux: /sys/kernel/mm/transparent_hugepage/enabled.
   */
  readonly transparentHugePages: 'always' | 'never';
  readonly swapTags: SwapTags;
  /**
   * How a debugger's call for tags takes an address with a tag in its top byte, and no tags asked
   * for: refused with EIO and EFAULT (6.12), or ignored and refused with EIO (6.1).
   */
  readonly ptraceMteTags: '6.12' | '6.1';
}

/** Upstream Linux 6.12 as Debian configures it. */
export const linux: HostPolicy = {
  name: 'linux',
  transparentHugePages: 'always',
  swapTags: 'restore-at-swap-in',
  ptraceMteTags: '6.12',
};

/** Linux 6.1, in what a process can see; its stable releases restore tags as 6.12 does. */
export const linux61Host: HostPolicy = { ...linux, name: 'linux-6.1', ptraceMteTags: '6.1' };

/** Linux with transparent huge pages off: everything but hugetlb is mapped by 4 KiB pages. */
export const smallPages: HostPolicy = {
  ...linux,
  name: 'small-pages',
  transparentHugePages: 'never',
};
