/**
 * Tags by KVM_ARM_MTE_COPY_TAGS, as upstream has it: one byte a tag granule through a buffer in the
 * VMM's memory, packed and unpacked here. Made by `tags.ts`.
 */
import { assert, type Hva, hva, PAGE_SIZE, packTags, unpackTags } from '../../base/index.ts';
import { isRefusal, MapFlag, Prot } from '../../host/index.ts';
import { KVM_ARM_TAGS_FROM_GUEST, KVM_ARM_TAGS_TO_GUEST } from '../../kvm/index.ts';
import { CHUNK_PAGES } from './dirty-pages.ts';
import { type GuestRam, pageIpa, refused, TAG_BYTES, TAGS_PER_PAGE } from './guest-ram.ts';
import type { Time } from './link.ts';
import { MigrationError } from './migration-error.ts';
import { noTagCost, type PageSpan, type TagReader, type TagWriter } from './tag-transfer.ts';

export interface IoctlTagOptions {
  /** Pages a call copies at most; 1: page by page. */
  readonly pagesPerCall?: number;
}

/** The buffer in the VMM's memory, and calls that go through it. */
class TagBuffer {
  readonly cost = noTagCost();
  readonly pagesPerCall: number;
  readonly bytes: Uint8Array;
  readonly #ram: GuestRam;
  readonly #time: Time;
  readonly #at: Hva;

  constructor(ram: GuestRam, { pagesPerCall = CHUNK_PAGES }: IoctlTagOptions, time: Time) {
    assert(pagesPerCall >= 1, 'a call copies at least a page');
    this.#ram = ram;
    this.#time = time;
    this.pagesPerCall = pagesPerCall;
    this.bytes = new Uint8Array(pagesPerCall * TAGS_PER_PAGE);
    const at = ram.process.mmap({
      length: this.bytes.length,
      prot: Prot.read | Prot.write,
      flags: MapFlag.private | MapFlag.anonymous,
    });
    if (isRefusal(at)) throw refused('mmap of a buffer for tags', at);
    this.#at = at;
  }

  /** From the guest into `bytes`. */
  get(span: PageSpan): void {
    this.#copy(span, KVM_ARM_TAGS_FROM_GUEST);
    const taken = this.bytes.subarray(0, span.pageCount * TAGS_PER_PAGE);
    const read = this.#ram.process.memory.readInto(this.#at, taken);
    assert(read === taken.length, 'the buffer is mapped');
  }

  /** From `bytes` to the guest. */
  put(span: PageSpan): void {
    const given = this.bytes.subarray(0, span.pageCount * TAGS_PER_PAGE);
    const written = this.#ram.process.memory.writeFrom(this.#at, given);
    assert(written === given.length, 'the buffer is mapped');
    this.#copy(span, KVM_ARM_TAGS_TO_GUEST);
  }

  #copy({ range, firstPage, pageCount }: PageSpan, flags: number): void {
    const guestIpa = pageIpa(range, firstPage);
    const length = pageCount * PAGE_SIZE;
    const began = this.#time.nowMs();
    const done = this.#ram.kvm.copyTags({ guestIpa, length, addr: this.#at, flags });
    this.cost.milliseconds += this.#time.nowMs() - began;
    this.cost.calls++;
    this.cost.bytes += pageCount * TAGS_PER_PAGE;
    this.cost.pages += pageCount;
    if (isRefusal(done)) throw refused('KVM_ARM_MTE_COPY_TAGS', done);
    if (done === length) return;
    throw new MigrationError(
      'machine',
      `KVM_ARM_MTE_COPY_TAGS: ${done} of ${length} bytes from 0x${guestIpa.toString(16)}`,
    );
  }

  close(): void {
    const gone = this.#ram.process.munmap(hva(this.#at), this.bytes.length);
    assert(!isRefusal(gone), 'the buffer is mapped');
  }
}

/**
 * Calls `visit` for the parts of a span that one call may copy, with the offset of its packed tags.
 */
function forEachCall(
  { range, firstPage, pageCount }: PageSpan,
  pagesPerCall: number,
  visit: (part: PageSpan, packedAt: number) => void,
): void {
  for (let done = 0; done < pageCount; done += pagesPerCall) {
    const part = {
      range,
      firstPage: firstPage + done,
      pageCount: Math.min(pagesPerCall, pageCount - done),
    };
    visit(part, done * TAG_BYTES);
  }
}

export class IoctlTagReader implements TagReader {
  readonly #buffer: TagBuffer;

  constructor(ram: GuestRam, options: IoctlTagOptions, time: Time) {
    this.#buffer = new TagBuffer(ram, options, time);
  }

  get cost() {
    return this.#buffer.cost;
  }

  read(span: PageSpan, packed: Uint8Array): void {
    const { bytes, pagesPerCall } = this.#buffer;
    forEachCall(span, pagesPerCall, (part, packedAt) => {
      this.#buffer.get(part);
      packTags(bytes, packed.subarray(packedAt, packedAt + part.pageCount * TAG_BYTES));
    });
  }

  close(): void {
    this.#buffer.close();
  }
}

export class IoctlTagWriter implements TagWriter {
  readonly #buffer: TagBuffer;

  constructor(ram: GuestRam, options: IoctlTagOptions, time: Time) {
    this.#buffer = new TagBuffer(ram, options, time);
  }

  get cost() {
    return this.#buffer.cost;
  }

  write(span: PageSpan, packed: Uint8Array): void {
    const { bytes, pagesPerCall } = this.#buffer;
    forEachCall(span, pagesPerCall, (part, packedAt) => {
      unpackTags(packed.subarray(packedAt, packedAt + part.pageCount * TAG_BYTES), bytes);
      this.#buffer.put(part);
    });
  }

  close(): void {
    this.#buffer.close();
  }
}
