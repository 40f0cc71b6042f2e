/** What a guest sees of the VGIC: scenarios over MMIO, system registers and input lines. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Ipa, ipa } from '../../base/index.ts';
import { GICD, GICR, Icc, SGI_FRAME, SPURIOUS } from './registers.ts';
import { Vgic } from './vgic.ts';

const DISTRIBUTOR = 0x0800_0000;
const REDISTRIBUTOR = 0x080a_0000;
const SPI = 40;
const PPI = 27;

class Machine {
  readonly signals: number[] = [];
  readonly vgic: Vgic;

  constructor(options: { vcpus?: number; irqs?: number; affinities?: number[] } = {}) {
    const { vcpus = 1, irqs = 96, affinities } = options;
    this.vgic = new Vgic({
      vcpuCount: vcpus,
      irqCount: irqs,
      ...(affinities && { affinities }),
      onSignal: (vcpu) => this.signals.push(vcpu),
    });
    this.vgic.place({
      distributorBase: ipa(DISTRIBUTOR),
      redistributors: [{ base: ipa(REDISTRIBUTOR), count: vcpus }],
    });
  }

  /** As Linux sets it up: group 1 everywhere, priorities in the middle, nothing masked. */
  static ready(options: { vcpus?: number; irqs?: number } = {}): Machine {
    const machine = new Machine(options);
    machine.d(GICD.CTLR, 2);
    for (let v = 0; v < (options.vcpus ?? 1); v++) {
      machine.icc(v, Icc.PMR_EL1, 0xf0);
      machine.icc(v, Icc.IGRPEN1_EL1, 1);
      for (let i = 0; i < 8; i++) machine.r(v, GICR.IPRIORITYR0 + 4 * i, 0xa0a0_a0a0);
    }
    for (let intid = 32; intid < machine.vgic.irqCount; intid += 4) {
      machine.d(GICD.IPRIORITYR + intid, 0xa0a0_a0a0);
    }
    return machine;
  }

  dAt(offset: number): Ipa {
    return ipa(DISTRIBUTOR + offset);
  }

  rAt(vcpu: number, offset: number): Ipa {
    return ipa(REDISTRIBUTOR + 0x2_0000 * vcpu + offset);
  }

  d(offset: number, value: number): void {
    this.vgic.write(this.dAt(offset), 4, value, 0);
  }

  r(vcpu: number, offset: number, value: number): void {
    this.vgic.write(this.rAt(vcpu, offset), 4, value, 0);
  }

  readD(offset: number): number {
    return Number(this.vgic.read(this.dAt(offset), 4));
  }

  readR(vcpu: number, offset: number): number {
    return Number(this.vgic.read(this.rAt(vcpu, offset), 4));
  }

  icc(vcpu: number, register: number, low: number, high = 0): void {
    expect(this.vgic.writeIcc(vcpu, register, low, high)).toBe(true);
  }

  ack(vcpu = 0): number {
    return this.vgic.readIcc(vcpu, Icc.IAR1_EL1);
  }

  eoi(intid: number, vcpu = 0): void {
    this.icc(vcpu, Icc.EOIR1_EL1, intid);
  }

  enableSpi(intid: number, options: { edge?: boolean; priority?: number } = {}): void {
    const { edge, priority } = options;
    if (edge) this.d(GICD.ICFGR + (intid >>> 4) * 4, 2 << (2 * (intid & 15)));
    if (priority !== undefined) {
      this.vgic.write(this.dAt(GICD.IPRIORITYR + intid), 1, priority, 0);
    }
    this.d(GICD.ISENABLER + (intid >>> 5) * 4, 1 << (intid & 31));
  }

  pending(intid: number): boolean {
    return ((this.readD(GICD.ISPENDR + (intid >>> 5) * 4) >>> (intid & 31)) & 1) === 1;
  }

  active(intid: number): boolean {
    return ((this.readD(GICD.ISACTIVER + (intid >>> 5) * 4) >>> (intid & 31)) & 1) === 1;
  }
}

const sgi1r = (options: { id: number; targets?: number; aff1?: number }): number =>
  (options.id << 24) | ((options.aff1 ?? 0) << 16) | (options.targets ?? 0);

describe('identification', () => {
  it.each([
    ['GICD_TYPER of 96 interrupts', GICD.TYPER, 0x0048_0002],
    ['GICD_IIDR', GICD.IIDR, 0x4b00_343b],
    ['GICD_PIDR2', GICD.PIDR2, 0x3b],
    ['GICD_PIDR4', GICD.IDREGS, 0],
    ['GICD_CTLR: ARE and DS are fixed', GICD.CTLR, 0x50],
    ['GICD_STATUSR', GICD.STATUSR, 0xffff_ffff],
    ['GICD_TYPER2', GICD.TYPER2, 0],
  ])('%s', (_, offset, value) => {
    expect(new Machine().readD(offset)).toBe(value);
  });

  it.each([
    ['GICR_CTLR', GICR.CTLR, 6],
    ['GICR_IIDR', GICR.IIDR, 0x4b00_043b],
    ['GICR_WAKER: awake', GICR.WAKER, 0],
    ['GICR_PIDR2', GICR.PIDR2, 0x3b],
    ['GICR_SYNCR', GICR.SYNCR, 0],
    ['GICR_ICFGR0: SGIs are edge-triggered', GICR.ICFGR0, 0xaaaa_aaaa],
    ['GICR_ICFGR1: PPIs are level-sensitive', GICR.ICFGR0 + 4, 0],
    ['GICR_IGROUPR0: group 1', GICR.IGROUPR0, 0xffff_ffff],
    ['GICR_ISENABLER0: SGIs are enabled', GICR.ISENABLER0, 0xffff],
  ])('%s', (_, offset, value) => {
    expect(new Machine().readR(0, offset)).toBe(value);
  });

  it('GICR_TYPER: affinity, processor number, and Last in the last one only', () => {
    const machine = new Machine({ vcpus: 18 });
    expect(machine.vgic.read(machine.rAt(0, GICR.TYPER), 8)).toBe(0n);
    expect(machine.vgic.read(machine.rAt(17, GICR.TYPER), 8)).toBe(0x101_0000_1110n);
    expect(machine.readR(17, GICR.TYPER + 4)).toBe(0x101);
  });

  it('contains: the frames and nothing beside them', () => {
    const { vgic } = new Machine({ vcpus: 2 });
    const cases: [number, boolean][] = [
      [DISTRIBUTOR - 1, false],
      [DISTRIBUTOR, true],
      [DISTRIBUTOR + 0xffff, true],
      [DISTRIBUTOR + 0x1_0000, false],
      [REDISTRIBUTOR - 1, false],
      [REDISTRIBUTOR, true],
      [REDISTRIBUTOR + 0x3_ffff, true],
      [REDISTRIBUTOR + 0x4_0000, false],
    ];
    for (const [address, expected] of cases) expect(vgic.contains(ipa(address))).toBe(expected);
  });

  it('place: redistributors in two regions are Last at the end of each, unless they touch', () => {
    const vgic = new Vgic({ vcpuCount: 4 });
    vgic.place({
      distributorBase: undefined,
      redistributors: [
        { base: ipa(0x1000_0000), count: 2 },
        { base: ipa(0x1004_0000), count: 1 },
        { base: ipa(0x2000_0000), count: 5 },
      ],
    });
    const last = [0x1000_0000, 0x1002_0000, 0x1004_0000, 0x2000_0000].map(
      (base) => vgic.read(ipa(base + GICR.TYPER), 4) & 0x10n,
    );
    expect(last).toEqual([0n, 0n, 16n, 16n]);
    expect(vgic.contains(ipa(0x2002_0000))).toBe(false);
  });
});

describe('register accesses', () => {
  it.each([
    ['16 bits', GICD.TYPER, 2],
    ['64 bits of a 32-bit register', GICD.CTLR, 8],
    ['a byte of ISENABLER', GICD.ISENABLER + 4, 1],
    ['a misaligned word', GICD.IPRIORITYR + 34, 4],
    ['the private part of ISENABLER', GICD.ISENABLER, 4],
    ['an interrupt that does not exist', GICD.IPRIORITYR + 96, 4],
    ['between the registers', 0x0040, 4],
    ['ITARGETSR', GICD.ITARGETSR + 32, 4],
    ['IGRPMODR', GICD.IGRPMODR + 4, 4],
    ['the route of an SGI', GICD.IROUTER, 8],
  ])('%s: read as zero, writes ignored', (_, offset, size) => {
    const machine = Machine.ready();
    const before = machine.vgic.save();
    machine.vgic.write(machine.dAt(offset), size, -1, -1);
    expect(machine.vgic.read(machine.dAt(offset), size)).toBe(0n);
    expect(machine.vgic.save()).toEqual(before);
  });

  it('IPRIORITYR: five bits, by byte and by word', () => {
    const machine = new Machine();
    machine.d(GICD.IPRIORITYR + 40, 0xff07_8c01);
    expect(machine.readD(GICD.IPRIORITYR + 40)).toBe(0xf800_8800);
    machine.vgic.write(machine.dAt(GICD.IPRIORITYR + 42), 1, 0xff, 0);
    expect(machine.readD(GICD.IPRIORITYR + 40)).toBe(0xf8f8_8800);
    expect(machine.vgic.read(machine.dAt(GICD.IPRIORITYR + 41), 1)).toBe(0x88n);
  });

  it('ICFGR: only the upper bit of each pair, and private triggers are fixed', () => {
    const machine = new Machine();
    machine.d(GICD.ICFGR + 8, -1);
    machine.d(GICD.ICFGR + 12, 0x5555_5555);
    machine.r(0, GICR.ICFGR0, 0);
    machine.r(0, GICR.ICFGR0 + 4, -1);
    expect(machine.readD(GICD.ICFGR + 8)).toBe(0xaaaa_aaaa);
    expect(machine.readD(GICD.ICFGR + 12)).toBe(0);
    expect(machine.readR(0, GICR.ICFGR0)).toBe(0xaaaa_aaaa);
    expect(machine.readR(0, GICR.ICFGR0 + 4)).toBe(0);
  });

  it('set and clear registers: each pair shows one state', () => {
    const machine = new Machine();
    for (const [set, clear] of [
      [GICD.ISENABLER, GICD.ICENABLER],
      [GICD.ISPENDR, GICD.ICPENDR],
      [GICD.ISACTIVER, GICD.ICACTIVER],
    ] as const) {
      machine.d(set + 4, 0xf000_000f | 0);
      expect(machine.readD(clear + 4)).toBe(0xf000_000f);
      machine.d(clear + 4, 0x8000_0001 | 0);
      machine.d(set + 4, 0);
      expect(machine.readD(set + 4)).toBe(0x7000_000e);
    }
  });

  it('GICD_CTLR: only EnableGrp1 is kept', () => {
    const machine = new Machine();
    machine.d(GICD.CTLR, -1);
    expect(machine.readD(GICD.CTLR)).toBe(0x52);
    machine.d(GICD.CTLR, 1);
    expect(machine.readD(GICD.CTLR)).toBe(0x50);
  });

  it('IROUTER: Aff2 to Aff0 are kept, IRM and Aff3 read as zero', () => {
    const machine = new Machine();
    const at = machine.dAt(GICD.IROUTER + 8 * SPI);
    machine.vgic.write(at, 8, -1, -1);
    expect(machine.vgic.read(at, 8)).toBe(0xff_ffffn);
    machine.vgic.write(machine.dAt(GICD.IROUTER + 8 * SPI + 4), 4, -1, 0);
    expect(machine.readD(GICD.IROUTER + 8 * SPI + 4)).toBe(0);
  });

  it('GICR_PENDBASER and PROPBASER: sanitised as in Linux', () => {
    const machine = new Machine({ vcpus: 2 });
    const pendbaser = machine.rAt(1, GICR.PENDBASER);
    const propbaser = machine.rAt(0, GICR.PROPBASER);
    expect(machine.vgic.read(pendbaser, 8)).toBe(0x580n);
    machine.vgic.write(pendbaser, 8, -1, -1);
    // Shareability 3 and inner attribute 7 are left alone; outer 7 becomes "same as inner".
    expect(machine.vgic.read(pendbaser, 8)).toBe(0x000f_ffff_ffff_0f80n);
    machine.vgic.write(propbaser, 8, 0x0800, 0x0100_0000);
    expect(machine.vgic.read(propbaser, 8)).toBe(0x0100_0000_0000_0580n);
    expect(machine.vgic.read(machine.rAt(1, GICR.PROPBASER), 8)).toBe(0x0100_0000_0000_0580n);
  });
});

describe('CPU interface registers', () => {
  it.each([
    ['PMR keeps five bits', Icc.PMR_EL1, 0xff, 0xf8],
    ['BPR0 is at least 2', Icc.BPR0_EL1, 0, 2],
    ['BPR1 is at least 3', Icc.BPR1_EL1, 0, 3],
    ['BPR1 has three bits', Icc.BPR1_EL1, 0xff, 7],
    ['CTLR: PRIbits 4, EOImode and CBPR writable', Icc.CTLR_EL1, -1, 0x403],
    ['CTLR at rest', Icc.CTLR_EL1, 0, 0x400],
    ['SRE is fixed', Icc.SRE_EL1, 0, 7],
    ['IGRPEN0', Icc.IGRPEN0_EL1, -1, 1],
    ['IGRPEN1', Icc.IGRPEN1_EL1, -1, 1],
    ['AP1R0', Icc.AP1R0_EL1, -1, 0xffff_ffff],
  ])('%s', (_, register, written, read) => {
    const { vgic } = new Machine();
    expect(vgic.writeIcc(0, register, written, 0)).toBe(true);
    expect(vgic.readIcc(0, register)).toBe(read);
  });

  it.each([
    Icc.EOIR0_EL1,
    Icc.EOIR1_EL1,
    Icc.DIR_EL1,
    Icc.SGI1R_EL1,
    Icc.ASGI1R_EL1,
    Icc.SGI0R_EL1,
    Icc.AP0R1_EL1,
    Icc.AP1R1_EL1,
    Icc.AP1R3_EL1,
    0xc000,
  ])('read of %i: UNDEFINED', (register) => {
    expect(new Machine().vgic.readIcc(0, register)).toBe(-1);
  });

  it.each([
    Icc.IAR0_EL1,
    Icc.IAR1_EL1,
    Icc.HPPIR0_EL1,
    Icc.HPPIR1_EL1,
    Icc.RPR_EL1,
    Icc.AP0R2_EL1,
    Icc.AP1R2_EL1,
  ])('write of %i: UNDEFINED', (register) => {
    expect(new Machine().vgic.writeIcc(0, register, 0, 0)).toBe(false);
  });

  it('CBPR: BPR1 follows BPR0 and ignores writes', () => {
    const { vgic } = new Machine();
    vgic.writeIcc(0, Icc.BPR1_EL1, 6, 0);
    vgic.writeIcc(0, Icc.CTLR_EL1, 1, 0);
    expect(vgic.readIcc(0, Icc.BPR1_EL1)).toBe(3);
    vgic.writeIcc(0, Icc.BPR1_EL1, 5, 0);
    vgic.writeIcc(0, Icc.BPR0_EL1, 7, 0);
    expect(vgic.readIcc(0, Icc.BPR1_EL1)).toBe(7);
    vgic.writeIcc(0, Icc.CTLR_EL1, 0, 0);
    expect(vgic.readIcc(0, Icc.BPR1_EL1)).toBe(6);
  });

  it("Linux's probing: five priority bits, group 0 present, nothing pending at the end", () => {
    const { vgic } = new Machine();
    expect((vgic.readIcc(0, Icc.CTLR_EL1) >>> 8) & 7).toBe(4);
    // gic_has_group0(): the lowest implemented priority bit survives in PMR.
    vgic.writeIcc(0, Icc.PMR_EL1, 1 << 3, 0);
    expect(vgic.readIcc(0, Icc.PMR_EL1)).toBe(1 << 3);
    expect(vgic.readIcc(0, Icc.SRE_EL1) & 1).toBe(1);
    for (const [register, value] of [
      [Icc.PMR_EL1, 0xf0],
      [Icc.BPR1_EL1, 0],
      [Icc.CTLR_EL1, 0],
      [Icc.AP0R0_EL1, 0],
      [Icc.AP1R0_EL1, 0],
      [Icc.IGRPEN1_EL1, 1],
    ] as const) {
      expect(vgic.writeIcc(0, register, value, 0)).toBe(true);
    }
    expect(vgic.readIcc(0, Icc.IAR1_EL1)).toBe(SPURIOUS);
    expect(vgic.irqPending(0)).toBe(false);
  });
});

describe('level-sensitive interrupts', () => {
  it('SPI: signalled, acknowledged, ended; pending again as long as the line is high', () => {
    const machine = Machine.ready();
    machine.enableSpi(SPI);
    machine.vgic.setIrqLine(SPI, true);
    expect(machine.vgic.irqPending(0)).toBe(true);
    expect(machine.signals).toEqual([0]);
    expect(machine.vgic.readIcc(0, Icc.HPPIR1_EL1)).toBe(SPI);
    expect(machine.ack()).toBe(SPI);
    expect(machine.vgic.irqPending(0)).toBe(false);
    expect([machine.pending(SPI), machine.active(SPI)]).toEqual([true, true]);
    machine.eoi(SPI);
    expect(machine.vgic.irqPending(0)).toBe(true);
    expect(machine.ack()).toBe(SPI);
    machine.vgic.setIrqLine(SPI, false);
    machine.eoi(SPI);
    expect(machine.vgic.irqPending(0)).toBe(false);
    expect([machine.pending(SPI), machine.active(SPI)]).toEqual([false, false]);
    expect(machine.signals).toEqual([0, 0]);
  });

  it('line drops before the acknowledge: spurious', () => {
    const machine = Machine.ready();
    machine.enableSpi(SPI);
    machine.vgic.setIrqLine(SPI, true);
    machine.vgic.setIrqLine(SPI, false);
    expect(machine.vgic.irqPending(0)).toBe(false);
    expect(machine.ack()).toBe(SPURIOUS);
    expect(machine.vgic.readIcc(0, Icc.RPR_EL1)).toBe(0xff);
  });

  it('ICPENDR does not lower a line; ISPENDR latches until the acknowledge', () => {
    const machine = Machine.ready();
    machine.enableSpi(SPI);
    machine.vgic.setIrqLine(SPI, true);
    machine.d(GICD.ICPENDR + 4, 1 << (SPI & 31));
    expect(machine.vgic.irqPending(0)).toBe(true);
    machine.vgic.setIrqLine(SPI, false);
    machine.d(GICD.ISPENDR + 4, 1 << (SPI & 31));
    expect(machine.ack()).toBe(SPI);
    machine.eoi(SPI);
    expect(machine.vgic.irqPending(0)).toBe(false);
  });

  it('PPI: to its own vCPU only', () => {
    const machine = Machine.ready({ vcpus: 2 });
    machine.r(0, GICR.ISENABLER0, 1 << PPI);
    machine.r(1, GICR.ISENABLER0, 1 << PPI);
    machine.vgic.setPpi(1, PPI, true);
    expect([machine.vgic.irqPending(0), machine.vgic.irqPending(1)]).toEqual([false, true]);
    expect(machine.readR(0, GICR.ISPENDR0)).toBe(0);
    expect(machine.readR(1, GICR.ISPENDR0)).toBe(1 << PPI);
    expect(machine.ack(1)).toBe(PPI);
  });
});

describe('edge-triggered interrupts', () => {
  it('SPI: the edge is kept after the line drops, and ends with the acknowledge', () => {
    const machine = Machine.ready();
    machine.enableSpi(SPI, { edge: true });
    machine.vgic.setIrqLine(SPI, true);
    machine.vgic.setIrqLine(SPI, false);
    expect(machine.ack()).toBe(SPI);
    expect(machine.pending(SPI)).toBe(false);
    machine.eoi(SPI);
    expect(machine.vgic.irqPending(0)).toBe(false);
  });

  it('an edge while active: pending and active, delivered after the end', () => {
    const machine = Machine.ready();
    machine.enableSpi(SPI, { edge: true });
    machine.vgic.setIrqLine(SPI, true);
    machine.ack();
    machine.vgic.setIrqLine(SPI, true);
    expect([machine.pending(SPI), machine.active(SPI)]).toEqual([true, true]);
    expect(machine.vgic.irqPending(0)).toBe(false);
    machine.eoi(SPI);
    expect(machine.ack()).toBe(SPI);
  });

  it('an edge while disabled: delivered when enabled, unless cleared', () => {
    const machine = Machine.ready();
    machine.enableSpi(SPI, { edge: true });
    machine.d(GICD.ICENABLER + 4, 1 << (SPI & 31));
    machine.vgic.setIrqLine(SPI, true);
    expect(machine.vgic.irqPending(0)).toBe(false);
    machine.enableSpi(SPI);
    expect(machine.vgic.irqPending(0)).toBe(true);
    machine.d(GICD.ICPENDR + 4, 1 << (SPI & 31));
    expect(machine.vgic.irqPending(0)).toBe(false);
  });
});

describe('priorities', () => {
  it('PMR: only a priority below it is signalled', () => {
    for (const [priority, pmr, signalled] of [
      [0x80, 0x80, false],
      [0x78, 0x80, true],
      [0xf8, 0xf8, false],
      [0x00, 0x00, false],
      [0x00, 0x08, true],
    ] as const) {
      const machine = Machine.ready();
      machine.icc(0, Icc.PMR_EL1, pmr);
      machine.enableSpi(SPI, { priority });
      machine.vgic.setIrqLine(SPI, true);
      expect(machine.vgic.irqPending(0)).toBe(signalled);
      expect(machine.ack()).toBe(signalled ? SPI : SPURIOUS);
      // HPPIR does not look at the mask.
      if (!signalled) expect(machine.vgic.readIcc(0, Icc.HPPIR1_EL1)).toBe(SPI);
    }
  });

  it('the highest priority is first, then the lowest INTID', () => {
    const machine = Machine.ready();
    machine.enableSpi(50, { priority: 0x40 });
    machine.enableSpi(41, { priority: 0x80 });
    machine.enableSpi(45, { priority: 0x40 });
    for (const intid of [41, 50, 45]) machine.vgic.setIrqLine(intid, true);
    const order = [];
    for (let i = 0; i < 3; i++) {
      const intid = machine.ack();
      order.push(intid);
      machine.vgic.setIrqLine(intid, false);
      machine.eoi(intid);
    }
    expect(order).toEqual([45, 50, 41]);
  });

  it('preemption: a higher priority interrupts, an equal one waits', () => {
    const machine = Machine.ready();
    machine.enableSpi(40, { priority: 0x80 });
    machine.enableSpi(41, { priority: 0x80 });
    machine.enableSpi(42, { priority: 0x40 });
    machine.vgic.setIrqLine(40, true);
    expect(machine.ack()).toBe(40);
    expect(machine.vgic.readIcc(0, Icc.RPR_EL1)).toBe(0x80);
    machine.vgic.setIrqLine(41, true);
    expect(machine.vgic.irqPending(0)).toBe(false);
    machine.vgic.setIrqLine(42, true);
    expect(machine.ack()).toBe(42);
    expect(machine.vgic.readIcc(0, Icc.RPR_EL1)).toBe(0x40);
    expect(machine.vgic.readIcc(0, Icc.AP1R0_EL1)).toBe((1 << 16) | (1 << 8));
    machine.vgic.setIrqLine(42, false);
    machine.eoi(42);
    expect(machine.vgic.irqPending(0)).toBe(false);
    machine.vgic.setIrqLine(40, false);
    machine.eoi(40);
    expect(machine.ack()).toBe(41);
  });

  it('BPR1: priorities of one group do not preempt each other', () => {
    for (const [bpr1, preempts] of [
      [3, true],
      [6, true],
      [7, false],
    ] as const) {
      const machine = Machine.ready();
      machine.icc(0, Icc.BPR1_EL1, bpr1);
      machine.enableSpi(40, { priority: 0x60 });
      machine.enableSpi(41, { priority: 0x20 });
      machine.vgic.setIrqLine(40, true);
      machine.ack();
      machine.vgic.setIrqLine(41, true);
      expect(machine.vgic.irqPending(0)).toBe(preempts);
      // In the group, priority still decides the order.
      machine.eoi(40);
      expect(machine.vgic.readIcc(0, Icc.HPPIR1_EL1)).toBe(41);
    }
  });

  it('a raised PMR and a changed priority take effect at once', () => {
    const machine = Machine.ready();
    machine.enableSpi(SPI, { priority: 0xa0 });
    machine.vgic.setIrqLine(SPI, true);
    machine.icc(0, Icc.PMR_EL1, 0xa0);
    expect(machine.vgic.irqPending(0)).toBe(false);
    machine.vgic.write(machine.dAt(GICD.IPRIORITYR + SPI), 1, 0x98, 0);
    expect(machine.vgic.irqPending(0)).toBe(true);
    expect(machine.signals).toEqual([0, 0]);
  });
});

describe('end of interrupt', () => {
  it('EOImode 1: EOIR drops the priority, DIR deactivates', () => {
    const machine = Machine.ready();
    machine.icc(0, Icc.CTLR_EL1, 2);
    machine.enableSpi(40);
    machine.enableSpi(41);
    machine.vgic.setIrqLine(40, true);
    machine.vgic.setIrqLine(41, true);
    expect(machine.ack()).toBe(40);
    machine.eoi(40);
    expect(machine.vgic.readIcc(0, Icc.RPR_EL1)).toBe(0xff);
    expect(machine.active(40)).toBe(true);
    // 40 is still active and its line high: it is the turn of 41.
    expect(machine.ack()).toBe(41);
    machine.eoi(41);
    machine.icc(0, Icc.DIR_EL1, 41);
    machine.icc(0, Icc.DIR_EL1, 40);
    expect([machine.active(40), machine.active(41)]).toEqual([false, false]);
    expect(machine.vgic.irqPending(0)).toBe(true);
  });

  it('EOImode 1: another vCPU may deactivate an SPI', () => {
    const machine = Machine.ready({ vcpus: 2 });
    machine.icc(0, Icc.CTLR_EL1, 2);
    machine.icc(1, Icc.CTLR_EL1, 2);
    machine.enableSpi(SPI);
    machine.vgic.setIrqLine(SPI, true);
    machine.ack(0);
    machine.eoi(SPI, 0);
    machine.icc(1, Icc.DIR_EL1, SPI);
    expect(machine.active(SPI)).toBe(false);
    expect(machine.vgic.irqPending(0)).toBe(true);
  });

  it('EOImode 0: DIR does nothing', () => {
    const machine = Machine.ready();
    machine.enableSpi(SPI);
    machine.vgic.setIrqLine(SPI, true);
    machine.ack();
    machine.icc(0, Icc.DIR_EL1, SPI);
    expect(machine.active(SPI)).toBe(true);
  });

  it.each([
    ['special', SPURIOUS],
    ['LPI', 8192],
    ['not active', 41],
    ['of another priority', 42],
  ])('an INTID that is %s: nothing is deactivated', (_, intid) => {
    const machine = Machine.ready();
    machine.enableSpi(SPI);
    machine.enableSpi(42, { priority: 0x20 });
    machine.vgic.setIrqLine(SPI, true);
    machine.ack();
    machine.d(GICD.ISACTIVER + 4, 1 << (42 & 31));
    machine.eoi(intid);
    expect([machine.active(SPI), machine.active(42)]).toEqual([true, true]);
  });

  it('without an active priority: no underflow', () => {
    const machine = Machine.ready();
    machine.eoi(SPI);
    expect(machine.vgic.readIcc(0, Icc.RPR_EL1)).toBe(0xff);
    expect(machine.vgic.readIcc(0, Icc.AP1R0_EL1)).toBe(0);
  });
});

describe('groups', () => {
  it('group 0 is a FIQ with its own acknowledge', () => {
    const machine = Machine.ready();
    machine.icc(0, Icc.IGRPEN0_EL1, 1);
    machine.enableSpi(SPI);
    machine.d(GICD.IGROUPR + 4, ~(1 << (SPI & 31)));
    machine.vgic.setIrqLine(SPI, true);
    expect([machine.vgic.irqPending(0), machine.vgic.fiqPending(0)]).toEqual([false, true]);
    expect(machine.ack()).toBe(SPURIOUS);
    expect(machine.vgic.readIcc(0, Icc.HPPIR1_EL1)).toBe(SPURIOUS);
    expect(machine.vgic.readIcc(0, Icc.HPPIR0_EL1)).toBe(SPI);
    expect(machine.vgic.readIcc(0, Icc.IAR0_EL1)).toBe(SPI);
    expect(machine.vgic.readIcc(0, Icc.AP0R0_EL1)).not.toBe(0);
    machine.vgic.setIrqLine(SPI, false);
    // The wrong group's EOIR drops the priority and deactivates nothing.
    machine.eoi(SPI);
    expect(machine.active(SPI)).toBe(true);
    machine.d(GICD.ICACTIVER + 4, 1 << (SPI & 31));
    machine.vgic.setIrqLine(SPI, true);
    machine.vgic.readIcc(0, Icc.IAR0_EL1);
    machine.icc(0, Icc.EOIR0_EL1, SPI);
    expect(machine.active(SPI)).toBe(false);
  });

  it('a disabled group, or the distributor disabled: not signalled, but pending', () => {
    const machine = Machine.ready();
    machine.enableSpi(SPI);
    machine.vgic.setIrqLine(SPI, true);
    machine.icc(0, Icc.IGRPEN1_EL1, 0);
    expect(machine.vgic.irqPending(0)).toBe(false);
    expect(machine.vgic.readIcc(0, Icc.HPPIR1_EL1)).toBe(SPURIOUS);
    machine.icc(0, Icc.IGRPEN1_EL1, 1);
    machine.d(GICD.CTLR, 0);
    expect(machine.vgic.irqPending(0)).toBe(false);
    expect(machine.pending(SPI)).toBe(true);
    machine.d(GICD.CTLR, 2);
    expect(machine.ack()).toBe(SPI);
  });
});

describe('SGIs', () => {
  it('SGI1R: to each vCPU of the target list, once', () => {
    const machine = Machine.ready({ vcpus: 4 });
    machine.icc(0, Icc.SGI1R_EL1, sgi1r({ id: 5, targets: 0b1010 }));
    expect(machine.signals).toEqual([1, 3]);
    expect([0, 1, 2, 3].map((v) => machine.ack(v))).toEqual([SPURIOUS, 5, SPURIOUS, 5]);
    machine.eoi(5, 1);
    expect(machine.vgic.irqPending(1)).toBe(false);
  });

  it('SGI1R with IRM: to all others', () => {
    const machine = Machine.ready({ vcpus: 3 });
    machine.icc(1, Icc.SGI1R_EL1, sgi1r({ id: 2, targets: 2 }), 1 << 8);
    expect(machine.signals).toEqual([0, 2]);
  });

  it('SGI1R: the cluster counts, and one that does not exist reaches nobody', () => {
    const machine = Machine.ready({ vcpus: 18 });
    machine.icc(0, Icc.SGI1R_EL1, sgi1r({ id: 0, targets: 2, aff1: 1 }));
    machine.icc(0, Icc.SGI1R_EL1, sgi1r({ id: 0, targets: 0xffff, aff1: 2 }));
    machine.icc(0, Icc.SGI1R_EL1, sgi1r({ id: 0, targets: 0xffff }), 1 << 16);
    machine.icc(0, Icc.SGI1R_EL1, sgi1r({ id: 0, targets: 0xffff }), 1);
    expect(machine.signals).toEqual([17]);
  });

  it('to itself, and again while active: pending once more', () => {
    const machine = Machine.ready();
    machine.icc(0, Icc.SGI1R_EL1, sgi1r({ id: 7, targets: 1 }));
    expect(machine.ack()).toBe(7);
    machine.icc(0, Icc.SGI1R_EL1, sgi1r({ id: 7, targets: 1 }));
    machine.icc(0, Icc.SGI1R_EL1, sgi1r({ id: 7, targets: 1 }));
    machine.eoi(7);
    expect(machine.ack()).toBe(7);
    machine.eoi(7);
    expect(machine.ack()).toBe(SPURIOUS);
  });

  it.each([Icc.SGI0R_EL1, Icc.ASGI1R_EL1])('register %i: group 0 SGIs only', (register) => {
    const machine = Machine.ready();
    machine.icc(0, register, sgi1r({ id: 1, targets: 1 }));
    expect(machine.readR(0, GICR.ISPENDR0)).toBe(0);
    machine.r(0, GICR.IGROUPR0, ~2);
    machine.icc(0, Icc.IGRPEN0_EL1, 1);
    machine.icc(0, register, sgi1r({ id: 1, targets: 1 }));
    expect(machine.vgic.fiqPending(0)).toBe(true);
  });

  it('ISPENDR0: an SGI without a sender', () => {
    const machine = Machine.ready();
    machine.r(0, GICR.ISPENDR0, 1 << 3);
    expect(machine.ack()).toBe(3);
  });
});

describe('routing', () => {
  it('IROUTER: to the vCPU with that affinity, also while pending', () => {
    const machine = Machine.ready({ vcpus: 4 });
    machine.enableSpi(SPI);
    machine.vgic.setIrqLine(SPI, true);
    expect(machine.vgic.irqPending(0)).toBe(true);
    machine.vgic.write(machine.dAt(GICD.IROUTER + 8 * SPI), 8, 2, 0);
    expect([0, 1, 2, 3].map((v) => machine.vgic.irqPending(v))).toEqual([
      false,
      false,
      true,
      false,
    ]);
    expect(machine.signals).toEqual([0, 2]);
    expect(machine.ack(2)).toBe(SPI);
  });

  it('IROUTER: an affinity that nobody has: delivered to nobody', () => {
    const machine = Machine.ready({ vcpus: 2 });
    machine.enableSpi(SPI);
    machine.d(GICD.IROUTER + 8 * SPI, 0x100);
    machine.vgic.setIrqLine(SPI, true);
    expect([0, 1].map((v) => machine.vgic.irqPending(v))).toEqual([false, false]);
    expect(machine.pending(SPI)).toBe(true);
  });

  it('IROUTER.IRM: there is no 1-of-N, the affinity decides', () => {
    const machine = Machine.ready({ vcpus: 2 });
    machine.enableSpi(SPI);
    machine.d(GICD.IROUTER + 8 * SPI, 0x8000_0001 | 0);
    machine.vgic.setIrqLine(SPI, true);
    expect([0, 1].map((v) => machine.vgic.irqPending(v))).toEqual([false, true]);
  });

  it('at reset: to the first vCPU, whatever its affinity', () => {
    const machine = new Machine({ vcpus: 2, affinities: [0x100, 0] });
    machine.d(GICD.CTLR, 2);
    machine.icc(0, Icc.PMR_EL1, 0xf0);
    machine.icc(0, Icc.IGRPEN1_EL1, 1);
    machine.enableSpi(SPI);
    machine.vgic.setIrqLine(SPI, true);
    expect(machine.vgic.irqPending(0)).toBe(true);
  });
});

describe('saved state', () => {
  /** A guest's actions, drawn at random; `n` picks the interrupt, vCPU and value. */
  const actions: ((machine: Machine, n: number) => void)[] = [
    (m, n) => m.vgic.setIrqLine(32 + (n % 64), (n & 64) !== 0),
    (m, n) => m.vgic.setPpi(n & 1, 16 + (n % 16), (n & 64) !== 0),
    (m, n) => m.icc(n & 1, Icc.SGI1R_EL1, sgi1r({ id: (n >>> 1) & 15, targets: n & 3 })),
    (m, n) => m.enableSpi(32 + (n % 64), { edge: (n & 128) !== 0, priority: n & 0xff }),
    (m, n) => m.r(n & 1, GICR.ISENABLER0, n << 16),
    (m, n) => m.r(n & 1, GICR.ICENABLER0, n << 16),
    (m, n) => m.d(GICD.ICENABLER + 4, 1 << (n & 31)),
    (m, n) => m.d(GICD.IROUTER + 8 * (32 + (n % 64)), n & 1),
    (m, n) => m.d(GICD.IGROUPR + 4, n),
    (m, n) => m.icc(n & 1, Icc.PMR_EL1, n),
    (m, n) => m.icc(n & 1, Icc.BPR1_EL1, n),
    (m, n) => m.icc(n & 1, Icc.CTLR_EL1, n & 3),
    (m, n) => m.icc(n & 1, Icc.IGRPEN0_EL1, n >>> 1),
    (m, n) => m.eoi(m.ack(n & 1), n & 1),
    (m, n) => void m.ack(n & 1),
    (m, n) => m.icc(n & 1, Icc.DIR_EL1, n & 127),
    (m, n) => m.d(GICD.ICACTIVER + 4, 1 << (n & 31)),
  ];
  const steps = fc.array(
    fc.record({ action: fc.nat(actions.length - 1), n: fc.integer({ min: 0, max: 0xffff }) }),
    { maxLength: 60 },
  );
  const run = (machine: Machine, list: { action: number; n: number }[]): void => {
    for (const { action, n } of list) actions[action]!(machine, n);
  };
  const inputs = ({ vgic }: Machine): boolean[] =>
    [0, 1].flatMap((v) => [vgic.irqPending(v), vgic.fiqPending(v)]);

  it('save and restore: the copy behaves as the original', () => {
    fc.assert(
      fc.property(steps, steps, (before, after) => {
        const original = Machine.ready({ vcpus: 2 });
        run(original, before);
        const copy = new Machine({ vcpus: 2 });
        copy.vgic.restore(structuredClone(original.vgic.save()));
        expect(inputs(copy)).toEqual(inputs(original));
        run(original, after);
        run(copy, after);
        expect(copy.vgic.save()).toEqual(original.vgic.save());
        expect(inputs(copy)).toEqual(inputs(original));
      }),
      { numRuns: 60 },
    );
  });

  it('inputs: what is signalled is what an acknowledge then gives', () => {
    fc.assert(
      fc.property(steps, (list) => {
        const machine = Machine.ready({ vcpus: 2 });
        run(machine, list);
        for (const v of [0, 1]) {
          const signalled = machine.vgic.irqPending(v);
          const intid = machine.ack(v);
          expect(intid === SPURIOUS).toBe(!signalled);
          expect(machine.vgic.irqPending(v) && machine.ack(v) === intid).toBe(false);
        }
      }),
      { numRuns: 60 },
    );
  });
});

it('SGI_FRAME: the private registers lie at the distributor’s offsets', () => {
  expect(GICR.ISENABLER0 - SGI_FRAME).toBe(GICD.ISENABLER);
});
