/**
 * What a guest's PE does at its edges: alignment of SP and PC, illegal returns, undefined and
 * trapped instructions at EL0, exclusives when the vCPU leaves the PE, and the PE of a VM without
 * MTE.
 */
import { describe, expect, it } from 'vitest';
import { KVM_REG_CORE_PSTATE } from '../../src/kvm/uapi.ts';
import { CODE, DATA, GuestVm, Leaf, PAGES, USER_CODE, USER_DATA } from '../support/guest-vm.ts';

const UNDEFINED = 0x0200_0000n;

describe('alignment', () => {
  const guest = new GuestVm();

  it('SP as a base, not aligned to 16 bytes: EC 0x26, at EL1', () => {
    guest.setBits('SCTLR_EL1', 1n << 3n, 1n << 3n);
    const answer = guest.run('mov x1, sp\n sub x1, x1, #8\n mov sp, x1\n ldr x0, [sp]');
    expect(answer).toMatchObject({ vector: 0x200, esr: 0x9a00_0000n, elr: BigInt(CODE + 16) });
  });

  it('the same with the check off, and as an operand without an access: passes', () => {
    guest.setBits('SCTLR_EL1', 1n << 3n, 0n);
    expect(guest.run('sub sp, sp, #8\n ldr x0, [sp]\n mov x0, #1').kind).toBe('value');
    guest.setBits('SCTLR_EL1', 1n << 3n, 1n << 3n);
    expect(guest.run('sub sp, sp, #8\n add x0, sp, #8').kind).toBe('value');
  });

  it.each(['ldr x0, [sp]', 'stp x0, x1, [sp, #-16]!', 'ldxr x0, [sp]', 'stg x1, [sp]'])(
    '%s at EL0, SCTLR_EL1.SA0',
    (text) => {
      guest.addSlotOnce();
      guest.setBits('SCTLR_EL1', 1n << 4n, 1n << 4n);
      const answer = guest.runAtEl0(`ldr x1, =${USER_DATA + 8}\n mov sp, x1\n ${text}`);
      expect(answer).toMatchObject({ vector: 0x400, esr: 0x9a00_0000n });
    },
  );

  it.each([1, 2, 3])(
    'a branch to an address %i bytes off: EC 0x22, ELR and FAR are the target',
    (off) => {
      const target = BigInt(CODE + 0x100 + off);
      expect(guest.run(`ldr x1, =${target}\n br x1`)).toMatchObject({
        vector: 0x200,
        esr: 0x8a00_0000n,
        elr: target,
        far: target,
      });
      expect(guest.runAtEl0(`ldr x1, =${target}\n br x1`)).toMatchObject({
        vector: 0x400,
        far: target,
      });
    },
  );

  it.each([
    'ldxr x0, [x1]',
    'ldar x0, [x1]',
    'stlr x0, [x1]',
    'ldadd x2, x0, [x1]',
    'ldaxp x0, x2, [x1]',
  ])('%s, not aligned: an alignment fault before any fault of the page', (text) => {
    const answer = guest.run(`ldr x1, =${PAGES + 4}\n ${text}`);
    expect(answer).toMatchObject({ vector: 0x200, far: BigInt(PAGES + 4) });
    expect(answer.kind === 'exception' && answer.esr & 0x3fn).toBe(0x21n);
  });

  it('Device memory: an unaligned load is an alignment fault', () => {
    expect(guest.run('ldr x1, =0x09000100\n ldur x0, [x1, #3]')).toMatchObject({
      esr: 0x9600_0021n,
      far: 0x0900_0103n,
    });
  });

  it('SCTLR_EL1.A: every unaligned access', () => {
    guest.setBits('SCTLR_EL1', 2n, 2n);
    guest.addSlotOnce();
    expect(guest.run(`ldr x1, =${DATA + 1}\n ldr w0, [x1]`)).toMatchObject({ esr: 0x9600_0021n });
    expect(guest.run(`ldr x1, =${DATA + 1}\n ldrb w0, [x1]`).kind).toBe('value');
    guest.setBits('SCTLR_EL1', 2n, 0n);
    expect(guest.run(`ldr x1, =${DATA + 1}\n ldr w0, [x1]`).kind).toBe('value');
  });
});

describe('exception return', () => {
  const returnWith = (spsr: number): string => `
    ldr x1, =${spsr}
    msr spsr_el1, x1
    adr x1, target
    msr elr_el1, x1
    eret
    nop
  target:
    mov x0, #1`;

  it.each([
    ['EL2h', 0x3c9],
    ['EL3', 0x3cd],
    ['EL0 with SP_EL1', 0x3c1],
    ['AArch32 User', 0x3d0],
    ['a reserved mode', 0x3c7],
  ])(
    'to %s: illegal; PSTATE.IL is set and the first instruction there takes EC 0x0e',
    (_name, spsr) => {
      const guest = new GuestVm();
      const answer = guest.run(returnWith(spsr));
      expect(answer).toMatchObject({ vector: 0x200, esr: 0x3a00_0000n });
      // Still at EL1h, with IL in the saved state.
      expect(answer.kind === 'exception' && answer.spsr & 0x10_000fn).toBe(0x10_0005n);
      expect(guest.vcpus[0]!.readX(0)).toBe(0n);
    },
  );

  it('to EL1t: SP is SP_EL0, exceptions come to vector 0', () => {
    const guest = new GuestVm();
    expect(
      guest.run(`msr sp_el0, x28\n ${returnWith(0x3c4)}\n mov x0, sp\n .word 0`),
    ).toMatchObject({
      vector: 0,
      esr: UNDEFINED,
    });
    expect(guest.vcpus[0]!.readX(0)).toBe(0x0900_0000n);
  });

  it('to EL0 and back: SPSR, ELR and both stack pointers are right', () => {
    const guest = new GuestVm();
    const user = USER_CODE + 0x1000;
    const { process, codeHva } = guest;
    // svc #5
    process.memory.writeU32((codeHva + 0x1000) as typeof codeHva, 0xd40000a1);
    const answer = guest.run(`
      ldr x1, =${user}
      msr elr_el1, x1
      ldr x1, =0xa0000000
      msr spsr_el1, x1
      ldr x1, =0x123450
      msr sp_el0, x1
      eret`);
    expect(answer).toMatchObject({
      vector: 0x400,
      esr: 0x5600_0005n,
      elr: BigInt(user + 4),
      spsr: 0xa000_0000n,
    });
    expect(guest.vcpus[0]!.readSp(0)).toBe(0x123450n);
    // TCO is set and interrupts are masked at EL1.
    expect(guest.getCore(KVM_REG_CORE_PSTATE) & 0x200_03cfn).toBe(0x200_03c5n);
  });
});

describe('EL0', () => {
  const guest = new GuestVm();
  guest.setRegister('CPACR_EL1', 0n);

  it.each([
    ['a register of EL1', 'mrs x0, ttbr0_el1', UNDEFINED],
    ['ERET', 'eret', UNDEFINED],
    ['an unallocated word', '.word 0', UNDEFINED],
    ['HLT', 'hlt #3', UNDEFINED],
    ['BRK', 'brk #0x123', 0xf200_0123n],
    ['SVC', 'svc #0xffff', 0x5600_ffffn],
    ['SIMD while CPACR_EL1 traps it', 'fmov d0, #1.0', 0x1fe0_0000n],
    ['FPCR while CPACR_EL1 traps it', 'mrs x0, fpcr', 0x1fe0_0000n],
    ['DAIF without UMA', 'msr daifset, #2', 0x6233_f80fn],
  ])('%s', (_name, text, esr) => {
    guest.setBits('SCTLR_EL1', 1n << 9n, 0n);
    const answer = guest.runAtEl0(text);
    expect(answer).toMatchObject({ kind: 'exception', vector: 0x400 });
    const trapped = text.startsWith('msr daif') ? 0x6000_0000n : esr;
    const mask = text.startsWith('msr daif') ? 0xfc00_0000n : 0xffff_ffffn;
    expect(answer.kind === 'exception' && answer.esr & mask).toBe(trapped);
  });

  it('EL1: FP traps with CPACR_EL1.FPEN = 0, not with 1', () => {
    expect(guest.run('fmov d0, #1.0')).toMatchObject({ vector: 0x200, esr: 0x1fe0_0000n });
    guest.setRegister('CPACR_EL1', 1n << 20n);
    expect(guest.value('fmov d0, #1.0\n fmov x0, d0')).toBe(0x3ff0_0000_0000_0000n);
    expect(guest.runAtEl0('fmov d0, #1.0')).toMatchObject({ esr: 0x1fe0_0000n });
  });
});

describe('exclusives', () => {
  const claim = `ldr x1, =${DATA}\n ldxr x2, [x1]`;

  function storing(text: string): GuestVm {
    const guest = new GuestVm({ vcpuCount: 2 });
    guest.addSlot();
    // Claims, then spins until x3 is set, then stores.
    guest.begin(`
      mov x3, #0
      ${claim}
      ${text}
    1: cbz x3, 1b
      mov x4, #7
      stxr w0, x4, [x1]`);
    expect(guest.vcpus[0]!.run(1000).kind).toBe('preempted');
    guest.vcpus[0]!.writeX(3, 1n);
    return guest;
  }

  it('a pair in one run: the store happens', () => {
    const guest = new GuestVm();
    guest.addSlot();
    guest.value(`ldr x1, =${DATA}\n str xzr, [x1]`);
    expect(guest.value(`${claim}\n mov x4, #7\n stxr w0, x4, [x1]`)).toBe(0n);
    expect(guest.value(`ldr x1, =${DATA}\n ldr x0, [x1]`)).toBe(7n);
  });

  it('another vCPU stores there in between: the store fails', () => {
    const guest = storing('');
    guest.value(`ldr x1, =${DATA}\n mov x0, #5\n str x0, [x1]`, 1);
    expect(guest.answer()).toEqual({ kind: 'value', value: 1n });
    expect(guest.value(`ldr x1, =${DATA}\n ldr x0, [x1]`)).toBe(5n);
  });

  it('the VMM stores there in between: the store fails', () => {
    const guest = storing('');
    const [slot] = [guest.vm.vm.slots.get(0)!];
    guest.process.memory.writeU64(slot.baseHva, 5n);
    expect(guest.answer()).toEqual({ kind: 'value', value: 1n });
    expect(guest.process.memory.readU64(slot.baseHva)).toBe(5n);
  });

  it('after CLREX and after an exception’s return: the store fails', () => {
    const guest = new GuestVm();
    guest.addSlot();
    expect(guest.value(`${claim}\n clrex\n stxr w0, x4, [x1]`)).toBe(1n);
    const eret = 'mov x5, #0x3c5\n msr spsr_el1, x5\n adr x5, 1f\n msr elr_el1, x5\n eret\n1:';
    expect(guest.value(`${claim}\n ${eret}\n stxr w0, x4, [x1]`)).toBe(1n);
  });

  it('a page that the store has to bring in: it fails once, and a loop gets there', () => {
    const guest = new GuestVm();
    guest.addSlot({ flags: 0x2, file: guest.host.createMemfd(0x10000) });
    const loop = `
      mov x0, #0
      ldr x1, =${DATA}
    1: add x0, x0, #1
      ldxr x2, [x1]
      add x2, x2, #1
      stxr w3, x2, [x1]
      cbnz w3, 1b`;
    expect(Number(guest.value(loop))).toBeLessThanOrEqual(3);
    expect(guest.value(`ldr x1, =${DATA}\n ldr x0, [x1]`)).toBe(1n);
  });
});

describe('a VM without MTE', () => {
  const guest = new GuestVm({ mte: false });
  guest.addSlot();
  const pointer = `ldr x1, =${DATA}\n mov x2, #5\n orr x1, x1, x2, lsl #56`;

  it.each(['gcr_el1', 'rgsr_el1', 'tfsr_el1', 'tfsre0_el1'])(
    '%s: UNDEFINED, read and written',
    (name) => {
      expect(guest.run(`mrs x0, ${name}`)).toMatchObject({ vector: 0x200, esr: UNDEFINED });
      expect(guest.run(`msr ${name}, x0`)).toMatchObject({ vector: 0x200, esr: UNDEFINED });
    },
  );

  it('GMID_EL1: UNDEFINED', () => {
    expect(guest.run('mrs x0, gmid_el1')).toMatchObject({ esr: UNDEFINED });
  });

  it('the ID registers do not show it', () => {
    expect(guest.value('mrs x0, id_aa64pfr1_el1\n ubfx x0, x0, #8, #4')).toBe(0n);
    expect(guest.value('mrs x0, clidr_el1\n ubfx x0, x0, #33, #2')).toBe(0n);
  });

  it.each([
    ['stg, ldg', 'stg x1, [x1]\n mov x0, #0\n ldg x0, [x1]', 0n],
    ['st2g', 'st2g x1, [x1]\n mov x0, #0\n ldg x0, [x1]', 0n],
    ['stgm, ldgm', 'mov x0, #-1\n stgm x0, [x1]\n ldgm x0, [x1]', 0n],
    ['dc gva', 'dc gva, x1\n mov x0, #0\n ldg x0, [x1]', 0n],
    ['irg gives tag 0', 'irg x0, x1\n lsr x0, x0, #56', 0n],
    ['addg gives tag 0', 'addg x0, x1, #16, #3\n lsr x0, x0, #56', 0n],
    ['gmi and subp compute', 'mov x0, #0\n gmi x0, x1, x0', 1n << 5n],
    ['stzg zeroes', 'mov x0, #9\n str x0, [x1]\n stzg x1, [x1]\n ldr x0, [x1]', 0n],
    ['stgp stores its pair', 'mov x0, #9\n stgp x0, x0, [x1]\n mov x0, #0\n ldr x0, [x1, #8]', 9n],
    ['PSTATE.TCO is there', 'msr tco, #1\n mrs x0, tco', 1n << 25n],
  ])('%s', (_name, text, value) => {
    expect(guest.value(`${pointer}\n${text}`)).toBe(value);
  });

  it('SCTLR_EL1.TCF checks nothing', () => {
    guest.setBits('SCTLR_EL1', 3n << 40n, 1n << 40n);
    expect(guest.value(`msr tco, #0\n ${pointer}\n mov x0, #3\n str x0, [x1]\n ldr x0, [x1]`)).toBe(
      3n,
    );
  });

  it('the tags of the VMM’s page stay as they are', () => {
    const other = new GuestVm({ mte: false });
    const memory = other.addSlot({ prot: 0x23 });
    expect(other.process.memory.storeTag(memory, 9)).toBe(0);
    other.value(`${pointer}\n stg x1, [x1]\n dc gzva, x1`);
    expect(other.process.memory.loadTag(memory)).toBe(9);
  });
});

describe('tag checks at EL1', () => {
  const guest = new GuestVm();
  guest.addSlot();
  const TCF = 3n << 40n;
  const tagged = (tag: number): string =>
    `msr tco, #0\n ldr x1, =${DATA}\n mov x2, #${tag}\n orr x1, x1, x2, lsl #56`;
  guest.value(`${tagged(6)}\n stg x1, [x1]`);

  it.each([
    ['synchronous', 1n, 'ldr x0, [x1]', 0x9600_0011n],
    ['synchronous', 1n, 'str x0, [x1]', 0x9600_0051n],
    ['synchronous', 1n, 'ldadd x2, x0, [x1]', 0x9600_0011n],
    ['asymmetric', 3n, 'ldr x0, [x1]', 0x9600_0011n],
  ])('%s (TCF = %i), %s: an abort with the address and its tag', (_name, tcf, text, esr) => {
    guest.setBits('SCTLR_EL1', TCF, tcf << 40n);
    const answer = guest.run(`${tagged(7)}\n ${text}`);
    expect(answer).toMatchObject({ vector: 0x200 });
    // WnR of an atomic access: whether a read would have failed too is IMPLEMENTATION DEFINED here.
    const mask = text.startsWith('ldadd') ? ~0x40n : ~0n;
    expect(answer.kind === 'exception' && answer.esr & mask).toBe(esr);
    expect(answer.kind === 'exception' && answer.far & 0x0fff_ffff_ffff_ffffn).toBe(
      (7n << 56n) | BigInt(DATA),
    );
  });

  it.each([
    ['asynchronous', 2n, 'ldr x0, [x1]', 1n],
    ['asynchronous', 2n, 'str x1, [x1]', 1n],
    ['asymmetric', 3n, 'str x1, [x1]', 1n],
    ['none', 0n, 'str x1, [x1]', 0n],
  ])('%s (TCF = %i), %s: TFSR_EL1', (_name, tcf, text, tfsr) => {
    guest.setBits('SCTLR_EL1', TCF, tcf << 40n);
    expect(
      guest.value(`msr tfsr_el1, xzr\n ${tagged(7)}\n ${text}\n dsb sy\n mrs x0, tfsr_el1`),
    ).toBe(tfsr);
  });

  it('KVM_SET_ONE_REG of SCTLR_EL1 and TCR_EL1 takes effect at the next run', () => {
    guest.setBits('SCTLR_EL1', TCF, 1n << 40n);
    expect(guest.run(`${tagged(7)}\n ldr x0, [x1]`).kind).toBe('exception');
    // TCMA0 lets tag 0 pass.
    guest.setBits('TCR_EL1', 1n << 57n, 1n << 57n);
    expect(guest.run(`${tagged(0)}\n ldr x0, [x1]`).kind).toBe('value');
    guest.setBits('TCR_EL1', 1n << 57n, 0n);
    expect(guest.run(`${tagged(0)}\n ldr x0, [x1]`).kind).toBe('exception');
  });

  it('at EL0, TCF0 decides, and the fault is counted in TFSRE0_EL1', () => {
    guest.setBits('SCTLR_EL1', TCF | (3n << 38n), 2n << 38n);
    const user = `ldr x1, =${(7n << 56n) | BigInt(USER_DATA)}\n ldr x0, [x1]\n svc #0`;
    guest.setRegister('TFSRE0_EL1', 0n);
    expect(guest.runAtEl0(user)).toMatchObject({ esr: 0x5600_0000n });
    expect(guest.getRegister('TFSRE0_EL1')).toBe(1n);
    guest.setBits('SCTLR_EL1', 3n << 38n, 1n << 38n);
    expect(guest.runAtEl0(user)).toMatchObject({ vector: 0x400, esr: 0x9200_0011n });
  });
});

it('a page that is executed may be tagged memory: fetches are not checked', () => {
  const guest = new GuestVm();
  const memory = guest.addSlot();
  guest.process.memory.writeU32(memory, 0xd65f03c0); // ret
  guest.setPage(0, BigInt(DATA) | Leaf.page | Leaf.inner | Leaf.accessed);
  guest.setBits('SCTLR_EL1', 3n << 40n, 1n << 40n);
  expect(guest.value(`ldr x1, =${PAGES}\n mov x0, #4\n blr x1`)).toBe(4n);
});
