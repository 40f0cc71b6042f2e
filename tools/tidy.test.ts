/** The mechanical checks: first on sources that break each rule, then on the project itself. */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { checkFile, checkProject, openProject, projectOf } from './tidy.ts';

const root = join(import.meta.dirname, '..');
const HEAD = '/** A file whose head comment is long enough to say something. */\n';

/** What is said of a file with this name and text, without its place. */
function faultsOf(name: string, text: string): string[] {
  const project = projectOf(root, name, text);
  return checkFile(project, project.files[0]!).map((fault) => fault.replace(/^\S+ /, ''));
}

test.each([
  ['head: none', 'src/base/x.ts', 'export const a = 1;\n', 'does not begin with a comment'],
  ['head: too short', 'src/base/x.ts', '/** It. */\n', 'does not begin with a comment'],
  ['name: capitals', 'src/base/someThing.ts', HEAD, 'is not in kebab-case'],
  ['line: 101 columns', 'src/base/x.ts', `${HEAD}// ${'x'.repeat(98)}\n`, '101 columns, not 100'],
  ['line: a note is left', 'src/base/x.ts', `${HEAD}// TO${'DO'}: later\n`, 'is left'],
  ['floors: upwards', 'src/host/x.ts', `${HEAD}import '../kvm/none.ts';\n`, 'which is above it'],
  ['floors: a test too', 'src/arm/x.test.ts', `${HEAD}import '../vmm/none.ts';\n`, 'above it'],
  ['floors: dynamic import', 'src/arm/x.ts', `${HEAD}void import('../kvm/none.ts');\n`, 'above it'],
  [
    'floors: behind a face',
    'src/vmm/x.ts',
    `${HEAD}export * from '../kvm/none.ts';\n`,
    'index.ts alone',
  ],
  ['floors: out of src', 'src/vmm/x.ts', `${HEAD}import '../../test/y.ts';\n`, 'outside src/'],
  ['any', 'src/base/x.ts', `${HEAD}export const f = (x: any) => x;\n`, '`any`'],
  ['default export', 'src/base/x.ts', `${HEAD}export default 1;\n`, 'a default export'],
  ['the world', 'src/kvm/x.ts', `${HEAD}export const t = Date.now();\n`, 'are passed in'],
])('tidy: %s, refused', (_, name, text, fault) => {
  expect(faultsOf(name, text)).toEqual([expect.stringContaining(fault)]);
});

const ADDRESSES = `${HEAD}import type { Hva, Ipa, Pa } from '../base/index.ts';
declare const pa: Pa, ipa: Ipa, hva: Hva, offset: number, PAGE_MASK: number;
`;

test.each([
  'pa & offset',
  'ipa >> 12',
  'hva >>> 12',
  '(pa + offset) | 1',
  'offset ^ ipa',
  'ipa % 4096',
  'pa << 1',
])('tidy: %s, refused as it cuts an address', (expression) => {
  const text = `${ADDRESSES}export const x = ${expression};\n`;
  expect(faultsOf('src/kvm/x.ts', text)).toEqual([expect.stringContaining('on an address')]);
});

test.each([
  'pa + offset',
  'Math.floor(ipa / 4096)',
  '(pa - pa) & 4095',
  '(ipa - ipa) % 4096',
  'offset & 1',
  'pa & 4095',
  'hva & PAGE_MASK',
])('tidy: %s, accepted', (expression) => {
  expect(faultsOf('src/kvm/x.ts', `${ADDRESSES}export const x = ${expression};\n`)).toEqual([]);
});

test('tidy: what a floor may import, accepted', () => {
  const text = `${HEAD}import '../base/index.ts';\nimport '../arm/none.ts';\nimport 'node:fs';\n`;
  expect(faultsOf('src/vmm/x.ts', text)).toEqual([]);
});

test('tidy: the project, no violation', () => {
  expect(checkProject(openProject(root))).toEqual([]);
});
