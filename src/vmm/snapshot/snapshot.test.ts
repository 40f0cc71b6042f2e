/**
 * Snapshots of whole machines: restored, at once or on touch, they end as the undisturbed run does;
 * whatever is wrong with a file is refused before anything is loaded.
 */
import { once } from 'node:events';
import {
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { devNull, tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  instructionsOf,
  runSlices,
  runToEnd,
  SMALL_RAM_BYTES,
  smpGuestPlan,
  type TestMachine,
  testMachine,
} from '../../../test/support/machines.ts';
import { hva, ipa, PAGE_SIZE } from '../../base/index.ts';
import { Errno } from '../../host/index.ts';
import { RAM_BASE } from '../board.ts';
import { encodeState } from '../state/codec.ts';
import { hashMachine } from '../state-hash.ts';
import { encodeHeader, HEADER_BYTES } from './format.ts';
import { infoLines, snapshotInfo } from './info.ts';
import { machineOf, restoreSnapshot, restoreSnapshotLazily } from './restore.ts';
import { saveSnapshot } from './save.ts';
import { SnapshotError } from './snapshot-error.ts';
import { openSnapshot } from './snapshot-file.ts';

const directory = mkdtempSync(join(tmpdir(), 'granule-snapshot-'));
const fileNamed = (name: string): string => join(directory, name);
afterAll(() => rmSync(directory, { recursive: true }));

function thrownBy(work: () => unknown): SnapshotError | undefined {
  try {
    work();
  } catch (error) {
    if (error instanceof SnapshotError) return error;
    throw error;
  }
  return undefined;
}

/** What a promise is rejected with. */
const rejection = (work: Promise<unknown>): Promise<SnapshotError | undefined> =>
  work.then(
    () => undefined,
    (error) =>
      thrownBy(() => {
        throw error;
      }),
  );

/** A machine as the snapshot says, nothing loaded. */
function machineFor(path: string): TestMachine {
  const file = openSnapshot(path);
  file.close();
  return testMachine(machineOf(file));
}

function restored(path: string): TestMachine {
  const target = machineFor(path);
  restoreSnapshot(target.machine, openSnapshot(path));
  return target;
}

/** Everything that a restore looks at. */
async function checkWhole(path: string): Promise<void> {
  const file = openSnapshot(path);
  try {
    await file.verify();
  } finally {
    file.close();
  }
}

const good = fileNamed('good');
let undisturbedHash = '';
let undisturbedCount = 0n;
let savedHash = '';

beforeAll(async () => {
  const undisturbed = testMachine();
  runToEnd(undisturbed.machine);
  undisturbedHash = hashMachine(undisturbed.machine);
  undisturbedCount = instructionsOf(undisturbed.machine);
  const source = testMachine();
  runSlices(source.machine, 17);
  await saveSnapshot(source.machine, good);
  savedHash = hashMachine(source.machine);
});

describe('snapshot: save and restore', () => {
  it.each(['lz4', 'none'] as const)(
    'restoreSnapshot: compress %s, the undisturbed end',
    async (compress) => {
      const source = testMachine();
      runSlices(source.machine, 23);
      const path = fileNamed(compress);
      const sizeBytes = await saveSnapshot(source.machine, path, { compress });
      expect(readFileSync(path).length).toBe(sizeBytes);
      const target = restored(path);
      expect(hashMachine(target.machine)).toBe(hashMachine(source.machine));
      for (const { machine } of [source, target]) {
        runToEnd(machine);
        expect(instructionsOf(machine)).toBe(undisturbedCount);
        expect(hashMachine(machine)).toBe(undisturbedHash);
      }
    },
  );

  it('restoreSnapshotLazily: RAM comes on touch, the undisturbed end', () => {
    const target = machineFor(good);
    const ram = restoreSnapshotLazily(target.machine, openSnapshot(good));
    const all = ram.missingCount;
    expect(all).toBeGreaterThan(0);
    expect(target.machine.process.userfault.statistics.faultCount).toBe(0);
    runToEnd(target.machine);
    expect(instructionsOf(target.machine)).toBe(undisturbedCount);
    expect(hashMachine(target.machine)).toBe(undisturbedHash);
    expect(ram.loadSome(all)).toBe(false);
  });

  it('loadSome: everything loaded, the file is closed and missing pages are zero again', async () => {
    const target = machineFor(good);
    const file = openSnapshot(good);
    const ram = restoreSnapshotLazily(target.machine, file);
    while (ram.loadSome(1));
    expect(ram.missingCount).toBe(0);
    expect((await rejection(file.verify()))?.code).toBe('file-unreadable');
    expect(hashMachine(target.machine)).toBe(savedHash);
    runToEnd(target.machine);
    expect(hashMachine(target.machine)).toBe(undisturbedHash);
  });

  it.each(['memfd', 'anonymous'] as const)(
    'restore into %s memory: the same machine',
    (backing) => {
      for (const lazy of [false, true]) {
        const file = openSnapshot(good);
        const { machine } = testMachine({ ...machineOf(file), backing });
        if (lazy) restoreSnapshotLazily(machine, file);
        else restoreSnapshot(machine, file);
        expect(hashMachine(machine)).toBe(savedHash);
        runToEnd(machine);
        expect(hashMachine(machine)).toBe(undisturbedHash);
      }
    },
  );

  it.each([restoreSnapshot, restoreSnapshotLazily])(
    '%o: into a machine that can boot, goes on; and after a reset boots',
    (restore) => {
      const file = openSnapshot(good);
      const setup = { ...machineOf(file), plan: smpGuestPlan(), blank: true };
      const { machine, output } = testMachine(setup);
      restore(machine, file);
      expect(hashMachine(machine)).toBe(savedHash);
      runToEnd(machine);
      expect(hashMachine(machine)).toBe(undisturbedHash);
      machine.reset();
      runToEnd(machine);
      expect(output().match(/smp: done/g)).toHaveLength(2);
    },
  );

  it('saveSnapshot: of a machine in a memfd, the same file', async () => {
    const source = testMachine({ backing: 'memfd' });
    runSlices(source.machine, 17);
    await saveSnapshot(source.machine, fileNamed('memfd'));
    expect(readFileSync(fileNamed('memfd'))).toEqual(readFileSync(good));
  });

  it('saveSnapshot: of a restored machine, the same bytes, loaded at once or on touch', async () => {
    const first = readFileSync(good);
    await saveSnapshot(restored(good).machine, fileNamed('again'));
    expect(readFileSync(fileNamed('again'))).toEqual(first);
    const lazy = machineFor(good);
    restoreSnapshotLazily(lazy.machine, openSnapshot(good));
    await saveSnapshot(lazy.machine, fileNamed('again'));
    expect(readFileSync(fileNamed('again'))).toEqual(first);
  });

  it('saveSnapshot: without MTE, no tags', async () => {
    const source = testMachine({ mte: false });
    const path = fileNamed('no-mte');
    await saveSnapshot(source.machine, path);
    const file = openSnapshot(path);
    expect(snapshotInfo(file).pages.tagged).toBe(0);
    const target = testMachine(machineOf(file));
    restoreSnapshot(target.machine, file);
    expect(hashMachine(target.machine)).toBe(hashMachine(source.machine));
  });

  it('saveSnapshot: pages of zeros and pages never touched cost nothing', async () => {
    const source = testMachine();
    const before = await saveSnapshot(source.machine, fileNamed('zeros'));
    source.machine.memory.write(ipa(RAM_BASE + 6 * 1024 * 1024), new Uint8Array(PAGE_SIZE * 100));
    expect(await saveSnapshot(source.machine, fileNamed('zeros'))).toBe(before);
  });

  it('page: each page of a file, as it is in the machine', () => {
    const { machine } = restored(good);
    const file = openSnapshot(good);
    for (let i = 0; i < file.pageCount; i += 3) {
      const data = machine.memory.read(ipa(RAM_BASE + i * PAGE_SIZE), PAGE_SIZE)!;
      expect(Buffer.compare(file.page(i).data ?? new Uint8Array(PAGE_SIZE), data)).toBe(0);
    }
    file.close();
  });

  it('infoLines: pages, tags, sizes', () => {
    const file = openSnapshot(good);
    const lines = infoLines(file).join('\n');
    expect(lines).toContain('8 MiB');
    expect(lines).toMatch(/pages tagged +1,/);
    expect(lines).toContain('CPUs                2');
    file.close();
  });
});

describe('snapshot: a file that is not right', () => {
  it('openSnapshot, verify: any byte changed, refused', async () => {
    const bytes = readFileSync(good);
    const path = fileNamed('changed');
    const refuses = async (at: number, difference: number): Promise<void> => {
      const changed = Buffer.from(bytes);
      changed[at] = changed[at]! ^ difference;
      writeFileSync(path, changed);
      const error = await rejection(checkWhole(path));
      expect(error?.message).toMatch(/^\S+changed: /);
      expect(error?.code).not.toBe('file-unreadable');
    };
    for (let at = 0; at < 64; at++) await refuses(at, 1);
    const difference = fc.integer({ min: 1, max: 255 });
    await fc.assert(fc.asyncProperty(fc.nat(bytes.length - 1), difference, refuses), {
      numRuns: 300,
    });
  });

  it('openSnapshot: cut anywhere, refused before anything else is looked at', () => {
    const path = fileNamed('cut');
    const { length } = readFileSync(good);
    fc.assert(
      fc.property(fc.nat(length - 1), (keep) => {
        writeFileSync(path, readFileSync(good));
        truncateSync(path, keep);
        expect(['cut', 'not-a-snapshot']).toContain(thrownBy(() => openSnapshot(path))?.code);
      }),
      { numRuns: 50 },
    );
  });

  it('openSnapshot: a byte more, refused', () => {
    const path = fileNamed('longer');
    writeFileSync(path, Buffer.concat([readFileSync(good), Buffer.of(0)]));
    expect(thrownBy(() => openSnapshot(path))?.code).toBe('corrupted');
  });

  it('openSnapshot: another version, said so', () => {
    const bytes = readFileSync(good);
    bytes.writeUInt32LE(2, 8);
    bytes.writeUInt32LE(crc32(bytes.subarray(0, 60)), 60);
    const path = fileNamed('version');
    writeFileSync(path, bytes);
    const error = thrownBy(() => openSnapshot(path));
    expect(error?.code).toBe('other-version');
    expect(error?.message).toContain('version 2');
  });

  it.each([
    ['no file', undefined, 'file-missing'],
    ['an empty file', Buffer.alloc(0), 'not-a-snapshot'],
    ['a text', Buffer.from('hello, this is not a snapshot'), 'not-a-snapshot'],
    ['only the magic', Buffer.from('GRANSNAP'), 'cut'],
  ])('openSnapshot: %s, refused', (name, content, code) => {
    const path = fileNamed(name.replaceAll(' ', '-'));
    if (content !== undefined) writeFileSync(path, content);
    expect(thrownBy(() => openSnapshot(path))?.code).toBe(code);
  });

  it('openSnapshot: a directory, refused', () => {
    expect(thrownBy(() => openSnapshot(directory))?.code).toBe('file-unreadable');
  });

  it('openSnapshot: a device, refused', () => {
    expect(thrownBy(() => openSnapshot(devNull))?.message).toBe(`${devNull}: not a regular file`);
  });

  it.each([
    ['RAM', (bytes: number) => bytes + PAGE_SIZE, 'is no multiple of 2 MiB'],
    ['RAM', () => 2 ** 40, 'is outside 2 MiB to 3 GiB'],
  ])('openSnapshot: right checksums and %s of no machine, refused', (_, change, sentence) => {
    const path = fileNamed('no-machine');
    const file = openSnapshot(good);
    file.close();
    const { machine } = file.state;
    const changed = { ...machine, ramBytes: change(machine.ramBytes) };
    const state = encodeState({ ...file.state, machine: changed });
    const header = encodeHeader({
      fileBytes: HEADER_BYTES + state.length,
      stateBytes: state.length,
      stateCrc: crc32(state),
      indexOffset: HEADER_BYTES + state.length,
      indexBytes: 0,
      indexCrc: 0,
    });
    writeFileSync(path, Buffer.concat([header, state]));
    const error = thrownBy(() => openSnapshot(path));
    expect([error?.code, error?.message]).toEqual([
      'machine-differs',
      expect.stringContaining(sentence),
    ]);
  });

  it.each(['anonymous', 'memfd'] as const)(
    'restoreSnapshot: a corrupted chunk behind good ones, nothing is loaded into %s memory',
    async (backing) => {
      const path = fileNamed('bad-chunk');
      const source = testMachine();
      runSlices(source.machine, 5);
      source.machine.memory.write(ipa(RAM_BASE + 6 * 1024 * 1024), Uint8Array.of(1));
      await saveSnapshot(source.machine, path);
      const bytes = readFileSync(path);
      const file = openSnapshot(path);
      expect(file.chunks.length).toBeGreaterThan(1);
      const { offset } = file.chunks.at(-1)!;
      file.close();
      bytes[offset + 9] = bytes[offset + 9]! ^ 4;
      writeFileSync(path, bytes);
      const { machine } = testMachine({ ...machineOf(file), backing });
      const before = hashMachine(machine);
      const error = thrownBy(() => restoreSnapshot(machine, openSnapshot(path)));
      expect(error?.code).toBe('corrupted');
      expect(error?.message).toMatch(
        /RAM at 0x4[0-9a-f]+ \(bytes \d+ to \d+\) has a wrong checksum/,
      );
      expect(hashMachine(machine)).toBe(before);
    },
  );

  it('restoreSnapshotLazily: a corrupted chunk, EIO where it is touched and the reason kept', () => {
    const path = fileNamed('bad-lazy-chunk');
    const bytes = readFileSync(good);
    const file = openSnapshot(good);
    const { offset, chunk } = file.chunks[0]!;
    file.close();
    bytes[offset] = bytes[offset]! ^ 1;
    writeFileSync(path, bytes);
    const { machine } = machineFor(path);
    const ram = restoreSnapshotLazily(machine, openSnapshot(path));
    const at = hva(machine.ramHva + chunk * 2 * 1024 * 1024);
    expect(machine.process.faultIn(at, { write: false })).toBe(-Errno.EIO);
    expect(ram.failure?.code).toBe('corrupted');
    expect(thrownBy(() => ram.loadSome(100))).toBe(ram.failure);
  });

  it.each([
    ['memory', { plan: { ramBytes: 2 * SMALL_RAM_BYTES, cpuCount: 2 } }, 'ramBytes'],
    ['CPUs', { plan: { ramBytes: SMALL_RAM_BYTES, cpuCount: 1 } }, 'cpuCount'],
    ['MTE', { mte: false }, 'mte'],
  ])('restoreSnapshot: a machine with other %s, refused', (_, setup, word) => {
    for (const restore of [restoreSnapshot, restoreSnapshotLazily]) {
      const file = openSnapshot(good);
      const { machine } = testMachine({ ...machineOf(file), ...setup });
      const before = hashMachine(machine);
      const error = thrownBy(() => restore(machine, file));
      expect(error?.code).toBe('machine-differs');
      expect(error?.message).toContain(word);
      expect(hashMachine(machine)).toBe(before);
    }
  });
});

describe('snapshot: a file that cannot be written', () => {
  it('saveSnapshot: no such directory, refused', async () => {
    const { machine } = testMachine();
    const error = await rejection(saveSnapshot(machine, join(directory, 'nowhere', 'file')));
    expect(error?.code).toBe('file-unwritable');
    expect(error?.message).toContain('ENOENT');
  });

  it('saveSnapshot: a name with a NUL, refused', async () => {
    const { machine } = testMachine();
    const error = await rejection(saveSnapshot(machine, `${fileNamed('a')}\0b`));
    expect(error?.code).toBe('file-unwritable');
    expect(error?.message).toContain('a\\u0000b": no file can be called so');
  });

  it('saveSnapshot: where something else than a file is, refused and that stays', async () => {
    const { machine } = testMachine();
    const listening = createServer().listen(fileNamed('socket'));
    await once(listening, 'listening');
    symlinkSync(fileNamed('socket'), fileNamed('link-to-socket'));
    for (const name of ['socket', 'link-to-socket', '.']) {
      const error = await rejection(saveSnapshot(machine, fileNamed(name)));
      expect([error?.code, error?.message]).toEqual([
        'file-unwritable',
        expect.stringContaining('is there and is no regular file'),
      ]);
    }
    expect(statSync(fileNamed('socket')).isSocket()).toBe(true);
    listening.close();
  });

  it('saveSnapshot: through a link, the file behind it is replaced', async () => {
    writeFileSync(fileNamed('behind'), 'old');
    symlinkSync('behind', fileNamed('link'));
    const { machine } = testMachine();
    await saveSnapshot(machine, fileNamed('link'));
    expect(lstatSync(fileNamed('link')).isSymbolicLink()).toBe(true);
    expect(hashMachine(restored(fileNamed('behind')).machine)).toBe(hashMachine(machine));
  });

  it('saveSnapshot: fails in the middle, the old file stays and nothing is left over', async () => {
    const path = fileNamed('kept');
    writeFileSync(path, 'what was there before');
    const { machine } = testMachine();
    const onProgress = (): never => {
      throw new SnapshotError('refused', 'the test says so');
    };
    expect((await rejection(saveSnapshot(machine, path, { onProgress })))?.code).toBe('refused');
    expect(readFileSync(path, 'utf8')).toBe('what was there before');
    expect(readdirSync(directory).filter((name) => name.includes('partial'))).toEqual([]);
  });

  it('saveSnapshot: over a snapshot, replaced whole', async () => {
    const path = fileNamed('replaced');
    writeFileSync(path, readFileSync(good));
    const source = testMachine();
    await saveSnapshot(source.machine, path);
    expect(hashMachine(restored(path).machine)).toBe(hashMachine(source.machine));
  });
});
