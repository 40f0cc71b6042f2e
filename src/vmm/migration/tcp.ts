/**
 * Links over TCP, in the clear on loopback and with TLS elsewhere: `connectTcp` makes one, a
 * `TcpListener` takes them. What Node reports as errors of a socket becomes `MigrationError`
 * 'link'.
 */
import { connect, createServer, type Server, type Socket } from 'node:net';
import { connect as connectTls, createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { addressText, requireLoopback, type TcpAddress } from './address.ts';
import type { Link } from './link.ts';
import { MigrationError } from './migration-error.ts';
import { clientOptions, serverOptions, type TlsCredentials, tlsReason } from './tls.ts';

export interface TcpOptions extends TcpAddress {
  /** Needed wherever the address is not loopback. */
  readonly tls?: TlsCredentials;
}

/** To make a connection, TLS included. */
const CONNECT_MS = 10_000;
/** After the end was sent: for the peer to take what is under way. */
const LINGER_MS = 2_000;
/** Bytes received and not asked for at which the sender is held back. */
const READ_AHEAD_BYTES = 1024 * 1024;

/** A link to `address`. Rejects with `MigrationError` 'address' or 'link'. */
export async function connectTcp(options: TcpOptions): Promise<Link> {
  const { host, port, tls } = options;
  if (tls === undefined) requireLoopback(options);
  const peer = addressText(options);
  const target = { host, port, highWaterMark: READ_AHEAD_BYTES };
  const socket =
    tls === undefined ? connect(target) : connectTls({ ...target, ...clientOptions(tls) });
  await established(socket, peer, tls);
  const silence = tls === undefined ? 'it may want TLS' : 'it may not take our credentials';
  return new SocketLink(socket, peer, silence);
}

function established(socket: Socket, peer: string, tls?: TlsCredentials): Promise<void> {
  const event = tls === undefined ? 'connect' : 'secureConnect';
  return new Promise((resolve, reject) => {
    const fail = (reason: string): void => {
      socket.destroy();
      reject(new MigrationError('link', `${peer}: ${reason}`));
    };
    socket.setTimeout(CONNECT_MS, () => fail(`no connection within ${CONNECT_MS} ms`));
    socket.once('error', (error) => {
      const cutShort = tls !== undefined && codeOf(error) === 'ECONNRESET';
      const short = 'the peer ended the link at once: it may speak no TLS';
      fail(cutShort ? short : reasonOf(error, tls?.kind));
    });
    socket.once(event, () => {
      socket.setTimeout(0);
      socket.removeAllListeners('error');
      socket.removeAllListeners('timeout');
      resolve();
    });
  });
}

/** Takes links on an address until it is closed. */
export class TcpListener {
  readonly #server: Server;
  readonly #links = new Set<SocketLink>();

  private constructor(server: Server) {
    this.#server = server;
  }

  /**
   * Listens and gives each link to `onLink`; `onRefused` hears of those that TLS did not let in.
   * Rejects with `MigrationError` 'address' or 'link'.
   */
  static async listen(
    options: TcpOptions,
    onLink: (link: Link) => void,
    onRefused: (error: MigrationError) => void = () => {},
  ): Promise<TcpListener> {
    const { host, port, tls } = options;
    if (tls === undefined) requireLoopback(options);
    const server =
      tls === undefined
        ? createServer({ highWaterMark: READ_AHEAD_BYTES })
        : createTlsServer(serverOptions(tls));
    const listener = new TcpListener(server);
    server.on(tls === undefined ? 'connection' : 'secureConnection', (socket: Socket | TLSSocket) =>
      listener.#take(socket, onLink),
    );
    server.on('tlsClientError', (error: Error, socket: TLSSocket) =>
      onRefused(refusal(error, socket)),
    );
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error) =>
        reject(new MigrationError('link', `${addressText(options)}: ${reasonOf(error)}`)),
      );
      server.listen({ host, port }, resolve);
    });
    server.removeAllListeners('error');
    // A connection that fails before it is one concerns nobody.
    server.on('error', () => {});
    return listener;
  }

  /** Where it listens: the port that was free, if none was named. */
  get address(): TcpAddress {
    const address = this.#server.address();
    if (address === null || typeof address === 'string') return { host: '', port: 0 };
    return { host: address.address, port: address.port };
  }

  /** Takes no further links and ends those there are. */
  close(): void {
    this.#server.close();
    for (const link of this.#links) link.close();
  }

  #take(socket: Socket, onLink: (link: Link) => void): void {
    const link = new SocketLink(socket, peerOf(socket));
    this.#links.add(link);
    socket.once('close', () => this.#links.delete(link));
    onLink(link);
  }
}

const peerOf = ({ remoteAddress = 'somebody who is gone', remotePort = 0 }: Socket): string =>
  addressText({ host: remoteAddress, port: remotePort });

/** Why a client was not let in: who it was is forgotten by now. */
function refusal(error: Error, { authorizationError: code }: TLSSocket): MigrationError {
  const known = typeof code === 'string' ? tlsReason(code) : undefined;
  const left =
    codeOf(error) === 'ECONNRESET' ? 'it went: it may not take our certificate' : undefined;
  const reason = known ?? left ?? reasonOf(error);
  return new MigrationError('link', `somebody was not let in: ${reason}`);
}

/** A connected socket as a link. */
class SocketLink implements Link {
  readonly peer: string;
  readonly #socket: Socket;
  readonly #chunks: Uint8Array[] = [];
  #bytes = 0;
  #failure: MigrationError | undefined;
  #ended = false;
  #wake: (() => void) | undefined;
  /** What it may mean that the peer goes without a word; undefined: it has said something. */
  #silence: string | undefined;

  constructor(socket: Socket, peer: string, silence?: string) {
    this.peer = peer;
    this.#socket = socket;
    this.#silence = silence;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 5_000);
    socket.on('data', (chunk) => this.#received(chunk));
    socket.on('end', () => this.#closed());
    socket.on('close', () => this.#closed());
    socket.on('error', (error) => {
      this.#failure ??= new MigrationError('link', `${peer}: ${reasonOf(error)}`);
      this.#over();
    });
  }

  send(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#ended) {
        reject(this.#failure ?? new MigrationError('link', `${this.peer} closed the link`));
        return;
      }
      // Called back when the bytes are the kernel's: then there is room for more.
      this.#socket.write(bytes, (error) => {
        if (error === null || error === undefined) resolve();
        else
          reject(this.#failure ?? new MigrationError('link', `${this.peer}: ${reasonOf(error)}`));
      });
    });
  }

  async receive(): Promise<Uint8Array | undefined> {
    for (;;) {
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) {
        this.#bytes -= chunk.length;
        if (this.#socket.isPaused() && this.#bytes < READ_AHEAD_BYTES) this.#socket.resume();
        return chunk;
      }
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#ended) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  close(): void {
    this.#over();
    if (this.#socket.destroyed) return;
    this.#socket.resume();
    this.#socket.end();
    const linger = setTimeout(() => this.#socket.destroy(), LINGER_MS);
    linger.unref();
    this.#socket.once('close', () => clearTimeout(linger));
  }

  #received(chunk: Uint8Array): void {
    if (this.#ended) return;
    this.#silence = undefined;
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    if (this.#bytes >= READ_AHEAD_BYTES) this.#socket.pause();
    this.#wake?.();
  }

  #closed(): void {
    if (!this.#ended && this.#silence !== undefined) {
      this.#failure ??= new MigrationError(
        'link',
        `${this.peer} closed the link without a word: ${this.#silence}`,
      );
    }
    this.#over();
  }

  #over(): void {
    this.#ended = true;
    this.#wake?.();
  }
}

/** What the operating system says, in words. */
const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nobody listens there',
  ECONNRESET: 'the peer is gone',
  EPIPE: 'the peer is gone',
  ETIMEDOUT: 'the peer does not answer',
  EHOSTUNREACH: 'there is no way to the host',
  ENETUNREACH: 'there is no way to the host',
  ENOTFOUND: 'there is no such host',
  EAI_AGAIN: 'there is no such host',
  EADDRINUSE: 'the port is taken',
  EADDRNOTAVAIL: 'the address is not one of this machine',
  EACCES: 'the port needs more rights',
};

/** What went wrong, in words where they are known; one line. `ours`: see `tlsReason`. */
function reasonOf(error: Error, ours?: TlsCredentials['kind']): string {
  const code = codeOf(error);
  const [sentence = ''] = error.message.split('\n');
  if (code === undefined) return sentence;
  return REASONS[code] ?? tlsReason(code, ours) ?? `${code.toLowerCase()} (${sentence})`;
}

const codeOf = (error: Error): string | undefined =>
  'code' in error && typeof error.code === 'string' ? error.code : undefined;
