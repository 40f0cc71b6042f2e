/**
 * Who makes a guest's pages taggable, and what an MTE guest may be given at all: each policy with
 * the outcome it must have, seen by a guest on real vCPUs and by its VMM.
 */
import { describe, expect, it } from 'vitest';
import { hva, MIB, PAGE_SIZE } from '../../src/base/index.ts';
import { Errno, Host, isRefusal, MapFlag, Prot } from '../../src/host/index.ts';
import { type KvmPolicy, kvmPolicy, linux61, parseKvmPolicy } from '../../src/kvm/policy.ts';
import * as uapi from '../../src/kvm/uapi.ts';
import { createVm } from '../../src/kvm/vm.ts';
import { dramOnly, type NoTagsBehaviour, PhysicalMemory } from '../../src/machine/memory.ts';
import {
  accept,
  answerText,
  CODE,
  DATA,
  GuestVm,
  type GuestVmOptions,
  type SlotRequest,
} from '../support/guest-vm.ts';

const RW = Prot.read | Prot.write;
const MTE = { prot: RW | Prot.mte };
const BYTES = 16 * PAGE_SIZE;
const REFUSED = -Errno.EINVAL;

const ldg = (at: number): string => `ldr x0, =${at}\n ldg x0, [x0]\n lsr x0, x0, #56`;
const stg = (at: number, tag: number): string =>
  `ldr x1, =${at}\n ldr x2, =${(BigInt(tag) << 56n) + BigInt(at)}\n stg x2, [x1]\n mov x0, xzr`;

/**
 * A VM whose guest has not been given the data slot yet; its code is PROT_MTE, for every policy.
 */
const guestOf = (policy: KvmPolicy, options: GuestVmOptions = {}): GuestVm =>
  new GuestVm({ policy, codeProt: MTE.prot, ...options });

/** Maps memory and makes it a slot: where, or the refusal of the slot. */
function offer(guest: GuestVm, request: SlotRequest = {}): { at: number; slot: number } {
  const at = guest.map({ length: BYTES, ...request });
  return { at, slot: guest.setSlot(at, BYTES, request) };
}

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

  it('shared memory by version: 6.12 takes it, 6.1 refuses it, PROT_MTE or not', () => {
    for (const mapping of [shared(), { ...shared(), ...MTE }]) {
      expect(offer(guestOf(kvmPolicy()), mapping).slot).toBe(0);
      expect(offer(guestOf(linux61), mapping).slot).toBe(REFUSED);
    }
  });
});

describe('untaggable', () => {
  const pmem = (guest: GuestVm): SlotRequest => ({
    flags: MapFlag.shared,
    file: guest.host.pmemFiles()[0]!,
  });
  const withPmem = (untaggable: KvmPolicy['untaggable'], options: GuestVmOptions = {}): GuestVm =>
    guestOf(kvmPolicy({ untaggable }), { pmem: 'raz-wi', ...options });

  const store = `ldr x1, =${DATA}\n ldr x2, =0x1122334455667788\n str x2, [x1]\n ldr x0, [x1]`;
  const STORED = 0x1122334455667788n;
  const unaligned = `ldr x1, =${DATA}\n ldur x0, [x1, #1]`;
  const checkedLoad = `ldr x1, =${(3n << 56n) + BigInt(DATA)}\n ldr x0, [x1]`;

  it('pmemFiles: one for each zone without tags, and no PROT_MTE there', () => {
    const guest = withPmem('reject');
    expect(guest.host.pmemFiles()).toMatchObject([{ kind: 'device', sizeBytes: 4 * MIB }]);
    const request = { length: BYTES, flags: MapFlag.shared, file: guest.host.pmemFiles()[0]! };
    expect(guest.process.mmap({ ...request, ...MTE })).toBe(-Errno.EINVAL);
    const at = guest.map(request);
    expect(guest.process.memory.storeTag(at, 3)).toBe(0);
    expect(guest.process.memory.loadTag(at)).toBe(0);
  });

  it('reject: a slot is refused when set; on what is mapped later the guest’s access fails', () => {
    const guest = withPmem('reject');
    expect(offer(guest, pmem(guest)).slot).toBe(REFUSED);
    const at = guest.map({ length: BYTES });
    accept(guest.process.munmap(at, BYTES));
    accept(guest.setSlot(at, BYTES));
    guest.map({
      address: at,
      length: BYTES,
      ...pmem(guest),
      flags: MapFlag.shared | MapFlag.fixed,
    });
    expect(answerText(guest.run(store))).toBe('EFAULT');
  });

  it('reject on 6.1: a private mapping is taken, and the guest’s access fails', () => {
    const guest = guestOf(linux61, { pmem: 'raz-wi' });
    expect(offer(guest, { ...pmem(guest), flags: MapFlag.private }).slot).toBe(0);
    expect(answerText(guest.run(unaligned))).toBe('EFAULT');
  });

  it.each([true, false])('device: usable, uncached, without tags (FWB %s)', (fwb) => {
    const guest = withPmem('device', { cpu: { fwb } });
    const { at, slot } = offer(guest, pmem(guest));
    expect(slot).toBe(0);
    expect(guest.value(store)).toBe(STORED);
    expect(guest.process.memory.readU64(hva(at))).toBe(STORED);
    expect(guest.value(stg(DATA, 7))).toBe(0n);
    expect(guest.value(ldg(DATA))).toBe(0n);
    // Device memory takes no unaligned accesses, as Normal memory would.
    expect(guest.run(unaligned)).toMatchObject({ kind: 'exit', exit: { kind: 'error' } });
  });

  it.each([true, false])('no-tag-access: cached data; tags exit to the VMM (FWB %s)', (fwb) => {
    const guest = withPmem('no-tag-access', { cpu: { fwb } });
    expect(offer(guest, pmem(guest)).slot).toBe(0);
    const exit = {
      kind: 'memory-fault',
      ipa: DATA,
      sizeBytes: PAGE_SIZE,
      flags: uapi.KVM_MEMORY_EXIT_FLAG_NOTAGACCESS,
    };
    expect(guest.value(store)).toBe(STORED);
    expect(guest.value(unaligned)).toBe(STORED >> 8n);
    expect(guest.run(ldg(DATA))).toEqual({ kind: 'exit', exit });
    expect(guest.run(stg(DATA, 7))).toEqual({ kind: 'exit', exit });
    expect(guest.run(`ldr x0, =${DATA}\n stgm x0, [x0]`)).toEqual({ kind: 'exit', exit });
    expect(guest.run(`ldr x0, =${DATA}\n dc gva, x0`)).toEqual({ kind: 'exit', exit });
    // The access is still to be done: the VMM may settle it, or try it again.
    expect(guest.answer()).toEqual({ kind: 'exit', exit });
  });

  it('no-tag-access: a checked load exits where a failed check would show, else passes', () => {
    const guest = withPmem('no-tag-access');
    offer(guest, pmem(guest));
    expect(guest.value(checkedLoad)).toBe(0n);
    guest.setBits('SCTLR_EL1', 3n << 40n, 1n << 40n);
    expect(guest.run(checkedLoad)).toMatchObject({ kind: 'exit', exit: { kind: 'memory-fault' } });
    guest.vcpus[0]!.writePstate(0x3c5n);
    expect(guest.value(`msr tco, #1\n ${checkedLoad}`)).toBe(0n);
  });

  it('no-tag-access on a CPU without FEAT_MTE_PERM: no VM', () => {
    const host = new Host({
      memory: new PhysicalMemory({ zones: dramOnly(4 * MIB) }),
      cpu: { mtePerm: false },
    });
    const process = host.createProcess();
    const policy = kvmPolicy({ untaggable: 'no-tag-access' });
    expect(createVm({ host, process, policy })).toBe(-Errno.EINVAL);
    expect(isRefusal(createVm({ host, process }))).toBe(false);
  });

  it.each<[NoTagsBehaviour, string]>([
    ['raz-wi', 'tags read as zero'],
    ['external-abort', 'the guest takes an external abort'],
    ['corrupt-neighbour', 'other data of the memory changes'],
  ])('unchecked, memory that answers %s: %s', (behaviour) => {
    const guest = withPmem('unchecked', { pmem: behaviour });
    const { at, slot } = offer(guest, pmem(guest));
    expect(slot).toBe(0);
    expect(guest.value(store)).toBe(STORED);
    const before = guest.process.memory.read(hva(at), BYTES);
    const answer = guest.run(stg(DATA + 0x2000, 7));
    const after = guest.process.memory.read(hva(at), BYTES);
    if (behaviour === 'external-abort') {
      expect(answer).toMatchObject({ kind: 'exception', vector: 0x200 });
      expect('esr' in answer && answer.esr & 0x3fn).toBe(0x10n);
    } else {
      expect(answerText(answer)).toBe('value 0x0');
      expect(guest.value(ldg(DATA + 0x2000))).toBe(0n);
    }
    if (behaviour === 'corrupt-neighbour') expect(after).not.toEqual(before);
    else expect(after).toEqual(before);
  });

  it('a VM without MTE gets the memory as it is, whatever the policy', () => {
    for (const untaggable of ['reject', 'device', 'no-tag-access', 'unchecked'] as const) {
      const guest = withPmem(untaggable, { mte: false });
      expect(offer(guest, pmem(guest)).slot).toBe(0);
      expect(guest.value(store)).toBe(STORED);
      expect(guest.value(unaligned)).toBe(STORED >> 8n);
    }
  });

  it('taggable memory has its tags, whatever the policy', () => {
    for (const untaggable of ['device', 'no-tag-access', 'unchecked'] as const) {
      const guest = withPmem(untaggable);
      offer(guest);
      guest.value(stg(DATA, 7));
      expect(guest.value(ldg(DATA))).toBe(7n);
      expect(guest.value(`ldr x0, =${CODE}\n ldr x0, [x0]`)).not.toBe(0n);
    }
  });
});
