/**
 * Linux's error numbers (arm64) and how a refusal travels. Every call of `host/` and `kvm/` that
 * can refuse returns a value ≥ 0 (0 where there is nothing to say) or a `Refusal`: the negated
 * number, as the kernel returns it. Not for guest faults or for our own bugs.
 */

export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  ENOEXEC: 8,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENOTTY: 25,
  ENOSPC: 28,
  ERANGE: 34,
  ENOSYS: 38,
  EOVERFLOW: 75,
  EOPNOTSUPP: 95,
} as const;

/** A Linux error number, positive. */
export type Errno = (typeof Errno)[keyof typeof Errno];

declare const refused: unique symbol;

/** A refused call: `-errno`. Tell it from a result with `isRefusal`. */
export type Refusal = number & { readonly [refused]: true };

const names = new Map<number, string>(Object.entries(Errno).map(([name, value]) => [value, name]));

/** The result of a call that is refused with `errno`. */
export const refuse = (errno: Errno): Refusal => -errno as Refusal;

/** Whether `result` is a refusal; all other results of calls are ≥ 0, objects or bigints. */
export const isRefusal = (result: unknown): result is Refusal =>
  typeof result === 'number' && result < 0;

/** The error number of a refusal. */
export const errnoOf = (refusal: Refusal): Errno => -refusal as Errno;

/** `EINVAL` for 22 and for a refusal of -22; `errno 999` for a number Linux does not have here. */
export const errnoName = (errno: number): string =>
  names.get(Math.abs(errno)) ?? `errno ${Math.abs(errno)}`;
