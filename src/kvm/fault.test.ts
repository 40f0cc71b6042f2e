/** Stage 2 aborts: what each becomes inside and outside memory slots, with and without MTE. */
import { beforeEach, describe, expect, it } from 'vitest';
import { TestGuest } from '../../test/support/test-guest.ts';
import { decodeStage2Leaf } from '../arm/descriptor.ts';
import { FaultType } from '../arm/syndrome.ts';
import { BLOCK_SIZE, type Hva, hva, type Ipa, ipa, MIB, PAGE_SIZE, pa } from '../base/index.ts';
import {
  type AddressSpace,
  type DeviceFile,
  Errno,
  Host,
  type HostCpu,
  isRefusal,
  MapFlag,
  type MmapRequest,
  Prot,
} from '../host/index.ts';
import { dramOnly, PhysicalMemory } from '../machine/memory.ts';
import { AccessKind } from '../machine/mmu.ts';
import { type GuestAbort, handleGuestAbort } from './fault.ts';
import { type KvmPolicy, linux61, linux612 } from './policy.ts';
import {
  KVM_CAP_ARM_MTE,
  KVM_CAP_ARM_NISV_TO_USER,
  KVM_MEM_LOG_DIRTY_PAGES,
  KVM_MEM_READONLY,
} from './uapi.ts';
import { createVm, type Vm } from './vm.ts';

const RW = Prot.read | Prot.write;
const PRIVATE = MapFlag.private | MapFlag.anonymous;
const RAM = ipa(0x4000_0000);
const FAR = 0xffff_8000_0000_0abcn;
const EXTERNAL_ABORT = 0x10;

let host: Host;
let process: AddressSpace;
let vm: Vm;

function setUp(options: { cpu?: Partial<HostCpu>; policy?: KvmPolicy } = {}): void {
  const memory = new PhysicalMemory({ zones: dramOnly(24 * MIB), recordPageCount: 16 });
  host = new Host({ memory, ...(options.cpu === undefined ? {} : { cpu: options.cpu }) });
  process = host.createProcess();
  const made = createVm({ host, process, policy: options.policy ?? linux612 });
  if (isRefusal(made)) throw new Error('no VM');
  vm = made;
}

beforeEach(() => setUp());

function map(request: Partial<MmapRequest>): Hva {
  const at = process.mmap({ length: 4 * MIB, prot: RW, flags: PRIVATE, ...request });
  if (isRefusal(at)) throw new Error(`mmap refused: ${at}`);
  return at;
}

function slot(options: {
  at: number;
  sizeBytes?: number;
  base?: number;
  flags?: number;
  id?: number;
}) {
  const { at, sizeBytes = 4 * MIB, base = RAM, flags = 0, id = 0 } = options;
  const region = { slot: id, flags, guestPhysAddr: base, memorySize: sizeBytes };
  expect(vm.setUserMemoryRegion({ ...region, userspaceAddr: at })).toBe(0);
}

const abort = (change: Partial<GuestAbort>): GuestAbort => ({
  type: FaultType.translation,
  level: 2,
  ipa: RAM,
  far: FAR,
  fetch: false,
  write: false,
  s1ptw: false,
  cacheMaintenance: false,
  isv: false,
  ...change,
});

const handle = (change: Partial<GuestAbort>) => handleGuestAbort(vm, abort(change));

const inject = (fetch: boolean, far = FAR, fsc = EXTERNAL_ABORT) => ({
  kind: 'inject-abort',
  fetch,
  fsc,
  far,
});

describe('handleGuestAbort: outside memory', () => {
  const nowhere = ipa(0x900_0000);
  const readOnly = ipa(0x8000_0000);

  beforeEach(() => slot({ at: map({}), base: readOnly, flags: KVM_MEM_READONLY }));

  const cases: readonly [string, Partial<GuestAbort>, unknown][] = [
    ['a load with syndrome', { isv: true }, { kind: 'mmio', ipa: nowhere + 0xabc }],
    ['a store with syndrome', { isv: true, write: true }, { kind: 'mmio', ipa: nowhere + 0xabc }],
    ['a load without syndrome', {}, { kind: 'errno', errno: Errno.ENOSYS }],
    ['a fetch', { fetch: true }, inject(true)],
    ['a table walk', { s1ptw: true }, inject(false)],
    ['a table walk for a fetch', { s1ptw: true, fetch: true }, inject(true)],
    ['cache maintenance', { cacheMaintenance: true, write: true }, { kind: 'skip' }],
  ];
  it.each(cases)('no slot: %s', (_name, change, expected) => {
    expect(handle({ ipa: nowhere, ...change })).toEqual(expected);
  });

  const intoReadOnly: readonly [string, Partial<GuestAbort>, unknown][] = [
    ['a load', {}, { kind: 'resume' }],
    ['a fetch', { fetch: true }, { kind: 'resume' }],
    ['a store with syndrome', { isv: true, write: true }, { kind: 'mmio', ipa: readOnly + 0xabc }],
    ['a store without', { write: true }, { kind: 'errno', errno: Errno.ENOSYS }],
    ['cache maintenance as a store', { cacheMaintenance: true, write: true, isv: true }, 'mmio'],
    ['a walk that reads', { s1ptw: true }, { kind: 'resume' }],
    ['a walk refused its update', { s1ptw: true, type: FaultType.permission }, inject(false)],
  ];
  it.each(intoReadOnly)('read-only slot: %s', (_name, change, expected) => {
    const outcome = handle({ ipa: readOnly, ...change });
    expect(typeof expected === 'string' ? outcome.kind : outcome).toEqual(expected);
  });

  it('without syndrome, for a VMM that asked for such exits', () => {
    vm.enableCap({ cap: KVM_CAP_ARM_NISV_TO_USER });
    expect(handle({ ipa: nowhere })).toEqual({ kind: 'nisv', ipa: nowhere + 0xabc });
  });

  it('between the IPA space and the physical addresses: external abort at the IPA', () => {
    const far = BigInt(2 ** 40 + 0xabc);
    expect(handle({ ipa: ipa(2 ** 40) })).toEqual(inject(false, far));
    expect(handle({ ipa: ipa(2 ** 40), fetch: true })).toEqual(inject(true, far));
  });

  it('beyond the physical addresses: an address size fault', () => {
    const far = BigInt(2 ** 48 + 0xabc);
    expect(handle({ ipa: ipa(2 ** 48), fetch: true })).toEqual(inject(true, far, 0));
  });

  it('other kinds of fault: SError for external aborts, EFAULT for the rest', () => {
    expect(handle({ type: FaultType.externalAbort })).toEqual({ kind: 'inject-serror' });
    expect(handle({ type: FaultType.externalAbortOnWalk })).toEqual({ kind: 'inject-serror' });
    for (const type of [FaultType.alignment, FaultType.addressSize, FaultType.tlbConflict]) {
      expect(handle({ type })).toEqual({ kind: 'errno', errno: Errno.EFAULT });
    }
  });
});

describe('handleGuestAbort: guest memory', () => {
  it('a first touch by a load maps a writable, executable block; nothing faults again', () => {
    slot({ at: map({}) });
    const guest = new TestGuest(vm);
    expect(guest.load(RAM)).toBe(0);
    expect(guest.store(ipa(RAM + BLOCK_SIZE - 1), 1)).toBe('done');
    expect(typeof guest.access(RAM, AccessKind.fetch)).toBe('number');
    expect(guest.abortCount).toBe(1);
  });

  it.each([
    ['IPA and HVA aligned differently', PAGE_SIZE, RAM, 3 * MIB],
    ['slot smaller than a block', 0, RAM, MIB],
    ['slot that begins inside the block', PAGE_SIZE, RAM + PAGE_SIZE, MIB],
  ])('pages, not a block: %s', (_name, hvaOffset, base, sizeBytes) => {
    slot({ at: map({}) + hvaOffset, base, sizeBytes });
    const guest = new TestGuest(vm);
    expect(guest.store(ipa(base), 1)).toBe('done');
    expect(vm.stage2.lookup(ipa(base))?.sizeBytes).toBe(PAGE_SIZE);
    expect(process.memory.readU8(hva(vm.slots.get(0)!.baseHva))).toBe(1);
  });

  it('a permission fault that no store caused: EFAULT', () => {
    slot({ at: map({}) });
    const outcome = handle({ type: FaultType.permission });
    expect(outcome).toEqual({ kind: 'errno', errno: Errno.EFAULT });
  });

  it('a store to a page the VMM only may read: EFAULT, the load before it passes', () => {
    slot({ at: map({ prot: Prot.read }) });
    const guest = new TestGuest(vm);
    expect(guest.load(RAM)).toBe(0);
    expect(guest.store(RAM, 1)).toEqual({ kind: 'errno', errno: Errno.EFAULT });
  });

  it('a private file: read first, the store then gets a copy of its own, tags of 0', () => {
    vm.enableCap({ cap: KVM_CAP_ARM_MTE });
    const file = host.createMemfd(MIB);
    file.write(0, new Uint8Array([42]));
    slot({ at: map({ length: MIB, flags: MapFlag.private, file }), sizeBytes: MIB });
    const guest = new TestGuest(vm);
    expect(guest.load(RAM)).toBe(42);
    expect(guest.store(RAM, 43)).toBe('done');
    expect([guest.load(RAM), guest.loadTag(RAM), file.read(0, 1)[0]]).toEqual([43, 0, 42]);
  });

  it('out of memory: EFAULT, and the same access passes when there is some', () => {
    slot({ at: map({}) });
    const hoard: number[] = [];
    for (;;) {
      const frame = host.frames.allocate();
      if (frame === -1) break;
      hoard.push(frame);
    }
    const guest = new TestGuest(vm);
    expect(guest.store(RAM, 1)).toEqual({ kind: 'errno', errno: Errno.EFAULT });
    for (const frame of hoard) host.frames.put(pa(frame));
    expect(guest.store(RAM, 1)).toBe('done');
  });

  it('no memory for stage-2 tables: ENOMEM, however many frames are left', () => {
    slot({ at: map({}) });
    process.memory.fill(vm.slots.get(0)!.baseHva, 1, 4 * MIB);
    for (let left = 0; left < 3; left++) {
      const hoard: number[] = [];
      while (host.frames.freeCount > left) hoard.push(host.frames.allocate());
      const outcome = handle({ write: true });
      const enough = left >= 1;
      expect(outcome).toEqual(enough ? { kind: 'resume' } : { kind: 'errno', errno: Errno.ENOMEM });
      vm.stage2.unmap(RAM, 4 * MIB);
      vm.stage2.check();
      for (const frame of hoard) host.frames.put(pa(frame));
    }
  });
});

/** A process leaves tags in frames that it frees. */
function leaveTagsBehind(): void {
  const other = host.createProcess();
  const old = other.mmap({ length: 16 * MIB, prot: RW | Prot.mte, flags: PRIVATE });
  if (isRefusal(old)) throw new Error('no memory');
  for (let done = 0; done < 16 * MIB; done += PAGE_SIZE) {
    other.memory.storeTag(hva(old + done), 0xf);
  }
  other.destroy();
}

describe('tags before a page becomes visible', () => {
  it.each([linux612, linux61])('stale tags of a frame never reach a guest, $name', (policy) => {
    setUp({ policy });
    leaveTagsBehind();
    vm.enableCap({ cap: KVM_CAP_ARM_MTE });
    slot({ at: map({}) });
    const guest = new TestGuest(vm);
    for (let page = 0; page < 1024; page += 7) {
      expect(guest.loadTag(ipa(RAM + page * PAGE_SIZE))).toBe(0);
    }
    host.frames.check();
  });

  it('pages gathered into a block by a store after logging: stale tags of none reach the guest', () => {
    leaveTagsBehind();
    vm.enableCap({ cap: KVM_CAP_ARM_MTE });
    const at = map({});
    slot({ at, flags: KVM_MEM_LOG_DIRTY_PAGES });
    const guest = new TestGuest(vm);
    expect(guest.load(RAM)).toBe(0);
    slot({ at });
    expect(guest.store(RAM, 1)).toBe('done');
    expect(vm.stage2.lookup(RAM)?.sizeBytes).toBe(BLOCK_SIZE);
    for (const page of [0, 1, 5, 511]) {
      expect(guest.loadTag(ipa(RAM + page * PAGE_SIZE))).toBe(0);
    }
  });

  it('tags the VMM stored through PROT_MTE before the guest’s first touch are kept', () => {
    vm.enableCap({ cap: KVM_CAP_ARM_MTE });
    const at = map({ prot: RW | Prot.mte });
    process.memory.storeTag(at, 6);
    slot({ at });
    expect(new TestGuest(vm).loadTag(RAM)).toBe(6);
  });

  it('a mapping exchanged under the slot for one without MTE: EFAULT, then', () => {
    vm.enableCap({ cap: KVM_CAP_ARM_MTE });
    const at = map({});
    slot({ at });
    const guest = new TestGuest(vm);
    expect(guest.storeTag(RAM, 1)).toBe('done');
    const fixed = { address: at, flags: MapFlag.private | MapFlag.fixed };
    expect(map({ ...fixed, file: { kind: 'dev-zero' } })).toBe(at);
    expect(guest.loadTag(RAM)).toEqual({ kind: 'errno', errno: Errno.EFAULT });
  });
});

describe('memory types at stage 2', () => {
  const device = (allowAnyUncached: boolean): DeviceFile => ({
    kind: 'device',
    base: pa(0x1000_0000),
    sizeBytes: 4 * MIB,
    memoryType: 'Device-nGnRnE',
    allowAnyUncached,
  });
  const leafAt = (at: Ipa) => decodeStage2Leaf(vm.stage2.lookup(at)!.descriptor);

  it.each([
    [true, linux612, 0b0110, 0b0001, 0b0101],
    [false, linux612, 0b1111, 0b0001, 0b0101],
    [true, linux61, 0b0110, 0b0001, 0b0001],
  ])('FWB %s, $name: RAM, device, any uncached', (fwb, policy, ram, dev, uncached) => {
    setUp({ cpu: { fwb }, policy });
    slot({ at: map({}) });
    const shared = { flags: MapFlag.shared };
    const at = [ipa(0x8000_0000), ipa(0x9000_0000)] as const;
    slot({ at: map({ ...shared, file: device(false) }), base: at[0], id: 1 });
    slot({ at: map({ ...shared, file: device(true) }), base: at[1], id: 2 });
    for (const where of [RAM, ...at])
      expect(handle({ ipa: where, write: true }).kind).toBe('resume');
    const common = { read: true, write: true, sh: 3, accessed: true };
    expect(leafAt(RAM)).toMatchObject({ ...common, memAttr: ram, xn: 0 });
    expect(leafAt(at[0])).toMatchObject({ ...common, memAttr: dev, xn: 2 });
    expect(leafAt(at[1])).toMatchObject({ ...common, memAttr: uncached, xn: 2 });
    expect(vm.stage2.lookup(at[0])).toMatchObject({ sizeBytes: BLOCK_SIZE, pa: 0x1000_0000 });
  });

  it('a fetch from device memory: the guest takes an instruction abort', () => {
    slot({ at: map({ flags: MapFlag.shared, file: device(false) }) });
    expect(handle({ fetch: true })).toEqual(inject(true));
    expect(vm.stage2.lookup(RAM)).toBeUndefined();
  });

  it('a store to a private mapping of device memory: EFAULT', () => {
    slot({ at: map({ flags: MapFlag.private, file: device(false) }) });
    expect(handle({ write: true })).toEqual({ kind: 'errno', errno: Errno.EFAULT });
    expect(handle({})).toEqual({ kind: 'resume' });
    expect(leafAt(RAM).write).toBe(false);
  });
});

describe('access flag', () => {
  it('an access flag fault sets it', () => {
    slot({ at: map({}) });
    handle({ write: true });
    expect(handle({ type: FaultType.accessFlag })).toEqual({ kind: 'resume' });
    expect(decodeStage2Leaf(vm.stage2.lookup(RAM)!.descriptor).accessed).toBe(true);
    expect(handle({ type: FaultType.accessFlag, ipa: ipa(RAM + 2 * MIB) }).kind).toBe('resume');
  });
});
