/**
 * The destination of a migration: a machine that has not run, and the links that are made to it,
 * one after the other. `serve` takes a link and talks until it ends; what a broken one leaves
 * behind, the next one finds. It neither listens nor chooses links: the caller does.
 *
 *     waiting ─► receiving ─► prepared ─► completed
 *        ▲           │           └──────► post-copy ⇄ paused
 *        └───────────┘                        └────► completed
 *
 * Until `run` has come the source may think again: what was received is thrown away when another
 * attempt begins, or when the source asks for its guest back. From `run` on the guest is here, and
 * a link that breaks is waited for.
 */
import { Channel } from './channel.ts';
import { differenceOf } from './description.ts';
import { clearTail, markAll, newPageMaps, type PageMaps } from './guest-ram.ts';
import { Inbox } from './inbox.ts';
import type { Link, Time } from './link.ts';
import { type Message, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN } from './messages.ts';
import type { MigratableMachine } from './migratable.ts';
import { MigrationError, migrationError } from './migration-error.ts';
import { MissingPages } from './missing-pages.ts';
import type { DestinationPhase, MigrationEvent } from './progress.ts';
import { parseRam } from './ram-codec.ts';
import { clearRam, RamReceiver } from './ram-receiver.ts';
import type { TagWriter } from './tag-transfer.ts';
import { type TagOptions, tagWriter } from './tags.ts';

type Hello = Extract<Message, { kind: 'hello' }>;
type Welcome = Extract<Message, { kind: 'welcome' }>;

const ANSWER_MS = 10_000;
/** Far above any machine's. */
const STATE_BYTES_MAX = 64 * 1024 * 1024;

export interface DestinationOptions {
  readonly tags: TagOptions;
}

export interface DestinationWorld {
  readonly time: Time;
  readonly onEvent?: (event: MigrationEvent<DestinationPhase>) => void;
}

/** What one attempt has brought so far. */
interface Attempt {
  readonly session: string;
  readonly guest: string;
  readonly receiver: RamReceiver;
  readonly tags: TagWriter;
  /** In post-copy: RAM that is not here. */
  missing: MissingPages | undefined;
  /** What has come of the maps of it where pre-copy turns into post-copy. */
  readonly absent: Uint32Array[];
  state: Uint8Array;
}

interface Talk {
  readonly channel: Channel;
  readonly inbox: Inbox;
}

export class MigrationDestination {
  /** Pages taken over, those that came again included. */
  receivedPages = 0;
  readonly #machine: MigratableMachine;
  readonly #options: DestinationOptions;
  readonly #world: DestinationWorld;
  #phase: DestinationPhase = { kind: 'waiting' };
  #attempt: Attempt | undefined;
  #talk: Talk | undefined;
  #serving: Promise<unknown> = Promise.resolve();
  /** Sessions whose guest went back: it may be asked again whether that is so. */
  readonly #revoked = new Set<string>();

  /** Preconditions: `machine` is held and has not run; what its memory holds goes. */
  constructor(machine: MigratableMachine, options: DestinationOptions, world: DestinationWorld) {
    this.#machine = machine;
    this.#options = options;
    this.#world = world;
  }

  get phase(): DestinationPhase {
    return this.#phase;
  }

  /**
   * Talks over `link` to its end and resolves with why it ended; undefined: all is done and no link
   * will be needed again.
   */
  async serve(link: Link): Promise<MigrationError | undefined> {
    const channel = new Channel(link);
    const inbox: Inbox = new Inbox(channel, this.#world.time, (message) =>
      this.#take(inbox, message),
    );
    const talk = { channel, inbox };
    try {
      const hello = await inbox.expect('hello', ANSWER_MS);
      if (this.#revoked.has(hello.session)) return await this.#confirmRevoked(talk, hello);
      await this.#admit(talk, hello);
      const served = this.#converse(talk, hello);
      this.#serving = served;
      return await served;
    } catch (error) {
      const reason = migrationError(error);
      inbox.close(reason);
      return reason;
    }
  }

  /**
   * Whether the link may take the place of what was before: throws where it may not. Ends the talk
   * that it replaces, whose end must not be taken for its own.
   */
  async #admit(talk: Talk, hello: Hello): Promise<void> {
    this.#checkAdmissible(hello);
    do {
      this.#talk?.inbox.close();
      await this.#serving;
    } while (this.#talk !== undefined);
    this.#talk = talk;
  }

  #checkAdmissible({ versions: [min, max], session, guest, purpose }: Hello): void {
    if (max < PROTOCOL_VERSION_MIN || min > PROTOCOL_VERSION) {
      throw new MigrationError(
        'version',
        `the source speaks versions ${min} to ${max} of the protocol, this granule ` +
          `${PROTOCOL_VERSION_MIN} to ${PROTOCOL_VERSION}`,
      );
    }
    const attempt = this.#attempt;
    if (attempt === undefined) return;
    const same = purpose === 'migrate' ? this.#mayBeginAgain(guest) : attempt.session === session;
    if (!same && this.#phase.kind === 'completed') {
      throw new MigrationError('machine', 'a guest runs here already');
    }
    if (!same) {
      throw new MigrationError('machine', 'another migration to this machine is under way');
    }
  }

  /** The source of a guest that was never told to run here has kept it, and tries again. */
  #mayBeginAgain(guest: string): boolean {
    const { kind } = this.#phase;
    const notRun = kind === 'receiving' || kind === 'prepared';
    return kind === 'waiting' || (notRun && this.#attempt?.guest === guest);
  }

  async #converse(talk: Talk, hello: Hello): Promise<MigrationError | undefined> {
    try {
      await this.#talkThrough(talk, hello);
      talk.inbox.close();
      this.#talk = undefined;
      return undefined;
    } catch (error) {
      const reason = migrationError(error);
      talk.inbox.close(reason);
      this.#talk = undefined;
      await this.#linkLost(reason);
      return reason;
    }
  }

  async #talkThrough(talk: Talk, hello: Hello): Promise<void> {
    const { channel, inbox } = talk;
    const status = this.#statusFor(hello);
    if (status === 'prepared' && hello.purpose === 'revoke') {
      this.#discard();
      this.#revoked.add(hello.session);
      this.#enter({ kind: 'waiting' });
      throw await this.#confirmRevoked(talk, hello);
    }
    await channel.send({ kind: 'welcome', version: versionFor(hello), status });
    if (status === 'new') await this.#receive(talk, hello);
    else if (status !== 'unknown') await this.#tellReceived(talk);
    if (this.#phase.kind === 'prepared') await this.#awaitRun(talk);
    if (this.#phase.kind === 'paused') this.#goOn();
    if (this.#phase.kind === 'post-copy') await this.#receiveMissing(talk);
    await inbox.expect('bye');
  }

  /** Says that the guest went back, as often as it is asked; resolves to why the link has ended. */
  async #confirmRevoked({ channel, inbox }: Talk, hello: Hello): Promise<MigrationError> {
    await channel.send({ kind: 'welcome', version: versionFor(hello), status: 'revoked' });
    await inbox.expect('bye');
    inbox.close();
    return new MigrationError('cancelled', 'the source has taken its guest back');
  }

  #statusFor({ purpose, session }: Hello): Welcome['status'] {
    if (purpose === 'migrate') return 'new';
    if (this.#attempt?.session !== session) return 'unknown';
    switch (this.#phase.kind) {
      case 'waiting':
      case 'receiving':
        return 'unknown';
      case 'prepared':
        return 'prepared';
      case 'post-copy':
      case 'paused':
        return 'post-copy';
      case 'completed':
        return 'running';
    }
  }

  /** From the description of the machine to `ready`. */
  async #receive({ channel, inbox }: Talk, { session, guest }: Hello): Promise<void> {
    const { description, mode } = await inbox.expect('machine', ANSWER_MS);
    const difference = differenceOf(description, this.#machine.description);
    if (difference !== undefined) throw new MigrationError('machine', difference);
    this.#begin({ session, guest, mode });
    await channel.send({ kind: 'accept' });
    const { stateBytes, running } = await inbox.expect('complete');
    const { state } = this.#attempt!;
    if (state.length !== stateBytes) {
      throw new MigrationError(
        'protocol',
        `${state.length} bytes of state where ${stateBytes} belong`,
      );
    }
    this.#machine.applyState(state);
    this.#machine.guestId = guest;
    this.#machine.paused = !running;
    this.#enter({ kind: 'prepared' });
    await channel.send({ kind: 'ready' });
  }

  #begin({ session, guest, mode }: Pick<Attempt, 'session' | 'guest'> & { mode: string }): void {
    this.#discard();
    const { ram } = this.#machine;
    const { time } = this.#world;
    clearRam(ram);
    const tags = tagWriter(ram, this.#options.tags, time);
    const all = newPageMaps(ram.ranges);
    markAll(all, ram.ranges);
    this.#attempt = {
      session,
      guest,
      tags,
      receiver: new RamReceiver(ram, tags),
      missing: mode === 'postcopy' ? this.#missing(all) : undefined,
      absent: [],
      state: new Uint8Array(0),
    };
    this.#enter({ kind: 'receiving' });
  }

  /** Throws away what an attempt has brought that came to nothing. */
  #discard(): void {
    const attempt = this.#attempt;
    if (attempt === undefined) return;
    this.#attempt = undefined;
    attempt.missing?.close();
    attempt.tags.close();
  }

  /** What is taken over as it comes in; the rest waits for its turn in the conversation. */
  #take(inbox: Inbox, message: Message): boolean {
    const { kind } = message;
    if (kind !== 'ram' && kind !== 'state' && kind !== 'missing') return false;
    const attempt = this.#attempt;
    if (attempt === undefined || this.#talk?.inbox !== inbox) {
      throw new MigrationError('protocol', `message '${kind}' before it was asked for`);
    }
    if (kind === 'state') this.#takeState(attempt, message.payload);
    else if (kind === 'missing') this.#takeMissing(attempt, message.payload);
    else this.#takeRam(attempt, message.payload);
    return true;
  }

  /** One map of what is out of date, a range each; with the last one pre-copy is post-copy. */
  #takeMissing(attempt: Attempt, payload: Uint8Array): void {
    const { ranges } = this.#machine.ram;
    const range = ranges[attempt.absent.length];
    if (this.#phase.kind !== 'receiving' || attempt.missing !== undefined || range === undefined) {
      throw new MigrationError('protocol', `message 'missing' in phase '${this.#phase.kind}'`);
    }
    const [map] = newPageMaps([range]);
    if (payload.length !== map!.byteLength) {
      throw new MigrationError(
        'protocol',
        `a map of ${payload.length} bytes where ${map!.byteLength} belong`,
      );
    }
    new Uint8Array(map!.buffer).set(payload);
    clearTail(map!, range);
    attempt.absent.push(map!);
    if (attempt.absent.length === ranges.length) attempt.missing = this.#missing(attempt.absent);
  }

  #missing(absent: PageMaps): MissingPages {
    return new MissingPages(this.#machine.ram, absent, () => this.#request());
  }

  #takeState(attempt: Attempt, payload: Uint8Array): void {
    if (this.#phase.kind !== 'receiving') {
      throw new MigrationError('protocol', "message 'state' when the state is complete");
    }
    const { state } = attempt;
    if (state.length + payload.length > STATE_BYTES_MAX) {
      throw new MigrationError('protocol', `more than ${STATE_BYTES_MAX} bytes of state`);
    }
    attempt.state = new Uint8Array(state.length + payload.length);
    attempt.state.set(state);
    attempt.state.set(payload, state.length);
  }

  #takeRam({ receiver, missing }: Attempt, payload: Uint8Array): void {
    const { kind } = this.#phase;
    if (kind !== (missing === undefined ? 'receiving' : 'post-copy')) {
      throw new MigrationError('protocol', `message 'ram' in phase '${kind}'`);
    }
    for (const run of parseRam(payload, this.#machine.ram.ranges)) {
      if (missing === undefined) receiver.receive(run);
      else missing.install(run);
      this.receivedPages += run.pageCount;
    }
    this.#world.onEvent?.({ kind: 'progress', phase: this.#phase });
  }

  async #awaitRun({ channel, inbox }: Talk): Promise<void> {
    await inbox.expect('run');
    const postCopy = this.#attempt!.missing !== undefined;
    this.#enter({ kind: postCopy ? 'post-copy' : 'completed' });
    if (!postCopy) this.#attempt!.tags.close();
    this.#machine.release();
    await channel.send({ kind: 'running' });
  }

  /**
   * Runs the guest without the source's word: the caller knows that it does not run there. False
   * where a link is up, memory is missing, or nothing has come.
   */
  force(): boolean {
    if (this.#phase.kind !== 'prepared' || this.#talk !== undefined) return false;
    if (this.#attempt!.missing !== undefined) return false;
    this.#attempt!.tags.close();
    this.#enter({ kind: 'completed' });
    this.#machine.release();
    return true;
  }

  // ---- post-copy ------------------------------------------------------------------------------

  async #receiveMissing({ channel, inbox }: Talk): Promise<void> {
    const { missing, tags } = this.#attempt!;
    const waiting = missing!.awaited();
    if (waiting.length > 0) await channel.send({ kind: 'request', pages: waiting });
    await inbox.expect('end');
    if (missing!.missingCount > 0) {
      throw new MigrationError(
        'protocol',
        `the end of memory with ${missing!.missingCount} pages left`,
      );
    }
    missing!.close();
    tags.close();
    this.#enter({ kind: 'completed' });
    await channel.send({ kind: 'whole' });
  }

  /** Somebody waits for a page that is not here. */
  #request(): void {
    const { missing } = this.#attempt!;
    const pages = this.#phase.kind === 'post-copy' ? missing!.takeFaults() : [];
    // A link that breaks is heard of by who receives from it; the pages are asked for again.
    if (pages.length > 0) this.#talk?.channel.send({ kind: 'request', pages }).catch(() => {});
  }

  async #tellReceived({ channel }: Talk): Promise<void> {
    const { missing } = this.#attempt!;
    if (missing === undefined || this.#phase.kind === 'completed') return;
    for (const payload of missing.receivedMaps()) await channel.send({ kind: 'received', payload });
  }

  #goOn(): void {
    this.#enter({ kind: 'post-copy' });
    this.#machine.release();
  }

  /** What becomes of the guest without a link. */
  async #linkLost(error: MigrationError): Promise<void> {
    switch (this.#phase.kind) {
      case 'receiving':
        this.#discard();
        this.#enter({ kind: 'waiting' });
        break;
      case 'post-copy':
        this.#enter({ kind: 'paused', error });
        await this.#machine.hold();
        break;
      case 'waiting':
      case 'prepared':
      case 'paused':
      case 'completed':
        break;
    }
  }

  #enter(phase: DestinationPhase): void {
    this.#phase = phase;
    this.#world.onEvent?.({ kind: 'phase', phase });
  }
}

const versionFor = ({ versions: [, max] }: Hello): number => Math.min(max, PROTOCOL_VERSION);
