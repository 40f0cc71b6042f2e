/**
 * The engine's public face: an interpreter over a linear memory, its record pages, and the layouts
 * (as namespaces) of what it shares with TypeScript. Used by `machine/`.
 */
export { decoder, type EngineHooks, instantiateInterpreter } from './interpreter.ts';
export * as layout from './layout.ts';
export { decodeSlowAccess, type SlowAccess } from './memory-access.ts';
export { Records } from './records.ts';
export * as state from './state.ts';
export * as tlb from './tlb.ts';
