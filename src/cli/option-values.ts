/**
 * What the values of options are made of: one zod schema a kind of value, with the sentence that
 * names option, value and what would fit. Used by the files that know which command takes what.
 */
import { z } from 'zod';
import { GIB, KIB, MIB } from '../base/index.ts';
import { parseAddress } from '../vmm/migration/address.ts';
import { CliError } from './cli-error.ts';

const SIZE_UNITS: Readonly<Record<string, number>> = { K: KIB, M: MIB, G: GIB };

/** A size in bytes: `512M`, `1G`, `65536K`; a bare number counts `bareUnit`. */
export const size = (option: string, bareUnit: number) =>
  z.string().transform((text, context) => {
    const match = /^(\d{1,9})([KMG]?)(?:iB)?$/i.exec(text);
    const unit = SIZE_UNITS[match?.[2]?.toUpperCase() ?? ''] ?? bareUnit;
    const sizeBytes = match === null ? Number.NaN : Number(match[1]) * unit;
    if (!(sizeBytes > 0 && sizeBytes <= Number.MAX_SAFE_INTEGER)) {
      context.addIssue(`${option} ${text}: not a size like 512M or 1G`);
      return z.NEVER;
    }
    return sizeBytes;
  });

/** Milliseconds up to `maxMs`: `300ms`, `2s`; a bare number counts milliseconds. */
export const duration = (option: string, maxMs: number) =>
  z.string().transform((text, context) => {
    const match = /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|)$/.exec(text);
    const ms = match === null ? Number.NaN : Number(match[1]) * (match[2] === 's' ? 1000 : 1);
    if (!(ms <= maxMs)) {
      context.addIssue(`${option} ${text}: not a time like 300ms or 2s, at most ${maxMs / 1000}s`);
      return z.NEVER;
    }
    return ms;
  });

export const wholeNumber = (option: string, min: number, max: number) =>
  z.string().transform((text, context) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= min && value <= max)) {
      context.addIssue(`${option} ${text}: not a whole number from ${min} to ${max}`);
      return z.NEVER;
    }
    return value;
  });

export const oneOf = <const T extends readonly string[]>(option: string, choices: T) =>
  z.enum(choices, {
    error: ({ input }) => `${option} ${String(input)}: not one of ${choices.join(', ')}`,
  });

export const path = (option: string) => z.string().min(1, `${option}: the file name is empty`);

/** `tcp:HOST:PORT`. */
export const address = (option: string) =>
  z.string().transform((text, context) => {
    try {
      return parseAddress(text);
    } catch (error) {
      context.addIssue(`${option} ${error instanceof Error ? error.message : text}`);
      return z.NEVER;
    }
  });

/** The value that `schema` makes of `raw`; throws `CliError` with the first thing that is wrong. */
export function check<T extends z.ZodType>(schema: T, raw: unknown): z.output<T> {
  const parsed = schema.safeParse(raw);
  if (!parsed.success) throw new CliError(parsed.error.issues[0]!.message);
  return parsed.data;
}
