/**
 * Where a GSI, the number that an irqfd raises, goes: to a pin of the VGIC, which is an SPI, or
 * to an MSI, which goes nowhere as there is no ITS. The VM owns one table; irqfd.ts asks it.
 * Linux: virt/kvm/irqchip.c, arch/arm64/kvm/vgic/vgic-irqfd.c.
 */
import { Errno, isRefusal, type Refusal, refuse } from '../host/index.ts';
import {
  KVM_IRQ_ROUTING_IRQCHIP,
  KVM_IRQ_ROUTING_MSI,
  KVM_IRQCHIP_NUM_PINS,
  KVM_MAX_IRQ_ROUTES,
  KVM_MSI_VALID_DEVID,
  KVM_NR_IRQCHIPS,
  type KvmIrqRouting,
  type KvmIrqRoutingEntry,
} from './uapi.ts';

export class GsiRouting {
  #entries: readonly KvmIrqRoutingEntry[] = [];
  #pinOfGsi = new Map<number, number>();
  #gsiOfPin = new Map<number, number>();

  /** GSI n is pin n, for every SPI that there is. Linux: kvm_vgic_setup_default_irq_routing(). */
  setDefault(spiCount: number): void {
    this.#commit(
      Array.from({ length: spiCount }, (_, gsi) => ({
        gsi,
        type: KVM_IRQ_ROUTING_IRQCHIP,
        irqchip: 0,
        pin: gsi,
      })),
    );
  }

  /**
   * KVM_SET_GSI_ROUTING: replaces the table. EINVAL: flags, too many entries, a number out of
   * range, an unknown type, a GSI that goes to two places.
   */
  set({ flags = 0, entries }: KvmIrqRouting): 0 | Refusal {
    if (flags !== 0 || entries.length > KVM_MAX_IRQ_ROUTES) return refuse(Errno.EINVAL);
    const seen = new Set<number>();
    for (const entry of entries) {
      const refusal = checkEntry(entry);
      if (isRefusal(refusal)) return refusal;
      // Only different irqchips may share a GSI, and there is one.
      if (seen.has(entry.gsi)) return refuse(Errno.EINVAL);
      seen.add(entry.gsi);
    }
    this.#commit(entries);
    return 0;
  }

  #commit(entries: readonly KvmIrqRoutingEntry[]): void {
    this.#entries = [...entries];
    this.#pinOfGsi = new Map();
    this.#gsiOfPin = new Map();
    for (const entry of this.#entries) {
      if (entry.type !== KVM_IRQ_ROUTING_IRQCHIP) continue;
      this.#pinOfGsi.set(entry.gsi, entry.pin);
      this.#gsiOfPin.set(entry.pin, entry.gsi);
    }
  }

  /** The table as it is. */
  get entries(): readonly KvmIrqRoutingEntry[] {
    return this.#entries;
  }

  /** The pin that a GSI drives, or undefined. */
  pinOf(gsi: number): number | undefined {
    return this.#pinOfGsi.get(gsi);
  }

  /** The GSI of a pin, of several the one set last; or undefined. Linux: kvm_irq_map_chip_pin(). */
  gsiOf(pin: number): number | undefined {
    return this.#gsiOfPin.get(pin);
  }
}

/** Linux: kvm_set_irq_routing(), kvm_set_routing_entry(). */
function checkEntry(entry: KvmIrqRoutingEntry): 0 | Refusal {
  const { gsi, type, flags = 0 } = entry;
  if (!Number.isInteger(gsi) || gsi < 0 || gsi >= KVM_MAX_IRQ_ROUTES) return refuse(Errno.EINVAL);
  switch (type) {
    case KVM_IRQ_ROUTING_IRQCHIP: {
      const { irqchip, pin } = entry;
      const exists =
        irqchip >= 0 && irqchip < KVM_NR_IRQCHIPS && pin >= 0 && pin < KVM_IRQCHIP_NUM_PINS;
      return flags === 0 && exists ? 0 : refuse(Errno.EINVAL);
    }
    case KVM_IRQ_ROUTING_MSI:
      return (flags & ~KVM_MSI_VALID_DEVID) === 0 ? 0 : refuse(Errno.EINVAL);
    default:
      return refuse(Errno.EINVAL);
  }
}
