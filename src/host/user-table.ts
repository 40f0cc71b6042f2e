/**
 * The stage-1 tables of one host process: areas' rights as VMSAv8-64 descriptors, 48-bit VAs, 4 KiB
 * translation granule. Only translation of terms between `AddressSpace` and `machine/tables.ts`;
 * who owns pages and when to change a mapping is decided there.
 *
 * Descriptors are Linux's: MAIR slots as below, nG, AF set, PXN always, AP[2] as "not writable
 * yet". PROT_NONE keeps the page with AP[1] = 0: no access from EL0.
 */
import { encodeStage1 } from '../arm/descriptor.ts';
import { Attr, Shareability } from '../arm/memattr.ts';
import {
  assert,
  BLOCK_SIZE,
  type Hva,
  hva,
  isAligned,
  PAGE_SIZE,
  type Pa,
  pa,
} from '../base/index.ts';
import { type Leaf, PageTable } from '../machine/tables.ts';
import { type Area, VmFlag } from './area.ts';
import type { DeviceMemoryType } from './file.ts';
import type { PageFrames } from './page.ts';

/** Bits of a VA of a process: T0SZ = 16, four levels. */
export const VA_BITS = 48;

/** Indices into MAIR_EL1 that user mappings use. Linux: MT_NORMAL and so on. */
export const MairSlot = { normal: 0, normalTagged: 1, normalNC: 2, deviceNGnRnE: 3 } as const;

/** The MAIR_EL1 that the descriptors are made for. */
export const HOST_MAIR =
  BigInt(Attr.normalWB) |
  (BigInt(Attr.normalWBTagged) << 8n) |
  (BigInt(Attr.normalNC) << 16n) |
  (BigInt(Attr.deviceNGnRnE) << 24n);

const AP_READ_ONLY = encodeStage1({ readOnly: true });
const AP_READ_ONLY_LOW = Number(AP_READ_ONLY);
/** What a change of rights replaces; AP[2] is only ever set by it. */
const RIGHTS = encodeStage1({ attrIndex: 7, el0: true, uxn: true });

const deviceSlots: Readonly<Record<DeviceMemoryType, number>> = {
  'Normal-WB': MairSlot.normal,
  'Normal-NC': MairSlot.normalNC,
  'Device-nGnRnE': MairSlot.deviceNGnRnE,
};

/** What maps an address. */
export interface UserMapping {
  /** First address, PA and size of the leaf. */
  readonly start: Hva;
  readonly startPa: Pa;
  readonly sizeBytes: number;
  /** PA of the address asked for. */
  readonly pa: Pa;
  readonly writable: boolean;
}

export class UserTable {
  readonly #frames: PageFrames;
  readonly #table: PageTable;

  /** Preconditions: the host has a frame left for the root. */
  constructor(frames: PageFrames) {
    const root = frames.allocate();
    assert(root !== -1, 'there is a frame for the root of a process');
    this.#frames = frames;
    this.#table = new PageTable({
      memory: frames.memory,
      allocator: frames.tableAllocator,
      root,
      startLevel: 0,
      inputBits: VA_BITS,
    });
  }

  /** PA of the level 0 table, for TTBR0_EL1. */
  get root(): Pa {
    return this.#table.root;
  }

  /** What maps `address`, or undefined. */
  lookup(address: number): UserMapping | undefined {
    const leaf = this.#table.lookup(address);
    if (leaf === undefined) return undefined;
    return mappingOf(leaf, pa(leaf.pa - (address - leaf.input)));
  }

  /** Everything that maps addresses of the range, in order. */
  mappings(start: number, end: number): UserMapping[] {
    const found: UserMapping[] = [];
    if (end <= start) return found;
    this.#table.walkLeaves({ input: start, sizeBytes: end - start }, (leaf) => {
      found.push(mappingOf(leaf, leaf.pa));
    });
    return found;
  }

  /**
   * Whether nothing at all is mapped in the 2 MiB from `start`, so that a block can stand there.
   */
  isEmptyBlock(start: Hva): boolean {
    return !this.#table.mapsAny({ input: start, sizeBytes: BLOCK_SIZE });
  }

  /** Maps pages with the rights of `area`. False: no memory for tables, nothing changed. */
  map(area: Area, at: Hva, page: Pa, sizeBytes: number, writable: boolean): boolean {
    return this.#table.mapRange({
      input: at,
      pa: page,
      sizeBytes,
      attributes: attributesOf(area, writable),
      maxLeafBytes: sizeBytes,
    });
  }

  /** Sets whether what is mapped in the range may be written. False as `map`. */
  setWritable(at: Hva, sizeBytes: number, writable: boolean): boolean {
    const change = writable ? { clear: AP_READ_ONLY, set: 0n } : { clear: 0n, set: AP_READ_ONLY };
    return this.#table.setAttributes({ input: at, sizeBytes }, change);
  }

  /** Makes `at` the edge of a leaf: a block that it lies inside becomes pages. False as `map`. */
  splitAt(at: number): boolean {
    if (isAligned(at, BLOCK_SIZE)) return true;
    return this.#table.setAttributes({ input: at, sizeBytes: PAGE_SIZE }, { clear: 0n, set: 0n });
  }

  /**
   * Gives what is mapped in all of `area` its rights, except that nothing becomes writable. False
   * as `map`.
   */
  protect(area: Area): boolean {
    const readOnly = (area.flags & VmFlag.write) === 0;
    const range = { input: area.start, sizeBytes: area.end - area.start };
    return this.#table.setAttributes(range, { clear: RIGHTS, set: attributesOf(area, !readOnly) });
  }

  /** Removes what is mapped in the range. False as `map`, when a block would have to be split. */
  unmap(at: Hva, sizeBytes: number): boolean {
    return this.#table.unmapRange({ input: at, sizeBytes });
  }

  /** Gives back the tables. */
  destroy(): void {
    this.#table.clear();
    this.#frames.put(this.#table.root);
  }

  /** Asserts that the tables are well formed. */
  check(): void {
    this.#table.checkTable();
  }
}

const mappingOf = (leaf: Leaf, startPa: Pa): UserMapping => ({
  start: hva(leaf.input),
  startPa,
  sizeBytes: leaf.sizeBytes,
  pa: leaf.pa,
  writable: (leaf.low & AP_READ_ONLY_LOW) === 0,
});

/** Attribute bits made before, by what they are made of. */
const made = new Map<number, bigint>();

/** Linux: vm_get_page_prot(), pgprot_tagged(), pgprot_noncached() and so on. */
function attributesOf({ flags, backing }: Area, writable: boolean): bigint {
  const attrIndex =
    backing.kind === 'device'
      ? deviceSlots[backing.file.memoryType]
      : (flags & VmFlag.mte) !== 0
        ? MairSlot.normalTagged
        : MairSlot.normal;
  const rights = flags & (VmFlag.read | VmFlag.exec);
  const key = (attrIndex << 4) | (writable ? 8 : 0) | rights;
  let attributes = made.get(key);
  if (attributes === undefined) {
    attributes = encodeStage1({
      attrIndex,
      el0: (rights & VmFlag.read) !== 0,
      readOnly: !writable,
      sh: Shareability.inner,
      accessed: true,
      notGlobal: true,
      pxn: true,
      uxn: (rights & VmFlag.exec) === 0,
    });
    made.set(key, attributes);
  }
  return attributes;
}
