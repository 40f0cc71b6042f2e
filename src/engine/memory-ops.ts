/**
 * The part of `Ops` that reaches guest memory and its allocation tags, by way of the inline path in
 * `memory-access.ts`, and the exclusive monitor.
 */
import { type I32, type I64, type Ops, SystemOp } from '../arm/a64/ops.ts';
import { assert } from '../base/index.ts';
import { type ControlOps, emitSystemIf } from './control-ops.ts';
import * as E from './expressions.ts';
import { type Handler, ImportIndex } from './handler.ts';
import { emitAccess, emitTagAccess, emitTagLoad, emitTagStore } from './memory-access.ts';
import * as S from './state.ts';
import { BLOCK_EMPTY, Op } from './wasm/code.ts';

const ZERO = E.i32(0);

/** An access through SP as the base checks its alignment first. Arm: CheckSPAlignment(). */
function checkSpAlignment(h: Handler): void {
  if (!h.isSpBase) return;
  h.isSpBase = false;
  const misaligned = E.asI32((c) => {
    c.loadAt(Op.i32Load, S.SP).loadAt(Op.i32Load, S.SP_CHECK).op(Op.i32And);
  });
  emitSystemIf(h, misaligned, SystemOp.spAlignment);
}

function localOf(h: Handler, value: I64): number {
  E.emit(value, h.code);
  const local = h.newLocal('i64');
  h.code.set(local);
  return local;
}

type DataOps = Pick<Ops, 'access' | 'commit' | 'ld' | 'ldV' | 'st' | 'stV'>;

/** Data accesses. */
export const dataOps = (h: Handler): DataOps => ({
  access(options) {
    assert(options.bytes <= 64, 'an access has at most 64 bytes');
    checkSpAlignment(h);
    const va = localOf(h, options.va);
    return h.local('i32', emitAccess(h, options, va)) as I32;
  },

  commit(address) {
    E.emit(address, h.code);
    h.code.i32(S.BOUNCE).op(Op.i32Eq).op(Op.if).op(BLOCK_EMPTY);
    h.code.op(Op.call).u32(ImportIndex.commit).op(Op.end);
  },

  ld: (address, offset, bytes) => h.loadBytes(bytes, address, offset),
  ldV: (address, offset) => h.loadV128(address, offset),
  st: (address, offset, bytes, value) => h.storeBytes(bytes, address, offset, value),
  stV: (address, offset, value) => h.storeV128(address, offset, value),
});

type ExclusiveOps = Pick<Ops, 'markExclusive' | 'exclusiveHeld' | 'clearExclusive'>;

/** The exclusive monitor. */
export const exclusiveOps = (h: Handler, control: ControlOps): ExclusiveOps => ({
  markExclusive(address, bytes) {
    h.store(Op.i32Store, ZERO, S.MONITOR_ADDRESS, address);
    h.store(Op.i32Store, ZERO, S.MONITOR_BYTES, E.i32(bytes));
  },

  exclusiveHeld(address, bytes) {
    const marked = h.loadI32(ZERO, S.MONITOR_ADDRESS);
    const size = h.loadI32(ZERO, S.MONITOR_BYTES);
    return control.let(E.and(E.eq(marked, address), E.eq(size, E.i32(bytes))));
  },

  clearExclusive: () => h.store(Op.i32Store, ZERO, S.MONITOR_ADDRESS, ZERO),
});

/** Where a tag access goes: the linear address, and 1 where there are tags. */
interface TagTarget {
  readonly address: I32;
  readonly tagged: I32;
}

type TagOps = Pick<Ops, 'tagAccessEnabled' | 'tagAccess' | 'ldTag' | 'stTag'>;

/** Allocation tags. */
export function tagOps(h: Handler, control: ControlOps): TagOps {
  /** Second halves of tag accesses that may touch two pages, by their first address. */
  const secondHalves = new WeakMap<I32, TagTarget & { readonly first: I32 }>();

  return {
    tagAccessEnabled: () => E.ne(h.loadI32(ZERO, S.TAG_FLAGS), ZERO),

    tagAccess(options) {
      checkSpAlignment(h);
      const va = localOf(h, options.va);
      const part = (bytes: number, from: number): TagTarget => {
        const { address, tagged } = emitTagAccess(h, { ...options, bytes }, from);
        return {
          address: h.local('i32', address) as I32,
          tagged: h.local('i32', tagged) as I32,
        };
      };
      // Two tag granules may lie in two pages (ST2G); larger accesses are aligned to their size.
      if (options.bytes !== 32) return part(options.bytes, va);
      const first = part(16, va);
      const secondVa = E.add(h.local('i64', va) as I64, E.i64(16));
      const second = part(16, localOf(h, secondVa));
      secondHalves.set(first.address, { ...second, first: first.tagged });
      return { address: first.address, tagged: E.or(first.tagged, second.tagged) };
    },

    ldTag(address, offset = 0) {
      emitTagLoad(h, address, offset);
      return h.pop('i32');
    },

    stTag(address, tag, offset = 0) {
      const second = secondHalves.get(address);
      if (second === undefined) {
        emitTagStore(h, address, tag, offset);
      } else if (offset === 0) {
        control.if(second.first, () => emitTagStore(h, address, tag, 0));
      } else {
        control.if(second.tagged, () => emitTagStore(h, second.address, tag, 0));
      }
    },
  };
}
