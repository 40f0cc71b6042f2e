/** docs/coverage.md is what the instruction table makes; `vitest run tools -u` renews it. */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { rows } from '../src/arm/a64/index.ts';
import { features } from '../src/arm/sysreg/index.ts';
import { chapters, coverageDocument } from './coverage.ts';

test('coverage: every row is in one chapter', () => {
  const inChapters = chapters.flatMap(([, rows]) => rows.map(({ name }) => name));
  expect(inChapters.toSorted()).toEqual(rows.map(({ name }) => name).toSorted());
});

test('coverage: every feature that a row asks for is advertised', () => {
  const has = new Map<string, unknown>(Object.entries(features));
  const missing = rows.filter(({ feature }) => {
    return feature !== undefined && has.get(feature.replace('FEAT_', '')) !== true;
  });
  expect(missing.map(({ name, feature }) => `${name}: ${feature}`)).toEqual([]);
});

test('coverage: docs/coverage.md is current', async () => {
  const path = join(import.meta.dirname, '../docs/coverage.md');
  await expect(coverageDocument()).toMatchFileSnapshot(path);
});
