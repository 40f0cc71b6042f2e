/**
 * How fast machines are saved to files and restored: each as a ratio to copying the same bytes with
 * `Buffer.copy`, writing them to the same disk and syncing, in the same process. Called by the
 * harness of `npm run bench:migrate`; prints nothing.
 */
import { closeSync, fsyncSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { assert, hva, ipa, MIB, PAGE_SIZE, Prng } from '../../src/base/index.ts';
import { isRefusal, MapFlag, Prot } from '../../src/host/index.ts';
import { RAM_BASE } from '../../src/vmm/board.ts';
import { planBoot } from '../../src/vmm/boot.ts';
import { buildEmbeddedGuest } from '../../src/vmm/guests/embedded.ts';
import { Machine } from '../../src/vmm/machine.ts';
import {
  machineOf,
  restoreSnapshot,
  restoreSnapshotLazily,
} from '../../src/vmm/snapshot/restore.ts';
import { saveSnapshot } from '../../src/vmm/snapshot/save.ts';
import { openSnapshot } from '../../src/vmm/snapshot/snapshot-file.ts';

/**
 * What guest memory holds: one eighth of it, or all, code and data of a real program (this very
 * Node); or noise, which does not compress. Whatever holds anything is tagged, a few tag granules
 * alike.
 */
export const SNAPSHOT_CONTENTS = ['sparse', 'program', 'noise'] as const;
export type SnapshotContent = (typeof SNAPSHOT_CONTENTS)[number];

export interface SnapshotBenchOptions {
  readonly content: SnapshotContent;
  readonly ramBytes: number;
  readonly compress: 'none' | 'lz4';
  /** Where files are written: the disk that is measured. */
  readonly directory: string;
  /** The fastest of so many counts. */
  readonly repeats: number;
}

export interface SnapshotFigures {
  readonly content: SnapshotContent;
  readonly compress: 'none' | 'lz4';
  /** Bytes of RAM with their tags, packed: what is copied, saved and restored. */
  readonly guestBytes: number;
  readonly fileBytes: number;
  /** Copying and writing `guestBytes`, synced. */
  readonly copyMs: number;
  readonly saveMs: number;
  readonly restoreMs: number;
}

export interface StartFigures {
  readonly fileBytes: number;
  /** From opening the file to behind the guest's first instruction, RAM loaded on touch. */
  readonly firstInstructionMs: number;
  /** Checking all of the file, which the guest's output waits for. */
  readonly checkMs: number;
}

/** Of a sparse guest, one in so many stretches of 2 MiB holds anything. */
const SPARSE = 8;
const CHUNK_BYTES = 2 * MIB;
const FIRST_FILLED = 8 * MIB;
const WRITE_BYTES = 2 * MIB;

/** Measures one content; the file is removed again. */
export async function measureSnapshots(options: SnapshotBenchOptions): Promise<SnapshotFigures> {
  const { content, ramBytes, compress, directory, repeats } = options;
  const machine = filledMachine(content, ramBytes);
  const path = join(directory, `granule-bench-${process.pid}`);
  const guestBytes = ramBytes + ramBytes / 32;
  const guest = machine.memory.read(RAM_BASE, ramBytes);
  assert(guest !== undefined, 'RAM can be read');
  let fileBytes = 0;
  try {
    // Neither has an old file to take away.
    const anew = (write: () => void | Promise<void>): Promise<number> => {
      rmSync(path, { force: true });
      return timed(write);
    };
    const copyMs = await fastest(repeats, () => anew(() => copyAndWrite(guest, path)));
    const saveMs = await fastest(repeats, () =>
      anew(async () => {
        fileBytes = await saveSnapshot(machine, path, { compress });
      }),
    );
    const restoreMs = await fastest(repeats, () => restoreTimed(path));
    return { content, compress, guestBytes, fileBytes, copyMs, saveMs, restoreMs };
  } finally {
    rmSync(path, { force: true });
  }
}

/** Measures how soon a guest goes on; the file is removed again. */
export async function measureStart(options: SnapshotBenchOptions): Promise<StartFigures> {
  const { content, ramBytes, compress, directory, repeats } = options;
  const path = join(directory, `granule-bench-${process.pid}`);
  try {
    const fileBytes = await saveSnapshot(filledMachine(content, ramBytes), path, { compress });
    const firstInstructionMs = await fastest(repeats, () => timed(() => startLazily(path)));
    const file = openSnapshot(path);
    const checkMs = await fastest(repeats, () => timed(() => file.verify()));
    file.close();
    return { fileBytes, firstInstructionMs, checkMs };
  } finally {
    rmSync(path, { force: true });
  }
}

/** The least of what `measure` returns, in milliseconds. */
async function fastest(repeats: number, measure: () => Promise<number>): Promise<number> {
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < repeats; i++) best = Math.min(best, await measure());
  return best;
}

async function timed(work: () => void | Promise<void>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

/** The peer: what a program does that only wants the bytes on the disk. */
function copyAndWrite(guest: Uint8Array, path: string): void {
  const source = Buffer.from(guest.buffer, guest.byteOffset, guest.length);
  const buffer = Buffer.alloc(WRITE_BYTES);
  const file = openSync(path, 'w');
  for (let at = 0; at < source.length; at += WRITE_BYTES) {
    source.copy(buffer, 0, at, at + WRITE_BYTES);
    writeSync(file, buffer);
  }
  // As many bytes again as the tags have.
  for (let left = source.length / 32; left > 0; left -= WRITE_BYTES) {
    source.copy(buffer, 0, 0, WRITE_BYTES);
    writeSync(file, buffer, 0, Math.min(left, WRITE_BYTES));
  }
  fsyncSync(file);
  closeSync(file);
}

/** The machine is there already: what is timed is filling it. */
function restoreTimed(path: string): Promise<number> {
  const file = openSnapshot(path);
  const machine = new Machine({ ...machineOf(file), transmit: () => {} });
  return timed(() => restoreSnapshot(machine, file));
}

function startLazily(path: string): void {
  const file = openSnapshot(path);
  const machine = new Machine({ ...machineOf(file), transmit: () => {} });
  restoreSnapshotLazily(machine, file);
  machine.runSlice(1);
  file.close();
}

/** A machine with the embedded guest at its first instructions, the rest of RAM filled. */
function filledMachine(content: SnapshotContent, ramBytes: number): Machine {
  const kernel = { name: 'the embedded guest', bytes: buildEmbeddedGuest().bytes };
  const plan = planBoot({ kernel, cmdline: '', ramBytes, cpuCount: 1, seed: 1 });
  const machine = new Machine({ plan, mte: true, seed: 1, transmit: () => {} });
  const prng = new Prng(1);
  const pages = pageMaker(content, prng);
  const tags = mapTagBuffer(machine);
  // The guest lies in the first MiBs.
  for (let at = FIRST_FILLED; at < ramBytes; at += PAGE_SIZE) {
    if (content === 'sparse' && Math.floor(at / CHUNK_BYTES) % SPARSE !== 0) continue;
    machine.memory.write(ipa(RAM_BASE + at), pages());
    writeTags(machine, tags, at, prng);
  }
  return machine;
}

/** Gives page after page of the program, from its beginning again at its end; or of noise. */
function pageMaker(content: SnapshotContent, prng: Prng): () => Uint8Array {
  if (content === 'noise') {
    const words = new Uint32Array(PAGE_SIZE / 4);
    return () => new Uint8Array(words.map(() => prng.u32()).buffer);
  }
  const program = readFileSync(process.execPath);
  let at = 0;
  return () => {
    if (at + PAGE_SIZE > program.length) at = 0;
    at += PAGE_SIZE;
    return program.subarray(at - PAGE_SIZE, at);
  };
}

function mapTagBuffer({ process: space }: Machine): number {
  const at = space.mmap({
    length: PAGE_SIZE,
    prot: Prot.read | Prot.write,
    flags: MapFlag.private | MapFlag.anonymous,
  });
  assert(!isRefusal(at), 'there is room for tags');
  return at;
}

/** Runs of granules with one tag, as an allocator leaves them. */
function writeTags(machine: Machine, buffer: number, at: number, prng: Prng): void {
  const tags = new Uint8Array(PAGE_SIZE / 16);
  for (let i = 0; i < tags.length; ) {
    const end = i + 1 + prng.below(16);
    tags.fill(prng.below(16), i, end);
    i = end;
  }
  machine.process.memory.write(hva(buffer), tags);
  const request = { guestIpa: RAM_BASE + at, length: PAGE_SIZE, addr: buffer, flags: 0 };
  assert(machine.vm.copyTags(request) === PAGE_SIZE, 'tags are written');
}
