/**
 * What the Arm architecture says, as data and pure functions: the public face of the floor. Engines
 * import `a64/ops.ts` and `a64/table.ts` themselves, which spares them the assembler.
 */
export * from './a64/index.ts';
export * from './descriptor.ts';
export { type ElfSegment, writeElf } from './elf-writer.ts';
export * as fp from './fp/index.ts';
export * from './memattr.ts';
export * from './syndrome.ts';
export * as sysreg from './sysreg/index.ts';
export * from './tag.ts';
