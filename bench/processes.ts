/**
 * Times whole processes, from their start to something on their console: `granule run` and QEMU, on
 * a guest that greets with its first instructions, and on Debian's kernel up to its init script.
 */
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { assembleProgram } from '../src/arm/index.ts';
import { type DebianGuest, fetchDebian } from '../src/vmm/debian.ts';
import { demoCommandLine, demoInitramfs } from '../src/vmm/demo-initramfs.ts';
import { FetchError } from '../src/vmm/fetch-error.ts';
import { type QemuMachine, qemuCommand } from './qemu.ts';

/** The start of /init's first line. */
const INIT_GREETING = 'granule: Linux ';
const RAM_MIB = 512;

export interface ProcessTiming {
  /** From the process's start to what was waited for on its standard output. */
  readonly milliseconds: number;
  /** The most memory it had resident until then; undefined where the system does not say. */
  readonly residentMib: number | undefined;
}

/** Starts a process, waits until it has written `text`, and ends it. Throws when it ends before. */
export function timeProcess(
  [command, ...args]: readonly [string, ...string[]],
  text: string,
): Promise<ProcessTiming> {
  return new Promise((resolve, reject) => {
    const startedMs = performance.now();
    const child = spawn(command, args);
    let output = '';
    let complaints = '';
    let timing: ProcessTiming | undefined;
    child.stdout.on('data', (bytes: Buffer) => {
      if (timing !== undefined) return;
      output += bytes.toString('latin1');
      if (!output.includes(text)) return;
      const milliseconds = performance.now() - startedMs;
      timing = { milliseconds, residentMib: residentMib(child.pid!) };
      child.kill();
    });
    child.stderr.on('data', (bytes: Buffer) => {
      complaints += bytes.toString();
    });
    child.on('error', reject);
    child.on('close', (status) => {
      if (timing !== undefined) resolve(timing);
      else reject(new Error(`${command} ended with ${status} before '${text}': ${complaints}`));
    });
  });
}

/** Linux: VmHWM of /proc/pid/status. */
function residentMib(pid: number): number | undefined {
  try {
    const match = /VmHWM:\s*(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return match === null ? undefined : Math.round(Number(match[1]) / 1024);
  } catch {
    return undefined;
  }
}

/** `granule run` as it was built, for a machine like QEMU's. */
function granuleCommand(cli: string, machine: QemuMachine): [string, ...string[]] {
  const { mte, ramMib, kernel, initrd, append } = machine;
  return [
    process.execPath,
    cli,
    ...['run', '--mte', mte ? 'on' : 'off', '-m', `${ramMib}M`, '--kernel', kernel],
    ...(initrd === undefined ? [] : ['--initrd', initrd]),
    ...(append === undefined ? [] : ['--append', append]),
  ];
}

export type Emulator = 'granule' | 'qemu';

/** How to start `machine` on an emulator; `cli` is granule's built main file. */
export const commandOf = (emulator: Emulator, cli: string, machine: QemuMachine) =>
  emulator === 'granule' ? granuleCommand(cli, machine) : qemuCommand(machine);

const GREETING = '!';

/** An Image whose first instructions send GREETING, and the machine that runs it. */
export function greetingMachine(folder: string): QemuMachine {
  const kernel = join(folder, 'greeting');
  writeFileSync(kernel, assembleProgram(greetingSource).bytes);
  return { kernel, mte: true, ramMib: RAM_MIB };
}

const greetingSource = `
  b start
  .word 0
  .quad 0, 4096, 1 << 3 | 1 << 1, 0, 0, 0
  .ascii "ARMd"
  .word 0
start:
  mov x0, #0x09000000
  mov w1, #${GREETING.charCodeAt(0)}
  str w1, [x0]
1: wfi
  b 1b
`;

/** From the process's start to the guest's first instructions. */
export const timeStart = (emulator: Emulator, cli: string, machine: QemuMachine) =>
  timeProcess(commandOf(emulator, cli, machine), GREETING);

/** From the process's start to the first line of /init. */
export const timeBoot = (emulator: Emulator, cli: string, machine: QemuMachine) =>
  timeProcess(commandOf(emulator, cli, machine), INIT_GREETING);

/** Debian's kernel with the demo's /init, or why it cannot be had. */
export async function debianMachine(
  folder: string,
): Promise<{ guest: DebianGuest; of: (mte: boolean) => QemuMachine } | string> {
  try {
    const guest = await fetchDebian({ onProgress: (text) => console.error(text) });
    const initrd = join(folder, 'initrd');
    writeFileSync(initrd, demoInitramfs({ busybox: readFileSync(guest.busyboxPath) }));
    const of = (mte: boolean): QemuMachine => ({
      mte,
      ramMib: RAM_MIB,
      kernel: guest.kernelPath,
      initrd,
      append: demoCommandLine({ mte, cpuCount: 1 }),
    });
    return { guest, of };
  } catch (error) {
    if (error instanceof FetchError) return error.message;
    throw error;
  }
}
