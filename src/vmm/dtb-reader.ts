/**
 * Reads a flattened device tree back into nodes, refusing what is malformed. The VMM itself only
 * writes trees; this is for tests, tools and whoever inspects what `--dtb-dump` wrote.
 */
import {
  type DtNode,
  type DtReservation,
  FDT_BEGIN_NODE,
  FDT_END,
  FDT_END_NODE,
  FDT_HEADER_BYTES,
  FDT_MAGIC,
  FDT_NOP,
  FDT_PROP,
  FDT_VERSION,
} from './dtb.ts';

export type DtbErrorCode = 'truncated' | 'wrong-magic' | 'wrong-version' | 'malformed';

/** A blob that is no device tree, or a broken one. */
export class DtbError extends Error {
  override readonly name = 'DtbError';
  readonly code: DtbErrorCode;
  constructor(code: DtbErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

export interface DeviceTree {
  readonly root: DtNode;
  readonly reservations: readonly DtReservation[];
}

/** The tree in `blob`; throws `DtbError`. */
export function readDeviceTree(blob: Uint8Array): DeviceTree {
  const view = new DataView(blob.buffer, blob.byteOffset, blob.byteLength);
  if (blob.length < FDT_HEADER_BYTES) {
    throw new DtbError('truncated', `${blob.length} bytes hold no ${FDT_HEADER_BYTES}-byte header`);
  }
  const magic = view.getUint32(0);
  if (magic !== FDT_MAGIC) {
    throw new DtbError('wrong-magic', `magic 0x${magic.toString(16)} is not 0xd00dfeed`);
  }
  const totalBytes = view.getUint32(4);
  if (totalBytes > blob.length) {
    throw new DtbError('truncated', `the header says ${totalBytes} bytes, ${blob.length} are here`);
  }
  const version = view.getUint32(20);
  if (version < FDT_VERSION || view.getUint32(24) > FDT_VERSION) {
    throw new DtbError('wrong-version', `version ${version} is not compatible with ${FDT_VERSION}`);
  }
  const structure = { offset: view.getUint32(8), sizeBytes: view.getUint32(36) };
  const names = { offset: view.getUint32(12), sizeBytes: view.getUint32(32) };
  for (const block of [structure, names]) {
    if (block.offset + block.sizeBytes > totalBytes) {
      throw new DtbError('malformed', `a block ends beyond the ${totalBytes} bytes of the blob`);
    }
  }
  return {
    root: new StructureReader(blob, structure, names).root(),
    reservations: readReservations(view, view.getUint32(16), totalBytes),
  };
}

/** The node at `path` (`/cpus/cpu@0`) under `root`, or undefined. */
export function findNode(root: DtNode, path: string): DtNode | undefined {
  let at: DtNode | undefined = root;
  for (const name of path.split('/').filter((part) => part !== '')) {
    at = at?.children.find((child) => child.name === name);
  }
  return at;
}

/** The 32-bit cells of a property value. */
export function cellsOf(value: Uint8Array): number[] {
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  return Array.from({ length: Math.floor(value.length / 4) }, (_, i) => view.getUint32(i * 4));
}

/** The strings of a property value. */
export function stringsOf(value: Uint8Array): string[] {
  return new TextDecoder().decode(value).split('\0').slice(0, -1);
}

function readReservations(view: DataView, offset: number, totalBytes: number): DtReservation[] {
  const out: DtReservation[] = [];
  for (let at = offset; at + 16 <= totalBytes; at += 16) {
    const address = Number(view.getBigUint64(at));
    const sizeBytes = Number(view.getBigUint64(at + 8));
    if (address === 0 && sizeBytes === 0) return out;
    out.push({ address, sizeBytes });
  }
  throw new DtbError('malformed', 'the memory reservations have no end');
}

/** Far above any real tree's; bounds the recursion over a hostile one. */
const DEPTH_MAX = 64;

interface Block {
  readonly offset: number;
  readonly sizeBytes: number;
}

class StructureReader {
  readonly #blob: Uint8Array;
  readonly #view: DataView;
  readonly #names: Block;
  readonly #end: number;
  #at: number;

  constructor(blob: Uint8Array, structure: Block, names: Block) {
    this.#blob = blob;
    this.#view = new DataView(blob.buffer, blob.byteOffset, blob.byteLength);
    this.#names = names;
    this.#at = structure.offset;
    this.#end = structure.offset + structure.sizeBytes;
  }

  root(): DtNode {
    this.#expect(FDT_BEGIN_NODE, this.#token());
    const root = this.#node(1);
    this.#expect(FDT_END, this.#token());
    return root;
  }

  /** A node whose FDT_BEGIN_NODE was just read. */
  #node(depth: number): DtNode {
    if (depth > DEPTH_MAX) throw new DtbError('malformed', `nodes nest deeper than ${DEPTH_MAX}`);
    const name = this.#string(this.#at, this.#end);
    this.#skip(name.length + 1);
    const properties: Record<string, Uint8Array> = {};
    const children: DtNode[] = [];
    for (;;) {
      const token = this.#token();
      if (token === FDT_END_NODE) return { name, properties, children };
      if (token === FDT_BEGIN_NODE) {
        children.push(this.#node(depth + 1));
        continue;
      }
      this.#expect(FDT_PROP, token);
      const sizeBytes = this.#word();
      const nameAt = this.#names.offset + this.#word();
      const property = this.#string(nameAt, this.#names.offset + this.#names.sizeBytes);
      if (this.#at + sizeBytes > this.#end) {
        throw new DtbError('malformed', `property ${property} ends beyond the structure block`);
      }
      properties[property] = this.#blob.slice(this.#at, this.#at + sizeBytes);
      this.#skip(sizeBytes);
    }
  }

  #token(): number {
    let token = this.#word();
    while (token === FDT_NOP) token = this.#word();
    return token;
  }

  #word(): number {
    if (this.#at + 4 > this.#end) {
      throw new DtbError('malformed', 'the structure block ends inside a node');
    }
    const word = this.#view.getUint32(this.#at);
    this.#at += 4;
    return word;
  }

  #skip(sizeBytes: number): void {
    this.#at += Math.ceil(sizeBytes / 4) * 4;
  }

  #string(from: number, end: number): string {
    const nul = this.#blob.indexOf(0, from);
    if (nul < 0 || nul >= end) throw new DtbError('malformed', 'a name has no end');
    return new TextDecoder().decode(this.#blob.subarray(from, nul));
  }

  #expect(wanted: number, token: number): void {
    if (token !== wanted) {
      throw new DtbError('malformed', `token ${token} stands where ${wanted} must be`);
    }
  }
}
