/**
 * Where the engine and QEMU 10 differ on purpose: QEMU departs from the Arm ARM, or the
 * architecture leaves a choice. Each difference has a name, the rows it concerns and what becomes
 * of QEMU's answer; nothing else may differ. Read by `golden.test.ts`.
 */
import { disassemble } from '../../src/arm/a64/text.ts';
import type { GoldenVector } from './golden-state.ts';

type Changes = ReadonlyMap<string, string>;

export interface Exception {
  readonly name: string;
  readonly rows: RegExp;
  /**
   * What the vector should have recorded, given what the engine does; undefined where this
   * exception does not speak about it.
   */
  readonly correct: (
    recorded: Changes,
    actual: Changes,
    vector: GoldenVector,
  ) => Map<string, string> | undefined;
}

const WNR = 0x40;
const DFSC = 0x3f;
const TAG_CHECK = 0x11;
const ALIGNMENT = 0x21;
/** DFSC without the level. */
const PERMISSION = 3;

const syndrome = (changes: Changes): number | undefined => {
  const text = changes.get('esr');
  return text === undefined ? undefined : Number.parseInt(text, 16);
};

const isTagFault = (changes: Changes): boolean =>
  changes.get('fault')?.startsWith('segv.9') === true ||
  ((syndrome(changes) ?? 0) & DFSC) === TAG_CHECK;

const isAlignmentFault = (changes: Changes): boolean =>
  changes.get('fault')?.startsWith('bus.1') === true ||
  ((syndrome(changes) ?? 0) & DFSC) === ALIGNMENT;

const isPermissionFault = (changes: Changes): boolean =>
  changes.get('fault')?.startsWith('segv.2') === true ||
  ((syndrome(changes) ?? 0) & DFSC) >> 2 === PERMISSION;

const faults = (changes: Changes): boolean => changes.has('fault') || changes.has('esr');

/** `recorded` with the bits of WnR changed. */
function withWrite(recorded: Changes, write: boolean): Map<string, string> | undefined {
  const esr = syndrome(recorded);
  if (esr === undefined) return undefined;
  const value = write ? esr | WNR : esr & ~WNR;
  return new Map(recorded).set('esr', (value >>> 0).toString(16));
}

/** What an instruction that faults leaves behind, of the kind that some of its accesses may do. */
const withoutData = (changes: Changes): Map<string, string> =>
  new Map([...changes].filter(([key]) => !/^[vm]/.test(key)));

const ATOMICS = /^(CAS|SWP|LD(ADD|CLR|EOR|SET|[SU]MAX|[SU]MIN))/;
const SEVERAL = /^(LD|ST)([1-4](R|_)|N?P_)/;

export const exceptions: readonly Exception[] = [
  {
    name: 'LDAPUR, STLUR: Tag Checked unless the base is SP; QEMU does not check',
    rows: /^(LDAPU|STLU)R/,
    correct: (_, actual) =>
      isTagFault(actual) || actual.has('tfsr') || actual.has('tfsre0')
        ? new Map(actual)
        : undefined,
  },
  {
    name: 'LD3, LD4, ST3, ST4 and long LD1, ST1: QEMU checks the tags of 32 bytes at most',
    rows: /^(LD|ST)[1-4]_multiple_[34]/,
    correct: (recorded, actual, vector) =>
      isTagFault(actual) && !faults(recorded) && /16b|8h|4s|2d/.test(disassemble(vector.words[0]!)!)
        ? new Map(actual)
        : undefined,
  },
  {
    name: 'several accesses: those before the one that faults may be performed; here none is',
    rows: SEVERAL,
    correct: (recorded) => (faults(recorded) ? withoutData(recorded) : undefined),
  },
  {
    name: 'several accesses: translation of all comes before tag checks; QEMU goes one by one',
    rows: SEVERAL,
    correct: (recorded, actual) =>
      isTagFault(recorded) && faults(actual) && !isTagFault(actual) ? new Map(actual) : undefined,
  },
  {
    name: 'store-exclusive: faults come before the monitor; QEMU asks the monitor first',
    rows: /^STX[RP]/,
    correct: (recorded, actual) =>
      faults(actual) && !faults(recorded) ? new Map(actual) : undefined,
  },
  {
    name: 'atomics: WnR is 0 where a read would fault too; QEMU always reports a write',
    rows: ATOMICS,
    correct: (recorded, actual) =>
      ((syndrome(actual) ?? WNR) & WNR) === 0 ? withWrite(recorded, false) : undefined,
  },
  {
    name: 'atomics: they read, so asymmetric tag checks fault; QEMU takes CAS for a write',
    rows: /^CAS/,
    correct: (recorded, actual, vector) =>
      vector.inputs.get('tcf') === '3' && isTagFault(actual) && !faults(recorded)
        ? new Map(actual)
        : undefined,
  },
  {
    name: 'atomics: permission comes before tags; QEMU checks the tag as if it only read',
    rows: ATOMICS,
    correct: (recorded, actual) =>
      isTagFault(recorded) && isPermissionFault(actual) ? new Map(actual) : undefined,
  },
  {
    name: 'load-exclusive: an alignment fault is that of a read; QEMU reports a write',
    rows: /^(LD|ST)X[RP]/,
    correct: (recorded, actual) =>
      isAlignmentFault(recorded) && ((syndrome(actual) ?? WNR) & WNR) === 0
        ? withWrite(recorded, false)
        : undefined,
  },
  {
    name: 'DC ZVA: a write, so WnR is 1, asymmetric checks do not fault; QEMU takes it for a read',
    rows: /^DC_ZVA$/,
    correct(recorded, actual, vector) {
      if (!isTagFault(recorded)) return undefined;
      if (vector.inputs.get('tcf') === '3')
        return actual.has('tfsr') || actual.has('tfsre0') ? new Map(actual) : undefined;
      // Which address of the block is reported is IMPLEMENTATION DEFINED.
      return withWrite(recorded, true)?.set('far', actual.get('far') ?? '');
    },
  },
];

/** What a vector should have recorded, all exceptions considered. */
export function corrected(row: string, vector: GoldenVector, actual: Changes): Changes {
  let changes: Changes = vector.changes;
  for (const { rows, correct } of exceptions) {
    if (rows.test(row)) changes = correct(changes, actual, vector) ?? changes;
  }
  return changes;
}
