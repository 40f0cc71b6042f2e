/** The one error of a running machine: a guest or VMM that cannot go on, in one sentence. */
export class MachineError extends Error {
  override readonly name = 'MachineError';
}
