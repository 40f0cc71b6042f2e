/**
 * `granule ctl`: one command to the control socket of a running machine, its answer as JSON on
 * stdout; or `events`, a line for each until the machine ends.
 */
import { MonitorClient } from '../vmm/monitor/client.ts';
import type { ConsoleHost } from './console.ts';
import type { CtlOptions } from './control-options.ts';

/** Runs the command; resolves to the exit status. Throws `MachineError` with the sentence. */
export async function ctlCommand(options: CtlOptions, host: ConsoleHost): Promise<number> {
  const client = await MonitorClient.connect(options.socket);
  try {
    if (options.command === 'events') {
      client.onEvent = (_, line) => void host.stdout.write(`${line}\n`);
      host.stdout.on('error', () => client.close()); // nobody reads any more
      await client.closed;
      return 0;
    }
    const answer = await client.execute(options.command, options.arguments);
    if (Object.keys(answer).length > 0) {
      host.stdout.write(`${JSON.stringify(answer, undefined, 2)}\n`);
    }
    return 0;
  } finally {
    client.close();
  }
}
