/**
 * Tags without the hypervisor: guest RAM is a memfd that the VMM has mapped a second time with
 * PROT_MTE, and reads and writes tags there itself (LDG and STG; KVM-ORACLE D19). The first
 * mapping, which the memslot names, stays untagged, so that the VMM's devices need no tagged
 * pointers. Made by `tags.ts`.
 */
import { hva, PAGE_SIZE, packTags, unpackTags } from '../../base/index.ts';
import { accept, type GuestRam, TAG_BYTES, TAGS_PER_PAGE } from './guest-ram.ts';
import type { Time } from './link.ts';
import { noTagCost, type PageSpan, type TagReader, type TagWriter } from './tag-transfer.ts';

/** What reading and writing share: the mapping, and a buffer that grows. */
class SecondMapping {
  readonly cost = noTagCost();
  readonly #ram: GuestRam;
  readonly #time: Time;
  #tags = new Uint8Array(0);

  constructor(ram: GuestRam, time: Time) {
    this.#ram = ram;
    this.#time = time;
  }

  /** Room for the span's tags, one to a byte. */
  tagsOf({ pageCount }: PageSpan): Uint8Array {
    const count = pageCount * TAGS_PER_PAGE;
    if (this.#tags.length < count) this.#tags = new Uint8Array(count);
    return this.#tags.subarray(0, count);
  }

  load(span: PageSpan, tags: Uint8Array): void {
    this.#timed(span, 'loading tags', (at) => this.#ram.process.memory.loadTags(at, tags));
  }

  store(span: PageSpan, tags: Uint8Array): void {
    this.#timed(span, 'storing tags', (at) => this.#ram.process.memory.storeTags(at, tags));
  }

  #timed(
    { range, firstPage, pageCount }: PageSpan,
    what: string,
    access: (at: ReturnType<typeof hva>) => number,
  ): void {
    const began = this.#time.nowMs();
    accept(what, access(hva(range.taggedHva! + firstPage * PAGE_SIZE)));
    this.cost.milliseconds += this.#time.nowMs() - began;
    this.cost.calls++;
    this.cost.bytes += pageCount * TAGS_PER_PAGE;
    this.cost.pages += pageCount;
  }
}

export class DualMappingTagReader implements TagReader {
  readonly #mapping: SecondMapping;

  constructor(ram: GuestRam, time: Time) {
    this.#mapping = new SecondMapping(ram, time);
  }

  get cost() {
    return this.#mapping.cost;
  }

  read(span: PageSpan, packed: Uint8Array): void {
    const tags = this.#mapping.tagsOf(span);
    this.#mapping.load(span, tags);
    packTags(tags, packed.subarray(0, span.pageCount * TAG_BYTES));
  }

  close(): void {}
}

export class DualMappingTagWriter implements TagWriter {
  readonly #mapping: SecondMapping;

  constructor(ram: GuestRam, time: Time) {
    this.#mapping = new SecondMapping(ram, time);
  }

  get cost() {
    return this.#mapping.cost;
  }

  write(span: PageSpan, packed: Uint8Array): void {
    const tags = this.#mapping.tagsOf(span);
    unpackTags(packed, tags);
    this.#mapping.store(span, tags);
  }

  close(): void {}
}
