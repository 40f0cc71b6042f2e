/**
 * Messages over a link: gives frames their sequence, takes them apart on the other side. A channel
 * lives as long as its link; source and destination each hold one and make a new one when they meet
 * again.
 */
import { type Frame, FrameReader, sealFrame } from './frame.ts';
import type { Link } from './link.ts';
import { decodeMessage, encodeMessage, frameType, type Message } from './messages.ts';
import { MigrationError, migrationError } from './migration-error.ts';

export class Channel {
  readonly peer: string;
  readonly #link: Link;
  readonly #reader = new FrameReader();
  #sequence = 0;
  /** Bytes sent, headers included. */
  sentBytes = 0;

  constructor(link: Link) {
    this.#link = link;
    this.peer = link.peer;
  }

  /** Sends one message; resolves as `Link.send`. */
  send(message: Message): Promise<void> {
    return this.sendFrame(message.kind, encodeMessage(message));
  }

  /** Sends a frame whose payload the caller has put behind the place of its header. */
  sendFrame(kind: Message['kind'], frame: Uint8Array): Promise<void> {
    sealFrame(frame, frameType(kind), this.#sequence++);
    this.sentBytes += frame.length;
    return this.#link.send(frame);
  }

  /** The next message; rejects with `MigrationError`, also when the peer closes the link. */
  async receive(): Promise<Message> {
    for (;;) {
      const frame = this.#nextFrame();
      if (frame !== undefined) return decodeMessage(frame);
      const chunk = await this.#link.receive();
      if (chunk === undefined) {
        this.#reader.end();
        throw new MigrationError('link', `${this.peer} closed the link`);
      }
      this.#reader.push(chunk);
    }
  }

  close(): void {
    this.#link.close();
  }

  /** What is no stream of ours says whose it is. */
  #nextFrame(): Frame | undefined {
    try {
      return this.#reader.next();
    } catch (error) {
      const { code, message } = migrationError(error);
      throw new MigrationError(code, `${this.peer}: ${message}`);
    }
  }
}

/** What a message that does not belong here means. */
export function unexpected(message: Message, expected: string): MigrationError {
  return new MigrationError('protocol', `message '${message.kind}' where ${expected} belongs`);
}
