/**
 * The board: QEMU `virt`'s physical map and interrupt numbers, and the device tree that describes
 * it, of the shape QEMU gives under KVM with GICv3. Only what granule has is described: no flash,
 * fw_cfg, GPIO, ITS, PMU or PCIe. It makes no device; `machine.ts` does, at these addresses.
 *
 *     0800_0000  GIC distributor      0900_0000  PL011       0a00_0000  virtio-mmio slots
 *     080a_0000  GIC redistributors   0901_0000  PL031       4000_0000  RAM
 */
import { assert, GIB, type Ipa, ipa, MIB, type Prng } from '../base/index.ts';
import { cells, cells64, type DtNode, EMPTY, node, strings, writeDeviceTree } from './dtb.ts';

/** A range of guest physical addresses. */
export interface Region {
  readonly base: Ipa;
  readonly sizeBytes: number;
}

const region = (base: number, sizeBytes: number): Region => ({ base: ipa(base), sizeBytes });

export const RAM_BASE = ipa(0x4000_0000);
export const GIC_DISTRIBUTOR: Region = region(0x0800_0000, 0x1_0000);
/** The redistributor region; each CPU takes GIC_REDISTRIBUTOR_STRIDE bytes of it, in order. */
export const GIC_REDISTRIBUTORS: Region = region(0x080a_0000, 0xf6_0000);
export const GIC_REDISTRIBUTOR_STRIDE = 0x2_0000;
export const UART: Region = region(0x0900_0000, 0x1000);
export const RTC: Region = region(0x0901_0000, 0x1000);
export const VIRTIO_MMIO_BASE = ipa(0x0a00_0000);
export const VIRTIO_MMIO_STRIDE = 0x200;
export const VIRTIO_MMIO_COUNT = 32;

/** Shared peripheral interrupts, counted from SPI 0 (INTID 32). */
export const UART_SPI = 1;
export const RTC_SPI = 2;
export const VIRTIO_MMIO_SPI = 16;
/** Private peripheral interrupts of the timers, counted from PPI 0 (INTID 16). */
export const TIMER_PPI = {
  secure: 13,
  nonSecure: 14,
  virtual: 11,
  hypervisor: 10,
} as const;

export const CPU_COUNT_MAX = 8;
export const RAM_BYTES_MIN = 2 * MIB;
/** RAM, tags, the host's own pages and the engine share one 4 GiB linear memory. */
export const RAM_BYTES_MAX = 3 * GIB;
/** RAM comes in 2 MiB steps, so that it can be mapped in blocks at both stages. */
export const RAM_BYTES_STEP = 2 * MIB;

const PHANDLE_CLOCK = 0x8000;
const PHANDLE_GIC = 0x8001;
const PHANDLE_CPU0 = 0x8002;

const GIC_SPI = 0;
const GIC_PPI = 1;
const IRQ_TYPE_EDGE_RISING = 1;
const IRQ_TYPE_LEVEL_HIGH = 4;
const APB_CLOCK_HZ = 24_000_000;

/** MPIDR_EL1 affinity (Aff0, Aff1) of CPU `index`: 16 CPUs a cluster, as KVM gives. */
export const cpuAffinity = (index: number): number => Math.floor(index / 16) * 0x100 + (index % 16);

/** What varies in the device tree. */
export interface VirtTreeOptions {
  readonly ramBytes: number;
  readonly cpuCount: number;
  readonly cmdline: string;
  /** Where the initial RAM disk lies. */
  readonly initrd?: Region;
  /** Gives `rng-seed` and `kaslr-seed`, so that a run is a function of its seed. */
  readonly prng: Prng;
  /** The virtio-mmio slots (0 … 31) that hold a device; only these are described. */
  readonly virtioSlots?: readonly number[];
}

/** The device tree blob of a `virt` board. */
export function virtDeviceTree(options: VirtTreeOptions): Uint8Array {
  return writeDeviceTree(virtTree(options));
}

function virtTree(options: VirtTreeOptions): DtNode {
  assert(options.cpuCount >= 1 && options.cpuCount <= CPU_COUNT_MAX, 'CPU count in range');
  return node(
    '',
    {
      compatible: strings('linux,dummy-virt'),
      model: strings('linux,dummy-virt'),
      '#address-cells': cells(2),
      '#size-cells': cells(2),
      'interrupt-parent': cells(PHANDLE_GIC),
      'dma-coherent': EMPTY,
    },
    [
      chosen(options),
      node('aliases', { serial0: strings(`/${unitName('pl011', UART.base)}`) }),
      apbClock(),
      timer(),
      cpus(options.cpuCount),
      gic(),
      pl011(),
      pl031(),
      ...(options.virtioSlots ?? []).map(virtioMmio),
      node(unitName('memory', RAM_BASE), {
        device_type: strings('memory'),
        reg: cells64(RAM_BASE, options.ramBytes),
      }),
      psci(),
    ],
  );
}

const unitName = (name: string, address: number): string => `${name}@${address.toString(16)}`;

function chosen({ cmdline, initrd, prng }: VirtTreeOptions): DtNode {
  const properties: Record<string, Uint8Array> = {
    'kaslr-seed': prng.bytes(8),
    'rng-seed': prng.bytes(32),
    'stdout-path': strings(`/${unitName('pl011', UART.base)}`),
  };
  if (cmdline !== '') properties.bootargs = strings(cmdline);
  if (initrd !== undefined) {
    properties['linux,initrd-start'] = cells64(initrd.base);
    properties['linux,initrd-end'] = cells64(initrd.base + initrd.sizeBytes);
  }
  return node('chosen', properties);
}

function apbClock(): DtNode {
  return node('apb-pclk', {
    compatible: strings('fixed-clock'),
    '#clock-cells': cells(0),
    'clock-frequency': cells(APB_CLOCK_HZ),
    'clock-output-names': strings('clk24mhz'),
    phandle: cells(PHANDLE_CLOCK),
  });
}

function timer(): DtNode {
  const { secure, nonSecure, virtual, hypervisor } = TIMER_PPI;
  const ppis = [secure, nonSecure, virtual, hypervisor];
  return node('timer', {
    compatible: strings('arm,armv8-timer', 'arm,armv7-timer'),
    'always-on': EMPTY,
    interrupts: cells(...ppis.flatMap((ppi) => [GIC_PPI, ppi, IRQ_TYPE_LEVEL_HIGH])),
  });
}

function cpus(count: number): DtNode {
  const indexes = Array.from({ length: count }, (_, i) => i);
  const nodes = indexes.map((i) =>
    node(unitName('cpu', i), {
      device_type: strings('cpu'),
      compatible: strings('arm,armv8'),
      reg: cells(cpuAffinity(i)),
      phandle: cells(PHANDLE_CPU0 + i),
      // As in QEMU: a lone CPU has nothing to start.
      ...(count > 1 ? { 'enable-method': strings('psci') } : {}),
    }),
  );
  const cores = indexes.map((i) => node(`core${i}`, { cpu: cells(PHANDLE_CPU0 + i) }));
  const map = node('cpu-map', {}, [node('socket0', {}, [node('cluster0', {}, cores)])]);
  return node('cpus', { '#address-cells': cells(1), '#size-cells': cells(0) }, [map, ...nodes]);
}

function gic(): DtNode {
  return node(unitName('intc', GIC_DISTRIBUTOR.base), {
    compatible: strings('arm,gic-v3'),
    '#interrupt-cells': cells(3),
    'interrupt-controller': EMPTY,
    '#address-cells': cells(2),
    '#size-cells': cells(2),
    ranges: EMPTY,
    '#redistributor-regions': cells(1),
    reg: cells64(
      GIC_DISTRIBUTOR.base,
      GIC_DISTRIBUTOR.sizeBytes,
      GIC_REDISTRIBUTORS.base,
      GIC_REDISTRIBUTORS.sizeBytes,
    ),
    phandle: cells(PHANDLE_GIC),
  });
}

function pl011(): DtNode {
  return node(unitName('pl011', UART.base), {
    compatible: strings('arm,pl011', 'arm,primecell'),
    reg: cells64(UART.base, UART.sizeBytes),
    interrupts: cells(GIC_SPI, UART_SPI, IRQ_TYPE_LEVEL_HIGH),
    clocks: cells(PHANDLE_CLOCK, PHANDLE_CLOCK),
    'clock-names': strings('uartclk', 'apb_pclk'),
  });
}

function pl031(): DtNode {
  return node(unitName('pl031', RTC.base), {
    compatible: strings('arm,pl031', 'arm,primecell'),
    reg: cells64(RTC.base, RTC.sizeBytes),
    interrupts: cells(GIC_SPI, RTC_SPI, IRQ_TYPE_LEVEL_HIGH),
    clocks: cells(PHANDLE_CLOCK),
    'clock-names': strings('apb_pclk'),
  });
}

function virtioMmio(slot: number): DtNode {
  assert(slot >= 0 && slot < VIRTIO_MMIO_COUNT, 'virtio-mmio slot in range');
  const base = VIRTIO_MMIO_BASE + slot * VIRTIO_MMIO_STRIDE;
  return node(unitName('virtio_mmio', base), {
    compatible: strings('virtio,mmio'),
    reg: cells64(base, VIRTIO_MMIO_STRIDE),
    interrupts: cells(GIC_SPI, VIRTIO_MMIO_SPI + slot, IRQ_TYPE_EDGE_RISING),
    'dma-coherent': EMPTY,
  });
}

/** PSCI 1.x by HVC, with the SMC64 function ids QEMU lists for PSCI 0.1's sake. */
function psci(): DtNode {
  return node('psci', {
    compatible: strings('arm,psci-1.0', 'arm,psci-0.2', 'arm,psci'),
    method: strings('hvc'),
    cpu_suspend: cells(0xc400_0001),
    cpu_off: cells(0x8400_0002),
    cpu_on: cells(0xc400_0003),
    migrate: cells(0xc400_0005),
  });
}
