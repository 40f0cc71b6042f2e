/**
 * Chooses what system emulation records: loads, stores and MTE at EL0 and EL1 with their syndromes
 * and with synchronous, asynchronous and asymmetric tag checks; the tag generator; the bulk tag
 * instructions; DC ZVA and its like; PSTATE and FP registers by MSR and MRS. Called by
 * `record-golden.ts`.
 */
import type { DecodedRow, Decoder } from '../../src/arm/a64/decoder.ts';
import { assemble } from '../../src/arm/a64/text.ts';
import { Prng } from '../../src/base/index.ts';
import { type Instance, makeInstances } from './instances.ts';

interface Plan {
  readonly row: string;
  readonly instance: Instance;
}

/** Rows worth a syndrome, with how many instances each. */
const COUNTS: readonly [RegExp, number][] = [
  [/^(IRG|LDGM|STGM|STZGM|DC_)/, 32],
  [/^(ADDG|SUBG)$/, 16],
  [/^(STZ?2?G_|STGP|LDG$)/, 12],
  [/^(LDR|STR|LDP|STP|LDX|STX|LDA|STL|CAS|SWP|LDADD|LDT|STT|LDU|STU)/, 4],
];

/** Programs for the system registers that EL0 and EL1 write and read back. */
const PROGRAMS: readonly (readonly string[])[] = [
  ...['nzcv', 'fpcr', 'fpsr', 'tpidr_el0'].map((name) => [`msr ${name}, x1`, `mrs x2, ${name}`]),
  ['msr nzcv, x3', 'mrs x4, nzcv'],
  ['msr tco, x1', 'mrs x2, tco'],
  ['msr tco, #1', 'mrs x2, tco'],
  ['mrs x7, dczid_el0'],
];

/** Exceptions and hints. */
const SINGLE: readonly (readonly [row: string, ...lines: string[]])[] = [
  ['SVC', 'svc #0'],
  ['SVC', 'svc #0xbeef'],
  ['BRK', 'brk #0x1234'],
  ['HLT', 'hlt #1'],
  ['ERET', 'eret'],
  ['HINT', 'hint #25'],
  ['HINT', 'hint #127'],
  ['YIELD', 'yield'],
  ['WFE', 'wfe'],
  ['SEV', 'sev'],
  ['SEVL', 'sevl'],
  ['SEVL', 'sevl', 'wfe', 'sevl', 'wfe'],
];

function withControls(instance: Instance, prng: Prng): Instance {
  const inputs = new Map(instance.inputs);
  if (prng.chance(1, 2)) inputs.set('el', '1');
  if (prng.chance(1, 2)) inputs.set('tcf', String(prng.below(4)));
  if (prng.chance(3, 4)) {
    // RRND = 1 leaves the generator to the implementation: only RRND = 0 is recorded.
    inputs.set('gcr', (prng.u32() & (prng.chance(1, 4) ? 0xffff : 0x8421)).toString(16));
    inputs.set('rgsr', ((prng.u32() & 0xffff0f) >>> 0).toString(16));
  }
  return { ...instance, inputs };
}

/** The instances, at exception levels and with tag controls of their own. */
export function systemInstances(
  source: Decoder,
  chosen: readonly DecodedRow[],
  seedOf: (name: string) => number,
): Plan[] {
  const plans: Plan[] = [];
  for (const decoded of chosen) {
    const { name } = decoded.row;
    const count = COUNTS.find(([pattern]) => pattern.test(name))?.[1];
    if (count === undefined) continue;
    const seed = seedOf(name);
    const prng = new Prng(seed);
    for (const instance of makeInstances(source, decoded, { count, seed })) {
      plans.push({ row: name, instance: withControls(instance, prng) });
    }
  }
  if (chosen.some(({ row }) => row.name === 'MSR_reg')) {
    PROGRAMS.forEach((lines, i) => {
      const words = lines.map((line) => assemble(line));
      // FPCR without what FEAT_FP16, FEAT_AFP and trapped exceptions add to it.
      const inputs = lines[0]!.startsWith('msr fpcr') ? [['x1', '7c00000'] as const] : [];
      plans.push({ row: 'MSR_reg', instance: { words, seed: i + 1, inputs: new Map(inputs) } });
    });
  }
  for (const [name, ...lines] of SINGLE) {
    if (!chosen.some(({ row }) => row.name === name)) continue;
    const words = lines.map((line) => assemble(line));
    plans.push({ row: name, instance: { words, seed: seedOf(name), inputs: new Map() } });
  }
  return plans;
}
