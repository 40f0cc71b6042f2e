/**
 * A client of the control socket: sends commands, waits for their answers, hears events. Used by
 * `granule ctl` and `granule migrate`.
 */
import { connect, type Socket } from 'node:net';
import { z } from 'zod';
import { MachineError } from '../machine-error.ts';

const LineSchema = z.looseObject({
  QMP: z.unknown().optional(),
  return: z.unknown().optional(),
  error: z.looseObject({ class: z.string(), desc: z.string() }).optional(),
  event: z.string().optional(),
  data: z.record(z.string(), z.unknown()).optional(),
  id: z.unknown().optional(),
});
type Line = z.output<typeof LineSchema>;

export interface MonitorEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** Longest wait for the greeting or an answer: a machine looks at its socket between slices. */
const ANSWER_MS = 30_000;
/** What takes as long as a disk does. */
const UNHURRIED: ReadonlySet<string> = new Set(['snapshot-save']);

export class MonitorClient {
  /** Called for each event, with its line as it came. */
  onEvent: (event: MonitorEvent, line: string) => void = () => {};
  /** Resolves when the connection has ended. */
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #path: string;
  readonly #waiting = new Map<number, (line: Line | undefined) => void>();
  #greeted: (() => void) | undefined;
  #text = '';
  #nextId = 1;
  #ended = false;

  private constructor(socket: Socket, path: string) {
    this.#socket = socket;
    this.#path = path;
    socket.setEncoding('utf8');
    socket.on('data', (text) => this.#received(String(text)));
    this.closed = new Promise((resolve) => {
      socket.on('close', () => {
        this.#end();
        resolve();
      });
    });
  }

  /** Connects to `path` and reads the greeting. Rejects with `MachineError`. */
  static async connect(path: string): Promise<MonitorClient> {
    const socket = connect({ path });
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', (error) => {
        const code = 'code' in error ? String(error.code) : error.message;
        reject(new MachineError(`${path}: no machine listens there (${code})`));
      });
    });
    socket.removeAllListeners('error');
    socket.on('error', () => socket.destroy());
    const client = new MonitorClient(socket, path);
    await client.#greeting();
    return client;
  }

  /** What the command returns. Rejects with `MachineError`: its sentence where it fails. */
  async execute(command: string, given: object = {}): Promise<Record<string, unknown>> {
    const id = this.#nextId++;
    const answer = new Promise<Line | undefined>((resolve) => {
      if (this.#ended) resolve(undefined);
      else this.#waiting.set(id, resolve);
    });
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: given, id })}\n`);
    const line = await (UNHURRIED.has(command) ? answer : this.#inTime(answer));
    if (line === undefined) throw new MachineError(`${this.#path}: the machine is gone`);
    if (line.error !== undefined) throw new MachineError(line.error.desc);
    return z.record(z.string(), z.unknown()).parse(line.return);
  }

  close(): void {
    this.#socket.end();
  }

  async #greeting(): Promise<void> {
    const greeted = new Promise<void>((resolve) => {
      this.#greeted = resolve;
    });
    await this.#inTime(greeted);
    if (this.#ended) throw new MachineError(`${this.#path}: what listens there is no machine`);
  }

  #inTime<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new MachineError(`${this.#path}: no answer within ${ANSWER_MS / 1000} s`)),
        ANSWER_MS,
      );
      work.then(resolve, reject).finally(() => clearTimeout(timer));
    });
  }

  #received(text: string): void {
    this.#text += text;
    const lines = this.#text.split('\n');
    this.#text = lines.pop() ?? '';
    for (const line of lines) this.#take(line);
  }

  #take(text: string): void {
    const line = parseLine(text);
    if (line === undefined) {
      this.#socket.destroy();
    } else if (line.QMP !== undefined) {
      this.#greeted?.();
    } else if (line.event !== undefined) {
      this.onEvent({ event: line.event, data: line.data ?? {} }, text);
    } else if (typeof line.id === 'number') {
      this.#waiting.get(line.id)?.(line);
      this.#waiting.delete(line.id);
    }
  }

  #end(): void {
    this.#ended = true;
    this.#greeted?.();
    for (const resolve of this.#waiting.values()) resolve(undefined);
    this.#waiting.clear();
  }
}

function parseLine(text: string): Line | undefined {
  try {
    return LineSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}
