/**
 * Mutual authentication for links that leave the machine: TLS 1.3 with a pre-shared key or with
 * certificates of an authority of one's own, through Node's `tls`. Reads the files, checks them,
 * and gives options for both ends; `tcp.ts` makes the connections.
 *
 * A key file holds lines `identity:hexadecimal key`, as GnuTLS's psktool and QEMU's tls-creds-psk
 * have it; the first line counts. A folder of certificates holds QEMU's names: ca-cert.pem, and
 * server-cert.pem with server-key.pem or client-cert.pem with client-key.pem.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ConnectionOptions, TlsOptions } from 'node:tls';
import { MigrationError } from './migration-error.ts';

/** How the peer is known. */
export type TlsCredentials =
  | { readonly kind: 'psk'; readonly identity: string; readonly key: Uint8Array }
  | {
      readonly kind: 'certificates';
      readonly ca: string;
      readonly certificate: string;
      readonly key: string;
    };

export type TlsEnd = 'client' | 'server';

/** Pre-shared keys go with the hash of the suite: SHA-256. */
const PSK_CIPHERS = 'TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256';
const KEY_BYTES_MIN = 16;

/** The credentials in a key file. Throws `MigrationError` 'address'. */
export function readPsk(path: string): TlsCredentials {
  const [line = ''] = readText(path).split('\n');
  const match = /^([^:\s]{1,128}):([0-9a-fA-F]+)\s*$/.exec(line);
  const key = Buffer.from(match?.[2] ?? '', 'hex');
  if (match === null || key.length < KEY_BYTES_MIN || key.length * 2 !== match[2]!.length) {
    throw new MigrationError(
      'address',
      `${path}: the first line is not identity:key with a key of at least ${2 * KEY_BYTES_MIN} ` +
        'hexadecimal digits',
    );
  }
  return { kind: 'psk', identity: match[1]!, key };
}

/** The credentials of one end in a folder. Throws `MigrationError` 'address'. */
export function readCertificates(folder: string, end: TlsEnd): TlsCredentials {
  return {
    kind: 'certificates',
    ca: readText(join(folder, 'ca-cert.pem')),
    certificate: readText(join(folder, `${end}-cert.pem`)),
    key: readText(join(folder, `${end}-key.pem`)),
  };
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
    throw new MigrationError('address', `${path}: cannot be read (${code})`);
  }
}

export function clientOptions(credentials: TlsCredentials): ConnectionOptions {
  if (credentials.kind === 'certificates') return certificateOptions(credentials);
  const { identity, key } = credentials;
  return {
    minVersion: 'TLSv1.3',
    ciphers: PSK_CIPHERS,
    pskCallback: () => ({ psk: key, identity }),
    // Who has the key is the server; who shows a certificate instead is nobody we know, whoever
    // vouches for it.
    ca: [],
    checkServerIdentity: (_host, certificate) =>
      isEmpty(certificate) ? undefined : new Error(CERTIFICATE_FOR_KEY),
  };
}

const CERTIFICATE_FOR_KEY = 'the peer shows a certificate and does not prove that it has the key';

const isEmpty = (certificate: object | undefined): boolean =>
  Object.keys(certificate ?? {}).length === 0;

export function serverOptions(credentials: TlsCredentials): TlsOptions {
  if (credentials.kind === 'certificates') {
    return { ...certificateOptions(credentials), requestCert: true, rejectUnauthorized: true };
  }
  const { identity, key } = credentials;
  return {
    minVersion: 'TLSv1.3',
    ciphers: PSK_CIPHERS,
    pskCallback: (_socket, offered) => (offered === identity ? key : null),
  };
}

const certificateOptions = ({
  ca,
  certificate,
  key,
}: Extract<TlsCredentials, { kind: 'certificates' }>) => ({
  minVersion: 'TLSv1.3' as const,
  ca,
  cert: certificate,
  key,
  rejectUnauthorized: true,
});

/** What OpenSSL and Node call what a user can put right, in words; by parts of the code. */
const REASONS: readonly (readonly [code: RegExp, words: string])[] = [
  [/CERT_HAS_EXPIRED/, "the peer's certificate has expired"],
  [/ALTNAME_INVALID/, "the peer's certificate is for another host"],
  [/INVALID_PURPOSE/, "the peer's certificate is for the other end of a link"],
  [/UNABLE_TO_|SELF_SIGNED/, "the peer's certificate is not of the authority in ca-cert.pem"],
  [/PEER_DID_NOT_RETURN_A_CERTIFICATE/, 'the peer has no certificate'],
  [/WRONG_VERSION_NUMBER|UNEXPECTED_MESSAGE|HTTP_REQUEST|PACKET_LENGTH/, 'the peer speaks no TLS'],
  [/ILLEGAL_PARAMETER|BINDER_DOES_NOT_VERIFY|DECRYPT/, 'the pre-shared keys differ'],
  [
    /HANDSHAKE_FAILURE|NO_SHARED_CIPHER|BAD_PSK|NO_SUITABLE_SIGNATURE/,
    'the peer does not know our identity or key',
  ],
  [/ALERT/, 'the peer does not take our certificate'],
];

/**
 * What went wrong with TLS, in words; undefined: nothing that is known here. `ours`: how we wanted
 * to know the peer.
 */
export function tlsReason(code: string, ours?: TlsCredentials['kind']): string | undefined {
  if (ours === 'psk' && /UNABLE_TO_|SELF_SIGNED/.test(code)) return CERTIFICATE_FOR_KEY;
  return REASONS.find(([pattern]) => pattern.test(code))?.[1];
}
