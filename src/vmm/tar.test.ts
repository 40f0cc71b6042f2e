/** One file out of a tar stream in any chunking. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { findInTar } from './tar.ts';

interface Entry {
  readonly path: string;
  readonly type?: string;
  readonly bytes?: Uint8Array;
  readonly prefix?: string;
}

/** A ustar archive, without checksums: the reader relies on what carries it. */
function tar(entries: readonly Entry[]): Uint8Array {
  const blocks = entries.map(({ path, type = '0', bytes = new Uint8Array(0), prefix = '' }) => {
    const out = new Uint8Array(512 + Math.ceil(bytes.length / 512) * 512);
    const put = (text: string, at: number): void => out.set(new TextEncoder().encode(text), at);
    put(path, 0);
    put(bytes.length.toString(8).padStart(11, '0'), 124);
    put(type, 156);
    put('ustar\0', 257);
    put(prefix, 345);
    out.set(bytes, 512);
    return out;
  });
  return Buffer.concat([...blocks, new Uint8Array(1024)]);
}

async function* chunks(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

const find = (archive: Uint8Array, path: string, chunkBytes = 700) =>
  findInTar(chunks(archive, chunkBytes), (candidate) => candidate === path);

const body = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => i % 251);

describe('findInTar', () => {
  it('findInTar: in any chunking, the file whole', async () => {
    const archive = tar([
      { path: './', type: '5' },
      { path: './boot/config', bytes: body(1500) },
      { path: './boot/vmlinuz', bytes: body(5000) },
    ]);
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 6000 }), async (size) => {
        const found = await find(archive, 'boot/vmlinuz', size);
        expect(found).toEqual({ path: 'boot/vmlinuz', bytes: body(5000) });
      }),
      { numRuns: 40 },
    );
  });

  it('findInTar: found, the rest of the stream is not asked for', async () => {
    const archive = tar([{ path: 'a', bytes: body(10) }]);
    async function* stream() {
      yield archive.subarray(0, 1024);
      throw new Error('read on');
    }
    expect((await findInTar(stream(), () => true))?.bytes).toEqual(body(10));
  });

  it('findInTar: a directory or link of that name, passed over', async () => {
    const archive = tar([
      { path: 'bin/busybox', type: '5' },
      { path: 'bin/busybox', type: '2' },
      { path: 'bin/busybox', bytes: body(3) },
    ]);
    expect((await find(archive, 'bin/busybox'))?.bytes).toEqual(body(3));
  });

  it('findInTar: long paths, by prefix and by GNU long name', async () => {
    const long = `${'d/'.repeat(80)}file`;
    const archive = tar([
      { path: 'file', prefix: 'usr/share', bytes: body(1) },
      { path: '././@LongLink', type: 'L', bytes: new TextEncoder().encode(`./${long}\0`) },
      { path: long.slice(0, 100), bytes: body(2) },
      { path: 'after', bytes: body(4) },
    ]);
    expect((await find(archive, 'usr/share/file'))?.bytes).toEqual(body(1));
    expect((await find(archive, long))?.bytes).toEqual(body(2));
    expect((await find(archive, 'after'))?.bytes).toEqual(body(4));
  });

  it('findInTar: no such file, or cut at any block, undefined', async () => {
    const archive = tar([{ path: 'a', bytes: body(2000) }]);
    expect(await find(archive, 'b')).toBeUndefined();
    for (const end of [0, 100, 512, 1000, 2500]) {
      expect(await find(archive.subarray(0, end), 'a')).toBeUndefined();
    }
  });
});
