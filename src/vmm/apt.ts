/**
 * Drives the system's apt with a state of its own: package lists, caches and locks lie in a folder
 * that is given, so that neither root nor the user's apt configuration is needed or touched. The
 * host's mirrors, proxies and trusted keys are used unless `archive` names others. apt verifies
 * signatures and checksums. `debian.ts` calls it.
 */
import { spawn } from 'node:child_process';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { FetchError, type FetchErrorCode } from './fetch-error.ts';
import { findInTar, type TarFile } from './tar.ts';

/** An archive to use instead of the host's own sources. */
export interface AptArchive {
  /** The text of a sources.list. */
  readonly sourcesList: string;
  /** An OpenPGP keyring (binary) that the archive's releases must be signed by. */
  readonly keyring: Uint8Array;
}

export interface AptOptions {
  /** An empty or new folder; whoever made it removes it. */
  readonly folder: string;
  /** Debian architecture of the packages; the host's own where absent. */
  readonly architecture?: string;
  readonly archive?: AptArchive;
  readonly signal?: AbortSignal;
}

/**
 * Settings that hold whatever the host's configuration says. Hooks are cleared because they would
 * run for the host's state; the sandbox user could not write into a private folder.
 */
const APT_CONF = `#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Architectures;
APT::Sandbox::User "root";
APT::Get::AllowUnauthenticated "false";
Acquire::Languages "none";
Acquire::Retries "1";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled "false";
Acquire::IndexTargets::deb::CNF::DefaultEnabled "false";
`;

interface Finished {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export class Apt {
  readonly #folder: string;
  readonly #settings: readonly string[];
  readonly #signal: AbortSignal | undefined;

  private constructor(options: AptOptions, settings: readonly string[]) {
    this.#folder = options.folder;
    this.#settings = settings;
    this.#signal = options.signal;
  }

  /** Lays out the private state in `options.folder`. */
  static async create(options: AptOptions): Promise<Apt> {
    const at = (name: string): string => join(options.folder, name);
    for (const name of ['state/lists/partial', 'cache/archives/partial', 'etc/parts', 'etc/keys']) {
      await mkdir(at(name), { recursive: true });
    }
    await writeFile(at('status'), '');
    await writeFile(at('apt.conf'), APT_CONF);
    const settings = [`Dir::State=${at('state')}`, `Dir::State::status=${at('status')}`];
    settings.push(`Dir::Cache=${at('cache')}`);
    if (options.architecture !== undefined) {
      settings.push(`APT::Architecture=${options.architecture}`);
      settings.push(`APT::Architectures::=${options.architecture}`);
    }
    if (options.archive !== undefined) {
      await writeFile(at('etc/sources.list'), options.archive.sourcesList);
      await writeFile(at('etc/keys/archive.gpg'), options.archive.keyring);
      settings.push(`Dir::Etc::sourcelist=${at('etc/sources.list')}`);
      settings.push(`Dir::Etc::sourceparts=${at('etc/parts')}`);
      settings.push(`Dir::Etc::preferences=${at('etc/preferences')}`);
      settings.push(`Dir::Etc::preferencesparts=${at('etc/parts')}`);
      settings.push(`Dir::Etc::trusted=${at('etc/trusted.gpg')}`);
      settings.push(`Dir::Etc::trustedparts=${at('etc/keys')}`);
    }
    return new Apt(options, settings);
  }

  /**
   * Fetches the package lists. Returns apt's first complaint, or undefined: one dead mirror among
   * several is not the end, so it is for the caller to see whether the packages can be found.
   */
  async update(): Promise<string | undefined> {
    const { stdout, stderr } = await this.#run('apt-get', ['update']);
    return firstComplaint(stderr) ?? firstComplaint(stdout);
  }

  /** What the candidate version of `packageName` depends on; empty where it is unknown. */
  async dependencies(packageName: string): Promise<string[]> {
    const { stdout } = await this.#run('apt-cache', ['depends', packageName]);
    return [...stdout.matchAll(/^\s*\|?Depends: (\S+)$/gm)].map((match) => match[1]!);
  }

  /** Whether the package lists know a version of `packageName`. */
  async knows(packageName: string): Promise<boolean> {
    const { stdout } = await this.#run('apt-cache', ['show', '--no-all-versions', packageName]);
    return stdout.includes('Package: ');
  }

  /** Downloads the candidate version of `packageName`; returns the path of its .deb. */
  async download(packageName: string): Promise<string> {
    const finished = await this.#run('apt-get', ['download', packageName]);
    const files = await readdir(this.#folder);
    const deb = files.find((file) => file.startsWith(`${packageName}_`) && file.endsWith('.deb'));
    if (finished.status !== 0 || deb === undefined) {
      const cause = firstComplaint(finished.stderr) ?? `apt-get ended with ${finished.status}`;
      throw new FetchError('download-failed', `${packageName} cannot be downloaded: ${cause}`);
    }
    return join(this.#folder, deb);
  }

  #run(program: string, args: readonly string[]): Promise<Finished> {
    const settings = this.#settings.flatMap((setting) => ['-o', setting]);
    const all = ['-c', join(this.#folder, 'apt.conf'), ...settings, ...args];
    return new Promise((resolve, reject) => {
      const child = start(program, all, this.#folder, this.#signal);
      const out = { stdout: '', stderr: '' };
      for (const stream of ['stdout', 'stderr'] as const) {
        child[stream].setEncoding('utf8').on('data', (text: string) => {
          out[stream] += text;
        });
      }
      child.on('error', (error) => reject(notStarted(program, 'apt-missing', error)));
      child.on('close', (status) => resolve({ status: status ?? -1, ...out }));
    });
  }
}

/** The first file of a .deb that `wanted` accepts; throws `FetchError` where there is none. */
export async function extractFromDeb(
  deb: string,
  wanted: (path: string) => boolean,
  signal?: AbortSignal,
): Promise<TarFile> {
  const child = start('dpkg-deb', ['--fsys-tarfile', deb], '/', signal);
  const failed = new Promise<never>((_, reject) => {
    child.on('error', (error) => reject(notStarted('dpkg-deb', 'dpkg-missing', error)));
  });
  try {
    const file = await Promise.race([findInTar(child.stdout, wanted), failed]);
    if (file === undefined) {
      throw new FetchError('extract-failed', `${deb}: does not hold the file that is wanted`);
    }
    return file;
  } finally {
    failed.catch(() => {}); // an error after the race is of no interest
    child.stdout.destroy();
    child.kill();
  }
}

function start(program: string, args: readonly string[], cwd: string, signal?: AbortSignal) {
  return spawn(program, args, {
    cwd,
    env: { ...process.env, LC_ALL: 'C', DEBIAN_FRONTEND: 'noninteractive' },
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(signal === undefined ? {} : { signal }),
  });
}

function notStarted(program: string, code: FetchErrorCode, error: Error): Error {
  if ('code' in error && error.code === 'ENOENT') {
    return new FetchError(code, `${program} is not installed on this system`);
  }
  return error.name === 'AbortError' ? error : new FetchError(code, `${program}: ${error.message}`);
}

/** The first error or warning in apt's output, without its mark. */
function firstComplaint(output: string): string | undefined {
  return (/^E: (.*)$/m.exec(output) ?? /^(?:W|Err:\d+): ?(.*)$/m.exec(output))?.[1]
    ?.replace(/\s+/g, ' ')
    .trim();
}
