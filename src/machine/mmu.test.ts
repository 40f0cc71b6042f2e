/** The walker's rules one by one, on tables the builder made. At random: mmu-model.test.ts. */
import { beforeEach, describe, expect, it } from 'vitest';
import { encodeStage1, encodeStage2, makeTable } from '../arm/descriptor.ts';
import { Attr, Shareability, Stage2MemAttr } from '../arm/memattr.ts';
import { BLOCK_SIZE, GIB, ipa, MIB, PAGE_SIZE, type Pa, pa } from '../base/index.ts';
import { DRAM_BASE, dramOnly, PhysicalMemory } from './memory.ts';
import {
  type Access,
  AccessKind,
  FaultType,
  Mmu,
  newTranslation,
  parFromTranslation,
} from './mmu.ts';
import { PageTable } from './tables.ts';

const memory = new PhysicalMemory({ zones: dramOnly(16 * MIB), recordPageCount: 1 });
const out = newTranslation();

const M = 1n;
const C = 1n << 2n;
const I = 1n << 12n;
const WXN = 1n << 19n;
/** T0SZ = T1SZ = 16, 4 KiB, IPS 48 bits. */
const TCR = 16n | (16n << 16n) | (2n << 30n) | (5n << 32n);
const HA = 1n << 39n;
const HD = 1n << 40n;
/** Attr 0 Device-nGnRE, 1 Normal WB, 2 Normal NC, 3 Tagged. */
const MAIR = 0xf0_44_ff_04n;
const DEVICE = 0;
const NORMAL = 1;
const TAGGED = 3;

const HCR_VM = 1n;
const HCR_PTW = 1n << 2n;
const HCR_DC = 1n << 12n;
const HCR_FWB = 1n << 46n;
const HCR_DCT = 1n << 57n;
/** 40 bits of IPA from level 1, 4 KiB, PS 40 bits. */
const VTCR = 24n | (1n << 6n) | (2n << 16n);
const VTCR_HA = 1n << 21n;
const VTCR_HD = 1n << 22n;

const S1 = encodeStage1({ attrIndex: NORMAL, sh: 3, accessed: true });
const DBM = encodeStage1({ dbm: true });
const READ_ONLY = encodeStage1({ readOnly: true });
const RAM = encodeStage2({
  memAttr: Stage2MemAttr.normal,
  read: true,
  write: true,
  sh: 3,
  accessed: true,
});
const S2_WRITE = encodeStage2({ write: true });

const VA = 0x0000_1234_5678_9000n;
const KERNEL_VA = 0xffff_8000_0000_0000n;
/** Where the guest's RAM is in its own view, and in the machine. */
const GUEST = 0x4000_0000;
const RAM_OFFSET = DRAM_BASE - GUEST;

let next: number;
const allocator = {
  allocTable(): Pa {
    next += PAGE_SIZE;
    return pa(next - PAGE_SIZE);
  },
  freeTable(): void {},
};

let mmu: Mmu;
let stage1: PageTable;
let stage2: PageTable;

beforeEach(() => {
  memory.fill(DRAM_BASE, 0, 2 * MIB);
  next = DRAM_BASE + 4 * PAGE_SIZE;
  stage2 = new PageTable({ memory, allocator, root: DRAM_BASE, startLevel: 1, inputBits: 40 });
  const root = pa(DRAM_BASE + 2 * PAGE_SIZE);
  stage1 = new PageTable({ memory, allocator, root, startLevel: 0, inputBits: 48 });
  mmu = new Mmu(memory);
});

/** Stage 1 on its own, its tables at their PAs. */
function alone(change: Partial<{ sctlr: bigint; tcr: bigint }> = {}): void {
  const ttbr = BigInt(stage1.root);
  const regs = { sctlr: M | C | I, tcr: TCR, ttbr0: ttbr, ttbr1: ttbr, mair: MAIR };
  mmu.setStage1({ ...regs, ...change });
}

/**
 * Both stages. The tables of stage 1 hold PAs, so stage 2 maps the page tables' range 1:1 beside
 * the guest's RAM.
 */
function guest(change: { hcr?: bigint; vtcr?: bigint; sctlr?: bigint; tcr?: bigint } = {}): void {
  alone(change);
  map2(DRAM_BASE, DRAM_BASE, 2 * MIB, RAM);
  map2(GUEST, GUEST + RAM_OFFSET, 16 * MIB, RAM);
  mmu.setStage2({
    hcr: change.hcr ?? HCR_VM,
    vtcr: change.vtcr ?? VTCR,
    vttbr: BigInt(stage2.root),
  });
}

function map1(va: bigint, output: number, attributes: bigint, sizeBytes = PAGE_SIZE): void {
  const input = Number(BigInt.asUintN(48, va));
  stage1.mapRange({ input, pa: pa(output), sizeBytes, attributes });
}

function map2(input: number, output: number, sizeBytes: number, attributes: bigint): void {
  stage2.mapRange({ input, pa: pa(output), sizeBytes, attributes });
}

const read: Access = { kind: AccessKind.read, el: 1, pan: false };
const write: Access = { ...read, kind: AccessKind.write };
const fetch: Access = { ...read, kind: AccessKind.fetch };
const userRead: Access = { ...read, el: 0 };
const userWrite: Access = { ...write, el: 0 };

const high = (va: bigint): number => Number(BigInt.asIntN(32, va >> 32n));
const low = (va: bigint): number => Number(BigInt.asIntN(32, va));
const translate = (va: bigint, access: Access): boolean =>
  mmu.translate(high(va), low(va), access, out);

/** The last fault in short: stage, FSC, and its flags. */
function fault(): string {
  const { stage, fsc, s1ptw, write: wnr } = out.fault;
  return `${stage} ${fsc.toString(16)}${s1ptw ? ' s1ptw' : ''}${wnr ? ' write' : ''}`;
}

function expectFault(va: bigint, access: Access, expected: string): void {
  expect(translate(va, access)).toBe(false);
  expect(fault()).toBe(expected);
}

describe('stage 1 off', () => {
  it('translate: SCTLR.M = 0, flat, data Device-nGnRnE, fetches Write-Through or NC', () => {
    expect(translate(0x1234_5678n, write)).toBe(true);
    expect([out.pa, out.attr, out.shareability]).toEqual([0x1234_5678, 0, Shareability.outer]);
    expect([out.isDevice, out.deviceStage, out.mayWrite, out.mayExecute]).toEqual([
      true,
      1,
      true,
      true,
    ]);
    translate(0x1234_5678n, fetch);
    expect(out.attr).toBe(Attr.normalNC);
    alone({ sctlr: I });
    translate(0x1234_5678n, fetch);
    expect(out.attr).toBe(0xaa);
  });

  it('translate: SCTLR.M = 0 and an address beyond the PA size, address size fault level 0', () => {
    expectFault(1n << 48n, read, '1 0');
    expectFault(1n << 60n, read, '1 0');
    alone({ sctlr: 0n, tcr: TCR | (1n << 37n) });
    expect(translate((0xabn << 56n) | 0x1000n, read)).toBe(true);
    expect(out.pa).toBe(0x1000);
  });

  it('translate: HCR_EL2.DC, Write-Back and non-shareable, Tagged with DCT', () => {
    guest({ hcr: HCR_DC });
    expect(translate(BigInt(GUEST), write)).toBe(true);
    expect([out.pa, out.attr, out.tagged]).toEqual([DRAM_BASE, Attr.normalWB, false]);
    expect(out.shareability).toBe(Shareability.inner);
    guest({ hcr: HCR_DC | HCR_DCT });
    translate(BigInt(GUEST), write);
    expect([out.attr, out.tagged]).toEqual([Attr.normalWBTagged, true]);
  });
});

describe('stage 1', () => {
  it('translate: a page, its PA, attributes and permissions', () => {
    alone();
    map1(VA, 0x9000_0000, S1 | encodeStage1({ el0: true, notGlobal: true }));
    expect(translate(VA + 0x123n, userRead)).toBe(true);
    expect([out.pa, out.ipa]).toEqual([0x9000_0123, 0x9000_0123]);
    expect([out.attr, out.shareability]).toEqual([Attr.normalWB, Shareability.inner]);
    expect([out.isNormalWriteBack, out.isDevice, out.deviceStage]).toEqual([true, false, 0]);
    expect([out.mayRead, out.mayWrite, out.mayExecute]).toEqual([true, true, true]);
    expect([out.global, out.pageBytes]).toEqual([false, PAGE_SIZE]);
    expect(out.fault.type).toBe(FaultType.none);
  });

  it('translate: a 1 GiB and a 2 MiB block, their sizes', () => {
    alone();
    map1(0n, 0, S1, GIB);
    map1(BigInt(GIB), GIB, S1, BLOCK_SIZE);
    translate(0x1234_5678n, read);
    expect([out.pa, out.pageBytes]).toEqual([0x1234_5678, GIB]);
    translate(BigInt(GIB) + 0x12345n, read);
    expect([out.pa, out.pageBytes]).toEqual([GIB + 0x12345, BLOCK_SIZE]);
  });

  it('translate: block descriptor at level 0, translation fault level 0', () => {
    alone();
    memory.write64(stage1.root, 0x401n);
    expectFault(0n, read, '1 4');
  });

  it('translate: nothing mapped, the level of the first hole', () => {
    alone();
    expectFault(VA, read, '1 4');
    map1(VA + 0x1000n, 0x9000_0000, S1);
    expectFault(VA, write, '1 7 write');
    expectFault(VA + (1n << 21n), fetch, '1 6');
    expectFault(VA + (1n << 30n), read, '1 5');
    expect([out.fault.vaHigh, out.fault.vaLow]).toEqual([
      high(VA + (1n << 30n)),
      low(VA + (1n << 30n)),
    ]);
  });

  it('translate: a table where no RAM is, external abort on the walk', () => {
    alone();
    memory.write64(stage1.root, makeTable(pa(0x1000)));
    expectFault(0n, write, '1 15 write');
  });

  it('translate: top byte, ignored for data with TBI and for fetches unless TBID', () => {
    const tagged = (0x5an << 56n) | VA;
    map1(VA, 0x9000_0000, S1);
    alone();
    expectFault(tagged, read, '1 4');
    alone({ tcr: TCR | (1n << 37n) });
    expect(translate(tagged, read)).toBe(true);
    expect(translate(tagged, fetch)).toBe(true);
    alone({ tcr: TCR | (1n << 37n) | (1n << 51n) });
    expect(translate(tagged, read)).toBe(true);
    expectFault(tagged, fetch, '1 4');
  });

  it('translate: upper half, the tag 0 of a kernel pointer, needs TBI1', () => {
    map1(KERNEL_VA, 0x9000_0000, S1);
    alone({ tcr: TCR | (1n << 38n) });
    expect(translate(KERNEL_VA & ~(0xffn << 56n), read)).toBe(true);
    alone({ tcr: TCR | (1n << 37n) });
    expectFault(KERNEL_VA & ~(0xffn << 56n), read, '1 4');
  });

  it('translate: EPD and E0PD, translation fault level 0', () => {
    map1(VA, 0x9000_0000, S1 | encodeStage1({ el0: true }));
    alone({ tcr: TCR | (1n << 7n) });
    expectFault(VA, read, '1 4');
    alone({ tcr: TCR | (1n << 55n) });
    expect(translate(VA, read)).toBe(true);
    expectFault(VA, userRead, '1 4');
  });

  it('translate: no access flag, access flag fault or hardware update with TCR.HA', () => {
    map1(VA, 0x9000_0000, S1 & ~encodeStage1({ accessed: true }));
    alone();
    expectFault(VA, read, '1 b');
    alone({ tcr: TCR | HA });
    expect(translate(VA, read)).toBe(true);
    expect(stage1.lookup(Number(VA))!.descriptor & (1n << 10n)).toBe(1n << 10n);
  });

  it('translate: DBM and TCR.HD, clean until a write, and not on behalf of AT', () => {
    map1(VA, 0x9000_0000, S1 | DBM | READ_ONLY);
    const dirty = (): boolean => (stage1.lookup(Number(VA))!.descriptor & READ_ONLY) === 0n;
    alone({ tcr: TCR | HA });
    expectFault(VA, write, '1 f write');
    alone({ tcr: TCR | HA | HD });
    translate(VA, read);
    expect([out.mayWrite, dirty()]).toEqual([false, false]);
    expect(translate(VA, { ...write, at: true })).toBe(true);
    expect([out.mayWrite, dirty()]).toEqual([false, false]);
    expect(translate(VA, write)).toBe(true);
    expect([out.mayWrite, dirty()]).toEqual([true, true]);
  });

  it('translate: an update of a descriptor on a page of code, reported before', () => {
    map1(VA, 0x9000_0000, S1 | DBM | READ_ONLY);
    alone({ tcr: TCR | HA | HD });
    memory.codePages.fill(1);
    const pages: number[] = [];
    memory.onCodeWrite = (page) => pages.push(page);
    translate(VA, write);
    memory.codePages.fill(0);
    memory.onCodeWrite = () => {};
    expect(pages).toHaveLength(1);
  });

  const EL0 = encodeStage1({ el0: true });
  const PXN = encodeStage1({ pxn: true });
  const UXN = encodeStage1({ uxn: true });
  /** Leaf attributes, SCTLR bits, PAN, EL: permissions as letters. */
  const permissions: [string, bigint, bigint, boolean, 0 | 1, string][] = [
    ['kernel RW at EL1', 0n, 0n, false, 1, 'rwx'],
    ['kernel RW at EL0', 0n, 0n, false, 0, 'x'],
    ['kernel RO', READ_ONLY, 0n, false, 1, 'rx'],
    ['user RW at EL1, PXN implied', EL0, 0n, false, 1, 'rw'],
    ['user RW at EL0', EL0, 0n, false, 0, 'rwx'],
    ['user RO at EL1', EL0 | READ_ONLY, 0n, false, 1, 'rx'],
    ['user RO at EL0', EL0 | READ_ONLY, 0n, false, 0, 'rx'],
    ['UXN at EL0', EL0 | UXN, 0n, false, 0, 'rw'],
    ['UXN at EL1', UXN, 0n, false, 1, 'rwx'],
    ['PXN at EL1', PXN, 0n, false, 1, 'rw'],
    ['WXN, writable', 0n, WXN, false, 1, 'rw'],
    ['WXN, read-only', READ_ONLY, WXN, false, 1, 'rx'],
    ['WXN at EL0, read-only', EL0 | READ_ONLY, WXN, false, 0, 'rx'],
    ['PAN on a user page', EL0 | READ_ONLY, 0n, true, 1, 'x'],
    ['PAN on a kernel page', 0n, 0n, true, 1, 'rwx'],
    ['PAN at EL0', EL0, 0n, true, 0, 'rwx'],
    ['PAN on a page EL0 may only execute', 0n, 0n, true, 1, 'rwx'],
    ['EPAN on a page EL0 may only execute', 0n, 1n << 57n, true, 1, 'x'],
    ['EPAN on a page EL0 may not execute', UXN, 1n << 57n, true, 1, 'rwx'],
  ];
  for (const [name, attributes, sctlr, pan, el, expected] of permissions) {
    it(`translate: ${name}, ${expected}`, () => {
      alone({ sctlr: M | C | I | sctlr });
      map1(VA, 0x9000_0000, S1 | attributes);
      let granted = '';
      for (const [letter, kind] of Object.entries({ r: 0, w: 1, x: 2 } as const)) {
        const allowed = translate(VA, { kind, el, pan });
        if (allowed) granted += letter;
        else expect(fault()).toBe(`1 f${letter === 'w' ? ' write' : ''}`);
        if (!allowed) continue;
        const { mayRead, mayWrite, mayExecute } = out;
        const may = `${mayRead ? 'r' : ''}${mayWrite ? 'w' : ''}${mayExecute ? 'x' : ''}`;
        expect(may).toBe(expected);
      }
      expect(granted).toBe(expected);
    });
  }

  const tables: [string, Parameters<typeof makeTable>[1], Access, string][] = [
    ['APTable no EL0 access', { noEl0: true }, userRead, '1 f'],
    ['APTable read-only', { readOnly: true }, write, '1 f write'],
    ['PXNTable', { pxn: true }, fetch, '1 f'],
    ['UXNTable', { uxn: true }, { ...fetch, el: 0 }, '1 f'],
  ];
  for (const [name, attributes, access, expected] of tables) {
    it(`translate: ${name}, permission fault, and none under HPD`, () => {
      // Writable by EL0 would be execute-never at EL1 anyway.
      const el0 = access.el === 0 ? EL0 : 0n;
      map1(VA, 0x9000_0000, S1 | el0);
      const slot = pa(stage1.root + Number((VA >> 39n) & 511n) * 8);
      memory.write64(slot, memory.read64(slot) | makeTable(pa(0), attributes));
      alone();
      expectFault(VA, access, expected);
      alone({ tcr: TCR | (1n << 41n) });
      expect(translate(VA, access)).toBe(true);
    });
  }

  it('translate: an atomic on a page that refuses reads, WnR 0; on a read-only one, WnR 1', () => {
    alone();
    const atomic: Access = { kind: AccessKind.readWrite, el: 0, pan: false };
    map1(VA, 0x9000_0000, S1);
    expectFault(VA, atomic, '1 f');
    map1(VA, 0x9000_0000, S1 | EL0 | READ_ONLY);
    expectFault(VA, atomic, '1 f write');
    expectFault(VA + 0x1000n, atomic, '1 7');
  });

  it('translate: output beyond TCR.IPS, address size fault of the leaf', () => {
    map1(VA, 2 ** 36, S1);
    alone({ tcr: TCR & ~(7n << 32n) });
    expectFault(VA, read, '1 3');
  });

  it('translate: Contiguous set, each entry stands for itself', () => {
    map1(VA, 0x9000_0000, S1 | encodeStage1({ contiguous: true }));
    alone();
    expect(translate(VA, read)).toBe(true);
    expect(out.pageBytes).toBe(PAGE_SIZE);
  });

  it('translate: SCTLR.C = 0, Normal is Non-cacheable and not Tagged', () => {
    map1(VA, 0x9000_0000, encodeStage1({ attrIndex: TAGGED, sh: 3, accessed: true }));
    alone({ sctlr: M | I });
    translate(VA, read);
    expect([out.attr, out.tagged, out.shareability]).toEqual([0x44, false, Shareability.outer]);
    alone();
    translate(VA, read);
    expect([out.attr, out.tagged]).toEqual([Attr.normalWBTagged, true]);
  });
});

describe('two stages', () => {
  it('translate: page over block, the smaller size, IPA and PA', () => {
    guest();
    map1(VA, GUEST + 0x5000, S1);
    expect(translate(VA + 8n, write)).toBe(true);
    expect([out.ipa, out.pa]).toEqual([GUEST + 0x5008, DRAM_BASE + 0x5008]);
    expect(out.pageBytes).toBe(PAGE_SIZE);
    map1(BigInt(GIB), GUEST, S1, BLOCK_SIZE);
    translate(BigInt(GIB), write);
    expect(out.pageBytes).toBe(BLOCK_SIZE);
  });

  it('translate: output not mapped at stage 2, its IPA and the direction of the access', () => {
    guest();
    map1(VA, 0x0900_0000, S1);
    expectFault(VA + 0x18n, write, '2 5 write');
    expect(out.fault.ipa).toBe(0x0900_0018);
    expectFault(VA, read, '2 5');
    expectFault(VA, fetch, '2 5');
  });

  it('translate: IPA beyond the input size, translation fault level 0', () => {
    guest();
    map1(VA, 2 ** 40, S1);
    expectFault(VA, read, '2 4');
    expect(out.fault.ipa).toBe(2 ** 40);
  });

  it('translate: a table of stage 1 not mapped at stage 2, s1ptw and never WnR', () => {
    guest();
    map1(VA, GUEST, S1);
    const slot = pa(stage1.root + Number((VA >> 39n) & 511n) * 8);
    memory.write64(slot, makeTable(pa(0x7000_0000)));
    expectFault(VA, write, '2 6 s1ptw');
    expect(out.fault.ipa).toBe(0x7000_0000 + Number((VA >> 30n) & 511n) * 8);
  });

  it('translate: tables of stage 1 in read-only memory, walked, but not updated', () => {
    map1(VA, GUEST, S1 & ~encodeStage1({ accessed: true }));
    map1(VA + 0x1000n, GUEST, S1);
    guest({ tcr: TCR | HA });
    map2(DRAM_BASE, DRAM_BASE, 2 * MIB, RAM & ~S2_WRITE);
    mmu.invalidateStage2();
    expect(translate(VA + 0x1000n, read)).toBe(true);
    expectFault(VA, read, '2 e s1ptw write');
  });

  it('translate: tables of stage 1 in Device memory, permission fault with HCR_EL2.PTW', () => {
    map1(VA, GUEST, S1);
    const device = encodeStage2({ memAttr: Stage2MemAttr.deviceNGnRE, read: true, accessed: true });
    guest();
    map2(DRAM_BASE, DRAM_BASE, 2 * MIB, device);
    mmu.invalidateStage2();
    expect(translate(VA, read)).toBe(true);
    mmu.setStage2({ hcr: HCR_VM | HCR_PTW, vtcr: VTCR, vttbr: BigInt(stage2.root) });
    expectFault(VA, write, '2 e s1ptw');
  });

  it('translate: a table of stage 2 where no RAM is, external abort of stage 2', () => {
    guest();
    map1(VA, 3 * GIB, S1);
    memory.write64(pa(stage2.root + 3 * 8), makeTable(pa(0x1000)));
    expectFault(VA, write, '2 16 write');
    memory.write64(pa(stage2.root + 2 * 8), makeTable(pa(0x1000)));
    mmu.invalidateStage2();
    expectFault(VA, write, '2 16 s1ptw');
  });

  it('translate: write to a page stage 2 holds read-only, permission fault; reads pass', () => {
    guest();
    map1(VA, GUEST, S1);
    map2(GUEST, DRAM_BASE, PAGE_SIZE, RAM & ~S2_WRITE);
    expect(translate(VA, read)).toBe(true);
    expect(out.mayWrite).toBe(false);
    expectFault(VA, write, '2 f write');
  });

  it('translate: stage 2 dirty state, set by a write through any page of a block', () => {
    const dbm = encodeStage2({ dbm: true });
    guest({ vtcr: VTCR | VTCR_HA | VTCR_HD });
    map1(VA, GUEST, S1);
    map2(GUEST, DRAM_BASE, BLOCK_SIZE, (RAM & ~S2_WRITE) | dbm);
    translate(VA, read);
    expect(out.mayWrite).toBe(false);
    expect(stage2.lookup(GUEST)!.descriptor & S2_WRITE).toBe(0n);
    expect(translate(VA, write)).toBe(true);
    expect(out.mayWrite).toBe(true);
    expect(stage2.lookup(GUEST)!.descriptor & S2_WRITE).toBe(S2_WRITE);
  });

  const XNX: [number, string][] = [
    [0b00, '01'],
    [0b01, '0'],
    [0b10, ''],
    [0b11, '1'],
  ];
  for (const [xn, levels] of XNX) {
    it(`translate: stage 2 XN ${xn.toString(2)}, executable at EL ${levels || 'none'}`, () => {
      guest();
      map1(VA, GUEST, S1 | READ_ONLY | encodeStage1({ el0: true }));
      map2(GUEST, DRAM_BASE, PAGE_SIZE, RAM | encodeStage2({ xn }));
      const granted = ([0, 1] as const).filter((el) => translate(VA, { ...fetch, el }));
      expect(granted.join('')).toBe(levels);
    });
  }

  it('translate: Tagged at stage 1, Tagged under Normal and AS_S1, not under NC', () => {
    const tagged = encodeStage1({ attrIndex: TAGGED, sh: 3, accessed: true });
    const attrs: [bigint, number, number][] = [
      [HCR_VM, Stage2MemAttr.normal, Attr.normalWBTagged],
      [HCR_VM, Stage2MemAttr.normalNC, Attr.normalNC],
      [HCR_VM | HCR_FWB, Stage2MemAttr.fwbForceWB, Attr.normalWBTagged],
      [HCR_VM | HCR_FWB, Stage2MemAttr.fwbAsStage1, Attr.normalWBTagged],
      [HCR_VM | HCR_FWB, Stage2MemAttr.fwbDeviceNGnRE, Attr.deviceNGnRE],
    ];
    for (const [hcr, memAttr, expected] of attrs) {
      guest({ hcr });
      map1(VA, GUEST, tagged);
      const write = { read: true, write: true, accessed: true };
      map2(GUEST, DRAM_BASE, PAGE_SIZE, encodeStage2({ memAttr, ...write }));
      mmu.invalidateStage2();
      translate(VA, read);
      expect([out.attr, out.tagged]).toEqual([expected, expected === Attr.normalWBTagged]);
    }
  });

  it('translate: FEAT_MTE_PERM, NoTagAccess', () => {
    mmu = new Mmu(memory, { mtePerm: true });
    guest();
    map1(VA, GUEST, encodeStage1({ attrIndex: TAGGED, accessed: true }));
    map2(GUEST, DRAM_BASE, PAGE_SIZE, encodeStage2({ memAttr: 4, read: true, accessed: true }));
    translate(VA, read);
    expect([out.tagged, out.noTagAccess, out.attr]).toEqual([true, true, 0xe0]);
  });

  it('translate: Device at one stage, the stage an unaligned access would fault at', () => {
    guest();
    map1(VA, GUEST, encodeStage1({ attrIndex: DEVICE, accessed: true }));
    map1(VA + 0x1000n, GUEST + 0x1000, S1);
    map1(VA + 0x2000n, GUEST + 0x2000, S1);
    const device = { memAttr: Stage2MemAttr.deviceNGnRE, read: true, accessed: true };
    map2(GUEST + 0x1000, DRAM_BASE, PAGE_SIZE, encodeStage2(device));
    const stages = [0n, 0x1000n, 0x2000n].map(
      (page) => translate(VA + page, read) && out.deviceStage,
    );
    expect(stages).toEqual([1, 2, 0]);
  });
});

describe('caching of stage 2', () => {
  it('invalidateStage2: a leaf changed, the old page until then and the new one after', () => {
    guest();
    map1(VA, GUEST, S1);
    translate(VA, read);
    map2(GUEST, DRAM_BASE + 0x3000, PAGE_SIZE, RAM);
    translate(VA, read);
    expect(out.pa).toBe(DRAM_BASE);
    mmu.invalidateStage2();
    translate(VA, read);
    expect(out.pa).toBe(DRAM_BASE + 0x3000);
  });

  it('translate: a leaf made valid after a fault, found without invalidation', () => {
    guest();
    map1(VA, 2 * GIB - PAGE_SIZE, S1);
    expectFault(VA, read, '2 6');
    map2(2 * GIB - PAGE_SIZE, DRAM_BASE, PAGE_SIZE, RAM);
    expect(translate(VA, read)).toBe(true);
  });

  it('translate: a leaf that gained rights, found without invalidation', () => {
    guest();
    map1(VA, GUEST, S1);
    map2(GUEST, DRAM_BASE, PAGE_SIZE, RAM & ~S2_WRITE);
    expectFault(VA, write, '2 f write');
    map2(GUEST, DRAM_BASE, PAGE_SIZE, RAM);
    expect(translate(VA, write)).toBe(true);
    expect(out.mayWrite).toBe(true);
  });

  it('setStage2: off, addresses pass', () => {
    guest();
    map1(VA, GUEST, S1);
    translate(VA, read);
    mmu.setStage2(undefined);
    translate(VA, read);
    expect(out.pa).toBe(GUEST);
  });

  it('setStage1: a new TTBR0, its tables at once', () => {
    alone();
    map1(VA, GUEST, S1);
    translate(VA, read);
    alone();
    const ttbr0 = BigInt(stage2.root);
    mmu.setStage1({ sctlr: M | C | I, tcr: TCR, ttbr0, ttbr1: 0n, mair: MAIR });
    expectFault(VA, read, '1 4');
  });
});

describe('one stage at a time', () => {
  it('translateStage1: the IPA and the attributes of stage 1', () => {
    guest();
    map1(VA, 0x0900_0000, encodeStage1({ attrIndex: DEVICE, accessed: true }));
    expect(mmu.translateStage1(high(VA), low(VA), read, out)).toBe(true);
    expect([out.pa, out.ipa, out.attr]).toEqual([0x0900_0000, 0x0900_0000, Attr.deviceNGnRE]);
  });

  it('translateStage2: an IPA, its PA and permissions', () => {
    guest();
    map2(GUEST, DRAM_BASE, PAGE_SIZE, RAM & ~S2_WRITE);
    mmu.invalidateStage2();
    expect(mmu.translateStage2(ipa(GUEST + 5), read, out)).toBe(true);
    expect([out.pa, out.mayWrite, out.attr]).toEqual([DRAM_BASE + 5, false, Attr.normalWB]);
    expect(mmu.translateStage2(ipa(GUEST + 5), write, out)).toBe(false);
    expect([fault(), out.fault.ipa]).toEqual(['2 f write', GUEST + 5]);
    expect(mmu.translateStage2(ipa(2 ** 47), read, out)).toBe(false);
    expect(fault()).toBe('2 4');
  });
});

describe('parFromTranslation', () => {
  it('parFromTranslation: success, the page, attributes and shareability', () => {
    alone();
    map1(VA, 0x12_3456_7000, S1);
    mmu.translateStage1(high(VA), low(VA) | 0x123, read, out);
    expect(parFromTranslation(out)).toBe(0xff00_0012_3456_7000n | (3n << 7n) | (1n << 11n));
  });

  it('parFromTranslation: a stage 1 fault, F and the status code', () => {
    alone();
    translate(VA, read);
    expect(parFromTranslation(out)).toBe(0x809n);
  });

  it('parFromTranslation: a stage 2 fault on the walk, S and PTW too', () => {
    guest();
    memory.write64(stage1.root, makeTable(pa(0x7000_0000)));
    translate(0n, { ...userWrite, at: true });
    expect(parFromTranslation(out)).toBe(0x801n | (6n << 1n) | (1n << 8n) | (1n << 9n));
  });
});
