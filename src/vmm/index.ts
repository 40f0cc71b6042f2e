/** The VMM's public face: boot plans, the `virt` board, devices, initial RAM disks. */
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
export * from './machine-error.ts';
export * from './machine-options.ts';
export * from './mmio-bus.ts';
