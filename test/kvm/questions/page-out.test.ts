/**
 * Question 3: where are tags saved on page-out? A guest's pages leave memory and come back with
 * their tags, or what each `swapTags` makes of them; fork, merging, MADV_DONTNEED, truncation and
 * saving the process whole.
 */
import { describe, expect, it } from 'vitest';
import { hva, ipa, PAGE_SIZE, Prng } from '../../../src/base/index.ts';
import {
  isRefusal,
  linux,
  Madvise,
  MapFlag,
  MemorySwapDevice,
  mergePass,
  restoreProcess,
  SimulatedSwapDevice,
  type SwapDevice,
  type SwapTags,
  saveProcess,
  smallPages,
} from '../../../src/host/index.ts';
import * as uapi from '../../../src/kvm/uapi.ts';
import { createVm } from '../../../src/kvm/vm.ts';
import {
  accept,
  answerText,
  DATA,
  GuestVm,
  type GuestVmOptions,
  reported,
} from '../../support/guest-vm.ts';
import { TestGuest } from '../../support/test-guest.ts';
import { ldg, MTE, stgAndByte } from './guest.ts';

function guestWithSwap(
  options: GuestVmOptions = {},
  device: SwapDevice = new MemorySwapDevice(1024),
): GuestVm {
  const guest = new GuestVm(options);
  expect(isRefusal(guest.host.swapOn(device))).toBe(false);
  return guest;
}

describe('page-out of guest memory', () => {
  it('stage 2 loses the page; data and tags come back at the guest’s next access', () => {
    const guest = guestWithSwap();
    const at = guest.addSlot();
    guest.value(stgAndByte(DATA + 0x1000, 6));
    const faults = guest.vcpus[0]!.statistics.stage2FaultCount;
    accept(guest.process.madvise(at, 16 * PAGE_SIZE, Madvise.pageOut));
    expect(guest.process.pageState(hva(at + 0x1000))).toBe('swapped');
    expect(guest.value(ldg(DATA + 0x1000))).toBe(6n);
    expect(guest.value(`ldr x1, =${DATA + 0x1000}\n ldrb w0, [x1]`)).toBe(6n);
    expect(guest.vcpus[0]!.statistics.stage2FaultCount).toBeGreaterThan(faults);
  });

  it('COPY_TAGS brings pages in', () => {
    const guest = guestWithSwap();
    const at = guest.addSlot();
    const buffer = guest.map({});
    guest.value(stgAndByte(DATA, 3));
    accept(guest.process.madvise(at, PAGE_SIZE, Madvise.pageOut));
    const flags = uapi.KVM_ARM_TAGS_FROM_GUEST;
    expect(guest.vm.copyTags({ guestIpa: DATA, length: PAGE_SIZE, addr: buffer, flags })).toBe(
      PAGE_SIZE,
    );
    expect(guest.process.memory.readU8(buffer)).toBe(3);
  });

  it('while the device reads: the vCPU waits, the VMM hears nothing, others run', () => {
    const device = new SimulatedSwapDevice(new MemorySwapDevice(64), {
      prng: new Prng(5),
      readTicksMax: 1000,
    });
    const guest = guestWithSwap({ vcpuCount: 2 }, device);
    const at = guest.addSlot();
    guest.value(stgAndByte(DATA, 5));
    accept(guest.process.madvise(at, PAGE_SIZE, Madvise.pageOut));
    const waiting = guest.begin(ldg(DATA));
    expect(waiting.run()).toEqual({ kind: 'blocked' });
    // Nobody sees the page before its tags are back.
    expect(guest.process.pageState(at)).toBe('swapped');
    expect(waiting.runnable).toBe(false);
    expect(guest.value('mov x0, #1', 1)).toBe(1n);
    device.advance(1000);
    expect(waiting.runnable).toBe(true);
    expect(reported(guest.answer(waiting))).toBe(5n);
  });

  it('a guest larger than memory keeps every byte and tag', () => {
    const guest = guestWithSwap({ ramBytes: 6 * 1024 * 1024 }, new MemorySwapDevice(4096));
    const pages = 1600;
    guest.addSlot({ length: pages * PAGE_SIZE });
    const each = (body: string): string => `
      ldr x1, =${DATA}
      mov x4, #${pages}
      mov x0, xzr
      mov x5, xzr
    1: ${body}
      add x5, x5, #1
      add x1, x1, #4096
      sub x4, x4, #1
      cbnz x4, 1b`;
    guest.answer(
      guest.begin(each('and x6, x5, #15\n orr x2, x1, x6, lsl #56\n stg x2, [x1]\n str x5, [x1]')),
      10_000_000,
    );
    expect(guest.host.swap!.statistics.pagesOut).toBeGreaterThan(200);
    const check = each(`
      mov x2, x1
      ldg x2, [x2]
      and x6, x5, #15
      eor x6, x6, x2, lsr #56
      ldr x7, [x1]
      eor x7, x7, x5
      orr x0, x0, x6
      orr x0, x0, x7`);
    expect(reported(guest.answer(guest.begin(check), 10_000_000))).toBe(0n);
  });
});

describe('swapTags: a guest’s tags after a page-out', () => {
  /** The tag the guest reads, by the VMM's mapping, and table writes that looked for saved tags. */
  function afterPageOut(swapTags: SwapTags, mapping: object): { tag: bigint; looks: number } {
    const guest = guestWithSwap({ hostPolicy: { ...linux, swapTags } });
    const at = guest.addSlot(mapping);
    guest.value(stgAndByte(DATA, 9));
    accept(guest.process.madvise(at, PAGE_SIZE, Madvise.pageOut));
    guest.host.statistics.tagLookCount = 0;
    const tag = guest.value(ldg(DATA));
    return { tag, looks: guest.host.statistics.tagLookCount };
  }
  type After = ReturnType<typeof afterPageOut>;

  it.each<[SwapTags, { plain: After; protMte: After }]>([
    ['restore-at-swap-in', { plain: { tag: 9n, looks: 0 }, protMte: { tag: 9n, looks: 0 } }],
    ['restore-when-mapped', { plain: { tag: 9n, looks: 1 }, protMte: { tag: 9n, looks: 1 } }],
    [
      'restore-through-prot-mte-only',
      { plain: { tag: 0n, looks: 0 }, protMte: { tag: 9n, looks: 1 } },
    ],
    ['drop', { plain: { tag: 0n, looks: 0 }, protMte: { tag: 0n, looks: 0 } }],
  ])('%s', (swapTags, expected) => {
    expect({ plain: afterPageOut(swapTags, {}), protMte: afterPageOut(swapTags, MTE) }).toEqual(
      expected,
    );
  });

  it.each<[SwapTags, number]>([
    ['restore-at-swap-in', 0],
    ['restore-when-mapped', 16],
    ['restore-through-prot-mte-only', 0],
  ])('%s: every write of a table entry, tags or none, looks %i times', (swapTags, looks) => {
    const guest = guestWithSwap({ hostPolicy: { ...smallPages, swapTags } });
    const at = guest.addSlot();
    guest.host.statistics.tagLookCount = 0;
    for (let page = 0; page < 16; page++) {
      accept(guest.process.memory.writeU8(hva(at + page * PAGE_SIZE), 1));
    }
    expect(guest.host.statistics.tagLookCount).toBe(looks);
  });
});

describe('what the VMM does with guest memory, and the guest’s tag 9 of a page after it', () => {
  const file = (guest: GuestVm) => ({
    flags: MapFlag.shared,
    file: guest.host.createMemfd(16 * PAGE_SIZE),
  });
  const advise =
    (advice: number) =>
    (guest: GuestVm, at: number): unknown =>
      guest.process.madvise(hva(at), PAGE_SIZE, advice);
  const fork = (guest: GuestVm, at: number): unknown => {
    const child = guest.process.fork();
    if (isRefusal(child)) return child;
    // The child's store takes the page apart, and the guest's next one stays with the parent.
    return child.memory.writeU8(hva(at), 1);
  };

  it.each<[string, boolean, (guest: GuestVm, at: number) => unknown, bigint]>([
    ['MADV_DONTNEED on anonymous memory', false, advise(Madvise.dontNeed), 0n],
    ['MADV_DONTNEED on a memfd', true, advise(Madvise.dontNeed), 9n],
    ['a hole punched into a memfd', true, advise(Madvise.remove), 0n],
    ['MADV_PAGEOUT of a memfd', true, advise(Madvise.pageOut), 9n],
    ['fork, and a store of the child', false, fork, 9n],
    [
      'mprotect to PROT_MTE',
      false,
      (g, at) => g.process.mprotect(hva(at), PAGE_SIZE, MTE.prot),
      9n,
    ],
  ])('%s', (_, shared, change, expected) => {
    const guest = guestWithSwap();
    const at = guest.addSlot(shared ? file(guest) : {});
    guest.value(stgAndByte(DATA, 9));
    expect(change(guest, at)).toBe(0);
    expect(guest.value(ldg(DATA))).toBe(expected);
  });

  it('fork, and a store of the guest: copied on write with its tags, the child keeps its own', () => {
    const guest = guestWithSwap();
    const at = guest.addSlot();
    guest.value(stgAndByte(DATA, 9));
    const child = guest.process.fork();
    if (isRefusal(child)) throw new Error('the process forks');
    const frame = (process: typeof child): unknown => process.faultIn(at, { write: false });
    expect(frame(guest.process)).toMatchObject({ pa: (frame(child) as { pa: number }).pa });
    guest.value(`ldr x1, =${DATA}\n mov x2, #1\n strb w2, [x1]`);
    expect(guest.value(ldg(DATA))).toBe(9n);
    guest.value(stgAndByte(DATA, 3));
    accept(child.mprotect(at, PAGE_SIZE, MTE.prot));
    expect([child.memory.readU8(at), child.memory.loadTag(at)]).toEqual([9, 9]);
    child.destroy();
    guest.host.frames.check();
  });

  it('the file cut and grown again: the tags are gone', () => {
    const guest = guestWithSwap();
    const request = file(guest);
    guest.addSlot(request);
    guest.value(stgAndByte(DATA, 9));
    request.file.truncate(0);
    expect(answerText(guest.run(ldg(DATA)))).toBe('EFAULT');
    request.file.truncate(16 * PAGE_SIZE);
    expect(guest.value(ldg(DATA))).toBe(0n);
  });

  it('the process saved whole and put back under a new VM: all tags and data are there', () => {
    const guest = guestWithSwap();
    const at = guest.addSlot();
    guest.value(stgAndByte(DATA, 9));
    guest.value(stgAndByte(DATA + 0x3000, 4));
    accept(guest.process.madvise(at, PAGE_SIZE, Madvise.pageOut));
    const image = saveProcess(guest.process);
    if (isRefusal(image)) throw new Error('the process is saved');
    const process = restoreProcess(guest.host, image);
    if (isRefusal(process)) throw new Error('the process is restored');
    const vm = createVm({ host: guest.host, process });
    if (isRefusal(vm)) throw new Error('a VM is created');
    accept(vm.enableCap({ cap: uapi.KVM_CAP_ARM_MTE }));
    const region = { slot: 0, flags: 0, guestPhysAddr: DATA, memorySize: 16 * PAGE_SIZE };
    accept(vm.setUserMemoryRegion({ ...region, userspaceAddr: at }));
    const again = new TestGuest(vm);
    expect([0, 0x3000].map((offset) => again.loadTag(ipa(DATA + offset)))).toEqual([9, 4]);
    expect([0, 0x3000].map((offset) => again.load(ipa(DATA + offset)))).toEqual([9, 4]);
  });
});

describe('COPY_TAGS while memory is short', () => {
  it('bringing in the buffer does not page out the page whose tags are copied', () => {
    const guest = guestWithSwap({ ramBytes: 6 * 1024 * 1024 }, new MemorySwapDevice(8192));
    const pages = 1200;
    guest.addSlot({ length: pages * PAGE_SIZE });
    const addr = guest.map({ length: pages * 256 });
    for (let page = 0; page < pages; page++) {
      accept(guest.process.memory.fill(hva(addr + page * 256), page % 16, 256));
    }
    const request = { guestIpa: DATA, length: pages * PAGE_SIZE, addr };
    expect(guest.vm.copyTags({ ...request, flags: 0 })).toBe(pages * PAGE_SIZE);
    accept(guest.process.memory.fill(addr, 0xff, pages * 256));
    const flags = uapi.KVM_ARM_TAGS_FROM_GUEST;
    expect(guest.vm.copyTags({ ...request, flags })).toBe(pages * PAGE_SIZE);
    for (let page = 0; page < pages; page++) {
      const at = hva(addr + page * 256 + 255);
      expect([page, guest.process.memory.readU8(at)]).toEqual([page, page % 16]);
    }
    expect(guest.host.swap!.statistics.pagesOut).toBeGreaterThan(0);
    guest.host.frames.check();
  });
});

describe('same-page merging under a guest', () => {
  it('pages of an MTE guest are tagged and stay; those of another are merged and copied', () => {
    for (const mte of [true, false]) {
      const guest = new GuestVm({ mte, hostPolicy: smallPages });
      const at = guest.addSlot();
      accept(guest.process.madvise(at, 16 * PAGE_SIZE, Madvise.mergeable));
      const store = `ldr x1, =${DATA}\n mov x2, #7\n str x2, [x1]\n add x1, x1, #4096\n
        str x2, [x1]\n mov x0, xzr`;
      guest.value(store);
      const { pagesMerged, pagesTagged } = mergePass(guest.host);
      expect([pagesMerged, pagesTagged]).toEqual(mte ? [0, 2] : [1, 0]);
      const change = `ldr x1, =${DATA}\n mov x2, #8\n str x2, [x1]\n add x1, x1, #4096\n
        ldr x0, [x1]`;
      expect(guest.value(change)).toBe(7n);
    }
  });
});
