/** Frames: whole ones come through however they are cut; changed, cut, moved ones never do. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX, FrameReader, sealFrame } from './frame.ts';
import { MigrationError } from './migration-error.ts';

function frame(type: number, payload: Uint8Array, sequence: number): Uint8Array {
  const bytes = new Uint8Array(FRAME_HEADER_BYTES + payload.length);
  bytes.set(payload, FRAME_HEADER_BYTES);
  sealFrame(bytes, type, sequence);
  return bytes;
}

/** What a reader makes of a stream given in pieces. */
function read(pieces: readonly Uint8Array[]): { type: number; payload: number[] }[] {
  const reader = new FrameReader();
  const found: { type: number; payload: number[] }[] = [];
  for (const piece of pieces) {
    reader.push(piece);
    for (let next = reader.next(); next !== undefined; next = reader.next()) {
      found.push({ type: next.type, payload: [...next.payload] });
    }
  }
  reader.end();
  return found;
}

const payloads = fc.array(fc.uint8Array({ maxLength: 60 }), { minLength: 1, maxLength: 5 });
const streamOf = (parts: readonly Uint8Array[]): Uint8Array =>
  Buffer.concat(parts.map((payload, i) => frame(i + 1, payload, i)));

const codeOf = (work: () => unknown): string | undefined => {
  try {
    work();
    return undefined;
  } catch (error) {
    if (!(error instanceof MigrationError)) throw error;
    return error.code;
  }
};

describe('frames', () => {
  it('frame: a stream in any pieces, the frames that were sent', () => {
    fc.assert(
      fc.property(payloads, fc.array(fc.integer({ min: 1, max: 30 })), (parts, cuts) => {
        const stream = streamOf(parts);
        const pieces: Uint8Array[] = [];
        let at = 0;
        for (const cut of cuts) {
          pieces.push(stream.subarray(at, at + cut));
          at += cut;
        }
        pieces.push(stream.subarray(at));
        const expected = parts.map((payload, i) => ({ type: i + 1, payload: [...payload] }));
        expect(read(pieces)).toEqual(expected);
      }),
    );
  });

  it('frame: any byte changed, corrupt or cut, and nothing of that frame is given out', () => {
    const stream = streamOf([Uint8Array.of(1, 2, 3), new Uint8Array(0), Uint8Array.of(9, 9)]);
    for (let at = 0; at < stream.length; at++) {
      for (const xor of [1, 0x80, 0xff]) {
        const changed = stream.slice();
        changed[at] = changed[at]! ^ xor;
        expect(['corrupt', 'truncated'], `byte ${at}`).toContain(codeOf(() => read([changed])));
      }
    }
  });

  it('frame: cut anywhere but between two frames, truncated', () => {
    const parts = [Uint8Array.of(1, 2, 3), Uint8Array.of(4)];
    const stream = streamOf(parts);
    const whole = [0, FRAME_HEADER_BYTES + 3, stream.length];
    for (let length = 0; length <= stream.length; length++) {
      const code = codeOf(() => read([stream.subarray(0, length)]));
      expect(code, `${length} bytes`).toBe(whole.includes(length) ? undefined : 'truncated');
    }
  });

  it.each([
    ['left out', [0, 2]],
    ['repeated', [0, 0]],
    ['moved', [1, 0]],
  ])('frame: one %s, corrupt by its sequence', (_, order) => {
    const payload = Uint8Array.of(7);
    const stream = Buffer.concat(order.map((sequence) => frame(1, payload, sequence)));
    expect(() => read([stream])).toThrow('its sequence number is');
  });

  it('frame: more payload than is taken, refused before it is read', () => {
    const header = frame(1, new Uint8Array(0), 0);
    const view = new DataView(header.buffer);
    view.setUint32(4, FRAME_PAYLOAD_BYTES_MAX + 1, true);
    // A right checksum over the wrong size.
    const sealed = frame(1, new Uint8Array(0), 0);
    expect(sealed.length).toBe(FRAME_HEADER_BYTES);
    expect(() => read([header])).toThrow(MigrationError);
    const tooLong = new Uint8Array(FRAME_HEADER_BYTES + FRAME_PAYLOAD_BYTES_MAX + 1);
    expect(() => sealFrame(tooLong, 1, 0)).toThrow('not longer than its receiver takes');
  });
});
