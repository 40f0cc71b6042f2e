/**
 * Allocation tags in their two shapes: two to a byte, low nibble first, as tag memory, snapshots
 * and the migration stream have them; and one to a byte, as KVM_ARM_MTE_COPY_TAGS, ptrace and loops
 * of LDG have them. Used by all who go from one to the other.
 */

/** One tag a byte (its low nibble) to two a byte; as many as `packed` has room for. */
export function packTags(tags: Uint8Array, packed: Uint8Array): void {
  for (let i = 0; i < packed.length; i++) {
    packed[i] = (tags[2 * i]! & 15) | ((tags[2 * i + 1]! & 15) << 4);
  }
}

/** All of `packed`, to one tag a byte in `tags` from `at` on. */
export function unpackTags(packed: Uint8Array, tags: Uint8Array, at = 0): void {
  for (let i = 0; i < packed.length; i++) {
    const two = packed[i]!;
    tags[at + 2 * i] = two & 15;
    tags[at + 2 * i + 1] = two >>> 4;
  }
}
