/** The PL011 register by register, its interrupts, and its FIFO against a model. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Pl011 } from './pl011.ts';

const DR = 0x00;
const RSR = 0x04;
const FR = 0x18;
const LCR_H = 0x2c;
const CR = 0x30;
const IFLS = 0x34;
const IMSC = 0x38;
const RIS = 0x3c;
const MIS = 0x40;
const ICR = 0x44;

const RXFE = 0x10;
const RXFF = 0x40;
const TXFE = 0x80;
const RX = 0x10;
const TX = 0x20;
const RT = 0x40;
const BE = 0x200;
const OE = 0x400;
const FEN = 0x10;
const LBE = 0x80;

function uart() {
  const sent: number[] = [];
  const irq: boolean[] = [];
  const device = new Pl011({
    base: 0x0900_0000,
    irq: (level) => irq.push(level),
    transmit: (byte) => sent.push(byte),
  });
  const read = (offset: number): number => Number(device.read(offset, 4));
  const write = (offset: number, value: number): void => device.write(offset, 4, BigInt(value));
  const receive = (text: string): number => device.receive(new TextEncoder().encode(text));
  return { device, sent, irq, read, write, receive };
}

/** As a driver sets it up: 8 bits, FIFOs on, receiver and transmitter on, receive interrupts. */
function started() {
  const all = uart();
  all.write(LCR_H, 0x60 | FEN);
  all.write(CR, 0x301);
  all.write(IMSC, RX | RT);
  return all;
}

const readAll = ({ read }: ReturnType<typeof uart>): string => {
  let out = '';
  while ((read(FR) & RXFE) === 0) out += String.fromCharCode(read(DR) & 0xff);
  return out;
};

describe('Pl011: registers', () => {
  it('Pl011: after reset, the values of DDI 0183', () => {
    const { read } = uart();
    expect([FR, LCR_H, CR, IFLS, IMSC, RIS, MIS].map(read)).toEqual([
      TXFE | RXFE,
      0,
      0x300,
      0x12,
      0,
      0,
      0,
    ]);
  });

  it('Pl011: identification, part 011 revision r1p1 (a 16-entry FIFO to Linux)', () => {
    const { read } = uart();
    expect([0, 1, 2, 3, 4, 5, 6, 7].map((i) => read(0xfe0 + 4 * i))).toEqual([
      0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1,
    ]);
  });

  it.each([
    ['ILPR', 0x20, 0xff],
    ['IBRD', 0x24, 0xffff],
    ['FBRD', 0x28, 0x3f],
    ['LCR_H', LCR_H, 0xff],
    ['CR', CR, 0xffff],
    ['IFLS', IFLS, 0x3f],
    ['IMSC', IMSC, 0x7ff],
    ['DMACR', 0x48, 7],
  ])('Pl011: %s written with ones, reads its implemented bits', (_, offset, mask) => {
    const { read, write } = uart();
    write(offset, 0xffff_ffff);
    expect(read(offset)).toBe(mask);
  });

  it('Pl011: read-only and reserved registers written, nothing changes', () => {
    const { device, write } = uart();
    const before = device.save();
    for (const offset of [FR, RIS, MIS, 0x08, 0x80, 0xfe0, 0xffc]) write(offset, 0xffff_ffff);
    expect(device.save()).toEqual(before);
  });

  it('Pl011: byte accesses, the lane of the register', () => {
    const { device, sent } = uart();
    device.write(DR, 1, 0x41n);
    expect(sent).toEqual([0x41]);
    expect(device.read(CR + 1, 1)).toBe(3n);
  });
});

describe('Pl011: transmit', () => {
  it('Pl011: bytes written, sent in order whether or not it is enabled; FIFO never full', () => {
    const { sent, write, read } = uart();
    for (let i = 0; i < 40; i++) {
      write(DR, 0x100 | i);
      expect(read(FR) & 0xa8).toBe(TXFE);
    }
    expect(sent).toEqual(Array.from({ length: 40 }, (_, i) => i));
  });

  it('Pl011: TXRIS, raised by the first write and cleared by ICR alone', () => {
    const { read, write, irq } = uart();
    write(IMSC, TX);
    expect([read(RIS), irq]).toEqual([0, []]);
    write(DR, 1);
    expect([read(RIS), read(MIS), irq]).toEqual([TX, TX, [true]]);
    write(IMSC, 0);
    expect([read(RIS), read(MIS), irq]).toEqual([TX, 0, [true, false]]);
    write(IMSC, TX);
    write(ICR, TX);
    expect([read(RIS), irq]).toEqual([0, [true, false, true, false]]);
  });
});

describe('Pl011: receive', () => {
  it('Pl011: one byte with FIFOs on, the receive timeout alone; reading it clears all', () => {
    const all = started();
    expect(all.receive('a')).toBe(1);
    expect([all.read(MIS), all.irq]).toEqual([RT, [true]]);
    expect(all.read(DR)).toBe(0x61);
    expect([all.read(RIS), all.irq]).toEqual([0, [true, false]]);
  });

  it.each([
    [0, 2],
    [1, 4],
    [2, 8],
    [3, 12],
    [4, 14],
    [7, 14],
  ])('Pl011: RXIFLSEL %i, RXRIS from %i characters on and not below', (select, trigger) => {
    const all = started();
    all.write(IFLS, select << 3);
    all.receive('x'.repeat(trigger - 1));
    expect(all.read(RIS) & RX).toBe(0);
    all.receive('y');
    expect(all.read(RIS) & RX).toBe(RX);
    all.read(DR);
    expect(all.read(RIS) & (RX | RT)).toBe(RT);
  });

  it('Pl011: character mode, RXRIS with the one character there is room for', () => {
    const all = uart();
    expect(all.receive('ab')).toBe(1);
    expect(all.read(FR) & (RXFE | RXFF)).toBe(RXFF);
    expect(all.read(RIS) & RX).toBe(RX);
    expect(all.read(DR)).toBe(0x61);
    expect(all.read(RIS)).toBe(0);
  });

  it('Pl011: more than the FIFO holds, the rest not taken and nothing overrun', () => {
    const all = started();
    expect(all.receive('0123456789abcdefXYZ')).toBe(16);
    expect(all.receive('!')).toBe(0);
    expect(all.read(FR) & (RXFE | RXFF)).toBe(RXFF);
    expect(readAll(all)).toBe('0123456789abcdef');
    expect(all.read(RIS)).toBe(0);
  });

  it('Pl011: read when empty, 0 and still empty', () => {
    const all = started();
    expect([all.read(DR), all.read(FR)]).toEqual([0, TXFE | RXFE]);
  });

  it('Pl011: timeout cleared by ICR with characters left, raised again by the next ones', () => {
    const all = started();
    all.receive('ab');
    all.write(ICR, RT);
    expect(all.irq).toEqual([true, false]);
    all.receive('c');
    expect(all.irq).toEqual([true, false, true]);
    expect(readAll(all)).toBe('abc');
  });

  it('Pl011: a break, BE in UARTDR, in UARTRSR after it, and its interrupt', () => {
    const all = started();
    expect(all.device.receiveBreak()).toBe(true);
    expect(all.read(RIS) & BE).toBe(BE);
    expect(all.read(DR)).toBe(0x400);
    expect(all.read(RSR)).toBe(4);
    all.write(RSR, 0);
    expect(all.read(RSR)).toBe(0);
  });

  it('Pl011: FIFOs switched, what was received is gone', () => {
    const all = started();
    all.receive('abc');
    all.write(LCR_H, 0x60);
    expect([all.read(FR), all.read(RIS), all.irq.at(-1)]).toEqual([TXFE | RXFE, 0, false]);
  });

  it('Pl011: any mix of bursts and reads, what was taken comes out in order', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.string({ maxLength: 20 }), fc.nat(20))), (steps) => {
        const all = started();
        let taken = '';
        let got = '';
        for (const step of steps) {
          if (typeof step === 'string') {
            const ascii = step.replace(/[^ -~]/g, '?');
            taken += ascii.slice(0, all.receive(ascii));
          } else {
            for (let i = 0; i < step && (all.read(FR) & RXFE) === 0; i++) {
              got += String.fromCharCode(all.read(DR));
            }
          }
          const held = taken.length - got.length;
          expect(all.device.receiveRoom).toBe(16 - held);
          expect((all.read(RIS) & RX) !== 0).toBe(held >= 8);
          expect((all.read(RIS) & RT) !== 0).toBe(held > 0);
          expect(all.irq.at(-1) ?? false).toBe(held > 0);
        }
        expect(got + readAll(all)).toBe(taken);
      }),
    );
  });
});

describe('Pl011: loopback', () => {
  it('Pl011: LBE, bytes written come back and go nowhere else; input is cut off', () => {
    const all = started();
    all.write(CR, 0x301 | LBE);
    all.write(DR, 0x55);
    expect(all.sent).toEqual([]);
    expect(all.receive('z')).toBe(0);
    expect(all.device.receiveBreak()).toBe(false);
    expect(all.read(DR)).toBe(0x55);
  });

  it('Pl011: a 17th byte in loopback, lost and marked as overrun', () => {
    const all = started();
    all.write(CR, 0x301 | LBE);
    for (let i = 0; i < 17; i++) all.write(DR, i);
    expect(all.read(RIS) & OE).toBe(OE);
    const got = Array.from({ length: 16 }, () => all.read(DR));
    expect(got.slice(0, 15)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    expect(got[15]).toBe(0x80f);
    expect(all.read(RSR)).toBe(8);
  });

  it('Pl011: modem outputs in loopback, inputs with their interrupts', () => {
    const all = started();
    all.write(CR, 0x301 | LBE);
    all.write(CR, 0x301 | LBE | 0x3c00);
    expect(all.read(FR) & 0x107).toBe(0x107);
    expect(all.read(RIS) & 0xf).toBe(0xf);
    all.write(CR, 0x301);
    expect(all.read(FR) & 0x107).toBe(0);
  });
});

describe('Pl011: listening', () => {
  it('Pl011: while the driver drains before it asks for interrupts, not listening', () => {
    const all = uart();
    expect(all.device.listening).toBe(false);
    all.write(IMSC, RX | RT); // Linux: pl011_hwinit, before the receiver is on
    expect(all.device.listening).toBe(false);
    all.write(IMSC, 0);
    all.write(CR, 0x301);
    all.read(FR);
    expect(all.device.listening).toBe(false);
    all.write(IMSC, RX | RT);
    expect(all.device.listening).toBe(true);
    all.write(IMSC, 0); // throttled
    expect(all.device.listening).toBe(false);
  });

  it('Pl011: a guest that polls for input, listening; one that polls to send, not', () => {
    const all = uart();
    for (let i = 0; i < 100; i++) {
      all.read(FR);
      all.write(DR, 0x2e);
    }
    expect(all.device.listening).toBe(false);
    for (let i = 0; i < 16; i++) all.read(FR);
    expect(all.device.listening).toBe(true);
    all.receive('a');
    all.read(DR);
    expect(all.device.listening).toBe(false);
  });
});

describe('Pl011: state', () => {
  it('Pl011: saved, restored into another, the same registers, FIFO and line', () => {
    const all = started();
    all.receive('hello');
    all.write(DR, 1);
    const other = uart();
    other.device.restore(structuredClone(all.device.save()));
    expect(other.device.save()).toEqual(all.device.save());
    expect(other.irq).toEqual([true]);
    expect(readAll(other)).toBe('hello');
    expect(readAll(all)).toBe('hello'); // not shared
  });

  it('Pl011: reset, as new, with its line low', () => {
    const all = started();
    all.receive('hello');
    all.device.reset();
    expect(all.device.save()).toEqual(uart().device.save());
    expect(all.irq.at(-1)).toBe(false);
  });
});
