/** The README's example is what it claims: 40 lines of valid TypeScript that boot a guest. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';
import { expect, test, vi } from 'vitest';
import * as granule from '../src/index.ts';

const root = join(import.meta.dirname, '..');
const readme = readFileSync(join(root, 'README.md'), 'utf8');
const example = /```ts\n([\s\S]*?)```/.exec(readme)?.[1] ?? '';

test('README: the example, at most 40 lines besides blank ones', () => {
  const lines = example.split('\n').filter((line) => line.trim() !== '');
  expect(lines.length).toBeGreaterThan(10);
  expect(lines.length).toBeLessThanOrEqual(40);
});

test('README: the example, accepted by the type checker', () => {
  const path = join(root, 'example.ts');
  const config = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile).config;
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root);
  const paths = { granule: [join(root, 'src/index.ts')] };
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists } = host;
  host.fileExists = (name) => name === path || fileExists(name);
  host.getSourceFile = (name, version) =>
    name === path
      ? ts.createSourceFile(name, example, version)
      : getSourceFile.call(host, name, version);
  const program = ts.createProgram([path], { ...options, paths }, host);
  const faults = ts.getPreEmitDiagnostics(program, program.getSourceFile(path));
  expect(
    faults.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n')),
  ).toEqual([]);
});

test('README: the example, run, its guest greets and powers off', () => {
  const { outputText } = ts.transpileModule(example, {
    compilerOptions: { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2022 },
  });
  const log = vi.fn();
  const run = new Function('require', 'exports', 'console', outputText);
  run(() => granule, {}, { log });
  expect(log.mock.calls).toEqual([['Hello from EL1', 'system-event']]);
});
