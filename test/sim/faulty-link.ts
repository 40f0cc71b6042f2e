/**
 * A link in a simulated world: bytes take their time, come in other pieces than they were sent in,
 * and the link breaks, falls silent or changes a byte where its fault says. What a broken TCP
 * connection does and nothing else: bytes never overtake each other.
 */
import type { Link } from '../../src/vmm/migration/link.ts';
import { MigrationError } from '../../src/vmm/migration/migration-error.ts';
import type { SimWorld } from './world.ts';

/** Counted over both directions of the link, by sends. */
export type Fault =
  /** Both ends hear of it at once; `partly`: some of the bytes still arrive. */
  | { readonly kind: 'cut'; readonly atSend: number; readonly partly: boolean }
  /** Nothing arrives any more, and nobody is told. */
  | { readonly kind: 'silence'; readonly atSend: number }
  /** One byte is another. */
  | {
      readonly kind: 'change';
      readonly atSend: number;
      readonly byte: number;
      readonly xor: number;
    };

export interface LinkOptions {
  readonly latencyMs: number;
  readonly bytesPerMs: number;
  readonly fault?: Fault;
  /** Hears all bytes that are sent, before anything happens to them. */
  readonly tap?: (direction: 'there' | 'back', bytes: Uint8Array) => void;
}

/** Bytes under way at which a sender has to wait. */
const WINDOW_BYTES = 256 * 1024;

interface Shared {
  readonly world: SimWorld;
  readonly options: LinkOptions;
  sends: number;
  broken: boolean;
  silent: boolean;
  readonly directions: Direction[];
}

class Direction {
  readonly name: 'there' | 'back';
  readonly #shared: Shared;
  #arrived: Uint8Array[] = [];
  #flightBytes = 0;
  #freeAtMs = 0;
  #ended = false;
  #waiters: (() => void)[] = [];

  constructor(shared: Shared, name: 'there' | 'back') {
    this.#shared = shared;
    this.name = name;
  }

  async send(bytes: Uint8Array, isClosed: () => boolean): Promise<void> {
    const { options } = this.#shared;
    if (isClosed()) throw new MigrationError('link', 'the link is closed');
    this.#check();
    options.tap?.(this.name, bytes);
    let sent: Uint8Array = bytes.slice();
    const { fault } = options;
    if (this.#shared.sends++ === fault?.atSend) {
      if (fault.kind === 'silence') this.#shared.silent = true;
      else if (fault.kind === 'change') {
        const at = fault.byte % Math.max(1, sent.length);
        sent[at] = sent[at]! ^ fault.xor;
      } else {
        if (fault.partly) sent = sent.subarray(0, this.#shared.world.prng.below(sent.length));
        this.#launch(sent);
        this.#shared.world.after(0, () => this.#break());
        return;
      }
    }
    this.#launch(sent);
    while (this.#flightBytes > WINDOW_BYTES && !isClosed()) {
      await this.#wait();
      this.#check();
    }
  }

  async receive(isClosed: () => boolean): Promise<Uint8Array | undefined> {
    for (;;) {
      if (isClosed()) return undefined;
      const bytes = this.#arrived.shift();
      if (bytes !== undefined) {
        this.#flightBytes -= bytes.length;
        this.wake();
        return bytes;
      }
      if (this.#ended) return undefined;
      this.#check();
      await this.#wait();
    }
  }

  /** The sender says that no more will come. */
  end(): void {
    this.#shared.world.after(this.#delay(0), () => {
      if (this.#shared.silent) return;
      this.#ended = true;
      this.wake();
    });
  }

  /** Whoever waits looks again. */
  wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter();
  }

  #wait(): Promise<void> {
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  #check(): void {
    if (this.#shared.broken) throw new MigrationError('link', 'the link broke');
  }

  #delay(bytes: number): number {
    const { world, options } = this.#shared;
    const begin = Math.max(world.nowMs, this.#freeAtMs);
    this.#freeAtMs = begin + bytes / options.bytesPerMs;
    return this.#freeAtMs - world.nowMs + options.latencyMs;
  }

  #launch(bytes: Uint8Array): void {
    const { world } = this.#shared;
    this.#flightBytes += bytes.length;
    for (let at = 0; at < bytes.length; ) {
      const size = world.prng.chance(1, 3) ? 1 + world.prng.below(3000) : bytes.length - at;
      const piece = bytes.subarray(at, at + size);
      at += piece.length;
      world.after(this.#delay(piece.length), () => {
        if (this.#shared.silent) return;
        this.#arrived.push(piece);
        this.wake();
      });
    }
  }

  #break(): void {
    this.#shared.broken = true;
    for (const direction of this.#shared.directions) direction.wake();
  }
}

/** The two ends of a link, and how many sends it has seen. */
export function faultyLinkPair(
  world: SimWorld,
  options: LinkOptions,
): { near: Link; far: Link; sends: () => number } {
  const shared: Shared = { world, options, sends: 0, broken: false, silent: false, directions: [] };
  const there = new Direction(shared, 'there');
  const back = new Direction(shared, 'back');
  shared.directions.push(there, back);
  const end = (peer: string, out: Direction, into: Direction): Link => {
    let closed = false;
    return {
      peer,
      send: (bytes) => out.send(bytes, () => closed),
      receive: () => into.receive(() => closed),
      close: () => {
        if (closed) return;
        closed = true;
        out.end();
        out.wake();
        into.wake();
      },
    };
  };
  return {
    near: end('the destination', there, back),
    far: end('the source', back, there),
    sends: () => shared.sends,
  };
}
