/**
 * Section E: PTRACE_PEEKMTETAGS and PTRACE_POKEMTETAGS of a process's tags, against a real Linux.
 * The rows run in order; the tracee has tags 1 … 8 on a page before a hole.
 */
import { type Hva, hva, PAGE_SIZE } from '../../../src/base/index.ts';
import {
  isRefusal,
  NT_ARM_TAGGED_ADDR_CTRL,
  PR_MTE_TAG_SHIFT,
  PR_MTE_TCF_SYNC,
  PR_TAGGED_ADDR_ENABLE,
  PtraceRequest,
  ptraceGetRegset,
  ptraceMteTags,
} from '../../../src/host/index.ts';
import { granted, map, newHost, pagesOn, RW_MTE, tagUp } from '../../support/host-process.ts';
import { hex, resultText, tagsText } from '../../support/oracle.ts';
import { testSection } from './rows.ts';

/** The recording shows no more tags of an answer. */
const SHOWN = 10;

testSection('E', 'ptrace PEEK/POKEMTETAGS', ({ host: policy }) => {
  const host = newHost({ policy });
  const tracer = host.createProcess();
  const tracee = host.createProcess();
  const buffer = map(tracer);
  const tagged = map(tracee, { prot: RW_MTE, length: 2 * PAGE_SIZE });
  const plain = map(tracee, { length: PAGE_SIZE });
  const untouched = map(tracee, { prot: RW_MTE, length: PAGE_SIZE });
  const untouchedToo = map(tracee, { prot: RW_MTE, length: PAGE_SIZE });
  tagUp(tracee, tagged, 1);
  granted(tracee.munmap(pagesOn(tagged), PAGE_SIZE));

  const peek = (address: Hva | bigint, length: number, base = buffer): string => {
    const iov = { base, length };
    const options = { tracer, address: BigInt(address), iov };
    const result = ptraceMteTags(tracee, PtraceRequest.peekMteTags, options);
    const shown = isRefusal(result) ? 0 : Math.min(iov.length, SHOWN);
    const tags = tagsText(granted(tracer.memory.read(buffer, shown)));
    return `${resultText(result)} · iov_len=${iov.length} tags=${tags}`;
  };
  const poke = (address: Hva, tags: readonly number[]): string => {
    granted(tracer.memory.write(buffer, Uint8Array.from(tags)));
    const iov = { base: buffer, length: tags.length };
    const options = { tracer, address: BigInt(address), iov };
    const result = ptraceMteTags(tracee, PtraceRequest.pokeMteTags, options);
    return `${resultText(result)} · iov_len=${iov.length} tags=`;
  };
  const TAGS = [0xb, 0x1c, 0xb, 0xb];

  return {
    E01: () => peek(tagged, 8),
    E02: () => peek(tagged, 256),
    E04: () => peek(BigInt(tagged) | (1n << 56n), 8),
    E05: () => peek(untouched, 8),
    E06: () => peek(plain, 8),
    E07: () => peek(hva(0x1_0000), 8),
    E09: () => peek(hva(tagged + PAGE_SIZE - 64), 8),
    E10: () => peek(tagged, 0),
    E11: () => peek(tagged, 8, hva(8)),
    E12: () => peek((1n << 64n) - 1n, 8),
    E14: () => poke(tagged, TAGS),
    E15: () => peek(tagged, 8),
    E16: () => poke(plain, TAGS),
    E17: () => poke(untouchedToo, TAGS),
    E19: () => {
      const control = PR_TAGGED_ADDR_ENABLE | PR_MTE_TCF_SYNC | (0xfffe << PR_MTE_TAG_SHIFT);
      granted(tracee.memory.setTaggedAddressControl(control));
      const bytes = granted(ptraceGetRegset(tracee, NT_ARM_TAGGED_ADDR_CTRL));
      const word = new DataView(bytes.buffer).getBigUint64(0, true);
      return `ret=0 · ${hex(word)} len=${bytes.length}`;
    },
  };
});
