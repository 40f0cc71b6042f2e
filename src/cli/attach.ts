/**
 * What takes part in a run besides the guest: the snapshot it goes on from, the migration it waits
 * for, the control socket. Loaded only where one of them is asked for; see `run.ts`.
 */
import { assert } from '../base/index.ts';
import type { Attach } from '../vmm/machine-options.ts';
import { addressText, type TcpAddress } from '../vmm/migration/address.ts';
import { readCertificates, readPsk, type TlsCredentials } from '../vmm/migration/tls.ts';
import { MachineSession, type SessionEvent } from '../vmm/monitor/machine-session.ts';
import { MonitorServer } from '../vmm/monitor/server.ts';
import { newId, processTime } from '../vmm/run-machine.ts';
import { restoring } from '../vmm/snapshot/attach.ts';
import type { SnapshotFile } from '../vmm/snapshot/snapshot-file.ts';
import type { RunOptions } from './options.ts';

export interface AttachOptions {
  readonly run: Pick<
    RunOptions,
    'monitor' | 'incoming' | 'memory' | 'tlsPsk' | 'tlsCertificates' | 'restoreMode'
  >;
  readonly version: string;
  /** The snapshot to go on from. */
  readonly snapshot: SnapshotFile | undefined;
  /** Prints a line of ours beside the guest's console. */
  readonly say: (line: string) => void;
}

/** Files of keys are read at once: throws `MigrationError` before anything starts. */
export function attachment({ run, version, snapshot, say }: AttachOptions): Attach {
  const { monitor, incoming, memory } = run;
  const tls = credentialsOf(run);
  return async (machine, control) => {
    const detachers: (() => Promise<void>)[] = [];
    const detach = async (): Promise<void> => {
      for (const step of detachers.reverse()) await step();
    };
    try {
      if (snapshot !== undefined) {
        detachers.push(await restoring(snapshot, run.restoreMode)(machine, control));
      }
      const session = new MachineSession({ machine, control, time: processTime, newId });
      detachers.push(() => session.close());
      let said: string | undefined;
      session.listen((event) => {
        const line = sentenceOf(event);
        if (line !== undefined && !isSaid(event, line, said)) say(`granule: ${line}`);
        said = line ?? said;
        if (event.kind === 'migration' && event.side === 'source') {
          if (event.phase.kind === 'completed') control.leave('migrated');
        }
      });
      if (incoming !== undefined) {
        const at = await awaitGuest(session, { incoming, memory, tls });
        say(`granule: waiting for a guest at ${at}`);
      }
      if (monitor !== undefined) {
        const seconds = (): number => Date.now() / 1000;
        const server = await MonitorServer.listen({ path: monitor, version, seconds }, session);
        detachers.push(
          () => server.close(),
          () => session.saved(),
        );
      }
      return detach;
    } catch (error) {
      await detach();
      throw error;
    }
  };
}

async function awaitGuest(
  session: MachineSession,
  options: {
    readonly incoming: TcpAddress;
    readonly memory: RunOptions['memory'];
    readonly tls: TlsCredentials | undefined;
  },
): Promise<string> {
  const { incoming, memory, tls } = options;
  const migration = await session.awaitGuest({
    at: incoming,
    tags: { policy: memory === 'memfd' ? 'dual-mapping' : 'ioctl' },
    ...(tls === undefined ? {} : { tls }),
  });
  assert(migration.address !== undefined, 'who listens has an address');
  return addressText(migration.address);
}

function credentialsOf({ tlsPsk, tlsCertificates }: AttachOptions['run']) {
  if (tlsPsk !== undefined) return readPsk(tlsPsk);
  return tlsCertificates === undefined ? undefined : readCertificates(tlsCertificates, 'server');
}

/** Each attempt to make a link again says the same, and so does a link whose end has stopped us. */
const isSaid = (event: SessionEvent, line: string, said = ''): boolean =>
  line === said || (event.kind === 'link-lost' && said.endsWith(event.error.message));

/** What a person at the console wants to know. */
function sentenceOf(event: SessionEvent): string | undefined {
  if (event.kind === 'link-lost') return `the link ended: ${event.error.message}`;
  if (event.kind !== 'migration') return undefined;
  const { phase } = event;
  switch (phase.kind) {
    case 'connecting':
      return 'migrating';
    case 'failed':
      return `the migration failed: ${phase.error.message}`;
    case 'cancelled':
      return 'the migration was cancelled';
    case 'recovering':
      return `the link broke behind the guest, trying again: ${phase.error.message}`;
    case 'paused':
      return `the guest stands still until the source is back: ${phase.error.message}`;
    case 'post-copy':
      return event.side === 'destination' ? 'the guest runs here; its memory follows' : undefined;
    case 'completed':
      return event.side === 'destination' ? 'the guest is here' : undefined;
    default:
      return undefined;
  }
}
