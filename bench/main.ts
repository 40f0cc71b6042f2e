/**
 * `npm run bench [loops|start|boot …]`: prints the tables of docs/performance.md, in their format.
 * Figures of granule alone where QEMU is not installed; what is left out is said.
 */
import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { timeOnGranule } from './granule.ts';
import { buildBenchGuest } from './guest.ts';
import { type BenchLoop, benchLoops } from './loops.ts';
import { DEFAULT_TIMING } from './marks.ts';
import {
  debianMachine,
  type Emulator,
  greetingMachine,
  type ProcessTiming,
  timeBoot,
  timeStart,
} from './processes.ts';
import { qemuVersion, timeOnQemu, withFolder } from './qemu.ts';
import { print, table } from './table.ts';

/** The package's folder, from where this file is when it is built: dist/.bench/bench. */
const root = new URL('../../../', import.meta.url);
const cli = fileURLToPath(new URL('dist/cli/main.js', root));
const STARTS = 7;
const BOOTS = 2;

const qemu = qemuVersion();
const emulators: readonly Emulator[] = qemu === undefined ? ['granule'] : ['granule', 'qemu'];

function printVersions(): void {
  const { version } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8'));
  const { node, v8 } = process.versions;
  print(`granule ${version}, Node ${node} (V8 ${v8}), ${cpus()[0]?.model ?? 'unknown CPU'}`);
  print(qemu === undefined ? 'QEMU is not installed: no peer' : `QEMU ${qemu} (TCG)`);
  print(new Date().toISOString().slice(0, 10));
  print();
}

const NONE = '-';
const ratio = (ours: number, theirs: number | undefined): string =>
  theirs === undefined ? NONE : (ours / theirs).toFixed(2);

async function printLoops(): Promise<void> {
  const rows: string[][] = [];
  const both = [benchLoops.filter(({ tags }) => !tags), benchLoops.filter(({ tags }) => tags)];
  for (const loops of both) rows.push(...(await timeLoops(loops)));
  table(['loop', 'granule, M instructions/s', 'QEMU', 'ratio'], rows);
}

async function timeLoops(loops: readonly BenchLoop[]): Promise<string[][]> {
  const guest = buildBenchGuest(loops);
  const ours = timeOnGranule(guest, DEFAULT_TIMING);
  const theirs = qemu === undefined ? [] : await timeOnQemu(guest, DEFAULT_TIMING);
  return loops.map(({ name, title }, i) => [
    `${name}: ${title}`,
    ours[i]!.toFixed(0),
    theirs[i]?.toFixed(0) ?? NONE,
    ratio(ours[i]!, theirs[i]),
  ]);
}

/** The fastest of some runs: what else the machine does makes none faster. */
async function fastest(count: number, run: () => Promise<ProcessTiming>): Promise<ProcessTiming> {
  let best = await run();
  for (let i = 1; i < count; i++) {
    const next = await run();
    if (next.milliseconds < best.milliseconds) best = next;
  }
  return best;
}

async function row(
  title: string,
  count: number,
  run: (emulator: Emulator) => Promise<ProcessTiming>,
): Promise<string[]> {
  const timings: ProcessTiming[] = [];
  for (const emulator of emulators) timings.push(await fastest(count, () => run(emulator)));
  const cells = timings.flatMap(({ milliseconds, residentMib }) => [
    `${(milliseconds / 1000).toFixed(2)} s`,
    residentMib === undefined ? NONE : `${residentMib} MiB`,
  ]);
  const [ours, theirs] = timings;
  const speed = theirs === undefined ? NONE : (theirs.milliseconds / ours!.milliseconds).toFixed(2);
  return [title, ...cells, ...(theirs === undefined ? [NONE, NONE] : []), speed];
}

const PROCESS_HEAD = ['', 'granule', 'resident', 'QEMU', 'resident', 'speed ratio'];

async function printProcesses(what: ReadonlySet<string>): Promise<void> {
  const rows = await withFolder(async (folder) => {
    const rows: string[][] = [];
    if (what.has('start')) {
      const machine = greetingMachine(folder);
      rows.push(await row('start to first instruction', STARTS, (e) => timeStart(e, cli, machine)));
    }
    const debian = what.has('boot') ? await debianMachine(folder) : undefined;
    if (typeof debian === 'string') print(`no boot of Debian: ${debian}\n`);
    if (typeof debian === 'object') {
      for (const mte of [true, false]) {
        const title = `Debian ${debian.guest.kernelVersion} to /init, MTE ${mte ? 'on' : 'off'}`;
        rows.push(await row(title, BOOTS, (e) => timeBoot(e, cli, debian.of(mte))));
      }
    }
    return rows;
  });
  if (rows.length > 0) table(PROCESS_HEAD, rows);
}

const PARTS = ['loops', 'start', 'boot'];
const asked = process.argv.slice(2);
const unknown = asked.find((part) => !PARTS.includes(part));
if (unknown !== undefined) {
  console.error(`bench: ${unknown} is not one of ${PARTS.join(', ')}`);
  process.exit(2);
}
const parts = new Set(asked.length > 0 ? asked : PARTS);
printVersions();
if (parts.has('loops')) await printLoops();
await printProcesses(parts);
