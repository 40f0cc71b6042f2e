/**
 * The embedded guest: a bare-metal program for EL1 in our own assembly, which `npm start` runs
 * where Debian's kernel cannot be fetched. It turns on the MMU and MTE, checks tags, tag faults and
 * their syndromes in synchronous, asynchronous and asymmetric mode, prints a line for each over the
 * PL011, and powers off by PSCI. Where ID_AA64PFR1_EL1 shows no MTE it checks that tags read as 0.
 * What is around its code, and the map of its memory, is `bare-metal.ts`.
 *
 * Register use: x28 the state that the exception handler fills, x27 the tagged test page, x26 and
 * x25 pointers into it with right and wrong tag, x24 the untagged test page, x23 MTE's level.
 * Printing changes x0 to x8, an expected exception and `withTag` x9 and x10.
 */
import { assembleProgram, type Program } from '../../arm/a64/program.ts';
import { dataAbortEsr, encodeFsc, FaultType, unknownEsr } from '../../arm/syndrome.ts';
import { GUEST_FAILURE, GUEST_SUCCESS } from '../demo-initramfs.ts';
import { bareMetalSource } from './bare-metal.ts';
import { allocationTag, GuestChecks } from './checks.ts';

const checks = new GuestChecks('embedded: ');
const expectEqual = (line: string): string => checks.expectEqual(line);

/** A pointer with a logical tag; changes x9. */
const withTag = (register: string, pointer: string, tag: number): string => `
  mov x9, #${tag}
  orr ${register}, ${pointer}, x9, lsl #56`;

/** The next exception is expected: its syndrome is kept, its instruction stepped over. */
const expectException = `
  mov x9, #1
  stp x9, xzr, [x28, #expected]
  str xzr, [x28, #fault_address]`;

/** x0: syndrome of the exception since `expectException`, 0 when there was none. */
const syndrome = `
  ldr x0, [x28, #syndrome]
  str xzr, [x28, #expected]`;

/** SCTLR_EL1.TCF: what a tag check fault of EL1 does. */
const setTagChecks = (mode: 'off' | 'sync' | 'async' | 'asymmetric'): string => `
  mrs x9, sctlr_el1
  mov x10, #${['off', 'sync', 'async', 'asymmetric'].indexOf(mode)}
  bfi x9, x10, #40, #2
  msr sctlr_el1, x9
  isb`;

/** x0: TFSR_EL1 with all tag check faults before counted in. */
const tagFaultStatus = `
  dsb sy
  isb
  mrs x0, tfsr_el1`;

const TAG_CHECK = encodeFsc(FaultType.tagCheck);

const constants = `
// Syndromes: synchronous tag check faults from EL1, and an UNDEFINED instruction
.equ tag_fault_read, ${dataAbortEsr({ fsc: TAG_CHECK }, false)}
.equ tag_fault_write, ${dataAbortEsr({ fsc: TAG_CHECK, wnr: true }, false)}
.equ undefined_instruction, ${unknownEsr()}

// What the exception handler is told and what it saw.
.equ expected, 0
.equ syndrome, 8
.equ fault_address, 16
`;

const start = `
start:
  adr x28, state
  adr x0, stack_top
  mov sp, x0
  stp xzr, xzr, [x28]
  str xzr, [x28, #16]
  adr x0, vectors
  msr vbar_el1, x0
  isb
  bl start_uart
  ${checks.print('embedded: a bare-metal guest at EL1\n')}
  mrs x0, currentel
  mov x1, #1 << 2
  ${expectEqual('CurrentEL')}

  mrs x23, id_aa64pfr1_el1
  ubfx x23, x23, #8, #4
  bl build_tables
  bl turn_on_mmu
  mrs x0, sctlr_el1
  and x0, x0, #1
  mov x1, #1
  ${expectEqual('stage 1 is on')}

  // The test page is the same memory through its own mapping and through the image's.
  ldr x27, =test_va
  add x24, x27, #page
  adr x2, tagged_page
  ldr x1, =0x6772616e756c6521
  str x1, [x2, #8]
  ldr x0, [x27, #8]
  ${expectEqual('two mappings of one page')}
  at s1e1r, x27
  isb
  mrs x0, par_el1
  and x0, x0, #0x0000fffffffff000
  adr x1, tagged_page
  ${expectEqual('AT S1E1R finds the page')}

  cmp x23, #2
  b.lo without_mte
`;

const withoutMte = `
without_mte:
  ${checks.print('embedded: MTE is hidden (ID_AA64PFR1_EL1.MTE)\n')}
  ${withTag('x20', 'x27', 5)}
  stg x20, [x20]
  ${allocationTag('x27')}
  mov x1, #0
  ${expectEqual('ldg gives 0 after stg')}
  ldr x1, =0x1234
  str x1, [x20]
  ldr x0, [x27]
  ${expectEqual('no tag is checked')}
  ${expectException}
  mrs x0, gcr_el1
  ${syndrome}
  mov x1, #undefined_instruction
  ${expectEqual('GCR_EL1 is UNDEFINED')}
  b succeeded
`;

const generation = `
  // IRG: with a seed the tags are a sequence, and never one that GCR_EL1 excludes.
  mov x0, #1
  msr gcr_el1, x0
  mov x9, #0x4200
  msr rgsr_el1, x9
  irg x10, x27
  irg x10, x10
  msr rgsr_el1, x9
  irg x11, x27
  irg x11, x11
  mov x0, x10
  mov x1, x11
  ${expectEqual('irg: the same seed, the same tags')}
  mov x19, #256
1: irg x26, x27
  ubfx x0, x26, #56, #4
  cbz x0, 2f
  subs x19, x19, #1
  b.ne 1b
2: mov x0, x19
  mov x1, #0
  ${expectEqual('irg: 256 tags, never the excluded 0')}
  mov x9, #0xffdf
  irg x0, x27, x9
  ${withTag('x1', 'x27', 5)}
  ${expectEqual('irg: one tag is left by the mask')}

  // ADDG passes over excluded tags.
  ${withTag('x2', 'x27', 15)}
  addg x19, x2, #32, #1
  mov x0, x19
  add x1, x27, #32
  ${withTag('x1', 'x1', 1)}
  ${expectEqual('addg: from tag 15 over the excluded 0 to 1')}
  subg x0, x19, #32, #0
  ${withTag('x1', 'x27', 1)}
  ${expectEqual('subg: back, same tag')}

  ${withTag('x2', 'x27', 3)}
  mov x3, #1
  gmi x0, x2, x3
  mov x1, #1 << 3 | 1
  ${expectEqual('gmi: adds the tag to the mask')}

  ${withTag('x20', 'x27', 3)}
  add x20, x20, #48
  ${withTag('x21', 'x27', 7)}
  subp x0, x20, x21
  mov x1, #48
  ${expectEqual('subp: without the tags')}
  subps x0, x21, x20
  cset x0, mi
  mov x1, #1
  ${expectEqual('subps: sets N')}
`;

const storage = `
  ${withTag('x2', 'x27', 9)}
  stg x2, [x2]
  ${allocationTag('x27')}
  mov x1, #9
  ${expectEqual('stg, ldg')}

  ${withTag('x2', 'x27', 6)}
  add x2, x2, #64
  st2g x2, [x2]
  add x2, x27, #64
  ${allocationTag('x2')}
  mov x19, x0
  add x2, x27, #80
  ${allocationTag('x2')}
  orr x0, x0, x19, lsl #4
  mov x1, #0x66
  ${expectEqual('st2g: two tag granules')}

  // STZG zeroes its 16 bytes and leaves the next.
  mov x3, #-1
  stp x3, x3, [x27, #128]
  stp x3, x3, [x27, #144]
  ${withTag('x2', 'x27', 4)}
  stzg x2, [x2, #128]
  add x2, x2, #128
  ldp x4, x5, [x2]
  orr x0, x4, x5
  mov x1, #0
  ${expectEqual('stzg: zeroes')}
  ldr x0, [x27, #144]
  mov x1, #-1
  ${expectEqual('stzg: and no more than 16 bytes')}
  add x2, x27, #128
  ${allocationTag('x2')}
  mov x1, #4
  ${expectEqual('stzg: sets the tag')}

  ${withTag('x2', 'x27', 10)}
  mov x4, #41
  mov x5, #1
  stgp x4, x5, [x2, #160]
  add x2, x2, #160
  ldp x4, x5, [x2]
  add x0, x4, x5
  mov x1, #42
  ${expectEqual('stgp: stores a pair and its tag')}

  // DC GVA gives a whole block its tag; the block is 4 << DCZID_EL0.BS bytes.
  ${withTag('x2', 'x27', 12)}
  add x2, x2, #2048
  dc gva, x2
  mrs x3, dczid_el0
  and x3, x3, #15
  mov x4, #4
  lsl x4, x4, x3
  sub x4, x4, #16
  add x2, x27, #2048
  add x2, x2, x4
  ${allocationTag('x2')}
  mov x1, #12
  ${expectEqual('dc gva: the last tag granule of the block')}

  // Memory that is not Tagged has no tags.
  ${withTag('x2', 'x24', 5)}
  stg x2, [x2]
  ${allocationTag('x24')}
  mov x1, #0
  ${expectEqual('not Tagged: stg is ignored, ldg gives 0')}
`;

const synchronous = `
  ${setTagChecks('sync')}
  ${withTag('x26', 'x27', 9)}
  ${withTag('x25', 'x27', 10)}
  ${expectException}
  ldr x1, =0x900d900d900d900d
  str x1, [x26]
  ldr x0, [x26]
  ${expectEqual('synchronous: right tag, stored and loaded')}
  ${syndrome}
  mov x1, #0
  ${expectEqual('synchronous: right tag, no exception')}

  ${expectException}
  ldr x20, =0x1dea1dea1dea1dea
  mov x0, x20
  ldr x0, [x25]
  mov x1, x20
  ${expectEqual('synchronous: wrong tag, the load does not complete')}
  ${syndrome}
  ldr x1, =tag_fault_read
  ${expectEqual('synchronous: ESR_EL1 says tag check fault, read')}
  ldr x0, [x28, #fault_address]
  ubfx x0, x0, #0, #60
  mov x1, x25
  ${expectEqual('synchronous: FAR_EL1 is the address with its tag')}

  ${expectException}
  str xzr, [x25]
  ${syndrome}
  ldr x1, =tag_fault_write
  ${expectEqual('synchronous: ESR_EL1 says tag check fault, write')}
  ldr x0, [x26]
  ldr x1, =0x900d900d900d900d
  ${expectEqual('synchronous: wrong tag, the store does not happen')}

  // Eight bytes over the end of a tag granule need both tags.
  ${expectException}
  ldr x0, [x26, #8]
  ldur x0, [x26, #12]
  ${syndrome}
  ldr x1, =tag_fault_read
  ${expectEqual('synchronous: an access over two tag granules')}

  ${expectException}
  msr tco, #1
  ldr x0, [x25]
  msr tco, #0
  mov x2, sp
  mov sp, x25
  ldr x0, [sp]
  mov sp, x2
  ${withTag('x3', 'x24', 5)}
  ldr x0, [x3]
  ${syndrome}
  mov x1, #0
  ${expectEqual('not checked: TCO, base SP, memory that is not Tagged')}
`;

const imprecise = `
  ${setTagChecks('async')}
  msr tfsr_el1, xzr
  ${expectException}
  ldr x20, =0x0ddba11
  str x20, [x25]
  ${tagFaultStatus}
  mov x1, #1
  ${expectEqual('asynchronous: TFSR_EL1.TF0')}
  ${syndrome}
  mov x1, #0
  ${expectEqual('asynchronous: no exception')}
  ldr x0, [x26]
  mov x1, x20
  ${expectEqual('asynchronous: the store completed')}
  msr tfsr_el1, xzr

  cmp x23, #3
  b.lo 1f
  ${setTagChecks('asymmetric')}
  ${expectException}
  ldr x0, [x25]
  ${syndrome}
  ldr x1, =tag_fault_read
  ${expectEqual('asymmetric: a read faults')}
  ${expectException}
  str xzr, [x25]
  ${tagFaultStatus}
  mov x1, #1
  ${expectEqual('asymmetric: a write sets TFSR_EL1')}
  ${syndrome}
  mov x1, #0
  ${expectEqual('asymmetric: and takes no exception')}
1:
  ${setTagChecks('off')}
  msr tfsr_el1, xzr
`;

const end = `
succeeded:
  ${checks.print(`${GUEST_SUCCESS}\n`)}
  b power_off

// x0: number of the check that failed
failed:
  mov x19, x0
  ${checks.print(`${GUEST_FAILURE}, code `)}
  mov x0, x19
  bl print_hex
  ${checks.print('\n')}
  b power_off

unexpected:
  ${checks.print('embedded: unexpected exception, ESR ')}
  mrs x0, esr_el1
  bl print_hex
  ${checks.print(' FAR ')}
  mrs x0, far_el1
  bl print_hex
  ${checks.print(' ELR ')}
  mrs x0, elr_el1
  bl print_hex
  ${checks.print('\n')}
  mov x0, #0
  b failed

// From EL1: keeps the syndrome and steps over the instruction if an exception is expected.
synchronous_exception:
  ldr x9, [x28, #expected]
  cbz x9, unexpected
  mrs x9, esr_el1
  mrs x10, far_el1
  stp x9, x10, [x28, #syndrome]
  mrs x9, elr_el1
  add x9, x9, #4
  msr elr_el1, x9
  eret
`;

const main = [constants, start, generation, storage, synchronous, imprecise, end, withoutMte];

/** The guest's assembly source. */
export const embeddedGuestSource = bareMetalSource(main.join('\n'), checks.source());

/** The guest as an arm64 Image. */
export function buildEmbeddedGuest(): Program {
  return assembleProgram(embeddedGuestSource);
}
