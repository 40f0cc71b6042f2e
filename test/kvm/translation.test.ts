/**
 * Stage 1 as a guest works with it on a vCPU: TLB maintenance by VA, ASID and for all vCPUs,
 * blocks, the hardware's updates of descriptors, address translation instructions, and the aborts
 * and their syndromes. The walker alone is tested in src/machine/mmu.test.ts.
 */
import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE, type Hva, hva, PAGE_SIZE } from '../../src/base/index.ts';
import { isRefusal } from '../../src/host/index.ts';
import { KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY } from '../../src/kvm/uapi.ts';
import {
  Attr,
  accept,
  CODE,
  DATA,
  GuestVm,
  Leaf,
  PAGES,
  UNTAGGED,
  USER_CODE,
  USER_DATA,
} from '../support/guest-vm.ts';

const data = (at: number, extra = 0n): bigint =>
  BigInt(at) | Leaf.page | Leaf.inner | Leaf.accessed | Attr.tagged | Leaf.uxn | Leaf.pxn | extra;
const dataBlock = (at: number, extra = 0n): bigint => (data(at, extra) & ~3n) | Leaf.block;
const load = (at: number | bigint): string => `ldr x1, =${at}\n ldr x0, [x1]`;

/** A guest whose slot holds its page's number (from 1) in the first word of each page. */
function numbered(options: { vcpuCount?: number; length?: number } = {}) {
  const guest = new GuestVm(options);
  const { length = 16 * PAGE_SIZE } = options;
  const memory = guest.addSlot({ length });
  for (let page = 0; page < length / PAGE_SIZE; page++) {
    accept(guest.process.memory.writeU64(hva(memory + page * PAGE_SIZE), BigInt(page + 1)));
  }
  return { guest, memory };
}

describe('TLB maintenance', () => {
  /** `tlbi`s that reach a page's entry, with x1 = its VA; some take the page number. */
  const reaching: readonly string[] = [
    'vmalle1',
    'vmalle1is',
    'vae1, x2',
    'vae1is, x2',
    'vaae1, x2',
    'vaae1is, x2',
    'vale1, x2',
    'vaale1is, x2',
    'aside1, xzr',
    'aside1is, xzr',
  ];
  const maintain = (operation: string, at: number): string =>
    `ldr x2, =${Math.floor(at / PAGE_SIZE)}\n tlbi ${operation}\n dsb ish\n isb`;

  it.each(reaching)('tlbi %s: a page that was changed is seen', (operation) => {
    const { guest } = numbered();
    const at = PAGES + 3 * PAGE_SIZE;
    guest.setPage(3, data(DATA, Leaf.notGlobal));
    expect(guest.value(load(at))).toBe(1n);
    guest.setPage(3, data(DATA + PAGE_SIZE, Leaf.notGlobal));
    expect(guest.value(`${maintain(operation, at)}\n${load(at)}`)).toBe(2n);
  });

  it.each(['vae1, x2', 'vaale1is, x2'])(
    'tlbi %s of one address of a block: all of it goes',
    (operation) => {
      const { guest } = numbered({ length: 2 * BLOCK_SIZE });
      const block = PAGES + BLOCK_SIZE;
      const sum = [0, 5, 300, 511]
        .map((page) => `ldr x1, =${block + page * PAGE_SIZE}\n ldr x3, [x1]\n add x0, x0, x3`)
        .join('\n');
      guest.setBlock(1, dataBlock(DATA));
      expect(guest.value(`mov x0, #0\n${sum}`)).toBe(BigInt(1 + 6 + 301 + 512));
      guest.setBlock(1, dataBlock(DATA + BLOCK_SIZE));
      const other = block + 77 * PAGE_SIZE;
      expect(guest.value(`${maintain(operation, other)}\n mov x0, #0\n${sum}`)).toBe(
        BigInt(4 * 512 + 1 + 6 + 301 + 512),
      );
    },
  );

  it('code of a block goes too', () => {
    const { guest, memory } = numbered({ length: 2 * BLOCK_SIZE });
    for (const [at, opcode] of [
      [0, 0xd2800020], // mov x0, #1
      [BLOCK_SIZE, 0xd2800040], // mov x0, #2
    ] as const) {
      accept(guest.process.memory.writeU32(hva(memory + at + 0x2000), opcode));
      accept(guest.process.memory.writeU32(hva(memory + at + 0x2004), 0xd65f03c0)); // ret
    }
    const executable = (at: number): bigint => dataBlock(at) & ~Leaf.pxn;
    guest.setBlock(1, executable(DATA));
    const call = `ldr x1, =${PAGES + BLOCK_SIZE + 0x2000}\n blr x1`;
    expect(guest.value(call)).toBe(1n);
    guest.setBlock(1, executable(DATA + BLOCK_SIZE));
    expect(guest.value(`${maintain('vae1, x2', PAGES + BLOCK_SIZE)}\n${call}`)).toBe(2n);
  });

  it('a page that loses its right to be written', () => {
    const { guest } = numbered();
    guest.setPage(0, data(DATA));
    guest.value(`ldr x1, =${PAGES}\n str xzr, [x1]`);
    guest.setPage(0, data(DATA, Leaf.readOnly));
    const answer = guest.run(`${maintain('vale1, x2', PAGES)}\n ldr x1, =${PAGES}\n str xzr, [x1]`);
    expect(answer).toMatchObject({ esr: 0x9600_004fn, far: BigInt(PAGES) });
  });

  it.each(['vae1is, x2', 'vae1, x2'])('tlbi %s on one vCPU reaches the others', (operation) => {
    // KVM runs guests with HCR_EL2.FB: what a guest invalidates locally is broadcast.
    const { guest } = numbered({ vcpuCount: 2 });
    guest.setPage(0, data(DATA));
    expect(guest.value(load(PAGES), 1)).toBe(1n);
    guest.setPage(0, data(DATA + PAGE_SIZE));
    guest.value(maintain(operation, PAGES), 0);
    expect(guest.value(load(PAGES), 1)).toBe(2n);
  });

  it('at EL0: UNDEFINED', () => {
    const { guest } = numbered();
    expect(guest.runAtEl0('tlbi vmalle1')).toMatchObject({ vector: 0x400, esr: 0x0200_0000n });
  });
});

describe('ASIDs', () => {
  /** A second level 1 table, whose user data lies one page further. */
  function twoSpaces() {
    const { guest, memory } = numbered();
    const first = Number(guest.getRegister('TTBR0_EL1'));
    const second = first + 0x10_000;
    const at = (table: number): Hva => hva(guest.codeHva + (table - CODE));
    const words = guest.process.memory.read(at(first), 8 * PAGE_SIZE);
    if (isRefusal(words)) throw new Error('tables are mapped');
    guest.process.memory.write(at(second), words);
    // Its PAGES point to its own tables.
    const { memory: process } = guest.process;
    process.writeU64(hva(at(second) + 8 * 7), BigInt(second + 0x1000) | 3n);
    process.writeU64(hva(at(second) + 0x1000), BigInt(second + 0x2000) | 3n);
    const setPage = (table: number, page: number, word: bigint): void =>
      accept(process.writeU64(hva(at(table) + 0x2000 + 8 * page), word));
    setPage(first, 0, data(DATA, Leaf.notGlobal));
    setPage(second, 0, data(DATA + PAGE_SIZE, Leaf.notGlobal));
    setPage(first, 1, data(DATA + 2 * PAGE_SIZE));
    setPage(second, 1, data(DATA + 2 * PAGE_SIZE));
    const enter = (table: number, asid: number): string =>
      `ldr x9, =${(BigInt(asid) << 48n) | BigInt(table)}\n msr ttbr0_el1, x9\n isb`;
    return { guest, memory, first, second, enter };
  }

  it('a change of TTBR0_EL1: pages that are not global are the other space’s', () => {
    const { guest, first, second, enter } = twoSpaces();
    const sum = [1, 2, 1, 2]
      .map(
        (space) => `
        ${enter(space === 1 ? first : second, space)}
        ldr x1, =${PAGES}
        ldr x2, [x1]
        lsl x0, x0, #4
        orr x0, x0, x2`,
      )
      .join('\n');
    expect(guest.value(`mov x0, #0\n${sum}\n${enter(first, 1)}`)).toBe(0x1212n);
  });

  it('global pages are the same in both', () => {
    const { guest, first, second, enter } = twoSpaces();
    const source = `
      ldr x1, =${PAGES + PAGE_SIZE}
      ldr x0, [x1]
      ${enter(second, 2)}
      ldr x2, [x1]
      orr x0, x0, x2, lsl #4
      ${enter(first, 1)}`;
    expect(guest.value(source)).toBe(0x33n);
  });

  it('the same ASID with other tables, after TLBI ASIDE1', () => {
    const { guest, second, enter } = twoSpaces();
    expect(guest.value(load(PAGES))).toBe(1n);
    const source = `${enter(second, 0)}\n tlbi aside1, xzr\n dsb ish\n isb\n${load(PAGES)}`;
    expect(guest.value(source)).toBe(2n);
  });

  it('KVM_SET_ONE_REG of TTBR0_EL1 between runs', () => {
    const { guest, second } = twoSpaces();
    expect(guest.value(load(PAGES))).toBe(1n);
    guest.setRegister('TTBR0_EL1', (5n << 48n) | BigInt(second));
    expect(guest.value(load(PAGES))).toBe(2n);
  });
});

describe('the hardware’s updates of descriptors', () => {
  const HA = 1n << 39n;
  const HD = 1n << 40n;
  const old = (at: number, extra = 0n): bigint => data(at, extra) & ~Leaf.accessed;
  const dirtyable = Leaf.dbm | Leaf.readOnly;

  it('without TCR_EL1.HA: an access flag fault, the descriptor stays', () => {
    const { guest } = numbered();
    guest.setPage(0, old(DATA));
    expect(guest.run(load(PAGES))).toMatchObject({ esr: 0x9600_000bn, far: BigInt(PAGES) });
    expect(guest.getPage(0)).toBe(old(DATA));
  });

  it('HA: a load, a store, a fetch and AT set the access flag', () => {
    const { guest } = numbered();
    guest.setBits('TCR_EL1', HA, HA);
    const access = (page: number, text: string): void => {
      guest.setPage(page, old(DATA) & ~Leaf.pxn);
      guest.run(`ldr x1, =${PAGES + page * PAGE_SIZE}\n ${text}`);
    };
    access(0, 'ldr x0, [x1]');
    access(1, 'str x0, [x1]');
    access(2, 'br x1');
    access(3, 'prfm pldl1keep, [x1]');
    const flags = [0, 1, 2].map((page) => (guest.getPage(page) & Leaf.accessed) !== 0n);
    expect(flags).toEqual([true, true, true]);
  });

  it('HD: a load leaves the page clean, a store makes it dirty, and later ones pass', () => {
    const { guest } = numbered();
    guest.setBits('TCR_EL1', HA | HD, HA | HD);
    guest.setPage(0, old(DATA, dirtyable));
    expect(guest.value(load(PAGES))).toBe(1n);
    expect(guest.getPage(0)).toBe(data(DATA, dirtyable));
    guest.value(`ldr x1, =${PAGES}\n mov x0, #5\n str x0, [x1]\n str x0, [x1, #8]`);
    expect(guest.getPage(0)).toBe(data(DATA, Leaf.dbm));
    guest.setPage(0, data(DATA, dirtyable));
    guest.value('tlbi vmalle1\n dsb ish\n isb');
    expect(guest.value(`ldr x1, =${PAGES}\n mov x0, #6\n str x0, [x1]`)).toBe(6n);
    expect(guest.getPage(0)).toBe(data(DATA, Leaf.dbm));
  });

  it('HA without HD: DBM means nothing, the store faults', () => {
    const { guest } = numbered();
    guest.setBits('TCR_EL1', HA | HD, HA);
    guest.setPage(0, data(DATA, dirtyable));
    expect(guest.run(`ldr x1, =${PAGES}\n str x0, [x1]`)).toMatchObject({ esr: 0x9600_004fn });
    expect(guest.getPage(0)).toBe(data(DATA, dirtyable));
  });

  it('an atomic that only reads in the end, and a store that fails its monitor', () => {
    const { guest } = numbered();
    guest.setBits('TCR_EL1', HA | HD, HA | HD);
    guest.setPage(0, data(DATA, dirtyable));
    // CAS that does not match is a write as far as dirty state goes: it needs the right to write.
    guest.value(`ldr x1, =${PAGES}\n mov x2, #99\n cas x2, x3, [x1]\n mov x0, x2`);
    expect(guest.vcpus[0]!.readX(0)).toBe(1n);
    expect(guest.getPage(0) & Leaf.readOnly).toBe(0n);
  });

  it('a block: its one descriptor is updated', () => {
    const { guest } = numbered({ length: BLOCK_SIZE });
    guest.setBits('TCR_EL1', HA | HD, HA | HD);
    guest.setBlock(1, dataBlock(DATA, dirtyable) & ~Leaf.accessed);
    guest.value(`ldr x1, =${PAGES + BLOCK_SIZE + 9 * PAGE_SIZE}\n str x0, [x1]`);
    const table = Number(guest.getRegister('TTBR0_EL1')) - CODE;
    const word = guest.process.memory.readU64(hva(guest.codeHva + table + 0x1008));
    expect(word).toBe(dataBlock(DATA, Leaf.dbm));
  });

  it('the page of the table is dirty for the VMM', () => {
    const { guest, memory } = numbered();
    guest.setBits('TCR_EL1', HA, HA);
    // A table in the data slot, page 2, maps PAGES + 2 MiB onwards to page 5.
    accept(guest.process.memory.writeU64(hva(memory + 2 * PAGE_SIZE), old(DATA + 5 * PAGE_SIZE)));
    guest.setBlock(1, BigInt(DATA + 2 * PAGE_SIZE) | 3n);
    expect(guest.setSlot(memory, 16 * PAGE_SIZE, { slotFlags: KVM_MEM_LOG_DIRTY_PAGES })).toBe(0);
    expect(guest.value(load(PAGES + BLOCK_SIZE))).toBe(6n);
    expect(guest.vm.getDirtyLog(0)).toEqual(Uint32Array.of(1 << 2, 0));
  });

  it('a table in a read-only slot: walked, but an update of it is an external abort', () => {
    const { guest } = numbered();
    const tables = guest.addSlot({
      slot: 1,
      at: DATA + BLOCK_SIZE,
      slotFlags: KVM_MEM_READONLY,
    });
    accept(guest.process.memory.writeU64(tables, data(DATA)));
    accept(guest.process.memory.writeU64(hva(tables + 8), old(DATA)));
    guest.setBlock(1, BigInt(DATA + BLOCK_SIZE) | 3n);
    expect(guest.value(load(PAGES + BLOCK_SIZE))).toBe(1n);
    guest.setBits('TCR_EL1', HA, HA);
    const at = PAGES + BLOCK_SIZE + PAGE_SIZE;
    expect(guest.run(load(at))).toMatchObject({ esr: 0x9600_0010n, far: BigInt(at) });
  });
});

describe('AT', () => {
  const translate = (operation: string, at: number): string =>
    `ldr x1, =${at}\n at ${operation}, x1\n isb\n mrs x0, par_el1`;
  const NOT_TRANSLATED = 0x801n; // F, RES1 bit 11
  const fst = (code: number): bigint => NOT_TRANSLATED | (BigInt(code) << 1n);

  it.each([
    ['s1e1r', UNTAGGED + 0x1234],
    ['s1e1w', UNTAGGED + 0x1234],
    ['s1e0r', USER_DATA + 0x1234],
    ['s1e0w', USER_DATA + 0x1234],
    ['s1e1rp', UNTAGGED + 0x1234],
  ])('%s: the IPA, whether or not stage 2 maps it', (operation, at) => {
    const guest = new GuestVm();
    const par = guest.value(translate(operation, at));
    expect(par & 1n).toBe(0n);
    expect(par & 0xffff_ffff_f000n).toBe(BigInt(DATA + 0x1000));
    // Nothing was brought in for it.
    expect(guest.vcpus[0]!.statistics.stage2FaultCount).toBeLessThan(6);
  });

  it.each([
    ['a hole: level 3 translation', 's1e1r', PAGES, 0b000111],
    ['EL0 at EL1’s page: permission', 's1e0r', DATA, 0b001101],
    ['a store to a read-only page: permission', 's1e0w', USER_CODE, 0b001101],
    ['beyond the VA space: level 0 translation', 's1e1r', 0x80_0000_0000, 0b000100],
  ])('%s', (_name, operation, at, code) => {
    const guest = new GuestVm();
    expect(guest.value(translate(operation, at))).toBe(fst(code));
  });

  it('S1E1RP under PAN: permission', () => {
    const guest = new GuestVm();
    const text = `msr pan, #1\n ${translate('s1e1rp', USER_DATA)}`;
    expect(guest.value(text)).toBe(fst(0b001101));
    expect(guest.value(`msr pan, #1\n ${translate('s1e1r', USER_DATA)}`) & 1n).toBe(0n);
  });

  it('the attributes and shareability of stage 1', () => {
    const guest = new GuestVm();
    expect(guest.value(translate('s1e1r', DATA)) >> 56n).toBe(0xf0n);
    expect(guest.value(translate('s1e1r', UNTAGGED)) >> 56n).toBe(0xffn);
    expect(guest.value(translate('s1e1r', 0)) >> 56n).toBe(0n);
  });

  it('a walk through memory that is not there yet', () => {
    const guest = new GuestVm();
    guest.addSlot();
    guest.setBlock(1, BigInt(DATA) | 3n);
    expect(guest.value(translate('s1e1r', PAGES + BLOCK_SIZE))).toBe(fst(0b000111));
  });
});

describe('aborts and their syndromes', () => {
  interface Case {
    readonly what: string;
    readonly page: bigint;
    readonly text: string;
    readonly el: 0 | 1;
    readonly esr: bigint;
  }
  const el0 = Leaf.el0 | Leaf.notGlobal;
  const load0 = 'ldr x0, [x1]';
  const store0 = 'str x0, [x1]';
  const call = 'br x1';
  const cases: readonly Case[] = [
    { what: 'a load from a hole', page: 0n, text: load0, el: 1, esr: 0x9600_0007n },
    { what: 'a store to a hole', page: 0n, text: store0, el: 1, esr: 0x9600_0047n },
    { what: 'a load from a hole at EL0', page: 0n, text: load0, el: 0, esr: 0x9200_0007n },
    { what: 'EL0 loads EL1’s page', page: data(DATA), text: load0, el: 0, esr: 0x9200_000fn },
    { what: 'EL0 stores there', page: data(DATA), text: store0, el: 0, esr: 0x9200_004fn },
    {
      what: 'EL0 stores to its read-only page',
      page: data(DATA, el0 | Leaf.readOnly),
      text: store0,
      el: 0,
      esr: 0x9200_004fn,
    },
    { what: 'EL1 executes a PXN page', page: data(DATA), text: call, el: 1, esr: 0x8600_000fn },
    {
      what: 'EL0 executes a UXN page',
      page: data(DATA, el0),
      text: call,
      el: 0,
      esr: 0x8200_000fn,
    },
    {
      what: 'EL1 executes a page that EL0 may write',
      page: data(DATA, el0) & ~Leaf.pxn,
      text: call,
      el: 1,
      esr: 0x8600_000fn,
    },
    { what: 'an instruction from a hole', page: 0n, text: call, el: 1, esr: 0x8600_0007n },
    {
      what: 'LDTR of EL1’s page',
      page: data(DATA),
      text: 'ldtr x0, [x1]',
      el: 1,
      esr: 0x9600_000fn,
    },
    { what: 'an atomic on a hole', page: 0n, text: 'ldadd x2, x0, [x1]', el: 1, esr: 0x9600_0007n },
    {
      what: 'an atomic on a read-only page',
      page: data(DATA, Leaf.readOnly),
      text: 'ldadd x2, x0, [x1]',
      el: 1,
      esr: 0x9600_004fn,
    },
    {
      what: 'STG to a read-only page',
      page: data(DATA, Leaf.readOnly),
      text: 'stg x1, [x1]',
      el: 1,
      esr: 0x9600_004fn,
    },
    { what: 'DC CVAC of a hole', page: 0n, text: 'dc cvac, x1', el: 1, esr: 0x9600_0147n },
    { what: 'DC ZVA of a hole', page: 0n, text: 'dc zva, x1', el: 1, esr: 0x9600_0047n },
    { what: 'IC IVAU of a hole', page: 0n, text: 'ic ivau, x1', el: 1, esr: 0x9600_0147n },
  ];
  it.each(cases)('$what', ({ page, text, el, esr }) => {
    const { guest } = numbered();
    guest.setPage(0, page);
    const source = `ldr x1, =${PAGES}\n ${text}`;
    const answer = el === 1 ? guest.run(source) : guest.runAtEl0(source);
    const elr = text === call ? BigInt(PAGES) : expect.anything();
    const vector = el === 1 ? 0x200 : 0x400;
    expect(answer).toMatchObject({ kind: 'exception', vector, esr, far: BigInt(PAGES), elr });
  });

  it('PAN: EL1 is kept from EL0’s page, LDTR is not', () => {
    const { guest } = numbered();
    const access = (text: string): string => `msr pan, #1\n ldr x1, =${USER_DATA}\n ${text}`;
    expect(guest.run(access(load0))).toMatchObject({ esr: 0x9600_000dn });
    expect(guest.run(access('msr pan, #0\n ldr x0, [x1]'))).toEqual({ kind: 'value', value: 1n });
    expect(guest.run(access('ldtr x0, [x1]'))).toEqual({ kind: 'value', value: 1n });
  });

  it('FAR_EL1 keeps the tag byte of the address', () => {
    const { guest } = numbered();
    const answer = guest.run(`ldr x1, =${(0xa5n << 56n) | BigInt(PAGES + 0x18)}\n ldr x0, [x1]`);
    expect(answer).toMatchObject({ far: (0xa5n << 56n) | BigInt(PAGES + 0x18) });
  });

  it('SCTLR_EL1.WXN: what may be written is not executed', () => {
    const { guest } = numbered();
    guest.setPage(0, data(DATA) & ~Leaf.pxn);
    expect(guest.run(`ldr x1, =${PAGES}\n br x1`)).toMatchObject({ esr: 0x0200_0000n });
    // Programs and vectors move to a read-only view of their block.
    guest.setBlock(1, dataBlock(CODE, Leaf.readOnly) & ~Leaf.pxn);
    const view = PAGES + BLOCK_SIZE - CODE;
    const vcpu = guest.begin(`ldr x1, =${PAGES}\n br x1`);
    vcpu.writePc(vcpu.readPc() + BigInt(view));
    guest.setRegister('VBAR_EL1', guest.getRegister('VBAR_EL1') + BigInt(view));
    guest.setBits('SCTLR_EL1', 1n << 19n, 1n << 19n);
    expect(guest.answer()).toMatchObject({ esr: 0x8600_000fn, far: BigInt(PAGES) });
  });
});

describe('a guest whose vectors fault for ever', () => {
  const cases: readonly [string, (guest: GuestVm) => void][] = [
    ['nothing is mapped there', (guest) => guest.setRegister('VBAR_EL1', BigInt(PAGES))],
    ['no memory is there', (guest) => guest.setRegister('VBAR_EL1', 0x1_0000_0000n)],
    ['zeros are there', (guest) => guest.setRegister('VBAR_EL1', BigInt(CODE + 0x10_0000))],
    [
      'the first instruction there faults',
      (guest) => {
        accept(guest.process.memory.writeU32(hva(guest.codeHva + 0x10_0200), 0xf9400021));
        guest.setRegister('VBAR_EL1', BigInt(CODE + 0x10_0000));
      },
    ],
  ];
  it.each(cases)('%s: its runs end, and time goes on', (_name, spoil) => {
    const guest = new GuestVm();
    const vcpu = guest.begin(`ldr x1, =${PAGES}\n ldr x0, [x1]`);
    spoil(guest);
    const before = guest.kvm.clock.now();
    expect(vcpu.run(16_000).kind).toBe('preempted');
    expect(guest.kvm.clock.now() - before).toBeGreaterThan(900);
  });
});
