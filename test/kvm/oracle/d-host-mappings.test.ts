/**
 * Section D: tags and PROT_MTE on mappings of the host's own processes, against a real Linux. The
 * rows run in order in one process, each group on mappings of its own.
 */
import { expect } from 'vitest';
import { type Hva, hva, MIB, PAGE_SIZE, pa } from '../../../src/base/index.ts';
import {
  type AddressSpace,
  DEV_ZERO,
  type DeviceFile,
  isRefusal,
  Madvise,
  MapFlag,
  type MemorySignal,
  MemorySwapDevice,
  type MmapRequest,
  PR_MTE_TAG_SHIFT,
  PR_MTE_TCF_ASYNC,
  PR_MTE_TCF_SYNC,
  PR_TAGGED_ADDR_ENABLE,
  Prot,
} from '../../../src/host/index.ts';
import {
  granted,
  map as mapPages,
  newHost,
  PRIVATE,
  pagesOn,
  RW,
  RW_MTE,
  SHARED,
  tagRow,
  tagUp,
} from '../../support/host-process.ts';
import { hex, oracleSection, resultText } from '../../support/oracle.ts';
import { type Program, testSection } from './rows.ts';

const DEV_MEM: DeviceFile = {
  kind: 'device',
  base: pa(0x0a00_0000),
  sizeBytes: 4 * MIB,
  memoryType: 'Device-nGnRnE',
};
const ALL_BUT_0 = 0xfffe << PR_MTE_TAG_SHIFT;
const SYNC = PR_TAGGED_ADDR_ENABLE | PR_MTE_TCF_SYNC | ALL_BUT_0;
const ASYNC = PR_TAGGED_ADDR_ENABLE | PR_MTE_TCF_ASYNC | ALL_BUT_0;

/** Signal × 100 + si_code, as the recording has it. */
const CODES: Partial<Record<MemorySignal, number>> = { SEGV_MTESERR: 1109, SEGV_MTEAERR: 1108 };
const codeOf = (signal: MemorySignal | undefined): number =>
  signal === undefined ? 0 : (CODES[signal] ?? -1);

testSection('D', 'LDG, STG and PROT_MTE on host mappings', ({ host: policy }) => {
  const host = newHost({ policy });
  granted(host.swapOn(new MemorySwapDevice(64)));
  const space = host.createProcess();
  const { memory } = space;
  const map = (request: Partial<MmapRequest> = {}): Hva =>
    mapPages(space, { length: PAGE_SIZE, ...request });

  const tags = (at: Hva, count = 8, process = space): string => tagRow(process, at, count);
  const row = (text: string): string => `ret=0 · ${text}`;
  /** A load's signal; the bytes themselves are of no interest. */
  const load = (at: Hva, tag: number): string => {
    const result = memory.load(at, tag, 8);
    return `ret=${codeOf(result instanceof Uint8Array ? undefined : result)}`;
  };
  const protect = (at: Hva, prot: number, length = PAGE_SIZE): string =>
    resultText(space.mprotect(at, length, prot));

  const plain = map();
  const tagged = map({ prot: RW_MTE });

  // D19 to D31: one memfd, mapped several times.
  const memfd = host.createMemfd(4 * PAGE_SIZE);
  const ofFile = { length: 4 * PAGE_SIZE, flags: MapFlag.shared, file: memfd };
  const withMte = map({ ...ofFile, prot: RW_MTE });
  const without = map(ofFile);
  const secondMte = map({ ...ofFile, prot: RW_MTE });
  let copy: Hva;

  // D57 to D69: private pages, tags 2, 3, 4, …
  const tagUpFrom2 = (): Hva => {
    const at = map({ prot: RW_MTE });
    tagUp(space, at, 2);
    return at;
  };
  const dropped = tagUpFrom2();
  const pagedOut = tagUpFrom2();
  const buffer = tagUpFrom2();

  /** The mapping that the text of a row D32 to D56 names. */
  const mappingOf = (call: string): Partial<MmapRequest> => {
    const flags = call.includes('MAP_SHARED') ? MapFlag.shared : MapFlag.private;
    if (call.includes('PROT_NONE')) return { prot: Prot.none };
    if (call.includes('PROT_READ')) return { prot: Prot.read };
    if (call.includes('HUGETLB')) return { length: 2 * MIB, flags: PRIVATE | MapFlag.hugetlb };
    if (call.includes('/dev/zero')) return { flags, file: DEV_ZERO };
    if (call.includes('/dev/mem')) return { flags, file: DEV_MEM };
    const prot = call.endsWith(' PROT_MTE') ? RW_MTE : RW;
    if (call.includes('anon')) return { prot, flags: flags === MapFlag.shared ? SHARED : PRIVATE };
    // memfd, /dev/shm and the root of the recorded machine: shared-memory files.
    return { prot, flags, file: host.createMemfd(PAGE_SIZE) };
  };
  const addMte: Program = ({ call }) => {
    const request = mappingOf(call);
    const length = request.length ?? PAGE_SIZE;
    const at = map(request);
    const result = protect(at, RW_MTE, length);
    granted(space.munmap(at, length));
    return result;
  };
  const adding = oracleSection('D').filter(({ call }) => call.startsWith('mprotect(+PROT_MTE)'));
  const add = Object.fromEntries(adding.map(({ id }) => [id, addMte]));
  /** The programs of the rows `from` … `to`, which only add PROT_MTE. */
  const between = (from: string, to: string): Record<string, Program> =>
    Object.fromEntries(Object.entries(add).filter(([id]) => id >= from && id <= to));

  return {
    D01: () => `ret=${memory.taggedAddressControl}`,
    D02: () => {
      const result = resultText(memory.storeTag(plain, 3));
      return `${result} · LDG=${tags(plain, 1)}`;
    },
    D04: () => {
      granted(memory.setTaggedAddressControl(SYNC));
      return row(hex(memory.taggedAddressControl));
    },
    D05: () => {
      tagUp(space, tagged, 1);
      return row(`tags=${tags(tagged, 10)}`);
    },
    D06: () => load(tagged, 1),
    D07: () => load(tagged, 2),
    D09: () => load(hva(tagged + 16), 0),
    D10: () => resultText(memory.storeTag(plain, 3)),
    D11: () => row(`LDG=${tags(plain, 1)}`),
    D12: () => load(plain, 9),
    D14: () => {
      granted(space.mprotect(tagged, PAGE_SIZE, RW));
      return row(`tags=${tags(tagged, 10)}`);
    },
    D15: () => load(tagged, 2),
    D16: () => protect(tagged, RW_MTE),
    D17: () => row(`tags=${tags(tagged, 10)}`),
    D19: () => {
      tagUp(space, withMte, 3);
      return row(
        `via PROT_MTE map: ${tags(withMte)}; via non-PROT_MTE map: ${tags(without)}; ` +
          `via 2nd PROT_MTE map: ${tags(secondMte)}`,
      );
    },
    D20: () => load(without, 9),
    D21: () => load(secondMte, 9),
    D22: () => {
      granted(memory.storeTag(without, 15));
      return row(`via PROT_MTE map: ${tags(withMte)}`);
    },
    D24: () => {
      granted(memory.writeU8(pagesOn(without), 1));
      return row(tags(pagesOn(withMte), 4));
    },
    D25: () => {
      expect(memfd.write(0, new Uint8Array(64).fill(0x5a))).toBe(64);
      expect(memory.readU8(without)).toBe(0x5a);
      return row(`via PROT_MTE map: ${tags(withMte)}`);
    },
    D26: () => resultText(space.madvise(withMte, 4 * PAGE_SIZE, Madvise.dontNeed)),
    D27: () => row(tags(withMte)),
    D29: () => {
      granted(space.madvise(withMte, PAGE_SIZE, Madvise.remove));
      return row(tags(withMte));
    },
    D30: () => {
      tagUp(space, withMte, 3);
      copy = map({ prot: RW_MTE, flags: MapFlag.private, file: memfd });
      return row(tags(copy));
    },
    D31: () => {
      granted(memory.writeU8(copy, 1));
      expect(memory.readU8(without)).toBe(0);
      return row(tags(copy));
    },
    ...between('D32', 'D52'),
    D54: () => {
      const request = { length: 2 * MIB, prot: RW_MTE, flags: PRIVATE | MapFlag.hugetlb };
      return resultText(space.mmap(request));
    },
    ...between('D55', 'D56'),
    D57: () => {
      const at = tagUpFrom2();
      const child: AddressSpace = granted(space.fork());
      const before = tags(at, 8, child);
      granted(child.memory.writeU8(at, 1));
      expect(memory.readU8(at)).toBe(0);
      const text = row(`${before} after COW write: ${tags(at, 8, child)}`);
      child.destroy();
      return text;
    },
    D59: () => {
      granted(memory.writeU32(dropped, 0x1234));
      return resultText(space.madvise(dropped, PAGE_SIZE, Madvise.dontNeed));
    },
    D60: () => {
      const seen = tags(dropped);
      const word = memory.readU32(dropped);
      return row(`${seen} data=${hex(isRefusal(word) ? -1 : word)}`);
    },
    D61: () => resultText(space.madvise(pagedOut, PAGE_SIZE, Madvise.pageOut)),
    D62: () => {
      const state = { none: 0, present: 1, swapped: 2 }[space.pageState(pagedOut)];
      return row(`pagemap=${state} (2=swapped,1=present) then LDG=${tags(pagedOut)}`);
    },
    D64: () => resultText(memory.copyToUser(buffer, 9, new Uint8Array(8))),
    D65: () => {
      const result = memory.copyFromUser(buffer, 9, 8);
      return isRefusal(result) ? resultText(result) : `ret=${result.length}`;
    },
    D66: () => resultText(memory.setTaggedAddressControl(ASYNC)),
    D67: () => {
      // A signal at the load itself would be its result; the next system call takes the other.
      const now = memory.load(buffer, 9, 8) instanceof Uint8Array ? 0 : 1;
      const later = memory.takeAsyncFault();
      const count = now + (later === undefined ? 0 : 1);
      return row(
        `signals before any syscall=${now}, after getppid()=${count}, ` +
          `signal*100+si_code=${codeOf(later)}`,
      );
    },
    D69: () => {
      const data = new Uint8Array(8);
      const result = memory.copyToUser(buffer, 9, data);
      const signal = memory.takeAsyncFault();
      const done = result === 0 ? `ret=${data.length}` : resultText(result);
      return `${done} · signals=${signal === undefined ? 0 : 1} code=${codeOf(signal)}`;
    },
  };
});
