/**
 * `granule run`, `ctl` and `migrate` together, as two people at two consoles use them: a guest at
 * work is moved through control sockets and prints in the end what it would have printed.
 */
import { EventEmitter } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  buildBareTagWorkload,
  TAG_WORKLOAD_LINE,
  tagWorkloadChecksum,
} from '../vmm/guests/tag-workload.ts';
import { parseAddress } from '../vmm/migration/address.ts';
import { FrameReader } from '../vmm/migration/frame.ts';
import { frameType } from '../vmm/migration/messages.ts';
import { runMachine } from '../vmm/run-machine.ts';
import { runCli } from './command.ts';
import type { Services } from './services.ts';

const folder = mkdtempSync(join(tmpdir(), 'granule-migrate-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** A second of work: a guest that has ended cannot be moved. */
const ROUNDS = 60_000;
/** The same for a move that takes its time. */
const LONG = 200_000;

// Each command loads what it needs when it is first given: not while a guest works and may end.
beforeAll(async () => {
  const nowhere = join(folder, 'nowhere');
  for (const args of [
    ['ctl', nowhere, 'quit'],
    ['migrate', nowhere, 'tcp:127.0.0.1:1'],
  ]) {
    expect(await granule(...args).status).toBe(1);
  }
});

function kernelOf(rounds: number): string {
  const kernel = join(folder, `workload-${rounds}`);
  writeFileSync(kernel, buildBareTagWorkload({ rounds }).bytes);
  return kernel;
}

const services: Services = {
  machine: async () => runMachine,
  fetchDebian: () => Promise.reject(new Error('not needed')),
  mteTest: () => Promise.reject(new Error('not needed')),
  embeddedGuest: () => Promise.reject(new Error('not needed')),
};

interface Started {
  readonly status: Promise<number>;
  readonly out: () => string;
  readonly err: () => string;
}

function granule(...args: string[]): Started {
  const stream = () => {
    const through = new PassThrough();
    let text = '';
    through.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    return { through, text: () => text };
  };
  const [stdout, stderr] = [stream(), stream()];
  const host = {
    stdin: new PassThrough(),
    stdout: stdout.through,
    stderr: stderr.through,
    events: new EventEmitter(),
  };
  const status = runCli(args, '0.1.0', services, host);
  return { status, out: stdout.text, err: stderr.text };
}

async function until(holds: () => boolean): Promise<void> {
  for (let waited = 0; !holds(); waited++) {
    if (waited > 3000) throw new Error('it does not come to hold');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const MACHINE = ['-m', '8M', '--smp', '2'];
let sockets = 0;
const newSocket = (): string => join(folder, `s${sockets++}`);

/** A machine that waits, and where. */
async function waiting(...more: string[]) {
  const socket = newSocket();
  const args = ['--incoming', 'tcp:127.0.0.1:0', '--monitor', socket];
  const run = granule('run', ...args, ...MACHINE, ...more);
  await until(() => run.err().includes('waiting for a guest at '));
  const address = /waiting for a guest at (\S+)/.exec(run.err())![1]!;
  return { ...run, socket, address };
}

async function working(rounds = ROUNDS, ...more: string[]) {
  const socket = newSocket();
  const kernel = kernelOf(rounds);
  const run = granule('run', '--kernel', kernel, '--monitor', socket, ...MACHINE, ...more);
  await until(() => run.out().includes('running'));
  return { ...run, socket };
}

describe('granule migrate', () => {
  it.each([
    ['precopy', 'ioctl', 'anonymous'],
    ['precopy', 'dirty-log', 'anonymous'],
    ['postcopy', 'dual-mapping', 'memfd'],
  ])('migrate: %s with tags %s, the guest ends there as it would have here', async (...given) => {
    const [mode, tags, memory] = given;
    const there = await waiting('--memory', memory);
    const here = await working(ROUNDS, '--memory', memory);
    const move = granule('migrate', here.socket, there.address, '--mode', mode, '--tags', tags);
    expect(await move.status, move.err()).toBe(0);
    expect(move.err()).toContain('granule: the guest has moved');
    expect(await here.status).toBe(0);
    expect(here.err()).toContain('granule: the guest runs elsewhere now');
    expect(here.out()).not.toContain(TAG_WORKLOAD_LINE);
    expect(await there.status).toBe(0);
    const checksum = tagWorkloadChecksum({ rounds: ROUNDS, cpuCount: 2 });
    expect(there.out()).toContain(`${TAG_WORKLOAD_LINE}${checksum}\n`);
    expect(there.err()).toContain('granule: the guest is here');
  });

  /** Much less than the workload writes: it has 128 pages at work. */
  const SLOW = ['--max-bandwidth', '8M', '--downtime-limit', '50ms'];

  const longChecksum = tagWorkloadChecksum({ rounds: LONG, cpuCount: 2 });

  it('migrate: a guest that writes too fast, told to follow up it moves', async () => {
    const there = await waiting();
    const here = await working(LONG);
    const move = granule('migrate', here.socket, there.address, ...SLOW);
    await until(() => move.err().includes('above the limit of 50'));
    expect(await granule('ctl', here.socket, 'migrate-start-postcopy').status).toBe(0);
    expect(await move.status, move.err()).toBe(0);
    const parts = [
      'round \\d+',
      '[\\d,]+ pages and [\\d.]+ KiB of tags in [\\d.]+ MiB sent',
      '[\\d.]+ MiB left',
      '[\\d.]+ MiB/s',
      'dirty [\\d.]+ MiB/s',
      'expected downtime \\d+ ms above the limit of 50\n',
    ];
    expect(move.err()).toMatch(new RegExp(parts.join(', ')));
    expect(await here.status).toBe(0);
    expect(await there.status).toBe(0);
    expect(there.out()).toContain(`${TAG_WORKLOAD_LINE}${longChecksum}\n`);
    expect(there.err()).toContain('the guest runs here; its memory follows');
  });

  it.each([[['--postcopy-after', '1']], [['--auto-converge']]])(
    'migrate: a guest that writes too fast, with %s it moves',
    async (how) => {
      const there = await waiting();
      const here = await working(LONG);
      const move = granule('migrate', here.socket, there.address, ...SLOW, ...how);
      expect(await move.status, move.err()).toBe(0);
      expect(await here.status).toBe(0);
      expect(await there.status).toBe(0);
      expect(there.out()).toContain(`${TAG_WORKLOAD_LINE}${longChecksum}\n`);
    },
  );

  it('migrate: a guest that writes too fast, cancelled it stays and goes on', async () => {
    const there = await waiting();
    const here = await working(LONG);
    const move = granule('migrate', here.socket, there.address, ...SLOW);
    await until(() => move.err().includes('above the limit of 50'));
    expect(await granule('ctl', here.socket, 'migrate-cancel').status).toBe(0);
    expect(await move.status).toBe(1);
    expect(move.err()).toContain('migration cancelled');
    const again = granule('ctl', here.socket, 'migrate-start-postcopy');
    expect(await again.status).toBe(1);
    expect(again.err()).toBe('granule: no pre-copy goes on\n');
    expect(await here.status).toBe(0);
    expect(here.out()).toContain(TAG_WORKLOAD_LINE);
    expect(await granule('ctl', there.socket, 'quit').status).toBe(0);
    expect(await there.status).toBe(0);
  });

  it('migrate: a machine that differs, one sentence; the guest goes on', async () => {
    const there = await waiting('--mte', 'off');
    const here = await working();
    const move = granule('migrate', here.socket, there.address);
    expect(await move.status).toBe(1);
    expect(move.err()).toContain('MTE is on at the source and off at the destination');
    expect(await here.status).toBe(0);
    expect(here.out()).toContain(TAG_WORKLOAD_LINE);
    expect(await granule('ctl', there.socket, 'quit').status).toBe(0);
    expect(await there.status).toBe(0);
  });

  it('migrate: nobody waits, one sentence; the guest goes on', async () => {
    const here = await working();
    const move = granule('migrate', here.socket, 'tcp:127.0.0.1:1');
    expect(await move.status).toBe(1);
    expect(move.err()).toContain('nobody listens there');
    expect(await granule('ctl', here.socket, 'quit').status).toBe(0);
    expect(await here.status).toBe(0);
  });

  it('migrate: a way of tags that the machine is not made for, one sentence', async () => {
    const here = await working();
    const move = granule('migrate', here.socket, 'tcp:127.0.0.1:1', '--tags', 'dual-mapping');
    expect(await move.status).toBe(1);
    expect(move.err()).toContain('start the machine with --memory memfd');
    await granule('ctl', here.socket, 'quit').status;
    await here.status;
  });

  it('run: a memfd and MTE under the rules of Linux 6.1, refused with what was asked for', async () => {
    const run = granule(
      'run',
      '--kernel',
      kernelOf(100),
      '--memory',
      'memfd',
      '--policy',
      'linux=6.1',
    );
    expect(await run.status).toBe(1);
    expect(run.err()).toBe(
      'granule: KVM_SET_USER_MEMORY_REGION of memfd memory, MTE on, policy linux-6.1: EINVAL\n',
    );
  });

  it('migrate: no machine, one sentence', async () => {
    const move = granule('migrate', join(folder, 'none'), 'tcp:127.0.0.1:1');
    expect(await move.status).toBe(1);
    expect(move.err()).toMatch(/^granule: .*: no machine listens there \(ENOENT\)\n$/);
  });

  it('run: quit while a migration hangs, it ends all the same', async () => {
    // Takes the link and says nothing.
    const mute = createServer((socket) => socket.resume());
    await new Promise<void>((resolve) => mute.listen(0, '127.0.0.1', resolve));
    const address = mute.address();
    const port = typeof address === 'object' ? address?.port : 0;
    const here = await working();
    const move = granule('migrate', here.socket, `tcp:127.0.0.1:${port}`);
    await until(() => here.err().includes('granule: migrating'));
    expect(await granule('ctl', here.socket, 'quit').status).toBe(0);
    expect(await here.status).toBe(0);
    expect(await move.status).toBe(1);
    mute.close();
  });
});

/** A way to `address` on which the source's first `run` is lost, and the link with it. */
async function losingRun(address: string): Promise<{ address: string; close: () => void }> {
  let lost = false;
  const server: Server = createServer((near) => {
    const far = connect(parseAddress(address));
    const reader = new FrameReader();
    const end = (): void => {
      near.destroy();
      far.destroy();
    };
    for (const socket of [near, far]) socket.on('error', end).on('close', end);
    far.pipe(near);
    near.on('data', (chunk) => {
      reader.push(chunk);
      for (let frame = reader.next(); frame !== undefined; frame = reader.next()) {
        if (frame.type !== frameType('run') || lost) continue;
        lost = true;
        end();
        return;
      }
      far.write(chunk);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const at = server.address();
  const port = typeof at === 'object' ? at?.port : 0;
  return { address: `tcp:127.0.0.1:${port}`, close: () => server.close() };
}

describe('a handover that is broken off', () => {
  const checksum = `${TAG_WORKLOAD_LINE}${tagWorkloadChecksum({ rounds: LONG, cpuCount: 2 })}`;

  /** As far as the source's `run`; then nobody can be reached. */
  async function brokenOff() {
    const there = await waiting();
    const here = await working(LONG);
    const way = await losingRun(there.address);
    const move = granule('migrate', here.socket, way.address);
    await until(() => here.err().includes('the link broke behind the guest'));
    return { there, here, way, move };
  }

  it('handover: the link is back, the guest runs there and nowhere else', async () => {
    const { there, here, way, move } = await brokenOff();
    expect(await move.status, move.err()).toBe(0);
    expect(await here.status).toBe(0);
    expect(here.out()).not.toContain(TAG_WORKLOAD_LINE);
    const lines = here.err().split('\n');
    expect(lines.filter((line, i) => line === lines[i - 1])).toEqual([]);
    expect(await there.status).toBe(0);
    expect(there.out()).toContain(checksum);
    way.close();
  });

  it('handover: cancelled, the destination gives back what it has not run', async () => {
    const { there, here, way, move } = await brokenOff();
    expect(await granule('ctl', here.socket, 'migrate-cancel').status).toBe(0);
    expect(await move.status).toBe(1);
    expect(move.err()).toContain('migration cancelled');
    expect(await here.status).toBe(0);
    expect(here.out()).toContain(checksum);
    expect(there.err()).toContain('the link ended: the source has taken its guest back');
    // It is as good as new.
    const again = granule('ctl', there.socket, 'query-migrate');
    expect(await again.status).toBe(0);
    expect(JSON.parse(again.out())).toEqual({ status: 'setup' });
    await granule('ctl', there.socket, 'quit').status;
    expect(await there.status).toBe(0);
    way.close();
  });

  it('handover: the destination is gone, cont is refused and cont force=true goes on', async () => {
    const { there, here, way, move } = await brokenOff();
    way.close();
    await granule('ctl', there.socket, 'quit').status;
    await until(() => here.err().includes('nobody listens there'));
    const cont = granule('ctl', here.socket, 'cont');
    expect(await cont.status).toBe(1);
    expect(cont.err()).toContain('has not said whether it runs there');
    const force = granule('ctl', here.socket, 'cont', 'force=true');
    expect(await force.status, force.err()).toBe(0);
    expect(force.out()).toContain('never runs on the other side');
    expect(await move.status).toBe(1);
    expect(move.err()).toContain('the guest goes on here by force');
    expect(await here.status).toBe(0);
    expect(here.out()).toContain(checksum);
  });

  it('handover: the source is gone, the destination runs the guest by force', async () => {
    const { there, here, way, move } = await brokenOff();
    way.close();
    await granule('ctl', here.socket, 'quit').status;
    expect(await here.status).toBe(0);
    expect(await move.status).toBe(1);
    const cont = granule('ctl', there.socket, 'cont');
    expect(await cont.status).toBe(1);
    expect(cont.err()).toContain('the source has not given it up');
    expect(await granule('ctl', there.socket, 'cont', 'force=true').status).toBe(0);
    expect(await there.status).toBe(0);
    expect(there.out()).toContain(checksum);
  });

  it('handover: nothing was broken off, nothing to force', async () => {
    const here = await working(LONG);
    const force = granule('ctl', here.socket, 'cont', 'force=true');
    expect(await force.status).toBe(1);
    expect(force.err()).toContain('there is nothing to force');
    await granule('ctl', here.socket, 'quit').status;
    await here.status;
  });
});

describe('granule migrate with TLS', () => {
  const tls = (name: string): string[] => [
    '--tls-certificates',
    fileURLToPath(new URL(`../../test/data/tls/${name}`, import.meta.url)),
  ];
  const key = (name: string, digit: string): string[] => {
    const file = join(folder, name);
    writeFileSync(file, `granule:${digit.repeat(32)}\n`);
    return ['--tls-psk', file];
  };

  it.each([
    ['certificates', tls('good'), tls('good')],
    ['a key', key('here', 'a'), key('there', 'a')],
  ])('migrate: %s on both ends, the guest moves', async (_, mine, theirs) => {
    const there = await waiting(...theirs);
    const here = await working();
    const move = granule('migrate', here.socket, there.address, ...mine);
    expect(await move.status, move.err()).toBe(0);
    expect(await here.status).toBe(0);
    expect(await there.status).toBe(0);
  });

  it.each([
    ['nothing', [], tls('good'), 'it may want TLS'],
    ['certificates of others', tls('stranger'), tls('good'), 'may not take our credentials'],
    ['certificates', tls('good'), tls('expired'), "the peer's certificate has expired"],
    ['certificates', tls('good'), [], 'it may speak no TLS'],
    ['another key', key('mine', 'a'), key('theirs', 'b'), 'the pre-shared keys differ'],
  ])('migrate: %s where something else is wanted, one sentence; it goes on', async (...given) => {
    const [, mine, theirs, sentence] = given;
    const there = await waiting(...theirs);
    const here = await working();
    const move = granule('migrate', here.socket, there.address, ...mine);
    expect(await move.status).toBe(1);
    expect(move.err()).toContain(sentence);
    expect(await here.status).toBe(0);
    expect(here.out()).toContain(TAG_WORKLOAD_LINE);
    await granule('ctl', there.socket, 'quit').status;
    expect(await there.status).toBe(0);
  });

  it('run, migrate: beyond loopback without TLS, refused on both ends', async () => {
    const there = granule('run', '--incoming', 'tcp:0.0.0.0:0', ...MACHINE);
    expect(await there.status).toBe(1);
    expect(there.err()).toContain('tcp:0.0.0.0:0: an address that is not loopback needs TLS');
    const here = await working();
    const move = granule('migrate', here.socket, 'tcp:192.0.2.1:4444');
    expect(await move.status).toBe(1);
    expect(move.err()).toContain('tcp:192.0.2.1:4444: an address that is not loopback needs TLS');
    await granule('ctl', here.socket, 'quit').status;
    await here.status;
  });
});

describe('granule ctl', () => {
  it('ctl: stop, query-status, an unknown command, cont: the guest ends its work', async () => {
    const { socket, status, out } = await working();
    expect(await granule('ctl', socket, 'stop').status).toBe(0);
    const query = granule('ctl', socket, 'query-status');
    expect(await query.status).toBe(0);
    expect(JSON.parse(query.out())).toEqual({ status: 'paused', running: false });
    const unknown = granule('ctl', socket, 'fly');
    expect(await unknown.status).toBe(1);
    expect(unknown.err()).toBe('granule: The command fly has not been found\n');
    expect(out()).not.toContain(TAG_WORKLOAD_LINE);
    expect(await granule('ctl', socket, 'cont').status).toBe(0);
    expect(await status).toBe(0);
    expect(out()).toContain(TAG_WORKLOAD_LINE);
  });

  it('ctl: events, a line each until the machine is gone', async () => {
    const { socket, status } = await working();
    await granule('ctl', socket, 'stop').status;
    const events = granule('ctl', socket, 'events');
    await granule('ctl', socket, 'query-status').status;
    await granule('ctl', socket, 'cont').status;
    expect(await events.status).toBe(0);
    expect(await status).toBe(0);
    const names = events
      .out()
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).event);
    expect(names).toEqual(['RESUME', 'SHUTDOWN']);
  });

  it('ctl: events that nobody reads any more, it ends', async () => {
    const { socket, status } = await working();
    await granule('ctl', socket, 'stop').status;
    const stdout = new PassThrough();
    const streams = { stdin: new PassThrough(), stdout, stderr: new PassThrough() };
    const args = ['ctl', socket, 'events'];
    const events = runCli(args, '0.0.0', services, { ...streams, events: new EventEmitter() });
    await until(() => stdout.listenerCount('error') > 1);
    stdout.destroy(new Error('EPIPE'));
    expect(await events).toBe(0);
    await granule('ctl', socket, 'cont').status;
    expect(await status).toBe(0);
  });
});
