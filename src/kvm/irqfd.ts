/**
 * KVM_IRQFD: an eventfd that is an interrupt. Each signal is taken and raises the SPI that the GSI
 * is routed to; with a resample eventfd the line stays up until the guest ends the interrupt, and
 * that eventfd then tells the device to look whether it still wants it. The VM owns one list.
 *
 * A line that is not resampled is raised and left up, as Linux does: such an SPI is meant to be
 * edge-triggered, where each signal counts. Linux: virt/kvm/eventfd.c.
 */
import { Errno, type EventFd, type Refusal, refuse } from '../host/index.ts';
import type { GsiRouting } from './gsi-routing.ts';
import { KVM_IRQFD_FLAG_DEASSIGN, KVM_IRQFD_FLAG_RESAMPLE, type KvmIrqfd } from './uapi.ts';

/** The interrupt controller behind the GSIs. */
export interface IrqPins {
  /** The VGIC is initialised. */
  readonly isReady: boolean;
  /** Drives a pin; one that does not exist is ignored. */
  setPin(pin: number, level: boolean): void;
}

interface IrqFd {
  readonly fd: EventFd;
  readonly gsi: number;
  readonly resamplefd: EventFd | undefined;
  readonly stop: () => void;
}

export class IrqFds {
  readonly #routing: GsiRouting;
  readonly #pins: IrqPins;
  #all: readonly IrqFd[] = [];

  constructor(routing: GsiRouting, pins: IrqPins) {
    this.#routing = routing;
    this.#pins = pins;
  }

  /**
   * KVM_IRQFD. EINVAL: unknown flags. To assign: EAGAIN before the VGIC is initialised; EBADF for a
   * closed eventfd, or none to resample with; EBUSY where it is an interrupt of this VM already.
   * To deassign what is not there is no error.
   */
  request(request: KvmIrqfd): 0 | Refusal {
    const { flags = 0 } = request;
    if ((flags & ~(KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE)) !== 0) {
      return refuse(Errno.EINVAL);
    }
    return (flags & KVM_IRQFD_FLAG_DEASSIGN) !== 0
      ? this.#deassign(request)
      : this.#assign(request);
  }

  #assign({ fd, gsi, flags = 0, resamplefd }: KvmIrqfd): 0 | Refusal {
    if (!this.#pins.isReady) return refuse(Errno.EAGAIN);
    if (fd.isClosed) return refuse(Errno.EBADF);
    const resamples = (flags & KVM_IRQFD_FLAG_RESAMPLE) !== 0;
    if (resamples && (resamplefd === undefined || resamplefd.isClosed)) return refuse(Errno.EBADF);
    if (this.#all.some((other) => other.fd === fd)) return refuse(Errno.EBUSY);
    const irqfd: IrqFd = {
      fd,
      gsi,
      resamplefd: resamples ? resamplefd : undefined,
      stop: fd.watch((event) => this.#woken(irqfd, event), { first: true }),
    };
    this.#all = [...this.#all, irqfd];
    // What was signalled before is not missed; as in Linux it is not taken either.
    if (fd.isReadable) this.#injectLate(irqfd);
    return 0;
  }

  #deassign({ fd, gsi }: KvmIrqfd): 0 | Refusal {
    if (fd.isClosed) return refuse(Errno.EBADF);
    const found = this.#all.find((irqfd) => irqfd.fd === fd && irqfd.gsi === gsi);
    if (found !== undefined) this.#remove(found);
    return 0;
  }

  /** Linux: irqfd_wakeup(). */
  #woken(irqfd: IrqFd, event: 'readable' | 'closed'): boolean {
    if (event === 'closed') {
      this.#remove(irqfd);
      return false;
    }
    irqfd.fd.read();
    this.#setGsi(irqfd.gsi, true);
    return true;
  }

  /** Linux: irqfd_inject(), which pulses what is not resampled. */
  #injectLate({ gsi, resamplefd }: IrqFd): void {
    this.#setGsi(gsi, true);
    if (resamplefd === undefined) this.#setGsi(gsi, false);
  }

  #setGsi(gsi: number, level: boolean): void {
    const pin = this.#routing.pinOf(gsi);
    if (pin !== undefined) this.#pins.setPin(pin, level);
  }

  #resamplersOf(gsi: number): readonly IrqFd[] {
    return this.#all.filter((irqfd) => irqfd.gsi === gsi && irqfd.resamplefd !== undefined);
  }

  /**
   * The guest has ended the level-sensitive interrupt on `pin`: the line goes down, and the devices
   * on it are asked whether they want it up again. Linux: irqfd_resampler_ack().
   */
  ended(pin: number): void {
    const gsi = this.#routing.gsiOf(pin);
    if (gsi === undefined) return;
    const resamplers = this.#resamplersOf(gsi);
    if (resamplers.length === 0) return;
    this.#setGsi(gsi, false);
    for (const { resamplefd } of resamplers) resamplefd?.signal();
  }

  /** Linux: irqfd_shutdown(): the last to resample a line takes it down. */
  #remove(irqfd: IrqFd): void {
    irqfd.stop();
    this.#all = this.#all.filter((other) => other !== irqfd);
    const { gsi, resamplefd } = irqfd;
    if (resamplefd !== undefined && this.#resamplersOf(gsi).length === 0) this.#setGsi(gsi, false);
  }

  /** The VM is gone: no eventfd is watched any more. Linux: kvm_irqfd_release(). */
  release(): void {
    for (const { stop } of this.#all) stop();
    this.#all = [];
  }
}
