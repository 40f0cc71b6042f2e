/**
 * The commands of the control socket: what each takes, checked, and what it does to the machine's
 * session. Names, arguments and answers are QMP's where QMP has the command.
 */
import { z } from 'zod';
import { parseAddress } from '../migration/address.ts';
import { MigrationError } from '../migration/migration-error.ts';
import { TAG_POLICIES } from '../migration/tag-policies.ts';
import { readCertificates, readPsk, type TlsCredentials } from '../migration/tls.ts';
import { SnapshotError } from '../snapshot/snapshot-error.ts';
import type { MachineSession } from './machine-session.ts';
import { migrationReport } from './migration-report.ts';
import { MonitorError } from './monitor-error.ts';

/** What a command answers: the value of `return`. */
export type Answer = Readonly<Record<string, unknown>>;

interface Command {
  readonly arguments: z.ZodType;
  /** Whether all of the guest must be here, and known to be sound: waits for the latter. */
  readonly needsGuest: boolean;
  readonly run: (session: MachineSession, given: never) => Answer | Promise<Answer>;
}

const none = z.strictObject({});
const file = z.string().min(1).max(4096);

const MigrateSchema = z.strictObject({
  uri: z.string(),
  mode: z.enum(['precopy', 'postcopy']).default('precopy'),
  /** Milliseconds. */
  'downtime-limit': z.number().min(0).max(600_000).default(300),
  /** Bytes a second. */
  'max-bandwidth': z.int().min(1).optional(),
  /** Holds a guest back that writes faster than pre-copy sends. */
  'auto-converge': z.boolean().default(false),
  /** Rounds of pre-copy after which the rest of memory follows the guest. */
  'postcopy-after': z.int().min(1).max(1_000_000).optional(),
  tags: z.enum(TAG_POLICIES).default('ioctl'),
  /** Pages that one KVM_ARM_MTE_COPY_TAGS copies at most. */
  'tag-pages': z.int().min(1).max(4096).optional(),
  'tls-psk': file.optional(),
  'tls-certificates': file.optional(),
});

const command = <T extends z.ZodType>(
  schema: T,
  run: (session: MachineSession, given: z.output<T>) => Answer | Promise<Answer>,
): Command => ({ arguments: schema, needsGuest: false, run });

/** A command about all of the guest. */
const guestCommand: typeof command = (schema, run) => ({
  ...command(schema, run),
  needsGuest: true,
});

/** What a command answers that has nothing to tell. */
const DONE: Answer = {};

const commands: Readonly<Record<string, Command>> = {
  qmp_capabilities: command(z.looseObject({}), () => DONE),
  'query-commands': command(none, () => ({
    commands: Object.keys(commands).map((name) => ({ name })),
  })),
  'query-status': command(none, ({ control }) => ({
    status: control.state,
    running: control.state === 'running',
  })),
  stop: command(none, ({ control }) => {
    control.paused = true;
    return DONE;
  }),
  cont: command(z.strictObject({ force: z.boolean().default(false) }), (session, { force }) => {
    const answer = force ? forceHere(session) : refuseUnsettled(session);
    session.control.paused = false;
    return answer;
  }),
  quit: command(none, ({ control }) => {
    control.leave('quit');
    return DONE;
  }),
  system_reset: guestCommand(none, (session) => {
    if (!session.machine.canBoot) {
      throw new MonitorError('GenericError', 'the machine has nothing to boot: it came without');
    }
    session.machine.reset();
    session.control.reset();
    return DONE;
  }),
  'snapshot-save': guestCommand(
    z.strictObject({ file, compress: z.enum(['lz4', 'none']).optional() }),
    async (session, { file: path, compress }) => {
      requireNoMigration(session);
      const options = compress === undefined ? {} : { compress };
      return { bytes: await session.saveSnapshot(path, options) };
    },
  ),
  migrate: guestCommand(MigrateSchema, (session, given) => {
    requireNoMigration(session);
    const tls = credentialsOf(given);
    const pagesPerCall = given['tag-pages'];
    const bandwidthMax = given['max-bandwidth'];
    const postCopyAfterRounds = given['postcopy-after'];
    session.migrate({
      to: parseAddress(given.uri),
      mode: given.mode,
      tags: { policy: given.tags, ...(pagesPerCall === undefined ? {} : { pagesPerCall }) },
      downtimeLimitMs: given['downtime-limit'],
      autoConverge: given['auto-converge'],
      ...(tls === undefined ? {} : { tls }),
      ...(bandwidthMax === undefined ? {} : { bandwidthMax }),
      ...(postCopyAfterRounds === undefined ? {} : { postCopyAfterRounds }),
    });
    return DONE;
  }),
  migrate_cancel: command(none, (session) => cancelMigration(session)),
  'migrate-cancel': command(none, (session) => cancelMigration(session)),
  'migrate-start-postcopy': command(none, ({ outgoing }) => {
    if (outgoing?.startPostCopy() !== true) {
      throw new MonitorError('GenericError', 'no pre-copy goes on');
    }
    return DONE;
  }),
  'migrate-recover': command(none, ({ outgoing }) => {
    if (outgoing?.phase.kind !== 'recovering') {
      throw new MonitorError('GenericError', 'no migration waits for its link');
    }
    outgoing.recover();
    return DONE;
  }),
  'query-migrate': command(none, (session) => migrationReport(session)),
};

/** Runs a command; throws `MonitorError`, or rejects with it what takes its time. */
export function runCommand(
  session: MachineSession,
  name: string,
  given: unknown,
): Answer | Promise<Answer> {
  const found = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (found === undefined) {
    throw new MonitorError('CommandNotFound', `The command ${name} has not been found`);
  }
  const parsed = found.arguments.safeParse(given ?? {});
  if (!parsed.success) throw new MonitorError('GenericError', argumentSentence(parsed.error));
  const run = (): Answer | Promise<Answer> => {
    if (found.needsGuest) requireWhole(session);
    return found.run(session, parsed.data as never);
  };
  try {
    const mustWait = found.needsGuest && session.control.isWithheld;
    const answer = mustWait ? session.control.untilShown().then(run) : run();
    return answer instanceof Promise ? answer.catch(failed) : answer;
  } catch (error) {
    return failed(error);
  }
}

function failed(error: unknown): never {
  if (error instanceof MigrationError || error instanceof SnapshotError) {
    throw new MonitorError('GenericError', error.message);
  }
  throw error;
}

function argumentSentence({ issues: [issue] }: z.ZodError): string {
  const where = issue?.path.join('.') ?? '';
  const what = issue?.message ?? 'invalid';
  return where === '' ? `arguments: ${what}` : `argument ${where}: ${what}`;
}

function requireWhole({ control, isWhole, isSaving }: MachineSession): void {
  // Waited for in vain: the run is ending.
  if (control.isWithheld) throw new MonitorError('GenericError', 'the snapshot is not sound');
  if (!isWhole) throw new MonitorError('GenericError', 'the guest is not all here');
  if (isSaving) throw new MonitorError('GenericError', 'the guest is being saved');
}

function requireNoMigration({ isMigrating }: MachineSession): void {
  if (isMigrating) throw new MonitorError('GenericError', 'a migration goes on already');
}

/** Throws where only the other side, or a person, can know whether the guest may run here. */
function refuseUnsettled({ control, outgoing, incoming }: MachineSession): Answer {
  if (control.state === 'postmigrate-paused' && incoming !== undefined) {
    throw new MonitorError(
      'GenericError',
      'the guest stands still until the source is back: a part of its memory is still there',
    );
  }
  if (control.state === 'postmigrate') {
    throw new MonitorError('GenericError', 'the guest runs elsewhere: it cannot go on here');
  }
  if (outgoing?.phase.kind === 'recovering') {
    throw new MonitorError(
      'GenericError',
      'the guest was handed over and the destination has not said whether it runs there: ' +
        'migrate-recover asks again, migrate-cancel asks for it back; if the destination is gone ' +
        'for good, cont force=true',
    );
  }
  if (incoming?.phase.kind === 'prepared') {
    throw new MonitorError(
      'GenericError',
      'the guest is all here and the source has not given it up: it may run there; if the source ' +
        'is gone for good, cont force=true',
    );
  }
  return DONE;
}

/** Lets a guest go on here on somebody's word that it does not run on the other side. */
function forceHere({ outgoing, incoming }: MachineSession): Answer {
  if (outgoing?.force() !== true && incoming?.force() !== true) {
    throw new MonitorError(
      'GenericError',
      'there is nothing to force: the guest is not all here, the other side answers, or no ' +
        'handover was broken off',
    );
  }
  return {
    warning: 'the guest goes on here: see to it that it never runs on the other side, too',
  };
}

function cancelMigration({ outgoing, isMigrating }: MachineSession): Answer {
  if (outgoing === undefined || !isMigrating) return DONE;
  if (outgoing.cancel()) return DONE;
  const lost = outgoing.phase.kind === 'recovering';
  throw new MonitorError(
    'GenericError',
    'the guest runs at the destination: too late to cancel' +
      (lost ? '; if the destination is gone for good, cont force=true' : ''),
  );
}

function credentialsOf(given: z.output<typeof MigrateSchema>): TlsCredentials | undefined {
  const { 'tls-psk': psk, 'tls-certificates': folder } = given;
  if (psk !== undefined && folder !== undefined) {
    throw new MonitorError('GenericError', 'tls-psk and tls-certificates exclude each other');
  }
  if (psk !== undefined) return readPsk(psk);
  return folder === undefined ? undefined : readCertificates(folder, 'client');
}
