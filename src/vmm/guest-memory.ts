/** What the VMM's loaders and devices see of guest memory; `machine.ts` implements it. */
import type { Ipa } from '../base/index.ts';

export interface GuestMemory {
  /** A copy of `sizeBytes` bytes from `address`, or undefined where not all of it is RAM. */
  read(address: Ipa, sizeBytes: number): Uint8Array | undefined;
  /** Writes all of `bytes`, or nothing and false where not all of the range is RAM. */
  write(address: Ipa, bytes: Uint8Array): boolean;
}
