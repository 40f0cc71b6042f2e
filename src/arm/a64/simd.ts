/** All rows of the Advanced SIMD and floating-point chapters, but for loads and stores. */
import * as crypto from './crypto.ts';
import * as fpConversion from './fp-conversion.ts';
import * as fpDataProcessing from './fp-data-processing.ts';
import type { Alias, Row } from './row.ts';
import * as byElement from './simd-by-element.ts';
import * as copy from './simd-copy.ts';
import * as immediate from './simd-immediate.ts';
import * as shiftImmediate from './simd-shift-immediate.ts';
import * as threeDifferent from './simd-three-different.ts';
import * as threeSame from './simd-three-same.ts';
import * as threeSameFp from './simd-three-same-fp.ts';
import * as twoRegister from './simd-two-register.ts';
import * as twoRegisterFp from './simd-two-register-fp.ts';

export { operands } from './simd-operands.ts';

export const rows: Row[] = [
  ...fpDataProcessing.rows,
  ...fpConversion.rows,
  ...copy.rows,
  ...immediate.rows,
  ...threeSame.rows,
  ...threeSameFp.rows,
  ...threeDifferent.rows,
  ...twoRegister.rows,
  ...twoRegisterFp.rows,
  ...shiftImmediate.rows,
  ...byElement.rows,
  ...crypto.rows,
];

export const aliases: Alias[] = [
  ...threeSame.aliases,
  ...twoRegister.aliases,
  ...shiftImmediate.aliases,
  ...copy.aliases,
];
