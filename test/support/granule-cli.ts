/**
 * Runs `granule` in this process with everything real behind it: machine, KVM, guests and, where a
 * test wants them, Debian's files. Only the terminal is a stream of ours. For tests end to end.
 */
import { EventEmitter } from 'node:events';
import { PassThrough } from 'node:stream';
import { runCli } from '../../src/cli/command.ts';
import type { Services } from '../../src/cli/services.ts';
import { fetchDebian } from '../../src/vmm/debian.ts';
import { buildEmbeddedGuest } from '../../src/vmm/guests/embedded.ts';
import { buildMteLinux } from '../../src/vmm/guests/mte-linux.ts';
import { runMachine } from '../../src/vmm/run-machine.ts';

const services: Services = {
  machine: async () => runMachine,
  fetchDebian,
  mteTest: async () => buildMteLinux(),
  embeddedGuest: async () => buildEmbeddedGuest().bytes,
};

export interface GranuleRun {
  readonly status: number;
  /** What the guest wrote, without carriage returns. */
  readonly output: string;
  /** What granule itself said: messages, traces, the summary. */
  readonly messages: string;
}

/** `granule ...args`, with `typed` at its standard input, which then stays open. */
export async function granule(args: readonly string[], typed = ''): Promise<GranuleRun> {
  const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()];
  const [output, messages] = [collect(stdout), collect(stderr)];
  stdin.write(typed);
  const host = { stdin, stdout, stderr, events: new EventEmitter() };
  const status = await runCli(args, '0.0.0', services, host);
  stdin.destroy();
  return { status, output: output().replaceAll('\r', ''), messages: messages() };
}

function collect(stream: PassThrough): () => string {
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  return () => {
    for (let rest = stream.read(); rest !== null; rest = stream.read()) chunks.push(rest);
    return Buffer.concat(chunks).toString();
  };
}

/** A number that the summary gives: `statistic(messages, 'pages tagged')`. */
export function statistic(messages: string, name: string): number {
  const line = messages.split('\n').find((text) => text.trimStart().startsWith(name));
  return Number(line?.match(/[\d,]+/)?.[0].replaceAll(',', '') ?? Number.NaN);
}
