/** KVM_ARM_MTE_COPY_TAGS by number and structure, beside section C of test/kvm/oracle. */
import { describe, expect, it } from 'vitest';
import { type Hva, hva, PAGE_SIZE } from '../../src/base/index.ts';
import { Errno } from '../../src/host/index.ts';
import { copyTagsIoctl, KVM_ARM_MTE_COPY_TAGS } from '../../src/kvm/copy-tags-ioctl.ts';
import * as uapi from '../../src/kvm/uapi.ts';
import { accept, DATA, GuestVm } from '../support/guest-vm.ts';

const guest = new GuestVm();
guest.addSlot();
const { process, vm } = guest;
const tags = guest.map({});
const argument = guest.map({});

/** struct kvm_arm_copy_mte_tags in the VMM's memory. */
function structure(words: readonly (number | bigint)[]): Hva {
  words.forEach((word, i) => {
    accept(process.memory.writeU64(hva(argument + 8 * i), BigInt(word)));
  });
  return argument;
}

describe('copyTagsIoctl', () => {
  it('tags to the guest and back', () => {
    expect(KVM_ARM_MTE_COPY_TAGS).toBe(0x8030aeb4);
    accept(process.memory.fill(tags, 6, 256));
    expect(copyTagsIoctl(vm, process, structure([DATA, PAGE_SIZE, tags, 0, 0, 0]))).toBe(PAGE_SIZE);
    accept(process.memory.fill(tags, 0, 256));
    const from = structure([DATA, PAGE_SIZE, tags, uapi.KVM_ARM_TAGS_FROM_GUEST, 0, 0]);
    expect(copyTagsIoctl(vm, process, from)).toBe(PAGE_SIZE);
    expect(process.memory.readU8(hva(tags + 255))).toBe(6);
  });

  it.each([
    ['address', [0xffff_ffff_ffff_f010n, PAGE_SIZE, tags, 1, 0, 0], Errno.EINVAL],
    ['address, aligned', [0xffff_ffff_ffff_f000n, PAGE_SIZE, tags, 1, 0, 0], Errno.EFAULT],
    ['length', [DATA, 0xffff_ffff_ffff_f010n, tags, 1, 0, 0], Errno.EINVAL],
    ['flags', [DATA, PAGE_SIZE, tags, 0x8000_0000_0000_0001n, 0, 0], Errno.EINVAL],
    ['reserved', [DATA, PAGE_SIZE, tags, 1, 0, 0x8000_0000_0000_0000n], Errno.EINVAL],
    ['buffer', [DATA, PAGE_SIZE, 0xffff_ffff_ffff_ff00n, 1, 0, 0], Errno.EFAULT],
  ])('a number that no double holds, as %s', (_, words, errno) => {
    expect(copyTagsIoctl(vm, process, structure(words))).toBe(-errno);
  });

  it('a structure that runs off its page, EFAULT', () => {
    const end = hva(guest.map({ length: 2 * PAGE_SIZE }) + PAGE_SIZE - 40);
    accept(process.munmap(hva(end + 40), PAGE_SIZE));
    expect(copyTagsIoctl(vm, process, end)).toBe(-Errno.EFAULT);
  });
});
