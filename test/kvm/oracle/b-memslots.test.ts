/**
 * Section B: KVM_SET_USER_MEMORY_REGION over each kind of mapping, then what the guest's STG and
 * the VMM's COPY_TAGS find there, against a real KVM. Files of tmpfs, of /dev/shm and of the
 * recorded machine's root are shared-memory files here.
 */
import { expect } from 'vitest';
import { assert, MIB, PAGE_SIZE, pa } from '../../../src/base/index.ts';
import {
  DEV_ZERO,
  type DeviceFile,
  type Host,
  isRefusal,
  MapFlag,
  type MmapRequest,
  Prot,
} from '../../../src/host/index.ts';
import type { KvmVm } from '../../../src/kvm/kvm-vm.ts';
import {
  KVM_ARM_TAGS_FROM_GUEST,
  KVM_CAP_ARM_MTE,
  KVM_MEM_READONLY,
} from '../../../src/kvm/uapi.ts';
import { accept, DATA, GuestVm, NOWHERE } from '../../support/guest-vm.ts';
import { guestText, oracleSection, resultText } from '../../support/oracle.ts';
import { copyTagsFrom, granule, loadTag, store, storeTag, tagBuffer } from './guest-programs.ts';
import { type Program, testSection } from './rows.ts';

const RW = Prot.read | Prot.write;
const SHARED = MapFlag.shared | MapFlag.anonymous;
const SLOT_BYTES = 16 * PAGE_SIZE;
const NOT_MAPPED = 0x10_0000;

const DEV_MEM: DeviceFile = {
  kind: 'device',
  base: pa(0x0a00_0000),
  sizeBytes: 4 * MIB,
  memoryType: 'Device-nGnRnE',
};

/** The mapping that a row's text names. */
function mappingOf(call: string, host: Host): Partial<MmapRequest> & { length: number } {
  const shared = call.includes('MAP_SHARED') ? MapFlag.shared : MapFlag.private;
  const prot = call.includes('PROT_NONE')
    ? Prot.none
    : call.includes('PROT_READ')
      ? Prot.read
      : RW | (call.includes('PROT_MTE') ? Prot.mte : 0);
  const anonymous = shared | MapFlag.anonymous;
  if (call.includes('HUGETLB')) {
    return { prot, flags: anonymous | MapFlag.hugetlb, length: 2 * MIB };
  }
  const length = SLOT_BYTES;
  if (call.includes('/dev/zero')) return { prot, flags: shared, file: DEV_ZERO, length };
  if (call.includes('/dev/mem')) return { prot, flags: shared, file: DEV_MEM, length };
  if (call.includes('anon')) return { prot, flags: anonymous, length };
  return { prot, flags: shared, file: host.createMemfd(2 * MIB), length };
}

/** A parenthesis of the recording holds a whole answer, with other separators. */
const inner = (text: string): string => text.replaceAll(' · ', ' ');

testSection('B', 'memslots by backing, then guest STG and COPY_TAGS', ({ kvm: policy }) => {
  const newGuest = (): GuestVm => new GuestVm({ policy });

  const onMte: Program = ({ call }) => {
    const guest = newGuest();
    const buffer = tagBuffer(guest);
    const mapping = mappingOf(call, guest.host);
    const slot = guest.setSlot(guest.map(mapping), mapping.length);
    if (isRefusal(slot)) return resultText(slot);
    const stg = guestText(
      guest.run(`${storeTag(granule(0, 2), 5)}\n${storeTag(granule(0, 3), 5)}`),
    );
    const [result, tags] = copyTagsFrom(guest, buffer, 0, 6);
    const stgText = stg.startsWith('ret=0') ? stg.replace(' · ', ' - ') : inner(stg);
    const copied = isRefusal(result) ? inner(resultText(result)) : `ret=${result} -`;
    return `${resultText(slot)} · guest STG: ${stgText}; COPY_TAGS from guest ${copied} tags=${tags}`;
  };

  const offMte: Program = ({ call }) => {
    const guest = new GuestVm({ policy, mte: false });
    const mapping = mappingOf(call, guest.host);
    return resultText(guest.setSlot(guest.map(mapping), mapping.length));
  };

  const mmapOnly: Program = ({ call }) => {
    const { host, process } = newGuest();
    const request = { prot: RW, flags: 0, ...mappingOf(call, host) };
    return resultText(process.mmap(request));
  };

  const byBacking = oracleSection('B').filter(({ id }) => id < 'B51');
  const programOf = (call: string): Program => {
    if (call.startsWith('mmap')) return mmapOnly;
    return call.endsWith('VM MTE on') ? onMte : offMte;
  };

  const readOnly = (guest: GuestVm): number =>
    guest.setSlot(guest.map({}), SLOT_BYTES, { slotFlags: KVM_MEM_READONLY });
  const unmapped = (guest: GuestVm): number => guest.setSlot(NOT_MAPPED, PAGE_SIZE);

  /** Rows B59 to B61: a VM that gets its memory before MTE. */
  const late = new GuestVm({ mte: false, policy });
  let vm: KvmVm;

  return {
    ...Object.fromEntries(byBacking.map(({ id, call }) => [id, programOf(call)])),
    B51: () => resultText(readOnly(newGuest())),
    B52: () => {
      const guest = newGuest();
      accept(readOnly(guest));
      return guestText(guest.run(loadTag(granule(0))));
    },
    B54: () => resultText(unmapped(newGuest())),
    B55: () => {
      const guest = newGuest();
      accept(unmapped(guest));
      return guestText(guest.run(storeTag(granule(0), 5)));
    },
    B56: () => guestText(newGuest().run(storeTag(NOWHERE, 5))),
    B57: () => guestText(newGuest().run(store(NOWHERE, 0x55))),
    B59: () => {
      const made = late.kvm.createVm(late.process, { policy });
      assert(!isRefusal(made), 'a VM is created');
      vm = made;
      const userspaceAddr = late.map({ flags: SHARED });
      const region = { slot: 0, flags: 0, guestPhysAddr: DATA, memorySize: SLOT_BYTES };
      return resultText(vm.setUserMemoryRegion({ ...region, userspaceAddr }));
    },
    B60: () => resultText(vm.enableCap({ cap: KVM_CAP_ARM_MTE })),
    B61: () => {
      const request = { guestIpa: DATA, length: PAGE_SIZE, addr: tagBuffer(late) };
      const flags = KVM_ARM_TAGS_FROM_GUEST;
      expect(vm.vm.mte).toBe(true);
      return resultText(vm.copyTags({ ...request, flags }));
    },
  };
});
