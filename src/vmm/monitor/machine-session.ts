/**
 * A machine that runs, and everything that can be asked of it from outside: pause and resume, save,
 * migrate. The control socket (`commands.ts`) and the CLI talk to it; programs may. One for each
 * run.
 */
import type { Machine } from '../machine.ts';
import { IncomingMigration, type IncomingOptions } from '../migration/incoming.ts';
import type { Time } from '../migration/link.ts';
import { MachinePort } from '../migration/machine-port.ts';
import type { MigrationError } from '../migration/migration-error.ts';
import { OutgoingMigration, type OutgoingOptions } from '../migration/outgoing.ts';
import type { DestinationPhase, MigrationStatistics, SourcePhase } from '../migration/progress.ts';
import { type SaveOptions, saveSnapshot } from '../snapshot/save.ts';
import type { RunControl, RunEvent } from './run-control.ts';

export type SessionEvent =
  | RunEvent
  | { readonly kind: 'migration'; readonly side: 'source'; readonly phase: SourcePhase }
  | { readonly kind: 'migration'; readonly side: 'destination'; readonly phase: DestinationPhase }
  /** Some more memory has been sent or received. */
  | {
      readonly kind: 'progress';
      readonly side: 'source';
      readonly phase: SourcePhase;
      readonly statistics: Readonly<MigrationStatistics>;
    }
  | {
      readonly kind: 'progress';
      readonly side: 'destination';
      readonly phase: DestinationPhase;
      /** Those that came again included. */
      readonly receivedPages: number;
    }
  /** A link ended before the guest was here; another may come. */
  | { readonly kind: 'link-lost'; readonly error: MigrationError };

export interface SessionOptions {
  readonly machine: Machine;
  readonly control: RunControl;
  readonly time: Time;
  /** 32 hexadecimal digits, never the same twice. */
  readonly newId: () => string;
}

export class MachineSession {
  readonly machine: Machine;
  readonly control: RunControl;
  readonly #time: Time;
  readonly #newId: () => string;
  readonly #port: MachinePort;
  readonly #listeners = new Set<(event: SessionEvent) => void>();
  readonly #stopListening: () => void;
  #outgoing: OutgoingMigration | undefined;
  #incoming: IncomingMigration | undefined;
  #saving: Promise<number> | undefined;

  constructor({ machine, control, time, newId }: SessionOptions) {
    this.machine = machine;
    this.control = control;
    this.#time = time;
    this.#newId = newId;
    this.#port = new MachinePort(machine, { control, guestId: newId() });
    this.#stopListening = control.listen((event) => this.#tell(event));
  }

  /** The migration that goes on, or the last one. */
  get outgoing(): OutgoingMigration | undefined {
    return this.#outgoing;
  }

  get incoming(): IncomingMigration | undefined {
    return this.#incoming;
  }

  /** Whether all of the guest is here: nothing of it is to come, and it has not gone. */
  get isWhole(): boolean {
    const { state } = this.control;
    const arriving = this.#incoming !== undefined && this.#incoming.phase.kind !== 'completed';
    return !arriving && state !== 'postmigrate' && !this.#outgoingIsCommitted;
  }

  get isSaving(): boolean {
    return this.#saving !== undefined;
  }

  get isMigrating(): boolean {
    const kind = this.#outgoing?.phase.kind;
    return kind !== undefined && !['completed', 'failed', 'cancelled'].includes(kind);
  }

  get #outgoingIsCommitted(): boolean {
    const kind = this.#outgoing?.phase.kind;
    return kind === 'handing-over' || kind === 'post-copy' || kind === 'recovering';
  }

  /** Tells `listener` of events from now on; returns what ends it. */
  listen(listener: (event: SessionEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Begins a migration and returns it. Throws `MigrationError` 'address'. Preconditions: whole, and
   * no migration goes on.
   */
  migrate(options: Omit<OutgoingOptions, 'session'>): OutgoingMigration {
    const migration = new OutgoingMigration(
      { ...options, session: this.#newId() },
      {
        port: this.#port,
        control: this.control,
        time: this.#time,
        onEvent: ({ kind, phase }) => {
          if (kind === 'phase') this.#tell({ kind: 'migration', side: 'source', phase });
          else this.#tell({ kind, side: 'source', phase, statistics: migration.statistics });
        },
      },
    );
    this.#outgoing = migration;
    return migration;
  }

  /**
   * Saves the machine, which stands still meanwhile; otherwise as the function of that name.
   * Preconditions: whole, and neither a save nor a migration goes on.
   */
  async saveSnapshot(path: string, options: SaveOptions = {}): Promise<number> {
    this.control.hold('save-vm');
    try {
      this.#saving = saveSnapshot(this.machine, path, options);
      return await this.#saving;
    } finally {
      this.#saving = undefined;
      this.control.release('save-vm');
    }
  }

  /** Resolves when no save goes on, and who asked for the last one has been told. */
  async saved(): Promise<void> {
    if (this.#saving === undefined) return;
    await this.#saving.catch(() => {});
    await this.#time.turn();
  }

  /** Waits for a guest to come instead of running. Rejects with `MigrationError`. */
  async awaitGuest(options: IncomingOptions): Promise<IncomingMigration> {
    const incoming = await IncomingMigration.listen(options, {
      port: this.#port,
      control: this.control,
      time: this.#time,
      onEvent: ({ kind, phase }) => {
        if (kind === 'phase') this.#tell({ kind: 'migration', side: 'destination', phase });
        else {
          const { receivedPages } = incoming;
          this.#tell({ kind, side: 'destination', phase, receivedPages });
        }
      },
      onLinkLost: (error) => this.#tell({ kind: 'link-lost', error }),
    });
    this.#incoming = incoming;
    return incoming;
  }

  /** The machine goes away: ends what goes on. */
  async close(): Promise<void> {
    this.#incoming?.close();
    if (this.isMigrating) await this.#outgoing?.end();
    await this.saved();
    this.#stopListening();
  }

  #tell(event: SessionEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}
