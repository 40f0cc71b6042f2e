/** Where a boot puts things (QEMU's places), and everything that it refuses. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, describe, expect, it } from 'vitest';
import { writeElf } from '../arm/elf-writer.ts';
import { GIB, type Ipa, KIB, MIB } from '../base/index.ts';
import { type BootOptions, loadPlan, planBoot } from './boot.ts';
import type { BootErrorCode } from './boot-error.ts';
import { cellsOf, findNode, readDeviceTree } from './dtb-reader.ts';

interface ImageFields {
  readonly textOffset?: bigint;
  readonly imageSize?: bigint;
  readonly flags?: bigint;
  readonly sizeBytes?: number;
}

/** An arm64 Image whose bytes after the header are 0xaa. */
function image(fields: ImageFields = {}): Uint8Array {
  const out = new Uint8Array(fields.sizeBytes ?? 64 * KIB).fill(0xaa);
  const view = new DataView(out.buffer);
  view.setBigUint64(8, fields.textOffset ?? 0n, true);
  view.setBigUint64(16, fields.imageSize ?? 0x2_0000n, true);
  view.setBigUint64(24, fields.flags ?? 0xan, true);
  view.setUint32(56, 0x644d5241, true);
  return out;
}

/** An EFI zboot wrapping of `payload`. */
function zboot(payload: Uint8Array, compression: string): Uint8Array {
  const out = new Uint8Array(64 + payload.length);
  const view = new DataView(out.buffer);
  out.set(new TextEncoder().encode('MZ\0\0zimg'));
  view.setUint32(8, 64, true);
  view.setUint32(12, payload.length, true);
  out.set(new TextEncoder().encode(compression), 24);
  out.set(payload, 64);
  return out;
}

const bytesOf = (bytes: Uint8Array) => ({ name: 'kernel', bytes });

const plan = (options: Partial<BootOptions> = {}) =>
  planBoot({
    kernel: bytesOf(image()),
    cmdline: '',
    ramBytes: 512 * MIB,
    cpuCount: 1,
    seed: 1,
    ...options,
  });

const placesOf = (options: Partial<BootOptions>): [string, string][] =>
  plan(options).segments.map(({ name, base }) => [name, base.toString(16)]);

const initrd = (sizeBytes: number) => ({ name: 'initrd', bytes: new Uint8Array(sizeBytes) });

const folder = mkdtempSync(join(tmpdir(), 'granule-boot-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('planBoot: places', () => {
  it.each<[string, Partial<BootOptions>, [string, string][]]>([
    [
      'an Image, initrd at 128 MiB, device tree on the next 2 MiB',
      { initrd: initrd(5000) },
      [
        ['kernel', '40200000'],
        ['initrd', '48000000'],
        ['device-tree', '48200000'],
      ],
    ],
    [
      'no initrd, device tree at 128 MiB',
      {},
      [
        ['kernel', '40200000'],
        ['device-tree', '48000000'],
      ],
    ],
    [
      'little RAM, initrd at half of it',
      { ramBytes: 64 * MIB, initrd: initrd(1) },
      [
        ['kernel', '40200000'],
        ['initrd', '42000000'],
        ['device-tree', '42200000'],
      ],
    ],
    [
      'a kernel beyond half of RAM, initrd on the page after its BSS',
      { ramBytes: 16 * MIB, kernel: bytesOf(image({ imageSize: 0x70_0001n })), initrd: initrd(1) },
      [
        ['kernel', '40200000'],
        ['initrd', '40901000'],
        ['device-tree', '40a00000'],
      ],
    ],
    [
      'text_offset of a page or more, obeyed from the start of RAM',
      { kernel: bytesOf(image({ textOffset: 0x8_0000n })) },
      [
        ['kernel', '40080000'],
        ['device-tree', '48000000'],
      ],
    ],
    [
      'image_size 0, text_offset 0x80000 whatever the header says',
      { kernel: bytesOf(image({ imageSize: 0n, textOffset: 0x1234n })) },
      [
        ['kernel', '40080000'],
        ['device-tree', '48000000'],
      ],
    ],
  ])('planBoot: %s', (_, options, places) => {
    expect(placesOf(options)).toEqual(places);
  });

  it('planBoot: the boot protocol, x0 the device tree, EL1h with interrupts masked', () => {
    const { registers, segments } = plan({ initrd: initrd(1) });
    expect(registers).toEqual({
      pc: 0x4020_0000n,
      pstate: 0x3c5n,
      x: [BigInt(segments.at(-1)!.base), 0n, 0n, 0n],
    });
  });

  it('planBoot: the device tree, names the initrd where it lies', () => {
    const { deviceTree } = plan({ initrd: initrd(5000), cmdline: 'quiet' });
    const chosen = findNode(readDeviceTree(deviceTree).root, '/chosen')!.properties;
    expect(cellsOf(chosen['linux,initrd-start']!)).toEqual([0, 0x4800_0000]);
    expect(cellsOf(chosen['linux,initrd-end']!)).toEqual([0, 0x4800_0000 + 5000]);
  });

  it('planBoot: gzip, EFI zboot and plain, the same kernel', () => {
    const raw = image();
    for (const wrapped of [gzipSync(raw), zboot(gzipSync(raw), 'gzip'), raw]) {
      const { segments } = plan({ kernel: bytesOf(wrapped) });
      expect(Buffer.compare(segments[0]!.bytes, raw)).toBe(0);
      expect(segments[0]!.memoryBytes).toBe(0x2_0000);
    }
  });

  it('planBoot: an ELF at 2 MiB, device tree at the start of RAM and in x0', () => {
    const segment = { address: 0x4020_0000n, bytes: Uint8Array.of(1), access: 'rx' } as const;
    const elf = plan({ kernel: bytesOf(writeElf(0x4020_0000n, [segment])) });
    expect(elf.format).toBe('elf');
    expect(elf.segments.map(({ name, base }) => [name, base])).toEqual([
      ['kernel', 0x4020_0000],
      ['device-tree', 0x4000_0000],
    ]);
    expect(elf.registers.x[0]).toBe(0x4000_0000n);
  });

  it('planBoot: an ELF at the start of RAM, device tree after it', () => {
    const segment = { address: 0x4000_0000n, bytes: Uint8Array.of(1), access: 'rx' } as const;
    const elf = plan({ kernel: bytesOf(writeElf(0x4000_0000n, [segment])), ramBytes: 8 * MIB });
    expect(elf.segments.at(-1)!.base).toBe(0x4040_0000);
  });

  it('planBoot: the same options, the same plan; another seed, another device tree', () => {
    expect(plan()).toEqual(plan());
    expect(plan({ seed: 2 }).deviceTree).not.toEqual(plan().deviceTree);
  });
});

describe('planBoot: refusals', () => {
  const file = (name: string, bytes: Uint8Array): { path: string } => {
    const path = join(folder, name);
    writeFileSync(path, bytes);
    return { path };
  };
  const elfAt = (address: bigint) =>
    bytesOf(writeElf(address, [{ address, bytes: Uint8Array.of(1), access: 'rx' }]));

  it.each<[string, Partial<BootOptions>, BootErrorCode, string]>([
    ['no such file', { kernel: { path: '/no/kernel' } }, 'file-missing', '/no/kernel: no such'],
    ['a folder', { kernel: { path: folder } }, 'file-unreadable', 'not a regular file'],
    ['no such initrd', { initrd: { path: '/no/initrd' } }, 'file-missing', '/no/initrd'],
    ['an empty file', { kernel: file('empty', new Uint8Array(0)) }, 'wrong-magic', 'neither'],
    ['text', { kernel: bytesOf(new Uint8Array(100).fill(65)) }, 'wrong-magic', 'neither'],
    ['half an Image header', { kernel: bytesOf(image().subarray(0, 60)) }, 'truncated', '60 bytes'],
    ['a big-endian Image', { kernel: bytesOf(image({ flags: 1n })) }, 'unsupported', 'big-endian'],
    [
      'a wild text_offset',
      { kernel: bytesOf(image({ textOffset: 0x20_0000n })) },
      'bad-header',
      '0x200000',
    ],
    [
      'an image_size below the file',
      { kernel: bytesOf(image({ imageSize: 100n })) },
      'bad-header',
      'image_size 100',
    ],
    [
      'an image_size beyond numbers',
      { kernel: bytesOf(image({ imageSize: 2n ** 60n })) },
      'bad-header',
      '1152921504606846976',
    ],
    [
      'a kernel larger than RAM',
      { ramBytes: 16 * MIB, kernel: bytesOf(image({ imageSize: 0xe0_0001n })) },
      'kernel-does-not-fit',
      '16781312 bytes of RAM and the guest has 16777216',
    ],
    [
      'an initrd larger than what is left',
      { ramBytes: 16 * MIB, initrd: initrd(8 * MIB + 1) },
      'initrd-does-not-fit',
      '8388608 bytes of RAM are left',
    ],
    ['an initrd of 0 bytes', { initrd: initrd(0) }, 'truncated', '0 bytes'],
    [
      'no room for the device tree',
      { ramBytes: 16 * MIB, initrd: initrd(8 * MIB) },
      'device-tree-does-not-fit',
      'no RAM is left',
    ],
    [
      'damaged gzip',
      { kernel: bytesOf(gzipSync(image()).subarray(0, 40)) },
      'corrupt',
      'damaged or cut',
    ],
    ['zstd in zboot', { kernel: bytesOf(zboot(image(), 'zstd22')) }, 'unsupported', "'zstd22'"],
    [
      'zboot cut short',
      { kernel: bytesOf(zboot(gzipSync(image()), 'gzip').subarray(0, 90)) },
      'truncated',
      'the file at 90',
    ],
    ['an ELF below RAM', { kernel: elfAt(0x1000n) }, 'kernel-does-not-fit', '0x1000 of 1 bytes'],
    [
      'an ELF above RAM',
      { kernel: elfAt(0x6000_0000n) },
      'kernel-does-not-fit',
      '0x40000000 to 0x60000000',
    ],
    ['too much RAM', { ramBytes: 4 * GIB }, 'memory-size', '4 GiB is outside 2 MiB to 3 GiB'],
    ['too little RAM', { ramBytes: MIB }, 'memory-size', '1 MiB'],
    ['RAM of no size', { ramBytes: Number.NaN }, 'memory-size', 'NaN'],
    ['RAM off the 2 MiB steps', { ramBytes: 513 * MIB }, 'memory-size', 'no multiple of 2 MiB'],
    ['no CPU', { cpuCount: 0 }, 'cpu-count', 'CPU count 0 is outside 1 to 8'],
    ['nine CPUs', { cpuCount: 9 }, 'cpu-count', 'CPU count 9'],
    [
      'a long command line',
      { cmdline: 'x'.repeat(2048) },
      'command-line',
      '2048 bytes exceeds 2047',
    ],
    ['a NUL in the command line', { cmdline: 'a\0b' }, 'command-line', 'NUL'],
  ])('planBoot: %s, refused', (_, options, code, sentence) => {
    expect(() => plan(options)).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(sentence) }),
    );
  });

  it('planBoot: the longest command line and 8 CPUs, accepted', () => {
    expect(plan({ cmdline: 'x'.repeat(2047), cpuCount: 8 }).cpuCount).toBe(8);
  });
});

describe('loadPlan', () => {
  it('loadPlan: dirty memory, kernel and zeroed BSS, initrd and device tree as planned', () => {
    const booted = plan({ ramBytes: 16 * MIB, initrd: initrd(3) });
    const ram = new Uint8Array(16 * MIB).fill(0xee);
    const at = (address: Ipa) => address - 0x4000_0000;
    loadPlan(booted, {
      read: () => undefined,
      write: (address, bytes) => {
        ram.set(bytes, at(address));
        return true;
      },
    });
    const kernel = ram.subarray(0x20_0000, 0x22_0000);
    expect(kernel[64 * KIB - 1]).toBe(0xaa);
    expect(kernel.subarray(64 * KIB).every((byte) => byte === 0)).toBe(true);
    expect(ram[0x22_0000]).toBe(0xee);
    expect([...ram.subarray(0x80_0000, 0x80_0004)]).toEqual([0, 0, 0, 0xee]);
    const tree = Number(booted.registers.x[0]) - 0x4000_0000;
    expect(readDeviceTree(ram.subarray(tree, tree + booted.deviceTree.length))).toBeDefined();
  });

  it('loadPlan: memory that does not cover the plan, an assertion', () => {
    expect(() => loadPlan(plan(), { read: () => undefined, write: () => false })).toThrow('covers');
  });
});
