/**
 * What one vCPU is to the core: its saved state, its view of memory, its software TLBs, and the
 * hypervisor's hooks. The registers of the context that runs live at address 0 of linear memory;
 * those of every other lie in its `saved` copy. `core.ts` moves them.
 */

import type { SystemRegister } from '../arm/sysreg/index.ts';
import {
  SYSTEM_REGISTER_SLOT_COUNT,
  systemRegister,
  systemRegisters,
} from '../arm/sysreg/index.ts';
import { assert } from '../base/index.ts';
import * as S from '../engine/state.ts';
import { TLB_BYTES_PER_VCPU } from '../engine/tlb.ts';
import type { PhysicalMemory } from './memory.ts';
import { Mmu, type MmuFeatures } from './mmu.ts';

assert(SYSTEM_REGISTER_SLOT_COUNT <= S.SYSREG_SLOTS, 'the state holds every system register');

/** What the hypervisor does for a context while it runs. */
export interface Hypervisor {
  /** MRS of a register of kind 'computed' that is not the PE's own; undefined: UNDEFINED. */
  readRegister(register: SystemRegister): bigint | undefined;
  /**
   * MSR likewise: 'leave' makes the run return at once, 'undefined' takes an UNDEFINED exception.
   */
  writeRegister(register: SystemRegister, value: bigint): 'resume' | 'leave' | 'undefined';
}

/** What the hypervisor decides about a guest's PE, HCR_EL2's part in it. */
export interface ContextOptions {
  /** Which of the core's TLB regions it uses, from 0. */
  readonly index: number;
  readonly hypervisor: Hypervisor;
  readonly features?: Partial<MmuFeatures>;
}

export class CpuContext {
  readonly index: number;
  readonly mmu: Mmu;
  readonly hypervisor: Hypervisor;
  /** Linear address of its TLBs. */
  readonly tlbBase: number;
  /** State while it does not run. */
  readonly saved = new Uint8Array(S.STATE_BYTES);
  readonly savedU64 = new BigUint64Array(this.saved.buffer);
  readonly savedI32 = new Int32Array(this.saved.buffer);
  /** HCR_EL2.ATA: the guest sees allocation tags, and the MTE registers exist for it. */
  mte = false;
  /** Contexts of one VM share a number: broadcast TLB maintenance reaches them all. */
  vmid = 0;
  /** Whether any software TLB entry is not global. */
  hasNonGlobal = false;
  /** Halves of the VA space with an entry of a block: bit 0 the lower, bit 1 the upper. */
  large = 0;
  /** The hypervisor steps the guest (MDCR_EL2.TDE): each instruction ends the run. */
  debugStep = false;
  /** The hypervisor takes BRK. */
  debugBrk = false;
  /** Virtual interrupt inputs (what HCR_EL2.VI and VF or a GIC's list registers signal). */
  irqLine = false;
  fiqLine = false;
  /**
   * A virtual SError is pending (HCR_EL2.VSE): taken as soon as PSTATE.A permits, and then gone.
   */
  sErrorPending = false;

  constructor(memory: PhysicalMemory, options: ContextOptions) {
    this.index = options.index;
    this.hypervisor = options.hypervisor;
    this.mmu = new Mmu(memory, options.features ?? {});
    this.tlbBase = memory.layout.tlbBase + options.index * TLB_BYTES_PER_VCPU;
  }

  /** The state after a warm reset at EL1. Linux: kvm_reset_vcpu(). */
  reset(): void {
    this.saved.fill(0);
    for (const register of systemRegisters) {
      if (register.slot >= 0) this.savedU64[S.SYSREG / 8 + register.slot] = register.reset;
    }
    this.savedI32[S.EL / 4] = 1;
    this.savedI32[S.PSTATE_SPSEL / 4] = 1;
    this.savedI32[S.DAIF / 4] = 15;
    // Z is set when FLAG_Z is 0; after a reset NZCV is 0000.
    this.savedU64[S.FLAG_Z / 8] = 1n;
  }
}

/** Index into an i32 view of the low half of a system register's slot. */
export const slotIndex = (name: Parameters<typeof systemRegister>[0]): number =>
  (S.SYSREG + systemRegister(name).slot * 8) / 4;
