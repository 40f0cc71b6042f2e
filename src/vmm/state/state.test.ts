/**
 * A machine's state: complete (another machine goes on with it to the same end), the same after it
 * was taken over, and refused where it is not the machine's.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import {
  instructionsOf,
  runSlices,
  runToEnd,
  SMALL_RAM_BYTES,
  type TestMachine,
  tagsOf,
  testMachine,
} from '../../../test/support/machines.ts';
import { SMP_GUEST_LINE } from '../../../test/support/smp-guest.ts';
import { assert, hva, PAGE_SIZE } from '../../base/index.ts';
import { isRefusal } from '../../host/index.ts';
import { KVM_MP_STATE_STOPPED, KVM_MP_STATE_SUSPENDED, kvmRegSystem } from '../../kvm/index.ts';
import { RAM_BASE } from '../board.ts';
import type { Machine } from '../machine.ts';
import { hashMachine } from '../state-hash.ts';
import { applyState } from './apply.ts';
import { captureState, registerIds } from './capture.ts';
import { decodeState, encodeState, STATE_VERSION } from './codec.ts';
import type { MachineState } from './machine-state.ts';
import { decodeSections, encodeSections } from './sections.ts';
import { StateError } from './state-error.ts';

const bare = (setup = {}): TestMachine =>
  testMachine({ plan: { ramBytes: SMALL_RAM_BYTES, cpuCount: 2 }, ...setup });

/** Copies RAM and tags, which are no part of a state. */
function copyMemory(source: Machine, target: Machine): void {
  const data = source.memory.read(RAM_BASE, SMALL_RAM_BYTES);
  assert(data !== undefined, 'RAM can be read');
  assert(target.memory.write(RAM_BASE, data), 'RAM can be written');
  const tags = tagsOf(source);
  for (let page = 0; page * PAGE_SIZE < SMALL_RAM_BYTES; page++) {
    const found = target.process.faultIn(hva(target.ramHva + page * PAGE_SIZE), { write: true });
    assert(!isRefusal(found), 'RAM is there');
    target.host.frames.writeTags(found.pa, tags.subarray(page * 256, page * 256 + 256));
    target.host.frames.setMteTagged(found.pa);
  }
}

function thrownBy(work: () => unknown): StateError {
  try {
    work();
  } catch (error) {
    if (error instanceof StateError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

describe('state: of the SMP guest in the middle of its work', () => {
  let undisturbed: TestMachine;

  beforeAll(() => {
    undisturbed = testMachine();
    runToEnd(undisturbed.machine);
  });

  it.each([1, 7, 20, 33])('applyState: after %d slices, the same end as undisturbed', (slices) => {
    const source = testMachine();
    expect(runSlices(source.machine, slices)).toBe(false);
    const bytes = encodeState(captureState(source.machine));
    const target = bare();
    copyMemory(source.machine, target.machine);
    applyState(target.machine, decodeState(bytes));
    expect(encodeState(captureState(target.machine))).toEqual(bytes);
    expect(hashMachine(target.machine)).toBe(hashMachine(source.machine));

    runToEnd(target.machine);
    runToEnd(source.machine);
    expect(instructionsOf(target.machine)).toBe(instructionsOf(undisturbed.machine));
    expect(hashMachine(target.machine)).toBe(hashMachine(undisturbed.machine));
    expect(hashMachine(source.machine)).toBe(hashMachine(undisturbed.machine));
    expect(source.output()).toBe(undisturbed.output());
    expect(target.output()).toContain(SMP_GUEST_LINE);
  });

  it('captureState: again and again without running, the same', () => {
    const { machine } = testMachine();
    runSlices(machine, 5);
    const first = encodeState(captureState(machine));
    expect(encodeState(captureState(machine))).toEqual(first);
  });

  it('captureState: a machine at its first instruction, taken over as well', () => {
    const source = testMachine();
    const target = bare();
    copyMemory(source.machine, target.machine);
    applyState(target.machine, captureState(source.machine));
    runToEnd(target.machine);
    expect(hashMachine(target.machine)).toBe(hashMachine(undisturbed.machine));
  });

  it('captureState: a load that the VMM has answered, completed', () => {
    const source = testMachine();
    const reads: string[] = [];
    const { bus } = source.machine;
    const read = bus.read.bind(bus);
    // The slice ends where a device was read, before the vCPU takes the answer.
    bus.read = (address, size) => {
      reads.push(address.toString(16));
      return read(address, size);
    };
    for (let i = 0; reads.length === 0 && i < 100; i++) source.machine.scheduler.run(1);
    const vcpu = source.machine.vcpus[0]!;
    for (let i = 0; i < 1000; i++) {
      const turn = source.machine.scheduler.run(1000);
      if (turn.kind !== 'exit' || turn.exit.kind !== 'mmio') continue;
      if (turn.exit.isWrite) continue;
      const pc = vcpu.readPc();
      turn.exit.data = 0x55n;
      captureState(source.machine);
      expect(vcpu.readPc()).toBe(pc + 4n);
      return;
    }
    expect.fail('the guest reads the UART');
  });

  it('captureState: console input that the guest has not taken, part of it', () => {
    const source = testMachine();
    source.machine.input.push(new TextEncoder().encode('typed ahead'));
    runSlices(source.machine, 1);
    const target = bare();
    applyState(target.machine, decodeState(encodeState(captureState(source.machine))));
    expect(target.machine.input.pendingBytes).toBe(11);
  });

  it('captureState: what the TRNG gives next, the same after', () => {
    const source = testMachine();
    source.machine.vm.hypercalls.prng.u64();
    const target = bare();
    applyState(target.machine, captureState(source.machine));
    const next = target.machine.vm.hypercalls.prng.u64();
    expect(next).toBe(source.machine.vm.hypercalls.prng.u64());
  });
});

describe('state: every register', () => {
  it('applyState: all listed registers with other values than after reset, kept', () => {
    const source = testMachine();
    const [vcpu] = source.machine.vcpus;
    assert(vcpu !== undefined, 'there is a CPU');
    let changed = 0;
    for (const id of registerIds(vcpu)) {
      const value = vcpu.getOneReg(id);
      assert(!isRefusal(value), 'a listed register can be read');
      // Whatever KVM takes: identification and time keep their own rules.
      const isTime = id >= kvmRegSystem(0xdf00) && id <= kvmRegSystem(0xdfff);
      if (!isTime && vcpu.setOneReg(id, value ^ 0x10n) === 0) changed++;
    }
    expect(changed).toBeGreaterThan(100);
    const state = captureState(source.machine);
    const target = bare();
    applyState(target.machine, decodeState(encodeState(state)));
    expect(captureState(target.machine).vcpus).toEqual(state.vcpus);
  });
});

describe('state: what a vCPU owes its guest', () => {
  it('applyState: an SError that PSTATE.A holds back, taken by the machine that goes on', () => {
    const source = testMachine();
    expect(source.machine.vcpus[0]?.setEvents({ serrorPending: true })).toBe(0);
    const state = decodeState(encodeState(captureState(source.machine)));
    const target = bare();
    applyState(target.machine, state);
    expect(target.machine.vcpus.map(({ events }) => events.serrorPending)).toEqual([true, false]);
    expect(captureState(target.machine)).toEqual(state);
  });

  it('applyState: a suspended vCPU and one that is off, as they were', () => {
    const source = testMachine();
    expect(source.machine.vcpus[0]?.setMpState(KVM_MP_STATE_SUSPENDED)).toBe(0);
    const target = bare();
    applyState(target.machine, decodeState(encodeState(captureState(source.machine))));
    const states = target.machine.vcpus.map(({ mpState }) => mpState);
    expect(states).toEqual([KVM_MP_STATE_SUSPENDED, KVM_MP_STATE_STOPPED]);
  });
});

describe('state: refusals', () => {
  const state = (): MachineState => captureState(testMachine().machine);

  it.each([
    ['ramBytes', { plan: { ramBytes: 2 * SMALL_RAM_BYTES, cpuCount: 2 } }],
    ['cpuCount', { plan: { ramBytes: SMALL_RAM_BYTES, cpuCount: 1 } }],
    ['mte', { mte: false }],
  ])('applyState: a machine with another %s, refused by that name', (name, setup) => {
    const { machine } = bare(setup);
    const before = encodeState(captureState(machine));
    const error = thrownBy(() => applyState(machine, state()));
    expect(error.code).toBe('machine-differs');
    expect(error.message).toContain(name);
    expect(encodeState(captureState(machine))).toEqual(before);
  });

  it('applyState: a register that this KVM does not list there, refused by its id', () => {
    const good = state();
    const [vcpu, ...others] = good.vcpus;
    const registers = vcpu!.registers.map(([id, value], i): [bigint, bigint] =>
      i === 3 ? [0x6030_0000_0013_ffffn, value] : [id, value],
    );
    const { machine } = bare();
    const error = thrownBy(() =>
      applyState(machine, { ...good, vcpus: [{ ...vcpu!, registers }, ...others] }),
    );
    expect(error.message).toContain('0x603000000013ffff');
    expect(error.code).toBe('invalid');
  });

  it('applyState: fewer registers, a VGIC of another shape, a turn of nobody, refused', () => {
    const good = state();
    const [first, second] = good.vcpus;
    const short = { ...first!, registers: first!.registers.slice(1) };
    const { vgic } = good;
    const narrow = { ...vgic, interrupts: { ...vgic.interrupts, priority: [] } };
    const bad: Partial<MachineState>[] = [
      { vcpus: [short, second!] },
      { vcpus: [first!] },
      { vgic: narrow },
      { scheduler: { next: 2 } },
    ];
    for (const part of bad) {
      const { machine } = bare();
      expect(thrownBy(() => applyState(machine, { ...good, ...part })).code).toBe('invalid');
    }
  });

  it('decodeState: an unknown section, another version, one missing, one twice', () => {
    const sections = decodeSections(encodeState(state()));
    const more = [...sections, { name: 'pci', version: 1, payload: new Uint8Array(0) }];
    const unknown = thrownBy(() => decodeState(encodeSections(more)));
    expect(unknown.code).toBe('unknown-section');
    expect(unknown.message).toContain('pci');

    const newer = sections.map((section) => ({ ...section, version: section.version + 1 }));
    expect(thrownBy(() => decodeState(encodeSections(newer))).code).toBe('other-version');

    const missing = sections.filter(({ name }) => name !== 'vgic');
    const error = thrownBy(() => decodeState(encodeSections(missing)));
    expect(error.code).toBe('missing-section');
    expect(error.message).toContain('vgic');

    const twice = [...sections, sections[0]!];
    expect(thrownBy(() => decodeState(encodeSections(twice))).code).toBe('corrupted');
  });

  it.each([
    ['{', 'no JSON'],
    ['{"next":-1}', 'next'],
    ['{"next":0,"more":1}', 'scheduler'],
  ])('decodeState: a section with %s, refused with its place', (text, word) => {
    const sections = decodeSections(encodeState(state())).map((section) =>
      section.name === 'scheduler'
        ? { ...section, payload: new TextEncoder().encode(text) }
        : section,
    );
    const error = thrownBy(() => decodeState(encodeSections(sections)));
    expect(error.code).toBe('invalid');
    expect(error.message).toContain(word);
  });

  it('STATE_VERSION: a number that can be compared', () => {
    expect(Number.isInteger(STATE_VERSION)).toBe(true);
  });
});
