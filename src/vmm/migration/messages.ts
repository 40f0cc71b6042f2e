/**
 * The messages of a migration and their frame types. What is small and rare is JSON, checked on the
 * way in; guest memory (`ram-codec.ts`), machine state and the map of received pages are binary.
 *
 *     source                                              destination
 *     hello (versions, session, purpose)             ──►
 *                                                    ◄──  welcome (version, status)
 *     machine (what must be equal, mode)             ──►
 *                                                    ◄──  accept, or refuse (why)
 *     ram …    the guest runs and writes             ──►
 *     ram, state, complete     it stands still       ──►
 *                                                    ◄──  ready      it has all, and cannot fail
 *     run      from here on the source is given up   ──►
 *                                                    ◄──  running
 *     bye                                            ──►
 *
 * In post-copy no `ram` goes before `state`; after `running` come `ram … end` with `request`s back,
 * and `whole` before `bye`. Pre-copy turns into post-copy by `missing` before `state`, which says
 * what of the memory that was sent is out of date. A link that broke after `run` is made again:
 * `hello` with purpose 'resume', `welcome` with how far the destination is, and in post-copy
 * `received` behind it. With purpose 'revoke' the source asks for its guest back, and the
 * destination gives it back for good ('revoked') unless it runs it.
 * Versions: a change that an older granule would take wrongly raises PROTOCOL_VERSION.
 */
import { z } from 'zod';
import { MachineDescriptionSchema } from './description.ts';
import { FRAME_HEADER_BYTES, type Frame } from './frame.ts';
import { MigrationError } from './migration-error.ts';

/** The versions this program speaks. */
export const PROTOCOL_VERSION_MIN = 1;
export const PROTOCOL_VERSION = 1;

const identity = z.string().regex(/^[0-9a-f]{32}$/);
const empty = z.strictObject({});

/**
 * Pages a `request` may name at most: every vCPU waits for one, and each may cross into another.
 */
export const REQUEST_PAGES_MAX = 64;

const schemas = {
  hello: z.strictObject({
    protocol: z.literal('granule-migration'),
    versions: z.tuple([z.int().min(1), z.int().min(1)]),
    /** Of this attempt; a link that is made again names it again. */
    session: identity,
    /** Of the guest, for as long as it lives. */
    guest: identity,
    purpose: z.enum(['migrate', 'resume', 'revoke']),
  }),
  welcome: z.strictObject({
    version: z.int().min(1),
    /**
     * How far the destination is with the session; 'unknown': it knows nothing of it. 'revoked':
     * the guest has not run here, and will not.
     */
    status: z.enum(['new', 'prepared', 'post-copy', 'running', 'revoked', 'unknown']),
  }),
  machine: z.strictObject({
    description: MachineDescriptionSchema,
    mode: z.enum(['precopy', 'postcopy']),
  }),
  accept: empty,
  refuse: z.strictObject({ sentence: z.string().max(1000) }),
  /** Everything needed to run has been sent; `running`: the guest was, and is to go on. */
  complete: z.strictObject({ stateBytes: z.int().min(0), running: z.boolean() }),
  ready: empty,
  run: empty,
  running: empty,
  request: z.strictObject({
    pages: z.array(z.tuple([z.int().min(0), z.int().min(0)])).max(REQUEST_PAGES_MAX),
  }),
  end: empty,
  whole: empty,
  /** Everything is settled: the source will not come again. */
  bye: empty,
  /** Says that the peer is there while it has nothing to say. */
  ping: empty,
} as const;

const binaryKinds = ['ram', 'state', 'received', 'missing'] as const;
type BinaryKind = (typeof binaryKinds)[number];
type ControlKind = keyof typeof schemas;

/** The fields of a message; zod calls those of none a record. */
type Fields<T> = string extends keyof T ? unknown : Readonly<T>;

export type ControlMessage = {
  [K in ControlKind]: { readonly kind: K } & Fields<z.infer<(typeof schemas)[K]>>;
}[ControlKind];

/** `payload` is valid until the next message is received. */
export type BinaryMessage = {
  [K in BinaryKind]: { readonly kind: K; readonly payload: Uint8Array };
}[BinaryKind];

export type Message = ControlMessage | BinaryMessage;
export type MessageKind = Message['kind'];

/** Type numbers on the wire; a number is never used again for something else. */
const FRAME_TYPES: Readonly<Record<MessageKind, number>> = {
  hello: 1,
  welcome: 2,
  machine: 3,
  accept: 4,
  refuse: 5,
  ram: 6,
  state: 7,
  complete: 8,
  ready: 9,
  run: 10,
  running: 11,
  request: 12,
  end: 13,
  whole: 14,
  received: 15,
  bye: 16,
  ping: 17,
  missing: 18,
};

const kindOf = new Map<number, MessageKind>(
  Object.entries(FRAME_TYPES).map(([kind, type]) => [type, kind as MessageKind]),
);

export const frameType = (kind: MessageKind): number => FRAME_TYPES[kind];

/** `message` as a frame whose header is still empty. */
export function encodeMessage(message: Message): Uint8Array {
  const payload = 'payload' in message ? message.payload : encodeJson(message);
  const frame = new Uint8Array(FRAME_HEADER_BYTES + payload.length);
  frame.set(payload, FRAME_HEADER_BYTES);
  return frame;
}

function encodeJson({ kind: _, ...fields }: ControlMessage): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(fields));
}

/** The message in `frame`; throws `MigrationError` 'protocol'. */
export function decodeMessage(frame: Frame): Message {
  const kind = kindOf.get(frame.type);
  if (kind === undefined) {
    throw new MigrationError('protocol', `a message of unknown type ${frame.type}`);
  }
  if (isBinary(kind)) return { kind, payload: frame.payload };
  return { kind, ...parseFields(kind, frame.payload) } as ControlMessage;
}

const isBinary = (kind: MessageKind): kind is BinaryKind =>
  (binaryKinds as readonly string[]).includes(kind);

function parseFields(kind: ControlKind, payload: Uint8Array): object {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload));
  } catch {
    throw new MigrationError('protocol', `message '${kind}' is not JSON`);
  }
  const parsed = schemas[kind].safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const where = issue?.path.join('.') ?? '';
  throw new MigrationError(
    'protocol',
    `message '${kind}': ${where === '' ? '' : `${where}: `}${issue?.message ?? 'invalid'}`,
  );
}
