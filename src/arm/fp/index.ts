/** Arm floating point as pure functions on bits: the public face of `arm/fp`. */
export * from './arith.ts';
export * from './compare.ts';
export * from './convert.ts';
export * from './estimate.ts';
export {
  type FpContext,
  Fpcr,
  type FpSize,
  Fpsr,
  formatOf,
  Rounding,
} from './format.ts';
export * from './operations.ts';
