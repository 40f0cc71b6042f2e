/**
 * Rows for loads and stores of a register pair: LDP, STP, LDPSW and the non-temporal LDNP and STNP,
 * of general and SIMD&FP registers. A pair is one access and faults as one. Not here: STGP (mte.ts)
 * and the exclusive pairs. Collected by `loads-stores.ts`.
 */
import {
  type Addressing,
  type ImmediateForm,
  offsetForm,
  postForm,
  preForm,
  SPLIT_ON_SP,
  writeBack,
} from './loads-stores-common.ts';
import type { I32, Ops } from './ops.ts';
import { type Row, row, type Semantics } from './row.ts';

interface Pair {
  /** Bits 31:30. */
  readonly opc: string;
  /** Bit 26: SIMD&FP. */
  readonly simd: '0' | '1';
  readonly register: 'W' | 'X' | 'S' | 'D' | 'Q';
  readonly log2Bytes: number;
  readonly signed: boolean;
}

const pairs: readonly Pair[] = [
  { opc: '00', simd: '0', register: 'W', log2Bytes: 2, signed: false },
  { opc: '10', simd: '0', register: 'X', log2Bytes: 3, signed: false },
  { opc: '00', simd: '1', register: 'S', log2Bytes: 2, signed: false },
  { opc: '01', simd: '1', register: 'D', log2Bytes: 3, signed: false },
  { opc: '10', simd: '1', register: 'Q', log2Bytes: 4, signed: false },
];

/** LDPSW has no store and no non-temporal form; its encodings with L = 0 are STGP. */
const signedPair: Pair = { opc: '01', simd: '0', register: 'X', log2Bytes: 2, signed: true };

/** Second register after the first: when both are one (CONSTRAINED UNPREDICTABLE) it wins. */
function toRegisters(b: Ops, pair: Pair, at: I32): void {
  const bytes = 1 << pair.log2Bytes;
  const registers = ['t', 'u'] as const;
  if (pair.register === 'Q') {
    const values = registers.map((_, i) => b.ldV(at, bytes * i));
    registers.forEach((letter, i) => {
      b.setV(letter, values[i]!);
    });
    return;
  }
  const values = registers.map((_, i) => b.ld(at, bytes * i, bytes));
  registers.forEach((letter, i) => {
    if (pair.simd === '1') b.setScalar(letter, pair.log2Bytes === 3 ? 64 : 32, values[i]!);
    else b.setX(letter, pair.signed ? b.sextFrom(values[i]!, 32) : values[i]!);
  });
}

function toMemory(b: Ops, pair: Pair, at: I32): void {
  const bytes = 1 << pair.log2Bytes;
  (['t', 'u'] as const).forEach((letter, i) => {
    if (pair.register === 'Q') b.stV(at, bytes * i, b.v(letter));
    else if (pair.simd === '0') b.st(at, bytes * i, bytes, b.x(letter));
    else b.st(at, bytes * i, bytes, b.element(letter, pair.log2Bytes === 3 ? 64 : 32, 0));
  });
}

function semantics(pair: Pair, load: boolean, addressing: Addressing): Semantics {
  return (b) => {
    const place = addressing(b);
    const at = b.access({
      va: place.va,
      bytes: 2 << pair.log2Bytes,
      kind: load ? 'read' : 'write',
      checked: place.checked,
    });
    if (load) toRegisters(b, pair, at);
    else toMemory(b, pair, at);
    writeBack(b, place);
    if (!load) b.commit(at);
  };
}

/** Bits 25:23 and what they mean. */
const forms: readonly { bits: string; form: ImmediateForm; name: string; stem: string }[] = [
  { bits: '000', form: offsetForm, name: 'nontemporal', stem: 'np' },
  { bits: '001', form: postForm, name: 'post', stem: 'p' },
  { bits: '010', form: offsetForm, name: 'offset', stem: 'p' },
  { bits: '011', form: preForm, name: 'pre', stem: 'p' },
];

function pairRow(pair: Pair, load: boolean, { bits, form, name, stem }: (typeof forms)[number]) {
  const mnemonic = `${load ? 'ld' : 'st'}${stem}${pair.signed ? 'sw' : ''}`;
  const scale = pair.log2Bytes;
  const { register } = pair;
  return row(
    `${mnemonic.toUpperCase()}_${register}_${name}`,
    `${pair.opc}101${pair.simd}${bits}${load ? 1 : 0}iiiiiiiuuuuunnnnnttttt`,
    `${mnemonic} <${register}:t>, <${register}:u>, ` +
      form.syntax.replace('IMM', `<s:i*${1 << scale}>`),
    semantics(
      pair,
      load,
      form.place((b) => b.simm('i', scale)),
    ),
    {
      split: SPLIT_ON_SP,
      ...(pair.simd === '1' ? { fp: true } : {}),
    },
  );
}

export const rows: Row[] = [
  ...pairs.flatMap((pair) =>
    forms.flatMap((form) => [pairRow(pair, false, form), pairRow(pair, true, form)]),
  ),
  ...forms.filter(({ stem }) => stem === 'p').map((form) => pairRow(signedPair, true, form)),
];
