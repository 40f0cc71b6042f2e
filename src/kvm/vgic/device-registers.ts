/**
 * The VGIC's registers as the VMM saves and restores them: KVM_DEV_ARM_VGIC_GRP_DIST_REGS,
 * REDIST_REGS, CPU_SYSREGS and LEVEL_INFO. Each access is of 32 bits (64 for system registers) at
 * the offset or encoding in the attribute; device.ts has found the vCPU it is about.
 * Linux: vgic_v3_attr_regs_access(), vgic-sys-reg-v3.c.
 */

import { Errno, type Refusal, refuse } from '../../host/index.ts';
import {
  KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
  KVM_DEV_ARM_VGIC_GRP_DIST_REGS,
  KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO,
  KVM_DEV_ARM_VGIC_GRP_REDIST_REGS,
  KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_MASK,
  KVM_DEV_ARM_VGIC_LINE_LEVEL_INTID_MASK,
  KVM_DEV_ARM_VGIC_OFFSET_MASK,
  KVM_DEV_ARM_VGIC_SYSREG_INSTR_MASK,
} from '../uapi.ts';
import { DISTRIBUTOR_REGIONS } from './distributor.ts';
import { ICC_UNDEFINED } from './icc.ts';
import { REDISTRIBUTOR_REGIONS } from './redistributor.ts';
import { type Frame, takesAccess } from './regions.ts';
import {
  GICD,
  GICD_IIDR_REVISION_MASK,
  GICD_IIDR_VALUE,
  ICC_CTLR_IDBITS,
  ICC_CTLR_PRIBITS_SHIFT,
  ICC_CTLR_SEIS_A3V,
  Icc,
  PRIORITY_BITS,
} from './registers.ts';
import type { Vgic } from './vgic.ts';

/** One register: the group and attribute that name it, and the vCPU it is of. */
export interface RegisterAttr {
  readonly group: number;
  readonly attr: bigint;
  readonly vcpu: number;
}

/** What the VMM may access of the CPU interface; acknowledging an interrupt is not among it. */
const CPU_SYSREGS: ReadonlySet<number> = new Set([
  Icc.PMR_EL1,
  Icc.BPR0_EL1,
  Icc.BPR1_EL1,
  Icc.AP0R0_EL1,
  Icc.AP0R1_EL1,
  Icc.AP0R2_EL1,
  Icc.AP0R3_EL1,
  Icc.AP1R0_EL1,
  Icc.AP1R1_EL1,
  Icc.AP1R2_EL1,
  Icc.AP1R3_EL1,
  Icc.CTLR_EL1,
  Icc.SRE_EL1,
  Icc.IGRPEN0_EL1,
  Icc.IGRPEN1_EL1,
]);

const offsetOf = (attr: bigint): number => Number(attr & KVM_DEV_ARM_VGIC_OFFSET_MASK);
const sysregOf = (attr: bigint): number => Number(attr & KVM_DEV_ARM_VGIC_SYSREG_INSTR_MASK);
const intidOf = (attr: bigint): number => Number(attr & KVM_DEV_ARM_VGIC_LINE_LEVEL_INTID_MASK);
/** The line levels are the one kind of level information there is, VGIC_LEVEL_INFO_LINE_LEVEL. */
const isLineLevel = (attr: bigint): boolean =>
  (attr & KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_MASK) === 0n;

/** Whether there is such a register in a VGIC with `irqCount` interrupts; ENXIO where not. */
export function hasRegister(group: number, attr: bigint, irqCount: number): 0 | Refusal {
  const exists = (): boolean => {
    switch (group) {
      case KVM_DEV_ARM_VGIC_GRP_DIST_REGS:
        return takesAccess(DISTRIBUTOR_REGIONS, offsetOf(attr), 4, irqCount);
      case KVM_DEV_ARM_VGIC_GRP_REDIST_REGS:
        return takesAccess(REDISTRIBUTOR_REGIONS, offsetOf(attr), 4, irqCount);
      case KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS:
        return CPU_SYSREGS.has(sysregOf(attr));
      case KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO:
        return isLineLevel(attr);
      default:
        return false;
    }
  };
  return exists() ? 0 : refuse(Errno.ENXIO);
}

/**
 * Value of a register; zero between the registers of a frame. ENXIO or EINVAL for the other groups.
 */
export function readRegister(vgic: Vgic, { group, attr, vcpu }: RegisterAttr): bigint | Refusal {
  switch (group) {
    case KVM_DEV_ARM_VGIC_GRP_DIST_REGS:
      return readFrame(vgic.distributor, offsetOf(attr), vgic.irqCount);
    case KVM_DEV_ARM_VGIC_GRP_REDIST_REGS:
      return readFrame(vgic.redistributor(vcpu), offsetOf(attr), vgic.irqCount);
    case KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS: {
      if (!CPU_SYSREGS.has(sysregOf(attr))) return refuse(Errno.ENXIO);
      const value = vgic.readIcc(vcpu, sysregOf(attr));
      return value === ICC_UNDEFINED ? refuse(Errno.EINVAL) : BigInt(value);
    }
    default:
      if (!isLineLevel(attr) || intidOf(attr) % 32 !== 0) return refuse(Errno.EINVAL);
      return BigInt(vgic.lineLevels(vcpu, intidOf(attr)));
  }
}

const readFrame = (frame: Frame, offset: number, irqCount: number): bigint =>
  takesAccess(frame.regions, offset, 4, irqCount) ? BigInt(frame.read(offset, 4, 'user')) : 0n;

/** Restores a register. EINVAL for a value this VGIC cannot have; otherwise as `readRegister`. */
export function writeRegister(
  vgic: Vgic,
  { group, attr, vcpu }: RegisterAttr,
  value: bigint,
): 0 | Refusal {
  const low = Number(BigInt.asIntN(32, value));
  switch (group) {
    case KVM_DEV_ARM_VGIC_GRP_DIST_REGS:
      if (!isAcceptable(offsetOf(attr), low)) return refuse(Errno.EINVAL);
      return writeFrame(vgic.distributor, offsetOf(attr), low, vgic.irqCount);
    case KVM_DEV_ARM_VGIC_GRP_REDIST_REGS:
      return writeFrame(vgic.redistributor(vcpu), offsetOf(attr), low, vgic.irqCount);
    case KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS:
      if (!CPU_SYSREGS.has(sysregOf(attr))) return refuse(Errno.ENXIO);
      return writeSysreg(vgic, vcpu, sysregOf(attr), low);
    default:
      if (!isLineLevel(attr) || intidOf(attr) % 32 !== 0) return refuse(Errno.EINVAL);
      vgic.setLineLevels(vcpu, intidOf(attr), low);
      return 0;
  }
}

function writeFrame(frame: Frame, offset: number, value: number, irqCount: number): 0 {
  if (takesAccess(frame.regions, offset, 4, irqCount)) frame.write(offset, 4, value, 'user');
  return 0;
}

/**
 * Whether the distributor's identification is ours. (quirk) Any revision is taken, and none kept.
 */
function isAcceptable(offset: number, value: number): boolean {
  if (offset === GICD.IIDR) return ((value ^ GICD_IIDR_VALUE) & ~GICD_IIDR_REVISION_MASK) === 0;
  return offset !== GICD.TYPER2 || value === 0;
}

function writeSysreg(vgic: Vgic, vcpu: number, register: number, value: number): 0 | Refusal {
  if (register === Icc.SRE_EL1 && (value & 1) === 0) return refuse(Errno.EINVAL);
  if (register === Icc.CTLR_EL1) {
    const priorityBits = ((value >>> ICC_CTLR_PRIBITS_SHIFT) & 7) + 1;
    const fits =
      priorityBits <= PRIORITY_BITS && (value & (ICC_CTLR_IDBITS | ICC_CTLR_SEIS_A3V)) === 0;
    if (!fits) return refuse(Errno.EINVAL);
  }
  return vgic.writeIcc(vcpu, register, value, 0) ? 0 : refuse(Errno.EINVAL);
}
