/**
 * Writes flattened device trees (Devicetree Specification v0.4, chapter 5): nodes and properties
 * in, one blob out. It knows the format and nothing of boards; `board.ts` says what stands in the
 * tree, `dtb-reader.ts` reads a blob back.
 *
 *     header (40) | memory reservations | structure block | strings block
 *
 * All words are big-endian. Property names are stored once each in the strings block.
 */
import { assert, high32, low32 } from '../base/index.ts';

export const FDT_MAGIC = 0xd00dfeed;
export const FDT_VERSION = 17;
export const FDT_LAST_COMPATIBLE_VERSION = 16;
export const FDT_HEADER_BYTES = 40;

export const FDT_BEGIN_NODE = 1;
export const FDT_END_NODE = 2;
export const FDT_PROP = 3;
export const FDT_NOP = 4;
export const FDT_END = 9;

/** A node of a device tree; property values are the bytes as they stand in the blob. */
export interface DtNode {
  readonly name: string;
  readonly properties: Readonly<Record<string, Uint8Array>>;
  readonly children: readonly DtNode[];
}

/** A range of memory the client program must leave alone (`/memreserve/`). */
export interface DtReservation {
  readonly address: number;
  readonly sizeBytes: number;
}

/** A node with its properties and children; the root's name is `''`. */
export function node(
  name: string,
  properties: Readonly<Record<string, Uint8Array>> = {},
  children: readonly DtNode[] = [],
): DtNode {
  return { name, properties, children };
}

/** The value of a property that says something by being there (`dma-coherent`, `ranges`). */
export const EMPTY = new Uint8Array(0);

/** A string or a list of strings, each ended by a NUL. */
export function strings(...values: readonly string[]): Uint8Array {
  return new TextEncoder().encode(values.map((value) => `${value}\0`).join(''));
}

/** 32-bit cells. */
export function cells(...values: readonly number[]): Uint8Array {
  const out = new DataView(new ArrayBuffer(values.length * 4));
  values.forEach((value, i) => {
    assert(Number.isInteger(value) && value >= 0 && value < 2 ** 32, 'a cell is 32 bits');
    out.setUint32(i * 4, value);
  });
  return new Uint8Array(out.buffer);
}

/** 64-bit values as two cells each: addresses and sizes where #address-cells is 2. */
export function cells64(...values: readonly number[]): Uint8Array {
  return cells(...values.flatMap((value) => [high32(value), low32(value)]));
}

/** The blob of the tree under `root`, in a size that is a multiple of 8 bytes. */
export function writeDeviceTree(
  root: DtNode,
  reservations: readonly DtReservation[] = [],
): Uint8Array {
  const names = new StringTable();
  const structure = new Words();
  writeNode(structure, names, root);
  structure.u32(FDT_END);

  const reserve = new Words();
  for (const { address, sizeBytes } of [...reservations, { address: 0, sizeBytes: 0 }]) {
    reserve.bytes(cells64(address, sizeBytes));
  }

  const reserveOffset = FDT_HEADER_BYTES;
  const structureOffset = reserveOffset + reserve.lengthBytes;
  const stringsOffset = structureOffset + structure.lengthBytes;
  const usedBytes = stringsOffset + names.lengthBytes;
  const blob = new Words();
  const totalBytes = Math.ceil(usedBytes / 8) * 8;
  for (const word of [
    FDT_MAGIC,
    totalBytes,
    structureOffset,
    stringsOffset,
    reserveOffset,
    FDT_VERSION,
    FDT_LAST_COMPATIBLE_VERSION,
    0, // the boot CPU's physical id
    names.lengthBytes,
    structure.lengthBytes,
  ]) {
    blob.u32(word);
  }
  blob.bytes(reserve.take());
  blob.bytes(structure.take());
  blob.bytes(names.take());
  blob.padTo(8);
  return blob.take();
}

function writeNode(out: Words, names: StringTable, { name, properties, children }: DtNode): void {
  assert(/^[A-Za-z0-9,._+@-]{0,31}$/.test(name), 'a node name has up to 31 legal characters');
  assert(new Set(children.map((c) => c.name)).size === children.length, 'sibling names differ');
  out.u32(FDT_BEGIN_NODE);
  out.bytes(strings(name));
  out.padTo(4);
  for (const [property, value] of Object.entries(properties)) {
    assert(/^[A-Za-z0-9,._+?#-]{1,31}$/.test(property), 'a property name has 1 to 31 characters');
    out.u32(FDT_PROP);
    out.u32(value.length);
    out.u32(names.offsetOf(property));
    out.bytes(value);
    out.padTo(4);
  }
  for (const child of children) writeNode(out, names, child);
  out.u32(FDT_END_NODE);
}

/** A growing run of big-endian words and bytes. */
class Words {
  readonly #parts: Uint8Array[] = [];
  lengthBytes = 0;

  u32(value: number): void {
    this.bytes(cells(value));
  }

  bytes(value: Uint8Array): void {
    this.#parts.push(value);
    this.lengthBytes += value.length;
  }

  padTo(align: number): void {
    const rest = this.lengthBytes % align;
    if (rest !== 0) this.bytes(new Uint8Array(align - rest));
  }

  take(): Uint8Array {
    const out = new Uint8Array(this.lengthBytes);
    let at = 0;
    for (const part of this.#parts) {
      out.set(part, at);
      at += part.length;
    }
    return out;
  }
}

/** The strings block: each property name once, in order of first use. */
class StringTable {
  readonly #offsets = new Map<string, number>();
  lengthBytes = 0;

  offsetOf(name: string): number {
    const known = this.#offsets.get(name);
    if (known !== undefined) return known;
    const offset = this.lengthBytes;
    this.#offsets.set(name, offset);
    this.lengthBytes += name.length + 1;
    return offset;
  }

  take(): Uint8Array {
    return strings(...this.#offsets.keys());
  }
}
