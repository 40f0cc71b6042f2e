/**
 * Debian's kernel and busybox for tests, fetched once into the user's cache through the system's
 * package manager. Where that is impossible the tests are skipped, and say why.
 */
import { readFileSync } from 'node:fs';
import type { TestContext } from 'vitest';
import { type BootPlan, planBoot } from '../../src/vmm/boot.ts';
import { type DebianGuest, fetchDebian } from '../../src/vmm/debian.ts';
import { demoCommandLine, demoInitramfs } from '../../src/vmm/demo-initramfs.ts';
import { FetchError } from '../../src/vmm/fetch-error.ts';
import { buildMteLinux } from '../../src/vmm/guests/mte-linux.ts';

let fetched: Promise<DebianGuest | FetchError> | undefined;

/** Debian's files; skips the test of `context`, visibly, where they cannot be had. */
export async function debianGuest(context: TestContext): Promise<DebianGuest> {
  fetched ??= fetchDebian({ onProgress: (text) => console.info(`granule: ${text}`) }).catch(
    (error: unknown) => {
      if (!(error instanceof FetchError)) throw error;
      // The reporter counts skipped tests, but tells their reasons only where lines are verbose.
      console.warn(`SKIPPED, because Debian's kernel is missing: ${error.message}`);
      return error;
    },
  );
  const guest = await fetched;
  if (guest instanceof FetchError) context.skip(`Debian's kernel is missing: ${guest.message}`);
  return guest;
}

/** The demo's boot plan: what `granule demo` runs. */
export function demoPlan(
  { kernelPath, busyboxPath }: DebianGuest,
  options: { mte: boolean; cpuCount: number; ramBytes: number; seed: number },
): BootPlan {
  const bytes = demoInitramfs({ busybox: readFileSync(busyboxPath), mteTest: buildMteLinux() });
  const { cpuCount, ramBytes, seed } = options;
  return planBoot({
    kernel: { path: kernelPath },
    initrd: { name: 'the demo initrd', bytes },
    cmdline: demoCommandLine(options),
    ramBytes,
    cpuCount,
    seed,
  });
}
