/**
 * The part of `Ops` that reaches system registers and PSTATE, in place where a slot and the EL
 * allow it, and the floating-point operations that TypeScript carries out.
 */
import { type I32, type Letter, type Ops, SystemOp } from '../arm/a64/ops.ts';
import { softOperationId } from '../arm/fp/index.ts';
import { type SystemRegisterName, systemRegister } from '../arm/sysreg/index.ts';
import { assert } from '../base/index.ts';
import { type ControlOps, emitSystem, emitSystemIf } from './control-ops.ts';
import * as E from './expressions.ts';
import { type Handler, ImportIndex } from './handler.ts';
import type { OpcodeFields } from './opcode-fields.ts';
import type { GeneralOps } from './register-ops.ts';
import * as S from './state.ts';
import { Op } from './wasm/code.ts';

const ZERO = E.i32(0);

/** Offset of a system register in the state. */
function slotOf(name: SystemRegisterName): number {
  const { slot } = systemRegister(name);
  assert(slot >= 0, 'the system register has a slot');
  return S.SYSREG + slot * 8;
}

type SystemOps = Pick<
  Ops,
  | 'sysreg'
  | 'setSysreg'
  | 'readSystemRegister'
  | 'writeSystemRegister'
  | 'daif'
  | 'setDaif'
  | 'el'
  | 'soft'
  | 'setSaturated'
>;

/** The parts it builds on. */
interface Parts {
  readonly fields: OpcodeFields;
  readonly general: GeneralOps;
  readonly control: ControlOps;
}

export function systemOps(h: Handler, { fields, general, control }: Parts): SystemOps {
  const el = (): I32 => h.loadI32(ZERO, S.EL);

  /** Address of the slot for in-place access, or 0, when the table and the EL allow it. */
  const inPlaceSlot = (table: number, register: Letter): I32 => {
    const entry = h.load(Op.i32Load16U, fields.scaled(register, 1), table, 'i32');
    const permitted = E.or(E.and(entry, E.i32(1)), el());
    return control.let(E.select(permitted, E.and(entry, E.i32(-2)), ZERO));
  };

  return {
    el,
    sysreg: (name) => h.loadI64(ZERO, slotOf(name)),
    setSysreg: (name, value) => h.store(Op.i64Store, ZERO, slotOf(name), value),

    readSystemRegister(register, target) {
      const slot = inPlaceSlot(S.MRS_TABLE, register);
      control.if(
        slot,
        () => general.setX(target, h.loadI64(slot, 0)),
        () => emitSystem(h, SystemOp.mrs),
      );
    },

    writeSystemRegister(register, source) {
      const slot = inPlaceSlot(S.MSR_TABLE, register);
      control.if(
        slot,
        () => h.store(Op.i64Store, slot, 0, general.x(source)),
        () => emitSystem(h, SystemOp.msr),
      );
    },

    daif: () => h.loadI32(ZERO, S.DAIF),
    setDaif(value) {
      h.store(Op.i32Store, ZERO, S.DAIF, value);
      emitSystemIf(h, h.loadI32(ZERO, S.IRQ_LINE), SystemOp.irqCheck);
    },

    soft(name, args) {
      args.forEach((value, i) => {
        h.store(Op.i64Store, ZERO, S.SCRATCH + 8 * i, value);
      });
      h.code.i32(softOperationId(name)).op(Op.call).u32(ImportIndex.soft);
      return h.loadI64(ZERO, S.SCRATCH);
    },

    setSaturated(condition) {
      const qc = E.shl(E.zext(condition), E.i64(27));
      h.store(Op.i64Store, ZERO, slotOf('FPSR'), E.or(h.loadI64(ZERO, slotOf('FPSR')), qc));
    },
  };
}
