/**
 * `granule migrate`: starts a migration through the control socket of the machine that has the
 * guest, shows how it goes, and says how it went. Ctrl-C cancels it.
 */
import { resolve } from 'node:path';
import { z } from 'zod';
import { KIB, MIB } from '../base/index.ts';
import { MachineError } from '../vmm/machine-error.ts';
import { MonitorClient } from '../vmm/monitor/client.ts';
import type { ConsoleHost } from './console.ts';
import type { MigrateOptions } from './control-options.ts';

/** Between looks at how far it is. */
const LOOK_MS = 250;

/** What of `query-migrate` is shown. */
const ReportSchema = z.looseObject({
  status: z.string(),
  'total-time': z.number().optional(),
  downtime: z.number().optional(),
  'expected-downtime': z.number().optional(),
  'downtime-limit': z.number().optional(),
  'cpu-throttle-percentage': z.number().optional(),
  'error-desc': z.string().optional(),
  ram: z
    .looseObject({
      total: z.number(),
      transferred: z.number(),
      remaining: z.number(),
      duplicate: z.number(),
      normal: z.number(),
      'dirty-sync-count': z.number(),
      'dirty-pages-rate': z.number(),
      mbps: z.number(),
      'page-size': z.number(),
      'postcopy-requests': z.number(),
      'sent-again': z.number(),
    })
    .optional(),
  tags: z.looseObject({ calls: z.number(), time: z.number(), transferred: z.number() }).optional(),
});
type Report = z.output<typeof ReportSchema>;

const ENDED = ['completed', 'failed', 'cancelled'];

/** Runs the command; resolves to the exit status: 0 where the guest has moved. */
export async function migrateCommand(options: MigrateOptions, host: ConsoleHost): Promise<number> {
  const client = await MonitorClient.connect(options.socket);
  const display = new ProgressDisplay(host.stderr);
  const ended = new Promise<Report>((resolveEnd) => {
    client.onEvent = ({ event, data }) => {
      if (event !== 'MIGRATION' || !ENDED.includes(String(data.status))) return;
      resolveEnd(ReportSchema.parse(data.report));
    };
  });
  const cancel = (): void => void client.execute('migrate-cancel').catch(() => {});
  host.events.on('SIGINT', cancel);
  try {
    await client.execute('migrate', argumentsOf(options));
    for (;;) {
      const report = await Promise.race([ended, client.closed, pause(LOOK_MS)]);
      if (typeof report === 'object') return summary(report, display);
      if (report === undefined)
        throw new MachineError('the machine ended before the migration did');
      const now = await look(client);
      if (now !== undefined && !ENDED.includes(now.status)) display.show(now);
    }
  } finally {
    host.events.removeListener('SIGINT', cancel);
    display.end();
    client.close();
  }
}

/** How far it is; undefined where the machine is about to go and has said so or will have. */
async function look(client: MonitorClient): Promise<Report | undefined> {
  try {
    return ReportSchema.parse(await client.execute('query-migrate'));
  } catch (error) {
    if (error instanceof MachineError) return undefined;
    throw error;
  }
}

/** The machine may have another working directory: file names are made absolute here. */
function argumentsOf(options: MigrateOptions): object {
  const { bandwidthMax, postCopyAfter, tagPages, tlsPsk, tlsCertificates } = options;
  return {
    uri: options.uri,
    mode: options.mode,
    'downtime-limit': options.downtimeLimitMs,
    'auto-converge': options.autoConverge,
    tags: options.tags,
    ...(postCopyAfter === undefined ? {} : { 'postcopy-after': postCopyAfter }),
    ...(bandwidthMax === undefined ? {} : { 'max-bandwidth': bandwidthMax }),
    ...(tagPages === undefined ? {} : { 'tag-pages': tagPages }),
    ...(tlsPsk === undefined ? {} : { 'tls-psk': resolve(tlsPsk) }),
    ...(tlsCertificates === undefined ? {} : { 'tls-certificates': resolve(tlsCertificates) }),
  };
}

const pause = (ms: number): Promise<'look'> =>
  new Promise((wake) => setTimeout(() => wake('look'), ms).unref());

/** Prints how it went; the exit status. */
function summary(report: Report, display: ProgressDisplay): number {
  const { status, ram, tags } = report;
  if (status !== 'completed') {
    const why = report['error-desc'];
    display.line(`granule: migration ${status}${why === undefined ? '' : `: ${why}`}`);
    return 1;
  }
  display.line('granule: the guest has moved');
  const rows: [string, string][] = [
    ['total time', milliseconds(report['total-time'])],
    ['downtime', milliseconds(report.downtime)],
    ['memory', ram === undefined ? '' : `${mib(ram.total)} in ${mib(ram.transferred)} sent`],
    ['rounds', String(ram?.['dirty-sync-count'] ?? 0)],
    ['pages', `${ram?.normal ?? 0} with data, ${ram?.duplicate ?? 0} zero`],
    ['pages sent again', String(ram?.['sent-again'] ?? 0)],
    ['pages asked for', String(ram?.['postcopy-requests'] ?? 0)],
    [
      'tags',
      `${tags?.calls ?? 0} calls, ${milliseconds(tags?.time)}, ${kib(tags?.transferred ?? 0)}`,
    ],
  ];
  for (const [name, value] of rows) display.line(`  ${name.padEnd(20)}${value}`);
  return 0;
}

const milliseconds = (value: number | undefined): string =>
  value === undefined ? 'unknown' : `${Math.round(value)} ms`;

const mib = (bytes: number): string => `${(bytes / MIB).toFixed(1)} MiB`;

/** Of tags: they are few. */
const kib = (bytes: number): string =>
  bytes < MIB ? `${(bytes / KIB).toFixed(1)} KiB` : mib(bytes);

/** One line that is written over on a terminal; elsewhere one a round and tenth of memory. */
class ProgressDisplay {
  readonly #stream: NodeJS.WritableStream;
  readonly #rewrites: boolean;
  #shown = '';
  #width = 0;

  constructor(stream: NodeJS.WritableStream) {
    this.#stream = stream;
    this.#rewrites = 'isTTY' in stream && stream.isTTY === true;
  }

  show(report: Report): void {
    const { status, ram } = report;
    const round = ram?.['dirty-sync-count'] ?? 0;
    const tenths = ram === undefined ? 0 : Math.ceil((10 * ram.remaining) / ram.total);
    const key = `${status} ${round} ${tenths}`;
    if (!this.#rewrites && key === this.#shown) return;
    this.#shown = key;
    const text = progressText(report);
    if (!this.#rewrites) {
      this.#stream.write(`${text}\n`);
      return;
    }
    this.#stream.write(`\r${text.padEnd(this.#width)}`);
    this.#width = text.length;
  }

  /** A line of its own. */
  line(text: string): void {
    this.end();
    this.#stream.write(`${text}\n`);
  }

  /** Leaves the line that is written over. */
  end(): void {
    if (this.#width > 0) this.#stream.write('\n');
    this.#width = 0;
  }
}

/** What is not known yet, rates before the first round has ended, is left out. */
function progressText(report: Report): string {
  const { status, ram, tags } = report;
  if (ram === undefined || ram.transferred === 0) return `granule: ${status}`;
  const pages = (ram.normal + ram.duplicate).toLocaleString('en-US');
  const rounds = ram['dirty-sync-count'];
  const throttle = report['cpu-throttle-percentage'];
  return [
    `granule: ${status}`,
    ...(rounds === 0 ? [] : [`round ${rounds}`]),
    `${pages} pages and ${kib(tags?.transferred ?? 0)} of tags in ${mib(ram.transferred)} sent`,
    `${mib(ram.remaining)} left`,
    ...(ram.mbps === 0
      ? []
      : [
          `${mib((ram.mbps * 1e6) / 8)}/s`,
          `dirty ${mib(ram['dirty-pages-rate'] * ram['page-size'])}/s`,
        ]),
    downtimeText(report),
    ...(throttle === undefined ? [] : [`guest held back ${throttle} %`]),
  ].join(', ');
}

/** What it was, once the guest has moved; before, what is expected. */
function downtimeText(report: Report): string {
  const { downtime } = report;
  return downtime === undefined
    ? `expected downtime ${expectedText(report)}`
    : `downtime ${milliseconds(downtime)}`;
}

/** With the limit while that is exceeded: why the rounds go on. */
function expectedText(report: Report): string {
  const { 'expected-downtime': expected, 'downtime-limit': limit } = report;
  if (expected === undefined) return 'unknown';
  const text = `${Math.round(expected)} ms`;
  return limit !== undefined && expected > limit ? `${text} above the limit of ${limit}` : text;
}
