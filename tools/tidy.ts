/**
 * The mechanical part of the house style: what can be checked of the sources without running them,
 * and is no business of the type checker or the linter. `tidy.test.ts` runs it over the whole
 * project; each violation is a line to read, `file:line: what is wrong`.
 *
 * The checks look at syntax trees, and the one for addresses at types, so all of them share one
 * program of the TypeScript compiler. They are heuristics where they say so; what they let pass is
 * not thereby right.
 */
import { existsSync, readdirSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import ts from 'typescript';

/** The floors, lowest first. A floor imports those before it. */
export const FLOORS: readonly string[] = [
  'base',
  'arm',
  'engine',
  'machine',
  'host',
  'kvm',
  'vmm',
  'cli',
];

/**
 * Floors that others see through their public face only. The floors between are the inside of the
 * machine, where faces would load what is not needed: there `index.ts` is for programs outside.
 */
const FACE_ONLY: ReadonlySet<string> = new Set(['base', 'host', 'kvm']);

/** Where the outside world comes in; everywhere else time and randomness are passed in. */
const WORLDLY = /^(src\/cli|bench|tools|test)\/|^src\/vmm\/(run-)?machine\.ts$/;

const COLUMNS_MAX = 100;
/** A head comment shorter than this says nothing. */
const HEAD_CHARACTERS_MIN = 20;

export interface Project {
  readonly root: string;
  readonly files: readonly ts.SourceFile[];
  readonly checker: ts.TypeChecker;
}

/** Reads the project at `root` as its tsconfig.json describes it. */
export function openProject(root: string): Project {
  const path = join(root, 'tsconfig.json');
  const parsed = ts.parseJsonConfigFileContent(
    ts.readConfigFile(path, ts.sys.readFile).config,
    ts.sys,
    root,
  );
  const program = ts.createProgram(parsed.fileNames, parsed.options);
  const ours = new Set(parsed.fileNames);
  const files = program.getSourceFiles().filter(({ fileName }) => ours.has(fileName));
  return { root, files, checker: program.getTypeChecker() };
}

/** A project of one file and what it imports, without the standard library: to test the checks. */
export function projectOf(root: string, fileName: string, text: string): Project {
  const options: ts.CompilerOptions = {
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    allowImportingTsExtensions: true,
    noEmit: true,
    noLib: true,
    types: [],
  };
  const path = join(root, fileName);
  const host = ts.createCompilerHost(options, true);
  const { getSourceFile, fileExists } = host;
  host.fileExists = (name) => name === path || fileExists(name);
  host.getSourceFile = (name, version) =>
    name === path
      ? ts.createSourceFile(name, text, version, true)
      : getSourceFile.call(host, name, version);
  const program = ts.createProgram([path], options, host);
  return { root, files: [program.getSourceFile(path)!], checker: program.getTypeChecker() };
}

/** All violations of the project, by file. */
export function checkProject(project: Project): string[] {
  return [
    ...project.files.flatMap((file) => checkFile(project, file)),
    ...checkFloors(project.root),
  ];
}

/** The violations of one file. */
export function checkFile(project: Project, file: ts.SourceFile): string[] {
  const path = relative(project.root, file.fileName);
  const faults: string[] = [];
  const report = (position: number, fault: string): void => {
    const { line } = file.getLineAndCharacterOfPosition(position);
    faults.push(`${path}:${line + 1}: ${fault}`);
  };
  checkName(path, report);
  checkHead(file, report);
  checkLines(file, report);
  checkImports(path, file, report);
  checkSyntax(path, file, report);
  if (path.startsWith('src/')) checkAddresses(project.checker, file, report);
  return faults;
}

type Report = (position: number, fault: string) => void;

function checkName(path: string, report: Report): void {
  const name = basename(path);
  if (!/^[a-z0-9]+(-[a-z0-9]+)*(\.[a-z0-9]+)*\.ts$/.test(name)) {
    report(0, `${name} is not in kebab-case`);
  }
}

function checkHead(file: ts.SourceFile, report: Report): void {
  const text = file.text.replace(/^#!.*\n/, '');
  const head = /^\/\*\*([\s\S]*?)\*\//.exec(text)?.[1] ?? '';
  if (head.replace(/[\s*]+/g, ' ').length < HEAD_CHARACTERS_MIN) {
    report(0, 'the file does not begin with a comment that says what it is');
  }
}

// Written so that it does not find itself.
const LEFTOVER = /\b(TO[D]O|FIX[M]E|XX[X])\b/;

/** Columns are counted in comments: the formatter has broken the lines of code that can be. */
function checkLines(file: ts.SourceFile, report: Report): void {
  for (const [index, start] of file.getLineStarts().entries()) {
    const end = file.getLineStarts()[index + 1] ?? file.text.length + 1;
    const line = file.text.slice(start, end - 1);
    if (line.length > COLUMNS_MAX && /^\s*(\*|\/\/|\/\*)/.test(line)) {
      report(start, `${line.length} columns, not ${COLUMNS_MAX}`);
    }
    const leftover = LEFTOVER.exec(line);
    if (leftover !== null) report(start, `a ${leftover[1]} is left`);
  }
}

/** The floor of a path from the root, or undefined outside the floors (`src/index.ts`, `test/`). */
function floorOf(path: string): number | undefined {
  const [top, floor] = path.split('/');
  const index = FLOORS.indexOf(floor ?? '');
  return top === 'src' && index >= 0 ? index : undefined;
}

/** The rule between floors: downwards only, for some through the face only, tests through none. */
function checkImports(path: string, file: ts.SourceFile, report: Report): void {
  const isTest = path.endsWith('.test.ts');
  const from = floorOf(path);
  for (const { fileName, pos } of importsOf(file)) {
    if (!fileName.startsWith('.')) continue;
    const target = join(dirname(path), fileName);
    const to = floorOf(target);
    if (path.startsWith('src/') && !isTest && !target.startsWith('src/')) {
      report(pos, `${fileName} is outside src/`);
    }
    if (from === undefined || to === undefined || to === from) continue;
    const [importer, imported] = [FLOORS[from]!, FLOORS[to]!];
    if (to > from) {
      report(pos, `${importer} imports ${imported}, which is above it`);
    } else if (!isTest && FACE_ONLY.has(imported) && target !== `src/${imported}/index.ts`) {
      report(pos, `${imported} is seen through its index.ts alone`);
    }
  }
}

function importsOf(file: ts.SourceFile): { fileName: string; pos: number }[] {
  const found: { fileName: string; pos: number }[] = [];
  const add = (specifier: ts.Node | undefined): void => {
    if (specifier === undefined || !ts.isStringLiteral(specifier)) return;
    found.push({ fileName: specifier.text, pos: specifier.getStart(file) });
  };
  walk(file, (node) => {
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) add(node.moduleSpecifier);
    if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(node.arguments[0]);
    }
  });
  return found;
}

function walk(node: ts.Node, visit: (node: ts.Node) => void): void {
  visit(node);
  node.forEachChild((child) => walk(child, visit));
}

const WORLD = /^(Math\.random|Date\.now|performance\.now)$/;

/** No `any`, no default export, and no time or randomness that was not passed in. */
function checkSyntax(path: string, file: ts.SourceFile, report: Report): void {
  walk(file, (node) => {
    const start = node.getStart(file);
    if (node.kind === ts.SyntaxKind.AnyKeyword) report(start, '`any`');
    if (ts.isExportAssignment(node) && path.startsWith('src/')) report(start, 'a default export');
    if (!ts.isPropertyAccessExpression(node) || WORLDLY.test(path)) return;
    const name = node.getText(file);
    if (WORLD.test(name)) report(start, `${name}: time and randomness are passed in`);
  });
}

const { SyntaxKind } = ts;
/** Operators that cut their operands at 32 bits, and `%`, for which there are helpers. */
const CUTTING: ReadonlySet<ts.SyntaxKind> = new Set([
  SyntaxKind.AmpersandToken,
  SyntaxKind.BarToken,
  SyntaxKind.CaretToken,
  SyntaxKind.LessThanLessThanToken,
  SyntaxKind.GreaterThanGreaterThanToken,
  SyntaxKind.GreaterThanGreaterThanGreaterThanToken,
  SyntaxKind.PercentToken,
]);
const SUMS: ReadonlySet<ts.SyntaxKind> = new Set([SyntaxKind.PlusToken, SyntaxKind.MinusToken]);

const BRAND = /^(Pa|Ipa|Hva)$/;

/** What an address may be masked with: a constant that keeps low bits, by its look. */
const LOW_MASK = /^\(?(0x[0-9a-f_]{1,7}|\d{1,9}|[A-Z0-9_]*MASK|[A-Z0-9_]+ - 1)\)?$/;

/** Bitwise operators and `%` on addresses. Heuristic: an address minus an address is none. */
function checkAddresses(checker: ts.TypeChecker, file: ts.SourceFile, report: Report): void {
  const isAddress = (node: ts.Expression): boolean => {
    if (ts.isParenthesizedExpression(node)) return isAddress(node.expression);
    if (ts.isBinaryExpression(node) && SUMS.has(node.operatorToken.kind)) {
      return isAddress(node.left) !== isAddress(node.right);
    }
    const { aliasSymbol } = checker.getTypeAtLocation(node);
    return aliasSymbol !== undefined && BRAND.test(aliasSymbol.name);
  };
  walk(file, (node) => {
    if (!ts.isBinaryExpression(node) || !CUTTING.has(node.operatorToken.kind)) return;
    if (!isAddress(node.left) && !isAddress(node.right)) return;
    const operator = node.operatorToken.getText(file);
    if (operator === '&' && LOW_MASK.test(node.right.getText(file))) return;
    report(node.getStart(file), `${operator} on an address: ${node.getText(file)}`);
  });
}

/** Every floor has a face and a page about itself, and there is no folder that is none. */
function checkFloors(root: string): string[] {
  const faults = FLOORS.flatMap((floor) =>
    ['index.ts', 'README.md']
      // Nothing imports the CLI, so it has no face.
      .filter((name) => !(floor === 'cli' && name === 'index.ts'))
      .filter((name) => !existsSync(join(root, 'src', floor, name)))
      .map((name) => `src/${floor}: has no ${name}`),
  );
  const folders = readdirSync(join(root, 'src'), { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .filter(({ name }) => !FLOORS.includes(name));
  return [...faults, ...folders.map(({ name }) => `src/${name}: is no floor`)];
}
