/** The ground floor: addresses, assertions, bit fields, seeded randomness. Imports nothing. */
export * from './address.ts';
export * from './assert.ts';
export * from './bits.ts';
export * from './prng.ts';
