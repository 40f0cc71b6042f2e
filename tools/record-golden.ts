/**
 * Records golden vectors of the A64 rows from QEMU into `test/golden/a64`: what every row does to
 * registers, memory, tags and flags, for random operands, and which fault it takes. Needs
 * `qemu-aarch64` and `qemu-system-aarch64`, release 10 or later; the test that replays the vectors
 * needs neither.
 *
 *   npx tsc -p tools && node dist/.tools/tools/record-golden.js [--seed N] [--rows REGEXP]
 *
 * Without --rows every file is written anew; with it the vectors of the rows whose name matches
 * are replaced and the others kept.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type DecodedRow, Decoder } from '../src/arm/a64/decoder.ts';
import type { Row } from '../src/arm/a64/row.ts';
import { rows } from '../src/arm/a64/table.ts';
import {
  formatVector,
  type GoldenFile,
  type GoldenVector,
  initialState,
  memoryChanges,
  registerChanges,
  tagChanges,
} from '../test/conformance/golden-state.ts';
import {
  PC,
  pristineBytes,
  pristineTags,
  sctlrWithTcf,
  WORLD_REGISTERS,
  WRITABLE_BYTES,
} from '../test/conformance/golden-world.ts';
import { QEMU_CPU } from './golden/executor.ts';
import { type Instance, makeInstances } from './golden/instances.ts';
import { runSystem } from './golden/system-executor.ts';
import { systemInstances } from './golden/system-instances.ts';
import { runUser } from './golden/user-executor.ts';
import type { Job, Outcome } from './golden/wire.ts';

/** Relative to the root of the repository, where this runs. */
const FOLDER = join('test', 'golden', 'a64');

/** Rows that user emulation has no use for: exceptions, waiting, EL1, what Linux sets up. */
const NOT_USER = new RegExp(
  '^(SVC|HVC|SMC|BRK|HLT|ERET|HINT|YIELD|WFE|WFI|SEV|' +
    'MSR_imm|MSR_DAIF|MSR_reg|MRS|SYS|IRG|DC_|LDGM|STGM|STZGM)',
);

/** The rows of each file in src/arm/a64, so that a chapter's vectors lie together. */
async function chapters(): Promise<Map<Row, string>> {
  const folder = join(import.meta.dirname, '../src/arm/a64');
  const found: { name: string; rows: readonly Row[] }[] = [];
  for (const file of readdirSync(folder).filter((each) => each.endsWith('.js'))) {
    const module: { rows?: readonly Row[] } = await import(join(folder, file));
    if (module.rows !== undefined) found.push({ name: file.slice(0, -3), rows: module.rows });
  }
  // Files that collect others come first and are overruled.
  found.sort((a, b) => b.rows.length - a.rows.length);
  return new Map(found.flatMap(({ name, rows: own }) => own.map((row) => [row, name])));
}

/** More instances where there are more variants, and where there are more kinds of numbers. */
function instanceCount({ row, variantCount }: DecodedRow): number {
  const numbers = row.fp === true && !/^(LD|ST)/.test(row.name);
  return Math.min(72, Math.max(numbers ? 20 : 10, variantCount * (numbers ? 3 : 2)));
}

/** A seed of its own for every row, so that a change elsewhere does not change it. */
function rowSeed(name: string, seed: number): number {
  let hash = seed;
  for (const character of name) hash = (Math.imul(hash, 31) + character.charCodeAt(0)) >>> 0;
  return hash % 1_000_000_007;
}

// ---- from instances to vectors ------------------------------------------------------------------

interface Plan {
  readonly row: string;
  readonly instance: Instance;
}

const userJob = (instance: Instance): Job => ({
  words: instance.words,
  state: initialState(instance),
  el: 0,
  rgsr: 0n,
  gcr: 0n,
  sctlr: 0n,
});

function systemJob(instance: Instance): Job {
  const input = (key: string, otherwise: bigint): bigint => {
    const text = instance.inputs.get(key);
    return text === undefined ? otherwise : BigInt(`0x${text}`);
  };
  return {
    words: instance.words,
    state: initialState(instance),
    el: input('el', 0n) === 1n ? 1 : 0,
    rgsr: input('rgsr', 0n),
    gcr: input('gcr', WORLD_REGISTERS.GCR_EL1),
    sctlr: sctlrWithTcf(Number(input('tcf', 1n))),
  };
}

/** What both executors show: registers, PC, memory, tags. */
function commonChanges(instance: Instance, { state, pc, buffers, tags }: Outcome) {
  const changes = registerChanges(initialState(instance), state);
  if (pc !== PC + 4 * instance.words.length) changes.set('pc', pc.toString(16));
  for (const { buffer, bytes } of buffers) {
    const before = pristineBytes(buffer).subarray(0, WRITABLE_BYTES);
    for (const [key, text] of memoryChanges(buffer.va, before, bytes)) changes.set(key, text);
    if (!buffer.tagged) continue;
    const oldTags = pristineTags().subarray(0, tags.length);
    for (const [key, text] of tagChanges(buffer.va, oldTags, tags)) changes.set(key, text);
  }
  return changes;
}

const SIGNALS: Readonly<Record<number, string>> = { 4: 'ill', 5: 'trap', 7: 'bus', 11: 'segv' };
const ADDRESS_MASK = (1n << 56n) - 1n;

function userVector({ instance }: Plan, outcome: Outcome): GoldenVector {
  const changes = commonChanges(instance, outcome);
  const [signal = 0n, code = 0n, address = 0n] = outcome.end;
  if (signal !== 5n) {
    // QEMU and Linux differ in the code of a SIGILL.
    const detail = signal === 4n ? '' : `.${code}@${(address & ADDRESS_MASK).toString(16)}`;
    changes.set('fault', `${SIGNALS[Number(signal)] ?? signal}${detail}`);
  }
  return { ...instance, changes };
}

const BRK_SYNDROME = 0xf2000000n;

function systemVector({ instance }: Plan, outcome: Outcome): GoldenVector {
  const changes = commonChanges(instance, outcome);
  const [esr = 0n, far = 0n, rgsr = 0n, tfsr = 0n, tfsre0 = 0n] = outcome.end;
  if (esr !== BRK_SYNDROME) {
    changes.set('esr', esr.toString(16));
    const isAbort = [0x24n, 0x25n].includes(esr >> 26n);
    if (isAbort) changes.set('far', far.toString(16));
  }
  const job = systemJob(instance);
  if (rgsr !== job.rgsr) changes.set('rgsr', rgsr.toString(16));
  if (tfsr !== 0n) changes.set('tfsr', tfsr.toString(16));
  if (tfsre0 !== 0n) changes.set('tfsre0', tfsre0.toString(16));
  return { ...instance, changes };
}

// ---- files --------------------------------------------------------------------------------------

function byRow(plans: readonly Plan[], vectors: readonly GoldenVector[]): Map<string, string[]> {
  const lines = new Map<string, string[]>();
  plans.forEach(({ row }, i) => {
    const own = lines.get(row) ?? [];
    own.push(formatVector(vectors[i]!));
    lines.set(row, own);
  });
  return lines;
}

/** Writes a file, keeping the rows of an earlier one that `keep` names. */
function writeGolden(
  name: string,
  head: Omit<GoldenFile, 'rows'>,
  fresh: ReadonlyMap<string, string[]>,
  keep: (row: string) => boolean,
): void {
  const path = join(FOLDER, `${name}.json`);
  const old: GoldenFile['rows'] = existsSync(path)
    ? (JSON.parse(readFileSync(path, 'utf8')) as GoldenFile).rows
    : {};
  const kept = Object.entries(old).filter(([row]) => keep(row));
  const all = Object.fromEntries([...kept, ...fresh].sort(([a], [b]) => (a < b ? -1 : 1)));
  writeFileSync(path, `${JSON.stringify({ ...head, rows: all }, null, 1)}\n`);
}

const version = (program: string): string =>
  /version (\S+)/.exec(execFileSync(program, ['--version'], { encoding: 'utf8' }))![1]!;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { seed: { type: 'string', default: '1' }, rows: { type: 'string' } },
  });
  const seed = Number(values.seed);
  const wanted = values.rows === undefined ? undefined : new RegExp(values.rows);
  const keep = (row: string): boolean => wanted !== undefined && !wanted.test(row);
  const source = new Decoder(rows);
  const chapterOf = await chapters();
  mkdirSync(FOLDER, { recursive: true });

  const chosen = source.rows.filter(({ row }) => wanted?.test(row.name) ?? true);
  const plans = new Map<string, Plan[]>();
  for (const decoded of chosen.filter(({ row }) => !NOT_USER.test(row.name))) {
    const { name } = decoded.row;
    const chapter = chapterOf.get(decoded.row) ?? 'other';
    const list = plans.get(chapter) ?? [];
    plans.set(chapter, list);
    const options = { count: instanceCount(decoded), seed: rowSeed(name, seed) };
    const instances = makeInstances(source, decoded, options);
    if (instances.length === 0) console.error(`${name}: no instance could be made`);
    list.push(...instances.map((instance) => ({ row: name, instance })));
  }
  const userHead = {
    recorder: `qemu-aarch64 ${version('qemu-aarch64')} -cpu ${QEMU_CPU}`,
    mode: 'user',
    seed,
  } as const;
  for (const [chapter, list] of plans) {
    const outcomes = runUser(list.map(({ instance }) => userJob(instance)));
    const vectors = list.map((plan, i) => userVector(plan, outcomes[i]!));
    writeGolden(chapter, userHead, byRow(list, vectors), keep);
    console.log(`${chapter}: ${vectors.length} vectors`);
  }

  const systemPlans = systemInstances(source, chosen, (name) => rowSeed(name, seed + 1));
  const outcomes = runSystem(systemPlans.map(({ instance }) => systemJob(instance)));
  const vectors = systemPlans.map((plan, i) => systemVector(plan, outcomes[i]!));
  const systemHead = {
    recorder:
      `qemu-system-aarch64 ${version('qemu-system-aarch64')} ` + `-M virt,mte=on -cpu ${QEMU_CPU}`,
    mode: 'system',
    seed,
  } as const;
  writeGolden('system-emulation', systemHead, byRow(systemPlans, vectors), keep);
  console.log(`system emulation: ${vectors.length} vectors`);
}

await main();
