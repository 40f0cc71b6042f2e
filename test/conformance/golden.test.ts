/**
 * Every row of the A64 table against vectors recorded from QEMU (`tools/record-golden.ts`): the
 * same registers, flags, memory, tags and faults, but for the differences that
 * `golden-exceptions.ts` names.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { rows } from '../../src/arm/a64/table.ts';
import { disassemble } from '../../src/arm/a64/text.ts';
import { corrected } from './golden-exceptions.ts';
import { GoldenMachine } from './golden-machine.ts';
import { formatVector, type GoldenFile, type GoldenVector, parseVector } from './golden-state.ts';

const FOLDER = join(import.meta.dirname, '../golden/a64');

const files = readdirSync(FOLDER)
  .filter((name) => name.endsWith('.json'))
  .map((name) => ({
    name,
    ...(JSON.parse(readFileSync(join(FOLDER, name), 'utf8')) as GoldenFile),
  }));

const machine = new GoldenMachine();

/** A vector as one line, its instructions in front. */
function describeVector(vector: GoldenVector, changes: ReadonlyMap<string, string>): string {
  const text = vector.words.map((word) => disassemble(word) ?? '?').join('; ');
  const sorted = new Map([...changes].sort(([a], [b]) => (a < b ? -1 : 1)));
  return `${text}: ${formatVector({ ...vector, changes: sorted })}`;
}

for (const { name, mode, rows: lines } of files) {
  describe(`golden ${name}`, () => {
    for (const [row, vectors] of Object.entries(lines)) {
      it(`${row}: random operands, what QEMU does`, () => {
        const recorded = vectors.map(parseVector);
        const actual = recorded.map((vector) => machine.run(vector, mode));
        expect(recorded.map((vector, i) => describeVector(vector, actual[i]!))).toEqual(
          recorded.map((vector, i) => describeVector(vector, corrected(row, vector, actual[i]!))),
        );
      });
    }
  });
}

/** Rows that only tests of the machine and of KVM exercise: they wait, or end at another level. */
const NOT_RECORDED = /^(HVC|SMC|MSR_imm|(MRS|MSR)_DAIF\w*|MRS|SYSL?|WF[EI])$/;

describe('golden', () => {
  it('every row: recorded, or left out by name', () => {
    const recorded = new Set(files.flatMap((file) => Object.keys(file.rows)));
    const missing = rows.filter(({ name }) => !recorded.has(name) && !NOT_RECORDED.test(name));
    expect(missing.map(({ name }) => name)).toEqual([]);
  });
});
