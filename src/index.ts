/**
 * The package's public face: what a VMM is written with. A host and its processes, KVM, the parts
 * of our own VMM, and an assembler for guests. Each floor also has its own face
 * (`granule/machine`).
 */
export {
  AssemblyError,
  assemble,
  assembleProgram,
  disassemble,
  type Program,
  type ProgramOptions,
  writeElf,
} from './arm/index.ts';
export * from './base/index.ts';
export * from './host/index.ts';
export * from './kvm/index.ts';
export { dramOnly, PhysicalMemory, type Zone } from './machine/index.ts';
export * from './vmm/index.ts';
