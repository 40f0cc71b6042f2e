/**
 * KVM_RUN: what comes back and when. MMIO of every size, loads and stores that the syndrome cannot
 * describe, read-only slots, immediate_exit, and runs before KVM_ARM_VCPU_INIT.
 */
import { describe, expect, it } from 'vitest';
import { assembleProgram } from '../../src/arm/a64/program.ts';
import { hva, MIB, PAGE_SIZE } from '../../src/base/index.ts';
import { Errno, isRefusal, Prot } from '../../src/host/index.ts';
import {
  KVM_CAP_ARM_NISV_TO_USER,
  KVM_MEM_READONLY,
  KVM_REG_CORE_PC,
  kvmRegX,
} from '../../src/kvm/uapi.ts';
import type { Vcpu, VcpuExit } from '../../src/kvm/vcpu.ts';
import { answerText, CODE, DATA, GuestVm, NOWHERE, REPORT } from '../support/guest-vm.ts';

type MmioExit = Extract<VcpuExit, { kind: 'mmio' }>;

/** The next exit, which must be MMIO. */
function mmio(vcpu: Vcpu): MmioExit {
  const exit = vcpu.run();
  if (exit.kind !== 'mmio') throw new Error(`exit is ${exit.kind}`);
  return exit;
}

describe('before KVM_ARM_VCPU_INIT', () => {
  it('KVM_RUN: ENOEXEC, and nothing runs', () => {
    const { kvm, process } = new GuestVm({ vcpuMax: 2 });
    const vm = kvm.createVm(process);
    if (isRefusal(vm)) throw new Error('no VM');
    const vcpu = vm.createVcpu(0);
    if (isRefusal(vcpu)) throw new Error('no vCPU');
    expect(vcpu.run()).toEqual({ kind: 'error', errno: Errno.ENOEXEC });
    expect(vcpu.statistics.instructionCount).toBe(0);
  });
});

describe('MMIO', () => {
  const guest = new GuestVm();
  /** What the device gives; only the bytes asked for may be taken. */
  const DEVICE = 0x8182_8384_a5a6_a7a8n;
  const F = 0xffff_ffff_ffff_ffffn;

  const loads: readonly [string, number, bigint][] = [
    ['ldrb w0, [x1]', 1, 0xa8n],
    ['ldrsb w0, [x1]', 1, 0xffff_ffa8n],
    ['ldrsb x0, [x1]', 1, F ^ 0x57n],
    ['ldrh w0, [x1]', 2, 0xa7a8n],
    ['ldrsh w0, [x1]', 2, 0xffff_a7a8n],
    ['ldrsh x0, [x1]', 2, F ^ 0x5857n],
    ['ldr w0, [x1]', 4, 0xa5a6_a7a8n],
    ['ldrsw x0, [x1]', 4, 0xffff_ffff_a5a6_a7a8n],
    ['ldr x0, [x1]', 8, DEVICE],
    ['ldur w0, [x1, #0]', 4, 0xa5a6_a7a8n],
    ['ldr x0, [x1, x3]', 8, DEVICE],
    ['ldr w0, [x1, w3, uxtw #2]', 4, 0xa5a6_a7a8n],
    ['ldarb w0, [x1]', 1, 0xa8n],
    ['ldar w0, [x1]', 4, 0xa5a6_a7a8n],
    ['ldar x0, [x1]', 8, DEVICE],
    ['ldaprh w0, [x1]', 2, 0xa7a8n],
    ['ldapr x0, [x1]', 8, DEVICE],
    ['ldapursh x0, [x1, #0]', 2, F ^ 0x5857n],
    ['ldr xzr, [x1]', 8, 0x77n],
  ];
  it.each(loads)('%s: %i bytes, extended as the instruction says', (instruction, size, value) => {
    const vcpu = guest.begin(
      `ldr x1, =${REPORT + 0x100}\n mov x3, #0\n mov x0, #0x77\n ${instruction}`,
    );
    const exit = mmio(vcpu);
    expect({ ...exit }).toEqual({
      kind: 'mmio',
      ipa: REPORT + 0x100,
      isWrite: false,
      size,
      data: 0n,
    });
    exit.data = DEVICE;
    expect(answerText(guest.answer())).toBe(answerText({ kind: 'value', value }));
  });

  const stores: readonly [string, number, bigint][] = [
    ['strb w0, [x1]', 1, 0xa8n],
    ['strh w0, [x1]', 2, 0xa7a8n],
    ['str w0, [x1]', 4, 0xa5a6_a7a8n],
    ['str x0, [x1]', 8, DEVICE],
    ['stur w0, [x1]', 4, 0xa5a6_a7a8n],
    ['str x0, [x1, x3]', 8, DEVICE],
    ['stlrb w0, [x1]', 1, 0xa8n],
    ['stlr x0, [x1]', 8, DEVICE],
    ['stlurh w0, [x1]', 2, 0xa7a8n],
    ['str xzr, [x1]', 8, 0n],
  ];
  it.each(stores)('%s: %i bytes of the register', (instruction, size, data) => {
    const vcpu = guest.begin(`
      ldr x1, =${REPORT + 0x100}
      mov x3, #0
      ldr x0, =${DEVICE}
      ${instruction}`);
    const exit = mmio(vcpu);
    expect({ ...exit }).toEqual({ kind: 'mmio', ipa: REPORT + 0x100, isWrite: true, size, data });
    expect(guest.answer()).toEqual({ kind: 'value', value: DEVICE });
  });

  it('a literal load: as any other', () => {
    const { bytes } = assembleProgram(`ldr x0, ${CODE + 2 * MIB}`, {
      base: BigInt(CODE + 0x1f_fffc),
    });
    guest.process.memory.write(hva(guest.codeHva + 0x1f_fffc), bytes);
    const exit = mmio(guest.begin(`ldr x1, =${CODE + 0x1f_fffc}\n br x1`));
    expect({ ...exit }).toEqual({
      kind: 'mmio',
      ipa: CODE + 2 * MIB,
      isWrite: false,
      size: 8,
      data: 0n,
    });
  });

  it('a load: its register and the PC change at the next run, not at the exit', () => {
    const vcpu = guest.begin(`ldr x1, =${NOWHERE}\n mov x0, #7\n ldr x0, [x1, #16]`);
    const exit = mmio(vcpu);
    expect(exit.ipa).toBe(NOWHERE + 16);
    const pc = guest.getCore(KVM_REG_CORE_PC);
    expect(guest.getCore(kvmRegX(0))).toBe(7n);
    exit.data = 99n;
    vcpu.immediateExit = true;
    expect(vcpu.run().kind).toBe('interrupted');
    expect(guest.getCore(kvmRegX(0))).toBe(99n);
    expect(guest.getCore(KVM_REG_CORE_PC)).toBe(pc + 4n);
    expect(vcpu.run().kind).toBe('interrupted');
    expect(guest.getCore(KVM_REG_CORE_PC)).toBe(pc + 4n);
    vcpu.immediateExit = false;
    expect(guest.answer()).toEqual({ kind: 'value', value: 99n });
  });

  it('a PC that the VMM sets at an MMIO exit is passed over too', () => {
    const vcpu = guest.begin(`ldr x1, =${NOWHERE}\n str x0, [x1]\n b .`);
    mmio(vcpu);
    const at = guest.load('mov x0, #1\n mov x0, #2');
    vcpu.setOneReg(KVM_REG_CORE_PC, BigInt(at));
    // The first instruction, which sets x28, is not run.
    expect(guest.answer()).toEqual({ kind: 'value', value: 2n });
  });

  it('registers set at a load’s exit: the load still wins', () => {
    const vcpu = guest.begin(`ldr x1, =${NOWHERE}\n ldr x0, [x1]`);
    const exit = mmio(vcpu);
    vcpu.setOneReg(kvmRegX(0), 1n);
    exit.data = 2n;
    expect(guest.answer()).toEqual({ kind: 'value', value: 2n });
  });
});

describe('accesses outside memory that the syndrome does not describe', () => {
  const instructions = [
    'ldp x2, x3, [x1]',
    'stp x2, x3, [x1]',
    'ldr x2, [x1], #8',
    'str x2, [x1, #8]!',
    'ldxr x2, [x1]',
    'stxr w2, x3, [x1]',
    'ldadd x2, x3, [x1]',
    'swp x2, x3, [x1]',
    'cas x2, x3, [x1]',
    'ldr q2, [x1]',
    'ld1 {v2.16b}, [x1]',
    'stg x1, [x1]',
    'ldg x2, [x1]',
    'dc zva, x1',
  ];
  const plain = new GuestVm();
  const asking = new GuestVm();
  for (const guest of [plain, asking]) guest.setRegister('CPACR_EL1', 3n << 20n);
  expect(asking.vm.enableCap({ cap: KVM_CAP_ARM_NISV_TO_USER })).toBe(0);

  it.each(instructions)('%s: ENOSYS, and again', (instruction) => {
    const vcpu = plain.begin(`ldr x1, =${NOWHERE}\n ${instruction}`);
    expect(vcpu.run()).toEqual({ kind: 'error', errno: Errno.ENOSYS });
    const pc = vcpu.readPc();
    expect(vcpu.run()).toEqual({ kind: 'error', errno: Errno.ENOSYS });
    expect(vcpu.readPc()).toBe(pc);
  });

  it.each(instructions)(
    '%s: KVM_EXIT_ARM_NISV where asked for; the VMM moves the PC',
    (instruction) => {
      const vcpu = asking.begin(`ldr x1, =${NOWHERE}\n mov x0, #5\n ${instruction}`);
      const exit = vcpu.run();
      // WnR is 0 where a read would have failed too. The walk of a 40-bit space ends at level 1.
      const wnr = /^(st|dc)/.test(instruction) ? 1 << 6 : 0;
      const ipa = instruction.startsWith('str') ? NOWHERE + 8 : NOWHERE;
      expect(exit).toEqual({ kind: 'nisv', ipa, esrIss: wnr | 0b000101 });
      vcpu.writePc(vcpu.readPc() + 4n);
      expect(asking.answer()).toEqual({ kind: 'value', value: 5n });
    },
  );
});

describe('a read-only slot', () => {
  const guest = new GuestVm();
  const memory = guest.addSlot({ slotFlags: KVM_MEM_READONLY });
  guest.process.memory.writeU64(memory, 0x1234n);

  it('is read, and executed from', () => {
    expect(guest.value(`ldr x1, =${DATA}\n ldr x0, [x1]`)).toBe(0x1234n);
    guest.process.memory.writeU32(hva(memory + 0x100), 0xd65f03c0); // ret
    guest.setPage(0, BigInt(DATA) | 0x40000000000703n);
    const source = `ldr x1, =${0x1_c000_0100}\n mov x0, #3\n blr x1`;
    expect(guest.value(source)).toBe(3n);
  });

  it.each([false, true])(
    'a store exits as MMIO and changes nothing; read before: %s',
    (touched) => {
      const at = DATA + (touched ? 0 : PAGE_SIZE);
      const vcpu = guest.begin(`ldr x1, =${at}\n mov x0, #1\n str w0, [x1, #4]\n ldr w0, [x1, #4]`);
      expect({ ...mmio(vcpu) }).toEqual({
        kind: 'mmio',
        ipa: at + 4,
        isWrite: true,
        size: 4,
        data: 1n,
      });
      expect(guest.answer()).toEqual({ kind: 'value', value: 0n });
    },
  );

  it('a store without syndrome: ENOSYS', () => {
    const vcpu = guest.begin(`ldr x1, =${DATA}\n stp x0, x0, [x1]`);
    expect(vcpu.run()).toEqual({ kind: 'error', errno: Errno.ENOSYS });
  });
});

describe('the length of a run', () => {
  const guest = new GuestVm();

  it('ends about where its budget does, and the next one goes on there', () => {
    const vcpu = guest.begin('mov x0, #0\n1: add x0, x0, #1\n cmp x0, #1000\n b.ne 1b');
    const before = vcpu.statistics.instructionCount;
    expect(vcpu.run(500).kind).toBe('preempted');
    const after = vcpu.statistics.instructionCount - before;
    expect(after).toBeGreaterThanOrEqual(500);
    expect(after).toBeLessThan(520);
    expect(guest.answer(vcpu)).toEqual({ kind: 'value', value: 1000n });
    expect(vcpu.statistics.instructionCount - before).toBe(3002);
  });

  it('immediate_exit: EINTR, nothing is executed', () => {
    const vcpu = guest.begin('mov x0, #1');
    const before = vcpu.statistics.instructionCount;
    vcpu.immediateExit = true;
    expect(vcpu.run()).toEqual({ kind: 'interrupted' });
    vcpu.immediateExit = false;
    expect(vcpu.statistics.instructionCount).toBe(before);
    expect(vcpu.readPc()).toBe(BigInt(CODE));
    expect(guest.answer(vcpu)).toEqual({ kind: 'value', value: 1n });
  });

  it('KVM_ARM_VCPU_INIT again: the reset state, and an MMIO exit left open is forgotten', () => {
    const vcpu = guest.begin(`ldr x1, =${NOWHERE}\n ldr x0, [x1]`);
    mmio(vcpu).data = 5n;
    guest.initVcpu(vcpu);
    expect([vcpu.readPc(), vcpu.readX(0), vcpu.readPstate()]).toEqual([0n, 0n, 0x3c5n]);
    expect(guest.value('mov x0, #6')).toBe(6n);
  });
});

describe('memory that the VMM’s process cannot give', () => {
  it('PROT_NONE: EFAULT; after mprotect the same instruction passes', () => {
    const guest = new GuestVm();
    const memory = guest.addSlot({ prot: Prot.none });
    const vcpu = guest.begin(`ldr x1, =${DATA}\n ldr x0, [x1]`);
    expect(vcpu.run()).toEqual({ kind: 'error', errno: Errno.EFAULT });
    guest.process.mprotect(memory, PAGE_SIZE, Prot.read | Prot.write);
    guest.process.memory.writeU64(memory, 3n);
    expect(guest.answer(vcpu)).toEqual({ kind: 'value', value: 3n });
  });

  it('the host is out of memory: EFAULT; with memory again the guest goes on', () => {
    const guest = new GuestVm({ ramBytes: 12 * MIB });
    const hoard = guest.map({ length: 2 * MIB });
    expect(guest.process.memory.fill(hoard, 1, 2 * MIB)).toBe(0);
    guest.addSlot({ length: 16 * MIB });
    const vcpu = guest.begin(`
      ldr x1, =${DATA}
    1: strb w2, [x1]
      add x1, x1, #1, lsl #12
      b 1b`);
    expect(vcpu.run()).toEqual({ kind: 'error', errno: Errno.EFAULT });
    const reached = Number(vcpu.readX(1));
    expect(reached).toBeGreaterThan(DATA);
    expect(vcpu.run()).toEqual({ kind: 'error', errno: Errno.EFAULT });
    expect(Number(vcpu.readX(1))).toBe(reached);
    guest.process.munmap(hoard, 2 * MIB);
    vcpu.run();
    expect(Number(vcpu.readX(1))).toBeGreaterThan(reached);
  });
});
