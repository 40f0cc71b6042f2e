/** A guest whose memory is not there yet: it waits for each page, and sees it with its tags. */
import { describe, expect, it } from 'vitest';
import { hva, PAGE_SIZE } from '../../src/base/index.ts';
import { Errno, PACKED_TAG_BYTES, Prot } from '../../src/host/index.ts';
import * as uapi from '../../src/kvm/uapi.ts';
import { accept, DATA, GuestVm, reported } from '../support/guest-vm.ts';

const page = (value: number): Uint8Array => new Uint8Array(PAGE_SIZE).fill(value);
const tags = (value: number): Uint8Array => new Uint8Array(PACKED_TAG_BYTES).fill(value * 0x11);

describe('a missing page of guest memory', () => {
  it('LDG, LDR: the vCPU waits, others run, and it goes on when the page is there', () => {
    const guest = new GuestVm({ vcpuCount: 2 });
    const at = guest.addSlot();
    const { userfault, awaited } = guest.process;
    userfault.register(at, 16 * PAGE_SIZE);
    const waiting = guest.begin(`ldr x1, =${DATA + 0x1010}\n ldg x1, [x1]\n ldrb w2, [x1]\n
      add x0, x1, x2`);
    expect(waiting.run()).toEqual({ kind: 'userfault', hva: at + PAGE_SIZE });
    expect(waiting.runnable).toBe(false);
    expect(waiting.nextDeadline()).toBeUndefined();
    expect(waiting.run()).toEqual({ kind: 'blocked' });
    expect(userfault.nextEvent()).toEqual({ address: at + PAGE_SIZE, write: false });
    expect(guest.value('mov x0, #5', 1)).toBe(5n);

    userfault.copy({ address: hva(at + PAGE_SIZE), data: page(2), packedTags: tags(6) });
    expect(awaited.size).toBe(0);
    expect(waiting.runnable).toBe(true);
    expect(reported(guest.answer(waiting))).toBe((6n << 56n) + BigInt(DATA + 0x1012));
  });

  it('two vCPUs touch one page: one event, both go on', () => {
    const guest = new GuestVm({ vcpuCount: 2 });
    const at = guest.addSlot();
    const { userfault } = guest.process;
    userfault.register(at, 16 * PAGE_SIZE);
    const source = `ldr x1, =${DATA}\n ldrb w0, [x1]`;
    const vcpus = [0, 1].map((index) => guest.begin(source, index));
    for (const vcpu of vcpus) expect(vcpu.run().kind).toBe('userfault');
    userfault.nextEvent();
    expect(userfault.nextEvent()).toBeUndefined();
    userfault.copy({ address: at, data: page(7) });
    for (const vcpu of vcpus) expect(reported(guest.answer(vcpu))).toBe(7n);
  });

  it('a handler: the guest does not notice; the page is mapped at stage 2 with its tags', () => {
    const guest = new GuestVm();
    const at = guest.addSlot({ prot: Prot.read | Prot.write | Prot.mte });
    guest.process.userfault.register(at, 16 * PAGE_SIZE, {
      onMissing: () => ({ data: page(3), packedTags: tags(0xb) }),
    });
    const ldg = `ldr x1, =${DATA + 0x3000}\n mov x0, xzr\n ldr x0, =${DATA + 0x3000}\n ldg x0, [x0]`;
    expect(guest.value(ldg)).toBe((0xbn << 56n) + BigInt(DATA + 0x3000));
  });

  it('unregistered while a vCPU waits: it reads zero', () => {
    const guest = new GuestVm();
    const at = guest.addSlot();
    guest.process.userfault.register(at, 16 * PAGE_SIZE);
    const vcpu = guest.begin(`ldr x1, =${DATA}\n ldr x0, [x1]`);
    expect(vcpu.run().kind).toBe('userfault');
    guest.process.userfault.unregister(at, 16 * PAGE_SIZE);
    expect(reported(guest.answer(vcpu))).toBe(0n);
  });

  it('COPY_TAGS: EAGAIN, or as far as pages are there', () => {
    const guest = new GuestVm();
    const at = guest.addSlot();
    const buffer = guest.map({});
    guest.process.userfault.register(at, 16 * PAGE_SIZE);
    const request = { guestIpa: DATA, length: 3 * PAGE_SIZE, addr: buffer };
    const from = { ...request, flags: uapi.KVM_ARM_TAGS_FROM_GUEST };
    expect(guest.vm.copyTags(from)).toBe(-Errno.EAGAIN);
    expect(guest.process.userfault.nextEvent()).toEqual({ address: at, write: false });
    guest.process.userfault.copy({ address: at, data: page(0), packedTags: tags(4) });
    expect(guest.vm.copyTags(from)).toBe(PAGE_SIZE);
    expect(guest.process.memory.readU8(buffer)).toBe(4);
    expect(guest.vm.copyTags({ ...request, guestIpa: DATA + PAGE_SIZE, flags: 0 })).toBe(
      -Errno.EAGAIN,
    );
  });

  it('dirty log: a page is dirty when the guest’s store happened, not while it waits', () => {
    const guest = new GuestVm();
    const at = guest.addSlot({ slotFlags: uapi.KVM_MEM_LOG_DIRTY_PAGES });
    guest.process.userfault.register(at, 16 * PAGE_SIZE);
    const vcpu = guest.begin(`ldr x1, =${DATA + 0x2000}\n mov x0, #9\n strb w0, [x1]`);
    expect(vcpu.run().kind).toBe('userfault');
    expect(guest.process.userfault.nextEvent()).toEqual({ address: at + 0x2000, write: true });
    expect(guest.vm.getDirtyLog(0)).toEqual(new Uint32Array(2));
    guest.process.userfault.copy({ address: hva(at + 0x2000), data: page(1) });
    expect(guest.vm.getDirtyLog(0)).toEqual(new Uint32Array(2));
    expect(reported(guest.answer(vcpu))).toBe(9n);
    expect(guest.vm.getDirtyLog(0)).toEqual(new Uint32Array([4, 0]));
    expect(guest.process.memory.readU16(hva(at + 0x2000))).toBe(0x0109);
  });

  it('code and tables that are missing: fetch and walk wait as well', () => {
    const guest = new GuestVm();
    const vcpu = guest.begin('mov x0, #3');
    const { process, codeHva } = guest;
    const saved = process.memory.read(codeHva, 0x5_0000);
    if (typeof saved === 'number') throw new Error('the code slot is mapped');
    accept(process.madvise(codeHva, 2 * 1024 * 1024, 4));
    process.userfault.register(codeHva, 2 * 1024 * 1024);
    let exits = 0;
    for (;;) {
      const exit = vcpu.run();
      if (exit.kind !== 'userfault') break;
      exits++;
      const offset = exit.hva - codeHva;
      const data = saved.slice(offset, offset + PAGE_SIZE);
      process.userfault.copy({ address: exit.hva, data });
    }
    expect(exits).toBe(2);
  });
});
