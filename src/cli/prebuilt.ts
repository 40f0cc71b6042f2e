/**
 * The interpreter's module kept beside the build: `writePrebuilt` is the last step of `npm run
 * build`, `usePrebuilt` takes it at start, which saves a run most of its start-up time. Where the
 * file is missing (running from sources) the module is made when the first machine needs it.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { decoder, encodeInterpreter, usePrebuiltInterpreter } from '../engine/interpreter.ts';

const location = new URL('./interpreter.wasm', import.meta.url);

export function writePrebuilt(): void {
  writeFileSync(location, encodeInterpreter(decoder()));
}

export function usePrebuilt(): void {
  let bytes: Buffer<ArrayBuffer>;
  try {
    bytes = readFileSync(location);
  } catch {
    return;
  }
  usePrebuiltInterpreter(bytes);
}
