/** A growing sequence of WebAssembly code bytes and the encodings of its immediates. */

/** Value types. */
export const ValueType = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, v128: 0x7b } as const;
export type ValueType = keyof typeof ValueType;

/** The type of a block without parameters and results. */
export const BLOCK_EMPTY = 0x40;

/** Opcodes used here. WebAssembly core specification, appendix "Index of Instructions". */
export const Op = {
  unreachable: 0x00,
  block: 0x02,
  loop: 0x03,
  if: 0x04,
  else: 0x05,
  end: 0x0b,
  br: 0x0c,
  brIf: 0x0d,
  return: 0x0f,
  call: 0x10,
  callIndirect: 0x11,
  returnCall: 0x12,
  returnCallIndirect: 0x13,
  drop: 0x1a,
  select: 0x1b,
  localGet: 0x20,
  localSet: 0x21,
  localTee: 0x22,
  i32Load: 0x28,
  i64Load: 0x29,
  i32Load8U: 0x2d,
  i32Load16U: 0x2f,
  i64Load8U: 0x31,
  i64Load16U: 0x33,
  i64Load32U: 0x35,
  i32Store: 0x36,
  i64Store: 0x37,
  i32Store8: 0x3a,
  i64Store8: 0x3c,
  i64Store16: 0x3d,
  i64Store32: 0x3e,
  i32Const: 0x41,
  i64Const: 0x42,
  i32Eqz: 0x45,
  i32Eq: 0x46,
  i32Ne: 0x47,
  i32LtS: 0x48,
  i32LtU: 0x49,
  i32GtS: 0x4a,
  i32GtU: 0x4b,
  i32LeS: 0x4c,
  i32LeU: 0x4d,
  i32GeU: 0x4f,
  i64Eqz: 0x50,
  i64Eq: 0x51,
  i64Ne: 0x52,
  i64LtS: 0x53,
  i64LtU: 0x54,
  i64LeS: 0x57,
  i64LeU: 0x58,
  i32Add: 0x6a,
  i32Sub: 0x6b,
  i32And: 0x71,
  i32Or: 0x72,
  i32Shl: 0x74,
  i32ShrU: 0x76,
  i64Add: 0x7c,
  i64And: 0x83,
  i64Or: 0x84,
  i64ShrU: 0x88,
  i64ShrS: 0x87,
  i32WrapI64: 0xa7,
  i64ExtendI32S: 0xac,
  i64ExtendI32U: 0xad,
  prefixFc: 0xfc,
  prefixFd: 0xfd,
} as const;

export class Code {
  #buffer = new Uint8Array(256);
  #length = 0;

  /** What has been appended so far; valid until the next append. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#buffer.subarray(0, this.#length);
  }

  get length(): number {
    return this.#length;
  }

  #reserve(count: number): void {
    if (this.#length + count <= this.#buffer.length) return;
    const grown = new Uint8Array(Math.max(this.#buffer.length * 2, this.#length + count));
    grown.set(this.bytes);
    this.#buffer = grown;
  }

  op(opcode: number): this {
    if (this.#length === this.#buffer.length) this.#reserve(1);
    this.#buffer[this.#length++] = opcode;
    return this;
  }

  /** Unsigned LEB128 of a value below 2^32. */
  u32(value: number): this {
    let rest = value >>> 0;
    while (rest >= 0x80) {
      this.op((rest & 0x7f) | 0x80);
      rest >>>= 7;
    }
    this.op(rest);
    return this;
  }

  /** Signed LEB128 of a 32-bit value. */
  s32(value: number): this {
    let rest = value | 0;
    for (;;) {
      const low = rest & 0x7f;
      rest >>= 7;
      if ((rest === 0 && (low & 0x40) === 0) || (rest === -1 && (low & 0x40) !== 0)) {
        return this.op(low);
      }
      this.op(low | 0x80);
    }
  }

  /** Signed LEB128 of a 64-bit value. */
  s64(value: bigint): this {
    if (value >= -0x40000000n && value < 0x40000000n) return this.s32(Number(value));
    let rest = BigInt.asIntN(64, value);
    for (;;) {
      const low = Number(rest & 0x7fn);
      rest >>= 7n;
      if ((rest === 0n && (low & 0x40) === 0) || (rest === -1n && (low & 0x40) !== 0)) {
        return this.op(low);
      }
      this.op(low | 0x80);
    }
  }

  i32(value: number): this {
    return this.op(Op.i32Const).s32(value);
  }

  i64(value: bigint): this {
    return this.op(Op.i64Const).s64(value);
  }

  get(local: number): this {
    return this.op(Op.localGet).u32(local);
  }

  set(local: number): this {
    return this.op(Op.localSet).u32(local);
  }

  tee(local: number): this {
    return this.op(Op.localTee).u32(local);
  }

  /** A load or store: opcode, alignment hint 0 (bytes), offset. */
  memory(opcode: number, offset: number): this {
    return this.op(opcode).u32(0).u32(offset);
  }

  /** Loads from a constant address. */
  loadAt(opcode: number, address: number): this {
    return this.i32(0).memory(opcode, address);
  }

  append(other: Code): this {
    this.#reserve(other.length);
    this.#buffer.set(other.bytes, this.#length);
    this.#length += other.length;
    return this;
  }
}
