/**
 * `granule run` with small bare-metal kernels: console input by interrupt, reset and what follows,
 * several CPUs, and guests that fail. Each kernel is an ELF made here.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { assembleProgram } from '../../src/arm/a64/program.ts';
import { writeElf } from '../../src/arm/elf-writer.ts';
import { granule } from '../support/granule-cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'granule-e2e-'));
afterAll(() => rmSync(folder, { recursive: true }));

const LOAD = 0x4020_0000n;
let count = 0;

/** A kernel's path: `source` at EL1 with the MMU off, x20 the PL011's address, a stack. */
function kernel(source: string): string {
  const text = `
    mov x20, #0x09000000
    mov w0, #0x301
    str w0, [x20, #0x30]
    mov x0, #0x40800000
    mov sp, x0
    ${source}
  power_off:
    ldr x0, =0x84000008
    hvc #0
    b .
  // w0: a character
  put:
    str w0, [x20]
    ret
  `;
  const { bytes } = assembleProgram(text, { base: LOAD });
  const path = join(folder, `kernel-${count++}`);
  writeFileSync(path, writeElf(LOAD, [{ address: LOAD, bytes, access: 'rx' }]));
  return path;
}

const say = (text: string): string =>
  [...text].map((letter) => `mov w0, #${letter.charCodeAt(0)}\n bl put`).join('\n');

const run = (source: string, args: readonly string[] = [], typed = '') =>
  granule(['run', '--kernel', kernel(source), '-m', '32M', ...args], typed);

describe('granule run', () => {
  it('what is typed reaches a guest that waits for the PL011’s interrupt', async () => {
    // SPI 1 is INTID 33. The guest sleeps until it comes, and echoes one higher.
    const echo = `
      mov w0, #0x10
      str w0, [x20, #0x38]
      mov x1, #0x08000000
      mov w0, #2
      str w0, [x1]
      str w0, [x1, #0x104]
      mov w0, #-1
      str w0, [x1, #0x84]
      mov x0, #0xff
      msr icc_pmr_el1, x0
      mov x0, #1
      msr icc_igrpen1_el1, x0
    wait:
      wfi
      mrs x19, icc_iar1_el1
      cmp x19, #33
      b.ne wait
    more:
      ldr w1, [x20, #0x18]
      tbnz w1, #4, done
      ldr w0, [x20]
      cmp w0, #'.'
      b.eq power_off
      add w0, w0, #1
      bl put
      b more
    done:
      msr icc_eoir1_el1, x19
      b wait`;
    const { status, output, messages } = await run(echo, [], 'HAL.');
    expect([status, output]).toEqual([0, 'IBM']);
    expect(messages).toContain('wfi');
  });

  // The word at 0x4100_0000 is not the image's: a reset leaves it as it is.
  const resetsOnce = `
    ${say('b')}
    ldr x1, =0x41000000
    ldr w2, [x1]
    cbnz w2, power_off
    mov w2, #1
    str w2, [x1]
    ldr x0, =0x84000009
    hvc #0`;

  it('--on-reset reboot: the kernel begins again', async () => {
    const { status, output, messages } = await run(resetsOnce);
    expect([status, output]).toEqual([0, 'bb']);
    expect(messages).toContain('the guest powered off');
  });

  it('--on-reset exit: that is the end', async () => {
    const { status, output, messages } = await run(resetsOnce, ['--on-reset', 'exit']);
    expect([status, output]).toEqual([0, 'b']);
    expect(messages).toContain('the guest reset');
  });

  it('--smp 4: CPU_ON of each, they take turns', async () => {
    const smp = `
      mov x19, #1
    next:
      ldr x0, =0xc4000003
      mov x1, x19
      adr x2, other
      mov x3, x19
      hvc #0
      add x19, x19, #1
      cmp x19, #4
      b.ne next
      ldr x4, =0x41000000
    all: ldr x0, [x4]
      cmp x0, #6
      b.ne all
      add w0, w0, #'0'
      bl put
      b power_off
    other:
      ldr x4, =0x41000000
    again: ldxr x5, [x4]
      add x5, x5, x0
      stxr w6, x5, [x4]
      cbnz w6, again
      ldr x0, =0x84000002
      hvc #0`;
    // 1 + 2 + 3, each added by its own CPU.
    const { status, output } = await run(smp, ['--smp', '4']);
    expect([status, output]).toEqual([0, '6']);
  });

  it('a guest whose access nobody can carry out: one sentence, status 1', async () => {
    const { status, messages } = await run('mov x1, #0x0a000000\n ldp x2, x3, [x1, #16]');
    expect(status).toBe(1);
    expect(messages).toMatch(/^granule: vCPU 0: KVM_RUN failed with ENOSYS at pc 0x4020\w+\n$/);
  });
});
