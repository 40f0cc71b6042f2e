/**
 * The commands that talk to a machine that runs: `ctl` and `migrate`. What they take from the
 * command line, as values; `ctl.ts` and `migrate.ts` do it.
 */
import type { Command as Commander } from 'commander';
import { z } from 'zod';
import { TAG_POLICIES, type TagPolicy } from '../vmm/migration/tag-policies.ts';
import { check, duration, oneOf, path, size, wholeNumber } from './option-values.ts';

export interface CtlOptions {
  readonly socket: string;
  /** A command of the control socket, or `events` to watch. */
  readonly command: string;
  readonly arguments: Readonly<Record<string, unknown>>;
}

export interface MigrateOptions {
  readonly socket: string;
  readonly uri: string;
  readonly mode: 'precopy' | 'postcopy';
  readonly downtimeLimitMs: number;
  /** Bytes a second. */
  readonly bandwidthMax: number | undefined;
  readonly autoConverge: boolean;
  /** Rounds of pre-copy. */
  readonly postCopyAfter: number | undefined;
  readonly tags: TagPolicy;
  readonly tagPages: number | undefined;
  readonly tlsPsk: string | undefined;
  readonly tlsCertificates: string | undefined;
}

export const SocketName = path('<socket>');

const MigrateSchema = z.object({
  mode: oneOf('--mode', ['precopy', 'postcopy']),
  downtimeLimit: duration('--downtime-limit', 600_000),
  maxBandwidth: size('--max-bandwidth', 1).optional(),
  autoConverge: z.boolean().default(false),
  postcopyAfter: wholeNumber('--postcopy-after', 1, 1_000_000).optional(),
  tags: oneOf('--tags', TAG_POLICIES),
  tagPages: wholeNumber('--tag-pages', 1, 4096).optional(),
  tlsPsk: path('--tls-psk').optional(),
  tlsCertificates: path('--tls-certificates').optional(),
});

/** `key=value` … as an object: a value that is JSON is that, any other a string. */
const CtlArguments = z.array(z.string()).transform((words, context) => {
  const given: Record<string, unknown> = {};
  for (const word of words) {
    const at = word.indexOf('=');
    if (at < 1) {
      context.addIssue(`${word}: not an argument like key=value`);
      return z.NEVER;
    }
    given[word.slice(0, at)] = jsonOrText(word.slice(at + 1));
  }
  return given;
});

function jsonOrText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Adds the commands to `program`; the one that is given is told to `found`. */
export function controlCommands(
  program: Commander,
  found: {
    readonly ctl: (options: CtlOptions) => void;
    readonly migrate: (options: MigrateOptions) => void;
  },
): void {
  program
    .command('ctl')
    .description('ask a running machine, or tell it what to do')
    .argument('<socket>', 'control socket of the machine: run --monitor')
    .argument('<command>', 'query-commands lists them; events: watch what happens')
    .argument('[key=value...]', 'arguments of the command')
    .action((socket: string, command: string, words: string[]) => {
      check(SocketName, socket);
      found.ctl({ socket, command, arguments: check(CtlArguments, words) });
    });
  tlsOptions(program.command('migrate'))
    .description('move a running guest to a machine that waits for it: run --incoming')
    .argument('<socket>', 'control socket of the machine: run --monitor')
    .argument('<address>', 'where the other one waits: tcp:HOST:PORT')
    .option('--mode <mode>', 'precopy, or postcopy: the guest first, then its memory', 'precopy')
    .option('--downtime-limit <time>', 'longest standstill at the end of pre-copy', '300ms')
    .option('--max-bandwidth <bytes>', 'bytes a second while the guest runs: 100M')
    .option('--auto-converge', 'hold a guest back that writes faster than it is sent')
    .option('--postcopy-after <rounds>', 'rounds of pre-copy after which memory follows the guest')
    .option('--tags <way>', `how tags are read: ${TAG_POLICIES.join(', ')}`, 'ioctl')
    .option('--tag-pages <n>', 'pages that one KVM_ARM_MTE_COPY_TAGS copies at most')
    .action((socket: string, uri: string, raw: unknown) => {
      check(SocketName, socket);
      const { downtimeLimit, maxBandwidth, ...rest } = check(MigrateSchema, raw);
      found.migrate({
        socket,
        uri,
        downtimeLimitMs: downtimeLimit,
        bandwidthMax: maxBandwidth,
        mode: rest.mode,
        autoConverge: rest.autoConverge,
        postCopyAfter: rest.postcopyAfter,
        tags: rest.tags,
        tagPages: rest.tagPages,
        tlsPsk: rest.tlsPsk,
        tlsCertificates: rest.tlsCertificates,
      });
    });
}

/** How the peer of a migration is known; both ends take the same. */
export function tlsOptions(command: Commander): Commander {
  return command
    .option('--tls-psk <file>', 'TLS with the pre-shared key in a file of identity:key')
    .option('--tls-certificates <folder>', 'TLS with certificates: ca-cert.pem and so on');
}
