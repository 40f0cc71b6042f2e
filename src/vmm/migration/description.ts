/**
 * What must be equal on both sides of a migration, as data that travels first: the destination
 * compares before it takes anything. Made by whoever adapts a machine (`machine-port.ts`).
 */
import { z } from 'zod';
import { PAGE_SIZE } from '../../base/index.ts';

/** A range is counted in pages by 32-bit numbers; 4 TiB is far below. */
const RANGE_BYTES_MAX = 2 ** 42;

const bytes = z.int().min(PAGE_SIZE).max(RANGE_BYTES_MAX).multipleOf(PAGE_SIZE);

export const MachineDescriptionSchema = z.strictObject({
  /** Board and its version: physical map, devices, interrupt numbers. */
  board: z.string().max(64),
  /** Guest memory in the order of its IPAs. */
  ram: z
    .array(z.strictObject({ base: z.int().min(0).multipleOf(PAGE_SIZE), sizeBytes: bytes }))
    .min(1)
    .max(16),
  cpuCount: z.int().min(1).max(512),
  mte: z.boolean(),
  /** `KvmPolicy.name`: which Linux KVM behaves like. */
  policy: z.string().max(64),
  /** Which state format `captureState` writes. */
  stateVersion: z.int().min(0),
});

export type MachineDescription = Readonly<z.infer<typeof MachineDescriptionSchema>>;

/** How `ours` differs from the source's machine, as one sentence, or undefined. */
export function differenceOf(
  source: MachineDescription,
  ours: MachineDescription,
): string | undefined {
  const rows: [string, string, string][] = [
    ['board', source.board, ours.board],
    ['memory', ramText(source), ramText(ours)],
    ['number of CPUs', String(source.cpuCount), String(ours.cpuCount)],
    ['MTE', onOff(source.mte), onOff(ours.mte)],
    ['KVM policy', source.policy, ours.policy],
    ['state format', String(source.stateVersion), String(ours.stateVersion)],
  ];
  const different = rows.find(([, theirs, mine]) => theirs !== mine);
  if (different === undefined) return undefined;
  const [what, theirs, mine] = different;
  return `the machines differ: ${what} is ${theirs} at the source and ${mine} at the destination`;
}

const onOff = (value: boolean): string => (value ? 'on' : 'off');

const ramText = ({ ram }: MachineDescription): string =>
  ram.map(({ base, sizeBytes }) => `${sizeText(sizeBytes)} at 0x${base.toString(16)}`).join(', ');

function sizeText(sizeBytes: number): string {
  const mib = sizeBytes / (1024 * 1024);
  return Number.isInteger(mib) ? `${mib} MiB` : `${sizeBytes / 1024} KiB`;
}
