/**
 * A VM with real vCPUs for tests of KVM: guest programs in our assembly run through the engine, the
 * MMU and every stage 2 fault. Its stage 1 is prepared here, with MMU, caches and tags switched on
 * through KVM_SET_ONE_REG. A program ends by storing x0 to a report address without memory, or in
 * an exception; either exits as MMIO. The VMM's side is the host process `process`.
 *
 *     VA 0000_0000   1 GiB block    Device, to the report addresses (and a VGIC's frames)
 *        4000_0000   1 GiB block    Tagged; IPA the same: programs, vectors, tables, stack
 *        8000_0000   1 GiB block    Tagged; IPA the same: the slots of a test
 *        c000_0000   1 GiB block    IPA 8000_0000, Normal but not Tagged
 *      1_0000_0000   1 GiB block    Tagged; IPA the same, where a test has no slot
 *      1_4000_0000   1 GiB block    IPA 4000_0000, executable and read-only at EL0, not global
 *      1_8000_0000   1 GiB block    IPA 8000_0000, Tagged, writable at EL0, not global
 *      1_c000_0000   level 3 table  empty until `setPage`
 *
 * An exception handler changes x27; x28 points to the report address.
 */
import { assembleProgram } from '../../src/arm/a64/program.ts';
import { type SystemRegisterName, systemRegister } from '../../src/arm/sysreg/index.ts';
import { assert, type Hva, hva, type Ipa, ipa, MIB, PAGE_SIZE, pa } from '../../src/base/index.ts';
import {
  type AddressSpace,
  errnoName,
  Host,
  type HostCpu,
  type HostPolicy,
  isRefusal,
  linux,
  MapFlag,
  type MmapRequest,
  Prot,
} from '../../src/host/index.ts';
import type { MachineClock } from '../../src/kvm/clock.ts';
import { Kvm } from '../../src/kvm/kvm.ts';
import type { KvmVm } from '../../src/kvm/kvm-vm.ts';
import { type KvmPolicy, linux612 } from '../../src/kvm/policy.ts';
import * as uapi from '../../src/kvm/uapi.ts';
import type { Vcpu, VcpuExit } from '../../src/kvm/vcpu.ts';
import {
  dramOnly,
  type NoTagsBehaviour,
  PhysicalMemory,
  type Zone,
} from '../../src/machine/memory.ts';

/** Addresses of the guest; see above. */
export const REPORT = 0x0900_0000;
export const EXCEPTION = 0x0900_1000;
export const GIC_DISTRIBUTOR = 0x0800_0000;
export const GIC_REDISTRIBUTORS = 0x080a_0000;
export const CODE = 0x4000_0000;
export const DATA = 0x8000_0000;
export const UNTAGGED = 0xc000_0000;
export const NOWHERE = 0x1_0000_0000;
export const USER_CODE = 0x1_4000_0000;
export const USER_DATA = 0x1_8000_0000;
export const PAGES = 0x1_c000_0000;

/** Places in the code slot, by offset; each vCPU's programs have room of their own. */
const PROGRAM_BYTES = 0x4000;
const VECTORS = 0x2_0000;
const STACKS = 0x3_0000;
const TABLES = 0x4_0000;
const CODE_SLOT_BYTES = 2 * MIB;
const CODE_SLOT = 100;

/** AttrIndx of MAIR_EL1, as descriptor bits. */
export const Attr = { tagged: 0n, device: 1n << 2n, normal: 2n << 2n, nonCacheable: 3n << 2n };
const MAIR = 0x44_ff_00_f0n;

/** Other bits of a leaf. */
export const Leaf = {
  block: 1n,
  page: 3n,
  el0: 1n << 6n,
  readOnly: 1n << 7n,
  inner: 3n << 8n,
  accessed: 1n << 10n,
  notGlobal: 1n << 11n,
  dbm: 1n << 51n,
  pxn: 1n << 53n,
  uxn: 1n << 54n,
} as const;

/** 39-bit VA from TTBR0, write-back inner shareable walks, TTBR1 off, TBI0; IPS follows PARange. */
const TCR = 25n | (1n << 8n) | (1n << 10n) | (3n << 12n) | (1n << 23n) | (1n << 37n) | (5n << 32n);
/** RES1 bits; M, C, I; nTWI and nTWE, DZE, UCI, UCT for EL0; ATA and ATA0. */
const SCTLR = 0x30d0_0800n | 0x1005n | (1n << 42n) | (1n << 43n) | 0x0405_c000n;

export interface GuestVmOptions {
  /** KVM_CAP_ARM_MTE; on where absent. */
  readonly mte?: boolean;
  readonly vcpuCount?: number;
  /** Room for vCPUs that the test makes itself. */
  readonly vcpuMax?: number;
  readonly vgic?: boolean;
  readonly policy?: KvmPolicy;
  readonly hostPolicy?: HostPolicy;
  readonly ramBytes?: number;
  /** 4 MiB more of memory without tags (`Host.pmemFiles`), and what a tag access to it does. */
  readonly pmem?: NoTagsBehaviour;
  readonly cpu?: Partial<HostCpu>;
  /** The machine's time; counted in instructions where absent. */
  readonly clock?: MachineClock;
  /** Rights of the process to the code slot; readable and writable where absent. */
  readonly codeProt?: number;
}

/** How a program ended. */
export type Answer =
  /** It reported x0. */
  | { readonly kind: 'value'; readonly value: bigint }
  /** It took an exception to EL1; `vector` is the offset in the table. */
  | {
      readonly kind: 'exception';
      readonly vector: number;
      readonly esr: bigint;
      readonly far: bigint;
      readonly elr: bigint;
      readonly spsr: bigint;
    }
  /** KVM_RUN returned for another reason. */
  | { readonly kind: 'exit'; readonly exit: VcpuExit };

/** What a test wants of a new slot; the rest is anonymous private memory, readable and writable. */
export interface SlotRequest extends Partial<MmapRequest> {
  readonly slot?: number;
  readonly at?: number;
  readonly slotFlags?: number;
}

export class GuestVm {
  readonly host: Host;
  readonly process: AddressSpace;
  readonly kvm: Kvm;
  readonly vm: KvmVm;
  readonly vcpus: readonly Vcpu[];
  /** Where the process has the code slot. */
  readonly codeHva: Hva;

  constructor(options: GuestVmOptions = {}) {
    const { mte = true, vcpuCount = 1, vgic = false, policy = linux612 } = options;
    const memory = new PhysicalMemory({
      zones: [...dramOnly(options.ramBytes ?? 32 * MIB), ...pmemZones(options.pmem)],
      vcpuMax: options.vcpuMax ?? vcpuCount,
      recordPageCount: 64,
    });
    const { hostPolicy = linux, cpu = {} } = options;
    this.host = new Host({ memory, policy: hostPolicy, cpu });
    this.process = this.host.createProcess();
    this.kvm = new Kvm({ host: this.host, ...(options.clock && { clock: options.clock }) });
    const vm = this.kvm.createVm(this.process, { policy });
    assert(!isRefusal(vm), 'a VM is created');
    this.vm = vm;
    if (mte) accept(vm.enableCap({ cap: uapi.KVM_CAP_ARM_MTE }));
    const { codeProt: prot = Prot.read | Prot.write } = options;
    this.codeHva = this.addSlot({ slot: CODE_SLOT, at: CODE, length: CODE_SLOT_BYTES, prot });
    this.vcpus = Array.from({ length: vcpuCount }, (_, id) => {
      const vcpu = vm.createVcpu(id);
      assert(!isRefusal(vcpu), 'a vCPU is created');
      return vcpu;
    });
    if (vgic) this.#createVgic();
    this.#writeTables();
    this.#writeVectors();
    for (const vcpu of this.vcpus) this.initVcpu(vcpu);
  }

  // ---- the VMM's side -------------------------------------------------------------------------

  /** mmap in the VMM's process; anonymous, private, readable and writable unless said. */
  map(request: Partial<MmapRequest>): Hva {
    const at = this.process.mmap({
      length: 16 * PAGE_SIZE,
      prot: Prot.read | Prot.write,
      flags: MapFlag.private | MapFlag.anonymous,
      ...request,
    });
    assert(!isRefusal(at), 'mmap succeeds');
    return at;
  }

  /** A slot over `userspaceAddr`: 0, or the refusal. */
  setSlot(
    userspaceAddr: number,
    memorySize: number,
    { slot = 0, at = DATA, slotFlags = 0 }: SlotRequest = {},
  ): number {
    const region = { slot, flags: slotFlags, guestPhysAddr: at, memorySize, userspaceAddr };
    return this.vm.setUserMemoryRegion(region);
  }

  /** A slot of new memory, 16 pages at DATA unless said; returns where the process has it. */
  addSlot(request: SlotRequest = {}): Hva {
    const { length = 16 * PAGE_SIZE } = request;
    const at = this.map({ ...request, length });
    accept(this.setSlot(at, length, request));
    return at;
  }

  /** The slot of `addSlot`, made when it is first asked for. */
  addSlotOnce(): void {
    if (this.vm.vm.slots.get(0) === undefined) this.addSlot();
  }

  /** Sets a system register of a vCPU: KVM_SET_ONE_REG. */
  setRegister(name: SystemRegisterName, value: bigint, vcpu = this.vcpus[0]!): void {
    accept(vcpu.setOneReg(uapi.kvmRegSystem(systemRegister(name).key), value));
  }

  getRegister(name: SystemRegisterName, vcpu = this.vcpus[0]!): bigint {
    const value = vcpu.getOneReg(uapi.kvmRegSystem(systemRegister(name).key));
    assert(!isRefusal(value), 'the register is listed');
    return value;
  }

  /** Changes a field of a system register. */
  setBits(name: SystemRegisterName, mask: bigint, value: bigint, vcpu = this.vcpus[0]!): void {
    this.setRegister(name, (this.getRegister(name, vcpu) & ~mask) | value, vcpu);
  }

  /**
   * The entry of the level 3 table for `page` pages behind PAGES; the guest's TLB stays as it is.
   */
  setPage(page: number, descriptor: bigint): void {
    accept(
      this.process.memory.writeU64(hva(this.codeHva + TABLES + 0x2000 + 8 * page), descriptor),
    );
  }

  getPage(page: number): bigint {
    const word = this.process.memory.readU64(hva(this.codeHva + TABLES + 0x2000 + 8 * page));
    assert(!isRefusal(word), 'the table is mapped');
    return word;
  }

  /** The entry of the level 2 table for the 2 MiB `block` behind PAGES. */
  setBlock(block: number, descriptor: bigint): void {
    accept(
      this.process.memory.writeU64(hva(this.codeHva + TABLES + 0x1000 + 8 * block), descriptor),
    );
  }

  // ---- vCPUs ----------------------------------------------------------------------------------

  /** KVM_ARM_VCPU_INIT and the registers of a guest whose MMU is on. */
  initVcpu(vcpu: Vcpu, poweredOff = false): void {
    const off = poweredOff ? 1 << uapi.KVM_ARM_VCPU_POWER_OFF : 0;
    const features = [(1 << uapi.KVM_ARM_VCPU_PSCI_0_2) | off];
    accept(vcpu.init({ ...this.vm.preferredTarget(), features }));
    this.setRegister('MAIR_EL1', MAIR, vcpu);
    this.setRegister('TCR_EL1', TCR, vcpu);
    this.setRegister('TTBR0_EL1', BigInt(CODE + TABLES), vcpu);
    this.setRegister('VBAR_EL1', BigInt(CODE + VECTORS), vcpu);
    this.setRegister('SCTLR_EL1', SCTLR, vcpu);
  }

  /** Puts `source` and the report behind it into the code slot; returns its address. */
  load(source: string, index = 0): number {
    const base = CODE + index * PROGRAM_BYTES;
    const text = `
      ldr x28, =${REPORT}
      ${source}
      str x0, [x28]
      b .
    `;
    const { bytes } = assembleProgram(text, { base: BigInt(base) });
    assert(bytes.length <= PROGRAM_BYTES, 'the program fits its place');
    accept(this.process.memory.write(hva(this.codeHva + index * PROGRAM_BYTES), bytes));
    return base;
  }

  /** Makes a vCPU begin `source`, at EL1 with its own stack, interrupts masked. */
  begin(source: string, index = 0): Vcpu {
    const vcpu = this.vcpus[index]!;
    const pc = this.load(source, index);
    // An MMIO exit ends with the next KVM_RUN, which moves the PC.
    vcpu.immediateExit = true;
    vcpu.run();
    vcpu.immediateExit = false;
    vcpu.writePstate(0x3c5n);
    vcpu.writeSp(1, BigInt(CODE + STACKS + 0x1000 * (index + 1)));
    vcpu.writePc(BigInt(pc));
    return vcpu;
  }

  /** The same at EL0, through the mappings for it. */
  beginAtEl0(source: string, index = 0): Vcpu {
    const vcpu = this.begin(source, index);
    vcpu.writePstate(0n);
    vcpu.writePc(BigInt(USER_CODE + index * PROGRAM_BYTES));
    return vcpu;
  }

  /** Runs `source` to its report. */
  run(source: string, index = 0): Answer {
    return this.answer(this.begin(source, index));
  }

  /** Runs `source` at EL0; it ends in an exception. */
  runAtEl0(source: string): Answer {
    return this.answer(this.beginAtEl0(source));
  }

  /** Runs on until a vCPU has something to say. */
  answer(vcpu: Vcpu = this.vcpus[0]!, budget = 100_000): Answer {
    const exit = vcpu.run(budget);
    if (exit.kind !== 'mmio' || !exit.isWrite) return { kind: 'exit', exit };
    if (exit.ipa === REPORT) return { kind: 'value', value: exit.data };
    if (exit.ipa < EXCEPTION || exit.ipa >= EXCEPTION + 0x800) return { kind: 'exit', exit };
    return {
      kind: 'exception',
      vector: exit.ipa - EXCEPTION,
      esr: this.getRegister('ESR_EL1', vcpu),
      far: this.getRegister('FAR_EL1', vcpu),
      elr: this.getCore(uapi.KVM_REG_CORE_ELR_EL1, vcpu),
      spsr: this.getCore(uapi.kvmRegSpsr(uapi.KVM_SPSR_EL1), vcpu),
    };
  }

  getCore(id: bigint, vcpu = this.vcpus[0]!): bigint {
    const value = vcpu.getOneReg(id);
    assert(!isRefusal(value), 'a core register can be read');
    return value;
  }

  /** The value that `source` reports; fails on any other end. */
  value(source: string, index = 0): bigint {
    return reported(this.run(source, index));
  }

  // ---- what the guest finds -------------------------------------------------------------------

  #createVgic(): void {
    const device = this.vm.createDevice(uapi.KVM_DEV_TYPE_ARM_VGIC_V3);
    assert(!isRefusal(device), 'a VGIC is created');
    const set = (group: number, attr: number, value: number): void =>
      accept(device.setAttr({ flags: 0, group, attr: BigInt(attr) }, BigInt(value)));
    const { KVM_DEV_ARM_VGIC_GRP_ADDR: address, KVM_DEV_ARM_VGIC_GRP_CTRL: control } = uapi;
    set(address, uapi.KVM_VGIC_V3_ADDR_TYPE_DIST, GIC_DISTRIBUTOR);
    set(address, uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST, GIC_REDISTRIBUTORS);
    set(control, uapi.KVM_DEV_ARM_VGIC_CTRL_INIT, 0);
  }

  #writeTables(): void {
    const { block, inner, accessed, pxn, uxn, el0, readOnly, notGlobal } = Leaf;
    const normal = block | inner | accessed;
    const tables = BigInt(CODE + TABLES);
    const level1 = [
      block | Attr.device | accessed | pxn | uxn,
      BigInt(CODE) | normal | Attr.tagged | uxn,
      BigInt(DATA) | normal | Attr.tagged | uxn,
      BigInt(DATA) | normal | Attr.normal | pxn | uxn,
      BigInt(NOWHERE) | normal | Attr.tagged | uxn,
      BigInt(CODE) | normal | Attr.tagged | el0 | readOnly | notGlobal | pxn,
      BigInt(DATA) | normal | Attr.tagged | el0 | notGlobal | pxn | uxn,
      (tables + 0x1000n) | 3n,
    ];
    level1.forEach((word, i) => {
      accept(this.process.memory.writeU64(hva(this.codeHva + TABLES + 8 * i), word));
    });
    this.setBlock(0, (tables + 0x2000n) | 3n);
  }

  #writeVectors(): void {
    const vectors = Array.from(
      { length: 16 },
      (_, i) => `
        .align 7
        ldr x27, =${EXCEPTION + 0x80 * i}
        str x0, [x27]
        b .`,
    );
    const { bytes } = assembleProgram(vectors.join('\n'), { base: BigInt(CODE + VECTORS) });
    accept(this.process.memory.write(hva(this.codeHva + VECTORS), bytes));
  }
}

/** Where memory without tags begins. */
const PMEM_BASE = pa(0x20_0000_0000);

const pmemZones = (noTags: NoTagsBehaviour | undefined): Zone[] =>
  noTags === undefined ? [] : [{ kind: 'no-tags', base: PMEM_BASE, sizeBytes: 4 * MIB, noTags }];

/** Fails where a call refused. */
export function accept(result: number): void {
  assert(!isRefusal(result), "a call of the test's set-up succeeds");
}

export function reported(answer: Answer): bigint {
  if (answer.kind === 'value') return answer.value;
  throw new Error(`the guest ended otherwise: ${answerText(answer)}`);
}

const hex = (value: bigint | number): string => `0x${value.toString(16)}`;

/** An answer in a line, for messages and comparisons. */
export function answerText(answer: Answer): string {
  switch (answer.kind) {
    case 'value':
      return `value ${hex(answer.value)}`;
    case 'exception':
      return (
        `exception ${hex(answer.vector)} esr ${hex(answer.esr)} ` +
        `far ${hex(answer.far)} elr ${hex(answer.elr)}`
      );
    case 'exit':
      return exitText(answer.exit);
  }
}

export function exitText(exit: VcpuExit): string {
  switch (exit.kind) {
    case 'error':
      return errnoName(exit.errno);
    case 'mmio':
      return `mmio ${exit.isWrite ? 'write' : 'read'} ${hex(exit.ipa)} size ${exit.size}`;
    default:
      return exit.kind;
  }
}

/** An IPA of the data slot. */
export const dataIpa = (page: number, tagGranule = 0): Ipa =>
  ipa(DATA + page * PAGE_SIZE + 16 * tagGranule);
