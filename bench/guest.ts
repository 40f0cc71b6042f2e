/**
 * The guest that times loops: an arm64 Image that runs on any `virt` board, granule's or QEMU's. It
 * maps itself with one block a GiB, turns on the caches (and synchronous tag checks, if asked for)
 * and runs each loop in batches. After every batch it sends the loop's mark over the PL011; when it
 * has received a byte it goes on to the next loop, and behind the last one powers off by PSCI. So
 * one image serves machines of any speed, and its start is in no measurement.
 */
import { assembleProgram } from '../src/arm/index.ts';
import { type BenchLoop, BUFFER_BYTES, TAG } from './loops.ts';

/** Instructions of a batch: long against the mark behind it, short against a measurement. */
const BATCH_INSTRUCTIONS = 8_000_000;

export interface BenchGuest {
  /** The Image file. */
  readonly bytes: Uint8Array;
  readonly loops: readonly BenchLoop[];
  /** Tag checks are on; the machine must have MTE. */
  readonly tags: boolean;
  /** Instructions behind each mark of a loop, by its place among `loops`. */
  readonly batchInstructions: readonly number[];
}

/** The mark of the loop at `index`: one letter. */
export const markOf = (index: number): string => String.fromCharCode(0x61 + index);

/** Builds the guest for `loops`, all of them with `tags` or all without. */
export function buildBenchGuest(
  loops: readonly BenchLoop[],
  batchInstructions = BATCH_INSTRUCTIONS,
): BenchGuest {
  const tags = loops.some((loop) => loop.tags === true);
  const rounds = loops.map(({ instructionsPerRound }) =>
    Math.max(1, Math.floor(batchInstructions / instructionsPerRound)),
  );
  const source = [
    header,
    start(tags),
    ...loops.map((loop, index) => batches(loop, index, rounds[index]!)),
    powerOff,
    ...loops.map((loop, index) => bodies(loop, index)),
    memory,
  ].join('\n');
  return {
    bytes: assembleProgram(source).bytes,
    loops,
    tags,
    batchInstructions: loops.map((loop, i) => rounds[i]! * loop.instructionsPerRound),
  };
}

const header = `
.equ uart, 0x09000000
.equ uart_fr, 0x18
.equ uart_lcr_h, 0x2c
.equ uart_cr, 0x30
.equ uart_imsc, 0x38
.equ uart_fr_rxfe_bit, 4
.equ psci_system_off, 0x84000008
.equ gib, 1 << 30
// Level 1 blocks: valid, accessed, attribute index, shareability
.equ block_device, 1 | 0 << 2 | 1 << 10 | 3 << 53
.equ block_memory, 1 | 1 << 2 | 1 << 10 | 3 << 8
// 39-bit VAs from TTBR0, walks write-back and inner shareable, no TTBR1; top byte ignored, in both
// halves as Linux has it
.equ tcr, 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 3 << 37
// The RES1 bits; MMU, data and instruction caches
.equ sctlr, 0x30d00800 | 1 << 0 | 1 << 2 | 1 << 12
// Allocation tag access at EL1; tag check faults are synchronous
.equ sctlr_mte, 1 << 43 | 1 << 40
image:
  b start
  .word 0
  .quad 0
  .quad image_size
  .quad 1 << 3 | 1 << 1
  .quad 0, 0, 0
  .ascii "ARMd"
  .word 0
`;

/** x19: UART, x20: the buffer's pointer. */
const start = (tags: boolean): string => `
start:
  ldr x19, =uart
  mov w0, #0x70
  str w0, [x19, #uart_lcr_h]
  mov w0, #0x301
  str w0, [x19, #uart_cr]
  // Interrupts stay masked; granule's UART wants to know that somebody listens.
  mov w0, #0x10
  str w0, [x19, #uart_imsc]
  adr x0, tables
  ldr x1, =block_device
  ldr x2, =block_memory
  ldr x3, =gib
  add x2, x2, x3
  stp x1, x2, [x0]
  msr ttbr0_el1, x0
  ldr x0, =${tags ? '0xf000' : '0xff00'}
  msr mair_el1, x0
  ldr x0, =tcr
  msr tcr_el1, x0
  isb
  tlbi vmalle1
  dsb nsh
  isb
  ldr x0, =sctlr${tags ? ' | sctlr_mte' : ''}
  msr sctlr_el1, x0
  isb
  adr x20, buffer
${tags ? tagBuffer : ''}`;

const tagBuffer = `
  mov x0, #${TAG}
  orr x20, x20, x0, lsl #56
  mov x0, x20
  mov x1, #${BUFFER_BYTES / 32}
tag_buffer:
  st2g x0, [x0], #32
  subs x1, x1, #1
  b.ne tag_buffer
`;

/** Runs one loop until a byte comes in. */
const batches = (loop: BenchLoop, index: number, rounds: number): string => `
${loop.prepare === undefined ? '' : `  mov x1, x20\n  bl prepare_${index}`}
batch_${index}:
  mov x1, x20
  ldr x0, =${rounds}
  bl body_${index}
  mov w0, #${markOf(index).charCodeAt(0)}
  str w0, [x19]
  ldr w0, [x19, #uart_fr]
  tbnz w0, #uart_fr_rxfe_bit, batch_${index}
  ldr w0, [x19]
`;

const powerOff = `
  ldr x0, =psci_system_off
  hvc #0
stopped:
  wfi
  b stopped
  .ltorg
`;

const bodies = ({ prepare, source }: BenchLoop, index: number): string => `
${prepare === undefined ? '' : `.align 6\nprepare_${index}:\n${prepare}\n.ltorg`}
.align 6
body_${index}:
${source}
.ltorg
`;

/** Memory behind the file's bytes; the image is loaded at a multiple of 2 MiB. */
const memory = `
.balign ${BUFFER_BYTES}
image_end:
.equ tables, image_end
.equ buffer, image_end + ${BUFFER_BYTES}
.equ image_size, image_end + ${2 * BUFFER_BYTES}
`;
