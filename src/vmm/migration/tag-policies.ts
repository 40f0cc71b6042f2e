/**
 * The names of the ways tags travel, apart from what they do (`tags.ts`), so that a command line
 * can be read without loading a machine.
 */
export const TAG_POLICIES = ['ioctl', 'dual-mapping', 'dirty-log'] as const;
export type TagPolicy = (typeof TAG_POLICIES)[number];
