/**
 * A guest's instructions against a real KVM: rows of sections A, B, F and H of the recorded answers
 * that need a vCPU (`test/data/kvm-oracle.json`; those without one are beside the code in src/kvm).
 * Each row is carried out and its answer written in the recording's words. `differences` lists
 * where granule answers otherwise, and why.
 */
import { afterAll, describe, expect, it } from 'vitest';
import { systemRegister } from '../../src/arm/sysreg/index.ts';
import { hva, MIB, PAGE_SIZE, pa } from '../../src/base/index.ts';
import {
  DEV_ZERO,
  type DeviceFile,
  Errno,
  type Host,
  isRefusal,
  MapFlag,
  type MmapRequest,
  Prot,
} from '../../src/host/index.ts';
import type { KvmVm } from '../../src/kvm/kvm-vm.ts';
import { linux61, linux612 } from '../../src/kvm/policy.ts';
import {
  KVM_ARM_TAGS_FROM_GUEST,
  KVM_ARM_TAGS_TO_GUEST,
  KVM_CAP_ARM_MTE,
  KVM_EXIT_MMIO,
  KVM_MEM_LOG_DIRTY_PAGES,
  KVM_MEM_READONLY,
  KVM_REG_CORE_PC,
  kvmRegSystem,
} from '../../src/kvm/uapi.ts';
import type { Vcpu } from '../../src/kvm/vcpu.ts';
import { CODE, DATA, dataIpa, GuestVm, NOWHERE, REPORT, UNTAGGED } from '../support/guest-vm.ts';
import {
  guestText,
  hex,
  type OracleRow,
  oracleSection,
  resultText,
  tagsText,
} from '../support/oracle.ts';

const RW = Prot.read | Prot.write;
const PFR1 = kvmRegSystem(systemRegister('ID_AA64PFR1_EL1').key);

/** ID_AA64PFR1_EL1 without MTE: here, and recorded (BT = 1, SSBS = 2). */
const OWN_PFR1 = systemRegister('ID_AA64PFR1_EL1').reset & ~0xf00n;
const RECORDED_PFR1 = 0x21n;

/** Rows that granule answers otherwise, as a change of the recorded answer. */
const differences: readonly {
  readonly ids: readonly string[];
  readonly change: (expected: string) => string;
  readonly because: string;
}[] = [
  {
    ids: ['A19', 'A21', 'A22', 'A24', 'A36', 'A39', 'A40', 'A41', 'F02'],
    change: (expected) =>
      expected
        .replace(hex(RECORDED_PFR1 | 0x300n), hex(OWN_PFR1 | 0x300n))
        .replace(hex(RECORDED_PFR1), hex(OWN_PFR1)),
    because: "QEMU's CPU has FEAT_BTI and FEAT_SSBS; ID registers show what is there",
  },
  {
    ids: ['F04'],
    change: () => 'ret=0 · guest value=0x1ffff',
    because: 'QEMU keeps the RES0 bits that an MSR writes; the architecture has GCR_EL1[16:0]',
  },
];

const expectedHere = ({ id, expected }: OracleRow): string =>
  differences.find(({ ids }) => ids.includes(id))?.change(expected) ?? expected;

type Program = (row: { call: string }) => string;

/** One test a row: its program's answer is the recorded one, or the difference that is listed. */
function testRows(letter: string, programs: Readonly<Record<string, Program>>): void {
  const rows = oracleSection(letter);
  it('the recorded rows and their programs are the same', () => {
    expect(Object.keys(programs)).toEqual(rows.map(({ id }) => id));
  });
  it.each(rows.map((row) => ({ ...row, name: `${row.id} ${row.call}` })))('$name', (row) => {
    expect(programs[row.id]!(row)).toBe(expectedHere(row));
  });
}

// ---- programs of the guest ----------------------------------------------------------------------

/** x1: the address of a tag granule with a logical tag; changes x2. */
const pointer = (address: number, tag = 0): string => `
  ldr x1, =${address}
  mov x2, #${tag}
  orr x1, x1, x2, lsl #56`;

const granule = (page: number, index = 0): number => dataIpa(page, index);
const untagged = (page: number): number => UNTAGGED + page * PAGE_SIZE;

const storeTag = (address: number, tag: number): string => `
  ${pointer(address, tag)}
  stg x1, [x1]
  mov x0, #0`;

const loadTag = (address: number): string => `
  ${pointer(address)}
  mov x0, #0
  ldg x0, [x1]`;

const load = (address: number): string => `
  ${pointer(address)}
  ldr x0, [x1]`;

const store = (address: number, value: number): string => `
  ${pointer(address)}
  mov x0, #${value}
  str x0, [x1]`;

const read = (register: string): string => `mrs x0, ${register}`;

// ---- the VMM's calls ----------------------------------------------------------------------------

/** Bytes for COPY_TAGS in the VMM. */
const tagBuffer = (guest: GuestVm): number => guest.map({ length: PAGE_SIZE });

function copyTagsFrom(
  guest: GuestVm,
  buffer: number,
  page: number,
  count: number,
): [number, string] {
  const request = { guestIpa: dataIpa(page), length: PAGE_SIZE, addr: buffer };
  const result = guest.vm.copyTags({ ...request, flags: KVM_ARM_TAGS_FROM_GUEST });
  const tags = result === PAGE_SIZE ? guest.process.memory.read(hva(buffer), count) : [];
  return [result, isRefusal(tags) ? '' : tagsText(tags)];
}

function copyTagsTo(guest: GuestVm, buffer: number, page: number, tags: readonly number[]): number {
  guest.process.memory.write(
    hva(buffer),
    Uint8Array.from({ length: 256 }, (_, i) => tags[i] ?? 0),
  );
  const request = { guestIpa: dataIpa(page), length: PAGE_SIZE, addr: buffer };
  return guest.vm.copyTags({ ...request, flags: KVM_ARM_TAGS_TO_GUEST });
}

// ---- A ------------------------------------------------------------------------------------------

describe('A: capability and MTE registers, with vCPUs', () => {
  const guests = new Map([true, false].map((mte) => [mte, new GuestVm({ mte })]));
  /** A VM with MTE and a vCPU that is not initialised. */
  const uninitialised = (): { vm: KvmVm; vcpu: Vcpu } => {
    const { kvm, process } = new GuestVm({ vcpuMax: 2 });
    const vm = kvm.createVm(process);
    if (isRefusal(vm)) throw new Error('no VM');
    expect(vm.enableCap({ cap: KVM_CAP_ARM_MTE })).toBe(0);
    const vcpu = vm.createVcpu(0);
    if (isRefusal(vcpu)) throw new Error('no vCPU');
    return { vm, vcpu };
  };
  const vcpuOf = (call: string) => guests.get(call.endsWith('MTE on'))!.vcpus[0]!;
  const idOf = (call: string): bigint => {
    const name = /ONE_REG (\w+)/.exec(call)?.[1];
    return kvmRegSystem(systemRegister(name as 'GCR_EL1').key);
  };

  const get: Program = ({ call }) => {
    const value = vcpuOf(call).getOneReg(idOf(call));
    return isRefusal(value) ? `${resultText(value)} · 0x0` : `ret=0 · ${hex(value)}`;
  };
  const set =
    (value: bigint): Program =>
    ({ call }) => {
      const vcpu = vcpuOf(call);
      const result = vcpu.setOneReg(idOf(call), value);
      const readback = vcpu.getOneReg(idOf(call));
      return `${resultText(result)} · readback ${hex(isRefusal(readback) ? 0 : readback)}`;
    };
  const setMte =
    (mte: bigint): Program =>
    (row) => {
      const now = vcpuOf(row.call).getOneReg(PFR1) as bigint;
      return set((now & ~0xf00n) | (mte << 8n))(row);
    };
  const getPfr1: Program = ({ call }) => {
    const value = vcpuOf(call).getOneReg(PFR1) as bigint;
    return `ret=0 · ${hex(value)} MTE[11:8]=${(value >> 8n) & 15n}`;
  };
  const setPfr1Same: Program = ({ call }) => {
    const vcpu = vcpuOf(call);
    return resultText(vcpu.setOneReg(PFR1, vcpu.getOneReg(PFR1) as bigint));
  };
  const ones = (1n << 64n) - 1n;

  testRows('A', {
    A11: () => resultText(uninitialised().vm.enableCap({ cap: KVM_CAP_ARM_MTE })),
    A12: () => resultText(uninitialised().vcpu.enableCap()),
    A14: () => `${resultText(uninitialised().vcpu.getOneReg(PFR1))} · PFR1=0x0`,
    A15: () => {
      const { vm, vcpu } = uninitialised();
      return resultText(vcpu.init(vm.preferredTarget()));
    },
    A16: () => resultText(guests.get(true)!.vcpus[0]!.enableCap()),
    A17: () => resultText(guests.get(false)!.vm.enableCap({ cap: KVM_CAP_ARM_MTE })),
    A19: getPfr1,
    A20: setPfr1Same,
    A21: setMte(0n),
    A22: setMte(1n),
    A24: setMte(3n),
    A25: get,
    A26: set(ones),
    A27: get,
    A29: get,
    A30: set(ones),
    A31: get,
    A32: set(ones),
    A34: set(ones),
    A36: getPfr1,
    A37: setPfr1Same,
    A39: setMte(1n),
    A40: setMte(2n),
    A41: setMte(3n),
    A42: get,
    A44: get,
    A45: set(ones),
    A46: get,
    A47: set(ones),
    A49: set(ones),
    A50: get,
    A51: set(ones),
  });
});

// ---- B ------------------------------------------------------------------------------------------

describe('B: slots by backing, then guest STG and COPY_TAGS', () => {
  const DEV_MEM: DeviceFile = {
    kind: 'device',
    base: pa(0x0a00_0000),
    sizeBytes: 4 * MIB,
    memoryType: 'Device-nGnRnE',
  };
  const anonymous = MapFlag.anonymous;
  const file = (host: Host) => host.createMemfd(2 * MIB);

  /**
   * The mapping that a row's text names. Files of tmpfs, /dev/shm and the root are shared memory.
   */
  function mappingOf(call: string, host: Host): Partial<MmapRequest> {
    const shared = call.includes('MAP_SHARED') ? MapFlag.shared : MapFlag.private;
    const prot = call.includes('PROT_NONE')
      ? Prot.none
      : call.includes('PROT_READ')
        ? Prot.read
        : RW | (call.includes('PROT_MTE') ? Prot.mte : 0);
    if (call.includes('HUGETLB')) {
      return { prot, flags: shared | anonymous | MapFlag.hugetlb, length: 2 * MIB };
    }
    if (call.includes('/dev/zero')) return { prot, flags: shared, file: DEV_ZERO };
    if (call.includes('/dev/mem')) return { prot, flags: shared, file: DEV_MEM };
    if (call.includes('anon')) return { prot, flags: shared | anonymous };
    return { prot, flags: shared, file: file(host) };
  }

  const backing =
    (policy: typeof linux612): Program =>
    ({ call }) => {
      const guest = new GuestVm({ policy });
      const buffer = tagBuffer(guest);
      const mapping = mappingOf(call, guest.host);
      const length = mapping.length ?? 16 * PAGE_SIZE;
      const slot = guest.setSlot(guest.map({ ...mapping, length }), length);
      if (isRefusal(slot)) return resultText(slot);
      const stg = guestText(
        guest.run(`${storeTag(granule(0, 2), 5)}\n${storeTag(granule(0, 3), 5)}`),
      );
      const [result, tags] = copyTagsFrom(guest, buffer, 0, 6);
      const words = (text: string): string => text.replaceAll(' · ', ' ');
      const stgText = stg.startsWith('ret=0') ? stg.replace(' · ', ' - ') : words(stg);
      const copied = isRefusal(result) ? words(resultText(result)) : `ret=${result} -`;
      return `ret=0 · guest STG: ${stgText}; COPY_TAGS from guest ${copied} tags=${tags}`;
    };

  const byBacking = oracleSection('B').filter(({ id }) => id <= 'B25');
  const readOnly = (): GuestVm => {
    const guest = new GuestVm();
    guest.addSlot({ slotFlags: KVM_MEM_READONLY });
    return guest;
  };

  testRows('B', {
    ...Object.fromEntries(byBacking.map(({ id }) => [id, backing(linux612)])),
    B17: () => {
      const { process } = new GuestVm();
      const request = { length: PAGE_SIZE, prot: RW | Prot.mte, flags: MapFlag.private };
      return resultText(process.mmap({ ...request, file: DEV_ZERO }));
    },
    B52: () => guestText(readOnly().run(loadTag(granule(0)))),
    B55: () => {
      const guest = new GuestVm();
      expect(guest.setSlot(0x10_0000, PAGE_SIZE)).toBe(0);
      return guestText(guest.run(storeTag(granule(0), 5)));
    },
    B56: () => guestText(new GuestVm().run(storeTag(NOWHERE, 5))),
    B57: () => guestText(new GuestVm().run(store(NOWHERE, 0x55))),
    B61: () => {
      const vm = new GuestVm({ mte: false });
      const other = vm.kvm.createVm(vm.process);
      if (isRefusal(other)) return 'no VM';
      const userspaceAddr = vm.map({ flags: MapFlag.shared | MapFlag.anonymous });
      const region = { slot: 0, flags: 0, guestPhysAddr: DATA, memorySize: 16 * PAGE_SIZE };
      expect(other.setUserMemoryRegion({ ...region, userspaceAddr })).toBe(0);
      expect(other.enableCap({ cap: KVM_CAP_ARM_MTE })).toBe(0);
      const request = { guestIpa: DATA, length: PAGE_SIZE, addr: tagBuffer(vm) };
      return resultText(other.copyTags({ ...request, flags: KVM_ARM_TAGS_FROM_GUEST }));
    },
  });

  const changed = oracleSection('B').filter(({ on61 }) => on61 !== undefined);
  it.each(changed.map((row) => ({ ...row, name: `${row.id} ${row.call}` })))(
    '$name, Linux 6.1',
    (row) => {
      expect(backing(linux61)(row)).toBe(row.on61);
    },
  );
});

// ---- F ------------------------------------------------------------------------------------------

/** The rows build on each other: they run in order, on one VM. */
describe('F: guest and VMM see each other’s tags', () => {
  const guest = new GuestVm();
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

  testRows('F', {
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
  });

  afterAll(() => guest.host.frames.check());
});

// ---- H ------------------------------------------------------------------------------------------

/** In order, on one VM; the VMM's calls among the rows are in src/kvm/dirty-log.test.ts too. */
describe('H: the dirty log, with a guest’s instructions', () => {
  const guest = new GuestVm();
  const { memory } = guest.process;
  const length = 16 * PAGE_SIZE;
  const slot = guest.map({ length });
  const buffer = tagBuffer(guest);
  const log = (): string => {
    const bitmap = guest.vm.getDirtyLog(0);
    if (isRefusal(bitmap)) return resultText(bitmap);
    return `ret=0 · 0x${bitmap[0]!.toString(16).padStart(4, '0')}`;
  };
  const logAfter = (source: string): string => {
    guest.value(source);
    return log();
  };
  const logging = (on: boolean): number =>
    guest.setSlot(slot, length, { slotFlags: on ? KVM_MEM_LOG_DIRTY_PAGES : 0 });

  testRows('H', {
    H01: () => resultText(logging(true)),
    H02: log,
    H04: () => logAfter(load(granule(1))),
    H05: () => logAfter(loadTag(granule(2))),
    H06: () => logAfter(store(granule(3), 1)),
    H07: () => logAfter(storeTag(granule(4), 1)),
    H09: () => logAfter(storeTag(granule(1), 1)),
    H10: () => logAfter(`${pointer(granule(6))}\nmov x0, #0\nstgm x0, [x1]`),
    H11: () => logAfter(`${pointer(granule(7))}\ndc gva, x1`),
    H12: () => logAfter(storeTag(untagged(14), 1)),
    H14: () => {
      expect(copyTagsTo(guest, buffer, 9, [1, 2, 3])).toBe(PAGE_SIZE);
      return log();
    },
    H15: () => {
      expect(copyTagsTo(guest, buffer, 4, [1, 2, 3])).toBe(PAGE_SIZE);
      return log();
    },
    H16: () => {
      memory.writeU64(hva(slot + 10 * PAGE_SIZE), 1n);
      return log();
    },
    H17: () => {
      expect(guest.process.mprotect(slot, length, RW | Prot.mte)).toBe(0);
      memory.storeTag(hva(slot + 11 * PAGE_SIZE), 5);
      return log();
    },
    H19: () => {
      expect(logging(false)).toBe(0);
      guest.value(storeTag(granule(12), 1));
      // The recording's value is 0xdead0000 with the errno in it.
      return log().replace('ret=-1', `ret=${0xdead_0000 | Errno.ENOENT}`);
    },
    H20: () => {
      expect(logging(true)).toBe(0);
      return log();
    },
    H21: () => logAfter(storeTag(granule(12), 2)),
  });
});
