/** Command lines and what becomes of them; mostly refusals. */
import { describe, expect, it } from 'vitest';
import { GIB, KIB, MIB } from '../base/index.ts';
import { CliError } from './cli-error.ts';
import { parseCommandLine, type RunOptions } from './options.ts';

const parse = (line: string) => parseCommandLine(line.split(' ').filter(Boolean), '1.2.3');

function run(line: string): RunOptions {
  const command = parse(`run --kernel k ${line}`);
  if (command.kind !== 'run') throw new Error('not a run');
  return command.options;
}

describe('parseCommandLine', () => {
  it('parseCommandLine: run with a kernel alone, the defaults', () => {
    expect(run('')).toEqual({
      kernel: 'k',
      initrd: undefined,
      append: '',
      ramBytes: 512 * MIB,
      cpuCount: 1,
      mte: true,
      seed: 1,
      realtime: false,
      onReset: 'reboot',
      trace: new Set(),
      policy: expect.objectContaining({ name: 'linux-6.12' }),
      dtbDump: undefined,
      memory: 'anonymous',
      monitor: undefined,
      incoming: undefined,
      tlsPsk: undefined,
      tlsCertificates: undefined,
      restore: undefined,
      restoreMode: 'lazy',
      asked: new Set(),
    });
  });

  it('parseCommandLine: run with everything, as said', () => {
    const options = run(
      '--initrd i --append x=1 -m 1G --smp 8 --mte off --seed 4294967295 --realtime ' +
        '--on-reset exit --trace exits,stage2,mte,irq,mte --dtb-dump d --memory memfd ' +
        '--monitor s --incoming tcp:[::1]:4444 --tls-psk f --restore-mode eager ' +
        '--policy untaggable=device,linux=6.1',
    );
    expect(options).toEqual({
      kernel: 'k',
      initrd: 'i',
      append: 'x=1',
      ramBytes: GIB,
      cpuCount: 8,
      mte: false,
      seed: 4294967295,
      realtime: true,
      onReset: 'exit',
      trace: new Set(['exits', 'stage2', 'mte', 'irq']),
      policy: expect.objectContaining({ name: 'linux-6.1,untaggable=device' }),
      dtbDump: 'd',
      memory: 'memfd',
      monitor: 's',
      incoming: { host: '::1', port: 4444 },
      tlsPsk: 'f',
      tlsCertificates: undefined,
      restore: undefined,
      restoreMode: 'eager',
      asked: new Set(['ramBytes', 'cpuCount', 'mte', 'seed', 'policy']),
    });
  });

  it.each([
    ['64', 64 * MIB],
    ['64M', 64 * MIB],
    ['64m', 64 * MIB],
    ['64MiB', 64 * MIB],
    ['2G', 2 * GIB],
    ['65536K', 65536 * KIB],
  ])('parseCommandLine: -m %s', (text, sizeBytes) => {
    expect(run(`-m ${text}`).ramBytes).toBe(sizeBytes);
  });

  it('parseCommandLine: an argument that begins with a dash, taken after =', () => {
    const command = parseCommandLine(['run', '--kernel=k', '--append=-v x'], '1');
    expect(command).toMatchObject({ options: { append: '-v x' } });
  });

  it('parseCommandLine: demo, its own options', () => {
    expect(parse('demo --embedded --smp 4 --mte off')).toMatchObject({
      kind: 'demo',
      options: { embedded: true, cpuCount: 4, mte: false, ramBytes: 512 * MIB },
    });
  });

  it.each([
    ['--help', 'Usage: granule'],
    ['run --help', '--kernel <file>'],
    ['--version', '1.2.3'],
  ])('parseCommandLine: %s, text and no command', (line, part) => {
    expect(parse(line)).toEqual({ kind: 'text', text: expect.stringContaining(part) });
  });

  it.each([
    ['ctl', '', 'stop'],
    ['migrate', '', 'tcp:h:1'],
    ['snapshot', 'save', '', 'f'],
  ])('parseCommandLine: %s with an empty socket, refused', (...args) => {
    expect(() => parseCommandLine(args, '1.2.3')).toThrow('<socket>: the file name is empty');
  });

  it.each([
    ['', 'no command given'],
    ['frob', "unknown command 'frob'"],
    ['run', 'run: --kernel FILE, --incoming ADDRESS or --restore FILE is needed'],
    ['run --restore r --incoming tcp:127.0.0.1:1', '--restore and --incoming exclude each other'],
    ['run --restore r --initrd i', 'run: --initrd goes only with --kernel'],
    ['run --restore r --append quiet', 'run: --append goes only with --kernel'],
    ['run --incoming tcp:127.0.0.1:1 --dtb-dump d', 'run: --dtb-dump goes only with --kernel'],
    ['run --incoming here', '--incoming here: not an address like tcp:127.0.0.1:4444'],
    ['run --incoming tcp:h:70000', '--incoming tcp:h:70000: not an address'],
    ['run --kernel k --tls-psk a --tls-certificates b', 'exclude each other'],
    ['run --kernel k --memory disk', '--memory disk: not one of anonymous, memfd'],
    ['ctl s', "missing required argument 'command'"],
    ['ctl s stop now', 'now: not an argument like key=value'],
    ['migrate s', "missing required argument 'address'"],
    ['migrate s tcp:h:1 --downtime-limit soon', '--downtime-limit soon: not a time like 300ms'],
    ['migrate s tcp:h:1 --max-bandwidth x', '--max-bandwidth x: not a size'],
    ['migrate s tcp:h:1 --tags none', '--tags none: not one of ioctl, dual-mapping, dirty-log'],
    ['migrate s tcp:h:1 --tag-pages 0', '--tag-pages 0: not a whole number from 1 to 4096'],
    ['run --kernel', "option '--kernel <file>' argument missing"],
    ['run --kernel k x', 'too many arguments'],
    ['run --kernel k --frob', "unknown option '--frob'"],
    ['run --kernel=', '--kernel: the file name is empty'],
    ['run --kernel k --dtb-dump=', '--dtb-dump: the file name is empty'],
    ['migrate s tcp:h:1 --max-bandwidth 0', '--max-bandwidth 0: not a size'],
    ['migrate s tcp:h:1 --max-bandwidth 99999999G', '99999999G: not a size'],
    ['migrate s tcp:h:1 --downtime-limit 601s', '--downtime-limit 601s: not a time'],
    ['run --kernel k -m 0', '-m 0: not a size'],
    ['run --kernel k -m much', '-m much: not a size like 512M or 1G'],
    ['run --kernel k -m -5', '-m -5: not a size'],
    ['run --kernel k -m 1.5G', '-m 1.5G: not a size'],
    ['run --kernel k --smp 0', '--smp 0: not a whole number from 1 to 8'],
    ['run --kernel k --smp 9', '--smp 9: not a whole number from 1 to 8'],
    ['run --kernel k --smp two', '--smp two: not a whole number'],
    ['run --kernel k --seed -1', '--seed -1: not a whole number from 0 to 4294967295'],
    ['run --kernel k --seed 4294967296', '--seed 4294967296: not a whole number'],
    ['run --kernel k --mte yes', '--mte yes: not one of on, off'],
    ['run --kernel k --on-reset halt', '--on-reset halt: not one of reboot, exit'],
    ['run --kernel k --trace mte,foo', '--trace foo: not one of exits, stage2, mte, irq'],
    ['run --kernel k --trace=', '--trace : not one of'],
    ['demo --kernel k', "unknown option '--kernel'"],
  ])('parseCommandLine: %j, refused', (line, sentence) => {
    expect(() => parse(line)).toThrow(CliError);
    expect(() => parse(line)).toThrow(sentence);
  });

  it('parseCommandLine: ctl, values that are JSON are what they say', () => {
    expect(parse('ctl s migrate uri=tcp:h:1 downtime-limit=5 x={"a":[1]} y=')).toEqual({
      kind: 'ctl',
      options: {
        socket: 's',
        command: 'migrate',
        arguments: { uri: 'tcp:h:1', 'downtime-limit': 5, x: { a: [1] }, y: '' },
      },
    });
  });

  it('parseCommandLine: migrate, the defaults and everything', () => {
    const defaults = {
      socket: 's',
      uri: 'tcp:h:1',
      mode: 'precopy',
      downtimeLimitMs: 300,
      bandwidthMax: undefined,
      autoConverge: false,
      postCopyAfter: undefined,
      tags: 'ioctl',
      tagPages: undefined,
      tlsPsk: undefined,
      tlsCertificates: undefined,
    };
    expect(parse('migrate s tcp:h:1')).toEqual({ kind: 'migrate', options: defaults });
    const all =
      '--mode postcopy --downtime-limit 2s --max-bandwidth 100M --tags dirty-log --tag-pages 1 ' +
      '--auto-converge --postcopy-after 5 --tls-certificates c';
    expect(parse(`migrate s tcp:h:1 ${all}`)).toEqual({
      kind: 'migrate',
      options: {
        ...defaults,
        mode: 'postcopy',
        downtimeLimitMs: 2000,
        bandwidthMax: 100 * MIB,
        autoConverge: true,
        postCopyAfter: 5,
        tags: 'dirty-log',
        tagPages: 1,
        tlsCertificates: 'c',
      },
    });
  });

  it('parseCommandLine: every refusal, one line', () => {
    for (const line of ['run --kernel k --krnel', 'rum', 'demo --smb 1']) {
      try {
        parse(line);
        expect.unreachable();
      } catch (error) {
        expect(String(error)).not.toContain('\n');
      }
    }
  });

  it('parseCommandLine: snapshot info and save', () => {
    expect(parse('snapshot info f')).toEqual({
      kind: 'snapshot',
      options: { action: 'info', file: 'f' },
    });
    expect(parse('snapshot save s f --compress none')).toEqual({
      kind: 'snapshot',
      options: { action: 'save', socket: 's', file: 'f', compress: 'none' },
    });
    expect(() => parse('snapshot save s f --compress zip')).toThrow('--compress zip: not one of');
    expect(() => parse('snapshot')).toThrow();
  });
});
