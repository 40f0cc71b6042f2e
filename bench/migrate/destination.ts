/**
 * The other process of the migration figures: a machine that waits for a guest and runs it, or a
 * socket that reads. Started by `live.ts`, which is told the address; ends when its parent lets go.
 */
import { createServer } from 'node:net';
import { addressText } from '../../src/vmm/migration/address.ts';
import { startMachine } from '../../src/vmm/start-machine.ts';
import type { DestinationRole } from './live.ts';

const role: DestinationRole = JSON.parse(process.argv[2] ?? '');
const LOOPBACK = { host: '127.0.0.1', port: 0 };
const quit = new AbortController();
process.once('disconnect', () => quit.abort());

const tell = (address: string): void => void process.send?.(address);

async function waitForGuest(): Promise<void> {
  const { ramBytes, backing } = role;
  const plan = { ramBytes, cpuCount: 1 };
  const machine = await startMachine({ plan, backing, realtime: true, onReset: 'exit' });
  quit.signal.addEventListener('abort', () => machine.quit());
  const policy = backing === 'memfd' ? 'dual-mapping' : 'ioctl';
  const incoming = await machine.session.awaitGuest({ at: LOOPBACK, tags: { policy } });
  tell(addressText(incoming.address!));
  await machine.outcome;
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
