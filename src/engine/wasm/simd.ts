/**
 * Opcodes of WebAssembly's 128-bit SIMD instructions, behind the prefix 0xfd. Generated from the
 * order of the specification.
 */

const shapes = (prefix: string, names: string): string[] =>
  names.split(' ').map((name) => (name === '-' ? '' : `${prefix}.${name}`));

const compares = 'eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u';
const floatCompares = 'eq ne lt gt le ge';

/** First opcode of each run, and the run; an empty name is a gap. */
const runs: readonly (readonly [number, readonly string[]])[] = [
  [0x0e, shapes('i8x16', 'swizzle splat')],
  [0x10, ['i16x8.splat', 'i32x4.splat', 'i64x2.splat', 'f32x4.splat', 'f64x2.splat']],
  [0x23, shapes('i8x16', compares)],
  [0x2d, shapes('i16x8', compares)],
  [0x37, shapes('i32x4', compares)],
  [0x41, shapes('f32x4', floatCompares)],
  [0x47, shapes('f64x2', floatCompares)],
  [0x4d, shapes('v128', 'not and andnot or xor bitselect any_true')],
  [0x5e, ['f32x4.demote_f64x2_zero', 'f64x2.promote_low_f32x4']],
  [0x60, shapes('i8x16', 'abs neg popcnt all_true bitmask narrow_i16x8_s narrow_i16x8_u')],
  [0x67, shapes('f32x4', 'ceil floor trunc nearest')],
  [0x6b, shapes('i8x16', 'shl shr_s shr_u add add_sat_s add_sat_u sub sub_sat_s sub_sat_u')],
  [0x74, shapes('f64x2', 'ceil floor')],
  [0x76, shapes('i8x16', 'min_s min_u max_s max_u')],
  [0x7a, ['f64x2.trunc', 'i8x16.avgr_u']],
  [0x7c, shapes('i16x8', 'extadd_pairwise_i8x16_s extadd_pairwise_i8x16_u')],
  [0x7e, shapes('i32x4', 'extadd_pairwise_i16x8_s extadd_pairwise_i16x8_u')],
  [0x80, shapes('i16x8', 'abs neg q15mulr_sat_s all_true bitmask narrow_i32x4_s narrow_i32x4_u')],
  [
    0x87,
    shapes(
      'i16x8',
      'extend_low_i8x16_s extend_high_i8x16_s extend_low_i8x16_u extend_high_i8x16_u',
    ),
  ],
  [0x8b, shapes('i16x8', 'shl shr_s shr_u add add_sat_s add_sat_u sub sub_sat_s sub_sat_u')],
  [0x94, ['f64x2.nearest']],
  [0x95, shapes('i16x8', 'mul min_s min_u max_s max_u - avgr_u')],
  [
    0x9c,
    shapes(
      'i16x8',
      'extmul_low_i8x16_s extmul_high_i8x16_s extmul_low_i8x16_u extmul_high_i8x16_u',
    ),
  ],
  [0xa0, shapes('i32x4', 'abs neg - all_true bitmask')],
  [
    0xa7,
    shapes(
      'i32x4',
      'extend_low_i16x8_s extend_high_i16x8_s extend_low_i16x8_u extend_high_i16x8_u',
    ),
  ],
  [0xab, shapes('i32x4', 'shl shr_s shr_u add - - sub - - - mul min_s min_u max_s max_u')],
  [0xba, ['i32x4.dot_i16x8_s']],
  [
    0xbc,
    shapes(
      'i32x4',
      'extmul_low_i16x8_s extmul_high_i16x8_s extmul_low_i16x8_u extmul_high_i16x8_u',
    ),
  ],
  [0xc0, shapes('i64x2', 'abs neg - all_true bitmask')],
  [
    0xc7,
    shapes(
      'i64x2',
      'extend_low_i32x4_s extend_high_i32x4_s extend_low_i32x4_u extend_high_i32x4_u',
    ),
  ],
  [0xcb, shapes('i64x2', 'shl shr_s shr_u add - - sub - - - mul eq ne lt_s gt_s le_s ge_s')],
  [
    0xdc,
    shapes(
      'i64x2',
      'extmul_low_i32x4_s extmul_high_i32x4_s extmul_low_i32x4_u extmul_high_i32x4_u',
    ),
  ],
  [0xe0, shapes('f32x4', 'abs neg - sqrt add sub mul div min max pmin pmax')],
  [0xec, shapes('f64x2', 'abs neg - sqrt add sub mul div min max pmin pmax')],
  [0xf8, ['i32x4.trunc_sat_f32x4_s', 'i32x4.trunc_sat_f32x4_u']],
  [0xfa, ['f32x4.convert_i32x4_s', 'f32x4.convert_i32x4_u']],
  [0xfc, ['i32x4.trunc_sat_f64x2_s_zero', 'i32x4.trunc_sat_f64x2_u_zero']],
  [0xfe, ['f64x2.convert_low_i32x4_s', 'f64x2.convert_low_i32x4_u']],
];

/** Opcode by name, e.g. 'i16x8.add'. */
export const simdOpcode: ReadonlyMap<string, number> = new Map(
  runs.flatMap(([first, names]) =>
    names.flatMap((name, i) => (name === '' ? [] : [[name, first + i] as const])),
  ),
);

export const SimdOp = {
  load: 0x00,
  store: 0x0b,
  const: 0x0c,
  shuffle: 0x0d,
  extract8: 0x16,
  replace8: 0x17,
  extract16: 0x19,
  replace16: 0x1a,
  extract32: 0x1b,
  replace32: 0x1c,
  extract64: 0x1d,
  replace64: 0x1e,
} as const;
