/**
 * Section H: what sets bits in the dirty log, by a guest's instructions and by its VMM's calls,
 * against a real KVM.
 */
import { expect } from 'vitest';
import { hva, PAGE_SIZE } from '../../../src/base/index.ts';
import { isRefusal, Prot } from '../../../src/host/index.ts';
import { KVM_MEM_LOG_DIRTY_PAGES } from '../../../src/kvm/uapi.ts';
import { GuestVm } from '../../support/guest-vm.ts';
import { resultText } from '../../support/oracle.ts';
import {
  copyTagsTo,
  granule,
  load,
  loadTag,
  pointer,
  store,
  storeTag,
  tagBuffer,
  untagged,
} from './guest-programs.ts';
import { testSection } from './rows.ts';

const RW = Prot.read | Prot.write;

/** In order, on one VM; the VMM's calls among the rows are in src/kvm/dirty-log.test.ts too. */
testSection('H', 'the dirty log', ({ kvm: policy }) => {
  const guest = new GuestVm({ policy });
  const { memory } = guest.process;
  const length = 16 * PAGE_SIZE;
  const slot = guest.map({ length });
  const buffer = tagBuffer(guest);
  const log = (): string => {
    const bitmap = guest.vm.getDirtyLog(0);
    if (isRefusal(bitmap)) return resultText(bitmap);
    return `ret=0 · 0x${bitmap[0]!.toString(16).padStart(4, '0')}`;
  };
  const logAfter = (source: string): string => {
    guest.value(source);
    return log();
  };
  const logging = (on: boolean): number =>
    guest.setSlot(slot, length, { slotFlags: on ? KVM_MEM_LOG_DIRTY_PAGES : 0 });

  return {
    H01: () => resultText(logging(true)),
    H02: log,
    H04: () => logAfter(load(granule(1))),
    H05: () => logAfter(loadTag(granule(2))),
    H06: () => logAfter(store(granule(3), 1)),
    H07: () => logAfter(storeTag(granule(4), 1)),
    H09: () => logAfter(storeTag(granule(1), 1)),
    H10: () => logAfter(`${pointer(granule(6))}\nmov x0, #0\nstgm x0, [x1]`),
    H11: () => logAfter(`${pointer(granule(7))}\ndc gva, x1`),
    H12: () => logAfter(storeTag(untagged(14), 1)),
    H14: () => {
      expect(copyTagsTo(guest, buffer, 9, [1, 2, 3])).toBe(PAGE_SIZE);
      return log();
    },
    H15: () => {
      expect(copyTagsTo(guest, buffer, 4, [1, 2, 3])).toBe(PAGE_SIZE);
      return log();
    },
    H16: () => {
      memory.writeU64(hva(slot + 10 * PAGE_SIZE), 1n);
      return log();
    },
    H17: () => {
      expect(guest.process.mprotect(slot, length, RW | Prot.mte)).toBe(0);
      memory.storeTag(hva(slot + 11 * PAGE_SIZE), 5);
      return log();
    },
    H19: () => {
      expect(logging(false)).toBe(0);
      guest.value(storeTag(granule(12), 1));
      // The recording's value is 0xdead0000 with the errno in it.
      const refused = guest.vm.getDirtyLog(0);
      const errno = isRefusal(refused) ? -refused : 0;
      return log().replace('ret=-1', `ret=${0xdead_0000 | errno}`);
    },
    H20: () => {
      expect(logging(true)).toBe(0);
      return log();
    },
    H21: () => logAfter(storeTag(granule(12), 2)),
  };
});
