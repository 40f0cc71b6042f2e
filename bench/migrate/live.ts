/**
 * How fast guests move between two processes over loopback: memory a second, downtime while they
 * write, what tags add, and the ways of carrying tags side by side. The peer is the same bytes sent
 * between the same processes by plain writes to a socket. Called by the harness of
 * `npm run bench:migrate`; prints nothing.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { connect } from 'node:net';
import { fileURLToPath } from 'node:url';
import { assert, hva, ipa, MIB, PAGE_SIZE, Prng } from '../../src/base/index.ts';
import { isRefusal, MapFlag, Prot } from '../../src/host/index.ts';
import { KVM_ARM_TAGS_FROM_GUEST, KVM_ARM_TAGS_TO_GUEST } from '../../src/kvm/index.ts';
import { RAM_BASE } from '../../src/vmm/board.ts';
import { planBoot } from '../../src/vmm/boot.ts';
import { Machine } from '../../src/vmm/machine.ts';
import { parseAddress } from '../../src/vmm/migration/address.ts';
import type { MigrationStatistics } from '../../src/vmm/migration/progress.ts';
import type { MigrationMode } from '../../src/vmm/migration/source.ts';
import type { TagPolicy } from '../../src/vmm/migration/tag-policies.ts';
import type { MachineSession } from '../../src/vmm/monitor/machine-session.ts';
import { type BootOrWait, startMachine } from '../../src/vmm/start-machine.ts';
import { buildDirtyingGuest, type DirtyingGuest, WORKING_SET_OFFSET } from './guest.ts';

export interface MoveOptions {
  readonly ramBytes: number;
  readonly guest: DirtyingGuest;
  /** How much of RAM, from the working set on, is filled with noise and random tags before. */
  readonly filledBytes: number;
  readonly mode: MigrationMode;
  readonly policy: TagPolicy;
}

/** The statistics of one migration to another process. */
export async function measureMove(options: MoveOptions): Promise<MigrationStatistics> {
  const { ramBytes, guest, filledBytes, mode, policy } = options;
  const backing = policy === 'dual-mapping' ? 'memfd' : 'anonymous';
  const destination = await startDestination({ kind: 'machine', ramBytes, backing });
  const kernel = { name: 'the dirtying guest', bytes: buildDirtyingGuest(guest) };
  const plan = planBoot({ kernel, cmdline: '', ramBytes, cpuCount: 1, seed: 1 });
  let statistics: MigrationStatistics | undefined;
  try {
    await runBeside({ plan, backing }, async (session, begun) => {
      fill(session.machine, filledBytes);
      await begun;
      // The guest settles into its pace.
      await pause(500);
      const migration = session.migrate({
        to: parseAddress(destination.address),
        mode,
        tags: { policy },
        downtimeLimitMs: 300,
      });
      const outcome = await migration.outcome;
      if (outcome.kind !== 'completed') throw new Error(`the guest did not move: ${outcome.kind}`);
      statistics = migration.statistics;
    });
  } finally {
    await destination.end();
  }
  assert(statistics !== undefined, 'a migration leaves its figures');
  return statistics;
}

/** Bytes a second of plain writes to a socket of another process that reads them: the peer. */
export async function measureSocket(sizeBytes: number): Promise<number> {
  const sink = await startDestination({ kind: 'sink', ramBytes: 0, backing: 'anonymous' });
  try {
    const { host, port } = parseAddress(sink.address);
    const socket = connect({ host, port });
    await new Promise<void>((resolve) => socket.once('connect', () => resolve()));
    const chunk = Buffer.alloc(MIB, 1);
    const began = performance.now();
    for (let sent = 0; sent < sizeBytes; sent += chunk.length) {
      await new Promise<void>((resolve) => socket.write(chunk, () => resolve()));
    }
    socket.end();
    await new Promise<void>((resolve) => socket.once('close', () => resolve()));
    return (sizeBytes * 1000) / (performance.now() - began);
  } finally {
    await sink.end();
  }
}

export interface CopyTagsFigures {
  /** Bytes of guest memory a second. */
  readonly fromGuest: number;
  readonly toGuest: number;
}

/** KVM_ARM_MTE_COPY_TAGS in ranges of `rangeBytes`; the fastest of `repeats`. */
export function measureCopyTags(
  ramBytes: number,
  rangeBytes: number,
  repeats: number,
): CopyTagsFigures {
  const machine = new Machine({
    plan: { ramBytes, cpuCount: 1 },
    mte: true,
    seed: 1,
    transmit: () => {},
  });
  fill(machine, ramBytes - WORKING_SET_OFFSET);
  const buffer = mapBuffer(machine, rangeBytes / 16);
  const rate = (flags: number): number => {
    let best = 0;
    for (let i = 0; i < repeats; i++) {
      const began = performance.now();
      for (let at = 0; at < ramBytes; at += rangeBytes) {
        const request = { guestIpa: RAM_BASE + at, length: rangeBytes, addr: buffer, flags };
        assert(machine.vm.copyTags(request) === rangeBytes, 'tags are copied');
      }
      best = Math.max(best, (ramBytes * 1000) / (performance.now() - began));
    }
    return best;
  };
  return { fromGuest: rate(KVM_ARM_TAGS_FROM_GUEST), toGuest: rate(KVM_ARM_TAGS_TO_GUEST) };
}

/** Noise and random tags: nothing is zero and nothing alike. */
function fill(machine: Machine, sizeBytes: number): void {
  const prng = new Prng(1);
  const noise = prng.bytes(MIB);
  const tags = prng.bytes(MIB / 16).map((byte) => byte & 15);
  const buffer = mapBuffer(machine, tags.length);
  machine.process.memory.write(hva(buffer), tags);
  for (let done = 0; done < sizeBytes; done += MIB) {
    const at = WORKING_SET_OFFSET + done;
    noise[0] = (done / MIB) & 255;
    assert(machine.memory.write(ipa(RAM_BASE + at), noise), 'guest memory is written');
    const request = { guestIpa: RAM_BASE + at, length: MIB, addr: buffer, flags: 0 };
    assert(machine.vm.copyTags(request) === MIB, 'tags are written');
  }
}

function mapBuffer({ process: space }: Machine, sizeBytes: number): number {
  const at = space.mmap({
    length: Math.max(sizeBytes, PAGE_SIZE),
    prot: Prot.read | Prot.write,
    flags: MapFlag.private | MapFlag.anonymous,
  });
  assert(!isRefusal(at), 'there is room for tags');
  return at;
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Runs a machine by the wall clock, and `work` beside it; `begun`: the guest has spoken. */
async function runBeside(
  options: Pick<BootOrWait, 'plan' | 'backing'>,
  work: (session: MachineSession, begun: Promise<void>) => Promise<void>,
): Promise<void> {
  let speak: () => void = () => {};
  const begun = new Promise<void>((resolve) => {
    speak = resolve;
  });
  const onOutput = (): void => speak();
  const machine = await startMachine({ ...options, realtime: true, onReset: 'exit', onOutput });
  try {
    await work(machine.session, begun);
  } finally {
    machine.quit();
    await machine.outcome;
  }
}

// ---- the other process --------------------------------------------------------------------------

export interface DestinationRole {
  readonly kind: 'machine' | 'sink';
  readonly ramBytes: number;
  readonly backing: 'anonymous' | 'memfd';
}

interface Destination {
  readonly address: string;
  end(): Promise<void>;
}

/** A process of `destination.ts`, which sits beside this file. */
async function startDestination(role: DestinationRole): Promise<Destination> {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  const file = fileURLToPath(new URL(`./destination.${extension}`, import.meta.url));
  const child: ChildProcess = fork(file, [JSON.stringify(role)]);
  const address = await new Promise<string>((resolve, reject) => {
    child.once('message', (message) => resolve(String(message)));
    child.once('exit', (code) => reject(new Error(`the destination ended with status ${code}`)));
  });
  return {
    address,
    end: () =>
      new Promise((resolve) => {
        if (child.exitCode !== null) resolve();
        child.once('exit', () => resolve());
        child.disconnect();
      }),
  };
}
