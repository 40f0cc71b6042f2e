/** The README's examples are what they claim: short, valid TypeScript, and they do what is said. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ts from 'typescript';
import { describe, expect, test, vi } from 'vitest';
import * as granule from '../src/index.ts';

const root = join(import.meta.dirname, '..');
const readme = readFileSync(join(root, 'README.md'), 'utf8');
const [hello = '', moved = ''] = Array.from(
  readme.matchAll(/```ts\n([\s\S]*?)```/g),
  ([, code]) => code,
);

describe.each([
  ['hello', hello],
  ['moved', moved],
])('README: the example %s', (_, example) => {
  test('at most 40 lines besides blank ones', () => {
    const lines = example.split('\n').filter((line) => line.trim() !== '');
    expect(lines.length).toBeGreaterThan(10);
    expect(lines.length).toBeLessThanOrEqual(40);
  });

  test('accepted by the type checker', () => {
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
});

/** Runs an example; resolves to what it logged. */
async function logOf(example: string): Promise<unknown[][]> {
  // An import becomes a constant, so that the rest may wait at its top level.
  const body = example.replace(
    /import (\{[^}]*\}) from 'granule';/,
    (_, names) => `const ${names.replace(/\btype \w+,?/g, '')} = granule;`,
  );
  const { outputText } = ts.transpileModule(`async () => {${body}}`, {
    compilerOptions: { target: ts.ScriptTarget.ES2022 },
  });
  const log = vi.fn();
  await new Function('granule', 'console', `return ${outputText}`)(granule, { log })();
  return log.mock.calls;
}

test('README: the example hello, run, its guest greets and powers off', async () => {
  expect(await logOf(hello)).toEqual([['Hello from EL1', 'system-event']]);
});

test('README: the example moved, run, its guest ends on the other host', async () => {
  const was = process.cwd();
  const folder = mkdtempSync(join(tmpdir(), 'granule-readme-'));
  process.chdir(folder);
  try {
    const log = (await logOf(moved)).map((words) => words.join(' '));
    expect(log).toContain('pre-copy');
    expect(log).toContain('completed');
    expect(log.slice(-2)).toEqual(['!', 'migrated power-off']);
    const file = granule.openSnapshot('work.snapshot');
    expect(file.state.machine.ramBytes).toBe(32 * granule.MIB);
    file.close();
  } finally {
    process.chdir(was);
    rmSync(folder, { recursive: true });
  }
});
