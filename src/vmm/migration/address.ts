/**
 * Where a migration goes, as a user writes it: `tcp:HOST:PORT`. Loopback may be reached as it is;
 * everything else only with TLS 1.3 and mutual authentication (`tls.ts`), since a migration stream
 * is all of a guest's memory, and whoever may send one runs code here.
 */
import { isIP } from 'node:net';
import { MigrationError } from './migration-error.ts';

export interface TcpAddress {
  readonly host: string;
  /** 0 … 65535; 0, to listen: any that is free. */
  readonly port: number;
}

/** `tcp:HOST:PORT`, an IPv6 address in brackets. Throws `MigrationError` 'address'. */
export function parseAddress(text: string): TcpAddress {
  const match = /^tcp:(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  if (match === null || host === undefined || port > 65535) {
    throw new MigrationError('address', `${text}: not an address like tcp:127.0.0.1:4444`);
  }
  return { host, port };
}

export const addressText = ({ host, port }: TcpAddress): string =>
  `tcp:${isIP(host) === 6 ? `[${host}]` : host}:${port}`;

/** Whether the address stays on this machine whatever a resolver says. */
export function isLoopback(host: string): boolean {
  const address = host.toLowerCase();
  if (address === 'localhost' || address === '::1') return true;
  return isIP(address) === 4 && address.startsWith('127.');
}

/** Throws `MigrationError` 'address' where the address may not be used without TLS. */
export function requireLoopback({ host, port }: TcpAddress): void {
  if (isLoopback(host)) return;
  const where = addressText({ host, port });
  throw new MigrationError(
    'address',
    `${where}: an address that is not loopback needs TLS, with a pre-shared key (--tls-psk FILE) ` +
      'or certificates (--tls-certificates FOLDER)',
  );
}
