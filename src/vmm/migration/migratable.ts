/**
 * What source and destination need of a machine. `machine-port.ts` makes it of a `Machine`, the
 * simulation of a guest of its own.
 */
import type { MachineDescription } from './description.ts';
import type { GuestRam } from './guest-ram.ts';

export interface MigratableMachine {
  readonly description: MachineDescription;
  readonly ram: GuestRam;
  /** Of the guest, 32 hexadecimal digits, the same wherever it runs. */
  guestId: string;
  /** Its user wants it to stand still; travels with it. */
  paused: boolean;
  /**
   * The guest stands still for a moment, so as to write less; nobody is told. A vCPU may finish the
   * slice it is in.
   */
  resting: boolean;
  /**
   * Keeps the guest from running, whatever its user wants: no vCPU runs, no device acts, what was
   * under way to a disk is there. Resolves when that is so; may be called again.
   */
  hold(): Promise<void>;
  /** The guest may run again; may be called again. */
  release(): void;
  /** Everything but memory. Precondition: held. */
  captureState(): Uint8Array;
  /** Takes over what `captureState` gave. Throws `MigrationError` 'machine'. Precondition: held. */
  applyState(state: Uint8Array): void;
}
