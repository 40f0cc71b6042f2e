/**
 * KVM_ARM_MTE_COPY_TAGS as the system call it is: a number and the address of a structure in the
 * VMM's memory, on whichever descriptor. A VMM written in TypeScript calls `KvmVm.copyTags`; this
 * is for one that has C structures.
 */
import type { Hva } from '../base/index.ts';
import { type AddressSpace, Errno, isRefusal, type Refusal, refuse } from '../host/index.ts';
import type { Kvm } from './kvm.ts';
import { KvmVm } from './kvm-vm.ts';
import type { Vcpu } from './vcpu.ts';

/** _IOR(KVMIO, 0xb4, struct kvm_arm_copy_mte_tags). */
export const KVM_ARM_MTE_COPY_TAGS = 0x8030_aeb4;

/** Bytes of struct kvm_arm_copy_mte_tags: guest_ipa, length, addr, flags, reserved[2]. */
const STRUCTURE_BYTES = 48;

/**
 * A u64 as a number. Those from 2^52 on, beyond every address, keep their place in a page: a call
 * that is misaligned is told so first.
 */
const toNumber = (value: bigint): number =>
  value < 1n << 52n ? Number(value) : 2 ** 52 + Number(value & 0xfffn);

/**
 * Carries the call out. EINVAL: a descriptor that has no such call; EFAULT: the structure cannot be
 * read; otherwise as `KvmVm.copyTags`.
 */
export function copyTagsIoctl(
  descriptor: Kvm | KvmVm | Vcpu,
  process: AddressSpace,
  argument: Hva,
): number | Refusal {
  if (!(descriptor instanceof KvmVm)) return refuse(Errno.EINVAL);
  const bytes = process.memory.read(argument, STRUCTURE_BYTES);
  if (isRefusal(bytes)) return refuse(Errno.EFAULT);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const word = (index: number): number => toNumber(view.getBigUint64(8 * index, true));
  return descriptor.copyTags({
    guestIpa: word(0),
    length: word(1),
    addr: word(2),
    flags: word(3),
    reserved: [word(4), word(5)],
  });
}
