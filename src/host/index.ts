/** The host floor: pages, address spaces, files and the host itself. Used by `kvm/` and `vmm/`. */
export { AddressSpace, type MmuNotifier, type UserPage } from './address-space.ts';
export { type Area, type Backing, VmFlag } from './area.ts';
export { BuddyAllocator, MAX_ORDER } from './buddy.ts';
export * from './errno.ts';
export { EventFd, type EventFdWatcher } from './eventfd.ts';
export {
  DEV_ZERO,
  type DeviceFile,
  type DeviceMemoryType,
  type MappableFile,
  ShmemFile,
} from './file.ts';
export { defaultCpu, Host, type HostCpu, type HostStatistics } from './host.ts';
export { type MergeResult, mergePass } from './ksm.ts';
export { Madvise, MapFlag, type MmapRequest, Prot, TASK_SIZE } from './mmap.ts';
export { MremapFlag, type MremapRequest } from './mremap.ts';
export { BLOCK_ORDER, PACKED_TAG_BYTES, PageFrames, TAG_GRANULES } from './page.ts';
export {
  type HostPolicy,
  linux,
  linux61Host,
  SWAP_TAG_RULES,
  type SwapTags,
  smallPages,
} from './policy.ts';
export {
  type ProcessImage,
  restoreProcess,
  type SavedArea,
  type SavedFile,
  type SavedPage,
  saveProcess,
} from './process-image.ts';
export {
  type Iovec,
  type MemtagSegment,
  memtagSegments,
  NT_ARM_TAGGED_ADDR_CTRL,
  PT_AARCH64_MEMTAG_MTE,
  PtraceRequest,
  ptraceGetRegset,
  ptraceMteTags,
} from './ptrace.ts';
export { Swap, type SwapStatistics } from './swap.ts';
export {
  FileSwapDevice,
  MemorySwapDevice,
  SimulatedSwapDevice,
  type SwapDevice,
  type SwapFaults,
  type SwapFileAccess,
} from './swap-device.ts';
export {
  type MemorySignal,
  PR_MTE_TAG_SHIFT,
  PR_MTE_TCF_ASYNC,
  PR_MTE_TCF_SYNC,
  PR_TAGGED_ADDR_ENABLE,
  type TagCheckMode,
  UserMemory,
} from './user-memory.ts';
export {
  type MissingHandler,
  type PageContent,
  Userfault,
  type UserfaultCopy,
  type UserfaultEvent,
  type UserfaultStatistics,
} from './userfault.ts';
