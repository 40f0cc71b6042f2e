/**
 * A Linux program in our own assembly: checks MTE as user space sees it, one line on standard
 * output per check. Synchronous mode (SIGSEGV with SEGV_MTESERR at the faulting address),
 * asynchronous mode (SEGV_MTEAERR), PROT_MTE, TCO. The demo's initramfs carries it as
 * /bin/mte-test.
 *
 * Exit status: 0 all checks hold, 1 one failed (its line says what was found), 2 no MTE.
 *
 * Register use: x28 the state that the signal handler fills (it finds x28 as the program left it),
 * x27 the tagged mapping, x26 a tagged pointer into it, x19 and x20 loop counters.
 */
import { allocationTag, GuestChecks } from './checks.ts';
import { buildLinuxProgram, setTagChecks, stepOver } from './linux-program.ts';

const checks = new GuestChecks('mte-test: ');
const expectEqual = (line: string): string => checks.expectEqual(line);

/** Forgets the last signal. */
const forgetSignal = 'stp xzr, xzr, [x28, #signals]';

const program = `
.equ sys_getpid, 172
.equ at_hwcap2, 26
.equ hwcap2_mte_bit, 18
.equ segv_mteaerr, 8
.equ siginfo_addr, 16

.equ page, 4096
.equ pages, 4

// What the handler saw: number of signals, si_code, si_addr.
.equ signals, 0
.equ code, 8
.equ address, 16
.equ state_size, 32

_start:
  // argc, argv and NULL, environment and NULL, then the auxiliary vector
  ldr x1, [sp]
  add x2, sp, x1, lsl #3
  add x2, x2, #16
1: ldr x3, [x2], #8
  cbnz x3, 1b
2: ldp x3, x4, [x2], #16
  cbz x3, no_mte
  cmp x3, #at_hwcap2
  b.ne 2b
  tbz x4, #hwcap2_mte_bit, no_mte

  sub sp, sp, #state_size
  mov x28, sp
  ${forgetSignal}
  bl install_handler
  mov x1, #0
  ${expectEqual('rt_sigaction for SIGSEGV')}
  ${setTagChecks('sync')}
  mov x1, #0
  ${expectEqual('prctl: synchronous tag checks')}

  mov x1, #pages * page
  mov x2, #prot_read_write | prot_mte
  mov x3, #map_private_anonymous
  bl map
  mov x27, x0
  tst x0, #page - 1
  cset x0, ne
  mov x1, #0
  ${expectEqual('mmap: 4 pages with PROT_MTE')}

  // Fresh pages carry tag 0, to their last tag granule.
  mov x19, #0
1: add x2, x27, x19
  ${allocationTag('x2')}
  cbnz x0, 2f
  add x19, x19, #16
  cmp x19, #pages * page
  b.ne 1b
2: mov x1, #0
  ${expectEqual('fresh pages have allocation tag 0')}

  // IRG leaves tag 0 out, as the include mask asks.
  mov x19, #64
1: irg x26, x27
  ubfx x0, x26, #56, #4
  cbz x0, 2f
  subs x19, x19, #1
  b.ne 1b
2: cmp x0, #0
  cset x0, eq
  mov x1, #0
  ${expectEqual('irg: never a tag that is left out')}

  stg x26, [x26]
  ${allocationTag('x27')}
  ubfx x1, x26, #56, #4
  ${expectEqual('stg, ldg: the tag that was stored')}

  ldr x1, =0x5a17c0de5a17c0de
  str x1, [x26]
  ldr x0, [x26]
  ${expectEqual('right tag: stored and loaded')}
  ldr x0, [x28, #signals]
  mov x1, #0
  ${expectEqual('right tag: no signal')}

  // A pointer with the next tag: the load must not happen.
  addg x25, x26, #0, #1
  ldr x20, =0x1dea1dea1dea1dea
  mov x0, x20
  ldr x0, [x25]
  mov x1, x20
  ${expectEqual('wrong tag: the load does not complete')}
  ldr x0, [x28, #signals]
  mov x1, #1
  ${expectEqual('wrong tag: one SIGSEGV')}
  ldr x0, [x28, #code]
  mov x1, #segv_mteserr
  ${expectEqual('wrong tag: si_code is SEGV_MTESERR')}
  // Linux hides the top byte (QEMU's user emulation does not): SA_EXPOSE_TAGBITS is not set.
  ldr x0, [x28, #address]
  ubfx x0, x0, #0, #56
  mov x1, x27
  ${expectEqual('wrong tag: si_addr is the address')}

  ${forgetSignal}
  str xzr, [x25, #8]
  ldr x0, [x28, #code]
  mov x1, #segv_mteserr
  ${expectEqual('wrong tag: a store is refused as well')}

  // Neighbours are checked by their own tags: 16 bytes on, the tag is 0.
  ${forgetSignal}
  ldr x0, [x27, #16]
  ldr x0, [x28, #signals]
  mov x1, #0
  ${expectEqual('the next tag granule has its own tag')}

  ${forgetSignal}
  msr tco, #1
  ldr x0, [x25]
  msr tco, #0
  ldr x1, [x26]
  ${expectEqual('TCO: checks are held back')}
  ldr x0, [x28, #signals]
  mov x1, #0
  ${expectEqual('TCO: no signal')}

  // Every tag granule of every page gets a tag of its own.
  mov x19, #0
1: add x2, x27, x19
  ubfx x3, x19, #4, #4
  bfi x2, x3, #56, #4
  stg x2, [x2]
  add x19, x19, #16
  cmp x19, #pages * page
  b.ne 1b
  mov x19, #0
2: add x2, x27, x19
  ${allocationTag('x2')}
  ubfx x1, x19, #4, #4
  cmp x0, x1
  b.ne 3f
  bfi x2, x1, #56, #4
  str x19, [x2]
  ldr x0, [x2]
  cmp x0, x19
  b.ne 3f
  add x19, x19, #16
  cmp x19, #pages * page
  b.ne 2b
3: mov x0, x19
  mov x1, #pages * page
  ${expectEqual('4 pages: each tag granule has its tag')}
  ldr x0, [x28, #signals]
  mov x1, #0
  ${expectEqual('4 pages: no signal')}

  // Without PROT_MTE memory has no tags: any pointer will do.
  mov x1, #page
  mov x2, #prot_read_write
  mov x3, #map_private_anonymous
  bl map
  mov x2, #5
  bfi x0, x2, #56, #4
  ldr x0, [x0]
  ldr x0, [x28, #signals]
  mov x1, #0
  ${expectEqual('without PROT_MTE: no check')}

  ${setTagChecks('async')}
  mov x1, #0
  ${expectEqual('prctl: asynchronous tag checks')}
  ${forgetSignal}
  mov x2, #5
  mov x25, x27
  bfi x25, x2, #56, #4
  ldr x20, =0xa5a5a5a5a5a5a5a5
  str x20, [x25]
  mov x8, #sys_getpid
  svc #0
  ldr x0, [x28, #signals]
  mov x1, #1
  ${expectEqual('asynchronous: one SIGSEGV')}
  ldr x0, [x28, #code]
  mov x1, #segv_mteaerr
  ${expectEqual('asynchronous: si_code is SEGV_MTEAERR')}
  ldr x0, [x28, #address]
  mov x1, #0
  ${expectEqual('asynchronous: si_addr is 0')}
  ldr x0, [x27]
  mov x1, x20
  ${expectEqual('asynchronous: the store completed')}

  ${checks.print('mte-test: all checks hold\n')}
  mov x0, #0
  b exit

no_mte:
  ${checks.print('mte-test: no MTE\n')}
  mov x0, #2
  b exit
failed:
  mov x0, #1
  b exit

// x1: siginfo, x2: ucontext. Steps over the instruction unless the fault came after it.
handler:
  ldr x9, [x28, #signals]
  add x9, x9, #1
  ldrsw x10, [x1, #siginfo_code]
  stp x9, x10, [x28, #signals]
  ldr x9, [x1, #siginfo_addr]
  str x9, [x28, #address]
  cmp x10, #segv_mteaerr
  b.eq 1f
  ${stepOver}
1: ret
`;

/** The program as a static ELF executable. */
export const buildMteLinux = (): Uint8Array => buildLinuxProgram(program, checks.source());
