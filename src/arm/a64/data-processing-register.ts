/**
 * Rows of "Data processing - register": shifted and extended arithmetic, logic, multiply, divide,
 * CRC, conditional.
 */
import {
  addFlags,
  logicFlags,
  readReg,
  readRegSp,
  same,
  signOf,
  subFlags,
  topBit,
  writeReg,
  writeRegSp,
  zeroOf,
} from './arithmetic.ts';
import type { I32, I64, Int, Ops } from './ops.ts';
import { type Alias, alias, type Row, row } from './row.ts';

type Fields = (letter: string) => number;

/** Rm shifted by type `z` and amount `i`. Arm: ShiftReg(). */
function shiftedRegister(b: Ops): Int {
  const value = readReg(b, 'm');
  const amount: Int = value.type === 'i64' ? b.imm('i') : b.field('i');
  switch (b.fixed('z')) {
    case 0:
      return b.shl(value, amount);
    case 1:
      return b.shrU(value, amount);
    case 2:
      return b.shrS(value, amount);
    default:
      return b.rotr(value, amount);
  }
}

const reservedShift = (f: Fields): boolean => f('s') === 0 && f('i') > 31;
const reservedArithmeticShift = (f: Fields): boolean => f('z') === 3 || reservedShift(f);

const SHIFTED = '<R:s,d>, <R:s,n>, <R:s,m>{, <shift:z> #<u:i>}';

function arithmetic(name: string, op: string, apply: (b: Ops, x: Int, y: Int) => Int): Row {
  return row(
    `${name.toUpperCase()}_shift`,
    `s ${op} 01011 zz 0 mmmmm iiiiii nnnnn ddddd`,
    `${name} ${SHIFTED}`,
    (b) => writeReg(b, 'd', apply(b, readReg(b, 'n'), b.let(shiftedRegister(b)))),
    { split: 's z', reserved: reservedArithmeticShift },
  );
}

/** Rm extended by option `o` and shifted by `i`. Arm: ExtendReg(). */
function extendedRegister(b: Ops): Int {
  const option = b.fixed('o');
  const signed = (option & 4) !== 0;
  const bits = ([8, 16, 32, 64] as const)[option & 3]!;
  const shift = b.imm('i');
  const source = b.x('m');
  let value = source;
  if (bits !== 64) {
    const mask = b.i64((1n << BigInt(bits)) - 1n);
    value = signed ? b.sextFrom(source, bits) : b.and(source, mask);
  }
  const result = b.shl(value, shift);
  return b.fixed('s') === 1 ? result : b.wrap(result);
}

function extended(name: string, op: string, apply: (b: Ops, x: Int, y: Int) => Int): Row {
  const flags = op[1] === '1';
  return row(
    `${name.toUpperCase()}_ext`,
    `s ${op} 01011 00 1 mmmmm ooo iii nnnnn ddddd`,
    `${name} ${flags ? '<R:s,d>' : '<R|SP:s,d>'}, <R|SP:s,n>, <extreg:s,o,i,m,n${flags ? '' : ',d'}>`,
    (b) => {
      const result = apply(b, readRegSp(b, 'n'), b.let(extendedRegister(b)));
      if (flags) writeReg(b, 'd', result);
      else writeRegSp(b, 'd', result);
    },
    { split: 's o', reserved: (f) => f('i') > 4 },
  );
}

function logical(
  name: string,
  opc: string,
  invert: boolean,
  combine: (b: Ops, x: Int, y: Int) => Int,
): Row {
  return row(
    `${name.toUpperCase()}_shift`,
    `s ${opc} 01010 zz ${invert ? 1 : 0} mmmmm iiiiii nnnnn ddddd`,
    `${name} ${SHIFTED}`,
    (b) => {
      const operand = shiftedRegister(b);
      const result = b.let(combine(b, readReg(b, 'n'), invert ? b.not(operand) : operand));
      if (opc === '11') logicFlags(b, result);
      writeReg(b, 'd', result);
    },
    { split: 's z', reserved: reservedShift },
  );
}

/** x + y + C, or with y inverted for SBC. Arm: AddWithCarry(x, y, PSTATE.C). */
function carryRow(name: string, op: string): Row {
  const [subtract, flags] = [op[0] === '1', op[1] === '1'];
  return row(
    name.toUpperCase(),
    `s ${op} 11010000 mmmmm 000000 nnnnn ddddd`,
    `${name} <R:s,d>, <R:s,n>, <R:s,m>`,
    (b) => {
      const x = readReg(b, 'n');
      const m = readReg(b, 'm');
      const y = subtract ? b.not(m) : m;
      const carry = b.carry();
      const carryIn: Int = x.type === 'i64' ? b.zext(carry) : carry;
      const partial = b.let(b.add(x, y));
      const result = b.let(b.add(partial, carryIn));
      if (flags) {
        const out = b.or(b.ltU(partial, x), b.ltU(result, partial));
        const overflow = b.and(b.xor(x, result), b.xor(y, result));
        b.setFlags(signOf(b, result), zeroOf(b, result), out, topBit(b, overflow));
      }
      writeReg(b, 'd', result);
    },
    { split: 's' },
  );
}

function conditionalCompare(name: string, op: string, form: 'reg' | 'imm'): Row {
  const second = form === 'reg' ? 'mmmmm' : 'iiiii';
  return row(
    `${name.toUpperCase()}_${form}`,
    `s ${op} 1 11010010 ${second} cccc ${form === 'reg' ? 0 : 1}0 nnnnn 0 ffff`,
    `${name} <R:s,n>, ${form === 'reg' ? '<R:s,m>' : '#<u:i>'}, #<u:f>, <cond:c>`,
    (b) => {
      const x = readReg(b, 'n');
      const immediate = (): Int => (x.type === 'i64' ? b.imm('i') : b.field('i'));
      const y = form === 'reg' ? readReg(b, 'm') : immediate();
      b.if(
        b.condition('c'),
        () => void (op === '0' ? addFlags(b, x, y) : subFlags(b, x, y)),
        () => b.setNzcv(b.field('f')),
      );
    },
    { split: 's' },
  );
}

function conditionalSelect(
  name: string,
  op: string,
  op2: string,
  other: (b: Ops, x: Int) => Int,
): Row {
  return row(
    name.toUpperCase(),
    `s ${op} 0 11010100 mmmmm cccc ${op2} nnnnn ddddd`,
    `${name} <R:s,d>, <R:s,n>, <R:s,m>, <cond:c>`,
    (b) => {
      const no = other(b, readReg(b, 'm'));
      writeReg(b, 'd', b.select(b.condition('c'), readReg(b, 'n'), no));
    },
    { split: 's' },
  );
}

function threeSource(name: string, pattern: string, syntax: string, value: (b: Ops) => Int): Row {
  return row(name, pattern, syntax, (b) => writeReg(b, 'd', value(b)), { split: 's' });
}

const LONG = '<X:d>, <W:n>, <W:m>, <X:a>';

function multiplyLong(name: string, unsigned: boolean, subtract: boolean): Row {
  return row(
    name.toUpperCase(),
    `1 00 11011 ${unsigned ? 1 : 0}01 mmmmm ${subtract ? 1 : 0} aaaaa nnnnn ddddd`,
    `${name} ${LONG}`,
    (b) => {
      const extend = (value: I32): I64 => (unsigned ? b.zext(value) : b.sext(value));
      const product = b.mul(extend(b.w('n')), extend(b.w('m')));
      const sum = b.x('a');
      b.setX('d', subtract ? b.sub(sum, product) : b.add(sum, product));
    },
  );
}

/** Upper half of the 128-bit product, from four 32-bit multiplications. */
export function multiplyHigh(b: Ops, x: I64, y: I64, signed: boolean): I64 {
  const mask = b.i64(0xffffffffn);
  const half = b.i64(32);
  const xl = b.let(b.and(x, mask));
  const yl = b.let(b.and(y, mask));
  const xh = b.let(b.shrU(x, half));
  const yh = b.let(b.shrU(y, half));
  const low = b.shrU(b.mul(xl, yl), half);
  const middle = b.let(b.add(b.mul(xh, yl), low));
  const middle2 = b.let(b.add(b.mul(xl, yh), b.and(middle, mask)));
  const high = b.add(b.add(b.mul(xh, yh), b.shrU(middle, half)), b.shrU(middle2, half));
  if (!signed) return high;
  const sign = b.i64(63);
  return b.sub(b.sub(high, b.and(b.shrS(x, sign), y)), b.and(b.shrS(y, sign), x));
}

function divide(name: string, signed: boolean): Row {
  return row(
    name.toUpperCase(),
    `s 0 0 11010110 mmmmm 00001${signed ? 1 : 0} nnnnn ddddd`,
    `${name} <R:s,d>, <R:s,n>, <R:s,m>`,
    (b) => {
      const x = readReg(b, 'n');
      const y = readReg(b, 'm');
      const result = b.variable(same(b, x, 0));
      if (!signed) {
        b.if(b.ne(y, same(b, y, 0)), () => result.set(b.divU(x, y)));
      } else {
        // Division by -1 is negation, which wraps for the most negative number as Arm wants.
        b.if(
          b.eq(y, same(b, y, -1)),
          () => result.set(b.sub(same(b, x, 0), x)),
          () => b.if(b.ne(y, same(b, y, 0)), () => result.set(b.divS(x, y))),
        );
      }
      writeReg(b, 'd', result.value);
    },
    { split: 's' },
  );
}

function shiftVariable(name: string, op2: string, shift: (b: Ops, x: Int, y: Int) => Int): Row {
  return row(
    `${name.toUpperCase()}V`,
    `s 0 0 11010110 mmmmm 0010${op2} nnnnn ddddd`,
    `${name} <R:s,d>, <R:s,n>, <R:s,m>`,
    (b) => writeReg(b, 'd', shift(b, readReg(b, 'n'), readReg(b, 'm'))),
    { split: 's' },
  );
}

/** CRC-32 of `bits` of data, bit by bit in reflected form. Arm: Poly32Mod2(), BitReverse(). */
function crc32(name: string, castagnoli: boolean, size: number): Row {
  const bits = 8 << size;
  const polynomial = castagnoli ? 0x82f63b78 : 0xedb88320;
  const sixtyFour = size === 3;
  return row(
    name.toUpperCase(),
    `${sixtyFour ? 1 : 0} 0 0 11010110 mmmmm 010 ${castagnoli ? 1 : 0} ${size.toString(2).padStart(2, '0')} nnnnn ddddd`,
    `${name} <W:d>, <W:n>, ${sixtyFour ? '<X:m>' : '<W:m>'}`,
    (b) => {
      const mask = b.i64((1n << BigInt(bits)) - 1n);
      const data = sixtyFour ? b.x('m') : b.and(b.zext(b.w('m')), mask);
      const rest = b.variable(b.xor(b.zext(b.w('n')), data));
      const count = b.variable(b.i32(bits));
      b.while(
        () => count.value,
        () => {
          const low = b.sub(b.i64(0), b.and(rest.value, b.i64(1)));
          rest.set(b.xor(b.shrU(rest.value, b.i64(1)), b.and(low, b.i64(polynomial))));
          count.set(b.sub(count.value, b.i32(1)));
        },
      );
      b.setW('d', b.wrap(rest.value));
    },
    { feature: 'FEAT_CRC32' },
  );
}

/**
 * Swaps neighbouring groups of `width` bits under `mask` (which selects the lower of each pair).
 */
function swap<T extends Int>(b: Ops, x: T, width: number, mask: bigint): T {
  const constant = (value: bigint | number): T =>
    (x.type === 'i64' ? b.i64(value) : b.i32(Number(BigInt.asIntN(32, BigInt(value))))) as T;
  const by = constant(width);
  const m = constant(mask);
  return b.let(b.or(b.and(b.shrU(x, by), m), b.shl(b.and(x, m), by)));
}

const BITS = 0x5555555555555555n;
const PAIRS = 0x3333333333333333n;
const NIBBLES = 0x0f0f0f0f0f0f0f0fn;
const BYTES = 0x00ff00ff00ff00ffn;
const HALVES = 0x0000ffff0000ffffn;

function reverseBytes(b: Ops, x: Int): Int {
  const halves = swap(b, swap(b, x, 8, BYTES), 16, HALVES);
  return halves.type === 'i64' ? b.rotr(halves, b.i64(32)) : halves;
}

function oneSource(name: string, pattern: string, value: (b: Ops, x: Int) => Int): Row {
  return row(
    name.toUpperCase(),
    pattern,
    `${name} <R:s,d>, <R:s,n>`,
    (b) => writeReg(b, 'd', value(b, readReg(b, 'n'))),
    { split: 's' },
  );
}

const crcNames = ['crc32b', 'crc32h', 'crc32w', 'crc32x'];

export const rows: Row[] = [
  arithmetic('add', '00', (b, x, y) => b.add(x, y)),
  arithmetic('adds', '01', addFlags),
  arithmetic('sub', '10', (b, x, y) => b.sub(x, y)),
  arithmetic('subs', '11', subFlags),
  extended('add', '00', (b, x, y) => b.add(x, y)),
  extended('adds', '01', addFlags),
  extended('sub', '10', (b, x, y) => b.sub(x, y)),
  extended('subs', '11', subFlags),
  logical('and', '00', false, (b, x, y) => b.and(x, y)),
  logical('bic', '00', true, (b, x, y) => b.and(x, y)),
  logical('orr', '01', false, (b, x, y) => b.or(x, y)),
  logical('orn', '01', true, (b, x, y) => b.or(x, y)),
  logical('eor', '10', false, (b, x, y) => b.xor(x, y)),
  logical('eon', '10', true, (b, x, y) => b.xor(x, y)),
  logical('ands', '11', false, (b, x, y) => b.and(x, y)),
  logical('bics', '11', true, (b, x, y) => b.and(x, y)),
  carryRow('adc', '00'),
  carryRow('adcs', '01'),
  carryRow('sbc', '10'),
  carryRow('sbcs', '11'),
  row(
    'RMIF',
    '1 0 1 11010000 iiiiii 00001 nnnnn 0 ffff',
    'rmif <X:n>, #<u:i>, #<u:f>',
    (b) => {
      const flags = b.wrap(b.rotr(b.x('n'), b.imm('i')));
      const mask = b.field('f');
      b.setNzcv(b.or(b.and(flags, mask), b.and(b.nzcv(), b.not(mask))));
    },
    { feature: 'FEAT_FlagM' },
  ),
  ...[8, 16].map((bits) =>
    row(
      `SETF${bits}`,
      `0 0 1 11010000 00000 0 ${bits === 8 ? 0 : 1} 0010 nnnnn 0 1101`,
      `setf${bits} <W:n>`,
      (b) => {
        const value = b.w('n');
        const moved = b.let(b.shl(value, b.i32(32 - bits)));
        const bit = (n: number): I32 => b.and(b.shrU(value, b.i32(n)), b.i32(1));
        const carry = b.carry();
        b.setFlags(b.sext(moved), b.zext(moved), carry, b.xor(bit(bits), bit(bits - 1)));
      },
      { feature: 'FEAT_FlagM' },
    ),
  ),
  conditionalCompare('ccmn', '0', 'reg'),
  conditionalCompare('ccmp', '1', 'reg'),
  conditionalCompare('ccmn', '0', 'imm'),
  conditionalCompare('ccmp', '1', 'imm'),
  conditionalSelect('csel', '0', '00', (_, x) => x),
  conditionalSelect('csinc', '0', '01', (b, x) => b.add(x, same(b, x, 1))),
  conditionalSelect('csinv', '1', '00', (b, x) => b.not(x)),
  conditionalSelect('csneg', '1', '01', (b, x) => b.sub(same(b, x, 0), x)),
  threeSource(
    'MADD',
    's 00 11011 000 mmmmm 0 aaaaa nnnnn ddddd',
    'madd <R:s,d>, <R:s,n>, <R:s,m>, <R:s,a>',
    (b) => b.add(readReg(b, 'a'), b.mul(readReg(b, 'n'), readReg(b, 'm'))),
  ),
  threeSource(
    'MSUB',
    's 00 11011 000 mmmmm 1 aaaaa nnnnn ddddd',
    'msub <R:s,d>, <R:s,n>, <R:s,m>, <R:s,a>',
    (b) => b.sub(readReg(b, 'a'), b.mul(readReg(b, 'n'), readReg(b, 'm'))),
  ),
  multiplyLong('smaddl', false, false),
  multiplyLong('smsubl', false, true),
  multiplyLong('umaddl', true, false),
  multiplyLong('umsubl', true, true),
  row('SMULH', '1 00 11011 010 mmmmm 0 xxxxx nnnnn ddddd', 'smulh <X:d>, <X:n>, <X:m>', (b) =>
    b.setX('d', multiplyHigh(b, b.x('n'), b.x('m'), true)),
  ),
  row('UMULH', '1 00 11011 110 mmmmm 0 xxxxx nnnnn ddddd', 'umulh <X:d>, <X:n>, <X:m>', (b) =>
    b.setX('d', multiplyHigh(b, b.x('n'), b.x('m'), false)),
  ),
  divide('udiv', false),
  divide('sdiv', true),
  shiftVariable('lsl', '00', (b, x, y) => b.shl(x, y)),
  shiftVariable('lsr', '01', (b, x, y) => b.shrU(x, y)),
  shiftVariable('asr', '10', (b, x, y) => b.shrS(x, y)),
  shiftVariable('ror', '11', (b, x, y) => b.rotr(x, y)),
  ...crcNames.map((name, size) => crc32(name, false, size)),
  ...crcNames.map((name, size) => crc32(name.replace('32', '32c'), true, size)),
  oneSource('rbit', 's 1 0 11010110 00000 000000 nnnnn ddddd', (b, x) =>
    reverseBytes(b, swap(b, swap(b, swap(b, x, 1, BITS), 2, PAIRS), 4, NIBBLES)),
  ),
  oneSource('rev16', 's 1 0 11010110 00000 000001 nnnnn ddddd', (b, x) => swap(b, x, 8, BYTES)),
  row('REV_w', '0 1 0 11010110 00000 000010 nnnnn ddddd', 'rev <W:d>, <W:n>', (b) =>
    writeReg(b, 'd', reverseBytes(b, b.w('n'))),
  ),
  row('REV32', '1 1 0 11010110 00000 000010 nnnnn ddddd', 'rev32 <X:d>, <X:n>', (b) =>
    b.setX('d', swap(b, swap(b, b.x('n'), 8, BYTES), 16, HALVES)),
  ),
  row('REV_x', '1 1 0 11010110 00000 000011 nnnnn ddddd', 'rev <X:d>, <X:n>', (b) =>
    writeReg(b, 'd', reverseBytes(b, b.x('n'))),
  ),
  oneSource('clz', 's 1 0 11010110 00000 000100 nnnnn ddddd', (b, x) => b.clz(x)),
  oneSource('cls', 's 1 0 11010110 00000 000101 nnnnn ddddd', (b, x) => {
    // Leading bits equal to the sign, not counting it: x ^ (x >> 1), whose top bit is 0.
    const differs = b.xor(x, b.shrS(x, same(b, x, 1)));
    return b.sub(b.clz(differs), same(b, x, 1));
  }),
];

export const aliases: Alias[] = [
  alias('MOV_reg', 's 01 01010 00 0 mmmmm 000000 11111 ddddd', 'mov <R:s,d>, <R:s,m>'),
  alias(
    'MVN',
    's 01 01010 zz 1 mmmmm iiiiii 11111 ddddd',
    'mvn <R:s,d>, <R:s,m>{, <shift:z> #<u:i>}',
  ),
  alias(
    'TST_shift',
    's 11 01010 zz 0 mmmmm iiiiii nnnnn 11111',
    'tst <R:s,n>, <R:s,m>{, <shift:z> #<u:i>}',
  ),
  alias(
    'CMN_shift',
    's 01 01011 zz 0 mmmmm iiiiii nnnnn 11111',
    'cmn <R:s,n>, <R:s,m>{, <shift:z> #<u:i>}',
  ),
  alias(
    'CMP_shift',
    's 11 01011 zz 0 mmmmm iiiiii nnnnn 11111',
    'cmp <R:s,n>, <R:s,m>{, <shift:z> #<u:i>}',
  ),
  alias(
    'NEG',
    's 10 01011 zz 0 mmmmm iiiiii 11111 ddddd',
    'neg <R:s,d>, <R:s,m>{, <shift:z> #<u:i>}',
  ),
  alias(
    'NEGS',
    's 11 01011 zz 0 mmmmm iiiiii 11111 ddddd',
    'negs <R:s,d>, <R:s,m>{, <shift:z> #<u:i>}',
  ),
  alias(
    'CMN_ext',
    's 01 01011 00 1 mmmmm ooo iii nnnnn 11111',
    'cmn <R|SP:s,n>, <extreg:s,o,i,m,n>',
  ),
  alias(
    'CMP_ext',
    's 11 01011 00 1 mmmmm ooo iii nnnnn 11111',
    'cmp <R|SP:s,n>, <extreg:s,o,i,m,n>',
  ),
  alias('NGC', 's 10 11010000 mmmmm 000000 11111 ddddd', 'ngc <R:s,d>, <R:s,m>'),
  alias('NGCS', 's 11 11010000 mmmmm 000000 11111 ddddd', 'ngcs <R:s,d>, <R:s,m>'),
  alias(
    'CSET',
    's 0 0 11010100 11111 cccc 01 11111 ddddd',
    'cset <R:s,d>, <icond:c>',
    (f) => f('c') < 14,
  ),
  alias(
    'CSETM',
    's 1 0 11010100 11111 cccc 00 11111 ddddd',
    'csetm <R:s,d>, <icond:c>',
    (f) => f('c') < 14,
  ),
  alias(
    'CINC',
    's 0 0 11010100 mmmmm cccc 01 nnnnn ddddd',
    'cinc <R:s,d>, <R:s,n=m>, <icond:c>',
    (f) => f('n') === f('m') && f('n') !== 31 && f('c') < 14,
  ),
  alias(
    'CINV',
    's 1 0 11010100 mmmmm cccc 00 nnnnn ddddd',
    'cinv <R:s,d>, <R:s,n=m>, <icond:c>',
    (f) => f('n') === f('m') && f('n') !== 31 && f('c') < 14,
  ),
  alias(
    'CNEG',
    's 1 0 11010100 mmmmm cccc 01 nnnnn ddddd',
    'cneg <R:s,d>, <R:s,n=m>, <icond:c>',
    (f) => f('n') === f('m') && f('c') < 14,
  ),
  alias('MUL', 's 00 11011 000 mmmmm 0 11111 nnnnn ddddd', 'mul <R:s,d>, <R:s,n>, <R:s,m>'),
  alias('MNEG', 's 00 11011 000 mmmmm 1 11111 nnnnn ddddd', 'mneg <R:s,d>, <R:s,n>, <R:s,m>'),
  alias('SMULL', '1 00 11011 001 mmmmm 0 11111 nnnnn ddddd', 'smull <X:d>, <W:n>, <W:m>'),
  alias('SMNEGL', '1 00 11011 001 mmmmm 1 11111 nnnnn ddddd', 'smnegl <X:d>, <W:n>, <W:m>'),
  alias('UMULL', '1 00 11011 101 mmmmm 0 11111 nnnnn ddddd', 'umull <X:d>, <W:n>, <W:m>'),
  alias('UMNEGL', '1 00 11011 101 mmmmm 1 11111 nnnnn ddddd', 'umnegl <X:d>, <W:n>, <W:m>'),
];
