/**
 * `granule snapshot`: `info` reads a file, checks all of it and prints what is inside; `save` asks
 * a running machine for one over its control socket. Going on from a file is `granule run
 * --restore`.
 */
import { resolve } from 'node:path';
import type { Command as Commander } from 'commander';
import { z } from 'zod';
import { assertNever } from '../base/index.ts';
import type { Compression } from '../vmm/snapshot/format.ts';
import type { ConsoleHost } from './console.ts';
import { SocketName } from './control-options.ts';
import { check, oneOf, path } from './option-values.ts';

export type SnapshotOptions =
  | { readonly action: 'info'; readonly file: string }
  | {
      readonly action: 'save';
      /** Control socket of the machine. */
      readonly socket: string;
      readonly file: string;
      readonly compress: Compression;
    };

const COMPRESSIONS = ['none', 'lz4'] as const satisfies readonly Compression[];

const FileName = path('<file>');
const SaveSchema = z.object({ compress: oneOf('--compress', COMPRESSIONS) });

/** Adds the command to `program`; what is asked of it is told to `found`. */
export function snapshotCommand(
  program: Commander,
  found: (options: SnapshotOptions) => void,
): void {
  const snapshot = program
    .command('snapshot')
    .description('machines in files: save one, or see what is inside');
  snapshot
    .command('info')
    .description('what is in a snapshot; all of it is checked')
    .argument('<file>', 'the snapshot')
    .action((file: string) => found({ action: 'info', file: check(FileName, file) }));
  snapshot
    .command('save')
    .description('save a running machine, which then goes on')
    .argument('<socket>', 'control socket of the machine: run --monitor')
    .argument('<file>', 'where to; appears whole or not at all')
    .option('--compress <way>', `how memory is stored: ${COMPRESSIONS.join(' or ')}`, 'lz4')
    .action((socket: string, file: string, raw: unknown) => {
      check(SocketName, socket);
      found({ action: 'save', socket, file: check(FileName, file), ...check(SaveSchema, raw) });
    });
}

/** Runs the command; resolves to the exit status. Throws `SnapshotError`, `MachineError`. */
export async function runSnapshotCommand(
  options: SnapshotOptions,
  host: Pick<ConsoleHost, 'stdout'>,
): Promise<number> {
  switch (options.action) {
    case 'info':
      return info(options.file, host);
    case 'save':
      return save(options, host);
    default:
      return assertNever(options);
  }
}

async function info(path: string, { stdout }: Pick<ConsoleHost, 'stdout'>): Promise<number> {
  const { openSnapshot } = await import('../vmm/snapshot/snapshot-file.ts');
  const { infoLines } = await import('../vmm/snapshot/info.ts');
  const file = openSnapshot(path);
  try {
    for (const line of infoLines(file)) stdout.write(`${line}\n`);
  } finally {
    file.close();
  }
  return 0;
}

/** The machine writes the file itself, so it is told where from the root. */
async function save(
  { socket, file, compress }: Extract<SnapshotOptions, { action: 'save' }>,
  { stdout }: Pick<ConsoleHost, 'stdout'>,
): Promise<number> {
  const { MonitorClient } = await import('../vmm/monitor/client.ts');
  const client = await MonitorClient.connect(socket);
  try {
    const answer = await client.execute('snapshot-save', { file: resolve(file), compress });
    stdout.write(`${file}: ${Number(answer.bytes).toLocaleString('en-US')} bytes\n`);
  } finally {
    client.close();
  }
  return 0;
}
