/**
 * Rows of "Data processing - immediate": PC-relative, add/subtract, logical, move wide, bitfield,
 * extract.
 */
import {
  addFlags,
  logicFlags,
  readReg,
  readRegSp,
  same,
  subFlags,
  writeReg,
  writeRegSp,
} from './arithmetic.ts';
import { decodeBitmask } from './bitmask.ts';
import type { Int, Ops } from './ops.ts';
import { type Alias, alias, type Row, row } from './row.ts';

const immediate12 = (b: Ops): Int => {
  const value = b.imm('i', 12 * b.fixed('h'));
  return b.fixed('s') === 1 ? value : b.wrap(value);
};

type Fields = (letter: string) => number;
const reservedBitmask = (f: Fields): boolean =>
  decodeBitmask({ n: f('k'), immr: f('r'), imms: f('i') }, f('s') === 1) === undefined;

const maskImmediate = (b: Ops): Int => (b.fixed('s') === 1 ? b.bitmask() : b.wrap(b.bitmask()));

/** Rows AND, ORR, EOR with an immediate write SP; ANDS writes ZR. */
function logical(name: string, opc: string, combine: (b: Ops, x: Int, y: Int) => Int): Row {
  const flags = opc === '11';
  const target = flags ? '<R:s,d>' : '<R|SP:s,d>';
  return row(
    `${name.toUpperCase()}_imm`,
    `s ${opc} 100100 k rrrrrr iiiiii nnnnn ddddd`,
    `${name} ${target}, <R:s,n>, #<bitmask:s,k,r,i>`,
    (b) => {
      const result = b.let(combine(b, readReg(b, 'n'), maskImmediate(b)));
      if (!flags) {
        writeRegSp(b, 'd', result);
        return;
      }
      logicFlags(b, result);
      writeReg(b, 'd', result);
    },
    { split: 's', reserved: reservedBitmask },
  );
}

/** 16 × hw must lie inside the register. */
const reservedHalf = (f: Fields): boolean => f('s') === 0 && f('h') > 1;

/**
 * Bits s:0 moved to the top, then down: `(x << (w - 1 - s)) >> (r - s - 1)` is the bitfield both
 * where it moves right (s >= r) and left, as shift amounts are taken modulo the width.
 */
function bitfield(b: Ops, x: Int, signed: boolean): Int {
  const wide = b.fixed('s') === 1;
  const s: Int = wide ? b.imm('i') : b.field('i');
  const r: Int = wide ? b.imm('r') : b.field('r');
  const up = b.shl(x, b.sub(same(b, x, wide ? 63 : 31), s));
  const down = b.sub(b.sub(r, s), same(b, x, 1));
  return signed ? b.shrS(up, down) : b.shrU(up, down);
}

const reservedBitfield = (f: Fields): boolean =>
  f('k') !== f('s') || (f('s') === 0 && (f('i') > 31 || f('r') > 31));

const BITFIELD = 'rrrrrr iiiiii nnnnn ddddd';

export const rows: Row[] = [
  row('ADR', '0 ii 10000 jjjjjjjjjjjjjjjjjjj ddddd', 'adr <X:d>, <label:ji>', (b) => {
    b.setX('d', b.add(b.pc(), b.or(b.simm('j', 2), b.imm('i'))));
  }),
  row('ADRP', '1 ii 10000 jjjjjjjjjjjjjjjjjjj ddddd', 'adrp <X:d>, <page:ji>', (b) => {
    const offset = b.or(b.simm('j', 14), b.imm('i', 12));
    b.setX('d', b.add(b.and(b.pc(), b.i64(-4096)), offset));
  }),
  row(
    'ADD_imm',
    's 0 0 100010 h iiiiiiiiiiii nnnnn ddddd',
    'add <R|SP:s,d>, <R|SP:s,n>, #<imm12:h,i>',
    (b) => writeRegSp(b, 'd', b.add(readRegSp(b, 'n'), immediate12(b))),
    { split: 's h' },
  ),
  row(
    'ADDS_imm',
    's 0 1 100010 h iiiiiiiiiiii nnnnn ddddd',
    'adds <R:s,d>, <R|SP:s,n>, #<imm12:h,i>',
    (b) => writeReg(b, 'd', addFlags(b, readRegSp(b, 'n'), immediate12(b))),
    { split: 's h' },
  ),
  row(
    'SUB_imm',
    's 1 0 100010 h iiiiiiiiiiii nnnnn ddddd',
    'sub <R|SP:s,d>, <R|SP:s,n>, #<imm12:h,i>',
    (b) => writeRegSp(b, 'd', b.sub(readRegSp(b, 'n'), immediate12(b))),
    { split: 's h' },
  ),
  row(
    'SUBS_imm',
    's 1 1 100010 h iiiiiiiiiiii nnnnn ddddd',
    'subs <R:s,d>, <R|SP:s,n>, #<imm12:h,i>',
    (b) => writeReg(b, 'd', subFlags(b, readRegSp(b, 'n'), immediate12(b))),
    { split: 's h' },
  ),
  logical('and', '00', (b, x, y) => b.and(x, y)),
  logical('orr', '01', (b, x, y) => b.or(x, y)),
  logical('eor', '10', (b, x, y) => b.xor(x, y)),
  logical('ands', '11', (b, x, y) => b.and(x, y)),
  row(
    'MOVN',
    's 00 100101 hh iiiiiiiiiiiiiiii ddddd',
    'movn <R:s,d>, #<u:i>{, lsl #<u:h*16>}',
    (b) => {
      const value = b.not(b.imm('i', 16 * b.fixed('h')));
      writeReg(b, 'd', b.fixed('s') === 1 ? value : b.wrap(value));
    },
    { split: 's h', reserved: reservedHalf },
  ),
  row(
    'MOVZ',
    's 10 100101 hh iiiiiiiiiiiiiiii ddddd',
    'movz <R:s,d>, #<u:i>{, lsl #<u:h*16>}',
    (b) => b.setX('d', b.imm('i', 16 * b.fixed('h'))),
    { split: 's h', reserved: reservedHalf },
  ),
  row(
    'MOVK',
    's 11 100101 hh iiiiiiiiiiiiiiii ddddd',
    'movk <R:s,d>, #<u:i>{, lsl #<u:h*16>}',
    (b) => {
      const at = 16 * b.fixed('h');
      const kept = b.and(b.x('d'), b.i64(~(0xffffn << BigInt(at))));
      const value = b.or(kept, b.imm('i', at));
      writeReg(b, 'd', b.fixed('s') === 1 ? value : b.wrap(value));
    },
    { split: 's h', reserved: reservedHalf },
  ),
  row(
    'SBFM',
    `s 00 100110 k ${BITFIELD}`,
    'sbfm <R:s=k,d>, <R:s,n>, #<u:r>, #<u:i>',
    (b) => writeReg(b, 'd', bitfield(b, readReg(b, 'n'), true)),
    { split: 's', reserved: reservedBitfield },
  ),
  row(
    'BFM',
    `s 01 100110 k ${BITFIELD}`,
    'bfm <R:s=k,d>, <R:s,n>, #<u:r>, #<u:i>',
    (b) => {
      const source = readReg(b, 'n');
      const mask = b.let(bitfield(b, same(b, source, -1), false));
      const kept = b.and(readReg(b, 'd'), b.not(mask));
      writeReg(b, 'd', b.or(kept, b.and(bitfield(b, source, false), mask)));
    },
    { split: 's', reserved: reservedBitfield },
  ),
  row(
    'UBFM',
    `s 10 100110 k ${BITFIELD}`,
    'ubfm <R:s=k,d>, <R:s,n>, #<u:r>, #<u:i>',
    (b) => writeReg(b, 'd', bitfield(b, readReg(b, 'n'), false)),
    { split: 's', reserved: reservedBitfield },
  ),
  row(
    'EXTR',
    's 00 100111 k 0 mmmmm iiiiii nnnnn ddddd',
    'extr <R:s=k,d>, <R:s,n>, <R:s,m>, #<u:i>',
    (b) => {
      const low = readReg(b, 'm');
      const wide = low.type === 'i64';
      const lsb: Int = wide ? b.imm('i') : b.field('i');
      // Shifted in two steps, so that lsb = 0 takes nothing from the upper register.
      const high = b.shl(
        b.shl(readReg(b, 'n'), same(b, low, 1)),
        b.sub(same(b, low, wide ? 63 : 31), lsb),
      );
      writeReg(b, 'd', b.or(high, b.shrU(low, lsb)));
    },
    { split: 's', reserved: (f) => f('k') !== f('s') || (f('s') === 0 && f('i') > 31) },
  ),
];

export const aliases: Alias[] = [
  alias(
    'MOV_sp',
    's 0 0 100010 0 000000000000 nnnnn ddddd',
    'mov <R|SP:s,d>, <R|SP:s,n>',
    (f) => f('d') === 31 || f('n') === 31,
  ),
  alias('CMN_imm', 's 0 1 100010 h iiiiiiiiiiii nnnnn 11111', 'cmn <R|SP:s,n>, #<imm12:h,i>'),
  alias('CMP_imm', 's 1 1 100010 h iiiiiiiiiiii nnnnn 11111', 'cmp <R|SP:s,n>, #<imm12:h,i>'),
  alias('TST_imm', 's 11 100100 k rrrrrr iiiiii nnnnn 11111', 'tst <R:s,n>, #<bitmask:s,k,r,i>'),
  alias(
    'MOV_movz',
    's 10 100101 hh iiiiiiiiiiiiiiii ddddd',
    'mov <R:s,d>, #<movz:s,h,i>',
    (f) => !(f('i') === 0 && f('h') !== 0),
  ),
  alias(
    'MOV_movn',
    's 00 100101 hh iiiiiiiiiiiiiiii ddddd',
    'mov <R:s,d>, #<movn:s,h,i>',
    (f) => !(f('i') === 0 && f('h') !== 0) && !(f('s') === 0 && f('i') === 0xffff),
  ),
  alias(
    'MOV_bitmask',
    's 01 100100 k rrrrrr iiiiii 11111 ddddd',
    'mov <R|SP:s,d>, #<bitmask:s,k,r,i>',
    (f) => !moveWidePreferred(f),
  ),
  alias('SXTB', 's 00 100110 k 000000 000111 nnnnn ddddd', 'sxtb <R:s=k,d>, <W:n>'),
  alias('SXTH', 's 00 100110 k 000000 001111 nnnnn ddddd', 'sxth <R:s=k,d>, <W:n>'),
  alias('SXTW', '1 00 100110 1 000000 011111 nnnnn ddddd', 'sxtw <X:d>, <W:n>'),
  alias('UXTB', '0 10 100110 0 000000 000111 nnnnn ddddd', 'uxtb <W:d>, <W:n>'),
  alias('UXTH', '0 10 100110 0 000000 001111 nnnnn ddddd', 'uxth <W:d>, <W:n>'),
  alias('ASR_imm', `s 00 100110 k ${BITFIELD}`, 'asr <R:s=k,d>, <R:s,n>, #<lsr:s,r,i>'),
  alias('LSR_imm', `s 10 100110 k ${BITFIELD}`, 'lsr <R:s=k,d>, <R:s,n>, #<lsr:s,r,i>'),
  alias('LSL_imm', `s 10 100110 k ${BITFIELD}`, 'lsl <R:s=k,d>, <R:s,n>, #<lsl:s,r,i>'),
  alias('SBFIZ', `s 00 100110 k ${BITFIELD}`, 'sbfiz <R:s=k,d>, <R:s,n>, #<bfiz:s,r,i>'),
  alias('UBFIZ', `s 10 100110 k ${BITFIELD}`, 'ubfiz <R:s=k,d>, <R:s,n>, #<bfiz:s,r,i>'),
  alias('SBFX', `s 00 100110 k ${BITFIELD}`, 'sbfx <R:s=k,d>, <R:s,n>, #<bfx:s,r,i>'),
  alias('UBFX', `s 10 100110 k ${BITFIELD}`, 'ubfx <R:s=k,d>, <R:s,n>, #<bfx:s,r,i>'),
  alias('BFC', 's 01 100110 k rrrrrr iiiiii 11111 ddddd', 'bfc <R:s=k,d>, #<bfiz:s,r,i>'),
  alias('BFI', `s 01 100110 k ${BITFIELD}`, 'bfi <R:s=k,d>, <R:s,n>, #<bfiz:s,r,i>'),
  alias('BFXIL', `s 01 100110 k ${BITFIELD}`, 'bfxil <R:s=k,d>, <R:s,n>, #<bfx:s,r,i>'),
  alias('ROR_imm', 's 00 100111 k 0 mmmmm iiiiii nnnnn ddddd', 'ror <R:s=k,d>, <R:s,n=m>, #<u:i>'),
];

/** Whether a bitmask immediate is better written as MOVZ or MOVN. Arm: MoveWidePreferred(). */
function moveWidePreferred(f: Fields): boolean {
  const fields = { n: f('k'), immr: f('r'), imms: f('i') };
  const value = decodeBitmask(fields, f('s') === 1);
  if (value === undefined) return true;
  const width = f('s') === 1 ? 64 : 32;
  const oneHalf = (x: bigint): boolean => {
    for (let at = 0; at < width; at += 16) if ((x & ~(0xffffn << BigInt(at))) === 0n) return true;
    return false;
  };
  return oneHalf(value) || oneHalf(BigInt.asUintN(width, ~value));
}
