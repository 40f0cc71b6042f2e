/**
 * Takes over a state that `capture.ts` made, on a machine that has not run. Everything is compared
 * with the machine first; then KVM_ARM_VCPU_INIT, KVM_SET_ONE_REG and the `restore` of each part. A
 * refusal by KVM after that leaves a machine that must not be run. Guest memory is the caller's.
 *
 * The order matters: counters are set by KVM_SET_ONE_REG relative to the clock, so the clock is
 * first; devices raise their lines, so the VGIC, which knows every line, comes behind them.
 */
import { assert } from '../../base/index.ts';
import { errnoName, isRefusal } from '../../host/index.ts';
import type { Vcpu } from '../../kvm/index.ts';
import type { Machine } from '../machine.ts';
import { describeMachine, registerIds } from './capture.ts';
import type { MachineDescriptionState, MachineState, VcpuState } from './machine-state.ts';
import { StateError } from './state-error.ts';

/**
 * Gives `machine` the state. Throws `StateError`: 'machine-differs' or 'invalid' with the machine
 * unchanged, 'refused' for a value that KVM does not take.
 */
export function applyState(machine: Machine, state: MachineState): void {
  checkFits(machine, state);
  const { vgic } = machine.vm;
  assert(vgic !== undefined, 'a machine has a VGIC');
  if (state.clock !== null) machine.kvm.clock.restore(state.clock);
  const { target } = machine.vm.preferredTarget();
  machine.vcpus.forEach((vcpu, index) => {
    applyVcpu(vcpu, target, state.vcpus[index]!);
  });
  machine.uart.restore(state.pl011);
  machine.rtc.restore(state.pl031);
  machine.input.restore(state.input.pending);
  machine.vm.hypercalls.prng.restore(state.trng.words);
  vgic.restore(state.vgic);
  machine.scheduler.next = state.scheduler.next;
}

/** Throws 'machine-differs' where `state` is of another machine than `machine`. */
export function checkSameMachine(ours: MachineDescriptionState, state: MachineState): void {
  const theirs = state.machine;
  const names: readonly (keyof MachineDescriptionState)[] = [
    'board',
    'ramBytes',
    'cpuCount',
    'mte',
    'policy',
  ];
  for (const name of names) {
    if (theirs[name] === ours[name]) continue;
    const text = `the state is of a machine with ${name} ${theirs[name]}, this one has ${ours[name]}`;
    throw new StateError('machine-differs', text);
  }
}

function checkFits(machine: Machine, state: MachineState): void {
  checkSameMachine(describeMachine(machine), state);
  const { cpuCount } = state.machine;
  const shape = machine.vm.vgic?.save();
  assert(shape !== undefined, 'a machine has a VGIC');
  checkLength('vcpus', state.vcpus.length, cpuCount);
  checkLength('vgic.cpus', state.vgic.cpus.length, cpuCount);
  checkLength('vgic.pendbaser', state.vgic.pendbaser.length, shape.pendbaser.length);
  for (const name of Object.keys(shape.interrupts) as (keyof typeof shape.interrupts)[]) {
    const found = state.vgic.interrupts[name].length;
    checkLength(`vgic.interrupts.${name}`, found, shape.interrupts[name].length);
  }
  if (state.scheduler.next >= cpuCount) {
    throw new StateError(
      'invalid',
      `scheduler.next is ${state.scheduler.next} of ${cpuCount} CPUs`,
    );
  }
  machine.vcpus.forEach((vcpu, index) => {
    checkRegisters(vcpu, state.vcpus[index]!);
  });
}

function checkLength(what: string, found: number, expected: number): void {
  if (found === expected) return;
  throw new StateError('invalid', `${what} has ${found} entries where the machine has ${expected}`);
}

/** All registers of this KVM and no others: what it does not list it could not take over. */
function checkRegisters(vcpu: Vcpu, state: VcpuState): void {
  const ours = registerIds(vcpu);
  checkLength(`vcpus.${vcpu.index}.registers`, state.registers.length, ours.length);
  state.registers.forEach(([id], i) => {
    if (id === ours[i]) return;
    const text = `vcpus.${vcpu.index}: register 0x${id.toString(16)} is not in this KVM's list there`;
    throw new StateError('invalid', text);
  });
}

function applyVcpu(vcpu: Vcpu, target: number, state: VcpuState): void {
  accept('KVM_ARM_VCPU_INIT', vcpu.init({ target, features: [state.features] }));
  for (const [id, value] of state.registers) {
    accept(
      `vcpus.${vcpu.index}: KVM_SET_ONE_REG of 0x${id.toString(16)}`,
      vcpu.setOneReg(id, value),
    );
  }
  accept('KVM_SET_VCPU_EVENTS', vcpu.setEvents({ serrorPending: state.serrorPending }));
  accept('KVM_SET_MP_STATE', vcpu.setMpState(state.mpState));
  vcpu.waiting = state.waiting;
  vcpu.statistics.instructionCount = state.instructionCount;
}

function accept(what: string, result: number): void {
  if (isRefusal(result)) throw new StateError('refused', `${what}: ${errnoName(result)}`);
}
