/**
 * What a translation is asked, and what it answers: the access, the result record and the fault
 * record that `mmu.ts` fills. Callers own the records and use them again, so a walk allocates
 * nothing. `parFromTranslation` turns an answer into PAR_EL1 for the AT instructions.
 */
import { Shareability } from '../arm/memattr.ts';
import { encodeFsc, FaultType } from '../arm/syndrome.ts';
import { alignDown, type Ipa, ipa, PAGE_SIZE, type Pa, pa } from '../base/index.ts';

export { FaultType };

/** What an access does. `readWrite` is an atomic: where a read would fault too, its WnR is 0. */
export const AccessKind = { read: 0, write: 1, fetch: 2, readWrite: 3 } as const;
export type AccessKind = (typeof AccessKind)[keyof typeof AccessKind];

export interface Access {
  kind: AccessKind;
  /** Whose permissions count: LDTR and STTR at EL1 pass 0. */
  el: 0 | 1;
  /** PSTATE.PAN, for accesses with EL1's permissions; fetches ignore it. */
  pan: boolean;
  /** On behalf of an AT instruction: no dirty state is set in a descriptor. */
  at?: boolean;
}

/** Why a translation failed, with all that ESR, FAR and HPFAR report of it. */
export interface FaultRecord {
  /** `FaultType.none` after a translation that succeeded; then nothing else here counts. */
  type: FaultType;
  stage: 1 | 2;
  /** Level of the descriptor at fault, 0 … 3. */
  level: number;
  /** A stage 2 fault on the fetch or update of a stage 1 descriptor. */
  s1ptw: boolean;
  /** WnR. With `s1ptw` the direction of the walk: set only for an update of the descriptor. */
  write: boolean;
  /** The address as given, tag byte included. */
  vaHigh: number;
  vaLow: number;
  /** The IPA that stage 2 refused; for a stage 1 fault meaningless. */
  ipa: Ipa;
  /** DFSC or IFSC. */
  fsc: number;
  /** ESR_EL2.TagAccess: refused for the tags of memory that stage 2 maps NoTagAccess. */
  tagAccess?: boolean;
}

export interface Translation {
  pa: Pa;
  ipa: Ipa;
  /** PAR_EL1.ATTR of the memory, both stages combined. */
  attr: number;
  shareability: Shareability;
  /** Normal and Write-Back at both levels, the only memory a TLB entry may be made for. */
  isNormalWriteBack: boolean;
  isDevice: boolean;
  /** The stage whose type makes an unaligned access an Alignment fault, or 0: it is Normal. */
  deviceStage: 0 | 1 | 2;
  tagged: boolean;
  noTagAccess: boolean;
  /**
   * What the mapping permits at the same EL and PAN. `mayWrite` is false while a write would first
   * have to set dirty state in a descriptor.
   */
  mayRead: boolean;
  mayWrite: boolean;
  mayExecute: boolean;
  /** nG = 0: the mapping belongs to every ASID. */
  global: boolean;
  /** Bytes around `pa` that lie in one leaf at both stages; at least 4096. */
  pageBytes: number;
  readonly fault: FaultRecord;
}

/** Permission bits of a mapping at one stage. */
export const READ = 1;
export const WRITE = 2;
export const EXEC = 4;

/** What each kind of access needs. */
const NEEDS: Readonly<Record<AccessKind, number>> = [READ, WRITE, EXEC, READ | WRITE];

/**
 * The permission that `permissions` lack for an access, or 0; where an atomic lacks both it is
 * READ, so that WnR is 0.
 */
export function refusedBy(permissions: number, kind: AccessKind): number {
  const missing = NEEDS[kind] & ~permissions;
  return missing & -missing;
}

/** The address with these 32-bit halves (signed or not). */
export const fromHalves = (high: number, low: number): number => high * 4294967296 + (low >>> 0);

/** Completes a fault record whose stage, `s1ptw`, `write` and `ipa` are set; returns false. */
export function setFault(
  fault: FaultRecord,
  type: FaultType,
  level: number,
  vaHigh: number,
  vaLow: number,
): false {
  fault.type = type;
  fault.level = level;
  fault.vaHigh = vaHigh;
  fault.vaLow = vaLow;
  fault.fsc = encodeFsc(type, level);
  return false;
}

/** A fresh record to translate into. */
export function newTranslation(): Translation {
  return {
    pa: pa(0),
    ipa: ipa(0),
    attr: 0,
    shareability: Shareability.non,
    isNormalWriteBack: false,
    isDevice: false,
    deviceStage: 0,
    tagged: false,
    noTagAccess: false,
    mayRead: false,
    mayWrite: false,
    mayExecute: false,
    global: false,
    pageBytes: 4096,
    fault: {
      type: FaultType.none,
      stage: 1,
      level: 0,
      s1ptw: false,
      write: false,
      vaHigh: 0,
      vaLow: 0,
      ipa: ipa(0),
      fsc: 0,
    },
  };
}

const PAR_F = 1n;
const PAR_RES1 = 1n << 11n;

/** PAR_EL1 for the outcome in `out`, success or fault. Arm: AArch64.EncodePAR(). */
export function parFromTranslation(out: Translation): bigint {
  const { fault } = out;
  if (fault.type !== FaultType.none) {
    return (
      PAR_F |
      (BigInt(fault.fsc) << 1n) |
      (fault.s1ptw ? 1n << 8n : 0n) |
      (fault.stage === 2 ? 1n << 9n : 0n) |
      PAR_RES1
    );
  }
  const page = BigInt(alignDown(out.pa, PAGE_SIZE));
  return (BigInt(out.attr) << 56n) | page | PAR_RES1 | (BigInt(out.shareability) << 7n);
}
