/**
 * A file that appears whole or not at all: written under a temporary name beside its place, synced,
 * renamed, and the directory synced. After a crash there is what was there before, or the new file;
 * a temporary file may be left over, which the next attempt of the same process overwrites.
 */
import { closeSync, fsyncSync, openSync, renameSync, unlinkSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';

export class AtomicFile {
  readonly #path: string;
  readonly #temporaryPath: string;
  #descriptor: number;
  #length = 0;

  /** Opens the temporary file; `name` tells those of several writers apart. Throws as `fs` does. */
  constructor(path: string, name: string) {
    this.#path = path;
    this.#temporaryPath = `${path}.${name}.partial`;
    this.#descriptor = openSync(this.#temporaryPath, 'w', 0o600);
  }

  /** Bytes appended so far. */
  get length(): number {
    return this.#length;
  }

  append(bytes: Uint8Array): void {
    this.#write(bytes, this.#length);
    this.#length += bytes.length;
  }

  /** Writes over what was appended at `position`. */
  overwrite(bytes: Uint8Array, position: number): void {
    this.#write(bytes, position);
  }

  /** Makes the file appear in its place. */
  commit(): void {
    fsyncSync(this.#descriptor);
    closeSync(this.#descriptor);
    this.#descriptor = -1;
    renameSync(this.#temporaryPath, this.#path);
    const directory = openSync(dirname(this.#path), 'r');
    try {
      fsyncSync(directory);
    } finally {
      closeSync(directory);
    }
  }

  /** Gives up; does nothing once committed. Never throws: whoever gives up has an error already. */
  discard(): void {
    try {
      if (this.#descriptor >= 0) closeSync(this.#descriptor);
      this.#descriptor = -1;
      unlinkSync(this.#temporaryPath);
    } catch {
      // Committed, or out of reach.
    }
  }

  #write(bytes: Uint8Array, position: number): void {
    let done = 0;
    while (done < bytes.length) {
      done += writeSync(this.#descriptor, bytes, done, bytes.length - done, position + done);
    }
  }
}
