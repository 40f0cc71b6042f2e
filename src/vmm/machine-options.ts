/**
 * What `runMachine` is asked and what it answers: the seam between the CLI (or a user's program)
 * and the glue of board and KVM. Data only.
 */

import type { KvmPolicy } from '../kvm/index.ts';
import type { BootPlan } from './boot.ts';
import type { Board, Machine } from './machine.ts';
import type { LeaveReason, RunControl } from './monitor/run-control.ts';

/** The things that `--trace` can show, one line each time. */
export const TRACE_CHANNELS = ['exits', 'stage2', 'mte', 'irq'] as const;
export type TraceChannel = (typeof TRACE_CHANNELS)[number];

export type OnReset = 'reboot' | 'exit';

/**
 * What guest RAM is in the VMM's process: private anonymous memory; or a memfd, mapped untagged for
 * the memslot and a second time with PROT_MTE, where the VMM can look at tags itself.
 */
export const GUEST_MEMORY_BACKINGS = ['anonymous', 'memfd'] as const;
export type GuestMemoryBacking = (typeof GUEST_MEMORY_BACKINGS)[number];

/** When a snapshot's RAM is loaded: when it is touched, or all of it before the guest runs. */
export const RESTORE_MODES = ['lazy', 'eager'] as const;
export type RestoreMode = (typeof RESTORE_MODES)[number];

/**
 * Takes part in a run (a control socket, a migration, a snapshot to go on from): called before the
 * first slice; what it returns is called when the run has ended.
 */
export type Attach = (machine: Machine, control: RunControl) => Promise<() => Promise<void>>;

export interface MachineOptions {
  /**
   * Kernel, initrd, device tree, RAM size, CPU count and command line, checked; or the board alone,
   * for a machine whose state `attach` brings.
   */
  readonly plan: BootPlan | Board;
  /** Its state is brought by `attach` all the same: the plan is for resets. */
  readonly blank?: boolean;
  /** Anonymous memory where absent. */
  readonly backing?: GuestMemoryBacking;
  /** Which KVM the machine has; that of Linux 6.12 where absent. */
  readonly policy?: KvmPolicy;
  readonly attach?: Attach;
  /** Whether KVM_CAP_ARM_MTE is enabled and the guest's memory may hold tags. */
  readonly mte: boolean;
  /** Seeds everything random; the same seed and input give the same run. */
  readonly seed: number;
  /** Follow the wall clock instead of counting instructions. */
  readonly realtime: boolean;
  /**
   * Sleep while the guest idles, as a person at a console expects; the guest sees no difference.
   */
  readonly paced?: boolean;
  readonly onReset: OnReset;
  readonly trace: ReadonlySet<TraceChannel>;
  /** Takes a line of trace, without its newline. */
  readonly onTrace: (line: string) => void;
}

/** The person or program at the guest's console. */
export interface MachineConsole {
  /** Takes what the guest transmits, in order; may be called once a byte or once a burst. */
  readonly write: (bytes: Uint8Array) => void;
  /** Calls `listener` with what was typed, all that came before included; returns its end. */
  readonly onInput: (listener: (bytes: Uint8Array) => void) => () => void;
  /** Stops and restarts the source of input while the guest does not read. */
  readonly setInputPaused: (paused: boolean) => void;
  /** Aborted when the person wants to leave. */
  readonly quit: AbortSignal;
}

export interface MachineStatistics {
  /** Instructions executed by the guest, all CPUs. */
  readonly instructionCount: bigint;
  /** Those of them executed here: not before a snapshot or a migration. */
  readonly executedCount: bigint;
  readonly wallMilliseconds: number;
  /** Exits from the guest by reason (`mmio`, `hvc`, `wfi`, …), all CPUs. */
  readonly exitsByReason: Readonly<Record<string, number>>;
  readonly stage2FaultCount: number;
  /** Pages whose tag storage was initialised. */
  readonly taggedPageCount: number;
}

export interface MachineOutcome {
  /** Why the run ended: PSCI SYSTEM_OFF, SYSTEM_RESET with `onReset: 'exit'`, or from outside. */
  readonly reason: 'power-off' | 'reset' | LeaveReason;
  readonly statistics: MachineStatistics;
}

/** Boots a VM and resolves when it has ended. */
export type RunMachine = (
  options: MachineOptions,
  console: MachineConsole,
) => Promise<MachineOutcome>;
