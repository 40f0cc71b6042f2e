/** The part of capstone-wasm that the tests use; its package does not export its own types. */
declare module 'capstone-wasm' {
  export const Const: {
    readonly CS_ARCH_ARM64: number;
    readonly CS_MODE_LITTLE_ENDIAN: number;
  };

  export interface Insn {
    readonly mnemonic: string;
    readonly opStr: string;
  }

  export class Capstone {
    constructor(arch: number, mode: number);
    /** Throws where it decodes nothing. */
    disasm(data: Uint8Array, options?: { address?: number | bigint; count?: number }): Insn[];
  }

  export function loadCapstone(): Promise<void>;
}
