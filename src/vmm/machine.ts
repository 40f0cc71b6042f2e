/**
 * A `virt` machine on KVM: guest memory mapped in a host process, a VM with vCPUs and a VGIC, the
 * board's devices, and the handling of exits. The host sees it as one process with /dev/kvm.
 * `run-machine.ts` runs one on a console; programs and tests run slices themselves.
 */
import {
  assert,
  assertNever,
  type Hva,
  hva,
  type Ipa,
  ipa,
  MIB,
  PAGE_SIZE,
  pa,
} from '../base/index.ts';
import { type AddressSpace, errnoName, Host, isRefusal, MapFlag, Prot } from '../host/index.ts';
import {
  COUNTER_FREQUENCY_HZ,
  KVM_ARM_IRQ_TYPE_SPI,
  KVM_ARM_VCPU_POWER_OFF,
  KVM_ARM_VCPU_PSCI_0_2,
  KVM_CAP_ARM_MTE,
  KVM_DEV_ARM_VGIC_CTRL_INIT,
  KVM_DEV_ARM_VGIC_GRP_ADDR,
  KVM_DEV_ARM_VGIC_GRP_CTRL,
  KVM_DEV_TYPE_ARM_VGIC_V3,
  KVM_SYSTEM_EVENT_RESET,
  KVM_SYSTEM_EVENT_SHUTDOWN,
  KVM_VGIC_V3_ADDR_TYPE_DIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST,
  Kvm,
  type KvmPolicy,
  type KvmVm,
  kvmArmIrq,
  type MachineClock,
  type Vcpu,
  type VcpuExit,
  type VmObserver,
  WallClock,
} from '../kvm/index.ts';
import { dramOnly, PhysicalMemory } from '../machine/memory.ts';
import {
  GIC_DISTRIBUTOR,
  GIC_REDISTRIBUTORS,
  RAM_BASE,
  RTC,
  RTC_SPI,
  UART,
  UART_SPI,
} from './board.ts';
import { type BootPlan, loadPlan } from './boot.ts';
import { Pl011 } from './devices/pl011.ts';
import { Pl031 } from './devices/pl031.ts';
import { UartFeed } from './devices/uart-feed.ts';
import type { GuestMemory } from './guest-memory.ts';
import { MachineError } from './machine-error.ts';
import type { GuestMemoryBacking, MachineStatistics } from './machine-options.ts';
import { MmioBus } from './mmio-bus.ts';
import { Scheduler, type Turn } from './scheduler.ts';

/** Host memory beyond the guest's: page tables of both stages, the host's own pages. */
const HOST_OVERHEAD_BYTES = 32 * MIB;
/** Instructions between looks at the outside world. */
const SLICE_INSTRUCTIONS = 2_000_000;
const SPI_BASE = 32;

const NS_PER_SECOND = 1_000_000_000n;
const HOST_TIME = { nowMs: () => performance.now(), dateMs: () => Date.now() };

/** A board without anything in its memory. */
export type Board = Pick<BootPlan, 'ramBytes' | 'cpuCount'>;

export interface MachineSetup {
  /** What to boot; or only the board, for a machine whose state comes from elsewhere (state/). */
  readonly plan: BootPlan | Board;
  /** State and memory come from elsewhere all the same: the plan is for resets. */
  readonly blank?: boolean;
  readonly mte: boolean;
  readonly seed: number;
  /** Follow the wall clock; otherwise time is counted in instructions. */
  readonly realtime?: boolean;
  readonly policy?: KvmPolicy;
  readonly observer?: VmObserver;
  /** Anonymous memory where absent. */
  readonly backing?: GuestMemoryBacking;
  /** Takes each byte that the guest transmits. */
  readonly transmit: (byte: number) => void;
}

/** What the guest asked the board to do. */
export type PowerEvent = 'power-off' | 'reset' | 'crash';

export class Machine {
  readonly host: Host;
  readonly process: AddressSpace;
  readonly kvm: Kvm;
  readonly vm: KvmVm;
  readonly vcpus: readonly Vcpu[];
  readonly bus = new MmioBus();
  readonly uart: Pl011;
  readonly rtc: Pl031;
  readonly input: UartFeed;
  readonly ramHva: Hva;
  /** A second mapping of a memfd's RAM, with PROT_MTE. */
  readonly taggedRamHva: Hva | undefined;
  /** Called when the VMM has written guest memory, which KVM's dirty log does not see. */
  onMemoryWrite: (address: Ipa, sizeBytes: number) => void = () => {};
  readonly setup: MachineSetup;
  readonly scheduler: Scheduler;

  /** Builds the machine and loads the boot plan; without one its vCPUs are as after reset. */
  constructor(setup: MachineSetup) {
    const { plan } = setup;
    this.setup = setup;
    const memory = new PhysicalMemory({
      zones: dramOnly(plan.ramBytes + HOST_OVERHEAD_BYTES),
      vcpuMax: plan.cpuCount,
    });
    this.host = new Host({ memory });
    this.process = this.host.createProcess();
    const clock: { readonly clock?: MachineClock } =
      setup.realtime === true ? { clock: new WallClock(HOST_TIME) } : {};
    this.kvm = new Kvm({ host: this.host, ...clock });
    this.vm = this.#createVm();
    const ram = this.#mapRam();
    this.ramHva = ram.hva;
    this.taggedRamHva = ram.taggedHva;
    this.vcpus = this.#createVcpus();
    this.#createVgic();
    this.uart = new Pl011({
      base: UART.base,
      irq: this.#irqLine(UART_SPI),
      transmit: setup.transmit,
    });
    this.rtc = new Pl031({
      base: RTC.base,
      irq: this.#irqLine(RTC_SPI),
      seconds: () => Number(this.kvm.clock.realTimeNs() / NS_PER_SECOND),
    });
    this.input = new UartFeed(this.uart);
    this.bus.attach(this.uart);
    this.bus.attach(this.rtc);
    this.scheduler = new Scheduler(this.vcpus, this.kvm.clock, () => {
      const seconds = this.rtc.secondsToMatch();
      return seconds === undefined ? undefined : seconds * COUNTER_FREQUENCY_HZ;
    });
    this.scheduler.isPaging = () => this.process.awaited.size > 0;
    this.#initVcpus();
    if (!this.isBlank) this.#boot();
  }

  #createVm(): KvmVm {
    const { seed, policy, observer, mte } = this.setup;
    const vm = this.kvm.createVm(this.process, {
      seed,
      ...(policy === undefined ? {} : { policy }),
      ...(observer === undefined ? {} : { observer }),
    });
    if (isRefusal(vm)) throw new MachineError(`KVM_CREATE_VM: ${errnoName(vm)}`);
    if (mte) accept('KVM_ENABLE_CAP(KVM_CAP_ARM_MTE)', vm.enableCap({ cap: KVM_CAP_ARM_MTE }));
    return vm;
  }

  /** The memfd's or anonymous pages; areas this large lie so that both stages can use blocks. */
  #mapRam(): { hva: Hva; taggedHva: Hva | undefined } {
    const { plan, mte, backing, policy } = this.setup;
    const length = plan.ramBytes;
    const file = backing === 'memfd' ? this.host.createMemfd(length) : undefined;
    const map = (prot: number): Hva => {
      const flags = file === undefined ? MapFlag.private | MapFlag.anonymous : MapFlag.shared;
      const mapped = this.process.mmap({
        length,
        prot,
        flags,
        ...(file === undefined ? {} : { file }),
      });
      if (isRefusal(mapped)) throw new MachineError(`mmap of guest memory: ${errnoName(mapped)}`);
      return mapped;
    };
    // A KVM that leaves tagging to the VMM wants to see it on the mapping.
    const own = mte && policy?.tagging === 'require-prot-mte' ? Prot.mte : 0;
    const at = map(Prot.read | Prot.write | own);
    const result = this.vm.setUserMemoryRegion({
      slot: 0,
      flags: 0,
      guestPhysAddr: RAM_BASE,
      memorySize: length,
      userspaceAddr: at,
    });
    const policyName = policy?.name ?? 'upstream';
    const of = `of ${backing ?? 'anonymous'} memory, MTE ${mte ? 'on' : 'off'}, policy ${policyName}`;
    accept(`KVM_SET_USER_MEMORY_REGION ${of}`, result);
    const tagged = file !== undefined && mte;
    return { hva: at, taggedHva: tagged ? map(Prot.read | Prot.write | Prot.mte) : undefined };
  }

  #createVcpus(): Vcpu[] {
    return Array.from({ length: this.setup.plan.cpuCount }, (_, id) => {
      const vcpu = this.vm.createVcpu(id);
      if (isRefusal(vcpu)) throw new MachineError(`KVM_CREATE_VCPU: ${errnoName(vcpu)}`);
      return vcpu;
    });
  }

  #createVgic(): void {
    const device = this.vm.createDevice(KVM_DEV_TYPE_ARM_VGIC_V3);
    if (isRefusal(device)) throw new MachineError(`KVM_CREATE_DEVICE: ${errnoName(device)}`);
    const set = (group: number, attr: number, value: number): void =>
      accept(
        'KVM_SET_DEVICE_ATTR',
        device.setAttr({ flags: 0, group, attr: BigInt(attr) }, BigInt(value)),
      );
    set(KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, GIC_DISTRIBUTOR.base);
    set(KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_REDIST, GIC_REDISTRIBUTORS.base);
    set(KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, 0);
  }

  #irqLine(spi: number): (level: boolean) => void {
    const irq = kvmArmIrq({ type: KVM_ARM_IRQ_TYPE_SPI, num: SPI_BASE + spi });
    return (level) => accept('KVM_IRQ_LINE', this.vm.irqLine({ irq, level: level ? 1 : 0 }));
  }

  /** Guest RAM as the VMM's loaders and devices see it: through the process's mapping. */
  get memory(): GuestMemory {
    const { ramBytes } = this.setup.plan;
    const at = (address: Ipa, sizeBytes: number): Hva | undefined =>
      address >= RAM_BASE && address + sizeBytes <= RAM_BASE + ramBytes
        ? hva(this.ramHva + (address - RAM_BASE))
        : undefined;
    return {
      read: (address, sizeBytes) => {
        const from = at(address, sizeBytes);
        const bytes = from === undefined ? undefined : this.process.memory.read(from, sizeBytes);
        return isRefusal(bytes) ? undefined : bytes;
      },
      write: (address, bytes) => {
        const to = at(address, bytes.length);
        if (to === undefined || isRefusal(this.process.memory.write(to, bytes))) return false;
        this.onMemoryWrite(address, bytes.length);
        return true;
      },
    };
  }

  /** Whether there is something to boot, and so to reset to. */
  get canBoot(): boolean {
    return isBootPlan(this.setup.plan);
  }

  /** Whether it was made for a state from elsewhere: its RAM has not been touched. */
  get isBlank(): boolean {
    return this.setup.blank === true || !this.canBoot;
  }

  /** KVM_ARM_VCPU_INIT of every vCPU. */
  #initVcpus(): void {
    this.vcpus.forEach((vcpu, index) => {
      const off = index > 0 ? 1 << KVM_ARM_VCPU_POWER_OFF : 0;
      const features = [(1 << KVM_ARM_VCPU_PSCI_0_2) | off];
      accept('KVM_ARM_VCPU_INIT', vcpu.init({ ...this.vm.preferredTarget(), features }));
    });
  }

  /** Memory from the plan, registers of the boot CPU. */
  #boot(): void {
    const { plan } = this.setup;
    assert(isBootPlan(plan), 'there is something to boot');
    loadPlan(plan, this.memory);
    const [first] = this.vcpus;
    assert(first !== undefined, 'a machine has a CPU');
    plan.registers.x.forEach((value, n) => {
      first.writeX(n, value);
    });
    first.writePc(plan.registers.pc);
    first.writePstate(plan.registers.pstate);
  }

  /**
   * Back to power-on: devices, interrupt controller state through the guest's own init, memory.
   * Precondition: `canBoot`.
   */
  reset(): void {
    this.uart.reset();
    this.rtc.reset();
    this.#initVcpus();
    this.#boot();
  }

  /**
   * Runs until the guest powers off or resets, all CPUs wait for the outside, or about
   * `instructions` have run. In between, the machine's state is complete (state/capture.ts).
   */
  runSlice(instructions = SLICE_INSTRUCTIONS): PowerEvent | Exclude<Turn, { kind: 'exit' }> {
    this.input.pump();
    this.rtc.poll();
    for (let left = instructions; left > 0; ) {
      const turn = this.scheduler.run(left);
      if (turn.kind !== 'exit') return turn;
      const event = this.#handle(turn.vcpu, turn.exit);
      if (event !== undefined) return event;
      left = turn.left;
    }
    return { kind: 'budget' };
  }

  #handle(vcpu: Vcpu, exit: VcpuExit): PowerEvent | undefined {
    switch (exit.kind) {
      case 'mmio':
        this.#mmio(exit);
        return undefined;
      case 'system-event':
        if (exit.type === KVM_SYSTEM_EVENT_SHUTDOWN) return 'power-off';
        return exit.type === KVM_SYSTEM_EVENT_RESET ? 'reset' : 'crash';
      case 'error':
        throw new MachineError(
          `vCPU ${vcpu.index}: KVM_RUN failed with ${errnoName(exit.errno)} at pc 0x${vcpu
            .readPc()
            .toString(16)}`,
        );
      case 'memory-fault':
        throw new MachineError(
          `vCPU ${vcpu.index}: the guest used tags of memory that has none, ` +
            `at 0x${exit.ipa.toString(16)}, pc 0x${vcpu.readPc().toString(16)}`,
        );
      case 'debug':
      case 'nisv':
      case 'hypercall':
      case 'interrupted':
      case 'preempted':
      case 'blocked':
      case 'userfault':
      case 'yielded':
        return undefined;
      default:
        return assertNever(exit);
    }
  }

  /** An address without a device reads as zero and ignores writes, as on QEMU's `virt`. */
  #mmio(exit: Extract<VcpuExit, { kind: 'mmio' }>): void {
    const address = ipa(exit.ipa);
    if (exit.isWrite) this.bus.write(address, exit.size, exit.data);
    else exit.data = this.bus.read(address, exit.size) ?? 0n;
  }

  /** Page frames whose tags are valid, the host's zero page aside. */
  #taggedPages(): number {
    const { frames, memory, zeroPage } = this.host;
    let count = 0;
    for (const { base, sizeBytes } of memory.zones) {
      for (let at = 0; at < sizeBytes; at += PAGE_SIZE) {
        const frame = pa(base + at);
        if (frame !== zeroPage && frames.isMteTagged(frame)) count++;
      }
    }
    return count;
  }

  /** Lets `ticks` of the counter pass while all vCPUs wait; a wall clock does so by itself. */
  skip(ticks: number): void {
    this.kvm.clock.skip(ticks);
  }

  /** See `Scheduler.paced`. */
  set paced(value: boolean) {
    this.scheduler.paced = value;
  }

  statistics(wallMilliseconds: number): MachineStatistics {
    const exitsByReason: Record<string, number> = {};
    let instructionCount = 0;
    let stage2FaultCount = 0;
    for (const { statistics } of this.vcpus) {
      instructionCount += statistics.instructionCount;
      stage2FaultCount += statistics.stage2FaultCount;
      for (const [reason, count] of Object.entries(statistics.exitsByReason)) {
        exitsByReason[reason] = (exitsByReason[reason] ?? 0) + count;
      }
    }
    return {
      instructionCount: BigInt(instructionCount),
      executedCount: BigInt(this.kvm.core.executed),
      wallMilliseconds,
      exitsByReason,
      stage2FaultCount,
      taggedPageCount: this.#taggedPages(),
    };
  }
}

const isBootPlan = (plan: BootPlan | Board): plan is BootPlan => 'segments' in plan;

function accept(call: string, result: number): void {
  if (isRefusal(result)) throw new MachineError(`${call}: ${errnoName(result)}`);
}
