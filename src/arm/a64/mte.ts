/**
 * Rows for the Memory Tagging Extension: tag arithmetic (IRG, ADDG, SUBG, GMI, SUBP), tag loads and
 * stores (STG family, LDG, STGP, the bulk LDGM, STGM, STZGM), and the data cache operations that
 * zero memory or write tags (DC ZVA, GVA, GZVA). Where allocation tag access is off, generated tags
 * and loaded tags are 0 and tag stores are ignored, but data is written and translations fault as
 * usual. Not here: tag checks of ordinary accesses (engine), tag cache maintenance (SYS).
 * Collected by `table.ts`.
 */
import {
  atOffset,
  type ImmediateForm,
  offsetForm,
  type Place,
  postForm,
  preForm,
  SPLIT_ON_SP,
  writeBack,
} from './loads-stores-common.ts';
import { type I32, type I64, type Ops, SystemOp } from './ops.ts';
import { type Alias, alias, type Row, row, type Semantics } from './row.ts';

const TAG_SHIFT = 56;
const TAG_MASK = 0xfn << BigInt(TAG_SHIFT);
/** Bytes of a tag granule. */
const GRANULE = 16;
/** Bytes that LDGM and STGM cover: GMID_EL1.BS = 6. */
const TAG_BLOCK = 256;
/** Bytes that DC ZVA, DC GVA, DC GZVA and STZGM cover: DCZID_EL0.BS = 4. */
const ZERO_BLOCK = 64;

/** Arm: AArch64.AllocationTagFromAddress(). */
const logicalTag = (b: Ops, address: I64): I32 =>
  b.and(b.wrap(b.shrU(address, b.i64(TAG_SHIFT))), b.i32(15));

/** Arm: AArch64.AddressWithAllocationTag(). */
const withLogicalTag = (b: Ops, address: I64, tag: I32): I64 =>
  b.or(b.and(address, b.i64(~TAG_MASK)), b.shl(b.zext(tag), b.i64(TAG_SHIFT)));

const alignedDown = (b: Ops, address: I64, bytes: number): I64 =>
  b.and(address, b.i64(BigInt(-bytes)));

// ---- choosing tags ------------------------------------------------------------------------------

/** Arm: AArch64.ChooseNonExcludedTag(). `exclude` is a mask of 16 bits; all excluded gives 0. */
function chooseNonExcludedTag(b: Ops, start: I32, offset: I32, exclude: I32): I32 {
  const tag = b.variable(start);
  const left = b.variable(offset);
  const next = (): void => tag.set(b.and(b.add(tag.value, b.i32(1)), b.i32(15)));
  const skipExcluded = (): void => b.while(() => b.and(b.shrU(exclude, tag.value), b.i32(1)), next);
  b.if(
    b.eq(exclude, b.i32(0xffff)),
    () => tag.set(b.i32(0)),
    () => {
      b.if(b.eqz(offset), skipExcluded);
      b.while(
        () => left.value,
        () => {
          next();
          skipExcluded();
          left.set(b.sub(left.value, b.i32(1)));
        },
      );
    },
  );
  return tag.value;
}

const excludedTags = (b: Ops): I32 => b.and(b.wrap(b.sysreg('GCR_EL1')), b.i32(0xffff));

/**
 * Arm: AArch64.RandomTag() and AArch64.NextRandomTagBit(): four steps of the RGSR_EL1.SEED
 * generator, the bits they give and the seed they leave.
 */
function randomBits(b: Ops, start: I32): { bits: I32; seed: I32 } {
  const bit = (value: I32, n: number): I32 => b.and(b.shrU(value, b.i32(n)), b.i32(1));
  let seed = start;
  let bits = b.i32(0);
  for (let i = 0; i < 4; i++) {
    const top = b.let(b.xor(b.xor(bit(seed, 5), bit(seed, 3)), b.xor(bit(seed, 2), bit(seed, 0))));
    seed = b.let(b.or(b.shrU(seed, b.i32(1)), b.shl(top, b.i32(15))));
    bits = b.or(bits, b.shl(top, b.i32(i)));
  }
  return { bits: b.let(bits), seed };
}

/** GCR_EL1.RRND = 1 may use any generator; here it is RRND = 0's, so that runs repeat. */
function insertRandomTag(b: Ops): void {
  const address = b.xsp('n');
  const tag = b.variable(b.i32(0));
  b.if(b.tagAccessEnabled(), () => {
    const exclude = b.let(b.or(b.and(b.wrap(b.x('m')), b.i32(0xffff)), excludedTags(b)));
    const rgsr = b.let(b.wrap(b.sysreg('RGSR_EL1')));
    const { bits, seed } = randomBits(b, b.and(b.shrU(rgsr, b.i32(8)), b.i32(0xffff)));
    tag.set(chooseNonExcludedTag(b, b.and(rgsr, b.i32(15)), bits, exclude));
    b.setSysreg('RGSR_EL1', b.zext(b.or(b.shl(seed, b.i32(8)), tag.value)));
  });
  b.setXsp('d', withLogicalTag(b, address, tag.value));
}

/** ADDG and SUBG: the address moves by field i tag granules, the tag by field j tags. */
const moveTagged =
  (subtract: boolean): Semantics =>
  (b) => {
    const address = b.xsp('n');
    const distance = b.imm('i', 4);
    const tag = b.variable(b.i32(0));
    b.if(b.tagAccessEnabled(), () => {
      const exclude = b.let(excludedTags(b));
      tag.set(chooseNonExcludedTag(b, logicalTag(b, address), b.field('j'), exclude));
    });
    const moved = subtract ? b.sub(address, distance) : b.add(address, distance);
    b.setXsp('d', withLogicalTag(b, moved, tag.value));
  };

function insertTagInMask(b: Ops): void {
  const bit = b.shl(b.i64(1), b.zext(logicalTag(b, b.xsp('n'))));
  b.setX('d', b.or(b.x('m'), bit));
}

/** SUBP, SUBPS: the difference of two addresses without their top bytes. */
const subtractPointers =
  (flags: boolean): Semantics =>
  (b) => {
    const address = (letter: string): I64 =>
      b.let(b.shrS(b.shl(b.xsp(letter), b.i64(8)), b.i64(8)));
    const first = address('n');
    const second = address('m');
    const result = b.let(b.sub(first, second));
    b.setX('d', result);
    if (!flags) return;
    const overflow = b.and(b.xor(first, second), b.xor(first, result));
    b.setFlags(result, result, b.leU(second, first), b.wrap(b.shrU(overflow, b.i64(63))));
  };

const arithmeticRows: Row[] = [
  row(
    'IRG',
    '10011010110mmmmm000100nnnnnddddd',
    'irg <X|SP:d>, <X|SP:n>{, <X:m=31>}',
    insertRandomTag,
    {
      feature: 'FEAT_MTE',
    },
  ),
  row('GMI', '10011010110mmmmm000101nnnnnddddd', 'gmi <X:d>, <X|SP:n>, <X:m>', insertTagInMask, {
    feature: 'FEAT_MTE',
  }),
  row(
    'SUBP',
    '10011010110mmmmm000000nnnnnddddd',
    'subp <X:d>, <X|SP:n>, <X|SP:m>',
    subtractPointers(false),
    { feature: 'FEAT_MTE' },
  ),
  row(
    'SUBPS',
    '10111010110mmmmm000000nnnnnddddd',
    'subps <X:d>, <X|SP:n>, <X|SP:m>',
    subtractPointers(true),
    { feature: 'FEAT_MTE' },
  ),
  row(
    'ADDG',
    '1001000110iiiiii00jjjjnnnnnddddd',
    'addg <X|SP:d>, <X|SP:n>, #<u:i*16>, #<u:j>',
    moveTagged(false),
    { feature: 'FEAT_MTE' },
  ),
  row(
    'SUBG',
    '1101000110iiiiii00jjjjnnnnnddddd',
    'subg <X|SP:d>, <X|SP:n>, #<u:i*16>, #<u:j>',
    moveTagged(true),
    { feature: 'FEAT_MTE' },
  ),
];

// ---- tag loads and stores -----------------------------------------------------------------------

type TagTarget = ReturnType<Ops['tagAccess']>;

const storeTags = (b: Ops, { address, tagged }: TagTarget, bytes: number, tag: I32): void =>
  b.if(tagged, () => {
    for (let offset = 0; offset < bytes; offset += GRANULE) b.stTag(address, tag, offset);
  });

const zeroBytes = (b: Ops, at: I32, bytes: number): void => {
  for (let offset = 0; offset < bytes; offset += 16) b.stV(at, offset, b.v128(0n, 0n));
};

/** STG, STZG, ST2G, STZ2G: the tag comes from the data register's address. */
function storeTagOf(b: Ops, place: Place, granules: 1 | 2, zeroData: boolean): void {
  const { va } = place;
  const bytes = granules * GRANULE;
  const tag = b.let(logicalTag(b, b.xsp('t')));
  const data = zeroData
    ? b.access({ va, bytes, kind: 'write', checked: false, align: GRANULE })
    : undefined;
  const target = b.tagAccess({ va, bytes, kind: 'write', align: GRANULE });
  if (data !== undefined) zeroBytes(b, data, bytes);
  storeTags(b, target, bytes, tag);
  writeBack(b, place);
  if (data !== undefined) b.commit(data);
}

/** STGP: a pair of registers, and the tag of the address itself. */
function storePairAndTag(b: Ops, place: Place): void {
  const { va } = place;
  const data = b.access({ va, bytes: GRANULE, kind: 'write', checked: false, align: GRANULE });
  const target = b.tagAccess({ va, bytes: GRANULE, kind: 'write', align: GRANULE });
  b.st(data, 0, 8, b.x('t'));
  b.st(data, 8, 8, b.x('u'));
  storeTags(b, target, GRANULE, b.let(logicalTag(b, va)));
  writeBack(b, place);
  b.commit(data);
}

function loadTag(b: Ops): void {
  const { va } = atOffset((ops) => ops.simm('i', 4))(b);
  const { address, tagged } = b.tagAccess({
    va: alignedDown(b, va, GRANULE),
    bytes: GRANULE,
    kind: 'read',
  });
  const tag = b.variable(b.i32(0));
  b.if(tagged, () => tag.set(b.ldTag(address)));
  b.setX('t', withLogicalTag(b, b.x('t'), tag.value));
}

/** LDGM, STGM and STZGM are UNDEFINED at EL0. */
const privileged =
  (semantics: Semantics): Semantics =>
  (b) =>
    b.if(
      b.eqz(b.el()),
      () => b.undefined(),
      () => semantics(b),
    );

/** Tag i of the block in bits 4i + 3 : 4i. */
function loadTagBlock(b: Ops): void {
  const va = alignedDown(b, b.xsp('n'), TAG_BLOCK);
  const { address, tagged } = b.tagAccess({ va, bytes: TAG_BLOCK, kind: 'read' });
  const tags = b.variable(b.i64(0));
  b.if(tagged, () => {
    let all = b.i64(0);
    for (let i = 0; i < TAG_BLOCK / GRANULE; i++) {
      all = b.or(all, b.shl(b.zext(b.ldTag(address, i * GRANULE)), b.i64(4 * i)));
    }
    tags.set(all);
  });
  b.setX('t', tags.value);
}

function storeTagBlock(b: Ops): void {
  const va = alignedDown(b, b.xsp('n'), TAG_BLOCK);
  const { address, tagged } = b.tagAccess({ va, bytes: TAG_BLOCK, kind: 'write' });
  const tags = b.x('t');
  b.if(tagged, () => {
    for (let i = 0; i < TAG_BLOCK / GRANULE; i++) {
      const tag = b.and(b.wrap(b.shrU(tags, b.i64(4 * i))), b.i32(15));
      b.stTag(address, tag, i * GRANULE);
    }
  });
}

function storeTagAndZeroBlock(b: Ops): void {
  const va = b.let(alignedDown(b, b.xsp('n'), ZERO_BLOCK));
  const data = b.access({ va, bytes: ZERO_BLOCK, kind: 'write', checked: false });
  const target = b.tagAccess({ va, bytes: ZERO_BLOCK, kind: 'write' });
  zeroBytes(b, data, ZERO_BLOCK);
  storeTags(b, target, ZERO_BLOCK, b.let(b.and(b.wrap(b.x('t')), b.i32(15))));
  b.commit(data);
}

/** Bits 11:10 of the load/store tags group. */
const tagForms: readonly { bits: string; form: ImmediateForm }[] = [
  { bits: '01', form: postForm },
  { bits: '10', form: offsetForm },
  { bits: '11', form: preForm },
];

/** Bits 23:22 of the stores in it. */
const tagStores = [
  { bits: '00', mnemonic: 'stg', granules: 1, zeroData: false },
  { bits: '01', mnemonic: 'stzg', granules: 1, zeroData: true },
  { bits: '10', mnemonic: 'st2g', granules: 2, zeroData: false },
  { bits: '11', mnemonic: 'stz2g', granules: 2, zeroData: true },
] as const;

const offset = (b: Ops): I64 => b.simm('i', 4);

const tagStoreRows: Row[] = tagStores.flatMap(({ bits, mnemonic, granules, zeroData }) =>
  tagForms.map(({ bits: op2, form }) =>
    row(
      `${mnemonic.toUpperCase()}_${form.name}`,
      `11011001${bits}1iiiiiiiii${op2}nnnnnttttt`,
      `${mnemonic} <X|SP:t>, ${form.syntax.replace('IMM', '<s:i*16>')}`,
      (b) => storeTagOf(b, form.place(offset)(b), granules, zeroData),
      { feature: 'FEAT_MTE', split: SPLIT_ON_SP },
    ),
  ),
);

/** STGP sits among the pairs, at bits 25:23. */
const pairForms: readonly { bits: string; form: ImmediateForm }[] = [
  { bits: '001', form: postForm },
  { bits: '010', form: offsetForm },
  { bits: '011', form: preForm },
];

const pairRows: Row[] = pairForms.map(({ bits, form }) =>
  row(
    `STGP_${form.name}`,
    `011010${bits}0iiiiiiiuuuuunnnnnttttt`,
    `stgp <X:t>, <X:u>, ${form.syntax.replace('IMM', '<s:i*16>')}`,
    (b) => storePairAndTag(b, form.place(offset)(b)),
    { feature: 'FEAT_MTE', split: SPLIT_ON_SP },
  ),
);

const tagLoadRows: Row[] = [
  row('LDG', '11011001011iiiiiiiii00nnnnnttttt', 'ldg <X:t>, [<X|SP:n>{, #<s:i*16>}]', loadTag, {
    feature: 'FEAT_MTE',
    split: SPLIT_ON_SP,
  }),
  row(
    'STZGM',
    '1101100100100000000000nnnnnttttt',
    'stzgm <X:t>, [<X|SP:n>]',
    privileged(storeTagAndZeroBlock),
    { feature: 'FEAT_MTE2', split: SPLIT_ON_SP },
  ),
  row(
    'STGM',
    '1101100110100000000000nnnnnttttt',
    'stgm <X:t>, [<X|SP:n>]',
    privileged(storeTagBlock),
    { feature: 'FEAT_MTE2', split: SPLIT_ON_SP },
  ),
  row(
    'LDGM',
    '1101100111100000000000nnnnnttttt',
    'ldgm <X:t>, [<X|SP:n>]',
    privileged(loadTagBlock),
    { feature: 'FEAT_MTE2', split: SPLIT_ON_SP },
  ),
];

// ---- data cache operations that write -----------------------------------------------------------

const SCTLR_DZE = 1n << 14n;

/** EL0 may use them when SCTLR_EL1.DZE is set, otherwise SYS decides what happens. */
const zeroingAllowed =
  (semantics: Semantics): Semantics =>
  (b) => {
    const denied = b.and(b.eqz(b.el()), b.eqz(b.and(b.sysreg('SCTLR_EL1'), b.i64(SCTLR_DZE))));
    b.if(
      denied,
      () => b.system(SystemOp.sys),
      () => semantics(b),
    );
  };

/**
 * DC ZVA is Tag Checked over the whole block; DC GZVA writes the tags, so its data is not. A fault
 * reports the address as given, not the block's: the first access is there to have it reported.
 */
const zeroBlock =
  (writeTags: boolean): Semantics =>
  (b) => {
    const given = b.x('t');
    const checked = !writeTags;
    b.access({ va: given, bytes: 1, kind: 'write', checked });
    const va = b.let(alignedDown(b, given, ZERO_BLOCK));
    const data = b.access({ va, bytes: ZERO_BLOCK, kind: 'write', checked });
    const target = writeTags ? b.tagAccess({ va, bytes: ZERO_BLOCK, kind: 'write' }) : undefined;
    zeroBytes(b, data, ZERO_BLOCK);
    if (target !== undefined) storeTags(b, target, ZERO_BLOCK, b.let(logicalTag(b, va)));
    b.commit(data);
  };

function tagBlock(b: Ops): void {
  const given = b.x('t');
  b.tagAccess({ va: given, bytes: 1, kind: 'write' });
  const va = b.let(alignedDown(b, given, ZERO_BLOCK));
  const target = b.tagAccess({ va, bytes: ZERO_BLOCK, kind: 'write' });
  storeTags(b, target, ZERO_BLOCK, b.let(logicalTag(b, va)));
}

const cacheRows: Row[] = [
  row(
    'DC_ZVA',
    '11010101000010110111010000 1ttttt',
    'dc zva, <X:t>',
    zeroingAllowed(zeroBlock(false)),
    { refines: 'SYS' },
  ),
  row('DC_GVA', '110101010000101101110100011ttttt', 'dc gva, <X:t>', zeroingAllowed(tagBlock), {
    refines: 'SYS',
    feature: 'FEAT_MTE',
  }),
  row(
    'DC_GZVA',
    '110101010000101101110100100ttttt',
    'dc gzva, <X:t>',
    zeroingAllowed(zeroBlock(true)),
    { refines: 'SYS', feature: 'FEAT_MTE' },
  ),
];

export const rows: Row[] = [
  ...arithmeticRows,
  ...tagStoreRows,
  ...pairRows,
  ...tagLoadRows,
  ...cacheRows,
];

export const aliases: Alias[] = [
  alias('CMPP', '10111010110mmmmm000000nnnnn11111', 'cmpp <X|SP:n>, <X|SP:m>'),
];
