/**
 * The VGIC device as a VMM uses it: mostly what is refused, and save and restore through
 * attributes.
 */

import { describe, expect, it } from 'vitest';
import { ipa } from '../../base/index.ts';
import { Errno, errnoName, isRefusal, type Refusal, refuse } from '../../host/index.ts';
import {
  KVM_DEV_ARM_VGIC_CTRL_INIT,
  KVM_DEV_ARM_VGIC_GRP_ADDR,
  KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
  KVM_DEV_ARM_VGIC_GRP_CTRL,
  KVM_DEV_ARM_VGIC_GRP_DIST_REGS,
  KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO,
  KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
  KVM_DEV_ARM_VGIC_GRP_REDIST_REGS,
  KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES,
  KVM_DEV_TYPE_ARM_VGIC_ITS,
  KVM_DEV_TYPE_ARM_VGIC_V2,
  KVM_DEV_TYPE_ARM_VGIC_V3,
  KVM_VGIC_ITS_ADDR_TYPE,
  KVM_VGIC_V3_ADDR_TYPE_DIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION,
  kvmArmIrq,
} from '../uapi.ts';
import { createVgicDevice, type VgicDevice, type VgicVm } from './device.ts';
import { GICD, GICR, Icc } from './registers.ts';

const ADDR = KVM_DEV_ARM_VGIC_GRP_ADDR;
const DIST = KVM_VGIC_V3_ADDR_TYPE_DIST;
const REDIST = KVM_VGIC_V3_ADDR_TYPE_REDIST;
const REGION = KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION;

type FakeVm = { -readonly [K in keyof VgicVm]: VgicVm[K] };

const fakeVm = (vcpuCount = 2): FakeVm => ({
  ipaBits: 40,
  vcpuCount,
  vcpuId: (index) => index,
  isRunning: false,
  hasRunOnce: false,
  ownsPpi: (intid) => intid === 27,
});

function create(vm: VgicVm, type: number = KVM_DEV_TYPE_ARM_VGIC_V3): VgicDevice | Refusal {
  return createVgicDevice(vm, { type, exists: false, onSignal: () => undefined });
}

function device(vm: VgicVm = fakeVm()): VgicDevice {
  const made = create(vm);
  if (isRefusal(made)) throw new Error(errnoName(made));
  return made;
}

const set = (dev: VgicDevice, group: number, attr: number | bigint, value: number | bigint = 0) =>
  dev.setAttr({ flags: 0, group, attr: BigInt(attr) }, BigInt(value));
const get = (dev: VgicDevice, group: number, attr: number | bigint, value: number | bigint = 0) =>
  dev.getAttr({ flags: 0, group, attr: BigInt(attr) }, BigInt(value));
const has = (dev: VgicDevice, group: number, attr: number | bigint) =>
  dev.hasAttr({ flags: 0, group, attr: BigInt(attr) });
const initialise = (dev: VgicDevice) =>
  set(dev, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT);

/** A region as KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION packs it. */
const region = (r: { index: number; base: number; count: number; flags?: number }): bigint =>
  (BigInt(r.count) << 52n) | BigInt(r.base) | BigInt(((r.flags ?? 0) << 12) | r.index);

describe('createVgicDevice', () => {
  it.each([
    ['GICv2', KVM_DEV_TYPE_ARM_VGIC_V2],
    ['ITS', KVM_DEV_TYPE_ARM_VGIC_ITS],
    ['no type', 99],
  ])('%s: ENODEV', (_, type) => {
    expect(create(fakeVm(), type)).toBe(refuse(Errno.ENODEV));
  });

  it('a second one: EEXIST', () => {
    const options = { type: KVM_DEV_TYPE_ARM_VGIC_V3, exists: true, onSignal: () => undefined };
    expect(createVgicDevice(fakeVm(), options)).toBe(refuse(Errno.EEXIST));
  });

  it('while or after a vCPU ran: EBUSY; with 513 vCPUs: E2BIG', () => {
    expect(create({ ...fakeVm(), isRunning: true })).toBe(refuse(Errno.EBUSY));
    expect(create({ ...fakeVm(), hasRunOnce: true })).toBe(refuse(Errno.EBUSY));
    expect(create(fakeVm(513))).toBe(refuse(Errno.E2BIG));
    expect(isRefusal(create(fakeVm(512)))).toBe(false);
  });
});

describe('NR_IRQS', () => {
  it.each([0, 32, 63, 65, 96 + 16, 1000, 1024, 2048])('%i: EINVAL', (count) => {
    expect(set(device(), KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, count)).toBe(refuse(Errno.EINVAL));
  });

  it('once only: EBUSY after it is set or the device initialised', () => {
    const dev = device();
    expect(get(dev, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0)).toBe(32n);
    expect(set(dev, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, 992)).toBe(0);
    expect(get(dev, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0)).toBe(992n);
    expect(set(dev, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, 64)).toBe(refuse(Errno.EBUSY));
    const other = device();
    initialise(other);
    expect(get(other, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0)).toBe(256n);
    expect(set(other, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, 64)).toBe(refuse(Errno.EBUSY));
  });
});

describe('ADDR', () => {
  it.each([
    ['misaligned distributor', DIST, 0x0800_8000n, Errno.EINVAL],
    ['distributor beyond the IPA space', DIST, 1n << 40n, Errno.E2BIG],
    ['distributor that wraps', DIST, (1n << 64n) - 0x1_0000n, Errno.EINVAL],
    ['misaligned redistributors', REDIST, 0x080a_1000n, Errno.EINVAL],
    ['redistributors that end beyond the IPA space', REDIST, (1n << 40n) - 0x2_0000n, Errno.E2BIG],
    [
      'region without redistributors',
      REGION,
      region({ index: 0, base: 0, count: 0 }),
      Errno.EINVAL,
    ],
    ['region with flags', REGION, region({ index: 0, base: 0, count: 1, flags: 1 }), Errno.EINVAL],
    ['region 1 before 0', REGION, region({ index: 1, base: 0, count: 1 }), Errno.EINVAL],
    ['GICv2 distributor', 0, 0x0800_0000n, Errno.ENXIO],
    ['GICv2 CPU interface', 1, 0x0800_0000n, Errno.ENXIO],
    ['ITS', KVM_VGIC_ITS_ADDR_TYPE, 0x0800_0000n, Errno.ENXIO],
  ])('%s: refused', (_, attr, value, errno) => {
    const dev = device();
    expect(set(dev, ADDR, attr, value)).toBe(refuse(errno));
    expect(get(dev, ADDR, DIST)).toBe((1n << 64n) - 1n);
    expect(get(dev, ADDR, REDIST)).toBe((1n << 64n) - 1n);
  });

  it('set and read back; a second time: EEXIST', () => {
    const dev = device();
    expect(set(dev, ADDR, DIST, 0x0800_0000)).toBe(0);
    expect(set(dev, ADDR, REDIST, 0x080a_0000)).toBe(0);
    expect(get(dev, ADDR, DIST)).toBe(0x0800_0000n);
    expect(get(dev, ADDR, REDIST)).toBe(0x080a_0000n);
    expect(set(dev, ADDR, DIST, 0x0900_0000)).toBe(refuse(Errno.EEXIST));
    expect(set(dev, ADDR, REDIST, 0x0900_0000)).toBe(refuse(Errno.EEXIST));
  });

  it('regions: in order, apart, each read back by its index', () => {
    const dev = device(fakeVm(4));
    const first = region({ index: 0, base: 0x1000_0000, count: 2 });
    expect(set(dev, ADDR, REGION, first)).toBe(0);
    expect(set(dev, ADDR, REDIST, 0x3000_0000)).toBe(refuse(Errno.EINVAL));
    const again = region({ index: 0, base: 0x2000_0000, count: 2 });
    const skipping = region({ index: 2, base: 0x2000_0000, count: 2 });
    const overlapping = region({ index: 1, base: 0x1002_0000, count: 2 });
    for (const bad of [again, skipping, overlapping]) {
      expect(set(dev, ADDR, REGION, bad)).toBe(refuse(Errno.EINVAL));
    }
    const second = region({ index: 1, base: 0x1004_0000, count: 2 });
    expect(set(dev, ADDR, REGION, second)).toBe(0);
    expect(get(dev, ADDR, REGION, 1)).toBe(second);
    expect(get(dev, ADDR, REGION, 2)).toBe(refuse(Errno.ENOENT));
    expect(get(dev, ADDR, REDIST)).toBe(0x1000_0000n);
  });

  it('redistributors over the distributor: EINVAL, and the region is not kept', () => {
    const dev = device();
    set(dev, ADDR, DIST, 0x0802_0000);
    expect(set(dev, ADDR, REDIST, 0x0800_0000)).toBe(refuse(Errno.EINVAL));
    const over = region({ index: 0, base: 0x0800_0000, count: 2 });
    expect(set(dev, ADDR, REGION, over)).toBe(refuse(Errno.EINVAL));
    expect(set(dev, ADDR, REDIST, 0x0804_0000)).toBe(0);
  });

  it('distributor set over the redistributors: found at the first run', () => {
    const dev = device();
    set(dev, ADDR, REDIST, 0x0800_0000);
    expect(set(dev, ADDR, DIST, 0x0802_0000)).toBe(0);
    initialise(dev);
    expect(dev.mapResources()).toBe(refuse(Errno.EINVAL));
  });

  it('vcpuCreated: EINVAL where the growing region meets the distributor', () => {
    const vm = fakeVm(1);
    const dev = device(vm);
    set(dev, ADDR, DIST, 0x0804_0000);
    set(dev, ADDR, REDIST, 0x0800_0000);
    vm.vcpuCount = 2;
    expect(dev.vcpuCreated()).toBe(0);
    vm.vcpuCount = 3;
    expect(dev.vcpuCreated()).toBe(refuse(Errno.EINVAL));
  });
});

describe('mapResources', () => {
  it('ENXIO without an address, EBUSY before initialisation, then ready', () => {
    const dev = device();
    expect(dev.mapResources()).toBe(refuse(Errno.ENXIO));
    set(dev, ADDR, REGION, region({ index: 0, base: 0x080a_0000, count: 1 }));
    set(dev, ADDR, DIST, 0x0800_0000);
    expect(dev.mapResources()).toBe(refuse(Errno.ENXIO));
    set(dev, ADDR, REGION, region({ index: 1, base: 0x080c_0000, count: 1 }));
    expect(dev.mapResources()).toBe(refuse(Errno.EBUSY));
    expect(initialise(dev)).toBe(0);
    expect(initialise(dev)).toBe(0);
    expect(dev.mapResources()).toBe(0);
    expect(dev.vgic?.contains(ipa(0x080d_ffff))).toBe(true);
  });

  it('addresses may come after the initialisation', () => {
    const dev = device();
    initialise(dev);
    expect(dev.vgic?.contains(ipa(0x0800_0000))).toBe(false);
    set(dev, ADDR, DIST, 0x0800_0000);
    set(dev, ADDR, REDIST, 0x080a_0000);
    expect(dev.mapResources()).toBe(0);
    expect(dev.vgic?.contains(ipa(0x0800_0000))).toBe(true);
  });
});

describe('hasAttr', () => {
  const NXIO = refuse(Errno.ENXIO);
  it.each([
    ['distributor address', ADDR, DIST, 0],
    ['GICv2 address', ADDR, 0, NXIO],
    ['NR_IRQS', KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, 0],
    ['INIT', KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, 0],
    ['SAVE_PENDING_TABLES', KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES, 0],
    ['ITS_SAVE_TABLES', KVM_DEV_ARM_VGIC_GRP_CTRL, 1, NXIO],
    ['GICD_CTLR', KVM_DEV_ARM_VGIC_GRP_DIST_REGS, GICD.CTLR, 0],
    ['misaligned', KVM_DEV_ARM_VGIC_GRP_DIST_REGS, GICD.CTLR + 2, NXIO],
    ['between the registers', KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0x40, NXIO],
    ['an SPI before their number is known', KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0x104, NXIO],
    ['GICR_WAKER', KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, GICR.WAKER, 0],
    ['vCPU 1', KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, (1n << 32n) | BigInt(GICR.WAKER), 0],
    ['vCPU 2', KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, 2n << 32n, refuse(Errno.EINVAL)],
    ['ICC_PMR_EL1', KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, Icc.PMR_EL1, 0],
    ['ICC_IAR1_EL1', KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, Icc.IAR1_EL1, NXIO],
    ['line levels', KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, 32, 0],
    ['another kind of level', KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, 1 << 10, NXIO],
    ['GICv2 CPU registers', 2, 0, NXIO],
  ])('%s', (_, group, attr, expected) => {
    expect(has(device(), group, attr)).toBe(expected);
  });
});

describe('registers', () => {
  const ready = (vcpuCount = 2): VgicDevice => {
    const dev = device(fakeVm(vcpuCount));
    set(dev, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, 96);
    initialise(dev);
    return dev;
  };

  it.each([
    KVM_DEV_ARM_VGIC_GRP_DIST_REGS,
    KVM_DEV_ARM_VGIC_GRP_REDIST_REGS,
    KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
    KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO,
  ])(
    'group %i: EBUSY before initialisation and while a vCPU runs, EINVAL without the vCPU',
    (group) => {
      const vm = fakeVm();
      const dev = device(vm);
      expect(get(dev, group, 0)).toBe(refuse(Errno.EBUSY));
      expect(set(dev, group, 0)).toBe(refuse(Errno.EBUSY));
      initialise(dev);
      vm.isRunning = true;
      expect(get(dev, group, 0)).toBe(refuse(Errno.EBUSY));
      vm.isRunning = false;
      if (group !== KVM_DEV_ARM_VGIC_GRP_DIST_REGS) {
        expect(get(dev, group, 5n << 32n)).toBe(refuse(Errno.EINVAL));
      }
    },
  );

  it.each([
    ['GICD_IIDR of another product', KVM_DEV_ARM_VGIC_GRP_DIST_REGS, GICD.IIDR, 0x4c00_343b],
    ['GICD_TYPER2', KVM_DEV_ARM_VGIC_GRP_DIST_REGS, GICD.TYPER2, 1],
    ['SRE without SRE', KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, Icc.SRE_EL1, 6],
    ['CTLR with six priority bits', KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, Icc.CTLR_EL1, 0x500],
    ['CTLR with 24-bit INTIDs', KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, Icc.CTLR_EL1, 0xc00],
    ['CTLR with A3V', KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, Icc.CTLR_EL1, 0x8400],
    ['AP1R1', KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, Icc.AP1R1_EL1, 0],
    ['line levels of INTIDs 33 on', KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, 33, 0],
    ['another kind of level', KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, 1 << 10, 0],
  ])('%s: EINVAL', (_, group, attr, value) => {
    expect(set(ready(), group, attr, value)).toBe(refuse(Errno.EINVAL));
  });

  it('GICD_IIDR of an older revision, and CTLR of fewer priority bits: accepted', () => {
    const dev = ready();
    expect(set(dev, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, GICD.IIDR, 0x4b00_243b)).toBe(0);
    expect(set(dev, KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, Icc.CTLR_EL1, 0x402)).toBe(0);
    expect(get(dev, KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, Icc.CTLR_EL1)).toBe(0x402n);
  });

  it('a system register that KVM does not save: ENXIO', () => {
    expect(get(ready(), KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, Icc.HPPIR1_EL1)).toBe(
      refuse(Errno.ENXIO),
    );
  });

  it('between the registers and misaligned: zero, writes ignored', () => {
    const dev = ready();
    for (const offset of [0x40, GICD.TYPER + 2, GICD.ISENABLER + 0x40]) {
      expect(set(dev, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, offset, 0xffff_ffff)).toBe(0);
      expect(get(dev, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, offset)).toBe(0n);
    }
  });

  it('pending latch and line are told apart', () => {
    const dev = ready();
    const ispendr1 = GICD.ISPENDR + 4;
    dev.irqLine({ irq: kvmArmIrq({ type: 1, num: 33 }), level: 1 });
    dev.vgic?.distributor.write(ispendr1, 4, 1, 'guest');
    expect(dev.vgic?.distributor.read(ispendr1, 4, 'guest')).toBe(3);
    expect(get(dev, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, ispendr1)).toBe(1n);
    expect(get(dev, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, GICD.ICPENDR + 4)).toBe(0n);
    expect(get(dev, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, 32)).toBe(2n);
    set(dev, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, GICD.ICPENDR + 4, 1);
    expect(get(dev, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, ispendr1)).toBe(1n);
    set(dev, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, ispendr1, 0x8000_0000);
    expect(get(dev, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, ispendr1)).toBe(0x8000_0000n);
  });

  it('line levels: SGIs have none, and the level of an edge-triggered interrupt is not shown', () => {
    const dev = ready();
    const vcpu1 = 1n << 32n;
    expect(set(dev, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, vcpu1, 0xffff_ffff)).toBe(0);
    expect(get(dev, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, vcpu1)).toBe(0xffff_0000n);
    expect(get(dev, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, 0)).toBe(0n);
    set(dev, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, 64, 3);
    set(dev, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, GICD.ICFGR + 16, 2);
    expect(get(dev, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, 64)).toBe(2n);
    expect(get(dev, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, 96)).toBe(0n);
  });

  it('what is read from one VGIC and written to another makes it signal the same', () => {
    const from = ready();
    const { vgic } = from;
    vgic?.distributor.write(GICD.CTLR, 4, 2, 'guest');
    vgic?.distributor.write(GICD.ISENABLER + 4, 4, 2, 'guest');
    vgic?.distributor.write(GICD.IROUTER + 8 * 33, 4, 1, 'guest');
    vgic?.writeIcc(1, Icc.PMR_EL1, 0xf0, 0);
    vgic?.writeIcc(1, Icc.IGRPEN1_EL1, 1, 0);
    from.irqLine({ irq: kvmArmIrq({ type: 1, num: 33 }), level: 1 });
    expect(vgic?.irqPending(1)).toBe(true);

    const to = ready();
    const copy = (group: number, attr: number | bigint): void => {
      const value = get(from, group, attr);
      if (isRefusal(value)) throw new Error(errnoName(value));
      expect(set(to, group, attr, value)).toBe(0);
    };
    for (const offset of [GICD.ISENABLER + 4, GICD.IROUTER + 8 * 33, GICD.ISPENDR + 4, GICD.CTLR]) {
      copy(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, offset);
    }
    copy(KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, 32);
    for (const register of [Icc.PMR_EL1, Icc.BPR1_EL1, Icc.CTLR_EL1, Icc.IGRPEN1_EL1]) {
      copy(KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, (1n << 32n) | BigInt(register));
    }
    expect(to.vgic?.irqPending(1)).toBe(true);
    expect(to.vgic?.readIcc(1, Icc.IAR1_EL1)).toBe(33);
  });

  it('SAVE_PENDING_TABLES: ENXIO before initialisation, then nothing to save', () => {
    const attr = KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES;
    expect(set(device(), KVM_DEV_ARM_VGIC_GRP_CTRL, attr)).toBe(refuse(Errno.ENXIO));
    expect(set(ready(), KVM_DEV_ARM_VGIC_GRP_CTRL, attr)).toBe(0);
    expect(get(ready(), KVM_DEV_ARM_VGIC_GRP_CTRL, attr)).toBe(refuse(Errno.ENXIO));
  });
});

describe('irqLine', () => {
  it.each([
    ['a CPU line', { type: 0, num: 0 }, Errno.ENXIO],
    ['an SPI below 32', { type: 1, num: 31 }, Errno.EINVAL],
    ['an SPI that does not exist', { type: 1, num: 256 }, Errno.EINVAL],
    ['a PPI that is an SGI', { type: 2, num: 15 }, Errno.EINVAL],
    ['a PPI that is an SPI', { type: 2, num: 32 }, Errno.EINVAL],
    ['a PPI of a vCPU that does not exist', { type: 2, num: 20, vcpu: 2 }, Errno.EINVAL],
    ['an unknown type', { type: 3, num: 40 }, Errno.EINVAL],
  ])('%s: refused', (_, line, errno) => {
    const dev = device();
    initialise(dev);
    expect(dev.irqLine({ irq: kvmArmIrq(line), level: 1 })).toBe(refuse(errno));
  });

  it('before initialisation: EBUSY', () => {
    const dev = device();
    for (const line of [
      { type: 1, num: 40 },
      { type: 2, num: 20 },
    ]) {
      expect(dev.irqLine({ irq: kvmArmIrq(line), level: 1 })).toBe(refuse(Errno.EBUSY));
    }
  });

  it('a PPI by the id of its vCPU, which need not be its place', () => {
    const dev = device({ ...fakeVm(), vcpuId: (index) => [17, 2][index]! });
    initialise(dev);
    const line = (vcpu: number) =>
      dev.irqLine({ irq: kvmArmIrq({ type: 2, num: 20, vcpu }), level: 1 });
    expect([line(17), line(0)]).toEqual([0, refuse(Errno.EINVAL)]);
    // Affinity 1.1 is vCPU 17, affinity 0.2 vCPU 2.
    expect(get(dev, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, 0x101n << 32n)).toBe(1n << 20n);
    expect(get(dev, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, 2n << 32n)).toBe(0n);
    expect(get(dev, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, 1n << 32n)).toBe(refuse(Errno.EINVAL));
  });

  it('a PPI that KVM drives itself: taken, and nothing happens', () => {
    const dev = device();
    initialise(dev);
    for (const num of [27, 28]) {
      expect(dev.irqLine({ irq: kvmArmIrq({ type: 2, num, vcpu: 1 }), level: 1 })).toBe(0);
    }
    expect(get(dev, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, 1n << 32n)).toBe(1n << 28n);
  });
});
