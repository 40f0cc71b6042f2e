/**
 * A machine that waits for its guest: listens, gives each link to `MigrationDestination`, keeps the
 * guest from running until it has come and while a part of it cannot be reached, and stops
 * listening when no link can be needed again. Used by `granule run --incoming` and by programs.
 */
import type { RunControl } from '../monitor/run-control.ts';
import type { TcpAddress } from './address.ts';
import { MigrationDestination } from './destination.ts';
import { type Link, memoryLinkPair, type Time } from './link.ts';
import type { MachinePort } from './machine-port.ts';
import type { MigrationError } from './migration-error.ts';
import type { DestinationPhase, MigrationEvent } from './progress.ts';
import type { TagOptions } from './tags.ts';
import { TcpListener } from './tcp.ts';
import type { TlsCredentials } from './tls.ts';

export interface IncomingOptions {
  /** Where to listen; port 0: any that is free. Absent: nowhere, links come from `connect`. */
  readonly at?: TcpAddress;
  readonly tls?: TlsCredentials;
  readonly tags: TagOptions;
}

export interface IncomingWorld {
  readonly port: MachinePort;
  readonly control: RunControl;
  readonly time: Time;
  readonly onEvent?: (event: MigrationEvent<DestinationPhase>) => void;
  /** A link ended and the guest is not all here: why. */
  readonly onLinkLost?: (error: MigrationError) => void;
}

export class IncomingMigration {
  readonly #world: IncomingWorld;
  readonly #destination: MigrationDestination;
  #listener: TcpListener | undefined;

  /** Holds the machine and listens. Rejects with `MigrationError` 'address' or 'link'. */
  static async listen(options: IncomingOptions, world: IncomingWorld): Promise<IncomingMigration> {
    const incoming = new IncomingMigration(options, world);
    const { at, tls } = options;
    world.port.holdReason = 'inmigrate';
    await world.port.hold();
    if (at !== undefined) {
      incoming.#listener = await TcpListener.listen(
        { ...at, ...(tls && { tls }) },
        (link) => incoming.#serve(link),
        (error) => incoming.#ended(error),
      );
    }
    return incoming;
  }

  private constructor({ tags }: IncomingOptions, world: IncomingWorld) {
    this.#world = world;
    const { port, control, time, onEvent } = world;
    let stopSharing: (() => void) | undefined;
    this.#destination = new MigrationDestination(
      port,
      { tags },
      {
        time,
        onEvent: (event) => {
          if (event.kind === 'phase') {
            // While memory follows, whoever brings it needs the thread as much as the guest.
            if (event.phase.kind === 'post-copy') stopSharing ??= control.share();
            if (event.phase.kind === 'completed') stopSharing?.();
            if (event.phase.kind === 'paused') port.holdReason = 'postmigrate-paused';
          }
          onEvent?.(event);
          // A vCPU may have waited for what has come.
          control.wake();
        },
      },
    );
  }

  /** Pages taken over, those that came again included. */
  get receivedPages(): number {
    return this.#destination.receivedPages;
  }

  get phase(): DestinationPhase {
    return this.#destination.phase;
  }

  /** Where it listens, if it does. */
  get address(): TcpAddress | undefined {
    return this.#listener?.address;
  }

  /** A link from within this process: the same protocol, no socket. */
  async connect(): Promise<Link> {
    const [near, far] = memoryLinkPair();
    this.#serve(far);
    return near;
  }

  /** See `MigrationDestination.force`. */
  force(): boolean {
    return this.#destination.force();
  }

  /** Stops listening; links that there are end. */
  close(): void {
    this.#listener?.close();
    this.#listener = undefined;
  }

  #serve(link: Link): void {
    void this.#destination.serve(link).then((error) => this.#ended(error));
  }

  #ended(error: MigrationError | undefined): void {
    if (error === undefined) this.close();
    // A source whose last word was lost comes again, and is told how it went.
    else if (this.phase.kind !== 'completed') this.#world.onLinkLost?.(error);
  }
}
