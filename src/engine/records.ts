/**
 * Record pages: predecoded instructions. A page of code has a record page of 1024 records (i32
 * handler, i32 opcode) and one more that leads to the next page. A record is 0 (the handler that
 * decodes it) until it is first executed, and again once its page was written to.
 *
 * Invariant: `codePages[p]` is 1 exactly while records of RAM page p may be non-zero; then no
 * software TLB entry permits writes to p.
 */
import type { Decoder } from '../arm/a64/decoder.ts';
import { PAGE_SIZE } from '../base/index.ts';
import { type MemoryLayout, RECORD_PAGE_BYTES } from './layout.ts';
import * as S from './state.ts';

/** Handlers outside the rows, by table index. Variant v of the rows has index ROW_HANDLERS + v. */
export const BuiltinHandler = { decode: 0, pageEnd: 1, unallocated: 2, stop: 3 } as const;
export const ROW_HANDLERS = 4;

export class Records {
  readonly #layout: MemoryLayout;
  readonly #i32: Int32Array;
  readonly #decoder: Decoder;
  readonly #codePages: Uint8Array;
  /** Record page by RAM page, and back; -1 = none. */
  readonly #recordOf: Int32Array;
  readonly #ramOf: Int32Array;
  #used = 0;
  /** Called when every record page is dropped: fetch TLBs must be emptied. */
  readonly #onFlush: () => void;
  /** Called when a page begins to hold code: write permission must leave the software TLBs. */
  readonly #onCode: (linearPage: number) => void;

  constructor(options: {
    layout: MemoryLayout;
    memory: WebAssembly.Memory;
    decoder: Decoder;
    codePages: Uint8Array;
    onFlush: () => void;
    onCode: (linearPage: number) => void;
  }) {
    this.#layout = options.layout;
    this.#i32 = new Int32Array(options.memory.buffer);
    this.#decoder = options.decoder;
    this.#codePages = options.codePages;
    this.#onFlush = options.onFlush;
    this.#onCode = options.onCode;
    this.#recordOf = new Int32Array(options.layout.ramBytes / PAGE_SIZE).fill(-1);
    this.#ramOf = new Int32Array(options.layout.recordPageCount).fill(-1);
  }

  #base(index: number): number {
    return this.#layout.recordBase + index * RECORD_PAGE_BYTES;
  }

  /** Linear address of the record page for the RAM page at `linearPage`; makes one if needed. */
  forPage(linearPage: number): number {
    const ramPage = (linearPage - this.#layout.ramBase) / PAGE_SIZE;
    let index = this.#recordOf[ramPage]!;
    if (index < 0) {
      if (this.#used === this.#layout.recordPageCount) this.flush();
      index = this.#used++;
      this.#recordOf[ramPage] = index;
      this.#ramOf[index] = ramPage;
      this.#clear(index);
    }
    this.#markCode(ramPage);
    return this.#base(index);
  }

  #clear(index: number): void {
    const first = this.#base(index) / 4;
    this.#i32.fill(0, first, first + 2048);
    this.#i32[first + 2048] = BuiltinHandler.pageEnd;
    this.#i32[first + 2049] = 0;
  }

  #markCode(ramPage: number): void {
    if (this.#codePages[ramPage] === 1) return;
    this.#codePages[ramPage] = 1;
    this.#onCode(this.#layout.ramBase + ramPage * PAGE_SIZE);
  }

  /** Fills the record at `rp` from the opcode in RAM. Called by the `decode` handler. */
  decode(rp: number): void {
    const index = Math.floor((rp - this.#layout.recordBase) / RECORD_PAGE_BYTES);
    const ramPage = this.#ramOf[index]!;
    this.#markCode(ramPage);
    const offset = (rp - this.#base(index)) / 2;
    const word = this.#i32[(this.#layout.ramBase + ramPage * PAGE_SIZE + offset) / 4]! >>> 0;
    const decoded = this.#decoder.find(word);
    this.#i32[rp / 4 + 1] = word;
    this.#i32[rp / 4] =
      decoded === undefined
        ? BuiltinHandler.unallocated
        : ROW_HANDLERS + this.#decoder.variant(decoded, word);
  }

  /**
   * Copies the record at `rp` to STEP_RECORD, decoded, so that it runs alone. `offset` is that of
   * the instruction in its page, in bytes. What generated code derives from RECORD_BASE stays
   * right.
   */
  isolate(rp: number, offset: number): void {
    if (this.#i32[rp / 4] === BuiltinHandler.decode) this.decode(rp);
    const at = S.STEP_RECORD / 4;
    this.#i32[at] = this.#i32[rp / 4]!;
    this.#i32[at + 1] = this.#i32[rp / 4 + 1]!;
    this.#i32[at + 2] = BuiltinHandler.stop;
    this.#i32[at + 3] = 0;
    this.#i32[S.RECORD_BASE / 4] = S.STEP_RECORD - 2 * offset;
  }

  /** The RAM page is about to change: its records must be decoded again. */
  dropPage(ramPage: number): void {
    if (this.#codePages[ramPage] === 0) return;
    this.#codePages[ramPage] = 0;
    this.#clear(this.#recordOf[ramPage]!);
  }

  /** Drops every record page. */
  flush(): void {
    for (let index = 0; index < this.#used; index++) {
      const ramPage = this.#ramOf[index]!;
      this.#recordOf[ramPage] = -1;
      this.#ramOf[index] = -1;
      this.#codePages[ramPage] = 0;
    }
    this.#used = 0;
    this.#onFlush();
  }
}
