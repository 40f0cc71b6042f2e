/**
 * The loops that `npm run bench` times, as assembly source for EL1 on the bare machine; source text
 * only, the harness gives them registers, memory and a count. Each is the body of a function: it
 * runs its loop x0 times and ends with `ret`. It may change x1 to x17 and the flags, and nothing
 * else.
 *
 * On entry x1 is the start of a buffer of BUFFER_BYTES bytes, aligned to its size. With `tags` the
 * buffer is Tagged, all of it has allocation tag TAG, and x1 has it as logical tag.
 */

/** Size of the buffer in bytes: sixteen pages, so that TLBs hold it all. */
export const BUFFER_BYTES = 64 * 1024;

/** Allocation tag of the buffer in the loops with `tags`. */
export const TAG = 5;

export interface BenchLoop {
  readonly name: string;
  /** What it stands for, in a few words for the table. */
  readonly title: string;
  /** Instructions of one round, the branch back included. */
  readonly instructionsPerRound: number;
  /** Runs once before the loop, to build what it walks over. */
  readonly prepare?: string;
  readonly source: string;
  /** Tag checks are on and the buffer's pointer has a tag. */
  readonly tags?: true;
}

const alu = `
  mov x2, #1
  mov x3, #0x79b9
  movk x3, #0x9e37, lsl #16
  mov x4, #0
1:
  add x2, x2, x3
  eor x4, x4, x2, lsr #7
  sub x5, x2, x4
  and x6, x5, #0xff00ff00ff00ff
  orr x2, x2, x6, lsl #3
  madd x4, x5, x3, x4
  ror x5, x4, #13
  add x2, x2, x5
  subs x0, x0, #1
  b.ne 1b
  ret
`;

/** A round loads and stores at eight places, all sizes, and moves on through the buffer. */
const loadStore = `
  mov x2, #0
1:
  add x3, x1, x2
  ldr x4, [x3]
  ldp x5, x6, [x3, #16]
  add x4, x4, x5
  str x4, [x3, #32]
  stp x5, x6, [x3, #48]
  ldr w7, [x3, #8]
  strb w7, [x3, #12]
  ldrh w8, [x3, #14]
  str w8, [x3, #40]
  add x2, x2, #64
  and x2, x2, #${BUFFER_BYTES - 1}
  subs x0, x0, #1
  b.ne 1b
  ret
`;

/** Each 64-byte cell of the buffer holds the address of another, in one cycle through all. */
const linkCells = `
  mov x2, #0
  mov x5, #${BUFFER_BYTES / 64}
  mov x6, #64 * 389
1:
  add x3, x2, x6
  and x3, x3, #${BUFFER_BYTES - 1}
  add x4, x1, x3
  str x4, [x1, x2]
  mov x2, x3
  subs x5, x5, #1
  b.ne 1b
  ret
`;

const pointerChase = `
1:
  ldr x1, [x1]
  ldr x1, [x1]
  ldr x1, [x1]
  ldr x1, [x1]
  subs x0, x0, #1
  b.ne 1b
  ret
`;

/** Copies one half of the buffer onto the other, 64 bytes a round, again and again. */
const memcpy = `
  mov x2, #0
1:
  add x3, x1, x2
  add x4, x3, #${BUFFER_BYTES / 2}
  ldp x5, x6, [x3]
  ldp x7, x8, [x3, #16]
  ldp x9, x10, [x3, #32]
  ldp x11, x12, [x3, #48]
  stp x5, x6, [x4]
  stp x7, x8, [x4, #16]
  stp x9, x10, [x4, #32]
  stp x11, x12, [x4, #48]
  add x2, x2, #64
  and x2, x2, #${BUFFER_BYTES / 2 - 1}
  subs x0, x0, #1
  b.ne 1b
  ret
`;

/** Mixes the buffer byte by byte, with a branch that the data decide; both ways are as long. */
const bytes = `
  mov x2, #0
  mov w5, #1
1:
  ldrb w3, [x1, x2]
  add w5, w5, w3
  tbnz w5, #0, 2f
  lsr w5, w5, #1
  b 3f
2:
  eor w5, w5, #0xff0
  ror w5, w5, #3
3:
  strb w5, [x1, x2]
  add x2, x2, #1
  and x2, x2, #${BUFFER_BYTES - 1}
  subs x0, x0, #1
  b.ne 1b
  ret
`;

const calls = `
  mov x9, x30
  mov x2, #0
1:
  bl 2f
  bl 3f
  subs x0, x0, #1
  b.ne 1b
  ret x9
2:
  add x2, x2, #1
  ret
3:
  mov x10, x30
  bl 2b
  ret x10
`;

/** Stores tags and reads them back: what an allocator does. */
const retag = `
  mov x2, #0
1:
  add x3, x1, x2
  addg x4, x3, #0, #3
  st2g x4, [x4]
  str x0, [x4]
  ldg x5, [x3]
  st2g x3, [x3]
  add x2, x2, #32
  and x2, x2, #${BUFFER_BYTES - 1}
  subs x0, x0, #1
  b.ne 1b
  ret
`;

const plainLoops: readonly BenchLoop[] = [
  { name: 'alu', title: 'arithmetic and logic', instructionsPerRound: 10, source: alu },
  {
    name: 'load-store',
    title: 'loads and stores of all sizes',
    instructionsPerRound: 14,
    source: loadStore,
  },
  {
    name: 'pointer-chase',
    title: 'each load gives the next address',
    instructionsPerRound: 6,
    prepare: linkCells,
    source: pointerChase,
  },
  { name: 'memcpy', title: 'copy by pairs of registers', instructionsPerRound: 14, source: memcpy },
  { name: 'bytes', title: 'byte by byte with a branch', instructionsPerRound: 10, source: bytes },
  { name: 'calls', title: 'calls and returns', instructionsPerRound: 11, source: calls },
];

/** All loops; those that touch memory once more with tag checks on. */
export const benchLoops: readonly BenchLoop[] = [
  ...plainLoops,
  ...plainLoops
    .filter(({ name }) => name !== 'alu' && name !== 'calls')
    .map((loop): BenchLoop => ({ ...loop, name: `${loop.name}-tagged`, tags: true })),
  {
    name: 'retag',
    title: 'storing and loading tags',
    instructionsPerRound: 10,
    source: retag,
    tags: true,
  },
];
