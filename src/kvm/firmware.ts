/**
 * The firmware that a VM's guests see through hypercalls, as the VMM configures it: PSCI version, which
 * services exist, what the host's CPUs need against speculation attacks, and which calls go to the VMM
 * instead. Its pseudo-registers are read and written by KVM_GET_ONE_REG and KVM_SET_ONE_REG; smccc.ts
 * asks it before each call.
 * Linux: arch/arm64/kvm/hypercalls.c.
 */

import { Errno, type Refusal, refuse } from '../host/index.ts';
import {
  ARM_SMCCC_ARCH_FEATURES_FUNC_ID,
  ARM_SMCCC_HV_PV_TIME_FEATURES,
  ARM_SMCCC_HV_PV_TIME_ST,
  ARM_SMCCC_TRNG_FEATURES,
  ARM_SMCCC_TRNG_GET_UUID,
  ARM_SMCCC_TRNG_RND32,
  ARM_SMCCC_TRNG_RND64,
  ARM_SMCCC_TRNG_VERSION,
  ARM_SMCCC_VENDOR_HYP_CALL_UID_FUNC_ID,
  ARM_SMCCC_VENDOR_HYP_KVM_FEATURES_FUNC_ID,
  ARM_SMCCC_VENDOR_HYP_KVM_PTP_FUNC_ID,
  ARM_SMCCC_VERSION_FUNC_ID,
  KVM_ARM_PSCI_0_1,
  KVM_ARM_PSCI_0_2,
  KVM_ARM_PSCI_1_0,
  KVM_ARM_PSCI_1_1,
  KVM_ARM_PSCI_LATEST,
  KVM_PSCI_FN_CPU_SUSPEND,
  KVM_PSCI_FN_MIGRATE,
  KVM_REG_ARM_PSCI_VERSION,
  KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1,
  KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2,
  KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_AVAIL,
  KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_ENABLED,
  KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_NOT_AVAIL,
  KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_NOT_REQUIRED,
  KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_UNKNOWN,
  KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3,
  KVM_REG_ARM_STD_BIT_TRNG_V1_0,
  KVM_REG_ARM_STD_BMAP,
  KVM_REG_ARM_STD_HYP_BIT_PV_TIME,
  KVM_REG_ARM_STD_HYP_BMAP,
  KVM_REG_ARM_VENDOR_HYP_BIT_FUNC_FEAT,
  KVM_REG_ARM_VENDOR_HYP_BIT_PTP,
  KVM_REG_ARM_VENDOR_HYP_BMAP,
} from './uapi.ts';

/** How the host's CPUs stand against an attack. */
export type SpectreState = 'vulnerable' | 'mitigated' | 'unaffected';

export interface HostMitigations {
  readonly spectreV2: SpectreState;
  readonly spectreV4: SpectreState;
  readonly spectreBhb: SpectreState;
  /** The guest has FEAT_SSBS, and so needs no firmware against Spectre v4. */
  readonly ssbs: boolean;
}

/** A CPU with FEAT_CSV2, FEAT_CSV3 and FEAT_SSBS, and Linux's view of it. */
export const DEFAULT_MITIGATIONS: HostMitigations = {
  spectreV2: 'unaffected',
  spectreV4: 'mitigated',
  spectreBhb: 'unaffected',
  ssbs: true,
};

/** What the VMM chose to do with a range of function ids. Linux: enum kvm_smccc_filter_action. */
export const SmcccFilterAction = { HANDLE: 0, DENY: 1, FORWARD: 2 } as const;
export type SmcccFilterAction = (typeof SmcccFilterAction)[keyof typeof SmcccFilterAction];

/** Services that exist, a bit each, all on at first; one register of feature bits. */
const STD_FEATURES = 1n << BigInt(KVM_REG_ARM_STD_BIT_TRNG_V1_0);
const STD_HYP_FEATURES = 1n << BigInt(KVM_REG_ARM_STD_HYP_BIT_PV_TIME);
const VENDOR_HYP_FEATURES =
  (1n << BigInt(KVM_REG_ARM_VENDOR_HYP_BIT_FUNC_FEAT)) |
  (1n << BigInt(KVM_REG_ARM_VENDOR_HYP_BIT_PTP));

const FEATURE_REGISTERS = new Map<bigint, bigint>([
  [KVM_REG_ARM_STD_BMAP, STD_FEATURES],
  [KVM_REG_ARM_STD_HYP_BMAP, STD_HYP_FEATURES],
  [KVM_REG_ARM_VENDOR_HYP_BMAP, VENDOR_HYP_FEATURES],
]);

/** The calls that a bit of a feature register turns off: register and bit. */
const GATED_CALLS = new Map<number, readonly [bigint, number]>([
  [ARM_SMCCC_TRNG_VERSION, [KVM_REG_ARM_STD_BMAP, KVM_REG_ARM_STD_BIT_TRNG_V1_0]],
  [ARM_SMCCC_TRNG_FEATURES, [KVM_REG_ARM_STD_BMAP, KVM_REG_ARM_STD_BIT_TRNG_V1_0]],
  [ARM_SMCCC_TRNG_GET_UUID, [KVM_REG_ARM_STD_BMAP, KVM_REG_ARM_STD_BIT_TRNG_V1_0]],
  [ARM_SMCCC_TRNG_RND32, [KVM_REG_ARM_STD_BMAP, KVM_REG_ARM_STD_BIT_TRNG_V1_0]],
  [ARM_SMCCC_TRNG_RND64, [KVM_REG_ARM_STD_BMAP, KVM_REG_ARM_STD_BIT_TRNG_V1_0]],
  [ARM_SMCCC_HV_PV_TIME_FEATURES, [KVM_REG_ARM_STD_HYP_BMAP, KVM_REG_ARM_STD_HYP_BIT_PV_TIME]],
  [ARM_SMCCC_HV_PV_TIME_ST, [KVM_REG_ARM_STD_HYP_BMAP, KVM_REG_ARM_STD_HYP_BIT_PV_TIME]],
  [
    ARM_SMCCC_VENDOR_HYP_CALL_UID_FUNC_ID,
    [KVM_REG_ARM_VENDOR_HYP_BMAP, KVM_REG_ARM_VENDOR_HYP_BIT_FUNC_FEAT],
  ],
  [
    ARM_SMCCC_VENDOR_HYP_KVM_FEATURES_FUNC_ID,
    [KVM_REG_ARM_VENDOR_HYP_BMAP, KVM_REG_ARM_VENDOR_HYP_BIT_FUNC_FEAT],
  ],
  [
    ARM_SMCCC_VENDOR_HYP_KVM_PTP_FUNC_ID,
    [KVM_REG_ARM_VENDOR_HYP_BMAP, KVM_REG_ARM_VENDOR_HYP_BIT_PTP],
  ],
]);

/** PSCI 0.2 and later have the function numbers 0-31 of the standard secure services (owner 4). */
const isPsci = (functionId: number): boolean =>
  ((functionId >>> 24) & 0x3f) === 4 && (functionId & 0xffff) <= 0x1f;

/** Calls that no feature register gates. Linux: kvm_smccc_default_allowed(). */
const isAlwaysHandled = (functionId: number): boolean =>
  functionId === ARM_SMCCC_VERSION_FUNC_ID ||
  functionId === ARM_SMCCC_ARCH_FEATURES_FUNC_ID ||
  isPsci(functionId) ||
  (functionId >= KVM_PSCI_FN_CPU_SUSPEND && functionId <= KVM_PSCI_FN_MIGRATE);

interface FilterRange {
  readonly first: number;
  readonly last: number;
  readonly action: SmcccFilterAction;
}

/** The Arm architecture calls; the VMM must not answer those in KVM's place. */
const RESERVED_RANGES: readonly FilterRange[] = [
  { first: 0x8000_0000, last: 0x8000_ffff, action: SmcccFilterAction.HANDLE },
  { first: 0xc000_0000, last: 0xc000_ffff, action: SmcccFilterAction.HANDLE },
];

const LEVEL_MASK = 0xfn;

export class Firmware {
  readonly mitigations: HostMitigations;
  /** KVM_CAP_ARM_SYSTEM_SUSPEND is enabled. */
  systemSuspend = false;
  /** Version that the VMM chose, or undefined for the newest. */
  #psciVersion: number | undefined;
  readonly #features = new Map(FEATURE_REGISTERS);
  readonly #filter: FilterRange[] = [];

  constructor(mitigations: HostMitigations = DEFAULT_MITIGATIONS) {
    this.mitigations = mitigations;
  }

  /** A KVM_ARM_PSCI version. vCPUs initialised without the PSCI 0.2 feature have 0.1. */
  psciVersion(psci02: boolean): number {
    return psci02 ? (this.#psciVersion ?? KVM_ARM_PSCI_LATEST) : KVM_ARM_PSCI_0_1;
  }

  /** The feature bits of KVM_REG_ARM_VENDOR_HYP_BMAP. */
  get vendorFeatures(): bigint {
    return this.#features.get(KVM_REG_ARM_VENDOR_HYP_BMAP)!;
  }

  get hasPvTime(): boolean {
    return this.#features.get(KVM_REG_ARM_STD_HYP_BMAP) !== 0n;
  }

  /** What becomes of a call: the VMM's filter decides first, then the feature registers. */
  actionFor(functionId: number): SmcccFilterAction {
    const range = this.#filter.find(({ first, last }) => functionId >= first && functionId <= last);
    if (range !== undefined && range.action !== SmcccFilterAction.HANDLE) return range.action;
    const gate = GATED_CALLS.get(functionId);
    const allowed =
      gate === undefined
        ? isAlwaysHandled(functionId)
        : ((this.#features.get(gate[0])! >> BigInt(gate[1])) & 1n) === 1n;
    return allowed ? SmcccFilterAction.HANDLE : SmcccFilterAction.DENY;
  }

  /**
   * KVM_ARM_VM_SMCCC_FILTER: what to do with `count` function ids from `base` on. EINVAL for an unknown
   * action or a range past 2^32, EBUSY after a vCPU ran, EEXIST where ranges would overlap.
   */
  setFilter(base: number, count: number, action: number, vmHasRun: boolean): 0 | Refusal {
    const last = (base + count - 1) >>> 0;
    if (last < base || action < 0 || action > SmcccFilterAction.FORWARD) {
      return refuse(Errno.EINVAL);
    }
    if (vmHasRun) return refuse(Errno.EBUSY);
    if (this.#filter.length === 0) this.#filter.push(...RESERVED_RANGES);
    if (this.#filter.some((range) => base <= range.last && range.first <= last)) {
      return refuse(Errno.EEXIST);
    }
    this.#filter.push({ first: base, last, action: action as SmcccFilterAction });
    return 0;
  }

  /** Value of a firmware pseudo-register by its full id, or ENOENT. */
  getOneReg(id: bigint, psci02: boolean): bigint | Refusal {
    if (id === KVM_REG_ARM_PSCI_VERSION) return BigInt(this.psciVersion(psci02));
    const level = this.#workaroundLevel(id);
    if (level !== undefined) return level;
    return this.#features.get(id) ?? refuse(Errno.ENOENT);
  }

  /**
   * Sets a firmware pseudo-register. EINVAL for a version the vCPU cannot have, a workaround better
   * than the host's or unknown feature bits; EBUSY for other features once a vCPU ran; ENOENT.
   */
  setOneReg(
    id: bigint,
    value: bigint,
    vm: { readonly psci02: boolean; readonly hasRun: boolean },
  ): 0 | Refusal {
    if (id === KVM_REG_ARM_PSCI_VERSION) return this.#setPsciVersion(value, vm.psci02);
    if (this.#workaroundLevel(id) !== undefined) return this.#checkWorkaround(id, value);
    const known = FEATURE_REGISTERS.get(id);
    if (known === undefined) return refuse(Errno.ENOENT);
    if ((value & ~known) !== 0n) return refuse(Errno.EINVAL);
    if (vm.hasRun && value !== this.#features.get(id)) return refuse(Errno.EBUSY);
    this.#features.set(id, value);
    return 0;
  }

  #setPsciVersion(value: bigint, psci02: boolean): 0 | Refusal {
    const version = Number(value);
    switch (version) {
      case KVM_ARM_PSCI_0_1:
        if (psci02) return refuse(Errno.EINVAL);
        break;
      case KVM_ARM_PSCI_0_2:
      case KVM_ARM_PSCI_1_0:
      case KVM_ARM_PSCI_1_1:
        if (!psci02) return refuse(Errno.EINVAL);
        break;
      default:
        return refuse(Errno.EINVAL);
    }
    this.#psciVersion = version;
    return 0;
  }

  /** How good the host's answer to a workaround register's attack is: higher is better. */
  #workaroundLevel(id: bigint): bigint | undefined {
    const { spectreV2, spectreV4, spectreBhb, ssbs } = this.mitigations;
    switch (id) {
      case KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1:
        return levelOf(spectreV2);
      case KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2:
        if (spectreV4 === 'vulnerable' || (spectreV4 === 'mitigated' && ssbs)) {
          return BigInt(KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_NOT_AVAIL);
        }
        return BigInt(KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_NOT_REQUIRED);
      case KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3:
        return levelOf(spectreBhb);
      default:
        return undefined;
    }
  }

  /** A restored workaround register is accepted if the host is at least as good, and not kept. */
  #checkWorkaround(id: bigint, value: bigint): 0 | Refusal {
    const host = this.#workaroundLevel(id)!;
    const wanted =
      id === KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2
        ? wantedWorkaround2(value)
        : (value & ~LEVEL_MASK) === 0n
          ? value
          : undefined;
    return wanted === undefined || host < wanted ? refuse(Errno.EINVAL) : 0;
  }
}

/** NOT_AVAIL, AVAIL and NOT_REQUIRED of workarounds 1 and 3. */
const levelOf = (state: SpectreState): bigint =>
  state === 'vulnerable' ? 0n : state === 'mitigated' ? 1n : 2n;

/** The level that a value of the second workaround's register stands for, or undefined. */
function wantedWorkaround2(value: bigint): bigint | undefined {
  const enabled = BigInt(KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_ENABLED);
  const level = Number(value & LEVEL_MASK);
  if ((value & ~(LEVEL_MASK | enabled)) !== 0n) return undefined;
  if ((value & enabled) !== 0n && level !== KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_AVAIL) {
    return undefined;
  }
  switch (level) {
    case KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_NOT_AVAIL:
    case KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_UNKNOWN:
      return BigInt(KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_NOT_AVAIL);
    case KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_AVAIL:
    case KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_NOT_REQUIRED:
      return BigInt(KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_NOT_REQUIRED);
    default:
      return undefined;
  }
}
