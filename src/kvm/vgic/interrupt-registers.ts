/**
 * The registers that distributor and redistributors have in common: a bit, two or eight per
 * interrupt at the same offsets of a frame. The distributor's show SPIs, a redistributor's the SGIs
 * and PPIs of its vCPU; everything else reads as zero and ignores writes.
 * Linux: arch/arm64/kvm/vgic/vgic-mmio.c.
 */

import type { Delivery } from './delivery.ts';
import { lowestBit } from './interrupts.ts';
import type { Accessor } from './regions.ts';
import { GICD } from './registers.ts';

/** The frame number of the distributor; a redistributor's is the index of its vCPU. */
export const DISTRIBUTOR_FRAME = -1;

/** Bank of the `word`-th 32 interrupts in a frame, or -1 where the frame has none. */
function bankOf(delivery: Delivery, frame: number, word: number): number {
  const { vcpuCount, bankCount } = delivery.interrupts;
  if (frame !== DISTRIBUTOR_FRAME) return word === 0 ? frame : -1;
  const bank = vcpuCount + word - 1;
  return word > 0 && bank < bankCount ? bank : -1;
}

/** `size` bytes (4; or 1 of IPRIORITYR) of a frame's per-interrupt registers, unsigned. */
export function readInterruptRegister(
  delivery: Delivery,
  frame: number,
  offset: number,
  size: number,
  accessor: Accessor,
): number {
  if (offset >= GICD.ICFGR) return readConfig(delivery, frame, (offset - GICD.ICFGR) >>> 2);
  if (offset >= GICD.IPRIORITYR) {
    return readPriorities(delivery, frame, offset - GICD.IPRIORITYR, size);
  }
  const bank = bankOf(delivery, frame, (offset & 0x7f) >>> 2);
  if (bank < 0) return 0;
  const { interrupts } = delivery;
  switch (offset & ~0x7f) {
    case GICD.IGROUPR:
      return interrupts.group1[bank]! >>> 0;
    case GICD.ISENABLER:
    case GICD.ICENABLER:
      return interrupts.enabled[bank]! >>> 0;
    case GICD.ISPENDR:
      return (accessor === 'user' ? interrupts.latch[bank]! : interrupts.pendingWord(bank)) >>> 0;
    case GICD.ICPENDR:
      return (accessor === 'user' ? 0 : interrupts.pendingWord(bank)) >>> 0;
    case GICD.ISACTIVER:
    case GICD.ICACTIVER:
      return interrupts.active[bank]! >>> 0;
    default:
      return 0;
  }
}

/** Writes `size` bytes (4; or 1 of IPRIORITYR) of a frame's per-interrupt registers. */
export function writeInterruptRegister(
  delivery: Delivery,
  frame: number,
  offset: number,
  size: number,
  value: number,
  accessor: Accessor,
): void {
  if (offset >= GICD.ICFGR) {
    writeConfig(delivery, frame, (offset - GICD.ICFGR) >>> 2, value);
  } else if (offset >= GICD.IPRIORITYR) {
    writePriorities(delivery, frame, offset - GICD.IPRIORITYR, size, value);
  } else {
    const bank = bankOf(delivery, frame, (offset & 0x7f) >>> 2);
    if (bank < 0) return;
    writeBits(delivery, bank, offset & ~0x7f, value, accessor);
    delivery.bankChanged(bank);
  }
}

function writeBits(
  delivery: Delivery,
  bank: number,
  register: number,
  value: number,
  accessor: Accessor,
): void {
  const { interrupts } = delivery;
  switch (register) {
    case GICD.IGROUPR:
      interrupts.group1[bank] = value;
      return;
    case GICD.ISENABLER:
      interrupts.enabled[bank]! |= value;
      return;
    case GICD.ICENABLER:
      interrupts.enabled[bank]! &= ~value;
      return;
    case GICD.ISPENDR:
      // A restore writes the latches as they were saved, ones and zeros.
      if (accessor === 'user') interrupts.latch[bank] = value;
      else interrupts.latch[bank]! |= value;
      return;
    case GICD.ICPENDR:
      if (accessor === 'guest') interrupts.latch[bank]! &= ~value;
      return;
    case GICD.ISACTIVER:
      interrupts.active[bank]! |= value;
      return;
    case GICD.ICACTIVER:
      interrupts.active[bank]! &= ~value;
      return;
  }
}

/** `count` priorities of a frame from its `first` interrupt on, a byte each; they share a bank. */
function readPriorities(delivery: Delivery, frame: number, first: number, count: number): number {
  const bank = bankOf(delivery, frame, first >>> 5);
  if (bank < 0) return 0;
  const slot = bank * 32 + (first & 31);
  let value = 0;
  for (let i = count - 1; i >= 0; i--) {
    value = (value << 8) | delivery.interrupts.priority[slot + i]!;
  }
  return value >>> 0;
}

/** Unlike Linux's, which leaves it to chance, a change takes effect on what is pending at once. */
function writePriorities(
  delivery: Delivery,
  frame: number,
  first: number,
  count: number,
  value: number,
): void {
  const bank = bankOf(delivery, frame, first >>> 5);
  if (bank < 0) return;
  const slot = bank * 32 + (first & 31);
  for (let i = 0; i < count; i++) delivery.interrupts.setPriority(slot + i, value >>> (8 * i));
  delivery.bankChanged(bank);
}

/** ICFGR word `index`: 16 interrupts, bit 1 of each pair set for edge-triggered. */
function readConfig(delivery: Delivery, frame: number, index: number): number {
  const bank = bankOf(delivery, frame, index >>> 1);
  if (bank < 0) return 0;
  let edges = (delivery.interrupts.edge[bank]! >>> (16 * (index & 1))) & 0xffff;
  let value = 0;
  while (edges !== 0) {
    value |= 2 << (2 * lowestBit(edges));
    edges &= edges - 1;
  }
  return value >>> 0;
}

/** The triggers of SGIs and PPIs are fixed; the timers rely on level-sensitive PPIs. */
function writeConfig(delivery: Delivery, frame: number, index: number, value: number): void {
  const bank = bankOf(delivery, frame, index >>> 1);
  if (bank < 0 || frame !== DISTRIBUTOR_FRAME) return;
  const { edge } = delivery.interrupts;
  let edges = 0;
  for (let i = 0; i < 16; i++) edges |= ((value >>> (2 * i + 1)) & 1) << i;
  const shift = 16 * (index & 1);
  edge[bank] = (edge[bank]! & ~(0xffff << shift)) | (edges << shift);
  delivery.bankChanged(bank);
}
