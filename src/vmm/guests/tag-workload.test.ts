/** The tag workload on a machine of its own: what it prints is what the model of it says. */
import { expect, it } from 'vitest';
import { MIB } from '../../base/index.ts';
import { planBoot } from '../boot.ts';
import { readElf } from '../elf.ts';
import { Machine } from '../machine.ts';
import {
  buildBareTagWorkload,
  buildTagWorkload,
  TAG_WORKLOAD_LINE,
  tagWorkloadChecksum,
} from './tag-workload.ts';

const checksumOf = (rounds: number): string => tagWorkloadChecksum({ rounds, cpuCount: 2 });

it.each([1, 2, 400])('bare-metal workload: %i rounds, the checksum of the model', (rounds) => {
  let output = '';
  const plan = planBoot({
    kernel: { name: 'the workload', bytes: buildBareTagWorkload({ rounds }).bytes },
    cmdline: '',
    ramBytes: 8 * MIB,
    cpuCount: 2,
    seed: 1,
  });
  const transmit = (byte: number): void => {
    output += String.fromCharCode(byte);
  };
  const machine = new Machine({ plan, mte: true, seed: 1, transmit });
  for (let slices = 0; machine.runSlice() !== 'power-off'; slices++)
    expect(slices).toBeLessThan(50);
  expect(output).toBe(`tag-workload: running\n${TAG_WORKLOAD_LINE}${checksumOf(rounds)}\n`);
});

it('workload for Linux: one segment for AArch64 with the entry in it', () => {
  const { entry, segments } = readElf({ name: 'w', bytes: buildTagWorkload({ rounds: 7 }) });
  const [{ virtual, bytes }] = segments as [(typeof segments)[0]];
  expect(segments).toHaveLength(1);
  expect(entry).toBeGreaterThanOrEqual(virtual);
  expect(entry).toBeLessThan(virtual + BigInt(bytes.length));
});
