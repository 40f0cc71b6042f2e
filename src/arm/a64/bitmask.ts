/**
 * Logical (bitmask) immediates: a run of ones, rotated, in an element of 2 to 64 bits, repeated.
 * Pure functions; for the operand kind here and for the semantics of AND, ORR, EOR, ANDS.
 */

const U64 = 64;

/** A field triple of a logical immediate. */
export interface BitmaskFields {
  readonly n: number;
  readonly immr: number;
  readonly imms: number;
}

/**
 * log2 of the element size, or -1 when the encoding is reserved. Arm: HighestSetBit(N:NOT(imms)).
 */
function elementLog2({ n, imms }: BitmaskFields): number {
  const length = 31 - Math.clz32((n << 6) | (~imms & 0x3f));
  const ones = imms & ((1 << length) - 1);
  return length < 1 || ones === (1 << length) - 1 ? -1 : length;
}

/**
 * The 64-bit value (for a 32-bit operation, take its low half), or undefined for a reserved
 * encoding. Arm: DecodeBitMasks() with immediate = TRUE, its wmask.
 */
export function decodeBitmask(fields: BitmaskFields, is64: boolean): bigint | undefined {
  const log2 = elementLog2(fields);
  if (log2 < 0 || (!is64 && fields.n !== 0)) return undefined;
  const size = 1 << log2;
  const ones = (fields.imms & (size - 1)) + 1;
  const rotate = BigInt(fields.immr & (size - 1));
  const run = (1n << BigInt(ones)) - 1n;
  const rotated = BigInt.asUintN(size, (run >> rotate) | (run << (BigInt(size) - rotate)));
  let value = 0n;
  for (let at = 0; at < U64; at += size) value |= rotated << BigInt(at);
  return is64 ? value : BigInt.asUintN(32, value);
}

/**
 * The encoding of a value (unsigned, of the operation's width), or undefined when there is none.
 */
export function encodeBitmask(value: bigint, is64: boolean): BitmaskFields | undefined {
  const whole = is64 ? value : value | (value << 32n);
  let size = 64;
  while (size > 2) {
    const half = BigInt(size / 2);
    const mask = (1n << half) - 1n;
    if ((whole & mask) !== ((whole >> half) & mask)) break;
    size /= 2;
  }
  const element = BigInt.asUintN(size, whole);
  if (element === 0n || element === (1n << BigInt(size)) - 1n) return undefined;
  const text = element.toString(2).padStart(size, '0');
  const ones = text.replaceAll('0', '').length;
  // The run starts at bit `low` of the element: rotating a run at bit 0 right by size - low.
  const doubled = text + text;
  const end = doubled.indexOf('1'.repeat(ones));
  if (end < 0) return undefined;
  const low = (2 * size - end - ones) % size;
  return {
    n: size === 64 ? 1 : 0,
    immr: (size - low) % size,
    imms: ((~(size * 2 - 1) & 0x3f) | (ones - 1)) & 0x3f,
  };
}
