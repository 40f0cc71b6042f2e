/**
 * Rows for the Advanced SIMD structure loads and stores: LD1–LD4 and ST1–ST4 of multiple structures
 * and of single structures (one lane, and LD1R–LD4R to all lanes), each without writeback and
 * post-indexed by an immediate or a register. The structures of one instruction are one access and
 * fault as one. Not here: LDR and STR of a vector register. Collected by `loads-stores.ts`.
 */
import {
  type Addressing,
  atBase,
  postIndexed,
  SPLIT_ON_SP,
  writeBack,
} from './loads-stores-common.ts';
import { formatNumber, type OperandKind } from './operands.ts';
import type { ElementSize, I32, Ops, V128 } from './ops.ts';
import { type Row, type RowOptions, row, type Semantics } from './row.ts';

/** How many structure members, or registers. */
type Count = 1 | 2 | 3 | 4;
const counts: readonly Count[] = [1, 2, 3, 4];

/** What follows the base in the three addressing forms. Bytes differ by row and are known there. */
interface Form {
  readonly name: string;
  /** Bit 23. */
  readonly post: '0' | '1';
  /** Bits 20:16. */
  readonly rm: string;
  /** The address, `BYTES` standing for the operand that shows how far the base moves. */
  readonly syntax: string;
  readonly place: (bytes: number) => Addressing;
}

const forms: readonly Form[] = [
  {
    name: '',
    post: '0',
    rm: '00000',
    syntax: '[<X|SP:n>]',
    place: () => atBase,
  },
  {
    name: '_post_register',
    post: '1',
    rm: 'mmmmm',
    syntax: '[<X|SP:n>], <X:m>',
    place: () => postIndexed((b) => b.x('m')),
  },
  {
    // Rm = 31 is not XZR but the immediate form, so this row takes it out of the one above.
    name: '_post',
    post: '1',
    rm: '11111',
    syntax: '[<X|SP:n>], BYTES',
    place: (bytes) => postIndexed((b) => b.i64(bytes)),
  },
];

const options = (form: Form, name: string, split = ''): RowOptions => ({
  fp: true,
  split: `${split} ${SPLIT_ON_SP}`.trim(),
  ...(form.name === '_post' ? { refines: `${name}_post_register` } : {}),
});

// ---- multiple structures ------------------------------------------------------------------------

const zero = (b: Ops): V128 => b.v128(0n, 0n);

/** Memory at `at` as 16-byte pieces, the last one zero-filled. */
function loadPieces(b: Ops, at: I32, bytes: number): V128[] {
  const pieces: V128[] = [];
  for (let offset = 0; offset < bytes; offset += 16) {
    pieces.push(
      bytes - offset >= 16 ? b.ldV(at, offset) : b.withLane(zero(b), 64, 0, b.ld(at, offset, 8)),
    );
  }
  return pieces;
}

function storePieces(b: Ops, at: I32, bytes: number, pieces: readonly V128[]): void {
  pieces.forEach((piece, i) => {
    const offset = 16 * i;
    if (bytes - offset >= 16) b.stV(at, offset, piece);
    else b.st(at, offset, 8, b.lane(piece, 64, 0));
  });
}

/**
 * A vector whose byte i is byte `from(i)` of `sources` laid end to end; bytes with `from(i)` = -1
 * are zero. Sources are merged one after another: WebAssembly shuffles two vectors at a time.
 */
function gather(b: Ops, sources: readonly V128[], from: (i: number) => number): V128 {
  const wanted = Array.from({ length: 16 }, (_, i) => from(i));
  let result = zero(b);
  sources.forEach((source, k) => {
    const lanes = wanted.map((byte, i) =>
      byte >= 16 * k && byte < 16 * k + 16 ? byte - 16 * k + 16 : i,
    );
    if (lanes.some((lane) => lane >= 16)) result = b.shuffle(result, source, lanes);
  });
  return result;
}

/**
 * Arm: the loops over rpt, elements and selem of LD1–LD4. `registers` vectors of `width` bytes;
 * with `interleave`, consecutive elements in memory go round the registers.
 */
interface Layout {
  readonly registers: Count;
  readonly interleave: boolean;
  /** Bytes of an element and of a register's part that takes part. */
  readonly element: number;
  readonly width: 8 | 16;
}

/** Where byte `i` of register `r` lies in memory. */
function memoryByte({ registers, interleave, element, width }: Layout, r: number, i: number) {
  if (!interleave) return r * width + i;
  const index = Math.floor(i / element);
  return (index * registers + r) * element + (i % element);
}

function loadRegisters(b: Ops, at: I32, layout: Layout): void {
  const { registers, width } = layout;
  const pieces = loadPieces(b, at, registers * width);
  const values = Array.from({ length: registers }, (_, r) =>
    registers === 1 || (!layout.interleave && width === 16)
      ? pieces[r]!
      : gather(b, pieces, (i) => (i < width ? memoryByte(layout, r, i) : -1)),
  );
  values.forEach((value, r) => {
    b.setV('t', value, r);
  });
}

function storeRegisters(b: Ops, at: I32, layout: Layout): void {
  const { registers, width } = layout;
  const bytes = registers * width;
  const sources = Array.from({ length: registers }, (_, r) => b.v('t', r));
  if (registers === 1 || (!layout.interleave && width === 16)) {
    storePieces(b, at, bytes, sources);
    return;
  }
  const origin = new Array<number>(Math.ceil(bytes / 16) * 16).fill(-1);
  for (let r = 0; r < registers; r++) {
    for (let i = 0; i < width; i++) origin[memoryByte(layout, r, i)] = 16 * r + i;
  }
  const pieces = Array.from({ length: origin.length / 16 }, (_, k) =>
    gather(b, sources, (i) => origin[16 * k + i]!),
  );
  storePieces(b, at, bytes, pieces);
}

function multiple(load: boolean, registers: Count, interleave: boolean, form: Form): Semantics {
  return (b) => {
    const width = b.fixed('q') === 1 ? 16 : 8;
    const element = interleave ? 1 << b.fixed('z') : 1;
    const bytes = registers * width;
    const place = form.place(bytes)(b);
    const { va, checked } = place;
    const at = b.access({ va, bytes, kind: load ? 'read' : 'write', checked });
    const layout: Layout = { registers, interleave, element, width };
    if (load) loadRegisters(b, at, layout);
    else storeRegisters(b, at, layout);
    writeBack(b, place);
    if (!load) b.commit(at);
  };
}

/** Bits 15:12: registers, and whether structures interleave them. */
const multiples: readonly { opcode: string; registers: Count; interleave: boolean }[] = [
  { opcode: '0111', registers: 1, interleave: false },
  { opcode: '1010', registers: 2, interleave: false },
  { opcode: '0110', registers: 3, interleave: false },
  { opcode: '0010', registers: 4, interleave: false },
  { opcode: '1000', registers: 2, interleave: true },
  { opcode: '0100', registers: 3, interleave: true },
  { opcode: '0000', registers: 4, interleave: true },
];

const multipleRows: Row[] = multiples.flatMap(({ opcode, registers, interleave }) =>
  [false, true].flatMap((load) =>
    forms.map((form) => {
      const mnemonic = `${load ? 'ld' : 'st'}${interleave ? registers : 1}`;
      const name = `${mnemonic.toUpperCase()}_multiple_${registers}`;
      return row(
        name + form.name,
        `0q001100${form.post}${load ? 1 : 0}0${form.rm}${opcode}zznnnnnttttt`,
        `${mnemonic} <VL:${registers},q,z,t>, ` +
          form.syntax.replace('BYTES', `#<bytes:${registers},q>`),
        multiple(load, registers, interleave, form),
        {
          ...options(form, name, interleave ? 'q z' : 'q'),
          // An arrangement 1d exists only where registers are not interleaved.
          ...(interleave ? { reserved: (field) => field('q') === 0 && field('z') === 3 } : {}),
        },
      );
    }),
  ),
);

// ---- single structures, one lane ----------------------------------------------------------------

interface Lane {
  readonly letter: 'b' | 'h' | 's' | 'd';
  readonly bits: ElementSize;
  /** Bits 15:14, and 12:10 with the low bits of the index in them; bit 30 is its top bit. */
  readonly scale: string;
  readonly low: string;
}

const lanes: readonly Lane[] = [
  { letter: 'b', bits: 8, scale: '00', low: 'iii' },
  { letter: 'h', bits: 16, scale: '01', low: 'ii0' },
  { letter: 's', bits: 32, scale: '10', low: 'i00' },
  { letter: 'd', bits: 64, scale: '10', low: '001' },
];

function oneLane(load: boolean, members: Count, lane: Lane, form: Form): Semantics {
  const element = lane.bits / 8;
  return (b) => {
    const place = form.place(members * element)(b);
    const at = b.access({
      va: place.va,
      bytes: members * element,
      kind: load ? 'read' : 'write',
      checked: place.checked,
    });
    for (let r = 0; r < members; r++) {
      if (load) b.setElement('t', lane.bits, b.field('i'), b.ld(at, r * element, element), r);
      else b.st(at, r * element, element, b.element('t', lane.bits, b.field('i'), r));
    }
    writeBack(b, place);
    if (!load) b.commit(at);
  };
}

/** Bits 21 (R) and 13 (opcode<0>) hold the number of members less one. */
const memberBits = (members: Count): { r: number; o: number } => ({
  r: (members - 1) & 1,
  o: (members - 1) >> 1,
});

const laneRows: Row[] = counts.flatMap((members) =>
  lanes.flatMap((lane) =>
    [false, true].flatMap((load) =>
      forms.map((form) => {
        const { r, o } = memberBits(members);
        const mnemonic = `${load ? 'ld' : 'st'}${members}`;
        const name = `${mnemonic.toUpperCase()}_lane_${lane.letter}`;
        return row(
          name + form.name,
          `0i001101${form.post}${load ? 1 : 0}${r}${form.rm}${lane.scale}${o}${lane.low}nnnnnttttt`,
          `${mnemonic} <VL${lane.letter}:${members},i,t>, ` +
            form.syntax.replace('BYTES', `#${members * (lane.bits / 8)}`),
          oneLane(load, members, lane, form),
          options(form, name),
        );
      }),
    ),
  ),
);

// ---- single structures, all lanes ---------------------------------------------------------------

function allLanes(members: Count, form: Form): Semantics {
  return (b) => {
    const bits = (8 << b.fixed('z')) as ElementSize;
    const element = bits / 8;
    const place = form.place(members * element)(b);
    const { va, checked } = place;
    const at = b.access({ va, bytes: members * element, kind: 'read', checked });
    for (let r = 0; r < members; r++) {
      const value = b.splat(bits, b.ld(at, r * element, element));
      b.setV('t', b.fixed('q') === 1 ? value : b.withLane(value, 64, 1, b.i64(0)), r);
    }
    writeBack(b, place);
  };
}

const allLanesRows: Row[] = counts.flatMap((members) =>
  forms.map((form) => {
    const { r, o } = memberBits(members);
    const name = `LD${members}R`;
    return row(
      name + form.name,
      `0q001101${form.post}1${r}${form.rm}11${o}0zznnnnnttttt`,
      `ld${members}r <VL:${members},q,z,t>, ` +
        form.syntax.replace('BYTES', `#<elements:${members},z>`),
      allLanes(members, form),
      options(form, name, 'q z'),
    );
  }),
);

// ---- operands -----------------------------------------------------------------------------------

/** How far a post-indexed base moves: it follows from the register list, which comes first. */
function movedBytes(bytes: (count: number, field: number) => number): OperandKind {
  return {
    print: ([count, field]) => formatNumber(bytes(count!, field!)),
    parse(text, form) {
      const start = text.at;
      const value = text.expression();
      const expected = bytes(form.known(0)!, form.known(1) ?? 0);
      return value === BigInt(expected) ? [] : text.deny(`${expected} expected here`, start);
    },
  };
}

/** `<bytes:4,q>`: that many whole registers; `<elements:4,z>`: that many elements. */
export const operands: Readonly<Record<string, OperandKind>> = {
  bytes: movedBytes((count, q) => count * (8 << q)),
  elements: movedBytes((count, z) => count << z),
};

export const rows: Row[] = [...multipleRows, ...laneRows, ...allLanesRows];
