/**
 * A machine's state to bytes and back, for snapshots and for migration: each part of it is one
 * section with its JSON. What comes back has been checked against its schema; whether it fits a
 * machine, `apply.ts` says.
 */
import { z } from 'zod';
import {
  type MachineState,
  type StateSectionName,
  stateSectionNames,
  stateSections,
} from './machine-state.ts';
import { decodeSections, encodeSections, type Section } from './sections.ts';
import { StateError } from './state-error.ts';

/**
 * Which states this version writes and takes: it changes whenever the version of a section does.
 */
export const STATE_VERSION = stateSectionNames.reduce(
  (sum, name) => sum + stateSections[name].version,
  0,
);

/** The bytes of a state; equal states give equal bytes. */
export function encodeState(state: MachineState): Uint8Array<ArrayBuffer> {
  const encoder = new TextEncoder();
  return encodeSections(
    stateSectionNames.map((name) => ({
      name,
      version: stateSections[name].version,
      payload: encoder.encode(JSON.stringify(z.encode(schemaOf(name), state[name]))),
    })),
  );
}

/** The state in `bytes`. Throws `StateError`, with nothing half done. */
export function decodeState(bytes: Uint8Array): MachineState {
  const found = new Map<string, unknown>();
  for (const section of decodeSections(bytes)) {
    const name = knownName(section);
    if (found.has(name)) throw new StateError('corrupted', `section ${name} is there twice`);
    found.set(name, contentOf(name, section));
  }
  const missing = stateSectionNames.find((name) => !found.has(name));
  if (missing !== undefined)
    throw new StateError('missing-section', `section ${missing} is missing`);
  return Object.fromEntries(found) as MachineState;
}

/** The schemas differ in type; which one belongs to which content, `stateSections` says. */
const schemaOf = (name: StateSectionName): z.ZodType => stateSections[name].schema;

function knownName({ name, version }: Section): StateSectionName {
  const known = stateSectionNames.find((candidate) => candidate === name);
  if (known === undefined) {
    throw new StateError('unknown-section', `section ${name} is unknown to this version`);
  }
  if (version !== stateSections[known].version) {
    const text = `section ${name} has version ${version}, not ${stateSections[known].version}`;
    throw new StateError('other-version', text);
  }
  return known;
}

function contentOf(name: StateSectionName, { payload }: Section): unknown {
  const invalid = (reason: string): StateError =>
    new StateError('invalid', `section ${name}: ${reason}`);
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload));
  } catch {
    throw invalid('its content is no JSON');
  }
  const parsed = schemaOf(name).safeParse(json);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw invalid(`${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'not as its schema says'}`);
}
