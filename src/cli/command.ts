/**
 * From a command line to an exit status: 0 done, 1 a guest or file that fails, 2 a command line
 * that cannot be obeyed, 128 + n ended by signal n. Boundary errors end here, as one sentence.
 */
import { assertNever } from '../base/index.ts';
import { BootError } from '../vmm/boot-error.ts';
import { FetchError } from '../vmm/fetch-error.ts';
import { MachineError } from '../vmm/machine-error.ts';
import { MigrationError } from '../vmm/migration/migration-error.ts';
import { SnapshotError } from '../vmm/snapshot/snapshot-error.ts';
import { CliError } from './cli-error.ts';
import type { ConsoleHost } from './console.ts';
import { parseCommandLine } from './options.ts';
import type { Services } from './services.ts';

/** Runs what `args` ask for on the console of `host`; resolves to the exit status. */
export async function runCli(
  args: readonly string[],
  version: string,
  services: Services,
  host: ConsoleHost,
): Promise<number> {
  // Where nobody reads any more, what is left to say is dropped; a run looks after its own output.
  for (const stream of [host.stdout, host.stderr]) stream.on('error', () => {});
  try {
    return await dispatch(args, version, services, host);
  } catch (error) {
    const status = statusOf(error);
    if (status === undefined || !(error instanceof Error)) throw error;
    host.stderr.write(`granule: ${error.message}\n`);
    return status;
  }
}

async function dispatch(
  args: readonly string[],
  version: string,
  services: Services,
  host: ConsoleHost,
): Promise<number> {
  const command = parseCommandLine(args, version);
  switch (command.kind) {
    case 'text':
      host.stdout.write(command.text);
      return 0;
    case 'run': {
      const { runCommand } = await import('./run.ts');
      return runCommand(command.options, version, services, host);
    }
    case 'demo': {
      const { demoCommand } = await import('./demo.ts');
      return demoCommand(command.options, services, host);
    }
    case 'ctl': {
      const { ctlCommand } = await import('./ctl.ts');
      return ctlCommand(command.options, host);
    }
    case 'migrate': {
      const { migrateCommand } = await import('./migrate.ts');
      return migrateCommand(command.options, host);
    }
    case 'snapshot': {
      const { runSnapshotCommand } = await import('./snapshot.ts');
      return runSnapshotCommand(command.options, host);
    }
    default:
      return assertNever(command);
  }
}

/** The status for an error that a user can cause; undefined for our own bugs. */
function statusOf(error: unknown): number | undefined {
  if (error instanceof CliError) return 2;
  const boundary = [BootError, FetchError, MachineError, MigrationError, SnapshotError];
  return boundary.some((kind) => error instanceof kind) ? 1 : undefined;
}
