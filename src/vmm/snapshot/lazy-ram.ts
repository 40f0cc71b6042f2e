/**
 * RAM that is read from a snapshot when it is first touched, by the guest or by the VMM: a
 * userfault handler answers with 2 MiB of data and tags together. What nobody touches is loaded
 * between slices (`loadSome`), so that the machine soon does not need its file any more. Called by
 * `restore.ts`.
 *
 * The file's chunks are checked as they come. Where one cannot be had, whoever touched it gets EIO,
 * and `failure` says why: the machine cannot go on.
 */
import { type Hva, hva, PAGE_SIZE } from '../../base/index.ts';
import {
  Errno,
  errnoName,
  isRefusal,
  type PageContent,
  type Refusal,
  refuse,
} from '../../host/index.ts';
import type { Machine } from '../machine.ts';
import { CHUNK_BYTES, CHUNK_PACKED_TAG_BYTES, CHUNK_PAGES, type Chunk } from './chunk.ts';
import { PACKED_TAG_BYTES } from './page-source.ts';
import { refused } from './ram-reader.ts';
import { SnapshotError } from './snapshot-error.ts';
import type { SnapshotFile } from './snapshot-file.ts';

export class LazyRam {
  readonly #machine: Machine;
  readonly #file: SnapshotFile;
  /** Chunks that are still in the file only. */
  readonly #missing: Set<number>;
  readonly #data = new Uint8Array(CHUNK_BYTES);
  readonly #packedTags = new Uint8Array(CHUNK_PACKED_TAG_BYTES);
  #failure: SnapshotError | undefined;

  /**
   * Registers all of RAM. Takes over `file`, which it closes when everything is loaded. Throws
   * `SnapshotError` 'refused'.
   */
  constructor(machine: Machine, file: SnapshotFile) {
    this.#machine = machine;
    this.#file = file;
    this.#missing = new Set(file.chunks.map(({ chunk }) => chunk));
    const { process, setup } = machine;
    for (const base of this.#mappings()) {
      const result = process.userfault.register(base, setup.plan.ramBytes, {
        onMissing: (address) => this.#supply(Math.floor((address - base) / CHUNK_BYTES)),
      });
      if (isRefusal(result)) {
        throw new SnapshotError('refused', `RAM cannot be loaded on touch: ${errnoName(result)}`);
      }
    }
  }

  /** Where the process has RAM: a memfd may be mapped twice. */
  #mappings(): readonly Hva[] {
    const { ramHva, taggedRamHva } = this.#machine;
    return taggedRamHva === undefined ? [ramHva] : [ramHva, taggedRamHva];
  }

  /** Why a chunk could not be had, if that has happened. */
  get failure(): SnapshotError | undefined {
    return this.#failure;
  }

  /** Chunks that are still to be loaded. */
  get missingCount(): number {
    return this.#missing.size;
  }

  /**
   * Loads up to `count` chunks that nobody has touched; returns whether any are left. Throws
   * `SnapshotError`.
   */
  loadSome(count: number): boolean {
    const { process, ramHva } = this.#machine;
    let left = count;
    for (const number of this.#missing) {
      if (left-- === 0) return true;
      const page = process.faultIn(hva(ramHva + number * CHUNK_BYTES), { write: false });
      if (isRefusal(page)) throw this.#failure ?? refused(number, 'cannot be loaded', page);
    }
    this.#finish();
    return false;
  }

  /** From now on missing pages are what the host makes of them: zero. */
  #finish(): void {
    const { process, setup } = this.#machine;
    for (const base of this.#mappings()) process.userfault.unregister(base, setup.plan.ramBytes);
    this.#file.close();
  }

  /** See `MissingHandler`. */
  #supply(number: number): PageContent | Refusal {
    try {
      const chunk = this.#file.chunk(number);
      this.#missing.delete(number);
      return chunk === undefined ? { sizeBytes: CHUNK_BYTES } : this.#contentOf(chunk);
    } catch (error) {
      if (!(error instanceof SnapshotError)) throw error;
      this.#failure = error;
      return refuse(Errno.EIO);
    }
  }

  #contentOf(chunk: Chunk): PageContent {
    const data = this.#data;
    let end = 0;
    chunk.forEachDataRun((firstPage, run) => {
      data.fill(0, end, firstPage * PAGE_SIZE);
      data.set(run, firstPage * PAGE_SIZE);
      end = firstPage * PAGE_SIZE + run.length;
    });
    data.fill(0, end);
    if (!chunk.hasTags) return { sizeBytes: CHUNK_BYTES, data };
    for (let page = 0; page < CHUNK_PAGES; page++) {
      chunk.packedTagsInto(page, this.#packedTags, page * PACKED_TAG_BYTES);
    }
    return { sizeBytes: CHUNK_BYTES, data, packedTags: this.#packedTags };
  }
}
