/** The demo's archive, and its /init run by the host's shell over fake programs. */
import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { demoCommandLine, demoInitramfs, GUEST_SUCCESS } from './demo-initramfs.ts';

const latin = (bytes: Uint8Array): string => new TextDecoder('latin1').decode(bytes);
const busybox = new TextEncoder().encode('<busybox>');

/** /init as it stands in the archive. */
const init = (): string =>
  /#!\/bin\/sh\n[\s\S]*?poweroff -f\n/.exec(latin(demoInitramfs({ busybox })))![0];

/** Runs /init with its programs replaced; what it prints. */
function runInit(guest: { cmdline: string; cpus: number; features: string; mteTest?: number }) {
  const script = init()
    .replace('export PATH=/bin', `${FAKES}\nmte_test_status=${guest.mteTest ?? 0}`)
    .replace('[ -x /bin/mte-test ]', `${guest.mteTest !== undefined}`)
    .replace('/bin/mte-test ||', 'mte_test ||');
  return spawnSync('/bin/sh', ['-c', script], {
    encoding: 'utf8',
    env: { CMDLINE: guest.cmdline, CPUS: String(guest.cpus), FEATURES: guest.features },
  }).stdout.split('\n');
}

const FAKES = `
mount() { :; }
cat() { echo "$CMDLINE"; }
nproc() { echo "$CPUS"; }
grep() { echo "Features	: $FEATURES"; }
uname() { echo 6.1.0; }
poweroff() { echo off; }
mte_test() { echo tested; return "$mte_test_status"; }
`;

describe('demoInitramfs', () => {
  it('demoInitramfs: busybox, its applets, /init and a console; the test only where given', () => {
    const without = latin(demoInitramfs({ busybox }));
    for (const path of ['bin/busybox\0', 'bin/sh\0', 'bin/poweroff\0', 'init\0', 'dev/console\0']) {
      expect(without).toContain(path);
    }
    expect(without).not.toContain('bin/mte-test\0');
    const mteTest = new TextEncoder().encode('<mte-test>');
    const withTest = latin(demoInitramfs({ busybox, mteTest }));
    expect(withTest).toContain('bin/mte-test\0');
    expect(withTest).toContain('<mte-test>');
  });

  it('demoInitramfs: every applet that /init calls, linked', () => {
    const archive = latin(demoInitramfs({ busybox }));
    const called = init().match(/\b(cat|echo|grep|mount|nproc|poweroff|uname|sed|awk|sleep)\b/g)!;
    for (const applet of new Set(called)) expect(archive).toContain(`bin/${applet}\0`);
  });
});

describe('/init', () => {
  const on = demoCommandLine({ mte: true, cpuCount: 4 });
  const off = demoCommandLine({ mte: false, cpuCount: 1 });

  it('/init: MTE expected, there and tested, success and power off', () => {
    const lines = runInit({ cmdline: on, cpus: 4, features: 'fp mte mte3', mteTest: 0 });
    expect(lines).toContain('granule: Linux 6.1.0 on 4 CPU(s)');
    expect(lines).toContain('granule: Features\t: fp mte mte3');
    expect(lines.slice(-4)).toEqual(['tested', GUEST_SUCCESS, 'off', '']);
  });

  it('/init: MTE off and absent, success without the test', () => {
    const lines = runInit({ cmdline: off, cpus: 1, features: 'fp', mteTest: 1 });
    expect(lines).not.toContain('tested');
    expect(lines.slice(-3)).toEqual([GUEST_SUCCESS, 'off', '']);
  });

  it.each([
    ['MTE expected and absent', { cmdline: on, cpus: 4, features: 'fp mte3' }, 'not among'],
    ['MTE there and not expected', { cmdline: off, cpus: 1, features: 'mte fp' }, 'without MTE'],
    ['a CPU missing', { cmdline: on, cpus: 3, features: 'mte' }, '4 CPU(s) are expected'],
    [
      'the test fails',
      { cmdline: on, cpus: 4, features: 'mte', mteTest: 3 },
      'ended with status 3',
    ],
  ])('/init: %s, says what and reports failure', (_, guest, sentence) => {
    const lines = runInit(guest);
    expect(lines.some((line) => line.startsWith('granule: ') && line.includes(sentence))).toBe(
      true,
    );
    expect(lines.slice(-3)).toEqual(['granule: guest reports failure', 'off', '']);
  });
});
