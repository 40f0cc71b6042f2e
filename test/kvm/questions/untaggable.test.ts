/**
 * Question 2: what may an MTE guest be given at all? `untaggable: reject`, `device`,
 * `no-tag-access` and `unchecked` on memory that cannot hold tags, and shared mappings by Linux's
 * version, seen by a guest on a real vCPU and by its VMM.
 */
import { describe, expect, it } from 'vitest';
import { decodeStage2Leaf } from '../../../src/arm/index.ts';
import { assert, hva, ipa, MIB, PAGE_SIZE } from '../../../src/base/index.ts';
import { Errno, Host, isRefusal, MapFlag } from '../../../src/host/index.ts';
import { type KvmPolicy, kvmPolicy, linux61, linux612 } from '../../../src/kvm/policy.ts';
import * as uapi from '../../../src/kvm/uapi.ts';
import { createVm } from '../../../src/kvm/vm.ts';
import { dramOnly, type NoTagsBehaviour, PhysicalMemory } from '../../../src/machine/memory.ts';
import {
  accept,
  answerText,
  CODE,
  DATA,
  type GuestVm,
  type GuestVmOptions,
  type SlotRequest,
} from '../../support/guest-vm.ts';
import { TestGuest } from '../../support/test-guest.ts';
import { BYTES, guestOf, ldg, MTE, offer, REFUSED, RW, stg } from './guest.ts';

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
    // Stage 2 says Device-nGnRE, which takes no unaligned accesses, as Normal memory would.
    const leaf = guest.vm.vm.stage2.lookup(ipa(DATA))!;
    expect(decodeStage2Leaf(leaf.descriptor).memAttr).toBe(0b0001);
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

  /** A guest over the second half of the memory without tags, and a stranger in the first. */
  function neighbours(noTags: NoTagsBehaviour) {
    const guest = withPmem('unchecked', { pmem: noTags });
    const file = guest.host.pmemFiles()[0]!;
    expect(offer(guest, { ...pmem(guest), offset: 2 * MIB }).slot).toBe(0);
    const stranger = guest.host.createProcess();
    const at = stranger.mmap({ length: 2 * MIB, prot: RW, flags: MapFlag.shared, file });
    assert(!isRefusal(at), 'the memory is mapped');
    accept(stranger.memory.fill(at, 0x5a, 2 * MIB));
    /** Where the stranger's bytes are no longer its own. */
    const damage = (): number[] => {
      const bytes = stranger.memory.read(at, 2 * MIB);
      assert(!isRefusal(bytes), 'the memory is mapped');
      return [...bytes.keys()].filter((i) => bytes[i] !== 0x5a);
    };
    return { guest, damage };
  }

  it('unchecked, memory that reads tags as zero: the guest’s tags are not there', () => {
    const { guest, damage } = neighbours('raz-wi');
    expect(guest.value(store)).toBe(STORED);
    expect(guest.value(stg(DATA, 7))).toBe(0n);
    expect(guest.value(ldg(DATA))).toBe(0n);
    expect(guest.value(store)).toBe(STORED);
    expect(damage()).toEqual([]);
  });

  it('unchecked, memory that answers with an abort: the guest takes it, data stays usable', () => {
    const { guest, damage } = neighbours('external-abort');
    for (const program of [stg(DATA, 7), ldg(DATA)]) {
      const answer = guest.run(program);
      // Vector: synchronous, from EL1 with its own stack. DFSC 0x10: synchronous external abort.
      expect(answer).toMatchObject({ kind: 'exception', vector: 0x200 });
      expect('esr' in answer && answer.esr & 0x3fn).toBe(0x10n);
    }
    expect(guest.value(store)).toBe(STORED);
    expect(damage()).toEqual([]);
  });

  it('unchecked, memory that answers with others’ data: a neighbour is corrupted', () => {
    const { guest, damage } = neighbours('corrupt-neighbour');
    expect(guest.value(store)).toBe(STORED);
    expect(damage()).toEqual([]);
    expect(guest.value(stg(DATA, 7))).toBe(0n);
    // The tag went where a carve-out of this memory would hold it: 1/32 of the way.
    expect(damage()).toEqual([(2 * MIB) / 32]);
    expect(guest.value(ldg(DATA))).toBe(0n);
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

describe('shared mappings, by the version of Linux', () => {
  const shared = { flags: MapFlag.shared | MapFlag.anonymous };

  it.each([
    { policy: linux612, slot: 0 },
    { policy: linux61, slot: REFUSED },
  ])('$policy.name: with PROT_MTE or without, slot $slot', ({ policy, slot }) => {
    for (const mapping of [shared, { ...shared, ...MTE }]) {
      const guest = guestOf(policy);
      expect(offer(guest, mapping).slot).toBe(slot);
      if (slot !== 0) continue;
      guest.value(stg(DATA, 7));
      expect(guest.value(ldg(DATA))).toBe(7n);
    }
  });

  it.each([
    { policy: linux612, answer: 'done' as const },
    { policy: linux61, answer: { kind: 'errno' as const, errno: Errno.EFAULT } },
  ])('$policy.name: slotted before MTE is enabled, taken; the guest’s STG', (row) => {
    const { host, process } = guestOf(row.policy);
    const vm = createVm({ host, process, policy: row.policy });
    assert(!isRefusal(vm), 'a VM is created');
    const at = process.mmap({ ...shared, length: BYTES, prot: RW });
    assert(!isRefusal(at), 'memory is mapped');
    const region = { slot: 0, flags: 0, guestPhysAddr: DATA, memorySize: BYTES };
    expect(vm.setUserMemoryRegion({ ...region, userspaceAddr: at })).toBe(0);
    expect(vm.enableCap({ cap: uapi.KVM_CAP_ARM_MTE })).toBe(0);
    expect(new TestGuest(vm).storeTag(ipa(DATA), 7)).toEqual(row.answer);
  });
});
