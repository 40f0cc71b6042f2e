/** The peer: QEMU's system emulation (TCG), where it is installed. */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { BenchGuest } from './guest.ts';
import { MarkTimer, type Timing } from './marks.ts';

const QEMU = 'qemu-system-aarch64';

/** The release, or undefined where QEMU is not installed. */
export function qemuVersion(): string | undefined {
  const { status, stdout } = spawnSync(QEMU, ['--version'], { encoding: 'utf8' });
  return status === 0 ? /version (\S+)/.exec(stdout)?.[1] : undefined;
}

export interface QemuMachine {
  readonly mte: boolean;
  readonly ramMib: number;
  readonly kernel: string;
  readonly initrd?: string;
  readonly append?: string;
}

/** Command and arguments of a machine like granule's: its console is the standard streams. */
export function qemuCommand(machine: QemuMachine): [string, ...string[]] {
  const { mte, ramMib, kernel, initrd, append } = machine;
  return [
    QEMU,
    ...['-M', mte ? 'virt,mte=on' : 'virt', '-cpu', 'max', '-m', `${ramMib}`],
    ...['-nodefaults', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
    ...['-kernel', kernel],
    ...(initrd === undefined ? [] : ['-initrd', initrd]),
    ...(append === undefined ? [] : ['-append', append]),
  ];
}

/** Runs `body` with a folder that is gone afterwards. */
export async function withFolder<T>(body: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'granule-bench-'));
  try {
    return await body(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Million guest instructions a second of each loop. Throws when QEMU fails. */
export function timeOnQemu(guest: BenchGuest, timing: Timing): Promise<readonly number[]> {
  return withFolder(async (folder) => {
    const kernel = join(folder, 'image');
    writeFileSync(kernel, guest.bytes);
    const timer = new MarkTimer(guest, timing);
    const [command, ...args] = qemuCommand({ mte: guest.tags, ramMib: 64, kernel });
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    child.stdout.on('data', (bytes: Buffer) => {
      const nowMs = performance.now();
      for (const mark of bytes.toString('latin1')) {
        if (timer.take(mark, nowMs)) child.stdin.write('\n');
      }
    });
    const status = await new Promise((resolve) => child.on('close', resolve));
    if (status !== 0) throw new Error(`${QEMU} ended with status ${status}`);
    return timer.results;
  });
}
