/**
 * The commands of the control socket: what each takes, checked, and what it does to the machine's
 * session. Names, arguments and answers are QMP's where QMP has the command.
 */
import { z } from 'zod';
import { parseAddress } from '../migration/address.ts';
import { MigrationError } from '../migration/migration-error.ts';
import { TAG_POLICIES } from '../migration/tag-policies.ts';
import { readCertificates, readPsk, type TlsCredentials } from '../migration/tls.ts';
import { saveSnapshot } from '../snapshot/save.ts';
import { SnapshotError } from '../snapshot/snapshot-error.ts';
import type { MachineSession } from './machine-session.ts';
import { migrationReport } from './migration-report.ts';
import { MonitorError } from './monitor-error.ts';

/** What a command answers: the value of `return`. */
export type Answer = Readonly<Record<string, unknown>>;

interface Command {
  readonly arguments: z.ZodType;
  readonly run: (session: MachineSession, given: never) => Answer;
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
  tags: z.enum(TAG_POLICIES).default('ioctl'),
  /** Pages that one KVM_ARM_MTE_COPY_TAGS copies at most. */
  'tag-pages': z.int().min(1).max(4096).optional(),
  'tls-psk': file.optional(),
  'tls-certificates': file.optional(),
});

const command = <T extends z.ZodType>(
  schema: T,
  run: (session: MachineSession, given: z.output<T>) => Answer,
): Command => ({ arguments: schema, run });

/** What a command answers that has nothing to tell. */
const DONE: Answer = {};

const commands: Readonly<Record<string, Command>> = {
  qmp_capabilities: command(z.looseObject({}), () => DONE),
  'query-commands': command(none, () => ({
    commands: Object.keys(commands).map((name) => ({ name })),
  })),
  'query-status': command(none, ({ control }) => ({
    status: control.state,
    running: control.mayRun,
  })),
  stop: command(none, ({ control }) => {
    control.paused = true;
    return DONE;
  }),
  cont: command(none, ({ control }) => {
    if (control.state === 'postmigrate') {
      throw new MonitorError('GenericError', 'the guest runs elsewhere: it cannot go on here');
    }
    control.paused = false;
    return DONE;
  }),
  quit: command(none, ({ control }) => {
    control.leave('quit');
    return DONE;
  }),
  system_reset: command(none, (session) => {
    if (!session.machine.canBoot) {
      throw new MonitorError('GenericError', 'the machine has nothing to boot: it came without');
    }
    requireWhole(session);
    session.machine.reset();
    session.control.reset();
    return DONE;
  }),
  'snapshot-save': command(
    z.strictObject({ file, compress: z.enum(['lz4', 'none']).optional() }),
    (session, { file: path, compress }) => {
      requireWhole(session);
      const options = compress === undefined ? {} : { compress };
      return { bytes: saveSnapshot(session.machine, path, options) };
    },
  ),
  migrate: command(MigrateSchema, (session, given) => {
    requireWhole(session);
    if (session.isMigrating) throw new MonitorError('GenericError', 'a migration goes on already');
    const tls = credentialsOf(given);
    const pagesPerCall = given['tag-pages'];
    const bandwidthMax = given['max-bandwidth'];
    session.migrate({
      to: parseAddress(given.uri),
      mode: given.mode,
      tags: { policy: given.tags, ...(pagesPerCall === undefined ? {} : { pagesPerCall }) },
      downtimeLimitMs: given['downtime-limit'],
      ...(tls === undefined ? {} : { tls }),
      ...(bandwidthMax === undefined ? {} : { bandwidthMax }),
    });
    return DONE;
  }),
  migrate_cancel: command(none, (session) => cancelMigration(session)),
  'migrate-cancel': command(none, (session) => cancelMigration(session)),
  'migrate-recover': command(none, ({ outgoing }) => {
    if (outgoing?.phase.kind !== 'recovering') {
      throw new MonitorError('GenericError', 'no migration waits for its link');
    }
    outgoing.recover();
    return DONE;
  }),
  'query-migrate': command(none, (session) => migrationReport(session)),
};

/** Runs a command; throws `MonitorError`. */
export function runCommand(session: MachineSession, name: string, given: unknown): Answer {
  const found = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (found === undefined) {
    throw new MonitorError('CommandNotFound', `The command ${name} has not been found`);
  }
  const parsed = found.arguments.safeParse(given ?? {});
  if (!parsed.success) throw new MonitorError('GenericError', argumentSentence(parsed.error));
  try {
    return found.run(session, parsed.data as never);
  } catch (error) {
    if (error instanceof MigrationError || error instanceof SnapshotError) {
      throw new MonitorError('GenericError', error.message);
    }
    throw error;
  }
}

function argumentSentence({ issues: [issue] }: z.ZodError): string {
  const where = issue?.path.join('.') ?? '';
  const what = issue?.message ?? 'invalid';
  return where === '' ? `arguments: ${what}` : `argument ${where}: ${what}`;
}

function requireWhole({ isWhole }: MachineSession): void {
  if (!isWhole) throw new MonitorError('GenericError', 'the guest is not all here');
}

function cancelMigration({ outgoing, isMigrating }: MachineSession): Answer {
  if (outgoing === undefined || !isMigrating) return DONE;
  if (outgoing.cancel()) return DONE;
  throw new MonitorError('GenericError', 'the guest has been handed over: too late to cancel');
}

function credentialsOf(given: z.output<typeof MigrateSchema>): TlsCredentials | undefined {
  const { 'tls-psk': psk, 'tls-certificates': folder } = given;
  if (psk !== undefined && folder !== undefined) {
    throw new MonitorError('GenericError', 'tls-psk and tls-certificates exclude each other');
  }
  if (psk !== undefined) return readPsk(psk);
  return folder === undefined ? undefined : readCertificates(folder, 'client');
}
