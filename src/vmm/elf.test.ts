/** ELF files that load, and one refusal for each way not to. */
import { describe, expect, it } from 'vitest';
import { isElf, readElf } from './elf.ts';

interface Segment {
  readonly physical: bigint;
  readonly virtual?: bigint;
  readonly bytes?: Uint8Array;
  readonly memoryBytes?: bigint;
  readonly type?: number;
}

/** An ELF64 for AArch64 with program headers at 64 and data behind them. */
function elf(segments: readonly Segment[], entry: bigint): Uint8Array {
  const dataAt = 64 + segments.length * 56;
  const dataBytes = segments.reduce((sum, { bytes }) => sum + (bytes?.length ?? 0), 0);
  const out = new Uint8Array(dataAt + dataBytes);
  const view = new DataView(out.buffer);
  out.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 2, true);
  view.setUint16(18, 183, true);
  view.setBigUint64(24, entry, true);
  view.setBigUint64(32, 64n, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, segments.length, true);
  let at = dataAt;
  segments.forEach(({ physical, virtual, bytes = new Uint8Array(0), memoryBytes, type }, i) => {
    const header = 64 + i * 56;
    view.setUint32(header, type ?? 1, true);
    view.setBigUint64(header + 8, BigInt(at), true);
    view.setBigUint64(header + 16, virtual ?? physical, true);
    view.setBigUint64(header + 24, physical, true);
    view.setBigUint64(header + 32, BigInt(bytes.length), true);
    view.setBigUint64(header + 40, memoryBytes ?? BigInt(bytes.length), true);
    out.set(bytes, at);
    at += bytes.length;
  });
  return out;
}

const read = (bytes: Uint8Array) => readElf({ name: 'k', bytes });
const code = Uint8Array.of(1, 2, 3, 4);
const good = () => elf([{ physical: 0x4000_0000n, bytes: code }], 0x4000_0000n);

describe('readElf', () => {
  it('readElf: segments in any order, sorted by physical address; notes and empty ones left out', () => {
    const { segments } = read(
      elf(
        [
          { physical: 0x5000n, bytes: code, memoryBytes: 64n },
          { physical: 0x9000n, type: 4, bytes: code },
          { physical: 0x1000n, bytes: code },
          { physical: 0x2000n },
        ],
        0x1000n,
      ),
    );
    expect(segments.map((s) => [s.physical, s.memoryBytes])).toEqual([
      [0x1000n, 4n],
      [0x5000n, 64n],
    ]);
    expect(segments[0]!.bytes).toEqual(code);
  });

  it('readElf: linked high, loaded low, the entry point is where it is loaded', () => {
    const virtual = 0xffff_8000_0800_0000n;
    const { entry } = read(elf([{ physical: 0x4008_0000n, virtual, bytes: code }], virtual + 2n));
    expect(entry).toBe(0x4008_0002n);
  });

  const patched = (at: number, ...bytes: number[]): Uint8Array => {
    const out = good();
    out.set(bytes, at);
    return out;
  };
  it.each([
    ['a 32-bit ELF', patched(4, 1), 'unsupported', '64-bit little-endian'],
    ['a big-endian ELF', patched(5, 2), 'unsupported', '64-bit little-endian'],
    ['an ELF for x86-64', patched(18, 62), 'unsupported', 'machine 62'],
    ['an object file', patched(16, 1), 'unsupported', 'type 1'],
    ['no program headers', patched(56, 0), 'bad-header', 'nothing to load'],
    ['32-byte program headers', patched(54, 32), 'bad-header', '32 bytes'],
    ['headers beyond the file', patched(56, 9), 'truncated', 'end at byte 568'],
    ['data beyond the file', patched(64 + 32, 5), 'truncated', 'ends at byte 125'],
    ['more file than memory', patched(64 + 40, 3), 'bad-header', '4 bytes in the file and 3'],
    ['an entry outside', patched(24, 9), 'bad-header', '0x40000009'],
    ['half a header', good().subarray(0, 63), 'truncated', '63 bytes'],
    [
      'overlap',
      elf(
        [
          { physical: 0n, bytes: code },
          { physical: 3n, bytes: code },
        ],
        0n,
      ),
      'bad-header',
      'overlap at physical address 0x3',
    ],
  ])('readElf: %s, refused', (_, bytes, code, sentence) => {
    expect(() => read(bytes)).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(sentence) }),
    );
  });

  it('isElf: by its first four bytes', () => {
    expect([isElf(good()), isElf(Uint8Array.of(0x7f, 0x45)), isElf(patched(3, 0))]).toEqual([
      true,
      false,
      false,
    ]);
  });
});
