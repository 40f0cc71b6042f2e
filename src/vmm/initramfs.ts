/**
 * Writes initial RAM disks: a cpio archive in the "newc" format that Linux unpacks into its root
 * file system, gzip optional. Reproducible: no times, owners root. The format: Linux's
 * Documentation/driver-api/early-userspace/buffer-format.rst.
 */
import { gzipSync } from 'node:zlib';
import { alignUp, assert } from '../base/index.ts';

/** One entry; `path` is relative to the root and plain, `mode` is permission bits. */
export type InitramfsEntry =
  | {
      readonly kind: 'file';
      readonly path: string;
      readonly bytes: Uint8Array;
      readonly mode?: number;
    }
  | { readonly kind: 'directory'; readonly path: string; readonly mode?: number }
  | { readonly kind: 'symlink'; readonly path: string; readonly target: string }
  | {
      readonly kind: 'character-device' | 'block-device';
      readonly path: string;
      readonly major: number;
      readonly minor: number;
      readonly mode?: number;
    };

const S_IFCHR = 0o020000;
const S_IFDIR = 0o040000;
const S_IFBLK = 0o060000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;

const HEADER_BYTES = 110;
const TRAILER = 'TRAILER!!!';

/** The archive with `entries` in their order; parent directories that are missing are added. */
export function writeInitramfs(
  entries: readonly InitramfsEntry[],
  options: { readonly gzip?: boolean } = {},
): Uint8Array {
  const records = withParents(entries).map((entry, i) => record(entry, i + 1));
  records.push(rawRecord({ path: TRAILER, inode: 0, mode: 0, linkCount: 1 }));
  const archive = new Uint8Array(records.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of records) {
    archive.set(part, at);
    at += part.length;
  }
  return options.gzip === true ? gzipSync(archive) : archive;
}

/** Linux makes no parents: each directory must stand before what is in it. */
function withParents(entries: readonly InitramfsEntry[]): InitramfsEntry[] {
  const seen = new Set<string>();
  const out: InitramfsEntry[] = [];
  for (const entry of entries) {
    assert(/^[^/]+(\/[^/]+)*$/.test(entry.path), 'an initramfs path is relative and plain');
    assert(!seen.has(entry.path), 'an initramfs path occurs once');
    const parts = entry.path.split('/');
    for (let depth = 1; depth < parts.length; depth++) {
      const parent = parts.slice(0, depth).join('/');
      if (!seen.has(parent)) out.push({ kind: 'directory', path: parent });
      seen.add(parent);
    }
    out.push(entry);
    seen.add(entry.path);
  }
  return out;
}

function record(entry: InitramfsEntry, inode: number): Uint8Array {
  const { path, kind } = entry;
  switch (kind) {
    case 'file':
      return rawRecord({
        path,
        inode,
        mode: S_IFREG | (entry.mode ?? 0o644),
        linkCount: 1,
        bytes: entry.bytes,
      });
    case 'directory':
      return rawRecord({ path, inode, mode: S_IFDIR | (entry.mode ?? 0o755), linkCount: 2 });
    case 'symlink':
      return rawRecord({
        path,
        inode,
        mode: S_IFLNK | 0o777,
        linkCount: 1,
        bytes: new TextEncoder().encode(entry.target),
      });
    case 'character-device':
    case 'block-device':
      return rawRecord({
        path,
        inode,
        mode: (kind === 'character-device' ? S_IFCHR : S_IFBLK) | (entry.mode ?? 0o600),
        linkCount: 1,
        device: [entry.major, entry.minor],
      });
  }
}

interface RawRecord {
  readonly path: string;
  readonly inode: number;
  readonly mode: number;
  readonly linkCount: number;
  readonly bytes?: Uint8Array;
  readonly device?: readonly [major: number, minor: number];
}

/** Header, NUL-ended name, data; name and data each end on a multiple of 4 bytes. */
function rawRecord(fields: RawRecord): Uint8Array {
  const name = new TextEncoder().encode(`${fields.path}\0`);
  const data = fields.bytes ?? new Uint8Array(0);
  assert(data.length < 2 ** 32, 'a file in an initramfs is below 4 GiB');
  const [major, minor] = fields.device ?? [0, 0];
  const header = [
    fields.inode,
    fields.mode,
    0, // user
    0, // group
    fields.linkCount,
    0, // modification time
    data.length,
    0, // device of the archive: major
    0, // minor
    major,
    minor,
    name.length,
    0, // checksum: none in newc
  ];
  const text = `070701${header.map((field) => field.toString(16).padStart(8, '0')).join('')}`;
  const dataAt = alignUp(HEADER_BYTES + name.length, 4);
  const out = new Uint8Array(alignUp(dataAt + data.length, 4));
  out.set(new TextEncoder().encode(text), 0);
  out.set(name, HEADER_BYTES);
  out.set(data, dataAt);
  return out;
}
