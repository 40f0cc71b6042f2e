/**
 * Debian's kernel from the command line to power-off, with 1 and 4 CPUs, with MTE and without: what
 * the guest sees of itself, the MTE program in user space, and a console free of kernel complaints.
 */
import { describe, expect, it } from 'vitest';
import { GUEST_FAILURE, GUEST_SUCCESS } from '../../src/vmm/demo-initramfs.ts';
import { debianGuest } from '../support/debian-guest.ts';
import { type GranuleRun, granule, statistic } from '../support/granule-cli.ts';

/** What a kernel writes when something is wrong with it, or with the machine under it. */
const COMPLAINT = new RegExp(
  [
    '\\b(BUG|Oops|WARNING|Call trace|Kernel panic|Internal error|Unable to handle)\\b',
    '\\b(rcu.*stall|hung task|soft lockup|segfault|SError|Tainted)\\b',
  ].join('|'),
  'i',
);

const complaints = (console: string): string[] =>
  console.split('\n').filter((line) => COMPLAINT.test(line));

const lineWith = (run: GranuleRun, text: string): string =>
  run.output.split('\n').find((line) => line.includes(text)) ?? `no line with '${text}'`;

describe("Debian's kernel", () => {
  const cases = [1, 4].flatMap((cpuCount) =>
    (['on', 'off'] as const).map((mte) => ({ cpuCount, mte })),
  );

  it.for(cases)('--smp $cpuCount --mte $mte', async ({ cpuCount, mte }, context) => {
    const { kernelVersion } = await debianGuest(context);
    const run = await granule(['demo', '--smp', String(cpuCount), '--mte', mte]);
    const { status, output, messages } = run;

    expect(complaints(output)).toEqual([]);
    expect(lineWith(run, GUEST_SUCCESS)).toBe(GUEST_SUCCESS);
    expect(output).not.toContain(GUEST_FAILURE);
    expect(status).toBe(0);
    expect(messages).toContain('granule: the guest powered off');

    expect(lineWith(run, 'granule: Linux')).toBe(
      `granule: Linux ${kernelVersion} on ${cpuCount} CPU(s)`,
    );
    expect(lineWith(run, 'smp: Brought up')).toContain(`${cpuCount} CPU`);
    const features = lineWith(run, 'granule: Features').split(/\s+/);
    expect(features).toContain('asimd');
    expect(features.includes('mte')).toBe(mte === 'on');
    expect(output.includes('mte-test: all checks hold')).toBe(mte === 'on');
    expect(output.includes('CPU features: detected: Memory Tagging Extension')).toBe(mte === 'on');
    expect(output).toContain('KASLR enabled');
    expect(statistic(messages, 'pages tagged') > 0).toBe(mte === 'on');
  });
});
