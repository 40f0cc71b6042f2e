/**
 * Rows for loads and stores of one register, general or SIMD&FP: unsigned offset, pre- and
 * post-indexed, unscaled, unprivileged, register offset and literal; and PRFM in all its forms.
 * Not here: pairs, exclusives, ordered accesses, structures. Collected by `loads-stores.ts`.
 */
import {
  type Addressing,
  atOffset,
  offsetForm,
  postForm,
  preForm,
  SPLIT_ON_SP,
  writeBack,
} from './loads-stores-common.ts';
import type { ElementSize, I32, I64, Ops } from './ops.ts';
import { type Row, type RowOptions, row, type Semantics } from './row.ts';

/** One size of transfer between a register and memory. */
interface Transfer {
  /** Bits 31:30. */
  readonly size: string;
  /** Bit 26: SIMD&FP. */
  readonly simd: '0' | '1';
  /** Bits 23:22. */
  readonly opc: string;
  readonly load: boolean;
  /** What follows `ldr` or `str`: b, sb, h, sh, sw or nothing. */
  readonly suffix: string;
  readonly register: 'W' | 'X' | 'B' | 'H' | 'S' | 'D' | 'Q';
  readonly log2Bytes: number;
}

type IntegerLine = readonly [
  string,
  string,
  boolean,
  string,
  Transfer['register'],
  log2Bytes: number,
];

// biome-ignore format: a table
const integerLines: readonly IntegerLine[] = [
  // size  opc   load   suffix register log2Bytes
  ['00', '00', false, 'b',  'W', 0],
  ['00', '01', true,  'b',  'W', 0],
  ['00', '10', true,  'sb', 'X', 0],
  ['00', '11', true,  'sb', 'W', 0],
  ['01', '00', false, 'h',  'W', 1],
  ['01', '01', true,  'h',  'W', 1],
  ['01', '10', true,  'sh', 'X', 1],
  ['01', '11', true,  'sh', 'W', 1],
  ['10', '00', false, '',   'W', 2],
  ['10', '01', true,  '',   'W', 2],
  ['10', '10', true,  'sw', 'X', 2],
  ['11', '00', false, '',   'X', 3],
  ['11', '01', true,  '',   'X', 3],
];

const integers: readonly Transfer[] = integerLines.map(
  ([size, opc, load, suffix, register, log2Bytes]) => ({
    size,
    simd: '0' as const,
    opc,
    load,
    suffix,
    register,
    log2Bytes,
  }),
);

const vectors: readonly Transfer[] = (['B', 'H', 'S', 'D', 'Q'] as const).flatMap(
  (register, log2Bytes) =>
    [false, true].map((load) => ({
      // Q takes the size bits of B; opc<1> tells them apart.
      size: (log2Bytes & 3).toString(2).padStart(2, '0'),
      simd: '1' as const,
      opc: `${register === 'Q' ? 1 : 0}${load ? 1 : 0}`,
      load,
      suffix: '',
      register,
      log2Bytes,
    })),
);

const transfers = [...integers, ...vectors];

/** Memory at `at` to register t. */
function toRegister(b: Ops, transfer: Transfer, at: I32): void {
  const bytes = 1 << transfer.log2Bytes;
  if (transfer.register === 'Q') {
    b.setV('t', b.ldV(at, 0));
    return;
  }
  const value = b.ld(at, 0, bytes);
  const bits = (8 * bytes) as ElementSize;
  if (transfer.simd === '1') b.setScalar('t', bits, value);
  else if (!transfer.suffix.startsWith('s')) b.setX('t', value);
  else if (transfer.register === 'X') b.setX('t', b.sextFrom(value, bits as 8 | 16 | 32));
  else b.setW('t', b.sextFrom(b.wrap(value), bits as 8 | 16 | 32));
}

/** Register t to memory at `at`. */
function toMemory(b: Ops, transfer: Transfer, at: I32): void {
  const bytes = 1 << transfer.log2Bytes;
  if (transfer.register === 'Q') b.stV(at, 0, b.v('t'));
  else if (transfer.simd === '1') {
    b.st(at, 0, bytes, b.element('t', (8 * bytes) as ElementSize, 0));
  } else b.st(at, 0, bytes, b.x('t'));
}

function semantics(transfer: Transfer, addressing: Addressing, unprivileged = false): Semantics {
  return (b) => {
    const place = addressing(b);
    const at = b.access({
      va: place.va,
      bytes: 1 << transfer.log2Bytes,
      kind: transfer.load ? 'read' : 'write',
      checked: place.checked,
      unprivileged,
    });
    if (transfer.load) toRegister(b, transfer, at);
    else toMemory(b, transfer, at);
    writeBack(b, place);
    if (!transfer.load) b.commit(at);
  };
}

/** Mnemonic: `ld` or `st`, then `r`, `ur` or `tr`, then the size. */
const mnemonic = (transfer: Transfer, infix: string): string =>
  `${transfer.load ? 'ld' : 'st'}${infix}${transfer.suffix}`;

const head = (transfer: Transfer): string => `${transfer.size}111${transfer.simd}`;

const options = (transfer: Transfer, split: string): RowOptions => ({
  split,
  ...(transfer.simd === '1' ? { fp: true } : {}),
});

function unsignedOffset(transfer: Transfer): Row {
  const name = mnemonic(transfer, 'r');
  const scale = transfer.log2Bytes;
  return row(
    `${name.toUpperCase()}_${transfer.register}_unsigned`,
    `${head(transfer)}01${transfer.opc}iiiiiiiiiiiinnnnnttttt`,
    `${name} <${transfer.register}:t>, [<X|SP:n>{, #<u:i*${1 << scale}>}]`,
    semantics(
      transfer,
      atOffset((b) => b.imm('i', scale)),
    ),
    options(transfer, SPLIT_ON_SP),
  );
}

/** Forms with a signed nine-bit offset, told apart by bits 11:10. */
const signedForms = [
  { form: offsetForm, infix: 'ur', name: 'unscaled', op2: '00' },
  { form: postForm, infix: 'r', name: 'post', op2: '01' },
  { form: offsetForm, infix: 'tr', name: 'unprivileged', op2: '10' },
  { form: preForm, infix: 'r', name: 'pre', op2: '11' },
] as const;

function signedOffset(transfer: Transfer): Row[] {
  return signedForms
    .filter(({ infix }) => transfer.simd === '0' || infix !== 'tr')
    .map(({ form, infix, name, op2 }) => {
      const spelled = mnemonic(transfer, infix);
      return row(
        `${spelled.toUpperCase()}_${transfer.register}_${name}`,
        `${head(transfer)}00${transfer.opc}0iiiiiiiii${op2}nnnnnttttt`,
        `${spelled} <${transfer.register}:t>, ${form.syntax.replace('IMM', '<s:i>')}`,
        semantics(
          transfer,
          form.place((b) => b.simm('i')),
          infix === 'tr',
        ),
        options(transfer, SPLIT_ON_SP),
      );
    });
}

/** Extension of an index register: field o is option<2> and option<0>; option<1> is 1. */
const Extend = { uxtw: 0, lsl: 1, sxtw: 2 } as const;

/** `[<Xn|SP>, <R><m>{, <extend> {#<amount>}}]`: Tag Checked whatever the base. */
const atIndex =
  (scale: number): Addressing =>
  (b) => {
    const shift = b.fixed('k') === 1 ? scale : 0;
    const extend = b.fixed('o');
    let index: I64;
    if (extend === Extend.uxtw) index = b.zext(b.w('m'));
    else if (extend === Extend.sxtw) index = b.sext(b.w('m'));
    else index = b.x('m');
    return { va: b.add(b.xsp('n'), b.shl(index, b.i64(shift))), checked: true };
  };

function registerOffset(transfer: Transfer): Row {
  const name = mnemonic(transfer, 'r');
  return row(
    `${name.toUpperCase()}_${transfer.register}_register`,
    `${head(transfer)}00${transfer.opc}1mmmmmo1ok10nnnnnttttt`,
    `${name} <${transfer.register}:t>, [<X|SP:n>, <index${transfer.log2Bytes}:m,o,k>]`,
    semantics(transfer, atIndex(transfer.log2Bytes)),
    options(transfer, `o k ${SPLIT_ON_SP}`),
  );
}

/** PC-relative: Tag Unchecked. */
const atLiteral: Addressing = (b) => ({ va: b.add(b.pc(), b.simm('i', 2)), checked: false });

function literal(opc: string, transfer: Transfer): Row {
  const name = mnemonic(transfer, 'r');
  return row(
    `${name.toUpperCase()}_${transfer.register}_literal`,
    `${opc}011${transfer.simd}00iiiiiiiiiiiiiiiiiiittttt`,
    `${name} <${transfer.register}:t>, <label:i*4>`,
    semantics(transfer, atLiteral),
    options(transfer, ''),
  );
}

const loadOf = (register: Transfer['register'], suffix = ''): Transfer =>
  transfers.find((each) => each.load && each.register === register && each.suffix === suffix)!;

const literals: Row[] = [
  literal('00', loadOf('W')),
  literal('01', loadOf('X')),
  literal('10', loadOf('X', 'sw')),
  literal('00', loadOf('S')),
  literal('01', loadOf('D')),
  literal('10', loadOf('Q')),
];

/** A hint: nothing here has a cache to warm, and a prefetch never faults. */
const prefetch: Semantics = () => {};

const prefetches: Row[] = [
  row(
    'PRFM_unsigned',
    '1111100110iiiiiiiiiiiinnnnnttttt',
    'prfm <prfop:t>, [<X|SP:n>{, #<u:i*8>}]',
    prefetch,
  ),
  row(
    'PRFUM_unscaled',
    '11111000100iiiiiiiii00nnnnnttttt',
    'prfum <prfop:t>, [<X|SP:n>{, #<s:i>}]',
    prefetch,
  ),
  row(
    'PRFM_register',
    '11111000101mmmmmo1ok10nnnnnttttt',
    'prfm <prfop:t>, [<X|SP:n>, <index3:m,o,k>]',
    prefetch,
  ),
  row('PRFM_literal', '11011000iiiiiiiiiiiiiiiiiiittttt', 'prfm <prfop:t>, <label:i*4>', prefetch),
];

export const rows: Row[] = [
  ...transfers.flatMap((transfer) => [
    unsignedOffset(transfer),
    ...signedOffset(transfer),
    registerOffset(transfer),
  ]),
  ...literals,
  ...prefetches,
];
