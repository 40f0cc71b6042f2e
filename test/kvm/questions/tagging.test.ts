/**
 * Question 1: who makes a guest's pages taggable? `tagging: transparent` and `require-prot-mte`,
 * each with the outcome it must have, seen by a guest on a real vCPU and by its VMM.
 */
import { describe, expect, it } from 'vitest';
import { assert, hva, PAGE_SIZE } from '../../../src/base/index.ts';
import { isRefusal, MapFlag, smallPages } from '../../../src/host/index.ts';
import { type KvmPolicy, kvmPolicy, parseKvmPolicy } from '../../../src/kvm/policy.ts';
import * as uapi from '../../../src/kvm/uapi.ts';
import { accept, answerText, DATA, type SlotRequest } from '../../support/guest-vm.ts';
import { BYTES, guestOf, ldg, MTE, offer, REFUSED, RW, stg } from './guest.ts';

describe('tagging', () => {
  /** What a VMM that knows nothing of COPY_TAGS saves and restores: bytes and tags it can see. */
  function savedByVmm(policy: KvmPolicy, mapping: SlotRequest): bigint | number {
    const source = guestOf(policy);
    const { at, slot } = offer(source, mapping);
    if (slot !== 0) return slot;
    source.value(stg(DATA, 7));
    const data = source.process.memory.read(hva(at), PAGE_SIZE);
    if (isRefusal(data)) throw new Error('the VMM reads its memory');
    const tag = source.process.memory.loadTag(hva(at));

    const target = guestOf(policy);
    const there = hva(offer(target, mapping).at);
    accept(target.process.memory.write(there, data));
    accept(target.process.memory.storeTag(there, tag));
    return target.value(ldg(DATA));
  }

  const shared = (): SlotRequest => ({ flags: MapFlag.shared | MapFlag.anonymous });

  it.each<[string, SlotRequest, { transparent: bigint | number; required: bigint | number }]>([
    ['private memory', {}, { transparent: 0n, required: REFUSED }],
    ['private memory, PROT_MTE', MTE, { transparent: 7n, required: 7n }],
    ['a shared frame buffer', shared(), { transparent: 0n, required: REFUSED }],
    ['a shared frame buffer, PROT_MTE', { ...shared(), ...MTE }, { transparent: 7n, required: 7n }],
  ])('%s: the tag 7 as the VMM saves and restores it', (_, mapping, expected) => {
    expect({
      transparent: savedByVmm(kvmPolicy(), mapping),
      required: savedByVmm(parseKvmPolicy('tagging=require-prot-mte'), mapping),
    }).toEqual(expected);
  });

  it('transparent: a page is marked and its tags are 0 when the guest faults it in, not before', () => {
    const guest = guestOf(kvmPolicy(), { hostPolicy: smallPages });
    const at = hva(offer(guest).at);
    accept(guest.process.memory.writeU8(at, 1));
    const page = guest.process.faultIn(at, { write: true });
    assert(!isRefusal(page), 'the VMM has written to the page');
    const { frames } = guest.host;
    // What an earlier owner of the frame has left.
    frames.writeTags(page.pa, Uint8Array.of(5));
    expect(frames.isMteTagged(page.pa)).toBe(false);
    expect(guest.value(ldg(DATA))).toBe(0n);
    expect(frames.isMteTagged(page.pa)).toBe(true);
    frames.check();
  });

  it('transparent, no PROT_MTE: the VMM reads tags of 0, its stores of tags are ignored', () => {
    const guest = guestOf(kvmPolicy());
    const at = hva(offer(guest).at);
    guest.value(stg(DATA, 7));
    expect(guest.process.memory.loadTag(at)).toBe(0);
    expect(guest.process.memory.storeTag(at, 3)).toBe(0);
    expect(guest.value(ldg(DATA))).toBe(7n);
  });

  it('transparent, no PROT_MTE: the guest has its tags all the same, and COPY_TAGS finds them', () => {
    const guest = guestOf(kvmPolicy());
    offer(guest);
    guest.value(stg(DATA, 7));
    expect(guest.value(ldg(DATA))).toBe(7n);
    const addr = guest.map({});
    const flags = uapi.KVM_ARM_TAGS_FROM_GUEST;
    accept(guest.vm.copyTags({ guestIpa: DATA, length: PAGE_SIZE, addr, flags }));
    expect(guest.process.memory.readU8(addr)).toBe(7);
  });

  it('require-prot-mte: memory that appears later without it, EFAULT; with it, fine', () => {
    for (const prot of [RW, MTE.prot]) {
      const guest = guestOf(kvmPolicy({ tagging: 'require-prot-mte' }));
      const at = guest.map({ length: BYTES });
      accept(guest.process.munmap(at, BYTES));
      accept(guest.setSlot(at, BYTES));
      guest.map({ address: at, length: BYTES, prot, flags: 0x32 });
      const answer = answerText(guest.run(stg(DATA, 7)));
      expect(answer).toBe(prot === RW ? 'EFAULT' : 'value 0x0');
    }
  });

  it('a VM without MTE: no mapping is asked for anything', () => {
    const guest = guestOf(kvmPolicy({ tagging: 'require-prot-mte' }), { mte: false });
    expect(offer(guest).slot).toBe(0);
    expect(guest.value(ldg(DATA))).toBe(0n);
  });
});
