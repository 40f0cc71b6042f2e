/**
 * Rules of loads, stores and tag accesses that QEMU does not show: it checks no SP alignment, has
 * FEAT_LSE2, always has allocation tags. Each case runs on the engine like a golden vector.
 */
import { describe, expect, it } from 'vitest';
import { assemble } from '../../src/arm/a64/text.ts';
import { GoldenMachine } from './golden-machine.ts';
import { formatVector, hexWord, parseVector } from './golden-state.ts';
import { PLAIN, pristineBytes, pristineTags, sctlrWithTcf, TAGGED } from './golden-world.ts';

const machine = new GoldenMachine();

/**
 * Runs one instruction at EL0 unless the inputs say otherwise; what changed, as a vector's text.
 */
function run(instruction: string, inputs: string): string {
  const vector = parseVector(`${hexWord(assemble(instruction))} 1 ${inputs} |`);
  const changes = machine.run(vector, 'system');
  return formatVector({ ...vector, changes }).split('| ')[1] ?? '';
}

/** The start of the Tagged buffer, with a tag that it does not have. */
const OTHER_TAG = ((BigInt(15 - pristineTags()[0]! || 1) << 56n) | BigInt(TAGGED.va)).toString(16);
/** What LDRB finds at offset 8 of the plain buffer, and at the start of the Tagged one. */
const PLAIN_BYTE = pristineBytes(PLAIN)[8]!.toString(16);
const TAGGED_BYTE = pristineBytes(TAGGED)[0]!.toString(16);

const DZE = 1n << 14n;
const SA0 = 1n << 4n;
const A = 2n;
const without = (bits: bigint): string => (sctlrWithTcf(1) & ~bits).toString(16);
const aligned = (sctlrWithTcf(1) | A).toString(16);

/** Data aborts at EL0: what precedes the status. */
const READ = 'esr=920000';
const STOPPED = 'pc=500800';

describe('SP as a base', () => {
  it.each(['ldr x0, [sp]', 'str x0, [sp, #8]!', 'ldp x0, x1, [sp], #16', 'ldr x0, [sp, x1]'])(
    '%s: SP not aligned to 16, an SP alignment fault',
    (instruction) => {
      expect(run(instruction, 'sp=511008 x1=0')).toBe(`${STOPPED} esr=9a000000`);
    },
  );

  it.each(['ldxr x0, [sp]', 'ldadd x1, x0, [sp]', 'stg x0, [sp]', 'ld1 {v0.16b}, [sp]'])(
    '%s: SP not aligned to 16, an SP alignment fault',
    (instruction) => {
      expect(run(instruction, 'sp=511008')).toBe(`${STOPPED} esr=9a000000`);
    },
  );

  it('SCTLR_EL1.SA0 = 0: any SP will do', () => {
    expect(run('ldrb w0, [sp]', `sp=511008 x0=0 sctlr=${without(SA0)}`)).toBe(`x0=${PLAIN_BYTE}`);
  });

  it('ldr x0, [x1]: only SP is checked', () => {
    expect(run('ldrb w0, [x1]', 'x1=511008 x0=0')).toBe(`x0=${PLAIN_BYTE}`);
  });
});

describe('alignment', () => {
  it.each([
    ['ldxr x0, [x1]', '511004', '21'],
    ['ldaxp w0, w2, [x1]', '511004', '21'],
    ['ldar w0, [x1]', '511002', '21'],
    ['ldaprh w0, [x1]', '511001', '21'],
    ['ldapur x0, [x1, #4]', '511000', '21'],
    ['stlr w0, [x1]', '511002', '61'],
    ['stlurh w0, [x1, #1]', '511000', '61'],
    ['stxr w2, x0, [x1]', '511004', '61'],
    ['swp x0, x2, [x1]', '511004', '21'],
    ['ldadd w0, w2, [x1]', '511002', '21'],
    ['casp x2, x3, x4, x5, [x1]', '511008', '21'],
  ])('%s at %s: no FEAT_LSE2, an alignment fault inside 16 bytes too', (code, address, status) => {
    const far = code.includes('#')
      ? Number.parseInt(address, 16) + Number(code.match(/#(\d)/)![1])
      : 0;
    const expected = far === 0 ? address : far.toString(16);
    expect(run(code, `x1=${address}`)).toBe(`${STOPPED} ${READ}${status} far=${expected}`);
  });

  it.each([
    ['ldr x0, [x1]', '511004'],
    ['ldp x0, x2, [x1]', '511004'],
    ['ld1 {v0.2d}, [x1]', '511004'],
  ])('%s at %s: SCTLR_EL1.A = 1, an alignment fault', (code, address) => {
    expect(run(code, `x1=${address} sctlr=${aligned}`)).toBe(`${STOPPED} ${READ}21 far=${address}`);
  });

  it.each([
    ['ldp w0, w2, [x1]', '511004'],
    ['ld1 {v0.16b}, [x1]', '511001'],
    ['ld1 {v0.b}[3], [x1]', '511001'],
  ])('%s at %s: SCTLR_EL1.A = 1, its elements are aligned', (code, address) => {
    expect(run(code, `x1=${address} sctlr=${aligned}`)).not.toContain('esr');
  });
});

describe('Tag Checked accesses', () => {
  it.each(['ldapur x0, [x1]', 'stlur x0, [x1]', 'ld4 {v0.16b-v3.16b}, [x1]', 'ldr x0, [x1, xzr]'])(
    '%s with another tag: a tag check fault',
    (code) => {
      expect(run(code, `x1=${OTHER_TAG}`)).toMatch(
        new RegExp(`esr=920000(11|51) far=${OTHER_TAG}$`),
      );
    },
  );

  it('ldr x0, [sp, xzr]: a register offset is checked with SP too', () => {
    expect(run('ldr x0, [sp, xzr]', `sp=${OTHER_TAG}`)).toContain('esr=92000011');
  });

  it.each(['ldr x0, [sp]', 'ldapur x0, [sp]', 'swp x0, x2, [sp]', 'ld1 {v0.16b}, [sp]'])(
    '%s with another tag: SP without writeback is Tag Unchecked',
    (code) => {
      expect(run(code, `sp=${OTHER_TAG}`)).not.toContain('esr');
    },
  );

  it('prfm: nothing is accessed, and nothing faults', () => {
    expect(run('prfm pldl1keep, [x1]', 'x1=520000')).toBe('');
  });
});

describe('allocation tag access off (HCR_EL2.ATA = 0)', () => {
  it.each([
    ['irg x0, x1', 'x0=521000'],
    ['addg x0, x1, #16, #1', 'x0=521010'],
    ['ldg x1, [x1]', 'x1=521000'],
    ['gmi x0, x2, xzr', 'x0=8'],
    ['stg x1, [x1]', ''],
    ['ldrb w0, [x1]', `x0=${TAGGED_BYTE}`],
  ])('%s: tags are 0, tag stores ignored, nothing is checked', (code, changes) => {
    expect(run(code, `mte=0 x0=1 x1=${OTHER_TAG} x2=300000000000000`)).toBe(changes);
  });

  it('stzg: data is zeroed all the same', () => {
    expect(run('stzg x1, [x1]', `mte=0 x1=${OTHER_TAG}`)).toMatch(/^m521000=0+$/);
  });

  it('stg to a read-only page: faults although the store would be ignored', () => {
    expect(run('stg x1, [x1]', 'mte=0 x1=523000')).toBe(`${STOPPED} ${READ}4f far=523000`);
  });
});

describe('DC ZVA', () => {
  it.each(['dc zva, x1', 'dc gva, x1', 'dc gzva, x1'])(
    '%s at EL0 with SCTLR_EL1.DZE = 0: trapped to EL1',
    (code) => {
      const changes = run(code, `x1=511000 sctlr=${without(DZE)}`);
      expect(changes).toMatch(/^pc=500800 esr=62/);
    },
  );

  it('dc zva at EL1: SCTLR_EL1.DZE does not matter', () => {
    expect(run('dc zva, x1', `x1=511000 el=1 sctlr=${without(DZE)}`)).toMatch(/^m511000=0+$/);
  });

  it('a fault reports the address as it was given', () => {
    expect(run('dc zva, x1', 'x1=514033')).toBe(`${STOPPED} ${READ}47 far=514033`);
  });
});
