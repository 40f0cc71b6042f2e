#!/usr/bin/env node
/**
 * The `granule` program: hands the process to `command.ts` and takes its exit status. Everything
 * below is loaded when a command first needs it; see `services.ts`.
 */
import { readFileSync } from 'node:fs';
import { runCli } from './command.ts';
import type { Services } from './services.ts';

const services: Services = {
  machine: async () => {
    const { runMachine } = await import('../vmm/run-machine.ts');
    (await import('./prebuilt.ts')).usePrebuilt();
    return runMachine;
  },
  fetchDebian: async (options) => (await import('../vmm/debian.ts')).fetchDebian(options),
  mteTest: async () => (await import('../vmm/guests/mte-linux.ts')).buildMteLinux(),
  embeddedGuest: async () => (await import('../vmm/guests/embedded.ts')).buildEmbeddedGuest().bytes,
};

const manifest: { version: string } = JSON.parse(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
);
const { stdin, stdout, stderr } = process;
const host = { stdin, stdout, stderr, events: process };

process.exitCode = await runCli(process.argv.slice(2), manifest.version, services, host);
