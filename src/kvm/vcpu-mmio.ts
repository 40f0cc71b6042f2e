/**
 * A vCPU's loads and stores where there is no memory: carried out by a device in the kernel, or given
 * to the VMM as an exit that the next KVM_RUN completes. Called by vcpu.ts.
 * Linux: arch/arm64/kvm/mmio.c.
 */
import type { LoadStoreSyndrome } from '../arm/syndrome.ts';
import type { Ipa } from '../base/index.ts';
import * as S from '../engine/state.ts';
import type { MmioExit } from './vcpu-exit.ts';
import type { Vgic } from './vgic/vgic.ts';

/** The access that is under way: what the device is asked, and where its answer goes. */
interface PendingMmio {
  readonly exit: MmioExit;
  readonly access: LoadStoreSyndrome;
}

export class VcpuMmio {
  #pending: PendingMmio | undefined;

  /**
   * Begins an access by the vCPU whose state `words` is. Returns the exit for the VMM; or undefined
   * when the VGIC has done it: then the PC is still to be moved.
   */
  begin(
    words: BigUint64Array,
    request: { ipa: Ipa; access: LoadStoreSyndrome; isWrite: boolean; vgic: Vgic | undefined },
  ): MmioExit | undefined {
    const { ipa, access, isWrite, vgic } = request;
    const size = (1 << access.sas) as 1 | 2 | 4 | 8;
    const stored = access.srt === 31 ? 0n : words[S.X / 8 + access.srt]!;
    const data = isWrite ? BigInt.asUintN(8 * size, stored) : 0n;
    const exit: MmioExit = { kind: 'mmio', ipa, isWrite, size, data };
    this.#pending = { exit, access };
    if (vgic?.contains(ipa) !== true) return exit;
    if (isWrite) {
      const low = Number(BigInt.asIntN(32, data));
      const high = Number(BigInt.asIntN(32, data >> 32n));
      vgic.write(ipa, size, low, high);
    } else {
      exit.data = vgic.read(ipa, size);
    }
    this.complete(words);
    return undefined;
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
    const { access, exit } = pending;
    if (access.srt === 31) return;
    let value = BigInt.asUintN(8 * exit.size, exit.data);
    if (access.sse) value = BigInt.asUintN(64, BigInt.asIntN(8 * exit.size, value));
    words[S.X / 8 + access.srt] = access.sf ? value : BigInt.asUintN(32, value);
  }

  /** Forgets the access: the instruction is not carried out. */
  abandon(): void {
    this.#pending = undefined;
  }
}
