/**
 * The CPU interface's system registers (ICC_*_EL1) as a guest reads and writes them. What is absent
 * is UNDEFINED: AP registers beyond the implemented priorities, reads of write-only registers,
 * writes of read-only ones. Called by the vCPU when a guest's MRS or MSR names one of them.
 */

import type { Delivery } from './delivery.ts';
import {
  ICC_CTLR_CBPR,
  ICC_CTLR_EOIMODE,
  ICC_CTLR_PRIBITS_SHIFT,
  ICC_SRE_VALUE,
  Icc,
  PRIORITY_BITS,
} from './registers.ts';

/** Answer of `readIcc` for an access that is UNDEFINED. */
export const ICC_UNDEFINED = -1;

/** Value of register `reg` (an `Icc` encoding), unsigned 32-bit, or ICC_UNDEFINED. */
export function readIcc(delivery: Delivery, vcpu: number, reg: number): number {
  const cpu = delivery.cpus[vcpu]!;
  switch (reg) {
    case Icc.IAR1_EL1:
      return delivery.acknowledge(vcpu, 1);
    case Icc.IAR0_EL1:
      return delivery.acknowledge(vcpu, 0);
    case Icc.HPPIR1_EL1:
      return delivery.pendingIntid(vcpu, 1);
    case Icc.HPPIR0_EL1:
      return delivery.pendingIntid(vcpu, 0);
    case Icc.RPR_EL1:
      return cpu.runningPriority;
    case Icc.PMR_EL1:
      return cpu.pmr;
    case Icc.BPR0_EL1:
      return cpu.bpr0;
    case Icc.BPR1_EL1:
      return cpu.bpr1;
    case Icc.AP0R0_EL1:
      return cpu.activePriorities0 >>> 0;
    case Icc.AP1R0_EL1:
      return cpu.activePriorities1 >>> 0;
    case Icc.CTLR_EL1:
      return (
        ((PRIORITY_BITS - 1) << ICC_CTLR_PRIBITS_SHIFT) |
        (cpu.commonBpr ? ICC_CTLR_CBPR : 0) |
        (cpu.splitEoi ? ICC_CTLR_EOIMODE : 0)
      );
    case Icc.SRE_EL1:
      return ICC_SRE_VALUE;
    case Icc.IGRPEN0_EL1:
      return cpu.group0 ? 1 : 0;
    case Icc.IGRPEN1_EL1:
      return cpu.group1 ? 1 : 0;
    default:
      return ICC_UNDEFINED;
  }
}

/**
 * Writes register `reg` (an `Icc` encoding) with the halves of a 64-bit value; false where the
 * access is UNDEFINED.
 */
export function writeIcc(
  delivery: Delivery,
  vcpu: number,
  reg: number,
  low: number,
  high: number,
): boolean {
  switch (reg) {
    case Icc.EOIR1_EL1:
      delivery.endOfInterrupt(vcpu, 1, low & 0xff_ffff);
      return true;
    case Icc.EOIR0_EL1:
      delivery.endOfInterrupt(vcpu, 0, low & 0xff_ffff);
      return true;
    case Icc.DIR_EL1:
      delivery.deactivate(vcpu, low & 0xff_ffff);
      return true;
    case Icc.SGI1R_EL1:
      delivery.sendSgi(vcpu, low, high, true);
      return true;
    // With one security state the "other" group 1 does not exist: group 0 SGIs only, as SGI0R.
    case Icc.ASGI1R_EL1:
    case Icc.SGI0R_EL1:
      delivery.sendSgi(vcpu, low, high, false);
      return true;
    case Icc.SRE_EL1:
      return true;
    default:
      if (!writeControl(delivery, vcpu, reg, low)) return false;
      delivery.refresh(vcpu);
      return true;
  }
}

/** The registers that hold what is written; false for any other. */
function writeControl(delivery: Delivery, vcpu: number, reg: number, value: number): boolean {
  const cpu = delivery.cpus[vcpu]!;
  switch (reg) {
    case Icc.PMR_EL1:
      cpu.setPmr(value);
      return true;
    case Icc.BPR0_EL1:
      cpu.bpr0 = value;
      return true;
    case Icc.BPR1_EL1:
      cpu.bpr1 = value;
      return true;
    case Icc.AP0R0_EL1:
      cpu.activePriorities0 = value | 0;
      return true;
    case Icc.AP1R0_EL1:
      cpu.activePriorities1 = value | 0;
      return true;
    case Icc.CTLR_EL1:
      cpu.commonBpr = (value & ICC_CTLR_CBPR) !== 0;
      cpu.splitEoi = (value & ICC_CTLR_EOIMODE) !== 0;
      return true;
    case Icc.IGRPEN0_EL1:
      cpu.group0 = (value & 1) !== 0;
      return true;
    case Icc.IGRPEN1_EL1:
      cpu.group1 = (value & 1) !== 0;
      return true;
    default:
      return false;
  }
}
