/**
 * The one error of snapshots: what cannot be saved or restored, where, and why, in one sentence.
 */
import { StateError } from '../state/state-error.ts';

export type SnapshotErrorCode =
  | 'file-missing'
  /** The file system refused to read. */
  | 'file-unreadable'
  /** The file system refused to write; what was there before is as it was. */
  | 'file-unwritable'
  | 'not-a-snapshot'
  | 'other-version'
  /** The file ends before what it announces. */
  | 'cut'
  /** A checksum does not match, or what is under it is not as the format says. */
  | 'corrupted'
  | 'machine-differs'
  /** The host or KVM refused: no memory, a page that cannot be had, a register's value. */
  | 'refused';

export class SnapshotError extends Error {
  override readonly name = 'SnapshotError';
  readonly code: SnapshotErrorCode;
  constructor(code: SnapshotErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

const codeOfState: Readonly<Record<StateError['code'], SnapshotErrorCode>> = {
  truncated: 'cut',
  corrupted: 'corrupted',
  'other-version': 'other-version',
  'unknown-section': 'other-version',
  'missing-section': 'corrupted',
  invalid: 'corrupted',
  'machine-differs': 'machine-differs',
  refused: 'refused',
};

/** Runs `work` on the state that a file holds: its errors become the file's. */
export function withState<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof StateError)) throw error;
    throw new SnapshotError(codeOfState[error.code], `${path}: ${error.message}`);
  }
}
