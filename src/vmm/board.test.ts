/** The `virt` map and its device tree, against what QEMU 10 dumps. */
import { describe, expect, it } from 'vitest';
import { ipa, MIB, Prng } from '../base/index.ts';
import * as board from './board.ts';
import { cellsOf, findNode, readDeviceTree, stringsOf } from './dtb-reader.ts';

const tree = (options: Partial<board.VirtTreeOptions> = {}) =>
  readDeviceTree(
    board.virtDeviceTree({
      ramBytes: 512 * MIB,
      cpuCount: 2,
      cmdline: 'console=ttyAMA0',
      prng: new Prng(1),
      ...options,
    }),
  ).root;

const cellsAt = (path: string, property: string, root = tree()): number[] =>
  cellsOf(findNode(root, path)!.properties[property]!);

describe('virtDeviceTree', () => {
  it('virtDeviceTree: nodes and values, those of QEMU virt with GICv3 under KVM', () => {
    const root = tree();
    expect(stringsOf(root.properties.compatible!)).toEqual(['linux,dummy-virt']);
    expect(root.children.map((child) => child.name).sort()).toEqual([
      'aliases',
      'apb-pclk',
      'chosen',
      'cpus',
      'intc@8000000',
      'memory@40000000',
      'pl011@9000000',
      'pl031@9010000',
      'psci',
      'timer',
    ]);
    expect(cellsAt('/memory@40000000', 'reg')).toEqual([0, 0x4000_0000, 0, 0x2000_0000]);
    expect(cellsAt('/pl011@9000000', 'interrupts')).toEqual([0, 1, 4]);
    expect(cellsAt('/pl031@9010000', 'interrupts')).toEqual([0, 2, 4]);
    expect(cellsAt('/timer', 'interrupts')).toEqual([1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]);
    expect(cellsAt('/intc@8000000', 'reg')).toEqual([
      0, 0x0800_0000, 0, 0x1_0000, 0, 0x080a_0000, 0, 0xf6_0000,
    ]);
    expect(stringsOf(findNode(root, '/psci')!.properties.method!)).toEqual(['hvc']);
    expect(stringsOf(findNode(root, '/chosen')!.properties['stdout-path']!)).toEqual([
      '/pl011@9000000',
    ]);
  });

  it('virtDeviceTree: every phandle that is named, exists', () => {
    const root = tree({ cpuCount: 8 });
    const all = [root, ...root.children, ...findNode(root, '/cpus')!.children];
    const phandles = all.flatMap((n) => cellsOf(n.properties.phandle ?? new Uint8Array(0)));
    expect(new Set(phandles).size).toBe(10);
    expect(phandles).toContain(cellsAt('/', 'interrupt-parent', root)[0]);
    for (const clock of cellsAt('/pl011@9000000', 'clocks', root))
      expect(phandles).toContain(clock);
    for (let i = 0; i < 8; i++) {
      const path = `/cpus/cpu-map/socket0/cluster0/core${i}`;
      expect(cellsAt(path, 'cpu', root)).toEqual(cellsAt(`/cpus/cpu@${i}`, 'phandle', root));
    }
  });

  it('virtDeviceTree: one CPU, no enable-method; more, PSCI', () => {
    expect(findNode(tree({ cpuCount: 1 }), '/cpus/cpu@0')!.properties).not.toHaveProperty(
      'enable-method',
    );
    for (let i = 0; i < 8; i++) {
      const cpu = findNode(tree({ cpuCount: 8 }), `/cpus/cpu@${i}`)!;
      expect(stringsOf(cpu.properties['enable-method']!)).toEqual(['psci']);
      expect(cellsOf(cpu.properties.reg!)).toEqual([i]);
    }
  });

  it('virtDeviceTree: initrd and command line, in /chosen only where given', () => {
    const initrd = { base: ipa(0x4800_0000), sizeBytes: 0x123 };
    const chosen = findNode(tree({ initrd }), '/chosen')!.properties;
    expect(cellsOf(chosen['linux,initrd-start']!)).toEqual([0, 0x4800_0000]);
    expect(cellsOf(chosen['linux,initrd-end']!)).toEqual([0, 0x4800_0123]);
    expect(stringsOf(chosen.bootargs!)).toEqual(['console=ttyAMA0']);
    const bare = findNode(tree({ cmdline: '' }), '/chosen')!.properties;
    expect(Object.keys(bare).sort()).toEqual(['kaslr-seed', 'rng-seed', 'stdout-path']);
  });

  it('virtDeviceTree: the seed, decides the random properties', () => {
    const seeds = (seed: number) => {
      const { properties } = findNode(tree({ prng: new Prng(seed) }), '/chosen')!;
      return [properties['kaslr-seed'], properties['rng-seed']];
    };
    expect(seeds(1)).toEqual(seeds(1));
    expect(seeds(1)).not.toEqual(seeds(2));
  });

  it('virtDeviceTree: virtio-mmio slots, described only where populated', () => {
    const root = tree({ virtioSlots: [0, 31] });
    expect(cellsAt('/virtio_mmio@a000000', 'interrupts', root)).toEqual([0, 16, 1]);
    expect(cellsAt('/virtio_mmio@a003e00', 'reg', root)).toEqual([0, 0x0a00_3e00, 0, 0x200]);
    expect(() => tree({ virtioSlots: [32] })).toThrow('slot');
  });
});

describe('board', () => {
  it('board: its regions, disjoint and below RAM', () => {
    const regions = [
      board.GIC_DISTRIBUTOR,
      board.GIC_REDISTRIBUTORS,
      board.UART,
      board.RTC,
      {
        base: board.VIRTIO_MMIO_BASE,
        sizeBytes: board.VIRTIO_MMIO_COUNT * board.VIRTIO_MMIO_STRIDE,
      },
      { base: board.RAM_BASE, sizeBytes: board.RAM_BYTES_MAX },
    ];
    regions.forEach((region, i) => {
      const next = regions[i + 1];
      if (next !== undefined) expect(region.base + region.sizeBytes).toBeLessThanOrEqual(next.base);
    });
  });

  it('board: redistributors of all CPUs, fit their region', () => {
    const needed = board.CPU_COUNT_MAX * board.GIC_REDISTRIBUTOR_STRIDE;
    expect(needed).toBeLessThanOrEqual(board.GIC_REDISTRIBUTORS.sizeBytes);
  });

  it('cpuAffinity: 16 CPUs a cluster, as KVM numbers them', () => {
    expect([0, 7, 15, 16, 17].map(board.cpuAffinity)).toEqual([0, 7, 15, 0x100, 0x101]);
  });
});
