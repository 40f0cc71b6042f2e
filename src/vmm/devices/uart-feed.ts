/**
 * Queues console input and feeds it to a PL011 at the guest's pace. The run loop calls `pump` at
 * points that are a function of executed instructions, so that the same input gives the same run.
 */
import type { Pl011 } from './pl011.ts';

/** Bytes in the queue above which the source should pause. */
export const FEED_HIGH_WATER_BYTES = 64 * 1024;

export class UartFeed {
  readonly #uart: Pl011;
  #queue: Uint8Array[] = [];
  #pendingBytes = 0;

  constructor(uart: Pl011) {
    this.#uart = uart;
  }

  /** Bytes that wait for the guest. */
  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  /** Queues `bytes`; nothing reaches the guest before the next `pump`. */
  push(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#queue.push(bytes);
    this.#pendingBytes += bytes.length;
  }

  /**
   * Gives the UART at most one FIFO full, if the guest listens; returns how many bytes went. One
   * FIFO a call is the line's speed: a driver that loops until the FIFO is empty comes to an end.
   */
  pump(): number {
    if (this.#pendingBytes === 0 || !this.#uart.listening) return 0;
    let sent = 0;
    for (let room = this.#uart.receiveRoom; room > 0; ) {
      const head = this.#queue[0];
      if (head === undefined) break;
      const chunk = head.subarray(0, room);
      if (this.#uart.receive(chunk) === 0) break;
      if (chunk.length === head.length) this.#queue.shift();
      else this.#queue[0] = head.subarray(chunk.length);
      room -= chunk.length;
      sent += chunk.length;
    }
    this.#pendingBytes -= sent;
    return sent;
  }

  /** What waits, as one run of bytes, for a snapshot. */
  save(): Uint8Array {
    const out = new Uint8Array(this.#pendingBytes);
    let at = 0;
    for (const part of this.#queue) {
      out.set(part, at);
      at += part.length;
    }
    return out;
  }

  restore(pending: Uint8Array): void {
    this.#queue = [];
    this.#pendingBytes = 0;
    this.push(pending.slice());
  }
}
