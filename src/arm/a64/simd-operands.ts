/**
 * Operand kinds of the SIMD and floating-point chapters beside the shared ones (`kinds.ts`):
 *
 *   <FZ:z,d>   scalar register by size: b h s d        <FZW:z,d>  twice as wide: h s d
 *   <VW:z,d>   wide vector by the narrow size: 8h 4s 2d 1q
 *   <VP:q,z,d> half as many, twice as wide: 4h 2s 1d, 8h 4s 2d
 *   <V2:y,n>   pair of a scalar pairwise operation: 2s 2d
 *   <VFW:y,d>  wide side of a format conversion: 4s 2d; <VFN:q,y,n> its narrow side: 4h 2s, 8h 4s
 *   <V16:m>    one of v0 … v15, as 16-bit elements by index need
 *   <shll:z>   the bits of an element, as a shift amount
 *   <byte8:i>  64-bit immediate whose bytes are 0 or 255, one bit for each
 */
import { choice, formatNumber, type OperandKind } from './operands.ts';
import { readVectorRegister, scalarBy } from './operands-basic.ts';
import { arrangements, vectorBy } from './operands-vector.ts';

/** The 64-bit value of an 8-bit mask of bytes. */
function expandBytes(mask: number): bigint {
  let value = 0n;
  for (let i = 0; i < 8; i++) if ((mask >> i) & 1) value |= 0xffn << BigInt(8 * i);
  return value;
}

const byteMask: OperandKind = {
  print: ([mask]) => formatNumber(expandBytes(mask!)),
  parse(text) {
    const start = text.at;
    const value = text.expression();
    if (value === undefined) return undefined;
    for (let mask = 0; mask < 256; mask++) {
      if (expandBytes(mask) === BigInt.asUintN(64, value)) return [mask];
    }
    return text.deny('every byte of the immediate is 0 or 0xff', start);
  },
};

/** A register that four bits name. */
const lowRegister: OperandKind = {
  print: ([number]) => `v${number}`,
  parse(text) {
    const start = text.at;
    const number = readVectorRegister(text, 'v');
    if (number === undefined) return undefined;
    return number < 16 ? [number] : text.denyValue(`v${number} is outside v0..v15`, start);
  },
};

export const operands: Readonly<Record<string, OperandKind>> = {
  FZ: scalarBy(['b', 'h', 's', 'd']),
  FZW: scalarBy(['h', 's', 'd', undefined]),
  VW: vectorBy(arrangements('8h 4s 2d 1q')),
  VP: vectorBy(arrangements('4h 2s 1d ? 8h 4s 2d ?')),
  V2: vectorBy(arrangements('2s 2d')),
  VFW: vectorBy(arrangements('4s 2d')),
  VFN: vectorBy(arrangements('4h 2s 8h 4s')),
  V16: lowRegister,
  shll: choice(['8', '16', '32']),
  byte8: byteMask,
};
