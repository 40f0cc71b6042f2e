/**
 * The A64 instruction set: its table of rows, and what is derived from it as text. Semantics and
 * the operations they are written in (`ops.ts`) are for row files and engines.
 */
export { Assembler, AssemblyError } from './assembler.ts';
export { checkRows, type DecodedRow, Decoder } from './decoder.ts';
export { type Field, fieldOf, type Pattern, parsePattern, withField } from './pattern.ts';
export { assembleProgram, type Program, type ProgramOptions } from './program.ts';
export type { Alias, Row, RowOptions, Semantics } from './row.ts';
export type { Symbols } from './scanner.ts';
export { aliases, rows } from './table.ts';
export { a64Assembler, assemble, disassemble } from './text.ts';
