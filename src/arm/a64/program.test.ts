/** The program assembler: labels, data, literal pools, and what it refuses. */
import { describe, expect, it } from 'vitest';
import { assembleProgram } from './program.ts';

const words = (source: string, base = 0n): string[] => {
  const { bytes } = assembleProgram(source, { base });
  const view = new DataView(bytes.buffer);
  return Array.from({ length: bytes.length / 4 }, (_, i) =>
    view
      .getUint32(4 * i, true)
      .toString(16)
      .padStart(8, '0'),
  );
};

const bytesOf = (source: string): number[] => [...assembleProgram(source).bytes];

describe('assembleProgram', () => {
  it('labels: before and behind, several on a line, the address they have', () => {
    const { symbols } = assembleProgram('a: b: nop\nc:\nnop\nd:', { base: 0x1000n });
    expect(Object.fromEntries(symbols)).toEqual({ a: 0x1000n, b: 0x1000n, c: 0x1004n, d: 0x1008n });
    expect(words('start: b end\nb start\nend:')).toEqual(['14000002', '17ffffff']);
  });

  it('numeric labels: the nearest of that number in the given direction', () => {
    expect(words('1: b 1f\n1: b 1b\nb 1b\n1: nop')).toEqual([
      '14000001',
      '14000000', // itself
      '17ffffff',
      'd503201f',
    ]);
  });

  it('data: sizes, signs, expressions, labels', () => {
    expect(bytesOf('.byte 1, -1, 0xff\n.hword 0x1234')).toEqual([1, 255, 255, 0x34, 0x12]);
    expect(bytesOf('.quad end - 0, 1 << 63\nend:')).toEqual([
      ...[16, 0, 0, 0, 0, 0, 0, 0],
      ...[0, 0, 0, 0, 0, 0, 0, 0x80],
    ]);
    expect(bytesOf('.word .\n.word .')).toEqual([0, 0, 0, 0, 4, 0, 0, 0]);
  });

  it('strings: escapes, comment marks inside, the zero at the end of asciz', () => {
    expect(bytesOf('.ascii "a\\n\\"//;"')).toEqual([...'a\n"//;'].map((c) => c.charCodeAt(0)));
    expect(bytesOf('.asciz "å"')).toEqual([0xc3, 0xa5, 0]);
  });

  it('space and alignment: filled, counted from the start of the image', () => {
    expect(bytesOf('.byte 1\n.align 2\n.byte 2\n.balign 8\n.space 2, 0xaa')).toEqual([
      ...[1, 0, 0, 0],
      ...[2, 0, 0, 0],
      ...[0xaa, 0xaa],
    ]);
  });

  it('symbols: equ, set, = and from outside', () => {
    const { symbols } = assembleProgram('.equ a, 2 + outside\n.set b, a * 3\nc = a | b', {
      symbols: { outside: 40 },
    });
    expect([symbols.get('a'), symbols.get('b'), symbols.get('c')]).toEqual([42n, 126n, 126n]);
  });

  it('literal pool: at the end or at ltorg, equal literals shared, X before W', () => {
    expect(words('ldr w0, =1\nldr x0, =0x1122334455667788\nldr x1, =0x1122334455667788')).toEqual([
      '180000c0',
      '58000060',
      '58000041',
      '00000000', // alignment
      '55667788',
      '11223344',
      '00000001',
    ]);
    expect(words('ldr x0, =end\n.ltorg\nend: nop', 0x4000n)).toEqual([
      '58000040',
      '00000000',
      '00004010',
      '00000000',
      'd503201f',
    ]);
  });

  it('comments: to the end of the line and over lines', () => {
    expect(words('nop // b nowhere\nnop ; b nowhere\n/* b\nnowhere */ nop')).toEqual(
      Array.from({ length: 3 }, () => 'd503201f'),
    );
  });

  it.each([
    ['nop\n  b nowhere // far', "line 2: unknown symbol 'nowhere': b nowhere"],
    ['/*\n*/ frob', 'line 2: no such instruction: frob'],
    ['a:\na:', "line 2: 'a' is defined twice: a:"],
    ['x1: nop', "line 1: 'x1' is a register: x1: nop"],
    ['.byte 1\nnop', 'line 2: an instruction is aligned to 4 bytes: nop'],
    ['.byte 256', 'line 1: 256 does not fit 8 bits: .byte 256'],
    ['.hword -32769', 'line 1: -32769 does not fit 16 bits: .hword -32769'],
    ['.frob 1', "line 1: no directive '.frob': .frob 1"],
    ['.ascii abc', 'line 1: a string in double quotes expected: .ascii abc'],
    ['.ascii "\\q"', 'line 1: unknown escape \'\\q\': .ascii "\\q"'],
    ['.space end\nend:', "line 1: unknown symbol 'end': .space end"],
    ['.space -1', 'line 1: size -1 is outside 0..2^30: .space -1'],
    ['.balign 3', 'line 1: an alignment of 3 bytes is not a power of two up to 65536: .balign 3'],
    ['.quad 1 2', 'line 1: unexpected text after the expression: .quad 1 2'],
    ['b 1f', "line 1: unknown symbol '1f': b 1f"],
    ['nop\nldr x0, =nowhere\nnop', "line 2: unknown symbol 'nowhere': ldr x0, =nowhere"],
  ])('%j: refused with line and reason', (source, message) => {
    expect(() => assembleProgram(source)).toThrow(message);
  });
});
