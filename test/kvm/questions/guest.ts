/** What the tests of the questions share: guest programs with tags, and slots that are offered. */
import { PAGE_SIZE } from '../../../src/base/index.ts';
import { Errno, Prot } from '../../../src/host/index.ts';
import type { KvmPolicy } from '../../../src/kvm/policy.ts';
import { GuestVm, type GuestVmOptions, type SlotRequest } from '../../support/guest-vm.ts';

export const RW = Prot.read | Prot.write;
export const MTE = { prot: RW | Prot.mte };
export const BYTES = 16 * PAGE_SIZE;
export const REFUSED = -Errno.EINVAL;

/** Reports the tag of the tag granule at `at`. */
export const ldg = (at: number): string => `ldr x0, =${at}\n ldg x0, [x0]\n lsr x0, x0, #56`;
export const stg = (at: number, tag: number): string =>
  `ldr x1, =${at}\n ldr x2, =${(BigInt(tag) << 56n) + BigInt(at)}\n stg x2, [x1]\n mov x0, xzr`;
/** A tag and a byte of the same value. */
export const stgAndByte = (at: number, tag: number): string =>
  `${stg(at, tag)}\n mov x3, #${tag}\n strb w3, [x1]`;

/**
 * A VM whose guest has not been given the data slot yet; its code is PROT_MTE, for every policy.
 */
export const guestOf = (policy: KvmPolicy, options: GuestVmOptions = {}): GuestVm =>
  new GuestVm({ policy, codeProt: MTE.prot, ...options });

/** Maps memory and makes it a slot: where, or the refusal of the slot. */
export function offer(guest: GuestVm, request: SlotRequest = {}): { at: number; slot: number } {
  const at = guest.map({ length: BYTES, ...request });
  return { at, slot: guest.setSlot(at, BYTES, request) };
}
