/**
 * A machine for the simulation: real pages, real stage 2, KVM's real dirty log and tags, and a
 * guest of two threads that store, tag and load at random, one access at a time. What it must find
 * where is kept beside it (`GuestMemoryModel`), so that a page without its tags, a lost store and
 * an old page show the moment they are loaded.
 */
import {
  assert,
  type Hva,
  hva,
  type Ipa,
  ipa,
  MIB,
  PAGE_SIZE,
  Prng,
} from '../../src/base/index.ts';
import {
  Errno,
  Host,
  isRefusal,
  Madvise,
  MapFlag,
  MemorySwapDevice,
  Prot,
  SimulatedSwapDevice,
  type SwapStatistics,
} from '../../src/host/index.ts';
import { KVM_CAP_ARM_MTE } from '../../src/kvm/index.ts';
import { createVm, type Vm } from '../../src/kvm/vm.ts';
import { dramOnly, PhysicalMemory } from '../../src/machine/memory.ts';
import type { MachineDescription } from '../../src/vmm/migration/description.ts';
import {
  type GuestRam,
  HostWrites,
  type MemoryIoctls,
  type RamRange,
} from '../../src/vmm/migration/guest-ram.ts';
import type { MigratableMachine } from '../../src/vmm/migration/migratable.ts';
import { MigrationError } from '../../src/vmm/migration/migration-error.ts';
import { TestGuest } from '../support/test-guest.ts';
import type { SimWorld } from './world.ts';

const RAM_BASE = 0x4000_0000;
const GRANULES = PAGE_SIZE / 16;
const THREADS = 2;
/** Tag granules of a page that the guest uses, and the one that a device writes. */
const USED_GRANULES = [0, 60, 120, 255];
const DEVICE_GRANULE = 200;
/** What a disk counts in. */
const TICK_MS = 0.5;

/** What guest memory must hold: for each tag granule its first byte and its tag. */
export class GuestMemoryModel {
  readonly bytes: Uint8Array;
  readonly tags: Uint8Array;

  constructor(pages: number) {
    this.bytes = new Uint8Array(pages * GRANULES);
    this.tags = new Uint8Array(pages * GRANULES);
  }
}

export interface SimMachineOptions {
  readonly pages: number;
  readonly model: GuestMemoryModel;
  /** A memfd that is mapped twice, for `tags: dual-mapping`. */
  readonly memfd: boolean;
  /** Stopping takes this long: a device has to take what is under way. */
  readonly slowStopMs: number;
  /**
   * The host pages guest memory out at random, to a disk that takes up to so long to read a page;
   * 0: it does not.
   */
  readonly slowDiskMs: number;
  readonly mte?: boolean;
}

/** What one thread does next. A guest stores the tag and then the data, or the other way round. */
interface Thread {
  readonly pending: { kind: 'store' | 'tag' | 'load'; granule: number; value: number }[];
}

export class SimMachine implements MigratableMachine {
  readonly description: MachineDescription;
  readonly ram: GuestRam;
  guestId = 'a'.repeat(32);
  paused = false;
  /** Accesses that the guest has made here. */
  steps = 0;
  held = false;
  resting = false;
  /** Its host has lost power. */
  dead = false;
  /** Bytes at which the guest stores again and again; the rest of memory it seldom touches. */
  readonly #hotPages: number;
  readonly #world: SimWorld;
  readonly #options: SimMachineOptions;
  readonly #vm: Vm;
  readonly #guest: TestGuest;
  readonly #hva: Hva;
  #random: Prng;
  #threads: Thread[] = Array.from({ length: THREADS }, () => ({ pending: [] }));
  #inStep = false;
  #disk: SlowDisk | undefined;

  constructor(world: SimWorld, options: SimMachineOptions) {
    const { pages, memfd, mte = true } = options;
    this.#world = world;
    this.#options = options;
    this.#hotPages = Math.max(1, Math.floor(pages / 4));
    this.#random = new Prng(world.prng.u32());
    const host = new Host({ memory: new PhysicalMemory({ zones: dramOnly(8 * MIB) }) });
    const process = host.createProcess();
    const vm = createVm({ host, process });
    assert(!isRefusal(vm), 'a VM is created');
    this.#vm = vm;
    if (mte) accept(vm.enableCap({ cap: KVM_CAP_ARM_MTE }));
    const length = pages * PAGE_SIZE;
    const file = memfd ? host.createMemfd(length) : undefined;
    const map = (prot: number): Hva => {
      const kind = file === undefined ? MapFlag.private | MapFlag.anonymous : MapFlag.shared;
      const at = process.mmap({
        length,
        prot,
        flags: kind,
        ...(file === undefined ? {} : { file }),
      });
      assert(!isRefusal(at), 'memory is mapped');
      return at;
    };
    this.#hva = map(Prot.read | Prot.write);
    const range: RamRange = {
      slot: 0,
      base: ipa(RAM_BASE),
      sizeBytes: length,
      hva: this.#hva,
      shared: memfd,
      ...(memfd ? { taggedHva: map(Prot.read | Prot.write | Prot.mte) } : {}),
    };
    accept(
      vm.setUserMemoryRegion({
        slot: 0,
        flags: 0,
        guestPhysAddr: RAM_BASE,
        memorySize: length,
        userspaceAddr: this.#hva,
      }),
    );
    this.#guest = new TestGuest(vm);
    this.description = {
      board: 'sim',
      ram: [{ base: RAM_BASE, sizeBytes: length }],
      cpuCount: THREADS,
      mte,
      policy: vm.policy.name,
      stateVersion: 1,
    };
    this.ram = {
      kvm: this.#racing(vm),
      process,
      ranges: [range],
      mte,
      hostWrites: new HostWrites([range]),
    };
    this.#raceReads();
    if (options.slowDiskMs > 0) this.#swapTo(host, options.slowDiskMs);
    this.#live();
  }

  /** What the disk has done so far; undefined: there is none. */
  get swap(): SwapStatistics | undefined {
    return this.ram.process.host.swap?.statistics;
  }

  get mayRun(): boolean {
    return !this.held && !this.paused && !this.dead;
  }

  /** What the next step asks: a guest that is held back rests in between. */
  get #runs(): boolean {
    return this.mayRun && !this.resting;
  }

  async hold(): Promise<void> {
    this.held = true;
    const { slowStopMs } = this.#options;
    if (slowStopMs === 0) return;
    await new Promise<void>((resolve) => void this.#world.after(slowStopMs, resolve));
  }

  release(): void {
    this.held = false;
  }

  captureState(): Uint8Array {
    assert(this.held, 'a machine is held while its state is taken');
    const state = { random: [...this.#random.save()], threads: this.#threads };
    return new TextEncoder().encode(JSON.stringify(state));
  }

  applyState(bytes: Uint8Array): void {
    assert(this.held, 'a machine is held while it takes over a state');
    let state: { random: [number, number, number, number]; threads: Thread[] };
    try {
      state = JSON.parse(new TextDecoder().decode(bytes));
    } catch {
      throw new MigrationError('machine', 'the state is no JSON');
    }
    this.#random.restore(state.random);
    this.#threads = state.threads;
  }

  /** All of memory against the model. */
  verify(): void {
    const { bytes, tags } = this.#options.model;
    for (let granule = 0; granule < bytes.length; granule++) this.#compare(granule, bytes, tags);
  }

  #compare(granule: number, bytes: Uint8Array, tags: Uint8Array): void {
    const { process } = this.ram;
    let page = process.faultIn(hva(this.#hva + 16 * granule), { write: false });
    while (page === -Errno.EAGAIN) {
      this.#disk!.hurry();
      page = process.faultIn(hva(this.#hva + 16 * granule), { write: false });
    }
    assert(!isRefusal(page), 'guest memory is there');
    const found = process.memory.readU8(hva(this.#hva + 16 * granule));
    const tag = this.#vm.host.frames.readTags(page.pa)[granule % GRANULES];
    if (found === bytes[granule] && tag === tags[granule]) return;
    throw new Error(
      `granule ${granule} holds ${found} tag ${tag}, not ${bytes[granule]} tag ${tags[granule]}`,
    );
  }

  /** The host is short of memory: now and then some pages go to the disk. */
  #swapTo(host: Host, readMsMax: number): void {
    const { prng } = this.#world;
    this.#disk = new SlowDisk(this.#world, 2 * this.#options.pages + 16, readMsMax);
    assert(!isRefusal(host.swapOn(this.#disk.device)), 'there is swap');
    const pageOut = (): void => {
      const page = prng.below(this.#options.pages);
      const count = Math.min(1 + prng.below(8), this.#options.pages - page);
      const start = hva(this.#hva + page * PAGE_SIZE);
      accept(this.ram.process.madvise(start, count * PAGE_SIZE, Madvise.pageOut));
      this.#world.after(this.#world.between(0.5, 4), pageOut);
    };
    this.#world.after(this.#world.between(0, 4), pageOut);
  }

  /** The guest lives while it may, and devices write to its memory. */
  #live(): void {
    this.#world.after(this.#world.between(0.05, 1), () => {
      for (let i = this.#world.prng.below(12); i > 0; i--) this.#step();
      if (this.#world.prng.chance(1, 40)) this.#deviceWrites();
      this.#live();
    });
  }

  /** One access of one thread. */
  #step(): void {
    if (!this.#runs || this.#inStep) return;
    this.#inStep = true;
    try {
      this.#access(this.#threads[this.#world.prng.below(THREADS)]!);
    } catch (error) {
      this.#world.fail(error);
    } finally {
      this.#inStep = false;
    }
  }

  #access(thread: Thread): void {
    if (thread.pending.length === 0) this.#plan(thread);
    const { kind, granule, value } = thread.pending[0]!;
    const at = ipa(RAM_BASE + 16 * granule);
    const { bytes, tags } = this.#options.model;
    const outcome =
      kind === 'store'
        ? this.#guest.store(at, value)
        : kind === 'tag'
          ? this.#guest.storeTag(at, value)
          : this.#load(at, granule);
    if (typeof outcome === 'object') {
      // The thread sleeps: in post-copy for the source, in swap for the disk.
      if (outcome.kind === 'userfault' || outcome.kind === 'wait') return;
      throw new Error(`the guest's access ended with ${outcome.kind}`);
    }
    this.steps++;
    if (kind === 'store') bytes[granule] = value;
    if (kind === 'tag' && this.ram.mte) tags[granule] = value;
    thread.pending.shift();
  }

  /** Data and tag together: neither is there without the other. */
  #load(at: Ipa, granule: number) {
    const byte = this.#guest.load(at);
    if (typeof byte === 'object') return byte;
    const tag = this.#guest.loadTag(at);
    if (typeof tag === 'object') return tag;
    const { bytes, tags } = this.#options.model;
    if (byte === bytes[granule] && tag === tags[granule]) return 'done';
    throw new Error(
      `the guest loads ${byte} tag ${tag} from granule ${granule}, ` +
        `not ${bytes[granule]} tag ${tags[granule]}`,
    );
  }

  #plan(thread: Thread): void {
    const random = this.#random;
    const pages = random.chance(3, 4) ? this.#hotPages : this.#options.pages;
    const page = random.below(pages);
    if (random.chance(1, 12)) {
      this.#planWipe(thread, page);
      return;
    }
    const granule = page * GRANULES + USED_GRANULES[random.below(USED_GRANULES.length)]!;
    const steps: Thread['pending'] = [
      { kind: 'store', granule, value: random.below(255) + 1 },
      { kind: 'tag', granule, value: random.below(16) },
    ];
    if (random.chance(1, 2)) steps.reverse();
    thread.pending.push(...steps, { kind: 'load', granule, value: 0 });
  }

  /** The page is to be as if nobody had ever touched it: zeros, tags of 0. */
  #planWipe(thread: Thread, page: number): void {
    for (const within of [...USED_GRANULES, DEVICE_GRANULE]) {
      const granule = page * GRANULES + within;
      thread.pending.push({ kind: 'store', granule, value: 0 }, { kind: 'tag', granule, value: 0 });
    }
  }

  /** A device's DMA: no dirty log of KVM's sees it. */
  #deviceWrites(): void {
    if (!this.mayRun) return;
    const granule = this.#world.prng.below(this.#options.pages) * GRANULES + DEVICE_GRANULE;
    const value = this.#world.prng.below(256);
    const written = this.ram.process.memory.writeU8(hva(this.#hva + 16 * granule), value);
    if (written === -Errno.EAGAIN) return;
    accept(written);
    this.#options.model.bytes[granule] = value;
    this.ram.hostWrites.wrote(ipa(RAM_BASE + 16 * granule), 1);
  }

  /** KVM's calls with a guest that runs on between and while they are made. */
  #racing(vm: Vm): MemoryIoctls {
    const race = <A extends unknown[], R>(call: (...args: A) => R): ((...args: A) => R) => {
      return (...args) => {
        this.#race();
        const result = call(...args);
        this.#race();
        return result;
      };
    };
    return {
      enableCap: race((request) => vm.enableCap(request)),
      setUserMemoryRegion: race((region) => vm.setUserMemoryRegion(region)),
      getDirtyLog: race((slot) => vm.getDirtyLog(slot)),
      clearDirtyLog: race((request) => vm.clearDirtyLog(request)),
      copyTags: race((request) => vm.copyTags(request)),
      readTagLog: race((request) => vm.readTagLog(request)),
    };
  }

  /** The VMM's own loads likewise. */
  #raceReads(): void {
    const { memory } = this.ram.process;
    const readInto = memory.readInto.bind(memory);
    memory.readInto = (address, target) => {
      this.#race();
      return readInto(address, target);
    };
    const loadTags = memory.loadTags.bind(memory);
    memory.loadTags = (address, tags) => {
      this.#race();
      return loadTags(address, tags);
    };
  }

  #race(): void {
    if (this.#world.prng.chance(1, 3)) this.#step();
  }
}

/** A disk under swap that takes up to so many milliseconds to read a page. */
class SlowDisk {
  readonly device: SimulatedSwapDevice;

  constructor(world: SimWorld, slotCount: number, readMsMax: number) {
    this.device = new SimulatedSwapDevice(new MemorySwapDevice(slotCount), {
      prng: new Prng(world.prng.u32()),
      readTicksMax: Math.ceil(readMsMax / TICK_MS),
    });
    const tick = (): void => {
      this.device.advance(1);
      world.after(TICK_MS, tick);
    };
    world.after(TICK_MS, tick);
  }

  /** All that is under way is done. */
  hurry(): void {
    this.device.advance(1_000_000);
  }
}

function accept(result: number): void {
  assert(!isRefusal(result), 'a call of the simulation succeeds');
}
