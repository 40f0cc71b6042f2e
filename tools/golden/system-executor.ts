/**
 * Runs jobs under QEMU's system emulation, at EL0 or EL1 and without an operating system, for what
 * user emulation does not allow or does not show: EL1's instructions, the tag generator's state,
 * asynchronous tag checks, syndromes. A bare-metal image made by our own assembler returns to a job
 * with ERET; BRK or a fault comes back through the vectors. Results go to a file by semihosting.
 * Called by `record-golden.ts`.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { assembleProgram } from '../../src/arm/a64/program.ts';
import {
  bufferPa,
  CODE_PA,
  PAGE,
  PC,
  PLAIN,
  RAM_PA,
  TAGGED,
  tables,
  WORLD_REGISTERS,
} from '../../test/conformance/golden-world.ts';
import {
  commonRoutines,
  commonSymbols,
  encodeInput,
  PRISTINE_BYTES,
  QEMU_CPU,
  runInBatches,
} from './executor.ts';
import { JOB, type Job, type Outcome, RESULT } from './wire.ts';

const IMAGE = 0x40200000;
const STACK = 0x40400000;
const INPUT = 0x42000000;
const OUTPUT = 0x48000000;

const RESULT_FILE = 'result.bin';

/** Lines that move pairs of general registers from or to a structure at x0. */
const generalPairs = (op: 'ldp' | 'stp', offset: number): string =>
  Array.from({ length: 14 }, (_, i) => {
    const n = 2 + 2 * i;
    return `    ${op}   x${n}, x${n + 1}, [x0, #${offset + 8 * n}]`;
  }).join('\n');

const vectorPairs = (op: 'ldp' | 'stp', offset: number): string =>
  Array.from({ length: 16 }, (_, i) => {
    return `    ${op}   q${2 * i}, q${2 * i + 1}, [x0, #${offset + 32 * i}]`;
  }).join('\n');

const source = `
start:
    ldr   x0, =stack
    mov   sp, x0
    ldr   x0, =vectors
    msr   vbar_el1, x0
    ldr   x0, =mair
    msr   mair_el1, x0
    ldr   x0, =tcr
    msr   tcr_el1, x0
    ldr   x0, =ttbr0
    msr   ttbr0_el1, x0
    ldr   x0, =cpacr
    msr   cpacr_el1, x0
    tlbi  vmalle1
    dsb   sy
    isb
    ldr   x0, =sctlr
    msr   sctlr_el1, x0
    isb
    msr   tco, #1
    bl    fill_code
    mov   x5, #buffer_bytes
    bl    restore
    b     next

// save: a job has ended; everything of it is still in the registers but PC and PSTATE.
save:
    stp   x0, x1, [sp, #-16]!
    ldr   x0, =result_at
    ldr   x0, [x0]
${generalPairs('stp', RESULT.x)}
    str   x30, [x0, #(result_x + 30 * 8)]
    ldp   x2, x3, [sp], #16
    stp   x2, x3, [x0, #result_x]
    mrs   x2, sp_el0
    str   x2, [x0, #result_sp]
    mrs   x2, elr_el1
    str   x2, [x0, #result_pc]
    mrs   x2, spsr_el1
    str   x2, [x0, #result_pstate]
    mrs   x2, fpsr
    str   x2, [x0, #result_fpsr]
    mrs   x2, fpcr
    str   x2, [x0, #result_fpcr]
    mrs   x2, esr_el1
    mrs   x3, far_el1
    stp   x2, x3, [x0]
    mrs   x2, rgsr_el1
    mrs   x3, tfsr_el1
    stp   x2, x3, [x0, #16]
    mrs   x2, tfsre0_el1
    str   x2, [x0, #32]
    add   x1, x0, #result_v
    mov   x20, x0
    mov   x0, x1
${vectorPairs('stp', 0)}
    ldr   x0, =result_memory
    add   x0, x0, x20
    bl    save_memory
    ldr   x1, =result_at
    ldr   x2, =result_bytes
    add   x2, x2, x20
    str   x2, [x1]

next:
    ldr   x0, =jobs_left
    ldr   x1, [x0]
    cbz   x1, finish
    sub   x1, x1, #1
    str   x1, [x0]
    mov   x5, #writable_bytes
    bl    restore
    ldr   x1, =job_at
    ldr   x0, [x1]
    add   x2, x0, #job_bytes
    str   x2, [x1]
    ldr   x1, =words
    ldp   x2, x3, [x0]
    stp   x2, x3, [x1]
    dc    cvau, x1
    dsb   sy
    ic    iallu
    dsb   sy
    ldp   x2, x3, [x0, #job_rgsr]
    msr   rgsr_el1, x2
    msr   gcr_el1, x3
    msr   tfsr_el1, xzr
    msr   tfsre0_el1, xzr
    ldr   x2, [x0, #job_sctlr]
    msr   sctlr_el1, x2
    ldr   x2, =pc
    msr   elr_el1, x2
    // EL0t or EL1t, interrupts masked
    ldr   x2, [x0, #job_el]
    lsl   x2, x2, #2
    ldr   x3, [x0, #job_pstate]
    orr   x2, x2, x3
    orr   x2, x2, #0x3c0
    msr   spsr_el1, x2
    ldr   x2, [x0, #job_sp]
    msr   sp_el0, x2
    ldr   x2, [x0, #job_fpsr]
    msr   fpsr, x2
    ldr   x2, [x0, #job_fpcr]
    msr   fpcr, x2
    isb
    mov   x20, x0
    add   x0, x0, #job_v
${vectorPairs('ldp', 0)}
    mov   x0, x20
    ldr   x30, [x0, #(job_x + 30 * 8)]
${generalPairs('ldp', JOB.x)}
    ldp   x0, x1, [x0, #job_x]
    eret

// Writes the results to a file and ends. Semihosting: w0 = operation, x1 = its arguments.
finish:
    ldr   x1, =open_arguments
    mov   w0, #1
    hlt   #0xf000
    ldr   x1, =write_arguments
    str   x0, [x1]
    ldr   x2, =output
    str   x2, [x1, #8]
    ldr   x3, =result_at
    ldr   x3, [x3]
    sub   x3, x3, x2
    str   x3, [x1, #16]
    mov   w0, #5
    hlt   #0xf000
quit:
    ldr   x1, =exit_arguments
    mov   w0, #0x18
    hlt   #0xf000
${commonRoutines}
    .ltorg
    .balign 8
result_at:
    .quad output
job_at:
    .quad jobs
open_arguments:
    .quad file_name, 5, ${RESULT_FILE.length}
write_arguments:
    .quad 0, 0, 0
exit_arguments:
    .quad 0x20026, 0
file_name:
    .asciz "${RESULT_FILE}"

    .balign 2048
vectors:
    b     save
    .space 0x3fc
    b     save
    .space 0x3fc
`;

function image(jobCount: number): Uint8Array {
  // Other entries of the vector table are zero: an UNDEFINED instruction, so that the run hangs and
  // is ended by the time limit rather than giving wrong results.
  const { bytes } = assembleProgram(source, {
    base: BigInt(IMAGE),
    symbols: {
      ...commonSymbols,
      stack: STACK,
      mair: WORLD_REGISTERS.MAIR_EL1,
      tcr: WORLD_REGISTERS.TCR_EL1,
      ttbr0: WORLD_REGISTERS.TTBR0_EL1,
      cpacr: WORLD_REGISTERS.CPACR_EL1,
      sctlr: WORLD_REGISTERS.SCTLR_EL1,
      code: CODE_PA,
      words: CODE_PA + (PC % PAGE),
      plain: bufferPa(PLAIN),
      tagged: bufferPa(TAGGED),
      jobs_left: INPUT,
      pristine: INPUT + 16,
      jobs: INPUT + 16 + PRISTINE_BYTES,
      output: OUTPUT,
    },
  });
  assertFits(INPUT + jobCount * JOB.bytes, OUTPUT);
  return bytes;
}

function assertFits(end: number, limit: number): void {
  if (end > limit) throw new RangeError(`${end.toString(16)} is beyond ${limit.toString(16)}`);
}

/** How many jobs one run of QEMU gets. */
const BATCH = 2000;
const TIME_LIMIT_MS = 120_000;

/** Runs the jobs in order. Throws when QEMU fails or gives fewer results than jobs. */
export const runSystem = (jobs: readonly Job[]): Outcome[] => runInBatches(jobs, BATCH, runBatch);

function runBatch(jobs: readonly Job[], folder: string): Uint8Array {
  const count = Buffer.alloc(16);
  count.writeBigUInt64LE(BigInt(jobs.length));
  writeFileSync(join(folder, 'image.bin'), image(jobs.length));
  writeFileSync(join(folder, 'tables.bin'), tables());
  writeFileSync(join(folder, 'input.bin'), Buffer.concat([count, encodeInput(jobs)]));
  const load = (file: string, address: number): string[] => [
    '-device',
    `loader,file=${file},addr=0x${address.toString(16)},force-raw=on`,
  ];
  const run = spawnSync(
    'qemu-system-aarch64',
    [
      ...['-M', 'virt,mte=on', '-cpu', QEMU_CPU, '-m', '512M', '-nodefaults'],
      ...['-display', 'none', '-semihosting-config', 'enable=on,target=native'],
      ...load('image.bin', IMAGE),
      ...load('tables.bin', RAM_PA),
      ...load('input.bin', INPUT),
      ...['-device', `loader,addr=0x${IMAGE.toString(16)},cpu-num=0`],
    ],
    { cwd: folder, timeout: TIME_LIMIT_MS },
  );
  if (run.error !== undefined) throw run.error;
  if (run.status !== 0) throw new Error(`qemu-system-aarch64: ${run.stderr.toString()}`);
  return readFileSync(join(folder, RESULT_FILE));
}
