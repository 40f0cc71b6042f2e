/** The commands over a fake machine: exit statuses, refusals, the demo's fallback. */
import { EventEmitter } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { writeElf } from '../arm/elf-writer.ts';
import type { BootPlan } from '../vmm/boot.ts';
import { GUEST_FAILURE, GUEST_SUCCESS } from '../vmm/demo-initramfs.ts';
import { readDeviceTree } from '../vmm/dtb-reader.ts';
import { FetchError } from '../vmm/fetch-error.ts';
import { MachineError } from '../vmm/machine-error.ts';
import type { MachineConsole, MachineOptions, MachineOutcome } from '../vmm/machine-options.ts';
import { runCli } from './command.ts';
import { ReportWatcher } from './demo.ts';
import type { Services } from './services.ts';

const folder = mkdtempSync(join(tmpdir(), 'granule-cli-'));
afterAll(() => rmSync(folder, { recursive: true }));

const kernel = writeElf(0x4020_0000n, [
  { address: 0x4020_0000n, bytes: Uint8Array.of(1), access: 'rx' },
]);
const kernelPath = join(folder, 'kernel');
const busyboxPath = join(folder, 'busybox');
writeFileSync(kernelPath, kernel);
writeFileSync(busyboxPath, '<busybox>');

type FakeGuest = (
  console: MachineConsole,
  options: MachineOptions,
) => MachineOutcome['reason'] | Promise<MachineOutcome['reason']>;

/** Runs the CLI over a machine that is `guest` and a Debian that is there. */
function cli(guest: FakeGuest, fetch?: Services['fetchDebian']) {
  const started: MachineOptions[] = [];
  const services: Services = {
    machine: async () => async (options, console) => {
      started.push(options);
      const reason = await guest(console, options);
      const statistics = {
        instructionCount: 1n,
        executedCount: 1n,
        wallMilliseconds: 1,
        exitsByReason: {},
        stage2FaultCount: 0,
        taggedPageCount: 0,
      };
      return { reason, statistics };
    },
    mteTest: async () => new TextEncoder().encode('<mte-test>'),
    embeddedGuest: async () => kernel,
    fetchDebian: fetch ?? (async () => ({ kernelPath, busyboxPath, kernelVersion: '6.1' })),
  };
  const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()];
  const events = new EventEmitter();
  const run = (...args: string[]) =>
    runCli(args, '1.2.3', services, { stdin, stdout, stderr, events });
  const out = (): string => String(stdout.read() ?? '');
  const err = (): string => String(stderr.read() ?? '');
  return { run, started, out, err, events, stdout, stderr };
}

const prints =
  (text: string): FakeGuest =>
  (console) => {
    console.write(new TextEncoder().encode(text));
    return 'power-off';
  };
const runArgs = ['run', '--kernel', kernelPath];
const incomingArgs = ['run', '--incoming', 'tcp:127.0.0.1:0'];

let dump: string;
beforeEach(() => {
  dump = join(folder, `dtb-${Math.floor(performance.now())}`);
});

describe('granule run', () => {
  it('run: power-off, status 0, output and summary apart', async () => {
    const { run, out, err } = cli(prints('hello\r\n'));
    expect(await run(...runArgs)).toBe(0);
    expect(out()).toBe('hello\r\n');
    expect(err()).toMatch(/^granule: the guest powered off\n {2}guest instructions/);
  });

  it('run: options, reach the machine', async () => {
    const { run, started } = cli(() => 'reset');
    const rest = '--append quiet --smp 2 -m 64M --mte off --seed 7 --on-reset exit --trace mte';
    expect(await run(...runArgs, ...rest.split(' '))).toBe(0);
    expect(started[0]).toMatchObject({
      plan: { cmdline: 'quiet', cpuCount: 2, ramBytes: 64 * 1024 * 1024, format: 'elf' },
      mte: false,
      seed: 7,
      onReset: 'exit',
      realtime: false,
      trace: new Set(['mte']),
    });
  });

  it('run: --dtb-dump, the device tree that the guest gets', async () => {
    const { run, started } = cli(() => 'power-off');
    await run(...runArgs, '--dtb-dump', dump);
    const written = readFileSync(dump);
    expect(Buffer.compare(written, bootPlan(started[0]!).deviceTree)).toBe(0);
    expect(readDeviceTree(written).root.children.length).toBeGreaterThan(5);
  });

  it('run: a signal while it runs, the machine is asked to end and the status says which', async () => {
    const { run, events } = cli(async (console) => {
      queueMicrotask(() => events.emit('SIGTERM'));
      await new Promise((resolve) => console.quit.addEventListener('abort', resolve));
      return 'quit' as const;
    });
    expect(await run(...runArgs)).toBe(143);
    expect(events.eventNames()).toEqual([]);
  });

  it('run: trace lines, on stderr', async () => {
    const { run, err } = cli((_, { onTrace }) => {
      onTrace('exit mmio');
      return 'power-off';
    });
    await run(...runArgs);
    expect(err()).toMatch(/^exit mmio\n/);
  });

  it('run: the machine throws, the console is given back and the error goes on', async () => {
    const { run, events } = cli(() => {
      throw new Error('our bug');
    });
    await expect(run(...runArgs)).rejects.toThrow('our bug');
    expect(events.eventNames()).toEqual([]);
  });

  it('run: a guest that cannot go on, one sentence and status 1', async () => {
    const { run, err } = cli(() => {
      throw new MachineError('CPU 0 stopped');
    });
    expect([await run(...runArgs), err()]).toEqual([1, 'granule: CPU 0 stopped\n']);
  });

  it.each([
    ['no such kernel', ['run', '--kernel', '/no/kernel'], 1, 'granule: /no/kernel: no such file\n'],
    ['a wrong magic', ['run', '--kernel', busyboxPath], 1, 'neither an arm64 Linux Image'],
    ['too much memory', [...runArgs, '-m', '9G'], 1, '9 GiB is outside'],
    [
      'too much memory for a guest that comes',
      [...incomingArgs, '-m', '4G'],
      1,
      '4 GiB is outside',
    ],
    ['no memory for a guest that comes', [...incomingArgs, '-m', '1M'], 1, '1 MiB is outside'],
    ['an initrd that is a folder', [...runArgs, '--initrd', folder], 1, 'not a regular file'],
    ['a dump that cannot be written', [...runArgs, '--dtb-dump', folder], 2, 'EISDIR'],
    ['a wrong option', [...runArgs, '--smp', '99'], 2, 'granule: --smp 99'],
    ['no command', [], 2, 'granule: no command given'],
  ])('run: %s, one sentence and nothing started', async (_, args, status, sentence) => {
    const { run, started, out, err } = cli(() => 'power-off');
    expect(await run(...args)).toBe(status);
    const said = err();
    expect(said).toContain(sentence);
    expect(said.split('\n')).toHaveLength(2);
    expect([started, out()]).toEqual([[], '']);
  });

  it('run: nobody reads what we say, the guest goes on all the same', async () => {
    const { run, stderr } = cli(async (_, options) => {
      stderr.destroy(new Error('EPIPE'));
      await nextTurn();
      options.onTrace('unheard');
      return 'power-off' as const;
    });
    expect(await run(...runArgs)).toBe(0);
  });

  it('run: --help that nobody reads, no error', async () => {
    const { run, stdout } = cli(() => 'power-off');
    const ended = run('--help');
    stdout.destroy(new Error('EPIPE'));
    expect(await ended).toBe(0);
  });

  it('run: --help and --version, on stdout with status 0', async () => {
    const { run, out } = cli(() => 'power-off');
    expect([await run('--version'), out()]).toEqual([0, '1.2.3\n']);
    expect([await run('run', '--help'), out()]).toEqual([0, expect.stringContaining('--kernel')]);
  });
});

function bootPlan({ plan }: MachineOptions): BootPlan {
  if (!('segments' in plan)) throw new Error('the machine has nothing to boot');
  return plan;
}

describe('granule demo', () => {
  it('demo: the guest reports success and powers off, 0', async () => {
    const { run, started } = cli(prints(`x\r\n${GUEST_SUCCESS}\r\n`));
    expect(await run('demo', '--smp', '4')).toBe(0);
    expect(started[0]).toMatchObject({ mte: true, onReset: 'exit' });
    const { cmdline, segments } = bootPlan(started[0]!);
    expect(cmdline).toContain('granule.mte=on granule.cpus=4');
    const initrd = segments.find(({ name }) => name === 'initrd')!;
    expect(Buffer.from(initrd.bytes).includes('<mte-test>')).toBe(true);
    expect(Buffer.from(initrd.bytes).includes('<busybox>')).toBe(true);
  });

  it.each<[string, FakeGuest]>([
    ['reports failure', prints(`${GUEST_FAILURE}\n`)],
    ['reports both', prints(`${GUEST_SUCCESS}\n${GUEST_FAILURE}\n`)],
    ['reports nothing', prints('')],
    [
      'panics after success',
      (console) => {
        console.write(new TextEncoder().encode(`${GUEST_SUCCESS}\n`));
        return 'reset';
      },
    ],
  ])('demo: the guest %s, 1', async (_, guest) => {
    expect(await cli(guest).run('demo')).toBe(1);
  });

  it('demo: nothing to fetch, said in one line and the embedded guest instead', async () => {
    const { run, started, err } = cli(prints(`${GUEST_SUCCESS}\n`), async () => {
      throw new FetchError('apt-missing', 'apt-get is not installed on this system');
    });
    expect(await run('demo')).toBe(0);
    expect(err().split('\n')[0]).toBe(
      'granule: apt-get is not installed on this system; running the embedded guest instead',
    );
    expect(started[0]!.plan).toMatchObject({ format: 'elf', cmdline: '' });
  });

  it('demo: --embedded, nothing is fetched', async () => {
    const { run } = cli(prints(`${GUEST_SUCCESS}\n`), () => expect.unreachable());
    expect(await run('demo', '--embedded')).toBe(0);
  });

  it('demo: Ctrl-C while fetching, the fetch is stopped and nothing starts', async () => {
    const { run, started, events } = cli(
      () => 'power-off',
      ({ signal }) =>
        new Promise((_, reject) => {
          signal!.addEventListener('abort', () => reject(signal!.reason));
          setImmediate(() => events.emit('SIGINT'));
        }),
    );
    expect(await run('demo')).toBe(130);
    expect([started, events.eventNames()]).toEqual([[], []]);
  });
});

describe('ReportWatcher', () => {
  it('ReportWatcher: a report in pieces and behind a kernel message, seen; unfinished, not', () => {
    const report = new ReportWatcher();
    const line = new TextEncoder().encode(`[ 1.0] x ${GUEST_SUCCESS}\r`);
    for (const byte of line) report.watch(Uint8Array.of(byte));
    expect(report.success).toBe(false);
    report.watch(Uint8Array.of(0x0a));
    expect(report.success).toBe(true);
  });
});
