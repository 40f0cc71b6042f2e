/**
 * One table row per A64 encoding: bit pattern, assembly syntax, feature, semantics. From the rows
 * come the decoder, the interpreter and translator, the assembler, the disassembler, the fuzzer and
 * the coverage table. Row files are named after the Arm ARM's chapters.
 *
 * ## Pattern
 * 32 characters, most significant bit first, blanks ignored: `0`, `1`; `x` a bit that is ignored;
 * a letter for a bit of the field of that name. A field may be split over the word (its bits
 * concatenate from left to right). By habit: d n m a t registers, u = Rt2, s = sf, q = Q, z = size,
 * i j k immediates, c condition.
 *
 * ## Splits
 * `split: 's q n=31'`: the interpreter makes a handler for every value of field s and of q, and one
 * more for n = 31, so semantics may ask `b.fixed('s')`, `b.is31('n')`. Split fields that decide
 * widths or operations; do not split registers or immediates. Keep to at most 64 handlers a row.
 *
 * ## Syntax
 * Lower case text as the GNU assembler writes it, with operands in angle brackets,
 * `<kind:letters>`:
 *
 *   <X:d> <W:d>            general register, 31 = xzr/wzr       <X|SP:n> <W|SP:n>  31 = sp/wsp
 *   <R:s,d> <R|SP:s,n>     X when field s is 1, else W
 *   <B:t> <H:t> <S:t> <D:t> <Q:t> <V:n>   SIMD&FP register; `<V:d>.16b` is text after it
 *   <F:y,d>                scalar FP register by ftype y (00 s, 01 d, 11 h)
 *   <VT:q,z,d>             vector with arrangement by Q and size: 8b 16b 4h 8h 2s 4s 1d 2d
 *   <VF:q,y,d>             the same for FP by Q and the one-bit sz: 2s 4s 2d
 *   <u:i> <s:i>            unsigned, signed immediate; `<u:i*8>` scaled; `<u:i+1>` offset
 *   <label:i*4> <page:ij>  PC-relative target (adr, b, ldr literal; adrp)
 *   <cond:c> <icond:c>     condition and its inverse (cset)
 *   {…}                    optional: left out when every field in it is 0 (or the default that its
 *                          operand kind names)
 *   anything else          a special operand kind, defined in `operands.ts` or in the row file's
 *                          exported `operands` (see `OperandKind` there)
 *
 * An alias has the same form and no semantics: the assembler accepts it, the disassembler prefers
 * it. `refines` names a row whose pattern contains this one's: the decoder then prefers this row.
 */
import type { Ops } from './ops.ts';

export type Semantics = (b: Ops) => void;

export interface RowOptions {
  /** Space-separated fields, or `field=31`, to make handlers for; see the file head. */
  readonly split?: string;
  /** FEAT_ name when not part of Armv8.0. */
  readonly feature?: `FEAT_${string}`;
  /** Traps when CPACR_EL1.FPEN does not allow FP and SIMD. */
  readonly fp?: boolean;
  /** Name of a row whose encodings this row takes a part of. */
  readonly refines?: string;
  /** UNDEFINED where this says so at decode time (reserved field combinations). */
  readonly reserved?: (field: (letter: string) => number) => boolean;
}

export interface Row extends RowOptions {
  readonly name: string;
  readonly pattern: string;
  readonly syntax: string;
  readonly semantics: Semantics;
}

export interface Alias {
  readonly name: string;
  readonly pattern: string;
  readonly syntax: string;
  /** The alias is only preferred (and only assembled) where this holds. */
  readonly when?: (field: (letter: string) => number) => boolean;
}

/** A row of the table. */
export function row(
  name: string,
  pattern: string,
  syntax: string,
  semantics: Semantics,
  options: RowOptions = {},
): Row {
  return { name, pattern: pattern.replaceAll(' ', ''), syntax, semantics, ...options };
}

/** Another spelling of encodings that rows define. */
export function alias(
  name: string,
  pattern: string,
  syntax: string,
  when?: (field: (letter: string) => number) => boolean,
): Alias {
  const plain = { name, pattern: pattern.replaceAll(' ', ''), syntax };
  return when === undefined ? plain : { ...plain, when };
}
