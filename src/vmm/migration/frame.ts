/**
 * Frames: how messages lie in a byte stream. A frame is a header of 20 bytes, little-endian, and a
 * payload; what a payload means is `messages.ts`'s. Sizes are checked before anything is read.
 *
 *     0  u16 marker 0x4d47    2  u8 type    3  u8 0    4  u32 bytes of payload    8  u32 sequence
 *    12  u32 CRC-32 of the payload                    16  u32 CRC-32 of header bytes 0 … 15
 *
 * The sequence counts the frames of one direction of one connection from 0. A changed byte anywhere
 * breaks one of the two checksums before the frame is used, and a frame that is left out, repeated
 * or moved breaks the sequence.
 */
import { crc32 } from 'node:zlib';
import { assert, MIB } from '../../base/index.ts';
import { MigrationError } from './migration-error.ts';

export const FRAME_HEADER_BYTES = 20;
export const FRAME_PAYLOAD_BYTES_MAX = 4 * MIB;

const MARKER = 0x4d47;
const CHECKED_BYTES = 16;

/** A frame as it came in; `payload` is valid until the next frame is asked for. */
export interface Frame {
  readonly type: number;
  readonly payload: Uint8Array;
}

/** Fills in the header of `frame`, whose payload lies behind FRAME_HEADER_BYTES. */
export function sealFrame(frame: Uint8Array, type: number, sequence: number): void {
  const payload = frame.subarray(FRAME_HEADER_BYTES);
  assert(
    payload.length <= FRAME_PAYLOAD_BYTES_MAX,
    'a frame is not longer than its receiver takes',
  );
  const view = new DataView(frame.buffer, frame.byteOffset, FRAME_HEADER_BYTES);
  view.setUint16(0, MARKER, true);
  view.setUint8(2, type);
  view.setUint8(3, 0);
  view.setUint32(4, payload.length, true);
  view.setUint32(8, sequence, true);
  view.setUint32(12, crc32(payload), true);
  view.setUint32(16, crc32(frame.subarray(0, CHECKED_BYTES)), true);
}

interface Header {
  readonly type: number;
  readonly payloadBytes: number;
  readonly payloadCrc: number;
}

/** Takes a stream apart: `push` what came, then `next` until it gives nothing. */
export class FrameReader {
  readonly #headerBytes = new Uint8Array(FRAME_HEADER_BYTES);
  #headerFilled = 0;
  #header: Header | undefined;
  /** Grows to the largest payload that came in pieces. */
  #payload: Uint8Array = new Uint8Array(0);
  #payloadFilled = 0;
  #chunk: Uint8Array = new Uint8Array(0);
  #chunkAt = 0;
  #sequence = 0;

  /**
   * Preconditions: `next` has given all that there was. `chunk` must not change until it has again.
   */
  push(chunk: Uint8Array): void {
    assert(this.#chunkAt === this.#chunk.length, 'a chunk is used up before the next one comes');
    this.#chunk = chunk;
    this.#chunkAt = 0;
  }

  /** The next whole frame, or undefined where more bytes are needed. Throws `MigrationError`. */
  next(): Frame | undefined {
    this.#header ??= this.#readHeader();
    if (this.#header === undefined) return undefined;
    const payload = this.#readPayload(this.#header);
    if (payload === undefined) return undefined;
    const { type, payloadCrc } = this.#header;
    if (crc32(payload) !== payloadCrc) {
      throw new MigrationError(
        'corrupt',
        `frame ${this.#sequence}: the payload's checksum is wrong`,
      );
    }
    this.#header = undefined;
    this.#headerFilled = 0;
    this.#payloadFilled = 0;
    this.#sequence++;
    return { type, payload };
  }

  /** The stream has ended; throws where that is inside a frame. */
  end(): void {
    const { payloadBytes } = this.#header ?? { payloadBytes: 0 };
    const missing = this.#header === undefined ? FRAME_HEADER_BYTES : payloadBytes;
    const filled = this.#header === undefined ? this.#headerFilled : this.#payloadFilled;
    if (this.#header === undefined && filled === 0) return;
    throw new MigrationError(
      'truncated',
      `the stream ended in frame ${this.#sequence}, ${filled} bytes into ${missing}`,
    );
  }

  #readHeader(): Header | undefined {
    const taken = this.#take(FRAME_HEADER_BYTES - this.#headerFilled);
    this.#headerBytes.set(taken, this.#headerFilled);
    this.#headerFilled += taken.length;
    if (this.#headerFilled < FRAME_HEADER_BYTES) return undefined;
    return parseHeader(this.#headerBytes, this.#sequence);
  }

  /** A view of the chunk where it holds all of the payload, else of the bytes gathered. */
  #readPayload({ payloadBytes }: Header): Uint8Array | undefined {
    const wanted = payloadBytes - this.#payloadFilled;
    const taken = this.#take(wanted);
    if (taken.length === payloadBytes) return taken;
    if (this.#payload.length < payloadBytes) this.#payload = grown(this.#payload, payloadBytes);
    this.#payload.set(taken, this.#payloadFilled);
    this.#payloadFilled += taken.length;
    return taken.length === wanted ? this.#payload.subarray(0, payloadBytes) : undefined;
  }

  #take(bytesMax: number): Uint8Array {
    const taken = this.#chunk.subarray(this.#chunkAt, this.#chunkAt + bytesMax);
    this.#chunkAt += taken.length;
    return taken;
  }
}

function grown(bytes: Uint8Array, sizeBytes: number): Uint8Array {
  const larger = new Uint8Array(sizeBytes);
  larger.set(bytes);
  return larger;
}

function parseHeader(bytes: Uint8Array, expectedSequence: number): Header {
  const view = new DataView(bytes.buffer);
  const corrupt = (what: string): MigrationError =>
    new MigrationError('corrupt', `frame ${expectedSequence}: ${what}`);
  if (view.getUint16(0, true) !== MARKER) throw corrupt('it does not begin with the marker');
  if (crc32(bytes.subarray(0, CHECKED_BYTES)) !== view.getUint32(16, true)) {
    throw corrupt("the header's checksum is wrong");
  }
  const payloadBytes = view.getUint32(4, true);
  if (payloadBytes > FRAME_PAYLOAD_BYTES_MAX) {
    throw corrupt(`${payloadBytes} bytes of payload are more than ${FRAME_PAYLOAD_BYTES_MAX}`);
  }
  const sequence = view.getUint32(8, true);
  if (sequence !== expectedSequence) throw corrupt(`its sequence number is ${sequence}`);
  return { type: view.getUint8(2), payloadBytes, payloadCrc: view.getUint32(12, true) };
}
