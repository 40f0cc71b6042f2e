/**
 * The answers recorded on a real Linux KVM (test/data/kvm-oracle.json) and how granule's are put
 * into the same words. Linux 6.12.95 and 6.1.192 under QEMU 10.0.2, `-cpu max`; a row's `on61` is
 * 6.1's answer where it is another. Used by the tests of KVM with real vCPUs.
 */
import { errnoName, isRefusal } from '../../src/host/index.ts';
import type { VcpuExit } from '../../src/kvm/vcpu.ts';
import recorded from '../data/kvm-oracle.json' with { type: 'json' };
import { type Answer, answerText } from './guest-vm.ts';

export interface OracleRow {
  readonly id: string;
  readonly call: string;
  /** Linux 6.12's answer: the call's result, errno, and what was read. */
  readonly expected: string;
  readonly on61?: string;
}

const rows: readonly OracleRow[] = recorded;

/** The rows of a section, in the order in which they were recorded. */
export const oracleSection = (letter: string): readonly OracleRow[] =>
  rows.filter(({ id }) => id.startsWith(letter));

export const hex = (value: bigint | number): string => `0x${value.toString(16)}`;

/** A call's result: `ret=0`, or `ret=-1 · EINVAL`. */
export const resultText = (result: number | bigint): string =>
  isRefusal(result) ? `ret=-1 · ${errnoName(result)}` : `ret=${result}`;

/** KVM_RUN's: Linux leaves exit_reason at 0 where it fails, MMIO as it was decoded. */
export function exitText(exit: VcpuExit): string {
  if (exit.kind === 'error') {
    return `ret=-1 · ${errnoName(exit.errno)} · KVM_RUN=-1 exit_reason=0`;
  }
  if (exit.kind !== 'mmio') return exit.kind;
  const direction = exit.isWrite ? 'write' : 'read';
  const access = `phys=${hex(exit.ipa)} len=${exit.size} data=${hex(exit.data)}`;
  return `ret=0 · KVM_EXIT_MMIO ${direction} ${access}`;
}

/** A guest program's: `ret=0 · guest value=0x0`, or how else it ended. */
export function guestText(answer: Answer): string {
  if (answer.kind === 'value') return `ret=0 · guest value=${hex(answer.value)}`;
  return answer.kind === 'exit' ? exitText(answer.exit) : answerText(answer);
}

/** Tags as the recording writes them: one hexadecimal digit a tag granule. */
export const tagsText = (tags: Iterable<number>): string =>
  Array.from(tags, (tag) => tag.toString(16)).join('');
