/**
 * Rows for the LSE atomics: CAS, CASP, SWP and the load-operate family, all sizes. An atomic is one
 * naturally aligned read-write access. The orderings (acquire, release) are fields without effect
 * on one thread of execution; aliases spell them, and the ST* forms that drop the old value.
 * Not here: exclusives. Collected by `loads-stores.ts`.
 */
import { atBase, SPLIT_ON_SP } from './loads-stores-common.ts';
import type { I32, I64, Ops } from './ops.ts';
import { type Alias, alias, type Row, type RowOptions, row, type Semantics } from './row.ts';

interface Size {
  /** Bits 31:30. */
  readonly bits: string;
  readonly suffix: string;
  readonly register: 'W' | 'X';
  readonly bytes: 1 | 2 | 4 | 8;
}

const sizes: readonly Size[] = [
  { bits: '00', suffix: 'b', register: 'W', bytes: 1 },
  { bits: '01', suffix: 'h', register: 'W', bytes: 2 },
  { bits: '10', suffix: '', register: 'W', bytes: 4 },
  { bits: '11', suffix: '', register: 'X', bytes: 8 },
];

const lse: RowOptions = { split: SPLIT_ON_SP, feature: 'FEAT_LSE' };

/** The suffix of an ordering, and its acquire and release bits; the plain one is the row itself. */
const orderings = [
  { suffix: 'a', acquire: '1', release: '0' },
  { suffix: 'l', acquire: '0', release: '1' },
  { suffix: 'al', acquire: '1', release: '1' },
] as const;

function atomicAccess(b: Ops, bytes: number): I32 {
  const { va, checked } = atBase(b);
  return b.access({ va, bytes, kind: 'read-write', checked, align: bytes });
}

const zeroExtended = (b: Ops, value: I64, bytes: number): I64 =>
  bytes === 8 ? value : b.and(value, b.i64((1n << BigInt(8 * bytes)) - 1n));

const signExtended = (b: Ops, value: I64, bytes: number): I64 =>
  bytes === 8 ? value : b.sextFrom(value, (8 * bytes) as 8 | 16 | 32);

// ---- compare and swap ---------------------------------------------------------------------------

function compareAndSwap(bytes: number): Semantics {
  return (b) => {
    const expected = zeroExtended(b, b.x('s'), bytes);
    const replacement = b.x('t');
    const at = atomicAccess(b, bytes);
    const old = b.let(b.ld(at, 0, bytes));
    b.setX('s', old);
    b.if(b.eq(old, expected), () => {
      b.st(at, 0, bytes, replacement);
      b.commit(at);
    });
  };
}

const HALVES = [0, 1] as const;

/** `bytes` of the whole pair; the registers are s, s + 1 and t, t + 1, both even. */
function compareAndSwapPair(bytes: 8 | 16): Semantics {
  const half = bytes / 2;
  return (b) => {
    const expected = HALVES.map((i) => zeroExtended(b, b.x('s', i), half));
    const replacement = HALVES.map((i) => b.x('t', i));
    const at = atomicAccess(b, bytes);
    const old = HALVES.map((i) => b.let(b.ld(at, i * half, half)));
    for (const i of HALVES) b.setX('s', old[i]!, i);
    b.if(b.and(b.eq(old[0]!, expected[0]!), b.eq(old[1]!, expected[1]!)), () => {
      for (const i of HALVES) b.st(at, i * half, half, replacement[i]!);
      b.commit(at);
    });
  };
}

const pairOperands = (register: 'W' | 'X'): string =>
  `<${register}:s>, <${register}+1:s>, <${register}:t>, <${register}+1:t>, [<X|SP:n>]`;

const compareRows: Row[] = [
  ...sizes.map(({ bits, suffix, register, bytes }) =>
    row(
      `CAS${suffix.toUpperCase()}_${register}`,
      `${bits}0010001a1sssssr11111nnnnnttttt`,
      `cas${suffix} <${register}:s>, <${register}:t>, [<X|SP:n>]`,
      compareAndSwap(bytes),
      lse,
    ),
  ),
  ...(['W', 'X'] as const).map((register) =>
    row(
      `CASP_${register}`,
      `0${register === 'X' ? 1 : 0}0010000a1sssssr11111nnnnnttttt`,
      `casp ${pairOperands(register)}`,
      compareAndSwapPair(register === 'X' ? 16 : 8),
      { ...lse, reserved: (field) => ((field('s') | field('t')) & 1) === 1 },
    ),
  ),
];

const compareAliases: Alias[] = orderings.flatMap(({ suffix: order, acquire, release }) => [
  ...sizes.map(({ bits, suffix, register }) =>
    alias(
      `CAS${order}${suffix}_${register}`.toUpperCase(),
      `${bits}0010001${acquire}1sssss${release}11111nnnnnttttt`,
      `cas${order}${suffix} <${register}:s>, <${register}:t>, [<X|SP:n>]`,
    ),
  ),
  ...(['W', 'X'] as const).map((register) =>
    alias(
      `CASP${order}_${register}`.toUpperCase(),
      `0${register === 'X' ? 1 : 0}0010000${acquire}1sssss${release}11111nnnnnttttt`,
      `casp${order} ${pairOperands(register)}`,
    ),
  ),
]);

// ---- read, modify, write ------------------------------------------------------------------------

/** `old` comes zero-extended; only the low `bytes` of the result are stored. */
type Modify = (b: Ops, old: I64, operand: I64, bytes: number) => I64;

const signedChoice =
  (keepOld: (b: Ops, old: I64, operand: I64) => I32): Modify =>
  (b, old, operand, bytes) =>
    b.select(
      keepOld(b, signExtended(b, old, bytes), signExtended(b, operand, bytes)),
      old,
      operand,
    );

const unsignedChoice =
  (keepOld: (b: Ops, old: I64, operand: I64) => I32): Modify =>
  (b, old, operand, bytes) =>
    b.select(keepOld(b, old, zeroExtended(b, operand, bytes)), old, operand);

/** Bits 15:12 (o3 and opc), the operation's name and what it stores. */
const operations: readonly { bits: string; name: string; modify: Modify }[] = [
  { bits: '0000', name: 'add', modify: (b, old, operand) => b.add(old, operand) },
  { bits: '0001', name: 'clr', modify: (b, old, operand) => b.and(old, b.not(operand)) },
  { bits: '0010', name: 'eor', modify: (b, old, operand) => b.xor(old, operand) },
  { bits: '0011', name: 'set', modify: (b, old, operand) => b.or(old, operand) },
  { bits: '0100', name: 'smax', modify: signedChoice((b, x, y) => b.ltS(y, x)) },
  { bits: '0101', name: 'smin', modify: signedChoice((b, x, y) => b.ltS(x, y)) },
  { bits: '0110', name: 'umax', modify: unsignedChoice((b, x, y) => b.ltU(y, x)) },
  { bits: '0111', name: 'umin', modify: unsignedChoice((b, x, y) => b.ltU(x, y)) },
];

const swap: Modify = (_b, _old, operand) => operand;

function readModifyWrite(bytes: number, modify: Modify): Semantics {
  return (b) => {
    const operand = b.x('s');
    const at = atomicAccess(b, bytes);
    const old = b.let(b.ld(at, 0, bytes));
    b.st(at, 0, bytes, modify(b, old, operand, bytes));
    b.setX('t', old);
    b.commit(at);
  };
}

/** SWP with the load-operate family: one encoding group, one form. */
const modifiers = [
  { bits: '1000', mnemonic: 'swp', modify: swap },
  ...operations.map(({ bits, name, modify }) => ({ bits, mnemonic: `ld${name}`, modify })),
];

const modifyRows: Row[] = modifiers.flatMap(({ bits, mnemonic, modify }) =>
  sizes.map((size) =>
    row(
      `${mnemonic}${size.suffix}_${size.register}`.toUpperCase(),
      `${size.bits}111000ar1sssss${bits}00nnnnnttttt`,
      `${mnemonic}${size.suffix} <${size.register}:s>, <${size.register}:t>, [<X|SP:n>]`,
      readModifyWrite(size.bytes, modify),
      lse,
    ),
  ),
);

const modifyAliases: Alias[] = modifiers.flatMap(({ bits, mnemonic }) =>
  orderings.flatMap((order) =>
    sizes.map((size) =>
      alias(
        `${mnemonic}${order.suffix}${size.suffix}_${size.register}`.toUpperCase(),
        `${size.bits}111000${order.acquire}${order.release}1sssss${bits}00nnnnnttttt`,
        `${mnemonic}${order.suffix}${size.suffix} <${size.register}:s>, ` +
          `<${size.register}:t>, [<X|SP:n>]`,
      ),
    ),
  ),
);

/** STADD and the like: LDADD whose old value goes to the zero register, never acquire. */
const storeAliases: Alias[] = operations.flatMap(({ bits, name }) =>
  [
    { suffix: '', release: '0' },
    { suffix: 'l', release: '1' },
  ].flatMap((order) =>
    sizes.map((size) =>
      alias(
        `st${name}${order.suffix}${size.suffix}_${size.register}`.toUpperCase(),
        `${size.bits}1110000${order.release}1sssss${bits}00nnnnn11111`,
        `st${name}${order.suffix}${size.suffix} <${size.register}:s>, [<X|SP:n>]`,
      ),
    ),
  ),
);

export const rows: Row[] = [...compareRows, ...modifyRows];

// The ST* forms first: they are the more particular spelling of the same words.
export const aliases: Alias[] = [...storeAliases, ...compareAliases, ...modifyAliases];
