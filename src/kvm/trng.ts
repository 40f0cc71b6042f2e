/**
 * The Arm True Random Number Generator firmware interface, with bits from a seeded generator: a run
 * is repeatable. Called by smccc.ts for calls that are allowed.
 * Linux: arch/arm64/kvm/trng.c. Arm: DEN 0098.
 */

import type { Prng } from '../base/index.ts';
import { answer, type GeneralRegisters, type HypercallAction, low32Of } from './hypercall.ts';
import {
  ARM_SMCCC_TRNG_FEATURES,
  ARM_SMCCC_TRNG_GET_UUID,
  ARM_SMCCC_TRNG_RND32,
  ARM_SMCCC_TRNG_RND64,
  ARM_SMCCC_TRNG_VERSION,
} from './uapi.ts';

const VERSION_1_0 = 0x1_0000;
const SUCCESS = 0;
const NOT_SUPPORTED = -1;
const INVALID_PARAMETER = -2;

/** KVM's: 0d21e000-4384-11eb-8070-5244554e5a4c, in little-endian words. */
const UUID = [0x00e0_210d, 0xeb11_8443, 0x4452_7080, 0x4c5a_4e55] as const;

/** Carries out the TRNG call whose function id is in x0. */
export function callTrng(prng: Prng, registers: GeneralRegisters): HypercallAction {
  switch (low32Of(registers, 0)) {
    case ARM_SMCCC_TRNG_VERSION:
      return answer(registers, VERSION_1_0);
    case ARM_SMCCC_TRNG_FEATURES:
      return answer(registers, isImplemented(registers[1]!) ? SUCCESS : NOT_SUPPORTED);
    case ARM_SMCCC_TRNG_GET_UUID:
      return answer(registers, ...UUID);
    case ARM_SMCCC_TRNG_RND32:
      return random(prng, registers, 32);
    case ARM_SMCCC_TRNG_RND64:
      return random(prng, registers, 64);
    default:
      return answer(registers, NOT_SUPPORTED);
  }
}

const isImplemented = (functionId: bigint): boolean =>
  [
    ARM_SMCCC_TRNG_VERSION,
    ARM_SMCCC_TRNG_FEATURES,
    ARM_SMCCC_TRNG_GET_UUID,
    ARM_SMCCC_TRNG_RND32,
    ARM_SMCCC_TRNG_RND64,
  ].some((id) => BigInt(id) === functionId);

/** x1 random bits, at most three words of `width`: the low ones in x3, then x2, then x1. */
function random(prng: Prng, registers: GeneralRegisters, width: 32 | 64): HypercallAction {
  const count = low32Of(registers, 1);
  if (count > 3 * width) return answer(registers, INVALID_PARAMETER);
  let bits = 0n;
  for (let have = 0; have < count; have += 64) bits |= prng.u64() << BigInt(have);
  bits = BigInt.asUintN(count, bits);
  const word = (n: number): bigint => BigInt.asUintN(width, bits >> BigInt(n * width));
  return answer(registers, SUCCESS, word(2), word(1), word(0));
}
