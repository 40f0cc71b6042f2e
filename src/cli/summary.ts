/** The summary of a run, for people: what the guest did and what it cost. */
import type { MachineOutcome } from '../vmm/machine-options.ts';

const REASONS: Readonly<Record<MachineOutcome['reason'], string>> = {
  'power-off': 'the guest powered off',
  reset: 'the guest reset',
  quit: 'quit',
  migrated: 'the guest runs elsewhere now',
};

/** The lines of the summary; numbers with thousands separated by commas. */
export function summaryLines({ reason, statistics }: MachineOutcome): string[] {
  const seconds = statistics.wallMilliseconds / 1000;
  const mips = seconds > 0 ? Number(statistics.executedCount) / seconds / 1e6 : 0;
  const rows: [string, string][] = [
    ['guest instructions', count(statistics.instructionCount)],
    ['wall time', `${seconds.toFixed(2)} s`],
    ['speed', `${mips.toFixed(1)} MIPS`],
    ['exits', exitsText(statistics.exitsByReason)],
    ['stage-2 faults', count(statistics.stage2FaultCount)],
    ['pages tagged', count(statistics.taggedPageCount)],
  ];
  return [
    `granule: ${REASONS[reason]}`,
    ...rows.map(([name, value]) => `  ${name.padEnd(20)}${value}`),
  ];
}

/** Most frequent first; the total in front. */
function exitsText(exitsByReason: Readonly<Record<string, number>>): string {
  const exits = Object.entries(exitsByReason).filter(([, times]) => times > 0);
  exits.sort(([nameA, a], [nameB, b]) => b - a || (nameA < nameB ? -1 : 1));
  const total = exits.reduce((sum, [, times]) => sum + times, 0);
  if (total === 0) return '0';
  return `${count(total)} (${exits.map(([name, times]) => `${name} ${count(times)}`).join(', ')})`;
}

const count = (value: number | bigint): string => value.toLocaleString('en-US');
