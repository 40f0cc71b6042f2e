/** The assembler and the disassembler of the whole A64 table, made on first use. */
import { Assembler } from './assembler.ts';
import { Disassembler } from './disassembler.ts';
import { Forms } from './form.ts';
import { kindsWith } from './kinds.ts';
import type { Symbols } from './scanner.ts';
import { aliases, operands, rows } from './table.ts';

let sharedForms: Forms | undefined;
let sharedAssembler: Assembler | undefined;
let sharedDisassembler: Disassembler | undefined;

/** Rows and aliases of the whole table as forms of text. */
export function a64Forms(): Forms {
  sharedForms ??= new Forms({ rows, aliases, kinds: kindsWith(operands) });
  return sharedForms;
}

/** The assembler of the whole table. */
export function a64Assembler(): Assembler {
  sharedAssembler ??= new Assembler(a64Forms());
  return sharedAssembler;
}

/** The word of one instruction at address `pc`. Throws AssemblyError with reason and text. */
export const assemble = (line: string, pc = 0n, symbols?: Symbols): number =>
  a64Assembler().assemble(line, pc, symbols);

/** The text of an instruction word at address `pc`, or undefined when it is unallocated. */
export function disassemble(word: number, pc = 0n): string | undefined {
  sharedDisassembler ??= new Disassembler(a64Forms());
  return sharedDisassembler.disassemble(word, pc);
}
