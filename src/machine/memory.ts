/**
 * Physical memory and its tags: RAM zones in one WebAssembly.Memory, addressed by PA. It knows
 * nothing of mappings, owners or memory types; `mmu.ts` translates, `host/page.ts` owns pages.
 *
 * Each zone says whether it can hold tags. What a tag access does to memory without tag storage is
 * a property of the zone (`noTags`), so that a hypervisor that lets it happen is caught.
 *
 * Invariant: zones lie back to back in linear memory in the order given, do not overlap in PA, and
 * are multiples of 2 MiB. A write from TypeScript to a page that holds predecoded code is reported
 * to `onCodeWrite` before it returns.
 */
import { assert, BLOCK_SIZE, isAligned, MIB, PAGE_SIZE, type Pa, pa } from '../base/index.ts';
import { type MemoryLayout, planLayout, RAM_BYTES_MAX, TAG_OFFSET } from '../engine/layout.ts';
import { TLB_BYTES_PER_VCPU } from '../engine/tlb.ts';

/** What a tag access to a zone without tag storage does. */
export type NoTagsBehaviour = 'raz-wi' | 'external-abort' | 'corrupt-neighbour';

export type Zone =
  | { readonly kind: 'dram'; readonly base: Pa; readonly sizeBytes: number }
  | {
      readonly kind: 'no-tags';
      readonly base: Pa;
      readonly sizeBytes: number;
      readonly noTags: NoTagsBehaviour;
    };

/** Where the machine's DRAM begins unless the caller says otherwise. */
export const DRAM_BASE = pa(0x80000000);

export class PhysicalMemory {
  readonly layout: MemoryLayout;
  readonly memory: WebAssembly.Memory;
  readonly zones: readonly Zone[];
  /** Views over the whole linear memory; it never grows, so they stay valid. */
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly i32: Int32Array;
  readonly u32: Uint32Array;
  readonly u64: BigUint64Array;
  readonly view: DataView;
  /** One byte a RAM page (by linear order): 1 where predecoded code exists. Kept by the engine. */
  readonly codePages: Uint8Array;
  /** Called with the RAM page index before TypeScript changes a page that holds code. */
  onCodeWrite: (ramPage: number) => void = () => {};

  constructor(options: { zones: readonly Zone[]; vcpuMax?: number; recordPageCount?: number }) {
    let ramBytes = 0;
    for (const zone of options.zones) {
      assert(isAligned(zone.base, BLOCK_SIZE), 'zone base is a multiple of 2 MiB');
      assert(isAligned(zone.sizeBytes, BLOCK_SIZE), 'zone size is a multiple of 2 MiB');
      ramBytes += zone.sizeBytes;
    }
    assert(ramBytes <= RAM_BYTES_MAX, 'RAM exceeds what a 32-bit linear memory holds');
    this.zones = options.zones;
    this.layout = planLayout({
      ramBytes,
      vcpuMax: options.vcpuMax ?? 1,
      tlbBytesPerVcpu: TLB_BYTES_PER_VCPU,
      ...(options.recordPageCount === undefined
        ? {}
        : { recordPageCount: options.recordPageCount }),
    });
    const pages = this.layout.totalBytes / 65536;
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    const buffer = this.memory.buffer;
    this.u8 = new Uint8Array(buffer);
    this.u16 = new Uint16Array(buffer);
    this.i32 = new Int32Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.u64 = new BigUint64Array(buffer);
    this.view = new DataView(buffer);
    this.codePages = new Uint8Array(ramBytes / PAGE_SIZE);
  }

  /** Offset in linear memory of the RAM byte at `address`, or -1 where no RAM is. */
  linear(address: Pa): number {
    let base = this.layout.ramBase;
    for (const zone of this.zones) {
      if (address >= zone.base && address < zone.base + zone.sizeBytes) {
        return base + (address - zone.base);
      }
      base += zone.sizeBytes;
    }
    return -1;
  }

  /** The zone that holds `address`, or undefined where no RAM is. */
  zoneAt(address: Pa): Zone | undefined {
    return this.zones.find((z) => address >= z.base && address < z.base + z.sizeBytes);
  }

  /** Index of the RAM page that holds linear offset `linear`. */
  ramPage(linear: number): number {
    return Math.floor((linear - this.layout.ramBase) / PAGE_SIZE);
  }

  #checked(address: Pa, sizeBytes: number): number {
    const linear = this.linear(address);
    assert(linear >= 0 && this.linear(pa(address + sizeBytes - 1)) >= 0, 'PA lies in RAM');
    return linear;
  }

  #willWrite(linear: number, sizeBytes: number): void {
    const last = this.ramPage(linear + sizeBytes - 1);
    for (let page = this.ramPage(linear); page <= last; page++) {
      if (this.codePages[page] === 1) this.onCodeWrite(page);
    }
  }

  /** The aligned 64-bit little-endian word at `address`. */
  read64(address: Pa): bigint {
    return this.u64[this.#checked(address, 8) / 8]!;
  }

  write64(address: Pa, value: bigint): void {
    const linear = this.#checked(address, 8);
    this.#willWrite(linear, 8);
    this.u64[linear / 8] = value;
  }

  read32(address: Pa): number {
    return this.u32[this.#checked(address, 4) / 4]!;
  }

  write32(address: Pa, value: number): void {
    const linear = this.#checked(address, 4);
    this.#willWrite(linear, 4);
    this.u32[linear / 4] = value;
  }

  /** A copy of `sizeBytes` bytes from `address`; the range must lie in one zone. */
  readBytes(address: Pa, sizeBytes: number): Uint8Array {
    if (sizeBytes === 0) return new Uint8Array(0);
    const linear = this.#checked(address, sizeBytes);
    return this.u8.slice(linear, linear + sizeBytes);
  }

  writeBytes(address: Pa, data: Uint8Array): void {
    if (data.length === 0) return;
    const linear = this.#checked(address, data.length);
    this.#willWrite(linear, data.length);
    this.u8.set(data, linear);
  }

  fill(address: Pa, value: number, sizeBytes: number): void {
    if (sizeBytes === 0) return;
    const linear = this.#checked(address, sizeBytes);
    this.#willWrite(linear, sizeBytes);
    this.u8.fill(value, linear, linear + sizeBytes);
  }

  /** Copies data (not tags) between two RAM ranges that lie in one zone each. */
  copy(target: Pa, source: Pa, sizeBytes: number): void {
    const to = this.#checked(target, sizeBytes);
    const from = this.#checked(source, sizeBytes);
    this.#willWrite(to, sizeBytes);
    this.u8.copyWithin(to, from, from + sizeBytes);
  }

  /** Whether the memory at `address` has tag storage. */
  holdsTags(address: Pa): boolean {
    return this.zoneAt(address)?.kind === 'dram';
  }

  /** Linear offset of the tag byte for the 32 bytes of RAM at linear offset `linear`. */
  tagByte(linear: number): number {
    return TAG_OFFSET + Math.floor(linear / 32);
  }

  /** The allocation tag (0–15) of the tag granule at `address`. Arm: PhysMemTagRead(). */
  readTag(address: Pa): number {
    const linear = this.#checked(address, 1);
    const byte = this.u8[this.tagByte(linear)]!;
    return Math.floor(linear / 16) % 2 === 1 ? byte >> 4 : byte & 15;
  }

  /** Arm: PhysMemTagWrite(). */
  writeTag(address: Pa, tag: number): void {
    const linear = this.#checked(address, 1);
    const at = this.tagByte(linear);
    const byte = this.u8[at]!;
    this.u8[at] =
      Math.floor(linear / 16) % 2 === 1 ? (byte & 0x0f) | (tag << 4) : (byte & 0xf0) | tag;
  }

  /**
   * Packed tags of `sizeBytes` (a multiple of 32) of RAM: two a byte, low nibble first, as Linux
   * keeps them in swap and core dumps. A view, not a copy; writing through it changes the tags.
   */
  packedTags(address: Pa, sizeBytes: number): Uint8Array {
    const linear = this.#checked(address, sizeBytes);
    const at = this.tagByte(linear);
    return this.u8.subarray(at, at + sizeBytes / 32);
  }
}

/** A machine with `sizeBytes` (rounded up to 2 MiB) of taggable DRAM at DRAM_BASE. */
export function dramOnly(sizeBytes: number): Zone[] {
  const rounded = Math.ceil(sizeBytes / (2 * MIB)) * 2 * MIB;
  return [{ kind: 'dram', base: DRAM_BASE, sizeBytes: rounded }];
}
