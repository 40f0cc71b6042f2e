/**
 * Reads the header of an arm64 Linux Image and says where it must lie. It copies nothing;
 * `boot.ts` places it. Linux: Documentation/arch/arm64/booting.rst, arch/arm64/include/asm/image.h.
 */
import { alignUp, MIB, PAGE_SIZE } from '../base/index.ts';
import { BootError } from './boot-error.ts';
import type { LoadedFile } from './boot-file.ts';

export const IMAGE_HEADER_BYTES = 64;
const IMAGE_MAGIC = 0x644d5241; // 'ARM\x64'
const MAGIC_OFFSET = 56;
/** What text_offset is worth where image_size is 0 (before Linux 3.17). */
const LEGACY_TEXT_OFFSET = 0x8_0000;

/** An Image as its header describes it. */
export interface Image {
  /** Where the image starts, counted from a base aligned to 2 MiB. */
  readonly textOffset: number;
  /** The memory it needs from there, file and BSS, in bytes. */
  readonly memoryBytes: number;
}

/** Whether `bytes` carry the Image magic. */
export function isImage(bytes: Uint8Array): boolean {
  return (
    bytes.length >= MAGIC_OFFSET + 4 && viewOf(bytes).getUint32(MAGIC_OFFSET, true) === IMAGE_MAGIC
  );
}

/** The Image header of `file`, checked; throws `BootError`. */
export function readImage({ name, bytes }: LoadedFile): Image {
  if (bytes.length < IMAGE_HEADER_BYTES) {
    throw new BootError(
      'truncated',
      `${name}: ${bytes.length} bytes do not hold an Image's ${IMAGE_HEADER_BYTES}-byte header`,
    );
  }
  const view = viewOf(bytes);
  const textOffset = view.getBigUint64(8, true);
  const imageSize = view.getBigUint64(16, true);
  const flags = view.getBigUint64(24, true);
  if ((flags & 1n) !== 0n) {
    throw new BootError('unsupported', `${name}: a big-endian kernel; only little-endian boots`);
  }
  if (imageSize === 0n) return { textOffset: LEGACY_TEXT_OFFSET, memoryBytes: bytes.length };
  if (textOffset >= BigInt(2 * MIB) || textOffset % BigInt(PAGE_SIZE) !== 0n) {
    throw new BootError(
      'bad-header',
      `${name}: text_offset 0x${textOffset.toString(16)} is not a page below 2 MiB`,
    );
  }
  if (imageSize < BigInt(bytes.length) - BigInt(PAGE_SIZE)) {
    throw new BootError(
      'bad-header',
      `${name}: image_size ${imageSize} is less than the file's ${bytes.length} bytes`,
    );
  }
  if (imageSize > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new BootError('bad-header', `${name}: image_size ${imageSize} is beyond any memory`);
  }
  return {
    textOffset: Number(textOffset),
    memoryBytes: Math.max(alignUp(Number(imageSize), PAGE_SIZE), bytes.length),
  };
}

const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
