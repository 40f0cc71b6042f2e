/** The guest programs as files: their format, and that they run wherever they are loaded. */
import { describe, expect, it } from 'vitest';
import { assembleProgram } from '../../arm/a64/program.ts';
import { MIB } from '../../base/index.ts';
import { readElf } from '../elf.ts';
import { isImage, readImage } from '../image.ts';
import { buildEmbeddedGuest, embeddedGuestSource } from './embedded.ts';
import { buildMteLinux } from './mte-linux.ts';

describe('embedded guest', () => {
  it('image: the boot path takes it, and its memory is inside one 2 MiB block', () => {
    const { bytes } = buildEmbeddedGuest();
    expect(isImage(bytes)).toBe(true);
    const { textOffset, memoryBytes } = readImage({ name: 'embedded', bytes });
    expect(textOffset).toBe(0);
    expect(memoryBytes).toBeGreaterThan(bytes.length);
    expect(memoryBytes).toBeLessThanOrEqual(2 * MIB);
  });

  it('code: the same wherever it is loaded', () => {
    const elsewhere = assembleProgram(embeddedGuestSource, { base: 0x7fe0_0000n });
    expect(elsewhere.bytes).toEqual(buildEmbeddedGuest().bytes);
  });
});

describe('MTE program for Linux', () => {
  it('file: one segment for AArch64 with the entry in it', () => {
    const { entry, segments } = readElf({ name: 'mte-test', bytes: buildMteLinux() });
    const [{ virtual, bytes }] = segments as [(typeof segments)[0]];
    expect(segments).toHaveLength(1);
    expect(entry).toBeGreaterThanOrEqual(virtual);
    expect(entry).toBeLessThan(virtual + BigInt(bytes.length));
  });
});
