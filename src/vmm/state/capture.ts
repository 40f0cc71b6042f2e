/**
 * Takes the state of a machine, through what KVM offers a VMM: KVM_GET_REG_LIST and
 * KVM_GET_ONE_REG, KVM_GET_MP_STATE, the VGIC's and the devices' own `save`. Between two slices of
 * the machine (`Machine.runSlice`) the state is complete: a machine that takes it over (`apply.ts`)
 * with the same memory goes on as this one does, instruction for instruction. Guest memory is not
 * part of it.
 *
 * Not carried, as no KVM carries it: TLBs, the exclusive monitor and the event register. KVM_RUN
 * clears the one and sets the other; and a guest that clears the access flag of a
 * descriptor without invalidating its TLB entry may see the flag set again sooner than it would
 * have here.
 */
import { assert } from '../../base/index.ts';
import { isRefusal } from '../../host/index.ts';
import type { Vcpu } from '../../kvm/index.ts';
import type { Machine } from '../machine.ts';
import type { MachineDescriptionState, MachineState, VcpuState } from './machine-state.ts';

/** The state of `machine`, which does not run. Completes a load or store that the VMM answered. */
export function captureState(machine: Machine): MachineState {
  for (const vcpu of machine.vcpus) completeMmio(vcpu);
  const { vgic } = machine.vm;
  assert(vgic !== undefined, 'a machine has a VGIC');
  return {
    machine: describeMachine(machine),
    clock: machine.kvm.clock.save() ?? null,
    scheduler: { next: machine.scheduler.next },
    vcpus: machine.vcpus.map(captureVcpu),
    vgic: vgic.save(),
    pl011: machine.uart.save(),
    pl031: machine.rtc.save(),
    input: { pending: machine.input.save() },
    trng: { words: [...machine.vm.hypercalls.prng.save()] },
  };
}

/** What `machine` is: what a state must match to be taken over. */
export function describeMachine(machine: Machine): MachineDescriptionState {
  const { plan, mte, seed } = machine.setup;
  return {
    board: 'virt-1',
    ramBytes: plan.ramBytes,
    cpuCount: plan.cpuCount,
    mte,
    policy: machine.vm.vm.policy.name,
    seed,
  };
}

/**
 * KVM ends a pending access at the next KVM_RUN, which need not enter the guest for it; that run
 * also ends a wait, as a signal does.
 */
function completeMmio(vcpu: Vcpu): void {
  const { waiting } = vcpu;
  vcpu.immediateExit = true;
  vcpu.run();
  vcpu.immediateExit = false;
  vcpu.waiting = waiting;
}

function captureVcpu(vcpu: Vcpu): VcpuState {
  return {
    features: vcpu.features,
    mpState: vcpu.mpState,
    serrorPending: vcpu.events.serrorPending,
    waiting: vcpu.waiting,
    instructionCount: vcpu.statistics.instructionCount,
    registers: registerIds(vcpu).map((id) => {
      const value = vcpu.getOneReg(id);
      assert(!isRefusal(value), 'a listed register can be read');
      return [id, value];
    }),
  };
}

/** KVM_GET_REG_LIST, asked twice: for their number, and for the ids. */
export function registerIds(vcpu: Vcpu): readonly bigint[] {
  const list = { n: 0, reg: [] as bigint[] };
  vcpu.getRegList(list);
  assert(!isRefusal(vcpu.getRegList(list)), 'the list has room now');
  return list.reg;
}
