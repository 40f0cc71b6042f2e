/** All operand kinds that more than one row file uses, by name. */

import type { OperandKind } from './operands.ts';
import { basicOperands } from './operands-basic.ts';
import { immediateOperands } from './operands-immediate.ts';
import { systemOperands } from './operands-system.ts';
import { vectorOperands } from './operands-vector.ts';
import type { Kinds } from './template.ts';

const shared: Readonly<Record<string, OperandKind>> = {
  ...basicOperands,
  ...immediateOperands,
  ...systemOperands,
  ...vectorOperands,
};

/** Finds the shared kinds and those of `own`, which come first. */
export const kindsWith =
  (own: Readonly<Record<string, OperandKind>> = {}): Kinds =>
  (name) =>
    own[name] ?? shared[name];
