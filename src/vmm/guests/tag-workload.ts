/**
 * A workload that notices when memory and tags come apart: each CPU allocates from an arena of its
 * own, tags, writes, checks, frees and retags, with synchronous tag checks on, and now and then
 * loads through a wrong tag, which must fault. What it finds is folded into a checksum of data and
 * tags that depends on the seed, the number of rounds and the CPUs, and not on time: a guest that
 * is stopped, saved or moved in between prints what an undisturbed one prints.
 * `tagWorkloadChecksum` says what that is.
 *
 * Two programs share the worker (`tag-workload-worker.ts`): a static Linux ELF (one process a CPU,
 * tag faults as signals), and a bare-metal guest of two CPUs at EL1. Both end with a line that
 * begins TAG_WORKLOAD_LINE.
 */
import { assembleProgram, type Program } from '../../arm/a64/program.ts';
import { dataAbortEsr, encodeFsc, FaultType } from '../../arm/syndrome.ts';
import { bareMetalSource, cpuSetup, firstCpuSetup } from './bare-metal.ts';
import { GuestChecks } from './checks.ts';
import { buildLinuxProgram, setTagChecks, stepOver } from './linux-program.ts';
import { type TagWorkloadOptions, workerConstants, workerSource } from './tag-workload-worker.ts';

export { type TagWorkloadOptions, tagWorkloadChecksum } from './tag-workload-worker.ts';

/** What the last line begins with, in front of 16 hexadecimal digits. */
export const TAG_WORKLOAD_LINE = 'tag-workload: checksum ';

// ---- Linux --------------------------------------------------------------------------------------

const linux = (checks: GuestChecks): string => `
.equ sys_sched_setaffinity, 122
.equ sys_sched_getaffinity, 123
.equ sys_clone, 220
.equ sys_wait4, 260
.equ map_shared_anonymous, 0x21
.equ sigchld, 17

_start:
  sub sp, sp, #48
  mov x28, sp
  stp xzr, xzr, [x28]
  ${checks.print('tag-workload: running\n')}
  // Results of the CPUs, in memory that their processes share
  mov x1, #4096
  mov x2, #prot_read_write
  mov x3, #map_shared_anonymous
  bl map
  mov x21, x0
  add x2, x28, #16
  mov x0, #0
  mov x1, #8
  mov x8, #sys_sched_getaffinity
  svc #0
  ldr x20, [x28, #16]
  // A process for each CPU of the mask
  mov x22, #0
1: lsr x0, x20, x22
  cbz x0, 3f
  tbz x0, #0, 2f
  mov x0, #sigchld
  mov x1, #0
  mov x2, #0
  mov x3, #0
  mov x4, #0
  mov x8, #sys_clone
  svc #0
  cbz x0, child
  tbnz x0, #63, work_failed
2: add x22, x22, #1
  b 1b
3: mov x19, x22
  // Each of them must end well
4: mov x0, #-1
  add x1, x28, #24
  mov x2, #0
  mov x3, #0
  mov x8, #sys_wait4
  svc #0
  tbnz x0, #63, 5f
  ldr w0, [x28, #24]
  cbnz w0, work_failed
  b 4b
5: mov x0, #0
  mov x22, #0
6: ldr x1, [x21, x22, lsl #3]
  eor x0, x1, x0, ror #1
  add x22, x22, #1
  cmp x22, x19
  b.ne 6b
  mov x20, x0
  ${checks.print(TAG_WORKLOAD_LINE)}
  mov x0, x20
  bl print_hex
  ${checks.print('\n')}
  mov x0, #0
  b exit

child:
  mov x0, #1
  lsl x0, x0, x22
  str x0, [x28, #16]
  mov x0, #0
  mov x1, #8
  add x2, x28, #16
  mov x8, #sys_sched_setaffinity
  svc #0
  cbnz x0, work_failed
  ${setTagChecks('sync')}
  cbnz x0, work_failed
  bl install_handler
  cbnz x0, work_failed
  mov x1, #slots * 32
  mov x2, #prot_read_write
  mov x3, #map_private_anonymous
  bl map
  mov x23, x0
  mov x1, #arena_size
  mov x2, #prot_read_write | prot_mte
  mov x3, #map_private_anonymous
  bl map
  mov x27, x0
  bl work
  str x25, [x21, x22, lsl #3]
  mov x0, #0
  b exit

work_failed:
failed:
  ${checks.print('tag-workload: FAILED\n')}
  mov x0, #1
  b exit

// A tag fault that is expected is counted and stepped over; any other ends the process.
handler:
  ldr x9, [x28, #expected]
  cbz x9, work_failed
  ldr w10, [x1, #siginfo_code]
  cmp w10, #segv_mteserr
  b.ne work_failed
  ldr x9, [x28, #faults]
  add x9, x9, #1
  str x9, [x28, #faults]
  ${stepOver}
  ret
`;

/** The workload as a static ELF executable for Linux; one process for each CPU. */
export function buildTagWorkload(options: TagWorkloadOptions): Uint8Array {
  const checks = new GuestChecks('tag-workload: ');
  const main = [workerConstants(options), linux(checks), workerSource].join('\n');
  return buildLinuxProgram(main, checks.source());
}

// ---- bare metal ---------------------------------------------------------------------------------

/** Behind the image in its 2 MiB block: for each CPU slots, then the arena. */
const bareMetal = (checks: GuestChecks): string => `
.equ psci_cpu_on, 0xc4000003
.equ per_cpu, 0x80000
.equ finished, 64
.equ result, 72
.equ tag_fault, ${dataAbortEsr({ fsc: encodeFsc(FaultType.tagCheck) }, false)}

start:
  mov x22, #0
  ${firstCpuSetup}
  adr x28, state
  stp xzr, xzr, [x28, #finished]
  bl turn_on_mmu
  ${checks.print('tag-workload: running\n')}
  ldr x0, =psci_cpu_on
  mov x1, #1
  adr x2, second
  mov x3, #0
  hvc #0
  bl run_worker
  adr x28, state
  add x28, x28, #finished
1: ldar x0, [x28]
  cbnz x0, 2f
  yield
  b 1b
2: ldr x0, [x28, #result - finished]
  eor x20, x0, x25, ror #1
  ${checks.print(TAG_WORKLOAD_LINE)}
  mov x0, x20
  bl print_hex
  ${checks.print('\n')}
  b power_off

second:
  mov x22, #1
  ${cpuSetup}
  bl turn_on_mmu
  bl run_worker
  adr x28, state
  str x25, [x28, #result]
  mov x0, #1
  add x28, x28, #finished
  stlr x0, [x28]
1: wfi
  b 1b

// x22: the CPU's number. Synchronous checks; x28, x23 and x27 in a part of memory of its own.
run_worker:
  mov x21, x30
  mrs x0, sctlr_el1
  mov x1, #1
  bfi x0, x1, #40, #2
  msr sctlr_el1, x0
  isb
  adr x0, image
  and x0, x0, #-block
  add x0, x0, #per_cpu
  mov x1, #per_cpu
  madd x28, x22, x1, x0
  add x23, x28, #4096
  add x27, x23, #4096
  stp xzr, xzr, [x28]
  mov x0, #0
1: str xzr, [x23, x0]
  add x0, x0, #8
  cmp x0, #slots * 32
  b.ne 1b
  bl work
  mov x30, x21
  ret

synchronous_exception:
  ldr x9, [x28, #expected]
  cbz x9, unexpected
  mrs x10, esr_el1
  ldr x9, =tag_fault
  cmp x9, x10
  b.ne unexpected
  ldr x9, [x28, #faults]
  add x9, x9, #1
  str x9, [x28, #faults]
  mrs x9, elr_el1
  add x9, x9, #4
  msr elr_el1, x9
  eret

work_failed:
failed:
unexpected:
  ${checks.print('tag-workload: FAILED\n')}
  b power_off
`;

/** The workload as an arm64 Image: two CPUs, which it starts itself. */
export function buildBareTagWorkload(options: TagWorkloadOptions): Program {
  const checks = new GuestChecks('tag-workload: ');
  const main = [workerConstants(options), bareMetal(checks), workerSource].join('\n');
  return assembleProgram(bareMetalSource(main, checks.source()));
}
