/**
 * A bare-metal guest for tests that take a machine apart in the middle of its work: two CPUs share
 * a counter under exclusives, tag and check memory of their own, sleep for the timer with the GIC
 * set up, and mix time and floating point into their results, which the first CPU prints in the
 * end. Its output and its last registers depend on every instruction before.
 */
import { assembleProgram, type Program } from '../../src/arm/a64/program.ts';
import { bareMetalSource, cpuSetup, firstCpuSetup } from '../../src/vmm/guests/bare-metal.ts';
import { GuestChecks } from '../../src/vmm/guests/checks.ts';

const checks = new GuestChecks('smp: ');

export const SMP_GUEST_LINE = 'smp: done, ';

const constants = `
.equ psci_cpu_on, 0xc4000003
.equ gicd, 0x08000000
.equ gicr, 0x080a0000
.equ gicr_stride, 0x20000
.equ gicr_sgi_frame, 0x10000
.equ gicd_ctlr_on, 0x12
.equ isenabler0, 0x100
.equ virtual_timer, 1 << 27
.equ rounds, 400
.equ counter, 0
.equ finished, 64
.equ result, 128
`;

/** Every CPU, MMU off; x20: its number. Changes x0 to x3. */
const gic = `
start_gic:
  ldr x0, =gicd
  mov w1, #gicd_ctlr_on
  str w1, [x0]
  ldr x0, =gicr
  mov x1, #gicr_stride
  madd x0, x20, x1, x0
  add x0, x0, #gicr_sgi_frame
  ldr x1, =virtual_timer
  str w1, [x0, #isenabler0]
  mov x1, #0xff
  msr icc_pmr_el1, x1
  mov x1, #1
  msr icc_igrpen1_el1, x1
  isb
  ret
`;

const main = `
start:
  mov x20, #0
  ${firstCpuSetup}
  adr x28, state
  stp xzr, xzr, [x28, #counter]
  stp xzr, xzr, [x28, #finished]
  stp xzr, xzr, [x28, #result]
  bl start_gic
  bl turn_on_mmu
  bl enable_fp
  ldr x0, =psci_cpu_on
  mov x1, #1
  adr x2, second
  mov x3, #0
  hvc #0
  bl work
1: ldar x0, [x29]
  cbnz x0, 2f
  yield
  b 1b
2:
  ldr x0, [x28, #result]
  eor x19, x19, x0
  ldr x0, [x28, #counter]
  eor x19, x19, x0, ror #7
  ${checks.print(SMP_GUEST_LINE)}
  mov x0, x19
  bl print_hex
  ${checks.print('\n')}
  b power_off

second:
  mov x20, #1
  mov x22, #0
  ${cpuSetup}
  adr x28, state
  bl start_gic
  bl turn_on_mmu
  bl enable_fp
  bl work
  str x19, [x28, #result]
  mov x0, #1
  stlr x0, [x29]
1: wfi
  b 1b

enable_fp:
  mov x0, #3 << 20
  msr cpacr_el1, x0
  isb
  ret

// x20: CPU; x19: result. x27: a tagged place of its own; x29: the flag at the end
work:
  mov x21, x30
  add x29, x28, #finished
  mov x0, #test_va
  add x27, x0, x20, lsl #10
  add x19, x20, #1
  scvtf d0, x19
  fmov d1, d0
  mov x22, #rounds
round:
  // A tag of a new kind for 64 granules, stores through it, and what was stored comes back
  and x0, x22, #15
  bfi x27, x0, #56, #4
  mov x1, #0
1: add x2, x27, x1
  stg x2, [x2]
  str x19, [x2]
  ldr x3, [x2]
  ldg x4, [x2]
  eor x19, x19, x4, lsr #50
  eor x19, x3, x19, ror #11
  add x1, x1, #16
  cmp x1, #1024
  b.ne 1b
  // The shared counter
  mov x5, #8
2: ldxr x6, [x28]
  add x6, x6, x20
  add x6, x6, #1
  stxr w7, x6, [x28]
  cbnz w7, 2b
  subs x5, x5, #1
  b.ne 2b
  // Floating point and time
  fadd d0, d0, d1
  fmov x8, d0
  eor x19, x19, x8, ror #3
  mrs x8, cntvct_el0
  add x19, x19, x8
  // Sleeps until the timer: the interrupt stays masked and pending
  tst x22, #7
  b.ne 3f
  mov x8, #200
  msr cntv_tval_el0, x8
  mov x8, #1
  msr cntv_ctl_el0, x8
  isb
  wfi
  mrs x8, cntv_ctl_el0
  add x19, x19, x8
  msr cntv_ctl_el0, xzr
  isb
3:
  subs x22, x22, #1
  b.ne round
  mov x30, x21
  ret

failed:
unexpected:
synchronous_exception:
  ${checks.print('smp: unexpected exception\n')}
  b power_off
`;

/** The guest as an arm64 Image. */
export const buildSmpGuest = (): Program =>
  assembleProgram(bareMetalSource([constants, gic, main].join('\n'), checks.source()));
