/**
 * A `Machine` and the control of its run as source and destination see them. Its RAM is one slot;
 * everything else travels as `state/` writes it.
 */
import { RAM_BASE } from '../board.ts';
import type { Machine } from '../machine.ts';
import type { HoldReason, RunControl } from '../monitor/run-control.ts';
import { applyState } from '../state/apply.ts';
import { captureState, describeMachine } from '../state/capture.ts';
import { decodeState, encodeState, STATE_VERSION } from '../state/codec.ts';
import { StateError } from '../state/state-error.ts';
import type { MachineDescription } from './description.ts';
import { type GuestRam, HostWrites, type RamRange } from './guest-ram.ts';
import type { MigratableMachine } from './migratable.ts';
import { MigrationError } from './migration-error.ts';

export interface MachinePortOptions {
  readonly control: RunControl;
  /** 32 hexadecimal digits; see `MigratableMachine`. */
  readonly guestId: string;
}

export class MachinePort implements MigratableMachine {
  readonly ram: GuestRam;
  /** What a hold is called from the next one on; see `RunControl`. */
  holdReason: HoldReason = 'finish-migrate';
  guestId: string;
  readonly #machine: Machine;
  readonly #control: RunControl;
  #heldAs: HoldReason | undefined;

  /** One for each machine: it takes over `onMemoryWrite`. */
  constructor(machine: Machine, { control, guestId }: MachinePortOptions) {
    this.#machine = machine;
    this.#control = control;
    this.guestId = guestId;
    const range = rangeOf(machine);
    const hostWrites = new HostWrites([range]);
    this.ram = {
      kvm: machine.vm,
      process: machine.process,
      ranges: [range],
      mte: machine.setup.mte,
      hostWrites,
    };
    machine.onMemoryWrite = (address, sizeBytes) => hostWrites.wrote(address, sizeBytes);
  }

  get description(): MachineDescription {
    const { board, ramBytes, cpuCount, mte, policy } = describeMachine(this.#machine);
    return {
      board,
      ram: [{ base: RAM_BASE, sizeBytes: ramBytes }],
      cpuCount,
      mte,
      policy,
      stateVersion: STATE_VERSION,
    };
  }

  get paused(): boolean {
    return this.#control.paused;
  }

  set paused(paused: boolean) {
    this.#control.paused = paused;
  }

  get resting(): boolean {
    return this.#control.resting;
  }

  set resting(resting: boolean) {
    this.#control.resting = resting;
  }

  /**
   * Nothing is under way between two slices: vCPUs and devices are done when their calls return.
   */
  async hold(): Promise<void> {
    this.#heldAs ??= this.holdReason;
    this.#control.hold(this.#heldAs);
  }

  release(): void {
    if (this.#heldAs !== undefined) this.#control.release(this.#heldAs);
    this.#heldAs = undefined;
  }

  captureState(): Uint8Array {
    return encodeState(captureState(this.#machine));
  }

  applyState(state: Uint8Array): void {
    try {
      applyState(this.#machine, decodeState(state));
    } catch (error) {
      if (!(error instanceof StateError)) throw error;
      throw new MigrationError('machine', error.message);
    }
  }
}

function rangeOf(machine: Machine): RamRange {
  const { ramHva, taggedRamHva } = machine;
  return {
    slot: 0,
    base: RAM_BASE,
    sizeBytes: machine.setup.plan.ramBytes,
    hva: ramHva,
    shared: machine.setup.backing === 'memfd',
    ...(taggedRamHva === undefined ? {} : { taggedHva: taggedRamHva }),
  };
}
