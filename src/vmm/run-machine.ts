/**
 * Runs a machine on a console from boot to end: slices of the guest, console input and output,
 * sleeping while nothing happens, and what steers it from outside (monitor, migration). The CLI
 * calls it.
 */
import { randomBytes } from 'node:crypto';
import { COUNTER_FREQUENCY_HZ, type VmObserver } from '../kvm/index.ts';
import { FEED_HIGH_WATER_BYTES } from './devices/uart-feed.ts';
import { Machine } from './machine.ts';
import { MachineError } from './machine-error.ts';
import type { MachineConsole, MachineOptions, MachineOutcome } from './machine-options.ts';
import type { Time } from './migration/link.ts';
import { RunControl } from './monitor/run-control.ts';

/** The same while somebody else needs the thread: a migration that carries the guest away. */
const SHARED_SLICE_INSTRUCTIONS = 200_000;

const nextMacrotask = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A name that no other migration or guest has. */
export const newId = (): string => randomBytes(16).toString('hex');

/** The time of this process, for what goes on beside a machine: migrations. */
export const processTime: Time = {
  nowMs: () => performance.now(),
  after: (ms, action) => {
    const timer = setTimeout(action, ms);
    return () => clearTimeout(timer);
  },
  turn: nextMacrotask,
};

/** Boots a VM and resolves when it has ended; see `RunMachine`. Throws `MachineError`. */
export async function runMachine(
  options: MachineOptions,
  console: MachineConsole,
): Promise<MachineOutcome> {
  const started = performance.now();
  const control = new RunControl();
  const output = new OutputBuffer(console.write, () => control.isWithheld);
  const machine = new Machine({
    plan: options.plan,
    blank: options.blank ?? false,
    mte: options.mte,
    seed: options.seed,
    realtime: options.realtime,
    ...(options.policy === undefined ? {} : { policy: options.policy }),
    ...(options.backing === undefined ? {} : { backing: options.backing }),
    observer: traceObserver(options),
    transmit: (byte) => output.push(byte),
  });
  machine.paced = options.paced ?? false;
  const leave = (): void => control.leave('quit');
  console.quit.addEventListener('abort', leave);
  const stopListening = console.onInput((bytes) => {
    machine.input.push(bytes);
    console.setInputPaused(machine.input.pendingBytes > FEED_HIGH_WATER_BYTES);
  });
  const finish = (reason: MachineOutcome['reason']): MachineOutcome => {
    output.flush();
    stopListening();
    console.quit.removeEventListener('abort', leave);
    control.end(reason);
    return { reason, statistics: machine.statistics(performance.now() - started) };
  };
  const detach = await options.attach?.(machine, control);
  try {
    for (;;) {
      if (console.quit.aborted) leave();
      if (control.leaving !== undefined) return finish(control.leaving);
      if (!control.mayRun) {
        output.flush();
        await control.changed();
        continue;
      }
      const turn = machine.runSlice(control.isShared ? SHARED_SLICE_INSTRUCTIONS : undefined);
      output.flush();
      if (machine.input.pendingBytes <= FEED_HIGH_WATER_BYTES) console.setInputPaused(false);
      if (typeof turn === 'string') await control.untilShown();
      if (control.leaving !== undefined) return finish(control.leaving);
      if (turn === 'power-off') return finish('power-off');
      if (turn === 'crash') throw new MachineError('the guest reported a crash');
      if (turn === 'reset') {
        if (options.onReset === 'exit' || !machine.canBoot) return finish('reset');
        machine.reset();
        control.reset();
      } else if (turn.kind === 'idle') {
        machine.skip(await idle(turn.ticks, console.quit));
      } else if (turn.kind === 'paging') {
        await control.changed();
      } else {
        await nextMacrotask();
      }
    }
  } finally {
    await detach?.();
  }
}

/** Longest sleep between looks at console input. */
const IDLE_MS_MAX = 20;

/**
 * Sleeps until a timer is due or something may have come in; resolves to the ticks that this let
 * pass, up to those asked for.
 */
function idle(ticks: number | undefined, quit: AbortSignal): Promise<number> {
  const ticksMax = Math.floor((IDLE_MS_MAX * COUNTER_FREQUENCY_HZ) / 1000);
  const slept = Math.min(ticks ?? ticksMax, ticksMax);
  return new Promise((resolve) => {
    const timer = setTimeout(done, (slept * 1000) / COUNTER_FREQUENCY_HZ);
    function done(): void {
      clearTimeout(timer);
      quit.removeEventListener('abort', done);
      resolve(Math.max(1, slept));
    }
    quit.addEventListener('abort', done);
  });
}

/** Gathers what the guest transmits, so that the console is not written byte by byte. */
class OutputBuffer {
  readonly #write: (bytes: Uint8Array) => void;
  readonly #isWithheld: () => boolean;
  readonly #bytes = new Uint8Array(4096);
  #length = 0;
  /** Whole buffers that may not be written yet. */
  #kept: Uint8Array[] = [];

  constructor(write: (bytes: Uint8Array) => void, isWithheld: () => boolean) {
    this.#write = write;
    this.#isWithheld = isWithheld;
  }

  push(byte: number): void {
    this.#bytes[this.#length++] = byte;
    if (this.#length === this.#bytes.length || byte === 10) this.flush();
  }

  flush(): void {
    if (this.#length > 0) this.#kept.push(this.#bytes.slice(0, this.#length));
    this.#length = 0;
    if (this.#isWithheld()) return;
    for (const bytes of this.#kept) this.#write(bytes);
    this.#kept = [];
  }
}

function traceObserver({ trace, onTrace }: MachineOptions): VmObserver {
  const line = (channel: string, vcpu: number, text: string): void =>
    onTrace(`${channel}: vcpu${vcpu} ${text}`);
  return {
    ...(trace.has('exits')
      ? {
          exit: (vcpu: number, reason: string, detail: string) =>
            line('exits', vcpu, `${reason} ${detail}`),
        }
      : {}),
    ...(trace.has('stage2')
      ? { stage2Fault: (vcpu: number, text: string) => line('stage2', vcpu, text) }
      : {}),
    ...(trace.has('mte') ? { mte: (text: string) => onTrace(`mte: ${text}`) } : {}),
    ...(trace.has('irq')
      ? { interrupt: (vcpu: number, text: string) => line('irq', vcpu, text) }
      : {}),
  };
}
