/**
 * Rewraps comments that are wider than the house's 100 columns, which the formatter leaves alone:
 * what does not fit moves to the front of the next line of its paragraph. Part of `npm run format`;
 * run as a program it takes the files to rewrap.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const COLUMNS_MAX = 100;

/** A line of a comment's text: what stands before it, and the text. */
const TEXT = /^(\s*(?:\*|\/\/) )(\S.*)$/;
const ONE_LINE = /^(\s*)\/\*\* (.*) \*\/$/;
const OPENING = /^(\s*)\/\*\* (.*)$/;
/** Begins a paragraph: an item of a list, or the first column of a table. */
const OWN_LINE = /^(- |\d+\. |\S+ {2,})/;

/** `text`, a source file, with no line of a comment wider than `columns` if it can be broken. */
export function rewrapComments(text: string, columns = COLUMNS_MAX): string {
  const lines = text.split('\n');
  for (let i = 0; i < lines.length; ) {
    const replaced = lines[i]!.length > columns ? rewrapLine(lines, i, columns) : undefined;
    if (replaced === undefined) i++;
    else lines.splice(i, replaced.count, ...replaced.by);
  }
  return lines.join('\n');
}

interface Replacement {
  readonly count: number;
  readonly by: readonly string[];
}

/** What the lines from `i` on become, for which it is looked at again; undefined: leave it. */
function rewrapLine(lines: readonly string[], i: number, columns: number): Replacement | undefined {
  const line = lines[i]!;
  const one = ONE_LINE.exec(line);
  if (one !== null) {
    const [, indent, text] = one;
    return { count: 1, by: [`${indent}/**`, `${indent} * ${text}`, `${indent} */`] };
  }
  const opening = OPENING.exec(line);
  if (opening !== null) {
    const [, indent, text] = opening;
    return { count: 1, by: [`${indent}/**`, `${indent} * ${text}`] };
  }
  const [, prefix, text] = TEXT.exec(line) ?? [];
  if (prefix === undefined || text === undefined) return undefined;
  if (text.endsWith(' */')) {
    return { count: 1, by: [prefix + text.slice(0, -3), `${prefix.trimEnd()}/`] };
  }
  const at = line.lastIndexOf(' ', columns);
  if (at < prefix.length) return undefined;
  const head = line.slice(0, at).trimEnd();
  const rest = line.slice(at + 1);
  const [, nextPrefix, next] = TEXT.exec(lines[i + 1] ?? '') ?? [];
  const joins = next !== undefined && nextPrefix === prefix && !OWN_LINE.test(next);
  return joins
    ? { count: 2, by: [head, `${prefix}${rest} ${next}`] }
    : { count: 1, by: [head, prefix + rest] };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  for (const path of process.argv.slice(2)) {
    const text = readFileSync(path, 'utf8');
    const rewrapped = rewrapComments(text);
    if (rewrapped !== text) writeFileSync(path, rewrapped);
  }
}
