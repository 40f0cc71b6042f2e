/**
 * The command line: commander splits it, zod makes values of it, and what comes out is a closed
 * union of commands. It reads no file and starts nothing; `command.ts` does what it says.
 */
import { Command as Commander, CommanderError } from 'commander';
import { z } from 'zod';
import { MIB } from '../base/index.ts';
import { type KvmPolicy, KvmPolicyError, parseKvmPolicy } from '../kvm/index.ts';
import {
  GUEST_MEMORY_BACKINGS,
  type GuestMemoryBacking,
  type OnReset,
  RESTORE_MODES,
  type RestoreMode,
  TRACE_CHANNELS,
  type TraceChannel,
} from '../vmm/machine-options.ts';
import type { TcpAddress } from '../vmm/migration/address.ts';
import { CliError } from './cli-error.ts';
import {
  type CtlOptions,
  controlCommands,
  type MigrateOptions,
  tlsOptions,
} from './control-options.ts';
import { address, check, oneOf, path, size, wholeNumber } from './option-values.ts';
import { type SnapshotOptions, snapshotCommand } from './snapshot.ts';

/** What `run` and `demo` share. */
export interface GuestOptions {
  readonly ramBytes: number;
  readonly cpuCount: number;
  readonly mte: boolean;
  readonly seed: number;
  readonly realtime: boolean;
  readonly trace: ReadonlySet<TraceChannel>;
  readonly policy: KvmPolicy;
}

/** Boots a kernel, waits for a guest (and reboots with the kernel), or goes on from a file. */
export interface RunOptions extends GuestOptions {
  readonly kernel: string | undefined;
  readonly initrd: string | undefined;
  readonly append: string;
  readonly onReset: OnReset;
  readonly dtbDump: string | undefined;
  readonly memory: GuestMemoryBacking;
  /** Path of the control socket. */
  readonly monitor: string | undefined;
  readonly incoming: TcpAddress | undefined;
  readonly tlsPsk: string | undefined;
  readonly tlsCertificates: string | undefined;
  /** A snapshot's file. */
  readonly restore: string | undefined;
  /** What of the machine the command line names itself: a snapshot must agree with it. */
  readonly asked: ReadonlySet<MachineOption>;
  readonly restoreMode: RestoreMode;
}

/** What a machine is, by the options that say so. */
export const machineOptions = {
  ramBytes: '-m',
  cpuCount: '--smp',
  mte: '--mte',
  seed: '--seed',
  policy: '--policy',
} as const satisfies Partial<Record<keyof GuestOptions, string>>;
export type MachineOption = keyof typeof machineOptions;

export interface DemoOptions extends GuestOptions {
  /** Run the guest that needs no download. */
  readonly embedded: boolean;
}

export type CliCommand =
  | { readonly kind: 'run'; readonly options: RunOptions }
  | { readonly kind: 'demo'; readonly options: DemoOptions }
  | { readonly kind: 'ctl'; readonly options: CtlOptions }
  | { readonly kind: 'migrate'; readonly options: MigrateOptions }
  | { readonly kind: 'snapshot'; readonly options: SnapshotOptions }
  | { readonly kind: 'text'; readonly text: string };

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

const policy = z.string().transform((text, context): KvmPolicy => {
  try {
    return parseKvmPolicy(text);
  } catch (error) {
    if (!(error instanceof KvmPolicyError)) throw error;
    context.addIssue(`--policy: ${error.message}`);
    return z.NEVER;
  }
});

const guestShape = {
  m: size('-m', MIB),
  smp: wholeNumber('--smp', 1, 8),
  mte: oneOf('--mte', ['on', 'off']),
  seed: wholeNumber('--seed', 0, 2 ** 32 - 1),
  realtime: z.boolean().default(false),
  trace: trace.optional(),
  policy: policy.prefault(''),
};

const RunSchema = z
  .object({
    ...guestShape,
    kernel: path('--kernel').optional(),
    initrd: path('--initrd').optional(),
    append: z.string(),
    onReset: oneOf('--on-reset', ['reboot', 'exit']),
    dtbDump: path('--dtb-dump').optional(),
    memory: oneOf('--memory', GUEST_MEMORY_BACKINGS),
    monitor: path('--monitor').optional(),
    incoming: address('--incoming').optional(),
    tlsPsk: path('--tls-psk').optional(),
    tlsCertificates: path('--tls-certificates').optional(),
    restore: path('--restore').optional(),
    restoreMode: oneOf('--restore-mode', RESTORE_MODES),
  })
  .superRefine((given, context) => {
    const sentence = contradiction(given);
    if (sentence !== undefined) context.addIssue(sentence);
  });

/** What means nothing without a kernel. */
const bootFiles = { initrd: '--initrd', append: '--append', dtbDump: '--dtb-dump' } as const;

/** What cannot be asked for together. */
function contradiction(
  given: {
    readonly [K in keyof typeof bootFiles | 'kernel' | 'restore' | 'tlsPsk' | 'tlsCertificates']?:
      | string
      | undefined;
  } & { readonly incoming?: TcpAddress | undefined },
): string | undefined {
  const { kernel, incoming, restore, tlsPsk, tlsCertificates } = given;
  if (kernel === undefined && incoming === undefined && restore === undefined) {
    return 'run: --kernel FILE, --incoming ADDRESS or --restore FILE is needed';
  }
  if (restore !== undefined && incoming !== undefined) {
    return 'run: --restore and --incoming exclude each other';
  }
  for (const [name, option] of Object.entries(bootFiles)) {
    const value = given[name as keyof typeof bootFiles];
    if (kernel === undefined && value !== undefined && value !== '') {
      return `run: ${option} goes only with --kernel`;
    }
  }
  if (tlsPsk !== undefined && tlsCertificates !== undefined) {
    return '--tls-psk and --tls-certificates exclude each other';
  }
  return undefined;
}

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

  tlsOptions(
    guestOptions(program.command('run').description('boot a kernel, or go on with a guest')),
  )
    .option(
      '--kernel <file>',
      'boot it, now or at a reset: an Image (raw, gzip, EFI zboot) or an ELF',
    )
    .option('--initrd <file>', 'initial RAM disk')
    .option('--append <string>', 'kernel command line', '')
    .option('--on-reset <action>', 'when the guest resets: reboot or exit', 'reboot')
    .option('--dtb-dump <file>', 'write the device tree there too')
    .option('--memory <kind>', 'guest memory: anonymous, or memfd, mapped twice', 'anonymous')
    .option('--monitor <socket>', 'make a control socket; see granule ctl')
    .option('--incoming <address>', 'wait for a guest: tcp:HOST:PORT; see granule migrate')
    .option('--restore <file>', 'go on from a snapshot')
    .option('--restore-mode <mode>', 'lazy: memory when it is touched; eager: first all', 'lazy')
    .action((raw, run: Commander) => {
      command = { kind: 'run', options: runOptions(check(RunSchema, raw), askedOf(run)) };
    });
  guestOptions(program.command('demo').description("boot Debian's kernel and test MTE inside it"))
    .option('--embedded', 'run the built-in bare-metal guest instead: no download')
    .action((raw) => {
      const parsed = check(DemoSchema, raw);
      command = { kind: 'demo', options: { ...common(parsed), embedded: parsed.embedded } };
    });
  controlCommands(program, {
    ctl: (options) => {
      command = { kind: 'ctl', options };
    },
    migrate: (options) => {
      command = { kind: 'migrate', options };
    },
  });
  snapshotCommand(program, (options) => {
    command = { kind: 'snapshot', options };
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
    .option(
      '--policy <list>',
      'how KVM behaves where designs differ: tagging=…,untaggable=…,linux=…',
    )
    .option('--trace <list>', `show what happens: ${TRACE_CHANNELS.join(',')}`)
    .allowExcessArguments(false);
}

function common(parsed: z.output<typeof DemoSchema> | z.output<typeof RunSchema>): GuestOptions {
  return {
    ramBytes: parsed.m,
    cpuCount: parsed.smp,
    mte: parsed.mte === 'on',
    seed: parsed.seed,
    realtime: parsed.realtime,
    trace: parsed.trace ?? new Set(),
    policy: parsed.policy,
  };
}

/** The options of a machine that stand on the command line; commander knows them without dashes. */
function askedOf(command: Commander): ReadonlySet<MachineOption> {
  const names = Object.keys(machineOptions) as MachineOption[];
  const isAsked = (name: MachineOption): boolean =>
    command.getOptionValueSource(machineOptions[name].replace(/^-+/, '')) === 'cli';
  return new Set(names.filter(isAsked));
}

function runOptions(
  parsed: z.output<typeof RunSchema>,
  asked: ReadonlySet<MachineOption>,
): RunOptions {
  return {
    asked,
    ...common(parsed),
    kernel: parsed.kernel,
    initrd: parsed.initrd,
    append: parsed.append,
    onReset: parsed.onReset,
    dtbDump: parsed.dtbDump,
    memory: parsed.memory,
    monitor: parsed.monitor,
    incoming: parsed.incoming,
    tlsPsk: parsed.tlsPsk,
    tlsCertificates: parsed.tlsCertificates,
    restore: parsed.restore,
    restoreMode: parsed.restoreMode,
  };
}

/** Commander's message on one line; without a command it has only its help to show. */
function sentenceOf(error: CommanderError): string {
  if (error.code === 'commander.help') return 'no command given; granule --help lists them';
  return error.message.replace(/^error: /, '').replace(/\s*\n\s*/g, ' ');
}
