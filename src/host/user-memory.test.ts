/**
 * Loads, stores and tags of a host process. The table holds what a real Linux answered (section D
 * of the recordings under QEMU 10: anonymous, memfd and device mappings, PROT_MTE and tag checks).
 */
import { describe, expect, it } from 'vitest';
import { type Hva, hva, MIB, PAGE_SIZE, pa } from '../base/index.ts';
import { dramOnly, PhysicalMemory } from '../machine/memory.ts';
import {
  type AddressSpace,
  DEV_ZERO,
  type DeviceFile,
  Errno,
  Host,
  isRefusal,
  Madvise,
  MapFlag,
  type MmapRequest,
  Prot,
  smallPages,
} from './index.ts';

const RW = Prot.read | Prot.write;
const PRIVATE = MapFlag.private | MapFlag.anonymous;
const SHARED = MapFlag.shared | MapFlag.anonymous;

const DEVICE: DeviceFile = {
  kind: 'device',
  base: pa(0x0a00_0000),
  sizeBytes: 4 * MIB,
  memoryType: 'Device-nGnRnE',
};

function newHost(sizeBytes = 16 * MIB): Host {
  return new Host({
    memory: new PhysicalMemory({ zones: dramOnly(sizeBytes), recordPageCount: 16 }),
    policy: smallPages,
  });
}

/** Maps one page, or as much as asked for; a refusal is a failed test. */
function map(space: AddressSpace, request: Partial<MmapRequest>): Hva {
  const at = space.mmap({ length: PAGE_SIZE, prot: RW, flags: PRIVATE, ...request });
  if (isRefusal(at)) throw new Error(`mmap refused: ${at}`);
  return at;
}

/** Tags of the first tag granules at `at`, as a row of digits. */
function tags(space: AddressSpace, at: Hva, count = 8): string {
  let row = '';
  for (let i = 0; i < count; i++) row += space.memory.loadTag(hva(at + 16 * i)).toString(16);
  return row;
}

/** Stores tags first, first + 1, … to `count` tag granules. */
function tagUp(space: AddressSpace, at: Hva, first: number, count = 8): void {
  for (let i = 0; i < count; i++) {
    expect(space.memory.storeTag(hva(at + 16 * i), first + i)).toBe(0);
  }
}

describe('tags through mappings (D01 to D31)', () => {
  const host = newHost();
  const space = host.createProcess();
  const { memory } = space;

  it('D02: without PROT_MTE a tag store is ignored and a tag load gives 0', () => {
    const at = map(space, {});
    expect(memory.storeTag(at, 3)).toBe(0);
    expect(memory.loadTag(at)).toBe(0);
  });

  it('D05 to D17: synchronous checks; mprotect does not take PROT_MTE away', () => {
    const at = map(space, { prot: RW | Prot.mte });
    tagUp(space, at, 1);
    expect(tags(space, at, 10)).toBe('1234567800');
    memory.tagCheckMode = 'sync';
    expect(memory.load(at, 1, 8)).toBeInstanceOf(Uint8Array);
    expect(memory.load(at, 2, 8)).toBe('SEGV_MTESERR');
    expect(memory.load(hva(at + 16), 0, 8)).toBe('SEGV_MTESERR');
    expect(space.mprotect(at, PAGE_SIZE, RW)).toBe(0);
    expect(tags(space, at, 10)).toBe('1234567800');
    expect(memory.load(at, 2, 8)).toBe('SEGV_MTESERR');
    expect(space.mprotect(at, PAGE_SIZE, RW | Prot.mte)).toBe(0);
    expect(tags(space, at, 10)).toBe('1234567800');
    memory.tagCheckMode = 'none';
    expect(memory.load(at, 2, 8)).toBeInstanceOf(Uint8Array);
  });

  it('D10 to D12: a page that is not PROT_MTE is not checked', () => {
    const at = map(space, {});
    memory.tagCheckMode = 'sync';
    expect(memory.storeTag(at, 3)).toBe(0);
    expect(memory.loadTag(at)).toBe(0);
    expect(memory.load(at, 9, 8)).toBeInstanceOf(Uint8Array);
    memory.tagCheckMode = 'none';
  });

  it('D19 to D31: a memfd keeps its tags for every PROT_MTE mapping, and copies take them', () => {
    const file = host.createMemfd(4 * PAGE_SIZE);
    const shared = { length: 4 * PAGE_SIZE, flags: MapFlag.shared, file };
    const tagged = map(space, { ...shared, prot: RW | Prot.mte });
    const plain = map(space, shared);
    const second = map(space, { ...shared, prot: RW | Prot.mte });
    tagUp(space, tagged, 3);
    expect([tagged, plain, second].map((at) => tags(space, at))).toEqual([
      '3456789a',
      '00000000',
      '3456789a',
    ]);
    memory.tagCheckMode = 'sync';
    expect(memory.load(plain, 9, 8)).toBeInstanceOf(Uint8Array);
    expect(memory.load(second, 9, 8)).toBe('SEGV_MTESERR');
    memory.tagCheckMode = 'none';
    expect(memory.storeTag(plain, 15)).toBe(0);
    expect(tags(space, tagged)).toBe('3456789a');
    // Page 1: first touched without PROT_MTE.
    expect(memory.writeU8(hva(plain + PAGE_SIZE), 1)).toBe(0);
    expect(tags(space, hva(tagged + PAGE_SIZE), 4)).toBe('0000');
    expect(file.write(0, new Uint8Array(64).fill(0x5a))).toBe(64);
    expect(tags(space, tagged)).toBe('3456789a');
    expect(memory.readU8(tagged)).toBe(0x5a);
    expect(space.madvise(tagged, 4 * PAGE_SIZE, Madvise.dontNeed)).toBe(0);
    expect(tags(space, tagged)).toBe('3456789a');
    // A private copy takes the tags along.
    const copy = map(space, {
      length: PAGE_SIZE,
      prot: RW | Prot.mte,
      flags: MapFlag.private,
      file,
    });
    expect(tags(space, copy)).toBe('3456789a');
    expect(memory.writeU8(copy, 7)).toBe(0);
    expect(tags(space, copy)).toBe('3456789a');
    expect(memory.readU8(tagged)).toBe(0x5a);
    // D29: a punched hole clears them.
    expect(space.madvise(tagged, PAGE_SIZE, Madvise.remove)).toBe(0);
    expect(tags(space, tagged)).toBe('00000000');
    expect(memory.readU8(plain)).toBe(0);
    expect(memory.readU8(copy)).toBe(7);
  });
});

describe('PROT_MTE on each kind of mapping (D32 to D56)', () => {
  const host = newHost();
  const space = host.createProcess();
  const memfd = host.createMemfd(PAGE_SIZE);
  const hugetlb = MapFlag.hugetlb;
  const huge = { length: 2 * MIB };
  const cases: readonly [string, Partial<MmapRequest>, 0 | Errno][] = [
    ['D32 anon MAP_PRIVATE', {}, 0],
    ['D34 anon MAP_SHARED', { flags: SHARED }, 0],
    ['D35 anon MAP_SHARED PROT_MTE', { flags: SHARED, prot: RW | Prot.mte }, 0],
    ['D36 memfd MAP_SHARED', { flags: MapFlag.shared, file: memfd }, 0],
    ['D37 memfd MAP_SHARED PROT_MTE', { flags: 1, file: memfd, prot: RW | Prot.mte }, 0],
    ['D39 memfd MAP_PRIVATE PROT_MTE', { flags: 2, file: memfd, prot: RW | Prot.mte }, 0],
    // D40, D41, D44 to D46 (files of /dev/shm and of a tmpfs root) are the same kind of file.
    ['D42 file MAP_PRIVATE', { flags: MapFlag.private, file: memfd }, 0],
    ['D47 /dev/zero MAP_PRIVATE', { flags: MapFlag.private, file: DEV_ZERO }, Errno.EINVAL],
    ['D49 /dev/zero MAP_SHARED', { flags: MapFlag.shared, file: DEV_ZERO }, Errno.EINVAL],
    ['D50 /dev/mem MAP_SHARED', { flags: MapFlag.shared, file: DEVICE }, Errno.EINVAL],
    ['D51 /dev/mem MAP_PRIVATE', { flags: MapFlag.private, file: DEVICE }, Errno.EINVAL],
    ['D52 MAP_HUGETLB anon MAP_PRIVATE', { ...huge, flags: PRIVATE | hugetlb }, Errno.EINVAL],
    ['D55 PROT_NONE anon', { prot: Prot.none }, 0],
    ['D56 PROT_READ anon', { prot: Prot.read }, 0],
  ];
  it.each(cases)('%s', (_name, request, expected) => {
    const at = map(space, request);
    const length = request.length ?? PAGE_SIZE;
    expect(space.mprotect(at, length, RW | Prot.mte) + 0).toBe(0 - expected);
    expect(space.munmap(at, length)).toBe(0);
  });

  it.each([
    ['B17 /dev/zero MAP_PRIVATE', { flags: MapFlag.private, file: DEV_ZERO }],
    ['D54 MAP_HUGETLB anon', { ...huge, flags: PRIVATE | hugetlb }],
    ['/dev/mem', { flags: MapFlag.shared, file: DEVICE }],
  ])('mmap with PROT_MTE: %s, EINVAL', (_name, request) => {
    const prot = RW | Prot.mte;
    const result = space.mmap({ length: PAGE_SIZE, ...request, prot });
    expect(result).toBe(-Errno.EINVAL);
  });
});

describe('tags of private pages (D57 to D69)', () => {
  it('D57: a forked child sees the tags, and its own after copy on write', () => {
    const host = newHost();
    const parent = host.createProcess();
    const at = map(parent, { prot: RW | Prot.mte });
    tagUp(parent, at, 2);
    const child = parent.fork();
    if (isRefusal(child)) throw new Error('fork refused');
    expect(tags(child, at)).toBe('23456789');
    expect(child.memory.writeU8(at, 1)).toBe(0);
    expect(tags(child, at)).toBe('23456789');
    expect(child.memory.storeTag(at, 15)).toBe(0);
    expect(tags(parent, at)).toBe('23456789');
    child.destroy();
    parent.destroy();
    host.frames.check();
  });

  it('D59, D60: MADV_DONTNEED on anonymous memory drops data and tags', () => {
    const space = newHost().createProcess();
    const at = map(space, { prot: RW | Prot.mte });
    tagUp(space, at, 2);
    space.memory.writeU32(at, 0x1234);
    expect(space.madvise(at, PAGE_SIZE, Madvise.dontNeed)).toBe(0);
    expect(tags(space, at)).toBe('00000000');
    expect(space.memory.readU32(at)).toBe(0);
  });

  it('D64, D65: system calls refuse a buffer with the wrong tag, in synchronous mode', () => {
    const { memory, at } = taggedPage();
    memory.tagCheckMode = 'sync';
    expect(memory.copyToUser(at, 9, new Uint8Array(8))).toBe(-Errno.EFAULT);
    expect(memory.copyFromUser(at, 9, 8)).toBe(-Errno.EFAULT);
    expect(memory.copyFromUser(at, 2, 8)).toBeInstanceOf(Uint8Array);
  });

  it('D66 to D69: asynchronous faults wait for the next system call, whose copies raise none', () => {
    const { memory, at } = taggedPage();
    memory.tagCheckMode = 'async';
    expect(memory.load(at, 9, 8)).toBeInstanceOf(Uint8Array);
    expect(memory.takeAsyncFault()).toBe('SEGV_MTEAERR');
    expect(memory.takeAsyncFault()).toBeUndefined();
    expect(memory.copyToUser(at, 9, new Uint8Array(8))).toBe(0);
    expect(memory.takeAsyncFault()).toBeUndefined();
  });

  it('store: a synchronous tag mismatch writes nothing', () => {
    const { memory, at } = taggedPage();
    memory.tagCheckMode = 'sync';
    memory.writeU8(at, 0x11);
    expect(memory.store(at, 9, new Uint8Array([0x22]))).toBe('SEGV_MTESERR');
    expect(memory.readU8(at)).toBe(0x11);
    expect(memory.store(at, 2, new Uint8Array([0x22]))).toBeUndefined();
    expect(memory.readU8(at)).toBe(0x22);
  });

  function taggedPage() {
    const space = newHost().createProcess();
    const at = map(space, { prot: RW | Prot.mte });
    tagUp(space, at, 2);
    return { memory: space.memory, at };
  }
});

describe('UserMemory: refusals', () => {
  const host = newHost();
  const space = host.createProcess();
  const { memory } = space;

  it.each([
    ['unmapped', hva(0x1_0000), 'SEGV_MAPERR', 'SEGV_MAPERR'],
    ['PROT_NONE', map(space, { prot: Prot.none }), 'SEGV_ACCERR', 'SEGV_ACCERR'],
    ['device without RAM', map(space, { flags: 1, file: DEVICE }), 'BUS_ADRERR', 'BUS_ADRERR'],
    [
      'behind the end of a file',
      map(space, { flags: 1, file: host.createMemfd(0) }),
      'BUS_ADRERR',
      'BUS_ADRERR',
    ],
  ])('%s', (_name, at, onLoad, onStore) => {
    expect(memory.read(at, 8)).toBe(-Errno.EFAULT);
    expect(memory.write(at, new Uint8Array(8))).toBe(-Errno.EFAULT);
    expect(memory.readU32(at)).toBe(-Errno.EFAULT);
    expect(memory.writeU64(at, 1n)).toBe(-Errno.EFAULT);
    expect(memory.load(at, 0, 8)).toBe(onLoad);
    expect(memory.store(at, 0, new Uint8Array(8))).toBe(onStore);
  });

  it('PROT_READ: loads pass, stores and tag stores are refused', () => {
    const at = map(space, { prot: Prot.read });
    expect(memory.readU64(at)).toBe(0n);
    expect(memory.writeU8(at, 1)).toBe(-Errno.EFAULT);
    expect(memory.storeTag(at, 1)).toBe(-Errno.EFAULT);
    expect(memory.store(at, 0, new Uint8Array(1))).toBe('SEGV_ACCERR');
  });

  it('read, write: a range that runs off its mapping is done up to there', () => {
    const at = map(space, {});
    expect(space.munmap(hva(at + PAGE_SIZE), PAGE_SIZE)).toBe(0);
    const data = new Uint8Array(32).fill(9);
    const edge = hva(at + PAGE_SIZE - 16);
    expect(memory.writeFrom(edge, data)).toBe(16);
    expect(memory.readInto(edge, data)).toBe(16);
    expect(memory.readU32(hva(at + PAGE_SIZE - 2))).toBe(-Errno.EFAULT);
  });

  it('words: little-endian, unaligned and across pages', () => {
    const at = map(space, { length: 2 * PAGE_SIZE });
    for (const offset of [0, 1, PAGE_SIZE - 3]) {
      const place = hva(at + offset);
      expect(memory.writeU64(place, 0x8877665544332211n)).toBe(0);
      expect(memory.readU64(place)).toBe(0x8877665544332211n);
      expect(memory.readU32(place)).toBe(0x44332211);
      expect(memory.readU16(place)).toBe(0x2211);
      expect(memory.readU8(place)).toBe(0x11);
      expect(memory.writeU16(place, 0xbeef)).toBe(0);
      expect(memory.writeU32(hva(place + 2), 0xdeadbeef)).toBe(0);
      expect(memory.readU64(place)).toBe(0x8877_deadbeef_beefn);
    }
  });

  it('a translation kept from before a change of the mapping is not used', () => {
    const at = map(space, {});
    memory.writeU8(at, 1);
    expect(space.mprotect(at, PAGE_SIZE, Prot.read)).toBe(0);
    expect(memory.writeU8(at, 2)).toBe(-Errno.EFAULT);
    expect(space.munmap(at, PAGE_SIZE)).toBe(0);
    expect(memory.readU8(at)).toBe(-Errno.EFAULT);
  });

  it('write: pages that hold translated code are reported before they change', () => {
    const at = map(space, { length: 2 * PAGE_SIZE });
    memory.fill(at, 0, 2 * PAGE_SIZE);
    const page = space.faultIn(hva(at + PAGE_SIZE), { write: false });
    if (isRefusal(page)) throw new Error('no page');
    const index = host.memory.ramPage(host.memory.linear(page.pa));
    const seen: number[] = [];
    host.memory.codePages[index] = 1;
    host.memory.onCodeWrite = (written) => seen.push(written);
    memory.writeU8(at, 1);
    expect(seen).toEqual([]);
    memory.write(hva(at + PAGE_SIZE - 1), new Uint8Array(2));
    expect(seen).toEqual([index]);
    host.memory.codePages[index] = 0;
  });
});
