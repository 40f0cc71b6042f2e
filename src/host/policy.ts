/**
 * The choices a host has where kernels differ, as values with names; `linux` is the default and
 * what upstream Linux 6.12 does. The mechanisms ask the policy; nothing else decides by experiment.
 */

export interface HostPolicy {
  readonly name: string;
  /**
   * Whether a first touch of anonymous memory takes a whole 2 MiB page where the area has room for
   * it. Linux: /sys/kernel/mm/transparent_hugepage/enabled.
   */
  readonly transparentHugePages: 'always' | 'never';
}

/** Upstream Linux 6.12 as Debian configures it. */
export const linux: HostPolicy = { name: 'linux', transparentHugePages: 'always' };

/** Linux with transparent huge pages off: everything but hugetlb is mapped by 4 KiB pages. */
export const smallPages: HostPolicy = { name: 'small-pages', transparentHugePages: 'never' };
