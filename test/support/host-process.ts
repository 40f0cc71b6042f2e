/** Small hosts and the calls of a process that tests of the host floor make again and again. */
import { type Hva, hva, MIB, PAGE_SIZE } from '../../src/base/index.ts';
import {
  type AddressSpace,
  Host,
  type HostPolicy,
  isRefusal,
  linux,
  MapFlag,
  type MmapRequest,
  Prot,
  type Refusal,
} from '../../src/host/index.ts';
import { dramOnly, PhysicalMemory } from '../../src/machine/memory.ts';

export const RW = Prot.read | Prot.write;
export const RW_MTE = RW | Prot.mte;
export const PRIVATE = MapFlag.private | MapFlag.anonymous;
export const SHARED = MapFlag.shared | MapFlag.anonymous;

/** A host with DRAM only, 16 MiB unless said. */
export function newHost(options: { sizeBytes?: number; policy?: Partial<HostPolicy> } = {}): Host {
  const zones = dramOnly(options.sizeBytes ?? 16 * MIB);
  const memory = new PhysicalMemory({ zones, recordPageCount: 16 });
  return new Host({ memory, policy: { ...linux, ...options.policy } });
}

/** Maps four pages of private memory, readable and writable, or what is asked for. */
export function map(space: AddressSpace, request: Partial<MmapRequest> = {}): Hva {
  return granted(space.mmap({ length: 4 * PAGE_SIZE, prot: RW, flags: PRIVATE, ...request }));
}

/** A call's result; a refusal fails the test. */
export function granted<T>(result: T | Refusal): T {
  if (isRefusal(result)) throw new Error(`refused: ${result}`);
  return result;
}

/** The address `count` pages behind `at`. */
export const pagesOn = (at: Hva, count = 1): Hva => hva(at + count * PAGE_SIZE);

/** Tags of the first tag granules at `at`, as the recordings write them: a row of digits. */
export function tagRow(space: AddressSpace, at: Hva, count = 8): string {
  let row = '';
  for (let i = 0; i < count; i++) row += space.memory.loadTag(hva(at + 16 * i)).toString(16);
  return row;
}

/** Stores tags first, first + 1, … to `count` tag granules. */
export function tagUp(space: AddressSpace, at: Hva, first: number, count = 8): void {
  for (let i = 0; i < count; i++) granted(space.memory.storeTag(hva(at + 16 * i), first + i));
}
