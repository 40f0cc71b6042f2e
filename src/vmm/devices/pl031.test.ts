/** The PL031: time, match, wrap-around, state. */
import { describe, expect, it } from 'vitest';
import { Pl031 } from './pl031.ts';

const DR = 0x00;
const MR = 0x04;
const LR = 0x08;
const CR = 0x0c;
const IMSC = 0x10;
const RIS = 0x14;
const MIS = 0x18;
const ICR = 0x1c;

function rtc(start = 1_700_000_000) {
  const clock = { seconds: start };
  const irq: boolean[] = [];
  const device = new Pl031({
    base: 0x0901_0000,
    irq: (level) => irq.push(level),
    seconds: () => clock.seconds,
  });
  const read = (offset: number): number => Number(device.read(offset, 4));
  const write = (offset: number, value: number): void => device.write(offset, 4, BigInt(value));
  return { device, clock, irq, read, write };
}

describe('Pl031', () => {
  it('Pl031: RTCDR, the clock in whole seconds; always started', () => {
    const { clock, read, write } = rtc(1_700_000_000.75);
    expect([read(DR), read(CR)]).toEqual([1_700_000_000, 1]);
    clock.seconds += 10;
    write(CR, 0);
    expect([read(DR), read(CR)]).toEqual([1_700_000_010, 1]);
  });

  it('Pl031: identification, part 031', () => {
    const { read } = rtc();
    expect([0, 1, 2, 3, 4, 5, 6, 7].map((i) => read(0xfe0 + 4 * i))).toEqual([
      0x31, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1,
    ]);
  });

  it('Pl031: RTCLR written, RTCDR counts on from there', () => {
    const { clock, read, write } = rtc();
    write(LR, 100);
    clock.seconds += 5;
    expect([read(DR), read(LR)]).toEqual([105, 100]);
  });

  it('Pl031: the match second, raises the interrupt once until it is cleared', () => {
    const { device, clock, irq, read, write } = rtc(1000);
    write(MR, 1003);
    write(IMSC, 1);
    clock.seconds = 1002;
    device.poll();
    expect([irq, device.secondsToMatch()]).toEqual([[], 1]);
    clock.seconds = 1003;
    device.poll();
    expect([irq, read(RIS), read(MIS)]).toEqual([[true], 1, 1]);
    write(ICR, 1);
    clock.seconds = 1004;
    device.poll();
    expect([irq, read(RIS)]).toEqual([[true, false], 0]);
  });

  it('Pl031: a jump over the match second, still raises it', () => {
    const { device, clock, read, write } = rtc(1000);
    write(MR, 1003);
    clock.seconds = 5000;
    device.poll();
    expect(read(RIS)).toBe(1);
  });

  it('Pl031: a match in the past, comes after 2^32 seconds and not now', () => {
    const { device, clock, read, write } = rtc(1000);
    write(MR, 999);
    write(IMSC, 1);
    clock.seconds = 2000;
    expect(read(RIS)).toBe(0);
    expect(device.secondsToMatch()).toBe(2 ** 32 - 1001);
  });

  it('Pl031: a match that is now, at once', () => {
    const { irq, write } = rtc(1000);
    write(IMSC, 1);
    write(MR, 1000);
    expect(irq).toEqual([true]);
  });

  it('Pl031: RTCLR set to the match, at once; set past it, not', () => {
    const hit = rtc(1000);
    hit.write(MR, 50);
    hit.write(LR, 50);
    expect(hit.read(RIS)).toBe(1);
    const past = rtc(1000);
    past.write(MR, 1500);
    past.write(LR, 2000);
    expect(past.read(RIS)).toBe(0);
  });

  it('Pl031: masked, the raw status alone', () => {
    const { device, clock, irq, read, write } = rtc(1000);
    write(MR, 1001);
    expect(device.secondsToMatch()).toBeUndefined();
    clock.seconds = 1001;
    expect([read(RIS), read(MIS), irq]).toEqual([1, 0, []]);
    write(IMSC, 1);
    expect(irq).toEqual([true]);
  });

  it('Pl031: past 2106, counts on from 0', () => {
    const { device, clock, read, write } = rtc(2 ** 32 - 1);
    write(MR, 1);
    clock.seconds += 2;
    device.poll();
    expect([read(DR), read(RIS)]).toEqual([1, 1]);
  });

  it('Pl031: saved and restored, the same time and alarm', () => {
    const { device, clock, write } = rtc(1000);
    write(LR, 500);
    write(MR, 503);
    write(IMSC, 1);
    const other = rtc(1000);
    other.device.restore(structuredClone(device.save()));
    clock.seconds = 1003;
    other.clock.seconds = 1003;
    other.device.poll();
    expect([other.read(DR), other.irq]).toEqual([503, [true]]);
    other.device.reset();
    expect([other.read(DR), other.read(MR), other.irq.at(-1)]).toEqual([1003, 0, false]);
  });
});
