/**
 * A guest's data and tags against a naive model: whatever the guest, its VMM and the host do to its
 * pages in any order, a page has the byte and the tags it was last given, no tag of a frame's last
 * owner is ever seen, the dirty log has exactly the pages that the guest stored to, and the tag log
 * the tags of those that it has not stored to since.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE, hva, ipa, MIB, PAGE_SIZE } from '../../src/base/index.ts';
import {
  type AddressSpace,
  Errno,
  Host,
  isRefusal,
  Madvise,
  MapFlag,
  MemorySwapDevice,
  MremapFlag,
  mergePass,
  PACKED_TAG_BYTES,
  Prot,
  TAG_GRANULES,
} from '../../src/host/index.ts';
import { KVM_CAP_ARM_MTE_TAG_LOG } from '../../src/kvm/tag-log.ts';
import {
  KVM_ARM_TAGS_FROM_GUEST,
  KVM_ARM_TAGS_TO_GUEST,
  KVM_CAP_ARM_MTE,
  KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
  KVM_DIRTY_LOG_INITIALLY_SET,
  KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
  KVM_MEM_LOG_DIRTY_PAGES,
} from '../../src/kvm/uapi.ts';
import { createVm } from '../../src/kvm/vm.ts';
import { dramOnly, PhysicalMemory } from '../../src/machine/memory.ts';
import { granted } from '../support/host-process.ts';
import { TestGuest } from '../support/test-guest.ts';

const RW = Prot.read | Prot.write;
const BASE = 0x4000_0000;
const PAGES = 1024;
const SLOT_BYTES = PAGES * PAGE_SIZE;
const DRAM_BYTES = 16 * MIB;
/** Packed tags of all pages, and behind them a bit a page. */
const LOG_BYTES = PAGES * PACKED_TAG_BYTES + PAGES / 8;

type Backing = 'anonymous' | 'memfd' | 'private memfd';

/** Fills the tags of all free frames, as an owner before the guest may leave them. */
function leaveTagsBehind(host: Host): void {
  const owner = host.createProcess();
  const flags = MapFlag.private | MapFlag.anonymous;
  const length = DRAM_BYTES - BLOCK_SIZE;
  const at = granted(owner.mmap({ length, prot: RW | Prot.mte, flags }));
  for (let done = 0; done < length; done += PAGE_SIZE) {
    const page = owner.faultIn(hva(at + done), { write: true });
    if (!isRefusal(page)) host.memory.packedTags(page.pa, PAGE_SIZE).fill(0xff);
  }
  owner.destroy();
}

/** What a page has: one byte and one tag, at their places in it. */
interface Content {
  byte: number;
  tag: number;
}

/** Pages at the edges of blocks, so that steps meet. */
const EDGES = [0, 1, 511, 512];

const BYTE_AT = 64;
/** The granule, an odd one, whose tag the steps change; COPY_TAGS changes all. */
const TAG_AT = 7 * 16;
const UNTOUCHED_TAG_AT = 200 * 16;

/** The machine and what it should hold. */
class Model {
  readonly host: Host;
  readonly process: AddressSpace;
  readonly pages: Content[] = Array.from({ length: PAGES }, () => ({ byte: 0, tag: 0 }));
  /** The tag of the other granules of each page. */
  readonly rest = new Uint8Array(PAGES);
  readonly dirty = new Set<number>();
  /** Pages whose tags the VMM itself has changed, which no log sees. */
  readonly changed = new Set<number>();
  readonly guest: TestGuest;
  readonly #vm;
  readonly #backing: Backing;
  /** What KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 was enabled with. */
  readonly #manualProtect: bigint;
  readonly #at;
  readonly #elsewhere;
  readonly #buffer;
  #child: AddressSpace | undefined;
  /** What memory had when it was made. */
  #childPages: Content[] = [];
  #logging = false;
  #mte = false;

  constructor(backing: Backing, manualProtect: bigint) {
    const memory = new PhysicalMemory({ zones: dramOnly(DRAM_BYTES), recordPageCount: 16 });
    this.host = new Host({ memory });
    leaveTagsBehind(this.host);
    granted(this.host.swapOn(new MemorySwapDevice(4 * PAGES)));
    this.process = this.host.createProcess();
    this.#backing = backing;
    this.#manualProtect = manualProtect;
    const anonymous = { flags: MapFlag.private | MapFlag.anonymous };
    const file = { file: this.host.createMemfd(SLOT_BYTES) };
    const request = {
      anonymous,
      memfd: { flags: MapFlag.shared, ...file },
      'private memfd': { flags: MapFlag.private, ...file },
    }[backing];
    this.#at = granted(this.process.mmap({ length: SLOT_BYTES, prot: RW, ...request }));
    this.#elsewhere = granted(
      this.process.mmap({ length: SLOT_BYTES, prot: Prot.none, ...anonymous }),
    );
    this.#buffer = granted(this.process.mmap({ length: LOG_BYTES, prot: RW, ...anonymous }));
    granted(this.process.madvise(this.#at, SLOT_BYTES, Madvise.mergeable));
    this.#vm = granted(createVm({ host: this.host, process: this.process }));
    granted(this.#vm.enableCap({ cap: KVM_CAP_ARM_MTE }));
    granted(this.#vm.enableCap({ cap: KVM_CAP_ARM_MTE_TAG_LOG, args: [1n] }));
    granted(this.#vm.enableCap({ cap: KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, args: [manualProtect] }));
    this.setSlot(SLOT_BYTES);
    this.guest = new TestGuest(this.#vm);
  }

  hvaOf(page: number, offset = 0) {
    return hva(this.#at + page * PAGE_SIZE + offset);
  }

  ipaOf(page: number, offset = 0) {
    return ipa(BASE + page * PAGE_SIZE + offset);
  }

  setSlot(memorySize: number): void {
    const flags = this.#logging ? KVM_MEM_LOG_DIRTY_PAGES : 0;
    const region = { slot: 0, flags, guestPhysAddr: BASE, userspaceAddr: this.#at };
    granted(this.#vm.setUserMemoryRegion({ ...region, memorySize }));
  }

  check(page: number): void {
    const { byte, tag } = this.pages[page]!;
    const { guest } = this;
    expect([
      guest.load(this.ipaOf(page, BYTE_AT)),
      guest.loadTag(this.ipaOf(page, TAG_AT)),
      guest.loadTag(this.ipaOf(page, UNTOUCHED_TAG_AT)),
    ]).toEqual([byte, tag, this.rest[page]]);
  }

  store(page: number, value: number): void {
    expect(this.guest.store(this.ipaOf(page, BYTE_AT), value)).toBe('done');
    this.pages[page]!.byte = value;
    this.dirty.add(page);
  }

  storeTag(page: number, tag: number): void {
    expect(this.guest.storeTag(this.ipaOf(page, TAG_AT), tag)).toBe('done');
    this.pages[page]!.tag = tag;
    this.dirty.add(page);
  }

  hostStore(page: number, value: number): void {
    granted(this.process.memory.writeU8(this.hvaOf(page, BYTE_AT), value));
    this.pages[page]!.byte = value;
  }

  /** STG of the VMM, which its mapping lets through once it is PROT_MTE. */
  hostStoreTag(page: number, tag: number): void {
    granted(this.process.memory.storeTag(this.hvaOf(page, TAG_AT), tag));
    if (!this.#mte) return;
    this.pages[page]!.tag = tag;
    this.changed.add(page);
  }

  copyTagsTo(page: number, tag: number): void {
    granted(this.process.memory.fill(this.#buffer, tag, TAG_GRANULES));
    expect(this.#copyTags(page, KVM_ARM_TAGS_TO_GUEST)).toBe(PAGE_SIZE);
    this.pages[page]!.tag = tag;
    this.rest[page] = tag;
    this.changed.add(page);
  }

  copyTagsFrom(page: number): void {
    expect(this.#copyTags(page, KVM_ARM_TAGS_FROM_GUEST)).toBe(PAGE_SIZE);
    const tags = granted(this.process.memory.read(this.#buffer, TAG_GRANULES));
    const expected = new Uint8Array(TAG_GRANULES).fill(this.rest[page]!);
    expected[TAG_AT / 16] = this.pages[page]!.tag;
    expect(tags).toEqual(expected);
  }

  #copyTags(page: number, flags: number): number {
    const request = { guestIpa: this.ipaOf(page), length: PAGE_SIZE, addr: this.#buffer };
    return this.#vm.copyTags({ ...request, flags });
  }

  advise(first: number, count: number, advice: number): void {
    const result = this.process.madvise(this.hvaOf(first), count * PAGE_SIZE, advice);
    if (advice === Madvise.remove && this.#backing !== 'memfd') {
      expect(result).toBeLessThan(0);
      return;
    }
    expect(result).toBe(0);
    const forgets = advice === Madvise.dontNeed && this.#backing !== 'memfd';
    if (!forgets && advice !== Madvise.remove) return;
    for (let page = first; page < first + count; page++) {
      this.pages[page] = { byte: 0, tag: 0 };
      this.rest[page] = 0;
      this.changed.add(page);
    }
  }

  addProtMte(): void {
    granted(this.process.mprotect(this.#at, SLOT_BYTES, RW | Prot.mte));
    this.#mte = true;
  }

  readOnlyAndBack(first: number, count: number): void {
    const [at, length] = [this.hvaOf(first), count * PAGE_SIZE];
    granted(this.process.mprotect(at, length, Prot.read));
    this.check(first);
    expect(this.guest.store(this.ipaOf(first), 1)).toMatchObject({ errno: Errno.EFAULT });
    granted(this.process.mprotect(at, length, RW));
  }

  /** A child that lives until the next one, or stores to a page of its own and ends. */
  fork(page: number, stays: boolean): void {
    this.#endChild();
    const child = granted(this.process.fork());
    if (stays) {
      this.#child = child;
      this.#childPages = this.pages.map((content) => ({ ...content }));
      return;
    }
    if (this.#backing !== 'memfd') granted(child.memory.writeU8(this.hvaOf(page, BYTE_AT), 0xee));
    child.destroy();
  }

  /** What the guest has done since the fork the child has not seen, unless memory is shared. */
  #endChild(): void {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined) return;
    const pages = this.#backing === 'memfd' ? this.pages : this.#childPages;
    granted(child.mprotect(this.#at, SLOT_BYTES, RW | Prot.mte));
    for (const page of EDGES) {
      expect([
        child.memory.readU8(this.hvaOf(page, BYTE_AT)),
        child.memory.loadTag(this.hvaOf(page, TAG_AT)),
      ]).toEqual([pages[page]!.byte, pages[page]!.tag]);
    }
    child.destroy();
  }

  moveAwayAndBack(first: number, count: number): void {
    const length = count * PAGE_SIZE;
    const flags = MremapFlag.mayMove | MremapFlag.fixed;
    const sizes = { oldLength: length, newLength: length, flags };
    const [here, there] = [this.hvaOf(first), this.#elsewhere];
    expect(this.process.mremap({ address: here, newAddress: there, ...sizes })).toBe(there);
    expect(this.process.mremap({ address: there, newAddress: here, ...sizes })).toBe(here);
  }

  setLogging(on: boolean): void {
    if (on !== this.#logging) this.#logBegins();
    this.#logging = on;
    this.setSlot(SLOT_BYTES);
  }

  makeSlotAnew(): void {
    this.setSlot(0);
    this.setSlot(SLOT_BYTES);
    this.#logBegins();
  }

  #logBegins(): void {
    this.dirty.clear();
    const allSet = (this.#manualProtect & BigInt(KVM_DIRTY_LOG_INITIALLY_SET)) !== 0n;
    if (allSet) for (let page = 0; page < PAGES; page++) this.dirty.add(page);
  }

  checkLog(): void {
    if (!this.#logging) return;
    const words = granted(this.#vm.getDirtyLog(0));
    const pages: number[] = [];
    words.forEach((word, i) => {
      for (let bit = 0; bit < 32; bit++) if ((word >>> bit) & 1) pages.push(i * 32 + bit);
    });
    expect(pages).toEqual([...this.dirty].sort((a, b) => a - b));
    const manual = (this.#manualProtect & BigInt(KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE)) !== 0n;
    const all = { slot: 0, firstPage: 0, pageCount: PAGES, bitmap: words };
    if (manual) granted(this.#vm.clearDirtyLog(all));
    for (const page of pages) this.changed.delete(page);
    this.dirty.clear();
  }

  checkTagLog(): void {
    if (!this.#logging) return;
    const bitmap = hva(this.#buffer + PAGES * PACKED_TAG_BYTES);
    const request = { slot: 0, firstPage: 0, pageCount: PAGES, addr: this.#buffer, bitmap };
    granted(this.#vm.readTagLog(request));
    const { memory } = this.process;
    for (let page = 0; page < PAGES; page++) {
      const byte = granted(memory.readU8(hva(bitmap + (page >>> 3))));
      if (((byte >>> (page & 7)) & 1) === 0 || this.changed.has(page)) continue;
      const at = hva(this.#buffer + page * PACKED_TAG_BYTES);
      const rest = this.rest[page]!;
      const expected = new Uint8Array(PACKED_TAG_BYTES).fill(rest | (rest << 4));
      expected[(TAG_AT - 16) / 32] = rest | (this.pages[page]!.tag << 4);
      expect(this.dirty.has(page)).toBe(false);
      expect(granted(memory.read(at, PACKED_TAG_BYTES))).toEqual(expected);
    }
  }

  end(): void {
    this.#endChild();
    this.checkTagLog();
    this.checkLog();
    this.setLogging(false);
    for (const page of [0, 512]) this.store(page, 1);
    for (let page = 0; page < PAGES; page += 73) this.check(page);
    this.#vm.stage2.check();
    this.host.frames.check();
    this.host.swap!.check();
  }
}

type Act = (model: Model, step: Step) => void;

/** What a step does; the more often a name is written in `kinds`, the more often it is drawn. */
const acts = {
  check: (m, { page }) => m.check(page),
  store: (m, { page, value }) => m.store(page, value),
  storeTag: (m, { page, value }) => m.storeTag(page, value),
  hostStore: (m, { page, value }) => m.hostStore(page, value),
  hostStoreTag: (m, { page, value }) => m.hostStoreTag(page, value),
  copyTagsTo: (m, { page, value }) => m.copyTagsTo(page, value),
  copyTagsFrom: (m, { page }) => m.copyTagsFrom(page),
  dontNeed: (m, { page, count }) => m.advise(page, count, Madvise.dontNeed),
  pageOut: (m, { page, count }) => m.advise(page, count, Madvise.pageOut),
  remove: (m, { page, count }) => m.advise(page, count, Madvise.remove),
  reclaim: (m, { count }) => m.host.reclaim(count),
  merge: (m) => mergePass(m.host),
  addProtMte: (m) => m.addProtMte(),
  readOnlyAndBack: (m, { page, count }) => m.readOnlyAndBack(page, count),
  moveAwayAndBack: (m, { page, count }) => m.moveAwayAndBack(page, count),
  fork: (m, { page, on }) => m.fork(page, on),
  logging: (m, { on }) => m.setLogging(on),
  checkLog: (m) => m.checkLog(),
  checkTagLog: (m) => m.checkTagLog(),
  slotAnew: (m) => m.makeSlotAnew(),
} satisfies Record<string, Act>;

interface Step {
  readonly kind: keyof typeof acts;
  readonly page: number;
  readonly count: number;
  readonly value: number;
  readonly on: boolean;
}

const kinds = Object.keys(acts) as Step['kind'][];
const stepOf = (some: readonly Step['kind'][]): fc.Arbitrary<Step> =>
  fc.record({
    kind: fc.constantFrom('check', 'store', 'storeTag', 'logging', 'checkLog', ...some),
    page: fc.constantFrom(0, ...EDGES),
    count: fc.constantFrom(1, 2, 512),
    value: fc.integer({ min: 1, max: 15 }),
    on: fc.boolean(),
  });

/** Each run has a few kinds of steps, because all together hardly leave a block whole. */
const manySteps = fc
  .subarray(kinds, { minLength: 1, maxLength: 8 })
  .chain((some) => fc.array(stepOf(some), { maxLength: 50 }));

describe('any steps of a guest, its VMM and the host', () => {
  it.each<[Backing]>([['anonymous'], ['memfd'], ['private memfd']])('%s memory', (backing) => {
    fc.assert(
      fc.property(fc.constantFrom(0n, 1n, 3n), manySteps, (manualProtect, steps) => {
        const model = new Model(backing, manualProtect);
        for (const each of steps) (acts[each.kind] as Act)(model, each);
        model.end();
      }),
      { numRuns: 50 },
    );
  });
});
