/**
 * The control socket as a client meets it: what it answers, what it refuses, that a bad line never
 * costs the connection, and whose socket it is.
 */
import { linkSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { testMachine } from '../../../test/support/machines.ts';
import { MachineError } from '../machine-error.ts';
import { processTime } from '../run-machine.ts';
import { MonitorClient } from './client.ts';
import { LINE_BYTES_MAX, MonitorConnection } from './connection.ts';
import { MachineSession } from './machine-session.ts';
import { RunControl } from './run-control.ts';
import { MonitorServer } from './server.ts';

const folder = mkdtempSync(join(tmpdir(), 'granule-monitor-'));
afterAll(() => rmSync(folder, { recursive: true }));

let ids = 0;
const newId = (): string => (ids++).toString(16).padStart(32, '0');

function newSession(): MachineSession {
  const { machine } = testMachine();
  return new MachineSession({ machine, control: new RunControl(), time: processTime, newId });
}

describe('a connection', () => {
  const session = newSession();
  const lines: Record<string, unknown>[] = [];
  const connection = new MonitorConnection({
    session,
    send: (line) => void lines.push(JSON.parse(line)),
    seconds: () => 12.5,
    version: '1.2.3',
  });
  const greeting = lines.splice(0);
  afterEach(() => {
    lines.length = 0;
    session.control.paused = false;
    lines.length = 0;
  });
  const ask = (text: string): Record<string, unknown>[] => {
    connection.receive(new TextEncoder().encode(`${text}\n`));
    return lines.splice(0);
  };

  it('monitor: greets as QMP does', () => {
    expect(greeting).toEqual([
      {
        QMP: {
          version: { granule: { major: 1, minor: 2, micro: 3 }, package: 'granule 1.2.3' },
          capabilities: [],
        },
      },
    ]);
  });

  it('monitor: query-status, the id comes back', () => {
    expect(ask('{"execute": "query-status", "id": {"a": 1}}')).toEqual([
      { return: { status: 'running', running: true }, id: { a: 1 } },
    ]);
  });

  it('monitor: an id that nests without end, refused; the next line is answered', () => {
    const id = '['.repeat(20_000) + ']'.repeat(20_000);
    const answers = ask(`{"execute": "query-status", "id": ${id}}\n{"execute": "query-status"}`);
    expect(answers).toEqual([
      { error: { class: 'GenericError', desc: expect.stringContaining('the line is no') } },
      { return: { status: 'running', running: true } },
    ]);
  });

  it('monitor: stop and cont, an event each time something changes', () => {
    const timestamp = { seconds: 12, microseconds: 500_000 };
    expect(ask('{"execute": "stop"}')).toEqual([{ event: 'STOP', timestamp }, { return: {} }]);
    expect(ask('{"execute": "stop"}')).toEqual([{ return: {} }]);
    expect(ask('{"execute": "cont"}')).toEqual([{ event: 'RESUME', timestamp }, { return: {} }]);
  });

  it('monitor: bytes one by one and two lines at once, the same answers', () => {
    const text = '{"execute": "query-status"}\n';
    for (const byte of new TextEncoder().encode(text)) connection.receive(Uint8Array.of(byte));
    connection.receive(new TextEncoder().encode(text + text));
    expect(lines).toHaveLength(3);
  });

  it.each([
    ['no JSON', '{"execute"', 'GenericError', 'the line is not JSON'],
    ['no object', '[1]', 'GenericError', 'the line is no {"execute"'],
    ['no command', '{"run": "x"}', 'GenericError', 'the line is no {"execute"'],
    ['something else beside it', '{"execute": "stop", "x": 1}', 'GenericError', 'the line is no'],
    ['an unknown command', '{"execute": "fly"}', 'CommandNotFound', 'The command fly has not'],
    ['a name of objects', '{"execute": "toString"}', 'CommandNotFound', 'toString'],
    ['an unknown argument', '{"execute": "stop", "arguments": {"x": 1}}', 'GenericError', '"x"'],
    ['a missing one', '{"execute": "snapshot-save"}', 'GenericError', 'argument file'],
    [
      'no address',
      '{"execute": "migrate", "arguments": {"uri": "exec:cat"}}',
      'GenericError',
      'exec:cat: not an address like tcp:127.0.0.1:4444',
    ],
    [
      'an address that needs TLS',
      '{"execute": "migrate", "arguments": {"uri": "tcp:192.0.2.1:4"}}',
      'GenericError',
      'tcp:192.0.2.1:4: an address that is not loopback needs TLS',
    ],
    [
      'a key file that is not there',
      '{"execute": "migrate", "arguments": {"uri": "tcp:h:4", "tls-psk": "/no/key"}}',
      'GenericError',
      '/no/key: cannot be read (ENOENT)',
    ],
    ['nothing to recover', '{"execute": "migrate-recover"}', 'GenericError', 'no migration waits'],
  ])('monitor: %s, an error and the connection lives on', (_, line, code, sentence) => {
    expect(ask(line)).toEqual([
      { error: { class: code, desc: expect.stringContaining(sentence) } },
    ]);
    expect(ask('{"execute": "query-status"}')).toHaveLength(1);
  });

  it('monitor: a line that is too long, an error and the next line is read', () => {
    const long = `{"execute": "${'x'.repeat(LINE_BYTES_MAX)}"}`;
    expect(ask(long)).toEqual([
      { error: { class: 'GenericError', desc: `a line of more than ${LINE_BYTES_MAX} bytes` } },
    ]);
    expect(ask('{"execute": "query-status"}')).toHaveLength(1);
  });

  it('monitor: an empty line, nothing', () => {
    expect(ask('  \r')).toEqual([]);
  });

  it('monitor: query-migrate before any, none; cancelling nothing is fine', () => {
    expect(ask('{"execute": "query-migrate"}')).toEqual([{ return: { status: 'none' } }]);
    expect(ask('{"execute": "migrate-cancel"}')).toEqual([{ return: {} }]);
  });

  /** What a client hears up to an answer to something that takes its time. */
  const late = async (count: number): Promise<unknown[]> => {
    await vi.waitFor(() => expect(lines.length).toBeGreaterThanOrEqual(count));
    return lines.splice(0).map(({ timestamp: _, ...line }) => line);
  };
  const save = (file: string): string =>
    JSON.stringify({ execute: 'snapshot-save', arguments: { file } });

  it('monitor: snapshot-save, the guest stands still until there is a file', async () => {
    const file = join(folder, 'saved');
    expect(ask(save(file))).toMatchObject([{ event: 'STOP' }]);
    expect(session.control.state).toBe('save-vm');
    expect(await late(2)).toEqual([
      { event: 'RESUME' },
      { return: { bytes: statSync(file).size } },
    ]);
    expect(session.control.state).toBe('running');
  });

  it('monitor: snapshot-save where no file can be, the sentence', async () => {
    expect(ask(save('/no/such/file'))).toMatchObject([{ event: 'STOP' }]);
    expect(await late(2)).toEqual([
      { event: 'RESUME' },
      { error: { class: 'GenericError', desc: expect.stringContaining('/no/such/file') } },
    ]);
  });

  it('monitor: lines behind a snapshot-save, answered in turn', async () => {
    const text = `${save(join(folder, 'first'))}\n{"execute": "query-status"}\nno JSON`;
    expect(ask(text)).toMatchObject([{ event: 'STOP' }]);
    expect(await late(4)).toEqual([
      { event: 'RESUME' },
      { return: { bytes: expect.any(Number) } },
      { return: { running: true, status: 'running' } },
      { error: { class: 'GenericError', desc: 'the line is not JSON' } },
    ]);
  });

  it.each([
    ['snapshot-save', { file: 'f' }],
    ['migrate', { uri: 'tcp:127.0.0.1:1' }],
    ['system_reset', {}],
  ])('monitor: %s while the guest is saved, refused', async (execute, given) => {
    ask(save(join(folder, 'saved')));
    const heard: unknown[] = [];
    const send = (line: string): void => void heard.push(JSON.parse(line));
    const other = new MonitorConnection({ session, send, seconds: () => 0, version: '1.2.3' });
    heard.length = 0;
    const line = JSON.stringify({ execute, arguments: given });
    other.receive(new TextEncoder().encode(`${line}\n`));
    other.close();
    await late(2);
    const desc = 'the guest is being saved';
    expect(heard).toEqual([{ error: { class: 'GenericError', desc } }]);
  });

  it('monitor: snapshot-save before the guest is known to be sound, waits', async () => {
    const show = session.control.withhold();
    expect(ask(save(join(folder, 'saved')))).toEqual([]);
    show();
    expect(await late(3)).toMatchObject([{ event: 'STOP' }, { event: 'RESUME' }, { return: {} }]);
  });

  it('monitor: migrate, and the guest turns out not to be sound, refused', async () => {
    const { control } = newSession();
    control.withhold();
    const other = new MachineSession({
      machine: session.machine,
      control,
      time: processTime,
      newId,
    });
    const heard: unknown[] = [];
    const send = (line: string): void => void heard.push(JSON.parse(line));
    const asking = new MonitorConnection({
      session: other,
      send,
      seconds: () => 0,
      version: '1.2.3',
    });
    heard.length = 0;
    const migrate = { execute: 'migrate', arguments: { uri: 'tcp:127.0.0.1:1' } };
    asking.receive(new TextEncoder().encode(`${JSON.stringify(migrate)}\n`));
    control.leave('quit');
    await vi.waitFor(() => expect(heard).toHaveLength(1));
    expect(heard[0]).toMatchObject({ error: { desc: 'the snapshot is not sound' } });
    expect(other.isMigrating).toBe(false);
    await other.close();
  });
});

describe('a control socket', () => {
  const options = (name: string) => ({
    path: join(folder, name),
    version: '0.1.0',
    seconds: () => 0,
  });

  it('monitor: only its owner may open it; commands and events; gone when closed', async () => {
    const session = newSession();
    const at = options('a');
    const server = await MonitorServer.listen(at, session);
    expect(statSync(at.path).mode & 0o777).toBe(0o600);
    const client = await MonitorClient.connect(at.path);
    const events: string[] = [];
    client.onEvent = ({ event }) => void events.push(event);
    expect(await client.execute('query-status')).toEqual({ status: 'running', running: true });
    await client.execute('stop');
    expect(await client.execute('query-status')).toEqual({ status: 'paused', running: false });
    await expect(client.execute('fly')).rejects.toThrow('The command fly has not been found');
    expect(events).toEqual(['STOP']);
    session.control.end('quit');
    await server.close();
    await client.closed;
    expect(events).toEqual(['STOP', 'SHUTDOWN']);
    await expect(client.execute('stop')).rejects.toThrow(MachineError);
    expect(() => statSync(at.path)).toThrow('ENOENT');
  });

  it('monitor: quit, the run is to end', async () => {
    const session = newSession();
    const server = await MonitorServer.listen(options('q'), session);
    const client = await MonitorClient.connect(options('q').path);
    await client.execute('quit');
    expect(session.control.leaving).toBe('quit');
    client.close();
    await server.close();
  });

  it('monitor: a socket whose name is a number is no port', async () => {
    const was = process.cwd();
    process.chdir(folder);
    try {
      const server = await MonitorServer.listen({ ...options('n'), path: '4499' }, newSession());
      const client = await MonitorClient.connect('4499');
      expect(await client.execute('query-status')).toMatchObject({ running: true });
      client.close();
      await server.close();
    } finally {
      process.chdir(was);
    }
  });

  it('monitor: the machine ends while it is saved, who asked for it hears of the file', async () => {
    const session = newSession();
    const server = await MonitorServer.listen(options('s'), session);
    const client = await MonitorClient.connect(options('s').path);
    const file = join(folder, 'last');
    const begun = new Promise<void>((resolve) => {
      session.control.listen(({ kind }) => kind === 'stop' && resolve());
    });
    const saved = client.execute('snapshot-save', { file });
    await begun;
    expect(session.isSaving).toBe(true);
    await session.saved();
    await server.close();
    await session.close();
    expect(await saved).toEqual({ bytes: statSync(file).size });
    client.close();
  });

  it('monitor: a socket in use is left alone', async () => {
    const server = await MonitorServer.listen(options('b'), newSession());
    await expect(MonitorServer.listen(options('b'), newSession())).rejects.toThrow(
      'a machine that runs listens there',
    );
    const client = await MonitorClient.connect(options('b').path);
    expect(await client.execute('query-status')).toMatchObject({ running: true });
    client.close();
    await server.close();
  });

  it('monitor: a socket that a dead process left behind is replaced', async () => {
    const { path } = options('c');
    await leaveSocket(path);
    const server = await MonitorServer.listen(options('c'), newSession());
    const client = await MonitorClient.connect(path);
    expect(await client.execute('query-status')).toMatchObject({ running: true });
    client.close();
    await server.close();
  });

  it('monitor: a file that is no socket is left alone', async () => {
    writeFileSync(options('d').path, 'precious');
    await expect(MonitorServer.listen(options('d'), newSession())).rejects.toThrow(
      'is there and is no socket',
    );
    expect(statSync(options('d').path).size).toBe(8);
  });

  it.each([
    ['a folder that is not there', 'no/e', 'cannot be made (ENOENT)'],
    ['a name that is too long', 'e'.repeat(5), 'the name is too long for a socket'],
    ['a name longer than that', 'e'.repeat(100), 'the name is too long for a socket'],
  ])('monitor: %s, one sentence', async (_, name, sentence) => {
    const deep = name === 'eeeee' ? join(folder, 'x'.repeat(90)) : folder;
    if (deep !== folder) mkdirSync(deep);
    const at = { ...options(name), path: join(deep, name) };
    await expect(MonitorServer.listen(at, newSession())).rejects.toThrow(sentence);
  });

  it('monitor: nobody listens, the client says so', async () => {
    await expect(MonitorClient.connect(join(folder, 'none'))).rejects.toThrow(
      'no machine listens there (ENOENT)',
    );
  });
});

/** A socket with nobody behind it. */
async function leaveSocket(path: string): Promise<void> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(`${path}.made`, resolve));
  linkSync(`${path}.made`, path);
  await new Promise<void>((resolve) => server.close(() => resolve()));
}
