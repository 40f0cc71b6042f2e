/** Console input waits for a guest that listens, and comes in order. */
import { describe, expect, it } from 'vitest';
import { Pl011 } from './pl011.ts';
import { UartFeed } from './uart-feed.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

function fed() {
  const uart = new Pl011({ base: 0x0900_0000, irq: () => {}, transmit: () => {} });
  const feed = new UartFeed(uart);
  const listen = (): void => {
    uart.write(0x2c, 4, 0x70n);
    uart.write(0x30, 4, 0x301n);
    uart.write(0x38, 4, 0x50n);
  };
  const drain = (): string => {
    let out = '';
    while ((uart.read(0x18, 4) & 0x10n) === 0n) out += String.fromCharCode(Number(uart.read(0, 4)));
    return out;
  };
  return { uart, feed, listen, drain };
}

describe('UartFeed', () => {
  it('UartFeed: nobody listens, nothing is lost', () => {
    const { feed, listen, drain } = fed();
    feed.push(bytes('early'));
    expect([feed.pump(), feed.pendingBytes]).toEqual([0, 5]);
    listen();
    expect([feed.pump(), feed.pendingBytes, drain()]).toEqual([5, 0, 'early']);
  });

  it('UartFeed: more than a FIFO in several pieces, a FIFO full a call in order', () => {
    const { feed, listen, drain } = fed();
    listen();
    for (const part of ['0123', '', '456789abcdefgh', 'ij']) feed.push(bytes(part));
    expect([feed.pump(), feed.pump(), feed.pendingBytes]).toEqual([16, 0, 4]);
    expect(drain()).toBe('0123456789abcdef');
    expect([feed.pump(), feed.pump(), drain()]).toEqual([4, 0, 'ghij']);
  });

  it('UartFeed: the guest reads in between, only the room is filled', () => {
    const { uart, feed, listen } = fed();
    listen();
    feed.push(bytes('x'.repeat(40)));
    feed.pump();
    uart.read(0, 4);
    uart.read(0, 4);
    expect([feed.pump(), feed.pendingBytes]).toEqual([2, 22]);
  });

  it('UartFeed: loopback cuts the line, the queue waits', () => {
    const { uart, feed, listen } = fed();
    listen();
    uart.write(0x30, 4, 0x381n);
    feed.push(bytes('abc'));
    expect([feed.pump(), feed.pendingBytes]).toEqual([0, 3]);
  });

  it('UartFeed: saved and restored, the same bytes wait', () => {
    const { feed, listen } = fed();
    listen();
    feed.push(bytes('0123456789'));
    feed.push(bytes('abcdefghij'));
    feed.pump();
    const other = fed();
    other.listen();
    other.feed.restore(feed.save());
    other.feed.pump();
    expect(other.drain()).toBe('ghij');
  });
});
