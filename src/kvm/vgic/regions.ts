/**
 * Frames of memory-mapped registers, and which accesses they take: sizes, alignment, and interrupts
 * that exist. An access that is not allowed, or between the registers, reads as zero and is
 * ignored. Linux: check_region() and vgic_get_mmio_region() in arch/arm64/kvm/vgic/vgic-mmio.c.
 */

/**
 * A save or restore by the VMM, which sees pending latches and lines apart, or a guest's access.
 */
export type Accessor = 'guest' | 'user';

/**
 * The registers of the distributor or of a redistributor. `read` and `write` take what
 * `takesAccess` allows, a 64-bit access as two of 32 bits; values are unsigned, or any int32 when
 * written.
 */
export interface Frame {
  readonly regions: readonly RegisterRegion[];
  read(offset: number, size: number, accessor: Accessor): number;
  write(offset: number, size: number, value: number, accessor: Accessor): void;
}

export interface RegisterRegion {
  readonly offset: number;
  readonly length: number;
  /** Bits each interrupt has in these registers; 0 where they are not per interrupt. */
  readonly bitsPerIrq: number;
  /** The access sizes in bytes that are allowed, or-ed. */
  readonly sizes: number;
}

export const region = (
  offset: number,
  length: number,
  sizes: number,
  bitsPerIrq = 0,
): RegisterRegion => ({ offset, length, bitsPerIrq, sizes });

/** Whether the frame with these `regions` (by ascending offset) takes an access of `size` bytes. */
export function takesAccess(
  regions: readonly RegisterRegion[],
  offset: number,
  size: number,
  irqCount: number,
): boolean {
  for (const { offset: start, length, sizes, bitsPerIrq } of regions) {
    if (offset < start) return false;
    if (offset >= start + length) continue;
    if ((sizes & size) === 0 || (offset & (size - 1)) !== 0) return false;
    return bitsPerIrq === 0 || firstIntid(offset, bitsPerIrq) < irqCount;
  }
  return false;
}

/** First interrupt a register at `offset` covers; 1024 of them fill a power of two of bytes. */
export const firstIntid = (offset: number, bitsPerIrq: number): number =>
  ((offset & (128 * bitsPerIrq - 1)) * 8) / bitsPerIrq;
