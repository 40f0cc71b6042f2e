/** The software TLBs under running code: which VAs share an entry, which invalidation drops it. */
import { describe, expect, it, vi } from 'vitest';
import { bareCore } from '../../test/support/bare-core.ts';
import { hex } from '../base/index.ts';
import type { CoreExit } from './core.ts';
import { DRAM_BASE } from './memory.ts';

const TBI0 = 1n << 37n;
const TBI1 = 1n << 38n;
/** The start of DRAM through each half: both translate by the same table. */
const LOWER = BigInt(DRAM_BASE);
const UPPER = 0xffff_ff80_0000_0000n + LOWER;
const DATA = 0x10_0000n;
/** Offset of the level 1 descriptor for the GiB that DRAM begins. */
const DRAM_ENTRY = 8 * Math.floor(DRAM_BASE / 2 ** 30);

/** A GiB block over DRAM through both halves (39-bit VAs, 4 KiB), then `source`; aborts: hvc #1. */
const underMmu = (source: string, tbi: bigint): string => `
  adr x9, vectors
  msr vbar_el1, x9
  adr x9, tables
  msr ttbr0_el1, x9
  msr ttbr1_el1, x9
  mov x9, #0xff
  msr mair_el1, x9
  ldr x9, =${hex(0x2_b519_3519n | tbi)}
  msr tcr_el1, x9
  ldr x9, =0x30d01805
  msr sctlr_el1, x9
  isb
  ${source}
  hvc #0
  .ltorg
  .align 11
vectors:
  .space 0x200
  mrs x0, esr_el1
  hvc #1
  .align 12
tables:
  .space ${DRAM_ENTRY}
  .quad ${hex(LOWER | 0x701n)}
  .space ${4096 - 8 - DRAM_ENTRY}
`;

function run(source: string, tbi: bigint): { exit: CoreExit; x0: bigint; slow: number } {
  const { core, context } = bareCore(underMmu(source, tbi));
  const slow = vi.spyOn(core, 'slow');
  const exit = core.run(context, 10_000);
  return { exit, x0: core.u64[0]!, slow: slow.mock.calls.length };
}

const withTag = (va: bigint, tag: bigint): bigint => (va & ((1n << 56n) - 1n)) | (tag << 56n);

/** Stores through a pointer of each tag byte and loads through that of the next. */
const throughTags = (va: bigint, tags: readonly bigint[]): string =>
  tags
    .map((tag, i) => {
      const next = tags[(i + 1) % tags.length]!;
      return `
      ldr x1, =${hex(withTag(va, tag))}
      mov x2, #${i + 1}
      str x2, [x1, #${8 * i}]
      ldr x1, =${hex(withTag(va, next))}
      ldr x0, [x1, #${8 * i}]`;
    })
    .join('\n');

describe('software TLB: top byte', () => {
  const halves = [
    { half: 'lower', va: LOWER + DATA, tbi: TBI0, tags: [0n, 5n, 0xffn] },
    { half: 'upper', va: UPPER + DATA, tbi: TBI1, tags: [0xffn, 0xf3n, 0n] },
  ];
  for (const { half, va, tbi, tags } of halves) {
    for (const both of [false, true]) {
      it(`${half} half, TBI there${both ? ' and in the other' : ''}: all tags, one entry`, () => {
        const controls = both ? TBI0 | TBI1 : tbi;
        const { exit, x0, slow } = run(throughTags(va, tags), controls);
        expect(exit).toMatchObject({ immediate: 0 });
        expect(x0).toBe(3n);
        expect(slow).toBe(run(throughTags(va, tags.slice(0, 1)), controls).slow);
      });
    }

    it(`${half} half, TBI in the other only: a tag is a translation fault, entry or not`, () => {
      const other = tbi === TBI0 ? TBI1 : TBI0;
      const [canonical, tagged] = tags.map((tag) => hex(withTag(va, tag)));
      const source = `ldr x1, =${canonical}\n ldr x0, [x1]\n ldr x1, =${tagged}\n ldr x0, [x1]`;
      const { exit, x0 } = run(source, other);
      expect(exit).toMatchObject({ immediate: 1 });
      expect(x0).toBe(0x9600_0004n);
    });

    it(`${half} half, TBI there: an access over the end of a page, both pages`, () => {
      const source = `
        ldr x1, =${hex(withTag(va + 4096n, tags[1]!))}
        mov x2, #0x1234
        str x2, [x1]
        ldr x1, =${hex(withTag(va, tags[2]!))}
        ldr x0, [x1]
        add x1, x1, #3840
        ldur x0, [x1, #252]
        lsr x0, x0, #32`;
      expect(run(source, tbi)).toMatchObject({ exit: { immediate: 0 }, x0: 0x1234n });
    });
  }
});

describe('software TLB: invalidation', () => {
  /** Loads a page, moves its GiB away by the descriptor and `operation`, and loads again. */
  const remapped = (operation: string): string => `
    ldr x1, =${hex(withTag(LOWER + DATA, 5n))}
    ldr x0, [x1]
    adr x2, tables
    str xzr, [x2, #${DRAM_ENTRY}]
    dsb ish
    ${operation}
    dsb ish
    ldr x0, [x1]`;

  it('no TLBI: the entry stays', () => {
    expect(run(remapped('nop'), TBI0).exit).toMatchObject({ immediate: 0 });
  });

  for (const operation of [
    'tlbi vmalle1',
    `ldr x3, =${hex((LOWER + DATA) >> 12n)}\n tlbi vae1is, x3`,
    `ldr x3, =${hex((LOWER + DATA + 0x100_0000n) >> 12n)}\n tlbi vaae1, x3`,
  ]) {
    it(`${operation.split('\n').at(-1)!.trim()}: gone, as the block is`, () => {
      // The code and the vectors went with it.
      expect(run(remapped(operation), TBI0).exit.kind).toBe('budget');
    });
  }
});
