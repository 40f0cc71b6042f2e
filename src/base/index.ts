export * from './address.ts';
export * from './assert.ts';
export * from './bits.ts';
export * from './prng.ts';
