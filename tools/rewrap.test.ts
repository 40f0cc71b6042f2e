/** Rewrapping comments: what moves where, and what is left as it is. */
import { expect, test } from 'vitest';
import { rewrapComments } from './rewrap.ts';

const rewrap = (...lines: string[]): string[] => rewrapComments(lines.join('\n'), 20).split('\n');

test.each([
  ['a line that fits: kept', [' * twenty column now'], [' * twenty column now']],
  [
    'into the next line',
    [' * one two three four five', ' * six'],
    [' * one two three', ' * four five six'],
  ],
  [
    'on and on',
    [' * aa bb cc dd ee ff gg', ' * hh ii jj kk ll mm'],
    [' * aa bb cc dd ee ff', ' * gg hh ii jj kk ll', ' * mm'],
  ],
  [
    'the last line: one more',
    [' * one two three four', ' */'],
    [' * one two three', ' * four', ' */'],
  ],
  [
    'before an empty line',
    [' * one two three four', ' *', ' * x'],
    [' * one two three', ' * four', ' *', ' * x'],
  ],
  [
    'before an item',
    [' * one two three four', ' * - x'],
    [' * one two three', ' * four', ' * - x'],
  ],
  [
    'one line',
    ['  /** one two three four */'],
    ['  /**', '   * one two three', '   * four', '   */'],
  ],
  [
    'text on the opening line',
    ['/** one two three four', ' * five */'],
    ['/**', ' * one two three', ' * four five */'],
  ],
  ['text on the closing line', [' * one two three x */'], [' * one two three x', ' */']],
  ['line comments', ['// one two three four', '// five'], ['// one two three', '// four five']],
  ['code: kept', ["const a = 'one two three four';"], ["const a = 'one two three four';"]],
  ['one long word: kept', [' * aaaaaaaaaaaaaaaaaaaaaaaaaaa'], [' * aaaaaaaaaaaaaaaaaaaaaaaaaaa']],
])('rewrapComments: %s', (_, before, after) => {
  expect(rewrap(...before)).toEqual(after);
});
