/** Pure 128-bit vector values of the builders: WebAssembly's SIMD instructions as expressions. */
import type { ElementSize, I32, I64, V128, Value } from '../arm/a64/ops.ts';
import { assert } from '../base/index.ts';
import * as E from './expressions.ts';
import { Op } from './wasm/code.ts';
import { SimdOp, simdOpcode } from './wasm/simd.ts';

function opcodeOf(name: string): number {
  const opcode = simdOpcode.get(name);
  assert(opcode !== undefined, 'a WebAssembly SIMD instruction of this name');
  return opcode;
}

/** A SIMD instruction by name, e.g. 'i16x8.add'. */
export function vop(name: string, ...operands: Value[]): V128 {
  const opcode = opcodeOf(name);
  return E.asV128((c) => {
    for (const operand of operands) E.emit(operand, c);
    c.op(Op.prefixFd).u32(opcode);
  });
}

/** The same for those that give an integer, e.g. 'i8x16.bitmask'. */
export function vtest(name: string, ...operands: Value[]): I32 {
  const opcode = opcodeOf(name);
  return E.asI32((c) => {
    for (const operand of operands) E.emit(operand, c);
    c.op(Op.prefixFd).u32(opcode);
  });
}

export function shuffle(a: V128, b: V128, lanes: readonly number[]): V128 {
  assert(lanes.length === 16, 'a shuffle has 16 lanes');
  return E.asV128((c) => {
    E.emit(a, c);
    E.emit(b, c);
    c.op(Op.prefixFd).u32(SimdOp.shuffle);
    for (const index of lanes) c.op(index);
  });
}

export function v128(low: bigint, high: bigint): V128 {
  return E.asV128((c) => {
    c.op(Op.prefixFd).u32(SimdOp.const);
    for (const half of [low, high]) {
      for (let i = 0n; i < 64n; i += 8n) c.op(Number((half >> i) & 0xffn));
    }
  });
}

/** Element `index`, zero-extended. */
export function lane(vector: V128, size: ElementSize, index: number): I64 {
  const emitLane = (c: Parameters<typeof E.emit>[1]): void => {
    E.emit(vector, c);
    c.op(Op.prefixFd).u32(SimdOp[`extract${size}`]).op(index);
  };
  return size === 64 ? E.asI64(emitLane) : E.zext(E.asI32(emitLane));
}

export function withLane(vector: V128, size: ElementSize, index: number, value: I64): V128 {
  const operand = size === 64 ? value : E.wrap(value);
  return E.asV128((c) => {
    E.emit(vector, c);
    E.emit(operand, c);
    c.op(Op.prefixFd).u32(SimdOp[`replace${size}`]).op(index);
  });
}

export function splat(size: ElementSize, value: I64): V128 {
  if (size === 64) return vop('i64x2.splat', value);
  const shape = { 8: 'i8x16', 16: 'i16x8', 32: 'i32x4' }[size];
  return vop(`${shape}.splat`, E.wrap(value));
}
