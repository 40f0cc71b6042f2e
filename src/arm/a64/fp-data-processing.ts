/**
 * Rows of scalar floating point: data processing of one, two and three sources, comparisons,
 * conditional select, immediates. Conversions are in `fp-conversion.ts`. Collected by `simd.ts`.
 */
import { Fpcr, ROUNDING_FPCR, Rounding } from '../fp/index.ts';
import {
  expandImmediate,
  readScalar,
  type ScalarSemantics,
  scalarRows,
  writeScalar,
} from './fp-common.ts';
import {
  absolute,
  type FpOperation,
  fpAdd,
  fpDiv,
  fpMax,
  fpMaxNum,
  fpMin,
  fpMinNum,
  fpMul,
  fpMulAdd,
  fpNMul,
  fpSqrt,
  fpSub,
  negate,
} from './fp-lanes.ts';
import { fpRoundInt } from './fp-lanes-convert.ts';
import { fop } from './fp-native.ts';
import type { I32, Ops, V128 } from './ops.ts';
import type { Row } from './row.ts';
import { bitsOf, type Part, zeroes } from './simd-lanes.ts';

// ---- one source ---------------------------------------------------------------------------------

const unary =
  (operation: FpOperation): ScalarSemantics =>
  (b, part) =>
    writeScalar(b, part, operation(b, part, readScalar(b, part, 'n')));

const oneSource: readonly [name: string, opcode: string, operation: FpOperation][] = [
  ['FMOV', '000000', (_b, _part, x) => x!],
  ['FABS', '000001', absolute],
  ['FNEG', '000010', negate],
  ['FSQRT', '000011', fpSqrt],
  ['FRINTN', '001000', fpRoundInt(Rounding.TIE_EVEN, false)],
  ['FRINTP', '001001', fpRoundInt(Rounding.PLUS_INFINITY, false)],
  ['FRINTM', '001010', fpRoundInt(Rounding.MINUS_INFINITY, false)],
  ['FRINTZ', '001011', fpRoundInt(Rounding.ZERO, false)],
  ['FRINTA', '001100', fpRoundInt(Rounding.TIE_AWAY, false)],
  ['FRINTX', '001110', fpRoundInt(ROUNDING_FPCR, true)],
  ['FRINTI', '001111', fpRoundInt(ROUNDING_FPCR, false)],
];

const oneSourceRows = oneSource.flatMap(([name, opcode, operation]) =>
  scalarRows({
    name: `${name}_scalar`,
    pattern: `00011110YY1${opcode}10000nnnnnddddd`,
    syntax: `${name.toLowerCase()} <F:y,d>, <F:y,n>`,
    semantics: unary(operation),
  }),
);

// ---- two sources --------------------------------------------------------------------------------

const twoSources: readonly [name: string, opcode: string, operation: FpOperation][] = [
  ['FMUL', '0000', fpMul],
  ['FDIV', '0001', fpDiv],
  ['FADD', '0010', fpAdd],
  ['FSUB', '0011', fpSub],
  ['FMAX', '0100', fpMax],
  ['FMIN', '0101', fpMin],
  ['FMAXNM', '0110', fpMaxNum],
  ['FMINNM', '0111', fpMinNum],
  ['FNMUL', '1000', fpNMul],
];

const twoSourceRows = twoSources.flatMap(([name, opcode, operation]) =>
  scalarRows({
    name: `${name}_scalar`,
    pattern: `00011110YY1mmmmm${opcode}10nnnnnddddd`,
    syntax: `${name.toLowerCase()} <F:y,d>, <F:y,n>, <F:y,m>`,
    semantics(b, part) {
      const n = readScalar(b, part, 'n');
      const m = readScalar(b, part, 'm');
      writeScalar(b, part, operation(b, part, n, m));
    },
  }),
);

// ---- three sources ------------------------------------------------------------------------------

/** Whether the addend and the product are negated before anything else is looked at. */
const threeSources: readonly [name: string, o1: 0 | 1, o0: 0 | 1, a: boolean, n: boolean][] = [
  ['FMADD', 0, 0, false, false],
  ['FMSUB', 0, 1, false, true],
  ['FNMADD', 1, 0, true, true],
  ['FNMSUB', 1, 1, true, false],
];

const threeSourceRows = threeSources.flatMap(([name, o1, o0, negateAddend, negateFactor]) =>
  scalarRows({
    name: `${name}_scalar`,
    pattern: `00011111YY${o1}mmmmm${o0}aaaaannnnnddddd`,
    syntax: `${name.toLowerCase()} <F:y,d>, <F:y,n>, <F:y,m>, <F:y,a>`,
    semantics(b, part) {
      const read = (letter: string, negated: boolean): V128 => {
        const value = readScalar(b, part, letter);
        return negated ? b.let(negate(b, part, value)) : value;
      };
      const a = read('a', negateAddend);
      const n = read('n', negateFactor);
      writeScalar(b, part, fpMulAdd(b, part, a, n, readScalar(b, part, 'm')));
    },
  }),
);

// ---- comparisons --------------------------------------------------------------------------------

const LESS = 0b1000;
const EQUAL = 0b0110;
const GREATER = 0b0010;

/** NZCV of a comparison. Arm: FPCompare(). */
function compare(b: Ops, part: Part, x: V128, y: V128, signalAll: boolean): I32 {
  const bits = bitsOf(part.size);
  const name = `${signalAll ? 'fcmpe' : 'fcmp'}${bits}`;
  const long = (): I32 => b.wrap(b.soft(name, [b.lane(x, bits, 0), b.lane(y, bits, 0)]));
  if (part.size === 1) return long();
  const relation = (how: string): I32 =>
    b.let(b.wrap(b.lane(fop(b, part.size, how, x, y), bits, 0)));
  const [less, equal, greater] = [relation('lt'), relation('eq'), relation('gt')];
  const nzcv = b.variable(
    b.select(less, b.i32(LESS), b.select(equal, b.i32(EQUAL), b.i32(GREATER))),
  );
  const ordered = b.or(b.or(less, equal), greater);
  const flushes = b.and(b.wrap(b.sysreg('FPCR')), b.i32(Fpcr.FZ));
  b.if(b.or(b.eqz(ordered), flushes), () => nzcv.set(long()));
  return nzcv.value;
}

const compareRows = [false, true].flatMap((signalAll) => {
  const name = signalAll ? 'FCMPE' : 'FCMP';
  return [false, true].flatMap((withZero) =>
    scalarRows({
      name: withZero ? `${name}_zero_scalar` : `${name}_scalar`,
      pattern: `00011110YY1mmmmm001000nnnnn${signalAll ? 1 : 0}${withZero ? 1 : 0}000`,
      syntax: `${name.toLowerCase()} <F:y,n>, ${withZero ? '#0.0' : '<F:y,m>'}`,
      semantics(b, part) {
        const n = readScalar(b, part, 'n');
        const m = withZero ? b.let(zeroes(b)) : readScalar(b, part, 'm');
        b.setNzcv(compare(b, part, n, m, signalAll));
      },
    }),
  );
});

const conditionalCompareRows = [false, true].flatMap((signalAll) => {
  const name = signalAll ? 'FCCMPE' : 'FCCMP';
  return scalarRows({
    name: `${name}_scalar`,
    pattern: `00011110YY1mmmmmcccc01nnnnn${signalAll ? 1 : 0}iiii`,
    syntax: `${name.toLowerCase()} <F:y,n>, <F:y,m>, #<u:i>, <cond:c>`,
    semantics(b, part) {
      const n = readScalar(b, part, 'n');
      const m = readScalar(b, part, 'm');
      const nzcv = b.variable(b.field('i'));
      b.if(b.condition('c'), () => nzcv.set(compare(b, part, n, m, signalAll)));
      b.setNzcv(nzcv.value);
    },
  });
});

// ---- select and immediate -----------------------------------------------------------------------

const selectRows = scalarRows({
  name: 'FCSEL_scalar',
  pattern: '00011110YY1mmmmmcccc11nnnnnddddd',
  syntax: 'fcsel <F:y,d>, <F:y,n>, <F:y,m>, <cond:c>',
  semantics(b, part) {
    const bits = bitsOf(part.size);
    const value = b.variable(b.element('m', bits, 0));
    b.if(b.condition('c'), () => value.set(b.element('n', bits, 0)));
    b.setScalar('d', bits, value.value);
  },
});

const immediateRows = scalarRows({
  name: 'FMOV_imm_scalar',
  pattern: '00011110YY1iiiiiiii10000000ddddd',
  syntax: 'fmov <F:y,d>, #<fpimm:i>',
  semantics(b, part) {
    const value = expandImmediate(b, part.size as 1 | 2 | 3, b.let(b.imm('i')));
    b.setScalar('d', bitsOf(part.size), value);
  },
});

export const rows: Row[] = [
  ...oneSourceRows,
  ...twoSourceRows,
  ...threeSourceRows,
  ...compareRows,
  ...conditionalCompareRows,
  ...selectRows,
  ...immediateRows,
];
