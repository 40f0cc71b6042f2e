/**
 * Assertions for our own bugs. Not for guest faults, host refusals or bad input: those have their
 * own mechanisms (fault records, `Errno`, one `Error` subclass per module). Called from every
 * floor.
 */

/**
 * Throws when `condition` is false. Keep `message` a literal: a template costs even when it holds.
 */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}

/** Ends a `switch` over a closed union; reaching it is our bug. */
export function assertNever(value: never, message = 'unreachable'): never {
  throw new AssertionError(`${message}: ${String(value)}`);
}

export class AssertionError extends Error {
  override readonly name = 'AssertionError';
}
