/** The ELF writer: headers, segments, alignment; what `vmm/elf.ts` reads back. */
import { describe, expect, it } from 'vitest';
import { writeElf } from './elf-writer.ts';

const text = { address: 0x40_0100n, bytes: Uint8Array.of(1, 2, 3, 4), access: 'rx' } as const;
const data = {
  address: 0x41_0008n,
  bytes: Uint8Array.of(5),
  memorySize: 64,
  access: 'rw',
} as const;

function programHeaders(file: Uint8Array): { offset: bigint; address: bigint; file: bigint }[] {
  const view = new DataView(file.buffer);
  return Array.from({ length: view.getUint16(56, true) }, (_, i) => {
    const at = 64 + 56 * i;
    return {
      offset: view.getBigUint64(at + 8, true),
      address: view.getBigUint64(at + 16, true),
      file: view.getBigUint64(at + 32, true),
    };
  });
}

describe('writeElf', () => {
  it('header: an AArch64 executable that starts at its entry', () => {
    const view = new DataView(writeElf(text.address, [text]).buffer);
    expect(view.getUint32(0, false)).toBe(0x7f454c46);
    expect([view.getUint16(16, true), view.getUint16(18, true)]).toEqual([2, 183]);
    expect(view.getBigUint64(24, true)).toBe(text.address);
  });

  it('segments: file offset and address agree modulo 64 KiB, bytes are there', () => {
    const file = writeElf(text.address, [text, data]);
    const [first, second, stack] = programHeaders(file);
    for (const header of [first!, second!]) {
      expect(header.offset % 0x10000n).toBe(header.address % 0x10000n);
    }
    expect([...file.subarray(Number(first!.offset), Number(first!.offset) + 4)]).toEqual([
      1, 2, 3, 4,
    ]);
    expect(file[Number(second!.offset)]).toBe(5);
    expect(stack).toEqual({ offset: 0n, address: 0n, file: 0n });
  });

  it('segment without bytes: takes no room in the file', () => {
    const bss = {
      address: 0x42_0000n,
      bytes: new Uint8Array(),
      memorySize: 4096,
      access: 'rw',
    } as const;
    expect(writeElf(text.address, [text, bss]).length).toBe(0x104);
  });

  it('memory smaller than the bytes: our bug', () => {
    expect(() => writeElf(0n, [{ ...data, memorySize: 0 }])).toThrow('holds its bytes');
  });
});
