/** Device trees written and read back; cut and damaged ones refused. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cells, cells64, type DtNode, EMPTY, node, strings, writeDeviceTree } from './dtb.ts';
import { cellsOf, DtbError, findNode, readDeviceTree, stringsOf } from './dtb-reader.ts';

const name = fc.stringMatching(/^[a-z][a-z0-9,.-]{0,12}$/);
const value = fc.uint8Array({ maxLength: 9 });
const treeOf = (depth: number): fc.Arbitrary<DtNode> =>
  fc.record({
    name,
    properties: fc.dictionary(name, value, { maxKeys: 4, noNullPrototype: true }),
    children:
      depth === 0
        ? fc.constant([])
        : fc.uniqueArray(treeOf(depth - 1), { selector: (child) => child.name, maxLength: 3 }),
  });

const sample = (): Uint8Array =>
  writeDeviceTree(
    node('', { compatible: strings('a', 'b'), 'dma-coherent': EMPTY }, [
      node('memory@40000000', { reg: cells64(0x4000_0000, 0x1_2000_0000) }),
      node('cpus', { compatible: strings('c'), '#size-cells': cells(0) }),
    ]),
    [{ address: 0x8_0000_1000, sizeBytes: 0x2000 }],
  );

describe('writeDeviceTree', () => {
  it('writeDeviceTree: the smallest tree, the bytes of the specification', () => {
    const words = cellsOf(writeDeviceTree(node('', { a: cells(7) })));
    expect(words.map((word) => word.toString(16))).toEqual(
      [
        ['d00dfeed', '60', '38', '58', '28', '11', '10', '0', '2', '20'], // header
        ['0', '0', '0', '0'], // end of the reservations
        ['1', '0', '3', '4', '0', '7', '2', '9'], // BEGIN '' PROP 4 @0 7 END_NODE END
        ['61000000', '0'], // 'a', padding
      ].flat(),
    );
  });

  it('writeDeviceTree: any tree, reads back the same', () => {
    fc.assert(
      fc.property(treeOf(3), (root) => {
        expect(readDeviceTree(writeDeviceTree(root)).root).toEqual(root);
      }),
      { numRuns: 60 },
    );
  });

  it('writeDeviceTree: a property name used twice, stored once', () => {
    const blob = sample();
    const text = new TextDecoder('latin1').decode(blob);
    expect(text.split('compatible\0')).toHaveLength(2);
  });

  it('writeDeviceTree: an illegal name or a name twice, an assertion', () => {
    for (const bad of [
      node('', {}, [node('a b')]),
      node('', {}, [node('a'.repeat(32))]),
      node('', { 'a b': EMPTY }),
      node('', { '': EMPTY }),
      node('', {}, [node('a'), node('a')]),
    ]) {
      expect(() => writeDeviceTree(bad)).toThrow('name');
    }
  });

  it('cells: beyond 32 bits, an assertion', () => {
    expect(() => cells(2 ** 32)).toThrow('32 bits');
    expect(() => cells(-1)).toThrow('32 bits');
    expect(cellsOf(cells64(2 ** 32 + 5))).toEqual([1, 5]);
  });
});

describe('readDeviceTree', () => {
  it('readDeviceTree: values and reservations, as written', () => {
    const { root, reservations } = readDeviceTree(sample());
    expect(stringsOf(root.properties.compatible!)).toEqual(['a', 'b']);
    expect(cellsOf(findNode(root, '/memory@40000000')!.properties.reg!)).toEqual([
      0, 0x4000_0000, 1, 0x2000_0000,
    ]);
    expect(findNode(root, '/cpus/none')).toBeUndefined();
    expect(reservations).toEqual([{ address: 0x8_0000_1000, sizeBytes: 0x2000 }]);
  });

  it('readDeviceTree: cut anywhere, refused', () => {
    const blob = sample();
    for (let length = 0; length < blob.length; length++) {
      expect(() => readDeviceTree(blob.subarray(0, length))).toThrow(DtbError);
    }
  });

  it('readDeviceTree: any byte changed, read or refused, nothing else', () => {
    const blob = sample();
    for (let at = 0; at < blob.length; at++) {
      for (const bits of [0xff, 0x01, 0x80]) {
        const bad = blob.slice();
        bad[at]! ^= bits;
        try {
          readDeviceTree(bad);
        } catch (error) {
          expect(error, `byte ${at}`).toBeInstanceOf(DtbError);
        }
      }
    }
  });

  it('readDeviceTree: nodes nested too deep, refused', () => {
    let deep = node('x');
    for (let i = 0; i < 80; i++) deep = node('x', {}, [deep]);
    expect(() => readDeviceTree(writeDeviceTree(deep))).toThrow('deeper than 64');
  });

  it('readDeviceTree: an older version, refused by number', () => {
    const blob = sample();
    new DataView(blob.buffer).setUint32(20, 16);
    expect(() => readDeviceTree(blob)).toThrow('version 16');
  });
});
