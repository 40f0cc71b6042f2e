/**
 * One number for everything a machine is: SHA-256 over the state of its vCPUs, interrupt
 * controller, timers and devices (`state/`), and over its RAM with all allocation tags as the VMM's
 * process maps them. Machines with equal hashes go on alike, instruction for instruction; that runs
 * repeat is tested with it. Not a file format: the number means something within one version only.
 */
import { createHash } from 'node:crypto';
import type { Machine } from './machine.ts';
import { RamReader } from './snapshot/ram-reader.ts';
import { captureState } from './state/capture.ts';
import { encodeState } from './state/codec.ts';

/**
 * The hash of `machine`, which does not run, in hexadecimal. Completes a load or store that the VMM
 * has answered. Throws `SnapshotError` where RAM cannot be read.
 */
export function hashMachine(machine: Machine): string {
  const hash = createHash('sha256').update(encodeState(captureState(machine)));
  const ram = new RamReader(machine);
  for (let chunk = 0; chunk < ram.chunkCount; chunk++) {
    // Chunks of zeros are passed over, touched or not: the guest cannot tell.
    const bytes = ram.read(chunk);
    if (bytes !== undefined) hash.update(Uint32Array.of(chunk, bytes.length)).update(bytes);
  }
  ram.close();
  return hash.digest('hex');
}
