/**
 * What an abort needs to know of the load or store that caused it, read from its opcode: element
 * sizes for alignment, and the instruction syndrome (ISV) for MMIO. Arm: LSInstructionSyndrome().
 */
import type { LoadStoreSyndrome } from '../arm/syndrome.ts';

const bits = (word: number, hi: number, lo: number): number =>
  (word >>> lo) & ((1 << (hi - lo + 1)) - 1);

/** Bytes that each element of the access of `bytes` in all must be aligned to, when it must. */
export function elementBytes(opcode: number, bytes: number): number {
  // Load/store pair: opc 31:30, V 26. Two elements.
  const isPair = bits(opcode, 29, 27) === 0b101 && bits(opcode, 25, 25) === 0;
  if (isPair) return bytes / 2;
  // Advanced SIMD structures: bytes of an element by size, lane forms by opcode and size.
  const isStructure = bits(opcode, 31, 31) === 0 && bits(opcode, 29, 25) === 0b00110;
  if (isStructure) return structureElementBytes(opcode);
  return bytes;
}

function structureElementBytes(opcode: number): number {
  const size = bits(opcode, 11, 10);
  if (bits(opcode, 24, 24) === 0) return 1 << size;
  // Single structure: opcode<2:1> gives the scale, 3 replicates elements of `size`.
  const scale = bits(opcode, 15, 14);
  if (scale === 3) return 1 << size;
  if (scale === 2 && (size & 1) === 1) return 8;
  return 1 << scale;
}

/**
 * ISV, SAS, SSE, SRT, SF and AR of a load or store of one general-purpose register without
 * writeback; undefined where the architecture reports ISV = 0.
 */
export function loadStoreSyndrome(opcode: number): LoadStoreSyndrome | undefined {
  // Load-acquire, store-release (not exclusive): size 001000 1 L 0 Rs o0 …
  if (
    bits(opcode, 29, 24) === 0b001000 &&
    bits(opcode, 23, 23) === 1 &&
    bits(opcode, 21, 21) === 0
  ) {
    const sas = bits(opcode, 31, 30);
    return { sas, sse: false, srt: bits(opcode, 4, 0), sf: sas === 3, ar: true };
  }
  // LDAPR: size 111000 101 11111 1 100 00 …
  if (bits(opcode, 29, 21) === 0b111000101 && bits(opcode, 15, 10) === 0b110000) {
    const sas = bits(opcode, 31, 30);
    return { sas, sse: false, srt: bits(opcode, 4, 0), sf: sas === 3, ar: true };
  }
  // LDR (literal), LDRSW (literal): opc 011 V 00 …
  if (bits(opcode, 29, 24) === 0b011000 && bits(opcode, 31, 30) !== 3) {
    const opc = bits(opcode, 31, 30);
    const sas = opc === 1 ? 3 : 2;
    return { sas, sse: opc === 2, srt: bits(opcode, 4, 0), sf: opc !== 0, ar: false };
  }
  // Load/store register: size 111 V 0x …
  if (bits(opcode, 29, 27) !== 0b111 || bits(opcode, 26, 26) === 1 || bits(opcode, 25, 25) === 1) {
    return unscaledOrdered(opcode);
  }
  const unsignedOffset = bits(opcode, 24, 24) === 1;
  const form = bits(opcode, 11, 10);
  if (!unsignedOffset) {
    const register = bits(opcode, 21, 21) === 1;
    // Unscaled (00) and unprivileged (10) have no writeback; register offset is 21 = 1, form 10.
    if (register ? form !== 0b10 : form !== 0b00 && form !== 0b10) return undefined;
  }
  return plain(opcode);
}

/** LDAPUR and STLUR: size 011001 opc 0 imm9 00. */
function unscaledOrdered(opcode: number): LoadStoreSyndrome | undefined {
  if (
    bits(opcode, 29, 24) !== 0b011001 ||
    bits(opcode, 21, 21) === 1 ||
    bits(opcode, 11, 10) !== 0
  ) {
    return undefined;
  }
  const access = plain(opcode);
  return access && { ...access, ar: true };
}

function plain(opcode: number): LoadStoreSyndrome | undefined {
  const sas = bits(opcode, 31, 30);
  const opc = bits(opcode, 23, 22);
  // PRFM.
  if (sas === 3 && opc === 2) return undefined;
  const sse = opc >= 2;
  const sf = sse ? opc === 2 : sas === 3;
  return { sas, sse, srt: bits(opcode, 4, 0), sf, ar: false };
}
