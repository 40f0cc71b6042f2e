/** The text of the summary. */
import { describe, expect, it } from 'vitest';
import type { MachineOutcome } from '../vmm/machine-options.ts';
import { summaryLines } from './summary.ts';

const outcome: MachineOutcome = {
  reason: 'power-off',
  statistics: {
    instructionCount: 840_123_456n,
    executedCount: 840_123_456n,
    wallMilliseconds: 12_000,
    exitsByReason: { wfi: 30, mmio: 25_000, hvc: 30, none: 0 },
    stage2FaultCount: 8123,
    taggedPageCount: 77,
  },
};

describe('summaryLines', () => {
  it('summaryLines: a run, every figure', () => {
    expect(summaryLines(outcome)).toEqual([
      'granule: the guest powered off',
      '  guest instructions  840,123,456',
      '  wall time           12.00 s',
      '  speed               70.0 MIPS',
      '  exits               25,060 (mmio 25,000, hvc 30, wfi 30)',
      '  stage-2 faults      8,123',
      '  pages tagged        77',
    ]);
  });

  it('summaryLines: nothing ran, no division by zero', () => {
    const statistics = {
      instructionCount: 0n,
      executedCount: 0n,
      wallMilliseconds: 0,
      exitsByReason: {},
      stage2FaultCount: 0,
      taggedPageCount: 0,
    };
    const lines = summaryLines({ reason: 'quit', statistics });
    expect(lines).toContain('granule: quit');
    expect(lines).toContain('  speed               0.0 MIPS');
    expect(lines).toContain('  exits               0');
  });
});
