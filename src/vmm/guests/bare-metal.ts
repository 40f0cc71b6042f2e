/**
 * What a bare-metal guest at EL1 needs around its own code, as assembly source: the header of an
 * arm64 Image, so that the boot path of kernels loads it anywhere in RAM, the PL011, stage-1
 * tables, the MMU with MTE, the exception vectors. The guest composes it with `bareMetalSource`.
 *
 *     VA 0900_0000   page      PL011, Device-nGnRE
 *        4…_0000     2 MiB     the image and what follows it, where it was loaded; Tagged Normal
 *        8000_0000   page      test page, Tagged Normal
 *        8000_1000   page      test page, Normal, not Tagged
 *
 * The code is position-independent; it needs no device tree and no memory beyond its own 2 MiB.
 *
 * The guest defines `start`, where it begins with MMU and caches off, `synchronous_exception` and
 * `unexpected` for exceptions from EL1 and all others. It finds: `start_uart`; `put` (x2 bytes at
 * x1); `power_off`; `build_tables`; `turn_on_mmu`, which wants ID_AA64PFR1_EL1.MTE in x23;
 * `vectors`; `stack_top`; `state`, a page of its own. They change x0 to x8 and x29.
 */

/** An entry of the vector table. */
const vector = (target: string): string => `
  .align 7
  b ${target}`;

const header = `
image:
  b start
  .word 0
  .quad 0                       // text_offset
  .quad image_size
  .quad 1 << 3 | 1 << 1         // anywhere in RAM, 4 KiB pages, little endian
  .quad 0, 0, 0
  .ascii "ARMd"
  .word 0
`;

const constants = `
.equ uart, 0x09000000
.equ uart_fr, 0x18
.equ uart_ibrd, 0x24
.equ uart_fbrd, 0x28
.equ uart_lcr_h, 0x2c
.equ uart_cr, 0x30
.equ uart_fr_txff_bit, 5

.equ psci_system_off, 0x84000008

.equ page, 4096
.equ block, 0x200000
.equ test_va, 0x80000000

// Descriptors: valid, table or page, attribute index, inner shareable, access flag, never executed
.equ table, 3
.equ leaf_block, 1
.equ leaf_page, 3
.equ attr_tagged, 0 << 2
.equ attr_device, 1 << 2
.equ attr_normal, 2 << 2
.equ inner, 3 << 8
.equ accessed, 1 << 10
.equ never_executed, 3 << 53
.equ never_by_el0, 1 << 54

.equ mair_tagged, 0xff04f0
.equ mair_untagged, 0xff04ff
// 39-bit VA from TTBR0, write-back inner shareable walks, TTBR1 off, top byte ignored
.equ tcr, 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 1 << 37
.equ tcr_ips_shift, 32
// RES1 bits; MMU, data and instruction caches
.equ sctlr, 0x30d00800 | 1 << 0 | 1 << 2 | 1 << 12
.equ sctlr_ata_bit, 43
`;

/** Source with which every CPU begins, MMU off: vectors, MTE's level in x23. Changes x0. */
export const cpuSetup = `
  adr x0, vectors
  msr vbar_el1, x0
  mrs x0, id_aa64pfr1_el1
  ubfx x23, x0, #8, #4`;

/** Source with which the first CPU begins: the same, a stack, the UART, the tables. */
export const firstCpuSetup = `
  adr x0, stack_top
  mov sp, x0
  ${cpuSetup}
  bl start_uart
  bl build_tables`;

const routines = `
// Does not return.
power_off:
  ldr x0, =psci_system_off
  hvc #0
1: wfi
  b 1b

start_uart:
  mov x0, #uart
  str wzr, [x0, #uart_cr]
  mov w1, #13
  str w1, [x0, #uart_ibrd]
  mov w1, #1
  str w1, [x0, #uart_fbrd]
  mov w1, #0x70
  str w1, [x0, #uart_lcr_h]
  mov w1, #0x301
  str w1, [x0, #uart_cr]
  ret

// x1, x2: bytes and their number
put:
  mov x3, #uart
1: cbz x2, 3f
2: ldr w4, [x3, #uart_fr]
  tbnz w4, #uart_fr_txff_bit, 2b
  ldrb w4, [x1], #1
  str w4, [x3]
  sub x2, x2, #1
  b 1b
3: ret

// x0: table, x1: index, x2: descriptor without its address, x3: address
set_descriptor:
  orr x2, x2, x3
  str x2, [x0, x1, lsl #3]
  ret

build_tables:
  mov x29, x30
  adr x0, tables
  adr x1, tables_end
1: stp xzr, xzr, [x0], #16
  cmp x0, x1
  b.ne 1b

  // PL011: 0 -> l2_device -> l3_device
  adr x0, l1
  mov x1, #0
  mov x2, #table
  adr x3, l2_device
  bl set_descriptor
  adr x0, l2_device
  mov x1, #uart >> 21
  mov x2, #table
  adr x3, l3_device
  bl set_descriptor
  adr x0, l3_device
  mov x1, #uart >> 12 & 511
  ldr x2, =leaf_page | attr_device | accessed | never_executed
  mov x3, #uart
  bl set_descriptor

  // The 2 MiB block that holds the image
  adr x4, image
  adr x0, l1
  lsr x1, x4, #30
  mov x2, #table
  adr x3, l2_image
  bl set_descriptor
  adr x0, l2_image
  ubfx x1, x4, #21, #9
  ldr x2, =leaf_block | attr_tagged | inner | accessed | never_by_el0
  and x3, x4, #-block
  bl set_descriptor

  // Test pages
  adr x0, l1
  mov x1, #test_va >> 30
  mov x2, #table
  adr x3, l2_test
  bl set_descriptor
  adr x0, l2_test
  mov x1, #0
  mov x2, #table
  adr x3, l3_test
  bl set_descriptor
  adr x0, l3_test
  mov x1, #0
  ldr x2, =leaf_page | attr_tagged | inner | accessed | never_executed
  adr x3, tagged_page
  bl set_descriptor
  mov x1, #1
  ldr x2, =leaf_page | attr_normal | inner | accessed | never_executed
  adr x3, untagged_page
  bl set_descriptor

  // They were written with the caches off: nothing older may be found in a cache.
  adr x0, tables
  adr x1, tables_end
1: dc ivac, x0
  add x0, x0, #16
  cmp x0, x1
  b.ne 1b
  dsb sy
  mov x30, x29
  ret

// MAIR's 0xf0 is reserved where there is no MTE.
turn_on_mmu:
  ldr x0, =mair_tagged
  ldr x1, =mair_untagged
  cmp x23, #2
  csel x0, x0, x1, hs
  msr mair_el1, x0
  ldr x0, =tcr
  mrs x1, id_aa64mmfr0_el1
  and x1, x1, #15
  mov x2, #5
  cmp x1, x2
  csel x1, x1, x2, lo
  bfi x0, x1, #tcr_ips_shift, #3
  msr tcr_el1, x0
  adr x0, l1
  msr ttbr0_el1, x0
  isb
  tlbi vmalle1
  ic iallu
  dsb nsh
  isb
  ldr x0, =sctlr
  cmp x23, #2
  cset x1, hs
  bfi x0, x1, #sctlr_ata_bit, #1
  msr sctlr_el1, x0
  isb
  ret
`;

/** The table lies where bit 10:0 of its address are 0; entries for other ELs are not expected. */
const vectors = `
.align 11
vectors:
  ${['', '', '', ''].map(() => vector('unexpected')).join('')}
  ${vector('synchronous_exception')}
  ${Array.from({ length: 11 }, () => vector('unexpected')).join('')}
  .align 7
`;

/** Memory behind the file's bytes, up to image_size. */
const memory = `
.align 12
image_end:
.equ tables, image_end
.equ l1, tables
.equ l2_device, tables + page
.equ l3_device, tables + 2 * page
.equ l2_image, tables + 3 * page
.equ l2_test, tables + 4 * page
.equ l3_test, tables + 5 * page
.equ tagged_page, tables + 6 * page
.equ untagged_page, tables + 7 * page
.equ tables_end, tables + 8 * page
.equ state, tables_end
.equ stack_top, tables_end + page
.equ image_size, stack_top - image
`;

/** A whole guest: `main` is its code, `data` what it reads. */
export const bareMetalSource = (main: string, data: string): string =>
  [constants, header, main, routines, data, vectors, memory].join('\n');
