/**
 * Records `test/golden/assembler.json` from the GNU assembler: the words of instruction texts. The
 * texts are our disassembler's for a word of every row and alias, and spellings by hand below.
 * Needs `aarch64-linux-gnu-as` and `-objcopy`; the test that compares needs neither.
 *
 *   npx tsc -p tools && node dist/.tools/tools/record-assembler.js
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { aliases, rows } from '../src/arm/a64/table.ts';
import { disassemble } from '../src/arm/a64/text.ts';
import { Prng } from '../src/base/index.ts';
import { randomWord } from '../test/random-words.ts';

const OUTPUT = 'test/golden/assembler.json';
const ARCHITECTURE =
  'armv8.8-a+memtag+crypto+sha3+sm4+fp16+dotprod+bf16+i8mm+rcpc+lse+flagm+profile';
const ATTEMPTS = 20;

/** Spellings that a disassembler does not choose, and the ones that people write. */
const byHand = `
add x0, x1, 4
add x0, x1, #0x2000
add sp, sp, #-(-32)
add x0, sp, w2, uxtw
add w0, wsp, w2, lsl #2
cmp x0, #0
cmp sp, x1
cmn w3, w4, asr #3
neg x0, x1
mov x0, sp
mov sp, x0
mov x0, #0x1234
mov w0, #-1
mov x0, #0xffff0000
mov x0, #0xaaaaaaaaaaaaaaaa
mov x0, #-0x10001
movk x0, #0xbeef, lsl #48
and x0, x1, #~15
tst w0, #1
lsl x0, x1, #1
lsr w0, w1, #31
asr x0, x1, x2
ror w0, w1, #7
ubfx x0, x1, #3, #4
sbfiz w0, w1, #3, #4
bfi x0, x1, #60, #4
bfxil w0, w1, #1, #2
sxtw x0, w1
uxtb w0, w1
cset x0, hs
csetm w0, lo
cinc x0, x1, eq
cneg w0, w1, mi
b.eq .
b.hs .+4
b.lo .-4
cbz w0, .+16
tbz x0, #3, .+8
tbnz w0, #31, .-8
tbz x0, #63, .+8
ret
ret x1
ldr x0, [sp]
ldr x0, [x1, #8]
ldr w0, [x1], #4
ldr x0, [x1, #-8]!
ldr x0, [x1, x2]
ldr x0, [x1, x2, lsl #3]
ldr x0, [x1, w2, sxtw]
ldr x0, [x1, w2, uxtw #3]
ldrb w0, [x1, x2, lsl #0]
ldrb w0, [x1, x2]
ldursw x0, [x1, #-4]
ldr x0, .+16
ldr d0, .+16
ldp x29, x30, [sp], #16
stp x29, x30, [sp, #-16]!
ldp q0, q1, [x0, #32]
ldxr x0, [x1]
stlxrb w0, w1, [x2]
ldaxp x0, x1, [x2]
casp x0, x1, x2, x3, [x4]
ldadd x0, x1, [x2]
stset w0, [x1]
swpal x0, x1, [sp]
prfm pldl1keep, [x0]
prfm pstl2strm, [x0, x1, lsl #3]
dmb ish
dsb sy
dsb ishst
isb
isb sy
clrex
clrex #3
nop
wfi
hint #7
svc #0
hvc #0xffff
brk #0x1000
msr daifset, #2
msr daifclr, #15
msr spsel, #1
msr tco, #1
msr pan, #0
mrs x0, midr_el1
mrs x1, cntvct_el0
msr ttbr0_el1, x2
msr s3_0_c1_c0_6, x3
dc zva, x0
dc civac, x1
dc gva, x2
dc cigdvac, x3
ic iallu
ic ivau, x0
at s1e1r, x0
tlbi vmalle1is
tlbi vae1, x0
tlbi aside1is, x0
irg x0, x1
irg sp, x1, x2
gmi x0, sp, x1
addg x0, x1, #32, #3
subp x0, x1, x2
cmpp x0, x1
stg x0, [x1]
stg sp, [sp], #16
st2g x0, [x1, #-32]!
stzg x0, [x1, #4080]
ldg x0, [x1, #-4096]
stgp x0, x1, [sp, #16]
ldgm x0, [x1]
fmov d0, #1.0
fmov s1, #-0.125
fmov v2.4s, #31.0
fmov x0, d1
fmov v0.d[1], x1
fmov h2, w3
fcmp d0, #0.0
fcsel s0, s1, s2, hs
fccmp d0, d1, #4, eq
fcvtzs x0, d1, #12
scvtf s0, w1, #31
movi v0.16b, #0xff
movi v1.8h, #1, lsl #8
movi v2.2d, #0xff00ff00ff00ff00
movi d3, #0
mvni v4.4s, #7, msl #16
orr v5.4s, #1, lsl #24
dup v0.4s, w1
dup v0.2d, v1.d[1]
mov v0.s[3], w1
mov v0.b[7], v1.b[9]
mov x0, v1.d[0]
mov d0, v1.d[1]
umov w0, v1.h[3]
smov x0, v1.s[2]
mov v0.16b, v1.16b
mvn v0.8b, v1.8b
ext v0.16b, v1.16b, v2.16b, #15
tbl v0.8b, {v1.16b}, v2.8b
tbx v0.16b, {v30.16b, v31.16b, v0.16b, v1.16b}, v2.16b
tbl v0.16b, {v4.16b-v7.16b}, v2.16b
add d0, d1, d2
sqadd v0.2d, v1.2d, v2.2d
mla v0.4s, v1.4s, v2.s[3]
fmla v0.2d, v1.2d, v2.d[1]
sqdmulh h0, h1, v2.h[7]
sdot v0.4s, v1.16b, v2.4b[2]
shl v0.2d, v1.2d, #63
sshr v0.8b, v1.8b, #8
shrn2 v0.16b, v1.8h, #1
sxtl v0.8h, v1.8b
ushll2 v0.2d, v1.4s, #31
xtn v0.2s, v1.2d
addv b0, v1.16b
addp d0, v1.2d
faddp s0, v1.2s
cmge v0.4s, v1.4s, #0
fcmlt v0.2d, v1.2d, #0.0
pmull v0.1q, v1.1d, v2.1d
aese v0.16b, v1.16b
sha256h q0, q1, v2.4s
ld1 {v0.16b}, [x0]
ld1 {v0.8b, v1.8b}, [x0], #16
ld4 {v0.4s-v3.4s}, [x0], x1
st2 {v31.h, v0.h}[7], [sp]
ld1r {v0.2d}, [x0], #8
st1 {v0.d}[1], [x0], x2
ldr q0, [x0, x1, lsl #4]
ldr b0, [x0, #4095]
stp d8, d9, [sp, #-16]!
`;

/** Whether the GNU assembler takes it: it wants 0 or 1 for PSTATE fields of one bit. */
const isStrict = (text: string): boolean => !/^msr (?!daif|spsel)[a-z]+, #(?![01]$)/.test(text);

const candidates = new Set(
  byHand
    .trim()
    .split('\n')
    .map((line) => line.trim()),
);
const prng = new Prng(1);
for (const spelling of [...rows, ...aliases]) {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const text = disassemble(randomWord(spelling, prng), 0n);
    const relative = text === undefined ? undefined : relativeToPc(text);
    if (relative === undefined || !isStrict(relative)) continue;
    candidates.add(relative);
    break;
  }
}
const texts = [...candidates];
const words = gnuAssemble(texts);
const lines = texts.map((text, i) => `${JSON.stringify(text)}: "${words[i]}"`);
writeFileSync(OUTPUT, `{\n${lines.join(',\n')}\n}\n`);
console.log(`${OUTPUT}: ${texts.length} instructions`);

/** PC-relative targets as `.+8`, since the GNU assembler relocates absolute ones; not for ADRP. */
function relativeToPc(text: string): string | undefined {
  if (text.startsWith('adrp')) return undefined;
  if (!/^(b|bl|b\.\w+|cbn?z|tbn?z|adr|ldr|ldrsw|prfm) ([^[]*, )?0x[0-9a-f]+$/.test(text))
    return text;
  return text.replace(/0x[0-9a-f]+$/, (target) => {
    const distance = BigInt.asIntN(64, BigInt(target));
    return distance < 0n ? `.${distance}` : `.+${distance}`;
  });
}

/**
 * The words of the texts in hexadecimal. Ends with the assembler's messages where it refuses one.
 */
function gnuAssemble(texts: readonly string[]): string[] {
  const directory = mkdtempSync(join(tmpdir(), 'record-assembler-'));
  const [source, object, binary] = ['text.s', 'text.o', 'text.bin'].map((name) =>
    join(directory, name),
  ) as [string, string, string];
  try {
    writeFileSync(source, `.arch ${ARCHITECTURE}\n${texts.join('\n')}\n`);
    execFileSync('aarch64-linux-gnu-as', [source, '-o', object]);
    execFileSync('aarch64-linux-gnu-objcopy', ['-O', 'binary', '-j', '.text', object, binary]);
    const bytes = readFileSync(binary);
    return texts.map((_, i) =>
      bytes
        .readUInt32LE(4 * i)
        .toString(16)
        .padStart(8, '0'),
    );
  } finally {
    rmSync(directory, { recursive: true });
  }
}
