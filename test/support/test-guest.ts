/**
 * A guest without a CPU: accesses to IPAs that go through a VM's real stage-2 tables, as a vCPU
 * whose stage 1 maps everything Normal Tagged would make them. Aborts go to KVM's handler and the
 * access is tried again. For tests of the memory side of `kvm/`.
 */
import { assert, type Ipa, type Pa } from '../../src/base/index.ts';
import { type AbortOutcome, type GuestAbort, handleGuestAbort } from '../../src/kvm/fault.ts';
import type { Vm } from '../../src/kvm/vm.ts';
import { AccessKind, Mmu, newTranslation } from '../../src/machine/mmu.ts';

/** HCR_EL2.DC and DCT: stage 1 is off and makes everything Write-Back and Tagged. */
const HCR_DC = 1n << 12n;
const HCR_DCT = 1n << 57n;

/** What ended an access that KVM did not let through. */
export type Refused = Exclude<AbortOutcome, { kind: 'resume' }>;

export class TestGuest {
  /** Stage 2 aborts taken. */
  abortCount = 0;
  readonly #vm: Vm;
  readonly #mmu: Mmu;
  readonly #out = newTranslation();

  constructor(vm: Vm) {
    this.#vm = vm;
    this.#mmu = new Mmu(vm.host.memory, { fwb: vm.stage2.fwb });
    const { vtcr, vttbr, hcr } = vm.stage2;
    this.#mmu.setStage2({ vtcr, vttbr, hcr: hcr | HCR_DC | (vm.mte ? HCR_DCT : 0n) });
    vm.stage2.onInvalidate(() => this.#mmu.invalidateStage2());
  }

  /** The PA of an access, faulted in as often as KVM says, or what KVM made of it instead. */
  access(
    address: Ipa,
    kind: AccessKind,
    how: Partial<Pick<GuestAbort, 's1ptw' | 'isv' | 'cacheMaintenance'>> = {},
  ): Pa | Refused {
    const out = this.#out;
    for (let tries = 0; tries < 8; tries++) {
      if (this.#mmu.translateStage2(address, { kind, el: 1, pan: false }, out)) return out.pa;
      this.abortCount++;
      const outcome = handleGuestAbort(this.#vm, {
        type: out.fault.type,
        level: out.fault.level,
        ipa: address,
        far: BigInt(address % 4096) + 0xffff_0000_0000_0000n,
        fetch: kind === AccessKind.fetch,
        write: kind === AccessKind.write,
        s1ptw: how.s1ptw ?? false,
        cacheMaintenance: how.cacheMaintenance ?? false,
        isv: how.isv ?? false,
      });
      if (outcome.kind !== 'resume') return outcome;
    }
    assert(false, 'an access ends after a few aborts');
  }

  load(address: Ipa): number | Refused {
    const at = this.access(address, AccessKind.read);
    return typeof at === 'number' ? this.#vm.host.memory.readBytes(at, 1)[0]! : at;
  }

  store(address: Ipa, value: number): 'done' | Refused {
    const at = this.access(address, AccessKind.write);
    if (typeof at !== 'number') return at;
    this.#vm.host.memory.writeBytes(at, new Uint8Array([value]));
    return 'done';
  }

  /** LDG. */
  loadTag(address: Ipa): number | Refused {
    const at = this.access(address, AccessKind.read);
    if (typeof at !== 'number') return at;
    return this.#out.tagged ? this.#vm.host.memory.readTag(at) : 0;
  }

  /** STG. */
  storeTag(address: Ipa, tag: number): 'done' | Refused {
    const at = this.access(address, AccessKind.write);
    if (typeof at !== 'number') return at;
    if (this.#out.tagged) this.#vm.host.memory.writeTag(at, tag);
    return 'done';
  }
}
