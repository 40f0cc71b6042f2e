/**
 * What a static Linux program in our own assembly needs around its own code: system calls, memory,
 * a handler for SIGSEGV, tag checks; and its file. The program composes it with
 * `buildLinuxProgram`.
 *
 * The program defines `_start`, where it begins; `handler`, which SIGSEGV calls with its siginfo in
 * x1 and its ucontext in x2; and `failed`, where it goes on when memory cannot be mapped. It finds
 * `map`, `install_handler`, `put` (x2 bytes at x1) and `exit`. They change x0 to x8.
 */
import { assembleProgram } from '../../arm/a64/program.ts';
import { writeElf } from '../../arm/elf-writer.ts';

const constants = `
.equ sys_write, 64
.equ sys_exit, 93
.equ sys_rt_sigaction, 134
.equ sys_rt_sigreturn, 139
.equ sys_prctl, 167
.equ sys_mmap, 222

.equ pr_set_tagged_addr_ctrl, 55
.equ tagged_addr_enable, 1 << 0
.equ mte_tcf_sync, 1 << 1
.equ mte_tcf_async, 1 << 2
.equ mte_tag_shift, 3
.equ prot_read_write, 3
.equ prot_mte, 0x20
.equ map_private_anonymous, 0x22
.equ sigsegv, 11
.equ segv_mteserr, 9
.equ sa_siginfo_restorer, 4 | 0x04000000
.equ siginfo_code, 8
.equ ucontext_pc, 440
`;

/**
 * Source that chooses a tag check mode, and all tags but 0 for IRG; x0: 0 or the negative errno.
 */
export const setTagChecks = (mode: 'sync' | 'async'): string => `
  mov x0, #pr_set_tagged_addr_ctrl
  ldr x1, =tagged_addr_enable | mte_tcf_${mode} | 0xfffe << mte_tag_shift
  mov x2, #0
  mov x3, #0
  mov x4, #0
  mov x8, #sys_prctl
  svc #0`;

/** Source for a handler: the program goes on behind the instruction; changes x9. */
export const stepOver = `
  ldr x9, [x2, #ucontext_pc]
  add x9, x9, #4
  str x9, [x2, #ucontext_pc]`;

const routines = `
// x0: mapping of x1 bytes with protection x2 and flags x3
map:
  mov x0, #0
  mov x4, #-1
  mov x5, #0
  mov x8, #sys_mmap
  svc #0
  tbnz x0, #63, failed
  ret

// x0: 0 or the negative errno. The structure: handler, flags, restorer, mask.
install_handler:
  sub sp, sp, #32
  adr x1, handler
  ldr x2, =sa_siginfo_restorer
  stp x1, x2, [sp]
  adr x1, restorer
  stp x1, xzr, [sp, #16]
  mov x0, #sigsegv
  mov x1, sp
  mov x2, #0
  mov x3, #8
  mov x8, #sys_rt_sigaction
  svc #0
  add sp, sp, #32
  ret
restorer:
  mov x8, #sys_rt_sigreturn
  svc #0

// x1, x2: bytes and their number
put:
  mov x0, #1
  mov x8, #sys_write
  svc #0
  ret

// x0: status
exit:
  mov x8, #sys_exit
  svc #0
`;

/** Where it is linked: behind the headers of the file, which then are the start of the page. */
const BASE = 0x40_0100n;

/** A whole program as a static ELF executable: `main` is its code, `data` what it reads. */
export function buildLinuxProgram(main: string, data: string): Uint8Array {
  const source = [constants, main, routines, data].join('\n');
  const { bytes, symbols } = assembleProgram(source, { base: BASE });
  return writeElf(symbols.get('_start')!, [{ address: BASE, bytes, access: 'rx' }]);
}
