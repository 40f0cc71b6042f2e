/**
 * KVM's public face, what a process reaches through /dev/kvm: the descriptors with their calls, the
 * numbers and structures of the user interface, and the policies a VM may be made with.
 */
export { type ClockState, InstructionClock, type MachineClock, WallClock } from './clock.ts';
export { copyTagsIoctl, KVM_ARM_MTE_COPY_TAGS } from './copy-tags-ioctl.ts';
export { COUNTER_FREQUENCY_HZ } from './counter.ts';
export { Kvm, type KvmOptions } from './kvm.ts';
export type { KvmVm, KvmVmOptions, VmObserver } from './kvm-vm.ts';
export type { KvmArmCopyMteTags } from './mte.ts';
export {
  type KvmPolicy,
  type KvmPolicyChoice,
  KvmPolicyError,
  kvmPolicy,
  kvmPolicyNamed,
  LINUX_VERSIONS,
  linux61,
  linux612,
  parseKvmPolicy,
  TAGGING,
  UNTAGGABLE,
} from './policy.ts';
export { KVM_CAP_ARM_MTE_TAG_LOG, type KvmArmReadTagLog } from './tag-log.ts';
export * from './uapi.ts';
export type { Vcpu, VcpuExit, VcpuStatistics } from './vcpu.ts';
export type { VgicDevice } from './vgic/device.ts';
export type { KvmClearDirtyLog, KvmUserspaceMemoryRegion } from './vm.ts';
