/** A command line that cannot be obeyed: one sentence naming option, value and what would fit. */
export class CliError extends Error {
  override readonly name = 'CliError';
  readonly code = 'usage';
}
