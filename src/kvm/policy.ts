/**
 * How KVM behaves where Linux versions differ and where its developers have argued, as values with
 * names; the default is what Linux 6.12 does. A policy is asked by the mechanisms (`vm.ts`,
 * `fault.ts`, `mte.ts`); nothing else knows versions or alternatives.
 */
import { type Area, VmFlag } from '../host/index.ts';

/** The Linux whose rules hold where nothing else is chosen. */
export const LINUX_VERSIONS = ['6.12', '6.1'] as const;
export type LinuxVersion = (typeof LINUX_VERSIONS)[number];

/**
 * Who makes the pages of an MTE guest taggable. `transparent` (upstream): the hypervisor, when the
 * guest faults them in; a VMM without a PROT_MTE mapping reads tags of 0 there. `require-prot-mte`:
 * the VMM, which is refused a slot (EINVAL) or a fault (EFAULT) over memory that it has not mapped
 * PROT_MTE.
 */
export const TAGGING = ['transparent', 'require-prot-mte'] as const;
export type Tagging = (typeof TAGGING)[number];

/**
 * What an MTE guest gets where the VMM maps memory that cannot hold tags (persistent memory, device
 * memory). `reject` (upstream): a slot is refused (EINVAL), and so is a fault on what was mapped
 * later (EFAULT). `device`: the memory, uncached. `no-tag-access`: the memory, cached; an access to
 * its tags exits to the VMM (FEAT_MTE_PERM). `unchecked`: the memory, cached, and at a tag access
 * whatever the memory then does.
 */
export const UNTAGGABLE = ['reject', 'device', 'no-tag-access', 'unchecked'] as const;
export type Untaggable = (typeof UNTAGGABLE)[number];

export interface KvmPolicyChoice {
  readonly linux?: LinuxVersion;
  readonly tagging?: Tagging;
  readonly untaggable?: Untaggable;
}

export interface KvmPolicy {
  readonly name: string;
  readonly tagging: Tagging;
  readonly untaggable: Untaggable;
  /** Whether a VM with MTE may use what `area` maps as guest memory. */
  mteMappingAllowed(area: Area): boolean;
  /** How an MTE guest sees memory that cannot hold tags. */
  readonly untaggableMemory: 'refuse' | 'normal' | 'device' | 'no-tag-access';
  /** The longest range KVM_ARM_MTE_COPY_TAGS takes, in bytes. */
  readonly copyTagsBytesMax: number;
  /** Whether a page whose new tags could not all be read is left with tags of 0, or with a part. */
  readonly copyTagsClearsOnFailure: boolean;
  /** Whether a VMA can let a guest map device memory Normal Non-cacheable. */
  readonly allowAnyUncached: boolean;
}

type VersionRules = Omit<KvmPolicy, 'name' | 'tagging' | 'untaggable' | 'untaggableMemory'>;

const has = (area: Area, flag: number): boolean => (area.flags & flag) !== 0;

const VERSIONS: Readonly<Record<LinuxVersion, VersionRules>> = {
  /** What counts is whether the mapping could be PROT_MTE (VM_MTE_ALLOWED). */
  '6.12': {
    mteMappingAllowed: (area) => has(area, VmFlag.mteAllowed),
    copyTagsBytesMax: 0x7fff_ffff,
    copyTagsClearsOnFailure: true,
    allowAnyUncached: true,
  },
  /** An MTE VM takes any private mapping, and no shared one. */
  '6.1': {
    mteMappingAllowed: (area) => !has(area, VmFlag.shared),
    copyTagsBytesMax: Number.POSITIVE_INFINITY,
    copyTagsClearsOnFailure: false,
    allowAnyUncached: false,
  },
};

const UNTAGGABLE_MEMORY: Readonly<Record<Untaggable, KvmPolicy['untaggableMemory']>> = {
  reject: 'refuse',
  device: 'device',
  'no-tag-access': 'no-tag-access',
  unchecked: 'normal',
};

/** The policy of these choices; those not made are upstream's. */
export function kvmPolicy(choice: KvmPolicyChoice = {}): KvmPolicy {
  const { linux = '6.12', tagging = 'transparent', untaggable = 'reject' } = choice;
  const version = VERSIONS[linux];
  const chosen = { tagging, untaggable };
  return {
    ...version,
    ...chosen,
    name: nameOf(linux, chosen),
    untaggableMemory: UNTAGGABLE_MEMORY[untaggable],
    mteMappingAllowed: (area) => {
      if (!has(area, VmFlag.mteAllowed) && untaggable !== 'reject') return true;
      const tagged = tagging === 'transparent' || has(area, VmFlag.mte);
      return tagged && version.mteMappingAllowed(area);
    },
  };
}

/** The policy with a `name`, as a saved machine keeps it; undefined where there is none. */
export function kvmPolicyNamed(name: string): KvmPolicy | undefined {
  for (const linux of LINUX_VERSIONS) {
    for (const tagging of TAGGING) {
      for (const untaggable of UNTAGGABLE) {
        if (nameOf(linux, { tagging, untaggable }) === name) {
          return kvmPolicy({ linux, tagging, untaggable });
        }
      }
    }
  }
  return undefined;
}

/** `linux-6.12`, then what differs from it. */
function nameOf(linux: LinuxVersion, chosen: { tagging: Tagging; untaggable: Untaggable }): string {
  const parts = [`linux-${linux}`];
  if (chosen.tagging !== 'transparent') parts.push(`tagging=${chosen.tagging}`);
  if (chosen.untaggable !== 'reject') parts.push(`untaggable=${chosen.untaggable}`);
  return parts.join(',');
}

/** Upstream Linux 6.12. */
export const linux612: KvmPolicy = kvmPolicy();
/** Linux 6.1. */
export const linux61: KvmPolicy = kvmPolicy({ linux: '6.1' });

/**
 * A policy that cannot be understood, in one sentence with the word at fault and what would fit.
 */
export class KvmPolicyError extends Error {
  override readonly name = 'KvmPolicyError';
  readonly code = 'policy';
}

const KEYS = { linux: LINUX_VERSIONS, tagging: TAGGING, untaggable: UNTAGGABLE } as const;
const KEY_LIST = Object.keys(KEYS).join(', ');

/**
 * A policy as people write it: `tagging=require-prot-mte,untaggable=device`, keys in any order,
 * each at most once; the empty text is upstream's. Throws KvmPolicyError.
 */
export function parseKvmPolicy(text: string): KvmPolicy {
  const choice: Record<string, string> = {};
  for (const part of text.split(',').map((word) => word.trim())) {
    if (part === '' && text.trim() === '') continue;
    const [key = '', value, ...rest] = part.split('=');
    if (value === undefined || rest.length > 0) {
      throw new KvmPolicyError(`policy '${part}' is not of the form KEY=VALUE (keys: ${KEY_LIST})`);
    }
    const values: readonly string[] | undefined = isKey(key) ? KEYS[key] : undefined;
    if (values === undefined) {
      throw new KvmPolicyError(`policy '${part}': there is no key '${key}', only ${KEY_LIST}`);
    }
    if (!values.includes(value)) {
      throw new KvmPolicyError(`policy '${part}': ${key} is one of ${values.join(', ')}`);
    }
    if (choice[key] !== undefined) {
      throw new KvmPolicyError(`policy '${part}': ${key} is given twice`);
    }
    choice[key] = value;
  }
  return kvmPolicy(choice);
}

const isKey = (key: string): key is keyof typeof KEYS => Object.hasOwn(KEYS, key);
