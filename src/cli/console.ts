/**
 * The guest's console on the process's own terminal or pipes. A terminal is put into raw mode and
 * given back on every way out, signals included; a pipe or file is read as it is and its end ends
 * nothing. Ours (messages, traces) goes to stderr, the guest's to stdout.
 */
import { fstatSync, readFileSync } from 'node:fs';
import type { MachineConsole } from '../vmm/machine-options.ts';
import { EscapeFilter } from './escape.ts';

/** What of a process the console needs. */
export interface ConsoleHost {
  readonly stdin: NodeJS.ReadableStream & {
    readonly isTTY?: boolean;
    readonly fd?: number;
    setRawMode?: (raw: boolean) => unknown;
    unref?: () => unknown;
  };
  readonly stdout: NodeJS.WritableStream;
  readonly stderr: NodeJS.WritableStream;
  /** Where signals and 'exit' come from: `process`. */
  readonly events: NodeJS.EventEmitter;
}

const LEAVING_SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGTERM: 15 } as const;
const HELP = ['', 'Ctrl-a h       this help', 'Ctrl-a x       quit', 'Ctrl-a Ctrl-a  send Ctrl-a'];
const NEWLINE = 0x0a;
/** Output waits for a newline, this many bytes, or the event loop: a system call a byte is slow. */
const OUTPUT_BATCH_BYTES = 4096;

type Listener = (chunk: Uint8Array) => void;

/** The console of `host` from construction to `close`. */
export class ProcessConsole implements MachineConsole {
  readonly #host: ConsoleHost;
  readonly #isTerminal: boolean;
  readonly #output: OutputBatch;
  readonly #input = new InputQueue();
  readonly #escapes = new EscapeFilter();
  readonly #quit = new AbortController();
  readonly #listening: [NodeJS.EventEmitter, string, Listener][] = [];
  #signalNumber: number | undefined;
  #closed = false;

  constructor(host: ConsoleHost) {
    this.#host = host;
    this.#isTerminal = host.stdin.isTTY === true;
    this.#output = new OutputBatch(host.stdout);
    // Never taken off: what is flushed last may still fail, and nobody reading (EPIPE) means leave.
    host.stdout.on('error', () => this.#quit.abort());
    this.#on(host.events, 'exit', () => this.close());
    this.#on(host.events, 'SIGCONT', () => this.#setRaw(true));
    for (const [name, number] of Object.entries(LEAVING_SIGNALS)) {
      this.#on(host.events, name, () => this.#leave(number));
    }
    this.#setRaw(true);
    this.#openInput();
  }

  /** Aborted by Ctrl-a x, by a signal, or when nobody reads the output. */
  get quit(): AbortSignal {
    return this.#quit.signal;
  }

  /** The signal that asked to leave, as a number, if one did. */
  get signalNumber(): number | undefined {
    return this.#signalNumber;
  }

  write(bytes: Uint8Array): void {
    this.#output.write(bytes);
  }

  onInput(listener: (bytes: Uint8Array) => void): () => void {
    return this.#input.subscribe(listener);
  }

  setInputPaused(paused: boolean): void {
    if (this.#closed) return;
    if (paused) this.#host.stdin.pause();
    else this.#host.stdin.resume();
  }

  /** Prints a line of ours; raw mode as Node makes it still turns newlines into CR LF. */
  say(line: string): void {
    this.#output.flush();
    this.#host.stderr.write(`${line}\n`);
  }

  /** Flushes, gives the terminal back and lets go of stdin; may be called again. */
  close(): void {
    if (this.#closed) return;
    this.#output.flush();
    this.#setRaw(false);
    this.#closed = true;
    for (const [emitter, event, listener] of this.#listening) {
      emitter.removeListener(event, listener);
    }
    this.#host.stdin.pause();
    this.#host.stdin.unref?.();
  }

  #openInput(): void {
    const { stdin } = this.#host;
    const file = this.#isTerminal ? undefined : fileContents(stdin.fd);
    if (file !== undefined) {
      this.#input.push(file);
      return;
    }
    this.#on(stdin, 'error', () => {}); // a terminal that went away: SIGHUP says so too
    this.#on(stdin, 'data', (chunk) => this.#typed(chunk));
  }

  #typed(chunk: Uint8Array): void {
    if (!this.#isTerminal) {
      this.#input.push(chunk);
      return;
    }
    const { toGuest, commands } = this.#escapes.feed(chunk);
    this.#input.push(toGuest);
    for (const command of commands) {
      if (command === 'quit') this.#quit.abort();
      else for (const line of HELP) this.say(line);
    }
  }

  /** The first signal asks the machine to end; after a second one the next is fatal again. */
  #leave(signalNumber: number): void {
    if (this.#signalNumber !== undefined) this.close();
    this.#signalNumber = signalNumber;
    this.#quit.abort();
  }

  #setRaw(raw: boolean): void {
    if (this.#isTerminal) this.#host.stdin.setRawMode?.(raw);
  }

  #on(emitter: NodeJS.EventEmitter, event: string, listener: Listener): void {
    emitter.on(event, listener);
    this.#listening.push([emitter, event, listener]);
  }
}

/** All of a regular file on `fd` at once, so that it arrives at the same instruction each run. */
function fileContents(fd: number | undefined): Uint8Array | undefined {
  try {
    return fd !== undefined && fstatSync(fd).isFile() ? readFileSync(fd) : undefined;
  } catch {
    return undefined; // closed: there is no input
  }
}

class OutputBatch {
  readonly #stream: NodeJS.WritableStream;
  readonly #bytes = new Uint8Array(OUTPUT_BATCH_BYTES);
  #length = 0;
  #scheduled = false;

  constructor(stream: NodeJS.WritableStream) {
    this.#stream = stream;
  }

  write(bytes: Uint8Array): void {
    for (const byte of bytes) {
      this.#bytes[this.#length++] = byte;
      if (byte === NEWLINE || this.#length === OUTPUT_BATCH_BYTES) this.flush();
    }
    if (this.#length === 0 || this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.flush();
    });
  }

  flush(): void {
    if (this.#length === 0) return;
    this.#stream.write(this.#bytes.slice(0, this.#length));
    this.#length = 0;
  }
}

/** Keeps what was typed before anybody listened. */
class InputQueue {
  #early: Uint8Array[] = [];
  #listener: ((bytes: Uint8Array) => void) | undefined;

  push(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    if (this.#listener === undefined) this.#early.push(bytes);
    else this.#listener(bytes);
  }

  subscribe(listener: (bytes: Uint8Array) => void): () => void {
    this.#listener = listener;
    const early = this.#early;
    this.#early = [];
    for (const bytes of early) listener(bytes);
    return () => {
      if (this.#listener === listener) this.#listener = undefined;
    };
  }
}
