/**
 * All rows and aliases, in the order of the Arm ARM's chapters. Everything that is derived from the
 * instruction set starts here: decoder, interpreter, assembler, disassembler, fuzzer, coverage.
 */
import * as branches from './branches.ts';
import * as dataProcessingImmediate from './data-processing-immediate.ts';
import * as dataProcessingRegister from './data-processing-register.ts';
import * as loadsStores from './loads-stores.ts';
import * as mte from './mte.ts';
import type { OperandKind } from './operands.ts';
import type { Alias, Row } from './row.ts';
import * as simd from './simd.ts';
import * as system from './system.ts';

export const rows: readonly Row[] = [
  ...dataProcessingImmediate.rows,
  ...branches.rows,
  ...system.rows,
  ...loadsStores.rows,
  ...dataProcessingRegister.rows,
  ...mte.rows,
  ...simd.rows,
];

export const aliases: readonly Alias[] = [
  ...dataProcessingImmediate.aliases,
  ...system.aliases,
  ...loadsStores.aliases,
  ...dataProcessingRegister.aliases,
  ...mte.aliases,
  ...simd.aliases,
];

/** Operand kinds that belong to one chapter; the shared ones are in `kinds.ts`. */
export const operands: Readonly<Record<string, OperandKind>> = {
  ...loadsStores.operands,
  ...simd.operands,
};
