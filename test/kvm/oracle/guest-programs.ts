/**
 * What the guest runs for a row, in our assembly, and the VMM's COPY_TAGS beside it. Addresses are
 * those of `test/support/guest-vm.ts`. Used by the sections with vCPUs.
 */
import { hva, PAGE_SIZE } from '../../../src/base/index.ts';
import { isRefusal } from '../../../src/host/index.ts';
import { KVM_ARM_TAGS_FROM_GUEST, KVM_ARM_TAGS_TO_GUEST } from '../../../src/kvm/uapi.ts';
import { dataIpa, type GuestVm, UNTAGGED } from '../../support/guest-vm.ts';
import { tagsText } from '../../support/oracle.ts';

/** x1: the address of a tag granule with a logical tag; changes x2. */
export const pointer = (address: number, tag = 0): string => `
  ldr x1, =${address}
  mov x2, #${tag}
  orr x1, x1, x2, lsl #56`;

export const granule = (page: number, index = 0): number => dataIpa(page, index);
export const untagged = (page: number): number => UNTAGGED + page * PAGE_SIZE;

export const storeTag = (address: number, tag: number): string => `
  ${pointer(address, tag)}
  stg x1, [x1]
  mov x0, #0`;

export const loadTag = (address: number): string => `
  ${pointer(address)}
  mov x0, #0
  ldg x0, [x1]`;

export const load = (address: number): string => `
  ${pointer(address)}
  ldr x0, [x1]`;

export const store = (address: number, value: number): string => `
  ${pointer(address)}
  mov x0, #${value}
  str x0, [x1]`;

export const read = (register: string): string => `mrs x0, ${register}`;

/** A page of the VMM for the tags of COPY_TAGS. */
export const tagBuffer = (guest: GuestVm): number => guest.map({ length: PAGE_SIZE });

/** COPY_TAGS of a page to the VMM: what it returned, and the first `count` tags. */
export function copyTagsFrom(
  guest: GuestVm,
  buffer: number,
  page: number,
  count: number,
): [number, string] {
  const request = { guestIpa: dataIpa(page), length: PAGE_SIZE, addr: buffer };
  const result = guest.vm.copyTags({ ...request, flags: KVM_ARM_TAGS_FROM_GUEST });
  const tags = result === PAGE_SIZE ? guest.process.memory.read(hva(buffer), count) : [];
  return [result, isRefusal(tags) ? '' : tagsText(tags)];
}

/** COPY_TAGS of a page to the guest, 0 where no tag is given. */
export function copyTagsTo(
  guest: GuestVm,
  buffer: number,
  page: number,
  tags: readonly number[],
): number {
  guest.process.memory.write(
    hva(buffer),
    Uint8Array.from({ length: 256 }, (_, i) => tags[i] ?? 0),
  );
  const request = { guestIpa: dataIpa(page), length: PAGE_SIZE, addr: buffer };
  return guest.vm.copyTags({ ...request, flags: KVM_ARM_TAGS_TO_GUEST });
}
