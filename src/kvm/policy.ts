/**
 * How KVM behaves where Linux versions differ, as values with names; `linux612` is the default. A
 * policy is asked by the mechanisms (`vm.ts`, `fault.ts`, `mte.ts`); nothing else knows versions.
 */
import { type Area, VmFlag } from '../host/index.ts';

export interface KvmPolicy {
  readonly name: string;
  /** Whether a VM with MTE may use what `area` maps as guest memory. */
  mteMappingAllowed(area: Area): boolean;
  /** Whether the tags of guest memory need pages that the host manages (no ZONE_DEVICE). */
  readonly tagsNeedOnlinePages: boolean;
  /** The longest range KVM_ARM_MTE_COPY_TAGS takes, in bytes. */
  readonly copyTagsBytesMax: number;
  /** Whether a page whose new tags could not all be read is left with tags of 0, or with a part. */
  readonly copyTagsClearsOnFailure: boolean;
  /** Whether a VMA can let a guest map device memory Normal Non-cacheable. */
  readonly allowAnyUncached: boolean;
}

/** Upstream Linux 6.12: what counts is whether the mapping could be PROT_MTE (VM_MTE_ALLOWED). */
export const linux612: KvmPolicy = {
  name: 'linux-6.12',
  mteMappingAllowed: (area) => (area.flags & VmFlag.mteAllowed) !== 0,
  tagsNeedOnlinePages: false,
  copyTagsBytesMax: 0x7fff_ffff,
  copyTagsClearsOnFailure: true,
  allowAnyUncached: true,
};

/** Linux 6.1: an MTE VM takes any private mapping, and no shared one. */
export const linux61: KvmPolicy = {
  name: 'linux-6.1',
  mteMappingAllowed: (area) => (area.flags & VmFlag.shared) === 0,
  tagsNeedOnlinePages: true,
  copyTagsBytesMax: Number.POSITIVE_INFINITY,
  copyTagsClearsOnFailure: false,
  allowAnyUncached: false,
};
