/**
 * The loads-and-stores chapter: collects the rows, aliases and operand kinds of its groups, which
 * are in `loads-stores-*.ts` and `atomics.ts`; MTE is a chapter of its own (`mte.ts`). Read by
 * `table.ts`.
 */
import * as atomics from './atomics.ts';
import * as exclusive from './loads-stores-exclusive.ts';
import * as pair from './loads-stores-pair.ts';
import * as register from './loads-stores-register.ts';
import * as simd from './loads-stores-simd.ts';
import type { Alias, Row } from './row.ts';

export const rows: Row[] = [
  ...register.rows,
  ...pair.rows,
  ...exclusive.rows,
  ...simd.rows,
  ...atomics.rows,
];

export const aliases: Alias[] = [...exclusive.aliases, ...atomics.aliases];

export const { operands } = simd;
