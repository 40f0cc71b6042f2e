/** cpio archives, read back as Linux reads them. */
import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { type InitramfsEntry, writeInitramfs } from './initramfs.ts';

interface Parsed {
  readonly path: string;
  readonly mode: string;
  readonly links: number;
  readonly device: string;
  readonly data: string;
}

/** Reads an archive as Linux does (init/initramfs.c): fixed header, name, data, padding. */
function parse(archive: Uint8Array): Parsed[] {
  const out: Parsed[] = [];
  const text = (from: number, length: number): string =>
    new TextDecoder('latin1').decode(archive.subarray(from, from + length));
  for (let at = 0; ; ) {
    expect(at % 4).toBe(0);
    expect(text(at, 6)).toBe('070701');
    const field = (i: number): number => Number.parseInt(text(at + 6 + i * 8, 8), 16);
    const nameBytes = field(11);
    const path = text(at + 110, nameBytes - 1);
    expect(archive[at + 110 + nameBytes - 1]).toBe(0);
    const dataAt = Math.ceil((at + 110 + nameBytes) / 4) * 4;
    if (path === 'TRAILER!!!') return out;
    out.push({
      path,
      mode: field(1).toString(8),
      links: field(4),
      device: `${field(9)}:${field(10)}`,
      data: text(dataAt, field(6)),
    });
    at = Math.ceil((dataAt + field(6)) / 4) * 4;
  }
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

describe('writeInitramfs', () => {
  it('writeInitramfs: each kind of entry, as Linux reads it', () => {
    const archive = writeInitramfs([
      { kind: 'file', path: 'init', bytes: bytes('#!/bin/sh\n'), mode: 0o755 },
      { kind: 'file', path: 'empty', bytes: bytes('') },
      { kind: 'directory', path: 'proc', mode: 0o555 },
      { kind: 'symlink', path: 'sh', target: 'bin/busybox' },
      { kind: 'character-device', path: 'console', major: 5, minor: 1 },
      { kind: 'block-device', path: 'vda', major: 254, minor: 16, mode: 0o660 },
    ]);
    expect(parse(archive)).toEqual([
      { path: 'init', mode: '100755', links: 1, device: '0:0', data: '#!/bin/sh\n' },
      { path: 'empty', mode: '100644', links: 1, device: '0:0', data: '' },
      { path: 'proc', mode: '40555', links: 2, device: '0:0', data: '' },
      { path: 'sh', mode: '120777', links: 1, device: '0:0', data: 'bin/busybox' },
      { path: 'console', mode: '20600', links: 1, device: '5:1', data: '' },
      { path: 'vda', mode: '60660', links: 1, device: '254:16', data: '' },
    ]);
  });

  it('writeInitramfs: names and data of every length, padded to 4', () => {
    const entries = Array.from(
      { length: 12 },
      (_, i): InitramfsEntry => ({
        kind: 'file',
        path: 'n'.repeat(i + 1),
        bytes: bytes('d'.repeat(12 - i)),
      }),
    );
    const parsed = parse(writeInitramfs(entries));
    expect(parsed.map(({ path, data }) => [path.length, data.length])).toEqual(
      entries.map((_, i) => [i + 1, 12 - i]),
    );
  });

  it('writeInitramfs: missing parents, added once and before their children', () => {
    const archive = writeInitramfs([
      { kind: 'file', path: 'a/b/c', bytes: bytes('') },
      { kind: 'file', path: 'a/d', bytes: bytes('') },
    ]);
    expect(parse(archive).map(({ path }) => path)).toEqual(['a', 'a/b', 'a/b/c', 'a/d']);
  });

  it('writeInitramfs: gzip, the same archive inside; twice, the same bytes', () => {
    const entries: InitramfsEntry[] = [{ kind: 'file', path: 'x', bytes: bytes('x') }];
    const packed = writeInitramfs(entries, { gzip: true });
    expect(Buffer.compare(gunzipSync(packed), writeInitramfs(entries))).toBe(0);
    expect(packed).toEqual(writeInitramfs(entries, { gzip: true }));
  });

  it.each(['/init', 'a//b', 'a/', ''])('writeInitramfs: path %j, an assertion', (path) => {
    expect(() => writeInitramfs([{ kind: 'directory', path }])).toThrow('relative and plain');
  });

  it('writeInitramfs: a path twice, an assertion', () => {
    const entry: InitramfsEntry = { kind: 'directory', path: 'a' };
    expect(() => writeInitramfs([entry, entry])).toThrow('once');
  });
});
