/** Links over TCP and TLS: what may be reached how, who is let in, and what a broken one says. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { addressText, isLoopback, parseAddress, requireLoopback } from './address.ts';
import type { Link } from './link.ts';
import { connectTcp, TcpListener } from './tcp.ts';
import { readCertificates, readPsk } from './tls.ts';

const folder = mkdtempSync(join(tmpdir(), 'granule-tcp-'));
afterAll(() => rmSync(folder, { recursive: true }));

const LOOPBACK = { host: '127.0.0.1', port: 0 };
const KEY = 'd731ef57be09e5204f0b205b60627028';

function keyFile(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

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
    await expect(connectTcp(address)).rejects.toThrow(/^tcp:127\.0\.0\.1:\d+: econnrefused/);
  });

  it('tcp: a port that is taken, one sentence', async () => {
    const listener = await echo(LOOPBACK);
    await expect(echo(listener.address)).rejects.toThrow('eaddrinuse');
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
