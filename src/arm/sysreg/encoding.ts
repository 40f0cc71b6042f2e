/**
 * How a system register is named in an opcode: op0, op1, CRn, CRm and op2 packed in 16 bits, in the
 * order of bits 20:5 of MRS and MSR (register), which is also the order of KVM's register ids.
 * Called by the register table, the A64 decoder and KVM. It knows no register.
 */
import { assert } from '../../base/index.ts';

/** The five fields that select a system register. */
export interface SystemRegisterEncoding {
  readonly op0: number;
  readonly op1: number;
  readonly crn: number;
  readonly crm: number;
  readonly op2: number;
}

/** One more than the largest encoding key. */
export const ENCODING_COUNT = 1 << 16;

/** The 16-bit key op0:op1:CRn:CRm:op2 (2, 3, 4, 4 and 3 bits). */
export function encodingKey(
  op0: number,
  op1: number,
  crn: number,
  crm: number,
  op2: number,
): number {
  assert(op0 < 4 && op1 < 8 && crn < 16 && crm < 16 && op2 < 8, 'system register field too large');
  return (op0 << 14) | (op1 << 11) | (crn << 7) | (crm << 3) | op2;
}

/**
 * The key in the MRS or MSR (register) instruction `opcode`: its bits 20:5 (bit 20 is 1: op0 is 2
 * or 3).
 */
export const encodingKeyOfOpcode = (opcode: number): number => (opcode >>> 5) & 0xffff;

/** The fields of a 16-bit `key`. */
export const decodeKey = (key: number): SystemRegisterEncoding => ({
  op0: (key >> 14) & 3,
  op1: (key >> 11) & 7,
  crn: (key >> 7) & 15,
  crm: (key >> 3) & 15,
  op2: key & 7,
});

/** The name that assemblers accept for a register without one: `S3_0_C1_C0_0`. */
export function genericName(key: number): string {
  const { op0, op1, crn, crm, op2 } = decodeKey(key);
  return `S${op0}_${op1}_C${crn}_C${crm}_${op2}`;
}

/** The key of a generic name in either case, or -1 when `name` is not one. */
export function keyOfGenericName(name: string): number {
  const match = /^s([0-3])_([0-7])_c(\d{1,2})_c(\d{1,2})_([0-7])$/i.exec(name);
  if (match === null) return -1;
  const [op0, op1, crn, crm, op2] = match.slice(1).map(Number) as [
    number,
    number,
    number,
    number,
    number,
  ];
  return crn < 16 && crm < 16 ? encodingKey(op0, op1, crn, crm, op2) : -1;
}
