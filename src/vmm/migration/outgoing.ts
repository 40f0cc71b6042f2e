/**
 * A migration of a running machine to an address: `MigrationSource` with a connection to make, the
 * thread to share and an end to bring about. Used by the control socket and by programs.
 */
import type { RunControl } from '../monitor/run-control.ts';
import type { TcpAddress } from './address.ts';
import { requireLoopback } from './address.ts';
import type { Link, Time } from './link.ts';
import type { MachinePort } from './machine-port.ts';
import type { MigrationEvent, MigrationStatistics, SourcePhase } from './progress.ts';
import { MigrationSource, type SourceOptions, type SourceOutcome } from './source.ts';
import { connectTcp } from './tcp.ts';
import type { TlsCredentials } from './tls.ts';

export interface OutgoingOptions extends SourceOptions {
  /** Where the destination listens; or what makes a link to it (`IncomingMigration.connect`). */
  readonly to: TcpAddress | (() => Promise<Link>);
  /** Needed wherever the address is not loopback. */
  readonly tls?: TlsCredentials;
}

export interface OutgoingWorld {
  readonly port: MachinePort;
  readonly control: RunControl;
  readonly time: Time;
  readonly onEvent?: (event: MigrationEvent<SourcePhase>) => void;
}

export class OutgoingMigration {
  /** Resolves when the guest's place is settled. */
  readonly outcome: Promise<SourceOutcome>;
  readonly #source: MigrationSource;

  /** Begins. Throws `MigrationError` 'address' where the address needs TLS. */
  constructor(options: OutgoingOptions, world: OutgoingWorld) {
    const { to, tls, ...how } = options;
    const { port, time, onEvent } = world;
    const isAddress = typeof to !== 'function';
    if (isAddress && tls === undefined) requireLoopback(to);
    this.#source = new MigrationSource(port, how, {
      time,
      connect: isAddress ? () => connectTcp({ ...to, ...(tls && { tls }) }) : to,
      ...(onEvent === undefined ? {} : { onEvent }),
    });
    this.outcome = this.#run(world);
  }

  get downtimeLimitMs(): number {
    return this.#source.downtimeLimitMs;
  }

  get phase(): SourcePhase {
    return this.#source.phase;
  }

  get statistics(): MigrationStatistics {
    return this.#source.statistics;
  }

  /** See `MigrationSource.cancel`. */
  cancel(): boolean {
    return this.#source.cancel();
  }

  /** See `MigrationSource.startPostCopy`. */
  startPostCopy(): boolean {
    return this.#source.startPostCopy();
  }

  /** See `MigrationSource.force`. */
  force(): boolean {
    return this.#source.force();
  }

  recover(): void {
    this.#source.recover();
  }

  /** The machine goes away: whatever can be ended is. */
  async end(): Promise<void> {
    this.#source.cancel();
    this.#source.abandon();
    await this.outcome;
  }

  async #run({ port, control, time }: OutgoingWorld): Promise<SourceOutcome> {
    // Whoever hears of the migration is to find it.
    await time.turn();
    port.holdReason = 'finish-migrate';
    const stopSharing = control.share();
    try {
      const outcome = await this.#source.run();
      // Held for good: the guest is elsewhere, or only a person can know.
      if (outcome.kind === 'completed' || outcome.kind === 'abandoned') control.hold('postmigrate');
      return outcome;
    } finally {
      stopSharing();
    }
  }
}
