/**
 * Section C: the arguments of KVM_ARM_MTE_COPY_TAGS, against a real KVM. Each row is the system
 * call: a descriptor and the address of the structure, whose words are 64-bit numbers.
 */
import { assert, hva, PAGE_SIZE } from '../../../src/base/index.ts';
import { isRefusal, MapFlag, Prot } from '../../../src/host/index.ts';
import { copyTagsIoctl } from '../../../src/kvm/copy-tags-ioctl.ts';
import type { Kvm } from '../../../src/kvm/kvm.ts';
import type { KvmVm } from '../../../src/kvm/kvm-vm.ts';
import {
  KVM_ARM_TAGS_FROM_GUEST,
  KVM_CAP_ARM_MTE,
  KVM_MEM_READONLY,
} from '../../../src/kvm/uapi.ts';
import type { Vcpu } from '../../../src/kvm/vcpu.ts';
import { accept, DATA, GuestVm, NOWHERE, type SlotRequest } from '../../support/guest-vm.ts';
import { hex, resultText, tagsText } from '../../support/oracle.ts';
import { type Program, testSection } from './rows.ts';

const SLOT_BYTES = 16 * PAGE_SIZE;
const NOT_MAPPED = 0x10_0000;
const LAST_PAGE = 0xffff_ffff_ffff_f000n;
const FROM_GUEST = KVM_ARM_TAGS_FROM_GUEST;
const TO_GUEST = 0;

/** Members of struct kvm_arm_copy_mte_tags; one page of tags from the guest where absent. */
interface Arguments {
  readonly ipa?: number | bigint;
  readonly length?: number | bigint;
  readonly addr?: number | bigint;
  readonly flags?: number | bigint;
  readonly reserved?: readonly [number, number];
}

/** A VM and the buffer of its VMM: room for the tags of 32 pages. */
class Scene {
  readonly guest: GuestVm;
  readonly buffer: number;
  readonly #argument: number;

  constructor(guest: GuestVm) {
    this.guest = guest;
    this.buffer = guest.map({ length: 2 * PAGE_SIZE });
    this.#argument = guest.map({ length: PAGE_SIZE });
  }

  call(change: Arguments = {}, descriptor: Kvm | KvmVm | Vcpu = this.guest.vm): number {
    const { ipa = DATA, length = PAGE_SIZE, addr = this.buffer, flags = FROM_GUEST } = change;
    const { process } = this.guest;
    [ipa, length, addr, flags, ...(change.reserved ?? [0, 0])].forEach((word, i) => {
      accept(process.memory.writeU64(hva(this.#argument + 8 * i), BigInt(word)));
    });
    return copyTagsIoctl(descriptor, process, hva(this.#argument));
  }

  /** The call's result in the recording's words. */
  result(change: Arguments = {}, descriptor?: Kvm | KvmVm | Vcpu): string {
    return resultText(this.call(change, descriptor));
  }

  /** Bytes of the buffer, as tags. */
  tags(from: number, to: number): string {
    const bytes = this.guest.process.memory.read(hva(this.buffer + from), to - from);
    assert(!isRefusal(bytes), 'the buffer is mapped');
    return tagsText(bytes);
  }

  fill(value: number, addr = this.buffer, count = 256): void {
    accept(this.guest.process.memory.fill(hva(addr), value, count));
  }

  /** A buffer of which only the first bytes are mapped. */
  shortBuffer(mapped: number): number {
    const page = this.guest.map({ length: 2 * PAGE_SIZE });
    accept(this.guest.process.munmap(hva(page + PAGE_SIZE), PAGE_SIZE));
    return page + PAGE_SIZE - mapped;
  }
}

testSection('C', 'KVM_ARM_MTE_COPY_TAGS', ({ kvm: policy }) => {
  /** A slot of 16 pages, of plain anonymous memory unless said. */
  const withSlot = (request: SlotRequest = {}, mte = true): Scene => {
    const guest = new GuestVm({ policy, mte });
    guest.addSlot(request);
    return new Scene(guest);
  };
  /** One more VM of the same process, with MTE and no memslots or vCPUs. */
  const bareVm = ({ guest }: Scene): KvmVm => {
    const vm = guest.kvm.createVm(guest.process, { policy });
    assert(!isRefusal(vm), 'a VM is created');
    accept(vm.enableCap({ cap: KVM_CAP_ARM_MTE }));
    return vm;
  };
  const unmapped = (): Scene => {
    const guest = new GuestVm({ policy });
    accept(guest.setSlot(NOT_MAPPED, SLOT_BYTES));
    return new Scene(guest);
  };
  /** A row that is only its arguments and its result. */
  const plain =
    (change: Arguments): Program =>
    () =>
      withSlot().result(change);

  const privateFile = (prot: number): Scene => {
    const guest = new GuestVm({ policy });
    const file = guest.host.createMemfd(SLOT_BYTES);
    guest.addSlot({ flags: MapFlag.private, file, prot });
    return new Scene(guest);
  };
  const readback = (scene: Scene): string => {
    scene.fill(0xff);
    return `${scene.result()} · ${scene.tags(0, 4)}`;
  };
  const RW = Prot.read | Prot.write;
  /** Rows C50 to C54. */
  const ofFile = privateFile(RW);

  return {
    C01: () => withSlot({}, false).result(),
    C02: () => withSlot({}, false).result({ flags: TO_GUEST }),
    C04: () => {
      const scene = withSlot();
      const vm = bareVm(scene);
      const region = { slot: 0, flags: 0, guestPhysAddr: DATA, memorySize: SLOT_BYTES };
      accept(vm.setUserMemoryRegion({ ...region, userspaceAddr: scene.guest.map({}) }));
      scene.fill(0xff);
      return `${scene.result({}, vm)} · buffer ${scene.tags(0, 4)}`;
    },
    C05: plain({ length: SLOT_BYTES }),
    C06: plain({ length: 0 }),
    C07: plain({ length: 0, ipa: DATA + 16 }),
    C09: plain({ flags: 2 }),
    C10: plain({ flags: 3 }),
    C11: plain({ flags: 4 }),
    C12: plain({ flags: 1n << 63n }),
    C14: plain({ reserved: [1, 0] }),
    C15: plain({ reserved: [0, 1] }),
    C16: () => {
      const { vm, process } = withSlot().guest;
      return resultText(copyTagsIoctl(vm, process, hva(8)));
    },
    C17: plain({ ipa: DATA + 16 }),
    C19: plain({ length: 16 }),
    C20: plain({ length: PAGE_SIZE + 16 }),
    C21: plain({ length: 2048 }),
    C22: plain({ ipa: NOWHERE }),
    C24: plain({ ipa: DATA - PAGE_SIZE, length: 2 * PAGE_SIZE }),
    C25: plain({ ipa: DATA + SLOT_BYTES - 2 * PAGE_SIZE, length: 4 * PAGE_SIZE }),
    C26: plain({
      ipa: DATA + SLOT_BYTES - 2 * PAGE_SIZE,
      length: 4 * PAGE_SIZE,
      flags: TO_GUEST,
    }),
    C27: plain({ length: 0x8000_0000 }),
    C29: plain({ length: 0x1_0000_0000 }),
    C30: plain({ length: LAST_PAGE }),
    C31: plain({ ipa: LAST_PAGE }),
    C32: plain({ ipa: LAST_PAGE, length: 2 * PAGE_SIZE }),
    C34: plain({ addr: NOT_MAPPED, flags: TO_GUEST }),
    C35: plain({ addr: 0 }),
    C36: () => {
      const scene = withSlot();
      return scene.result({ addr: scene.shortBuffer(256), length: 2 * PAGE_SIZE });
    },
    C37: () => {
      const scene = withSlot();
      const addr = scene.shortBuffer(256);
      return scene.result({ addr, length: 2 * PAGE_SIZE, flags: TO_GUEST });
    },
    C39: () => {
      // The recorded page had had tags before; those of 6.1 count only where it had.
      const scene = withSlot();
      accept(scene.call({ flags: TO_GUEST }));
      const addr = scene.shortBuffer(128);
      scene.fill(9, addr, 128);
      const result = scene.result({ addr, flags: TO_GUEST });
      accept(scene.call());
      const tags = `[0..3]=${scene.tags(0, 4)} [126..131]=${scene.tags(126, 132)}`;
      return `${result} · page tags after: ${tags}`;
    },
    C40: () => {
      const scene = withSlot();
      return scene.result({ addr: scene.buffer + 1 });
    },
    C41: () => {
      const scene = withSlot();
      const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
      accept(scene.guest.process.memory.write(hva(scene.buffer), bytes));
      const result = scene.result({ flags: TO_GUEST });
      scene.fill(0xff);
      accept(scene.call());
      const range = (from: number): string =>
        `[${from}..${from + 15}]=${scene.tags(from, from + 16)}`;
      return `${result} · readback ${[0, 16, 240].map(range).join(' ')}`;
    },
    C42: () => {
      const scene = withSlot();
      scene.fill(5);
      accept(scene.call({ flags: TO_GUEST }));
      const read = readback(scene);
      const data = scene.guest.value(`ldr x0, =${DATA}\n ldr x0, [x0]`);
      return `${read}; page data after: ${hex(data)}`;
    },
    C44: () => withSlot({ slotFlags: KVM_MEM_READONLY }).result(),
    C45: () => unmapped().result(),
    C46: () => unmapped().result({ flags: TO_GUEST }),
    C47: () => withSlot({ prot: Prot.read }).result(),
    C49: () => withSlot({ prot: Prot.none }).result(),
    C50: () => ofFile.result(),
    C51: () => {
      ofFile.fill(7);
      return ofFile.result({ flags: TO_GUEST });
    },
    C52: () => readback(ofFile),
    // What was between C52 and C54 is not in the sample: here, tags to a mapping with PROT_MTE.
    C54: () => {
      const scene = privateFile(RW | Prot.mte);
      scene.fill(7);
      accept(scene.call({ flags: TO_GUEST }));
      return readback(scene);
    },
    C55: () => {
      const scene = withSlot();
      return scene.result({}, scene.guest.vcpus[0]!);
    },
    C56: () => {
      const scene = withSlot();
      return scene.result({}, scene.guest.kvm);
    },
    C57: () => {
      const scene = withSlot();
      return scene.result({}, bareVm(scene));
    },
  };
});
