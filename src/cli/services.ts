/**
 * What the commands need from below, each loaded when it is first asked for: `granule run` is to
 * reach the guest's first instruction quickly and uses neither apt nor the demo's guests.
 */
import type { DebianGuest, FetchDebianOptions } from '../vmm/debian.ts';
import type { RunMachine } from '../vmm/machine-options.ts';

export interface Services {
  readonly machine: () => Promise<RunMachine>;
  readonly fetchDebian: (options: FetchDebianOptions) => Promise<DebianGuest>;
  /** A static Linux ELF: checks MTE from user space, exits with 0 where all is well. */
  readonly mteTest: () => Promise<Uint8Array>;
  /** A bare-metal kernel: checks MTE at EL1 and ends with a line of `demo-initramfs.ts`. */
  readonly embeddedGuest: () => Promise<Uint8Array>;
}
