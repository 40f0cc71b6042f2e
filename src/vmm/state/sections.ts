/**
 * A run of named, versioned sections with lengths and checksums: the frame in which a machine's
 * state is stored and sent. Knows nothing of what is inside; `codec.ts` does. Little-endian.
 *
 *     head     "GRST"  u16 format version  u16 section count  u32 bytes in all  u32 CRC-32 of these
 *     section  u8 name length  name (ASCII)  u16 version  u32 payload length  payload
 *              u32 CRC-32 of the section up to here
 *
 * Every byte is under a checksum, and sections fill the length that the head says, so that no
 * changed byte and no cut is taken for a state.
 */
import { crc32 } from 'node:zlib';
import { assert } from '../../base/index.ts';
import { StateError } from './state-error.ts';

const MAGIC = 0x5453_5247;
const FORMAT_VERSION = 1;
const HEAD_BYTES = 16;
const NAME_BYTES_MAX = 32;
/** Far above any state; a length beyond it is no state's. */
const TOTAL_BYTES_MAX = 64 * 1024 * 1024;

export interface Section {
  readonly name: string;
  readonly version: number;
  readonly payload: Uint8Array;
}

const sectionBytes = ({ name, payload }: Section): number =>
  1 + name.length + 2 + 4 + payload.length + 4;

/** The bytes of `sections`, in their order. */
export function encodeSections(sections: readonly Section[]): Uint8Array<ArrayBuffer> {
  const total = sections.reduce((sum, section) => sum + sectionBytes(section), HEAD_BYTES);
  const bytes = new Uint8Array(total);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint16(4, FORMAT_VERSION, true);
  view.setUint16(6, sections.length, true);
  view.setUint32(8, total, true);
  view.setUint32(12, crc32(bytes.subarray(0, 12)), true);
  let at = HEAD_BYTES;
  for (const section of sections) at = putSection(bytes, view, at, section);
  return bytes;
}

function putSection(bytes: Uint8Array, view: DataView, start: number, section: Section): number {
  const { name, version, payload } = section;
  assert(/^[a-z0-9-]+$/.test(name) && name.length <= NAME_BYTES_MAX, 'a section has a short name');
  let at = start;
  view.setUint8(at++, name.length);
  bytes.set(new TextEncoder().encode(name), at);
  at += name.length;
  view.setUint16(at, version, true);
  view.setUint32(at + 2, payload.length, true);
  bytes.set(payload, at + 6);
  at += 6 + payload.length;
  view.setUint32(at, crc32(bytes.subarray(start, at)), true);
  return at + 4;
}

/** The sections in `bytes`. Throws `StateError`: 'truncated', 'corrupted', 'other-version'. */
export function decodeSections(bytes: Uint8Array): Section[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const count = checkHead(bytes, view);
  const sections: Section[] = [];
  let at = HEAD_BYTES;
  for (let i = 0; i < count; i++) {
    const section = sectionAt(bytes, view, at);
    sections.push(section);
    at += sectionBytes(section);
  }
  if (at !== bytes.length) {
    throw new StateError('corrupted', `${bytes.length - at} bytes follow the last section`);
  }
  return sections;
}

/** The number of sections that the head announces. */
function checkHead(bytes: Uint8Array, view: DataView): number {
  if (bytes.length < HEAD_BYTES) {
    throw new StateError('truncated', `a state of ${bytes.length} bytes has no head`);
  }
  if (view.getUint32(0, true) !== MAGIC) {
    throw new StateError('corrupted', 'this is no state of a machine: it does not begin with GRST');
  }
  if (view.getUint32(12, true) !== crc32(bytes.subarray(0, 12))) {
    throw new StateError('corrupted', 'the head of the state has a wrong checksum');
  }
  const version = view.getUint16(4, true);
  if (version !== FORMAT_VERSION) {
    const text = `state format ${version} is not the one this version knows, ${FORMAT_VERSION}`;
    throw new StateError('other-version', text);
  }
  const total = view.getUint32(8, true);
  if (total > TOTAL_BYTES_MAX) {
    throw new StateError('corrupted', `a state of ${total} bytes exceeds ${TOTAL_BYTES_MAX}`);
  }
  if (total !== bytes.length) {
    const code = bytes.length < total ? 'truncated' : 'corrupted';
    throw new StateError(code, `${bytes.length} bytes are here of a state of ${total}`);
  }
  return view.getUint16(6, true);
}

function sectionAt(bytes: Uint8Array, view: DataView, start: number): Section {
  const wrong = (): StateError =>
    new StateError('corrupted', `the section at byte ${start} of the state has a wrong checksum`);
  const nameAt = start + 1;
  const nameBytes = bytes[start] ?? NAME_BYTES_MAX + 1;
  const versionAt = nameAt + nameBytes;
  const payloadAt = versionAt + 6;
  if (nameBytes > NAME_BYTES_MAX || payloadAt > bytes.length) throw wrong();
  const payloadEnd = payloadAt + view.getUint32(versionAt + 2, true);
  if (payloadEnd + 4 > bytes.length) throw wrong();
  if (view.getUint32(payloadEnd, true) !== crc32(bytes.subarray(start, payloadEnd))) throw wrong();
  return {
    name: new TextDecoder('latin1').decode(bytes.subarray(nameAt, versionAt)),
    version: view.getUint16(versionAt, true),
    payload: bytes.subarray(payloadAt, payloadEnd),
  };
}
