/**
 * The binary form in which the executors take vectors and give results: fixed records of 64-bit
 * little-endian words. Used by `user-executor.ts` and `system-executor.ts`.
 */

import type { State } from '../../test/conformance/golden-state.ts';
import {
  BUFFER_BYTES,
  BUFFERS,
  type Buffer3,
  WRITABLE_BYTES,
} from '../../test/conformance/golden-world.ts';

/** A vector as the executors run it. */
export interface Job {
  readonly words: readonly number[];
  readonly state: State;
  /** Exception level; the user executor knows 0 only. */
  readonly el: 0 | 1;
  /** RGSR_EL1, GCR_EL1 and SCTLR_EL1 for the system executor. */
  readonly rgsr: bigint;
  readonly gcr: bigint;
  readonly sctlr: bigint;
}

/** How a job ended. */
export interface Outcome {
  readonly state: State;
  readonly pc: number;
  readonly buffers: readonly { buffer: Buffer3; bytes: Uint8Array }[];
  /** Tags of the writable pages of the Tagged buffer, one a byte. */
  readonly tags: Uint8Array;
  /** Signal, code and address (user), or undefined words otherwise; see the executors. */
  readonly end: readonly bigint[];
}

// A job: 4 instruction words, then 64-bit words: el, rgsr, gcr, sctlr, x0 … x30, sp, nzcv << 28,
// fpsr, fpcr, then V0 … V31.
export const WORDS_MAX = 4;
export const JOB = {
  words: 0,
  el: 16,
  rgsr: 24,
  gcr: 32,
  sctlr: 40,
  x: 48,
  sp: 48 + 31 * 8,
  pstate: 48 + 32 * 8,
  fpsr: 48 + 33 * 8,
  fpcr: 48 + 34 * 8,
  v: 48 + 35 * 8 + 8,
  bytes: 48 + 36 * 8 + 512,
} as const;

// A result: 8 words of how it ended, then x0 … x30, sp, pc, pstate, fpsr, fpcr, V0 … V31, the
// writable pages of both buffers, and the tags of the second's.
export const END_WORDS = 8;
const TAG_BYTES = WRITABLE_BYTES / 16;
export const RESULT = {
  end: 0,
  x: 64,
  sp: 64 + 31 * 8,
  pc: 64 + 32 * 8,
  pstate: 64 + 33 * 8,
  fpsr: 64 + 34 * 8,
  fpcr: 64 + 35 * 8,
  v: 64 + 36 * 8,
  memory: 64 + 36 * 8 + 512,
  tags: 64 + 36 * 8 + 512 + BUFFERS.length * WRITABLE_BYTES,
  bytes: 64 + 36 * 8 + 512 + BUFFERS.length * WRITABLE_BYTES + TAG_BYTES,
} as const;

/** An instruction that ends a job; written behind its words. */
const END_WORD = 0xd4200000;

export function encodeJob(job: Job): Uint8Array {
  const bytes = new Uint8Array(JOB.bytes);
  const view = new DataView(bytes.buffer);
  const set = (at: number, value: bigint): void => view.setBigUint64(at, value, true);
  for (let i = 0; i < WORDS_MAX; i++) view.setUint32(4 * i, job.words[i] ?? END_WORD, true);
  set(JOB.el, BigInt(job.el));
  set(JOB.rgsr, job.rgsr);
  set(JOB.gcr, job.gcr);
  set(JOB.sctlr, job.sctlr);
  job.state.x.forEach((value, i) => {
    set(JOB.x + 8 * i, value);
  });
  set(JOB.sp, job.state.sp);
  set(JOB.pstate, BigInt(job.state.nzcv) << 28n);
  set(JOB.fpsr, BigInt(job.state.fpsr));
  set(JOB.fpcr, BigInt(job.state.fpcr));
  job.state.v.forEach((value, i) => {
    set(JOB.v + 16 * i, BigInt.asUintN(64, value));
    set(JOB.v + 16 * i + 8, value >> 64n);
  });
  return bytes;
}

export function decodeResult(bytes: Uint8Array): Outcome {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const get = (at: number): bigint => view.getBigUint64(at, true);
  const state: State = {
    x: Array.from({ length: 31 }, (_, i) => get(RESULT.x + 8 * i)),
    sp: get(RESULT.sp),
    nzcv: Number((get(RESULT.pstate) >> 28n) & 15n),
    fpsr: Number(get(RESULT.fpsr)),
    fpcr: Number(get(RESULT.fpcr)),
    v: Array.from(
      { length: 32 },
      (_, i) => get(RESULT.v + 16 * i) | (get(RESULT.v + 16 * i + 8) << 64n),
    ),
  };
  return {
    state,
    pc: Number(get(RESULT.pc)),
    buffers: BUFFERS.map((buffer, i) => {
      const at = RESULT.memory + i * WRITABLE_BYTES;
      return { buffer, bytes: bytes.slice(at, at + WRITABLE_BYTES) };
    }),
    tags: bytes.slice(RESULT.tags, RESULT.tags + TAG_BYTES),
    end: Array.from({ length: END_WORDS }, (_, i) => get(RESULT.end + 8 * i)),
  };
}

/** The buffers' contents and tags at the start, as the executors keep them. */
export function encodePristine(
  pristine: (buffer: Buffer3) => Uint8Array,
  tags: Uint8Array,
): Uint8Array {
  const bytes = new Uint8Array(BUFFERS.length * BUFFER_BYTES + tags.length);
  BUFFERS.forEach((buffer, i) => {
    bytes.set(pristine(buffer), i * BUFFER_BYTES);
  });
  bytes.set(tags, BUFFERS.length * BUFFER_BYTES);
  return bytes;
}
