/**
 * Tags that the hypervisor kept when it cleaned a page in the dirty log (kvm/tag-log.ts). What has
 * been dirtied again since has none, and need not be sent: its page is in the next round already.
 * Made by `tags.ts`.
 */
import { assert, type Hva, hva } from '../../base/index.ts';
import { isRefusal, MapFlag, Prot } from '../../host/index.ts';
import { KVM_CAP_ARM_MTE_TAG_LOG } from '../../kvm/index.ts';
import { CHUNK_PAGES } from './dirty-pages.ts';
import { accept, type GuestRam, isMarked, refused, TAG_BYTES } from './guest-ram.ts';
import type { Time } from './link.ts';
import { noTagCost, type PageSpan, type TagReader } from './tag-transfer.ts';

const TAGS_BYTES = CHUNK_PAGES * TAG_BYTES;
const BITMAP_BYTES = CHUNK_PAGES / 8;

export class LoggedTagReader implements TagReader {
  readonly cost = noTagCost();
  readonly #ram: GuestRam;
  readonly #time: Time;
  /** In the VMM's memory: packed tags of a chunk, and behind them a bit a page. */
  readonly #at: Hva;
  readonly #bitmap = new Uint8Array(BITMAP_BYTES);
  readonly #words = new Uint32Array(this.#bitmap.buffer);

  constructor(ram: GuestRam, time: Time) {
    this.#ram = ram;
    this.#time = time;
    accept(
      'KVM_ENABLE_CAP(KVM_CAP_ARM_MTE_TAG_LOG)',
      ram.kvm.enableCap({ cap: KVM_CAP_ARM_MTE_TAG_LOG, args: [1n] }),
    );
    const at = ram.process.mmap({
      length: TAGS_BYTES + BITMAP_BYTES,
      prot: Prot.read | Prot.write,
      flags: MapFlag.private | MapFlag.anonymous,
    });
    if (isRefusal(at)) throw refused('mmap of a buffer for tags', at);
    this.#at = at;
  }

  read({ range, firstPage, pageCount }: PageSpan, packed: Uint8Array, current: Uint8Array): void {
    const { kvm } = this.#ram;
    const bitmapAt = this.#at + TAGS_BYTES;
    const began = this.#time.nowMs();
    const request = { slot: range.slot, firstPage, pageCount, addr: this.#at, bitmap: bitmapAt };
    accept('KVM_ARM_READ_TAG_LOG', kvm.readTagLog(request));
    this.cost.milliseconds += this.#time.nowMs() - began;
    this.cost.calls++;
    this.cost.bytes += pageCount * TAG_BYTES + BITMAP_BYTES;
    this.cost.pages += pageCount;
    this.#load(this.#at, packed.subarray(0, pageCount * TAG_BYTES));
    this.#load(hva(this.#at + TAGS_BYTES), this.#bitmap);
    for (let i = 0; i < pageCount; i++) current[i] = isMarked(this.#words, i) ? 1 : 0;
  }

  #load(at: Hva, target: Uint8Array): void {
    const read = this.#ram.process.memory.readInto(at, target);
    assert(read === target.length, 'the buffer is mapped');
  }

  close(): void {
    const gone = this.#ram.process.munmap(this.#at, TAGS_BYTES + BITMAP_BYTES);
    assert(!isRefusal(gone), 'the buffer is mapped');
    const { kvm } = this.#ram;
    accept(
      'KVM_ENABLE_CAP(KVM_CAP_ARM_MTE_TAG_LOG)',
      kvm.enableCap({ cap: KVM_CAP_ARM_MTE_TAG_LOG, args: [0n] }),
    );
  }
}
