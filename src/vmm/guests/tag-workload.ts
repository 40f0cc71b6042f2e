/**
 * A workload that notices when memory and tags come apart: each CPU allocates from an arena of its
 * own, tags, writes, checks, frees and retags, with synchronous tag checks on, and now and then
 * loads through a wrong tag, which must fault. What it finds is folded into a checksum of data and
 * tags that depends on the seed, the number of rounds and the CPUs, and not on time: a guest that
 * is stopped, saved or moved in between prints what an undisturbed one prints.
 * `tagWorkloadChecksum` says what that is.
 *
 * Two programs share the worker: a static Linux ELF (one process a CPU, tag faults as signals), and
 * a bare-metal guest of two CPUs at EL1. Both end with a line that begins TAG_WORKLOAD_LINE.
 *
 * The worker's registers: x27 the arena, x28 the state that a fault handler fills, x23 the slots
 * (tagged pointer or 0, bytes, seed), x26 the random state, x25 the checksum, x24 rounds left. It
 * changes x0 to x15 and x19.
 */
import { assembleProgram, type Program } from '../../arm/a64/program.ts';
import { writeElf } from '../../arm/elf-writer.ts';
import { bareMetalSource } from './bare-metal.ts';
import { GuestChecks } from './checks.ts';

/** What the last line begins with, in front of 16 hexadecimal digits. */
export const TAG_WORKLOAD_LINE = 'tag-workload: checksum ';

/** Slots of an arena, each of a page. */
const SLOTS = 64;
const MULTIPLIER = 0x5851f42d4c957f2dn;
const INCREMENT = 0x14057b7ef767814fn;
const U64 = (1n << 64n) - 1n;

export interface TagWorkloadOptions {
  /** Of allocating or of checking and freeing, each CPU; at least 1. */
  readonly rounds: number;
}

const constants = ({ rounds }: TagWorkloadOptions): string => `
.equ rounds, ${rounds}
.equ slots, ${SLOTS}
.equ arena_size, slots * 4096
// What the handler of tag faults is told and what it counts.
.equ expected, 0
.equ faults, 8
// Of a slot, 32 bytes.
.equ slot_pointer, 0
.equ slot_size, 8
.equ slot_seed, 16
`;

/**
 * x27, x28, x23 and x22 (the CPU's number) are set, the slots zero; x25 is the checksum after it.
 */
const worker = `
work:
  mov x15, x30
  add x26, x22, #1
  mov x25, #0
  ldr x24, =rounds
round:
  bl random
  and x0, x0, #slots - 1
  add x19, x23, x0, lsl #5
  ldr x1, [x19, #slot_pointer]
  cbnz x1, check
  // Allocate: a tag of 1 to 14 and 1 to 256 tag granules of the slot's page
  add x11, x27, x0, lsl #12
  bl random
  and x1, x0, #0xffff
  mov x2, #14
  mul x1, x1, x2
  lsr x1, x1, #16
  add x1, x1, #1
  bfi x11, x1, #56, #4
  bl random
  and x12, x0, #255
  add x12, x12, #1
  lsl x12, x12, #4
  mov x13, x26
  mov x0, #0
1: add x2, x11, x0
  stg x2, [x2]
  eor x3, x13, x0
  stp x3, x13, [x2]
  add x0, x0, #16
  cmp x0, x12
  b.ne 1b
  stp x11, x12, [x19, #slot_pointer]
  str x13, [x19, #slot_seed]
next:
  subs x24, x24, #1
  b.ne round
  // What is still allocated is checked as well.
  mov x14, #0
1: add x19, x23, x14, lsl #5
  ldr x1, [x19, #slot_pointer]
  cbz x1, 2f
  bl verify
2: add x14, x14, #1
  cmp x14, #slots
  b.ne 1b
  mov x30, x15
  ret

check:
  bl verify
  // A wrong tag must fault, once.
  tbnz x26, #40, 1f
  mov x0, #1
  stp x0, xzr, [x28]
  eor x2, x11, #1 << 56
  ldr x0, [x2]
  ldr x0, [x28, #faults]
  cmp x0, #1
  b.ne work_failed
  str xzr, [x28, #expected]
1: // Free: another tag, so that who still has the pointer is caught
  mov x0, #15
  mov x2, x11
  bfi x2, x0, #56, #4
  add x3, x2, x12
1: stg x2, [x2], #16
  cmp x2, x3
  b.ne 1b
  str xzr, [x19, #slot_pointer]
  b next

// x19: slot. Its data and tags must be what was put there; x25 takes them up.
verify:
  ldp x11, x12, [x19, #slot_pointer]
  ldr x13, [x19, #slot_seed]
  mov x0, #0
1: add x2, x11, x0
  ldp x3, x4, [x2]
  eor x5, x13, x0
  cmp x3, x5
  b.ne work_failed
  cmp x4, x13
  b.ne work_failed
  mov x6, x27
  bfxil x6, x2, #0, #56
  ldg x6, [x6]
  lsr x6, x6, #56
  ubfx x7, x11, #56, #4
  cmp x6, x7
  b.ne work_failed
  eor x25, x3, x25, ror #7
  add x25, x25, x6
  add x0, x0, #16
  cmp x0, x12
  b.ne 1b
  ret

// x0: 31 random bits
random:
  ldr x9, =${MULTIPLIER}
  ldr x10, =${INCREMENT}
  madd x26, x26, x9, x10
  lsr x0, x26, #33
  ret
`;

/** The checksum of CPU `cpu` (from 0): the worker, as a model of it. */
function workerChecksum(cpu: number, rounds: number): bigint {
  let random = BigInt(cpu + 1);
  let checksum = 0n;
  const slots = new Map<number, { tag: bigint; granules: number; seed: bigint }>();
  const next = (): bigint => {
    random = (random * MULTIPLIER + INCREMENT) & U64;
    return random >> 33n;
  };
  const verify = (index: number): void => {
    const { tag, granules, seed } = slots.get(index)!;
    for (let granule = 0; granule < granules; granule++) {
      const rotated = ((checksum >> 7n) | (checksum << 57n)) & U64;
      checksum = ((seed ^ BigInt(16 * granule) ^ rotated) + tag) & U64;
    }
  };
  for (let round = 0; round < rounds; round++) {
    const index = Number(next() & BigInt(SLOTS - 1));
    if (slots.has(index)) {
      verify(index);
      slots.delete(index);
      continue;
    }
    const tag = (((next() & 0xffffn) * 14n) >> 16n) + 1n;
    const granules = Number(next() & 255n) + 1;
    slots.set(index, { tag, granules, seed: random });
  }
  for (let index = 0; index < SLOTS; index++) if (slots.has(index)) verify(index);
  return checksum;
}

/** What `cpuCount` CPUs print in the end, as 16 hexadecimal digits. */
export function tagWorkloadChecksum({
  rounds,
  cpuCount,
}: TagWorkloadOptions & { readonly cpuCount: number }): string {
  let sum = 0n;
  for (let cpu = 0; cpu < cpuCount; cpu++) {
    sum = ((sum >> 1n) | (sum << 63n)) & U64;
    sum ^= workerChecksum(cpu, rounds);
  }
  return sum.toString(16).padStart(16, '0');
}

// ---- Linux --------------------------------------------------------------------------------------

const linux = (checks: GuestChecks): string => `
.equ sys_write, 64
.equ sys_exit, 93
.equ sys_sched_setaffinity, 122
.equ sys_sched_getaffinity, 123
.equ sys_rt_sigaction, 134
.equ sys_rt_sigreturn, 139
.equ sys_prctl, 167
.equ sys_clone, 220
.equ sys_mmap, 222
.equ sys_wait4, 260
.equ prot_read_write, 3
.equ prot_mte, 0x20
.equ map_private_anonymous, 0x22
.equ map_shared_anonymous, 0x21
.equ sigchld, 17
.equ sigsegv, 11
.equ segv_mteserr, 9
.equ sa_siginfo_restorer, 4 | 0x04000000
.equ siginfo_code, 8
.equ ucontext_pc, 440

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
  mov x0, #55
  ldr x1, =1 | 1 << 1 | 0xfffe << 3
  mov x2, #0
  mov x3, #0
  mov x4, #0
  mov x8, #sys_prctl
  svc #0
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
exit:
  mov x8, #sys_exit
  svc #0

// x0: mapping of x1 bytes with protection x2 and flags x3
map:
  mov x0, #0
  mov x4, #-1
  mov x5, #0
  mov x8, #sys_mmap
  svc #0
  tbnz x0, #63, work_failed
  ret

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
  ldr x9, [x2, #ucontext_pc]
  add x9, x9, #4
  str x9, [x2, #ucontext_pc]
  ret
restorer:
  mov x8, #sys_rt_sigreturn
  svc #0

put:
  mov x0, #1
  mov x8, #sys_write
  svc #0
  ret
`;

const BASE = 0x40_0100n;

/** The workload as a static ELF executable for Linux; one process for each CPU. */
export function buildTagWorkload(options: TagWorkloadOptions): Uint8Array {
  const checks = new GuestChecks('tag-workload: ');
  const main = linux(checks);
  const source = [constants(options), main, worker, checks.source()].join('\n');
  const { bytes, symbols } = assembleProgram(source, { base: BASE });
  return writeElf(symbols.get('_start')!, [{ address: BASE, bytes, access: 'rx' }]);
}

// ---- bare metal ---------------------------------------------------------------------------------

/** Behind the image in its 2 MiB block: for each CPU slots, then the arena. */
const bareMetal = (checks: GuestChecks): string => `
.equ psci_cpu_on, 0xc4000003
.equ per_cpu, 0x80000
.equ finished, 64
.equ result, 72
.equ tag_fault, 0x96000011

start:
  mov x22, #0
  adr x0, stack_top
  mov sp, x0
  adr x0, vectors
  msr vbar_el1, x0
  mrs x0, id_aa64pfr1_el1
  ubfx x23, x0, #8, #4
  bl start_uart
  bl build_tables
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
  mrs x0, id_aa64pfr1_el1
  ubfx x23, x0, #8, #4
  adr x0, vectors
  msr vbar_el1, x0
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
  const main = [constants(options), bareMetal(checks), worker].join('\n');
  return assembleProgram(bareMetalSource(main, checks.source()));
}
