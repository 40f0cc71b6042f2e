/**
 * The driver of the recorded answers (`test/data/kvm-oracle.json`): every row of a section becomes
 * a test of its own, on Linux 6.12's rules and on 6.1's. What granule answers otherwise, and why,
 * stands in `differences` and nowhere else. Used by the section files of this folder; knows nothing
 * of what a row does.
 */
import { describe, expect, it } from 'vitest';
import { systemRegister } from '../../../src/arm/sysreg/index.ts';
import type { HostPolicy } from '../../../src/host/index.ts';
import { linux, linux61Host } from '../../../src/host/index.ts';
import type { KvmPolicy } from '../../../src/kvm/policy.ts';
import { linux61, linux612 } from '../../../src/kvm/policy.ts';
import { hex, type OracleRow, oracleSection } from '../../support/oracle.ts';

/** The two kernels that were asked, as policies. */
export interface Kernel {
  readonly version: '6.12' | '6.1';
  readonly kvm: KvmPolicy;
  readonly host: HostPolicy;
}

const KERNELS: readonly Kernel[] = [
  { version: '6.12', kvm: linux612, host: linux },
  { version: '6.1', kvm: linux61, host: linux61Host },
];

/** Carries out a row; the answer in the recording's words. */
export type Program = (row: OracleRow) => string;

/** ID_AA64PFR1_EL1 without MTE: here, and recorded (BT = 1, SSBS = 2). */
const OWN_PFR1 = systemRegister('ID_AA64PFR1_EL1').reset & ~0xf00n;
const RECORDED_PFR1 = 0x21n;

/** How many vCPUs the machine of section A has room for. */
export const VCPU_ROOM = 2;

interface Difference {
  readonly ids: readonly string[];
  /** The recorded answer as granule gives it. */
  readonly change: (expected: string) => string;
  readonly because: string;
  /** Absent: on both. */
  readonly on?: Kernel['version'];
}

const answers = (text: string) => (): string => text;

export const differences: readonly Difference[] = [
  {
    ids: ['A19', 'A21', 'A22', 'A24', 'A36', 'A39', 'A40', 'A41', 'F02'],
    change: (expected) =>
      expected
        .replace(hex(RECORDED_PFR1 | 0x300n), hex(OWN_PFR1 | 0x300n))
        .replace(hex(RECORDED_PFR1), hex(OWN_PFR1)),
    because: "QEMU's CPU has FEAT_BTI and FEAT_SSBS; ID registers show what is there",
  },
  {
    ids: ['F04'],
    change: answers('ret=0 · guest value=0x1ffff'),
    because: 'QEMU keeps the RES0 bits that an MSR writes; the architecture has GCR_EL1[16:0]',
  },
  {
    ids: ['A54'],
    change: answers(`ret=${VCPU_ROOM}`),
    because: 'as many vCPUs as the machine was given room for',
  },
  { ids: ['A60'], on: '6.12', change: answers('ret=48'), because: 'no FEAT_LPA2' },
  { ids: ['A62'], change: answers('ret=0'), because: 'no FEAT_SVE' },
  { ids: ['A64'], change: answers('ret=0'), because: 'no FEAT_PAuth' },
  { ids: ['A65'], change: answers('ret=0'), because: 'no FEAT_PMUv3' },
  { ids: ['A70'], change: answers('ret=0'), because: 'no FEAT_RAS' },
  {
    ids: ['A76', 'A77'],
    change: answers('ret=0'),
    because: 'hardware breakpoints and watchpoints are not modelled',
  },
  { ids: ['A80'], change: answers('ret=0'), because: 'statistics are values, not a descriptor' },
  {
    ids: ['A35', 'A52'],
    on: '6.1',
    change: (expected) => expected.replace('n=242', 'n=259').replace('n=246', 'n=263'),
    because: 'the register list is 6.12’s on every policy',
  },
  {
    ids: ['A85'],
    on: '6.1',
    change: answers('ret=1075843072'),
    because: 'the list of capabilities is 6.12’s on every policy',
  },
];

/** What granule must answer to a row where `kernel`'s rules hold. */
function expectedHere({ id, expected, on61 }: OracleRow, { version }: Kernel): string {
  const recorded = version === '6.1' ? (on61 ?? expected) : expected;
  const difference = differences.find(
    ({ ids, on }) => ids.includes(id) && (on === undefined || on === version),
  );
  return difference?.change(recorded) ?? recorded;
}

/**
 * One test a row and kernel. `programs` sets the section's scene for a kernel and gives a program
 * for each recorded row: no more and no less. Rows of one scene run in order and may build on each
 * other.
 */
export function testSection(
  letter: string,
  title: string,
  programs: (kernel: Kernel) => Readonly<Record<string, Program>>,
): void {
  const rows = oracleSection(letter);
  describe.each(KERNELS)(`${letter}: ${title}, Linux $version`, (kernel) => {
    const program = programs(kernel);
    it('the recorded rows and their programs are the same', () => {
      expect(Object.keys(program)).toEqual(rows.map(({ id }) => id));
    });
    it.each(rows.map((row) => ({ ...row, name: `${row.id} ${row.call}` })))('$name', (row) => {
      expect(program[row.id]!(row)).toBe(expectedHere(row, kernel));
    });
  });
}
