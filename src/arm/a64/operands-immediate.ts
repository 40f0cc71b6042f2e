/**
 * Operand kinds of integer data processing and of load/store addresses whose spelling is not one
 * field: bitmask immediates, `mov` immediates, the bitfield aliases, extended registers, register
 * offsets; and the 8-bit floating-point immediate.
 *
 *   <imm12:h,i>          `4095` or `1, lsl #12` of add and sub; `4096` reads as the latter
 *   <bitmask:s,N,r,i>    logical immediate (s: 1 for 64 bits; immr, imms)
 *   <movz:s,h,i>         `mov` as MOVZ: the 16-bit field i shifted by 16 * h; <movn:…> inverted
 *   <lsl:s,r,i>          shift of `lsl` (UBFM);  <lsr:s,r,i>  of `lsr` and `asr`
 *   <bfiz:s,r,i>         `#lsb, #width` of bfi, ubfiz, sbfiz;  <bfx:s,r,i>  of bfxil, ubfx, sbfx
 *   <extreg:s,o,i,m,n,…> `w2, uxtw #1`: option, amount, Rm; the registers behind are Rn and Rd
 *   <index3:m,o,k>       `x2, lsl #3` in an address: Rm, option<2> and option<0>, S; 3 is log2 of
 *                        the access size
 *   <fpimm:i>            8-bit floating-point immediate, fields abc…h concatenated
 *   <from:64,i>          shows 64 - i: right shifts, fraction bits
 */
import { decodeBitmask, encodeBitmask } from './bitmask.ts';
import { formatNumber, type OperandKind } from './operands.ts';
import { formatRegister, readRegister } from './operands-basic.ts';
import type { Scanner } from './scanner.ts';

/** Reads a number between `min` and `max`, with an optional `#` before it. */
function readBetween(text: Scanner, min: number, max: number): number | undefined {
  text.match(/#/y);
  const start = text.at;
  const value = text.expression();
  if (value === undefined) return undefined;
  if (value >= min && value <= max) return Number(value);
  return text.denyValue(`${value} is outside ${min}..${max}`, start);
}

/** Reads a value of 32 or 64 bits, written signed or unsigned; unsigned. */
function readWide(text: Scanner, width: 32 | 64): bigint | undefined {
  const start = text.at;
  const value = text.expression();
  if (value === undefined) return undefined;
  if (value >= -(1n << BigInt(width - 1)) && value < 1n << BigInt(width)) {
    return BigInt.asUintN(width, value);
  }
  return text.denyValue(`${value} does not fit ${width} bits`, start);
}

const widthOf = (is64: number | undefined): 32 | 64 => (is64 === 1 ? 64 : 32);

const shiftedImm12: OperandKind = {
  print: ([shifted, imm12]) => `${formatNumber(imm12!)}${shifted === 1 ? ', lsl #12' : ''}`,
  parse(text) {
    const value = readBetween(text, 0, 0xfff000);
    if (value === undefined) return undefined;
    const start = text.at;
    if (text.match(/,\s*lsl\s*#?(?=\d)/iy)) {
      const shift = readBetween(text, 0, 12);
      if (value < 4096 && (shift === 0 || shift === 12)) return [shift / 12, value];
      return text.denyValue('a value below 4096 is shifted by 0 or 12', start);
    }
    if (value < 4096) return [0, value];
    if (value % 4096 === 0) return [1, value / 4096];
    return text.denyValue(`${value} is neither below 4096 nor a multiple of it`, start);
  },
};

const bitmask: OperandKind = {
  print([is64, n, immr, imms]) {
    const value = decodeBitmask({ n: n!, immr: immr!, imms: imms! }, is64 === 1);
    return value === undefined ? undefined : formatNumber(value);
  },
  parse(text, form) {
    const start = text.at;
    const is64 = form.known(0) === 1;
    const value = readWide(text, is64 ? 64 : 32);
    if (value === undefined) return undefined;
    const fields = encodeBitmask(value, is64);
    if (fields === undefined) {
      return text.denyValue(`0x${value.toString(16)} is not a bitmask immediate`, start);
    }
    return [undefined, fields.n, fields.immr, fields.imms];
  },
};

/** `mov` of a 16-bit value at a multiple of 16 bits, or of its inverse. */
function moveWide(inverted: boolean): OperandKind {
  const flip = (value: bigint, width: 32 | 64): bigint =>
    inverted ? BigInt.asUintN(width, ~value) : value;
  return {
    print([is64, half, imm16]) {
      const width = widthOf(is64);
      const value = flip(BigInt(imm16!) << BigInt(16 * half!), width);
      return formatNumber(inverted ? BigInt.asIntN(width, value) : value);
    },
    parse(text, form) {
      const start = text.at;
      const width = widthOf(form.known(0));
      const wanted = readWide(text, width);
      if (wanted === undefined) return undefined;
      const value = flip(wanted, width);
      for (let half = 0; half < width / 16; half++) {
        const imm16 = (value >> BigInt(16 * half)) & 0xffffn;
        if (imm16 << BigInt(16 * half) === value) return [undefined, half, Number(imm16)];
      }
      return text.denyValue(`0x${wanted.toString(16)} needs more than one instruction`, start);
    },
  };
}

// ---- bitfields ----------------------------------------------------------------------------------

/** `lsl #n` is UBFM with immr = -n mod width and imms = width - 1 - n. */
const shiftLeft: OperandKind = {
  print([is64, immr, imms]) {
    const width = widthOf(is64);
    const amount = width - 1 - imms!;
    return amount > 0 && (width - amount) % width === immr ? formatNumber(amount) : undefined;
  },
  parse(text, form) {
    const width = widthOf(form.known(0));
    const amount = readBetween(text, 0, width - 1);
    if (amount === undefined) return undefined;
    return [undefined, (width - amount) % width, width - 1 - amount];
  },
};

/** `lsr #n` and `asr #n` have immr = n and imms = width - 1. */
const shiftRight: OperandKind = {
  print: ([is64, immr, imms]) =>
    imms === widthOf(is64) - 1 && immr! <= imms ? formatNumber(immr!) : undefined,
  parse(text, form) {
    const width = widthOf(form.known(0));
    const amount = readBetween(text, 0, width - 1);
    return amount === undefined ? undefined : [undefined, amount, width - 1];
  },
};

/** Reads `lsb, #width` with both inside a register. */
function readBitfield(text: Scanner, width: number): [lsb: number, size: number] | undefined {
  const lsb = readBetween(text, 0, width - 1);
  if (lsb === undefined || !text.token(',')) return undefined;
  const size = readBetween(text, 1, width - lsb);
  return size === undefined ? undefined : [lsb, size];
}

const insert: OperandKind = {
  print([is64, immr, imms]) {
    const width = widthOf(is64);
    if (imms! >= immr! || immr! >= width) return undefined;
    return `${formatNumber((width - immr!) % width)}, #${formatNumber(imms! + 1)}`;
  },
  parse(text, form) {
    const width = widthOf(form.known(0));
    const found = readBitfield(text, width);
    return found && [undefined, (width - found[0]) % width, found[1] - 1];
  },
};

const extract: OperandKind = {
  print([is64, immr, imms]) {
    if (imms! < immr! || imms! >= widthOf(is64)) return undefined;
    return `${formatNumber(immr!)}, #${formatNumber(imms! - immr! + 1)}`;
  },
  parse(text, form) {
    const found = readBitfield(text, widthOf(form.known(0)));
    return found && [undefined, found[0], found[0] + found[1] - 1];
  },
};

// ---- extended registers -------------------------------------------------------------------------

const EXTENDS = ['uxtb', 'uxth', 'uxtw', 'uxtx', 'sxtb', 'sxth', 'sxtw', 'sxtx'];
const UXTW = 2;
const UXTX = 3;

/** Reads `, uxtw #2` behind a register; `lsl` and nothing stand for option `plain`. */
function readExtend(
  text: Scanner,
  plain: number,
): { option: number; amount: number | undefined; written: boolean } | undefined {
  const start = text.at;
  const name = text.match(/,/y) && text.match(/[a-z]+/iy)?.[0].toLowerCase();
  const option = name === 'lsl' ? plain : EXTENDS.indexOf(name ?? '');
  if (option < 0) {
    text.at = start;
    return { option: plain, amount: undefined, written: false };
  }
  if (text.match(/#|(?=\d)/y) === undefined) {
    return name === 'lsl'
      ? text.deny('a shift amount expected here')
      : { option, amount: undefined, written: true };
  }
  const amount = readBetween(text, 0, 4);
  return amount === undefined ? undefined : { option, amount, written: true };
}

/** Whether a 64-bit register is extended. */
const takesX = (option: number): boolean => (option & 3) === UXTX;

const extendedRegister: OperandKind = {
  print([is64, option, amount, m, ...others]) {
    const plain = option === (is64 === 1 ? UXTX : UXTW) && others.includes(31);
    const register = formatRegister(m!, is64 === 1 && takesX(option!), false);
    if (plain) return amount === 0 ? register : `${register}, lsl #${amount}`;
    return `${register}, ${EXTENDS[option!]}${amount === 0 ? '' : ` #${amount}`}`;
  },
  parse(text, form) {
    const start = text.at;
    const is64 = form.known(0) === 1;
    const register = readRegister(text, false);
    const extend = register && readExtend(text, is64 ? UXTX : UXTW);
    if (register === undefined || extend === undefined) return undefined;
    if (register.is64 !== (is64 && takesX(extend.option))) {
      return text.deny('the size of the register does not go with its extension', start);
    }
    return [undefined, extend.option, extend.amount ?? 0, register.number];
  },
};

function indexRegister(log2: number): OperandKind {
  return {
    print([m, option, scaled]) {
      const extend = ((option! & 2) << 1) | 2 | (option! & 1);
      const register = formatRegister(m!, takesX(extend), false);
      const amount = scaled === 1 ? ` #${log2}` : '';
      if (extend !== UXTX) return `${register}, ${EXTENDS[extend]}${amount}`;
      return scaled === 1 ? `${register}, lsl${amount}` : register;
    },
    parse(text) {
      const start = text.at;
      const register = readRegister(text, false);
      const extend = register && readExtend(text, UXTX);
      if (register === undefined || extend === undefined) return undefined;
      const { option, amount } = extend;
      if ((option & 2) === 0 || register.is64 !== takesX(option)) {
        return text.deny('the size of the register does not go with its extension', start);
      }
      if (amount !== undefined && amount !== 0 && amount !== log2) {
        return text.denyValue(`the amount is 0 or ${log2} here`, start);
      }
      const scaled = amount !== undefined && amount === log2;
      return [register.number, ((option >> 1) & 2) | (option & 1), scaled ? 1 : 0];
    },
  };
}

// ---- the rest -----------------------------------------------------------------------------------

/** The value of an 8-bit floating-point immediate. Arm: VFPExpandImm(). */
export function expandFpImmediate(imm8: number): number {
  const exponent = ((imm8 >> 4) & 3) + (imm8 & 0x40 ? -3 : 1);
  const magnitude = ((16 + (imm8 & 15)) / 16) * 2 ** exponent;
  return imm8 & 0x80 ? -magnitude : magnitude;
}

const fpImmediate: OperandKind = {
  print: ([imm8]) => {
    const text = `${expandFpImmediate(imm8!)}`;
    return text.includes('.') ? text : `${text}.0`;
  },
  parse(text) {
    const start = text.at;
    const found = text.match(/[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?(?![\w.])/iy);
    if (found === undefined) return text.deny('a floating-point number expected here');
    const value = Number(found[0]);
    for (let imm8 = 0; imm8 < 256; imm8++) {
      if (expandFpImmediate(imm8) === value) return [imm8];
    }
    return text.denyValue(`${found[0]} is not a floating-point immediate`, start);
  },
};

const from: OperandKind = {
  print: ([base, value]) => formatNumber(base! - value!),
  parse(text, form) {
    const base = form.known(0)!;
    const value = readBetween(text, base - 2 ** form.args[1]!.width + 1, base);
    return value === undefined ? undefined : [undefined, base - value];
  },
};

export const immediateOperands: Readonly<Record<string, OperandKind>> = {
  imm12: shiftedImm12,
  bitmask,
  movz: moveWide(false),
  movn: moveWide(true),
  lsl: shiftLeft,
  lsr: shiftRight,
  bfiz: insert,
  bfx: extract,
  extreg: extendedRegister,
  index0: indexRegister(0),
  index1: indexRegister(1),
  index2: indexRegister(2),
  index3: indexRegister(3),
  index4: indexRegister(4),
  fpimm: fpImmediate,
  from,
};
