/** The Debian fetcher on a system whose apt and dpkg are scripts; no network. */
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { defaultCacheFolder, fetchDebian } from './debian.ts';

/**
 * A system with a package manager of scripts. `apt-get` logs how it was called and serves empty
 * .deb files; `dpkg-deb` gives a tar with the files that its package has.
 */
class FakeSystem {
  readonly root = mkdtempSync(join(tmpdir(), 'granule-apt-'));
  readonly bin = join(this.root, 'bin');
  readonly cache = join(this.root, 'the cache');
  readonly log = join(this.root, 'log');
  readonly osRelease = join(this.root, 'os-release');

  constructor() {
    mkdirSync(this.bin);
    writeFileSync(this.log, '');
    this.isDistribution('debian');
    this.program('apt-cache', APT_CACHE);
    this.program('apt-get', APT_GET);
    this.program('dpkg-deb', DPKG_DEB);
    for (const [name, path, text] of [
      ['kernel', './boot/vmlinuz-6.1.0-9-arm64', 'kernel'],
      ['busybox', './bin/busybox', 'busybox'],
      ['keyring', './usr/share/keyrings/debian-archive-keyring.gpg', 'keys'],
    ] as const) {
      writeFileSync(join(this.bin, `${name}.tar`), tarOf(path, text));
    }
  }

  program(name: string, script: string): void {
    writeFileSync(join(this.bin, name), `#!/bin/sh\nbin=${this.bin}\nlog=${this.log}\n${script}`);
    chmodSync(join(this.bin, name), 0o755);
  }

  /** `keyringRoot`: where the host's copy of Debian's keyring is looked for. */
  isDistribution(id: string): void {
    writeFileSync(this.osRelease, `NAME="x"\nID=${id}\n`);
  }

  fetch(onProgress: (text: string) => void = () => {}) {
    return fetchDebian({
      cacheFolder: this.cache,
      osReleasePath: this.osRelease,
      hostRoot: this.root,
      onProgress,
    });
  }

  calls(): string[] {
    return readFileSync(this.log, 'utf8').split('\n').slice(0, -1);
  }

  cached(): string[] {
    return readdirSync(join(this.cache, 'debian')).sort();
  }
}

// $bin/no-arm64: the host's own sources lack arm64. $bin/offline: no mirror answers.
const STATE = `
own=no; folder=
for word in "$@"; do
  case "$word" in
    Dir::Etc::sourcelist=*) own=$(cat "\${word#*=}") ;;
    *apt.conf) folder="\${word%/apt.conf}" ;;
  esac
  last="$word"
done
arm64=yes
case "$own" in
  no) [ -e $bin/no-arm64 ] && arm64=no ;;
  *bullseye*) arm64=no ;;
  *) [ -e $bin/old-keys ] && [ "$(cat "$folder/etc/keys/archive.gpg")" != keys ] && arm64=no ;;
esac
[ -e $bin/offline ] && arm64=no
`;
const APT_CACHE = `${STATE}
case "$last" in
  linux-image-arm64) [ $arm64 = yes ] && printf 'x\\n  Depends: linux-image-6.1.0-9-arm64\\n' ;;
  busybox-static) [ $arm64 = yes ] && echo 'Package: busybox-static' ;;
  debian-archive-keyring) [ ! -e $bin/offline ] && echo 'Package: debian-archive-keyring' ;;
esac
true
`;
const APT_GET = `${STATE}
echo "apt-get $last ($(echo "$own" | head -n 1))" >> $log
case "$*" in
  *" update")
    [ -e $bin/offline ] && echo 'W: Failed to fetch  http://mirror/x  Cannot resolve' >&2
    [ "$own" != no ] && [ $arm64 = no ] && echo 'E: The repository is not signed.' >&2
    ;;
  *" download "*)
    [ -e $bin/no-download ] && { echo 'E: Hash Sum mismatch' >&2; exit 100; }
    : > "\${last}_1_arm64.deb"
    ;;
esac
true
`;
const DPKG_DEB = `
case "$2" in
  */linux-image-*) cat $bin/kernel.tar ;;
  */busybox-static*) cat $bin/busybox.tar ;;
  */debian-archive-keyring*) cat $bin/keyring.tar ;;
esac
`;

function tarOf(path: string, text: string): Uint8Array {
  const out = Buffer.alloc(512 * 4);
  out.write(path, 0);
  out.write(text.length.toString(8).padStart(11, '0'), 124);
  out.write('0', 156);
  out.write(text, 512);
  return out;
}

let system: FakeSystem;
const path = process.env.PATH;

beforeEach(() => {
  system = new FakeSystem();
  process.env.PATH = `${system.bin}${delimiter}${path}`;
});

afterEach(() => {
  process.env.PATH = path;
  rmSync(system.root, { recursive: true });
});

const flag = (name: string): void => writeFileSync(join(system.bin, name), '');

const ARCHIVE = 'deb [arch=arm64] http://deb.debian.org/debian bookworm main';
const PREVIOUS = 'deb [arch=arm64] http://deb.debian.org/debian bullseye main';

describe('fetchDebian: on Debian', () => {
  it('fetchDebian: the host sources, kernel and busybox in the cache, nothing else left', async () => {
    const guest = await system.fetch();
    expect(guest.kernelVersion).toBe('6.1.0-9-arm64');
    expect(readFileSync(guest.kernelPath, 'utf8')).toBe('kernel');
    expect(readFileSync(guest.busyboxPath, 'utf8')).toBe('busybox');
    expect(system.calls()).toEqual([
      'apt-get update (no)',
      'apt-get linux-image-6.1.0-9-arm64 (no)',
      'apt-get busybox-static (no)',
    ]);
    expect(system.cached()).toEqual([
      expect.stringMatching(/^busybox-[0-9a-f]{12}$/),
      'manifest.json',
      expect.stringMatching(/^vmlinuz-6\.1\.0-9-arm64-[0-9a-f]{12}$/),
    ]);
  });

  it('fetchDebian: a second time, from the cache and silent', async () => {
    const first = await system.fetch();
    const calls = system.calls().length;
    const said: string[] = [];
    expect(await system.fetch((text) => said.push(text))).toEqual(first);
    expect([system.calls().length, said]).toEqual([calls, []]);
  });

  it.each([
    ['a cached file is damaged', (file: string) => writeFileSync(file, 'kernex')],
    ['a cached file is gone', (file: string) => rmSync(file)],
    [
      'the manifest is no JSON',
      () => writeFileSync(join(system.cache, 'debian/manifest.json'), '{'),
    ],
    [
      'the manifest is another version',
      () => writeFileSync(join(system.cache, 'debian/manifest.json'), '{"version":2}'),
    ],
  ])('fetchDebian: %s, fetched again', async (_, damage) => {
    damage((await system.fetch()).kernelPath);
    const again = await system.fetch();
    expect(readFileSync(again.kernelPath, 'utf8')).toBe('kernel');
    expect(system.calls().filter((call) => call.includes('update'))).toHaveLength(2);
  });

  it('fetchDebian: two at once, both have all and no temporary file stays', async () => {
    const [a, b] = await Promise.all([system.fetch(), system.fetch()]);
    expect(a).toEqual(b);
    expect(system.cached()).toHaveLength(3);
  });

  it('fetchDebian: host sources without arm64, the archive of Debian with the host keyring', async () => {
    flag('no-arm64');
    mkdirSync(join(system.root, 'usr/share/keyrings'), { recursive: true });
    writeFileSync(join(system.root, 'usr/share/keyrings/debian-archive-keyring.gpg'), 'keys');
    await system.fetch();
    expect(system.calls().slice(0, 2)).toEqual([
      'apt-get update (no)',
      `apt-get update (${ARCHIVE})`,
    ]);
  });
});

describe('fetchDebian: elsewhere', () => {
  beforeEach(() => system.isDistribution('ubuntu'));

  it('fetchDebian: no keyring on the host, one from its sources and then Debian', async () => {
    const guest = await system.fetch();
    expect(guest.kernelVersion).toBe('6.1.0-9-arm64');
    expect(system.calls()).toEqual([
      'apt-get update (no)',
      'apt-get debian-archive-keyring (no)',
      `apt-get update (${ARCHIVE})`,
      `apt-get linux-image-6.1.0-9-arm64 (${ARCHIVE})`,
      `apt-get busybox-static (${ARCHIVE})`,
    ]);
  });

  it('fetchDebian: a keyring too old for the release, renewed from the one before', async () => {
    flag('old-keys');
    mkdirSync(join(system.root, 'usr/share/keyrings'), { recursive: true });
    writeFileSync(join(system.root, 'usr/share/keyrings/debian-archive-keyring.gpg'), 'old');
    await system.fetch();
    expect(system.calls().slice(0, 4)).toEqual([
      `apt-get update (${ARCHIVE})`,
      `apt-get update (${PREVIOUS})`,
      `apt-get debian-archive-keyring (${PREVIOUS})`,
      `apt-get update (${ARCHIVE})`,
    ]);
  });
});

describe('fetchDebian: refusals', () => {
  const refused = (code: string, sentence: RegExp) =>
    expect(system.fetch()).rejects.toThrow(
      expect.objectContaining({
        name: 'FetchError',
        code,
        message: expect.stringMatching(sentence),
      }),
    );

  it.each(['debian', 'ubuntu'])('fetchDebian: no network on %s, what apt said', async (id) => {
    system.isDistribution(id);
    flag('offline');
    await refused('update-failed', /cannot be fetched: Failed to fetch http:\/\/mirror\/x Cannot/);
    expect(system.cached()).toEqual([]);
  });

  it('fetchDebian: no apt, said so', async () => {
    process.env.PATH = join(system.root, 'empty');
    await refused('apt-missing', /^apt-get is not installed/);
  });

  it('fetchDebian: no dpkg, said so', async () => {
    rmSync(join(system.bin, 'dpkg-deb'));
    for (const tool of ['cat', 'head']) {
      system.program(tool, `PATH=${path} exec ${tool} "$@"`);
    }
    process.env.PATH = system.bin;
    await refused('dpkg-missing', /^dpkg-deb is not installed/);
  });

  it('fetchDebian: a download that fails its checksum, nothing in the cache', async () => {
    flag('no-download');
    await refused('download-failed', /^linux-image-6.1.0-9-arm64 .*: Hash Sum mismatch$/);
    expect(system.cached()).toEqual([]);
  });

  it('fetchDebian: a package without its file, refused', async () => {
    writeFileSync(join(system.bin, 'busybox.tar'), tarOf('./usr/bin/other', ''));
    await refused('extract-failed', /busybox-static_1_arm64.deb: does not hold/);
  });

  it('fetchDebian: a cache folder that is a file, refused', async () => {
    writeFileSync(system.cache, '');
    await refused('cache-unwritable', /cannot be written/);
  });

  it('fetchDebian: aborted, the reason of the signal and no folder left', async () => {
    const stop = new AbortController();
    const fetching = fetchDebian({
      cacheFolder: system.cache,
      osReleasePath: system.osRelease,
      signal: stop.signal,
      onProgress: () => stop.abort(),
    });
    await expect(fetching).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }));
    expect(system.cached()).toEqual([]);
  });
});

describe('defaultCacheFolder', () => {
  it('defaultCacheFolder: XDG_CACHE_HOME if absolute, else ~/.cache', () => {
    const before = process.env.XDG_CACHE_HOME;
    try {
      process.env.XDG_CACHE_HOME = '/x/cache';
      expect(defaultCacheFolder()).toBe('/x/cache/granule');
      process.env.XDG_CACHE_HOME = 'relative';
      expect(defaultCacheFolder()).toMatch(/\/\.cache\/granule$/);
    } finally {
      if (before === undefined) delete process.env.XDG_CACHE_HOME;
      else process.env.XDG_CACHE_HOME = before;
    }
  });
});
