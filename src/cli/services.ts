/**
 * What the commands need from below, each loaded when it is first asked for: `granule run` is to
 * reach the guest's first instruction quickly and uses neither apt nor the demo's guests.
 */
import type { DebianGuest, FetchDebianOptions } from '../vmm/debian.ts';
import type { RunMachine } from '../vmm/machine-options.ts';

/** The guest programs of our own, assembled when they are needed. */
export interface GuestPrograms {
  /** A static Linux ELF: checks MTE from user space, exits with 0 where all is well. */
  readonly mteTest: () => Uint8Array;
  /** A bare-metal ELF: checks MTE at EL1 and ends with the lines of `demo-initramfs.ts`. */
  readonly embedded: () => Uint8Array;
}

export interface Services {
  readonly machine: () => Promise<RunMachine>;
  readonly guests: () => Promise<GuestPrograms>;
  readonly fetchDebian: (options: FetchDebianOptions) => Promise<DebianGuest>;
}
