/**
 * Rows of the cryptographic extension: AES rounds, SHA-1 and SHA-256. (PMULL is with the
 * three-different rows.) Table lookups are byte swizzles, so timing does not depend on data.
 * Collected by `simd.ts`.
 */
import { INVERSE_SBOX, SBOX } from './aes-tables.ts';
import type { I32, Ops, V128 } from './ops.ts';
import { type Row, row } from './row.ts';
import {
  permute,
  repeat,
  signMask,
  vadd,
  vand,
  vor,
  vshl,
  vshr,
  vsub,
  vxor,
  zeroes,
} from './simd-lanes.ts';

// ---- AES ----------------------------------------------------------------------------------------

/** Every byte replaced by its entry of a table of 256. */
function substitute(b: Ops, table: Uint8Array, bytes: V128): V128 {
  let result = zeroes(b);
  for (let part = 0; part < 16; part++) {
    const half = (at: number): bigint =>
      table
        .subarray(16 * part + at, 16 * part + at + 8)
        .reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
    // Indices outside these sixteen entries give 0.
    const index = part === 0 ? bytes : vsub(b, 0, bytes, repeat(b, 0, BigInt(16 * part)));
    result = vor(b, result, b.vop('i8x16.swizzle', b.v128(half(0), half(8)), index));
  }
  return result;
}

/**
 * Row r of the state, bytes r, r + 4 …, moves left by r (right for the inverse). Arm:
 * AESShiftRows().
 */
const shiftRows = (b: Ops, state: V128, direction: 1 | -1): V128 =>
  permute(b, 0, state, state, (i) => (i + 16 + direction * 4 * (i % 4)) % 16);

/** Twice each byte in GF(2^8). */
const double = (b: Ops, x: V128): V128 =>
  vxor(b, vshl(b, 0, x, b.i32(1)), vand(b, signMask(b, 0, x), repeat(b, 0, 0x1bn)));

/** The bytes of each column moved up by `by` rows. */
const rotateColumns = (b: Ops, x: V128, by: number): V128 =>
  permute(b, 0, x, x, (i) => (i & ~3) + ((i + by) & 3));

/** Arm: AESMixColumns(). */
function mixColumns(b: Ops, x: V128): V128 {
  const twice = b.let(double(b, x));
  const rest = vxor(b, rotateColumns(b, x, 2), rotateColumns(b, x, 3));
  // 2 a + 3 b + c + d
  return vxor(b, vxor(b, twice, rotateColumns(b, vxor(b, twice, x), 1)), rest);
}

/**
 * Arm: AESInvMixColumns(); 14, 11, 13, 9 is 2, 3, 1, 1 after adding 4 (a + c) to a and c, and so
 * on.
 */
function inverseMixColumns(b: Ops, x: V128): V128 {
  const opposite = b.let(vxor(b, x, rotateColumns(b, x, 2)));
  const fourfold = double(b, b.let(double(b, opposite)));
  return mixColumns(b, b.let(vxor(b, x, b.let(fourfold))));
}

const aes: readonly [name: string, opcode: string, operation: (b: Ops) => V128][] = [
  [
    'AESE',
    '00100',
    (b) => substitute(b, SBOX, b.let(shiftRows(b, b.let(vxor(b, b.v('d'), b.v('n'))), 1))),
  ],
  [
    'AESD',
    '00101',
    (b) => substitute(b, INVERSE_SBOX, b.let(shiftRows(b, b.let(vxor(b, b.v('d'), b.v('n'))), -1))),
  ],
  ['AESMC', '00110', (b) => mixColumns(b, b.v('n'))],
  ['AESIMC', '00111', (b) => inverseMixColumns(b, b.v('n'))],
];

const aesRows = aes.map(([name, opcode, operation]) =>
  row(
    name,
    `010011100010100${opcode}10nnnnnddddd`,
    `${name.toLowerCase()} <V:d>.16b, <V:n>.16b`,
    (b) => b.setV('d', operation(b)),
    { fp: true, feature: 'FEAT_AES' },
  ),
);

// ---- SHA-1 and SHA-256 --------------------------------------------------------------------------

const word = (b: Ops, vector: V128, index: number): I32 => b.let(b.wrap(b.lane(vector, 32, index)));

const words = (b: Ops, vector: V128): I32[] => [0, 1, 2, 3].map((i) => word(b, vector, i));

function fromWords(b: Ops, values: readonly I32[]): V128 {
  return values.reduce((vector, value, i) => b.withLane(vector, 32, i, b.zext(value)), zeroes(b));
}

const rotateLeft = (b: Ops, x: I32, by: number): I32 => b.rotr(x, b.i32(32 - by));

/** Arm: SHAchoose(). */
const choose = (b: Ops, x: I32, y: I32, z: I32): I32 => b.xor(b.and(b.xor(y, z), x), z);
/** Arm: SHAparity(). */
const parity = (b: Ops, x: I32, y: I32, z: I32): I32 => b.xor(b.xor(x, y), z);
/** Arm: SHAmajority(). */
const majority = (b: Ops, x: I32, y: I32, z: I32): I32 => b.or(b.and(x, y), b.and(b.or(x, y), z));

type Mix = (b: Ops, x: I32, y: I32, z: I32) => I32;

/** Four rounds of SHA-1: d is X, the low word of n is Y, m is the schedule with its constant. */
function sha1Rounds(b: Ops, mix: Mix): void {
  let x = words(b, b.v('d'));
  let y = b.let(b.wrap(b.element('n', 32, 0)));
  for (const w of words(b, b.v('m'))) {
    const t = mix(b, x[1]!, x[2]!, x[3]!);
    const sum = b.add(b.add(y, rotateLeft(b, x[0]!, 5)), b.add(t, w));
    const next = b.let(sum);
    y = x[3]!;
    x = [next, x[0]!, b.let(rotateLeft(b, x[1]!, 30)), x[2]!];
  }
  b.setV('d', fromWords(b, x));
}

/** Arm: SHA1SU0: the words two on, mixed with both. */
function sha1Schedule0(b: Ops): void {
  const [d, n, m] = [b.v('d'), b.v('n'), b.v('m')];
  const middle = permute(b, 3, d, n, (i) => i + 1);
  b.setV('d', vxor(b, vxor(b, middle, d), m));
}

function sha1Schedule1(b: Ops): void {
  const [d, n] = [b.v('d'), b.v('n')];
  const next = permute(b, 2, n, zeroes(b), (i) => i + 1);
  const t = b.let(vxor(b, d, next));
  const rotate = (by: number): V128 =>
    vor(b, vshl(b, 2, t, b.i32(by)), vshr(b, 2, t, b.i32(32 - by), false));
  // The last word also depends on the first one's result, rotated once more.
  const first = permute(b, 2, rotate(2), zeroes(b), (i) => (i === 3 ? 0 : 4));
  b.setV('d', vxor(b, rotate(1), first));
}

const sum = (b: Ops, x: I32, rotations: readonly [number, number, number]): I32 => {
  const [p, q, r] = rotations.map((by) => b.rotr(x, b.i32(by)));
  return b.xor(b.xor(p!, q!), r!);
};

/** Arm: SHA256hash(): four rounds; the first or the second half of the state is the result. */
function sha256Rounds(b: Ops, part: 1 | 2): void {
  const [first, second] = part === 1 ? (['d', 'n'] as const) : (['n', 'd'] as const);
  let x = words(b, b.v(first));
  let y = words(b, b.v(second));
  for (const w of words(b, b.v('m'))) {
    const choice = choose(b, y[0]!, y[1]!, y[2]!);
    const upper = b.add(b.add(y[3]!, sum(b, y[0]!, [6, 11, 25])), b.add(choice, w));
    const t = b.let(upper);
    const mixed = b.add(sum(b, x[0]!, [2, 13, 22]), majority(b, x[0]!, x[1]!, x[2]!));
    const newY = b.let(b.add(t, x[3]!));
    const newX = b.let(b.add(t, mixed));
    y = [newY, y[0]!, y[1]!, y[2]!];
    x = [newX, x[0]!, x[1]!, x[2]!];
  }
  b.setV('d', fromWords(b, part === 1 ? x : y));
}

/** σ0 or σ1 of the message schedule: two rotations and a shift, in every lane. */
function scheduleSum(b: Ops, x: V128, [p, q, shift]: readonly [number, number, number]): V128 {
  const rotate = (by: number): V128 =>
    vor(b, vshr(b, 2, x, b.i32(by), false), vshl(b, 2, x, b.i32(32 - by)));
  return vxor(b, vxor(b, rotate(p), rotate(q)), vshr(b, 2, x, b.i32(shift), false));
}

function sha256Schedule0(b: Ops): void {
  const [d, n] = [b.v('d'), b.v('n')];
  const next = b.let(permute(b, 2, d, n, (i) => i + 1));
  b.setV('d', vadd(b, 2, d, scheduleSum(b, next, [7, 18, 3])));
}

function sha256Schedule1(b: Ops): void {
  const [d, n, m] = [b.v('d'), b.v('n'), b.v('m')];
  const base = b.let(
    vadd(
      b,
      2,
      d,
      permute(b, 2, n, m, (i) => i + 1),
    ),
  );
  const half = (source: V128): V128 => b.let(scheduleSum(b, source, [17, 19, 10]));
  const low = b.let(vadd(b, 2, base, half(b.let(permute(b, 3, m, m, () => 1)))));
  // The upper two words take the lower two results.
  const high = vadd(b, 2, base, half(b.let(permute(b, 3, low, low, () => 0))));
  b.setV(
    'd',
    permute(b, 3, low, b.let(high), (i) => (i === 0 ? 0 : 3)),
  );
}

const SHA1 = { fp: true, feature: 'FEAT_SHA1' } as const;
const SHA256 = { fp: true, feature: 'FEAT_SHA256' } as const;

const threeRegisters = (opcode: string): string => `01011110000mmmmm0${opcode}00nnnnnddddd`;
const twoRegisters = (opcode: string): string => `010111100010100${opcode}10nnnnnddddd`;

const shaRows = [
  ...(
    [
      ['SHA1C', '000', choose],
      ['SHA1P', '001', parity],
      ['SHA1M', '010', majority],
    ] as const
  ).map(([name, opcode, mix]) =>
    row(
      name,
      threeRegisters(opcode),
      `${name.toLowerCase()} <Q:d>, <S:n>, <V:m>.4s`,
      (b) => sha1Rounds(b, mix),
      SHA1,
    ),
  ),
  row(
    'SHA1SU0',
    threeRegisters('011'),
    'sha1su0 <V:d>.4s, <V:n>.4s, <V:m>.4s',
    sha1Schedule0,
    SHA1,
  ),
  row(
    'SHA256H',
    threeRegisters('100'),
    'sha256h <Q:d>, <Q:n>, <V:m>.4s',
    (b) => sha256Rounds(b, 1),
    SHA256,
  ),
  row(
    'SHA256H2',
    threeRegisters('101'),
    'sha256h2 <Q:d>, <Q:n>, <V:m>.4s',
    (b) => sha256Rounds(b, 2),
    SHA256,
  ),
  row(
    'SHA256SU1',
    threeRegisters('110'),
    'sha256su1 <V:d>.4s, <V:n>.4s, <V:m>.4s',
    sha256Schedule1,
    SHA256,
  ),
  row(
    'SHA1H',
    twoRegisters('00000'),
    'sha1h <S:d>, <S:n>',
    (b) => b.setScalar('d', 32, b.zext(rotateLeft(b, b.wrap(b.element('n', 32, 0)), 30))),
    SHA1,
  ),
  row('SHA1SU1', twoRegisters('00001'), 'sha1su1 <V:d>.4s, <V:n>.4s', sha1Schedule1, SHA1),
  row('SHA256SU0', twoRegisters('00010'), 'sha256su0 <V:d>.4s, <V:n>.4s', sha256Schedule0, SHA256),
];

export const rows: Row[] = [...aesRows, ...shaRows];
