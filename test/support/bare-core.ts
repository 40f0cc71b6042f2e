/**
 * A core alone, without hypervisor or stage 2, for tests of the machine's own floor: a program at
 * the start of DRAM and one context that begins there at EL1 with the MMU off.
 */
import { assembleProgram } from '../../src/arm/a64/program.ts';
import * as S from '../../src/engine/state.ts';
import { CpuContext } from '../../src/machine/context.ts';
import { Core } from '../../src/machine/core.ts';
import { DRAM_BASE, dramOnly, PhysicalMemory } from '../../src/machine/memory.ts';

const RAM_BYTES = 4 * 1024 * 1024;

export interface BareCore {
  readonly core: Core;
  readonly context: CpuContext;
  readonly memory: PhysicalMemory;
}

/** A machine with `source` assembled into it. */
export function bareCore(source: string): BareCore {
  const memory = new PhysicalMemory({ zones: dramOnly(RAM_BYTES), recordPageCount: 64 });
  const core = new Core(memory);
  const context = new CpuContext(memory, {
    index: 0,
    hypervisor: { readRegister: () => undefined, writeRegister: () => 'undefined' },
  });
  core.tlbs.register(context);
  context.reset();
  const program = assembleProgram(source, { base: BigInt(DRAM_BASE) });
  memory.writeBytes(DRAM_BASE, program.bytes);
  context.savedU64[S.PC / 8] = BigInt(DRAM_BASE);
  return { core, context, memory };
}
