/**
 * Layout of the software TLBs that generated code probes, and of the fetch TLB.
 *
 * A data TLB is direct-mapped by VA bits above 12, one for each translation regime a vCPU can run
 * in (`TlbMode`). An entry (32 bytes):
 *
 *   +0   i64 readTag    VA of the page under `mask`; -1 = no read from here
 *   +8   i64 writeTag   the same for writes; valid only where readTag is
 *   +16  i32 delta      linear address = low 32 bits of VA + delta (wraps)
 *   +20  i32 flags      ENTRY_*, and the size class of the mapping at ENTRY_SIZE_SHIFT
 *   +24  i64 mask       VA bits that count: not 11:0; not 63:56 where the half has TBI
 *
 * Fetch TLB entry (16 bytes): i64 VA of the page or -1; i32 linear address of its record page;
 * i32 global.
 *
 * Invariant: an entry exists only for RAM that is Normal Write-Back and permits the access;
 * anything else always takes the slow path. An entry with a write tag never names a page that holds
 * code. A mask, that of an empty entry too, has bits 11:0 clear, so that nothing matches a tag of
 * -1.
 */

export const TLB_ENTRIES = 1024;
export const TLB_ENTRY_SHIFT = 5;
export const TLB_ENTRY_BYTES = 1 << TLB_ENTRY_SHIFT;
export const TLB_BYTES = TLB_ENTRIES * TLB_ENTRY_BYTES;

export const FETCH_TLB_ENTRIES = 512;
export const FETCH_TLB_ENTRY_SHIFT = 4;
export const FETCH_TLB_BYTES = FETCH_TLB_ENTRIES << FETCH_TLB_ENTRY_SHIFT;

/** Data TLBs of a vCPU: accesses with EL0's permissions, EL1's, and EL1's under PAN. */
export const TlbMode = { el0: 0, el1: 1, el1Pan: 2 } as const;
export type TlbMode = (typeof TlbMode)[keyof typeof TlbMode];
export const TLB_MODE_COUNT = 3;

/** Offset of the fetch TLBs (EL0, then EL1) behind the data TLBs of a vCPU. */
export const FETCH_TLB_OFFSET = TLB_MODE_COUNT * TLB_BYTES;
export const TLB_BYTES_PER_VCPU = FETCH_TLB_OFFSET + 2 * FETCH_TLB_BYTES;

export const TLB_READ_TAG = 0;
export const TLB_WRITE_TAG = 8;
export const TLB_DELTA = 16;
export const TLB_FLAGS = 20;
export const TLB_MASK = 24;
export const FETCH_RECORDS = 8;
export const FETCH_GLOBAL = 12;

/** Memory is Tagged and logical tags are checked at this half of the VA space (TBI is on). */
export const ENTRY_CHECKED = 1;
/** Memory is Tagged: tag loads and stores reach its tags. */
export const ENTRY_TAGGED = 2;
/** The entry survives a change of ASID. */
export const ENTRY_GLOBAL = 4;
export const ENTRY_SIZE_SHIFT = 8;
