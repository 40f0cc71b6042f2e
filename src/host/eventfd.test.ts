/** The event counter: its limits, and who is told of what. */
import { describe, expect, it } from 'vitest';
import { Errno } from './errno.ts';
import { EventFd } from './eventfd.ts';

const MAX = 2n ** 64n - 2n;

describe('EventFd', () => {
  it('read: the sum of what was written, then EAGAIN', () => {
    const fd = new EventFd({ initial: 2n });
    fd.write(3n);
    fd.signal();
    expect(fd.isReadable).toBe(true);
    expect(fd.read()).toBe(6n);
    expect(fd.isReadable).toBe(false);
    expect(fd.read()).toBe(-Errno.EAGAIN);
  });

  it('read of a semaphore: 1 at a time', () => {
    const fd = new EventFd({ initial: 2n, semaphore: true });
    expect([fd.read(), fd.read(), fd.read()]).toEqual([1n, 1n, -Errno.EAGAIN]);
  });

  it.each([
    [2n ** 64n - 1n, -Errno.EINVAL],
    [-1n, -Errno.EINVAL],
    [MAX, -Errno.EAGAIN],
    [MAX - 5n, 0],
  ])('write %d to a count of 5: %d', (value, result) => {
    expect(new EventFd({ initial: 5n }).write(value)).toBe(result);
  });

  it('write that is refused: nobody is told', () => {
    const fd = new EventFd({ initial: 5n });
    let told = 0;
    fd.watch(() => ++told > 0);
    fd.write(MAX);
    expect([told, fd.read()]).toEqual([0, 5n]);
  });

  it('signal at the highest count: it stays, and watchers are told', () => {
    const fd = new EventFd({ initial: MAX });
    let told = 0;
    fd.watch(() => ++told > 0);
    fd.signal();
    expect([told, fd.read()]).toEqual([1, MAX]);
  });

  it('watchers: in order, until one takes the event', () => {
    const fd = new EventFd();
    const told: string[] = [];
    fd.watch(() => told.push('a') < 0);
    fd.watch(() => told.push('b') > 0);
    fd.watch(() => told.push('c') > 0);
    fd.watch(() => told.push('first') < 0, { first: true });
    fd.signal();
    expect(told).toEqual(['first', 'a', 'b']);
  });

  it('a watcher that stops: told no more, the others are', () => {
    const fd = new EventFd();
    const told: string[] = [];
    const stop = fd.watch(() => {
      stop();
      return told.push('once') < 0;
    });
    fd.watch(() => told.push('always') > 0);
    fd.signal();
    fd.signal();
    expect(told).toEqual(['once', 'always', 'always']);
  });

  it('close: every watcher is told once; then EBADF, and signals are nothing', () => {
    const fd = new EventFd();
    const told: string[] = [];
    fd.watch((event) => told.push(event) > 0);
    fd.watch((event) => told.push(event) > 0);
    fd.close();
    fd.close();
    fd.signal();
    expect(told).toEqual(['closed', 'closed']);
    expect(fd.isClosed).toBe(true);
    expect([fd.read(), fd.write(1n)]).toEqual([-Errno.EBADF, -Errno.EBADF]);
  });
});
