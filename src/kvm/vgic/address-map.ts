/**
 * Where the VMM puts the VGIC's frames: one distributor, and redistributors either in one region
 * that grows with the vCPUs or in numbered regions of a fixed size, which the vCPUs fill in order.
 * Called by device.ts for the attributes of KVM_DEV_ARM_VGIC_GRP_ADDR.
 *
 * Addresses come from the VMM unchecked and are 64-bit, hence bigint here.
 * Linux: kvm_vgic_addr(), vgic_v3_alloc_redist_region(), vgic_v3_check_base().
 */

import { ipa } from '../../base/index.ts';
import { Errno, type Refusal, refuse } from '../../host/index.ts';
import {
  KVM_VGIC_V3_ADDR_TYPE_DIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION,
  KVM_VGIC_V3_DIST_SIZE,
  KVM_VGIC_V3_REDIST_SIZE,
} from '../uapi.ts';
import type { VgicPlaces } from './vgic.ts';

/** What an address reads as before it is set. Linux: VGIC_ADDR_UNDEF. */
const UNDEFINED_ADDRESS = (1n << 64n) - 1n;
const FRAME_ALIGNMENT = 0x1_0000n;
const DISTRIBUTOR_BYTES = BigInt(KVM_VGIC_V3_DIST_SIZE);
const REDISTRIBUTOR_BYTES = BigInt(KVM_VGIC_V3_REDIST_SIZE);

/**
 * Fields of KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION: count 63:52, base 51:16, flags 15:12, index 11:0.
 */
const REGION_COUNT_SHIFT = 52n;
const REGION_BASE_MASK = 0xf_ffff_ffff_0000n;
const REGION_FLAGS_MASK = 0xf000n;
/** (quirk) Of the index's twelve bits Linux keeps eight. */
const REGION_INDEX_MASK = 0xffn;

interface Region {
  readonly index: number;
  readonly base: bigint;
  /** Redistributors it has room for; 0 for the one that has as many as there are vCPUs. */
  readonly count: number;
}

export class AddressMap {
  readonly #vm: { readonly ipaBits: number; readonly vcpuCount: number };
  #distributor: bigint | undefined;
  readonly #regions: Region[] = [];

  constructor(vm: { readonly ipaBits: number; readonly vcpuCount: number }) {
    this.#vm = vm;
  }

  /** The addresses that are set, for the running VGIC. */
  get places(): VgicPlaces {
    return {
      distributorBase: this.#distributor === undefined ? undefined : ipa(Number(this.#distributor)),
      redistributors: this.#regions.map((region) => ({
        base: ipa(Number(region.base)),
        count: region.count === 0 ? this.#vm.vcpuCount : region.count,
      })),
    };
  }

  has(attribute: bigint): 0 | Refusal {
    switch (Number(attribute)) {
      case KVM_VGIC_V3_ADDR_TYPE_DIST:
      case KVM_VGIC_V3_ADDR_TYPE_REDIST:
      case KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION:
        return 0;
      default:
        return refuse(Errno.ENXIO);
    }
  }

  /**
   * An address; for a region, `value` names it. ENXIO for an unknown attribute, ENOENT for a
   * region.
   */
  get(attribute: bigint, value: bigint): bigint | Refusal {
    switch (Number(attribute)) {
      case KVM_VGIC_V3_ADDR_TYPE_DIST:
        return this.#distributor ?? UNDEFINED_ADDRESS;
      case KVM_VGIC_V3_ADDR_TYPE_REDIST:
        return this.#regions[0]?.base ?? UNDEFINED_ADDRESS;
      case KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION: {
        const index = Number(value & REGION_INDEX_MASK);
        const region = this.#regions.find((candidate) => candidate.index === index);
        if (region === undefined) return refuse(Errno.ENOENT);
        return (BigInt(region.count) << REGION_COUNT_SHIFT) | region.base | BigInt(index);
      }
      default:
        return refuse(Errno.ENXIO);
    }
  }

  /**
   * Sets an address. EEXIST where it is set, EINVAL where it is misaligned, wraps or overlaps,
   * E2BIG outside the IPA space, ENXIO for an unknown attribute.
   */
  set(attribute: bigint, value: bigint): 0 | Refusal {
    switch (Number(attribute)) {
      case KVM_VGIC_V3_ADDR_TYPE_DIST: {
        if (this.#distributor !== undefined) return refuse(Errno.EEXIST);
        const refusal = this.#checkRange(value, DISTRIBUTOR_BYTES);
        if (refusal === 0) this.#distributor = value;
        return refusal;
      }
      case KVM_VGIC_V3_ADDR_TYPE_REDIST:
        return this.#addRegion({ index: 0, base: value, count: 0 });
      case KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION: {
        const count = Number(value >> REGION_COUNT_SHIFT);
        if (count === 0 || (value & REGION_FLAGS_MASK) !== 0n) return refuse(Errno.EINVAL);
        const index = Number(value & REGION_INDEX_MASK);
        return this.#addRegion({ index, base: value & REGION_BASE_MASK, count });
      }
      default:
        return refuse(Errno.ENXIO);
    }
  }

  #addRegion(region: Region): 0 | Refusal {
    const refusal = this.#checkRegion(region);
    if (refusal !== 0) return refusal;
    const hadRoom = this.#hasRoomFor(this.#vm.vcpuCount - 1);
    this.#regions.push(region);
    // The vCPUs that had no redistributor yet get one, and only then are all frames compared.
    if (this.#vm.vcpuCount > 0 && !hadRoom && !this.#isConsistent()) {
      this.#regions.pop();
      return refuse(Errno.EINVAL);
    }
    return 0;
  }

  #checkRegion(region: Region): 0 | Refusal {
    const size = this.#sizeOf(region);
    const last = this.#regions.at(-1);
    if (wraps(region.base, size)) return refuse(Errno.EINVAL);
    if (last === undefined) {
      if (region.index !== 0) return refuse(Errno.EINVAL);
    } else if (region.count === 0) {
      return refuse(last.count !== 0 ? Errno.EINVAL : Errno.EEXIST);
    } else if (region.index !== last.index + 1) {
      return refuse(Errno.EINVAL);
    }
    const distributor = region.count === 0 ? this.#distributor : undefined;
    if (distributor !== undefined) {
      const range = { base: distributor, size: DISTRIBUTOR_BYTES };
      if (overlap(range, { base: region.base, size })) return refuse(Errno.EINVAL);
    }
    if (this.#meetsRegion(region.base, size)) return refuse(Errno.EINVAL);
    return this.#checkRange(region.base, size);
  }

  /** Linux: vgic_check_iorange(). */
  #checkRange(base: bigint, size: bigint): 0 | Refusal {
    if (base % FRAME_ALIGNMENT !== 0n || wraps(base, size)) return refuse(Errno.EINVAL);
    const end = 1n << BigInt(this.#vm.ipaBits);
    return base >= end || base + size > end ? refuse(Errno.E2BIG) : 0;
  }

  #sizeOf({ count }: Region): bigint {
    return BigInt(count === 0 ? this.#vm.vcpuCount : count) * REDISTRIBUTOR_BYTES;
  }

  #meetsRegion(base: bigint, size: bigint): boolean {
    return this.#regions.some((region) =>
      overlap({ base, size }, { base: region.base, size: this.#sizeOf(region) }),
    );
  }

  /** Whether the regions hold a redistributor for this vCPU. */
  #hasRoomFor(vcpu: number): boolean {
    let room = 0;
    for (const { count } of this.#regions) {
      if (count === 0) return true;
      room += count;
    }
    return vcpu < room;
  }

  /** No frame is out of bounds, and the redistributors stay clear of the distributor. */
  #isConsistent(): boolean {
    const regionsFit = this.#regions.every(
      (region) => this.#checkRange(region.base, this.#sizeOf(region)) === 0,
    );
    if (!regionsFit || this.#distributor === undefined) return regionsFit;
    return !this.#meetsRegion(this.#distributor, DISTRIBUTOR_BYTES);
  }

  /** A vCPU was added: EINVAL where its redistributor makes the region too large. */
  vcpuCreated(): 0 | Refusal {
    const concerned = this.#hasRoomFor(this.#vm.vcpuCount - 1);
    return concerned && !this.#isConsistent() ? refuse(Errno.EINVAL) : 0;
  }

  /** Before the first run: ENXIO where an address is missing, EINVAL where frames overlap. */
  checkComplete(): 0 | Refusal {
    const { vcpuCount } = this.#vm;
    if (vcpuCount > 0 && !this.#hasRoomFor(vcpuCount - 1)) return refuse(Errno.ENXIO);
    if (this.#distributor === undefined) return refuse(Errno.ENXIO);
    return this.#isConsistent() ? 0 : refuse(Errno.EINVAL);
  }
}

const wraps = (base: bigint, size: bigint): boolean => base + size >= 1n << 64n;

interface Range {
  readonly base: bigint;
  readonly size: bigint;
}

const overlap = (a: Range, b: Range): boolean =>
  a.base < b.base + b.size && b.base < a.base + a.size;
