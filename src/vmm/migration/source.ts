/**
 * The source of a migration, from the first byte to the guest's end here. `run` does it all; the
 * rounds are `pre-copy.ts`, what follows a guest that runs elsewhere `post-copy-source.ts`.
 *
 * The guest is never in two places. Until `ready` has come the source can go on as if nothing had
 * been: the destination does not run before `run`, and `run` is sent only when the source has given
 * its guest up. A link that breaks behind that point is made again until the destination has said
 * what became of the guest; nothing here runs meanwhile. It may be asked to give back what it has
 * not run (`cancel`); only `force` lets the guest go on here without its answer.
 */
import { Channel } from './channel.ts';
import { DirtyPages } from './dirty-pages.ts';
import { Inbox } from './inbox.ts';
import { type Link, sleep, type Time } from './link.ts';
import { type Message, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN } from './messages.ts';
import type { MigratableMachine } from './migratable.ts';
import { MigrationError, migrationError } from './migration-error.ts';
import { Pace } from './pace.ts';
import { PageSender } from './page-sender.ts';
import { PostCopySource } from './post-copy-source.ts';
import { preCopy } from './pre-copy.ts';
import {
  type MigrationEvent,
  type MigrationStatistics,
  newStatistics,
  type SourcePhase,
} from './progress.ts';
import type { TagReader } from './tag-transfer.ts';
import { type TagOptions, tagReader } from './tags.ts';
import { Throttle } from './throttle.ts';

export type MigrationMode = 'precopy' | 'postcopy';

export interface SourceOptions {
  readonly mode: MigrationMode;
  readonly tags: TagOptions;
  /** The longest the guest may stand still at the end of pre-copy. */
  readonly downtimeLimitMs: number;
  /** While the guest runs; absent: as fast as it goes. */
  readonly bandwidthMax?: number;
  /** Holds a guest back that writes faster than pre-copy sends. */
  readonly autoConverge?: boolean;
  /** Rounds of pre-copy after which the rest of memory follows the guest; absent: none. */
  readonly postCopyAfterRounds?: number;
  /** Of this attempt: 32 hexadecimal digits that no other has. */
  readonly session: string;
}

export interface SourceWorld {
  readonly time: Time;
  /**
   * Makes a link to the destination; called again when one broke. Rejects with `MigrationError`.
   */
  readonly connect: () => Promise<Link>;
  readonly onEvent?: (event: MigrationEvent<SourcePhase>) => void;
}

export type SourceOutcome =
  /** The guest runs there. */
  | { readonly kind: 'completed' }
  /** The guest is here, and as it was. */
  | { readonly kind: 'failed'; readonly error: MigrationError }
  | { readonly kind: 'cancelled' }
  /** Given up by `abandon` after the guest was handed over: it is there, or lost. */
  | { readonly kind: 'abandoned'; readonly error: MigrationError }
  /** By `force` the guest goes on here; what the destination has of it must never run. */
  | { readonly kind: 'forced'; readonly error: MigrationError };

/** For answers that the peer gives at once. */
const ANSWER_MS = 10_000;
/** For `ready`: what is in flight has to be taken over first. */
const READY_MS = 60_000;
/** Between attempts to make a broken link again: from the first to the longest. */
const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 5_000;

/** A link that has said hello. */
interface Connection {
  readonly channel: Channel;
  readonly inbox: Inbox;
  readonly status: Extract<Message, { kind: 'welcome' }>['status'];
}

export class MigrationSource {
  readonly statistics: MigrationStatistics = newStatistics();
  readonly #machine: MigratableMachine;
  readonly #options: SourceOptions;
  readonly #world: SourceWorld;
  readonly #dirty: DirtyPages;
  readonly #beganMs: number;
  #phase: SourcePhase = { kind: 'connecting' };
  #tags: TagReader | undefined;
  #sender: PageSender | undefined;
  #postCopy: PostCopySource | undefined;
  #inbox: Inbox | undefined;
  #held = false;
  /** Memory follows the guest, from the beginning or since pre-copy was given up. */
  #followsGuest: boolean;
  #wantsPostCopy = false;
  #stoppedAtMs: number | undefined;
  #committed = false;
  #cancelled = false;
  /** The destination has said that the guest runs there. */
  #runsThere = false;
  /** The destination answers. */
  #isReached = false;
  /** The destination is not asked any more. */
  #givenUp: 'abandoned' | 'forced' | undefined;
  #cutRetryShort: () => void = () => {};

  constructor(machine: MigratableMachine, options: SourceOptions, world: SourceWorld) {
    this.#machine = machine;
    this.#options = options;
    this.#world = world;
    this.#followsGuest = options.mode === 'postcopy';
    this.#dirty = new DirtyPages(machine.ram);
    this.#beganMs = world.time.nowMs();
  }

  get downtimeLimitMs(): number {
    return this.#options.downtimeLimitMs;
  }

  get phase(): SourcePhase {
    return this.#phase;
  }

  /** Migrates; resolves when the guest's place is settled. Call once. */
  async run(): Promise<SourceOutcome> {
    this.#enter({ kind: 'connecting' });
    try {
      this.#prepare();
      const connection = await this.#connect('migrate');
      await this.#sendMachine(connection);
      // A log that keeps tags has to be kept for post-copy, too.
      if (this.#options.mode === 'precopy' || this.#options.tags.policy === 'dirty-log') {
        this.#dirty.start();
      }
      if (this.#options.mode === 'precopy') await this.#preCopy(connection);
      await this.#stopAndCopy(connection);
      this.#committed = true;
      return await this.#handOver(connection);
    } catch (error) {
      return this.#backOut(migrationError(error));
    }
  }

  /**
   * Keeps the guest here. Where it has been handed over and the link broke, the destination is
   * asked for it when it is reached, and the guest comes back if it has not run there. False where
   * it has.
   */
  cancel(): boolean {
    if (this.#runsThere) return false;
    this.#cancelled = true;
    if (!this.#committed) this.#inbox?.close(cancelled());
    this.#cutRetryShort();
    return true;
  }

  /**
   * Lets a guest that was handed over go on here, though the destination has not said what became
   * of it: the caller knows that it does not run there and never will. False unless the link is
   * broken and the destination does not answer.
   */
  force(): boolean {
    if (this.#phase.kind !== 'recovering' || this.#isReached) return false;
    this.#end('forced');
    return true;
  }

  /**
   * Ends pre-copy here and now: what is left of memory follows the guest. False where no pre-copy
   * goes on or is to come.
   */
  startPostCopy(): boolean {
    const { kind } = this.#phase;
    if (this.#followsGuest || (kind !== 'connecting' && kind !== 'pre-copy')) return false;
    this.#wantsPostCopy = true;
    return true;
  }

  /** Tries at once to make a broken link again. */
  recover(): void {
    this.#cutRetryShort();
  }

  /** Stops trying to make a broken link again: `run` resolves with 'abandoned'. */
  abandon(): void {
    this.#end('abandoned');
  }

  #end(how: 'abandoned' | 'forced'): void {
    this.#givenUp ??= how;
    this.#inbox?.close();
    this.#cutRetryShort();
  }

  /** What has to be there before anything is sent; refusals of the machine come from here. */
  #prepare(): void {
    const { ram } = this.#machine;
    this.#tags = tagReader(ram, this.#options.tags, this.#world.time);
    this.#sender = new PageSender({
      ram,
      dirty: this.#dirty,
      tags: this.#tags,
      statistics: this.statistics,
    });
  }

  async #connect(purpose: Extract<Message, { kind: 'hello' }>['purpose']): Promise<Connection> {
    const { time, connect } = this.#world;
    const channel = new Channel(await connect());
    const inbox = new Inbox(channel, time, (message) => this.#postCopy?.take(message) ?? false);
    this.#inbox = inbox;
    if (this.#givenUp !== undefined) inbox.close();
    if (purpose === 'migrate' && this.#cancelled) throw cancelled();
    await channel.send({
      kind: 'hello',
      protocol: 'granule-migration',
      versions: [PROTOCOL_VERSION_MIN, PROTOCOL_VERSION],
      session: this.#options.session,
      guest: this.#machine.guestId,
      purpose,
    });
    const { version, status } = await inbox.expect('welcome', ANSWER_MS);
    if (version < PROTOCOL_VERSION_MIN || version > PROTOCOL_VERSION) {
      throw new MigrationError(
        'version',
        `the destination speaks version ${version} of the protocol`,
      );
    }
    this.#isReached = true;
    const { bandwidthMax } = this.#options;
    this.#sender!.use(channel, new Pace(time, bandwidthMax, () => inbox.check()));
    return { channel, inbox, status };
  }

  async #sendMachine({ channel, inbox }: Connection): Promise<void> {
    const { description } = this.#machine;
    await channel.send({ kind: 'machine', description, mode: this.#options.mode });
    await inbox.expect('accept', ANSWER_MS);
  }

  async #preCopy({ inbox }: Connection): Promise<void> {
    const { time } = this.#world;
    const { downtimeLimitMs, autoConverge, postCopyAfterRounds = Infinity } = this.#options;
    const throttle = new Throttle(time, this.#machine);
    try {
      const end = await preCopy({
        dirty: this.#dirty,
        sender: this.#sender!,
        statistics: this.statistics,
        time,
        downtimeLimitMs,
        ...(autoConverge === true ? { throttle } : {}),
        wantsPostCopy: (rounds) => this.#wantsPostCopy || rounds >= postCopyAfterRounds,
        onRound: (round) => {
          this.#enter({ kind: 'pre-copy', round, throttlePercent: throttle.percent });
        },
        check: () => {
          inbox.check();
          this.#progress();
        },
      });
      this.#followsGuest = end === 'switch';
    } finally {
      throttle.stop();
    }
  }

  /** The guest stands still; what is left of its memory (in pre-copy) and its state are sent. */
  async #stopAndCopy({ channel, inbox }: Connection): Promise<void> {
    this.#enter({ kind: 'stop-and-copy' });
    this.#held = true;
    this.#stoppedAtMs = this.#world.time.nowMs();
    await this.#machine.hold();
    inbox.check();
    if (this.#options.mode === 'precopy') {
      this.#dirty.collect();
      if (this.#followsGuest) await this.#sendMissing(channel);
      else await this.#sendRest(inbox, channel);
    }
    const state = this.#machine.captureState();
    this.statistics.bytes += state.length;
    await channel.send({ kind: 'state', payload: state });
    await channel.send({
      kind: 'complete',
      stateBytes: state.length,
      running: !this.#machine.paused,
    });
    await inbox.expect('ready', READY_MS);
    inbox.check();
  }

  /** Everything dirty, at full speed: nobody is served by waiting now. */
  async #sendRest(inbox: Inbox, channel: Channel): Promise<void> {
    this.#sender!.use(channel, new Pace(this.#world.time, undefined, () => inbox.check()));
    for (let chunk = this.#dirty.take(); chunk !== undefined; chunk = this.#dirty.take()) {
      if ((await this.#sender!.send(chunk)) !== undefined) {
        throw new MigrationError('machine', 'tags of a guest that stands still were not kept');
      }
      inbox.check();
    }
    await this.#sender!.drain();
  }

  /** What of the memory that was sent is out of date, and follows. */
  async #sendMissing(channel: Channel): Promise<void> {
    for (const { buffer } of this.#dirty.pending) {
      await channel.send({ kind: 'missing', payload: new Uint8Array(buffer) });
    }
  }

  /** From here on the guest is the destination's; ends when it says that it has it all. */
  async #handOver(first: Connection): Promise<SourceOutcome> {
    let connection: Connection | undefined = first;
    let retryMs = RETRY_MS_MIN;
    this.#enter({ kind: 'handing-over' });
    for (;;) {
      try {
        connection ??= await this.#connect(this.#asksBack ? 'revoke' : 'resume');
        const end = await this.#finish(connection);
        await connection.channel.send({ kind: 'bye' }).catch(() => {});
        this.#inbox?.close();
        if (end === 'revoked') return this.#backOut(cancelled());
        this.#close();
        this.#enter({ kind: 'completed' });
        return { kind: 'completed' };
      } catch (error) {
        const failure = migrationError(error);
        this.#inbox?.close();
        this.#isReached = false;
        connection = undefined;
        if (this.#givenUp !== undefined) return this.#giveUp(this.#givenUp, failure);
        this.#enter({ kind: 'recovering', error: failure });
        await this.#retryAfter(retryMs);
        retryMs = Math.min(2 * retryMs, RETRY_MS_MAX);
        if (this.#givenUp !== undefined) return this.#giveUp(this.#givenUp, failure);
      }
    }
  }

  /** The guest is wanted back, and may not have run there. */
  get #asksBack(): boolean {
    return this.#cancelled && !this.#runsThere;
  }

  async #finish(connection: Connection): Promise<'moved' | 'revoked'> {
    const { channel, inbox, status } = connection;
    if (status === 'unknown') {
      throw new MigrationError('refused', 'the destination knows nothing of this guest any more');
    }
    if (status === 'revoked') return 'revoked';
    this.#runsThere ||= status === 'running' || status === 'post-copy';
    if (status === 'running') return 'moved';
    const postCopy = this.#followsGuest;
    if (postCopy) this.#beginPostCopy();
    else if (status === 'post-copy') {
      throw new MigrationError('protocol', 'the destination is in post-copy, this source is not');
    }
    if (postCopy && status !== 'new') await this.#postCopy!.learnReceived(inbox, ANSWER_MS);
    if (status !== 'post-copy') {
      await channel.send({ kind: 'run' });
      await inbox.expect('running', ANSWER_MS);
      this.#runsThere = true;
      this.statistics.downtimeMs = this.#world.time.nowMs() - this.#stoppedAtMs!;
    }
    if (!postCopy) return 'moved';
    this.#enter({ kind: 'post-copy' });
    await this.#postCopy!.run(channel, inbox);
    return 'moved';
  }

  #beginPostCopy(): void {
    if (this.#postCopy !== undefined) return;
    // Where pre-copy was given up, what it left is pending already.
    if (this.#options.mode === 'postcopy') this.#dirty.markAll();
    this.statistics.remainingPages = this.#dirty.pendingCount;
    this.#postCopy = new PostCopySource({
      dirty: this.#dirty,
      sender: this.#sender!,
      statistics: this.statistics,
      ranges: this.#machine.ram.ranges,
      onProgress: () => this.#progress(),
    });
  }

  #retryAfter(ms: number): Promise<void> {
    const { time } = this.#world;
    return Promise.race([
      sleep(time, ms),
      new Promise<void>((resolve) => {
        this.#cutRetryShort = resolve;
      }),
    ]);
  }

  /** Nothing was handed over: the guest goes on here as before. */
  #backOut(error: MigrationError): SourceOutcome {
    this.#close();
    this.#inbox?.close(error);
    if (this.#held) this.#machine.release();
    if (this.#cancelled) {
      this.#enter({ kind: 'cancelled' });
      return { kind: 'cancelled' };
    }
    this.#enter({ kind: 'failed', error });
    return { kind: 'failed', error };
  }

  #giveUp(how: 'abandoned' | 'forced', last: MigrationError): SourceOutcome {
    this.#close();
    const error =
      how === 'abandoned'
        ? last
        : new MigrationError(
            'cancelled',
            'the guest goes on here by force, and must never run at the destination',
          );
    if (how === 'forced') this.#machine.release();
    this.#enter({ kind: 'failed', error });
    return { kind: how, error };
  }

  #close(): void {
    this.#dirty.stop();
    this.#takeStock();
    this.#tags?.close();
    this.#tags = undefined;
  }

  #takeStock(): void {
    this.statistics.totalMs = this.#world.time.nowMs() - this.#beganMs;
    if (this.#tags !== undefined) Object.assign(this.statistics.tags, this.#tags.cost);
  }

  #progress(): void {
    this.#takeStock();
    this.#world.onEvent?.({ kind: 'progress', phase: this.#phase });
  }

  #enter(phase: SourcePhase): void {
    this.#phase = phase;
    this.#world.onEvent?.({ kind: 'phase', phase });
  }
}

const cancelled = (): MigrationError => new MigrationError('cancelled', 'the source cancelled');
