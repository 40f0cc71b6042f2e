/** Which device answers, and which cannot be attached. */
import { describe, expect, it } from 'vitest';
import { ipa } from '../base/index.ts';
import type { MmioDevice } from './devices/device.ts';
import { MmioBus } from './mmio-bus.ts';

function device(name: string, base: number, sizeBytes: number) {
  const log: string[] = [];
  const it: MmioDevice = {
    name,
    base: ipa(base),
    sizeBytes,
    read: (offset, size) => {
      log.push(`r${size}@${offset}`);
      return BigInt(offset);
    },
    write: (offset, size, value) => void log.push(`w${size}@${offset}=${value}`),
  };
  return { ...it, log };
}

describe('MmioBus', () => {
  it('MmioBus: loads and stores, go to the device at its own offset', () => {
    const bus = new MmioBus();
    const [a, b] = [device('a', 0x1000, 0x100), device('b', 0x1100, 0x100)];
    bus.attach(a);
    bus.attach(b);
    expect(bus.read(ipa(0x1110), 4)).toBe(0x10n);
    expect(bus.write(ipa(0x10fc), 4, 7n)).toBe(true);
    expect(bus.read(ipa(0x11fc), 4)).toBe(0xfcn);
    expect([a.log, b.log]).toEqual([['w4@252=7'], ['r4@16', 'r4@252']]);
  });

  it.each([
    ['before', 0xfff, 1],
    ['after', 0x1100, 1],
    ['across its end', 0x10fe, 4],
    ['across its start', 0xffe, 4],
  ] as const)('MmioBus: an access %s, nobody answers', (_, address, size) => {
    const bus = new MmioBus();
    const a = device('a', 0x1000, 0x100);
    bus.attach(a);
    bus.read(ipa(0x1000), 4); // the device of the last access is looked at first
    expect(bus.read(ipa(address), size)).toBeUndefined();
    expect(bus.write(ipa(address), size, 0n)).toBe(false);
    expect(a.log).toEqual(['r4@0']);
  });

  it.each([
    ['the same range', 0x1000, 0x100],
    ['its last word', 0x10fc, 0x100],
    ['its first word', 0xf04, 0x100],
    ['all around it', 0x800, 0x1000],
    ['inside it', 0x1040, 4],
  ])('MmioBus: a device over %s, refused by name', (_, base, sizeBytes) => {
    const bus = new MmioBus();
    bus.attach(device('uart', 0x1000, 0x100));
    expect(() => bus.attach(device('rtc', base, sizeBytes))).toThrow(
      expect.objectContaining({
        code: 'overlap',
        message: expect.stringMatching(/^rtc at .* overlaps uart at 0x1000–0x10ff$/),
      }),
    );
    expect(bus.devices).toHaveLength(1);
  });

  it.each([
    [0x1002, 0x100],
    [0x1000, 0x102],
    [0x1000, 0],
  ])('MmioBus: a range of no whole words (%i, %i), refused', (base, sizeBytes) => {
    expect(() => new MmioBus().attach(device('x', base, sizeBytes))).toThrow(
      expect.objectContaining({ code: 'misaligned' }),
    );
  });
});
