/**
 * Finds one file in a tar stream and stops there: a kernel package unpacks to hundreds of megabytes
 * of which one file is wanted. Knows POSIX ustar and GNU long names, as `dpkg-deb` writes them.
 */
const BLOCK_BYTES = 512;
const TYPE_FILE = '0';
const TYPE_FILE_OLD = '\0';
const TYPE_GNU_LONG_NAME = 'L';

export interface TarFile {
  /** As in the archive, without a leading `./`. */
  readonly path: string;
  readonly bytes: Uint8Array;
}

/**
 * The first regular file whose path `wanted` accepts, or undefined where there is none or the
 * stream ends inside an entry.
 */
export async function findInTar(
  stream: AsyncIterable<Uint8Array>,
  wanted: (path: string) => boolean,
): Promise<TarFile | undefined> {
  const reader = new ByteReader(stream);
  let longName: string | undefined;
  for (;;) {
    const header = await reader.take(BLOCK_BYTES);
    if (header === undefined || header[0] === 0) return undefined;
    const sizeBytes = Number.parseInt(text(header, 124, 12), 8) || 0;
    const type = String.fromCharCode(header[156]!);
    const path = (longName ?? fullName(header)).replace(/^\.\//, '');
    const isFile = type === TYPE_FILE || type === TYPE_FILE_OLD;
    longName = undefined;
    if (type === TYPE_GNU_LONG_NAME || (isFile && wanted(path))) {
      const bytes = await reader.take(sizeBytes);
      if (bytes === undefined) return undefined;
      if (isFile) return { path, bytes };
      longName = text(bytes, 0, bytes.length);
    } else {
      await reader.skip(sizeBytes);
    }
    await reader.skip((BLOCK_BYTES - (sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES);
  }
}

/** ustar keeps a long path in two fields, `prefix` and `name`. */
function fullName(header: Uint8Array): string {
  const name = text(header, 0, 100);
  const prefix = text(header, 257, 6) === 'ustar' ? text(header, 345, 155) : '';
  return prefix === '' ? name : `${prefix}/${name}`;
}

function text(bytes: Uint8Array, from: number, length: number): string {
  return new TextDecoder().decode(bytes.subarray(from, from + length)).split('\0')[0]!;
}

/** Takes runs of bytes off a stream of chunks. */
class ByteReader {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #chunk = new Uint8Array(0);

  constructor(stream: AsyncIterable<Uint8Array>) {
    this.#chunks = stream[Symbol.asyncIterator]();
  }

  /** The next `count` bytes, or undefined where the stream ends before. */
  async take(count: number): Promise<Uint8Array | undefined> {
    const out = new Uint8Array(count);
    for (let at = 0; at < count; ) {
      if (!(await this.#fill())) return undefined;
      const part = this.#chunk.subarray(0, count - at);
      out.set(part, at);
      at += part.length;
      this.#chunk = this.#chunk.subarray(part.length);
    }
    return out;
  }

  async skip(count: number): Promise<void> {
    for (let left = count; left > 0 && (await this.#fill()); ) {
      const part = Math.min(left, this.#chunk.length);
      this.#chunk = this.#chunk.subarray(part);
      left -= part;
    }
  }

  /** Whether there is a byte to take. */
  async #fill(): Promise<boolean> {
    while (this.#chunk.length === 0) {
      const next = await this.#chunks.next();
      if (next.done === true) return false;
      this.#chunk = new Uint8Array(next.value);
    }
    return true;
  }
}
