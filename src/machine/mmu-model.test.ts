/**
 * The walker against a naive model: bigints, no caches, the pseudocode read off line by line
 * (AArch64.FullTranslate() and below). Tables are dreamt: the model invents each descriptor the
 * first time it reads one, and the real memory is given the same word before the walker runs. So
 * every random register setting gets deep walks and every way to fail on them.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  combineStages,
  decodeMair,
  decodeStage2,
  type MemoryAttributes,
  parByte,
} from '../arm/memattr.ts';
import { describeFsc } from '../arm/syndrome.ts';
import { bit, bits, MIB, Prng, pa } from '../base/index.ts';
import { PhysicalMemory } from './memory.ts';
import { type Access, AccessKind, Mmu, type MmuFeatures, newTranslation } from './mmu.ts';

const GIB = 1n << 30n;
/** Tables of stage 2 lie in one zone, all else in the other, above 32 bits. */
const S2_ZONE = 0x8000_0000n;
const OUTPUT_ZONE = 0x41_0000_0000n;
const ZONE_BYTES = 16n << 20n;

const memory = new PhysicalMemory({
  zones: [
    { kind: 'dram', base: pa(Number(S2_ZONE)), sizeBytes: 16 * MIB },
    { kind: 'dram', base: pa(Number(OUTPUT_ZONE)), sizeBytes: 16 * MIB },
  ],
  recordPageCount: 1,
});

interface Registers {
  sctlr: bigint;
  tcr: bigint;
  ttbr0: bigint;
  ttbr1: bigint;
  mair: bigint;
  hcr: bigint;
  vtcr: bigint;
  vttbr: bigint;
}

type Fault = { fsc: number; stage: 1 | 2; s1ptw: boolean; write: boolean; ipa: bigint };
class ModelFault {
  readonly fault: Fault;
  constructor(fault: Fault) {
    this.fault = fault;
  }
}

const TRANSLATION = 0b000100;
const ACCESS_FLAG = 0b001000;
const PERMISSION = 0b001100;
const ABORT_ON_WALK = 0b010100;

/** What one stage made of an address. */
interface Leaf {
  output: bigint;
  sizeLog2: bigint;
  level: number;
  /** Descriptor, and where it lies (as an address into the next stage). */
  word: bigint;
  at: bigint;
  hierarchy: bigint;
}

const granuleOf = (tg: number, encoding: readonly number[]): bigint => BigInt(encoding[tg]!);
const ones = (count: bigint): bigint => (1n << count) - 1n;
const clamp = (value: number, min: number, max: number): bigint =>
  BigInt(Math.min(Math.max(value, min), max));

class Model {
  readonly regs: Registers;
  readonly features: MmuFeatures;
  readonly words = new Map<bigint, bigint>();
  readonly dream: (at: bigint, stage: 1 | 2, level: number, granule: bigint) => bigint;
  access: Access = { kind: 0, el: 1, pan: false };

  constructor(regs: Registers, features: MmuFeatures, dream: Model['dream']) {
    this.regs = regs;
    this.features = features;
    this.dream = dream;
  }

  get pureWrite(): boolean {
    return this.access.kind === AccessKind.write;
  }

  fail(stage: 1 | 2, fsc: number, more: Partial<Fault> = {}): never {
    throw new ModelFault({ fsc, stage, s1ptw: false, write: this.pureWrite, ipa: 0n, ...more });
  }

  /** The word at a PA, dreamt if need be; undefined where no RAM is. */
  read(at: bigint, stage: 1 | 2, level: number, granule: bigint): bigint | undefined {
    const inZone = (base: bigint): boolean => at >= base && at < base + ZONE_BYTES;
    if (!inZone(S2_ZONE) && !inZone(OUTPUT_ZONE)) return undefined;
    let word = this.words.get(at);
    if (word === undefined) {
      word = this.dream(at, stage, level, granule);
      this.words.set(at, word);
    }
    return word;
  }

  outOfRange(address: bigint, ps: bigint): boolean {
    const size = [32, 36, 40, 42, 44, 48, 48, 48][Number(ps)]!;
    return address >> BigInt(Math.min(size, this.features.paBits)) !== 0n;
  }

  /** Common to both stages: from the root to the leaf. */
  walk(
    options: {
      stage: 1 | 2;
      input: bigint;
      root: bigint;
      level: number;
      granule: bigint;
      inputBits: bigint;
      ps: bigint;
    },
    resolve: (address: bigint, level: number) => bigint,
    fail: (fsc: number) => never,
  ): Leaf {
    const { stage, granule, ps } = options;
    const stride = granule - 3n;
    let table = options.root;
    let hierarchy = 0n;
    if (this.outOfRange(table, ps)) fail(0);
    for (let level = options.level; ; level++) {
      const low = granule + BigInt(3 - level) * stride;
      const high = level === options.level ? options.inputBits : low + stride;
      const at = table + bits(options.input, Number(high) - 1, Number(low)) * 8n;
      const target = resolve(at, level);
      const word = this.read(target, stage, level, granule);
      if (word === undefined) return fail(ABORT_ON_WALK | level);
      const type = word & 3n;
      const blocks = level === 2 || (level === 1 && granule === 12n);
      const isLeaf = level === 3 ? type === 3n : type === 1n && blocks;
      if (!isLeaf && (level === 3 || type !== 3n)) fail(TRANSLATION | level);
      const base = isLeaf ? low : granule;
      const address = bits(word, 47, Number(base)) << base;
      if (this.outOfRange(address, ps)) fail(level);
      if (isLeaf) {
        const output = address | (options.input & ones(low));
        return { output, sizeLog2: low, level, word, at: target, hierarchy };
      }
      hierarchy |= word;
      table = address;
    }
  }

  /** `ttw`: on behalf of a stage 1 walk, to read or to update a descriptor. */
  stage2(ipa: bigint, ttw: 'read' | 'update' | undefined): Leaf | undefined {
    const { hcr, vtcr, vttbr } = this.regs;
    if (bit(hcr, 0) === 0 && bit(hcr, 12) === 0) return undefined;
    const where =
      ttw === undefined
        ? { ipa, s1ptw: false, write: this.pureWrite }
        : { ipa, s1ptw: true, write: ttw === 'update' };
    const fail = (fsc: number): never => this.fail(2, fsc, where);
    const granule = granuleOf(Number(bits(vtcr, 15, 14)), [12, 16, 14, 12]);
    const maxTxsz = this.features.ttst ? (granule === 16n ? 47 : 48) : 39;
    const txsz = clamp(Number(bits(vtcr, 5, 0)), 64 - this.features.paBits, maxTxsz);
    const inputBits = 64n - txsz;
    const sl0 = Number(bits(vtcr, 7, 6));
    const invalid =
      granule === 12n
        ? (sl0 === 2 && this.features.paBits < 44) || (sl0 === 3 && !this.features.ttst)
        : sl0 === 3 || (sl0 === 2 && this.features.paBits < (granule === 14n ? 42 : 44));
    const level = granule === 12n ? [2, 1, 0, 3][sl0]! : 3 - sl0;
    const levels = BigInt(3 - level);
    const min = levels * (granule - 3n) + granule + 1n;
    const max = min + (granule - 3n - 1n) + 4n;
    if (invalid || inputBits < min || inputBits > max) fail(TRANSLATION);
    if (ipa >> inputBits !== 0n) fail(TRANSLATION);
    const alignment = inputBits - (levels * (granule - 3n) + granule) + 3n;
    const root = (bits(vttbr, 47, 1) << 1n) & ~ones(alignment);
    const ps = bits(vtcr, 18, 16);
    const leaf = this.walk(
      { stage: 2, input: ipa, root, level, granule, inputBits, ps },
      (address) => address,
      fail,
    );
    const ha = this.features.hafdbs && bit(vtcr, 21) === 1;
    const hd = ha && bit(vtcr, 22) === 1;
    if (bit(leaf.word, 10) === 0 && !ha) fail(ACCESS_FLAG | leaf.level);
    // Of the two the architecture allows, AF is set whatever the permissions turn out to be.
    this.words.set(leaf.at, this.words.get(leaf.at)! | (1n << 10n));

    const { r, w, x, clean } = this.stage2Permissions(leaf.word, hd);
    const refuse = (write: boolean): never =>
      this.fail(2, PERMISSION | leaf.level, { ...where, write });
    let dirties = false;
    if (ttw !== undefined) {
      const device = this.stage2Device(leaf.word);
      if (bit(hcr, 2) === 1 && bit(hcr, 27) === 0 && device) refuse(where.write);
      if (!r || (ttw === 'update' && !w)) refuse(where.write);
      dirties = ttw === 'update';
    } else if (this.access.kind === AccessKind.fetch) {
      if (!x) refuse(false);
    } else {
      if (this.access.kind !== AccessKind.write && !r) refuse(false);
      if (this.access.kind !== AccessKind.read && !w) refuse(true);
      dirties = this.access.kind !== AccessKind.read && !this.access.at;
    }
    if (clean && dirties) this.words.set(leaf.at, this.words.get(leaf.at)! | (1n << 7n));
    return { ...leaf, word: this.words.get(leaf.at)! };
  }

  stage2Device(word: bigint): boolean {
    const fwb = this.features.fwb && bit(this.regs.hcr, 46) === 1;
    return fwb ? bit(word, 4) === 0 : bits(word, 5, 4) === 0n;
  }

  stage2Permissions(word: bigint, hd: boolean) {
    const clean = hd && bit(word, 51) === 1 && bit(word, 7) === 0;
    const xn = Number(bits(word, 54, 53));
    const [px, ux] = this.features.xnx
      ? ([
          [true, true],
          [false, true],
          [false, false],
          [true, false],
        ][xn] as [boolean, boolean])
      : [xn < 2, xn < 2];
    return {
      r: bit(word, 6) === 1,
      w: bit(word, 7) === 1 || clean,
      x: this.access.el === 0 ? ux : px,
      clean,
    };
  }

  stage1Enabled(): boolean {
    return bit(this.regs.sctlr, 0) === 1 && bit(this.regs.hcr, 12) === 0;
  }

  stage1(va: bigint): Leaf & { r: boolean; w: boolean; x: boolean; clean: boolean } {
    const { tcr, sctlr } = this.regs;
    const n = bit(va, 55);
    const tbi = bit(tcr, 37 + n) === 1;
    const tbid = this.features.tbid && bit(tcr, 51 + n) === 1;
    const top = tbi && !(tbid && this.access.kind === AccessKind.fetch) ? 55 : 63;
    if (!this.stage1Enabled()) {
      if (bits(va, top, this.features.paBits) !== 0n) this.fail(1, 0);
      const output = va & ones(BigInt(this.features.paBits));
      const flat = { output, sizeLog2: 30n, level: 0, word: 0n, at: 0n, hierarchy: 0n };
      return { ...flat, r: true, w: true, x: true, clean: false };
    }
    const granule = n
      ? granuleOf(Number(bits(tcr, 31, 30)), [12, 14, 12, 16])
      : granuleOf(Number(bits(tcr, 15, 14)), [12, 16, 14, 12]);
    const maxTxsz = this.features.ttst ? (granule === 16n ? 47 : 48) : 39;
    const inputBits = 64n - clamp(Number(n ? bits(tcr, 21, 16) : bits(tcr, 5, 0)), 16, maxTxsz);
    const above = bits(va, top, Number(inputBits));
    if (above !== (n ? ones(BigInt(top) - inputBits + 1n) : 0n)) this.fail(1, TRANSLATION);
    if (this.features.e0pd && bit(tcr, 55 + n) === 1 && this.access.el === 0) {
      this.fail(1, TRANSLATION);
    }
    if (bit(tcr, n ? 23 : 7) === 1) this.fail(1, TRANSLATION);
    const stride = granule - 3n;
    const level = 3 - Number((inputBits - 1n - granule) / stride);
    const alignment = inputBits - (BigInt(3 - level) * stride + granule) + 3n;
    const ttbr = n ? this.regs.ttbr1 : this.regs.ttbr0;
    const root = (bits(ttbr, 47, 1) << 1n) & ~ones(alignment);
    const ipas: bigint[] = [];
    const leaf = this.walk(
      { stage: 1, input: va, root, level, granule, inputBits, ps: bits(tcr, 34, 32) },
      (address) => {
        ipas.push(address);
        return this.stage2(address, 'read')?.output ?? address;
      },
      (fsc) => this.fail(1, fsc),
    );
    const ha = this.features.hafdbs && bit(tcr, 39) === 1;
    const hd = ha && bit(tcr, 40) === 1;
    if (bit(leaf.word, 10) === 0 && !ha) this.fail(1, ACCESS_FLAG | leaf.level);
    const p = this.stage1Permissions(leaf, hd, sctlr, tcr, n);
    const refuse = (write: boolean): never => this.fail(1, PERMISSION | leaf.level, { write });
    const { kind } = this.access;
    if (kind === AccessKind.fetch && !p.x) refuse(false);
    if ((kind === AccessKind.read || kind === AccessKind.readWrite) && !p.r) refuse(false);
    if ((kind === AccessKind.write || kind === AccessKind.readWrite) && !p.w) refuse(true);
    const writes = kind === AccessKind.write || kind === AccessKind.readWrite;
    const dirties = p.clean && writes && !this.access.at;
    const updated = (leaf.word | (1n << 10n)) & ~(dirties ? 1n << 7n : 0n);
    if (updated !== leaf.word) {
      this.stage2(ipas.at(-1)!, 'update');
      this.words.set(leaf.at, updated);
    }
    return { ...leaf, ...p, word: updated, clean: p.clean && !dirties };
  }

  stage1Permissions(leaf: Leaf, hd: boolean, sctlr: bigint, tcr: bigint, n: number) {
    const { word } = leaf;
    const hierarchy = this.features.hpds && bit(tcr, 41 + n) === 1 ? 0n : leaf.hierarchy;
    const dbm = hd && bit(word, 51) === 1;
    const clean = dbm && bit(word, 7) === 1;
    const ap = dbm ? Number(bits(word, 7, 6)) & 1 : Number(bits(word, 7, 6));
    let [pr, pw, ur, uw] = [
      [true, true, false, false],
      [true, true, true, true],
      [true, false, false, false],
      [true, false, true, false],
    ][ap] as [boolean, boolean, boolean, boolean];
    const apTable = Number(bits(hierarchy, 62, 61));
    if (apTable & 1) [ur, uw] = [false, false];
    if (apTable & 2) [pw, uw] = [false, false];
    const px = !(bit(word, 53) === 1 || bit(hierarchy, 59) === 1 || uw);
    const ux = !(bit(word, 54) === 1 || bit(hierarchy, 60) === 1);
    const beforePan = this.access.el === 0 ? uw : pw;
    const epan = this.features.pan3 && bit(sctlr, 57) === 1;
    if (this.access.pan && this.access.el === 1 && (ur || uw || (epan && ux))) {
      pr = false;
      pw = false;
    }
    const [r, w] = this.access.el === 0 ? [ur, uw] : [pr, pw];
    let x = this.access.el === 0 ? ux : px;
    if (bit(sctlr, 19) === 1 && beforePan) x = false;
    return { r, w, x, clean };
  }

  /** The combined memory. */
  memory(s1: Leaf, s2: Leaf | undefined) {
    const { sctlr, hcr, mair } = this.regs;
    const fetch = this.access.kind === AccessKind.fetch;
    const nc = decodeMair(0x44, 2);
    let first: MemoryAttributes;
    if (!this.stage1Enabled()) {
      if (bit(hcr, 12) === 1) first = decodeMair(bit(hcr, 57) === 1 ? 0xf0 : 0xff, 0);
      else if (fetch) first = bit(sctlr, 12) === 1 ? decodeMair(0xaa, 2) : nc;
      else first = decodeMair(0, 2);
    } else {
      const index = Number(bits(s1.word, 4, 2)) * 8;
      const sh = Number(bits(s1.word, 9, 8));
      first = decodeMair(Number(bits(mair, index + 7, index)), sh);
      const device = first.base < 16;
      const uncached = fetch ? device || bit(sctlr, 12) === 0 : !device && bit(sctlr, 2) === 0;
      if (uncached) first = decodeMair(0x44, sh);
    }
    if (s2 === undefined) return this.spell(first);
    const options = {
      fwb: this.features.fwb && bit(hcr, 46) === 1,
      mtePerm: this.features.mtePerm,
    };
    const second = decodeStage2(Number(bits(s2.word, 5, 2)), options);
    const result = combineStages(first, second, Number(bits(s2.word, 9, 8)));
    const device = result.base < 16;
    const uncached = fetch ? device || bit(hcr, 33) === 1 : !device && bit(hcr, 32) === 1;
    return this.spell(uncached ? nc : result);
  }

  spell(memory: MemoryAttributes) {
    const { base, tagged, noTagAccess } = memory;
    const isDevice = base < 16;
    return {
      attr: parByte(memory),
      shareability: isDevice || base === 0x44 ? 2 : memory.shareability,
      tagged,
      noTagAccess,
      isDevice,
      isNormalWriteBack: [base >> 4, base & 15].every((n) => [5, 6, 7, 12, 13, 14, 15].includes(n)),
    };
  }

  translate(va: bigint, access: Access) {
    this.access = access;
    try {
      const s1 = this.stage1(va);
      const s2 = this.stage2(s1.output, undefined);
      const hd = this.features.hafdbs && bits(this.regs.vtcr, 22, 21) === 3n;
      const p2 =
        s2 === undefined
          ? { r: true, w: true, x: true, clean: false }
          : this.stage2Permissions(s2.word, hd);
      const size = s2 !== undefined && s2.sizeLog2 < s1.sizeLog2 ? s2.sizeLog2 : s1.sizeLog2;
      return {
        pa: s2?.output ?? s1.output,
        ipa: s1.output,
        ...this.memory(s1, s2),
        mayRead: s1.r && p2.r,
        mayWrite: s1.w && p2.w && !s1.clean && !p2.clean,
        mayExecute: s1.x && p2.x,
        global: bit(s1.word, 11) === 0,
        pageBytes: 2 ** Math.min(Number(size), 30),
      };
    } catch (error) {
      if (error instanceof ModelFault) return error.fault;
      throw error;
    }
  }
}

/** Registers, features and descriptors out of a seed, biased to settings that get far. */
class Dreamer {
  readonly #random: Prng;
  readonly features: MmuFeatures;
  readonly regs: Registers;
  /** Size of an IPA; undefined = stage 2 is off. */
  #ipaBits: number | undefined;

  constructor(seed: number) {
    this.#random = new Prng(seed);
    const chance = (percent: number): boolean => this.chance(percent);
    this.features = {
      paBits: this.pick([40, 42, 44, 48, 48, 48]),
      hafdbs: chance(80),
      hpds: chance(80),
      pan3: chance(80),
      xnx: chance(70),
      e0pd: chance(70),
      tbid: chance(70),
      ttst: chance(30),
      fwb: chance(80),
      mtePerm: chance(30),
    };
    this.regs = this.#registers();
  }

  chance(percent: number): boolean {
    return this.#random.chance(percent, 100);
  }

  pick<T>(from: readonly T[]): T {
    return from[this.#random.below(from.length)]!;
  }

  #bits(...fields: [at: number, percent: number][]): bigint {
    return fields.reduce((w, [at, p]) => (this.chance(p) ? w | (1n << BigInt(at)) : w), 0n);
  }

  #field(at: number, ...from: number[]): bigint {
    return BigInt(this.pick(from)) << BigInt(at);
  }

  #registers(): Registers {
    const size = (): number =>
      this.chance(5) ? this.#random.below(64) : 16 + this.#random.below(24);
    const stage2 = this.chance(75);
    const vtcr = this.#vtcr();
    this.#ipaBits = stage2 ? 64 - Math.max(16, Number(bits(vtcr, 5, 0))) : undefined;
    const mair = Array.from({ length: 8 }, () =>
      this.pick([0x00, 0x04, 0x0c, 0x44, 0xbb, 0xff, 0xf0, 0xf0, this.#random.below(256)]),
    ).reduce((word, byte) => (word << 8n) | BigInt(byte), 0n);
    const tcr =
      this.#bits([7, 4], [23, 4], [37, 50], [38, 50], [39, 50], [40, 60], [41, 20], [42, 20]) |
      this.#bits([51, 50], [52, 50], [55, 15], [56, 15]) |
      this.#field(14, 0, 1, 2, 0, 3) |
      this.#field(30, 0, 1, 2, 2, 3) |
      this.#field(32, 5, 5, 5, 2, 4, 1, 7) |
      BigInt(size()) |
      (BigInt(size()) << 16n);
    const sctlr = this.#bits([0, 92], [2, 90], [12, 90], [19, 20], [57, 40]);
    const hcr = stage2
      ? this.#bits([0, 97], [2, 40], [12, 4], [32, 5], [33, 5], [46, 40], [57, 50])
      : 0n;
    return {
      sctlr,
      tcr,
      mair,
      ttbr0: this.address(1, 16n) | 1n,
      ttbr1: this.address(1, 16n),
      hcr,
      vtcr,
      vttbr: this.address(2, 20n) | 1n,
    };
  }

  #vtcr(): bigint {
    const tg = this.pick([0, 0, 1, 2]);
    const granule = [12, 16, 14][tg]!;
    const sl0 = this.pick([0, 1, 1, 2, 2, 3]);
    const level = granule === 12 ? [2, 1, 0, 3][sl0]! : Math.max(3 - sl0, 1);
    const min = (3 - level) * (granule - 3) + granule + 1;
    const bits = this.chance(5)
      ? this.#random.below(64)
      : Math.min(48, min + this.#random.below(granule - 3 + 4));
    return (
      (BigInt(tg) << 14n) |
      (BigInt(sl0) << 6n) |
      BigInt(Math.max(0, 64 - bits) & 63) |
      this.#field(16, 5, 5, 5, 2, 4, 0) |
      this.#bits([21, 50], [22, 60])
    );
  }

  /** A PA (or IPA) for a descriptor of a stage to hold, aligned to 2^`align`. */
  address(stage: 1 | 2, align: bigint, table = true): bigint {
    const page = (BigInt(this.#random.below(2 ** 24)) >> align) << align;
    if (this.chance(2)) return (BigInt(this.#random.below(2 ** 18)) << 30n) | page;
    if (stage === 2) {
      const base = table ? S2_ZONE : OUTPUT_ZONE;
      return ((base >> align) << align) | page;
    }
    if (this.#ipaBits === undefined) return OUTPUT_ZONE | page;
    // Under stage 2 any IPA in range will do; low ones also pass the smaller output sizes.
    if (this.#ipaBits < 30) return page & ones(BigInt(this.#ipaBits));
    const gibs = Math.min(2 ** (this.#ipaBits - 30), this.pick([1, 4, 64]));
    return (BigInt(this.#random.below(gibs)) * GIB) | page;
  }

  readonly descriptor = (stage: 1 | 2, level: number, granule: bigint): bigint => {
    const blocks = level === 2 || (level === 1 && granule === 12n);
    const table = level < 3 && !(blocks && this.chance(20));
    const low = granule + BigInt(3 - level) * (granule - 3n);
    const type = this.chance(3) ? this.#random.below(4) : table || level === 3 ? 3 : 1;
    const align = table ? granule : low;
    const noise = stage === 1 ? this.#stage1Bits(table) : this.#stage2Bits(table);
    return this.address(stage, align, table) | noise | BigInt(type);
  };

  #stage1Bits(table: boolean): bigint {
    const ignored = this.#bits([48, 10], [49, 10], [55, 50], [58, 50]);
    if (table) return ignored | this.#bits([59, 8], [60, 8], [61, 8], [62, 8], [63, 8]);
    return (
      ignored |
      this.#bits([6, 60], [7, 40], [10, 75], [11, 50], [51, 50], [52, 20], [53, 30], [54, 30]) |
      this.#field(2, 0, 1, 2, 3, 4, 5, 6, 7) |
      this.#field(8, 0, 1, 2, 3)
    );
  }

  #stage2Bits(table: boolean): bigint {
    const ignored = this.#bits([48, 10], [49, 10], [55, 50], [58, 50], [59, 50], [62, 50]);
    if (table) return ignored;
    return (
      ignored |
      this.#bits([6, 92], [7, 60], [10, 85], [11, 10], [51, 60], [52, 20], [53, 20], [54, 20]) |
      this.#field(2, 15, 15, 15, 7, 6, 5, 1, 0, 3, 4, 9, 10, 12, 14) |
      this.#field(8, 0, 1, 2, 3)
    );
  }

  va(): bigint {
    const n = this.chance(50) ? 1 : 0;
    const { tcr } = this.regs;
    const txsz = Number(n ? bits(tcr, 21, 16) : bits(tcr, 5, 0));
    const inputBits = 64n - clamp(txsz, 16, this.features.ttst ? 47 : 39);
    const low = this.#random.u64() & ones(inputBits);
    const flat = bit(this.regs.sctlr, 0) === 0;
    const top = flat || n === 0 ? 0n : ones(64n) & ~ones(inputBits);
    const va = flat ? low & ones(40n) : top | low;
    const tag = this.chance(40) ? BigInt(this.#random.below(256)) << 56n : 0n;
    const stray = this.chance(3) ? 1n << BigInt(this.#random.below(64)) : 0n;
    return va ^ tag ^ stray;
  }

  access(): Access {
    const access: Access = {
      kind: this.pick([AccessKind.read, AccessKind.write, AccessKind.fetch, AccessKind.readWrite]),
      el: this.chance(50) ? 0 : 1,
      pan: this.chance(30),
    };
    if (this.chance(10)) access.at = true;
    return access;
  }
}

const half = (va: bigint, shift: bigint): number => Number((va >> shift) & 0xffff_ffffn);

/** What the walker answers, in the model's terms. */
function ask(mmu: Mmu, va: bigint, access: Access) {
  const out = newTranslation();
  if (!mmu.translate(half(va, 32n), half(va, 0n), access, out)) {
    const { fsc, stage, s1ptw, write, ipa } = out.fault;
    return { fsc, stage, s1ptw, write, ipa: BigInt(ipa) };
  }
  const { fault: _, deviceStage: __, ...rest } = out;
  return { ...rest, pa: BigInt(out.pa), ipa: BigInt(out.ipa) };
}

/**
 * One random machine and a few accesses; returns how each ended. The model runs ahead on words of
 * its own; of those only the ones it dreamt for this access go to the real memory, as they were
 * before it updated them.
 */
function run(seed: number): string[] {
  const dreamer = new Dreamer(seed);
  const dreamt = new Map<bigint, bigint>();
  const model = new Model(dreamer.regs, dreamer.features, (at, stage, level, granule) => {
    const word = dreamer.descriptor(stage, level, granule);
    dreamt.set(at, word);
    return word;
  });
  const mmu = new Mmu(memory, dreamer.features);
  mmu.setStage1(dreamer.regs);
  mmu.setStage2(dreamer.regs);
  const ends: string[] = [];
  let va = dreamer.va();
  for (let i = 0; i < 5; i++) {
    if (dreamer.chance(50)) va = dreamer.chance(70) ? va ^ 0x1000n : dreamer.va();
    const access = dreamer.access();
    dreamt.clear();
    const expected = model.translate(va, access);
    for (const [at, word] of dreamt) memory.write64(pa(Number(at)), word);
    const fresh = dreamer.chance(40);
    if (fresh) mmu.invalidateStage2();
    const answer = ask(mmu, va, access);
    // A cached page of a block may still wait for dirty state that another page's write has set.
    if (!fresh && 'mayWrite' in expected && 'mayWrite' in answer) {
      expected.mayWrite &&= answer.mayWrite;
    }
    expect(answer, `seed ${seed}, access ${i}, VA ${va.toString(16)}`).toEqual(expected);
    for (const [at, word] of model.words) expect(memory.read64(pa(Number(at)))).toBe(word);
    ends.push('fsc' in answer ? `stage ${answer.stage} ${describeFsc(answer.fsc)}` : 'translated');
  }
  for (const at of model.words.keys()) memory.write64(pa(Number(at)), 0n);
  return ends;
}

describe('Mmu', () => {
  it('Mmu: random registers and tables, every answer and every update as the model', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 32 - 1 }), (seed) => {
        run(seed);
      }),
      { numRuns: 2500 },
    );
  });

  it('Mmu: fixed seeds, which meet every fault of both stages at every level', () => {
    const ends = new Map<string, number>();
    for (let seed = 0; seed < 2500; seed++) {
      for (const end of run(seed)) ends.set(end, (ends.get(end) ?? 0) + 1);
    }
    const levels = { 'address size': 0, translation: 0, 'access flag': 1, permission: 1 };
    const expected = Object.entries({ ...levels, 'external abort on walk': 0 }).flatMap(
      ([name, from]) =>
        [0, 1, 2, 3]
          .filter((level) => level >= from)
          .map((level) => `${name.includes('abort') ? name : `${name} fault`}, level ${level}`),
    );
    const missing = [1, 2].flatMap((stage) =>
      expected.map((end) => `stage ${stage} ${end}`).filter((end) => !ends.has(end)),
    );
    expect(missing).toEqual([]);
    expect(ends.get('translated')).toBeGreaterThan(1000);
  });
});
