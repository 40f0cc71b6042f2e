/**
 * Plans a boot: where kernel, initial RAM disk and device tree lie in guest memory, and the
 * registers of the first CPU. Everything is checked here, before a VM exists; `loadPlan` then only
 * copies. Places are those of QEMU's `-kernel`:
 *
 *     RAM base       + 2 MiB + text_offset   the Image (an ELF lies where it says)
 *     RAM base       + min(RAM / 2, 128 MiB), or after the kernel   the initial RAM disk
 *     next 2 MiB boundary after that         the device tree (an ELF above RAM base: at RAM base)
 *
 * Linux: Documentation/arch/arm64/booting.rst. QEMU: hw/arm/boot.c.
 */
import { alignUp, assert, type Ipa, ipa, MIB, PAGE_SIZE, Prng } from '../base/index.ts';
import {
  CPU_COUNT_MAX,
  RAM_BASE,
  RAM_BYTES_MAX,
  RAM_BYTES_MIN,
  RAM_BYTES_STEP,
  type Region,
  virtDeviceTree,
} from './board.ts';
import { BootError, sizeText } from './boot-error.ts';
import {
  type BootFile,
  type LoadedFile,
  loadKernelFile,
  type OpenedFile,
  openFile,
} from './boot-file.ts';
import { isElf, readElf } from './elf.ts';
import type { GuestMemory } from './guest-memory.ts';
import { isImage, readImage } from './image.ts';

/** Linux: COMMAND_LINE_SIZE of arm64, its final NUL included. */
export const COMMAND_LINE_BYTES_MAX = 2048;
/** Linux: the device tree blob must not exceed 2 MiB. */
export const DEVICE_TREE_BYTES_MAX = 2 * MIB;
/** PSTATE at entry: EL1h with D, A, I and F masked. */
export const PSTATE_AT_ENTRY = 0x3c5n;

export interface BootOptions {
  readonly kernel: BootFile;
  readonly initrd?: BootFile;
  readonly cmdline: string;
  readonly ramBytes: number;
  readonly cpuCount: number;
  /** Gives `kaslr-seed` and `rng-seed` of the device tree. */
  readonly seed: number;
  readonly virtioSlots?: readonly number[];
}

/** A range of guest memory and what goes there; bytes beyond `bytes` are zero. */
export interface BootSegment {
  readonly name: 'kernel' | 'initrd' | 'device-tree';
  readonly base: Ipa;
  readonly bytes: Uint8Array;
  readonly memoryBytes: number;
}

/** General-purpose registers, pc and PSTATE of the boot CPU; all others are as after reset. */
export interface BootRegisters {
  readonly pc: bigint;
  readonly pstate: bigint;
  /** x0 (the device tree's address), x1, x2, x3. */
  readonly x: readonly [bigint, bigint, bigint, bigint];
}

export interface BootPlan {
  readonly format: 'image' | 'elf';
  readonly ramBytes: number;
  readonly cpuCount: number;
  readonly cmdline: string;
  /** Disjoint, inside RAM. */
  readonly segments: readonly BootSegment[];
  readonly deviceTree: Uint8Array;
  readonly registers: BootRegisters;
}

interface PlacedKernel {
  readonly format: 'image' | 'elf';
  readonly entry: Ipa;
  readonly segments: readonly BootSegment[];
}

/** The plan for `options`; throws `BootError` for whatever could not boot. */
export function planBoot(options: BootOptions): BootPlan {
  checkBoard(options);
  checkCommandLine(options.cmdline);
  const { ramBytes } = options;
  const kernel = placeKernel(loadKernelFile(options.kernel), ramBytes);
  const kernelEnd = end(kernel.segments.at(-1)!);
  const initrd = options.initrd && placeInitrd(openFile(options.initrd), kernelEnd, ramBytes);
  const deviceTree = virtDeviceTree({
    ramBytes,
    cpuCount: options.cpuCount,
    cmdline: options.cmdline,
    prng: new Prng(options.seed),
    ...(initrd === undefined ? {} : { initrd: regionOf(initrd) }),
    ...(options.virtioSlots === undefined ? {} : { virtioSlots: options.virtioSlots }),
  });
  const placedTree = placeDeviceTree(deviceTree, kernel, initrd, ramBytes);
  return {
    format: kernel.format,
    ramBytes,
    cpuCount: options.cpuCount,
    cmdline: options.cmdline,
    segments: [...kernel.segments, ...(initrd === undefined ? [] : [initrd]), placedTree],
    deviceTree,
    registers: {
      pc: BigInt(kernel.entry),
      pstate: PSTATE_AT_ENTRY,
      x: [BigInt(placedTree.base), 0n, 0n, 0n],
    },
  };
}

/** Writes the plan's segments and their zero tails into guest memory that covers its RAM. */
export function loadPlan(plan: BootPlan, memory: GuestMemory): void {
  for (const { base, bytes, memoryBytes } of plan.segments) {
    assert(memory.write(base, bytes), 'guest memory covers the boot plan');
    const zeros = new Uint8Array(memoryBytes - bytes.length);
    if (zeros.length > 0) {
      assert(memory.write(ipa(base + bytes.length), zeros), 'guest memory covers the boot plan');
    }
  }
}

/** Throws `BootError` for RAM or CPUs that the board cannot have. */
export function checkBoard({
  ramBytes,
  cpuCount,
}: Pick<BootOptions, 'ramBytes' | 'cpuCount'>): void {
  if (!(ramBytes >= RAM_BYTES_MIN && ramBytes <= RAM_BYTES_MAX)) {
    const bounds = `${sizeText(RAM_BYTES_MIN)} to ${sizeText(RAM_BYTES_MAX)}`;
    throw new BootError('memory-size', `memory size ${sizeText(ramBytes)} is outside ${bounds}`);
  }
  if (ramBytes % RAM_BYTES_STEP !== 0) {
    const step = sizeText(RAM_BYTES_STEP);
    throw new BootError(
      'memory-size',
      `memory size ${sizeText(ramBytes)} is no multiple of ${step}`,
    );
  }
  if (!Number.isInteger(cpuCount) || cpuCount < 1 || cpuCount > CPU_COUNT_MAX) {
    throw new BootError('cpu-count', `CPU count ${cpuCount} is outside 1 to ${CPU_COUNT_MAX}`);
  }
}

function checkCommandLine(cmdline: string): void {
  const sizeBytes = new TextEncoder().encode(cmdline).length + 1;
  if (sizeBytes > COMMAND_LINE_BYTES_MAX) {
    throw new BootError(
      'command-line',
      `kernel command line of ${sizeBytes - 1} bytes exceeds ${COMMAND_LINE_BYTES_MAX - 1}`,
    );
  }
  if (cmdline.includes('\0')) {
    throw new BootError('command-line', 'kernel command line contains a NUL character');
  }
}

function placeKernel(file: LoadedFile, ramBytes: number): PlacedKernel {
  if (isElf(file.bytes)) return placeElf(file, ramBytes);
  if (isImage(file.bytes)) return placeImage(file, ramBytes);
  throw new BootError(
    'wrong-magic',
    `${file.name}: neither an arm64 Linux Image (raw, gzip or EFI zboot) nor an ELF`,
  );
}

/** QEMU's boot stub takes the first page of RAM, so it moves an Image that asks for it by 2 MiB. */
function placeImage(file: LoadedFile, ramBytes: number): PlacedKernel {
  const { textOffset, memoryBytes } = readImage(file);
  const offset = textOffset < PAGE_SIZE ? textOffset + 2 * MIB : textOffset;
  if (offset + memoryBytes > ramBytes) {
    throw new BootError(
      'kernel-does-not-fit',
      `${file.name}: needs ${offset + memoryBytes} bytes of RAM and the guest has ${ramBytes}`,
    );
  }
  const base = ipa(RAM_BASE + offset);
  const segment: BootSegment = { name: 'kernel', base, bytes: file.bytes, memoryBytes };
  return { format: 'image', entry: base, segments: [segment] };
}

function placeElf(file: LoadedFile, ramBytes: number): PlacedKernel {
  const { entry, segments } = readElf(file);
  const ramEnd = BigInt(RAM_BASE + ramBytes);
  const placed = segments.map(({ physical, bytes, memoryBytes }): BootSegment => {
    if (physical < BigInt(RAM_BASE) || physical + memoryBytes > ramEnd) {
      throw new BootError(
        'kernel-does-not-fit',
        `${file.name}: a segment at physical 0x${physical.toString(16)} of ${memoryBytes} bytes ` +
          `lies outside RAM 0x${RAM_BASE.toString(16)} to 0x${ramEnd.toString(16)}`,
      );
    }
    const base = ipa(Number(physical));
    return { name: 'kernel', base, bytes, memoryBytes: Number(memoryBytes) };
  });
  return { format: 'elf', entry: ipa(Number(entry)), segments: placed };
}

function initrdBase(kernelEnd: Ipa, ramBytes: number): Ipa {
  const preferred = RAM_BASE + Math.min(ramBytes / 2, 128 * MIB);
  return alignUp(ipa(Math.max(preferred, kernelEnd)), PAGE_SIZE);
}

function placeInitrd(file: OpenedFile, kernelEnd: Ipa, ramBytes: number): BootSegment {
  const { name, sizeBytes } = file;
  if (sizeBytes === 0) throw new BootError('truncated', `${name}: an initrd of 0 bytes`);
  const base = initrdBase(kernelEnd, ramBytes);
  const room = Math.max(0, RAM_BASE + ramBytes - base);
  if (sizeBytes > room) {
    throw new BootError(
      'initrd-does-not-fit',
      `${name}: an initrd of ${sizeBytes} bytes where ${room} bytes of RAM are left for it`,
    );
  }
  return { name: 'initrd', base, bytes: file.load().bytes, memoryBytes: sizeBytes };
}

function placeDeviceTree(
  bytes: Uint8Array,
  kernel: PlacedKernel,
  initrd: BootSegment | undefined,
  ramBytes: number,
): BootSegment {
  assert(bytes.length <= DEVICE_TREE_BYTES_MAX, 'the device tree is at most 2 MiB');
  const segment = (base: Ipa): BootSegment => ({
    name: 'device-tree',
    base,
    bytes,
    memoryBytes: bytes.length,
  });
  // Bare-metal programs made for QEMU look for it where RAM begins.
  const lowest = kernel.segments[0]!.base;
  if (kernel.format === 'elf' && RAM_BASE + bytes.length <= lowest) return segment(RAM_BASE);
  const after =
    initrd === undefined ? initrdBase(end(kernel.segments.at(-1)!), ramBytes) : end(initrd);
  const base = alignUp(after, 2 * MIB);
  if (base + bytes.length > RAM_BASE + ramBytes) {
    throw new BootError(
      'device-tree-does-not-fit',
      `no RAM is left for the device tree of ${bytes.length} bytes: kernel and initrd end ` +
        `${after - RAM_BASE} bytes into ${ramBytes}`,
    );
  }
  return segment(base);
}

const end = ({ base, memoryBytes }: BootSegment): Ipa => ipa(base + memoryBytes);

const regionOf = ({ base, memoryBytes }: BootSegment): Region => ({
  base,
  sizeBytes: memoryBytes,
});
