/**
 * KVM's side of MTE: tags are initialised before a page becomes visible to a guest that has MTE,
 * and the VMM reads and writes a guest's tags by KVM_ARM_MTE_COPY_TAGS. Called by `fault.ts` and
 * `vm.ts`.
 */
import { type Hva, hva, type Ipa, ipa, isAligned, PAGE_SIZE, type Pa, pa } from '../base/index.ts';
import { Errno, type Host, isRefusal, type Refusal, refuse, TAG_GRANULES } from '../host/index.ts';
import { hvaOf } from './memslot.ts';
import { KVM_ARM_TAGS_FROM_GUEST } from './uapi.ts';
import type { Vm } from './vm.ts';

/** struct kvm_arm_copy_mte_tags. Numbers as the VMM wrote them: nothing has been checked. */
export interface KvmArmCopyMteTags {
  readonly guestIpa: number;
  /** Bytes of guest memory. */
  readonly length: number;
  /** Address in the VMM of one byte for each tag granule, the tag in its low nibble. */
  readonly addr: number;
  readonly flags: number;
  readonly reserved?: readonly [number, number];
}

/**
 * Makes pages safe to be seen by a guest with MTE, at `at`: tags that nobody has written yet become
 * 0. Preconditions: not mapped at stage 2 yet. Linux: sanitise_mte_tags().
 */
export function sanitiseMteTags(vm: Vm, at: Ipa, address: Pa, sizeBytes: number): void {
  const { frames } = vm.host;
  if (!frames.isOnline(address)) return;
  if (vm.traceMte !== undefined) {
    const count = untaggedPages(vm.host, address, sizeBytes);
    if (count > 0) vm.traceMte(`tags of ${count} page(s) initialised, ipa=0x${at.toString(16)}`);
  }
  frames.initialiseTags(address, sizeBytes);
}

/** Pages of the range whose tags are not valid yet. */
function untaggedPages({ frames }: Host, address: Pa, sizeBytes: number): number {
  let count = 0;
  for (let offset = 0; offset < sizeBytes; offset += PAGE_SIZE) {
    if (!frames.isMteTagged(pa(address + offset))) count++;
  }
  return count;
}

/**
 * Copies tags between a buffer of the VMM and guest memory; returns the bytes of guest memory done,
 * fewer than asked where the range leaves a slot or the buffer its mapping. EINVAL for arguments,
 * EFAULT when nothing could be copied, EAGAIN when that is because the page is on its way (see
 * `AddressSpace.awaited`). Linux: kvm_vm_ioctl_mte_copy_tags().
 */
export function copyTags(vm: Vm, request: KvmArmCopyMteTags): number | Refusal {
  const { guestIpa, length, flags, reserved = [0, 0] } = request;
  if (!vm.mte) return refuse(Errno.EINVAL);
  if (reserved[0] !== 0 || reserved[1] !== 0) return refuse(Errno.EINVAL);
  if (flags !== 0 && flags !== KVM_ARM_TAGS_FROM_GUEST) return refuse(Errno.EINVAL);
  if (!isAligned(length, PAGE_SIZE) || !isAligned(guestIpa, PAGE_SIZE)) return refuse(Errno.EINVAL);
  if (length < 0 || length > vm.policy.copyTagsBytesMax) return refuse(Errno.EINVAL);
  const copyPage = flags === KVM_ARM_TAGS_FROM_GUEST ? copyPageFromGuest : copyPageToGuest;
  let done = 0;
  let refusal: 0 | Refusal = 0;
  while (done < length) {
    const buffer = request.addr + (done / PAGE_SIZE) * TAG_GRANULES;
    refusal = copyPage(vm, guestIpa + done, buffer);
    if (refusal !== 0) break;
    done += PAGE_SIZE;
  }
  return done === 0 ? refusal : done;
}

/**
 * The page of guest memory at `address` as the VMM has it; EFAULT, EAGAIN. Linux:
 * gfn_to_pfn_prot().
 */
function guestPage(vm: Vm, address: number, write: boolean): Pa | Refusal {
  const slot = vm.slots.at(ipa(address));
  if (slot === undefined || (write && slot.readOnly)) return refuse(Errno.EFAULT);
  const page = vm.process.faultIn(hvaOf(slot, ipa(address)), { write });
  if (isRefusal(page)) return page === -Errno.EAGAIN ? page : refuse(Errno.EFAULT);
  // Memory that the host keeps no frames for (ZONE_DEVICE, MMIO) has no tags to copy.
  return vm.host.frames.isOnline(page.pa) ? page.pa : refuse(Errno.EFAULT);
}

function copyPageFromGuest(vm: Vm, address: number, buffer: number): 0 | Refusal {
  const page = guestPage(vm, address, false);
  if (isRefusal(page)) return page;
  const { frames } = vm.host;
  const { memory } = vm.process;
  // Held, so that bringing in the buffer does not page it out.
  frames.get(page);
  const at = memory.locate(hva(buffer), TAG_GRANULES, true);
  let written = TAG_GRANULES;
  if (at >= 0 && at % 2 === 0) frames.unpackTags(page, at);
  else written = memory.writeFrom(hva(buffer), frames.readTags(page));
  frames.put(page);
  return written === TAG_GRANULES ? 0 : refuse(Errno.EFAULT);
}

function copyPageToGuest(vm: Vm, address: number, buffer: number): 0 | Refusal {
  const page = guestPage(vm, address, true);
  if (isRefusal(page)) return page;
  const { frames } = vm.host;
  const { memory } = vm.process;
  frames.get(page);
  const at = memory.locate(hva(buffer), TAG_GRANULES, false);
  let read = TAG_GRANULES;
  if (at >= 0 && at % 2 === 0) frames.packTags(page, at);
  else read = copySplitBuffer(vm, page, hva(buffer));
  frames.put(page);
  return read === TAG_GRANULES ? 0 : refuse(Errno.EFAULT);
}

/** Tags from a buffer that lies oddly, or that ends before all are read; returns the tags read. */
function copySplitBuffer(vm: Vm, page: Pa, buffer: Hva): number {
  const { frames } = vm.host;
  const tags = new Uint8Array(TAG_GRANULES);
  const read = vm.process.memory.readInto(buffer, tags);
  frames.writeTags(page, tags.subarray(0, read));
  if (read < TAG_GRANULES && !vm.policy.copyTagsClearsOnFailure) return read;
  if (read < TAG_GRANULES) frames.clearTags(page);
  frames.setMteTagged(page);
  return read;
}
