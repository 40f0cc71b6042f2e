/** A command line that cannot be obeyed: one sentence naming the option, the value and what fits. */
export class CliError extends Error {
  override readonly name = 'CliError';
  readonly code = 'usage';
}
