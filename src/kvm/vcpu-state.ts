/**
 * The registers of one vCPU as KVM reaches them while it does not run: general, stack pointers, PC,
 * PSTATE, vectors and system registers by slot, and with them KVM_GET/SET_ONE_REG and the register
 * list. Any access takes the vCPU's state off the core. Running it is vcpu.ts's business.
 */
import { slotOf, systemRegister } from '../arm/sysreg/index.ts';
import * as S from '../engine/state.ts';
import type { Refusal } from '../host/index.ts';
import type { CpuContext } from '../machine/context.ts';
import type { Core } from '../machine/core.ts';
import { packPstate, unpackPstate } from '../machine/pstate.ts';
import { getOneReg, getRegList, setOneReg } from './one-reg.ts';
import type { VcpuRegisters, VmRegisters } from './registers.ts';
import type { VcpuTimers } from './timer.ts';
import type { KvmRegList } from './uapi.ts';

/** Aff3 in 39:32, Aff2:Aff1:Aff0 in 23:0. */
const AFFINITY_MASK = 0xff00ffffffn;

/** Index of a system register in the state as 64-bit words. */
const wordOf = (slot: number): number => S.SYSREG / 8 + slot;
const SP_EL0_INDEX = wordOf(systemRegister('SP_EL0').slot);
const SP_EL1_INDEX = wordOf(systemRegister('SP_EL1').slot);
const MPIDR_INDEX = wordOf(slotOf.MPIDR_EL1);

export interface VcpuStateOptions {
  readonly vcpuId: number;
  /** The registers that the vCPUs of the VM share. */
  readonly vm: VmRegisters;
  readonly core: Core;
  readonly context: CpuContext;
}

export abstract class VcpuState implements VcpuRegisters {
  readonly vcpuId: number;
  readonly vm: VmRegisters;
  abstract readonly timers: VcpuTimers;
  initialized = false;
  protected readonly core: Core;
  protected readonly context: CpuContext;

  protected constructor(options: VcpuStateOptions) {
    this.vcpuId = options.vcpuId;
    this.vm = options.vm;
    this.core = options.core;
    this.context = options.context;
  }

  get features(): number {
    return this.vm.vcpuFeatures ?? 0;
  }

  /** Affinity fields of MPIDR_EL1. */
  get affinity(): bigint {
    // Fixed since KVM_ARM_VCPU_INIT, so the copy is right also while the vCPU is loaded.
    return this.context.savedU64[MPIDR_INDEX]! & AFFINITY_MASK;
  }

  /** The state as 64-bit words: the vCPU's copy, which is taken off the core if it has it. */
  protected words(): BigUint64Array {
    this.core.unload();
    return this.context.savedU64;
  }

  readX(n: number): bigint {
    return this.words()[S.X / 8 + n]!;
  }

  writeX(n: number, value: bigint): void {
    this.words()[S.X / 8 + n] = value;
  }

  #spIndex(el: 0 | 1): number {
    const s = this.context.savedI32;
    const current = s[S.EL / 4] === 1 && s[S.PSTATE_SPSEL / 4] === 1 ? 1 : 0;
    if (el === current) return S.SP / 8;
    return el === 0 ? SP_EL0_INDEX : SP_EL1_INDEX;
  }

  readSp(el: 0 | 1): bigint {
    const words = this.words();
    return words[this.#spIndex(el)]!;
  }

  writeSp(el: 0 | 1, value: bigint): void {
    const words = this.words();
    words[this.#spIndex(el)] = value;
  }

  readPc(): bigint {
    return this.words()[S.PC / 8]!;
  }

  writePc(value: bigint): void {
    this.words()[S.PC / 8] = value;
  }

  readPstate(): bigint {
    this.words();
    return BigInt(packPstate(this.context.savedI32) >>> 0);
  }

  writePstate(value: bigint): void {
    const sps = [this.readSp(0), this.readSp(1)] as const;
    const s = this.context.savedI32;
    const word = Number(BigInt.asIntN(32, value));
    unpackPstate(s, word);
    s[S.EL / 4] = (word >> 2) & 1;
    s[S.PSTATE_SPSEL / 4] = word & 1;
    this.writeSp(0, sps[0]);
    this.writeSp(1, sps[1]);
  }

  readV(n: number): bigint {
    const words = this.words();
    return (words[S.V / 8 + 2 * n + 1]! << 64n) | words[S.V / 8 + 2 * n]!;
  }

  writeV(n: number, value: bigint): void {
    const words = this.words();
    words[S.V / 8 + 2 * n] = BigInt.asUintN(64, value);
    words[S.V / 8 + 2 * n + 1] = BigInt.asUintN(64, value >> 64n);
  }

  readSlot(slot: number): bigint {
    return this.words()[wordOf(slot)]!;
  }

  writeSlot(slot: number, value: bigint): void {
    const words = this.words();
    const at = wordOf(slot);
    if (words[at] === value) return;
    words[at] = value;
    // Translations made under the old value must not outlive it.
    this.core.tlbs.flush(this.context);
  }

  /** KVM_GET_ONE_REG. */
  getOneReg(id: bigint): bigint | Refusal {
    return getOneReg(this, id);
  }

  /** KVM_SET_ONE_REG. */
  setOneReg(id: bigint, value: bigint): 0 | Refusal {
    return setOneReg(this, id, value);
  }

  /** KVM_GET_REG_LIST. */
  getRegList(request: KvmRegList): 0 | Refusal {
    return getRegList(this, request);
  }
}
