/**
 * The control socket: a Unix socket that only its owner may open. A socket that a dead process left
 * behind is replaced; one that is in use, or a file that is no socket, is not.
 */
import { chmod, link, lstat, mkdtemp, rm, unlink } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { MachineError } from '../machine-error.ts';
import { MonitorConnection } from './connection.ts';
import type { MachineSession } from './machine-session.ts';

/** Bytes of a socket's name, its final NUL included. Linux: sizeof(sun_path). */
const SUN_PATH_BYTES = 108;
/** Bytes that wait for a client that does not read; beyond that it is dropped. */
const UNREAD_BYTES_MAX = 4 * 1024 * 1024;

export interface MonitorOptions {
  readonly path: string;
  readonly version: string;
  readonly seconds: () => number;
}

export class MonitorServer {
  readonly #server: Server;
  readonly #path: string;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server, path: string) {
    this.#server = server;
    this.#path = path;
  }

  /** Listens at `path`. Rejects with `MachineError` where that cannot be. */
  static async listen(options: MonitorOptions, session: MachineSession): Promise<MonitorServer> {
    const { path } = options;
    await removeStale(path);
    const server = createServer();
    const monitor = new MonitorServer(server, path);
    server.on('connection', (socket) => monitor.#take(socket, options, session));
    await bind(server, path);
    return monitor;
  }

  /** Ends all connections when what was sent has gone, and removes the socket. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#sockets) socket.end();
    const late = setTimeout(() => this.#dropAll(), 1_000);
    await rm(this.#path, { force: true });
    await closed;
    clearTimeout(late);
  }

  #dropAll(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  #take(socket: Socket, { version, seconds }: MonitorOptions, session: MachineSession): void {
    this.#sockets.add(socket);
    const connection = new MonitorConnection({
      session,
      version,
      seconds,
      send: (line) => {
        socket.write(`${line}\n`);
        if (socket.writableLength > UNREAD_BYTES_MAX) socket.destroy();
      },
    });
    socket.on('data', (bytes) => connection.receive(bytes));
    // A client that is gone has no use for an error.
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      connection.close();
      this.#sockets.delete(socket);
    });
  }
}

/**
 * Makes the socket in a folder of its own, where nobody else can open it, and gives it its name
 * when its mode is right; a name that is taken meanwhile stays whose it is.
 */
async function bind(server: Server, path: string): Promise<void> {
  let folder: string | undefined;
  try {
    folder = await mkdtemp(join(dirname(path), '.granule-'));
    const made = join(folder, 's');
    if (Math.max(Buffer.byteLength(made), Buffer.byteLength(path)) >= SUN_PATH_BYTES) {
      throw new MachineError(`--monitor ${path}: the name is too long for a socket`);
    }
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(made, resolve);
    });
    server.removeAllListeners('error');
    await chmod(made, 0o600);
    await link(made, path);
  } catch (error) {
    server.close();
    if (error instanceof MachineError) throw error;
    throw new MachineError(`--monitor ${path}: cannot be made (${codeOf(error)})`);
  } finally {
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  }
}

/** Removes the socket of a process that is gone. */
async function removeStale(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found === undefined) return;
  if (!found.isSocket()) throw new MachineError(`--monitor ${path}: is there and is no socket`);
  if (await answers(path)) {
    throw new MachineError(`--monitor ${path}: a machine that runs listens there`);
  }
  await unlink(path).catch(() => {});
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error) => resolve(codeOf(error) !== 'ECONNREFUSED'));
  });
}

const codeOf = (error: unknown): string =>
  error instanceof Error && 'code' in error ? String(error.code) : String(error);
