/**
 * Rows of "Exceptions and system": exception generation, system registers, hints, barriers, PSTATE.
 */
import { type Ops, SystemOp } from './ops.ts';
import { type Alias, alias, type Row, row } from './row.ts';

/** An instruction that only TypeScript carries out. */
const system = (
  name: string,
  pattern: string,
  syntax: string,
  op: SystemOp,
  refines?: string,
): Row => row(name, pattern, syntax, (b) => b.system(op), refines === undefined ? {} : { refines });

const nothing = (): void => {};
const hint = (name: string, number: number, op?: SystemOp): Row =>
  row(
    name.toUpperCase(),
    `11010101000000110010 ${number.toString(2).padStart(7, '0')} 11111`,
    name,
    op === undefined ? nothing : (b) => b.system(op),
    { refines: 'HINT' },
  );

/** At EL0 these depend on SCTLR_EL1.UMA: TypeScript decides. */
const privileged = (b: Ops, op: SystemOp, inPlace: () => void): void =>
  b.if(b.el(), inPlace, () => b.system(op));

/** The forms that kernels use to mask and unmask interrupts, done in place. */
const daifRows: Row[] = [
  row(
    'MSR_DAIFSet',
    '1101010100 0 00 011 0100 iiii 110 11111',
    'msr daifset, #<u:i>',
    (b) => privileged(b, SystemOp.msrImmediate, () => b.setDaif(b.or(b.daif(), b.field('i')))),
    { refines: 'MSR_imm' },
  ),
  row(
    'MSR_DAIFClr',
    '1101010100 0 00 011 0100 iiii 111 11111',
    'msr daifclr, #<u:i>',
    (b) =>
      privileged(b, SystemOp.msrImmediate, () => b.setDaif(b.and(b.daif(), b.not(b.field('i'))))),
    { refines: 'MSR_imm' },
  ),
  row(
    'MRS_DAIF',
    '1101010100 1 1 101101000010001 ttttt',
    'mrs <X:t>, daif',
    (b) => privileged(b, SystemOp.mrs, () => b.setX('t', b.shl(b.zext(b.daif()), b.i64(6)))),
    { refines: 'MRS' },
  ),
  row(
    'MSR_DAIF',
    '1101010100 0 1 101101000010001 ttttt',
    'msr daif, <X:t>',
    (b) =>
      privileged(b, SystemOp.msr, () => b.setDaif(b.and(b.shrU(b.w('t'), b.i32(6)), b.i32(15)))),
    { refines: 'MSR_reg' },
  ),
];

export const rows: Row[] = [
  system('SVC', '11010100 000 iiiiiiiiiiiiiiii 00001', 'svc #<u:i>', SystemOp.svc),
  system('HVC', '11010100 000 iiiiiiiiiiiiiiii 00010', 'hvc #<u:i>', SystemOp.hvc),
  system('SMC', '11010100 000 iiiiiiiiiiiiiiii 00011', 'smc #<u:i>', SystemOp.smc),
  system('BRK', '11010100 001 iiiiiiiiiiiiiiii 00000', 'brk #<u:i>', SystemOp.brk),
  system('HLT', '11010100 010 iiiiiiiiiiiiiiii 00000', 'hlt #<u:i>', SystemOp.hlt),
  system('ERET', '1101011 0100 11111 000000 11111 00000', 'eret', SystemOp.eret),

  system(
    'MSR_imm',
    '1101010100 0 00 ooo 0100 iiii ppp 11111',
    'msr <pstate:o,p>, #<u:i>',
    SystemOp.msrImmediate,
  ),
  row(
    'CFINV',
    '1101010100 0 00 000 0100 0000 000 11111',
    'cfinv',
    (b) => b.setNzcv(b.xor(b.nzcv(), b.i32(2))),
    { feature: 'FEAT_FlagM', refines: 'MSR_imm' },
  ),
  ...daifRows,
  row('MRS', '1101010100 1 1 iiiiiiiiiiiiiii ttttt', 'mrs <X:t>, <sysreg:i>', (b) =>
    b.readSystemRegister('i', 't'),
  ),
  row('MSR_reg', '1101010100 0 1 iiiiiiiiiiiiiii ttttt', 'msr <sysreg:i>, <X:t>', (b) =>
    b.writeSystemRegister('i', 't'),
  ),
  system(
    'SYS',
    '1101010100 0 01 ooo nnnn mmmm ppp ttttt',
    'sys #<u:o>, <C:n>, <C:m>, #<u:p>{, <X:t=31>}',
    SystemOp.sys,
  ),
  system(
    'SYSL',
    '1101010100 1 01 ooo nnnn mmmm ppp ttttt',
    'sysl <X:t>, #<u:o>, <C:n>, <C:m>, #<u:p>',
    SystemOp.sysl,
  ),

  row('HINT', '11010101000000110010 iiiiiii 11111', 'hint #<u:i>', nothing),
  hint('nop', 0),
  hint('yield', 1, SystemOp.yield),
  hint('wfe', 2, SystemOp.wfe),
  hint('wfi', 3, SystemOp.wfi),
  hint('sev', 4, SystemOp.sev),
  hint('sevl', 5, SystemOp.sevl),
  row('CLREX', '11010101000000110011 iiii 010 11111', 'clrex{ #<u:i=15>}', (b) =>
    b.clearExclusive(),
  ),
  // One vCPU runs at a time and its accesses take effect in program order: barriers have no work.
  row('DSB', '11010101000000110011 iiii 100 11111', 'dsb <barrier:i>', nothing),
  row('DMB', '11010101000000110011 iiii 101 11111', 'dmb <barrier:i>', nothing),
  row('ISB', '11010101000000110011 iiii 110 11111', 'isb{ <isb:i=15>}', nothing),
];

const dcLike = (name: string, crn: string): Alias =>
  alias(
    name.toUpperCase(),
    `1101010100 0 01 ooo ${crn} mmmm ppp ttttt`,
    `${name} <${name}:o,m,p,t>`,
  );

export const aliases: Alias[] = [
  alias('DC', '1101010100 0 01 ooo 0111 mmmm ppp ttttt', 'dc <dc:o,m,p,t>'),
  alias('IC', '1101010100 0 01 ooo 0111 mmmm ppp ttttt', 'ic <ic:o,m,p,t>'),
  alias('AT', '1101010100 0 01 ooo 0111 mmmm ppp ttttt', 'at <at:o,m,p,t>'),
  dcLike('tlbi', '1000'),
];
