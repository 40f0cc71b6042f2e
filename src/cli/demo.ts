/**
 * `granule demo` (and `npm start`): boots Debian's kernel with our initial RAM disk, or, where it
 * cannot be had, the embedded bare-metal guest. Its status is 0 only if the guest reported success.
 */
import { readFileSync } from 'node:fs';
import { planBoot } from '../vmm/boot.ts';
import type { BootFile } from '../vmm/boot-file.ts';
import {
  demoCommandLine,
  demoInitramfs,
  GUEST_FAILURE,
  GUEST_SUCCESS,
} from '../vmm/demo-initramfs.ts';
import { FetchError } from '../vmm/fetch-error.ts';
import type { ConsoleHost } from './console.ts';
import type { DemoOptions } from './options.ts';
import { runOnConsole } from './run.ts';
import type { Services } from './services.ts';

const SIGINT = 2;

interface DemoGuest {
  readonly kernel: BootFile;
  readonly initrd?: BootFile;
  readonly cmdline: string;
}

/** Runs the command; resolves to the exit status. */
export async function demoCommand(
  options: DemoOptions,
  services: Services,
  host: ConsoleHost,
): Promise<number> {
  const guest = options.embedded
    ? await embeddedGuest(services)
    : await interruptible(host, (signal) => debianGuest(options, services, host, signal));
  if (guest === undefined) return 128 + SIGINT;
  const { ramBytes, cpuCount, seed } = options;
  const plan = planBoot({ ...guest, ramBytes, cpuCount, seed });
  const report = new ReportWatcher();
  const { outcome, signalNumber } = await runOnConsole(
    { ...options, plan, onReset: 'exit' },
    services,
    host,
    { onOutput: (bytes) => report.watch(bytes) },
  );
  if (signalNumber !== undefined) return 128 + signalNumber;
  return report.success && outcome.reason === 'power-off' ? 0 : 1;
}

async function debianGuest(
  options: DemoOptions,
  services: Services,
  host: ConsoleHost,
  signal: AbortSignal,
): Promise<DemoGuest> {
  const say = (text: string): void => void host.stderr.write(`granule: ${text}\n`);
  try {
    const { kernelPath, busyboxPath } = await services.fetchDebian({ onProgress: say, signal });
    const bytes = demoInitramfs({
      busybox: readFileSync(busyboxPath),
      mteTest: await services.mteTest(),
    });
    return {
      kernel: { path: kernelPath },
      initrd: { name: 'the demo initrd', bytes },
      cmdline: demoCommandLine(options),
    };
  } catch (error) {
    if (signal.aborted || !(error instanceof FetchError)) throw error;
    say(`${error.message}; running the embedded guest instead`);
    return embeddedGuest(services);
  }
}

/** `work`, or undefined where Ctrl-C cut it short: it is to clean up behind itself. */
async function interruptible<T>(
  { events }: ConsoleHost,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T | undefined> {
  const stop = new AbortController();
  const onInterrupt = (): void => stop.abort();
  events.on('SIGINT', onInterrupt);
  try {
    return await work(stop.signal);
  } catch (error) {
    if (stop.signal.aborted) return undefined;
    throw error;
  } finally {
    events.removeListener('SIGINT', onInterrupt);
  }
}

const embeddedGuest = async (services: Services): Promise<DemoGuest> => ({
  kernel: { name: 'the embedded guest', bytes: await services.embeddedGuest() },
  cmdline: '',
});

/** Looks for the guest's closing line in its output, however it is cut into pieces. */
export class ReportWatcher {
  #line = '';
  #success = false;
  #failure = false;

  /** Success was reported, and failure was not. */
  get success(): boolean {
    return this.#success && !this.#failure;
  }

  watch(bytes: Uint8Array): void {
    for (const byte of bytes) {
      if (byte !== 0x0a) {
        this.#line += String.fromCharCode(byte);
        continue;
      }
      this.#success ||= this.#line.includes(GUEST_SUCCESS);
      this.#failure ||= this.#line.includes(GUEST_FAILURE);
      this.#line = '';
    }
  }
}
