/**
 * The VMM's public face: boot plans, the `virt` board, devices, initial RAM disks; machines that
 * run, are saved, restored and moved.
 */
export * from './board.ts';
export * from './boot.ts';
export * from './boot-error.ts';
export type { BootFile } from './boot-file.ts';
export * from './demo-initramfs.ts';
export * from './devices/device.ts';
export * from './devices/pl011.ts';
export * from './devices/pl031.ts';
export * from './devices/uart-feed.ts';
export type { GuestMemory } from './guest-memory.ts';
export * from './initramfs.ts';
export { Machine, type MachineSetup, type PowerEvent } from './machine.ts';
export * from './machine-error.ts';
export * from './machine-options.ts';
export * from './migration/address.ts';
export type { IncomingMigration, IncomingOptions } from './migration/incoming.ts';
export { type Link, memoryLinkPair, type Time } from './migration/link.ts';
export { MigrationError } from './migration/migration-error.ts';
export type { OutgoingMigration, OutgoingOptions } from './migration/outgoing.ts';
export type {
  DestinationPhase,
  MigrationEvent,
  MigrationStatistics,
  SourcePhase,
} from './migration/progress.ts';
export type { MigrationMode, SourceOutcome } from './migration/source.ts';
export { TAG_POLICIES, type TagPolicy } from './migration/tag-policies.ts';
export type { TagOptions } from './migration/tags.ts';
export { readCertificates, readPsk, type TlsCredentials } from './migration/tls.ts';
export * from './mmio-bus.ts';
export { MonitorClient } from './monitor/client.ts';
export { MachineSession, type SessionEvent } from './monitor/machine-session.ts';
export { RunControl, type RunEvent, type RunState } from './monitor/run-control.ts';
export { MonitorServer } from './monitor/server.ts';
export { runMachine } from './run-machine.ts';
export { restoring } from './snapshot/attach.ts';
export { infoLines, type SnapshotInfo, snapshotInfo } from './snapshot/info.ts';
export { machineOf, restoreSnapshot, restoreSnapshotLazily } from './snapshot/restore.ts';
export { type SaveOptions, type SaveProgress, saveSnapshot } from './snapshot/save.ts';
export { SnapshotError } from './snapshot/snapshot-error.ts';
export { openSnapshot, type SnapshotFile } from './snapshot/snapshot-file.ts';
export * from './start-machine.ts';
export { hashMachine } from './state-hash.ts';
