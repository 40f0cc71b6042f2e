/**
 * The ground floor: addresses, assertions, bit fields, packed tags, seeded randomness. Imports
 * nothing.
 */
export * from './address.ts';
export * from './assert.ts';
export * from './bits.ts';
export * from './packed-tags.ts';
export * from './prng.ts';
