/**
 * An event file descriptor: a 64-bit counter that one side raises and the other takes. KVM raises
 * one for a guest's store (ioeventfd) and takes one as an interrupt (irqfd); devices of the VMM
 * hold the other ends. There is one thread, so nobody sleeps on it: `watch` is what epoll would be,
 * and is called from inside the call that raised the counter. Linux: fs/eventfd.c.
 */
import { assert } from '../base/index.ts';
import { Errno, type Refusal, refuse } from './errno.ts';

/** The highest count: one more would be indistinguishable from an error. Linux: ULLONG_MAX - 1. */
const COUNT_MAX = 2n ** 64n - 2n;

/**
 * Told that the descriptor became readable or was closed. Answers whether it took the event: then
 * watchers behind it are not told.
 */
export type EventFdWatcher = (event: 'readable' | 'closed') => boolean;

export class EventFd {
  readonly #semaphore: boolean;
  #count: bigint;
  #watchers: readonly EventFdWatcher[] = [];
  #isClosed = false;

  /** eventfd(2): `initial` below 2^64 - 1; with `semaphore` (EFD_SEMAPHORE) a read takes 1. */
  constructor({ initial = 0n, semaphore = false } = {}) {
    assert(initial >= 0n && initial <= COUNT_MAX, 'eventfd: initial count out of range');
    this.#count = initial;
    this.#semaphore = semaphore;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Whether a read would give something: EPOLLIN. */
  get isReadable(): boolean {
    return this.#count > 0n;
  }

  /** write(2). EBADF: closed; EINVAL: 2^64 - 1; EAGAIN: the count has no room for `value`. */
  write(value: bigint): 0 | Refusal {
    if (this.#isClosed) return refuse(Errno.EBADF);
    if (value < 0n || value > COUNT_MAX) return refuse(Errno.EINVAL);
    if (value > COUNT_MAX - this.#count) return refuse(Errno.EAGAIN);
    this.#raise(value);
    return 0;
  }

  /** Raises the count by one, or leaves it at its highest. Linux: eventfd_signal(). */
  signal(): void {
    if (!this.#isClosed) this.#raise(this.#count < COUNT_MAX ? 1n : 0n);
  }

  /** read(2): the count, which begins anew, or 1 of it. EBADF: closed; EAGAIN: it is 0. */
  read(): bigint | Refusal {
    if (this.#isClosed) return refuse(Errno.EBADF);
    if (this.#count === 0n) return refuse(Errno.EAGAIN);
    const taken = this.#semaphore ? 1n : this.#count;
    this.#count -= taken;
    return taken;
  }

  /**
   * Calls `watcher` whenever the count is raised, and once when the descriptor is closed; returns
   * how to stop. `first` puts it before those that are there. Linux: add_wait_queue_priority().
   */
  watch(watcher: EventFdWatcher, { first = false } = {}): () => void {
    this.#watchers = first ? [watcher, ...this.#watchers] : [...this.#watchers, watcher];
    return () => {
      this.#watchers = this.#watchers.filter((each) => each !== watcher);
    };
  }

  /** close(2) of the last descriptor: watchers are told and let go. */
  close(): void {
    this.#isClosed = true;
    const watchers = this.#watchers;
    this.#watchers = [];
    for (const watcher of watchers) watcher('closed');
  }

  #raise(by: bigint): void {
    this.#count += by;
    // A watcher may stop watching, or start another, while the list is gone through.
    for (const watcher of this.#watchers) if (watcher('readable')) return;
  }
}
