/**
 * What can go wrong between two granules: one error class for link, stream, protocol and machines
 * that do not match. Each message is one sentence with the value and the bound; whoever drives a
 * migration decides by `code` whether the link is to be tried again.
 */
export type MigrationErrorCode =
  /** The link broke, could not be made, or stayed silent too long. */
  | 'link'
  /** The stream ended inside a frame. */
  | 'truncated'
  /** A frame's checksum, marker or sequence is wrong. */
  | 'corrupt'
  /** A whole frame whose content the protocol does not allow here. */
  | 'protocol'
  /** No common protocol version. */
  | 'version'
  /** The machines differ, or one of them cannot do what is asked. */
  | 'machine'
  /** The peer gave up; the message is its sentence. */
  | 'refused'
  /** Asked for by the user. */
  | 'cancelled'
  /** An address that is no address, or one that must not be used without TLS. */
  | 'address';

export class MigrationError extends Error {
  override readonly name = 'MigrationError';
  readonly code: MigrationErrorCode;

  constructor(code: MigrationErrorCode, message: string) {
    super(message);
    this.code = code;
  }

  /** The peers may meet again and go on: neither of them found fault with the other. */
  get isLinkFailure(): boolean {
    return this.code === 'link' || this.code === 'truncated' || this.code === 'corrupt';
  }
}

/** `error` as a `MigrationError`; anything else is our own bug and is thrown on. */
export function migrationError(error: unknown): MigrationError {
  if (error instanceof MigrationError) return error;
  throw error;
}
