/**
 * The recording itself: no row of it is left out of the tests of this folder, and no difference is
 * listed that is none.
 */
import { describe, expect, it } from 'vitest';
import { oracleSection } from '../../support/oracle.ts';
import { differences } from './rows.ts';

/** Rows of the recording by section; there is no section G. */
const COUNTS = { A: 70, B: 49, C: 46, D: 55, E: 15, F: 48, H: 17 } as const;

describe('the recorded answers', () => {
  it.each(Object.entries(COUNTS))('section %s: %i rows, each once, in order', (letter, count) => {
    const ids = oracleSection(letter).map(({ id }) => id);
    expect(ids).toHaveLength(count);
    expect(ids).toEqual([...new Set(ids)].sort());
  });

  it('all rows are of a section that has tests', () => {
    const total = Object.values(COUNTS).reduce((sum, count) => sum + count, 0);
    expect(oracleSection('')).toHaveLength(total);
  });

  it('rows that are answered otherwise: each has a reason, and its answer is another one', () => {
    const rows = new Map(oracleSection('').map((row) => [row.id, row]));
    for (const { ids, change, because, on } of differences) {
      expect(because).not.toBe('');
      for (const id of ids) {
        const row = rows.get(id)!;
        const recorded = on === '6.1' ? row.on61! : row.expected;
        expect(change(recorded)).not.toBe(recorded);
      }
    }
  });
});
