/**
 * Section F: what a guest at EL1 does with tags, what its VMM sees of it and the other way round,
 * with IRG's sequence, the tag instructions and checked accesses, against a real KVM.
 */
import { afterAll, expect } from 'vitest';
import { hva, PAGE_SIZE } from '../../../src/base/index.ts';
import { Prot } from '../../../src/host/index.ts';
import { KVM_EXIT_MMIO, KVM_REG_CORE_PC } from '../../../src/kvm/uapi.ts';
import { CODE, GuestVm, REPORT } from '../../support/guest-vm.ts';
import { guestText, hex, resultText, tagsText } from '../../support/oracle.ts';
import {
  copyTagsFrom,
  copyTagsTo,
  granule,
  loadTag,
  pointer,
  read,
  storeTag,
  tagBuffer,
  untagged,
} from './guest-programs.ts';
import { testSection } from './rows.ts';

const RW = Prot.read | Prot.write;

/** The rows build on each other: they run in order, on one VM. */
testSection('F', 'guest and VMM see each other’s tags', ({ kvm: policy }) => {
  const guest = new GuestVm({ policy });
  const { memory } = guest.process;
  const slot = guest.addSlot();
  const buffer = tagBuffer(guest);
  const run = (source: string): string => guestText(guest.run(source));
  const copied = (page: number, count: number): string => {
    const [result, tags] = copyTagsFrom(guest, buffer, page, count);
    return `ret=${result} · ${tags}`;
  };
  const hostTags = (page: number, count: number): string => {
    const tags = Array.from({ length: count }, (_, i) =>
      memory.loadTag(hva(slot + page * PAGE_SIZE + 16 * i)),
    );
    return `ret=0 · ${tagsText(tags)}`;
  };
  const hostLoad = (tag: number): string => {
    memory.tagCheckMode = 'sync';
    const result = memory.load(slot, tag, 8);
    memory.tagCheckMode = 'none';
    return `ret=${result instanceof Uint8Array ? 0 : result === 'SEGV_MTESERR' ? 1109 : result}`;
  };
  const data = (page: number): string => hex(memory.readU64(hva(slot + page * PAGE_SIZE)));

  /** IRG of 0x1_0000_0000 with GCR_EL1 as it is; RGSR_EL1 goes to x4. */
  const draw = `
    mov x0, #0x100000000
    irg x0, x0
    mrs x4, rgsr_el1`;
  const drawn = (count = 1): string => {
    for (let i = 1; i < count; i++) run(draw);
    const text = run(draw);
    return `${text} RGSR after=${hex(guest.vcpus[0]!.readX(4))}`;
  };
  const generator = (gcr: number, rgsr: number): void => {
    run(`mov x1, #${gcr}\n msr gcr_el1, x1\n ldr x1, =${rgsr}\n msr rgsr_el1, x1`);
  };
  const tagChecks = (mode: 0 | 1): void => {
    guest.setBits('SCTLR_EL1', 3n << 40n, BigInt(mode) << 40n);
  };
  const through = (tag: number, access: string): string => `
    msr tco, #0
    ${pointer(granule(8), tag)}
    ${access}`;

  // F25: the VMM stores data before the mapping is PROT_MTE and before the guest's first access.
  memory.writeU64(hva(slot + 2 * PAGE_SIZE), 1n);

  afterAll(() => guest.host.frames.check());

  return {
    F01: () => {
      // The program is the load; the store that reports follows it. Page 15 holds 0.
      const vcpu = guest.begin('ldr x0, [x1]');
      vcpu.writeX(1, BigInt(granule(15)));
      vcpu.writeX(28, BigInt(REPORT));
      vcpu.writePc(BigInt(CODE + 4));
      const offset = (): bigint => guest.getCore(KVM_REG_CORE_PC) - BigInt(CODE + 4);
      const exit = vcpu.run();
      if (exit.kind !== 'mmio') return exit.kind;
      const atExit = offset();
      vcpu.immediateExit = true;
      const again = vcpu.run();
      vcpu.immediateExit = false;
      const errno = again.kind === 'interrupted' ? 'ret=-1 EINTR' : again.kind;
      return (
        `ret=0 · exit=${KVM_EXIT_MMIO} phys=${hex(exit.ipa)} len=${exit.size} ` +
        `is_write=${Number(exit.isWrite)} data=${hex(exit.data)}; PC-offset of STR=4: ` +
        `at exit ${atExit}; after KVM_RUN immediate_exit (${errno}) ${offset()}`
      );
    },
    F02: () => run(read('id_aa64pfr1_el1')),
    F04: () => run('mov x1, #-1\n msr gcr_el1, x1\n mrs x0, gcr_el1'),
    F05: () => run(read('rgsr_el1')),
    F06: () => run(read('tfsr_el1')),
    F07: () => run(read('gmid_el1')),
    F09: () => run(read('dczid_el0')),
    F10: () => run(storeTag(granule(0), 1)),
    F11: () => {
      for (let i = 1; i < 8; i++) run(storeTag(granule(0, i), i + 1));
      return copied(0, 10);
    },
    F12: () => hostTags(0, 8),
    F14: () => {
      expect(guest.process.mprotect(slot, 16 * PAGE_SIZE, RW | Prot.mte)).toBe(0);
      return hostTags(0, 8);
    },
    F15: () => hostLoad(1),
    F16: () => hostLoad(0),
    F17: () => {
      for (let i = 0; i < 7; i++) memory.storeTag(hva(slot + 16 * i), 9 + i);
      return run(loadTag(granule(0, 1)));
    },
    F19: () =>
      resultText(
        copyTagsTo(
          guest,
          buffer,
          1,
          Array.from({ length: 16 }, (_, i) => 15 - i),
        ),
      ),
    F20: () => run(loadTag(granule(1, 1))),
    F21: () => run(`${pointer(granule(1))}\nldgm x0, [x1]`),
    F22: () => run(loadTag(untagged(1) + 16)),
    F24: () => {
      run(storeTag(untagged(1) + 16, 3));
      return run(loadTag(granule(1, 1)));
    },
    F25: () => run(loadTag(granule(2))),
    F26: () => {
      for (let i = 0; i < 4; i++) memory.storeTag(hva(slot + 3 * PAGE_SIZE + 16 * i), 6 + i);
      return run(loadTag(granule(3)));
    },
    F27: () => run(`${pointer(granule(2), 7)}\nstzg x1, [x1]\n ldr x0, [x1]`),
    F29: () => run(`${pointer(granule(2, 1), 4)}\nst2g x1, [x1]\n mov x0, #0`),
    F30: () => copied(2, 6),
    F31: () => run(`${pointer(granule(4))}\nldr x0, =0xfedcba9876543210\nstgm x0, [x1]`),
    F32: () => copied(4, 36),
    F34: () => run(`${pointer(granule(5))}\nmov x0, #0xc\nstzgm x0, [x1]`),
    F35: () => `${copied(5, 36)} data=${data(5)}`,
    F36: () => run(`${pointer(granule(6), 13)}\ndc gva, x1\n mov x0, #0`),
    F37: () => copied(6, 36),
    F39: () => {
      memory.writeU64(hva(slot + 7 * PAGE_SIZE), 7n);
      run(`${pointer(granule(7), 14)}\ndc gzva, x1`);
      return `${copied(7, 36)} data=${data(7)}`;
    },
    F40: () => {
      generator(0xfffe, 0x100);
      return drawn();
    },
    F41: () => drawn(),
    F42: () => drawn(),
    F44: () => drawn(2),
    F45: () => drawn(),
    F46: () => {
      generator(0, 0x123_4500);
      return drawn();
    },
    F47: () => drawn(),
    F49: () => drawn(2),
    F50: () => {
      generator(0xffff, 0x100);
      return run(draw);
    },
    F51: () => {
      generator(0x1_fffe, 0x100);
      return run(draw);
    },
    F52: () => {
      generator(0, 0x100);
      return run(
        'mov x1, #0x100000000\nmov x2, #14\norr x1, x1, x2, lsl #56\naddg x0, x1, #16, #3',
      );
    },
    F54: () => run(`${pointer(0x1_0000_0000, 5)}\nmov x3, #2\ngmi x0, x1, x3`),
    F55: () => {
      run(storeTag(granule(8), 3));
      tagChecks(0);
      run('msr tfsr_el1, xzr');
      return run(through(3, 'ldr x0, [x1]'));
    },
    F56: () => run(through(4, 'ldr x0, [x1]')),
    F57: () => run(through(4, 'mov x0, #0x77\n str x0, [x1]\n ldr x0, [x1]')),
    F59: () => run(through(4, 'mov x0, #0x78\n str x0, [x1]\n dsb sy\n mrs x0, tfsr_el1')),
    F60: () => {
      tagChecks(1);
      return run(through(3, 'ldr x0, [x1]'));
    },
  };
});
