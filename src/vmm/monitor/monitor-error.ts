/**
 * What the control socket answers where it cannot do what was asked: QMP's class and one sentence.
 */
export type MonitorErrorClass = 'GenericError' | 'CommandNotFound';

export class MonitorError extends Error {
  override readonly name = 'MonitorError';
  readonly code: MonitorErrorClass;

  constructor(code: MonitorErrorClass, message: string) {
    super(message);
    this.code = code;
  }
}
