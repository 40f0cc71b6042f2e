/**
 * Writes docs/coverage.md from the instruction table: what this CPU has, and every row with its
 * pattern. `coverage.test.ts` checks that the file is what this makes, and with `-u` renews it.
 */

import { rows as atomics } from '../src/arm/a64/atomics.ts';
import { rows as branches } from '../src/arm/a64/branches.ts';
import { rows as crypto } from '../src/arm/a64/crypto.ts';
import { rows as dataProcessingImmediate } from '../src/arm/a64/data-processing-immediate.ts';
import { rows as dataProcessingRegister } from '../src/arm/a64/data-processing-register.ts';
import { rows as fpConversion } from '../src/arm/a64/fp-conversion.ts';
import { rows as fpDataProcessing } from '../src/arm/a64/fp-data-processing.ts';
import { Decoder, type Row } from '../src/arm/a64/index.ts';
import { rows as loadsStoresExclusive } from '../src/arm/a64/loads-stores-exclusive.ts';
import { rows as loadsStoresPair } from '../src/arm/a64/loads-stores-pair.ts';
import { rows as loadsStoresRegister } from '../src/arm/a64/loads-stores-register.ts';
import { rows as loadsStoresSimd } from '../src/arm/a64/loads-stores-simd.ts';
import { rows as mte } from '../src/arm/a64/mte.ts';
import { rows as simdByElement } from '../src/arm/a64/simd-by-element.ts';
import { rows as simdCopy } from '../src/arm/a64/simd-copy.ts';
import { rows as simdImmediate } from '../src/arm/a64/simd-immediate.ts';
import { rows as simdShiftImmediate } from '../src/arm/a64/simd-shift-immediate.ts';
import { rows as simdThreeDifferent } from '../src/arm/a64/simd-three-different.ts';
import { rows as simdThreeSame } from '../src/arm/a64/simd-three-same.ts';
import { rows as simdThreeSameFp } from '../src/arm/a64/simd-three-same-fp.ts';
import { rows as simdTwoRegister } from '../src/arm/a64/simd-two-register.ts';
import { rows as simdTwoRegisterFp } from '../src/arm/a64/simd-two-register-fp.ts';
import { rows as system } from '../src/arm/a64/system.ts';
import { features } from '../src/arm/sysreg/index.ts';

/** The Arm ARM's chapters, as far as there are rows. */
export const chapters: readonly (readonly [title: string, rows: readonly Row[]])[] = [
  ['Data processing, immediate', dataProcessingImmediate],
  ['Branches and exception generation', branches],
  ['System instructions', system],
  ['Loads and stores: one register', loadsStoresRegister],
  ['Loads and stores: pairs', loadsStoresPair],
  ['Loads and stores: exclusive and ordered', loadsStoresExclusive],
  ['Loads and stores: SIMD and floating point', loadsStoresSimd],
  ['Atomics', atomics],
  ['Data processing, register', dataProcessingRegister],
  ['Memory tagging', mte],
  ['Floating point: data processing', fpDataProcessing],
  ['Floating point: conversion', fpConversion],
  ['Advanced SIMD: copies', simdCopy],
  ['Advanced SIMD: modified immediate', simdImmediate],
  ['Advanced SIMD: three registers, same type', simdThreeSame],
  ['Advanced SIMD: three registers, floating point', simdThreeSameFp],
  ['Advanced SIMD: three registers, different types', simdThreeDifferent],
  ['Advanced SIMD: two registers, pairwise, across lanes, permutations', simdTwoRegister],
  ['Advanced SIMD: two registers, floating point', simdTwoRegisterFp],
  ['Advanced SIMD: shift by immediate', simdShiftImmediate],
  ['Advanced SIMD: by element', simdByElement],
  ['Cryptography', crypto],
];

const HEAD = `# Instructions covered

Made from the rows of \`src/arm/a64\` by \`tools/coverage.ts\`; do not edit. Each row is one encoding: the decoder,
the interpreter, the assembler, the disassembler and the tests are made from it. In a pattern 0 and 1 are fixed, \`x\` is
ignored, and letters are fields; [row.ts](../src/arm/a64/row.ts) explains the syntax. An opcode that no row has is
UNDEFINED. A *handler* is what the interpreter has for a row: several where fields decide widths or operations.
`;

/** The text of docs/coverage.md. */
export function coverageDocument(): string {
  return `${[HEAD, cpuSection(), overview(), ...chapters.map(chapterSection)].join('\n')}`;
}

const table = (head: readonly string[], rows: readonly (readonly (string | number)[])[]): string =>
  [head, head.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |\n`).join('');

const code = (text: string): string => `\`${text.replaceAll('|', '\\|')}\``;

/** Words in indented lines of up to 100 columns. */
const wrap = (words: readonly string[]): string =>
  words
    .join(' ')
    .replace(/(.{1,90})(?: |$)/g, '$1\n    ')
    .trimEnd();

/** What the ID registers advertise. */
function cpuSection(): string {
  const has = Object.entries(features);
  const named = has.filter(([, value]) => value === true).map(([name]) => name);
  const sizes = has.filter(([, value]) => typeof value === 'number');
  return `## The CPU

Armv8-A, EL0 and EL1, AArch64 only. Its ID registers advertise:

    ${wrap(named)}

${table(
  ['size', 'value'],
  sizes.map(([name, value]) => [name, `${value}`]),
)}`;
}

function overview(): string {
  const lines = chapters.map(([title, rows]) => [title, rows.length, handlerCount(rows)]);
  const all = chapters.flatMap(([, rows]) => rows);
  const total = ['all', all.length, handlerCount(all)];
  return `## Chapters\n\n${table(['chapter', 'rows', 'handlers'], [...lines, total])}`;
}

const handlerCount = (rows: readonly Row[]): number => new Decoder(rows).variantCount;

function chapterSection([title, rows]: readonly [string, readonly Row[]]): string {
  const lines = rows.map(({ name, syntax, feature, pattern }) => [
    name,
    code(syntax),
    feature ?? '',
    code(pattern),
  ]);
  return `## ${title}\n\n${table(['row', 'syntax', 'feature', 'pattern'], lines)}`;
}
