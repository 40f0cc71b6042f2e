/**
 * Loads, stores and tags of a host process, beside what a real Linux was asked (section D of
 * test/kvm/oracle: tags and PROT_MTE on each kind of mapping).
 */
import { describe, expect, it } from 'vitest';
import { type Hva, hva, MIB, PAGE_SIZE, pa } from '../base/index.ts';
import { dramOnly, PhysicalMemory } from '../machine/memory.ts';
import {
  type AddressSpace,
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

describe('mmap with PROT_MTE', () => {
  it('/dev/mem, shared or private: EINVAL', () => {
    const space = newHost().createProcess();
    for (const flags of [MapFlag.shared, MapFlag.private]) {
      const request = { length: PAGE_SIZE, prot: RW | Prot.mte, flags, file: DEVICE };
      expect(space.mmap(request)).toBe(-Errno.EINVAL);
    }
  });
});

describe('tags', () => {
  it('a punched hole clears those of a file, not those of a private copy', () => {
    const host = newHost();
    const space = host.createProcess();
    const file = host.createMemfd(PAGE_SIZE);
    const tagged = map(space, { flags: MapFlag.shared, file, prot: RW | Prot.mte });
    const copy = map(space, { flags: MapFlag.private, file, prot: RW | Prot.mte });
    tagUp(space, tagged, 3);
    expect(space.memory.writeU8(copy, 7)).toBe(0);
    expect(space.madvise(tagged, PAGE_SIZE, Madvise.remove)).toBe(0);
    expect([tagged, copy].map((at) => tags(space, at))).toEqual(['00000000', '3456789a']);
    expect([tagged, copy].map((at) => space.memory.readU8(at))).toEqual([0, 7]);
  });

  it('a forked child’s store of a tag: the parent keeps its own', () => {
    const host = newHost();
    const parent = host.createProcess();
    const at = map(parent, { prot: RW | Prot.mte });
    tagUp(parent, at, 2);
    const child = parent.fork();
    if (isRefusal(child)) throw new Error('fork refused');
    expect(child.memory.storeTag(at, 15)).toBe(0);
    expect(tags(child, at)).toBe('f3456789');
    expect(tags(parent, at)).toBe('23456789');
    child.destroy();
    parent.destroy();
    host.frames.check();
  });

  it('mode none: a load with a wrong tag passes', () => {
    const { memory, at } = taggedPage();
    expect(memory.load(at, 9, 8)).toBeInstanceOf(Uint8Array);
    expect(memory.takeAsyncFault()).toBeUndefined();
  });

  it('system calls refuse a buffer with the wrong tag, in synchronous mode', () => {
    const { memory, at } = taggedPage();
    memory.tagCheckMode = 'sync';
    expect(memory.copyToUser(at, 9, new Uint8Array(8))).toBe(-Errno.EFAULT);
    expect(memory.copyFromUser(at, 9, 8)).toBe(-Errno.EFAULT);
    expect(memory.copyFromUser(at, 2, 8)).toBeInstanceOf(Uint8Array);
  });

  it('asynchronous faults wait for the next system call, whose copies raise none', () => {
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
