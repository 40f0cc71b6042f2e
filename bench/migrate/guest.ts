/**
 * The guest of the migration figures: bare metal, one CPU. It fills a working set with data and
 * tags, page after page, so many bytes a second by its own clock, and sleeps in between; with a
 * rate of 0 it sleeps for good. Assembled here, run by `live.ts`.
 */
import { assembleProgram } from '../../src/arm/a64/program.ts';
import { MIB, PAGE_SIZE } from '../../src/base/index.ts';
import { COUNTER_FREQUENCY_HZ } from '../../src/kvm/index.ts';
import { bareMetalSource, firstCpuSetup } from '../../src/vmm/guests/bare-metal.ts';

/** Where the working set begins, in bytes from the beginning of RAM. */
export const WORKING_SET_OFFSET = 16 * MIB;

export interface DirtyingGuest {
  /** Bytes of memory written a second, all of them with their tags; 0: none. */
  readonly bytesPerSecond: number;
  /** What is written over and over. */
  readonly workingSetBytes: number;
}

/** Pages between two sleeps. */
const BATCH_PAGES = 64;

const source = ({ bytesPerSecond, workingSetBytes }: DirtyingGuest): string => `
.equ gicd, 0x08000000
.equ gicr, 0x080a0000
.equ gicr_sgi_frame, 0x10000
.equ gicd_ctlr_on, 0x12
.equ isenabler0, 0x100
.equ virtual_timer, 1 << 27
.equ batch_pages, ${BATCH_PAGES}
.equ batch_ticks, ${
  bytesPerSecond === 0
    ? 0
    : Math.floor((BATCH_PAGES * PAGE_SIZE * COUNTER_FREQUENCY_HZ) / bytesPerSecond)
}
.equ ram_va, 0xc0000000

start:
  ${firstCpuSetup}
  // All of RAM, Tagged
  adr x0, l1
  mov x1, #ram_va >> 30
  ldr x2, =leaf_block | attr_tagged | inner | accessed | never_executed
  mov x3, #0x40000000
  bl set_descriptor
  dsb sy
  ldr x0, =gicd
  mov w1, #gicd_ctlr_on
  str w1, [x0]
  ldr x0, =gicr + gicr_sgi_frame
  ldr x1, =virtual_timer
  str w1, [x0, #isenabler0]
  mov x1, #0xff
  msr icc_pmr_el1, x1
  mov x1, #1
  msr icc_igrpen1_el1, x1
  isb
  bl turn_on_mmu
  adr x1, ready
  mov x2, #1
  bl put
${bytesPerSecond === 0 ? '1: wfi\n  b 1b' : ''}
  ldr x20, =ram_va + ${WORKING_SET_OFFSET}
  ldr x21, =${workingSetBytes}
  add x21, x20, x21
  mov x19, x20
  mrs x25, cntvct_el0
  mov x26, #1
round:
  mov x22, #batch_pages
page_loop:
  mov x0, #0
1: add x1, x19, x0
  add x26, x26, #0x51
  bfi x1, x26, #56, #4
  stg x1, [x1]
  stp x26, x25, [x1]
  add x0, x0, #16
  cmp x0, #page
  b.ne 1b
  add x19, x19, #page
  cmp x19, x21
  csel x19, x20, x19, hs
  subs x22, x22, #1
  b.ne page_loop
  // Until the next batch is due; the interrupt stays masked and pending
  ldr x0, =batch_ticks
  add x25, x25, x0
  msr cntv_cval_el0, x25
  mov x0, #1
  msr cntv_ctl_el0, x0
  isb
  wfi
  msr cntv_ctl_el0, xzr
  isb
  b round

failed:
unexpected:
synchronous_exception:
  adr x1, broken
  mov x2, #1
  bl put
  b power_off
ready: .asciz "R"
broken: .asciz "X"
.align 2
`;

/** The guest as an arm64 Image; it sends an R when it begins, and an X when it fails. */
export const buildDirtyingGuest = (options: DirtyingGuest): Uint8Array =>
  assembleProgram(bareMetalSource(source(options), '.ltorg')).bytes;
