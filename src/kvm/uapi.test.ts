/** The numbers of KVM's user interface where a slip would not show elsewhere. */
import { describe, expect, it, test } from 'vitest';
import * as uapi from './uapi.ts';

describe('register ids', () => {
  test.each<[string, bigint, bigint]>([
    ['X0', uapi.kvmRegX(0), 0x6030_0000_0010_0000n],
    ['X30', uapi.kvmRegX(30), 0x6030_0000_0010_003cn],
    ['SP_EL0', uapi.KVM_REG_CORE_SP, 0x6030_0000_0010_003en],
    ['PC', uapi.KVM_REG_CORE_PC, 0x6030_0000_0010_0040n],
    ['PSTATE', uapi.KVM_REG_CORE_PSTATE, 0x6030_0000_0010_0042n],
    ['SPSR_fiq', uapi.kvmRegSpsr(uapi.KVM_SPSR_FIQ), 0x6030_0000_0010_0050n],
    ['V0', uapi.kvmRegV(0), 0x6040_0000_0010_0054n],
    ['V31', uapi.kvmRegV(31), 0x6040_0000_0010_00d0n],
    ['FPSR', uapi.KVM_REG_CORE_FPSR, 0x6020_0000_0010_00d4n],
    ['FPCR', uapi.KVM_REG_CORE_FPCR, 0x6020_0000_0010_00d5n],
    ['MPIDR_EL1', uapi.ARM64_SYS_REG(3, 0, 0, 0, 5), 0x6030_0000_0013_c005n],
    ['timer control', uapi.KVM_REG_ARM_TIMER_CTL, 0x6030_0000_0013_df19n],
    ['timer count', uapi.KVM_REG_ARM_TIMER_CNT, 0x6030_0000_0013_df1an],
    ['timer compare', uapi.KVM_REG_ARM_TIMER_CVAL, 0x6030_0000_0013_df02n],
    ['PSCI version', uapi.KVM_REG_ARM_PSCI_VERSION, 0x6030_0000_0014_0000n],
    ['vendor bitmap', uapi.KVM_REG_ARM_VENDOR_HYP_BMAP, 0x6030_0000_0016_0002n],
    ['CCSIDR 13', uapi.kvmRegCcsidr(13), 0x6020_0000_0011_000dn],
    ['SVE vector lengths', uapi.KVM_REG_ARM64_SVE_VLS, 0x6060_0000_0015_ffffn],
  ])('%s', (_, id, expected) => expect(id).toBe(expected));

  it('KVM_REG_SIZE: bytes', () => {
    expect(uapi.KVM_REG_SIZE(uapi.KVM_REG_CORE_FPCR)).toBe(4);
    expect(uapi.KVM_REG_SIZE(uapi.kvmRegX(0))).toBe(8);
    expect(uapi.KVM_REG_SIZE(uapi.kvmRegV(0))).toBe(16);
    expect(uapi.KVM_REG_SIZE(uapi.KVM_REG_ARM64_SVE_VLS)).toBe(64);
  });
});

describe('kvmArmIrq', () => {
  const { KVM_ARM_IRQ_TYPE_PPI, KVM_ARM_IRQ_TYPE_SPI } = uapi;
  test.each([
    ['SPI 33', { type: KVM_ARM_IRQ_TYPE_SPI, num: 33 }, 0x0100_0021],
    ['PPI 27 of vCPU 3', { type: KVM_ARM_IRQ_TYPE_PPI, vcpu: 3, num: 27 }, 0x0203_001b],
    ['PPI 27 of vCPU 259', { type: KVM_ARM_IRQ_TYPE_PPI, vcpu: 259, num: 27 }, 0x1203_001b],
    ['vCPU 4095, unsigned', { type: KVM_ARM_IRQ_TYPE_PPI, vcpu: 4095, num: 16 }, 0xf2ff_0010],
  ])('%s', (_, line, expected) => expect(uapi.kvmArmIrq(line)).toBe(expected));
});

describe('names', () => {
  it('exit reasons: Linux names, others by number', () => {
    expect(uapi.kvmExitName(uapi.KVM_EXIT_MMIO)).toBe('KVM_EXIT_MMIO');
    expect(uapi.kvmExitName(uapi.KVM_EXIT_MEMORY_FAULT)).toBe('KVM_EXIT_MEMORY_FAULT');
    expect(uapi.kvmExitName(99)).toBe('exit 99');
  });

  it('capabilities and exits: no two share a number', () => {
    const numbers = (prefix: string): unknown[] =>
      Object.entries(uapi)
        .filter(([name, value]) => name.startsWith(prefix) && typeof value === 'number')
        .map(([, value]) => value);
    for (const prefix of ['KVM_CAP_', 'KVM_EXIT_', 'PSCI_0_2_FN', 'PSCI_1_', 'ARM_SMCCC_']) {
      const all = numbers(prefix).filter(
        (value) => value !== uapi.KVM_EXIT_FAIL_ENTRY_CPU_UNSUPPORTED,
      );
      expect([prefix, new Set(all).size]).toEqual([prefix, all.length]);
    }
  });

  // Capability numbers by which the answers of a real KVM were recorded.
  test.each([
    [uapi.KVM_CAP_NR_MEMSLOTS, 10],
    [uapi.KVM_CAP_SYNC_MMU, 16],
    [uapi.KVM_CAP_MAX_VCPUS, 66],
    [uapi.KVM_CAP_READONLY_MEM, 81],
    [uapi.KVM_CAP_ARM_PSCI_0_2, 102],
    [uapi.KVM_CAP_ARM_VM_IPA_SIZE, 165],
    [uapi.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 168],
    [uapi.KVM_CAP_ARM_MTE, 205],
    [uapi.KVM_CAP_ARM_SYSTEM_SUSPEND, 216],
    [uapi.KVM_CAP_ARM_SUPPORTED_BLOCK_SIZES, 229],
    [uapi.KVM_CAP_GUEST_MEMFD, 234],
  ])('capability %i', (number, recorded) => expect(number).toBe(recorded));
});
