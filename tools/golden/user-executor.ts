/**
 * Runs jobs under QEMU's user emulation. A small static program for AArch64 Linux, made by our own
 * assembler, does it with signals: a job's registers are put into a signal frame and returned to,
 * the words run, BRK or a fault brings the next signal, whose frame holds the registers after. No
 * register has to be kept for the program itself. Called by `record-golden.ts`.
 */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { assembleProgram } from '../../src/arm/a64/program.ts';
import { writeElf } from '../../src/arm/elf-writer.ts';
import { CODE_VA, PLAIN, TAGGED } from '../../test/conformance/golden-world.ts';
import {
  commonRoutines,
  commonSymbols,
  encodeInput,
  howFar,
  PRISTINE_BYTES,
  prefixed,
  QEMU_CPU,
  runInBatches,
} from './executor.ts';
import { type Job, type Outcome, RESULT } from './wire.ts';

const ENTRY = 0x200000;
const DATA = 0x300000;

// Offsets in struct ucontext of arm64 Linux; the first record behind the registers is the
// fpsimd_context (magic, size, fpsr, fpcr, V0 …), then comes the end marker.
const UC = { x: 184, sp: 432, pc: 440, pstate: 448, fpsr: 472, fpcr: 476, v: 480, end: 992 };

const SYSCALL = {
  read: 63,
  write: 64,
  exit: 93,
  sigaltstack: 132,
  sigaction: 134,
  prctl: 167,
  mmap: 222,
  mprotect: 226,
};

const symbols = {
  ...commonSymbols,
  ...prefixed('sys', SYSCALL),
  ...prefixed('uc', UC),
  code: CODE_VA,
  plain: PLAIN.va,
  tagged: TAGGED.va,
  pristine_bytes: PRISTINE_BYTES,
  // MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
  map_flags: 0x32,
  prot_rw: 3,
  prot_rwx: 7,
  prot_mte: 0x20,
  // PR_TAGGED_ADDR_ENABLE | PR_MTE_TCF_SYNC | include every tag but 0
  tag_control: 1 | (1 << 1) | (0xfffe << 3),
  stack_bytes: 0x10000,
  stack: DATA,
  act: DATA + 0x10000,
  started: DATA + 0x10100,
  job: DATA + 0x11000,
  result: DATA + 0x12000,
  pristine: DATA + 0x20000,
};

const source = `
start:
    // A stack of its own for the handler: jobs put anything into SP.
    ldr   x0, =act
    ldr   x1, =stack
    str   x1, [x0]
    str   xzr, [x0, #8]
    mov   x1, #stack_bytes
    str   x1, [x0, #16]
    mov   x1, #0
    mov   x8, #sys_sigaltstack
    svc   #0
    // SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV: SA_SIGINFO | SA_ONSTACK
    ldr   x0, =act
    ldr   x1, =handler
    str   x1, [x0]
    ldr   x1, =0x08000004
    str   x1, [x0, #8]
    str   xzr, [x0, #16]
    str   xzr, [x0, #24]
    ldr   x20, =signals
1:  ldrb  w0, [x20], #1
    cbz   w0, 2f
    ldr   x1, =act
    mov   x2, #0
    mov   x3, #8
    mov   x8, #sys_sigaction
    svc   #0
    b     1b
2:  ldr   x0, =code
    mov   x1, #page
    mov   x2, #prot_rwx
    bl    map
    ldr   x0, =plain
    mov   x1, #buffer_bytes
    mov   x2, #prot_rw
    bl    map
    ldr   x0, =tagged
    mov   x1, #buffer_bytes
    mov   x2, #(prot_rw | prot_mte)
    bl    map
    ldr   x0, =55
    ldr   x1, =tag_control
    mov   x2, #0
    mov   x3, #0
    mov   x4, #0
    mov   x8, #sys_prctl
    svc   #0
    // Contents of the buffers, then the first job.
    ldr   x0, =pristine
    ldr   x1, =pristine_bytes
    bl    receive
    mov   x5, #buffer_bytes
    bl    restore
    ldr   x0, =(plain + writable_bytes)
    mov   x2, #1
    bl    protect
    ldr   x0, =(tagged + writable_bytes)
    mov   x2, #(1 | prot_mte)
    bl    protect
    bl    fill_code
    brk   #0

signals:
    .byte 4, 5, 7, 8, 11, 0
    .balign 4

// map(x0 address, x1 size, x2 protection)
map:
    mov   x3, #map_flags
    mov   x4, #-1
    mov   x5, #0
    mov   x8, #sys_mmap
    svc   #0
    ret

protect:
    mov   x1, #page
    mov   x8, #sys_mprotect
    svc   #0
    ret

// receive(x0 address, x1 size): reads all of it; the end of the input ends the program.
receive:
    mov   x9, x0
    mov   x10, x1
1:  mov   x0, #0
    mov   x1, x9
    mov   x2, x10
    mov   x8, #sys_read
    svc   #0
    cmp   x0, #0
    b.le  2f
    add   x9, x9, x0
    subs  x10, x10, x0
    b.ne  1b
    ret
2:  mov   x0, #0
    mov   x8, #sys_exit
    svc   #0

// handler(x0 signal, x1 siginfo, x2 ucontext)
handler:
    mov   x19, x2
    mov   x20, x30
    ldr   x21, =started
    ldr   x3, [x21]
    cbz   x3, next
    // How it ended: signal, code, address.
    ldr   x22, =result
    str   x0, [x22]
    ldrsw x3, [x1, #8]
    ldr   x4, [x1, #16]
    stp   x3, x4, [x22, #8]
    // x0 … x30, sp, pc, pstate lie together in both.
    add   x0, x22, #result_x
    add   x1, x19, #uc_x
    mov   x2, #(34 * 8)
    bl    copy
    ldr   w3, [x19, #uc_fpsr]
    str   x3, [x22, #result_fpsr]
    ldr   w3, [x19, #uc_fpcr]
    str   x3, [x22, #result_fpcr]
    add   x0, x22, #result_v
    add   x1, x19, #uc_v
    mov   x2, #512
    bl    copy
    ldr   x0, =(result + result_memory)
    bl    save_memory
    mov   x9, x22
    ldr   x10, =result_bytes
3:  mov   x0, #1
    mov   x1, x9
    mov   x2, x10
    mov   x8, #sys_write
    svc   #0
    cmp   x0, #0
    b.le  3b
    add   x9, x9, x0
    subs  x10, x10, x0
    b.ne  3b

next:
    mov   x3, #1
    str   x3, [x21]
    ldr   x0, =job
    mov   x1, #job_bytes
    bl    receive
    ldr   x21, =job
    ldr   x0, =pc
    ldp   x3, x4, [x21]
    stp   x3, x4, [x0]
    dc    cvau, x0
    dsb   ish
    ic    ivau, x0
    dsb   ish
    isb
    mov   x5, #writable_bytes
    bl    restore
    add   x0, x19, #uc_x
    add   x1, x21, #job_x
    mov   x2, #(32 * 8)
    bl    copy
    ldr   x3, =pc
    ldr   x4, [x21, #job_pstate]
    stp   x3, x4, [x19, #uc_pc]
    ldr   x3, [x21, #job_fpsr]
    str   w3, [x19, #uc_fpsr]
    ldr   x3, [x21, #job_fpcr]
    str   w3, [x19, #uc_fpcr]
    add   x0, x19, #uc_v
    add   x1, x21, #job_v
    mov   x2, #512
    bl    copy
    str   xzr, [x19, #uc_end]
    ret   x20
${commonRoutines}`;

let program: Uint8Array | undefined;

function executable(): Uint8Array {
  if (program === undefined) {
    const { bytes } = assembleProgram(source, { base: BigInt(ENTRY), symbols });
    program = writeElf(BigInt(ENTRY), [
      { address: BigInt(ENTRY), bytes, access: 'rx' },
      { address: BigInt(DATA), bytes: new Uint8Array(), memorySize: 0x40000, access: 'rw' },
    ]);
  }
  return program;
}

/** How many jobs one run of QEMU gets. */
const BATCH = 400;

/** Runs the jobs in order. Throws when QEMU fails or gives fewer results than jobs. */
export const runUser = (jobs: readonly Job[]): Outcome[] => runInBatches(jobs, BATCH, runBatch);

function runBatch(jobs: readonly Job[], folder: string): Uint8Array {
  const file = join(folder, 'executor');
  writeFileSync(file, executable(), { mode: 0o755 });
  const run = spawnSync('qemu-aarch64', ['-cpu', QEMU_CPU, file], {
    input: encodeInput(jobs),
    maxBuffer: (jobs.length + 1) * RESULT.bytes,
  });
  if (run.error !== undefined) throw run.error;
  if (run.status !== 0) {
    const end = `${run.status ?? run.signal}, ${howFar(jobs, run.stdout)}`;
    throw new Error(`qemu-aarch64 ended with ${end}: ${run.stderr.toString()}`);
  }
  return run.stdout;
}
