/**
 * Receives in the background, so that a source that sends hears a refusal, a request or the end of
 * the link at once; and keeps the link alive, so that a peer that is gone without a word is
 * noticed.
 */
import { type Channel, unexpected } from './channel.ts';
import { type Time, withDeadline } from './link.ts';
import type { Message, MessageKind } from './messages.ts';
import { MigrationError, migrationError } from './migration-error.ts';

/** After this long without sending anything, say so. */
const PING_MS = 2_000;
/** After this long without hearing anything, the link counts as broken. */
const SILENCE_MS_MAX = 15_000;

export class Inbox {
  readonly #channel: Channel;
  readonly #time: Time;
  readonly #onMessage: (message: Message) => boolean;
  #failure: MigrationError | undefined;
  #messages: Message[] = [];
  #wake: (() => void) | undefined;
  #cancelTimer: () => void = () => {};
  #heardAtMs: number;
  #sentBytes = -1;

  /**
   * `onMessage` sees each message first and says whether that was all there is to do; the others
   * wait to be asked for by `expect`.
   */
  constructor(
    channel: Channel,
    time: Time,
    onMessage: (message: Message) => boolean = () => false,
  ) {
    this.#channel = channel;
    this.#time = time;
    this.#onMessage = onMessage;
    this.#heardAtMs = time.nowMs();
    this.#armTimer();
    void this.#receive();
  }

  /** Throws what has gone wrong, if anything has. */
  check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** The next message, which must be of `kind` and come within `ms`, if a time is given. */
  async expect<K extends MessageKind>(
    kind: K,
    ms?: number,
  ): Promise<Extract<Message, { kind: K }>> {
    const what = `'${kind}' from ${this.#channel.peer}`;
    const next = this.next();
    const message = await (ms === undefined ? next : withDeadline(this.#time, { ms, what }, next));
    if (message.kind === kind) return message as Extract<Message, { kind: K }>;
    throw unexpected(message, `'${kind}'`);
  }

  /** The next message. Rejects with what went wrong when there is none. */
  async next(): Promise<Message> {
    for (;;) {
      const message = this.#messages.shift();
      if (message !== undefined) return message;
      this.check();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /**
   * Ends the link; whoever waits here hears `reason`, and the peer does if it is to blame or to be
   * told. May be called again.
   */
  close(reason = new MigrationError('link', 'the link was closed')): void {
    if (this.#failure === undefined && !reason.isLinkFailure) {
      const sentence = reason.message.slice(0, 1000);
      this.#channel.send({ kind: 'refuse', sentence }).catch(() => {});
    }
    this.#failure ??= reason;
    this.#cancelTimer();
    this.#channel.close();
    this.#wake?.();
  }

  async #receive(): Promise<void> {
    try {
      for (;;) {
        const message = await this.#channel.receive();
        this.#heardAtMs = this.#time.nowMs();
        if (message.kind === 'ping') continue;
        if (message.kind === 'refuse') this.#end(new MigrationError('refused', message.sentence));
        else if (!this.#onMessage(message)) {
          this.#messages.push(message);
          this.#wake?.();
        }
      }
    } catch (error) {
      this.close(migrationError(error));
    }
  }

  /** The peer has said why it goes; what it sent before still counts. */
  #end(reason: MigrationError): void {
    this.#failure ??= reason;
    this.#cancelTimer();
    this.#channel.close();
    this.#wake?.();
  }

  #armTimer(): void {
    this.#cancelTimer = this.#time.after(PING_MS, () => {
      if (this.#time.nowMs() - this.#heardAtMs > SILENCE_MS_MAX) {
        const seconds = SILENCE_MS_MAX / 1000;
        this.close(new MigrationError('link', `${this.#channel.peer} was silent for ${seconds} s`));
        return;
      }
      if (this.#sentBytes === this.#channel.sentBytes) {
        this.#channel.send({ kind: 'ping' }).catch(() => {});
      }
      this.#sentBytes = this.#channel.sentBytes;
      this.#armTimer();
    });
  }
}
