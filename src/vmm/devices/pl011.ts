/**
 * The Arm PrimeCell UART (PL011), r1p1 with 16-entry FIFOs: the guest's console. Arm DDI 0183.
 *
 * Time at the line is not modelled: what is written leaves at once (the transmit FIFO is always
 * empty, and passing through its trigger level raises TXRIS), and a burst of received bytes is
 * followed by silence, so the receive timeout falls due when the burst has ended. Bytes leave
 * whether or not the UART is enabled, as on QEMU, whose bare-metal guests rely on it. No DMA.
 *
 * `receive` takes what the FIFO has room for and no more: nothing from outside is ever overrun.
 * `uart-feed.ts` queues the rest and asks `listening` first.
 */
import { type Ipa, ipa } from '../../base/index.ts';
import {
  type AccessSize,
  type IrqLine,
  LevelLine,
  type MmioDevice,
  readLanes,
  writeLanes,
} from './device.ts';
import { primecellId, primecellIds } from './primecell.ts';

const DR = 0x00;
const RSR = 0x04;
const FR = 0x18;
const ILPR = 0x20;
const IBRD = 0x24;
const FBRD = 0x28;
const LCR_H = 0x2c;
const CR = 0x30;
const IFLS = 0x34;
const IMSC = 0x38;
const RIS = 0x3c;
const MIS = 0x40;
const ICR = 0x44;
const DMACR = 0x48;

const FR_CTS = 1 << 0;
const FR_DSR = 1 << 1;
const FR_DCD = 1 << 2;
const FR_RXFE = 1 << 4;
const FR_RXFF = 1 << 6;
const FR_TXFE = 1 << 7;
const FR_RI = 1 << 8;

const LCR_FEN = 1 << 4;

const CR_UARTEN = 1 << 0;
const CR_LBE = 1 << 7;
const CR_RXE = 1 << 9;
const CR_DTR = 1 << 10;
const CR_RTS = 1 << 11;
const CR_OUT1 = 1 << 12;
const CR_OUT2 = 1 << 13;
const CR_RESET = 0x300;

const INT_RI = 1 << 0;
const INT_CTS = 1 << 1;
const INT_DCD = 1 << 2;
const INT_DSR = 1 << 3;
const INT_RX = 1 << 4;
const INT_TX = 1 << 5;
const INT_RT = 1 << 6;
const INT_BE = 1 << 9;
const INT_OE = 1 << 10;
const INT_ALL = 0x7ff;

/** A character in the receive FIFO: data in 7:0, its errors in 11:8 as UARTDR shows them. */
const CHAR_BREAK = 1 << 10;
const CHAR_OVERRUN = 1 << 11;

const FIFO_DEPTH = 16;
/** Receive trigger levels by UARTIFLS.RXIFLSEL: 1/8, 1/4, 1/2, 3/4, 7/8; the rest is reserved. */
const RX_TRIGGERS = [2, 4, 8, 12, 14] as const;
const IFLS_RESET = 0x12;

/** Reads of UARTFR in a row, the FIFO empty, after which the guest is taken to wait for input. */
const POLLS_THAT_WAIT = 16;

const IDS = primecellIds(0x011, 1);

/** Everything that a restored PL011 needs: registers and the receive FIFO, oldest first. */
export interface Pl011State {
  readonly rsr: number;
  readonly ilpr: number;
  readonly ibrd: number;
  readonly fbrd: number;
  readonly lcr: number;
  readonly cr: number;
  readonly ifls: number;
  readonly imsc: number;
  readonly ris: number;
  readonly dmacr: number;
  readonly receiveFifo: readonly number[];
  readonly idlePolls: number;
}

const RESET: Pl011State = {
  rsr: 0,
  ilpr: 0,
  ibrd: 0,
  fbrd: 0,
  lcr: 0,
  cr: CR_RESET,
  ifls: IFLS_RESET,
  imsc: 0,
  ris: 0,
  dmacr: 0,
  receiveFifo: [],
  idlePolls: 0,
};

export interface Pl011Options {
  readonly base: number;
  readonly irq: IrqLine;
  /** Takes each byte that the guest transmits. */
  readonly transmit: (byte: number) => void;
}

export class Pl011 implements MmioDevice {
  readonly name = 'pl011';
  readonly base: Ipa;
  readonly sizeBytes = 0x1000;
  readonly #irq: LevelLine;
  readonly #transmit: (byte: number) => void;
  #registers: { -readonly [K in Exclude<keyof Pl011State, 'receiveFifo'>]: number } = { ...RESET };
  #receiveFifo: number[] = [];

  constructor(options: Pl011Options) {
    this.base = ipa(options.base);
    this.#irq = new LevelLine(options.irq);
    this.#transmit = options.transmit;
  }

  read(offset: number, size: AccessSize): bigint {
    return readLanes(offset, size, (word) => this.#readRegister(word));
  }

  write(offset: number, size: AccessSize, value: bigint): void {
    this.#registers.idlePolls = 0;
    this.#writeRegister(offset - (offset % 4), writeLanes(offset, size, value));
    this.#updateIrq();
  }

  /**
   * Puts `bytes` into the receive FIFO as far as there is room and returns how many it took; 0 in
   * loopback, where the line in is disconnected.
   */
  receive(bytes: Uint8Array): number {
    if (this.#loopback) return 0;
    const count = Math.min(bytes.length, this.receiveRoom);
    if (count === 0) return 0;
    for (let i = 0; i < count; i++) this.#push(bytes[i]!);
    this.#registers.ris |= INT_RT;
    this.#updateIrq();
    return count;
  }

  /** A break on the line in; false where the FIFO has no room for it. */
  receiveBreak(): boolean {
    if (this.#loopback || this.receiveRoom === 0) return false;
    this.#push(CHAR_BREAK);
    this.#registers.ris |= INT_RT;
    this.#updateIrq();
    return true;
  }

  /** Characters that the receive FIFO can still take. */
  get receiveRoom(): number {
    return this.#depth - this.#receiveFifo.length;
  }

  /**
   * Whether somebody reads: the receiver is on with an interrupt for it, or the guest polls. Bytes
   * sent earlier would be lost, since drivers empty the FIFO when they start.
   */
  get listening(): boolean {
    const { cr, imsc, idlePolls } = this.#registers;
    const on = CR_UARTEN | CR_RXE;
    const interrupts = (cr & on) === on && (imsc & (INT_RX | INT_RT)) !== 0;
    return interrupts || idlePolls >= POLLS_THAT_WAIT;
  }

  /** Back to the state after reset; received characters are dropped. */
  reset(): void {
    this.restore(RESET);
  }

  save(): Pl011State {
    return { ...this.#registers, receiveFifo: [...this.#receiveFifo] };
  }

  restore(state: Pl011State): void {
    const { receiveFifo, ...registers } = state;
    this.#registers = { ...registers };
    this.#receiveFifo = [...receiveFifo];
    this.#updateIrq();
  }

  get #loopback(): boolean {
    return (this.#registers.cr & CR_LBE) !== 0;
  }

  get #depth(): number {
    return (this.#registers.lcr & LCR_FEN) !== 0 ? FIFO_DEPTH : 1;
  }

  /** Characters at which RXRIS is raised; below, it falls. */
  get #receiveTrigger(): number {
    if (this.#depth === 1) return 1;
    return RX_TRIGGERS[(this.#registers.ifls >> 3) & 7] ?? RX_TRIGGERS[4];
  }

  #readRegister(offset: number): number {
    const registers = this.#registers;
    if (offset !== FR) registers.idlePolls = 0;
    switch (offset) {
      case DR:
        return this.#pop();
      case RSR:
        return registers.rsr;
      case FR:
        return this.#flags();
      case ILPR:
        return registers.ilpr;
      case IBRD:
        return registers.ibrd;
      case FBRD:
        return registers.fbrd;
      case LCR_H:
        return registers.lcr;
      case CR:
        return registers.cr;
      case IFLS:
        return registers.ifls;
      case IMSC:
        return registers.imsc;
      case RIS:
        return registers.ris;
      case MIS:
        return registers.ris & registers.imsc;
      case DMACR:
        return registers.dmacr;
      default:
        return primecellId(IDS, offset) ?? 0;
    }
  }

  #writeRegister(offset: number, value: number): void {
    const registers = this.#registers;
    switch (offset) {
      case DR:
        this.#send(value & 0xff);
        break;
      case RSR: // UARTECR: a write of any value clears the errors
        registers.rsr = 0;
        break;
      case ILPR:
        registers.ilpr = value & 0xff;
        break;
      case IBRD:
        registers.ibrd = value & 0xffff;
        break;
      case FBRD:
        registers.fbrd = value & 0x3f;
        break;
      case LCR_H:
        this.#writeLineControl(value & 0xff);
        break;
      case CR:
        this.#writeControl(value & 0xffff);
        break;
      case IFLS:
        registers.ifls = value & 0x3f;
        break;
      case IMSC:
        registers.imsc = value & INT_ALL;
        break;
      case ICR:
        registers.ris &= ~value;
        break;
      case DMACR:
        registers.dmacr = value & 7;
        break;
      default: // read-only and reserved
    }
  }

  /** Turning the FIFOs on or off empties them: they become another store. */
  #writeLineControl(value: number): void {
    if (((this.#registers.lcr ^ value) & LCR_FEN) !== 0) {
      this.#receiveFifo = [];
      this.#registers.ris &= ~(INT_RX | INT_RT);
    }
    this.#registers.lcr = value;
  }

  /** In loopback the modem outputs are its inputs; one that changes raises its interrupt. */
  #writeControl(value: number): void {
    const before = this.#modemFlags();
    this.#registers.cr = value;
    const changed = before ^ this.#modemFlags();
    if ((changed & FR_CTS) !== 0) this.#registers.ris |= INT_CTS;
    if ((changed & FR_DSR) !== 0) this.#registers.ris |= INT_DSR;
    if ((changed & FR_DCD) !== 0) this.#registers.ris |= INT_DCD;
    if ((changed & FR_RI) !== 0) this.#registers.ris |= INT_RI;
  }

  #modemFlags(): number {
    if (!this.#loopback) return 0;
    const { cr } = this.#registers;
    return (
      ((cr & CR_RTS) !== 0 ? FR_CTS : 0) |
      ((cr & CR_DTR) !== 0 ? FR_DSR : 0) |
      ((cr & CR_OUT1) !== 0 ? FR_DCD : 0) |
      ((cr & CR_OUT2) !== 0 ? FR_RI : 0)
    );
  }

  #flags(): number {
    const count = this.#receiveFifo.length;
    if (count === 0) this.#registers.idlePolls++;
    return (
      this.#modemFlags() |
      FR_TXFE |
      (count === 0 ? FR_RXFE : 0) |
      (count === this.#depth ? FR_RXFF : 0)
    );
  }

  #send(byte: number): void {
    this.#registers.ris |= INT_TX;
    if (!this.#loopback) {
      this.#transmit(byte);
    } else if (this.receiveRoom > 0) {
      this.#push(byte);
      this.#registers.ris |= INT_RT;
    } else {
      this.#overrun();
    }
  }

  /** The character that found no room is lost; the newest one kept is marked. DDI 0183, UARTRSR. */
  #overrun(): void {
    const newest = this.#receiveFifo.length - 1;
    this.#receiveFifo[newest] = this.#receiveFifo[newest]! | CHAR_OVERRUN;
    this.#registers.ris |= INT_OE;
  }

  #push(character: number): void {
    this.#receiveFifo.push(character);
    if ((character & CHAR_BREAK) !== 0) this.#registers.ris |= INT_BE;
    if (this.#receiveFifo.length >= this.#receiveTrigger) this.#registers.ris |= INT_RX;
  }

  #pop(): number {
    const character = this.#receiveFifo.shift() ?? 0;
    this.#registers.rsr = character >> 8;
    const count = this.#receiveFifo.length;
    if (count < this.#receiveTrigger) this.#registers.ris &= ~INT_RX;
    if (count === 0) this.#registers.ris &= ~INT_RT;
    this.#updateIrq();
    return character;
  }

  #updateIrq(): void {
    this.#irq.set((this.#registers.ris & this.#registers.imsc) !== 0);
  }
}
