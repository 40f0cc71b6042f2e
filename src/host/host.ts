/**
 * The host: the kernel that owns the machine's memory. It holds the page frames, the shared zero
 * page and what the host's CPUs offer a hypervisor; processes and virtual machines are made from
 * it. It runs no code of its own.
 */

import { features } from '../arm/sysreg/index.ts';
import { assert, PAGE_SIZE, type Pa } from '../base/index.ts';
import type { PhysicalMemory } from '../machine/memory.ts';
import { AddressSpace } from './address-space.ts';
import { Errno, type Refusal, refuse } from './errno.ts';
import { type DeviceFile, ShmemFile } from './file.ts';
import { PageFrames } from './page.ts';
import { type HostPolicy, linux, SWAP_TAG_RULES, type SwapTagRules } from './policy.ts';
import { Reclaimer } from './reclaim.ts';
import { Swap } from './swap.ts';
import type { SwapDevice } from './swap-device.ts';

/** What the host's CPUs have that only a hypervisor sees or may hide. */
export interface HostCpu {
  /** FEAT_MTE2: PROT_MTE and KVM_CAP_ARM_MTE exist. */
  readonly mte: boolean;
  /** FEAT_MTE_PERM: stage 2 can withhold the tags of memory. No guest is told of it. */
  readonly mtePerm: boolean;
  /** FEAT_S2FWB: stage 2 can force Write-Back over what stage 1 says. */
  readonly fwb: boolean;
  /** Physical address bits (ID_AA64MMFR0_EL1.PARange). */
  readonly paBits: number;
}

/** The CPU that `arm/sysreg` describes, with FEAT_S2FWB and FEAT_MTE_PERM. */
export const defaultCpu: HostCpu = {
  mte: features.MTE2,
  mtePerm: features.MTE2,
  fwb: true,
  paBits: features.paBits,
};

/** Frames that a host with swap keeps free, at most a sixteenth of memory. */
const RESERVE_FRAMES_MAX = 64;

export interface HostStatistics {
  /** Writes of table entries that had to look for saved tags; see `SwapTags`. */
  tagLookCount: number;
}

export class Host {
  readonly memory: PhysicalMemory;
  readonly frames: PageFrames;
  readonly policy: HostPolicy;
  readonly cpu: HostCpu;
  /** The page that reads of untouched anonymous memory see; its tags are valid and 0. */
  readonly zeroPage: Pa;
  /** Processes that exist, in order of making. */
  readonly processes = new Set<AddressSpace>();
  readonly statistics: HostStatistics = { tagLookCount: 0 };
  readonly swapTags: SwapTagRules;
  readonly #reclaimer = new Reclaimer(this);
  #swap: Swap | undefined;

  constructor(options: {
    memory: PhysicalMemory;
    policy?: HostPolicy;
    cpu?: Partial<HostCpu>;
  }) {
    this.memory = options.memory;
    this.policy = options.policy ?? linux;
    this.swapTags = SWAP_TAG_RULES[this.policy.swapTags];
    this.cpu = { ...defaultCpu, ...options.cpu };
    this.frames = new PageFrames(options.memory);
    const zeroPage = this.frames.allocateZeroed();
    assert(zeroPage !== -1, 'a host has at least 2 MiB of DRAM');
    this.frames.initialiseTags(zeroPage, PAGE_SIZE);
    this.zeroPage = zeroPage;
  }

  /** A process without memory. Linux: the mm of a new task. */
  createProcess(): AddressSpace {
    return new AddressSpace(this);
  }

  /**
   * A shared-memory file of `sizeBytes`, made of 2 MiB pages with `hugetlb`. Linux: memfd_create().
   */
  createMemfd(sizeBytes: number, options: { hugetlb?: boolean } = {}): ShmemFile {
    return new ShmemFile(this, { sizeBytes, ...options });
  }

  /**
   * Memory that cannot hold tags, as files that can be mapped, one a zone: what /dev/pmem or a DAX
   * file system on it gives. The host keeps no frames for it (Linux: ZONE_DEVICE).
   */
  pmemFiles(): DeviceFile[] {
    return this.memory.zones
      .filter(({ kind }) => kind === 'no-tags')
      .map(({ base, sizeBytes }) => ({ kind: 'device', base, sizeBytes, memoryType: 'Normal-WB' }));
  }

  /** Where pages go when memory is short, once `swapOn` was called. */
  get swap(): Swap | undefined {
    return this.#swap;
  }

  /** Begins to use a swap device. EBUSY: there is one. Linux: swapon(), for one device. */
  swapOn(device: SwapDevice): Swap | Refusal {
    if (this.#swap !== undefined) return refuse(Errno.EBUSY);
    this.#swap = new Swap(this.frames, device);
    const frameCount = this.memory.layout.ramBytes / PAGE_SIZE;
    this.frames.reserveCount = Math.min(RESERVE_FRAMES_MAX, Math.floor(frameCount / 16));
    this.frames.onShortage = () => this.reclaim(this.frames.reserveCount);
    return this.#swap;
  }

  /** Pages out until `pageCount` frames are freed; returns how many were, 0 without swap. */
  reclaim(pageCount: number): number {
    return this.#reclaimer.reclaim(pageCount);
  }
}
