/**
 * The console's escape key: Ctrl-a, then x to quit, h for help, Ctrl-a to send one. Anything else
 * after Ctrl-a is swallowed, as by QEMU and picocom's kin. `console.ts` feeds it.
 */
const CTRL_A = 0x01;
const LOWER_X = 0x78;
const LOWER_H = 0x68;

export type EscapeCommand = 'quit' | 'help';

export interface Escaped {
  readonly toGuest: Uint8Array;
  readonly commands: readonly EscapeCommand[];
}

export class EscapeFilter {
  #escaped = false;

  /** Divides what was typed; a Ctrl-a at the end waits for the next call. */
  feed(bytes: Uint8Array): Escaped {
    const toGuest: number[] = [];
    const commands: EscapeCommand[] = [];
    for (const byte of bytes) {
      if (!this.#escaped && byte === CTRL_A) {
        this.#escaped = true;
        continue;
      }
      if (!this.#escaped || byte === CTRL_A) toGuest.push(byte);
      else if (byte === LOWER_X) commands.push('quit');
      else if (byte === LOWER_H) commands.push('help');
      this.#escaped = false;
    }
    return { toGuest: Uint8Array.from(toGuest), commands };
  }
}
