/**
 * What the two executors share: QEMU's CPU, the names that their assembly knows, the routines that
 * set the buffers up and read them back, and the way of jobs to QEMU and results back. Used by
 * `user-executor.ts` and `system-executor.ts`.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  BRK,
  BUFFER_BYTES,
  PAGE,
  PC,
  pristineBytes,
  pristineTags,
  WRITABLE_BYTES,
} from '../../test/conformance/golden-world.ts';
import {
  decodeResult,
  encodeJob,
  encodePristine,
  JOB,
  type Job,
  type Outcome,
  RESULT,
} from './wire.ts';

/** QEMU's CPU: without what the engine does not have and what would change the signal frame. */
export const QEMU_CPU = 'max,sve=off,sme=off,pauth=off';

/** `offsets` as symbols of assembly: `prefix_name`. */
export const prefixed = (
  prefix: string,
  offsets: Readonly<Record<string, number>>,
): Record<string, number> =>
  Object.fromEntries(Object.entries(offsets).map(([name, at]) => [`${prefix}_${name}`, at]));

/**
 * Symbols of both programs. Each adds `code`, `plain` and `tagged`, where it maps them, `pristine`,
 * where it has the buffers' contents and tags, and what is its own.
 */
export const commonSymbols = {
  ...prefixed('job', JOB),
  ...prefixed('result', RESULT),
  pc: PC,
  brk: BRK,
  page: PAGE,
  buffer_bytes: BUFFER_BYTES,
  writable_bytes: WRITABLE_BYTES,
};

export const PRISTINE_BYTES = 2 * BUFFER_BYTES + BUFFER_BYTES / 16;

/** Routines of both programs; they change x0 to x5 and x15. */
export const commonRoutines = `
// fill_code: BRK wherever a job may go.
fill_code:
    ldr   x0, =code
    ldr   w1, =brk
    mov   x2, #(page / 4)
1:  str   w1, [x0], #4
    sub   x2, x2, #1
    cbnz  x2, 1b
    ret

// copy(x0 to, x1 from, x2 bytes, a multiple of 16)
copy:
    ldp   x3, x4, [x1], #16
    stp   x3, x4, [x0], #16
    subs  x2, x2, #16
    b.ne  copy
    ret

// restore(x5 bytes of each buffer): contents and tags as at the start.
restore:
    mov   x15, x30
    ldr   x0, =plain
    ldr   x1, =pristine
    mov   x2, x5
    bl    copy
    ldr   x0, =tagged
    ldr   x1, =(pristine + 2 * buffer_bytes)
    lsr   x2, x5, #4
1:  ldrb  w3, [x1], #1
    bfi   x0, x3, #56, #4
    stg   x0, [x0], #16
    subs  x2, x2, #1
    b.ne  1b
    // The data, under tags that match: LDG puts the tag into the pointer.
    ldr   x0, =tagged
    ldr   x1, =(pristine + buffer_bytes)
    mov   x2, x5
2:  ldg   x0, [x0]
    ldp   x3, x4, [x1], #16
    stp   x3, x4, [x0], #16
    subs  x2, x2, #16
    b.ne  2b
    ret   x15

// save_memory(x0 a result's memory): the writable pages of both buffers, then the tags.
save_memory:
    mov   x15, x30
    ldr   x1, =plain
    mov   x2, #writable_bytes
    bl    copy
    ldr   x1, =tagged
    mov   x2, #writable_bytes
1:  ldg   x1, [x1]
    ldp   x3, x4, [x1], #16
    stp   x3, x4, [x0], #16
    subs  x2, x2, #16
    b.ne  1b
    ldr   x1, =tagged
    mov   x2, #(writable_bytes / 16)
2:  ldg   x1, [x1]
    ubfx  x3, x1, #56, #4
    strb  w3, [x0], #1
    add   x1, x1, #16
    subs  x2, x2, #1
    b.ne  2b
    ret   x15
`;

/** What a program is given to begin with: the buffers' contents and tags, then the jobs. */
export const encodeInput = (jobs: readonly Job[]): Uint8Array =>
  Buffer.concat([
    encodePristine(pristineBytes, pristineTags()),
    ...jobs.map((job) => encodeJob(job)),
  ]);

/** Runs one batch of jobs with its files in `folder`; the bytes of their results. */
type BatchRunner = (jobs: readonly Job[], folder: string) => Uint8Array;

/**
 * Runs jobs in order, `batchSize` at a time, in a folder that goes away afterwards. Throws when a
 * batch gives fewer results than it has jobs.
 */
export function runInBatches(
  jobs: readonly Job[],
  batchSize: number,
  runBatch: BatchRunner,
): Outcome[] {
  const folder = mkdtempSync(join(tmpdir(), 'golden-'));
  const outcomes: Outcome[] = [];
  try {
    for (let i = 0; i < jobs.length; i += batchSize) {
      const batch = jobs.slice(i, i + batchSize);
      outcomes.push(...decodeResults(batch, runBatch(batch, folder)));
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
  return outcomes;
}

/** How many results there are, and the words of the job behind the last. */
export function howFar(jobs: readonly Job[], results: Uint8Array): string {
  const count = results.length / RESULT.bytes;
  const words = jobs[Math.floor(count)]?.words.map((word) => word.toString(16)).join(' ');
  return `${count} results for ${jobs.length} jobs, the next is ${words}`;
}

function decodeResults(jobs: readonly Job[], bytes: Uint8Array): Outcome[] {
  if (bytes.length !== jobs.length * RESULT.bytes) throw new Error(howFar(jobs, bytes));
  return jobs.map((_, i) => decodeResult(bytes.subarray(i * RESULT.bytes, (i + 1) * RESULT.bytes)));
}
