/** Which logical tags are checked, from the high word of TCR_EL1; for the slow path of accesses. */

const TBI0 = 1 << 5;
const TBI1 = 1 << 6;
const TCMA0 = 1 << 25;
const TCMA1 = 1 << 26;

/**
 * Whether TCR_EL1 lets the logical tag of an address be checked: TBI of its half on, and not a
 * match-all tag by TCMA. `tcrHigh`: bits 63:32; `vaHigh`: bits 63:32 of the address.
 * Arm: AArch64.AccessIsTagChecked(), the part about the address.
 */
export function logicalTagIsChecked(tcrHigh: number, vaHigh: number): boolean {
  const upper = (vaHigh & (1 << 23)) !== 0;
  if ((tcrHigh & (upper ? TBI1 : TBI0)) === 0) return false;
  const logical = (vaHigh >>> 24) & 15;
  return upper
    ? !((tcrHigh & TCMA1) !== 0 && logical === 15)
    : !((tcrHigh & TCMA0) !== 0 && logical === 0);
}
