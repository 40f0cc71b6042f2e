/**
 * KVM_GET_REG_LIST, KVM_GET_ONE_REG and KVM_SET_ONE_REG against what Linux 6.12 answers: its
 * register list and values (test/data), and its refusals (rows A14 to A52 were recorded on a real
 * KVM).
 */
import fc from 'fast-check';
import { beforeEach, describe, expect, it, test } from 'vitest';
import registers612 from '../../test/data/kvm-registers-6.12.json' with { type: 'json' };
import {
  findSystemRegister,
  type SystemRegisterName,
  slotOf,
  systemRegister,
  UNKNOWN_RESET,
} from '../arm/sysreg/index.ts';
import { hex } from '../base/index.ts';
import { Errno, isRefusal, refuse } from '../host/index.ts';
import { getOneReg, getRegList, setOneReg } from './one-reg.ts';
import {
  checkVcpuInit,
  createVmRegisters,
  finalizeVcpuRegisters,
  resetVcpuRegisters,
  type VcpuRegisters,
  type VmRegisters,
} from './registers.ts';
import * as uapi from './uapi.ts';

type TestVcpu = { -readonly [Key in keyof VcpuRegisters]: VcpuRegisters[Key] };

/** Timers start with their condition met: compare value 0, so ISTATUS reads 1. */
const TIMER_CONTROLS = [uapi.KVM_REG_ARM_TIMER_CTL, uapi.KVM_REG_ARM_PTIMER_CTL];

/** A vCPU whose registers are plain maps. */
function createVcpu(vm: VmRegisters, features: number, vcpuId = 0): TestVcpu {
  const x = new Map<number, bigint>();
  const v = new Map<number, bigint>();
  const sp = new Map<number, bigint>();
  const slots = new Map<number, bigint>();
  const timers = new Map<bigint, bigint>();
  let pc = 0n;
  let pstate = 0n;
  return {
    vm,
    vcpuId,
    initialized: false,
    features,
    readX: (n) => x.get(n) ?? 0n,
    writeX: (n, value) => void x.set(n, value),
    readV: (n) => v.get(n) ?? 0n,
    writeV: (n, value) => void v.set(n, value),
    readSp: (el) => sp.get(el) ?? 0n,
    writeSp: (el, value) => void sp.set(el, value),
    readPc: () => pc,
    writePc: (value) => {
      pc = value;
    },
    readPstate: () => pstate,
    writePstate: (value) => {
      pstate = value;
    },
    readSlot: (slot) => slots.get(slot) ?? 0n,
    writeSlot: (slot, value) => void slots.set(slot, value),
    timers: {
      getOneReg: (id) => timers.get(id) ?? (TIMER_CONTROLS.includes(id) ? 4n : 0n),
      setOneReg: (id, value) => {
        timers.set(id, value);
        return 0;
      },
      reset: () => timers.clear(),
    },
  };
}

const PSCI = 1 << uapi.KVM_ARM_VCPU_PSCI_0_2;

/** KVM_ARM_VCPU_INIT on a new vCPU of a new VM. */
function startVcpu(options: { mte: boolean; features?: number; vcpuId?: number }): TestVcpu {
  const vm = createVmRegisters();
  vm.mte = options.mte;
  const vcpu = createVcpu(vm, options.features ?? PSCI, options.vcpuId);
  resetVcpuRegisters(vcpu);
  vcpu.initialized = true;
  return vcpu;
}

const idOf = (name: SystemRegisterName): bigint => uapi.kvmRegSystem(systemRegister(name).key);
const listOf = (vcpu: VcpuRegisters): readonly bigint[] => {
  const list: uapi.KvmRegList = { n: 1000, reg: [] };
  expect(getRegList(vcpu, list)).toBe(0);
  return list.reg;
};
const refused = (errno: Errno): number => refuse(errno);

// ----------------------------------------------------------------------------------- the real list

type SetName = 'base' | 'mte' | 'mte+psci';

/** Id → value on the real machine; null for a running counter. */
function recorded(name: SetName): Map<bigint, bigint | null> {
  const values = new Map<bigint, bigint | null>();
  const put = ([id, value]: (string | null)[]): void => {
    values.set(BigInt(id ?? 0), value == null ? null : BigInt(value));
  };
  registers612.base.forEach(put);
  if (name === 'base') return values;
  registers612[name].added.forEach(put);
  registers612[name].changed.forEach(put);
  return values;
}

/** Registers whose value is not the recorded one, and why. */
const differing: Readonly<Record<string, string>> = {
  KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2:
    'nothing speculates: not required. The recorded host hides it behind SSBS',
  ID_PFR0_EL1: 'no AArch32',
  ID_PFR1_EL1: 'no AArch32',
  ID_DFR0_EL1: 'no AArch32',
  ID_MMFR0_EL1: 'no AArch32',
  ID_MMFR1_EL1: 'no AArch32',
  ID_MMFR2_EL1: 'no AArch32',
  ID_MMFR3_EL1: 'no AArch32',
  ID_ISAR0_EL1: 'no AArch32',
  ID_ISAR1_EL1: 'no AArch32',
  ID_ISAR2_EL1: 'no AArch32',
  ID_ISAR3_EL1: 'no AArch32',
  ID_ISAR4_EL1: 'no AArch32',
  ID_ISAR5_EL1: 'no AArch32',
  ID_MMFR4_EL1: 'no AArch32',
  ID_ISAR6_EL1: 'no AArch32',
  MVFR0_EL1: 'no AArch32',
  MVFR1_EL1: 'no AArch32',
  MVFR2_EL1: 'no AArch32',
  ID_PFR2_EL1: 'no AArch32',
  ID_MMFR5_EL1: 'no AArch32',
  ID_AA64PFR0_EL1: 'AArch64 alone at EL0 and EL1, no EL2, FP16 or RAS',
  ID_AA64PFR1_EL1: 'no BTI, SSBS or RAS',
  ID_AA64DFR0_EL1: 'Armv8.0 debug',
  ID_AA64ISAR0_EL1: 'fewer instructions: no RNG, TLB range, FHM, SM3/4, SHA3/512',
  ID_AA64ISAR1_EL1: 'fewer instructions: no I8MM, BF16, FRINTTS, FCMA, JSCVT, DPB2',
  ID_AA64ISAR2_EL1: 'fewer instructions: no MOPS, RPRES, WFxT',
  ID_AA64MMFR0_EL1: '48-bit addresses, little-endian data, no ECV, FGT or ExS',
  ID_AA64MMFR1_EL1: '8-bit VMIDs, no VHE, LOR, PAN3, ETS, HCX or AFP',
  ID_AA64MMFR2_EL1: 'no UAO, LVA, LSE2, IDST, FWB, TTL, BBM, EVT',
};

const nameOf = (id: bigint): string => {
  if (id === uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2) return 'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2';
  return findSystemRegister(Number(id & 0xffffn))?.name ?? hex(id);
};

describe.each<[SetName, boolean, number]>([
  ['base', false, 0],
  ['mte', true, 0],
  ['mte+psci', true, PSCI],
])('feature set %s', (set, mte, features) => {
  const expected = recorded(set);

  it('KVM_GET_REG_LIST: the same ids in the same order', () => {
    const order = [...expected.keys()];
    if (mte) {
      const system = (id: bigint): boolean => id >> 16n === idOf('SCTLR_EL1') >> 16n;
      const first = order.indexOf(uapi.kvmRegSystem(systemRegister('DBGBVR0_EL1').key));
      const added = order.splice(-registers612.mte.added.length);
      const rest = order.splice(first);
      const sorted = [...rest.filter(system), ...added].sort((a, b) => (a < b ? -1 : 1));
      order.push(...sorted, ...rest.filter((id) => !system(id)));
    }
    expect(listOf(startVcpu({ mte, features })).map(hex)).toEqual(order.map(hex));
  });

  it('values after KVM_ARM_VCPU_INIT: as recorded, but for the named ones', () => {
    const vcpu = startVcpu({ mte, features });
    const other: string[] = [];
    for (const [id, value] of expected) {
      if (value !== null && getOneReg(vcpu, id) !== value) other.push(nameOf(id));
    }
    expect(other.sort()).toEqual(Object.keys(differing).sort());
  });

  it('every listed register: what is read can be written back', () => {
    const vcpu = startVcpu({ mte, features });
    for (const id of listOf(vcpu)) {
      const value = getOneReg(vcpu, id);
      if (isRefusal(value)) expect.fail(hex(id));
      expect([hex(id), setOneReg(vcpu, id, value)]).toEqual([hex(id), 0]);
      expect([hex(id), getOneReg(vcpu, id)]).toEqual([hex(id), value]);
    }
  });
});

it('features of KVM_ARM_VCPU_INIT: pointer authentication, PMU, SVE and AArch32 refused', () => {
  const init = (word: number, target = uapi.KVM_ARM_TARGET_GENERIC_V8): number =>
    checkVcpuInit({ target, features: [word, 0, 0, 0, 0, 0, 0] });
  expect(init(0)).toBe(0);
  expect(init(PSCI | (1 << uapi.KVM_ARM_VCPU_POWER_OFF))).toBe(0);
  for (const bit of [
    uapi.KVM_ARM_VCPU_EL1_32BIT,
    uapi.KVM_ARM_VCPU_PMU_V3,
    uapi.KVM_ARM_VCPU_SVE,
    uapi.KVM_ARM_VCPU_PTRAUTH_ADDRESS,
    uapi.KVM_ARM_VCPU_PTRAUTH_GENERIC,
  ]) {
    expect(init(PSCI | (1 << bit))).toBe(refused(Errno.EINVAL));
  }
  expect(init(1 << uapi.KVM_ARM_VCPU_HAS_EL2)).toBe(refused(Errno.ENOENT));
  expect(init(1 << 31)).toBe(refused(Errno.ENOENT));
  expect(init(0, 0)).toBe(refused(Errno.EINVAL));
  expect(
    checkVcpuInit({ target: uapi.KVM_ARM_TARGET_GENERIC_V8, features: [0, 1, 0, 0, 0, 0, 0] }),
  ).toBe(refused(Errno.ENOENT));
});

// --------------------------------------------------------------------- recorded answers, section A

const MTE_IDS: readonly (readonly [SystemRegisterName, bigint])[] = [
  ['RGSR_EL1', 0x6030_0000_0013_c085n],
  ['GCR_EL1', 0x6030_0000_0013_c086n],
  ['TFSR_EL1', 0x6030_0000_0013_c2b0n],
  ['TFSRE0_EL1', 0x6030_0000_0013_c2b1n],
  ['GMID_EL1', 0x6030_0000_0013_c804n],
];
const ALL_ONES = 0xffff_ffff_ffff_ffffn;
const PFR1 = idOf('ID_AA64PFR1_EL1');
const withMte = (value: bigint | number, mte: bigint): bigint =>
  (BigInt(value) & ~0xf00n) | (mte << 8n);

describe('before KVM_ARM_VCPU_INIT', () => {
  const vcpu = createVcpu(createVmRegisters(), PSCI);

  it('A14 GET_ONE_REG ID_AA64PFR1_EL1: ENOEXEC', () => {
    expect(getOneReg(vcpu, PFR1)).toBe(refused(Errno.ENOEXEC));
  });

  it('SET_ONE_REG and GET_REG_LIST: ENOEXEC, n as it was', () => {
    const list: uapi.KvmRegList = { n: 3, reg: [] };
    expect(setOneReg(vcpu, uapi.kvmRegX(0), 1n)).toBe(refused(Errno.ENOEXEC));
    expect(setOneReg(vcpu, 0n, 1n)).toBe(refused(Errno.ENOEXEC));
    expect(getRegList(vcpu, list)).toBe(refused(Errno.ENOEXEC));
    expect(list.n).toBe(3);
  });
});

describe('VM without MTE', () => {
  let vcpu: TestVcpu;
  beforeEach(() => {
    vcpu = startVcpu({ mte: false });
  });

  it('A19 to A21 ID_AA64PFR1_EL1: MTE reads 0, the same value and MTE=0 are taken', () => {
    const value = getOneReg(vcpu, PFR1);
    expect(withMte(value, 0n)).toBe(value);
    expect(setOneReg(vcpu, PFR1, BigInt(value))).toBe(0);
    expect(setOneReg(vcpu, PFR1, withMte(value, 0n))).toBe(0);
  });

  test.each([1n, 2n, 3n])('A22 to A24 SET ID_AA64PFR1_EL1 MTE=%i: EINVAL, unchanged', (mte) => {
    const value = getOneReg(vcpu, PFR1);
    expect(setOneReg(vcpu, PFR1, withMte(value, mte))).toBe(refused(Errno.EINVAL));
    expect(getOneReg(vcpu, PFR1)).toBe(value);
  });

  test.each(MTE_IDS)('A25 to A34 %s: ENOENT', (name, id) => {
    expect(idOf(name)).toBe(id);
    expect(getOneReg(vcpu, id)).toBe(refused(Errno.ENOENT));
    expect(setOneReg(vcpu, id, ALL_ONES)).toBe(refused(Errno.ENOENT));
  });

  it('A35 KVM_GET_REG_LIST: 259 registers, none of MTE', () => {
    const ids = listOf(vcpu);
    expect(ids.length).toBe(259);
    expect(MTE_IDS.filter(([, id]) => ids.includes(id))).toEqual([]);
  });
});

describe('VM with MTE', () => {
  let vcpu: TestVcpu;
  beforeEach(() => {
    vcpu = startVcpu({ mte: true });
  });

  it('A36 to A41 ID_AA64PFR1_EL1: MTE reads 3, 3 is taken', () => {
    const value = getOneReg(vcpu, PFR1);
    expect(withMte(value, 3n)).toBe(value);
    expect(setOneReg(vcpu, PFR1, BigInt(value))).toBe(0);
    expect(getOneReg(vcpu, PFR1)).toBe(value);
  });

  test.each([0n, 1n, 2n, 4n])('A38 to A40 SET ID_AA64PFR1_EL1 MTE=%i: EINVAL', (mte) => {
    const value = getOneReg(vcpu, PFR1);
    expect(setOneReg(vcpu, PFR1, withMte(value, mte))).toBe(refused(Errno.EINVAL));
    expect(getOneReg(vcpu, PFR1)).toBe(value);
  });

  test.each(MTE_IDS.slice(0, 4))('A42 to A49 %s: unknown at reset, takes ~0', (_, id) => {
    expect(getOneReg(vcpu, id)).toBe(UNKNOWN_RESET);
    expect(setOneReg(vcpu, id, ALL_ONES)).toBe(0);
    expect(getOneReg(vcpu, id)).toBe(ALL_ONES);
  });

  it('A50 and A51 GMID_EL1: ENOENT', () => {
    expect(getOneReg(vcpu, idOf('GMID_EL1'))).toBe(refused(Errno.ENOENT));
    expect(setOneReg(vcpu, idOf('GMID_EL1'), ALL_ONES)).toBe(refused(Errno.ENOENT));
  });

  it('A52 KVM_GET_REG_LIST: 263 registers, four of MTE', () => {
    const ids = listOf(vcpu);
    expect(ids.length).toBe(263);
    expect(MTE_IDS.filter(([, id]) => ids.includes(id)).length).toBe(4);
  });

  it('KVM_GET_REG_LIST with too little room: E2BIG, n is the number, nothing is filled in', () => {
    const list: uapi.KvmRegList = { n: 262, reg: [7n] };
    expect(getRegList(vcpu, list)).toBe(refused(Errno.E2BIG));
    expect(list).toEqual({ n: 263, reg: [7n] });
    expect(getRegList(vcpu, list)).toBe(0);
    expect(list.reg.length).toBe(263);
  });
});

// -------------------------------------------------------------------------------- ids and refusals

describe('ids', () => {
  const vcpu = startVcpu({ mte: true });
  const core = uapi.KVM_REG_ARM64 | uapi.KVM_REG_ARM_CORE;

  test.each<[string, bigint, Errno]>([
    ['of x86', 0x2030_0000_0000_0000n, Errno.EINVAL],
    ['with a bit in 51:32', uapi.kvmRegX(0) | (1n << 32n), Errno.EINVAL],
    ['X0 as 32 bits', core | uapi.KVM_REG_SIZE_U32, Errno.EINVAL],
    ['the upper half of X0', core | uapi.KVM_REG_SIZE_U32 | 1n, Errno.EINVAL],
    ['between SPSR and V0', core | uapi.KVM_REG_SIZE_U64 | 0x52n, Errno.EINVAL],
    ['V0 as 64 bits', core | uapi.KVM_REG_SIZE_U64 | 0x54n, Errno.EINVAL],
    ['the reserved word after FPCR', core | uapi.KVM_REG_SIZE_U32 | 0xd6n, Errno.EINVAL],
    ['the last reserved word', core | uapi.KVM_REG_SIZE_U32 | 0xd7n, Errno.ENOENT],
    ['beyond struct kvm_regs', core | uapi.KVM_REG_SIZE_U64 | 0xd8n, Errno.ENOENT],
    ['core, with bit 28', uapi.kvmRegX(0) | (1n << 28n), Errno.ENOENT],
    ['no such firmware register', uapi.KVM_REG_ARM_FW_REG(4), Errno.ENOENT],
    ['no such bitmap', uapi.KVM_REG_ARM_FW_FEAT_BMAP_REG(3), Errno.ENOENT],
    [
      'PSCI version as 32 bits',
      uapi.KVM_REG_ARM_PSCI_VERSION ^ 0x0010_0000_0000_0000n,
      Errno.ENOENT,
    ],
    ['SCTLR_EL1 as 32 bits', idOf('SCTLR_EL1') ^ 0x0010_0000_0000_0000n, Errno.ENOENT],
    ['SCTLR_EL1 with bit 28', idOf('SCTLR_EL1') | (1n << 28n), Errno.ENOENT],
    ['ELR_EL1 as a system register', idOf('ELR_EL1'), Errno.ENOENT],
    ['ICC_PMR_EL1', idOf('ICC_PMR_EL1'), Errno.ENOENT],
    ['CNTFRQ_EL0', idOf('CNTFRQ_EL0'), Errno.ENOENT],
    ['CCSIDR 14', uapi.kvmRegCcsidr(14), Errno.ENOENT],
    ['CCSIDR as 64 bits', uapi.kvmRegCcsidr(0) ^ 0x0010_0000_0000_0000n, Errno.ENOENT],
    ['another demultiplexed register', uapi.kvmRegCcsidr(0) | 0x100n, Errno.ENOENT],
    ['SVE Z0', 0x6080_0000_0015_0000n, Errno.ENOENT],
    ['SVE P0', 0x6050_0000_0015_0400n, Errno.ENOENT],
    ['SVE FFR', 0x6050_0000_0015_0600n, Errno.ENOENT],
    ['SVE vector lengths', uapi.KVM_REG_ARM64_SVE_VLS, Errno.ENOENT],
    ['no such SVE register', 0x6050_0000_0015_0800n, Errno.EINVAL],
    ['an unknown kind', uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | 0x0017_0000n, Errno.ENOENT],
  ])('%s: refused', (_, id, errno) => {
    expect(getOneReg(vcpu, id)).toBe(refused(errno));
    expect(setOneReg(vcpu, id, 0n)).toBe(refused(errno));
  });

  it('any 64 bits: read exactly when listed', () => {
    const listed = new Set(listOf(vcpu));
    const ids = [...listed];
    const near = fc
      .tuple(fc.constantFrom(...ids), fc.integer({ min: 0, max: 63 }))
      .map(([id, bit]) => id ^ (1n << BigInt(bit)));
    fc.assert(
      fc.property(fc.oneof(near, fc.bigInt({ min: 0n, max: ALL_ONES })), (id) => {
        expect(isRefusal(getOneReg(vcpu, id))).toBe(!listed.has(id));
      }),
      { numRuns: 2000 },
    );
  });
});

describe('core registers', () => {
  const vcpu = startVcpu({ mte: false });

  it('reset: EL1h with interrupts masked, all else zero', () => {
    expect(getOneReg(vcpu, uapi.KVM_REG_CORE_PSTATE)).toBe(0x3c5n);
    expect(getOneReg(vcpu, uapi.kvmRegX(30))).toBe(0n);
  });

  it('each id: its own storage', () => {
    const ids = listOf(vcpu).filter((id) => ((id >> 16n) & 0xfffn) === 0x10n);
    const written = ids.filter((id) => id !== uapi.KVM_REG_CORE_PSTATE);
    written.forEach((id, index) => {
      expect(setOneReg(vcpu, id, BigInt(1000 + index))).toBe(0);
    });
    expect(written.map((id) => getOneReg(vcpu, id))).toEqual(
      written.map((_, index) => BigInt(1000 + index)),
    );
    expect(vcpu.readSp(0)).toBe(getOneReg(vcpu, uapi.KVM_REG_CORE_SP));
    expect(vcpu.readSp(1)).toBe(getOneReg(vcpu, uapi.KVM_REG_CORE_SP_EL1));
    expect(vcpu.readSlot(slotOf.ELR_EL1)).toBe(getOneReg(vcpu, uapi.KVM_REG_CORE_ELR_EL1));
    expect(vcpu.readSlot(slotOf.SPSR_fiq)).toBe(getOneReg(vcpu, uapi.kvmRegSpsr(4)));
  });

  test.each([0x0n, 0x4n, 0x5n, 0xf000_03c5n])('PSTATE %i: taken', (value) => {
    expect(setOneReg(vcpu, uapi.KVM_REG_CORE_PSTATE, value)).toBe(0);
    expect(getOneReg(vcpu, uapi.KVM_REG_CORE_PSTATE)).toBe(value);
  });

  test.each([0x8n, 0x9n, 0xcn, 0xdn, 0x10n, 0x13n, 0x1fn, 0x1n, 0x7n])(
    'PSTATE with mode %i (EL2, EL3, AArch32 or reserved): EINVAL',
    (mode) => {
      const before = getOneReg(vcpu, uapi.KVM_REG_CORE_PSTATE);
      expect(setOneReg(vcpu, uapi.KVM_REG_CORE_PSTATE, mode)).toBe(refused(Errno.EINVAL));
      expect(getOneReg(vcpu, uapi.KVM_REG_CORE_PSTATE)).toBe(before);
    },
  );

  it('values wider than the register: cut', () => {
    expect(setOneReg(vcpu, uapi.KVM_REG_CORE_FPCR, 0x1_0300_0000n)).toBe(0);
    expect(getOneReg(vcpu, uapi.KVM_REG_CORE_FPCR)).toBe(0x0300_0000n);
  });
});

describe('timer registers', () => {
  it('CVAL and CNT of the virtual timer: exchanged in the ids (quirk)', () => {
    expect(uapi.KVM_REG_ARM_TIMER_CVAL).toBe(idOf('CNTVCT_EL0'));
    expect(uapi.KVM_REG_ARM_TIMER_CNT).toBe(idOf('CNTV_CVAL_EL0'));
    expect(uapi.KVM_REG_ARM_PTIMER_CVAL).toBe(idOf('CNTP_CVAL_EL0'));
    expect(uapi.KVM_REG_ARM_PTIMER_CNT).toBe(idOf('CNTPCT_EL0'));
  });

  it('read and written through the timers; TVAL has no id', () => {
    const vcpu = startVcpu({ mte: false });
    expect(getOneReg(vcpu, uapi.KVM_REG_ARM_TIMER_CTL)).toBe(4n);
    expect(setOneReg(vcpu, uapi.KVM_REG_ARM_PTIMER_CVAL, 77n)).toBe(0);
    expect(getOneReg(vcpu, uapi.KVM_REG_ARM_PTIMER_CVAL)).toBe(77n);
    expect(getOneReg(vcpu, idOf('CNTV_TVAL_EL0'))).toBe(refused(Errno.ENOENT));
  });
});

describe('ID registers', () => {
  let vcpu: TestVcpu;
  beforeEach(() => {
    vcpu = startVcpu({ mte: true });
  });

  /** Field of four bits at `low` replaced. */
  const change = (name: SystemRegisterName, low: number, value: number): number => {
    const now = BigInt(getOneReg(vcpu, idOf(name)));
    const next = (now & ~(0xfn << BigInt(low))) | (BigInt(value) << BigInt(low));
    return setOneReg(vcpu, idOf(name), next);
  };

  test.each<[SystemRegisterName, string, number, number]>([
    ['ID_AA64ISAR0_EL1', 'Atomic: no LSE', 20, 0],
    ['ID_AA64ISAR0_EL1', 'AES without PMULL', 4, 1],
    ['ID_AA64ISAR1_EL1', 'LRCPC level 1', 20, 1],
    ['ID_AA64PFR0_EL1', 'CSV2 not claimed', 56, 0],
    ['ID_AA64PFR0_EL1', 'no GIC system registers', 24, 0],
    ['ID_AA64MMFR0_EL1', 'PARange 40 bits', 0, 2],
    ['ID_AA64MMFR0_EL1', 'no 64 KiB translation granule (-1)', 24, 0xf],
    ['ID_AA64MMFR0_EL1', 'no 16 KiB translation granule', 20, 0],
    ['ID_AA64MMFR1_EL1', 'no dirty state', 0, 1],
    ['ID_AA64MMFR1_EL1', 'SpecSEI: may generate SErrors', 24, 1],
    ['ID_AA64DFR0_EL1', 'three watchpoints', 20, 2],
    ['ID_AA64DFR0_EL1', 'no double lock (-1)', 36, 0xf],
    ['CTR_EL0', 'smaller lines', 16, 3],
  ])('%s %s: taken, and read back', (name, _, low, value) => {
    expect(change(name, low, value)).toBe(0);
    const now = BigInt(getOneReg(vcpu, idOf(name)));
    expect((now >> BigInt(low)) & 0xfn).toBe(BigInt(value));
  });

  test.each<[SystemRegisterName, string, number, number]>([
    ['ID_AA64ISAR0_EL1', 'RNDR, which the host lacks', 60, 1],
    ['ID_AA64ISAR0_EL1', 'SHA512', 12, 2],
    ['ID_AA64ISAR0_EL1', 'bits 27:24, no field', 24, 1],
    ['ID_AA64ISAR1_EL1', 'APA', 4, 1],
    ['ID_AA64PFR0_EL1', 'AArch32 at EL0', 0, 2],
    ['ID_AA64PFR0_EL1', 'no FP, which cannot be hidden', 16, 0xf],
    ['ID_AA64PFR0_EL1', 'SVE', 32, 1],
    ['ID_AA64PFR0_EL1', 'RAS', 28, 1],
    ['ID_AA64MMFR0_EL1', 'PARange 52 bits', 0, 6],
    ['ID_AA64MMFR0_EL1', 'other ASID bits', 4, 0],
    ['ID_AA64MMFR0_EL1', '4 KiB with 52 bits', 28, 1],
    ['ID_AA64MMFR1_EL1', 'VMIDBits', 4, 2],
    ['ID_AA64MMFR2_EL1', 'FWB', 40, 1],
    ['ID_AA64MMFR3_EL1', 'TCRX', 0, 1],
    ['ID_AA64DFR0_EL1', 'DebugVer below Armv8', 0, 5],
    ['ID_AA64DFR0_EL1', 'DebugVer above', 0, 8],
    ['ID_AA64DFR0_EL1', 'other breakpoints', 12, 3],
    ['ID_AA64DFR0_EL1', 'a PMU', 8, 1],
    ['ID_AA64ZFR0_EL1', 'anything', 0, 1],
    ['S3_0_C0_C3_3', 'anything', 0, 1],
    ['ID_AFR0_EL1', 'anything', 0, 1],
    ['CTR_EL0', 'larger lines', 16, 5],
    ['CTR_EL0', 'other ERG', 20, 3],
  ])('%s %s: EINVAL, unchanged', (name, _, low, value) => {
    const before = getOneReg(vcpu, idOf(name));
    expect(change(name, low, value)).toBe(refused(Errno.EINVAL));
    expect(getOneReg(vcpu, idOf(name))).toBe(before);
  });

  it('ID_AA64DFR0_EL1 with an IMPLEMENTATION DEFINED PMU: taken as none', () => {
    const before = getOneReg(vcpu, idOf('ID_AA64DFR0_EL1'));
    expect(change('ID_AA64DFR0_EL1', 8, 0xf)).toBe(0);
    expect(getOneReg(vcpu, idOf('ID_AA64DFR0_EL1'))).toBe(before);
  });

  it('CTR_EL0 without DIC and IDC: taken', () => {
    const ctr = BigInt(getOneReg(vcpu, idOf('CTR_EL0')));
    expect(setOneReg(vcpu, idOf('CTR_EL0'), ctr & ~(3n << 28n))).toBe(0);
  });

  it('AArch32 ID registers without AArch32: writes are ignored', () => {
    expect(change('ID_ISAR0_EL1', 0, 7)).toBe(0);
    expect(getOneReg(vcpu, idOf('ID_ISAR0_EL1'))).toBe(0n);
  });

  it('second vCPU: shares them, and its KVM_ARM_VCPU_INIT does not reset them', () => {
    change('ID_AA64ISAR0_EL1', 20, 0);
    const lowered = getOneReg(vcpu, idOf('ID_AA64ISAR0_EL1'));
    const second = createVcpu(vcpu.vm, PSCI, 1);
    resetVcpuRegisters(second);
    second.initialized = true;
    expect(getOneReg(second, idOf('ID_AA64ISAR0_EL1'))).toBe(lowered);
  });

  it('after the VM has run: the same value is taken, another is EBUSY', () => {
    vcpu.vm.hasRunOnce = true;
    const name = 'ID_AA64ISAR0_EL1';
    expect(setOneReg(vcpu, idOf(name), BigInt(getOneReg(vcpu, idOf(name))))).toBe(0);
    expect(change(name, 20, 0)).toBe(refused(Errno.EBUSY));
    expect(change(name, 60, 1)).toBe(refused(Errno.EBUSY));
  });

  it('first run: the guest reads what the VMM chose; without a GICv3 no GIC', () => {
    change('ID_AA64ISAR0_EL1', 20, 0);
    finalizeVcpuRegisters(vcpu, { gicV3: true });
    expect(vcpu.readSlot(slotOf.ID_AA64ISAR0_EL1)).toBe(getOneReg(vcpu, idOf('ID_AA64ISAR0_EL1')));
    expect((vcpu.readSlot(slotOf.ID_AA64PFR0_EL1) >> 24n) & 0xfn).toBe(1n);
    finalizeVcpuRegisters(vcpu, { gicV3: false });
    expect((vcpu.readSlot(slotOf.ID_AA64PFR0_EL1) >> 24n) & 0xfn).toBe(0n);
    expect((BigInt(getOneReg(vcpu, idOf('ID_AA64PFR0_EL1'))) >> 24n) & 0xfn).toBe(0n);
  });
});

describe('other system registers', () => {
  let vcpu: TestVcpu;
  beforeEach(() => {
    vcpu = startVcpu({ mte: true });
  });

  test.each<SystemRegisterName>(['MIDR_EL1', 'REVIDR_EL1', 'AIDR_EL1'])(
    '%s: invariant, another value is EINVAL',
    (name) => {
      const value = BigInt(getOneReg(vcpu, idOf(name)));
      expect(setOneReg(vcpu, idOf(name), value)).toBe(0);
      expect(setOneReg(vcpu, idOf(name), value + 1n)).toBe(refused(Errno.EINVAL));
    },
  );

  test.each<SystemRegisterName>([
    'SCTLR_EL1',
    'MPIDR_EL1',
    'TCR2_EL1',
    'ACTLR_EL1',
    'DBGBVR15_EL1',
  ])('%s: keeps any 64 bits', (name) => {
    expect(setOneReg(vcpu, idOf(name), ALL_ONES)).toBe(0);
    expect(getOneReg(vcpu, idOf(name))).toBe(ALL_ONES);
  });

  it('OSLSR_EL1: only OSLK may change', () => {
    expect(setOneReg(vcpu, idOf('OSLSR_EL1'), 0xan)).toBe(0);
    expect(getOneReg(vcpu, idOf('OSLSR_EL1'))).toBe(0xan);
    expect(setOneReg(vcpu, idOf('OSLSR_EL1'), 0x0n)).toBe(refused(Errno.EINVAL));
    expect(setOneReg(vcpu, idOf('OSLSR_EL1'), 0x9n)).toBe(refused(Errno.EINVAL));
  });

  it('CLIDR_EL1: RES0 bits are EINVAL', () => {
    expect(setOneReg(vcpu, idOf('CLIDR_EL1'), 0x0a20_0023n)).toBe(0);
    expect(setOneReg(vcpu, idOf('CLIDR_EL1'), 1n << 47n)).toBe(refused(Errno.EINVAL));
    expect(getOneReg(vcpu, idOf('CLIDR_EL1'))).toBe(0x0a20_0023n);
  });

  it('CCSIDR: a larger line is taken, each on its own; a smaller one is EINVAL', () => {
    expect(setOneReg(vcpu, uapi.kvmRegCcsidr(2), 0x700f_e07an)).toBe(0);
    expect(getOneReg(vcpu, uapi.kvmRegCcsidr(2))).toBe(0x700f_e07an);
    expect(getOneReg(vcpu, uapi.kvmRegCcsidr(3))).toBe(2n);
    expect(setOneReg(vcpu, uapi.kvmRegCcsidr(2), 0x700f_e079n)).toBe(refused(Errno.EINVAL));
  });

  test.each([
    [0, 0x8000_0000n],
    [5, 0x8000_0005n],
    [16, 0x8000_0100n],
    [0x1fff, 0x8001_ff0fn],
  ])('MPIDR_EL1 of vCPU %i: sixteen to a cluster', (vcpuId, expected) => {
    expect(getOneReg(startVcpu({ mte: false, vcpuId }), idOf('MPIDR_EL1'))).toBe(expected);
  });

  it('second KVM_ARM_VCPU_INIT: resets all but MPIDR_EL1, CLIDR_EL1, CCSIDR and ID registers', () => {
    const kept = [idOf('MPIDR_EL1'), idOf('CLIDR_EL1')];
    for (const id of [...kept, idOf('TPIDR_EL1'), uapi.kvmRegX(3)]) setOneReg(vcpu, id, 0x77n);
    setOneReg(vcpu, uapi.kvmRegCcsidr(0), 0x77n);
    resetVcpuRegisters(vcpu);
    for (const id of kept) expect(getOneReg(vcpu, id)).toBe(0x77n);
    expect(getOneReg(vcpu, uapi.kvmRegCcsidr(0))).toBe(0x77n);
    expect(getOneReg(vcpu, idOf('TPIDR_EL1'))).toBe(UNKNOWN_RESET);
    expect(getOneReg(vcpu, uapi.kvmRegX(3))).toBe(0n);
  });
});

describe('firmware registers', () => {
  it('PSCI version: 0.1 without the feature, 1.1 with it, chosen for the whole VM', () => {
    const old = startVcpu({ mte: false, features: 0 });
    const vcpu = startVcpu({ mte: false });
    const id = uapi.KVM_REG_ARM_PSCI_VERSION;
    expect(getOneReg(old, id)).toBe(BigInt(uapi.KVM_ARM_PSCI_0_1));
    expect(getOneReg(vcpu, id)).toBe(BigInt(uapi.KVM_ARM_PSCI_1_1));
    expect(setOneReg(vcpu, id, BigInt(uapi.KVM_ARM_PSCI_1_0))).toBe(0);
    expect(getOneReg(createInitialised(vcpu.vm), id)).toBe(BigInt(uapi.KVM_ARM_PSCI_1_0));
    expect(setOneReg(vcpu, id, BigInt(uapi.KVM_ARM_PSCI_0_1))).toBe(refused(Errno.EINVAL));
    expect(setOneReg(old, id, BigInt(uapi.KVM_ARM_PSCI_1_1))).toBe(refused(Errno.EINVAL));
    expect(setOneReg(vcpu, id, 0x1_0002n)).toBe(refused(Errno.EINVAL));
  });

  const createInitialised = (vm: VmRegisters): TestVcpu => {
    const vcpu = createVcpu(vm, PSCI, 1);
    resetVcpuRegisters(vcpu);
    vcpu.initialized = true;
    return vcpu;
  };

  const one = uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1;
  const two = uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2;
  const three = uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3;

  test.each<[bigint, bigint, number]>([
    [one, 0n, 0],
    [one, 2n, 0],
    [one, 3n, -Errno.EINVAL],
    [one, 0x10n, -Errno.EINVAL],
    [two, 0n, 0],
    [two, 1n, 0],
    [two, 2n, 0],
    [two, 3n, 0],
    [two, 0x12n, 0],
    [two, 0x13n, -Errno.EINVAL],
    [two, 4n, -Errno.EINVAL],
    [two, 0x20n, -Errno.EINVAL],
    [three, 2n, 0],
    [three, 3n, -Errno.EINVAL],
  ])('workaround %i to %i: %i, and it reads as before', (id, value, result) => {
    const vcpu = startVcpu({ mte: false });
    const before = getOneReg(vcpu, id);
    expect(setOneReg(vcpu, id, value)).toBe(result);
    expect(getOneReg(vcpu, id)).toBe(before);
  });

  test.each([
    [uapi.KVM_REG_ARM_STD_BMAP, 1n],
    [uapi.KVM_REG_ARM_STD_HYP_BMAP, 1n],
    [uapi.KVM_REG_ARM_VENDOR_HYP_BMAP, 3n],
  ])(
    'bitmap %i: may lose bits and regain them, EINVAL for others, EBUSY after a run',
    (id, most) => {
      const vcpu = startVcpu({ mte: false });
      expect(getOneReg(vcpu, id)).toBe(most);
      expect(setOneReg(vcpu, id, 0n)).toBe(0);
      expect(getOneReg(vcpu, id)).toBe(0n);
      expect(setOneReg(vcpu, id, most + 1n)).toBe(refused(Errno.EINVAL));
      expect(setOneReg(vcpu, id, most)).toBe(0);
      vcpu.vm.hasRunOnce = true;
      expect(setOneReg(vcpu, id, most)).toBe(0);
      expect(setOneReg(vcpu, id, 0n)).toBe(refused(Errno.EBUSY));
      expect(getOneReg(vcpu, id)).toBe(most);
    },
  );
});
