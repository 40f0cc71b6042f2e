/** Address spaces: what mmap and its kin refuse and do, one by one and against a naive model. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeStage1 } from '../arm/descriptor.ts';
import { BLOCK_SIZE, type Hva, hva, MIB, PAGE_SIZE, pa } from '../base/index.ts';
import { dramOnly, PhysicalMemory } from '../machine/memory.ts';
import {
  type AddressSpace,
  Errno,
  Host,
  type HostPolicy,
  isRefusal,
  linux,
  Madvise,
  MapFlag,
  MemorySwapDevice,
  type MmapRequest,
  MremapFlag,
  mergePass,
  Prot,
  type ShmemFile,
  smallPages,
  VmFlag,
} from './index.ts';

const RW = Prot.read | Prot.write;
const PRIVATE = MapFlag.private | MapFlag.anonymous;
const SHARED = MapFlag.shared | MapFlag.anonymous;

function newHost(options: { sizeBytes?: number; policy?: HostPolicy } = {}): Host {
  const zones = dramOnly(options.sizeBytes ?? 16 * MIB);
  const memory = new PhysicalMemory({ zones, recordPageCount: 16 });
  return new Host({ memory, policy: options.policy ?? linux });
}

function map(space: AddressSpace, request: Partial<MmapRequest>): Hva {
  const at = space.mmap({ length: PAGE_SIZE, prot: RW, flags: PRIVATE, ...request });
  if (isRefusal(at)) throw new Error(`mmap refused: ${at}`);
  return at;
}

function page(space: AddressSpace, at: Hva, write = false) {
  const found = space.faultIn(at, { write });
  if (isRefusal(found)) throw new Error(`no page: ${found}`);
  return found;
}

describe('mmap: refusals', () => {
  const host = newHost();
  const space = host.createProcess();
  const device = { kind: 'device', base: pa(0), sizeBytes: PAGE_SIZE, memoryType: 'Normal-NC' };
  const taken = map(space, {});
  const ofFile = map(space, { flags: MapFlag.private, file: host.createMemfd(PAGE_SIZE) });
  const fixed = PRIVATE | MapFlag.fixed;
  const cases: readonly [string, Partial<MmapRequest>, Errno][] = [
    ['length 0', { length: 0 }, Errno.EINVAL],
    ['neither shared nor private', { flags: MapFlag.anonymous }, Errno.EINVAL],
    ['shared and private', { flags: PRIVATE | MapFlag.shared }, Errno.EINVAL],
    ['no file', { flags: MapFlag.private }, Errno.EBADF],
    ['offset unaligned', { flags: 2, file: host.createMemfd(1), offset: 16 }, Errno.EINVAL],
    ['offset overflows', { flags: 2, file: host.createMemfd(1), offset: 2 ** 53 }, Errno.EOVERFLOW],
    ['behind the device', { flags: 1, file: device as never, length: 8192 }, Errno.EINVAL],
    ['larger than the address space', { length: 2 ** 48 + 1 }, Errno.ENOMEM],
    ['no room', { length: 2 ** 48 - PAGE_SIZE }, Errno.ENOMEM],
    ['fixed, unaligned', { flags: fixed, address: hva(0x10_0010) }, Errno.EINVAL],
    ['fixed, without address', { flags: fixed }, Errno.EINVAL],
    ['fixed, below mmap_min_addr', { flags: fixed, address: hva(0) }, Errno.EPERM],
    ['fixed, over the end', { flags: fixed, address: hva(2 ** 48) }, Errno.ENOMEM],
    ['no replace', { flags: PRIVATE | MapFlag.fixedNoReplace, address: taken }, Errno.EEXIST],
    [
      'hugetlb, fixed to 4 KiB',
      { flags: fixed | MapFlag.hugetlb, address: hva(0x10_0000) },
      Errno.EINVAL,
    ],
  ];
  it.each(cases)('%s', (_name, request, errno) => {
    const before = space.areas.all.length;
    const whole = { length: PAGE_SIZE, prot: RW, flags: PRIVATE, ...request };
    expect(space.mmap(whole)).toBe(-errno);
    expect(space.areas.all.length).toBe(before);
  });

  it('PROT_MTE on a host without MTE, unknown bits: mmap passes over them, mprotect refuses', () => {
    const memory = new PhysicalMemory({ zones: dramOnly(2 * MIB), recordPageCount: 16 });
    const plain = new Host({ memory, cpu: { mte: false } }).createProcess();
    const at = map(plain, { length: PAGE_SIZE, prot: RW | Prot.mte | 0x40 });
    expect(plain.areas.at(at)!.flags).toBe(VmFlag.read | VmFlag.write);
    expect(plain.mprotect(at, PAGE_SIZE, RW | Prot.mte)).toBe(-Errno.EINVAL);
  });

  it.each([
    ['munmap: unaligned', () => space.munmap(hva(taken + 16), PAGE_SIZE), Errno.EINVAL],
    ['munmap: length 0', () => space.munmap(taken, 0), Errno.EINVAL],
    ['munmap: over the end', () => space.munmap(hva(2 ** 48 - PAGE_SIZE), 8192), Errno.EINVAL],
    ['mprotect: unaligned', () => space.mprotect(hva(taken + 1), 1, RW), Errno.EINVAL],
    ['mprotect: unknown bits', () => space.mprotect(taken, 1, 0x80), Errno.EINVAL],
    ['mprotect: nothing there', () => space.mprotect(hva(0x10_0000), 1, RW), Errno.ENOMEM],
    ['madvise: unknown', () => space.madvise(taken, PAGE_SIZE, 99), Errno.EINVAL],
    ['madvise: a hole', () => space.madvise(hva(0x10_0000), PAGE_SIZE, 4), Errno.ENOMEM],
    [
      'MADV_REMOVE on anonymous memory',
      () => space.madvise(taken, PAGE_SIZE, Madvise.remove),
      Errno.EINVAL,
    ],
    [
      'MADV_REMOVE on a private mapping of a file',
      () => space.madvise(ofFile, PAGE_SIZE, Madvise.remove),
      Errno.EACCES,
    ],
  ])('%s', (_name, call, errno) => {
    expect(call()).toBe(-errno);
  });

  it('mprotect: a hole behind the first area, ENOMEM with the area changed', () => {
    const at = map(space, { length: 4 * PAGE_SIZE });
    space.munmap(hva(at + PAGE_SIZE), PAGE_SIZE);
    expect(space.mprotect(at, 4 * PAGE_SIZE, Prot.read)).toBe(-Errno.ENOMEM);
    expect(space.memory.writeU8(at, 1)).toBe(-Errno.EFAULT);
    expect(space.memory.writeU8(hva(at + 2 * PAGE_SIZE), 1)).toBe(0);
  });
});

describe('2 MiB pages', () => {
  it('faultIn: an aligned area gets blocks, its ragged ends pages', () => {
    const space = newHost().createProcess();
    const base = map(space, { length: 3 * BLOCK_SIZE });
    space.munmap(base, PAGE_SIZE);
    space.munmap(hva(base + 3 * BLOCK_SIZE - PAGE_SIZE), PAGE_SIZE);
    expect(page(space, hva(base + PAGE_SIZE), true).sizeBytes).toBe(PAGE_SIZE);
    expect(page(space, hva(base + BLOCK_SIZE + 5 * PAGE_SIZE)).sizeBytes).toBe(BLOCK_SIZE);
    expect(page(space, hva(base + 2 * BLOCK_SIZE), true).sizeBytes).toBe(PAGE_SIZE);
    space.table.check();
  });

  it('munmap inside a block: the rest of the block keeps its data as pages', () => {
    const host = newHost();
    const space = host.createProcess();
    const at = map(space, { length: BLOCK_SIZE });
    space.memory.fill(at, 0x5a, BLOCK_SIZE);
    expect(page(space, at).sizeBytes).toBe(BLOCK_SIZE);
    const free = host.frames.freeCount;
    expect(space.munmap(hva(at + 7 * PAGE_SIZE), 2 * PAGE_SIZE)).toBe(0);
    // Two pages back, one taken for the table.
    expect(host.frames.freeCount).toBe(free + 1);
    expect(page(space, at).sizeBytes).toBe(PAGE_SIZE);
    expect(space.memory.readU8(hva(at + 6 * PAGE_SIZE))).toBe(0x5a);
    expect(space.memory.readU8(hva(at + 7 * PAGE_SIZE))).toBe(-Errno.EFAULT);
    expect(space.memory.readU8(hva(at + BLOCK_SIZE - 1))).toBe(0x5a);
    host.frames.check();
  });

  it('fork: a store to a shared block copies one page of it', () => {
    const host = newHost();
    const parent = host.createProcess();
    const at = map(parent, { length: BLOCK_SIZE });
    parent.memory.fill(at, 1, BLOCK_SIZE);
    const child = parent.fork();
    if (isRefusal(child)) throw new Error('fork refused');
    const free = host.frames.freeCount;
    expect(child.memory.writeU8(hva(at + PAGE_SIZE), 2)).toBe(0);
    // The copy and the table that the block became.
    expect(host.frames.freeCount).toBe(free - 2);
    expect(parent.memory.readU8(hva(at + PAGE_SIZE))).toBe(1);
    expect(parent.memory.writeU8(hva(at + PAGE_SIZE), 3)).toBe(0);
    expect(child.memory.readU8(hva(at + PAGE_SIZE))).toBe(2);
    child.destroy();
    parent.destroy();
    host.frames.check();
    expect(host.frames.freeCount).toBe((16 * MIB) / PAGE_SIZE - 1);
  });

  it('hugetlb: 2 MiB or nothing; it is never split', () => {
    const host = newHost({ policy: smallPages });
    const space = host.createProcess();
    const at = map(space, { length: 2 * BLOCK_SIZE, flags: PRIVATE | MapFlag.hugetlb });
    expect(page(space, hva(at + PAGE_SIZE), true).sizeBytes).toBe(BLOCK_SIZE);
    expect(space.munmap(hva(at + PAGE_SIZE), PAGE_SIZE)).toBe(-Errno.EINVAL);
    expect(space.mprotect(at, PAGE_SIZE, Prot.read)).toBe(-Errno.EINVAL);
    expect(space.munmap(at, BLOCK_SIZE)).toBe(0);
    const child = space.fork();
    if (isRefusal(child)) throw new Error('fork refused');
    const other = hva(at + BLOCK_SIZE);
    space.memory.writeU8(other, 1);
    expect(page(space, other).sizeBytes).toBe(BLOCK_SIZE);
    expect(child.memory.readU8(other)).toBe(0);
  });

  it('hugetlb: shared between two processes', () => {
    const host = newHost();
    const space = host.createProcess();
    const at = map(space, { length: BLOCK_SIZE, flags: SHARED | MapFlag.hugetlb });
    const child = space.fork();
    if (isRefusal(child)) throw new Error('fork refused');
    space.memory.writeU8(at, 9);
    expect(child.memory.readU8(at)).toBe(9);
    space.destroy();
    child.destroy();
    expect(host.frames.freeCount).toBe((16 * MIB) / PAGE_SIZE - 1);
  });
});

describe('out of memory', () => {
  it('faultIn: ENOMEM when no frame is left, and the process goes on when one is freed', () => {
    const space = newHost({ sizeBytes: 2 * MIB, policy: smallPages }).createProcess();
    const at = map(space, { length: 2 * MIB });
    let done = 0;
    while (!isRefusal(space.faultIn(hva(at + done), { write: true }))) done += PAGE_SIZE;
    expect(space.faultIn(hva(at + done), { write: true })).toBe(-Errno.ENOMEM);
    expect(space.memory.writeU8(hva(at + done), 1)).toBe(-Errno.ENOMEM);
    expect(space.madvise(at, PAGE_SIZE, Madvise.dontNeed)).toBe(0);
    expect(space.memory.writeU8(hva(at + done), 1)).toBe(0);
  });

  it('munmap inside a block without memory for a table: ENOMEM, nothing changed', () => {
    const host = newHost({ sizeBytes: 4 * MIB });
    const space = host.createProcess();
    const at = map(space, { length: BLOCK_SIZE });
    space.memory.fill(at, 7, BLOCK_SIZE);
    while (host.frames.allocate() !== -1);
    expect(space.munmap(at, PAGE_SIZE)).toBe(-Errno.ENOMEM);
    expect(space.mprotect(at, PAGE_SIZE, Prot.read)).toBe(-Errno.ENOMEM);
    expect(space.memory.writeU8(at, 8)).toBe(0);
    expect(space.munmap(at, BLOCK_SIZE)).toBe(0);
  });
});

describe('notifiers', () => {
  it('are told before pages go or lose rights, and not of new ones', () => {
    const space = newHost({ policy: smallPages }).createProcess();
    const seen: string[] = [];
    const at = map(space, { length: 4 * PAGE_SIZE });
    const stop = space.watch({
      invalidateRange: (start, end) => {
        const mapped = space.table.mappings(start, end).length;
        seen.push(`${(start - at) / PAGE_SIZE}-${(end - at) / PAGE_SIZE} ${mapped}`);
      },
    });
    space.memory.readU8(at);
    space.memory.writeU8(hva(at + PAGE_SIZE), 1);
    expect(seen).toEqual([]);
    space.memory.writeU8(at, 1);
    space.mprotect(at, PAGE_SIZE, Prot.read);
    space.madvise(hva(at + PAGE_SIZE), PAGE_SIZE, Madvise.dontNeed);
    expect(seen).toEqual(['0-1 1', '0-1 1', '1-2 1']);
    space.fork();
    stop();
    space.munmap(at, 4 * PAGE_SIZE);
    expect(seen.slice(3)).toEqual(['0-1 1', '1-4 0']);
  });
});

describe('tables', () => {
  it('descriptors: Tagged with PROT_MTE, not writable where a store must fault, PXN always', () => {
    const host = newHost({ policy: smallPages });
    const space = host.createProcess();
    const at = map(space, { length: 3 * PAGE_SIZE, prot: RW | Prot.mte });
    space.memory.readU8(at);
    space.memory.writeU8(hva(at + PAGE_SIZE), 1);
    space.memory.writeU8(hva(at + 2 * PAGE_SIZE), 1);
    space.mprotect(hva(at + 2 * PAGE_SIZE), PAGE_SIZE, Prot.none);
    const read = (index: number) => {
      const leaf = descriptorAt(host, space, hva(at + index * PAGE_SIZE));
      const { attrIndex, el0, readOnly, pxn, uxn } = decodeStage1(leaf);
      return { attrIndex, el0, readOnly, pxn, uxn };
    };
    const tagged = { attrIndex: 1, el0: true, pxn: true, uxn: true };
    expect(read(0)).toEqual({ ...tagged, readOnly: true });
    expect(read(1)).toEqual({ ...tagged, readOnly: false });
    expect(read(2)).toEqual({ ...tagged, el0: false, readOnly: true });
  });

  /** The descriptor of the page at `at`, read from memory as a walker would. */
  function descriptorAt(host: Host, space: AddressSpace, at: Hva): bigint {
    let table = space.table.root;
    for (let level = 0; ; level++) {
      const index = Math.floor(at / (PAGE_SIZE * 512 ** (3 - level))) % 512;
      const word = host.memory.read64(pa(table + index * 8));
      if (level === 3) return word;
      table = pa(Number(word & 0xffff_ffff_f000n));
    }
  }
});

/*
 * mmap, munmap, mprotect, mremap, madvise, fork, page-out, merging, stores and tag stores in any
 * order, on two 2 MiB pages of address space and a file, against a model with a record a page.
 */
describe('AddressSpace against a naive model', () => {
  const BASE = hva(0x4000_0000);
  const WINDOW = 2 * 512;
  /** Pages where something may go wrong: at and around the ends of blocks. */
  const PAGES = [0, 1, 511, 512, 1023];
  const LENGTHS = [1, 2, 512, 1024];

  interface Content {
    data: number;
    tag: number;
  }
  interface ModelPage {
    prot: number;
    shared: boolean;
    /** Page of the file it shows, or -1. */
    filePage: number;
    /** A private page of its own. */
    own: Content | undefined;
  }
  type Model = (ModelPage | undefined)[];

  const at = (index: number): Hva => hva(BASE + index * PAGE_SIZE);
  const contentOf = (p: ModelPage, file: Content[]): Content =>
    p.own ?? (p.filePage >= 0 ? file[p.filePage]! : { data: 0, tag: 0 });
  /** The content a store changes: the file's, or a private copy. */
  function forStore(p: ModelPage, file: Content[]): Content {
    if (p.shared) return file[p.filePage]!;
    p.own ??= { ...contentOf(p, file) };
    return p.own;
  }

  const range = { page: fc.constantFrom(...PAGES), length: fc.constantFrom(...LENGTHS) };
  const prot = fc.constantFrom(0, 1, 3, 3, 3 | Prot.mte, 3 | Prot.mte, 1 | Prot.mte);
  const who = fc.nat(2);
  const step = fc.oneof(
    fc.record({ kind: fc.constant('anon' as const), who, ...range, prot }),
    fc.record({ kind: fc.constant('file' as const), who, ...range, prot, shared: fc.boolean() }),
    fc.record({ kind: fc.constant('munmap' as const), who, ...range }),
    fc.record({ kind: fc.constant('mprotect' as const), who, ...range, prot }),
    fc.record({ kind: fc.constant('dontneed' as const), who, ...range }),
    fc.record({ kind: fc.constant('store' as const), who, page: range.page, value: fc.nat(255) }),
    fc.record({ kind: fc.constant('store' as const), who, page: range.page, value: fc.nat(255) }),
    fc.record({ kind: fc.constant('tag' as const), who, page: range.page, value: fc.nat(15) }),
    fc.record({ kind: fc.constant('tag' as const), who, page: range.page, value: fc.nat(15) }),
    fc.record({
      kind: fc.constant('mremap' as const),
      who,
      ...range,
      to: fc.constantFrom(...PAGES),
    }),
    fc.record({ kind: fc.constant('pageout' as const), who, ...range }),
    fc.record({ kind: fc.constant('mergeable' as const), who, ...range }),
    fc.record({ kind: fc.constant('reclaim' as const), count: fc.constantFrom(1, 3, 600) }),
    fc.record({ kind: fc.constant('merge' as const) }),
    fc.record({ kind: fc.constant('fork' as const), who }),
    fc.record({ kind: fc.constant('exit' as const), who }),
  );
  type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

  class World {
    readonly host: Host;
    readonly file: ShmemFile;
    readonly fileModel: Content[] = Array.from({ length: WINDOW }, () => ({ data: 0, tag: 0 }));
    readonly spaces: AddressSpace[] = [];
    readonly models: Model[] = [];

    constructor(policy: HostPolicy) {
      this.host = newHost({ sizeBytes: 64 * MIB, policy });
      this.host.swapOn(new MemorySwapDevice(4096));
      this.file = this.host.createMemfd(WINDOW * PAGE_SIZE);
      this.spaces.push(this.host.createProcess());
      this.models.push(new Array(WINDOW).fill(undefined));
      const whole = { who: 0, page: 0, length: WINDOW };
      this.run({ kind: 'anon', ...whole, prot: RW | Prot.mte });
    }

    run(s: Step): void {
      if (s.kind === 'merge') mergePass(this.host);
      else if (s.kind === 'reclaim') this.host.reclaim(s.count);
      else this.#runOne(s);
    }

    #runOne(s: Exclude<Step, { kind: 'merge' | 'reclaim' }>): void {
      const index = s.who % this.spaces.length;
      const space = this.spaces[index]!;
      const model = this.models[index]!;
      switch (s.kind) {
        case 'fork': {
          if (this.spaces.length === 3) return;
          const child = space.fork();
          if (isRefusal(child)) throw new Error('fork refused');
          this.spaces.push(child);
          this.models.push(model.map((p) => p && { ...p, own: p.own && { ...p.own } }));
          return;
        }
        case 'exit':
          if (this.spaces.length === 1) return;
          space.destroy();
          this.spaces.splice(index, 1);
          this.models.splice(index, 1);
          return;
        case 'store': {
          const p = model[s.page];
          const allowed = p !== undefined && (p.prot & Prot.write) !== 0;
          expect(space.memory.writeU8(at(s.page), s.value)).toBe(allowed ? 0 : -Errno.EFAULT);
          if (allowed) forStore(p, this.fileModel).data = s.value;
          return;
        }
        case 'tag': {
          const p = model[s.page];
          const allowed = p !== undefined && (p.prot & Prot.write) !== 0;
          expect(space.memory.storeTag(at(s.page), s.value)).toBe(allowed ? 0 : -Errno.EFAULT);
          if (!allowed) return;
          const content = forStore(p, this.fileModel);
          if ((p.prot & Prot.mte) !== 0) content.tag = s.value;
          return;
        }
        default:
          this.#runRange(space, model, s);
      }
    }

    #runRange(
      space: AddressSpace,
      model: Model,
      s: Exclude<Step, { kind: 'fork' | 'exit' | 'store' | 'tag' | 'merge' | 'reclaim' }>,
    ): void {
      const length = Math.min(s.length, WINDOW - s.page);
      const start = at(s.page);
      const bytes = length * PAGE_SIZE;
      const pages = Array.from({ length }, (_, i) => s.page + i);
      switch (s.kind) {
        case 'anon': {
          const flags = PRIVATE | MapFlag.fixed;
          expect(space.mmap({ address: start, length: bytes, prot: s.prot, flags })).toBe(start);
          for (const i of pages) {
            model[i] = { prot: s.prot, shared: false, filePage: -1, own: undefined };
          }
          return;
        }
        case 'file': {
          const flags = (s.shared ? MapFlag.shared : MapFlag.private) | MapFlag.fixed;
          // The file is shown upside down by blocks, so that offsets differ from addresses.
          const offset = ((s.page + 512) % WINDOW) * PAGE_SIZE;
          const request = { address: start, length: bytes, prot: s.prot, flags, file: this.file };
          if (offset + bytes > WINDOW * PAGE_SIZE) return;
          expect(space.mmap({ ...request, offset })).toBe(start);
          for (const i of pages) {
            const filePage = offset / PAGE_SIZE + (i - s.page);
            model[i] = { prot: s.prot, shared: s.shared, filePage, own: undefined };
          }
          return;
        }
        case 'munmap':
          expect(space.munmap(start, bytes)).toBe(0);
          for (const i of pages) model[i] = undefined;
          return;
        case 'mprotect': {
          const hole = pages.findIndex((i) => model[i] === undefined);
          const changed = hole < 0 ? pages : pages.slice(0, hole);
          const expected = hole < 0 ? 0 : -Errno.ENOMEM;
          expect(space.mprotect(start, bytes, s.prot)).toBe(expected);
          for (const i of changed) {
            const p = model[i]!;
            p.prot = s.prot | (p.prot & Prot.mte);
          }
          return;
        }
        case 'mremap': {
          const target = at(s.to);
          if (s.to + length > WINDOW) return;
          const flags = MremapFlag.mayMove | MremapFlag.fixed;
          const lengths = { oldLength: bytes, newLength: bytes };
          const moved = space.mremap({ address: start, newAddress: target, flags, ...lengths });
          // Whether one area holds all of it is not for the model to know.
          if (moved !== target) {
            expect([-Errno.EFAULT, -Errno.EINVAL]).toContain(moved);
            return;
          }
          pages.forEach((from, i) => {
            model[s.to + i] = model[from];
            model[from] = undefined;
          });
          return;
        }
        case 'pageout':
        case 'mergeable': {
          const hole = pages.some((i) => model[i] === undefined);
          const advice = s.kind === 'pageout' ? Madvise.pageOut : Madvise.mergeable;
          expect(space.madvise(start, bytes, advice)).toBe(hole ? -Errno.ENOMEM : 0);
          return;
        }
        case 'dontneed': {
          const hole = pages.some((i) => model[i] === undefined);
          const expected = hole ? -Errno.ENOMEM : 0;
          expect(space.madvise(start, bytes, Madvise.dontNeed)).toBe(expected);
          for (const i of pages) {
            const p = model[i];
            if (p !== undefined) p.own = undefined;
          }
        }
      }
    }

    check(): void {
      for (const [index, space] of this.spaces.entries()) {
        space.table.check();
        for (const i of PAGES) {
          const p = this.models[index]![i];
          const readable = p !== undefined && (p.prot & Prot.read) !== 0;
          const content = p && contentOf(p, this.fileModel);
          const tag = p !== undefined && (p.prot & Prot.mte) !== 0 ? content!.tag : 0;
          const { memory } = space;
          expect([i, memory.readU8(at(i)), memory.loadTag(at(i))]).toEqual(
            readable ? [i, content!.data, tag] : [i, -Errno.EFAULT, -Errno.EFAULT],
          );
        }
      }
      this.host.frames.check();
    }

    end(): void {
      for (const space of this.spaces) space.destroy();
      this.file.close();
      this.host.frames.check();
      this.host.swap!.check();
      expect(this.host.swap!.freeSlotCount).toBe(4096);
      expect(this.host.frames.freeCount).toBe((64 * MIB) / PAGE_SIZE - 1);
    }
  }

  it.each([linux, smallPages])('any sequence of calls: policy $name', (policy) => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 10, maxLength: 40 }), (steps) => {
        const world = new World(policy);
        for (const s of steps) world.run(s);
        world.check();
        world.end();
      }),
      { numRuns: 100 },
    );
  });
});
