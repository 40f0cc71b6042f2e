/**
 * Question 4: how do tags travel in a migration? A VMM of one page's length moves a guest that
 * writes while it is copied, by each way of carrying tags: all end with the same data and tags, and
 * what differs is counted. Whole machines and links: src/vmm/migration, test/sim, test/linux.
 */
import { describe, expect, it } from 'vitest';
import { assert, type Hva, hva, ipa, PAGE_SIZE } from '../../../src/base/index.ts';
import { isRefusal, MapFlag } from '../../../src/host/index.ts';
import * as uapi from '../../../src/kvm/uapi.ts';
import { CHUNK_PAGES } from '../../../src/vmm/migration/dirty-pages.ts';
import { type GuestRam, HostWrites, TAG_BYTES } from '../../../src/vmm/migration/guest-ram.ts';
import type { Time } from '../../../src/vmm/migration/link.ts';
import { TAG_POLICIES } from '../../../src/vmm/migration/tag-policies.ts';
import { type TagOptions, tagReader, tagWriter } from '../../../src/vmm/migration/tags.ts';
import { accept, DATA, GuestVm } from '../../support/guest-vm.ts';
import { BYTES, MTE, stgAndByte } from './guest.ts';

const PAGES = BYTES / PAGE_SIZE;
const TAGS = BYTES / 16;
const ALL_PAGES = (1 << PAGES) - 1;

/** The page that the guest writes to after it was cleaned, before it is read. */
const RACED = 3;

/** A clock that goes on by a millisecond whenever it is read. */
function tickingTime(): Time {
  let now = 0;
  return { nowMs: () => now++, after: () => () => {}, turn: async () => {} };
}

interface Side {
  readonly guest: GuestVm;
  readonly ram: GuestRam;
}

/** A guest whose slot is a memfd; its VMM has that mapped twice, the second time with PROT_MTE. */
function newSide(): Side {
  const guest = new GuestVm();
  const mapping = { flags: MapFlag.shared, file: guest.host.createMemfd(BYTES) };
  const at = guest.addSlot(mapping);
  const taggedHva = guest.map({ ...mapping, ...MTE });
  const range = { slot: 0, base: ipa(DATA), sizeBytes: BYTES, hva: at, shared: true, taggedHva };
  const { vm: kvm, process } = guest;
  const ranges = [range];
  return { guest, ram: { kvm, process, ranges, mte: true, hostWrites: new HostWrites(ranges) } };
}

function bytesAt({ guest }: Side, at: Hva, count: number): Uint8Array {
  const bytes = guest.process.memory.read(at, count);
  assert(!isRefusal(bytes), 'the VMM reads its memory');
  return bytes;
}

/** Data and tags of the slot; tags one to a byte. */
function contentOf(side: Side): { data: Uint8Array; tags: Uint8Array } {
  const addr = side.guest.map({ length: TAGS });
  const request = { guestIpa: DATA, length: BYTES, addr, flags: uapi.KVM_ARM_TAGS_FROM_GUEST };
  expect(side.guest.vm.copyTags(request)).toBe(BYTES);
  return {
    data: bytesAt(side, side.ram.ranges[0]!.hva, BYTES),
    tags: bytesAt(side, addr, TAGS),
  };
}

/** Gives each tag granule of the slot the tag of its number, and each page a byte. */
function fill({ guest }: Side): void {
  guest.value(`
    ldr x1, =${DATA}
    ldr x4, =${DATA + BYTES}
  1: lsr x3, x1, #4
    bfi x1, x3, #56, #4
    stg x1, [x1]
    strb w3, [x1]
    ubfx x1, x1, #0, #56
    add x1, x1, #16
    cmp x1, x4
    b.ne 1b
    mov x0, xzr`);
}

/** Pre-copy over nothing: what was sent, by how many calls, and how much of it twice. */
function move(from: Side, to: Side, options: TagOptions) {
  const [time, there] = [tickingTime(), tickingTime()];
  const reader = tagReader(from.ram, options, time);
  const writer = tagWriter(to.ram, options, there);
  const { vm, process } = from.guest;
  const { hva: slotHva } = from.ram.ranges[0]!;
  const protect = uapi.KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | uapi.KVM_DIRTY_LOG_INITIALLY_SET;
  const args = [BigInt(protect)];
  accept(vm.enableCap({ cap: uapi.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, args }));
  const slotFlags = uapi.KVM_MEM_LOG_DIRTY_PAGES;
  accept(from.guest.setSlot(slotHva, BYTES, { slotFlags }));

  const sent = new Array<number>(PAGES).fill(0);
  const packed = new Uint8Array(PAGES * TAG_BYTES);
  const current = new Uint8Array(PAGES);
  let putOff = 0;

  const dirty = (): number => {
    const bitmap = vm.getDirtyLog(0);
    assert(!isRefusal(bitmap), 'the slot logs');
    return bitmap[0]! & ALL_PAGES;
  };
  const send = (page: number, tags: Uint8Array): void => {
    const data = process.memory.read(hva(slotHva + page * PAGE_SIZE), PAGE_SIZE);
    assert(!isRefusal(data), 'the VMM reads its memory');
    const [range] = to.ram.ranges;
    accept(to.guest.process.memory.write(hva(range!.hva + page * PAGE_SIZE), data));
    writer.write({ range: range!, firstPage: page, pageCount: 1 }, tags);
    sent[page]!++;
  };
  /** Cleans neighbouring pages, lets the guest race, reads and sends them. */
  const round = (firstPage: number, pageCount: number, race: () => void): void => {
    const bitmap = Uint32Array.of(((1 << pageCount) - 1) << firstPage);
    accept(vm.clearDirtyLog({ slot: 0, firstPage: 0, pageCount: PAGES, bitmap }));
    race();
    current.fill(1);
    reader.read({ range: from.ram.ranges[0]!, firstPage, pageCount }, packed, current);
    for (let i = 0; i < pageCount; i++) {
      if (current[i] === 0) putOff++;
      else send(firstPage + i, packed.subarray(i * TAG_BYTES, (i + 1) * TAG_BYTES));
    }
  };

  expect(dirty()).toBe(ALL_PAGES);
  round(0, PAGES, () => {
    from.guest.value(stgAndByte(DATA + RACED * PAGE_SIZE, 0xe));
  });
  expect(dirty()).toBe(1 << RACED);
  round(RACED, 1, () => {});
  expect(dirty()).toBe(0);
  reader.close();
  writer.close();
  return { cost: reader.cost, sentTwice: sent.filter((count) => count > 1).length, putOff };
}

describe('tags of a guest that writes while it is copied', () => {
  const BATCHED = PAGES + 1;
  const cases: readonly [string, TagOptions, ReturnType<typeof move>][] = [
    [
      'ioctl, in ranges',
      { policy: 'ioctl' },
      {
        cost: { calls: 2, bytes: BATCHED * 256, milliseconds: 2, pages: BATCHED },
        sentTwice: 1,
        putOff: 0,
      },
    ],
    [
      'ioctl, page by page',
      { policy: 'ioctl', pagesPerCall: 1 },
      {
        cost: { calls: BATCHED, bytes: BATCHED * 256, milliseconds: BATCHED, pages: BATCHED },
        sentTwice: 1,
        putOff: 0,
      },
    ],
    [
      'dual-mapping',
      { policy: 'dual-mapping' },
      {
        cost: { calls: 2, bytes: BATCHED * 256, milliseconds: 2, pages: BATCHED },
        sentTwice: 1,
        putOff: 0,
      },
    ],
    [
      // Two tags to a byte, and each time a bitmap.
      'dirty-log',
      { policy: 'dirty-log' },
      {
        cost: {
          calls: 2,
          bytes: BATCHED * TAG_BYTES + 2 * (CHUNK_PAGES / 8),
          milliseconds: 2,
          pages: BATCHED,
        },
        sentTwice: 0,
        putOff: 1,
      },
    ],
  ];

  it('every policy is among them', () => {
    expect(new Set(cases.map(([, { policy }]) => policy))).toEqual(new Set(TAG_POLICIES));
  });

  it.each(cases)('%s: the same tags and data, at its own cost', (_, options, expected) => {
    const [from, to] = [newSide(), newSide()];
    fill(from);
    expect(move(from, to, options)).toEqual(expected);
    const moved = contentOf(to);
    expect(moved).toEqual(contentOf(from));
    expect([...moved.tags.subarray(0, 17)]).toEqual([...Array(16).keys(), 0]);
    expect(moved.tags[RACED * 256]).toBe(0xe);
    for (const { guest } of [from, to]) guest.host.frames.check();
  });

  it('the bytes alone, as a VMM carries them that never asks for tags: every tag is lost', () => {
    const [from, to] = [newSide(), newSide()];
    fill(from);
    const { data } = contentOf(from);
    accept(to.guest.process.memory.write(to.ram.ranges[0]!.hva, data));
    expect(contentOf(to)).toEqual({ data, tags: new Uint8Array(TAGS) });
  });

  it('dual-mapping where memory is mapped once: refused before anything is sent', () => {
    const { ram } = newSide();
    const ranges = ram.ranges.map(({ taggedHva: _, ...range }) => range);
    for (const make of [tagReader, tagWriter]) {
      expect(() => make({ ...ram, ranges }, { policy: 'dual-mapping' }, tickingTime())).toThrow(
        /mapped twice/,
      );
    }
  });
});
