/**
 * Rows for exclusives (LDXR, STXR, their pairs and their acquire and release forms) and for ordered
 * loads and stores (LDAR, STLR, LDAPR, LDAPUR, STLUR). All are naturally aligned: FEAT_LSE2 is not
 * implemented. Acquire and release add nothing to what one thread of execution sees, so they share
 * a row with the plain form and an alias spells them. Unused register fields, (1) in the Arm ARM,
 * are ignored. Not here: LDLAR and STLLR (FEAT_LOR is not
 * advertised), LSE atomics. Collected by `loads-stores.ts`.
 */
import { type Addressing, atBase, atOffset, SPLIT_ON_SP } from './loads-stores-common.ts';
import type { I32, I64, Ops } from './ops.ts';
import { type Alias, alias, type Row, type RowOptions, row, type Semantics } from './row.ts';

interface Size {
  /** Bits 31:30. */
  readonly bits: string;
  readonly suffix: string;
  readonly register: 'W' | 'X';
  readonly bytes: number;
}

const sizes: readonly Size[] = [
  { bits: '00', suffix: 'b', register: 'W', bytes: 1 },
  { bits: '01', suffix: 'h', register: 'W', bytes: 2 },
  { bits: '10', suffix: '', register: 'W', bytes: 4 },
  { bits: '11', suffix: '', register: 'X', bytes: 8 },
];

const splitOnSp: RowOptions = { split: SPLIT_ON_SP };

/** Base register, no offset, naturally aligned: what exclusives and ordered accesses have. */
function alignedAccess(b: Ops, bytes: number, kind: 'read' | 'write', where = atBase): I32 {
  const { va, checked } = where(b);
  return b.access({ va, bytes, kind, checked, align: bytes });
}

// ---- exclusives ---------------------------------------------------------------------------------

function loadExclusive(bytes: number): Semantics {
  return (b) => {
    const at = alignedAccess(b, bytes, 'read');
    b.markExclusive(at, bytes);
    b.setX('t', b.ld(at, 0, bytes));
  };
}

/** `bytes` of the whole pair. */
function loadExclusivePair(bytes: 8 | 16): Semantics {
  return (b) => {
    const at = alignedAccess(b, bytes, 'read');
    b.markExclusive(at, bytes);
    const first = b.ld(at, 0, bytes / 2);
    const second = b.ld(at, bytes / 2, bytes / 2);
    b.setX('t', first);
    b.setX('u', second);
  };
}

/**
 * Stores when the monitor is held. The access is translated and checked first: whether a store
 * that fails its monitor takes the faults of its address is IMPLEMENTATION DEFINED.
 */
function storeExclusive(bytes: number, values: (b: Ops) => I64[]): Semantics {
  return (b) => {
    const data = values(b);
    const at = alignedAccess(b, bytes, 'write');
    const held = b.let(b.exclusiveHeld(at, bytes));
    b.clearExclusive();
    b.setW('s', b.eqz(held));
    b.if(held, () => {
      const each = bytes / data.length;
      data.forEach((value, i) => {
        b.st(at, i * each, each, value);
      });
      b.commit(at);
    });
  };
}

const exclusiveRows: Row[] = sizes.flatMap(({ bits, suffix, register, bytes }) => [
  row(
    `STXR${suffix.toUpperCase()}_${register}`,
    `${bits}001000000sssssaxxxxxnnnnnttttt`,
    `stxr${suffix} <W:s>, <${register}:t>, [<X|SP:n>]`,
    storeExclusive(bytes, (b) => [b.x('t')]),
    splitOnSp,
  ),
  row(
    `LDXR${suffix.toUpperCase()}_${register}`,
    `${bits}001000010xxxxxaxxxxxnnnnnttttt`,
    `ldxr${suffix} <${register}:t>, [<X|SP:n>]`,
    loadExclusive(bytes),
    splitOnSp,
  ),
]);

const exclusiveAliases: Alias[] = sizes.flatMap(({ bits, suffix, register }) => [
  alias(
    `STLXR${suffix.toUpperCase()}_${register}`,
    `${bits}001000000sssss1xxxxxnnnnnttttt`,
    `stlxr${suffix} <W:s>, <${register}:t>, [<X|SP:n>]`,
  ),
  alias(
    `LDAXR${suffix.toUpperCase()}_${register}`,
    `${bits}001000010xxxxx1xxxxxnnnnnttttt`,
    `ldaxr${suffix} <${register}:t>, [<X|SP:n>]`,
  ),
]);

const pairSizes = [
  { bits: '10', register: 'W', bytes: 8 },
  { bits: '11', register: 'X', bytes: 16 },
] as const;

const exclusivePairRows: Row[] = pairSizes.flatMap(({ bits, register, bytes }) => [
  row(
    `STXP_${register}`,
    `${bits}001000001sssssauuuuunnnnnttttt`,
    `stxp <W:s>, <${register}:t>, <${register}:u>, [<X|SP:n>]`,
    storeExclusive(bytes, (b) => [b.x('t'), b.x('u')]),
    splitOnSp,
  ),
  row(
    `LDXP_${register}`,
    `${bits}001000011xxxxxauuuuunnnnnttttt`,
    `ldxp <${register}:t>, <${register}:u>, [<X|SP:n>]`,
    loadExclusivePair(bytes),
    splitOnSp,
  ),
]);

const exclusivePairAliases: Alias[] = pairSizes.flatMap(({ bits, register }) => [
  alias(
    `STLXP_${register}`,
    `${bits}001000001sssss1uuuuunnnnnttttt`,
    `stlxp <W:s>, <${register}:t>, <${register}:u>, [<X|SP:n>]`,
  ),
  alias(
    `LDAXP_${register}`,
    `${bits}001000011xxxxx1uuuuunnnnnttttt`,
    `ldaxp <${register}:t>, <${register}:u>, [<X|SP:n>]`,
  ),
]);

// ---- ordered loads and stores -------------------------------------------------------------------

function orderedLoad(bytes: number, where: Addressing = atBase): Semantics {
  return (b) => {
    const at = alignedAccess(b, bytes, 'read', where);
    b.setX('t', b.ld(at, 0, bytes));
  };
}

function orderedStore(bytes: number, where: Addressing = atBase): Semantics {
  return (b) => {
    const at = alignedAccess(b, bytes, 'write', where);
    b.st(at, 0, bytes, b.x('t'));
    b.commit(at);
  };
}

const orderedRows: Row[] = sizes.flatMap(({ bits, suffix, register, bytes }) => [
  row(
    `STLR${suffix.toUpperCase()}_${register}`,
    `${bits}001000100xxxxx1xxxxxnnnnnttttt`,
    `stlr${suffix} <${register}:t>, [<X|SP:n>]`,
    orderedStore(bytes),
    splitOnSp,
  ),
  row(
    `LDAR${suffix.toUpperCase()}_${register}`,
    `${bits}001000110xxxxx1xxxxxnnnnnttttt`,
    `ldar${suffix} <${register}:t>, [<X|SP:n>]`,
    orderedLoad(bytes),
    splitOnSp,
  ),
  row(
    `LDAPR${suffix.toUpperCase()}_${register}`,
    `${bits}11100010111111110000nnnnnttttt`,
    `ldapr${suffix} <${register}:t>, [<X|SP:n>]`,
    orderedLoad(bytes),
    { ...splitOnSp, feature: 'FEAT_LRCPC' },
  ),
]);

// ---- ordered with an unscaled offset ------------------------------------------------------------

const atUnscaled = atOffset((b) => b.simm('i'));

function signedOrderedLoad(bytes: 1 | 2 | 4, register: 'W' | 'X'): Semantics {
  return (b) => {
    const at = alignedAccess(b, bytes, 'read', atUnscaled);
    const value = b.ld(at, 0, bytes);
    const bits = (8 * bytes) as 8 | 16 | 32;
    if (register === 'X') b.setX('t', b.sextFrom(value, bits));
    else b.setW('t', b.sextFrom(b.wrap(value), bits));
  };
}

interface Unscaled {
  readonly size: string;
  readonly opc: string;
  readonly mnemonic: string;
  readonly register: 'W' | 'X';
  readonly semantics: Semantics;
}

const unscaledRow = ({ size, opc, mnemonic, register, semantics }: Unscaled): Row =>
  row(
    `${mnemonic.toUpperCase()}_${register}`,
    `${size}011001${opc}0iiiiiiiii00nnnnnttttt`,
    `${mnemonic} <${register}:t>, [<X|SP:n>{, #<s:i>}]`,
    semantics,
    { ...splitOnSp, feature: 'FEAT_LRCPC2' },
  );

const signedSizes = [
  { size: '00', suffix: 'sb', bytes: 1 },
  { size: '01', suffix: 'sh', bytes: 2 },
  { size: '10', suffix: 'sw', bytes: 4 },
] as const;

const unscaledRows: Row[] = [
  ...sizes.flatMap(({ bits: size, suffix, register, bytes }) => [
    unscaledRow({
      size,
      opc: '00',
      mnemonic: `stlur${suffix}`,
      register,
      semantics: orderedStore(bytes, atUnscaled),
    }),
    unscaledRow({
      size,
      opc: '01',
      mnemonic: `ldapur${suffix}`,
      register,
      semantics: orderedLoad(bytes, atUnscaled),
    }),
  ]),
  ...signedSizes.flatMap(({ size, suffix, bytes }) =>
    (['X', 'W'] as const)
      .filter((register) => register === 'X' || bytes < 4)
      .map((register) =>
        unscaledRow({
          size,
          opc: register === 'X' ? '10' : '11',
          mnemonic: `ldapur${suffix}`,
          register,
          semantics: signedOrderedLoad(bytes, register),
        }),
      ),
  ),
];

export const rows: Row[] = [
  ...exclusiveRows,
  ...exclusivePairRows,
  ...orderedRows,
  ...unscaledRows,
];

export const aliases: Alias[] = [...exclusiveAliases, ...exclusivePairAliases];
