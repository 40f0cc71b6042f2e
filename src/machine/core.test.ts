/** The core on bare programs with the MMU off: budgets, exceptions, steps, code that changes. */
import { describe, expect, it } from 'vitest';
import { bareCore } from '../../test/support/bare-core.ts';
import { assembleProgram } from '../arm/a64/program.ts';
import * as S from '../engine/state.ts';
import { CpuContext, slotIndex } from './context.ts';
import type { Core, CoreExit } from './core.ts';
import { DRAM_BASE } from './memory.ts';

function run(source: string, budget = 10_000): { x: bigint[]; exit: CoreExit; core: Core } {
  const { core, context } = bareCore(source);
  const exit = core.run(context, budget);
  return { x: [...core.u64.subarray(0, 31)], exit, core };
}

describe('core: budget and counting', () => {
  it('run: straight-line code and branches, every instruction counted once', () => {
    const { core, context } = bareCore('mov x0, #5\n1: subs x0, x0, #1\nb.ne 1b\nhvc #3');
    const exit = core.run(context, 1000);
    expect(exit).toEqual({ kind: 'call', call: 'hvc', immediate: 3 });
    expect(core.executed).toBe(1 + 2 * 5 + 1);
  });

  it('run: an endless loop, ends at the budget and goes on where it was', () => {
    const { core, context } = bareCore('1: add x0, x0, #1\nb 1b');
    expect(core.run(context, 1000).kind).toBe('budget');
    expect(core.executed).toBe(1000);
    expect(core.run(context, 500).kind).toBe('budget');
    expect(core.u64[0]).toBe(750n);
  });

  it('run: code that runs over the end of a page, goes on in the next one', () => {
    const pad = `.space ${4096 - 8}`;
    const { x, core } = run(`b 1f\n${pad}\n1: mov x1, #1\nmov x2, #2\nmov x3, #3\nhvc #0`);
    expect(x.slice(1, 4)).toEqual([1n, 2n, 3n]);
    expect(core.executed).toBe(5);
  });
});

describe('core: exceptions', () => {
  const vectors = (handler: string): string => `
    adr x9, vectors
    msr vbar_el1, x9
    b start
    .align 11
  vectors:
    .space 0x200
    ${handler}
  `;

  it('UDF at EL1: the vector for the current EL with SPx, ESR 0x02000000', () => {
    const { x, exit } = run(`${vectors('mrs x0, esr_el1\nmrs x1, elr_el1\nhvc #1')}
      start: adr x2, 1f\n1: .word 0\nhvc #2`);
    expect(exit).toMatchObject({ immediate: 1 });
    expect(x[0]).toBe(0x02000000n);
    expect(x[1]).toBe(x[2]);
  });

  it('vectors that cannot be fetched: the run ends at its budget', () => {
    const { core, context } = bareCore('mov x0, #0x1000\nmsr vbar_el1, x0\n.word 0');
    expect(core.run(context, 1000).kind).toBe('budget');
    expect(core.exceptionCount).toBeGreaterThan(900);
  });

  it('ERET to an unaligned address: PC alignment fault with FAR', () => {
    const { x } = run(`${vectors('mrs x0, esr_el1\nmrs x1, far_el1\nhvc #1')}
      start: mov x3, #0x3c5\nmsr spsr_el1, x3\nadr x2, start\nadd x2, x2, #2
      msr elr_el1, x2\neret`);
    expect(x[0]).toBe(0x8a000000n);
    expect(x[1]).toBe(x[2]);
  });

  it('ERET to a mode that does not exist: illegal execution state at the return address', () => {
    const { x } = run(`${vectors('mrs x0, esr_el1\nmrs x1, elr_el1\nhvc #1')}
      start: mov x3, #0x3c9\nmsr spsr_el1, x3\nadr x2, 1f\nmsr elr_el1, x2\neret\n1: hvc #9`);
    expect(x[0]).toBe(0x3a000000n);
    expect(x[1]).toBe(x[2]);
  });

  it('load with a misaligned SP while SCTLR_EL1.SA is set: SP alignment fault', () => {
    const { x } = run(`${vectors('mrs x0, esr_el1\nhvc #1')}
      start: mrs x3, sctlr_el1\norr x3, x3, #8\nmsr sctlr_el1, x3
      adr x4, start\nadd x4, x4, #8\nand x4, x4, #~7\norr x4, x4, #8\nmov sp, x4
      ldr x5, [sp]\nhvc #2`);
    expect(x[0]).toBe(0x9a000000n);
  });
});

describe('core: software step', () => {
  // EL1 steps EL0 code: MDSCR_EL1.SS, SPSR_EL1.SS, an exception behind each instruction.
  const program = `
    adr x9, vectors
    msr vbar_el1, x9
    mov x9, #1
    msr mdscr_el1, x9
    msr oslar_el1, xzr
    mov x20, #0
    mov x10, #0x200000
    msr spsr_el1, x10
    adr x9, user
    msr elr_el1, x9
    eret
    .align 11
  vectors:
    .space 0x400
    mrs x21, esr_el1
    lsr x22, x21, #26
    cmp x22, #0x32
    b.ne 1f
    add x20, x20, #1
    mrs x23, spsr_el1
    orr x23, x23, #0x200000
    msr spsr_el1, x23
    eret
  1: hvc #7
  user:
    mov x0, #3
  2: subs x0, x0, #1
    b.ne 2b
    svc #0
  `;

  it('EL0 under MDSCR_EL1.SS: one step exception for each instruction, branches included', () => {
    const { x, exit } = run(program);
    expect(exit).toMatchObject({ immediate: 7 });
    // mov, then three times subs and b.ne; the SVC itself is taken, not stepped.
    expect(x[20]).toBe(7n);
    expect(x[22]).toBe(0x15n);
    expect(x[0]).toBe(0n);
  });

  it('debugStep: each run executes one instruction', () => {
    const { core, context } = bareCore('mov x0, #1\nb 1f\nnop\n1: add x0, x0, #1\nhvc #0');
    context.debugStep = true;
    const pcs: bigint[] = [];
    for (let i = 0; i < 3; i++) {
      expect(core.run(context, 100).kind).toBe('debug');
      pcs.push(core.u64[S.PC / 8]! - BigInt(DRAM_BASE));
    }
    expect(pcs).toEqual([4n, 12n, 16n]);
    expect(core.u64[0]).toBe(2n);
    expect(core.run(context, 100).kind).toBe('call');
  });
});

describe('core: code that changes', () => {
  it('store to the page that runs: the new instruction is executed', () => {
    const { x } = run(`
      adr x1, 2f
      ldr w2, 3f
      str w2, [x1]
      dc cvau, x1
      ic ivau, x1
      isb
    2: mov x0, #1
      hvc #0
    3: mov x0, #2`);
    expect(x[0]).toBe(2n);
  });

  it('write from outside: a loop that is predecoded runs the new instruction', () => {
    const { core, context, memory } = bareCore('1: add x0, x0, #1\nb 1b');
    core.run(context, 100);
    const other = assembleProgram('add x1, x1, #1').bytes;
    memory.writeBytes(DRAM_BASE, other);
    const before = core.u64[0];
    core.run(context, 100);
    expect(core.u64[0]).toBe(before);
    expect(core.u64[1]).toBeGreaterThan(0n);
  });
});

describe('core: events', () => {
  /** What a run of `source` gives, after which the event register was clear at the WFE or not. */
  const waits: [what: string, source: string, waits: boolean][] = [
    ['no event', 'wfe', true],
    ['behind SEVL', 'sevl\n wfe', false],
    ['behind SEV of its own', 'sev\n wfe', false],
    ['two events are one', 'sev\n sevl\n wfe\n wfe', true],
    [
      'behind an ERET',
      'mov x0, #0x3c5\n msr spsr_el1, x0\n adr x0, 1f\n msr elr_el1, x0\n eret\n 1: wfe',
      false,
    ],
  ];
  for (const [what, source, isWait] of waits) {
    it(`WFE: ${what}, ${isWait ? 'the run ends' : 'it goes on'}`, () => {
      const { exit } = run(`${source}\n hvc #1`);
      expect(exit).toMatchObject(isWait ? { kind: 'wait', wait: 'wfe' } : { kind: 'call' });
    });
  }

  it('WFE at EL0 under SCTLR_EL1.nTWE = 0: trapped only where it would wait', () => {
    const { core, context } = bareCore('sevl\n wfe\n wfe\n .align 11\n .space 0x400\n hvc #1');
    context.savedI32[S.EL / 4] = 0;
    context.savedU64[slotIndex('VBAR_EL1') / 2] = BigInt(DRAM_BASE) + 0x800n;
    context.savedU64[slotIndex('SCTLR_EL1') / 2] = 0n;
    expect(core.run(context, 10)).toMatchObject({ kind: 'call', immediate: 1 });
    expect(core.u64[slotIndex('ESR_EL1') / 2]).toBe(0x07e0_0001n);
    expect(core.u64[slotIndex('ELR_EL1') / 2]).toBe(BigInt(DRAM_BASE) + 8n);
  });

  it('beginTurn: an event, and no monitor', () => {
    const { core, context } = bareCore(
      'wfe\n adr x1, 1f\n stxr w0, x1, [x1]\n hvc #1\n 1: .quad 0',
    );
    context.savedI32[S.MONITOR_ADDRESS / 4] = 1;
    core.beginTurn(context);
    expect(core.run(context, 10)).toMatchObject({ kind: 'call', immediate: 1 });
    expect(core.u64[0]).toBe(1n);
  });

  it('SEV: the other contexts of the VM have an event, those of another VM not', () => {
    const { core, context, memory } = bareCore('sev\n hvc #0');
    const [sibling, stranger] = [1, 2].map((index) => {
      const other = new CpuContext(memory, { index, hypervisor: context.hypervisor });
      core.tlbs.register(other);
      return other;
    });
    stranger!.vmid = 7;
    core.run(context, 10);
    expect(sibling!.savedI32[S.EVENT_REGISTER / 4]).toBe(1);
    expect(stranger!.savedI32[S.EVENT_REGISTER / 4]).toBe(0);
  });
});

describe('core: interrupts', () => {
  it('IRQ line while masked: taken when DAIFClr unmasks it, return address behind', () => {
    const { core, context } = bareCore(`
      adr x9, vectors
      msr vbar_el1, x9
      msr daifclr, #2
      nop
      hvc #2
      .align 11
    vectors:
      .space 0x280
      mrs x0, elr_el1
      hvc #1`);
    core.setInterruptLines(context, { irq: true, fiq: false });
    expect(core.run(context, 100)).toMatchObject({ immediate: 1 });
    expect(core.u64[0]).toBe(BigInt(DRAM_BASE) + 12n);
    expect(core.s[slotIndex('SPSR_EL1')]! & 0x80).toBe(0);
  });

  /** A program whose exceptions at EL1h arrive at hvc #1 (SError), #2 (IRQ), #3 (anything else). */
  const handled = (source: string): string => `
    adr x9, vectors
    msr vbar_el1, x9
    ${source}
    hvc #4
    .align 11
  vectors:
    .space 0x200
    hvc #3
    .space 0x7c
    hvc #2
    .space 0x7c
    hvc #3
    .space 0x7c
    hvc #1`;

  it('SError while PSTATE.A masks it: ISR_EL1.A, then taken when unmasked, once', () => {
    const { core, context } = bareCore(handled('mrs x0, isr_el1\n msr daifclr, #4\n nop'));
    core.setSErrorPending(context, true);
    expect(core.run(context, 100)).toMatchObject({ immediate: 1 });
    expect(core.u64[0]).toBe(0x100n);
    expect(core.u64[slotIndex('ELR_EL1') / 2]).toBe(BigInt(DRAM_BASE) + 16n);
    expect(core.u64[slotIndex('ESR_EL1') / 2]).toBe(0xbf00_0000n);
    expect(context.sErrorPending).toBe(false);
    core.s[S.DAIF / 4] = 0;
    expect(core.takePendingInterrupt()).toBe(false);
  });

  it('SError and IRQ, both unmasked: SError first', () => {
    const { core, context } = bareCore(handled('msr daifclr, #7\n nop'));
    core.setInterruptLines(context, { irq: true, fiq: false });
    core.setSErrorPending(context, true);
    expect(core.run(context, 100)).toMatchObject({ immediate: 1 });
    core.s[S.DAIF / 4] = 0;
    expect(core.run(context, 100)).toMatchObject({ immediate: 2 });
  });

  it('SError masked, IRQ not: the IRQ, and the SError stays', () => {
    const { core, context } = bareCore(handled('msr daifclr, #2\n nop'));
    core.setInterruptLines(context, { irq: true, fiq: false });
    core.setSErrorPending(context, true);
    expect(core.run(context, 100)).toMatchObject({ immediate: 2 });
    expect(context.sErrorPending).toBe(true);
  });

  it('SError masked: WFI does not wait', () => {
    const { core, context } = bareCore('wfi\n hvc #1');
    core.setSErrorPending(context, true);
    expect(core.run(context, 100)).toMatchObject({ kind: 'call', immediate: 1 });
  });

  it('SError taken back: nothing happens', () => {
    const { core, context } = bareCore(handled('msr daifclr, #4\n nop'));
    core.setSErrorPending(context, true);
    core.setSErrorPending(context, false);
    expect(core.run(context, 100)).toMatchObject({ immediate: 4 });
  });
});
