/**
 * The memory type of every (stage 1 row, stage 2 MemAttr, data or fetch), worked out once when the
 * controls change, so that a walk only looks it up. Used by `mmu.ts` alone.
 *
 * Layout: 32 columns a row, column = MemAttr or S2_OFF; rows 0 … 7 are the MAIR_EL1 bytes, then
 * stage 1 switched off; the rows for fetches follow the rows for data.
 */
import {
  Attr,
  decodeMair,
  decodeStage2,
  isDevice,
  MEM_DEVICE,
  MEM_FORCED_OUTER,
  MEM_S1_DEVICE,
  type MemoryAttributes,
  packStages,
  Shareability,
} from '../arm/memattr.ts';

/** Column for "stage 2 is off". */
export const S2_OFF = 16;
const COLUMNS = 32;

/** Rows for stage 1 switched off: flat, and by HCR_EL2.DC. */
export const ROW_FLAT = 8;
export const ROW_DEFAULT_CACHEABLE = 9;
const ROWS = 10;

/** What the table depends on besides MAIR_EL1. */
export interface MemoryControls {
  /** SCTLR_EL1.C and I. */
  readonly c: boolean;
  readonly i: boolean;
  /** HCR_EL2.FWB, DCT, CD, ID. */
  readonly fwb: boolean;
  readonly dct: boolean;
  readonly cd: boolean;
  readonly id: boolean;
  readonly mtePerm: boolean;
}

/** Index of the entry for data; the entry for fetches is `FETCH_ENTRIES` further on. */
export const memoryIndex = (row: number, column: number): number => row * COLUMNS + column;
export const FETCH_ENTRIES = ROWS * COLUMNS;

const NON_CACHEABLE = decodeMair(Attr.normalNC, Shareability.outer);
/** SCTLR_EL1.M = 0 with I = 1: Write-Through, read-allocate. */
const FLAT_FETCH = 0xaa;

/** Stage 1's memory after SCTLR_EL1.C and I had their say. Arm: AArch64.S1Translate(), its end. */
function stage1Memory(byte: number, fetch: boolean, controls: MemoryControls): MemoryAttributes {
  const memory = decodeMair(byte, Shareability.non);
  if (fetch) return isDevice(memory.base) || !controls.i ? NON_CACHEABLE : memory;
  // Of the two the architecture allows, Tagged memory does not stay Tagged with the cache off.
  return !isDevice(memory.base) && !controls.c ? NON_CACHEABLE : memory;
}

/** Arm: AArch64.S1DisabledOutput(). */
function disabledMemory(row: number, fetch: boolean, controls: MemoryControls): MemoryAttributes {
  if (row === ROW_DEFAULT_CACHEABLE) {
    return decodeMair(controls.dct ? Attr.normalWBTagged : Attr.normalWB, Shareability.non);
  }
  if (!fetch) return decodeMair(Attr.deviceNGnRnE, Shareability.outer);
  return controls.i ? decodeMair(FLAT_FETCH, Shareability.outer) : NON_CACHEABLE;
}

/** HCR_EL2.CD and ID, and fetches from Device, put Non-cacheable over stage 2. */
function override(entry: number, fetch: boolean, controls: MemoryControls): number {
  const device = (entry & MEM_DEVICE) !== 0;
  const replaced = fetch ? controls.id || device : controls.cd && !device;
  return replaced ? Attr.normalNC | MEM_FORCED_OUTER | (entry & MEM_S1_DEVICE) : entry;
}

/** Fills `table` (see `newMemoryTable`) for MAIR_EL1 and the controls. */
export function fillMemoryTable(table: Int32Array, mair: bigint, controls: MemoryControls): void {
  for (const fetch of [false, true]) {
    const first = fetch ? FETCH_ENTRIES : 0;
    for (let row = 0; row < ROWS; row++) {
      const s1 =
        row < ROW_FLAT
          ? stage1Memory(Number((mair >> BigInt(row * 8)) & 0xffn), fetch, controls)
          : disabledMemory(row, fetch, controls);
      table[first + memoryIndex(row, S2_OFF)] = packStages(s1, undefined);
      for (let memAttr = 0; memAttr < 16; memAttr++) {
        const entry = packStages(s1, decodeStage2(memAttr, controls));
        table[first + memoryIndex(row, memAttr)] = override(entry, fetch, controls);
      }
    }
  }
}

export const newMemoryTable = (): Int32Array => new Int32Array(2 * FETCH_ENTRIES);
