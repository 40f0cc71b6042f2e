/**
 * Makes instances of a row for the recorder: an opcode with random fields, a seed for the
 * registers, and inputs that make its operands sensible: bases that point into a buffer (or, now
 * and then, just outside it, or with another tag), branch targets in the code page, exclusive
 * stores behind their loads. Called by `record-golden.ts`; knows the rows only by their patterns
 * and texts.
 */
import { type DecodedRow, type Decoder, knownInVariant } from '../../src/arm/a64/decoder.ts';
import { withField } from '../../src/arm/a64/pattern.ts';
import { assemble, disassemble } from '../../src/arm/a64/text.ts';
import { Prng } from '../../src/base/index.ts';
import type { VectorKind } from '../../test/conformance/golden-state.ts';
import {
  BUFFER_BYTES,
  CODE_VA,
  PAGE,
  PC,
  PLAIN,
  pristineBytes,
  pristineTags,
  TAGGED,
  WRITABLE_BYTES,
} from '../../test/conformance/golden-world.ts';

export interface Instance {
  readonly words: readonly number[];
  readonly seed: number;
  readonly inputs: Map<string, string>;
}

const REGISTER_LETTERS = 'dnmatus';
const tags = pristineTags();

const pick = <T>(prng: Prng, items: readonly T[]): T => items[prng.below(items.length)]!;

// ---- fields -------------------------------------------------------------------------------------

/** A word of the row, of its variant `variant`; other fields are random. */
function randomWord(decoded: DecodedRow, variant: number, prng: Prng): number {
  const { pattern } = decoded;
  const known = knownInVariant(decoded, variant);
  // Ignored bits are 1, as the (1) of the Arm ARM's diagrams asks.
  let word = (pattern.value | ~pattern.mask) >>> 0;
  let lastRegister = prng.below(31);
  for (const field of pattern.fields.values()) {
    const { letter, width } = field;
    const isRegister = width === 5 && REGISTER_LETTERS.includes(letter);
    let value = isRegister ? randomRegister(prng, lastRegister) : randomImmediate(prng, width);
    const is31 = known.is31.get(letter);
    if (is31 === true) value = 31;
    else if (is31 === false && value === 31) value = prng.below(31);
    value = known.values.get(letter) ?? value;
    if (isRegister) lastRegister = value;
    word = withField(field, word, value);
  }
  return word;
}

function randomRegister(prng: Prng, last: number): number {
  const choice = prng.below(20);
  return choice < 2 ? 31 : choice < 4 ? last : prng.below(31);
}

function randomImmediate(prng: Prng, width: number): number {
  const all = 2 ** width - 1;
  switch (prng.below(8)) {
    case 0:
      return 0;
    case 1:
      return all;
    case 2:
      return 2 ** (width - 1);
    default:
      return prng.u32() & all;
  }
}

// ---- memory -------------------------------------------------------------------------------------

/** Where an instruction's text says that it accesses memory. */
interface Operand {
  readonly base: string;
  readonly offset: bigint;
  readonly index?: string;
  readonly extend?: string;
  readonly amount: bigint;
}

const REGISTER = '(?:x\\d+|sp)';
const OPERAND = new RegExp(
  `\\[(${REGISTER})(?:, #(-?\\w+))?(?:, ([xw](?:\\d+|zr))(?:, (\\w+)(?: #(\\w+))?)?)?\\]`,
);

function memoryOperand(text: string): Operand | undefined {
  const zeroing = /^dc g?z?va, (x\d+)$/.exec(text);
  if (zeroing !== null) return { base: zeroing[1]!, offset: 0n, amount: 0n };
  const found = OPERAND.exec(text);
  if (found === null || text.startsWith('prf')) return undefined;
  const [, base, offset = '0', index, extend, amount = '0'] = found;
  return {
    base: base!,
    offset: offset.startsWith('-') ? -BigInt(offset.slice(1)) : BigInt(offset),
    amount: BigInt(amount),
    ...(index === undefined ? {} : { index }),
    ...(extend === undefined ? {} : { extend }),
  };
}

/** Instructions that must be aligned; QEMU's FEAT_LSE2 allows some that the engine does not. */
const mustAlign = (name: string): boolean =>
  /^(LDX|STX|LDAR|STLR|LDAP|STLUR|CAS|SWP|LD(ADD|CLR|EOR|SET|SMAX|SMIN|UMAX|UMIN))/.test(name);

/** An address for an access to begin at, with its tag. */
function target(name: string, prng: Prng): bigint {
  const buffer = prng.chance(1, 2) ? PLAIN : TAGGED;
  const start = ((): number => {
    switch (prng.below(16)) {
      case 0:
        return buffer.va - 1 - prng.below(16);
      case 1:
        return buffer.va + WRITABLE_BYTES - prng.below(32);
      case 2:
        return buffer.va + BUFFER_BYTES - prng.below(32);
      case 3:
      case 4:
      case 5:
        return buffer.va + PAGE - prng.below(64);
      default:
        return buffer.va + prng.below(WRITABLE_BYTES - 256);
    }
  })();
  // Either aligned, or so that two bytes and more cross a tag granule.
  const align = pick(prng, [16, 16, 16, 8, 4, 1]);
  const aligned = mustAlign(name)
    ? start - (start % 16) + (prng.chance(1, 8) ? 15 : 0)
    : start - (start % align);
  let tag = prng.chance(1, 2) ? prng.below(16) : 0;
  if (buffer.tagged && prng.chance(7, 8)) tag = tags[(aligned - buffer.va) >> 4] ?? tag;
  const top = BigInt(prng.chance(1, 5) ? prng.below(16) : 0);
  return BigInt(aligned) | (BigInt(tag) << 56n) | (top << 60n);
}

const hex = (value: bigint | number): string => value.toString(16);

/** Inputs that make the operand's address `address`; undefined where that is not possible. */
function pointTo(
  name: string,
  operand: Operand,
  address: bigint,
  prng: Prng,
): Map<string, string> | undefined {
  const inputs = new Map<string, string>();
  let distance = operand.offset;
  const { index, extend } = operand;
  if (index !== undefined && !index.endsWith('zr')) {
    if (index.slice(1) === operand.base.slice(1)) return undefined;
    const narrow = index.startsWith('w');
    const small = BigInt(prng.below(600)) - (extend === 'uxtw' ? 0n : 300n);
    const high = narrow ? BigInt(prng.u32()) << 32n : 0n;
    inputs.set(`x${index.slice(1)}`, hex(BigInt.asUintN(narrow ? 32 : 64, small) | high));
    distance += small << operand.amount;
  }
  const base = BigInt.asUintN(64, address - distance);
  // SP is kept aligned: QEMU does not check it.
  if (operand.base === 'sp' && (base & 15n) !== 0n) {
    if (mustAlign(name)) return undefined;
    inputs.set('sp', hex(base & ~15n));
  } else inputs.set(operand.base, hex(base));
  return inputs;
}

/** What memory holds at the start, as hexadecimal; undefined outside the buffers. */
function contents(address: bigint, bytes: number): string | undefined {
  const at = Number(address & 0xffff_ffffn);
  for (const buffer of [PLAIN, TAGGED]) {
    if (at < buffer.va || at + bytes > buffer.va + BUFFER_BYTES) continue;
    const part = pristineBytes(buffer).subarray(at - buffer.va, at - buffer.va + bytes);
    return Buffer.from(part)
      .reverse()
      .toString('hex')
      .replace(/^0+(?=.)/, '');
  }
  return undefined;
}

// ---- instances ----------------------------------------------------------------------------------

/** What V registers hold: most often numbers of the format that the instruction's operands have. */
function vectorKind(text: string, prng: Prng): VectorKind {
  if (!/\b[vbhsdq]\d/.test(text)) return 'r';
  const kinds: VectorKind[] = ['r', 'b', 'h', 's', 'd', 'i', 'z'];
  const found = /\.\d*([bhsd])\b|\b([bhsd])\d+\b/.exec(text);
  const format = (found?.[1] ?? found?.[2]) as VectorKind | undefined;
  return format !== undefined && prng.chance(3, 4) ? format : pick(prng, kinds);
}

/** Sets the immediate of a PC-relative operand to a distance in instructions. */
function withTarget(decoded: DecodedRow, word: number, address: number): number {
  const field = decoded.pattern.fields.get('i')!;
  return withField(field, word, (address - PC) / 4);
}

/** A CAS finds what it expects half the time. */
function expect(text: string, address: bigint, inputs: Map<string, string>, prng: Prng): void {
  const found = /^cas(p?)(?:a|l|al)?([bh]?) ([wx])(\d+)/.exec(text);
  if (found === null || prng.chance(1, 2)) return;
  const [, pair, size, letter, register] = found;
  const bytes = size === 'b' ? 1 : size === 'h' ? 2 : letter === 'w' ? 4 : 8;
  for (let i = 0; i < (pair === 'p' ? 2 : 1); i++) {
    const value = contents(address + BigInt(i * bytes), bytes);
    const key = `x${Number(register) + i}`;
    if (value !== undefined && key !== 'x31' && !inputs.has(key)) inputs.set(key, value);
  }
}

/** The load that makes an exclusive store succeed; left out now and then. */
function exclusiveLoad(text: string, operand: Operand, prng: Prng): number[] {
  const found = /^stl?x(r[bh]?|p) w\w+, ([wx])/.exec(text);
  if (found === null || prng.chance(1, 4)) return [];
  const [, size, letter] = found;
  const registers = size === 'p' ? `${letter}zr, ${letter}28` : `${letter}zr`;
  // x28 may be the base: the store then faults or fails, as it would for a program.
  return [assemble(`ldx${size} ${registers}, [${operand.base}]`)];
}

/** One instance of the variant, or undefined where the random fields make none. */
function makeInstance(
  source: Decoder,
  decoded: DecodedRow,
  variant: number,
  seed: number,
): Instance | undefined {
  const prng = new Prng(seed + 0x5eed);
  const { name, syntax } = decoded.row;
  let word = randomWord(decoded, variant, prng);
  if (syntax.includes('<label:i*4>')) {
    const data = PLAIN.va + 4 * prng.below(WRITABLE_BYTES / 4);
    word = withTarget(
      decoded,
      word,
      /^ldr/.test(syntax) ? data : CODE_VA + 4 * prng.below(PAGE / 4),
    );
  }
  if (source.find(word) !== decoded) return undefined;
  const text = disassemble(word, BigInt(PC));
  if (text === undefined) return undefined;
  const inputs = new Map<string, string>();
  const kind = vectorKind(text, prng);
  if (kind !== 'r') inputs.set('k', kind);
  const words = [word];
  const jump = /^(?:br|blr|ret)\b(?: (x\w+))?/.exec(text);
  if (jump?.[1] === 'xzr') return undefined;
  if (jump !== null) {
    inputs.set(jump[1] ?? 'x30', hex(CODE_VA + 4 * prng.below(PAGE / 4)));
  }
  const operand = memoryOperand(text);
  if (operand !== undefined) {
    const address = target(name, prng);
    const pointing = pointTo(name, operand, address, prng);
    if (pointing === undefined) return undefined;
    for (const [key, value] of pointing) inputs.set(key, value);
    expect(text, address, inputs, prng);
    words.unshift(...exclusiveLoad(text, operand, prng));
  }
  return { words, seed, inputs };
}

export interface InstanceOptions {
  readonly count: number;
  readonly seed: number;
}

/** Up to `count` instances of a row, its variants in turn. The same for the same seed. */
export function makeInstances(
  source: Decoder,
  decoded: DecodedRow,
  { count, seed }: InstanceOptions,
): Instance[] {
  const instances: Instance[] = [];
  for (let i = 0; instances.length < count && i < 8 * count; i++) {
    const variant = i % decoded.variantCount;
    const instance = makeInstance(source, decoded, variant, seed + i);
    if (instance !== undefined) instances.push(instance);
  }
  return instances;
}
