/** Runs repeat: the embedded guest, and what a hash of a machine tells apart. */
import { describe, expect, it } from 'vitest';
import { hva, MIB } from '../base/index.ts';
import { Prot } from '../host/index.ts';
import { KVM_ARM_IRQ_TYPE_SPI, kvmArmIrq, kvmRegV } from '../kvm/index.ts';
import { type BootPlan, planBoot } from './boot.ts';
import { buildEmbeddedGuest } from './guests/embedded.ts';
import { Machine } from './machine.ts';
import { hashMachine } from './state-hash.ts';

const RAM_BYTES = 16 * MIB;

let plan: BootPlan | undefined;

function embedded(options: { mte?: boolean; seed?: number } = {}): Machine {
  const { mte = true, seed = 1 } = options;
  const bytes = plan === undefined ? buildEmbeddedGuest().bytes : undefined;
  plan ??= planBoot({
    kernel: { name: 'the embedded guest', bytes: bytes! },
    cmdline: '',
    ramBytes: RAM_BYTES,
    cpuCount: 1,
    seed: 1,
  });
  return new Machine({ plan, mte, seed, transmit: () => {} });
}

/** Runs to power-off in slices of `slice` instructions; returns instructions and hash. */
function toTheEnd(machine: Machine, slice?: number): [bigint, string] {
  let event = machine.runSlice(slice);
  while (typeof event !== 'string') event = machine.runSlice(slice);
  expect(event).toBe('power-off');
  return [machine.statistics(0).instructionCount, hashMachine(machine)];
}

describe('the embedded guest run to its end', () => {
  it.each([true, false])('twice, MTE %s: the same instructions, the same hash', (mte) => {
    expect(toTheEnd(embedded({ mte }))).toEqual(toTheEnd(embedded({ mte })));
  });

  it('with MTE and without: other hashes', () => {
    expect(toTheEnd(embedded())[1]).not.toBe(toTheEnd(embedded({ mte: false }))[1]);
  });

  it('hashed on the way: a hash changes nothing', () => {
    const disturbed = embedded();
    disturbed.runSlice(3000);
    expect(hashMachine(disturbed)).toBe(hashMachine(disturbed));
    expect(toTheEnd(disturbed)[1]).toBe(toTheEnd(embedded())[1]);
  });
});

describe('hashMachine tells apart', () => {
  const base = embedded();
  const original = hashMachine(base);
  const { memory } = base.process;
  const irq = kvmArmIrq({ type: KVM_ARM_IRQ_TYPE_SPI, num: 40 });
  const last = hva(base.ramHva + RAM_BYTES - 16);

  /** Changes something and takes it back: the hash differs in between, and only then. */
  const cases: readonly [string, () => void, () => void][] = [
    ['a byte of RAM', () => memory.writeU8(last, 1), () => memory.writeU8(last, 0)],
    ['a general register', () => base.vcpus[0]!.writeX(9, 1n), () => base.vcpus[0]!.writeX(9, 0n)],
    [
      'a vector register',
      () => base.vcpus[0]!.setOneReg(kvmRegV(31), 1n),
      () => base.vcpus[0]!.setOneReg(kvmRegV(31), 0n),
    ],
    [
      'an interrupt line',
      () => base.vm.irqLine({ irq, level: 1 }),
      () => base.vm.irqLine({ irq, level: 0 }),
    ],
  ];
  it.each(cases)('%s', (_name, change, restore) => {
    change();
    expect(hashMachine(base)).not.toBe(original);
    restore();
    expect(hashMachine(base)).toBe(original);
  });

  it('an allocation tag', () => {
    const machine = embedded();
    const before = hashMachine(machine);
    expect(
      machine.process.mprotect(machine.ramHva, RAM_BYTES, Prot.read | Prot.write | Prot.mte),
    ).toBe(0);
    expect(hashMachine(machine)).toBe(before);
    machine.process.memory.storeTag(last, 3);
    expect(hashMachine(machine)).not.toBe(hashMachine(embedded()));
  });

  it('what was touched and is zero from what never was: no', () => {
    const machine = embedded();
    machine.process.memory.writeU8(last, 0);
    expect(hashMachine(machine)).toBe(original);
  });
});
