/**
 * Replays golden vectors on the engine: a core with the tables and memory of `golden-world.ts`, one
 * vector after the other. Behind a vector's words is BRK, and every exception vector holds HVC, so
 * that a run ends with the exit that HVC makes. Called by `golden.test.ts`.
 */

import { assert, pa } from '../../src/base/index.ts';
import * as S from '../../src/engine/state.ts';
import { CpuContext as Context, type CpuContext, slotIndex } from '../../src/machine/context.ts';
import { Core } from '../../src/machine/core.ts';
import { PhysicalMemory } from '../../src/machine/memory.ts';
import { packNzcv, unpackNzcv } from '../../src/machine/pstate.ts';
import {
  type GoldenFile,
  type GoldenVector,
  initialState,
  memoryChanges,
  registerChanges,
  type State,
  tagChanges,
} from './golden-state.ts';
import {
  BRK,
  BUFFERS,
  type Buffer3,
  bufferPa,
  CODE_PA,
  PAGE,
  PC,
  pristineBytes,
  pristineTags,
  RAM_BYTES,
  RAM_PA,
  sctlrWithTcf,
  tables,
  VECTORS_PA,
  WORLD_REGISTERS,
  WRITABLE_BYTES,
} from './golden-world.ts';

const HVC = 0xd4000002;
const BRK_SYNDROME = 0xf2000000;
const BUDGET = 100;

type RegisterName = Parameters<typeof slotIndex>[0];

export class GoldenMachine {
  readonly #memory = new PhysicalMemory({
    zones: [{ kind: 'dram', base: pa(RAM_PA), sizeBytes: RAM_BYTES }],
    recordPageCount: 16,
  });
  readonly #core = new Core(this.#memory);
  readonly #context: CpuContext;
  readonly #pristine = new Map(BUFFERS.map((buffer) => [buffer, pristineBytes(buffer)]));
  readonly #pristineTags = pristineTags();

  constructor() {
    this.#context = new Context(this.#memory, {
      index: 0,
      hypervisor: { readRegister: () => undefined, writeRegister: () => 'undefined' },
    });
    this.#core.tlbs.register(this.#context);
    const memory = this.#memory;
    memory.writeBytes(pa(RAM_PA), tables());
    for (let at = 0; at < PAGE; at += 4) {
      memory.write32(pa(CODE_PA + at), BRK);
      memory.write32(pa(VECTORS_PA + at), HVC);
    }
    for (const buffer of BUFFERS) this.#restore(buffer);
  }

  /** What the vector's words do, in the form of its changes. */
  run(vector: GoldenVector, mode: GoldenFile['mode']): Map<string, string> {
    const start = initialState(vector);
    this.#prepare(vector, start, mode);
    this.#core.beginTurn(this.#context);
    let exit = this.#core.run(this.#context, BUDGET);
    while (exit.kind === 'wait') exit = this.#core.run(this.#context, BUDGET);
    this.#core.unload();
    assert(exit.kind === 'call' && exit.call === 'hvc', 'a vector ends in an exception to EL1');
    const changes = registerChanges(start, this.#finalState());
    const pc = Number(this.#register('ELR_EL1'));
    if (pc !== PC + 4 * vector.words.length) changes.set('pc', pc.toString(16));
    for (const buffer of BUFFERS) this.#compare(buffer, changes);
    this.#endOfVector(vector, mode, changes);
    return changes;
  }

  // ---- before -----------------------------------------------------------------------------------

  #setRegister(name: RegisterName, value: bigint): void {
    this.#context.savedU64[slotIndex(name) / 2] = value;
  }

  #prepare(vector: GoldenVector, start: State, mode: GoldenFile['mode']): void {
    const input = (key: string, otherwise: bigint): bigint => {
      const text = vector.inputs.get(key);
      return text === undefined ? otherwise : BigInt(`0x${text}`);
    };
    const context = this.#context;
    const { saved, savedI32, savedU64 } = context;
    context.reset();
    context.mte = input('mte', 1n) === 1n;
    for (const [name, value] of Object.entries(WORLD_REGISTERS)) {
      this.#setRegister(name as RegisterName, value);
    }
    this.#setRegister('SCTLR_EL1', input('sctlr', sctlrWithTcf(Number(input('tcf', 1n)))));
    this.#setRegister('GCR_EL1', input('gcr', WORLD_REGISTERS.GCR_EL1));
    this.#setRegister('RGSR_EL1', input('rgsr', 0n));
    this.#setRegister('TFSR_EL1', 0n);
    this.#setRegister('TFSRE0_EL1', 0n);
    this.#setRegister('VBAR_EL1', BigInt(VECTORS_PA));
    this.#setRegister('FPCR', BigInt(start.fpcr));
    this.#setRegister('FPSR', BigInt(start.fpsr));
    savedU64.set(start.x, S.X / 8);
    savedU64[S.SP / 8] = start.sp;
    savedU64[S.PC / 8] = BigInt(PC);
    start.v.forEach((value, i) => {
      savedU64[S.V / 8 + 2 * i] = BigInt.asUintN(64, value);
      savedU64[S.V / 8 + 2 * i + 1] = value >> 64n;
    });
    unpackNzcv(savedI32, start.nzcv << 28);
    savedI32[S.EL / 4] = mode === 'system' ? Number(input('el', 0n)) : 0;
    savedI32[S.PSTATE_SPSEL / 4] = 0;
    assert(saved.length === S.STATE_BYTES, 'the context has a state');
    vector.words.forEach((word, i) => {
      this.#memory.write32(pa(CODE_PA + (PC % PAGE) + 4 * i), word);
    });
    this.#memory.write32(pa(CODE_PA + (PC % PAGE) + 4 * vector.words.length), BRK);
  }

  #restore(buffer: Buffer3): void {
    const base = bufferPa(buffer);
    this.#memory.writeBytes(pa(base), this.#pristine.get(buffer)!);
    if (!buffer.tagged) return;
    this.#pristineTags.forEach((tag, i) => {
      this.#memory.writeTag(pa(base + 16 * i), tag);
    });
  }

  // ---- after ------------------------------------------------------------------------------------

  #register(name: RegisterName): bigint {
    return this.#context.savedU64[slotIndex(name) / 2]!;
  }

  #finalState(): State {
    const { savedU64, savedI32 } = this.#context;
    const spsr = new Int32Array(savedI32.length);
    unpackNzcv(spsr, Number(BigInt.asIntN(32, this.#register('SPSR_EL1'))));
    return {
      x: Array.from(savedU64.subarray(S.X / 8, S.X / 8 + 31)),
      sp: this.#register('SP_EL0'),
      nzcv: packNzcv(spsr) >>> 28,
      fpcr: Number(this.#register('FPCR')),
      fpsr: Number(this.#register('FPSR')),
      v: Array.from(
        { length: 32 },
        (_, i) => savedU64[S.V / 8 + 2 * i]! | (savedU64[S.V / 8 + 2 * i + 1]! << 64n),
      ),
    };
  }

  /** Adds what changed in a buffer, and puts it back. */
  #compare(buffer: Buffer3, changes: Map<string, string>): void {
    const base = pa(bufferPa(buffer));
    const before = this.#pristine.get(buffer)!.subarray(0, WRITABLE_BYTES);
    const found = memoryChanges(buffer.va, before, this.#memory.readBytes(base, WRITABLE_BYTES));
    if (buffer.tagged) {
      const oldTags = this.#pristineTags.subarray(0, WRITABLE_BYTES / 16);
      const tags = oldTags.map((_, i) => this.#memory.readTag(pa(base + 16 * i)));
      for (const [key, text] of tagChanges(buffer.va, oldTags, tags)) found.set(key, text);
    }
    if (found.size > 0) this.#restore(buffer);
    for (const [key, text] of found) changes.set(key, text);
  }

  #endOfVector(vector: GoldenVector, mode: GoldenFile['mode'], changes: Map<string, string>): void {
    const esr = Number(this.#register('ESR_EL1'));
    const far = this.#register('FAR_EL1');
    if (mode === 'user') {
      if (esr !== BRK_SYNDROME) changes.set('fault', signalOf(esr, far));
      return;
    }
    if (esr !== BRK_SYNDROME) {
      changes.set('esr', esr.toString(16));
      if (esr >>> 26 === 0x24 || esr >>> 26 === 0x25) changes.set('far', far.toString(16));
    }
    const rgsr = this.#register('RGSR_EL1').toString(16);
    if (rgsr !== (vector.inputs.get('rgsr') ?? '0')) changes.set('rgsr', rgsr);
    for (const name of ['TFSR_EL1', 'TFSRE0_EL1'] as const) {
      const value = this.#register(name);
      if (value !== 0n) changes.set(name.replace('_EL1', '').toLowerCase(), value.toString(16));
    }
  }
}

/** The signal that Linux makes of a syndrome, as the vectors spell it. Linux: arm64 mm/fault.c. */
function signalOf(esr: number, far: bigint): string {
  const address = `@${(far & ((1n << 56n) - 1n)).toString(16)}`;
  const ec = esr >>> 26;
  if (ec === 0) return 'ill';
  if (ec === 0x26) return `bus.1${address}`;
  if (ec !== 0x24) return `esr.${esr.toString(16)}`;
  const status = esr & 0x3f;
  if (status === 0x21) return `bus.1${address}`;
  if (status === 0x11) return `segv.9${address}`;
  return `segv.${status >> 2 === 3 ? 2 : 1}${address}`;
}
