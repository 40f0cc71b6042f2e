/** Links over TCP and TLS: what may be reached how, who is let in, and what a broken one says. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls, createServer } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { addressText, isLoopback, parseAddress, requireLoopback } from './address.ts';
import type { Link } from './link.ts';
import { connectTcp, TcpListener } from './tcp.ts';
import {
  clientOptions,
  readCertificates,
  readPsk,
  type TlsCredentials,
  type TlsEnd,
} from './tls.ts';

const folder = mkdtempSync(join(tmpdir(), 'granule-tcp-'));
afterAll(() => rmSync(folder, { recursive: true }));

const LOOPBACK = { host: '127.0.0.1', port: 0 };
const KEY = 'd731ef57be09e5204f0b205b60627028';

function keyFile(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

const psk = (name: string, key: string, identity = 'granule'): TlsCredentials =>
  readPsk(keyFile(name, `${identity}:${key}\n`));

describe('addresses', () => {
  it.each([
    ['tcp:127.0.0.1:4444', { host: '127.0.0.1', port: 4444 }],
    ['tcp:host.example:1', { host: 'host.example', port: 1 }],
    ['tcp:[::1]:65535', { host: '::1', port: 65535 }],
  ])('address: %s, and back', (text, address) => {
    expect(parseAddress(text)).toEqual(address);
    expect(addressText(address)).toBe(text);
  });

  it.each(['', 'tcp:', 'tcp:h', 'tcp:h:', 'tcp:h:x', 'tcp:h:65536', 'tcp:::1:4', 'unix:/s', 'h:4'])(
    'address: %j, refused',
    (text) => {
      expect(() => parseAddress(text)).toThrow('not an address like tcp:127.0.0.1:4444');
    },
  );

  it.each([
    ['127.0.0.1', true],
    ['127.9.9.9', true],
    ['::1', true],
    ['localhost', true],
    ['0.0.0.0', false],
    ['::', false],
    ['192.0.2.1', false],
    ['127.example', false],
    ['localhost.example', false],
  ])('address: %s is loopback: %s', (host, loopback) => {
    expect(isLoopback(host)).toBe(loopback);
    const use = () => requireLoopback({ host, port: 1 });
    if (loopback) expect(use).not.toThrow();
    else expect(use).toThrow('needs TLS');
  });
});

/** A listener that answers what it is sent, reversed. */
async function echo(options: Parameters<typeof TcpListener.listen>[0]): Promise<TcpListener> {
  return TcpListener.listen(options, (link) => void answer(link).catch(() => {}));
}

async function answer(link: Link): Promise<void> {
  const bytes = await link.receive();
  if (bytes !== undefined) await link.send(bytes.slice().reverse());
}

describe('links', () => {
  it('tcp: bytes there and back; closed by one end, the other reads to the end', async () => {
    const listener = await echo(LOOPBACK);
    const link = await connectTcp(listener.address);
    await link.send(Uint8Array.of(1, 2, 3));
    expect([...(await link.receive())!]).toEqual([3, 2, 1]);
    listener.close();
    expect(await link.receive()).toBeUndefined();
    await expect(link.send(Uint8Array.of(1))).rejects.toThrow('closed the link');
  });

  it('tcp: nobody listens, one sentence', async () => {
    const listener = await echo(LOOPBACK);
    const { address } = listener;
    listener.close();
    await expect(connectTcp(address)).rejects.toThrow(
      /^tcp:127\.0\.0\.1:\d+: nobody listens there$/,
    );
  });

  it('tcp: a port that is taken, one sentence', async () => {
    const listener = await echo(LOOPBACK);
    await expect(echo(listener.address)).rejects.toThrow(/: the port is taken$/);
    listener.close();
  });

  it('tcp: an address that is not loopback without TLS, refused at both ends', async () => {
    await expect(connectTcp({ host: '192.0.2.1', port: 1 })).rejects.toThrow('needs TLS');
    await expect(echo({ host: '0.0.0.0', port: 0 })).rejects.toThrow('needs TLS');
  });
});

describe('TLS with a pre-shared key', () => {
  const tls = readPsk(keyFile('key', `granule:${KEY}\n`));

  it('tls: the same key, also where it is not loopback', async () => {
    const listener = await echo({ host: '0.0.0.0', port: 0, tls });
    const link = await connectTcp({ host: '127.0.0.1', port: listener.address.port, tls });
    await link.send(Uint8Array.of(1, 2));
    expect([...(await link.receive())!]).toEqual([2, 1]);
    link.close();
    listener.close();
  });

  it.each([
    ['another key', `granule:${'0'.repeat(32)}`],
    ['another name', `someone:${KEY}`],
  ])('tls: %s, no link', async (name, text) => {
    const links: Link[] = [];
    const listener = await TcpListener.listen({ ...LOOPBACK, tls }, (link) => links.push(link));
    const other = readPsk(keyFile(name, text));
    await expect(connectTcp({ ...listener.address, tls: other })).rejects.toThrow('tcp:127.0.0.1');
    expect(links).toEqual([]);
    listener.close();
  });

  it('tls: a client without TLS, no link', async () => {
    const links: Link[] = [];
    const listener = await TcpListener.listen({ ...LOOPBACK, tls }, (link) => links.push(link));
    const link = await connectTcp(listener.address);
    await link.send(new Uint8Array(100)).catch(() => {});
    await link.receive().catch(() => undefined);
    expect(links).toEqual([]);
    listener.close();
  });

  it.each([
    ['no file', join(folder, 'none'), 'cannot be read (ENOENT)'],
    ['a key that is short', keyFile('short', 'granule:1234'), 'not identity:key'],
    ['no hexadecimal', keyFile('hex', `granule:${'g'.repeat(32)}`), 'not identity:key'],
    ['half a byte', keyFile('odd', `granule:${KEY}0`), 'not identity:key'],
    ['nothing', keyFile('empty', ''), 'not identity:key'],
  ])('tls: %s, one sentence', (_, path, sentence) => {
    expect(() => readPsk(path)).toThrow(sentence);
  });

  it('tls: certificates that are not there, one sentence', () => {
    expect(() => readCertificates(folder, 'server')).toThrow('ca-cert.pem: cannot be read');
  });
});

/** A link from a client to a server, each with credentials or none: what both ends say of it. */
async function meet(
  server: TlsCredentials | undefined,
  client: TlsCredentials | undefined,
  host = '127.0.0.1',
) {
  const refusals: string[] = [];
  let links = 0;
  const listener = await TcpListener.listen(
    { ...LOOPBACK, ...(server && { tls: server }) },
    (link) => {
      links++;
      void answer(link).catch(() => {});
    },
    ({ message }) => refusals.push(message.replace('somebody was not let in: ', '')),
  );
  const { port } = listener.address;
  const say = async (): Promise<string> => {
    const link = await connectTcp({ host, port, ...(client && { tls: client }) });
    await link.send(Buffer.from('a record of TLS is longer'));
    const bytes = await link.receive();
    link.close();
    return Buffer.from(bytes ?? []).toString();
  };
  const said = await say().catch((error: Error) => error.message.replace(/^tcp:\S+ /, ''));
  listener.close();
  return { said, links, refusals };
}

describe('TLS with certificates', () => {
  const certificates = (name: string, end: TlsEnd): TlsCredentials =>
    readCertificates(
      fileURLToPath(new URL(`../../../test/data/tls/${name}`, import.meta.url)),
      end,
    );
  const server = certificates('good', 'server');
  const client = certificates('good', 'client');

  it.each(['127.0.0.1', 'localhost'])(
    'tls: both known to each other as %s, a link',
    async (host) => {
      expect(await meet(server, client, host)).toEqual({
        said: 'regnol si SLT fo drocer a',
        links: 1,
        refusals: [],
      });
    },
  );

  const silent = 'closed the link without a word: ';
  const stranger = "the peer's certificate is not of the authority in ca-cert.pem";
  const expired = "the peer's certificate has expired";
  const purpose = "the peer's certificate is for the other end of a link";

  it.each([
    ['a client of another authority', server, certificates('stranger', 'client'), stranger],
    ['a client that has expired', server, certificates('expired', 'client'), expired],
    ['a client that is a server', server, certificates('good', 'server'), purpose],
    ['a client with a key in place of a certificate', server, psk('psk', KEY), undefined],
  ])('tls: %s, no link', async (_, at, from, reason) => {
    const { said, links, refusals } = await meet(at, from);
    expect(links).toBe(0);
    if (reason === undefined) return;
    expect(refusals).toEqual([reason]);
    expect(said).toBe(`${silent}it may not take our credentials`);
  });

  it.each([
    ['a server of another authority', certificates('stranger', 'server'), stranger],
    ['a server that has expired', certificates('expired', 'server'), expired],
    [
      'a server that is somebody else',
      certificates('elsewhere', 'server'),
      "the peer's certificate is for another host",
    ],
    ['a server that is a client', client, purpose],
    ['a server without TLS', undefined, 'the peer speaks no TLS'],
  ])('tls: %s, no link', async (_, at, reason) => {
    expect((await meet(at, client)).said).toBe(reason);
  });

  it('tls: a client without a certificate, no link', async () => {
    const refusals: string[] = [];
    const links: Link[] = [];
    const listener = await TcpListener.listen(
      { ...LOOPBACK, tls: server },
      (link) => links.push(link),
      ({ message }) => refusals.push(message),
    );
    const ca = client.kind === 'certificates' ? client.ca : '';
    const socket = connectTls({ ca, host: '127.0.0.1', port: listener.address.port });
    const error = await new Promise<Error>((resolve) => socket.once('error', resolve));
    expect(error).toMatchObject({ code: 'ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED' });
    expect(links).toEqual([]);
    expect(refusals).toEqual([expect.stringContaining('the peer has no certificate')]);
    listener.close();
  });

  it('tls: a client without TLS, no link and a word about why', async () => {
    const { said, links, refusals } = await meet(server, undefined);
    expect([said, links]).toEqual([`${silent}it may want TLS`, 0]);
    expect(refusals).toEqual(['the peer speaks no TLS']);
  });
});

describe('TLS with a key, and somebody who has none', () => {
  const folder = fileURLToPath(new URL('../../../test/data/tls/good', import.meta.url));
  const impostor = readCertificates(folder, 'server');
  const reason = 'the peer shows a certificate and does not prove that it has the key';

  it('tls: a server with a certificate that nobody vouches for, no link', async () => {
    expect(await meet(impostor, psk('four', KEY))).toMatchObject({ said: reason, links: 0 });
  });

  it('tls: a server with a certificate that the system trusts, no link', async () => {
    if (impostor.kind !== 'certificates') throw new Error('a server with a certificate');
    const { ca, certificate, key } = impostor;
    const server = createServer({ cert: certificate, key }, (socket) => socket.end('welcome'));
    await new Promise<void>((resolve) => server.listen({ host: '127.0.0.1', port: 0 }, resolve));
    const { port } = server.address() as AddressInfo;
    // As if `ca` were one of the system's.
    const socket = connectTls({ host: '127.0.0.1', port, ...clientOptions(psk('five', KEY)), ca });
    const error = await new Promise<Error>((resolve) => {
      socket.once('error', resolve);
      socket.once('secureConnect', () => resolve(new Error('it was let in')));
    });
    expect(error.message).toBe(reason);
    server.close();
  });
});

describe('TLS with keys that differ', () => {
  const key = psk('one', KEY);

  it.each([
    ['another key', psk('two', '0'.repeat(32)), 'the pre-shared keys differ'],
    ['another name', psk('three', KEY, 'someone'), 'the peer does not know our identity or key'],
  ])('tls: %s, the sentence', async (_, other, sentence) => {
    expect(await meet(key, other)).toMatchObject({ said: sentence, links: 0 });
  });
});
