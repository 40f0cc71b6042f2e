/**
 * GICv3 register offsets, system register encodings and the field values KVM shows its guests. Data
 * only; the behaviour is in distributor.ts, redistributor.ts and icc.ts. Offsets and names are
 * those of the GIC architecture (IHI 0069); the values that identify the implementation are
 * Linux's.
 */

/** Bytes of the distributor's frame. Linux: KVM_VGIC_V3_DIST_SIZE. */
export const DISTRIBUTOR_SIZE = 0x1_0000;
/** Bytes of one redistributor: its RD frame and its SGI frame. Linux: KVM_VGIC_V3_REDIST_SIZE. */
export const REDISTRIBUTOR_SIZE = 0x2_0000;
/** Offset of the SGI frame in a redistributor. */
export const SGI_FRAME = 0x1_0000;

/** Interrupts each vCPU has for itself: SGIs 0-15 and PPIs 16-31. */
export const PRIVATE_IRQS = 32;
export const SGI_COUNT = 16;
/** What an acknowledge or a query answers when there is nothing to hand out. */
export const SPURIOUS = 1023;
/** INTIDs 1020-1023 name no interrupt. */
export const FIRST_SPECIAL_INTID = 1020;

/** Implemented priority bits: 32 levels, in steps of 8. */
export const PRIORITY_BITS = 5;
export const PRIORITY_MASK = 0xf8;
/** Running priority with nothing active. */
export const IDLE_PRIORITY = 0xff;

/** Distributor registers. */
export const GICD = {
  CTLR: 0x0000,
  TYPER: 0x0004,
  IIDR: 0x0008,
  TYPER2: 0x000c,
  STATUSR: 0x0010,
  IGROUPR: 0x0080,
  ISENABLER: 0x0100,
  ICENABLER: 0x0180,
  ISPENDR: 0x0200,
  ICPENDR: 0x0280,
  ISACTIVER: 0x0300,
  ICACTIVER: 0x0380,
  IPRIORITYR: 0x0400,
  ITARGETSR: 0x0800,
  ICFGR: 0x0c00,
  IGRPMODR: 0x0d00,
  IROUTER: 0x6000,
  IDREGS: 0xffd0,
  PIDR2: 0xffe8,
} as const;

/**
 * Redistributor registers; those of the SGI frame have the distributor's offsets behind SGI_FRAME.
 */
export const GICR = {
  CTLR: 0x0000,
  IIDR: 0x0004,
  TYPER: 0x0008,
  STATUSR: 0x0010,
  WAKER: 0x0014,
  PROPBASER: 0x0070,
  PENDBASER: 0x0078,
  INVLPIR: 0x00a0,
  INVALLR: 0x00b0,
  SYNCR: 0x00c0,
  IDREGS: 0xffd0,
  PIDR2: 0xffe8,
  IGROUPR0: SGI_FRAME + 0x0080,
  ISENABLER0: SGI_FRAME + 0x0100,
  ICENABLER0: SGI_FRAME + 0x0180,
  ISPENDR0: SGI_FRAME + 0x0200,
  ICPENDR0: SGI_FRAME + 0x0280,
  ISACTIVER0: SGI_FRAME + 0x0300,
  ICACTIVER0: SGI_FRAME + 0x0380,
  IPRIORITYR0: SGI_FRAME + 0x0400,
  ICFGR0: SGI_FRAME + 0x0c00,
  IGRPMODR0: SGI_FRAME + 0x0d00,
  NSACR: SGI_FRAME + 0x0e00,
} as const;

/** GICD_CTLR.EnableGrp1, the one enable KVM keeps; it gates both groups. */
export const GICD_CTLR_ENABLE_GROUP1 = 1 << 1;
/** GICD_CTLR.ARE and .DS: affinity routing always on, one security state. Both read as one. */
export const GICD_CTLR_FIXED = (1 << 4) | (1 << 6);
/** GICD_TYPER.IDbits for 10-bit INTIDs: without an ITS there is nothing above the SPIs. */
export const GICD_TYPER_IDBITS = (10 - 1) << 19;
/** Product 'K', revision 3 (groups configurable, GICR_CTLR.IR and .CES), implementer Arm. */
export const GICD_IIDR_VALUE = 0x4b00_343b;
export const GICD_IIDR_REVISION_MASK = 0xf000;
export const GICR_IIDR_VALUE = 0x4b00_043b;
/** PIDR2.ArchRev 3. */
export const PIDR2_VALUE = 0x3b;
/**
 * GICR_CTLR.IR and .CES (direct invalidation, EnableLPIs clearable); LPIs themselves are absent.
 */
export const GICR_CTLR_VALUE = (1 << 2) | (1 << 1);
export const GICR_TYPER_LAST = 1 << 4;

/** `S<op0>_<op1>_C<crn>_C<crm>_<op2>` packed as in a KVM register id: op0:op1:CRn:CRm:op2. */
const icc = (crn: number, crm: number, op2: number): number =>
  (3 << 14) | (crn << 7) | (crm << 3) | op2;

/** CPU interface registers by the 16-bit encoding that KVM register ids use. */
export const Icc = {
  PMR_EL1: icc(4, 6, 0),
  IAR0_EL1: icc(12, 8, 0),
  EOIR0_EL1: icc(12, 8, 1),
  HPPIR0_EL1: icc(12, 8, 2),
  BPR0_EL1: icc(12, 8, 3),
  AP0R0_EL1: icc(12, 8, 4),
  AP0R1_EL1: icc(12, 8, 5),
  AP0R2_EL1: icc(12, 8, 6),
  AP0R3_EL1: icc(12, 8, 7),
  AP1R0_EL1: icc(12, 9, 0),
  AP1R1_EL1: icc(12, 9, 1),
  AP1R2_EL1: icc(12, 9, 2),
  AP1R3_EL1: icc(12, 9, 3),
  DIR_EL1: icc(12, 11, 1),
  RPR_EL1: icc(12, 11, 3),
  SGI1R_EL1: icc(12, 11, 5),
  ASGI1R_EL1: icc(12, 11, 6),
  SGI0R_EL1: icc(12, 11, 7),
  IAR1_EL1: icc(12, 12, 0),
  EOIR1_EL1: icc(12, 12, 1),
  HPPIR1_EL1: icc(12, 12, 2),
  BPR1_EL1: icc(12, 12, 3),
  CTLR_EL1: icc(12, 12, 4),
  SRE_EL1: icc(12, 12, 5),
  IGRPEN0_EL1: icc(12, 12, 6),
  IGRPEN1_EL1: icc(12, 12, 7),
} as const;

export const ICC_CTLR_CBPR = 1 << 0;
export const ICC_CTLR_EOIMODE = 1 << 1;
export const ICC_CTLR_PRIBITS_SHIFT = 8;
/** IDbits [13:11] (0: 16-bit INTIDs), SEIS [14] and A3V [15]: all zero here. */
export const ICC_CTLR_IDBITS = 7 << 11;
export const ICC_CTLR_SEIS_A3V = 3 << 14;
/** ICC_SRE_EL1: SRE, DFB and DIB, read as one; there is no memory-mapped CPU interface. */
export const ICC_SRE_VALUE = 7;
