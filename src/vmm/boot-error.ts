/** The one error of loading a guest: what cannot be booted, and why, in one sentence. */

export type BootErrorCode =
  | 'file-missing'
  | 'file-unreadable'
  | 'file-too-large'
  | 'truncated'
  | 'wrong-magic'
  | 'bad-header'
  | 'unsupported'
  | 'corrupt'
  | 'memory-size'
  | 'cpu-count'
  | 'command-line'
  | 'kernel-does-not-fit'
  | 'initrd-does-not-fit'
  | 'device-tree-does-not-fit';

export class BootError extends Error {
  override readonly name = 'BootError';
  readonly code: BootErrorCode;
  constructor(code: BootErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** A size for people: `512 MiB` where it is whole, else bytes. */
export function sizeText(sizeBytes: number): string {
  for (const [unit, name] of [
    [1024 ** 3, 'GiB'],
    [1024 ** 2, 'MiB'],
    [1024, 'KiB'],
  ] as const) {
    if (sizeBytes >= unit && sizeBytes % unit === 0) return `${sizeBytes / unit} ${name}`;
  }
  return `${sizeBytes} bytes`;
}
