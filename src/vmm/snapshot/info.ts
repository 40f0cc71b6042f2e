/**
 * What is in a snapshot, for people: `granule snapshot info`. Reads and checks the whole file, so
 * that what it prints is also what could be restored.
 */
import { assert, PAGE_SIZE } from '../../base/index.ts';
import { KVM_MP_STATE_STOPPED } from '../../kvm/index.ts';
import { sizeText } from '../boot-error.ts';
import { CHUNK_PAGES } from './chunk.ts';
import { SNAPSHOT_VERSION } from './format.ts';
import type { SnapshotFile } from './snapshot-file.ts';

export interface SnapshotInfo {
  readonly fileBytes: number;
  readonly stateBytes: number;
  /** Instructions that the machine has executed, all CPUs. */
  readonly instructionCount: number;
  readonly pages: {
    readonly zero: number;
    readonly data: number;
    readonly untagged: number;
    readonly oneTag: number;
    readonly tagged: number;
  };
  /** Bytes of RAM in the file, and the same before compression. */
  readonly storedBytes: number;
  readonly rawBytes: number;
}

/** Throws `SnapshotError` as soon as something is not right. */
export function snapshotInfo(file: SnapshotFile): SnapshotInfo {
  const absent = (file.chunkCount - file.chunks.length) * CHUNK_PAGES;
  const pages = { zero: absent, data: 0, untagged: absent, oneTag: 0, tagged: 0 };
  let storedBytes = 0;
  let rawBytes = 0;
  for (const placed of file.chunks) {
    const chunk = file.chunk(placed.chunk);
    assert(chunk !== undefined, 'a chunk of the index is there');
    const { counts } = chunk;
    pages.zero += counts.zeroPages;
    pages.data += counts.dataPages;
    pages.untagged += counts.untaggedPages;
    pages.oneTag += counts.oneTagPages;
    pages.tagged += counts.taggedPages;
    storedBytes += placed.storedBytes;
    rawBytes += placed.rawBytes;
  }
  const { vcpus } = file.state;
  return {
    fileBytes: file.fileBytes,
    stateBytes: file.stateBytes,
    instructionCount: vcpus.reduce((sum, vcpu) => sum + vcpu.instructionCount, 0),
    pages,
    storedBytes,
    rawBytes,
  };
}

/** The lines of `granule snapshot info`. */
export function infoLines(file: SnapshotFile): string[] {
  const info = snapshotInfo(file);
  const { machine, clock, vcpus } = file.state;
  const off = vcpus.filter(({ mpState }) => mpState === KVM_MP_STATE_STOPPED).length;
  const rows: [string, string][] = [
    ['format version', String(SNAPSHOT_VERSION)],
    ['machine', `${machine.board}, KVM policy ${machine.policy}, seed ${machine.seed}`],
    ['time', clock === null ? 'follows the wall clock' : 'counted in instructions'],
    ['CPUs', off === 0 ? String(vcpus.length) : `${vcpus.length}, ${off} of them off`],
    ['instructions', number(info.instructionCount)],
    ['RAM', sizeText(machine.ramBytes)],
    ['MTE', machine.mte ? 'on' : 'off'],
    ['pages with data', `${number(info.pages.data)} (${bytes(info.pages.data * PAGE_SIZE)})`],
    ['pages of zeros', number(info.pages.zero)],
    ...(machine.mte ? tagRows(info) : []),
    ['state', bytes(info.stateBytes)],
    ['RAM stored', `${bytes(info.storedBytes)} of ${bytes(info.rawBytes)}${ratio(info)}`],
    ['file', bytes(info.fileBytes)],
  ];
  return [file.path, ...rows.map(([name, value]) => `  ${name.padEnd(20)}${value}`)];
}

const tagRows = ({ pages }: SnapshotInfo): [string, string][] => [
  ['pages tagged', `${number(pages.tagged)}, and ${number(pages.oneTag)} with one tag throughout`],
  ['pages untagged', number(pages.untagged)],
];

const ratio = ({ storedBytes, rawBytes }: SnapshotInfo): string =>
  rawBytes === 0 ? '' : ` (${((100 * storedBytes) / rawBytes).toFixed(0)} %)`;

const number = (value: number): string => value.toLocaleString('en-US');
const bytes = (value: number): string => `${number(value)} bytes`;
