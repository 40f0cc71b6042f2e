/**
 * A file that appears whole or not at all: written under a temporary name beside its place, synced,
 * renamed, and the directory synced. After a crash there is what was there before, or the new file;
 * a temporary file may be left over, which the next attempt of the same process overwrites.
 *
 * Written behind: while the system takes one buffer, the caller fills the other. And synced
 * behind: the disk is at work from the beginning, so that little is left to wait for at the end.
 */
import { type FileHandle, open, rename, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { MIB } from '../../base/index.ts';

const BUFFER_BYTES = 4 * MIB;
/** Written bytes that are worth a call to bring them to the disk. */
const SYNC_BYTES = 32 * MIB;

export class AtomicFile {
  readonly #path: string;
  readonly #temporaryPath: string;
  readonly #handle: FileHandle;
  #isOpen = true;
  /** Bytes written, or on their way. */
  #written = 0;
  #filling = new Uint8Array(BUFFER_BYTES);
  #filled = 0;
  #spare = new Uint8Array(BUFFER_BYTES);
  /** Settles when the spare buffer is spare again; rejects where its bytes could not be written. */
  #writing: Promise<void> = Promise.resolve();
  #unsyncedBytes = 0;
  #isSyncing = false;
  /** Rejects where anything could not be brought to the disk. */
  #syncing: Promise<void> = Promise.resolve();

  private constructor(path: string, temporaryPath: string, handle: FileHandle) {
    this.#path = path;
    this.#temporaryPath = temporaryPath;
    this.#handle = handle;
  }

  /**
   * Opens the temporary file; `name` tells those of several writers apart. Rejects as `fs` does.
   */
  static async open(path: string, name: string): Promise<AtomicFile> {
    const temporaryPath = `${path}.${name}.partial`;
    return new AtomicFile(path, temporaryPath, await open(temporaryPath, 'w', 0o600));
  }

  /** Bytes appended so far. */
  get length(): number {
    return this.#written + this.#filled;
  }

  /** Takes a copy of `bytes`. Rejects where these, or bytes before, cannot be written. */
  async append(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const piece = bytes.subarray(done, done + BUFFER_BYTES - this.#filled);
      this.#filling.set(piece, this.#filled);
      this.#filled += piece.length;
      done += piece.length;
      if (this.#filled === BUFFER_BYTES) await this.#writeBehind();
    }
  }

  /** Writes over what was appended at `position`. */
  async overwrite(bytes: Uint8Array, position: number): Promise<void> {
    await this.#flush();
    await this.#write(bytes, position);
  }

  /** Makes the file appear in its place. */
  async commit(): Promise<void> {
    await this.#flush();
    await this.#syncing;
    await this.#handle.sync();
    await this.#close();
    await rename(this.#temporaryPath, this.#path);
    const directory = await open(dirname(this.#path), 'r');
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  }

  /** Gives up; does nothing once committed. Never rejects: who gives up has an error already. */
  async discard(): Promise<void> {
    try {
      await this.#writing.catch(() => {});
      await this.#syncing.catch(() => {});
      await this.#close();
      await unlink(this.#temporaryPath);
    } catch {
      // Committed, or out of reach.
    }
  }

  async #flush(): Promise<void> {
    await this.#writeBehind();
    await this.#writing;
  }

  /** Begins to write what is filled, as soon as what came before it is written. */
  async #writeBehind(): Promise<void> {
    await this.#writing;
    const full = this.#filling.subarray(0, this.#filled);
    [this.#filling, this.#spare] = [this.#spare, this.#filling];
    this.#writing = this.#write(full, this.#written);
    // Told to whoever waits for it next.
    this.#writing.catch(() => {});
    this.#written += full.length;
    this.#filled = 0;
  }

  async #write(bytes: Uint8Array, position: number): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const left = bytes.length - done;
      const { bytesWritten } = await this.#handle.write(bytes, done, left, position + done);
      done += bytesWritten;
    }
    this.#unsyncedBytes += bytes.length;
    if (this.#unsyncedBytes >= SYNC_BYTES && !this.#isSyncing) this.#syncAhead();
  }

  /** Linux tells of a write that failed once only: it is remembered for `commit`. */
  #syncAhead(): void {
    this.#unsyncedBytes = 0;
    this.#isSyncing = true;
    this.#syncing = this.#syncing.then(() => this.#handle.datasync());
    this.#syncing.then(
      () => {
        this.#isSyncing = false;
      },
      () => {},
    );
  }

  async #close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.#handle.close();
  }
}
