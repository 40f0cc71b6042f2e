/**
 * Small machines for tests of what is done to a whole machine: the SMP guest on a board with little
 * memory, run to any point.
 */
import { assert, PAGE_SIZE } from '../../src/base/index.ts';
import { isRefusal, MapFlag, Prot } from '../../src/host/index.ts';
import { KVM_ARM_TAGS_FROM_GUEST } from '../../src/kvm/index.ts';
import { RAM_BASE } from '../../src/vmm/board.ts';
import { type BootPlan, planBoot } from '../../src/vmm/boot.ts';
import { Machine, type MachineSetup } from '../../src/vmm/machine.ts';
import { buildSmpGuest } from './smp-guest.ts';

export const SMALL_RAM_BYTES = 8 * 1024 * 1024;

/** Turns of a slice, so that tests can stop often. */
export const SLICE = 10_000;

/** A machine and what it has transmitted. */
export interface TestMachine {
  readonly machine: Machine;
  readonly output: () => string;
}

let smpPlan: BootPlan | undefined;

/** The boot plan of the SMP guest. */
export function smpGuestPlan(): BootPlan {
  smpPlan ??= planBoot({
    kernel: { name: 'the SMP guest', bytes: buildSmpGuest().bytes },
    cmdline: '',
    ramBytes: SMALL_RAM_BYTES,
    cpuCount: 2,
    seed: 7,
  });
  return smpPlan;
}

export function testMachine(setup: Partial<MachineSetup> = {}): TestMachine {
  let output = '';
  const machine = new Machine({
    plan: smpGuestPlan(),
    mte: true,
    seed: 7,
    ...setup,
    transmit: (byte) => {
      output += String.fromCharCode(byte);
    },
  });
  return { machine, output: () => output };
}

/** Runs `slices` slices, fewer when the guest powers off; returns whether it has. */
export function runSlices(machine: Machine, slices: number): boolean {
  for (let i = 0; i < slices; i++) {
    if (machine.runSlice(SLICE) === 'power-off') return true;
  }
  return false;
}

export const runToEnd = (machine: Machine): void =>
  assert(runSlices(machine, 1000), 'the guest powers off');

export const instructionsOf = (machine: Machine): bigint => machine.statistics(0).instructionCount;

/** All tags of a machine's RAM, one a byte. */
export function tagsOf({ process, vm, setup }: Machine): Uint8Array {
  const { ramBytes } = setup.plan;
  const length = (ramBytes / PAGE_SIZE) * 256;
  const buffer = process.mmap({
    length,
    prot: Prot.read | Prot.write,
    flags: MapFlag.private | MapFlag.anonymous,
  });
  assert(!isRefusal(buffer), 'there is room for all tags');
  const done = vm.copyTags({
    guestIpa: RAM_BASE,
    length: ramBytes,
    addr: buffer,
    flags: KVM_ARM_TAGS_FROM_GUEST,
  });
  assert(done === ramBytes, 'all tags can be read');
  const tags = process.memory.read(buffer, length);
  assert(!isRefusal(tags), 'the buffer can be read');
  process.munmap(buffer, length);
  return tags;
}
