/**
 * Guest memory under a running guest: how it comes in by page and by block, what happens when the
 * VMM's process changes its mappings, code that is changed by the guest and by the VMM, and
 * accesses over the end of a page.
 */
import { describe, expect, it } from 'vitest';
import { assembleProgram } from '../../src/arm/a64/program.ts';
import { BLOCK_SIZE, type Hva, hva, MIB, PAGE_SIZE } from '../../src/base/index.ts';
import { Errno, Madvise, MapFlag, Prot, smallPages } from '../../src/host/index.ts';
import { KVM_MEM_READONLY } from '../../src/kvm/uapi.ts';
import { Attr, answerText, DATA, GuestVm, Leaf, PAGES } from '../support/guest-vm.ts';

const RW = Prot.read | Prot.write;

/** The words of `source`, assembled for `base`. */
const words = (source: string, base = 0): Uint8Array =>
  assembleProgram(source, { base: BigInt(base) }).bytes;

const codePage = (at: number): bigint =>
  BigInt(at) | Leaf.page | Leaf.inner | Leaf.accessed | Attr.tagged | Leaf.uxn;

describe('bringing memory in', () => {
  const touchEvery = (length: number): string => `
    ldr x1, =${DATA}
    ldr x2, =${DATA + length}
  1: strb w3, [x1]
    add x1, x1, #1, lsl #12
    cmp x1, x2
    b.ne 1b`;

  function faultsOf(guest: GuestVm, length: number): number {
    guest.value('mov x0, #0');
    const before = guest.vcpus[0]!.statistics.stage2FaultCount;
    guest.value(touchEvery(length));
    return guest.vcpus[0]!.statistics.stage2FaultCount - before;
  }

  it('2 MiB aligned alike in the guest and the process: one fault a block', () => {
    const guest = new GuestVm();
    guest.addSlot({ length: 2 * BLOCK_SIZE });
    // The last fault is the report's.
    expect(faultsOf(guest, 2 * BLOCK_SIZE)).toBe(2 + 1);
  });

  it('a host without large pages: one fault a page', () => {
    const guest = new GuestVm({ hostPolicy: smallPages });
    guest.addSlot({ length: BLOCK_SIZE });
    expect(faultsOf(guest, BLOCK_SIZE)).toBe(512 + 1);
  });

  it('aligned otherwise in the process: one fault a page', () => {
    const guest = new GuestVm();
    const memory = guest.map({ length: 2 * BLOCK_SIZE });
    expect(guest.setSlot(memory + PAGE_SIZE, BLOCK_SIZE)).toBe(0);
    expect(faultsOf(guest, BLOCK_SIZE)).toBe(512 + 1);
  });

  it('a slot that ends inside a block is mapped by pages', () => {
    const guest = new GuestVm();
    const memory = guest.map({ length: BLOCK_SIZE });
    expect(guest.setSlot(memory, 8 * PAGE_SIZE)).toBe(0);
    expect(faultsOf(guest, 8 * PAGE_SIZE)).toBe(8 + 1);
  });

  it('a fetch and a load of the same untouched page', () => {
    const guest = new GuestVm();
    const memory = guest.addSlot();
    guest.process.memory.write(memory, words('ldr x0, 1f\n ret\n1: .quad 0x1122'));
    guest.setPage(0, codePage(DATA));
    expect(guest.value(`ldr x1, =${PAGES}\n blr x1`)).toBe(0x1122n);
  });

  it('the guest’s tables in memory that nobody touched: walks bring it in and find zeros', () => {
    const guest = new GuestVm();
    guest.addSlot();
    guest.setBlock(1, BigInt(DATA) | 3n);
    expect(guest.run(`ldr x1, =${PAGES + BLOCK_SIZE}\n ldr x0, [x1]`)).toMatchObject({
      kind: 'exception',
      vector: 0x200,
      esr: 0x9600_0007n,
      far: BigInt(PAGES + BLOCK_SIZE),
    });
  });

  it('the guest’s tables outside memory: an external abort on the access', () => {
    const guest = new GuestVm();
    guest.setBlock(1, BigInt(DATA) | 3n);
    const address = PAGES + BLOCK_SIZE + 0x10;
    const abort = { kind: 'exception', vector: 0x200, far: BigInt(address) };
    expect(guest.run(`ldr x1, =${address}\n ldr x0, [x1]`)).toMatchObject({
      ...abort,
      esr: 0x9600_0010n,
    });
    expect(guest.run(`ldr x1, =${address}\n br x1`)).toMatchObject({
      ...abort,
      esr: 0x8600_0010n,
      elr: BigInt(address),
    });
  });

  it('a fetch outside memory: an external abort', () => {
    const guest = new GuestVm();
    guest.setPage(0, codePage(DATA));
    expect(guest.run(`ldr x1, =${PAGES}\n br x1`)).toMatchObject({
      kind: 'exception',
      esr: 0x8600_0010n,
      far: BigInt(PAGES),
      elr: BigInt(PAGES),
    });
  });
});

describe('the process changes its mappings under the guest', () => {
  /** Runs a loop that reads DATA into x0 until it is preempted. */
  function reading(guest: GuestVm) {
    const vcpu = guest.begin(`ldr x1, =${DATA}\n1: ldr x0, [x1]\n b 1b`);
    expect(vcpu.run(10_000).kind).toBe('preempted');
    return vcpu;
  }

  /** A slot of small pages, or one of a 2 MiB page. */
  const lengths = [16 * PAGE_SIZE, BLOCK_SIZE];

  function withValue(length: number): { guest: GuestVm; memory: Hva } {
    const guest = new GuestVm();
    const memory = guest.addSlot({ length });
    guest.process.memory.writeU64(memory, 0x1234n);
    return { guest, memory };
  }

  it.each(lengths)('munmap (%i bytes): EFAULT at the next access', (length) => {
    const { guest, memory } = withValue(length);
    const vcpu = reading(guest);
    expect(vcpu.readX(0)).toBe(0x1234n);
    guest.process.munmap(memory, PAGE_SIZE);
    const pc = vcpu.readPc();
    expect(vcpu.run()).toEqual({ kind: 'error', errno: Errno.EFAULT });
    expect(vcpu.readPc() - pc).toBeLessThanOrEqual(4n);
  });

  it.each(lengths)('MADV_DONTNEED (%i bytes): zeros, and tags of 0', (length) => {
    const { guest, memory } = withValue(length);
    guest.value(`ldr x1, =${DATA}\n mov x2, #5\n orr x1, x1, x2, lsl #56\n stg x1, [x1]`);
    const vcpu = reading(guest);
    guest.process.madvise(memory, PAGE_SIZE, Madvise.dontNeed);
    expect(vcpu.run(10_000).kind).toBe('preempted');
    expect(vcpu.readX(0)).toBe(0n);
    expect(guest.value(`ldr x1, =${DATA}\n mov x0, #0\n ldg x0, [x1]`)).toBe(0n);
  });

  it('another file mapped over it: the guest reads the file', () => {
    const { guest, memory } = withValue(16 * PAGE_SIZE);
    const vcpu = reading(guest);
    const file = guest.host.createMemfd(PAGE_SIZE);
    const window = guest.map({ length: PAGE_SIZE, flags: MapFlag.shared, file });
    guest.process.memory.writeU64(window, 0x5678n);
    const flags = MapFlag.shared | MapFlag.fixed;
    guest.map({ address: memory, length: PAGE_SIZE, flags, file });
    vcpu.run(10_000);
    expect(vcpu.readX(0)).toBe(0x5678n);
    guest.process.memory.writeU64(window, 0x9abcn);
    vcpu.run(10_000);
    expect(vcpu.readX(0)).toBe(0x9abcn);
  });

  it('mprotect to read-only: loads pass, a store fails with EFAULT, and passes again', () => {
    const { guest, memory } = withValue(16 * PAGE_SIZE);
    guest.value(`ldr x1, =${DATA}\n str x1, [x1, #8]`);
    guest.process.mprotect(memory, PAGE_SIZE, Prot.read);
    expect(guest.value(`ldr x1, =${DATA}\n ldr x0, [x1]`)).toBe(0x1234n);
    const vcpu = guest.begin(`ldr x1, =${DATA}\n mov x0, #9\n str x0, [x1]`);
    expect(vcpu.run()).toEqual({ kind: 'error', errno: Errno.EFAULT });
    guest.process.mprotect(memory, PAGE_SIZE, RW);
    expect(guest.answer()).toEqual({ kind: 'value', value: 9n });
    expect(guest.process.memory.readU64(memory)).toBe(9n);
  });

  it('the slot is deleted: MMIO; made again elsewhere in the process: that memory', () => {
    const { guest } = withValue(16 * PAGE_SIZE);
    const vcpu = reading(guest);
    expect(guest.setSlot(0, 0)).toBe(0);
    expect(vcpu.run()).toMatchObject({ kind: 'mmio', ipa: DATA, isWrite: false });
    const memory = guest.addSlot();
    guest.process.memory.writeU64(memory, 0x77n);
    vcpu.run(10_000);
    expect(vcpu.readX(0)).toBe(0x77n);
  });

  it('a slot becomes read-only by being made anew: a store through a warm TLB exits', () => {
    const { guest, memory } = withValue(16 * PAGE_SIZE);
    const store = `ldr x1, =${DATA}\n mov x0, #1\n str x0, [x1]`;
    guest.value(store);
    expect(guest.setSlot(0, 0)).toBe(0);
    expect(guest.setSlot(memory, 16 * PAGE_SIZE, { slotFlags: KVM_MEM_READONLY })).toBe(0);
    expect(guest.begin(store).run()).toMatchObject({ kind: 'mmio', ipa: DATA, isWrite: true });
  });

  it('every vCPU loses the translation', () => {
    const guest = new GuestVm({ vcpuCount: 2 });
    const memory = guest.addSlot();
    const loop = `ldr x1, =${DATA}\n1: ldr x0, [x1]\n b 1b`;
    for (const index of [0, 1]) guest.begin(loop, index).run(1000);
    guest.process.munmap(memory, PAGE_SIZE);
    for (const vcpu of guest.vcpus) {
      expect(vcpu.run()).toEqual({ kind: 'error', errno: Errno.EFAULT });
    }
  });
});

describe('code that changes', () => {
  /** A guest with a page of code at PAGES, writable there; returns where the process has it. */
  function withCode(source: string): { guest: GuestVm; code: Hva } {
    const guest = new GuestVm();
    const code = guest.addSlot();
    guest.process.memory.write(code, words(source));
    guest.setPage(0, codePage(DATA));
    return { guest, code };
  }

  const callCode = `ldr x1, =${PAGES}\n blr x1`;
  const returns = (value: number): string => `mov x0, #${value}\n ret`;
  const opcode = (source: string): number => new DataView(words(source).buffer).getUint32(0, true);
  /** Makes a store to x1 visible to fetches. Arm ARM B2.7.4. */
  const synchronise = 'dc cvau, x1\n dsb ish\n ic ivau, x1\n dsb ish\n isb';

  it('the guest stores an instruction and executes it', () => {
    const { guest } = withCode(returns(1));
    expect(guest.value(callCode)).toBe(1n);
    const patch = `
      ldr x1, =${PAGES}
      ldr w2, =${opcode('mov x0, #2')}
      str w2, [x1]
      ${synchronise}
      blr x1`;
    expect(guest.value(patch)).toBe(2n);
    expect(guest.value(callCode)).toBe(2n);
  });

  it('by another address of the same page: written at DATA, executed at PAGES', () => {
    const { guest } = withCode(returns(1));
    expect(guest.value(callCode)).toBe(1n);
    const patch = `
      ldr x1, =${DATA}
      ldr w2, =${opcode('mov x0, #3')}
      str w2, [x1]
      ${synchronise}
      ldr x1, =${PAGES}
      blr x1`;
    expect(guest.value(patch)).toBe(3n);
  });

  it('a loop that rewrites the instruction behind it each time round', () => {
    const guest = new GuestVm();
    const source = `
      mov x0, #0
      mov x3, #50
      adr x1, target
      ldr w2, =${opcode('add x0, x0, #1')}
    1: add w2, w2, #${1 << 10}
      str w2, [x1]
      ${synchronise}
    target:
      nop
      subs x3, x3, #1
      b.ne 1b`;
    // Adds 2, 3, ... 51.
    expect(guest.value(source)).toBe(BigInt((50 * 53) / 2));
  });

  it('an instruction that spans its change: the second half of a pair of stores', () => {
    const { guest } = withCode(`mov x0, #1\n mov x0, #1\n ret`);
    expect(guest.value(callCode)).toBe(1n);
    const both = `
      ldr x1, =${PAGES}
      ldr w2, =${opcode('mov x0, #4')}
      ldr w3, =${opcode('add x0, x0, #1')}
      stp w2, w3, [x1]
      ${synchronise}
      blr x1`;
    expect(guest.value(both)).toBe(5n);
  });

  it.each([
    ['stores', (guest: GuestVm, code: Hva) => guest.process.memory.write(code, words(returns(6)))],
    [
      'a word',
      (guest: GuestVm, code: Hva) => guest.process.memory.writeU32(code, opcode('mov x0, #6')),
    ],
    [
      'another page mapped there',
      (guest: GuestVm, code: Hva) => {
        guest.map({
          address: code,
          length: PAGE_SIZE,
          flags: MapFlag.fixed | MapFlag.private | MapFlag.anonymous,
        });
        guest.process.memory.write(code, words(returns(6)));
      },
    ],
  ])('the VMM changes it between runs: %s', (_name, change) => {
    const { guest, code } = withCode(returns(1));
    expect(guest.value(callCode)).toBe(1n);
    change(guest, code);
    expect(guest.value(callCode)).toBe(6n);
  });

  it('the VMM changes a loop that was preempted', () => {
    const { guest, code } = withCode('1: add x0, x0, #1\n b 1b');
    const vcpu = guest.begin(callCode);
    expect(vcpu.run(5000).kind).toBe('preempted');
    guest.process.memory.write(code, words('mov x0, #7\n ret'));
    vcpu.writePc(BigInt(PAGES));
    expect(guest.answer()).toEqual({ kind: 'value', value: 7n });
  });

  it('MADV_DONTNEED of the page: zeros are UNDEFINED', () => {
    const { guest, code } = withCode(returns(1));
    expect(guest.value(callCode)).toBe(1n);
    guest.process.madvise(code, PAGE_SIZE, Madvise.dontNeed);
    expect(guest.run(callCode)).toMatchObject({ esr: 0x0200_0000n, elr: BigInt(PAGES) });
  });

  it('DC ZVA over code: zeros are UNDEFINED', () => {
    const { guest } = withCode(returns(1));
    expect(guest.value(callCode)).toBe(1n);
    const text = `ldr x1, =${PAGES}\n dc zva, x1\n ${synchronise}\n blr x1`;
    expect(guest.run(text)).toMatchObject({ esr: 0x0200_0000n, elr: BigInt(PAGES) });
  });

  it('a private file: code comes from the file, a store gives the guest its own page', () => {
    const guest = new GuestVm();
    const file = guest.host.createMemfd(MIB);
    const window = guest.map({ length: PAGE_SIZE, flags: MapFlag.shared, file });
    guest.process.memory.write(window, words(returns(1)));
    guest.addSlot({ flags: MapFlag.private, file, length: MIB });
    guest.setPage(0, codePage(DATA));
    expect(guest.value(callCode)).toBe(1n);
    guest.process.memory.write(window, words(returns(2)));
    expect(guest.value(callCode)).toBe(2n);
    guest.value(`ldr x1, =${PAGES}\n str wzr, [x1, #64]`);
    guest.process.memory.write(window, words(returns(3)));
    expect(guest.value(callCode)).toBe(2n);
  });

  it('code over the end of a page, whose second page is changed', () => {
    const { guest, code } = withCode('');
    guest.setPage(1, codePage(DATA + PAGE_SIZE));
    guest.process.memory.write(
      hva(code + PAGE_SIZE - 4),
      words('mov x0, #1\n add x0, x0, #1\n ret'),
    );
    const call = `ldr x1, =${PAGES + PAGE_SIZE - 4}\n blr x1`;
    expect(guest.value(call)).toBe(2n);
    guest.process.memory.write(hva(code + PAGE_SIZE), words('add x0, x0, #9'));
    expect(guest.value(call)).toBe(10n);
  });
});

describe('an access over the end of a page', () => {
  const dataPage = (at: number): bigint =>
    BigInt(at) | Leaf.page | Leaf.inner | Leaf.accessed | Attr.tagged | Leaf.uxn | Leaf.pxn;
  const END = PAGES + PAGE_SIZE;

  /** Page 0 of PAGES is page 0 of the slot, page 1 is what `second` says. */
  function crossing(second: bigint, length = 16 * PAGE_SIZE): { guest: GuestVm; memory: Hva } {
    const guest = new GuestVm();
    const memory = guest.addSlot({ length });
    guest.process.memory.fill(memory, 0xaa, PAGE_SIZE);
    guest.setPage(0, dataPage(DATA));
    guest.setPage(1, second);
    return { guest, memory };
  }
  const tail = (guest: GuestVm, memory: Hva): string =>
    Buffer.from(guest.process.memory.read(hva(memory + PAGE_SIZE - 16), 16) as Uint8Array).toString(
      'hex',
    );
  const untouched = 'aa'.repeat(16);

  const cases: readonly [string, string, number, bigint][] = [
    ['str x0, [x1]', 'a store', 4, 0x9600_0047n],
    ['stp x0, x3, [x1]', 'a pair, its second register on the second page', 8, 0x9600_0047n],
    ['stp x0, x3, [x1], #16', 'a pair with writeback', 12, 0x9600_0047n],
    ['str q0, [x1]', 'a vector', 8, 0x9600_0047n],
    ['st4 {v0.16b, v1.16b, v2.16b, v3.16b}, [x1]', 'a structure', 8, 0x9600_0047n],
    ['ldr x0, [x1]', 'a load', 4, 0x9600_0007n],
    ['ldp x0, x3, [x1], #16', 'a pair of loads with writeback', 12, 0x9600_0007n],
  ];
  it.each(cases)(
    '%s: %s; the second page faults, and nothing has changed',
    (text, _what, back, esr) => {
      const { guest, memory } = crossing(0n);
      guest.setRegister('CPACR_EL1', 3n << 20n);
      const answer = guest.run(`ldr x1, =${END - back}\n mov x0, #7\n mov x3, #8\n ${text}`);
      expect(answerText(answer)).toContain(`esr 0x${esr.toString(16)} far 0x${END.toString(16)}`);
      expect(tail(guest, memory)).toBe(untouched);
      const registers = [0, 1, 3].map((n) => guest.vcpus[0]!.readX(n));
      expect(registers).toEqual([7n, BigInt(END - back), 8n]);
    },
  );

  it('the second page is read-only: a permission fault there', () => {
    const { guest, memory } = crossing(dataPage(DATA + PAGE_SIZE) | Leaf.readOnly);
    const answer = guest.run(`ldr x1, =${END - 4}\n mov x0, #7\n str x0, [x1]`);
    expect(answer).toMatchObject({ esr: 0x9600_004fn, far: BigInt(END) });
    expect(tail(guest, memory)).toBe(untouched);
  });

  it('the first page faults: its address is reported, the exact one', () => {
    const { guest } = crossing(dataPage(DATA + PAGE_SIZE));
    guest.setPage(0, 0n);
    const answer = guest.run(`ldr x1, =${END - 3}\n ldr x0, [x1]`);
    expect(answer).toMatchObject({ esr: 0x9600_0007n, far: BigInt(END - 3) });
  });

  it('neither page was touched: both are brought in, the store is whole', () => {
    const { guest, memory } = crossing(dataPage(DATA + 5 * PAGE_SIZE));
    guest.value(`ldr x1, =${END - 3}\n ldr x0, =0x0807060504030201\n str x0, [x1]`);
    expect(tail(guest, memory)).toBe(`${'aa'.repeat(13)}010203`);
    expect(guest.process.memory.readU32(hva(memory + 5 * PAGE_SIZE))).toBe(0x07060504);
    expect(guest.value(`ldr x1, =${END - 3}\n ldr x0, [x1]`)).toBe(0x0807060504030201n);
  });

  it('the second page lies outside memory: MMIO there, nothing on the first', () => {
    const { guest, memory } = crossing(dataPage(DATA + 16 * PAGE_SIZE));
    const vcpu = guest.begin(`ldr x1, =${END - 4}\n mov x0, #7\n str x0, [x1]`);
    expect(vcpu.run()).toMatchObject({ kind: 'mmio', ipa: DATA + 16 * PAGE_SIZE, size: 8 });
    expect(tail(guest, memory)).toBe(untouched);
  });

  it('tags of both pages are checked before anything is stored', () => {
    const { guest, memory } = crossing(dataPage(DATA + PAGE_SIZE));
    const tag = (address: number, value: number): string => `
      ldr x1, =${address}
      mov x2, #${value}
      orr x1, x1, x2, lsl #56
      stg x1, [x1]`;
    guest.value(`${tag(END - 16, 3)}\n${tag(END, 4)}`);
    guest.setBits('SCTLR_EL1', 3n << 40n, 1n << 40n);
    const answer = guest.run(`
      msr tco, #0
      ldr x1, =${END - 4}
      mov x2, #3
      orr x1, x1, x2, lsl #56
      mov x0, #7
      str x0, [x1]`);
    expect(answer).toMatchObject({ esr: 0x9600_0051n });
    expect(answer.kind === 'exception' && answer.far & 0xff_ffff_ffff_ffffn).toBe(BigInt(END));
    expect(tail(guest, memory)).toBe(untouched);
  });

  it('code: an instruction fetch that runs over into a page that faults', () => {
    const { guest, memory } = crossing(0n);
    guest.setPage(0, codePage(DATA));
    guest.process.memory.write(hva(memory + PAGE_SIZE - 8), words('mov x0, #1\n mov x0, #2'));
    expect(guest.run(`ldr x1, =${END - 8}\n br x1`)).toMatchObject({
      esr: 0x8600_0007n,
      far: BigInt(END),
      elr: BigInt(END),
    });
    expect(guest.vcpus[0]!.readX(0)).toBe(2n);
  });
});
