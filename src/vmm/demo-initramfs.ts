/**
 * Builds the demo's initial RAM disk: busybox, an /init that looks at the guest from inside, and
 * the MTE test program where one is given. /init ends with one line that says how it went, which
 * the caller looks for on the console, and powers off.
 *
 * What /init expects it reads from the kernel command line (`demoCommandLine`).
 */
import { type InitramfsEntry, writeInitramfs } from './initramfs.ts';

/** The lines of which exactly one ends a demo guest's output. */
export const GUEST_SUCCESS = 'granule: guest reports success';
export const GUEST_FAILURE = 'granule: guest reports failure';

const APPLETS = ['sh', 'cat', 'echo', 'grep', 'mount', 'nproc', 'poweroff', 'uname'] as const;

export interface DemoInitramfsOptions {
  /** A static busybox for arm64. */
  readonly busybox: Uint8Array;
  /**
   * A static ELF that checks MTE from user space and exits with 0 where all is well. It is run only
   * where the guest is to have MTE.
   */
  readonly mteTest?: Uint8Array;
}

/** The demo's initial RAM disk, not compressed: the guest would pay for unpacking it. */
export function demoInitramfs({ busybox, mteTest }: DemoInitramfsOptions): Uint8Array {
  const entries: InitramfsEntry[] = [
    { kind: 'directory', path: 'dev' },
    { kind: 'character-device', path: 'dev/console', major: 5, minor: 1 },
    { kind: 'directory', path: 'proc' },
    { kind: 'directory', path: 'sys' },
    { kind: 'file', path: 'init', mode: 0o755, bytes: new TextEncoder().encode(INIT) },
    { kind: 'file', path: 'bin/busybox', mode: 0o755, bytes: busybox },
    ...APPLETS.map(
      (applet): InitramfsEntry => ({
        kind: 'symlink',
        path: `bin/${applet}`,
        target: 'busybox',
      }),
    ),
  ];
  if (mteTest !== undefined) {
    entries.push({ kind: 'file', path: 'bin/mte-test', mode: 0o755, bytes: mteTest });
  }
  return writeInitramfs(entries);
}

/** The kernel command line that tells /init what to find; a panic resets the guest at once. */
export function demoCommandLine(expected: {
  readonly mte: boolean;
  readonly cpuCount: number;
}): string {
  const mte = expected.mte ? 'on' : 'off';
  return `console=ttyAMA0 panic=-1 granule.mte=${mte} granule.cpus=${expected.cpuCount}`;
}

/**
 * Parameters with a dot are taken for a module's, so the kernel leaves them out of init's own
 * arguments; /proc/cmdline has them. `poweroff -f` is the reboot system call itself.
 */
const INIT = `#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null

expected() { # name, default
  for word in $(cat /proc/cmdline); do
    case "$word" in "granule.$1="*) echo "\${word#*=}"; return;; esac
  done
  echo "$2"
}

result=success
fail() {
  echo "granule: $*"
  result=failure
}

mte=$(expected mte off)
cpus=$(expected cpus "$(nproc)")
features=$(grep -m 1 '^Features' /proc/cpuinfo)

echo "granule: Linux $(uname -r) on $(nproc) CPU(s)"
echo "granule: $features"

[ "$(nproc)" = "$cpus" ] || fail "$cpus CPU(s) are expected"

case " $features " in
  *" mte "*) [ "$mte" = on ] || fail "mte is among the features of a guest without MTE" ;;
  *) [ "$mte" = off ] || fail "mte is not among the features" ;;
esac

if [ "$mte" = on ] && [ -x /bin/mte-test ]; then
  /bin/mte-test || fail "mte-test ended with status $?"
fi

echo "granule: guest reports $result"
poweroff -f
`;
