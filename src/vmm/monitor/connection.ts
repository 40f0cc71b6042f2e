/**
 * One client of the control socket: JSON lines in QMP's manner. Greets, answers each line in turn,
 * passes on events. Whatever a client sends, it gets an answer and the connection lives on; only a
 * line without an end is cut off. Knows no sockets: bytes in, lines out.
 */
import { z } from 'zod';
import type { DestinationPhase, SourcePhase } from '../migration/progress.ts';
import { type Answer, runCommand } from './commands.ts';
import type { MachineSession, SessionEvent } from './machine-session.ts';
import { migrationReport, migrationStatus } from './migration-report.ts';
import { MonitorError } from './monitor-error.ts';

/** The longest line that is read, in bytes. */
export const LINE_BYTES_MAX = 64 * 1024;

/** Any value, as in QMP, but for one that nests too deep to be written again. */
const IdSchema = z.unknown().refine((value) => {
  try {
    return JSON.stringify(value) !== undefined;
  } catch {
    return false;
  }
});

const RequestSchema = z.strictObject({
  execute: z.string(),
  arguments: z.record(z.string(), z.unknown()).optional(),
  id: IdSchema.optional(),
});

const NEWLINE = 0x0a;

export interface ConnectionOptions {
  readonly session: MachineSession;
  /** Takes a line to be sent, without its newline. */
  readonly send: (line: string) => void;
  /** Seconds since 1970, for events. */
  readonly seconds: () => number;
  /** Of granule: MAJOR.MINOR.MICRO. */
  readonly version: string;
}

export class MonitorConnection {
  readonly #options: ConnectionOptions;
  readonly #stopListening: () => void;
  readonly #line = new Uint8Array(LINE_BYTES_MAX);
  #length = 0;
  /** The rest of a line that was too long is passed over. */
  #tooLong = false;
  /** Lines that are not answered yet, in turn; undefined: one that was too long. */
  readonly #lines: (string | undefined)[] = [];
  /** A command takes its time; the lines behind it wait. */
  #isBusy = false;

  /** Greets the client. */
  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#send({ QMP: { version: versionOf(options.version), capabilities: [] } });
    this.#stopListening = options.session.listen((event) => this.#tell(event));
  }

  /** Takes what the client has sent, however it was cut into pieces. */
  receive(bytes: Uint8Array): void {
    for (const byte of bytes) {
      if (byte === NEWLINE) this.#endLine();
      else if (this.#length < LINE_BYTES_MAX) this.#line[this.#length++] = byte;
      else this.#tooLong = true;
    }
  }

  /** The client is gone. */
  close(): void {
    this.#stopListening();
  }

  #endLine(): void {
    const text = new TextDecoder().decode(this.#line.subarray(0, this.#length));
    this.#lines.push(this.#tooLong ? undefined : text);
    this.#length = 0;
    this.#tooLong = false;
    if (!this.#isBusy) void this.#answerAll();
  }

  /** Answers at once, up to a command that cannot. */
  async #answerAll(): Promise<void> {
    this.#isBusy = true;
    while (this.#lines.length > 0) {
      const text = this.#lines.shift();
      if (text === undefined) this.#fail(generic(`a line of more than ${LINE_BYTES_MAX} bytes`));
      else if (text.trim() !== '') {
        const answered = this.#answer(text);
        if (answered !== undefined) await answered;
      }
    }
    this.#isBusy = false;
  }

  #answer(text: string): Promise<void> | undefined {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      this.#fail(generic('the line is not JSON'));
      return undefined;
    }
    const id = idOf(value);
    const request = RequestSchema.safeParse(value);
    if (!request.success) {
      this.#fail(generic('the line is no {"execute": NAME, "arguments": {…}, "id": VALUE}'), id);
      return undefined;
    }
    const { execute, arguments: given } = request.data;
    const failed = (error: unknown): void => {
      if (!(error instanceof MonitorError)) throw error;
      this.#fail(error, id);
    };
    try {
      const answer = runCommand(this.#options.session, execute, given);
      if (answer instanceof Promise) return answer.then((late) => this.#reply(late, id), failed);
      this.#reply(answer, id);
    } catch (error) {
      failed(error);
    }
    return undefined;
  }

  #reply(answer: Answer, id: unknown): void {
    this.#send({ return: answer, ...(id === undefined ? {} : { id }) });
  }

  #fail({ code, message }: MonitorError, id?: unknown): void {
    this.#send({
      error: { class: code, desc: message },
      ...(id === undefined ? {} : { id }),
    });
  }

  #tell(event: SessionEvent): void {
    const told = eventOf(event, this.#options.session);
    if (told === undefined) return;
    const now = Math.round(this.#options.seconds() * 1e6);
    const seconds = Math.floor(now / 1e6);
    const microseconds = now % 1e6;
    this.#send({ ...told, timestamp: { seconds, microseconds } });
  }

  #send(message: object): void {
    this.#options.send(JSON.stringify(message));
  }
}

const generic = (sentence: string): MonitorError => new MonitorError('GenericError', sentence);

function idOf(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || !('id' in value)) return undefined;
  return IdSchema.safeParse(value.id).data;
}

function versionOf(version: string) {
  const [major = 0, minor = 0, micro = 0] = version.split('.').map(Number);
  return { granule: { major, minor, micro }, package: `granule ${version}` };
}

/** An event as QMP calls it; undefined: nothing to say to a client. */
function eventOf(
  event: SessionEvent,
  session: MachineSession,
): { event: string; data?: object } | undefined {
  switch (event.kind) {
    case 'stop':
      return { event: 'STOP' };
    case 'resume':
      return { event: 'RESUME' };
    case 'reset':
      return { event: 'RESET', data: { guest: true } };
    case 'shutdown':
      return {
        event: 'SHUTDOWN',
        data: { guest: event.reason === 'power-off', reason: event.reason },
      };
    case 'migration':
      return { event: 'MIGRATION', data: migrationData(event.phase, session) };
    case 'progress':
    case 'link-lost':
      return undefined;
  }
}

/** With the report where the migration has ended: a machine whose guest has gone may go at once. */
function migrationData(phase: SourcePhase | DestinationPhase, session: MachineSession): object {
  const ended = ['completed', 'failed', 'cancelled'].includes(phase.kind);
  return {
    status: migrationStatus(phase),
    ...(ended ? { report: migrationReport(session) } : {}),
  };
}
