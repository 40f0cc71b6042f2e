/**
 * The other process of the migration figures: a machine that waits for a guest and runs it, or a
 * socket that reads. Started by `live.ts`, which is told the address; ends when its parent lets go.
 */
import { randomBytes } from 'node:crypto';
import { createServer } from 'node:net';
import { addressText } from '../../src/vmm/migration/address.ts';
import { MachineSession } from '../../src/vmm/monitor/machine-session.ts';
import { processTime, runMachine } from '../../src/vmm/run-machine.ts';
import type { DestinationRole } from './live.ts';

const role: DestinationRole = JSON.parse(process.argv[2] ?? '');
const LOOPBACK = { host: '127.0.0.1', port: 0 };
const quit = new AbortController();
process.once('disconnect', () => quit.abort());

const tell = (address: string): void => void process.send?.(address);

async function waitForGuest(): Promise<void> {
  const { ramBytes, backing } = role;
  await runMachine(
    {
      plan: { ramBytes, cpuCount: 1 },
      backing,
      mte: true,
      seed: 1,
      realtime: true,
      onReset: 'exit',
      trace: new Set(),
      onTrace: () => {},
      attach: async (machine, control) => {
        const newId = (): string => randomBytes(16).toString('hex');
        const session = new MachineSession({ machine, control, time: processTime, newId });
        const policy = backing === 'memfd' ? 'dual-mapping' : 'ioctl';
        const incoming = await session.awaitGuest({ at: LOOPBACK, tags: { policy } });
        tell(addressText(incoming.address!));
        return () => session.close();
      },
    },
    {
      write: () => {},
      onInput: () => () => {},
      setInputPaused: () => {},
      quit: quit.signal,
    },
  );
}

function readAndForget(): void {
  const server = createServer((socket) => socket.resume());
  server.listen(LOOPBACK, () => {
    const address = server.address();
    if (address !== null && typeof address === 'object') {
      tell(addressText({ host: address.address, port: address.port }));
    }
  });
  quit.signal.addEventListener('abort', () => server.close());
}

if (role.kind === 'sink') readAndForget();
else await waitForGuest();
