/**
 * Tags as a debugger sees them, beside what a real Linux was asked (section E of test/kvm/oracle),
 * and tag segments of core dumps.
 */
import { describe, expect, it } from 'vitest';
import {
  granted,
  map,
  newHost,
  pagesOn,
  RW,
  RW_MTE,
  SHARED,
  tagRow,
  tagUp,
} from '../../test/support/host-process.ts';
import { BLOCK_SIZE, type Hva, hva, PAGE_SIZE } from '../base/index.ts';
import {
  type AddressSpace,
  defaultCpu,
  Errno,
  Host,
  Madvise,
  MemorySwapDevice,
  memtagSegments,
  NT_ARM_TAGGED_ADDR_CTRL,
  PR_MTE_TAG_SHIFT,
  PR_MTE_TCF_ASYNC,
  PR_MTE_TCF_SYNC,
  PR_TAGGED_ADDR_ENABLE,
  Prot,
  PT_AARCH64_MEMTAG_MTE,
  PtraceRequest,
  ptraceGetRegset,
  ptraceMteTags,
} from './index.ts';

const MTE = { prot: RW_MTE, length: PAGE_SIZE };

/** A debugger, and a process with tags 1 … 8 on a page before a hole. */
class Session {
  readonly host = newHost();
  readonly tracer = this.host.createProcess();
  readonly tracee = this.host.createProcess();
  readonly buffer = map(this.tracer);
  readonly tagged = map(this.tracee, { ...MTE, length: 2 * PAGE_SIZE });
  readonly untouched = map(this.tracee, MTE);

  constructor() {
    tagUp(this.tracee, this.tagged, 1);
    granted(this.tracee.munmap(pagesOn(this.tagged), PAGE_SIZE));
  }

  /** The call's answer as the recording writes it. */
  peek(address: bigint | Hva, count: number, base = this.buffer): string {
    const iov = { base, length: count };
    const result = ptraceMteTags(this.tracee, PtraceRequest.peekMteTags, {
      tracer: this.tracer,
      address: BigInt(address),
      iov,
    });
    const tags =
      result === 0 ? granted(this.tracer.memory.read(base, Math.min(iov.length, 10))) : [];
    const row = [...tags].map((tag) => tag.toString(16)).join('');
    return `${result} iov_len=${iov.length} tags=${row}`;
  }

  poke(address: bigint | Hva, tags: readonly number[], base = this.buffer): string {
    granted(this.tracer.memory.write(this.buffer, new Uint8Array(tags)));
    const iov = { base, length: tags.length };
    const options = { tracer: this.tracer, address: BigInt(address), iov };
    const result = ptraceMteTags(this.tracee, PtraceRequest.pokeMteTags, options);
    return `${result} iov_len=${iov.length}`;
  }
}

const EIO = -Errno.EIO;

describe('PTRACE_PEEKMTETAGS', () => {
  const s = new Session();

  it('an address inside a tag granule: from that one on', () => {
    expect(s.peek(hva(s.tagged + 24), 2)).toBe('0 iov_len=2 tags=23');
  });

  it('a buffer that ends: as many tags as fit', () => {
    expect(s.peek(s.tagged, 32, hva(s.buffer + 4 * PAGE_SIZE - 5))).toContain('0 iov_len=5');
  });

  it('a host without MTE: EIO', () => {
    const host = new Host({ memory: s.host.memory, cpu: { ...defaultCpu, mte: false } });
    const space = host.createProcess();
    const at = map(space);
    const options = { tracer: space, address: BigInt(at), iov: { base: at, length: 1 } };
    expect(ptraceMteTags(space, PtraceRequest.peekMteTags, options)).toBe(EIO);
  });
});

describe('PTRACE_POKEMTETAGS', () => {
  it('a page never touched is made, and has the tags', () => {
    const s = new Session();
    expect(s.poke(s.untouched, [1, 2, 3, 4])).toBe('0 iov_len=4');
    expect(tagRow(s.tracee, s.untouched)).toBe('12340000');
  });

  it('a forked child’s tags change in the child alone; a shared file’s for all', () => {
    const s = new Session();
    const shared = map(s.tracee, { ...MTE, flags: SHARED });
    const child = granted(s.tracee.fork());
    for (const at of [s.tagged, shared]) {
      granted(s.tracer.memory.write(s.buffer, new Uint8Array([9])));
      const options = { tracer: s.tracer, address: BigInt(at), iov: { base: s.buffer, length: 1 } };
      expect(ptraceMteTags(child, PtraceRequest.pokeMteTags, options)).toBe(0);
    }
    expect([tagRow(s.tracee, s.tagged, 2), tagRow(child, s.tagged, 2)]).toEqual(['12', '92']);
    expect(tagRow(s.tracee, shared, 2)).toBe('90');
  });

  it('a page in swap: peeked and poked as one in memory', () => {
    const s = new Session();
    granted(s.host.swapOn(new MemorySwapDevice(4)));
    s.tracee.madvise(s.tagged, PAGE_SIZE, Madvise.pageOut);
    expect(s.peek(s.tagged, 8)).toBe('0 iov_len=8 tags=12345678');
    s.tracee.madvise(s.tagged, PAGE_SIZE, Madvise.pageOut);
    expect(s.poke(s.tagged, [9])).toBe('0 iov_len=1');
    expect(tagRow(s.tracee, s.tagged)).toBe('92345678');
  });
});

describe('PTRACE_GETREGSET', () => {
  it('another register set, or a host without MTE: EINVAL', () => {
    const s = new Session();
    expect(ptraceGetRegset(s.tracee, 1)).toBe(-Errno.EINVAL);
    const host = new Host({ memory: s.host.memory, cpu: { ...defaultCpu, mte: false } });
    const without = ptraceGetRegset(host.createProcess(), NT_ARM_TAGGED_ADDR_CTRL);
    expect(without).toBe(-Errno.EINVAL);
  });
});

describe('PR_SET_TAGGED_ADDR_CTRL', () => {
  const ALL_BUT_0 = 0xfffe << PR_MTE_TAG_SHIFT;

  it('0 at first; then what was set, and the checks it asks for', () => {
    const { memory } = newHost().createProcess();
    expect([memory.taggedAddressControl, memory.tagCheckMode]).toEqual([0, 'none']);
    const sync = PR_TAGGED_ADDR_ENABLE | PR_MTE_TCF_SYNC | ALL_BUT_0;
    expect(memory.setTaggedAddressControl(sync)).toBe(0);
    expect([memory.taggedAddressControl, memory.tagCheckMode]).toEqual([0x7fff3, 'sync']);
    memory.setTaggedAddressControl(PR_TAGGED_ADDR_ENABLE | PR_MTE_TCF_ASYNC | ALL_BUT_0);
    expect(memory.tagCheckMode).toBe('async');
    memory.setTaggedAddressControl(sync | PR_MTE_TCF_ASYNC);
    expect(memory.tagCheckMode).toBe('async');
    memory.setTaggedAddressControl(PR_TAGGED_ADDR_ENABLE);
    expect(memory.tagCheckMode).toBe('none');
  });

  it('unknown bits: EINVAL, nothing changed', () => {
    const { memory } = newHost().createProcess();
    expect(memory.setTaggedAddressControl(1 << 19)).toBe(-Errno.EINVAL);
    expect(memory.taggedAddressControl).toBe(0);
  });

  it('a host without MTE: tagged pointers alone', () => {
    const host = new Host({ memory: newHost().memory, cpu: { mte: false } });
    const { memory } = host.createProcess();
    expect(memory.setTaggedAddressControl(PR_MTE_TCF_SYNC)).toBe(-Errno.EINVAL);
    expect(memory.setTaggedAddressControl(PR_TAGGED_ADDR_ENABLE)).toBe(0);
  });
});

describe('memtagSegments', () => {
  it('one for each PROT_MTE area, two tags a byte, pages that are not there as 0', () => {
    const space = newHost().createProcess();
    granted(space.host.swapOn(new MemorySwapDevice(4)));
    map(space, { prot: RW });
    const at = map(space, { ...MTE, length: 3 * PAGE_SIZE });
    const other = map(space, { ...MTE, length: BLOCK_SIZE });
    tagUp(space, at, 1);
    tagUp(space, pagesOn(at, 2), 9, 3);
    tagUp(space, pagesOn(other, 511), 5, 2);
    space.madvise(at, PAGE_SIZE, Madvise.pageOut);
    const segments = memtagSegments(space, 0x1000).sort((a, b) => a.tags.length - b.tags.length);
    expect(segments.map(({ tags }) => tags.length)).toEqual([3 * 128, BLOCK_SIZE / 32]);
    expect([...segments[0]!.tags.subarray(0, 5)]).toEqual([0x21, 0x43, 0x65, 0x87, 0]);
    expect([...segments[0]!.tags.subarray(256, 259)]).toEqual([0xa9, 0x0b, 0]);
    expect(segments[1]!.tags[511 * 128]).toBe(0x65);
    expect(segments.map(({ header }) => fields(header))).toEqual([
      { type: PT_AARCH64_MEMTAG_MTE, vaddr: at, filesz: 384, memsz: 3 * PAGE_SIZE },
      { type: PT_AARCH64_MEMTAG_MTE, vaddr: other, filesz: BLOCK_SIZE / 32, memsz: BLOCK_SIZE },
    ]);
    // In the file they follow each other in order of address.
    const offsets = segments.map(({ header }) => new DataView(header.buffer).getBigUint64(8, true));
    expect(offsets).toEqual([0x1000n + BigInt(BLOCK_SIZE / 32), 0x1000n]);
  });

  it('no PROT_MTE area: none', () => {
    const space: AddressSpace = newHost().createProcess();
    map(space, { prot: Prot.read });
    expect(memtagSegments(space, 0)).toEqual([]);
  });

  function fields(header: Uint8Array) {
    const view = new DataView(header.buffer);
    const word = (at: number): number => Number(view.getBigUint64(at, true));
    return { type: view.getUint32(0, true), vaddr: word(16), filesz: word(32), memsz: word(40) };
  }
});
