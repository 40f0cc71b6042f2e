/** What the observer hears of tags: `--trace mte`. The rules are tested with the oracle's rows. */
import { describe, expect, it } from 'vitest';
import { TestGuest } from '../../test/support/test-guest.ts';
import { ipa, MIB, PAGE_SIZE } from '../base/index.ts';
import { Host, isRefusal, MapFlag, Prot, smallPages } from '../host/index.ts';
import { dramOnly, PhysicalMemory } from '../machine/memory.ts';
import { Kvm } from './kvm.ts';
import { KVM_ARM_TAGS_FROM_GUEST, KVM_CAP_ARM_MTE } from './uapi.ts';

const GUEST = 0x8000_0000;

/** A VM with MTE and four pages, whose observer fills `told`. */
function observed() {
  const told: string[] = [];
  const memory = new PhysicalMemory({ zones: dramOnly(8 * MIB), recordPageCount: 16 });
  const host = new Host({ memory, policy: smallPages });
  const process = host.createProcess();
  const vm = new Kvm({ host }).createVm(process, { observer: { mte: (text) => told.push(text) } });
  if (isRefusal(vm)) throw new Error('no VM');
  const userspaceAddr = process.mmap({
    length: 4 * PAGE_SIZE,
    prot: Prot.read | Prot.write,
    flags: MapFlag.private | MapFlag.anonymous,
  });
  vm.setUserMemoryRegion({
    slot: 0,
    flags: 0,
    guestPhysAddr: GUEST,
    memorySize: 4 * PAGE_SIZE,
    userspaceAddr,
  });
  return { vm, told, userspaceAddr };
}

describe('VmObserver.mte', () => {
  it('KVM_CAP_ARM_MTE: told once, however often it is enabled', () => {
    const { vm, told } = observed();
    vm.enableCap({ cap: KVM_CAP_ARM_MTE });
    vm.enableCap({ cap: KVM_CAP_ARM_MTE });
    expect(told).toEqual(['KVM_CAP_ARM_MTE enabled']);
  });

  it('a page: told when its tags are initialised, and not when it is touched again', () => {
    const { vm, told } = observed();
    vm.enableCap({ cap: KVM_CAP_ARM_MTE });
    const guest = new TestGuest(vm.vm);
    guest.store(ipa(GUEST + PAGE_SIZE), 1);
    guest.store(ipa(GUEST + PAGE_SIZE + 8), 1);
    expect(told.slice(1)).toEqual(['tags of 1 page(s) initialised, ipa=0x80001000']);
  });

  it('without MTE: no page is told of', () => {
    const { vm, told } = observed();
    new TestGuest(vm.vm).store(ipa(GUEST), 1);
    expect(told).toEqual([]);
  });

  it('COPY_TAGS: its direction, and what came of it', () => {
    const { vm, told, userspaceAddr } = observed();
    const request = { guestIpa: GUEST, length: PAGE_SIZE, addr: userspaceAddr, flags: 0 };
    vm.copyTags(request);
    vm.enableCap({ cap: KVM_CAP_ARM_MTE });
    vm.copyTags({ ...request, flags: KVM_ARM_TAGS_FROM_GUEST });
    expect([told[0], told[2]]).toEqual([
      'KVM_ARM_MTE_COPY_TAGS to guest, ipa=0x80000000: EINVAL',
      'KVM_ARM_MTE_COPY_TAGS from guest, ipa=0x80000000: 4096 bytes',
    ]);
  });
});
