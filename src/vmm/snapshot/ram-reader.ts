/**
 * Reads a machine's RAM by chunks, as any VMM would: data through the process's mapping, tags with
 * KVM_ARM_MTE_COPY_TAGS over whole ranges into a buffer of the process. What was never touched is
 * passed over. Called by `save.ts`.
 */
import { type Hva, hva, ipa, PAGE_SIZE } from '../../base/index.ts';
import { errnoName, isRefusal, MapFlag, Prot, VmFlag } from '../../host/index.ts';
import { KVM_ARM_TAGS_FROM_GUEST } from '../../kvm/index.ts';
import { RAM_BASE } from '../board.ts';
import type { Machine } from '../machine.ts';
import { CHUNK_BYTES, CHUNK_TAG_BYTES, ChunkEncoder } from './chunk.ts';
import { SnapshotError } from './snapshot-error.ts';

export class RamReader {
  readonly chunkCount: number;
  readonly #machine: Machine;
  readonly #encoder = new ChunkEncoder();
  /** Where KVM puts tags; there only while a guest has MTE. */
  readonly #tagBuffer: Hva | undefined;

  /** Throws `SnapshotError` 'refused' where the process has no room for the buffer. */
  constructor(machine: Machine) {
    this.#machine = machine;
    this.chunkCount = machine.setup.plan.ramBytes / CHUNK_BYTES;
    this.#tagBuffer = machine.setup.mte ? mapBuffer(machine) : undefined;
  }

  /** The raw chunk, good until the next call; undefined when all is zero, data and tags. */
  read(chunk: number): Uint8Array | undefined {
    const { process, ramHva } = this.#machine;
    const at = hva(ramHva + chunk * CHUNK_BYTES);
    if (this.#isUntouched(at)) return undefined;
    if (this.#tagBuffer !== undefined) {
      this.#readTags(chunk, this.#tagBuffer, this.#encoder.tags);
    }
    return this.#encoder.encode((data) => {
      if (process.memory.readInto(at, data) === CHUNK_BYTES) return;
      throw refused(chunk, 'cannot be read', process.memory.read(at, PAGE_SIZE));
    });
  }

  /** Gives the buffer back. */
  close(): void {
    if (this.#tagBuffer !== undefined)
      this.#machine.process.munmap(this.#tagBuffer, CHUNK_TAG_BYTES);
  }

  #readTags(chunk: number, buffer: Hva, tags: Uint8Array): void {
    const { vm, process } = this.#machine;
    const done = vm.copyTags({
      guestIpa: RAM_BASE + chunk * CHUNK_BYTES,
      length: CHUNK_BYTES,
      addr: buffer,
      flags: KVM_ARM_TAGS_FROM_GUEST,
    });
    if (done !== CHUNK_BYTES) throw refused(chunk, 'KVM_ARM_MTE_COPY_TAGS', done);
    process.memory.readInto(buffer, tags);
  }

  /**
   * Whether nobody ever touched the chunk, so that it reads as zero. Linux: PAGEMAP_SCAN, and
   * SEEK_DATA of a file. Of memory that the process supplies itself the host cannot tell.
   */
  #isUntouched(at: Hva): boolean {
    const { process } = this.#machine;
    const area = process.areas.at(at);
    if (area === undefined || (area.flags & VmFlag.uffdMissing) !== 0) return false;
    if (area.backing.kind === 'anonymous') return process.isEmptyBlock(at);
    if (area.backing.kind !== 'shmem') return false;
    const { file, offset } = area.backing;
    const from = offset + (at - area.start);
    for (let done = 0; done < CHUNK_BYTES; done += file.pageBytes) {
      if (file.exists(from + done)) return false;
    }
    return true;
  }
}

/** Anonymous memory of the process for one chunk's tags. */
export function mapBuffer({ process }: Machine): Hva {
  const at = process.mmap({
    length: CHUNK_TAG_BYTES,
    prot: Prot.read | Prot.write,
    flags: MapFlag.private | MapFlag.anonymous,
  });
  if (isRefusal(at)) throw new SnapshotError('refused', `a buffer for tags: ${errnoName(at)}`);
  return at;
}

/** What the host or KVM did not do with a chunk. */
export function refused(chunk: number, what: string, result: unknown): SnapshotError {
  const address = ipa(RAM_BASE + chunk * CHUNK_BYTES).toString(16);
  const reason =
    typeof result === 'number' && isRefusal(result) ? errnoName(result) : 'only in part';
  return new SnapshotError('refused', `RAM at 0x${address}: ${what} (${reason})`);
}
