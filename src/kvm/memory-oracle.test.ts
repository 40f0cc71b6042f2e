/**
 * Guest memory and tags against a real KVM: sections B and C of the answers recorded on Linux 6.12
 * and 6.1 under QEMU 10. Rows that pass a bad argument pointer or use another descriptor (C16, C55,
 * C56) are tested with `copyTagsIoctl`: the calls here take values and belong to the VM.
 */
import { describe, expect, it } from 'vitest';
import { type Refused, TestGuest } from '../../test/support/test-guest.ts';
import { hva, type Ipa, ipa, MIB, PAGE_SIZE, pa } from '../base/index.ts';
import {
  type AddressSpace,
  DEV_ZERO,
  type DeviceFile,
  Errno,
  Host,
  isRefusal,
  MapFlag,
  type MmapRequest,
  Prot,
} from '../host/index.ts';
import { dramOnly, PhysicalMemory } from '../machine/memory.ts';
import { type KvmPolicy, linux61, linux612 } from './policy.ts';
import { KVM_ARM_TAGS_FROM_GUEST, KVM_CAP_ARM_MTE, KVM_MEM_READONLY } from './uapi.ts';
import { createVm, type Vm } from './vm.ts';

const RW = Prot.read | Prot.write;
const PRIVATE = MapFlag.private | MapFlag.anonymous;
const SHARED = MapFlag.shared | MapFlag.anonymous;
const GUEST_RAM = ipa(0x4000_0000);
const FROM_GUEST = KVM_ARM_TAGS_FROM_GUEST;

const DEV_MEM: DeviceFile = {
  kind: 'device',
  base: pa(0x0a00_0000),
  sizeBytes: 4 * MIB,
  memoryType: 'Device-nGnRnE',
};

interface Setup {
  host: Host;
  process: AddressSpace;
  vm: Vm;
  /** A page of the VMM to copy tags from and to. */
  buffer: number;
}

function setUp(options: { mte: boolean; policy?: KvmPolicy }): Setup {
  const memory = new PhysicalMemory({ zones: dramOnly(24 * MIB), recordPageCount: 16 });
  const host = new Host({ memory });
  const process = host.createProcess();
  const vm = createVm({ host, process, policy: options.policy ?? linux612 });
  if (isRefusal(vm)) throw new Error('no VM');
  if (options.mte) expect(vm.enableCap({ cap: KVM_CAP_ARM_MTE })).toBe(0);
  return { host, process, vm, buffer: map(process, { length: 64 * PAGE_SIZE }) };
}

function map(process: AddressSpace, request: Partial<MmapRequest>): number {
  const at = process.mmap({ length: PAGE_SIZE, prot: RW, flags: PRIVATE, ...request });
  if (isRefusal(at)) throw new Error(`mmap refused: ${at}`);
  return at;
}

function setSlot(vm: Vm, userspaceAddr: number, sizeBytes: number, flags = 0): number {
  const region = { slot: 0, flags, guestPhysAddr: GUEST_RAM, memorySize: sizeBytes };
  return vm.setUserMemoryRegion({ ...region, userspaceAddr });
}

/** Tags of the first granules that COPY_TAGS reads, or its refusal. */
function copiedTags({ vm, process, buffer }: Setup, count: number): string | number {
  const request = { guestIpa: GUEST_RAM, length: PAGE_SIZE, addr: buffer, flags: FROM_GUEST };
  const result = vm.copyTags(request);
  if (result !== PAGE_SIZE) return result;
  const tags = process.memory.read(hva(buffer), count);
  return isRefusal(tags) ? tags : [...tags].map((tag) => tag.toString(16)).join('');
}

const at = (page: number, granule = 0): Ipa => ipa(GUEST_RAM + page * PAGE_SIZE + 16 * granule);
const errno = (value: Errno): Refused => ({ kind: 'errno', errno: value });

/** The rows' outcome: slot refused, or what STG of tag granules 1 and 2 gave and COPY_TAGS read. */
type Outcome = { slot: number } | { stg: 'done' | Refused; tags: string | number };
const TAGGED: Outcome = { stg: 'done', tags: '055000' };
const REFUSED: Outcome = { slot: -Errno.EINVAL };
const NOT_REACHED: Outcome = { stg: errno(Errno.EFAULT), tags: -Errno.EFAULT };

interface Row {
  name: string;
  request: (host: Host) => Partial<MmapRequest>;
  expected: Outcome;
  on61?: Outcome;
}

const shared = (host: Host) => ({ flags: MapFlag.shared, file: host.createMemfd(2 * MIB) });
const privately = (host: Host) => ({ flags: MapFlag.private, file: host.createMemfd(2 * MIB) });
const mte = { prot: RW | Prot.mte };
const huge = { length: 2 * MIB };

const rows: readonly Row[] = [
  { name: 'B01 anon MAP_PRIVATE', request: () => ({}), expected: TAGGED },
  { name: 'B02 anon MAP_PRIVATE PROT_MTE', request: () => mte, expected: TAGGED },
  {
    name: 'B04 anon MAP_SHARED PROT_MTE',
    request: () => ({ ...mte, flags: SHARED }),
    expected: TAGGED,
    on61: REFUSED,
  },
  // B09 (/dev/shm) is the same kind of file.
  { name: 'B05 memfd MAP_SHARED', request: shared, expected: TAGGED, on61: REFUSED },
  {
    name: 'B06, B10 memfd MAP_SHARED PROT_MTE',
    request: (host) => ({ ...shared(host), ...mte }),
    expected: TAGGED,
    on61: REFUSED,
  },
  { name: 'B07, B11, B12, B14 memfd, tmpfs MAP_PRIVATE', request: privately, expected: TAGGED },
  {
    name: 'B15 tmpfs MAP_PRIVATE PROT_MTE',
    request: (host) => ({ ...privately(host), ...mte }),
    expected: TAGGED,
  },
  {
    name: 'B16 /dev/zero MAP_PRIVATE',
    request: () => ({ flags: MapFlag.private, file: DEV_ZERO }),
    expected: REFUSED,
    on61: TAGGED,
  },
  {
    name: 'B19 /dev/mem MAP_SHARED',
    request: () => ({ flags: MapFlag.shared, file: DEV_MEM }),
    expected: REFUSED,
  },
  {
    name: 'B20 /dev/mem MAP_PRIVATE',
    request: () => ({ flags: MapFlag.private, file: DEV_MEM }),
    expected: REFUSED,
    on61: NOT_REACHED,
  },
  {
    name: 'B21 MAP_HUGETLB anon MAP_PRIVATE',
    request: () => ({ ...huge, flags: PRIVATE | MapFlag.hugetlb }),
    expected: REFUSED,
    on61: TAGGED,
  },
  {
    name: 'B22 MAP_HUGETLB anon MAP_SHARED',
    request: () => ({ ...huge, flags: SHARED | MapFlag.hugetlb }),
    expected: REFUSED,
  },
  { name: 'B24 PROT_NONE anon', request: () => ({ prot: Prot.none }), expected: NOT_REACHED },
  {
    name: 'B25 PROT_READ anon',
    request: () => ({ prot: Prot.read }),
    expected: { stg: errno(Errno.EFAULT), tags: '000000' },
  },
];

describe('B: KVM_SET_USER_MEMORY_REGION by backing, then STG and COPY_TAGS', () => {
  const cases = rows.flatMap((row) => [
    { ...row, policy: linux612 },
    { ...row, policy: linux61, expected: row.on61 ?? row.expected },
  ]);

  it.each(cases)('$name, VM MTE on, $policy.name', ({ request, policy, expected }) => {
    const setup = setUp({ mte: true, policy });
    const { host, process, vm } = setup;
    const mapping = { length: 4 * PAGE_SIZE, ...request(host) };
    const slot = setSlot(vm, map(process, mapping), mapping.length);
    if ('slot' in expected) {
      expect(slot).toBe(expected.slot);
      return;
    }
    expect(slot).toBe(0);
    const guest = new TestGuest(vm);
    const stg = guest.storeTag(at(0, 1), 5);
    if (stg === 'done') expect(guest.storeTag(at(0, 2), 5)).toBe('done');
    expect({ stg, tags: copiedTags(setup, 6) }).toEqual(expected);
    host.frames.check();
  });

  it.each(rows)('B26 to B50: $name, VM MTE off, accepted', ({ request }) => {
    const { host, process, vm } = setUp({ mte: false });
    const mapping = { length: 4 * PAGE_SIZE, ...request(host) };
    expect(setSlot(vm, map(process, mapping), mapping.length)).toBe(0);
  });

  it('a VM without MTE: LDG gives 0, STG is ignored, tags of the VMM stay', () => {
    const { process, vm } = setUp({ mte: false });
    const memory = map(process, mte);
    expect(process.memory.storeTag(hva(memory), 7)).toBe(0);
    setSlot(vm, memory, PAGE_SIZE);
    const guest = new TestGuest(vm);
    expect(guest.storeTag(at(0), 5)).toBe('done');
    expect(guest.loadTag(at(0))).toBe(0);
    expect(process.memory.loadTag(hva(memory))).toBe(7);
  });

  it('B51, B52: a READONLY slot; LDG gives 0, a store is the VMM’s to emulate', () => {
    const { process, vm } = setUp({ mte: true });
    expect(setSlot(vm, map(process, {}), PAGE_SIZE, KVM_MEM_READONLY)).toBe(0);
    const guest = new TestGuest(vm);
    expect(guest.loadTag(at(0))).toBe(0);
    expect(guest.storeTag(at(0), 1)).toEqual(errno(Errno.ENOSYS));
  });

  it('B54, B55: a slot whose HVA is not mapped: accepted, a store fails with EFAULT', () => {
    const { vm } = setUp({ mte: true });
    expect(setSlot(vm, 0x10_0000, PAGE_SIZE)).toBe(0);
    expect(new TestGuest(vm).storeTag(at(0), 1)).toEqual(errno(Errno.EFAULT));
  });

  it('B56, B57: no memslot: STG has no syndrome, ENOSYS; a plain store exits as MMIO', () => {
    const { vm } = setUp({ mte: true });
    const guest = new TestGuest(vm);
    const nowhere = ipa(0x1_0000_0008);
    expect(guest.storeTag(nowhere, 1)).toEqual(errno(Errno.ENOSYS));
    expect(guest.access(nowhere, 1, { isv: true })).toEqual({ kind: 'mmio', ipa: nowhere });
  });

  it('B59 to B61: a shared mapping slotted before MTE is enabled; only 6.1 fails the guest', () => {
    for (const policy of [linux612, linux61]) {
      const setup = setUp({ mte: false, policy });
      expect(setSlot(setup.vm, map(setup.process, { flags: SHARED }), PAGE_SIZE)).toBe(0);
      expect(setup.vm.enableCap({ cap: KVM_CAP_ARM_MTE })).toBe(0);
      expect(copiedTags(setup, 2)).toBe('00');
      const stg = new TestGuest(setup.vm).storeTag(at(0), 1);
      expect(stg).toEqual(policy === linux612 ? 'done' : errno(Errno.EFAULT));
    }
  });

  it('6.1: memory that the host keeps no frames for is refused when the guest touches it', () => {
    const memory = new PhysicalMemory({
      zones: [
        ...dramOnly(8 * MIB),
        { kind: 'no-tags', base: pa(0x1_0000_0000), sizeBytes: 2 * MIB, noTags: 'external-abort' },
      ],
      recordPageCount: 16,
    });
    const pmem: DeviceFile = {
      kind: 'device',
      base: pa(0x1_0000_0000),
      sizeBytes: 2 * MIB,
      memoryType: 'Normal-WB',
    };
    const backing = { flags: MapFlag.private, file: pmem };
    for (const mteOn of [false, true]) {
      const host = new Host({ memory });
      const process = host.createProcess();
      const vm = createVm({ host, process, policy: linux61 });
      if (isRefusal(vm)) throw new Error('no VM');
      if (mteOn) vm.enableCap({ cap: KVM_CAP_ARM_MTE });
      expect(setSlot(vm, map(process, backing), PAGE_SIZE)).toBe(0);
      const expected = mteOn ? errno(Errno.EFAULT) : 0;
      expect(new TestGuest(vm).load(at(0))).toEqual(expected);
    }
  });
});

describe('C: KVM_ARM_MTE_COPY_TAGS', () => {
  const SLOT_PAGES = 16;

  /** An MTE VM with a slot of 16 pages over plain anonymous memory. */
  function withSlot(options: { policy?: KvmPolicy; request?: Partial<MmapRequest> } = {}) {
    const setup = setUp({ mte: true, ...options });
    const length = SLOT_PAGES * PAGE_SIZE;
    const memory = map(setup.process, { length, ...options.request });
    expect(setSlot(setup.vm, memory, length)).toBe(0);
    return { ...setup, memory };
  }

  it('C01, C02: MTE not enabled, EINVAL', () => {
    const { vm, process, buffer } = setUp({ mte: false });
    setSlot(vm, map(process, {}), PAGE_SIZE);
    for (const flags of [0, FROM_GUEST]) {
      const request = { guestIpa: GUEST_RAM, length: PAGE_SIZE, addr: buffer, flags };
      expect(vm.copyTags(request)).toBe(-Errno.EINVAL);
    }
  });

  const { EINVAL, EFAULT } = Errno;
  const end = SLOT_PAGES * PAGE_SIZE;
  const arguments_: readonly [string, object, number, number?][] = [
    ['C04 page never touched', {}, 4096],
    ['C05 whole 16 page slot', { length: end }, 65536],
    ['C06 length 0', { length: 0 }, 0],
    ['C07 length 0, ipa misaligned', { length: 0, guestIpa: GUEST_RAM + 16 }, -EINVAL],
    ['C09 flags=2', { flags: 2 }, -EINVAL],
    ['C10 flags=3', { flags: 3 }, -EINVAL],
    ['C11 flags=4', { flags: 4 }, -EINVAL],
    ['C12 flags=1<<63', { flags: 2 ** 63 }, -EINVAL],
    ['C14 reserved[0]=1', { reserved: [1, 0] }, -EINVAL],
    ['C15 reserved[1]=1', { reserved: [0, 1] }, -EINVAL],
    ['C17 ipa +16', { guestIpa: GUEST_RAM + 16 }, -EINVAL],
    ['C19 length 16', { length: 16 }, -EINVAL],
    ['C20 length 4096+16', { length: 4112 }, -EINVAL],
    ['C21 length 2048', { length: 2048 }, -EINVAL],
    ['C22 range outside slots', { guestIpa: 0x1_0000_0000 }, -EFAULT],
    ['C24 first page outside', { guestIpa: GUEST_RAM - PAGE_SIZE, length: 8192 }, -EFAULT],
    ['C25 2 pages inside', { guestIpa: GUEST_RAM + end - 8192, length: 16384 }, 8192],
    ['C26 the same, to guest', { guestIpa: GUEST_RAM + end - 8192, length: 16384, flags: 0 }, 8192],
    ['C27 length 2 GiB', { length: 0x8000_0000 }, -EINVAL, 65536],
    ['C29 length 4 GiB', { length: 0x1_0000_0000 }, -EINVAL, 65536],
    ['C30 length 0xfffffffffffff000', { length: 0xffff_ffff_ffff_f000 }, -EINVAL, 65536],
    ['a negative length', { length: -4096 }, -EINVAL],
    ['C31 ipa 0xfffffffffffff000', { guestIpa: 0xffff_ffff_ffff_f000 }, -EFAULT],
    ['C32 the same, wraps', { guestIpa: 0xffff_ffff_ffff_f000, length: 8192 }, -EFAULT],
    ['C34 addr bad pointer, to guest', { addr: 0x10_0000, flags: 0 }, -EFAULT],
    ['C35 addr NULL', { addr: 0 }, -EFAULT],
  ];
  const cases = arguments_.flatMap(([name, change, expected, on61]) => [
    { name, change, expected, policy: linux612 },
    { name, change, expected: on61 ?? expected, policy: linux61 },
  ]);
  it.each(cases)('$name, $policy.name', ({ change, expected, policy }) => {
    const { vm, buffer } = withSlot({ policy });
    const request = { guestIpa: GUEST_RAM, length: PAGE_SIZE, addr: buffer, flags: FROM_GUEST };
    expect(vm.copyTags({ ...request, ...change })).toBe(expected);
  });

  /** A buffer of which only the first `mapped` bytes are mapped. */
  function shortBuffer(process: AddressSpace, mapped: number): number {
    const page = map(process, { length: 2 * PAGE_SIZE });
    process.munmap(hva(page + PAGE_SIZE), PAGE_SIZE);
    return page + PAGE_SIZE - mapped;
  }

  it.each([
    ['C36 from guest', FROM_GUEST],
    ['C37 to guest', 0],
  ])('%s: only 256 of 512 bytes of the buffer mapped, 4096', (_name, flags) => {
    const { vm, process } = withSlot();
    const addr = shortBuffer(process, 256);
    expect(vm.copyTags({ guestIpa: GUEST_RAM, length: 8192, addr, flags })).toBe(4096);
  });

  it.each([
    [linux612, '0000', '000000'],
    [linux61, '9999', '990000'],
  ])('C39 to guest, 128 of 256 bytes mapped: EFAULT, tags after', (policy, first, middle) => {
    const setup = withSlot({ policy });
    const { vm, process, buffer } = setup;
    const whole = { guestIpa: GUEST_RAM, length: PAGE_SIZE, addr: buffer };
    expect(vm.copyTags({ ...whole, flags: 0 })).toBe(4096);
    const addr = shortBuffer(process, 128);
    process.memory.fill(hva(addr), 9, 128);
    expect(vm.copyTags({ ...whole, addr, flags: 0 })).toBe(-EFAULT);
    const after = String(copiedTags(setup, 132));
    expect([after.slice(0, 4), after.slice(126, 132)]).toEqual([first, middle]);
  });

  it('C40 an odd buffer address, 4096', () => {
    const { vm, buffer } = withSlot();
    const request = { guestIpa: GUEST_RAM, length: PAGE_SIZE, addr: buffer + 1, flags: FROM_GUEST };
    expect(vm.copyTags(request)).toBe(4096);
  });

  it('C41, C42: values above 15 lose their upper nibble; data of the page stays zero', () => {
    const setup = withSlot();
    const { vm, process, buffer } = setup;
    process.memory.write(
      hva(buffer),
      new Uint8Array(256).map((_, i) => i),
    );
    const request = { guestIpa: GUEST_RAM, length: PAGE_SIZE, addr: buffer };
    expect(vm.copyTags({ ...request, flags: 0 })).toBe(4096);
    process.memory.fill(hva(buffer), 0xff, 256);
    expect(copiedTags(setup, 256)).toBe('0123456789abcdef'.repeat(16));
    expect(new TestGuest(vm).load(at(0))).toBe(0);
  });

  it('C44: a READONLY slot gives its tags and takes none', () => {
    const { vm, process, buffer } = setUp({ mte: true });
    setSlot(vm, map(process, {}), PAGE_SIZE, KVM_MEM_READONLY);
    const request = { guestIpa: GUEST_RAM, length: PAGE_SIZE, addr: buffer };
    expect(vm.copyTags({ ...request, flags: FROM_GUEST })).toBe(4096);
    expect(vm.copyTags({ ...request, flags: 0 })).toBe(-EFAULT);
  });

  it.each([
    ['C45, C46 HVA not mapped', undefined, -EFAULT, -EFAULT],
    ['C47 PROT_READ', { prot: Prot.read }, 4096, -EFAULT],
    ['C49 PROT_NONE', { prot: Prot.none }, -EFAULT, -EFAULT],
  ])('%s', (_name, request, fromGuest, toGuest) => {
    const { vm, process, buffer } = setUp({ mte: true });
    setSlot(vm, request === undefined ? 0x10_0000 : map(process, request), PAGE_SIZE);
    const call = { guestIpa: GUEST_RAM, length: PAGE_SIZE, addr: buffer };
    expect(vm.copyTags({ ...call, flags: FROM_GUEST })).toBe(fromGuest);
    expect(vm.copyTags({ ...call, flags: 0 })).toBe(toGuest);
  });

  it('C50 to C54: a private file mapping takes tags into its own copy', () => {
    const setup = setUp({ mte: true });
    const { host, vm, process, buffer } = setup;
    const file = host.createMemfd(PAGE_SIZE);
    setSlot(vm, map(process, { flags: MapFlag.private, file }), PAGE_SIZE);
    expect(copiedTags(setup, 4)).toBe('0000');
    process.memory.fill(hva(buffer), 7, 256);
    const request = { guestIpa: GUEST_RAM, length: PAGE_SIZE, addr: buffer, flags: 0 };
    expect(vm.copyTags(request)).toBe(4096);
    expect(copiedTags(setup, 4)).toBe('7777');
    const other = map(process, { flags: MapFlag.shared, file, prot: RW | Prot.mte });
    expect(process.memory.loadTag(hva(other))).toBe(0);
  });

  it('C57: a VM with no memslots, EFAULT', () => {
    const { vm, buffer } = setUp({ mte: true });
    const request = { guestIpa: GUEST_RAM, length: PAGE_SIZE, addr: buffer, flags: FROM_GUEST };
    expect(vm.copyTags(request)).toBe(-EFAULT);
  });

  it('F11 to F26: guest and VMM see the same tags, the VMM only through PROT_MTE', () => {
    const setup = withSlot();
    const { vm, process } = setup;
    const memory = hva(setup.memory);
    const guest = new TestGuest(vm);
    for (let i = 0; i < 8; i++) expect(guest.storeTag(at(0, i), i + 1)).toBe('done');
    expect(copiedTags(setup, 10)).toBe('1234567800');
    expect(process.memory.loadTag(memory)).toBe(0);
    expect(process.mprotect(memory, PAGE_SIZE, RW | Prot.mte)).toBe(0);
    expect(process.memory.loadTag(hva(memory + 16))).toBe(2);
    process.memory.tagCheckMode = 'sync';
    expect(process.memory.load(memory, 1, 8)).toBeInstanceOf(Uint8Array);
    expect(process.memory.load(memory, 0, 8)).toBe('SEGV_MTESERR');
    expect(process.memory.storeTag(hva(memory + 16), 10)).toBe(0);
    expect(guest.loadTag(at(0, 1))).toBe(10);
    // F25: the VMM wrote data first; stale tags of the frame must not show.
    process.memory.tagCheckMode = 'none';
    process.memory.writeU32(hva(memory + 2 * PAGE_SIZE), 1);
    expect(guest.loadTag(at(2))).toBe(0);
  });
});
