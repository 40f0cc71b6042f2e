/** The identification registers at the end of every Arm PrimeCell's 4 KiB, and its access rule. */

/** Offset of PeriphID0; eight registers of one byte each follow, four bytes apart. */
const ID_OFFSET = 0xfe0;

/** The ID register at `wordOffset`, or undefined below the ID registers. */
export function primecellId(ids: readonly number[], wordOffset: number): number | undefined {
  return wordOffset < ID_OFFSET ? undefined : ids[(wordOffset - ID_OFFSET) / 4];
}

/** PeriphID0–3 and CellID0–3 of a PrimeCell: part number (12 bits), revision, designer Arm. */
export function primecellIds(part: number, revision: number): readonly number[] {
  const designer = 0x41;
  return [
    part & 0xff,
    (part >> 8) | ((designer & 0xf) << 4),
    (designer >> 4) | (revision << 4),
    0,
    0x0d,
    0xf0,
    0x05,
    0xb1,
  ];
}
