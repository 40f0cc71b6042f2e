/**
 * What a migration runs over: a reliable stream of bytes both ways, and the time. Two kinds of link
 * exist, a pair in memory (here; tests, the simulation, two hosts in one process) and TCP with or
 * without TLS (`tcp.ts`). Nothing above knows which one it has.
 */
import { MigrationError } from './migration-error.ts';

export interface Link {
  /** Who is at the other end, for messages. */
  readonly peer: string;
  /**
   * Sends `bytes`; resolves when the buffer may be used again and more may be sent. Rejects with a
   * `MigrationError` of code 'link' when the link is broken.
   */
  send(bytes: Uint8Array): Promise<void>;
  /**
   * The next bytes, valid until the next call, or undefined when the peer has ended the stream.
   * Rejects as `send`. One call at a time.
   */
  receive(): Promise<Uint8Array | undefined>;
  /**
   * Ends the stream both ways; what was sent before still arrives if the link holds. Whoever waits
   * in `send` or `receive` goes on. May be called again.
   */
  close(): void;
}

/** Time as a migration sees it; the world passes it in. */
export interface Time {
  /** Milliseconds that never go back. */
  nowMs(): number;
  /** Calls `action` once after `ms` milliseconds; returns what calls it off. */
  after(ms: number, action: () => void): () => void;
  /** Resolves when everything else that is ready (a guest's slice, input) has had its turn. */
  turn(): Promise<void>;
}

export const sleep = (time: Time, ms: number): Promise<void> =>
  new Promise((resolve) => time.after(ms, resolve));

/** `work`, or a rejection with `MigrationError` 'link' after `ms` milliseconds without an end. */
export function withDeadline<T>(
  time: Time,
  { ms, what }: { readonly ms: number; readonly what: string },
  work: Promise<T>,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const cancel = time.after(ms, () =>
      reject(new MigrationError('link', `${what} did not come within ${ms} ms`)),
    );
    work.then(resolve, reject).finally(cancel);
  });
}

/** Bytes in flight one way at which a sender in memory has to wait. */
const WINDOW_BYTES = 2 * 1024 * 1024;

/** One direction of a pair: chunks that were sent and not yet received. */
class Pipe {
  #chunks: Uint8Array[] = [];
  #bytes = 0;
  #ended = false;
  #wakeReceiver: (() => void) | undefined;
  #wakeSenders: (() => void)[] = [];

  async send(bytes: Uint8Array): Promise<void> {
    if (this.#ended) throw new MigrationError('link', 'the link is closed');
    this.#chunks.push(bytes.slice());
    this.#bytes += bytes.length;
    this.#wakeReceiver?.();
    while (this.#bytes > WINDOW_BYTES && !this.#ended) {
      await new Promise<void>((resolve) => this.#wakeSenders.push(resolve));
    }
  }

  async receive(): Promise<Uint8Array | undefined> {
    while (this.#chunks.length === 0) {
      if (this.#ended) return undefined;
      await new Promise<void>((resolve) => {
        this.#wakeReceiver = resolve;
      });
      this.#wakeReceiver = undefined;
    }
    const chunk = this.#chunks.shift()!;
    this.#bytes -= chunk.length;
    this.#releaseSenders();
    return chunk;
  }

  /** What is in flight still arrives. */
  end(): void {
    this.#ended = true;
    this.#wakeReceiver?.();
    this.#releaseSenders();
  }

  #releaseSenders(): void {
    const waiting = this.#wakeSenders;
    this.#wakeSenders = [];
    for (const wake of waiting) wake();
  }
}

/** Two ends of a link in memory. */
export function memoryLinkPair(): [Link, Link] {
  const there = new Pipe();
  const back = new Pipe();
  const end = (peer: string, out: Pipe, into: Pipe): Link => ({
    peer,
    send: (bytes) => out.send(bytes),
    receive: () => into.receive(),
    close: () => {
      out.end();
      into.end();
    },
  });
  return [end('memory, far end', there, back), end('memory, near end', back, there)];
}
