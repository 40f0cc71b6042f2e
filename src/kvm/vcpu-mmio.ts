/**
 * A vCPU's loads and stores where there is no memory: carried out by a device in the kernel, or
 * given to the VMM as an exit that the next KVM_RUN completes. Called by vcpu.ts.
 * Linux: arch/arm64/kvm/mmio.c.
 */
import type { LoadStoreSyndrome } from '../arm/syndrome.ts';
import type { Ipa } from '../base/index.ts';
import * as S from '../engine/state.ts';
import type { EventFd } from '../host/index.ts';
import type { IoEventFds } from './ioeventfd.ts';
import type { MmioExit } from './vcpu-exit.ts';
import type { Vgic } from './vgic/vgic.ts';

export interface MmioRequest {
  readonly ipa: Ipa;
  readonly access: LoadStoreSyndrome;
  readonly isWrite: boolean;
  readonly vgic: Vgic | undefined;
  readonly ioEventFds: IoEventFds;
}

/** The access that is under way: what the device is asked, and where its answer goes. */
interface PendingMmio {
  readonly exit: MmioExit;
  readonly access: LoadStoreSyndrome;
}

export class VcpuMmio {
  #pending: PendingMmio | undefined;

  /**
   * Begins an access by the vCPU whose state `words` is. Returns the exit for the VMM; or who in
   * the kernel did it, the VGIC or an eventfd, which is yet to be signalled: then the PC is to be
   * moved.
   */
  begin(words: BigUint64Array, request: MmioRequest): MmioExit | 'gic' | EventFd {
    const { ipa, access, isWrite, vgic, ioEventFds } = request;
    const size = (1 << access.sas) as 1 | 2 | 4 | 8;
    const stored = access.srt === 31 ? 0n : words[S.X / 8 + access.srt]!;
    const data = isWrite ? BigInt.asUintN(8 * size, stored) : 0n;
    const exit: MmioExit = { kind: 'mmio', ipa, isWrite, size, data };
    if (vgic?.contains(ipa) !== true) {
      const eventFd = isWrite ? ioEventFds.find(ipa, size, data) : undefined;
      if (eventFd !== undefined) return eventFd;
      this.#pending = { exit, access };
      return exit;
    }
    if (isWrite) {
      const low = Number(BigInt.asIntN(32, data));
      const high = Number(BigInt.asIntN(32, data >> 32n));
      vgic.write(ipa, size, low, high);
    } else {
      writeBack(words, access, size, vgic.read(ipa, size));
    }
    return 'gic';
  }

  /** An exit waits for its KVM_RUN. */
  get isPending(): boolean {
    return this.#pending !== undefined;
  }

  /** Ends the access: a load's result goes to its register. Linux: kvm_handle_mmio_return(). */
  complete(words: BigUint64Array): void {
    const pending = this.#pending;
    this.#pending = undefined;
    if (pending === undefined || pending.exit.isWrite) return;
    writeBack(words, pending.access, pending.exit.size, pending.exit.data);
  }

  /** Forgets the access: the instruction is not carried out. */
  abandon(): void {
    this.#pending = undefined;
  }
}

/** A load's result, extended as the instruction says. */
function writeBack(
  words: BigUint64Array,
  { srt, sse, sf }: LoadStoreSyndrome,
  size: number,
  data: bigint,
): void {
  if (srt === 31) return;
  let value = BigInt.asUintN(8 * size, data);
  if (sse) value = BigInt.asUintN(64, BigInt.asIntN(8 * size, value));
  words[S.X / 8 + srt] = sf ? value : BigInt.asUintN(32, value);
}
