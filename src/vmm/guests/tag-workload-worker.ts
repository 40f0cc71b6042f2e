/**
 * The worker of the tag workload, as assembly source, and a model of it. It allocates from an arena
 * of its own, tags, writes, checks, frees and retags, and now and then loads through a wrong tag,
 * which must fault; what it finds it folds into a checksum. `tag-workload.ts` has the programs.
 *
 * Registers: x27 the arena, x28 the state that a fault handler fills, x23 the slots (tagged pointer
 * or 0, bytes, seed), x26 the random state, x25 the checksum, x24 rounds left. It changes x0 to x15
 * and x19.
 */

/** Slots of an arena, each of a page. */
const SLOTS = 64;
const MULTIPLIER = 0x5851f42d4c957f2dn;
const INCREMENT = 0x14057b7ef767814fn;
const U64 = (1n << 64n) - 1n;

export interface TagWorkloadOptions {
  /** Of allocating or of checking and freeing, each CPU; at least 1. */
  readonly rounds: number;
}

export const workerConstants = ({ rounds }: TagWorkloadOptions): string => `
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
export const workerSource = `
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
