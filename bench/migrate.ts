/**
 * `npm run bench:migrate [live|snapshots …]`: prints the tables of docs/performance.md about memory
 * that travels: KVM_ARM_MTE_COPY_TAGS, live migration between two processes, snapshots. Each figure
 * stands beside a peer of the same run, and its bound where it has one.
 */
import { tmpdir } from 'node:os';
import { MIB } from '../src/base/index.ts';
import { TAG_POLICIES } from '../src/vmm/migration/tag-policies.ts';
import { measureCopyTags, measureMove, measureSocket } from './migrate/live.ts';
import { measureSnapshots, measureStart, SNAPSHOT_CONTENTS } from './migrate/snapshots.ts';
import { print, table } from './table.ts';

const RAM_BYTES = 512 * MIB;
const START_RAM_BYTES = 1024 * MIB;
const FILLED_BYTES = 448 * MIB;
const WORKING_SET_BYTES = 64 * MIB;
const DIRTY_BYTES_PER_SECOND = 50 * MIB;
const REPEATS = 5;

const mib = (bytes: number): string => (bytes / MIB).toFixed(0);
const ms = (value: number | undefined): string => (value === undefined ? '-' : value.toFixed(0));

function printCopyTags(): void {
  const rows = [1, 256].map((pages) => {
    const { fromGuest, toGuest } = measureCopyTags(256 * MIB, pages * 4096, REPEATS);
    return [`${pages} page${pages === 1 ? '' : 's'} a call`, mib(fromGuest), mib(toGuest)];
  });
  print('KVM_ARM_MTE_COPY_TAGS, MiB of guest memory a second (bound: 1024 in ranges)');
  table(['ranges of', 'from the guest', 'to the guest'], rows);
}

/** All of a guest that sleeps, every page noise and every tag random. */
async function printThroughput(): Promise<void> {
  const socket = await measureSocket(FILLED_BYTES);
  const rows: string[][] = [];
  for (const policy of TAG_POLICIES) {
    const { totalMs, bytes, tagBytes, tags } = await measureMove({
      ramBytes: RAM_BYTES,
      filledBytes: FILLED_BYTES,
      guest: { bytesPerSecond: 0, workingSetBytes: WORKING_SET_BYTES },
      mode: 'precopy',
      policy,
    });
    const rate = (FILLED_BYTES * 1000) / totalMs;
    rows.push([
      `pre-copy, tags ${policy}`,
      mib(rate),
      (rate / socket).toFixed(2),
      `${((100 * tagBytes) / (bytes - tagBytes)).toFixed(1)} %`,
      String(tags.calls),
      ms(tags.milliseconds),
    ]);
  }
  print(
    `${mib(FILLED_BYTES)} MiB of noise, all tagged, over loopback; the peer: ${mib(socket)} MiB/s`,
  );
  print('through the same kind of socket (bounds: 400 MiB/s, 5 % for tags)');
  table(['', 'MiB/s', 'of the peer', 'tags add', 'tag calls', 'ms for tags'], rows);
}

/** A guest that writes all the while. */
async function printDowntime(): Promise<void> {
  const rows: string[][] = [];
  for (const mode of ['precopy', 'postcopy'] as const) {
    for (const policy of TAG_POLICIES) {
      const { downtimeMs, totalMs, rounds, pagesSentAgain, pagesPutOff, pagesRequested } =
        await measureMove({
          ramBytes: 256 * MIB,
          filledBytes: 128 * MIB,
          guest: { bytesPerSecond: DIRTY_BYTES_PER_SECOND, workingSetBytes: WORKING_SET_BYTES },
          mode,
          policy,
        });
      rows.push([
        `${mode}, tags ${policy}`,
        ms(downtimeMs),
        ms(totalMs),
        String(rounds),
        String(pagesSentAgain),
        String(pagesPutOff),
        String(pagesRequested),
      ]);
    }
  }
  print(
    `A guest that writes ${mib(DIRTY_BYTES_PER_SECOND)} MiB a second of data and tags (bound for`,
  );
  print('downtime: 300 ms)');
  table(['', 'downtime, ms', 'total, ms', 'rounds', 'sent again', 'put off', 'asked for'], rows);
}

async function printSnapshots(): Promise<void> {
  const rows: string[][] = [];
  for (const content of SNAPSHOT_CONTENTS) {
    for (const compress of ['none', 'lz4'] as const) {
      const { copyMs, saveMs, restoreMs, fileBytes } = await measureSnapshots({
        content,
        compress,
        ramBytes: RAM_BYTES,
        directory: tmpdir(),
        repeats: REPEATS,
      });
      rows.push([
        `${content}, ${compress}`,
        mib(fileBytes),
        ms(copyMs),
        (copyMs / saveMs).toFixed(2),
        (copyMs / restoreMs).toFixed(2),
      ]);
    }
  }
  print(`Snapshots of ${mib(RAM_BYTES)} MiB; speed of the peer, which copies and writes: 1`);
  print('(bound: 0.5)');
  table(['content', 'file, MiB', 'peer, ms', 'save', 'restore'], rows);
}

/** How soon a guest goes on from a file. */
async function printStarts(): Promise<void> {
  const rows: string[][] = [];
  for (const content of SNAPSHOT_CONTENTS) {
    const { fileBytes, firstInstructionMs, checkMs } = await measureStart({
      content,
      compress: 'lz4',
      ramBytes: START_RAM_BYTES,
      directory: tmpdir(),
      repeats: REPEATS,
    });
    rows.push([content, mib(fileBytes), ms(firstInstructionMs), ms(checkMs)]);
  }
  print(`A guest of ${mib(START_RAM_BYTES)} MiB goes on, RAM loaded on touch (bound: 150 ms)`);
  table(['content', 'file, MiB', 'first instruction, ms', 'all checked, ms'], rows);
}

const wanted = process.argv.slice(2);
const wants = (name: string): boolean => wanted.length === 0 || wanted.includes(name);
print(`Node ${process.versions.node}, ${new Date().toISOString().slice(0, 10)}`);
print();
if (wants('tags')) printCopyTags();
if (wants('live')) {
  await printThroughput();
  await printDowntime();
}
if (wants('snapshots')) {
  await printSnapshots();
  await printStarts();
}
