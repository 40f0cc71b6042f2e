/**
 * Fetches Debian's arm64 kernel and static busybox through the system's package manager, without
 * root and beside the user's apt configuration, and keeps them in the user's cache folder.
 *
 * On Debian the host's own sources are asked. Elsewhere (Ubuntu, or a Debian host whose sources
 * leave arm64 out) it is Debian's archive, trusted by the keys of the package
 * `debian-archive-keyring`: the host's copy, or one downloaded from the host's own sources first,
 * so that the chain of signatures starts at keys the host already trusts. A keyring too old for the
 * release is renewed from the release before it.
 *
 * Limits: apt and dpkg must be installed, and the mirrors reachable as apt is configured to reach
 * them. What is cached stays until its folder is deleted.
 */
import { createHash, randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { Apt, type AptArchive, extractFromDeb } from './apt.ts';
import { FetchError } from './fetch-error.ts';

/** The Debian release that is taken where the host is no Debian. */
const DEBIAN_RELEASE = 'bookworm';
/** The release before it, signed by keys that older keyrings hold. */
const DEBIAN_PREVIOUS_RELEASE = 'bullseye';
const DEBIAN_ARCHIVE = 'http://deb.debian.org';
const KEYRING_PACKAGE = 'debian-archive-keyring';
const KEYRING_PATH = 'usr/share/keyrings/debian-archive-keyring';

const KERNEL_PACKAGE = 'linux-image-arm64';
const BUSYBOX_PACKAGE = 'busybox-static';
const ARCHITECTURE = 'arm64';

export interface DebianGuest {
  readonly kernelPath: string;
  readonly busyboxPath: string;
  /** As `uname -r` says it. */
  readonly kernelVersion: string;
}

export interface FetchDebianOptions {
  /** The cache folder; `$XDG_CACHE_HOME/granule` or `~/.cache/granule` where absent. */
  readonly cacheFolder?: string;
  /** Told what is going on, a short sentence at a time; not called when all is cached. */
  readonly onProgress?: (text: string) => void;
  readonly signal?: AbortSignal;
  /** For tests: the host's os-release file and the root under which its keyring is looked for. */
  readonly osReleasePath?: string;
  readonly hostRoot?: string;
}

const CachedFile = z.object({ file: z.string(), sha256: z.string() });
const Manifest = z.object({
  version: z.literal(1),
  kernelVersion: z.string(),
  kernel: CachedFile,
  busybox: CachedFile,
});
type Manifest = z.infer<typeof Manifest>;

/** `$XDG_CACHE_HOME/granule`, or `~/.cache/granule`. */
export function defaultCacheFolder(): string {
  const base = process.env.XDG_CACHE_HOME;
  return join(base?.startsWith('/') ? base : join(homedir(), '.cache'), 'granule');
}

/**
 * The kernel and busybox, from the cache or through apt; throws `FetchError`. Several processes may
 * call it at once: each works in a folder of its own and puts finished files in place by renaming.
 */
export async function fetchDebian(options: FetchDebianOptions = {}): Promise<DebianGuest> {
  const folder = join(options.cacheFolder ?? defaultCacheFolder(), 'debian');
  const cached = await readCache(folder);
  if (cached !== undefined) return cached;
  const work = await workFolder(folder);
  try {
    return await fetchInto(folder, work, options);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function readCache(folder: string): Promise<DebianGuest | undefined> {
  try {
    const manifest = Manifest.parse(
      JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8')),
    );
    for (const { file, sha256 } of [manifest.kernel, manifest.busybox]) {
      if (digest(await readFile(join(folder, file))) !== sha256) return undefined;
    }
    return guestOf(folder, manifest);
  } catch {
    return undefined; // absent, or not what this version writes: fetch it
  }
}

const guestOf = (folder: string, manifest: Manifest): DebianGuest => ({
  kernelPath: join(folder, manifest.kernel.file),
  busyboxPath: join(folder, manifest.busybox.file),
  kernelVersion: manifest.kernelVersion,
});

const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

async function workFolder(folder: string): Promise<string> {
  try {
    await mkdir(folder, { recursive: true });
    return await mkdtemp(join(folder, 'fetch-'));
  } catch (error) {
    const cause = error instanceof Error ? error.message : String(error);
    throw new FetchError('cache-unwritable', `${folder}: cannot be written (${cause})`);
  }
}

async function fetchInto(
  folder: string,
  work: string,
  options: FetchDebianOptions,
): Promise<DebianGuest> {
  const progress = options.onProgress ?? (() => {});
  const { apt, kernelPackage } = await findKernel(work, options);
  const kernelVersion = kernelPackage.replace(/^linux-image-/, '');
  progress(`downloading ${kernelPackage} and ${BUSYBOX_PACKAGE}`);
  const kernelDeb = await apt.download(kernelPackage);
  const busyboxDeb = await apt.download(BUSYBOX_PACKAGE);
  progress('unpacking');
  const isKernel = (path: string): boolean => path === `boot/vmlinuz-${kernelVersion}`;
  const isBusybox = (path: string): boolean => /^(usr\/)?bin\/busybox$/.test(path);
  const kernel = await extractFromDeb(kernelDeb, isKernel, options.signal);
  const busybox = await extractFromDeb(busyboxDeb, isBusybox, options.signal);
  const manifest: Manifest = {
    version: 1,
    kernelVersion,
    kernel: await keep(folder, `vmlinuz-${kernelVersion}`, kernel.bytes),
    busybox: await keep(folder, 'busybox', busybox.bytes),
  };
  await replaceFile(folder, 'manifest.json', Buffer.from(`${JSON.stringify(manifest, null, 2)}\n`));
  return guestOf(folder, manifest);
}

/** Puts `bytes` into the cache under a name that says what they are, and never half. */
async function keep(
  folder: string,
  name: string,
  bytes: Uint8Array,
): Promise<{ file: string; sha256: string }> {
  const sha256 = digest(bytes);
  const file = `${name}-${sha256.slice(0, 12)}`;
  await replaceFile(folder, file, bytes);
  return { file, sha256 };
}

async function replaceFile(folder: string, name: string, bytes: Uint8Array): Promise<void> {
  const temporary = join(folder, `${name}.${randomUUID()}`);
  try {
    await writeFile(temporary, bytes);
    await rename(temporary, join(folder, name));
  } catch (error) {
    await rm(temporary, { force: true });
    const cause = error instanceof Error ? error.message : String(error);
    throw new FetchError('cache-unwritable', `${folder}: cannot be written (${cause})`);
  }
}

interface FoundKernel {
  readonly apt: Apt;
  readonly kernelPackage: string;
}

/** An apt whose lists hold the kernel: with the host's sources on Debian, else with Debian's. */
async function findKernel(work: string, options: FetchDebianOptions): Promise<FoundKernel> {
  if (await hostIsDebian(options)) {
    const { found, complaint } = await lookIn(join(work, 'host'), undefined, options);
    if (found !== undefined) return found;
    if (complaint !== undefined) {
      throw new FetchError('update-failed', `the package lists cannot be fetched: ${complaint}`);
    }
  }
  const keyring = (await hostKeyring(options)) ?? (await keyringFrom(work, options));
  const { found, complaint } = await lookIn(join(work, 'debian'), archiveOf(keyring), options);
  if (found !== undefined) return found;
  if (complaint === undefined) {
    throw new FetchError('package-missing', `Debian's archive has no package ${KERNEL_PACKAGE}`);
  }
  // A keyring older than the release (Ubuntu 22.04's) still vouches for the release before.
  const newer = await keyringFrom(work, options, previousArchiveOf(keyring)).catch(() => undefined);
  const again =
    newer && (await lookIn(join(work, 'debian-again'), archiveOf(newer), options)).found;
  if (again !== undefined) return again;
  throw new FetchError('update-failed', `Debian's package lists cannot be fetched: ${complaint}`);
}

/** The kernel's package in `archive` or the host's sources, and apt's first complaint, if any. */
async function lookIn(
  folder: string,
  archive: AptArchive | undefined,
  options: FetchDebianOptions,
): Promise<{ found: FoundKernel | undefined; complaint: string | undefined }> {
  const apt = await createApt(folder, options, { architecture: ARCHITECTURE, archive });
  options.onProgress?.(`fetching the package lists for ${ARCHITECTURE}`);
  const complaint = await apt.update();
  const names = await apt.dependencies(KERNEL_PACKAGE);
  const kernelPackage = names.find((name) => /^linux-image-\d.*-arm64$/.test(name));
  const complete = kernelPackage !== undefined && (await apt.knows(BUSYBOX_PACKAGE));
  return { found: complete ? { apt, kernelPackage } : undefined, complaint };
}

function createApt(
  folder: string,
  { signal }: FetchDebianOptions,
  of: { architecture?: string; archive?: AptArchive | undefined },
): Promise<Apt> {
  return Apt.create({
    folder,
    ...(of.architecture === undefined ? {} : { architecture: of.architecture }),
    ...(of.archive === undefined ? {} : { archive: of.archive }),
    ...(signal === undefined ? {} : { signal }),
  });
}

async function hostIsDebian(options: FetchDebianOptions): Promise<boolean> {
  try {
    const text = await readFile(options.osReleasePath ?? '/etc/os-release', 'utf8');
    return /^ID="?debian"?$/m.test(text);
  } catch {
    return false;
  }
}

const source = (path: string, suite: string): string =>
  `deb [arch=${ARCHITECTURE}] ${DEBIAN_ARCHIVE}/${path} ${suite} main\n`;

const archiveOf = (keyring: Uint8Array): AptArchive => ({
  sourcesList:
    source('debian', DEBIAN_RELEASE) + source('debian-security', `${DEBIAN_RELEASE}-security`),
  keyring,
});

const previousArchiveOf = (keyring: Uint8Array): AptArchive => ({
  sourcesList: source('debian', DEBIAN_PREVIOUS_RELEASE),
  keyring,
});

async function hostKeyring({ hostRoot }: FetchDebianOptions): Promise<Uint8Array | undefined> {
  try {
    return await readFile(join(hostRoot ?? '/', `${KEYRING_PATH}.gpg`));
  } catch {
    return undefined;
  }
}

/** Debian's keys as `archive`, or the host's own distribution, signs and delivers them. */
async function keyringFrom(
  work: string,
  options: FetchDebianOptions,
  archive?: AptArchive,
): Promise<Uint8Array> {
  const folder = await mkdtemp(join(work, 'keyring-'));
  const of = archive === undefined ? {} : { architecture: ARCHITECTURE, archive };
  const apt = await createApt(folder, options, of);
  options.onProgress?.(`fetching ${KEYRING_PACKAGE}`);
  const complaint = await apt.update();
  if (!(await apt.knows(KEYRING_PACKAGE))) {
    throw complaint === undefined
      ? new FetchError('package-missing', `the host's package sources lack ${KEYRING_PACKAGE}`)
      : new FetchError('update-failed', `the package lists cannot be fetched: ${complaint}`);
  }
  const deb = await apt.download(KEYRING_PACKAGE);
  const isKeyring = (path: string): boolean =>
    path === `${KEYRING_PATH}.gpg` || path === `${KEYRING_PATH}.pgp`;
  return (await extractFromDeb(deb, isKeyring, options.signal)).bytes;
}
