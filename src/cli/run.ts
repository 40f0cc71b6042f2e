/**
 * `granule run`: plans the boot, dumps the device tree where asked, runs, sums up. Or waits for a
 * guest, or goes on from a snapshot, which decides what the machine is; what boots is for resets
 * then.
 */
import { writeFileSync } from 'node:fs';
import { type BootPlan, checkBoard, planBoot } from '../vmm/boot.ts';
import { sizeText } from '../vmm/boot-error.ts';
import type {
  Attach,
  MachineConsole,
  MachineOptions,
  MachineOutcome,
} from '../vmm/machine-options.ts';
import type { SnapshotFile } from '../vmm/snapshot/snapshot-file.ts';
import { CliError } from './cli-error.ts';
import { type ConsoleHost, ProcessConsole } from './console.ts';
import {
  type GuestOptions,
  type MachineOption,
  machineOptions,
  type RunOptions,
} from './options.ts';
import type { Services } from './services.ts';
import { summaryLines } from './summary.ts';

/** Runs the command; resolves to the exit status. Throws boundary errors before anything starts. */
export async function runCommand(
  options: RunOptions,
  version: string,
  services: Services,
  host: ConsoleHost,
): Promise<number> {
  const { monitor, incoming, restore } = options;
  const snapshot = restore === undefined ? undefined : await snapshotAt(restore, options);
  const shape = snapshot === undefined ? options : { ...snapshot.shape, ...snapshot.shape.plan };
  const attached = monitor !== undefined || incoming !== undefined || snapshot !== undefined;
  const attach = attached ? await attaching(options, version, snapshot?.file) : undefined;
  const run = {
    ...options,
    ...shape,
    plan: planFor({ ...options, ...shape }),
    blank: incoming !== undefined || snapshot !== undefined,
    backing: options.memory,
  };
  const ended = await runOnConsole(run, services, host, { ...(attach && { attach }) });
  return ended.signalNumber === undefined ? 0 : 128 + ended.signalNumber;
}

/** What boots, and is rebooted; only the board where a guest comes and nothing is to reboot. */
function planFor(options: RunOptions): MachineOptions['plan'] {
  const { kernel, initrd, append, ramBytes, cpuCount, seed } = options;
  if (kernel === undefined) {
    checkBoard({ ramBytes, cpuCount });
    return { ramBytes, cpuCount };
  }
  const plan = planBoot({
    kernel: { path: kernel },
    ...(initrd === undefined ? {} : { initrd: { path: initrd } }),
    cmdline: append,
    ramBytes,
    cpuCount,
    seed,
  });
  if (options.dtbDump !== undefined) dumpDeviceTree(options.dtbDump, plan);
  return plan;
}

/** The snapshot and the machine that it is of, which is the one asked for. */
async function snapshotAt(path: string, options: RunOptions) {
  const { openSnapshot } = await import('../vmm/snapshot/snapshot-file.ts');
  const { machineOf } = await import('../vmm/snapshot/restore.ts');
  const file = openSnapshot(path);
  try {
    const shape = machineOf(file);
    checkAsked(path, { ...shape, ...shape.plan }, options);
    return { file, shape };
  } catch (error) {
    file.close();
    throw error;
  }
}

/** Throws `CliError` where the command line asks for another machine than is found at `path`. */
function checkAsked(path: string, found: GuestMachine, options: RunOptions): void {
  for (const name of options.asked) {
    const [has, asked] = [textOf(name, found), textOf(name, options)];
    if (has === asked) continue;
    throw new CliError(`${path}: of a machine with ${machineOptions[name]} ${has}, not ${asked}`);
  }
}

type GuestMachine = Pick<GuestOptions, MachineOption>;

/** An option's value as it is written. */
function textOf(name: MachineOption, machine: GuestMachine): string {
  switch (name) {
    case 'ramBytes':
      return sizeText(machine.ramBytes);
    case 'mte':
      return machine.mte ? 'on' : 'off';
    case 'policy':
      return machine.policy.name;
    default:
      return String(machine[name]);
  }
}

/** Files of keys are read at once; the rest waits for a machine. */
async function attaching(
  run: RunOptions,
  version: string,
  snapshot: SnapshotFile | undefined,
): Promise<(console: ProcessConsole) => Attach> {
  const { attachment } = await import('./attach.ts');
  let say: (line: string) => void = () => {};
  const attach = attachment({ run, version, snapshot, say: (line) => say(line) });
  return (console) => {
    say = (line) => console.say(line);
    return attach;
  };
}

function dumpDeviceTree(path: string, plan: BootPlan): void {
  try {
    writeFileSync(path, plan.deviceTree);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
    throw new CliError(`--dtb-dump ${path}: cannot be written (${code})`);
  }
}

export interface Ended {
  readonly outcome: MachineOutcome;
  /** The signal that ended the run, if one did. */
  readonly signalNumber: number | undefined;
}

export interface Listening {
  /** Hears what the guest transmits, too. */
  readonly onOutput?: (bytes: Uint8Array) => void;
  /** Makes what takes part in the run. */
  readonly attach?: (console: ProcessConsole) => Attach;
}

/** Runs a machine on the process's console and prints the summary. */
export async function runOnConsole(
  run: GuestOptions &
    Pick<RunOptions, 'onReset'> &
    Pick<MachineOptions, 'plan' | 'blank' | 'backing' | 'policy'>,
  services: Services,
  host: ConsoleHost,
  { onOutput = () => {}, attach }: Listening = {},
): Promise<Ended> {
  const runMachine = await services.machine();
  const console = new ProcessConsole(host);
  try {
    const { plan, blank, mte, seed, realtime, onReset, trace, backing, policy } = run;
    const outcome = await runMachine(
      {
        plan,
        mte,
        seed,
        realtime,
        onReset,
        trace,
        paced: host.stdin.isTTY === true,
        onTrace: (line) => console.say(line),
        ...(blank === undefined ? {} : { blank }),
        ...(backing === undefined ? {} : { backing }),
        ...(policy === undefined ? {} : { policy }),
        ...(attach === undefined ? {} : { attach: attach(console) }),
      },
      consoleHeardBy(console, onOutput),
    );
    console.close();
    for (const line of summaryLines(outcome)) console.say(line);
    return { outcome, signalNumber: console.signalNumber };
  } finally {
    console.close();
  }
}

const consoleHeardBy = (
  console: ProcessConsole,
  onOutput: (bytes: Uint8Array) => void,
): MachineConsole => ({
  write: (bytes) => {
    onOutput(bytes);
    console.write(bytes);
  },
  onInput: (listener) => console.onInput(listener),
  setInputPaused: (paused) => console.setInputPaused(paused),
  quit: console.quit,
});
