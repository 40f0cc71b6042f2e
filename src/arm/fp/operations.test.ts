/**
 * Floating point against vectors recorded from QEMU, and against JavaScript in the default mode.
 */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type FpContext,
  Fpcr,
  Fpsr,
  fpAdd,
  fpCompare,
  fpConvert,
  fpDiv,
  fpMaxNum,
  fpMul,
  fpMulAdd,
  fpRoundInt,
  fpSqrt,
  fpSub,
  fpToFixed,
  Rounding,
  softOperationId,
  softOperationList,
  softOperations,
} from './index.ts';

interface GoldenRow {
  readonly operation: string;
  readonly instruction: string;
  readonly constants: readonly number[];
  readonly cases: readonly string[];
}

const golden: { rows: readonly GoldenRow[] } = JSON.parse(
  readFileSync(new URL('../../../test/golden/fp/operations.json', import.meta.url), 'utf8'),
);

const context = (fpcr = 0): FpContext => ({ fpcr, flags: 0 });
const hex = (text: string): bigint => BigInt(`0x${text}`);

const scratch = new DataView(new ArrayBuffer(8));
function bits64(value: number): bigint {
  scratch.setFloat64(0, value);
  return scratch.getBigUint64(0);
}
function bits32(value: number): bigint {
  scratch.setFloat32(0, value);
  return BigInt(scratch.getUint32(0));
}

const QUIET = 0x7ff8_0000_0000_0001n;
const SIGNALLING = 0x7ff0_0000_0000_0001n;
const INFINITY = bits64(Infinity);

describe('softOperations', () => {
  it.each(golden.rows.map((row) => [`${row.instruction} (${row.operation})`, row] as const))(
    '%s: recorded operands and modes, result and flags as recorded',
    (_title, row) => {
      const operation = softOperations.get(row.operation)!;
      for (const line of row.cases) {
        const words = line.split(' ').map(hex);
        const flags = Number(words.pop());
        const result = words.pop();
        const ctx = context(Number(words.shift()));
        const args = [...words, ...row.constants.map(BigInt)];
        expect(args.length).toBe(operation.args);
        expect([operation.run(ctx, args), ctx.flags], line).toEqual([result, flags]);
      }
    },
  );

  it('ids: every name, its position in the list', () => {
    for (const [name, operation] of softOperations) {
      expect(softOperationList[softOperationId(name)]).toBe(operation);
    }
    expect(() => softOperationId('fadd128')).toThrow('no such soft operation');
  });

  it('add, subtract, multiply, divide, square root: default mode, what JavaScript computes', () => {
    const number = fc.double({ noNaN: true });
    fc.assert(
      fc.property(number, number, (x, y) => {
        const [a, b] = [bits64(x), bits64(y)];
        const same = (result: bigint, want: number): void => {
          expect(result).toBe(Number.isNaN(want) ? 0x7ff8_0000_0000_0000n : bits64(want));
        };
        same(fpAdd(context(), a, b, 64), x + y);
        same(fpSub(context(), a, b, 64), x - y);
        same(fpMul(context(), a, b, 64), x * y);
        same(fpDiv(context(), a, b, 64), x / y);
        same(fpSqrt(context(), a, 64), Math.sqrt(x));
        expect(fpConvert(context(), a, 64, 32)).toBe(bits32(x));
      }),
      { numRuns: 300 },
    );
  });
});

describe('NaNs', () => {
  it('fpAdd: a quiet and a signalling NaN, the signalling one quietened, IOC', () => {
    const ctx = context();
    expect(fpAdd(ctx, QUIET | 2n, SIGNALLING, 64)).toBe(QUIET);
    expect(ctx.flags).toBe(Fpsr.IOC);
  });

  it('fpAdd: a quiet NaN with DN, the default NaN, nothing raised', () => {
    const ctx = context(Fpcr.DN);
    expect(fpAdd(ctx, QUIET, 0n, 64)).toBe(0x7ff8_0000_0000_0000n);
    expect(ctx.flags).toBe(0);
  });

  it('fpMulAdd: quiet addend and infinity times zero, the default NaN and IOC', () => {
    const ctx = context();
    expect(fpMulAdd(ctx, QUIET, INFINITY, 0n, 64)).toBe(0x7ff8_0000_0000_0000n);
    expect(ctx.flags).toBe(Fpsr.IOC);
  });

  it('fpMaxNum: a number beside a quiet NaN wins, beside a signalling NaN does not', () => {
    const ctx = context();
    expect(fpMaxNum(ctx, bits64(-3), QUIET, 64)).toBe(bits64(-3));
    expect(ctx.flags).toBe(0);
    expect(fpMaxNum(ctx, bits64(-3), SIGNALLING, 64)).toBe(QUIET);
    expect(ctx.flags).toBe(Fpsr.IOC);
  });

  it('fpCompare: quiet NaN, unordered; IOC only for the signalling comparison', () => {
    const ctx = context();
    expect(fpCompare(ctx, QUIET, 0n, 64, false)).toBe(0b0011n);
    expect(ctx.flags).toBe(0);
    expect(fpCompare(ctx, QUIET, 0n, 64, true)).toBe(0b0011n);
    expect(ctx.flags).toBe(Fpsr.IOC);
  });
});

describe('denormals', () => {
  it('fpMul: denormal operand with FZ, zero and IDC', () => {
    const ctx = context(Fpcr.FZ);
    expect(fpMul(ctx, 1n, bits64(4), 64)).toBe(0n);
    expect(ctx.flags).toBe(Fpsr.IDC);
  });

  it('fpMul: denormal result with FZ, signed zero and UFC without IXC', () => {
    const ctx = context(Fpcr.FZ);
    expect(fpMul(ctx, bits64(-1e-200), bits64(1e-110), 64)).toBe(1n << 63n);
    expect(ctx.flags).toBe(Fpsr.UFC);
  });

  it('fpMul: half precision flushes by FZ16 and never raises IDC', () => {
    const ctx = context(Fpcr.FZ16);
    expect(fpMul(ctx, 1n, 0x3c00n, 16)).toBe(0n);
    expect(fpMul(context(Fpcr.FZ), 1n, 0x3c00n, 16)).toBe(1n);
    expect(ctx.flags).toBe(0);
  });

  it('fpMul: an exact denormal result raises nothing, an inexact one UFC and IXC', () => {
    const exact = context();
    fpMul(exact, bits64(2 ** -1000), bits64(2 ** -60), 64);
    expect(exact.flags).toBe(0);
    const inexact = context();
    fpMul(inexact, bits64(2 ** -1000 * (1 + 2 ** -52)), bits64(2 ** -60), 64);
    expect(inexact.flags).toBe(Fpsr.UFC | Fpsr.IXC);
  });
});

describe('conversions', () => {
  it('fpConvert: infinity to alternative half precision, the largest number and IOC', () => {
    const ctx = context(Fpcr.AHP);
    expect(fpConvert(ctx, INFINITY, 64, 16)).toBe(0x7fffn);
    expect(ctx.flags).toBe(Fpsr.IOC);
  });

  it('fpConvert: a signalling NaN keeps the top of its payload', () => {
    const ctx = context();
    expect(fpConvert(ctx, 0xfff4_2000_0000_0001n, 64, 32)).toBe(0xffe1_0000n);
    expect(ctx.flags).toBe(Fpsr.IOC);
  });

  it.each([
    [2.5, Rounding.TIE_EVEN, 2n],
    [2.5, Rounding.TIE_AWAY, 3n],
    [-2.5, Rounding.TIE_AWAY, BigInt.asUintN(32, -3n)],
    [-2.5, Rounding.PLUS_INFINITY, BigInt.asUintN(32, -2n)],
    [-2.5, Rounding.MINUS_INFINITY, BigInt.asUintN(32, -3n)],
    [-2.5, Rounding.ZERO, BigInt.asUintN(32, -2n)],
  ])('fpToFixed: %d in rounding mode %d, integer and IXC', (value, rounding, want) => {
    const ctx = context();
    const to = { width: 32, unsigned: false, fractionBits: 0, rounding } as const;
    expect(fpToFixed(ctx, bits64(value), 64, to)).toBe(want);
    expect(ctx.flags).toBe(Fpsr.IXC);
  });

  it('fpToFixed: -0.5 to unsigned rounds to zero, -1 saturates with IOC', () => {
    const to = { width: 64, unsigned: true, fractionBits: 0, rounding: Rounding.ZERO } as const;
    const small = context();
    expect(fpToFixed(small, bits64(-0.5), 64, to)).toBe(0n);
    expect(small.flags).toBe(Fpsr.IXC);
    const whole = context();
    expect(fpToFixed(whole, bits64(-1), 64, to)).toBe(0n);
    expect(whole.flags).toBe(Fpsr.IOC);
  });

  it('fpRoundInt: IXC only when exactness is asked for, sign of zero kept', () => {
    const ctx = context();
    expect(fpRoundInt(ctx, bits64(-0.25), 64, Rounding.TIE_EVEN, false)).toBe(1n << 63n);
    expect(ctx.flags).toBe(0);
    fpRoundInt(ctx, bits64(-0.25), 64, Rounding.TIE_EVEN, true);
    expect(ctx.flags).toBe(Fpsr.IXC);
  });
});
