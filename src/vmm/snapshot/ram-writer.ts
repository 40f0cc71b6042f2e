/**
 * Writes chunks of a snapshot into a machine's RAM at once, as any VMM would: data through the
 * process's mapping, tags with KVM_ARM_MTE_COPY_TAGS. Precondition: RAM was never touched. Called
 * by `restore.ts`.
 */
import { assert, type Hva, hva, PAGE_SIZE } from '../../base/index.ts';
import { isRefusal, Madvise } from '../../host/index.ts';
import { RAM_BASE } from '../board.ts';
import type { Machine } from '../machine.ts';
import { CHUNK_BYTES, CHUNK_TAG_BYTES, type Chunk, TAGS_PER_PAGE } from './chunk.ts';
import { mapBuffer, refused } from './ram-reader.ts';

export class RamWriter {
  readonly #machine: Machine;
  readonly #tags = new Uint8Array(CHUNK_TAG_BYTES);
  readonly #tagBuffer: Hva | undefined;

  /** Throws `SnapshotError` 'refused' where the process has no room for the buffer. */
  constructor(machine: Machine) {
    this.#machine = machine;
    this.#tagBuffer = machine.setup.mte ? mapBuffer(machine) : undefined;
  }

  /** Throws `SnapshotError` 'refused' where the host has no memory. */
  write(number: number, chunk: Chunk): void {
    const { process, ramHva } = this.#machine;
    const at = ramHva + number * CHUNK_BYTES;
    chunk.forEachDataRun((firstPage, data) => {
      const result = process.memory.write(hva(at + firstPage * PAGE_SIZE), data);
      if (isRefusal(result)) throw refused(number, 'cannot be written', result);
    });
    chunk.forEachTagRun((firstPage, pageCount) => {
      this.#writeTags(number, chunk, firstPage, pageCount);
    });
  }

  /** Takes everything back: RAM is untouched again, data and tags. */
  discard(): void {
    const { process, ramHva, setup } = this.#machine;
    const advice = setup.backing === 'memfd' ? Madvise.remove : Madvise.dontNeed;
    const result = process.madvise(ramHva, setup.plan.ramBytes, advice);
    assert(result === 0, 'RAM of a machine can be emptied');
  }

  /** Gives the buffer back. */
  close(): void {
    if (this.#tagBuffer !== undefined)
      this.#machine.process.munmap(this.#tagBuffer, CHUNK_TAG_BYTES);
  }

  #writeTags(number: number, chunk: Chunk, firstPage: number, pageCount: number): void {
    const { process, vm } = this.#machine;
    const addr = this.#tagBuffer!;
    for (let i = 0; i < pageCount; i++)
      chunk.tagsInto(firstPage + i, this.#tags, i * TAGS_PER_PAGE);
    const tags = this.#tags.subarray(0, pageCount * TAGS_PER_PAGE);
    const written = process.memory.write(addr, tags);
    if (isRefusal(written)) throw refused(number, 'the buffer for tags', written);
    const guestIpa = RAM_BASE + number * CHUNK_BYTES + firstPage * PAGE_SIZE;
    const length = pageCount * PAGE_SIZE;
    const done = vm.copyTags({ guestIpa, length, addr, flags: 0 });
    if (done !== length) throw refused(number, 'KVM_ARM_MTE_COPY_TAGS', done);
  }
}
