/**
 * The state that a golden vector starts from and the state it ends in: registers made from a seed,
 * and the text in which a vector is kept. Shared by the recorder (`tools/golden`), which sees what
 * QEMU does, and by `golden.test.ts`, which sees what the engine does.
 *
 * A vector is one line: `words seed inputs | changes`. Words are instruction words in hexadecimal,
 * joined by `+`; the inputs replace registers of the state that the seed makes; the changes are all
 * that differs after the words have run:
 *
 *   f9400462 41 x3=521ff0 | x2=1122334455667788
 *   f8008462 7 x3=513ffc k=d | fault=segv.2@513ffc
 *
 * Keys: x0 … x30, sp, pc, nzcv, fpcr, fpsr, v0 … v31, system registers by name; m<address> = bytes
 * of memory, t<address> = allocation tags of consecutive tag granules; fault, esr, far. Inputs also
 * have k = kind of vector contents and el. All numbers are hexadecimal, but for the seed.
 */
import { Prng } from '../../src/base/index.ts';

export interface State {
  readonly x: bigint[];
  sp: bigint;
  nzcv: number;
  fpcr: number;
  fpsr: number;
  /** 128 bits each. */
  readonly v: bigint[];
}

/** What the lanes of the V registers hold: any bits, or numbers of one format at their edges. */
export const vectorKinds = ['r', 'b', 'h', 's', 'd', 'i', 'z'] as const;
export type VectorKind = (typeof vectorKinds)[number];

// ---- from a seed --------------------------------------------------------------------------------

const INTEGER_EDGES = [
  0n,
  1n,
  2n,
  0x7fn,
  0x80n,
  0xffn,
  0x7fffn,
  0x8000n,
  0xffffn,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  0x1_0000_0000n,
  0x7fff_ffff_ffff_ffffn,
  0x8000_0000_0000_0000n,
  0xffff_ffff_ffff_fffen,
  0xffff_ffff_ffff_ffffn,
];

const pick = <T>(prng: Prng, items: readonly T[]): T => items[prng.below(items.length)]!;

function integer(prng: Prng): bigint {
  switch (prng.below(6)) {
    case 0:
      return pick(prng, INTEGER_EDGES);
    case 1:
      return BigInt(prng.below(130));
    case 2:
      return BigInt.asUintN(64, -BigInt(prng.below(130)));
    case 3:
      return prng.u64() >> BigInt(prng.below(64));
    default:
      return prng.u64();
  }
}

interface FloatFormat {
  readonly bits: number;
  readonly fraction: number;
  readonly bias: number;
}

const FLOATS: Readonly<Record<'h' | 's' | 'd', FloatFormat>> = {
  h: { bits: 16, fraction: 10, bias: 15 },
  s: { bits: 32, fraction: 23, bias: 127 },
  d: { bits: 64, fraction: 52, bias: 1023 },
};

/** A floating-point number: zeros, subnormals, infinities, NaNs of both kinds, ties, near one. */
function float(prng: Prng, { bits, fraction, bias }: FloatFormat): bigint {
  const fractionMask = (1n << BigInt(fraction)) - 1n;
  const quiet = 1n << BigInt(fraction - 1);
  const random = prng.u64() & fractionMask;
  // A few bits at the top only, so that results are exact or ties.
  const short = pick(prng, [0n, quiet, fractionMask, random & ~(fractionMask >> 4n)]);
  const maxExponent = 2 * bias + 1;
  const [exponent, mantissa] = ((): [number, bigint] => {
    switch (prng.below(12)) {
      case 0:
        return [0, 0n];
      case 1:
        return [0, pick(prng, [1n, fractionMask, random, quiet])];
      case 2:
        return [maxExponent, pick(prng, [0n, quiet | random, (random & ~quiet) | 1n, 0n])];
      case 3:
        return [pick(prng, [1, maxExponent - 1]), pick(prng, [0n, fractionMask, random])];
      case 4:
      case 5:
        return [bias + prng.below(2 * fraction) - fraction, random];
      case 6:
      case 7:
        return [bias + prng.below(8) - 3, short];
      case 8:
        return [pick(prng, [bias + 15, bias + 31, bias + 63, bias + 7]) % maxExponent, short];
      case 9:
        return [prng.below(maxExponent), random];
      default:
        return [bias + prng.below(4) - 2, random];
    }
  })();
  const clamped = BigInt(Math.max(0, Math.min(maxExponent, exponent)));
  const sign = BigInt(prng.below(2)) << BigInt(bits - 1);
  return sign | (clamped << BigInt(fraction)) | mantissa;
}

function lanes(bits: number, lane: () => bigint): bigint {
  let value = 0n;
  for (let at = 0; at < 128; at += bits) {
    value |= BigInt.asUintN(bits, lane()) << BigInt(at);
  }
  return value;
}

function vector(prng: Prng, kind: VectorKind): bigint {
  switch (kind) {
    case 'r':
      return (prng.u64() << 64n) | prng.u64();
    case 'b':
      return lanes(8, () => pick(prng, [0n, 1n, 0x7fn, 0x80n, 0xffn, BigInt(prng.below(256))]));
    case 'h':
    case 's':
    case 'd':
      return lanes(FLOATS[kind].bits, () => float(prng, FLOATS[kind]));
    case 'i': {
      const bits = pick(prng, [16, 32, 64]);
      return lanes(bits, () => integer(prng) >> BigInt(prng.chance(1, 2) ? 64 - bits : 0));
    }
    case 'z':
      return 0n;
  }
}

/** FPCR: RMode, FZ, DN, AHP, FZ16; mostly all zero, as programs leave it. */
function floatControl(prng: Prng): number {
  if (prng.chance(1, 2)) return 0;
  let fpcr = prng.below(4) << 22;
  for (const bit of [19, 24, 25, 26]) if (prng.chance(1, 3)) fpcr |= 1 << bit;
  return fpcr >>> 0;
}

/** The state that `seed` stands for. The same on every platform, and never to be changed. */
export function stateFromSeed(seed: number, kind: VectorKind): State {
  const prng = new Prng(seed);
  return {
    x: Array.from({ length: 31 }, () => integer(prng)),
    sp: prng.u64() & ~15n,
    nzcv: prng.below(16),
    fpcr: floatControl(prng),
    fpsr: prng.chance(1, 4) ? (prng.u32() & 0x0800009f) >>> 0 : 0,
    v: Array.from({ length: 32 }, () => vector(prng, kind)),
  };
}

// ---- vectors as text ----------------------------------------------------------------------------

export interface GoldenVector {
  readonly words: readonly number[];
  readonly seed: number;
  readonly inputs: ReadonlyMap<string, string>;
  readonly changes: ReadonlyMap<string, string>;
}

/** A file of vectors, by row name. */
export interface GoldenFile {
  /** What the vectors were recorded with. */
  readonly recorder: string;
  /** `user`: at EL0 under Linux; `system`: at the vector's `el`, without an operating system. */
  readonly mode: 'user' | 'system';
  readonly seed: number;
  readonly rows: Readonly<Record<string, readonly string[]>>;
}

export const hexWord = (word: number): string => (word >>> 0).toString(16).padStart(8, '0');

const formatPairs = (pairs: ReadonlyMap<string, string>): string =>
  [...pairs].map(([key, value]) => ` ${key}=${value}`).join('');

export function formatVector({ words, seed, inputs, changes }: GoldenVector): string {
  const head = `${words.map(hexWord).join('+')} ${seed}${formatPairs(inputs)}`;
  return `${head} |${formatPairs(changes)}`;
}

function parsePairs(text: string): Map<string, string> {
  const pairs = new Map<string, string>();
  for (const pair of text.split(' ').filter((part) => part !== '')) {
    const equal = pair.indexOf('=');
    pairs.set(pair.slice(0, equal), pair.slice(equal + 1));
  }
  return pairs;
}

export function parseVector(line: string): GoldenVector {
  const [before = '', after = ''] = line.split('|');
  const [words = '', seed = ''] = before.split(' ');
  return {
    words: words.split('+').map((word) => Number.parseInt(word, 16)),
    seed: Number(seed),
    inputs: parsePairs(before.slice(words.length + seed.length + 2)),
    changes: parsePairs(after),
  };
}

/** The state a vector starts from. */
export function initialState(vector: Pick<GoldenVector, 'seed' | 'inputs'>): State {
  const { inputs } = vector;
  const state = stateFromSeed(vector.seed, (inputs.get('k') ?? 'r') as VectorKind);
  for (const [key, text] of inputs) setRegister(state, key, text);
  return state;
}

function setRegister(state: State, key: string, text: string): void {
  const value = /^[0-9a-f]+$/.test(text) ? BigInt(`0x${text}`) : 0n;
  const numbered = /^([xv])(\d+)$/.exec(key);
  if (numbered !== null) state[numbered[1] as 'x' | 'v'][Number(numbered[2])] = value;
  else if (key === 'sp') state.sp = value;
  else if (key === 'nzcv' || key === 'fpcr' || key === 'fpsr') state[key] = Number(value);
}

/** The registers that differ, in the form of a vector's changes. */
export function registerChanges(before: State, after: State): Map<string, string> {
  const changes = new Map<string, string>();
  const compare = (key: string, old: bigint | number, now: bigint | number): void => {
    if (old !== now) changes.set(key, now.toString(16));
  };
  before.x.forEach((old, i) => {
    compare(`x${i}`, old, after.x[i]!);
  });
  compare('sp', before.sp, after.sp);
  compare('nzcv', before.nzcv, after.nzcv);
  compare('fpcr', before.fpcr, after.fpcr);
  compare('fpsr', before.fpsr, after.fpsr);
  before.v.forEach((old, i) => {
    compare(`v${i}`, old, after.v[i]!);
  });
  return changes;
}

/** Where runs of differing bytes begin and end; up to `gap` equal bytes stay in a run. */
function* changedRuns(
  before: Uint8Array,
  after: Uint8Array,
  gap: number,
): Generator<[start: number, end: number]> {
  for (let i = 0; i < before.length; i++) {
    if (before[i] === after[i]) continue;
    let end = i + 1;
    for (let j = end; j < Math.min(before.length, end + gap + 1); j++) {
      if (before[j] !== after[j]) end = j + 1;
    }
    yield [i, end];
    i = end;
  }
}

/** Runs of bytes that differ, as `m<address>`; gaps of up to 3 equal bytes stay in a run. */
export const memoryChanges = (
  address: number,
  before: Uint8Array,
  after: Uint8Array,
): Map<string, string> =>
  new Map(
    [...changedRuns(before, after, 3)].map(([start, end]) => [
      `m${(address + start).toString(16)}`,
      Buffer.from(after.subarray(start, end)).toString('hex'),
    ]),
  );

/** Runs of tags (one a byte) that differ, as `t<address>`. */
export const tagChanges = (
  address: number,
  before: Uint8Array,
  after: Uint8Array,
): Map<string, string> =>
  new Map(
    [...changedRuns(before, after, 0)].map(([start, end]) => [
      `t${(address + 16 * start).toString(16)}`,
      Array.from(after.subarray(start, end), (tag) => tag.toString(16)).join(''),
    ]),
  );
