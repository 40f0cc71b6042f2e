/** The escape key, in one piece and cut between its two keys. */
import { describe, expect, it } from 'vitest';
import { EscapeFilter } from './escape.ts';

const feedAll = (...chunks: string[]) => {
  const filter = new EscapeFilter();
  const results = chunks.map((chunk) => filter.feed(new TextEncoder().encode(chunk)));
  return {
    toGuest: results.map(({ toGuest }) => new TextDecoder().decode(toGuest)).join('|'),
    commands: results.flatMap(({ commands }) => commands),
  };
};

describe('EscapeFilter', () => {
  it.each([
    ['plain text and Ctrl-c', ['ab\x03c'], 'ab\x03c', []],
    ['Ctrl-a x', ['a\x01xb'], 'ab', ['quit']],
    ['Ctrl-a h', ['\x01h'], '', ['help']],
    ['Ctrl-a Ctrl-a, one of them', ['\x01\x01x'], '\x01x', []],
    ['Ctrl-a and an unknown key, both gone', ['\x01qx'], 'x', []],
    ['x without Ctrl-a', ['xh'], 'xh', []],
    ['cut between the two keys', ['a\x01', 'xb'], 'a|b', ['quit']],
    ['cut, then Ctrl-a', ['\x01', '\x01', '\x01', 'h'], '|\x01||', ['help']],
  ] as const)('EscapeFilter: %s', (_, chunks, toGuest, commands) => {
    expect(feedAll(...chunks)).toEqual({ toGuest, commands });
  });
});
