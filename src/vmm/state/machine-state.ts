/**
 * The state of a machine as data, memory aside: one schema a section, which says what the section
 * holds in the program (bigints) and as JSON (hexadecimal strings). `capture.ts` makes such a
 * state, `apply.ts` takes it over, `codec.ts` makes bytes of it.
 *
 * A section's version goes up when its schema changes; a state with a section of another version,
 * or with one that is not here, is refused, as part of the machine would be lost.
 */
import { z } from 'zod';
import {
  KVM_MP_STATE_RUNNABLE,
  KVM_MP_STATE_STOPPED,
  KVM_MP_STATE_SUSPENDED,
} from '../../kvm/index.ts';

/** An unsigned integer of up to `digits` hexadecimal digits, without leading zeros. */
const hexadecimal = (digits: number) =>
  z.codec(
    z.string().regex(new RegExp(`^0x(0|[1-9a-f][0-9a-f]{0,${digits - 1}})$`)),
    z.bigint().min(0n),
    { decode: (text) => BigInt(text), encode: (value) => `0x${value.toString(16)}` },
  );

/** Registers of KVM_GET_ONE_REG have up to 128 bits. */
const registerValue = hexadecimal(32);
const registerId = hexadecimal(16);

const count = z.int().min(0);
const int32 = z
  .int()
  .min(-(2 ** 31))
  .max(2 ** 31 - 1);
const uint32 = z
  .int()
  .min(0)
  .max(2 ** 32 - 1);
const byte = z.int().min(0).max(255);

/** What the machine is: it must be equal on both sides. */
export const MachineSchema = z.strictObject({
  /** The physical map and the devices: QEMU's `virt` as `board.ts` has it. */
  board: z.literal('virt-1'),
  ramBytes: z.int().positive(),
  cpuCount: z.int().positive(),
  mte: z.boolean(),
  /** `KvmPolicy.name`. */
  policy: z.string(),
  /** What the machine was seeded with; how far the generator has come is in `trng`. */
  seed: uint32,
});

/** Absent time: the machine follows the wall clock. */
export const ClockSchema = z.strictObject({ executed: count, skippedTicks: count }).nullable();

export const SchedulerSchema = z.strictObject({ next: count });

export const VcpuSchema = z.strictObject({
  /** The first word of `struct kvm_vcpu_init`.features, without KVM_ARM_VCPU_POWER_OFF. */
  features: uint32,
  /** KVM_GET_MP_STATE. */
  mpState: z.literal([KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_STOPPED, KVM_MP_STATE_SUSPENDED]),
  /** KVM_GET_VCPU_EVENTS: an SError that waits for PSTATE.A; nothing else in it outlives a run. */
  serrorPending: z.boolean(),
  /** Whether it waits in WFI. */
  waiting: z.boolean(),
  /** Instructions executed, for statistics. */
  instructionCount: count,
  /** All of KVM_GET_REG_LIST in its order: id and value. */
  registers: z.array(z.tuple([registerId, registerValue])).readonly(),
});

const InterruptsSchema = z.strictObject({
  enabled: z.array(int32).readonly(),
  latch: z.array(int32).readonly(),
  level: z.array(int32).readonly(),
  active: z.array(int32).readonly(),
  group1: z.array(int32).readonly(),
  edge: z.array(int32).readonly(),
  priority: z.array(byte).readonly(),
  route: z.array(int32).readonly(),
});

const CpuInterfaceSchema = z.strictObject({
  pmr: byte,
  bpr0: byte,
  bpr1: byte,
  commonBpr: z.boolean(),
  splitEoi: z.boolean(),
  group0: z.boolean(),
  group1: z.boolean(),
  activePriorities0: int32,
  activePriorities1: int32,
});

export const VgicSchema = z.strictObject({
  distributorEnabled: z.boolean(),
  interrupts: InterruptsSchema,
  cpus: z.array(CpuInterfaceSchema).readonly(),
  propbaser: z.array(uint32).length(2).readonly(),
  pendbaser: z.array(uint32).readonly(),
});

export const Pl011Schema = z.strictObject({
  rsr: uint32,
  ilpr: uint32,
  ibrd: uint32,
  fbrd: uint32,
  lcr: uint32,
  cr: uint32,
  ifls: uint32,
  imsc: uint32,
  ris: uint32,
  dmacr: uint32,
  receiveFifo: z.array(z.int().min(0).max(0xfff)).max(16).readonly(),
  idlePolls: count,
});

export const Pl031Schema = z.strictObject({
  offset: uint32,
  match: uint32,
  load: uint32,
  imsc: uint32,
  ris: uint32,
  seen: uint32,
});

/** Console input that the guest has not taken yet, in base64. */
export const InputSchema = z.strictObject({
  pending: z.codec(
    z.base64(),
    z.custom<Uint8Array>((value) => value instanceof Uint8Array),
    {
      decode: (text) => new Uint8Array(Buffer.from(text, 'base64')),
      encode: (bytes) => Buffer.from(bytes).toString('base64'),
    },
  ),
});

/** The generator behind the TRNG service. */
export const TrngSchema = z.strictObject({
  words: z.tuple([uint32, uint32, uint32, uint32]),
});

/** The sections in their order, each with the version of its schema. */
export const stateSections = {
  machine: { version: 1, schema: MachineSchema },
  clock: { version: 1, schema: ClockSchema },
  scheduler: { version: 1, schema: SchedulerSchema },
  vcpus: { version: 1, schema: z.array(VcpuSchema).readonly() },
  vgic: { version: 1, schema: VgicSchema },
  pl011: { version: 1, schema: Pl011Schema },
  pl031: { version: 1, schema: Pl031Schema },
  input: { version: 1, schema: InputSchema },
  trng: { version: 1, schema: TrngSchema },
} as const;

export type StateSectionName = keyof typeof stateSections;

export const stateSectionNames = Object.keys(stateSections) as readonly StateSectionName[];

/** Everything of a machine but the pages of its RAM. */
export type MachineState = {
  readonly [K in StateSectionName]: z.output<(typeof stateSections)[K]['schema']>;
};

export type MachineDescriptionState = MachineState['machine'];
export type VcpuState = z.output<typeof VcpuSchema>;
