/**
 * The command line: commander splits it, zod makes values of it, and what comes out is a closed
 * union of commands. It reads no file and starts nothing; `command.ts` does what it says.
 */
import { Command as Commander, CommanderError } from 'commander';
import { z } from 'zod';
import { GIB, KIB, MIB } from '../base/index.ts';
import { type OnReset, TRACE_CHANNELS, type TraceChannel } from '../vmm/machine-options.ts';
import { CliError } from './cli-error.ts';

/** What `run` and `demo` share. */
export interface GuestOptions {
  readonly ramBytes: number;
  readonly cpuCount: number;
  readonly mte: boolean;
  readonly seed: number;
  readonly realtime: boolean;
  readonly trace: ReadonlySet<TraceChannel>;
}

export interface RunOptions extends GuestOptions {
  readonly kernel: string;
  readonly initrd: string | undefined;
  readonly append: string;
  readonly onReset: OnReset;
  readonly dtbDump: string | undefined;
}

export interface DemoOptions extends GuestOptions {
  /** Run the guest that needs no download. */
  readonly embedded: boolean;
}

export type CliCommand =
  | { readonly kind: 'run'; readonly options: RunOptions }
  | { readonly kind: 'demo'; readonly options: DemoOptions }
  | { readonly kind: 'text'; readonly text: string };

const SIZE_UNITS: Readonly<Record<string, number>> = { '': MIB, K: KIB, M: MIB, G: GIB };

/** A size in bytes: `512M`, `1G`, `65536K`; a bare number counts MiB, as with QEMU's -m. */
const size = z.string().transform((text, context) => {
  const match = /^(\d{1,9})([KMG]?)(?:iB)?$/i.exec(text);
  if (match === null) {
    context.addIssue(`-m ${text}: not a size like 512M or 1G`);
    return z.NEVER;
  }
  return Number(match[1]) * SIZE_UNITS[match[2]!.toUpperCase()]!;
});

const wholeNumber = (option: string, min: number, max: number) =>
  z.string().transform((text, context) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= min && value <= max)) {
      context.addIssue(`${option} ${text}: not a whole number from ${min} to ${max}`);
      return z.NEVER;
    }
    return value;
  });

const oneOf = <const T extends readonly string[]>(option: string, choices: T) =>
  z.enum(choices, {
    error: ({ input }) => `${option} ${String(input)}: not one of ${choices.join(', ')}`,
  });

const trace = z.string().transform((text, context): ReadonlySet<TraceChannel> => {
  const channel = oneOf('--trace', TRACE_CHANNELS);
  const channels = new Set<TraceChannel>();
  for (const word of text.split(',')) {
    const parsed = channel.safeParse(word);
    if (parsed.success) channels.add(parsed.data);
    else context.addIssue(parsed.error.issues[0]!.message);
  }
  return channels;
});

const path = (option: string) => z.string().min(1, `${option}: the file name is empty`);

const guestShape = {
  m: size,
  smp: wholeNumber('--smp', 1, 8),
  mte: oneOf('--mte', ['on', 'off']),
  seed: wholeNumber('--seed', 0, 2 ** 32 - 1),
  realtime: z.boolean().default(false),
  trace: trace.optional(),
};

const RunSchema = z.object({
  ...guestShape,
  kernel: path('--kernel'),
  initrd: path('--initrd').optional(),
  append: z.string(),
  onReset: oneOf('--on-reset', ['reboot', 'exit']),
  dtbDump: path('--dtb-dump').optional(),
});

const DemoSchema = z.object({ ...guestShape, embedded: z.boolean().default(false) });

/** What `args` (without node and script) ask for; throws `CliError`. */
export function parseCommandLine(args: readonly string[], version: string): CliCommand {
  let command: CliCommand | undefined;
  let text = '';
  const program = new Commander('granule')
    .description('arm64 virtualization with memory tagging: runs a guest on a KVM in TypeScript')
    .version(version)
    .exitOverride()
    .configureOutput({ writeOut: (part) => (text += part), writeErr: () => {} });

  guestOptions(program.command('run').description('boot a kernel: an arm64 Image or an ELF'))
    .requiredOption('--kernel <file>', 'Image (raw, gzip or EFI zboot) or ELF')
    .option('--initrd <file>', 'initial RAM disk')
    .option('--append <string>', 'kernel command line', '')
    .option('--on-reset <action>', 'when the guest resets: reboot or exit', 'reboot')
    .option('--dtb-dump <file>', 'write the device tree there too')
    .action((raw) => {
      command = { kind: 'run', options: runOptions(check(RunSchema, raw)) };
    });
  guestOptions(program.command('demo').description("boot Debian's kernel and test MTE inside it"))
    .option('--embedded', 'run the built-in bare-metal guest instead: no download')
    .action((raw) => {
      const parsed = check(DemoSchema, raw);
      command = { kind: 'demo', options: { ...common(parsed), embedded: parsed.embedded } };
    });

  try {
    program.parse([...args], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return { kind: 'text', text };
    throw new CliError(sentenceOf(error));
  }
  return command ?? { kind: 'text', text: program.helpInformation() };
}

function guestOptions(command: Commander): Commander {
  return command
    .option('-m <size>', 'guest memory: 512M, 1G', '512M')
    .option('--smp <n>', 'CPUs, 1 to 8', '1')
    .option('--mte <on|off>', 'give the guest the Memory Tagging Extension', 'on')
    .option('--seed <n>', 'seed of everything random: the same seed, the same run', '1')
    .option('--realtime', 'follow the wall clock instead of counting instructions')
    .option('--trace <list>', `show what happens: ${TRACE_CHANNELS.join(',')}`)
    .allowExcessArguments(false);
}

function check<T extends z.ZodType>(schema: T, raw: unknown): z.output<T> {
  const parsed = schema.safeParse(raw);
  if (!parsed.success) throw new CliError(parsed.error.issues[0]!.message);
  return parsed.data;
}

function common(parsed: z.output<typeof DemoSchema> | z.output<typeof RunSchema>): GuestOptions {
  return {
    ramBytes: parsed.m,
    cpuCount: parsed.smp,
    mte: parsed.mte === 'on',
    seed: parsed.seed,
    realtime: parsed.realtime,
    trace: parsed.trace ?? new Set(),
  };
}

function runOptions(parsed: z.output<typeof RunSchema>): RunOptions {
  return {
    ...common(parsed),
    kernel: parsed.kernel,
    initrd: parsed.initrd,
    append: parsed.append,
    onReset: parsed.onReset,
    dtbDump: parsed.dtbDump,
  };
}

/** Commander's message on one line; without a command it has only its help to show. */
function sentenceOf(error: CommanderError): string {
  if (error.code === 'commander.help') return 'no command given; granule --help lists them';
  return error.message.replace(/^error: /, '').replace(/\s*\n\s*/g, ' ');
}
