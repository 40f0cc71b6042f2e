/** The public face of `arm/sysreg`: encodings, the features of the CPU, the table of registers. */
export * from './encoding.ts';
export * from './id-registers.ts';
export * from './table.ts';
