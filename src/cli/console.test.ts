/** The console on a fake terminal and on pipes: every way out, input kept, output batched. */
import { EventEmitter } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { ProcessConsole } from './console.ts';

/** A process with a terminal, or with pipes. */
function fakeHost(options: { terminal?: boolean; fd?: number } = {}) {
  const raw: boolean[] = [];
  const stdin = Object.assign(new PassThrough(), {
    ...(options.terminal === true
      ? { isTTY: true, setRawMode: (on: boolean) => void raw.push(on) }
      : {}),
    ...(options.fd === undefined ? {} : { fd: options.fd }),
  });
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const events = new EventEmitter();
  const host = { stdin, stdout, stderr, events };
  return { host, stdin, stdout, stderr, events, raw };
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const textOf = (stream: PassThrough): string => String(stream.read() ?? '');

function collect(console: ProcessConsole): string[] {
  const seen: string[] = [];
  console.onInput((chunk) => seen.push(new TextDecoder().decode(chunk)));
  return seen;
}

describe('ProcessConsole: a terminal', () => {
  it('ProcessConsole: opened and closed, raw and back; closed twice, back once', () => {
    const { host, raw } = fakeHost({ terminal: true });
    const console = new ProcessConsole(host);
    expect(raw).toEqual([true]);
    console.close();
    console.close();
    expect(raw).toEqual([true, false]);
  });

  it('ProcessConsole: Ctrl-c typed, for the guest; Ctrl-a x, quit', async () => {
    const { host, stdin } = fakeHost({ terminal: true });
    const console = new ProcessConsole(host);
    const seen = collect(console);
    stdin.write('a\x03');
    await nextTurn();
    expect([seen, console.quit.aborted]).toEqual([['a\x03'], false]);
    stdin.write('b\x01xc');
    await nextTurn();
    expect([seen.join(''), console.quit.aborted]).toEqual(['a\x03bc', true]);
    console.close();
  });

  it('ProcessConsole: Ctrl-a h, help for the person and nothing for the guest', async () => {
    const { host, stdin, stdout, stderr } = fakeHost({ terminal: true });
    const console = new ProcessConsole(host);
    const seen = collect(console);
    stdin.write('\x01h');
    await nextTurn();
    expect(textOf(stderr)).toContain('Ctrl-a x       quit');
    expect([seen, textOf(stdout)]).toEqual([[], '']);
    console.close();
  });

  it.each([
    ['SIGHUP', 1],
    ['SIGINT', 2],
    ['SIGQUIT', 3],
    ['SIGTERM', 15],
  ])('ProcessConsole: %s, quit and its number', (name, number) => {
    const { host, events, raw } = fakeHost({ terminal: true });
    const console = new ProcessConsole(host);
    events.emit(name);
    expect([console.quit.aborted, console.signalNumber]).toEqual([true, number]);
    events.emit(name); // the machine does not end: give the terminal back, let the next one kill
    expect([raw.at(-1), events.listenerCount(name)]).toEqual([false, 0]);
  });

  it('ProcessConsole: the process exits, the terminal is given back', () => {
    const { host, events, raw } = fakeHost({ terminal: true });
    new ProcessConsole(host);
    events.emit('exit');
    expect(raw).toEqual([true, false]);
  });

  it('ProcessConsole: continued after a stop, raw again; not once closed', () => {
    const { host, events, raw } = fakeHost({ terminal: true });
    const console = new ProcessConsole(host);
    events.emit('SIGCONT');
    expect(raw).toEqual([true, true]);
    console.close();
    events.emit('SIGCONT');
    expect(raw).toEqual([true, true, false]);
  });

  it('ProcessConsole: closed, no listener stays', () => {
    const { host, events, stdin } = fakeHost({ terminal: true });
    new ProcessConsole(host).close();
    expect(events.eventNames()).toEqual([]);
    expect(stdin.listenerCount('data')).toBe(0);
    expect(stdin.isPaused()).toBe(true);
  });
});

describe('ProcessConsole: pipes', () => {
  it('ProcessConsole: Ctrl-a x in a pipe, for the guest; its end ends nothing', async () => {
    const { host, stdin } = fakeHost();
    const console = new ProcessConsole(host);
    const seen = collect(console);
    stdin.end('\x01x\n');
    await nextTurn();
    await nextTurn();
    expect([seen, console.quit.aborted]).toEqual([['\x01x\n'], false]);
    console.close();
  });

  it('ProcessConsole: input before anybody listens, kept in order', async () => {
    const { host, stdin } = fakeHost();
    const console = new ProcessConsole(host);
    stdin.write('one ');
    await nextTurn();
    stdin.write('two');
    await nextTurn();
    expect(collect(console)).toEqual(['one ', 'two']);
    console.close();
  });

  it('ProcessConsole: input paused, read again after', async () => {
    const { host, stdin } = fakeHost();
    const console = new ProcessConsole(host);
    const seen = collect(console);
    console.setInputPaused(true);
    stdin.write('x');
    await nextTurn();
    expect(seen).toEqual([]);
    console.setInputPaused(false);
    await nextTurn();
    expect(seen).toEqual(['x']);
    console.close();
  });

  it('ProcessConsole: a file, all of it at once', () => {
    const folder = mkdtempSync(join(tmpdir(), 'granule-console-'));
    writeFileSync(join(folder, 'input'), 'ls\npoweroff\n');
    const fd = openSync(join(folder, 'input'), 'r');
    const { host } = fakeHost({ fd });
    const console = new ProcessConsole(host);
    expect(collect(console)).toEqual(['ls\npoweroff\n']);
    console.close();
    closeSync(fd);
    rmSync(folder, { recursive: true });
  });

  it('ProcessConsole: nobody reads the output any more, quit', async () => {
    const { host, stdout } = fakeHost();
    const console = new ProcessConsole(host);
    stdout.destroy(new Error('EPIPE'));
    await nextTurn();
    expect(console.quit.aborted).toBe(true);
    console.close();
  });
});

describe('ProcessConsole: output', () => {
  it('ProcessConsole: bytes, a line at a time and the rest when the loop turns', async () => {
    const { host, stdout } = fakeHost();
    const console = new ProcessConsole(host);
    for (const byte of bytes('line\nprompt> ')) console.write(Uint8Array.of(byte));
    expect(textOf(stdout)).toBe('line\n');
    await nextTurn();
    expect(textOf(stdout)).toBe('prompt> ');
    console.write(bytes('last'));
    console.close();
    expect(textOf(stdout)).toBe('last');
  });

  it('ProcessConsole: a line of ours, after what the guest wrote before', () => {
    const { host, stdout, stderr } = fakeHost();
    const console = new ProcessConsole(host);
    console.write(bytes('guest'));
    console.say('ours');
    expect([textOf(stdout), textOf(stderr)]).toEqual(['guest', 'ours\n']);
    console.close();
  });

  it('ProcessConsole: a long burst without newline, whole', async () => {
    const { host, stdout } = fakeHost();
    const console = new ProcessConsole(host);
    console.write(new Uint8Array(10_000).fill(0x78));
    await nextTurn();
    expect(textOf(stdout)).toHaveLength(10_000);
    console.close();
  });
});
