/**
 * Branded addresses. A VA is a 64-bit `bigint`; IPA, PA and sizes lie below 2^52 and are numbers on
 * which only `+ - *`, `Math.floor(x / n)` and the helpers here are used (`>>`, `|` and `&` cut at
 * 32 bits). This file makes the brands; nothing else casts to them.
 */

declare const brand: unique symbol;

/** Physical address of the machine, in bytes. */
export type Pa = number & { readonly [brand]: 'pa' };
/** Intermediate physical address (what a guest calls physical; KVM's gpa), in bytes. */
export type Ipa = number & { readonly [brand]: 'ipa' };
/** Address in a host process (the VMM) that backs guest memory, in bytes; below 2^48. */
export type Hva = number & { readonly [brand]: 'hva' };

export const pa = (value: number): Pa => value as Pa;
export const ipa = (value: number): Ipa => value as Ipa;
export const hva = (value: number): Hva => value as Hva;

export const KIB = 1024;
export const MIB = 1024 * 1024;
export const GIB = 1024 * 1024 * 1024;

/** 4 KiB: the page of the host, and the translation granule Linux uses. */
export const PAGE_SIZE = 4096;
/** 2 MiB: a level-2 block with the 4 KiB translation granule. */
export const BLOCK_SIZE = 2 * MIB;

/** `value` rounded down to a multiple of `align` (a power of two, any size up to 2^52). */
export function alignDown<T extends number>(value: T, align: number): T {
  return (value - (value % align)) as T;
}

/** `value` rounded up to a multiple of `align`. */
export function alignUp<T extends number>(value: T, align: number): T {
  const rest = value % align;
  return (rest === 0 ? value : value + (align - rest)) as T;
}

export const isAligned = (value: number, align: number): boolean => value % align === 0;

/** Upper 32 bits of a number below 2^53, as an unsigned number. */
export const high32 = (value: number): number => Math.floor(value / 4294967296);
/** Lower 32 bits, unsigned. */
export const low32 = (value: number): number => value >>> 0;
