/** The table of rows: 32 bits each, no two claim an opcode, every feature is one that exists. */
import { describe, expect, it } from 'vitest';
import { hasFeature } from '../sysreg/index.ts';
import { checkRows, Decoder } from './decoder.ts';
import { row } from './row.ts';
import { rows } from './table.ts';

const nothing = (): void => {};

describe('table', () => {
  it('rows: 32 bits each, disjoint but for refinements, names unique, at most 64 handlers', () => {
    expect(checkRows(rows)).toEqual([]);
  });

  it('features: each row is of a feature that the ID registers advertise', () => {
    const missing = rows.filter((r) => r.feature !== undefined && !hasFeature(r.feature));
    expect(missing.map((r) => `${r.name} (${r.feature})`)).toEqual([]);
  });
});

describe('checkRows', () => {
  const base = '1'.repeat(31);
  it('overlap: both rows are named', () => {
    const two = [row('A', `${base}x`, 'a', nothing), row('B', `${base}0`, 'b', nothing)];
    expect(checkRows(two)).toEqual(['B and A overlap']);
  });

  it('refinement: accepted where the narrower row says so, and preferred', () => {
    const wide = row('A', `${base}x`, 'a', nothing);
    const narrow = row('B', `${base}0`, 'b', nothing, { refines: 'A' });
    expect(checkRows([wide, narrow])).toEqual([]);
    expect(new Decoder([wide, narrow]).find(0xfffffffe)?.row.name).toBe('B');
    expect(new Decoder([wide, narrow]).find(0xffffffff)?.row.name).toBe('A');
  });

  it('pattern of another length: refused with its length', () => {
    expect(checkRows([row('A', '01', 'a', nothing)])).toEqual(['A: 2 bits, not 32']);
  });
});
