/** Rows of "Branches": immediate, conditional, compare, test, register. */
import type { I32, Ops } from './ops.ts';
import { type Row, row } from './row.ts';

const zero = (b: Ops): I32 => b.eqz(b.fixed('s') === 1 ? b.x('t') : b.w('t'));

/** The return address: the instruction behind this one. */
const link = (b: Ops): void => b.setLink(b.add(b.pc(), b.i64(4)));

export const rows: Row[] = [
  row('B', '0 00101 iiiiiiiiiiiiiiiiiiiiiiiiii', 'b <label:i*4>', (b) =>
    b.branchBy(b.simm('i', 2)),
  ),
  row('BL', '1 00101 iiiiiiiiiiiiiiiiiiiiiiiiii', 'bl <label:i*4>', (b) => {
    link(b);
    b.branchBy(b.simm('i', 2));
  }),
  row(
    'B_cond',
    '0101010 0 iiiiiiiiiiiiiiiiiii 0 cccc',
    'b.<cond:c> <label:i*4>',
    (b) => b.if(b.condition('c'), () => b.branchBy(b.simm('i', 2))),
    { split: 'c' },
  ),
  row(
    'CBZ',
    's 011010 0 iiiiiiiiiiiiiiiiiii ttttt',
    'cbz <R:s,t>, <label:i*4>',
    (b) => b.if(zero(b), () => b.branchBy(b.simm('i', 2))),
    { split: 's' },
  ),
  row(
    'CBNZ',
    's 011010 1 iiiiiiiiiiiiiiiiiii ttttt',
    'cbnz <R:s,t>, <label:i*4>',
    (b) => b.if(b.eqz(zero(b)), () => b.branchBy(b.simm('i', 2))),
    { split: 's' },
  ),
  ...(['tbz', 'tbnz'] as const).map((name, set) =>
    row(
      name.toUpperCase(),
      `s 011011 ${set} jjjjj iiiiiiiiiiiiii ttttt`,
      `${name} <RB:s,t>, #<u:sj>, <label:i*4>`,
      (b) => {
        const half = b.fixed('s') === 1 ? b.wrap(b.shrU(b.x('t'), b.i64(32))) : b.w('t');
        const bit = b.and(b.shrU(half, b.field('j')), b.i32(1));
        b.if(set === 1 ? bit : b.eqz(bit), () => b.branchBy(b.simm('i', 2)));
      },
      { split: 's' },
    ),
  ),
  row('BR', '1101011 0000 11111 000000 nnnnn 00000', 'br <X:n>', (b) => b.branchTo(b.x('n'))),
  row('BLR', '1101011 0001 11111 000000 nnnnn 00000', 'blr <X:n>', (b) => {
    const target = b.x('n');
    link(b);
    b.branchTo(target);
  }),
  row('RET', '1101011 0010 11111 000000 nnnnn 00000', 'ret{ <X:n=30>}', (b) =>
    b.branchTo(b.x('n')),
  ),
];
