/** The one error of a machine's state: what cannot be taken over, and why, in one sentence. */

export type StateErrorCode =
  /** Bytes end before what they announce. */
  | 'truncated'
  /** No state, or a checksum does not match. */
  | 'corrupted'
  /** Written by another version of granule. */
  | 'other-version'
  /** A section this version does not know: part of the machine would be lost. */
  | 'unknown-section'
  | 'missing-section'
  /** A section's content is not what its schema says. */
  | 'invalid'
  /** A right state of another machine. */
  | 'machine-differs'
  /** KVM refused a value. */
  | 'refused';

export class StateError extends Error {
  override readonly name = 'StateError';
  readonly code: StateErrorCode;
  constructor(code: StateErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}
