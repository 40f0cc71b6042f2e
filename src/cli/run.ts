/** `granule run`: plans the boot, dumps the device tree where asked, runs, sums up. */
import { writeFileSync } from 'node:fs';
import { type BootPlan, planBoot } from '../vmm/boot.ts';
import type { MachineConsole, MachineOutcome } from '../vmm/machine-options.ts';
import { CliError } from './cli-error.ts';
import { type ConsoleHost, ProcessConsole } from './console.ts';
import type { GuestOptions, RunOptions } from './options.ts';
import type { Services } from './services.ts';
import { summaryLines } from './summary.ts';

/** Runs the command; resolves to the exit status. Throws boundary errors before anything starts. */
export async function runCommand(
  options: RunOptions,
  services: Services,
  host: ConsoleHost,
): Promise<number> {
  const { kernel, initrd, append, ramBytes, cpuCount, seed } = options;
  const plan = planBoot({
    kernel: { path: kernel },
    ...(initrd === undefined ? {} : { initrd: { path: initrd } }),
    cmdline: append,
    ramBytes,
    cpuCount,
    seed,
  });
  if (options.dtbDump !== undefined) dumpDeviceTree(options.dtbDump, plan);
  const ended = await runOnConsole({ plan, ...options }, services, host);
  return ended.signalNumber === undefined ? 0 : 128 + ended.signalNumber;
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

/** Runs `plan` on the process's console and prints the summary; `onOutput` hears the guest too. */
export async function runOnConsole(
  run: GuestOptions & Pick<RunOptions, 'onReset'> & { readonly plan: BootPlan },
  services: Services,
  host: ConsoleHost,
  onOutput: (bytes: Uint8Array) => void = () => {},
): Promise<Ended> {
  const runMachine = await services.machine();
  const console = new ProcessConsole(host);
  try {
    const { plan, mte, seed, realtime, onReset, trace } = run;
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
