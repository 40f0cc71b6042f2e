/** The one error of fetching guests: what is missing, in one sentence, fit to be shown as it is. */

export type FetchErrorCode =
  | 'apt-missing'
  | 'dpkg-missing'
  | 'update-failed'
  | 'package-missing'
  | 'download-failed'
  | 'extract-failed'
  | 'cache-unwritable';

export class FetchError extends Error {
  override readonly name = 'FetchError';
  readonly code: FetchErrorCode;
  constructor(code: FetchErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}
