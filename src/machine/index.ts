/** The machine's public face: memory, translation tables, the walker, and the core that runs. */
export { type ContextOptions, CpuContext, type Hypervisor, slotIndex } from './context.ts';
export { Core, type CoreExit } from './core.ts';
export { exceptionReturn, takeAbort, takeException, Vector } from './exceptions.ts';
export { loadStoreSyndrome } from './load-store-syndrome.ts';
export { DRAM_BASE, dramOnly, type NoTagsBehaviour, PhysicalMemory, type Zone } from './memory.ts';
export {
  type Access,
  AccessKind,
  DEFAULT_MMU_FEATURES,
  type FaultRecord,
  FaultType,
  Mmu,
  type MmuFeatures,
  newTranslation,
  parFromTranslation,
  type Stage1Registers,
  type Stage2Registers,
  type Translation,
} from './mmu.ts';
export { packPstate, unpackPstate } from './pstate.ts';
export {
  type InputRange,
  type Leaf,
  type MapRequest,
  PageTable,
  type TableAllocator,
} from './tables.ts';
