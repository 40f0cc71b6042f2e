/**
 * Finds the device behind a guest physical address that KVM gave up as an MMIO exit. Ranges are
 * disjoint; an access that no device covers whole is left to the caller to judge.
 */
import { type Ipa, isAligned } from '../base/index.ts';
import type { AccessSize, MmioDevice } from './devices/device.ts';

export type MmioBusErrorCode = 'overlap' | 'misaligned';

/** A device that cannot be put where it wants to be. */
export class MmioBusError extends Error {
  override readonly name = 'MmioBusError';
  readonly code: MmioBusErrorCode;
  constructor(code: MmioBusErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

export class MmioBus {
  readonly #devices: MmioDevice[] = [];
  /** The device of the last access: consoles are written byte by byte. */
  #last: MmioDevice | undefined;

  get devices(): readonly MmioDevice[] {
    return this.#devices;
  }

  /** Attaches `device`; throws `MmioBusError` where its range is taken or not word-aligned. */
  attach(device: MmioDevice): void {
    if (!isAligned(device.base, 4) || !isAligned(device.sizeBytes, 4) || device.sizeBytes === 0) {
      throw new MmioBusError('misaligned', `${rangeOf(device)} is not a whole number of words`);
    }
    const other = this.#devices.find(
      (d) => device.base < d.base + d.sizeBytes && d.base < device.base + device.sizeBytes,
    );
    if (other !== undefined) {
      throw new MmioBusError('overlap', `${rangeOf(device)} overlaps ${rangeOf(other)}`);
    }
    this.#devices.push(device);
  }

  /** The zero-extended value of a load, or undefined where no device is. */
  read(address: Ipa, size: AccessSize): bigint | undefined {
    const device = this.#find(address, size);
    return device?.read(address - device.base, size);
  }

  /** Does a store; false where no device is. */
  write(address: Ipa, size: AccessSize, value: bigint): boolean {
    const device = this.#find(address, size);
    device?.write(address - device.base, size, value);
    return device !== undefined;
  }

  #find(address: Ipa, size: AccessSize): MmioDevice | undefined {
    const covers = (d: MmioDevice): boolean =>
      address >= d.base && address + size <= d.base + d.sizeBytes;
    if (this.#last === undefined || !covers(this.#last)) this.#last = this.#devices.find(covers);
    return this.#last;
  }
}

const rangeOf = ({ name, base, sizeBytes }: MmioDevice): string =>
  `${name} at 0x${base.toString(16)}–0x${(base + sizeBytes - 1).toString(16)}`;
