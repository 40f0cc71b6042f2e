/**
 * A machine that runs beside the program that started it, with a session to ask it by: pause, save,
 * migrate. `runMachine` for programs, which have no terminal. The public face of all that is above
 * `Machine`; `granule run` puts the same parts together for a person.
 */
import type {
  Attach,
  MachineConsole,
  MachineOptions,
  MachineOutcome,
  RestoreMode,
} from './machine-options.ts';
import { MachineSession } from './monitor/machine-session.ts';
import { newId, processTime, runMachine } from './run-machine.ts';
import { restoring } from './snapshot/attach.ts';
import { machineOf } from './snapshot/restore.ts';
import { openSnapshot } from './snapshot/snapshot-file.ts';

interface CommonOptions {
  /** 'anonymous' where absent; tags by dual-mapping need 'memfd'. */
  readonly backing?: MachineOptions['backing'];
  /** Counted in instructions where absent. */
  readonly realtime?: boolean;
  /** 'reboot' where absent. */
  readonly onReset?: MachineOptions['onReset'];
  /** Takes what the guest transmits. */
  readonly onOutput?: (bytes: Uint8Array) => void;
}

/** Boots, or waits for a guest (`MachineSession.awaitGuest`) where `plan` is only a board. */
export interface BootOrWait extends CommonOptions {
  readonly plan: MachineOptions['plan'];
  /** On where absent. */
  readonly mte?: boolean;
  /** 1 where absent. */
  readonly seed?: number;
  readonly policy?: MachineOptions['policy'];
}

/** Goes on from a snapshot, which says what the machine is. */
export interface GoOn extends CommonOptions {
  /** Path of the snapshot. */
  readonly restore: string;
  /** 'lazy' where absent. */
  readonly restoreMode?: RestoreMode;
}

export type StartOptions = BootOrWait | GoOn;

export interface RunningMachine {
  readonly session: MachineSession;
  /** Resolves when the guest has powered off, moved away, or was left. Rejects as `runMachine`. */
  readonly outcome: Promise<MachineOutcome>;
  /** Sends bytes to the guest's console. */
  type(bytes: Uint8Array): void;
  /** Ends the run, whatever the guest does. */
  quit(): void;
}

/** What a machine is, and what is loaded into it before it runs. */
interface Origin {
  readonly shape: Pick<MachineOptions, 'plan' | 'mte' | 'seed' | 'policy'>;
  readonly restore?: Attach;
}

/**
 * Resolves when the machine is there and has not run yet. Rejects with `MachineError`,
 * `SnapshotError`.
 */
export async function startMachine(options: StartOptions): Promise<RunningMachine> {
  const { shape, restore } = 'restore' in options ? goOn(options) : bootOrWait(options);
  const { backing, realtime = false, onReset = 'reboot', onOutput = () => {} } = options;
  const quit = new AbortController();
  let type: RunningMachine['type'] = () => {};
  const console: MachineConsole = {
    write: onOutput,
    onInput: (listener) => {
      type = listener;
      return () => {};
    },
    setInputPaused: () => {},
    quit: quit.signal,
  };
  return new Promise((resolve, reject) => {
    const attach: Attach = async (machine, control) => {
      const detach = await restore?.(machine, control);
      const session = new MachineSession({ machine, control, time: processTime, newId });
      if (machine.isBlank && restore === undefined) control.hold('inmigrate');
      session.listen((event) => {
        if (event.kind !== 'migration' || event.side !== 'source') return;
        if (event.phase.kind === 'completed') control.leave('migrated');
      });
      // By then `outcome` is there.
      queueMicrotask(() =>
        resolve({ session, outcome, type: (bytes) => type(bytes), quit: () => quit.abort() }),
      );
      return async () => {
        await session.close();
        await detach?.();
      };
    };
    const memory = backing === undefined ? {} : { backing };
    const traces = { trace: new Set<never>(), onTrace: () => {} };
    const outcome = runMachine(
      { ...shape, ...memory, ...traces, realtime, onReset, attach },
      console,
    );
    outcome.catch(reject);
  });
}

function goOn({ restore, restoreMode = 'lazy' }: GoOn): Origin {
  const file = openSnapshot(restore);
  try {
    return { shape: machineOf(file), restore: restoring(file, restoreMode) };
  } catch (error) {
    file.close();
    throw error;
  }
}

function bootOrWait({ plan, mte = true, seed = 1, policy }: BootOrWait): Origin {
  return { shape: { plan, mte, seed, ...(policy === undefined ? {} : { policy }) } };
}
