/**
 * The source's part in post-copy: the guest runs elsewhere and its memory, which stands still here,
 * follows. Pages the destination waits for go first, the others in order behind the last of those.
 * Part of the source; survives a link that breaks.
 */
import type { Channel } from './channel.ts';
import type { DirtyPages } from './dirty-pages.ts';
import { clearTail, newPageMaps, pageCountOf, type RamRange } from './guest-ram.ts';
import type { Inbox } from './inbox.ts';
import type { Message } from './messages.ts';
import { MigrationError } from './migration-error.ts';
import type { PageSender } from './page-sender.ts';
import type { MigrationStatistics } from './progress.ts';

/** For `whole`: what is in flight has to be installed first. */
const WHOLE_MS = 60_000;

export interface PostCopySourceOptions {
  /** Not logging; what it holds is what the destination has not got. */
  readonly dirty: DirtyPages;
  readonly sender: PageSender;
  readonly statistics: MigrationStatistics;
  readonly ranges: readonly RamRange[];
  readonly onProgress: () => void;
}

export class PostCopySource {
  readonly #options: PostCopySourceOptions;
  #requests: (readonly [range: number, page: number])[] = [];

  constructor(options: PostCopySourceOptions) {
    this.#options = options;
  }

  /** Takes requests out of what comes in; they are served by `run`. */
  take(message: Message): boolean {
    if (message.kind !== 'request') return false;
    for (const [range, page] of message.pages) {
      const known = this.#options.ranges[range];
      if (known === undefined || page >= pageCountOf(known)) {
        throw new MigrationError('protocol', `a request for page ${page} of range ${range}`);
      }
      this.#requests.push([range, page]);
    }
    return true;
  }

  /** After a link was made again: what the destination has got need not be sent. */
  async learnReceived(inbox: Inbox, ms: number): Promise<void> {
    const missing = newPageMaps(this.#options.ranges);
    for (const [i, map] of missing.entries()) {
      const { payload } = await inbox.expect('received', ms);
      invertInto(map, payload);
      clearTail(map, this.#options.ranges[i]!);
    }
    this.#requests = [];
    this.#options.dirty.replace(missing);
  }

  /** Sends everything that is missing; resolves when the destination says that it has it all. */
  async run(channel: Channel, inbox: Inbox): Promise<void> {
    const { dirty, sender, statistics, onProgress } = this.#options;
    for (;;) {
      const urgent = this.#requests.length > 0;
      const chunk = urgent ? this.#nextRequested() : dirty.take();
      if (chunk === undefined && urgent) continue;
      if (chunk === undefined) break;
      await sender.send(chunk);
      // A page that somebody waits for does not wait for a full frame.
      if (urgent) await sender.flush();
      statistics.remainingPages = dirty.pendingCount;
      onProgress();
      inbox.check();
    }
    await sender.drain();
    await channel.send({ kind: 'end' });
    await inbox.expect('whole', WHOLE_MS);
  }

  /** What was sent already needs no second time: it is on its way. */
  #nextRequested() {
    const [range, page] = this.#requests.shift()!;
    const chunk = this.#options.dirty.takeAround(range, page);
    if (chunk !== undefined) this.#options.statistics.pagesRequested++;
    return chunk;
  }
}

function invertInto(map: Uint32Array, received: Uint8Array): void {
  if (received.length !== map.byteLength) {
    throw new MigrationError(
      'protocol',
      `a map of ${received.length} bytes where ${map.byteLength} belong`,
    );
  }
  const bytes = new Uint8Array(map.buffer, map.byteOffset, map.byteLength);
  for (let i = 0; i < bytes.length; i++) bytes[i] = ~received[i]!;
}
